//! A server's counters for Prometheus, where they were asked for (`--metrics`).
//!
//! Owns who may see them: this user over a Unix socket, or who brings the token over the network. Nothing is counted for it on
//! the data path: a scrape asks each target for the counters that it has anyway, and between scrapes nothing runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use talea_model::TargetId;
use talea_wire::data::StoreStat;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::config::Settings;
use crate::control::Joint;
use crate::directory::Directory;
use crate::failure::Failure;

mod http;
mod text;

/// How long one scrape may take, from its connection to its end.
const DEADLINE: Duration = Duration::from_secs(5);
/// Scrapes at a time.
const SCRAPES: usize = 8;

enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// Listens, and does not answer yet.
pub(crate) struct Metrics {
    listener: Listener,
    /// What a request has to bring along; over the Unix socket nothing: the kernel says who asks.
    token: Option<String>,
    labels: Labels,
}

/// What is said with every figure.
#[derive(Clone)]
pub(crate) struct Labels {
    pub(crate) system: String,
    pub(crate) server: u32,
}

/// Binds, if metrics are wished for.
pub(crate) fn open(settings: &Settings, directory: &mut Directory) -> Result<Option<Metrics>, Failure> {
    let Some(wish) = &settings.config.metrics else { return Ok(None) };
    let failed = Failure::system("listening for scrapes of the metrics");
    let labels = Labels { system: settings.config.name.clone(), server: settings.server };
    if wish.listen == "unix" {
        let path = directory.path(&format!("metrics-{}.sock", settings.server));
        // A server that was killed leaves its own.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        directory.own(path.clone());
        return Ok(Some(Metrics { listener: Listener::Unix(listener, path), token: None, labels }));
    }
    let Some(token) = wish.token.clone().filter(|token| token.len() >= 16) else {
        return Err(Failure::Config("metrics over the network need a token of at least 16 characters".to_owned()));
    };
    let listener = std::net::TcpListener::bind(&wish.listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    let listener =
        listener.map_err(|error| Failure::Config(format!("metrics: listening on {}: {error}", wish.listen)))?;
    Ok(Some(Metrics { listener: Listener::Tcp(listener), token: Some(token), labels }))
}

impl Metrics {
    /// Where it listens: `ADDRESS:PORT`, or `unix:PATH`.
    pub(crate) fn address(&self) -> String {
        match &self.listener {
            Listener::Unix(_, path) => format!("unix:{}", path.display()),
            Listener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
            }
        }
    }

    /// Answers scrapes for ever.
    pub(crate) async fn serve(self, joint: Joint) {
        let Metrics { listener, token, labels } = self;
        let (token, limit) = (Arc::new(token), Arc::new(Semaphore::new(SCRAPES)));
        loop {
            // More than that wait in the kernel's queue.
            let Ok(permit) = limit.clone().acquire_owned().await else { return };
            let stream: Box<dyn Stream> = match accept(&listener).await {
                Some(stream) => stream,
                None => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (joint, token, labels) = (joint.clone(), token.clone(), labels.clone());
            tokio::spawn(async move {
                let scrape = async { http::answer(stream, token.as_deref(), scrape(&joint, &labels)).await };
                let _ = tokio::time::timeout(DEADLINE, scrape).await;
                drop(permit);
            });
        }
    }
}

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The next connection; `None` if it failed, or is another user's.
async fn accept(listener: &Listener) -> Option<Box<dyn Stream>> {
    match listener {
        Listener::Unix(listener, _) => {
            let (stream, _) = listener.accept().await.ok()?;
            let theirs = stream.peer_cred().ok()?.uid();
            (theirs == rustix::process::geteuid().as_raw()).then(|| Box::new(stream) as Box<dyn Stream>)
        }
        Listener::Tcp(listener) => Some(Box::new(listener.accept().await.ok()?.0)),
    }
}

async fn scrape(joint: &Joint, labels: &Labels) -> String {
    let status = joint.status().await;
    let asked = joint.clone();
    let stats = tokio::task::spawn_blocking(move || stats(&asked)).await.unwrap_or_default();
    text::of(labels, status.as_ref(), &stats)
}

/// The counters of all targets that answer in time.
fn stats(joint: &Joint) -> Vec<(TargetId, StoreStat)> {
    let (answer, told) = std::sync::mpsc::channel();
    let count = joint.bridge().ask_stats(&answer);
    drop(answer);
    let mut stats: Vec<_> = (0..count).map_while(|_| told.recv_timeout(DEADLINE / 2).ok()).collect();
    stats.sort_by_key(|(target, _)| *target);
    stats
}
