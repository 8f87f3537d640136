//! The leader's part: it finds what any complete member holds, orders updates, spreads them, and makes marks.
//!
//! Must never number an update before it holds all that any complete member holds, and never give a mark that an update under way
//! could belie.

use std::collections::BTreeMap;

use talea_model::{MapVersion, Stamp, TargetId, TxId};
use talea_wire::group::{Body, Entry, Mark, Place};

use super::{At, Command, Member, Plant, RESEND_NS, SUSPECT_NS, Ticket, WINDOW_ENTRIES};

/// What a leader knows of another member.
struct Peer {
    /// It counts for the acknowledgement of updates, and its answer to a new leader. One that had missed something counts from
    /// when it has it all, and the pool is told.
    counts: bool,
    /// The map says that it is complete.
    complete: bool,
    /// Its answer.
    holds: Option<Place>,
    /// What it holds is what the leader holds, up to there.
    matches: bool,
    /// It holds everything up to this number.
    held: u64,
    /// It was sent everything up to this number.
    sent: u64,
    /// When it was last sent something that it has to answer.
    sent_ns: u64,
    /// Since when it owes an answer; `u64::MAX`: it owes none.
    owes_ns: u64,
    /// When the pool was told that it is complete.
    told_ns: u64,
    /// The mark that it waits for.
    ask: Option<Mark>,
}

/// A term of this member's.
pub(super) struct Leading {
    term: MapVersion,
    /// It holds all that any complete member holds.
    ready: bool,
    /// The member that holds most, and the number of its last entry.
    source: Option<(TargetId, u64)>,
    /// When members were last asked.
    asked_ns: u64,
    peers: BTreeMap<TargetId, Peer>,
    /// The last stamp of a planted bug.
    low: Stamp,
}

impl Peer {
    fn new(complete: bool, now_ns: u64) -> Self {
        Peer {
            counts: complete,
            complete,
            holds: None,
            matches: false,
            held: 0,
            sent: 0,
            sent_ns: now_ns,
            owes_ns: now_ns,
            told_ns: 0,
            ask: None,
        }
    }

    /// Whether it owes an answer.
    fn owes(&self, last: u64) -> bool {
        self.holds.is_none() || self.matches && self.held < last
    }
}

impl Member {
    /// A map makes this member the leader.
    pub(super) fn begin(&mut self, at: At, m: Stamp) {
        let Some(map) = &self.map else { return };
        let term = map.version;
        let others = map.members.iter().filter(|member| member.live && member.target != self.me);
        let all = self.options.plant == Plant::Incomplete;
        let peers: BTreeMap<TargetId, Peer> =
            others.map(|member| (member.target, Peer::new(member.complete || all, at.now_ns))).collect();
        let targets: Vec<TargetId> = peers.keys().copied().collect();
        self.leading =
            Some(Box::new(Leading { term, ready: false, source: None, asked_ns: at.now_ns, peers, low: Stamp::ZERO }));
        self.floor = self.floor.max(m).max(self.mark.stamp);
        targets.into_iter().for_each(|to| self.send(to, term, Body::Lead));
        self.collect(at);
    }

    /// Once all that count have answered: takes what it lacks from the one that holds most, and leads.
    fn collect(&mut self, at: At) {
        let last = self.tail.last().seq;
        let no_copy = self.options.plant == Plant::NoCopy;
        let Some(leading) = self.leading.as_deref_mut().filter(|leading| !leading.ready) else { return };
        let mut counting = leading.peers.iter().filter(|(_, peer)| peer.counts);
        if !no_copy && counting.any(|(_, peer)| peer.holds.is_none()) {
            return;
        }
        let counting = leading.peers.iter().filter(|(_, peer)| peer.counts);
        let most = counting.filter_map(|(target, peer)| Some((peer.holds?.seq, *target))).max();
        if let Some((seq, source)) = most.filter(|(seq, _)| *seq > last && !no_copy) {
            leading.source = Some((source, seq));
            leading.asked_ns = at.now_ns;
            let term = leading.term;
            self.send(source, term, Body::Fetch { after: last });
            return;
        }
        leading.ready = true;
        let answered: Vec<TargetId> =
            leading.peers.iter().filter(|(_, peer)| peer.holds.is_some()).map(|(target, _)| *target).collect();
        self.floor = self.floor.max(self.tail.highest());
        answered.into_iter().for_each(|target| self.compare(at, target));
    }

    /// Finds out where a member's order ends in this one's.
    fn compare(&mut self, at: At, target: TargetId) {
        let (tail, plant, version) = (&self.tail, self.options.plant, self.version());
        let Some(peer) = self.leading.as_deref_mut().and_then(|leading| leading.peers.get_mut(&target)) else { return };
        let Some(last) = peer.holds else { return };
        peer.matches = tail.place_at(last.seq) == Some(last);
        if !peer.matches && matches!(plant, Plant::NoCopy | Plant::Incomplete | Plant::OldLeader) {
            // Where a planted bug has spoilt the order everything goes on as if it had not.
            peer.matches = true;
        }
        (peer.held, peer.sent) = (last.seq.min(tail.last().seq), last.seq.min(tail.last().seq));
        (peer.owes_ns, peer.sent_ns) = (u64::MAX, at.now_ns);
        if !peer.matches && peer.complete {
            self.out.push(Command::Suspect { member: target, map: version });
        }
    }

    /// What members answer to their leader.
    pub(super) fn member_says(&mut self, at: At, from: TargetId, term: MapVersion, body: Body) {
        let last = self.tail.last().seq;
        let Some(leading) = self.leading.as_deref_mut().filter(|leading| leading.term == term) else { return };
        let (ready, source) = (leading.ready, leading.source);
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        match body {
            Body::Holds { last } if peer.holds.is_none() => {
                (peer.holds, peer.owes_ns) = (Some(last), at.now_ns);
                if ready {
                    self.compare(at, from);
                } else {
                    self.collect(at);
                }
            }
            Body::Held { through } if peer.matches && through > peer.held => {
                (peer.held, peer.sent_ns) = (through.min(last), at.now_ns);
                peer.owes_ns = if peer.held == last { u64::MAX } else { at.now_ns };
                peer.sent = peer.sent.max(peer.held);
            }
            Body::Ask { mark } => peer.ask = Some(peer.ask.unwrap_or_default().and(mark)),
            Body::Found { after, entries } if source.is_some_and(|(source, _)| source == from) && after == last => {
                peer.owes_ns = at.now_ns;
                entries.into_iter().for_each(|entry| self.take(entry));
                if let Some(leading) = self.leading.as_deref_mut() {
                    leading.source = None;
                }
                self.collect(at);
            }
            _ => {}
        }
    }

    /// Whether it leads, and holds all that any complete member holds.
    pub fn is_ready(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.ready)
    }

    /// The place and the stamp of the next update, if this member may give one: of a transaction, or (0) an autocommit. They are
    /// given by [`proposed`](Self::proposed).
    pub fn propose(&mut self, at: At, tx: TxId) -> Option<(Place, Stamp)> {
        let last = self.tail.last();
        let low_stamp = self.options.plant == Plant::LowStamp;
        let leading = self.leading.as_deref_mut().filter(|leading| leading.ready)?;
        let place = Place { seq: last.seq + 1, term: leading.term };
        if tx != TxId(0) {
            return Some((place, Stamp::ZERO));
        }
        let mut stamp = at.stamp.max(self.floor.next());
        if low_stamp {
            stamp = Stamp::from_unix_us(at.unix_us).max(leading.low.next());
            leading.low = stamp;
        }
        self.floor = self.floor.max(stamp);
        Some((place, stamp))
    }

    /// The update is in the leader's store: it is the next in the order, and is acknowledged when it is on all members.
    pub fn proposed(&mut self, entry: Entry, ticket: Ticket) {
        self.calls.push_back((entry.place.seq, ticket));
        self.tail.push(entry);
    }

    /// An update was done before: it is acknowledged when all that the leader holds by now is on all members. False if another one
    /// leads.
    pub fn settle(&mut self, ticket: Ticket) -> bool {
        let ready = self.is_ready();
        if ready {
            self.calls.push_back((self.tail.last().seq, ticket));
        }
        ready
    }

    /// Looks what is on all members by now, acknowledges it, and lets members count that have all.
    pub(super) fn progress(&mut self, at: At) {
        let (last, version) = (self.tail.last().seq, self.version());
        let early = self.options.plant == Plant::EarlyComplete;
        let Some(leading) = self.leading.as_deref_mut().filter(|leading| leading.ready) else { return };
        let counting = leading.peers.values().filter(|peer| peer.counts && (peer.complete || !early));
        let on_all = counting.map(|peer| if peer.matches { peer.held } else { 0 }).min().unwrap_or(last);
        self.settled = self.settled.max(on_all.min(last));
        for (target, peer) in &mut leading.peers {
            let all = peer.matches && !peer.complete && (peer.counts || early || peer.held >= self.settled);
            if all && (!peer.counts || at.now_ns >= peer.told_ns + SUSPECT_NS) {
                (peer.counts, peer.told_ns) = (true, at.now_ns);
                self.out.push(Command::Complete { member: *target, map: version });
            }
        }
        let done = if self.options.plant == Plant::EarlyDone { last } else { self.settled };
        while self.calls.front().is_some_and(|(seq, _)| *seq <= done) {
            self.out.extend(self.calls.pop_front().map(|(_, ticket)| Command::Done(ticket)));
        }
        self.refresh_mark(at);
    }

    /// The mark that is true now: below the stamps and the closures of all that is under way.
    pub(super) fn refresh_mark(&mut self, at: At) {
        if !self.is_ready() {
            return;
        }
        let mut mark = Mark { stamp: at.stamp, position: self.fates.through() };
        for entry in self.tail.after(self.settled) {
            if entry.stamp != Stamp::ZERO && self.options.plant != Plant::EarlyStamp {
                mark.stamp = mark.stamp.min(Stamp(entry.stamp.0 - 1));
            }
            if let Some(closed) = self.fates.closed_at(entry.tx)
                && self.options.plant != Plant::EarlyPosition
            {
                mark.position.0 = mark.position.0.min(closed.0 - 1);
            }
        }
        self.mark = self.mark.and(mark);
        self.floor = self.floor.max(self.mark.stamp);
        self.forget_fates();
    }

    /// Sends members what they have not been sent, and marks to those that wait for them.
    pub(super) fn spread(&mut self, at: At) {
        let (last, mark, settled, through) = (self.tail.last().seq, self.mark, self.settled, self.fates.through());
        let (tail, out) = (&self.tail, &mut self.out);
        let Some(leading) = self.leading.as_deref_mut().filter(|leading| leading.ready) else { return };
        let term = leading.term;
        for (target, peer) in &mut leading.peers {
            let mut send = |after, entries| {
                let body = Body::Append { after, entries, mark, settled };
                out.push(Command::Send { to: *target, term, body });
            };
            while peer.matches && peer.sent < last && peer.sent - peer.held < WINDOW_ENTRIES {
                let Some(after) = tail.place_at(peer.sent) else {
                    // What it needs is forgotten by now.
                    peer.matches = false;
                    break;
                };
                let entries = tail.batch(peer.sent);
                if peer.sent == peer.held {
                    peer.sent_ns = at.now_ns;
                }
                peer.owes_ns = peer.owes_ns.min(at.now_ns);
                peer.sent += entries.len() as u64;
                send(after, entries);
                peer.ask = peer.ask.filter(|asked| !mark.covers(*asked));
            }
            if let Some(asked) = peer.ask {
                if mark.covers(asked) {
                    peer.ask = None;
                    send(tail.last(), Vec::new());
                } else if asked.position > through {
                    out.push(Command::CatchUp(asked.position));
                }
            }
        }
    }

    pub(super) fn tick_leading(&mut self, at: At) {
        let (last, version) = (self.tail.last(), self.version());
        let mut sends = Vec::new();
        let Some(leading) = self.leading.as_deref_mut() else { return };
        if at.now_ns >= leading.asked_ns + RESEND_NS {
            leading.asked_ns = at.now_ns;
            let silent = leading.peers.iter().filter(|(_, peer)| peer.holds.is_none());
            sends.extend(silent.map(|(target, _)| (*target, Body::Lead)));
            sends.extend(leading.source.map(|(source, _)| (source, Body::Fetch { after: last.seq })));
        }
        let source = leading.source.map(|(source, _)| source);
        let owe = |(target, peer): &(&TargetId, &mut Peer)| peer.owes(last.seq) || source == Some(**target);
        for (target, peer) in leading.peers.iter_mut().filter(owe) {
            if peer.matches && at.now_ns >= peer.sent_ns + RESEND_NS {
                (peer.sent, peer.sent_ns) = (peer.held, at.now_ns);
            }
            if at.now_ns >= peer.owes_ns.saturating_add(SUSPECT_NS) {
                peer.owes_ns = at.now_ns;
                self.out.push(Command::Suspect { member: *target, map: version });
            }
        }
        let term = leading.term;
        sends.into_iter().for_each(|(to, body)| self.send(to, term, body));
    }

    pub(super) fn next_deadline_leading(&self) -> u64 {
        let Some(leading) = &self.leading else { return u64::MAX };
        let last = self.tail.last().seq;
        let peer_ns = |peer: &Peer| {
            let lead = if peer.holds.is_none() { leading.asked_ns + RESEND_NS } else { u64::MAX };
            let again = if peer.matches && peer.held < last { peer.sent_ns + RESEND_NS } else { u64::MAX };
            let told = if peer.counts && !peer.complete { peer.told_ns + SUSPECT_NS } else { u64::MAX };
            lead.min(again).min(told)
        };
        let fetch = if leading.source.is_some() { leading.asked_ns + RESEND_NS } else { u64::MAX };
        leading.peers.values().map(peer_ns).min().unwrap_or(u64::MAX).min(fetch)
    }

    /// Forgets entries that all members hold, but for some that a member which was away for a short time will need.
    pub(super) fn trim(&mut self) {
        let keep = self.options.keep_entries;
        let mut through = self.settled.saturating_sub(keep);
        if let Some(leading) = &self.leading {
            // Who is catching up is not outrun, if it does not take too long.
            let catching_up = leading.peers.values().filter(|peer| peer.matches && !peer.counts);
            let held = catching_up.map(|peer| peer.held).filter(|held| self.settled - held <= 4 * keep).min();
            through = through.min(held.unwrap_or(u64::MAX));
        }
        self.out.extend(self.tail.trim(through).map(Command::Trim));
    }
}
