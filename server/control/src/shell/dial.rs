//! Connecting to another server: its addresses in turn, and the proof.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use talea_fabric::handshake::{ANSWER_BYTES, Connecting, fresh_nonce};
use talea_fabric::stream::STREAM_CHANNEL;
use talea_fabric::{Address, Clock, Credentials, Hello, RealClock, node_id};
use talea_model::ServerId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::connection::{self, Event};
use super::listen::{Peers, prepare_tcp};

/// How long one address may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// What it takes to reach another server.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) server: ServerId,
    pub(super) credentials: Arc<Credentials>,
    pub(super) peers: Arc<Peers>,
    pub(super) events: mpsc::Sender<Event>,
}

impl Dialer {
    /// Tries each address once and reports what came of it.
    pub(super) async fn dial(self, server: ServerId, addresses: Vec<String>) {
        for address in addresses.iter().filter_map(|text| text.parse::<Address>().ok()) {
            match tokio::time::timeout(ATTEMPT, self.attempt(server, &address)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::debug!(%server, %address, %error, "a server is not there"),
                Err(_) => tracing::debug!(%server, %address, "a server did not answer in time"),
            }
        }
        let _ = self.events.send(Event::ServerFailed { server }).await;
    }

    async fn attempt(&self, server: ServerId, address: &Address) -> io::Result<()> {
        match address {
            Address::Unix { node, path } if *node == node_id() => {
                let stream = UnixStream::connect(path).await?;
                if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket is another user's"));
                }
                let (read, write) = stream.into_split();
                self.prove(server, read, write).await
            }
            Address::Tcp { host_port } => {
                let stream = TcpStream::connect(host_port.as_str()).await?;
                prepare_tcp(&stream);
                let (read, write) = stream.into_split();
                self.prove(server, read, write).await
            }
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "not reachable from this node")),
        }
    }

    async fn prove<R, W>(&self, server: ServerId, mut read: R, mut write: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let hello = Hello { session: 0, pid: std::process::id(), server: Some(self.server.0) };
        let nonce = fresh_nonce()?;
        let (connecting, bytes) =
            Connecting::start(&self.credentials, STREAM_CHANNEL, &hello, nonce, RealClock.unix_us());
        write.write_all(&bytes).await?;
        let mut answer = [0; ANSWER_BYTES];
        read.read_exact(&mut answer).await?;
        let confirm = connecting.answer(&answer).map_err(|error| io::Error::other(error.to_string()))?;
        write.write_all(&confirm).await?;
        let peer = self.peers.next();
        let up = move |outbox| Event::ServerUp { server, peer, outbox };
        tokio::spawn(connection::run(peer, true, read, write, self.events.clone(), up));
        Ok(())
    }
}
