//! Connections that this server makes to others, and what servers know of each other before a pool tells them.
//!
//! Each server dials those that it has something to ask: the leader that it follows, the other replicas. Calls and requests go
//! out over the connection that this server made, answers come back over it; the other side makes its own.

use std::collections::BTreeMap;

use talea_fabric::PeerId;
use talea_model::{ServerId, ServerInfo};
use talea_wire::codec;
use talea_wire::control::{Body, Card};

use super::clients::PeerKind;
use super::raft::{Outgoing, Replica, ReplicaId, Stored};
use super::{Action, Damaged, Node, NodeConfig, Role, Time};

/// First and longest pause before another attempt at a server that could not be reached, in milliseconds.
const PAUSE_MS_MIN: u64 = 20;
const PAUSE_MS_MAX: u64 = 500;
/// Most replicas of a log.
const REPLICAS_MAX: u32 = 5;
/// Calls that wait for a connection, at most.
const WAITING_MAX: usize = 64;

/// A connection to another server, or the attempts at one.
#[derive(Debug, Default)]
struct Link {
    peer: Option<PeerId>,
    is_dialing: bool,
    retry_ns: u64,
    pause_ms: u64,
    waiting: Vec<Outgoing>,
}

/// All of them, and the address book.
#[derive(Debug)]
pub(super) struct Links {
    links: BTreeMap<ServerId, Link>,
    own: Card,
    book: BTreeMap<ServerId, Card>,
    /// Who introduced itself over a connection that stands.
    met: BTreeMap<ServerId, (PeerId, Card)>,
}

impl Links {
    pub(super) fn new(config: &NodeConfig, now: Time) -> Self {
        let own = Card {
            server: config.server.clone(),
            born_us: now.unix_us,
            boot: config.boot,
            revision: 0,
            life: config.life,
            holds: false,
            knows: false,
        };
        Self { links: BTreeMap::new(), own, book: BTreeMap::new(), met: BTreeMap::new() }
    }
}

impl Links {
    /// What a server said of itself over a connection that stands.
    pub(super) fn card_of(&self, server: ServerId) -> Option<&Card> {
        self.met.get(&server).map(|(_, card)| card)
    }
}

/// How many replicas a log has on so many servers: as many as their majority survives the loss of one, or two. Two servers
/// have one: with two replicas the loss of either would end the pool.
pub(super) fn replicas_wanted(servers: usize) -> usize {
    match servers {
        0..=2 => 1,
        3..=4 => 3,
        _ => REPLICAS_MAX as usize,
    }
}

/// Whether a server has or may have a replica, so that the other replicas must find it.
fn is_kin(card: &Card) -> bool {
    card.holds || card.server.id.0 < REPLICAS_MAX
}

impl Node {
    /// Which of the log's replicas this server, which has one, misses, if that leaves no majority.
    pub(super) fn no_majority(&self) -> Option<String> {
        let here = self.config.server.id;
        let all: Vec<ServerId> = self.replica.as_ref()?.voters().into_iter().map(|id| id.server).collect();
        let is_missing = |server: &&ServerId| {
            **server != here && self.links.links.get(*server).is_none_or(|link| link.peer.is_none())
        };
        let missing: Vec<ServerId> = all.iter().filter(is_missing).copied().collect();
        let names = |servers: &[ServerId]| servers.iter().map(ServerId::to_string).collect::<Vec<_>>().join(", ");
        (2 * (all.len() - missing.len()) <= all.len()).then(|| {
            format!(
                "no majority of the pool's log: of its replicas on servers {}, server {here} misses {}",
                names(&all),
                names(&missing)
            )
        })
    }

    /// Whether this server's replica is the log's only one.
    pub(super) fn is_alone(&self) -> bool {
        self.replica.as_ref().is_some_and(Replica::is_alone)
    }

    /// Makes this server a replica on what its medium holds.
    pub(super) fn open_replica(&mut self, stored: &Stored) -> Result<(), Damaged> {
        let id = ReplicaId { server: self.config.server.id, life: self.config.life };
        let seed = self.config.boot ^ u64::from(id.server.0).rotate_left(32);
        self.replica = Some(Replica::open(id, self.config.lease_ms, self.now.monotonic_ns, seed, stored)?);
        (self.links.own.holds, self.links.own.knows) = (true, true);
        self.links.own.revision += 1;
        let card = self.links.own.clone();
        self.tell_servers(None, &Body::Cards(vec![card]));
        Ok(())
    }

    /// Begins the log if that is this server's task: nobody of the servers that the pool shall have knows of one, and all of
    /// them are here to say so.
    pub(super) fn found_if_complete(&mut self) {
        let expected = self.config.servers_expected as u32;
        let here = self.config.server.id;
        if here != ServerId(0) || self.replica.is_some() || self.pool.map().is_some() {
            return;
        }
        let others: Vec<&Card> =
            (1..expected).filter_map(|id| self.links.met.get(&ServerId(id))).map(|(_, card)| card).collect();
        if others.len() + 1 < self.config.servers_expected || others.iter().any(|card| card.knows) {
            return;
        }
        let wanted = replicas_wanted(self.config.servers_expected);
        let own = ReplicaId { server: here, life: self.config.life };
        let others = others.iter().map(|card| ReplicaId { server: card.server.id, life: card.life });
        let replicas = std::iter::once(own).chain(others).take(wanted).collect();
        match self.open_replica(&Stored::default()) {
            Ok(()) => {
                self.replica.iter().for_each(|replica| replica.found(std::collections::BTreeSet::clone(&replicas)))
            }
            Err(error) => tracing::error!(%error, "the pool's log cannot begin"),
        }
    }

    /// A connection with another server, from either side: tells it who is where, and who leads.
    pub(super) fn introduce(&mut self, peer: PeerId) {
        let mut cards = vec![self.links.own.clone()];
        cards[0].knows |= self.pool.map().is_some();
        cards.extend(self.links.book.values().filter(|card| is_kin(card)).cloned());
        self.send(peer, 0, Body::Cards(cards));
        self.tell_leader(peer);
    }

    /// Tells another server who leads.
    pub(super) fn tell_leader(&mut self, peer: PeerId) {
        let body = self.who_leads();
        self.send(peer, 0, body);
    }

    /// Who leads, as far as this server knows.
    pub(super) fn who_leads(&self) -> Body {
        let here = self.config.server.id;
        let leading = self.replica.as_ref().map(Replica::leading).unwrap_or_default();
        match &self.role {
            Role::Leader(_) => Body::Leader { server: Some(here), term: leading.term },
            Role::Follower(follower) => {
                let is_followed = follower.is_ready() && follower.leader == follower.newest.1;
                let followed = is_followed.then_some(follower.newest);
                let known = leading.leader.map(|leader| (leading.term, leader));
                match followed.max(known).filter(|(_, server)| *server != here) {
                    Some((term, server)) => Body::Leader { server: Some(server), term },
                    None => Body::Leader { server: None, term: follower.newest.0 },
                }
            }
        }
    }

    /// Says something to all servers that are connected, but one.
    pub(super) fn tell_servers(&mut self, but: Option<PeerId>, body: &Body) {
        let is_server = |kind: &PeerKind| matches!(kind, PeerKind::Server(_));
        let servers = self.peers.iter().filter(|(peer, known)| is_server(&known.kind) && Some(**peer) != but);
        let peers: Vec<PeerId> = servers.map(|(peer, _)| *peer).collect();
        peers.into_iter().for_each(|peer| self.send(peer, 0, body.clone()));
    }

    /// Servers introduce themselves and others.
    pub(super) fn cards(&mut self, peer: PeerId, from: ServerId, cards: Vec<Card>) {
        let here = self.config.server.id;
        let mut news = Vec::new();
        for card in cards {
            let id = card.server.id;
            if id == from {
                self.links.met.insert(id, (peer, card.clone()));
            }
            let is_newer = |known: &Card| (card.born_us, card.revision) > (known.born_us, known.revision);
            if id != here && self.links.book.get(&id).is_none_or(is_newer) {
                if is_kin(&card) {
                    news.push(card.clone());
                }
                self.links.book.insert(id, card);
            }
        }
        if !news.is_empty() {
            self.tell_servers(Some(peer), &Body::Cards(news));
        }
        self.found_if_complete();
    }

    /// Where a server may be: what it said last, what the pool's map says, what was known at the start.
    fn addresses_of(&self, server: ServerId) -> Vec<String> {
        let is_it = |known: &&ServerInfo| known.id == server;
        let card = self.links.book.get(&server).map(|card| &card.server.control);
        let map = self.pool.map().and_then(|map| map.servers.iter().find(is_it)).map(|known| &known.control);
        let seed = self.config.seeds.get(&server);
        let mut addresses: Vec<String> = Vec::new();
        for address in [card, map, seed].into_iter().flatten().flatten() {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// The connection to a server, if it is up; else begins to make one.
    pub(super) fn link_to(&mut self, server: ServerId) -> Option<PeerId> {
        let addresses = self.addresses_of(server);
        let link = self.links.links.entry(server).or_default();
        if link.peer.is_none() && !link.is_dialing && !addresses.is_empty() {
            link.is_dialing = true;
            self.actions.push(Action::Connect { server, addresses });
        }
        link.peer
    }

    pub(super) fn is_dialing(&self, server: ServerId) -> bool {
        self.links.links.get(&server).is_some_and(|link| link.is_dialing)
    }

    /// A connection to a server is up.
    pub(super) fn linked(&mut self, server: ServerId, peer: PeerId) {
        let waiting = std::mem::take(&mut self.links.links.entry(server).or_default().waiting);
        self.links.links.insert(server, Link { peer: Some(peer), ..Link::default() });
        self.introduce(peer);
        waiting.into_iter().for_each(|one| self.send_call(one));
        if matches!(&self.role, Role::Follower(follower) if follower.is_trying(server)) {
            self.link_up(peer);
        }
        self.ask_candidate(server, peer);
    }

    /// A server could not be reached.
    pub(super) fn not_linked(&mut self, server: ServerId) {
        let now_ns = self.now.monotonic_ns;
        let link = self.links.links.entry(server).or_default();
        link.is_dialing = false;
        link.waiting.clear();
        link.pause_ms = (link.pause_ms * 2).clamp(PAUSE_MS_MIN, PAUSE_MS_MAX);
        link.retry_ns = now_ns + link.pause_ms * 1_000_000;
        if matches!(&self.role, Role::Follower(follower) if follower.is_trying(server)) {
            self.link_failed();
        }
        self.candidate_unreachable(server);
    }

    /// A connection with a server has ended.
    pub(super) fn unlink(&mut self, server: ServerId, peer: PeerId) {
        if let Some(link) = self.links.links.get_mut(&server).filter(|link| link.peer == Some(peer)) {
            link.peer = None;
        }
        if self.links.met.get(&server).is_some_and(|(known, _)| *known == peer) {
            self.links.met.remove(&server);
        }
    }

    /// Sends a call of Raft's, now or once there is a connection.
    pub(super) fn send_call(&mut self, outgoing: Outgoing) {
        let (server, now_ns) = (outgoing.to.server, self.now.monotonic_ns);
        let is_wanted = self.replica.as_ref().is_some_and(|replica| replica.is_waiting(outgoing.call));
        let may_dial = self.links.links.get(&server).is_none_or(|link| link.retry_ns <= now_ns);
        if !is_wanted {
            return;
        }
        let peer = match may_dial {
            true => self.link_to(server),
            false => self.links.links.get(&server).and_then(|link| link.peer),
        };
        match peer {
            Some(peer) => self.send_raft(peer, outgoing.call, Body::Raft(outgoing.bytes)),
            None => {
                let link = self.links.links.entry(server).or_default();
                if link.is_dialing && link.waiting.len() < WAITING_MAX {
                    link.waiting.push(outgoing);
                }
            }
        }
    }

    /// Sends a message of Raft's.
    pub(super) fn send_raft(&mut self, peer: PeerId, id: u64, body: Body) {
        let envelope = self.envelope(id, body);
        match codec::encode(&envelope) {
            Ok(bytes) => {
                self.counters.messages_out += 1;
                self.actions.push(Action::Send { peer, bytes });
            }
            Err(error) => tracing::error!(%error, "a message between replicas is too large"),
        }
    }

    /// Another replica calls. Whoever is called is a replica, whether it knew that or not.
    pub(super) fn raft_call(&mut self, peer: PeerId, id: u64, call: &[u8]) {
        if self.replica.is_none()
            && let Err(error) = self.open_replica(&Stored::default())
        {
            return tracing::error!(%error, "no replica of the log can begin here");
        }
        let now_ns = self.now.monotonic_ns;
        self.replica.iter().for_each(|replica| replica.receive(now_ns, peer, id, call));
    }

    /// The server to try next, in a circle, when it is not known who leads.
    pub(super) fn next_candidate(&self) -> Option<ServerId> {
        let Role::Follower(follower) = &self.role else { return None };
        let here = self.config.server.id;
        let kin = self.links.book.values().filter(|card| is_kin(card)).map(|card| card.server.id);
        let voters = self.replica.iter().flat_map(Replica::voters).map(|id| id.server);
        let mut all: Vec<ServerId> = self.config.seeds.keys().copied().chain(kin).chain(voters).collect();
        all.retain(|server| *server != here);
        all.sort_unstable();
        all.iter().find(|server| **server > follower.leader).or(all.first()).copied()
    }
}
