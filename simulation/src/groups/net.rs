//! The network of the groups' world: it loses, delays, doubles and reorders, and is cut between nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use talea_engine::group::GroupMap;
use talea_model::{MapVersion, Position, Stamp, TargetId, TxId, View};

use super::log::Record;
use crate::history::Value;
use crate::random::Random;

pub(super) type Node = u32;
/// The pool's log.
pub(super) const LOG: Node = 100;

/// What is asked of a target.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// An update: an encoded request.
    Update(Vec<u8>),
    /// A read of one key.
    Read { view: View, key: u32 },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// A condition does not hold, or the transaction is closed.
    Refused,
    Value(Value),
    Elsewhere(Option<TargetId>),
}

/// What is asked of the log.
#[derive(Clone, Debug)]
pub(super) enum LogAsk {
    Beat { server: u32, process: u64, incarnation: u64, sent_ns: u64 },
    Follow { server: u32, after: Position },
    Suspect { member: TargetId, map: MapVersion },
    Complete { group: usize, member: TargetId, map: MapVersion },
    Begin { id: u64 },
    Commit { tx: TxId },
    Abort { tx: TxId },
    Snapshot { id: u64 },
}

/// What it says.
#[derive(Clone, Debug)]
pub(super) enum LogTell {
    Granted {
        process: u64,
        sent_ns: u64,
        end: Position,
    },
    Records {
        after: Position,
        records: Vec<Record>,
    },
    Began {
        id: u64,
        tx: TxId,
    },
    /// C, or aborted.
    Closed {
        tx: TxId,
        commit: Option<Stamp>,
    },
    Snapshot {
        id: u64,
        stamp: Stamp,
        position: Position,
    },
}

/// A message.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Group(Vec<u8>),
    Request { id: u64, group: usize, hlc: Stamp, ask: Ask },
    Reply { id: u64, hlc: Stamp, answer: Answer },
    LogAsk { hlc: Stamp, ask: LogAsk },
    LogTell { hlc: Stamp, tell: LogTell },
}

/// What a version of the map says of all groups.
pub(super) type Maps = Vec<GroupMap>;

pub(super) struct Net {
    pub(super) now_ns: u64,
    queue: BTreeMap<(u64, u64), (Node, Node, Packet)>,
    next: u64,
    random: Random,
    /// Directions in which nothing passes.
    cut: BTreeSet<(Node, Node)>,
    delay_ns: u64,
    loss_ppm: u64,
    digest: DefaultHasher,
}

impl Net {
    pub(super) fn new(mut random: Random, calm: bool) -> Self {
        let (delay_ns, loss_ppm) =
            if calm { (20_000, 0) } else { (20_000 + random.below(2_000_000), random.below(50_000)) };
        Net {
            now_ns: 0,
            queue: BTreeMap::new(),
            next: 0,
            random,
            cut: BTreeSet::new(),
            delay_ns,
            loss_ppm,
            digest: DefaultHasher::new(),
        }
    }

    pub(super) fn send(&mut self, from: Node, to: Node, packet: Packet) {
        if self.cut.contains(&(from, to)) || self.random.below(1_000_000) < self.loss_ppm {
            return;
        }
        let copies = 1 + u64::from(self.random.below(1_000_000) < self.loss_ppm);
        for _ in 0..copies {
            // Most are fast, so that the slow ones come out of order.
            let slow = self.loss_ppm > 0 && self.random.chance(5);
            let delay_ns = 2_000 + self.random.below(if slow { 20 * self.delay_ns } else { self.delay_ns });
            self.next += 1;
            self.queue.insert((self.now_ns + delay_ns, self.next), (from, to, packet.clone()));
        }
    }

    /// Brings it later: its receiver does not run.
    pub(super) fn put_off(&mut self, at_ns: u64, from: Node, to: Node, packet: Packet) {
        self.next += 1;
        self.queue.insert((at_ns, self.next), (from, to, packet));
    }

    /// The next message that is due.
    pub(super) fn take(&mut self) -> Option<(Node, Node, Packet)> {
        let due = self.queue.first_entry().filter(|first| first.key().0 <= self.now_ns)?;
        let ((at_ns, number), (from, to, packet)) = due.remove_entry();
        (at_ns, number, from, to).hash(&mut self.digest);
        if let Packet::Group(bytes) = &packet {
            bytes.hash(&mut self.digest);
        }
        Some((from, to, packet))
    }

    pub(super) fn next_ns(&self) -> u64 {
        self.queue.first_key_value().map_or(u64::MAX, |((at_ns, _), _)| *at_ns)
    }

    pub(super) fn set_cut(&mut self, from: Node, to: Node, is_cut: bool) {
        if is_cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.next
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.finish()
    }
}
