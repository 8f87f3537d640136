//! Where the session lives: opened at one server, and taken up at another one when that is out of reach.
//!
//! Owns the order in which servers are tried. A session that moves stays the same one: its transactions, leases, subscriptions and
//! the answers to what it asked for move with it, so nothing is executed twice and nothing is missed. Must never give up a session
//! that some server still knows.

use std::io::IoSlice;
use std::task::Waker;

use talea_fabric::{Address, PeerId};
use talea_model::{PoolMap, ServerId, SessionId};
use talea_wire::RefusalCode;
use talea_wire::control::{Body, Reply, Request};

use super::home::{Phase, encoded};
use super::link::{PeerKey, Reach};
use super::{Outcome, Shared, State, Wakers};
use crate::error::{ClientError, ErrorKind, Result};

const MS: u64 = 1_000_000;
/// What a server that cannot be reached any more gets of each round, in milliseconds.
const GONE_MS: u64 = 200;
/// So many times the longest attempt to connect a server that is connected has for opening a session, if there are others.
const ANSWER_PART: u64 = 3;

/// How near a server's address is: lower is nearer. `None`: it cannot be used from here.
pub(crate) fn distance(address: &Address, node: &str) -> Option<u8> {
    match address {
        Address::Unix { node: theirs, .. } if theirs == node => Some(0),
        Address::Tcp { .. } | Address::Sim(_) => Some(1),
        _ => None,
    }
}

/// Until when a server may be connected to, and until when all of it must be over.
#[derive(Clone, Copy)]
struct Limits {
    began_ns: u64,
    connect_ns: u64,
    deadline_ns: u64,
    /// There are others: it need not be waited for.
    has_others: bool,
}

impl State {
    /// Servers in the order in which they are tried: where the session lives, then the nearest that the map has up, then whoever was
    /// named when this client was made.
    pub(super) fn homes(&self, node: &str) -> Vec<(ServerId, Address)> {
        let mut all = vec![(self.home.server, self.home.address.clone())];
        let mut known = vec![];
        for server in &self.map.servers {
            let is_theirs = |target: &&talea_model::TargetInfo| target.server == server.id;
            let is_lost = self.map.targets.iter().filter(is_theirs).any(|target| self.map.is_lost(target.id));
            let addresses = server.control.iter().filter_map(|text| text.parse::<Address>().ok());
            let ranked = addresses.filter_map(|address| Some((distance(&address, node)?, address)));
            if let Some((rank, address)) = ranked.min_by_key(|(rank, _)| *rank) {
                known.push(((is_lost, rank), server.id, address));
            }
        }
        known.sort_by_key(|(rank, ..)| *rank);
        all.extend(known.into_iter().map(|(_, server, address)| (server, address)));
        all.extend(self.home.others.iter().cloned());
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|(server, _)| seen.insert(*server));
        all
    }

    /// Another server is tried.
    fn turn_to(&mut self, server: ServerId, address: &Address) {
        if self.home.server != server {
            self.home.server = server;
            self.home.reach = Reach::default();
        }
        self.home.address = address.clone();
    }
}

impl Shared {
    /// Connects and opens the session, or takes it up again, wherever that can be had.
    pub(super) async fn open(&self, what: &'static str, began_ns: u64, deadline_ns: u64) -> Result<()> {
        let mut rounds = 0;
        let mut told: Option<ClientError> = None;
        loop {
            let mut first = Reach::default();
            let (homes, has_session) = {
                let state = self.lock();
                (state.homes(&self.node), state.session().0 != 0)
            };
            let has_others = homes.len() > 1;
            for (index, (server, address)) in homes.iter().enumerate() {
                let connect_ns = {
                    let mut state = self.lock();
                    state.turn_to(*server, address);
                    match (has_others, index == 0 && has_session) {
                        (false, _) => deadline_ns,
                        (true, true) => {
                            let since_ns = state.home.reach.down_since_ns.unwrap_or(self.now_ns());
                            (since_ns + self.tuning.move_after_ms * MS).max(self.now_ns() + GONE_MS * MS)
                        }
                        (true, false) => self.now_ns() + self.tuning.connect_ms * MS,
                    }
                };
                let limits = Limits { began_ns, connect_ns: connect_ns.min(deadline_ns), deadline_ns, has_others };
                match self.open_at(what, address, limits).await {
                    Ok(()) => return Ok(()),
                    Err(error) if !has_others => return Err(error),
                    Err(error) if told.is_none() || says_more(&error) => told = Some(error),
                    Err(_) => {}
                }
                if index == 0 {
                    first = std::mem::take(&mut self.lock().home.reach);
                }
            }
            let now_ns = self.now_ns();
            let (pause_ns, lost_since_ns) = {
                let mut state = self.lock();
                if let Some((server, address)) = homes.first() {
                    state.turn_to(*server, address);
                    state.home.reach = first;
                }
                let since_ns = *state.home.lost_since_ns.get_or_insert(now_ns);
                (state.backoff_ns(rounds, &self.tuning), since_ns)
            };
            rounds += 1;
            let is_hopeless = now_ns - lost_since_ns > self.tuning.lost_after_ms * MS;
            match told.take() {
                Some(error) if now_ns + pause_ns >= deadline_ns || (is_hopeless && !may_begin(&error)) => {
                    return Err(error);
                }
                Some(error) if matches!(error.kind(), ErrorKind::Access | ErrorKind::Version) => return Err(error),
                Some(error @ ClientError::Descriptors { .. }) => return Err(error),
                last => told = last.filter(says_more),
            }
            self.pause(now_ns + pause_ns).await;
        }
    }

    /// The same at one server.
    async fn open_at(&self, what: &'static str, address: &Address, limits: Limits) -> Result<()> {
        let Limits { began_ns, connect_ns, deadline_ns, has_others } = limits;
        let mut resume = Some(self.lock().session()).filter(|session| session.0 != 0);
        let answer_ns = match has_others {
            true => deadline_ns.min(connect_ns + ANSWER_PART * self.tuning.connect_ms * MS),
            false => deadline_ns,
        };
        let (mut tries, mut sends) = (0, 0u32);
        let mut unled_since_ns = None;
        let mut peer = None;
        loop {
            let at = match peer {
                Some(peer) => peer,
                None => {
                    let session = resume.unwrap_or_default().0;
                    let limits = (tries, connect_ns);
                    tries += 1;
                    peer = self.try_connect(PeerKey::Home, address, session, limits).await?;
                    let Some(peer) = peer else { continue };
                    peer
                }
            };
            let ticket = self.ticket();
            let now_ns = self.now_ns();
            // A connection can open one session only: when its answer may be lost, another connection is needed.
            let every_ns = self.tuning.resend_ms.map_or(u64::MAX, |ms| (ms << sends.min(6)) * MS);
            let until_ns = answer_ns.min(now_ns.saturating_add(every_ns));
            let bytes = self.opening(ticket.id, resume, deadline_ns.saturating_sub(now_ns) / MS)?;
            if self.transmit(&ticket, at, &[IoSlice::new(&bytes)], (until_ns, answer_ns)).await.is_err() {
                self.gone(at);
            }
            sends += 1;
            let outcome = ticket.outcome().await;
            let now_ns = self.now_ns();
            match outcome {
                Outcome::Control(body) => match *body {
                    Body::Reply(Reply::Session { session, map }) => {
                        self.opened(at, session, map);
                        return Ok(());
                    }
                    Body::Refused(refusal) => match refusal.code {
                        RefusalCode::SessionExpired if resume.is_some() => resume = None,
                        RefusalCode::Busy | RefusalCode::NoLeader => {
                            let pause_ns = self.lock().backoff_ns(sends, &self.tuning);
                            let since_ns = *unled_since_ns.get_or_insert(now_ns);
                            let patience_ns = match refusal.code {
                                RefusalCode::NoLeader => connect_ns.min(since_ns + self.tuning.lost_after_ms * MS),
                                // It knows nobody to ask whether the session is its own: somebody else may.
                                _ if resume.is_some() => connect_ns,
                                // It is there, and says that it will do.
                                _ => deadline_ns,
                            };
                            if now_ns + pause_ns >= patience_ns {
                                self.gone(at);
                                return Err(ClientError::refused("opening a session", refusal));
                            }
                            self.pause(now_ns + pause_ns).await;
                        }
                        _ => return Err(ClientError::refused("opening a session", refusal)),
                    },
                    _ => return Err(ClientError::unexpected("opening a session")),
                },
                Outcome::Timer if now_ns >= answer_ns => {
                    let error = self.late(PeerKey::Home, what, began_ns);
                    self.gone(at);
                    return Err(error);
                }
                Outcome::Timer => {
                    self.gone(at);
                    peer = None;
                }
                // Whoever takes a connection and closes it without an answer does so the next time, too: not in a tight loop.
                _ => {
                    peer = None;
                    let pause_ns = self.lock().backoff_ns(sends, &self.tuning);
                    self.pause((now_ns + pause_ns).min(answer_ns)).await;
                }
            }
        }
    }

    /// What opens a session, or takes one up again.
    fn opening(&self, id: u64, resume: Option<SessionId>, left_ms: u64) -> Result<Vec<u8>> {
        let mut state = self.lock();
        if resume.is_none() {
            state.home.secret = u128::from(state.random_u64()) << 64 | u128::from(state.random_u64());
        }
        state.home.attempt += 1;
        let (name, secret, attempt) = (self.tuning.name.clone(), state.home.secret, state.home.attempt);
        let joined = if resume.is_some() { state.joined.iter().copied().collect() } else { vec![] };
        let request = Request::SessionOpen { name, secret, resume, process: None, joined, attempt };
        let mut envelope = state.envelope(self, id, 0, left_ms, request);
        envelope.session = resume.unwrap_or_default();
        encoded("opening a session", &envelope)
    }

    fn opened(&self, peer: PeerId, session: SessionId, map: PoolMap) {
        let mut wakers = Wakers::new();
        let mut state = self.lock_with_endpoint();
        (state.home.lost_since_ns, state.home.pinged_ns) = (None, None);
        if state.home.session != session {
            state.home.session = session;
            state.drop_targets(self.now_ns(), &mut wakers);
        }
        wakers.extend(state.take_map(map));
        // It may have gone down since it answered.
        if state.peers.contains_key(&peer) {
            state.home.phase = Phase::Ready(peer);
            state.flush_outbox();
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Asks the first server that answers something that needs no session: for when none can be had.
    pub(crate) async fn ask_anybody(&self, what: &'static str, request: Request, deadline_ns: u64) -> Result<Reply> {
        let began_ns = self.now_ns();
        let homes = self.lock().homes(&self.node);
        let mut told = None;
        for (server, address) in &homes {
            self.lock().turn_to(*server, address);
            let now_ns = self.now_ns();
            let connect_ns = deadline_ns.min(now_ns + self.tuning.connect_ms * MS);
            let peer = match self.try_connect(PeerKey::Home, address, 0, (0, connect_ns)).await {
                Ok(Some(peer)) => peer,
                Ok(None) => {
                    told.get_or_insert(self.lost(PeerKey::Home));
                    continue;
                }
                Err(error) => {
                    told.get_or_insert(error);
                    continue;
                }
            };
            let ticket = self.ticket();
            let until_ns = match homes.len() {
                1 => deadline_ns,
                _ => deadline_ns.min(self.now_ns() + ANSWER_PART * self.tuning.connect_ms * MS),
            };
            let bytes = {
                let left_ms = until_ns.saturating_sub(now_ns) / MS;
                let mut envelope = self.lock().envelope(self, ticket.id, 0, left_ms, request.clone());
                envelope.session = SessionId(0);
                encoded(what, &envelope)?
            };
            let sent = self.transmit(&ticket, peer, &[IoSlice::new(&bytes)], (until_ns, until_ns)).await;
            let outcome = if sent.is_ok() { ticket.outcome().await } else { Outcome::Down };
            self.gone(peer);
            match outcome {
                Outcome::Control(body) => match *body {
                    Body::Reply(reply) => return Ok(reply),
                    Body::Refused(refusal) => told = Some(ClientError::refused(what, refusal)),
                    _ => {}
                },
                _ => _ = told.get_or_insert(self.late(PeerKey::Home, what, began_ns)),
            }
        }
        Err(told.unwrap_or_else(|| self.lost(PeerKey::Home)))
    }
}

/// Whether an error says more than that somebody cannot be reached.
fn says_more(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { .. })
}

/// Whether all that is wrong is that the pool has not begun, or that a server is overrun.
fn may_begin(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::Busy)
}
