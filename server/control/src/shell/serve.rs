//! The control plane's one loop: events into the node, its actions out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use talea_fabric::{Credentials, PeerId};
use talea_model::SessionId;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::connection::{Event, Outbox};
use super::dial::Dialer;
use super::listen::{Acceptor, Listeners, Peers};
use super::{ControlConfig, ControlError, FromServer, TargetLink, now, watch};
use crate::node::{Action, Node, Note, StoreOp};
use crate::store::{FileLog, Log};

/// Events that wait for the loop, at most; readers of sockets wait when there are more.
const EVENTS: usize = 4096;
/// Events handled before the node's actions are carried out: what comes together shares flushes and batches.
const EVENTS_AT_ONCE: usize = 256;

/// All that the loop owns.
pub(super) struct Serve {
    node: Node,
    log: LogThread,
    link: Box<dyn TargetLink>,
    peers: BTreeMap<PeerId, Connected>,
    watches: BTreeMap<PeerId, AbortHandle>,
    sessions: BTreeMap<SessionId, AbortHandle>,
    dialer: Dialer,
    events: mpsc::Receiver<Event>,
    is_ready: bool,
}

struct Connected {
    outbox: Outbox,
    is_server: bool,
}

type Changes = std::sync::mpsc::Sender<Change>;

/// What is to be flushed.
enum Change {
    Log(Vec<StoreOp>),
    Notes(Vec<Note>),
}

/// The log in memory, or a thread that flushes it.
enum LogThread {
    Memory,
    File(Changes, JoinHandle<()>),
}

impl Serve {
    pub(super) fn new(
        node: Node,
        log: Log,
        link: Box<dyn TargetLink>,
        credentials: Arc<Credentials>,
        config: &ControlConfig,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let dialer =
            Dialer { server: config.server, credentials, peers: Arc::new(Peers::default()), events: sender.clone() };
        let log = match log {
            Log::Memory => LogThread::Memory,
            Log::File(log) => {
                let (changes, thread) = log_thread(log, sender);
                LogThread::File(changes, thread)
            }
        };
        let (peers, watches, sessions) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Serve { node, log, link, peers, watches, sessions, dialer, events, is_ready: false }
    }

    /// Runs until it is told to stop, or the log fails.
    pub(super) async fn run(
        mut self,
        listeners: Listeners,
        inbox: mpsc::UnboundedReceiver<FromServer>,
    ) -> Result<(), ControlError> {
        let result = self.handle_events(listeners, inbox).await;
        // The log's file must be closed when this returns: the next server may open it at once.
        let Serve { log, events, .. } = self;
        drop(events);
        if let LogThread::File(changes, thread) = log {
            drop(changes);
            let _ = thread.join();
        }
        result
    }

    async fn handle_events(
        &mut self,
        listeners: Listeners,
        mut inbox: mpsc::UnboundedReceiver<FromServer>,
    ) -> Result<(), ControlError> {
        let Dialer { credentials, events, peers, .. } = self.dialer.clone();
        let _socket_files =
            listeners.serve(Arc::new(Acceptor { credentials, events, peers, is_short: AtomicBool::new(false) }))?;
        self.link.lease(None);
        self.act();
        loop {
            let deadline_ns = self.node.next_deadline();
            let left = deadline_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(now().monotonic_ns)));
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.event(event)?,
                    None => return Ok(()),
                },
                order = inbox.recv() => match order {
                    Some(FromServer::Stop) | None => return Ok(()),
                    Some(order) => self.order(order),
                },
                () = sleep(left) => self.node.tick(now()),
            }
            for _ in 0..EVENTS_AT_ONCE {
                let Ok(event) = self.events.try_recv() else { break };
                self.event(event)?;
            }
            self.act();
        }
    }

    fn order(&mut self, order: FromServer) {
        match order {
            FromServer::Durable(position) => self.node.targets_durable(now(), position),
            FromServer::LogEnd(token) => self.node.log_end(now(), token),
            FromServer::Status(answer) => {
                if let Some(status) = self.node.status() {
                    let _ = answer.send(status);
                }
            }
            FromServer::Stop => {}
        }
    }

    fn event(&mut self, event: Event) -> Result<(), ControlError> {
        match event {
            Event::Up { peer, hello, process, outbox } => {
                self.peers.insert(peer, Connected { outbox, is_server: hello.server.is_some() });
                self.node.peer_up(now(), peer, hello, process);
            }
            Event::ServerUp { server, peer, outbox } => {
                self.peers.insert(peer, Connected { outbox, is_server: true });
                self.node.server_up(now(), server, peer);
            }
            Event::ServerFailed { server } => self.node.server_unreachable(now(), server),
            // A connection that was closed from here may still have messages on the way.
            Event::Message { peer, bytes } if self.peers.contains_key(&peer) => self.node.message(now(), peer, &bytes),
            Event::Message { .. } => {}
            Event::Down { peer } => {
                if self.forget(peer) {
                    self.node.peer_down(now(), peer);
                }
            }
            Event::Died { peer } => {
                self.watches.remove(&peer);
                self.node.process_died(now(), peer);
            }
            Event::SessionDied { session } => {
                self.sessions.remove(&session);
                self.node.session_died(now(), session);
            }
            Event::Flushed { log, notes, result } => {
                result?;
                if log {
                    self.node.stored(now());
                }
                if notes {
                    self.node.noted(now());
                }
            }
        }
        Ok(())
    }

    /// Drops a connection. A server's process is still watched: its end says that it will not come back.
    fn forget(&mut self, peer: PeerId) -> bool {
        let Some(connected) = self.peers.remove(&peer) else { return false };
        if !connected.is_server
            && let Some(watch) = self.watches.remove(&peer)
        {
            watch.abort();
        }
        true
    }

    /// Carries out what the node wants, until it wants nothing more.
    fn act(&mut self) {
        loop {
            let actions = self.node.take_actions();
            if actions.is_empty() {
                break;
            }
            actions.into_iter().for_each(|action| self.act_one(action));
        }
        if !self.is_ready && self.node.is_ready() {
            self.is_ready = true;
            self.link.pool_ready();
        }
    }

    fn act_one(&mut self, action: Action) {
        match action {
            Action::Send { peer, bytes } => {
                if self.peers.get(&peer).is_some_and(|connected| !connected.outbox.send(bytes)) {
                    tracing::warn!(peer = peer.0, "dropping a peer that does not read what it asked for");
                    self.forget(peer);
                    self.node.peer_down(now(), peer);
                }
            }
            Action::Close { peer } => {
                self.forget(peer);
            }
            Action::Store { ops } => match &self.log {
                LogThread::Memory => self.node.stored(now()),
                // If the thread is gone, its last event said why, and ends this loop.
                LogThread::File(log, _) => drop(log.send(Change::Log(ops))),
            },
            Action::Note { notes } => match &self.log {
                LogThread::Memory => self.node.noted(now()),
                LogThread::File(log, _) => drop(log.send(Change::Notes(notes))),
            },
            Action::Deliver { changes, horizon } => self.link.deliver(changes, horizon),
            Action::CatchUpDone { token } => self.link.caught_up(token, Ok(())),
            Action::CatchUpFailed { token, refusal } => self.link.caught_up(token, Err(refusal)),
            Action::Lease { until_ns } => self.link.lease(until_ns),
            Action::Watch { peer, pid } => {
                let task = tokio::spawn(watch::watch(peer, pid, self.dialer.events.clone()));
                if let Some(before) = self.watches.insert(peer, task.abort_handle()) {
                    before.abort();
                }
            }
            Action::WatchProcess { session, process } => {
                let task = tokio::spawn(watch::watch_session(session, process, self.dialer.events.clone()));
                if let Some(before) = self.sessions.insert(session, task.abort_handle()) {
                    before.abort();
                }
            }
            Action::Unwatch { session } => {
                if let Some(watch) = self.sessions.remove(&session) {
                    watch.abort();
                }
            }
            Action::Connect { server, addresses } => {
                drop(tokio::spawn(self.dialer.clone().dial(server, addresses)));
            }
        }
    }
}

async fn sleep(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

/// Flushes off the loop, so that a slow device delays only who waits for it. What came meanwhile shares the next flush.
fn log_thread(mut log: FileLog, events: mpsc::Sender<Event>) -> (Changes, JoinHandle<()>) {
    let (sender, receiver) = std::sync::mpsc::channel::<Change>();
    let thread = std::thread::spawn(move || {
        while let Ok(first) = receiver.recv() {
            let (mut ops, mut notes) = (None, None);
            for change in std::iter::once(first).chain(receiver.try_iter()) {
                match change {
                    Change::Log(more) => ops.get_or_insert_with(Vec::new).extend(more),
                    Change::Notes(more) => notes.get_or_insert_with(Vec::new).extend(more),
                }
            }
            let result = log.apply(ops.as_deref().unwrap_or_default(), notes.as_deref().unwrap_or_default());
            let has_failed = result.is_err();
            let flushed = Event::Flushed { log: ops.is_some(), notes: notes.is_some(), result };
            if events.blocking_send(flushed).is_err() || has_failed {
                return;
            }
        }
    });
    (sender, thread)
}
