//! Nodes, connections and what is on its way between them.
//!
//! Everything that is iterated is ordered, so that a history does not depend on a hash seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::Link;
use crate::{Event, Hello, Message, PeerId, SendError};

type Random = Box<dyn FnMut() -> u64 + Send>;
/// A node and which of its lives.
type Life = (u32, u64);

pub(super) struct State {
    random: Random,
    pub(super) default_link: Link,
    pub(super) links: BTreeMap<(u32, u32), Link>,
    pub(super) hosts: BTreeMap<u32, u32>,
    pub(super) blocked: BTreeSet<(u32, u32)>,
    pub(super) messages_sent: u64,
    offsets: BTreeMap<u32, Arc<AtomicI64>>,
    nodes: BTreeMap<u32, Node>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    lives: u64,
    flights: BTreeMap<u64, Flight>,
    /// When each flight arrives; flights of one moment arrive in the order of their numbers.
    arrivals: BinaryHeap<Reverse<(u64, u64)>>,
    next_flight: u64,
    /// Ends and beginnings that a block keeps from being noticed.
    held: Vec<Flight>,
    history: blake3::Hasher,
}

struct Node {
    life: u64,
    inbox: VecDeque<Event>,
}

struct Connection {
    /// The connecting side, then the other.
    ends: [Life; 2],
    /// Whether that end still takes events.
    open: [bool; 2],
    /// Arrival of the last flight towards that end.
    last_ns: [u64; 2],
    /// Messages towards that end that were not received.
    in_flight: [usize; 2],
}

struct Flight {
    connection: u64,
    /// Index of the receiving end.
    to: usize,
    cargo: Cargo,
}

enum Cargo {
    Up(Hello),
    Message(Vec<u8>),
    Down,
}

impl State {
    pub(super) fn new(random: Random) -> Self {
        State {
            random,
            default_link: Link::default(),
            links: BTreeMap::new(),
            hosts: BTreeMap::new(),
            blocked: BTreeSet::new(),
            messages_sent: 0,
            offsets: BTreeMap::new(),
            nodes: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            lives: 0,
            flights: BTreeMap::new(),
            arrivals: BinaryHeap::new(),
            next_flight: 0,
            held: Vec::new(),
            history: blake3::Hasher::new(),
        }
    }

    pub(super) fn clock_offset(&mut self, node: u32) -> Arc<AtomicI64> {
        self.offsets.entry(node).or_default().clone()
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        *self.history.finalize().as_bytes()
    }

    pub(super) fn start(&mut self, node: u32, now_ns: u64) -> u64 {
        self.crash(node, now_ns);
        self.lives += 1;
        self.nodes.insert(node, Node { life: self.lives, inbox: VecDeque::new() });
        self.lives
    }

    pub(super) fn end(&mut self, node: u32, life: u64, now_ns: u64) {
        if self.alive((node, life)) {
            self.crash(node, now_ns);
        }
    }

    pub(super) fn crash(&mut self, node: u32, now_ns: u64) {
        let Some(dead) = self.nodes.remove(&node) else { return };
        let dead = (node, dead.life);
        let theirs: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.ends.contains(&dead)).map(|(id, _)| *id).collect();
        for id in theirs {
            self.close(id, dead, now_ns);
        }
    }

    pub(super) fn sever(&mut self, a: u32, b: u32, now_ns: u64) {
        let nodes = |c: &Connection| [c.ends[0].0, c.ends[1].0];
        let theirs: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| nodes(c) == [a, b] || nodes(c) == [b, a])
            .map(|(id, _)| *id)
            .collect();
        for id in theirs {
            self.fly(id, 0, Cargo::Down, now_ns);
            self.fly(id, 1, Cargo::Down, now_ns);
        }
    }

    pub(super) fn connect(&mut self, from: Life, to: u32, hello: &Hello, now_ns: u64) -> Result<u64, &'static str> {
        if !self.alive(from) {
            return Err("this node has crashed");
        }
        let Some(life) = self.nodes.get(&to).map(|node| node.life) else { return Err("nothing listens there") };
        if self.blocked.contains(&(from.0, to)) || self.blocked.contains(&(to, from.0)) {
            return Err("the network is partitioned");
        }
        let id = self.next_connection;
        self.next_connection += 1;
        let ends = [from, (to, life)];
        self.connections.insert(id, Connection { ends, open: [true; 2], last_ns: [0; 2], in_flight: [0; 2] });
        self.fly(id, 1, Cargo::Up(hello.clone()), now_ns);
        Ok(id)
    }

    pub(super) fn send(&mut self, from: Life, id: u64, bytes: Vec<u8>, now_ns: u64) -> Result<(), SendError> {
        let Some((connection, to)) = self.other_end(id, from) else { return Err(SendError::Gone) };
        let (in_flight, link) = (connection.in_flight[to], self.link_towards(id, to));
        if in_flight >= link.in_flight_max {
            return Err(SendError::Full);
        }
        self.messages_sent += 1;
        let (lost, twice) = (self.chance(link.loss_ppm), self.chance(link.duplicate_ppm));
        if lost {
            return Ok(());
        }
        if twice {
            self.fly(id, to, Cargo::Message(bytes.clone()), now_ns);
        }
        self.fly(id, to, Cargo::Message(bytes), now_ns);
        Ok(())
    }

    pub(super) fn recv(&mut self, node: u32, life: u64) -> Option<Event> {
        if !self.alive((node, life)) {
            return None;
        }
        let event = self.nodes.get_mut(&node)?.inbox.pop_front()?;
        if let Event::Message { peer, .. } = &event
            && let Some(connection) = self.connections.get_mut(&peer.0)
        {
            let to = usize::from(connection.ends[1] == (node, life));
            connection.in_flight[to] = connection.in_flight[to].saturating_sub(1);
        }
        Some(event)
    }

    pub(super) fn disconnect(&mut self, from: Life, id: u64, now_ns: u64) {
        if self.other_end(id, from).is_some() {
            self.close(id, from, now_ns);
        }
        // "No Down follows", nor anything else of that peer.
        if let Some(node) = self.nodes.get_mut(&from.0).filter(|node| node.life == from.1) {
            node.inbox.retain(|event| {
                !matches!(event,
                Event::Message { peer, .. } | Event::Down { peer } | Event::Up { peer, .. } | Event::Connected { peer, .. }
                if peer.0 == id)
            });
        }
    }

    pub(super) fn heal(&mut self, now_ns: u64) {
        self.blocked.clear();
        for flight in std::mem::take(&mut self.held) {
            self.fly(flight.connection, flight.to, flight.cargo, now_ns);
        }
    }

    pub(super) fn next_event_ns(&self) -> Option<u64> {
        self.arrivals.peek().map(|Reverse((at_ns, _))| *at_ns)
    }

    pub(super) fn deliver(&mut self, to_ns: u64) {
        while let Some(&Reverse((at_ns, number))) = self.arrivals.peek() {
            if at_ns > to_ns {
                break;
            }
            self.arrivals.pop();
            if let Some(flight) = self.flights.remove(&number) {
                self.arrive(flight, at_ns);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn connections_are_gone(&self) -> bool {
        self.connections.is_empty()
    }

    fn alive(&self, life: Life) -> bool {
        self.nodes.get(&life.0).is_some_and(|node| node.life == life.1)
    }

    /// The connection and the index of the end opposite to `from`, if `from` may still use it.
    fn other_end(&self, id: u64, from: Life) -> Option<(&Connection, usize)> {
        let connection = self.connections.get(&id)?;
        let ours = connection.ends.iter().position(|end| *end == from)?;
        (self.alive(from) && connection.open[ours]).then_some((connection, 1 - ours))
    }

    fn link_towards(&self, id: u64, to: usize) -> Link {
        let link = |c: &Connection| self.links.get(&(c.ends[1 - to].0, c.ends[to].0)).copied();
        self.connections.get(&id).and_then(link).unwrap_or(self.default_link)
    }

    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && (self.random)() % 1_000_000 < u64::from(ppm)
    }

    /// Closes `from`'s end at once; the other learns of it later.
    fn close(&mut self, id: u64, from: Life, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(ours) = connection.ends.iter().position(|end| *end == from) else { return };
        connection.open[ours] = false;
        if connection.open[1 - ours] {
            self.fly(id, 1 - ours, Cargo::Down, now_ns);
        } else {
            self.connections.remove(&id);
        }
    }

    fn fly(&mut self, id: u64, to: usize, cargo: Cargo, now_ns: u64) {
        let link = self.link_towards(id, to);
        let spread = link.delay_max_ns.saturating_sub(link.delay_min_ns).saturating_add(1);
        let delay_ns = link.delay_min_ns + (self.random)() % spread;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut at_ns = now_ns + delay_ns;
        // An end never overtakes what was sent before it, and nothing overtakes a beginning.
        let ordered = !link.reorder || !matches!(cargo, Cargo::Message(_));
        if ordered {
            at_ns = at_ns.max(connection.last_ns[to]);
        }
        match cargo {
            Cargo::Message(_) => {
                connection.in_flight[to] += 1;
                connection.last_ns[to] = connection.last_ns[to].max(if link.reorder { 0 } else { at_ns });
            }
            Cargo::Up(_) | Cargo::Down => connection.last_ns[to] = at_ns,
        }
        let number = self.next_flight;
        self.next_flight += 1;
        self.flights.insert(number, Flight { connection: id, to, cargo });
        self.arrivals.push(Reverse((at_ns, number)));
    }

    fn arrive(&mut self, flight: Flight, at_ns: u64) {
        let Some(connection) = self.connections.get_mut(&flight.connection) else { return };
        let (from, to) = (connection.ends[1 - flight.to], connection.ends[flight.to]);
        let peer = PeerId(flight.connection);
        if self.blocked.contains(&(from.0, to.0)) {
            match flight.cargo {
                Cargo::Message(_) => connection.in_flight[flight.to] -= 1,
                Cargo::Up(_) | Cargo::Down => self.held.push(flight),
            }
            return;
        }
        if !connection.open[flight.to] {
            return;
        }
        let Some(node) = self.nodes.get_mut(&to.0).filter(|node| node.life == to.1) else { return };
        let host = |node: u32| self.hosts.get(&node);
        let local = host(from.0).is_some() && host(from.0) == host(to.0);
        let kind: &[u8] = match &flight.cargo {
            Cargo::Up(_) => b"up",
            Cargo::Message(_) => b"message",
            Cargo::Down => b"down",
        };
        self.history
            .update(&at_ns.to_le_bytes())
            .update(&peer.0.to_le_bytes())
            .update(&to.0.to_le_bytes())
            .update(kind);
        match flight.cargo {
            Cargo::Up(hello) => node.inbox.push_back(Event::Up { peer, hello, local }),
            Cargo::Message(bytes) => {
                self.history.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
                node.inbox.push_back(Event::Message { peer, message: Message::Owned(bytes) });
            }
            Cargo::Down => {
                node.inbox.push_back(Event::Down { peer });
                connection.open[flight.to] = false;
                if !connection.open[1 - flight.to] {
                    self.connections.remove(&flight.connection);
                }
            }
        }
    }
}
