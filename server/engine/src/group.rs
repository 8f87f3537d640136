//! A member of a redundancy group as a state machine: maps, messages, updates and reads go in, commands come out
//! (docs/design.md §4 rule 9).
//!
//! Owns the order of a group's updates, who leads, what is on all members, and under which mark a snapshot may be served. Must
//! never do I/O, read a clock or draw randomness, and never let anything be seen before it is durable: whoever carries the
//! commands out ([`Host`]) lets nothing leave a turn before the turn's flush.
//!
//! All complete members of a group hold the same updates in the same order, each up to some point. The leader numbers them, and a
//! member takes the next one only. So of any two complete members one holds all that the other does, and a new leader has to
//! find the one that holds most, no more. Places carry the term that gave them: a member that was away is the same as the
//! others up to its last place, if the leader knows that place, and then gets what followed. If the leader does not, because it
//! was forgotten or never was, it is left to rebuild.

mod fates;
mod follow;
pub mod host;
mod journal;
mod lead;
mod tail;
#[cfg(test)]
mod tests;
mod update;

use std::collections::VecDeque;

use talea_model::{Fate, MapVersion, Position, Stamp, TargetId, TxId};
use talea_wire::group::{Body, Entry, Mark, Place};

use fates::Fates;
pub use host::{Host, HostError, Outcome, Unserved};
use lead::Leading;
use tail::Tail;

/// A message that got no answer is sent again after this time, in nanoseconds.
pub const RESEND_NS: u64 = 20_000_000;
/// The pool is told of a member that has not answered for so long, in nanoseconds.
pub const SUSPECT_NS: u64 = 500_000_000;
/// Entries and bytes of one message, and how much may be under way to one member.
const BATCH_ENTRIES: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
const WINDOW_ENTRIES: u64 = 256;

/// Names an update or a read to whoever asked.
pub type Ticket = u64;

/// When an input comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct At {
    /// Monotonic nanoseconds.
    pub now_ns: u64,
    /// A stamp that the target's clock gave for this input alone: above all that it gave, served or heard of before, and durably
    /// so by the end of the turn (rule 10).
    pub stamp: Stamp,
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
}

/// How a member stands in the pool map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub target: TargetId,
    /// Its server is there.
    pub live: bool,
    /// It has missed nothing.
    pub complete: bool,
    /// The number of its process that the pool knows: another one has no part in the group yet, and gets a map of its own. So
    /// a version has one process that leads.
    pub process: u64,
}

/// What a version of the pool map says of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMap {
    /// The version.
    pub version: MapVersion,
    /// M: the stamp that the map's entry took.
    pub stamp: Stamp,
    /// Members in the placement's order.
    pub members: Vec<Standing>,
}

impl GroupMap {
    /// The leader: the first of those that are there and complete.
    pub fn leader(&self) -> Option<TargetId> {
        self.members.iter().find(|member| member.live && member.complete).map(|member| member.target)
    }

    fn standing(&self, target: TargetId) -> Option<&Standing> {
        self.members.iter().find(|member| member.target == target)
    }
}

/// What a read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A snapshot at S, issued at n, or the base of a transaction.
    Snapshot(Mark),
    /// The latest state: all that the leader has taken up to now is on all members.
    Latest,
}

/// Planted bugs that the simulation's checker must catch; in no configuration.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// Snapshots are served without a mark.
    Unmarked,
    /// An update is acknowledged when the leader holds it.
    EarlyDone,
    /// A new leader begins with what it holds itself.
    NoCopy,
    /// A new leader stamps by its own clock alone.
    LowStamp,
    /// Members take updates from whoever has led.
    OldLeader,
    /// Marks do not wait for updates of closed transactions.
    EarlyPosition,
    /// Marks do not wait for stamped updates.
    EarlyStamp,
    /// Whoever is there counts as complete.
    Incomplete,
    /// A member refuses its leader's updates of transactions that it knows as closed.
    OwnFate,
    /// Whoever begins to catch up counts as complete.
    EarlyComplete,
    /// A session's updates of all groups are remembered together.
    SharedSessions,
}

/// How a member behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Updates that all members hold and that are kept nevertheless, for a member that was away for a short time: so many at most.
    pub keep_entries: u64,
    /// A planted bug, for tests only.
    #[doc(hidden)]
    pub plant: Plant,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep_entries: 256, plant: Plant::None }
    }
}

/// What a member has of its group on its medium.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The place before the first entry.
    pub base: Place,
    /// Entries, densely.
    pub entries: Vec<Entry>,
}

/// What a member wants to be done, in this order. Nothing leaves the target before all of it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Note the entry and apply it to the store.
    Apply(Entry),
    /// Entries up to this place are not needed any more.
    Trim(Place),
    /// Tell another member.
    Send {
        /// Whom.
        to: TargetId,
        /// The map that it belongs to.
        term: MapVersion,
        /// What.
        body: Body,
    },
    /// The update is on all members.
    Done(Ticket),
    /// The read may be served from the store as it is now.
    Serve(Ticket),
    /// Neither an acknowledgement nor a no: another one leads, or this member is not complete. To be asked again there; an
    /// update that was taken nevertheless is not done twice (rule 14).
    Elsewhere(Ticket),
    /// Somebody waits for this position of the pool's log.
    CatchUp(Position),
    /// The pool should know that a member does not answer, as far as this version knows.
    Suspect {
        /// Who.
        member: TargetId,
        /// The version.
        map: MapVersion,
    },
    /// The pool should know that a member has all again that it had missed, if this is still the version.
    Complete {
        /// Who.
        member: TargetId,
        /// The version.
        map: MapVersion,
    },
}

/// A read that waits.
#[derive(Clone, Copy, Debug)]
struct Read {
    ticket: Ticket,
    need: Need,
    /// For the latest state: the last update that had been taken when it came.
    through: u64,
}

/// One member. See the module's description.
pub struct Member {
    me: TargetId,
    process: u64,
    options: Options,
    map: Option<GroupMap>,
    tail: Tail,
    /// All complete members hold everything up to this number, as far as is known here.
    settled: u64,
    mark: Mark,
    fates: Fates,
    /// Stamps at or below it are not given any more.
    floor: Stamp,
    leading: Option<Box<Leading>>,
    /// Updates that are to be acknowledged when all up to a number is on all members; in the order of the numbers.
    calls: VecDeque<(u64, Ticket)>,
    reads: Vec<Read>,
    /// When the leader was asked for a mark, and which.
    asked: Option<(u64, Mark)>,
    out: Vec<Command>,
}

impl Member {
    /// A member as its medium knows it. It serves nothing until it has a map.
    pub fn open(me: TargetId, process: u64, held: Held, options: Options) -> Self {
        Member {
            me,
            process,
            options,
            map: None,
            tail: Tail::new(held.base, held.entries),
            settled: held.base.seq,
            mark: Mark::default(),
            fates: Fates::default(),
            floor: Stamp::ZERO,
            leading: None,
            calls: VecDeque::new(),
            reads: Vec::new(),
            asked: None,
            out: Vec::new(),
        }
    }

    /// What is to be done since the last call.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.out)
    }

    /// Whether it is there and complete: only then it serves.
    pub fn is_complete(&self) -> bool {
        let standing = self.map.as_ref().and_then(|map| map.standing(self.me)).filter(|_| self.is_there());
        standing.is_some_and(|me| me.complete || self.options.plant == Plant::Incomplete)
    }

    /// Whether the map knows this process.
    fn is_there(&self) -> bool {
        let standing = self.map.as_ref().and_then(|map| map.standing(self.me));
        standing.is_some_and(|me| me.live && me.process == self.process)
    }

    /// The leader, as far as this member knows.
    pub fn leader(&self) -> Option<TargetId> {
        let map = self.map.as_ref()?;
        match self.options.plant {
            Plant::Incomplete => map.members.iter().find(|member| member.live).map(|member| member.target),
            _ => map.leader(),
        }
    }

    /// The places that it holds, the first one without its entry.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.tail.places()
    }

    /// The mark that it serves under.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// What became of a transaction, as long as updates of it may come.
    pub(crate) fn fate(&self, tx: TxId) -> Option<Fate> {
        self.fates.of(tx)
    }

    fn version(&self) -> MapVersion {
        self.map.as_ref().map_or(MapVersion(0), |map| map.version)
    }

    /// A new pool map, in the log's order.
    pub fn set_map(&mut self, at: At, map: GroupMap) {
        if self.map.as_ref().is_some_and(|known| known.version >= map.version) {
            return;
        }
        let stamp = map.stamp;
        self.map = Some(map);
        // A mark that it has stays true, and covers nothing that was issued after the new map: its position is an earlier one.
        self.asked = None;
        if self.leader() == Some(self.me) && self.is_there() {
            self.leading = None;
            self.begin(at, stamp);
        } else if self.leading.take().is_some() {
            self.out.extend(self.calls.drain(..).map(|(_, ticket)| Command::Elsewhere(ticket)));
        }
        self.serve(at);
    }

    /// A transaction was closed at a position of the pool's log. In the log's order; after a restart from a position on that no
    /// mark had reached.
    pub fn closed(&mut self, tx: TxId, position: Position, fate: Fate) {
        self.fates.close(tx, position, fate);
    }

    /// All that the log says up to a position was told.
    pub fn through(&mut self, at: At, position: Position) {
        self.fates.advance(position);
        self.serve(at);
    }

    /// Ends a turn: sends what the inputs before made, all for one member together.
    pub fn finish(&mut self, at: At) {
        if self.leading.is_some() {
            self.progress(at);
            self.serve(at);
            self.spread(at);
        }
        self.trim();
    }

    /// A message of another member.
    pub fn message(&mut self, at: At, from: TargetId, term: MapVersion, body: Body) {
        match body {
            Body::Lead | Body::Append { .. } => self.leader_says(at, from, term, body),
            Body::Fetch { after } => self.fetched(from, term, after),
            Body::Holds { .. } | Body::Found { .. } | Body::Held { .. } | Body::Ask { .. } => {
                self.member_says(at, from, term, body);
            }
            // Its map will come with the log, or this process is another one's forerunner and has nothing to say any more.
            Body::Stale { .. } => {}
        }
    }

    /// A read comes. It is served at once, or when it may be; or it has to go elsewhere.
    pub fn read(&mut self, at: At, ticket: Ticket, need: Need) {
        self.reads.push(Read { ticket, need, through: self.tail.last().seq });
        self.serve(at);
    }

    /// Whoever asked does not wait any more.
    pub fn forget(&mut self, ticket: Ticket) {
        self.reads.retain(|read| read.ticket != ticket);
        self.calls.retain(|(_, waiting)| *waiting != ticket);
    }

    /// Time went by.
    pub fn tick(&mut self, at: At) {
        self.tick_leading(at);
        if self.asked.is_some_and(|(asked_ns, _)| at.now_ns >= asked_ns.saturating_add(RESEND_NS)) {
            self.asked = None;
            self.ask(at);
        }
    }

    /// When [`tick`](Self::tick) has something to do; `u64::MAX`: never, for who has nothing under way says nothing.
    pub fn next_deadline(&self) -> u64 {
        let asked_ns = self.asked.map_or(u64::MAX, |(asked_ns, _)| asked_ns.saturating_add(RESEND_NS));
        asked_ns.min(self.next_deadline_leading())
    }

    /// Serves what may be served.
    fn serve(&mut self, at: At) {
        if self.reads.is_empty() {
            return;
        }
        if !self.is_complete() {
            self.out.extend(self.reads.drain(..).map(|read| Command::Elsewhere(read.ticket)));
            return;
        }
        let leads = self.leading.is_some();
        if leads {
            self.refresh_mark(at);
        }
        let is_ready = self.is_ready();
        let (mark, settled, plant) = (self.mark, self.settled, self.options.plant);
        let through = self.fates.through();
        let out = &mut self.out;
        self.reads.retain(|read| {
            let command = match read.need {
                Need::Latest if !leads => Command::Elsewhere(read.ticket),
                Need::Latest if is_ready && settled >= read.through => Command::Serve(read.ticket),
                Need::Snapshot(asked) if asked.position > through => return true,
                Need::Snapshot(asked) if mark.covers(asked) || plant == Plant::Unmarked => Command::Serve(read.ticket),
                _ => return true,
            };
            out.push(command);
            false
        });
        self.ask(at);
    }

    fn send(&mut self, to: TargetId, term: MapVersion, body: Body) {
        self.out.push(Command::Send { to, term, body });
    }
}
