//! Connections: to the home server and to targets, made when first needed and again when lost.
//!
//! Owns what is known of each other side: since when it is out of reach, when to try again, and for targets the places in
//! flight and the sequences of updates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::Waker;

use talea_fabric::{Address, FabricError, PeerId, Policy, candidates, choose};
use talea_model::{ServerId, TargetId};
use talea_wire::{Refusal, RefusalCode};

use super::home::Phase;
use super::{Outcome, Shared, State, Ticket, Wakers};
use crate::error::{ClientError, Result};
use crate::system::FabricPolicy;

const MS: u64 = 1_000_000;

/// Whom a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerKey {
    Home,
    Target(TargetId),
}

/// How reaching the other side goes.
#[derive(Default)]
pub(crate) struct Reach {
    pub(crate) down_since_ns: Option<u64>,
    pub(super) failures: u32,
    /// Refusals in a row.
    pub(super) refusals: u32,
    pub(super) retry_at_ns: u64,
    pub(super) detail: String,
}

/// A target, as far as this client deals with it.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) peer: Option<PeerId>,
    pub(crate) reach: Reach,
    in_flight: usize,
    /// As many may be.
    most_in_flight: usize,
    /// Who waits for a place, in the order in which they came.
    waiting: BTreeMap<u64, u64>,
    turns: u64,
    /// The last update's sequence.
    sequence: u64,
    /// Whether each of the last updates is over, from the first that is not.
    over: VecDeque<bool>,
}

impl Link {
    /// All updates below this one have been answered, or will never be sent again.
    pub(crate) fn acknowledged_below(&self) -> u64 {
        self.sequence + 1 - self.over.len() as u64
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.over.push_back(false);
        self.sequence
    }

    /// An update was answered, or will never be sent again.
    fn end_sequence(&mut self, sequence: u64) {
        let Some(at) = sequence.checked_sub(self.acknowledged_below()) else { return };
        if let Some(over) = self.over.get_mut(at as usize) {
            *over = true;
        }
        while self.over.front() == Some(&true) {
            self.over.pop_front();
        }
    }
}

impl Reach {
    /// It takes messages, and has answered none of them since.
    pub(super) fn silent_since(&mut self, since_ns: u64) {
        self.down_since_ns = Some(since_ns);
        self.detail = "it does not answer".to_owned();
    }
}

impl State {
    pub(super) fn reach(&mut self, key: PeerKey) -> &mut Reach {
        match key {
            PeerKey::Home => &mut self.home.reach,
            PeerKey::Target(target) => &mut self.links.entry(target).or_default().reach,
        }
    }

    /// The connection is gone: all who wait for it hear of it.
    pub(super) fn peer_down(&mut self, peer: PeerId, now_ns: u64, wakers: &mut Wakers) {
        let Some(key) = self.peers.remove(&peer) else { return };
        let reach = self.reach(key);
        reach.down_since_ns.get_or_insert(now_ns);
        reach.detail = "its connection ended".to_owned();
        match key {
            PeerKey::Home => {
                if self.home.phase == Phase::Ready(peer) {
                    self.home.phase = Phase::Down;
                }
            }
            PeerKey::Target(target) => {
                if let Some(link) = self.links.get_mut(&target) {
                    link.peer = None;
                }
            }
        }
        self.complete_peer(peer, wakers);
    }

    /// Ends all connections to targets: a new session has to say so in its handshakes.
    pub(super) fn drop_targets(&mut self, now_ns: u64, wakers: &mut Wakers) {
        let peers: Vec<PeerId> = self.links.values().filter_map(|link| link.peer).collect();
        for peer in peers {
            if let Some(endpoint) = self.endpoint.as_deref_mut() {
                endpoint.disconnect(peer);
            }
            self.peer_down(peer, now_ns, wakers);
        }
        self.links.values_mut().for_each(|link| link.reach = Reach::default());
    }

    /// Takes a place in flight at a target if there is one, with a sequence for an update (0: a read).
    pub(super) fn enter_place(&mut self, target: TargetId, update: bool, most: usize) -> Option<(TargetId, u64)> {
        let link = self.links.entry(target).or_default();
        link.most_in_flight = most;
        if link.in_flight >= most {
            return None;
        }
        link.in_flight += 1;
        Some((target, if update { link.next_sequence() } else { 0 }))
    }

    /// Gives a place back. Returns whom to wake for it.
    pub(super) fn leave_place(&mut self, target: TargetId, sequence: u64) -> Option<Waker> {
        let link = self.links.get_mut(&target)?;
        link.in_flight -= 1;
        link.end_sequence(sequence);
        self.next_place(target)
    }

    /// Who waits longest for a place that is free.
    fn next_place(&mut self, target: TargetId) -> Option<Waker> {
        while let Some(link) = self.links.get_mut(&target).filter(|link| link.in_flight < link.most_in_flight) {
            let (_, id) = link.waiting.pop_first()?;
            if self.calls.get(id).is_some() {
                self.offered.push_back(target);
                return self.complete(id, Outcome::Go);
            }
        }
        None
    }

    /// A round begins: places that somebody was woken for and has not taken are for whoever comes next. A future may be left
    /// unpolled for as long as a program likes.
    pub(super) fn offer_places(&mut self, wakers: &mut Wakers) {
        for _ in 0..self.offered.len() {
            let target = self.offered.pop_front();
            wakers.extend(target.and_then(|target| self.next_place(target)));
        }
    }

    pub(super) fn has_peer(&self, key: PeerKey) -> bool {
        match key {
            PeerKey::Home => matches!(self.home.phase, Phase::Ready(_)),
            PeerKey::Target(target) => self.links.get(&target).is_some_and(|link| link.peer.is_some()),
        }
    }

    fn server_of(&self, key: PeerKey) -> (ServerId, String) {
        let home = self.home.server;
        let server = match key {
            PeerKey::Home => home,
            PeerKey::Target(target) => self.map.target(target).map_or(home, |target| target.server),
        };
        let host = self.map.server(server).map_or("an unknown host", |server| server.host.as_str());
        (server, host.to_owned())
    }

    fn addresses(&self, target: TargetId) -> Vec<Address> {
        let texts = self.map.target(target).map(|target| target.addresses.as_slice()).unwrap_or_default();
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

impl Shared {
    fn policy(&self) -> Policy {
        match self.tuning.fabric {
            FabricPolicy::Auto => Policy::Auto,
            FabricPolicy::Ring => Policy::Ring,
            FabricPolicy::Libfabric => Policy::Libfabric,
        }
    }

    /// The address over which a target would be reached.
    pub(crate) fn nearest(&self, target: TargetId) -> Option<Address> {
        let addresses = self.lock().addresses(target);
        candidates(&addresses, &self.node, self.policy()).into_iter().next()
    }

    /// The error that says that the other side is lost.
    pub(crate) fn lost(&self, key: PeerKey) -> ClientError {
        let mut state = self.lock();
        let (server, host) = state.server_of(key);
        let detail = match state.reach(key) {
            Reach { detail, .. } if detail.is_empty() => "the pool map says so".to_owned(),
            reach => reach.detail.clone(),
        };
        ClientError::ServerLost { server, host, detail }
    }

    /// A refusal with the server that said so and those that are lost as far as this client knows: the one that refuses is
    /// rarely the one that is lost, and a transaction is often closed because a server was.
    pub(crate) fn refused_by(&self, key: PeerKey, what: &'static str, mut refusal: Refusal) -> ClientError {
        let mut state = self.lock();
        let (server, host) = state.server_of(key);
        let links: Vec<TargetId> = state.links.keys().copied().collect();
        let keys = std::iter::once(PeerKey::Home).chain(links.into_iter().map(PeerKey::Target));
        let mut lost: BTreeSet<ServerId> = keys
            .filter_map(|key| {
                state.reach(key).down_since_ns?;
                Some(state.server_of(key).0)
            })
            .collect();
        lost.extend(state.map.targets.iter().filter(|target| state.map.is_lost(target.id)).map(|target| target.server));
        lost.remove(&server);
        if matches!(refusal.code, RefusalCode::ServerLost | RefusalCode::NoLeader) || !lost.is_empty() {
            let name =
                |server: &ServerId| state.map.server(*server).map_or("an unknown host", |known| known.host.as_str());
            let lost: String =
                lost.iter().map(|server| format!("; server {server} on {} is lost", name(server))).collect();
            refusal.text = format!("server {server} on {host}: {}{lost}", refusal.text);
        }
        ClientError::refused(what, refusal)
    }

    /// The error at a call's deadline: lost if the other side is out of reach, else late.
    pub(crate) fn late(&self, key: PeerKey, what: &'static str, began_ns: u64) -> ClientError {
        if self.lock().reach(key).down_since_ns.is_some() {
            return self.lost(key);
        }
        let (server, host) = self.lock().server_of(key);
        let deadline_ms = self.now_ns().saturating_sub(began_ns) / MS;
        ClientError::Deadline { what, who: format!("server {server} on {host}"), deadline_ms }
    }

    /// The error of a call that never had a place in flight.
    pub(super) fn not_sent(&self, target: TargetId, what: &'static str, began_ns: u64) -> ClientError {
        match self.late(PeerKey::Target(target), what, began_ns) {
            ClientError::Deadline { what, who, deadline_ms } => {
                ClientError::NotSent { what, who, deadline_ms, ahead: self.tuning.in_flight }
            }
            lost => lost,
        }
    }

    /// The connection to a target, made if there is none: over the nearest fabric that this machine has.
    pub(crate) async fn target_peer(&self, target: TargetId, began_ns: u64, deadline_ns: u64) -> Result<PeerId> {
        let key = PeerKey::Target(target);
        let policy = self.policy();
        let (mut tries, mut fabric, mut has_asked) = (0, 0, false);
        loop {
            let (up, peer, addresses, session) = {
                let mut state = self.lock();
                let peer = state.links.entry(target).or_default().peer;
                let (up, session) = (state.map.is_up(target), state.home.session.0);
                if let (Some(peer), true, 1..) = (peer, up, session) {
                    return Ok(peer);
                }
                (up, peer, state.addresses(target), session)
            };
            match peer {
                _ if session == 0 => _ = self.home_peer("opening a session", began_ns, deadline_ns).await?,
                // Another target of ours may never tell of a newer map, and an idle home neither.
                _ if !up && has_asked => return Err(self.lost(key)),
                _ if !up => {
                    has_asked = true;
                    self.ask_map(deadline_ns).await;
                }
                Some(peer) => return Ok(peer),
                None => {
                    if tries > 0 {
                        self.ask_map(deadline_ns).await;
                    }
                    let near = candidates(&addresses, &self.node, policy);
                    let address =
                        near.get(fabric).cloned().map_or_else(|| choose(&addresses, &self.node, policy), Ok)?;
                    match self.try_connect(key, &address, session, (tries, deadline_ns)).await {
                        Err(ClientError::Fabric(FabricError::Unsupported(..))) if fabric + 1 < near.len() => {
                            fabric += 1
                        }
                        Err(error) => return Err(error),
                        Ok(_) => tries += 1,
                    }
                }
            }
        }
    }

    /// A ticket with a place in flight at a target, and a sequence if the request is an update. Waits for one until the deadline.
    pub(super) async fn place(&self, target: TargetId, update: bool, deadline_ns: u64) -> Option<Ticket<'_>> {
        // Dropped only after the place is taken, so that it wakes another one only if there is another place.
        let mut _last = None;
        let mut turn = None;
        loop {
            let ticket = {
                let mut state = self.lock();
                let place = state.enter_place(target, update, self.tuning.in_flight);
                let ticket = self.ticket_in(&mut state, place);
                if place.is_some() {
                    return Some(ticket);
                }
                ticket
            };
            let waiting = Waiting { shared: self, target, ticket };
            {
                let mut state = self.lock();
                waiting.ticket.arm(&mut state, None, deadline_ns);
                let link = state.links.entry(target).or_default();
                let turn = *turn.get_or_insert_with(|| {
                    link.turns += 1;
                    link.turns
                });
                link.waiting.insert(turn, waiting.ticket.id);
            }
            // The place may come from one that has ended at the same deadline.
            if matches!(waiting.ticket.outcome().await, Outcome::Timer) || self.now_ns() >= deadline_ns {
                return None;
            }
            _last = Some(waiting);
        }
    }
}

/// Waits for a place; passes a wake-up on if it leaves without having used it.
struct Waiting<'a> {
    shared: &'a Shared,
    target: TargetId,
    ticket: Ticket<'a>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.shared.is_foreign() {
            let next = self.shared.lock().next_place(self.target);
            next.inspect(Waker::wake_by_ref);
        }
    }
}
