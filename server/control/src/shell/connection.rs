//! One proved connection: frames in, frames out, and a bound on what waits for a peer that does not read.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use talea_fabric::frame::{FrameDecoder, frame_header};
use talea_fabric::{Hello, PeerId};
use talea_model::{Process, ServerId, SessionId};
use talea_wire::codec::MAX_CONTROL_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::store::StoreError;

/// Most bytes that wait for a client, and for a server that catches up.
const CLIENT_BYTES: usize = 8 * 1024 * 1024;
const SERVER_BYTES: usize = 256 * 1024 * 1024;
/// Messages are written together up to this size.
const WRITE_BYTES: usize = 256 * 1024;

/// What happens around the node.
pub(super) enum Event {
    Up {
        peer: PeerId,
        hello: Hello,
        process: Option<Process>,
        outbox: Outbox,
    },
    ServerUp {
        server: ServerId,
        peer: PeerId,
        outbox: Outbox,
    },
    ServerFailed {
        server: ServerId,
    },
    Message {
        peer: PeerId,
        bytes: Vec<u8>,
    },
    Down {
        peer: PeerId,
    },
    Died {
        peer: PeerId,
    },
    SessionDied {
        session: SessionId,
    },
    /// Changes of the log, notes or both are flushed.
    Flushed {
        log: bool,
        notes: bool,
        result: Result<(), StoreError>,
    },
}

/// How long a connection that was ended from here may take to send what it was given.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where messages to a peer go. Dropping it ends the connection.
pub(super) struct Outbox {
    ended: Arc<Notify>,
    messages: mpsc::UnboundedSender<Vec<u8>>,
    waiting_bytes: Arc<AtomicUsize>,
    most_bytes: usize,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.ended.notify_one();
    }
}

impl Outbox {
    /// Queues a message; false if the peer does not keep up and has to go.
    pub(super) fn send(&self, bytes: Vec<u8>) -> bool {
        let waiting = self.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        // A closed channel is a connection that is ending by itself: its end will be told.
        let _ = self.messages.send(bytes);
        waiting <= self.most_bytes
    }
}

/// Runs a connection until it ends, from either side. `up` makes the event that hands over its outbox.
pub(super) fn run<R, W>(
    peer: PeerId,
    is_server: bool,
    read: R,
    write: W,
    events: mpsc::Sender<Event>,
    up: impl FnOnce(Outbox) -> Event + Send,
) -> impl Future<Output = ()> + Send
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (messages, outgoing) = mpsc::unbounded_channel();
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let most_bytes = if is_server { SERVER_BYTES } else { CLIENT_BYTES };
    let ended = Arc::new(Notify::new());
    let up = up(Outbox { ended: ended.clone(), messages, waiting_bytes: waiting_bytes.clone(), most_bytes });
    async move {
        if events.send(up).await.is_err() {
            return;
        }
        tokio::select! {
            () = receive(peer, read, &events) => {}
            () = transmit(write, outgoing, &waiting_bytes) => {}
            () = async { ended.notified().await; tokio::time::sleep(LAST_WORDS).await } => {}
        }
        let _ = events.send(Event::Down { peer }).await;
    }
}

async fn receive<R: AsyncRead + Unpin>(peer: PeerId, mut read: R, events: &mpsc::Sender<Event>) {
    let mut decoder = FrameDecoder::new(MAX_CONTROL_BYTES);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let filled = match read.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(filled) => filled,
        };
        let mut rest = &buffer[..filled];
        while !rest.is_empty() {
            match decoder.push(&mut rest) {
                Ok(Some(bytes)) => {
                    if events.send(Event::Message { peer, bytes }).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(peer = peer.0, %error, "closing a connection");
                    return;
                }
            }
        }
    }
}

async fn transmit<W: AsyncWrite + Unpin>(
    mut write: W,
    mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting_bytes: &AtomicUsize,
) {
    let mut buffer = Vec::new();
    while let Some(message) = outgoing.recv().await {
        buffer.clear();
        let mut taken = push(&mut buffer, &message);
        while buffer.len() < WRITE_BYTES
            && let Ok(message) = outgoing.try_recv()
        {
            taken += push(&mut buffer, &message);
        }
        if write.write_all(&buffer).await.is_err() {
            return;
        }
        waiting_bytes.fetch_sub(taken, Ordering::Relaxed);
    }
    let _ = write.shutdown().await;
}

/// Appends a message as a frame; gives its size.
fn push(buffer: &mut Vec<u8>, message: &[u8]) -> usize {
    // The codec's own limit is the same, so nothing is ever too large here.
    if let Ok(header) = frame_header(message.len(), MAX_CONTROL_BYTES) {
        buffer.extend_from_slice(&header);
        buffer.extend_from_slice(message);
    }
    message.len()
}
