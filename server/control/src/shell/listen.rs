//! Listening: sockets of our own, and the proof that every connection owes before anything else.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use rustix::io::Errno;
use talea_fabric::handshake::{Accepting, CONFIRM_BYTES, HELLO_BYTES, Verdict, fresh_nonce};
use talea_fabric::stream::STREAM_CHANNEL;
use talea_fabric::{Address, Clock, Credentials, Hello, PeerId, RealClock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::ControlError;
use super::connection::{self, Event};
use super::watch;

/// How long a connection may take to prove itself.
pub(super) const PROOF: Duration = Duration::from_secs(5);
/// How many may be at it at a time; of more the oldest goes.
const PROVING_MAX: usize = 256;
/// How long to leave a listener alone that ran out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Sockets that are listened on; their connections wait until the control plane starts.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<Socket>,
    addresses: Vec<Address>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener),
}

/// Removes a socket's file with its listener.
#[derive(Debug)]
pub(super) struct SocketFile(String);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Listeners {
    /// Listens on `unix:NODE:PATH` (in a directory of our own, mode 0700) and `tcp:HOST:PORT` addresses; port 0 lets the
    /// system choose. A dead socket of an earlier process is replaced, a live one is an error.
    pub fn bind(addresses: &[Address]) -> Result<Self, ControlError> {
        let mut listeners = Listeners { sockets: Vec::new(), addresses: Vec::new() };
        for address in addresses {
            let context = |source| ControlError::Listen { address: address.to_string(), source };
            match address {
                Address::Unix { path, .. } => {
                    let socket = bind_unix(path).map_err(context)?;
                    listeners.sockets.push(Socket::Unix(socket, SocketFile(path.clone())));
                    listeners.addresses.push(address.clone());
                }
                Address::Tcp { host_port } => {
                    let socket = TcpListener::bind(host_port).map_err(context)?;
                    socket.set_nonblocking(true).map_err(context)?;
                    let host_port = socket.local_addr().map_err(context)?.to_string();
                    listeners.sockets.push(Socket::Tcp(socket));
                    listeners.addresses.push(Address::Tcp { host_port });
                }
                _ => {
                    let source =
                        io::Error::new(io::ErrorKind::Unsupported, "the control plane speaks unix: and tcp: only");
                    return Err(context(source));
                }
            }
        }
        Ok(listeners)
    }

    /// Where this server can be reached, with the ports that the system chose.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Accepts for ever; the tasks end with the runtime, the socket files with what is returned.
    pub(super) fn serve(self, acceptor: Arc<Acceptor>) -> Result<Vec<SocketFile>, ControlError> {
        let mut files = Vec::new();
        for socket in self.sockets {
            let acceptor = acceptor.clone();
            match socket {
                Socket::Unix(listener, file) => {
                    let listener = tokio::net::UnixListener::from_std(listener).map_err(ControlError::Start)?;
                    files.push(file);
                    tokio::spawn(async move { acceptor.unix(listener).await });
                }
                Socket::Tcp(listener) => {
                    let listener = tokio::net::TcpListener::from_std(listener).map_err(ControlError::Start)?;
                    tokio::spawn(async move { acceptor.tcp(listener).await });
                }
            }
        }
        Ok(files)
    }
}

fn bind_unix(path: &str) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Gives names to connections.
#[derive(Debug, Default)]
pub(super) struct Peers(AtomicU64);

impl Peers {
    pub(super) fn next(&self) -> PeerId {
        PeerId(self.0.fetch_add(1, Relaxed) + 1)
    }
}

/// What every accepted connection needs.
pub(super) struct Acceptor {
    pub(super) credentials: Arc<Credentials>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) peers: Arc<Peers>,
    /// Connections were refused since the last one that was accepted.
    pub(super) is_short: AtomicBool,
}

impl Acceptor {
    async fn unix(self: Arc<Self>, listener: tokio::net::UnixListener) {
        let mut proving = VecDeque::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    self.is_short.store(false, Relaxed);
                    // The kernel's word: only our own user may even try.
                    let Ok(cred) = stream.peer_cred() else { continue };
                    if cred.uid() != rustix::process::geteuid().as_raw() {
                        continue;
                    }
                    let pid = cred.pid().and_then(|pid| u32::try_from(pid).ok());
                    let (read, write) = stream.into_split();
                    let task = tokio::spawn(self.clone().prove(read, write, pid));
                    bound(&mut proving, task.abort_handle());
                }
                Err(error) => self.refused(&error).await,
            }
        }
    }

    async fn tcp(self: Arc<Self>, listener: tokio::net::TcpListener) {
        let mut proving = VecDeque::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    self.is_short.store(false, Relaxed);
                    prepare_tcp(&stream);
                    let (read, write) = stream.into_split();
                    let task = tokio::spawn(self.clone().prove(read, write, None));
                    bound(&mut proving, task.abort_handle());
                }
                Err(error) => self.refused(&error).await,
            }
        }
    }

    /// Says why a connection was not accepted, and pauses.
    async fn refused(&self, error: &io::Error) {
        let remedy = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => {
                ": this server has too few file descriptors for its clients, raise `ulimit -Hn` where it starts"
            }
            _ => "",
        };
        if !self.is_short.swap(true, Relaxed) {
            tracing::warn!("accepting a connection: {error}{remedy}");
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Awaits the proof in silence, then hands the connection over.
    async fn prove<R, W>(self: Arc<Self>, mut read: R, mut write: W, pid: Option<u32>)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let proof = proof(&self.credentials, &mut read, &mut write);
        let Ok(Some(mut hello)) = tokio::time::timeout(PROOF, proof).await else { return };
        hello.pid = pid.unwrap_or(hello.pid);
        let peer = self.peers.next();
        let is_server = hello.server.is_some();
        let process = pid.and_then(watch::process);
        let up = move |outbox| Event::Up { peer, hello, process, outbox };
        // A task of its own: this one counts among those that have not proved themselves.
        tokio::spawn(connection::run(peer, is_server, read, write, self.events.clone(), up));
    }
}

/// The listening side of the handshake; `None`: close, and say nothing more.
async fn proof<R, W>(credentials: &Credentials, read: &mut R, write: &mut W) -> Option<Hello>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut bytes = [0; HELLO_BYTES];
    read.read_exact(&mut bytes).await.ok()?;
    let nonce = fresh_nonce().ok()?;
    match Accepting::hello(credentials, STREAM_CHANNEL, &bytes, nonce, RealClock.unix_us()).ok()? {
        Verdict::Proceed(accepting, answer) => {
            write.write_all(&answer).await.ok()?;
            let mut confirm = [0; CONFIRM_BYTES];
            read.read_exact(&mut confirm).await.ok()?;
            accepting.confirm(&confirm).ok()
        }
        Verdict::ForeignVersion { answer, .. } => {
            let _ = write.write_all(&answer).await;
            None
        }
    }
}

/// Small messages at once; a remote node that vanished is noticed within half a minute.
pub(super) fn prepare_tcp(stream: &tokio::net::TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(10));
    let _ = rustix::net::sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5));
    let _ = rustix::net::sockopt::set_tcp_keepcnt(stream, 4);
}

fn bound(proving: &mut VecDeque<AbortHandle>, newest: AbortHandle) {
    proving.retain(|task| !task.is_finished());
    proving.push_back(newest);
    if proving.len() > PROVING_MAX
        && let Some(oldest) = proving.pop_front()
    {
        oldest.abort();
    }
}
