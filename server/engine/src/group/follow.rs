//! A follower's part: it takes its leader's updates in order, says what it holds, and asks for marks.
//!
//! Must never follow the leader of an earlier map than it knows. What it knows is durable before it answers, for it comes with the
//! pool's log.

use talea_model::{MapVersion, TargetId};
use talea_wire::group::{Body, Entry, Mark, Place};

use super::{At, Command, Member, Need, Plant};

impl Member {
    /// What a leader says, or one that still thinks that it leads.
    pub(super) fn leader_says(&mut self, at: At, from: TargetId, term: MapVersion, body: Body) {
        let trusting = self.options.plant == Plant::OldLeader;
        if term > self.version() || !self.is_there() {
            // The log will say so here, too, and the leader says it again.
            return;
        }
        if !trusting && (term < self.version() || self.leader() != Some(from)) {
            let map = self.version();
            self.send(from, term, Body::Stale { map });
            return;
        }
        match body {
            Body::Append { after, entries, mark, settled } => {
                self.append(at, from, term, after, entries, mark, settled)
            }
            _ => {
                let last = self.tail.last();
                self.send(from, term, Body::Holds { last });
            }
        }
    }

    #[expect(clippy::too_many_arguments)]
    fn append(
        &mut self,
        at: At,
        from: TargetId,
        term: MapVersion,
        after: Place,
        entries: Vec<Entry>,
        mark: Mark,
        settled: u64,
    ) {
        let is_other = self.tail.place_at(after.seq).is_some_and(|known| known != after);
        if is_other && !matches!(self.options.plant, Plant::OldLeader | Plant::NoCopy | Plant::Incomplete) {
            // Not one order: the leader is to find out, and may then not count on this member.
            return;
        }
        let answers = !entries.is_empty();
        if after.seq <= self.tail.last().seq {
            entries.into_iter().for_each(|entry| self.take(entry));
        }
        let last = self.tail.last().seq;
        if answers {
            self.send(from, term, Body::Held { through: last });
        }
        self.settled = self.settled.max(settled.min(last));
        if self.is_complete() {
            self.mark = self.mark.and(mark);
            self.forget_fates();
            if self.asked.is_some_and(|(_, asked)| self.mark.covers(asked)) {
                self.asked = None;
            }
        }
        self.serve(at);
    }

    /// No update will come of what closed up to the mark's position.
    pub(super) fn forget_fates(&mut self) {
        // With that bug some do come, and it is not this that is to be found out.
        if self.options.plant != Plant::EarlyPosition {
            self.fates.forget(self.mark.position);
        }
    }

    /// Takes an entry, if it is the next one.
    pub(super) fn take(&mut self, entry: Entry) {
        if entry.place.seq == self.tail.last().seq + 1 {
            self.out.push(Command::Apply(entry.clone()));
            self.tail.push(entry);
        }
    }

    /// The leader asks for what it lacks.
    pub(super) fn fetched(&mut self, from: TargetId, term: MapVersion, after: u64) {
        if term == self.version() && self.tail.place_at(after).is_some() {
            let entries = self.tail.batch(after);
            self.send(from, term, Body::Found { after, entries });
        }
    }

    /// Asks the leader for a mark that covers all reads that wait.
    pub(super) fn ask(&mut self, at: At) {
        let wanted = self.reads.iter().filter_map(|read| match read.need {
            Need::Snapshot(mark) => Some(mark),
            Need::Latest => None,
        });
        let Some(wanted) = wanted.reduce(Mark::and) else {
            self.asked = None;
            return;
        };
        if wanted.position > self.fates.through() {
            self.out.push(Command::CatchUp(wanted.position));
        }
        let leader = self.leader().filter(|leader| *leader != self.me);
        let is_asked = self.asked.is_some_and(|(_, asked)| asked.covers(wanted));
        if is_asked || self.mark.covers(wanted) {
            return;
        }
        self.asked = Some((at.now_ns, wanted));
        if let Some(leader) = leader {
            let term = self.version();
            self.send(leader, term, Body::Ask { mark: wanted });
        }
    }
}
