//! Requests that wait for the horizon, the map or the log's end, for room, or for their sender to take its answers.
//!
//! Owns their bounds: number, bytes and deadlines. Must never hold one that waits for another client (I3): what they
//! wait for comes from the pool's log, the store, or the sender itself.

use std::collections::BTreeMap;

use talea_fabric::PeerId;
use talea_model::{MapVersion, Position};
use talea_vos::Walk;
use talea_wire::{Refusal, RefusalCode};

use crate::outbox::Outbox;

/// Requests parked at a target at most.
const MAX_PARKED: usize = 65_536;
/// Their bytes at most.
const MAX_PARKED_BYTES: usize = 256 << 20;
/// Those of one peer.
const MAX_PEER_BYTES: usize = 8 << 20;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The horizon.
    Horizon(Position),
    /// The log's end, asked for by a question with this token or a later one, and the horizon there.
    LogEnd(u64),
    /// A pool map; version 0: any.
    Map(MapVersion),
    /// The next turn, in which more room is made for it; refused when the store has come so far without finding any.
    Room {
        /// See [`talea_vos::Store::room_rounds`].
        until_round: u64,
    },
    /// The next turn, in which it goes on with what it looks for.
    Turn,
    /// That its sender takes the answers that it has been given.
    Answers,
    /// The turn's end, where the device is asked for what several fetches need together.
    Device,
}

impl Wait {
    /// Why a request that waited for this is late.
    pub(super) fn late(self, horizon: Position) -> String {
        let what = match self {
            Wait::Horizon(position) => format!("the log's position {position}"),
            Wait::LogEnd(_) => "the end of the log".to_owned(),
            Wait::Map(version) => format!("pool map {version}"),
            Wait::Room { .. } => {
                return "the deadline passed while room was made for it on a full tier: punch data, drop snapshots, or try again".to_owned();
            }
            Wait::Answers => {
                return "the deadline passed while answers that it had asked for before were not taken: ask for less at a time".to_owned();
            }
            Wait::Device => return "the deadline passed before its device was asked: try again".to_owned(),
            Wait::Turn => {
                return "the deadline passed while it, or others before it, went through many keys and records: try again, with a longer deadline".to_owned();
            }
        };
        format!(
            "the deadline passed while it waited for {what} (its horizon is {horizon}): is the pool's leader alive? see `talea status`"
        )
    }
}

pub(super) struct ParkedOp {
    pub(super) peer: PeerId,
    /// When it arrived.
    pub(super) since_ns: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) deadline_ns: u64,
    pub(super) wait: Wait,
    /// What an enumeration or a query found so far, and where it is.
    pub(super) walk: Option<Box<Walk>>,
}

impl Wait {
    fn is_of_turn(self) -> bool {
        matches!(self, Wait::Turn | Wait::Device)
    }

    fn is_of_room(self) -> bool {
        matches!(self, Wait::Room { .. })
    }
}

#[derive(Default)]
pub(super) struct Parked {
    ops: Vec<ParkedOp>,
    bytes: usize,
    /// How many of each peer are here, and their bytes.
    counts: BTreeMap<PeerId, (usize, usize)>,
    /// The earliest deadline.
    earliest_ns: Option<u64>,
    /// How many wait for a turn alone, and for one that made room.
    of_turns: usize,
    of_room: usize,
    of_answers: usize,
    /// What the request just attempted has to wait for.
    pub(super) wanted: Option<Wait>,
    /// What the enumeration or query just attempted goes on with.
    pub(super) walk: Option<Box<Walk>>,
}

impl Parked {
    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether somebody waits for nothing but a turn.
    pub(super) fn wants_turn(&self) -> bool {
        self.of_turns > 0 || self.of_room > 0
    }

    /// Whether somebody can go on in the next turn, whatever happens until then.
    pub(super) fn wants_to_go_on(&self) -> bool {
        self.of_turns > 0
    }

    /// Whether somebody waits for room.
    pub(super) fn wants_room(&self) -> bool {
        self.of_room > 0
    }

    pub(super) fn of(&self, peer: PeerId) -> usize {
        self.counts.get(&peer).map_or(0, |(count, _)| *count)
    }

    /// Whether somebody who waited for his answers to be taken can go on.
    pub(super) fn can_answer(&self, out: &Outbox) -> bool {
        self.of_answers > 0 && self.ops.iter().any(|op| op.wait == Wait::Answers && out.has_room(op.peer))
    }

    pub(super) fn push(&mut self, op: ParkedOp) -> Result<(), Refusal> {
        let (count, bytes) = self.counts.get(&op.peer).copied().unwrap_or_default();
        let is_share = count == 0 || bytes + op.bytes.len() <= MAX_PEER_BYTES;
        if self.ops.len() >= MAX_PARKED || self.bytes + op.bytes.len() > MAX_PARKED_BYTES || !is_share {
            let text = "too many requests wait for the pool's log at this target: try again";
            return Err(Refusal::new(RefusalCode::Busy, text));
        }
        self.bytes += op.bytes.len();
        self.of_turns += usize::from(op.wait.is_of_turn());
        self.of_room += usize::from(op.wait.is_of_room());
        self.of_answers += usize::from(op.wait == Wait::Answers);
        self.counts.insert(op.peer, (count + 1, bytes + op.bytes.len()));
        self.earliest_ns = Some(self.next_deadline().min(op.deadline_ns));
        self.ops.push(op);
        Ok(())
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.take(|op| op.peer == peer);
    }

    /// Takes those that can go on, in the order of their arrival.
    pub(super) fn ready(
        &mut self,
        horizon: Position,
        map: Option<MapVersion>,
        answers: &BTreeMap<u64, Position>,
        out: &Outbox,
    ) -> Vec<ParkedOp> {
        self.take(|op| match op.wait {
            Wait::Answers => out.has_room(op.peer),
            Wait::Horizon(position) => horizon >= position,
            Wait::LogEnd(token) => answers.range(token..).next().is_some_and(|(_, position)| horizon >= *position),
            Wait::Map(version) => map.is_some_and(|known| known >= version),
            Wait::Room { .. } | Wait::Turn | Wait::Device => true,
        })
    }

    pub(super) fn expired(&mut self, now_ns: u64) -> Vec<ParkedOp> {
        if self.next_deadline() > now_ns {
            return Vec::new();
        }
        self.take(|op| op.deadline_ns <= now_ns)
    }

    pub(super) fn next_deadline(&self) -> u64 {
        self.earliest_ns.unwrap_or(u64::MAX)
    }

    /// Whether somebody waits for a question that has no answer yet.
    pub(super) fn unanswered(&self, answers: &BTreeMap<u64, Position>) -> bool {
        let answered = answers.last_key_value().map_or(0, |(token, _)| *token);
        self.ops.iter().any(|op| matches!(op.wait, Wait::LogEnd(token) if token > answered))
    }

    /// The oldest question that somebody needs the answer of.
    pub(super) fn oldest_token(&self) -> u64 {
        let tokens = self.ops.iter().filter_map(|op| match op.wait {
            Wait::LogEnd(token) => Some(token),
            _ => None,
        });
        tokens.min().unwrap_or(u64::MAX)
    }

    fn take(&mut self, mut which: impl FnMut(&ParkedOp) -> bool) -> Vec<ParkedOp> {
        if self.ops.is_empty() {
            return Vec::new();
        }
        let (taken, kept): (Vec<_>, _) = std::mem::take(&mut self.ops).into_iter().partition(|op| which(op));
        self.ops = kept;
        for op in &taken {
            self.of_turns -= usize::from(op.wait.is_of_turn());
            self.of_room -= usize::from(op.wait.is_of_room());
            self.of_answers -= usize::from(op.wait == Wait::Answers);
            self.bytes -= op.bytes.len();
            if let Some((count, bytes)) = self.counts.get_mut(&op.peer) {
                *count -= 1;
                *bytes -= op.bytes.len();
                if *count == 0 {
                    self.counts.remove(&op.peer);
                }
            }
        }
        self.earliest_ns = self.ops.iter().map(|op| op.deadline_ns).min();
        taken
    }
}
