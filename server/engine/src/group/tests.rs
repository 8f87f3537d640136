//! What members say to each other, message by message, without a store.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const A: TargetId = TargetId(0);
const B: TargetId = TargetId(1);
const C: TargetId = TargetId(2);
const MS: u64 = 1_000_000;

/// Members whose messages arrive at once, but for those that are cut off.
struct Group {
    members: BTreeMap<TargetId, Member>,
    now_ns: u64,
    stamp: u64,
    cut: Vec<TargetId>,
    sent: Vec<&'static str>,
    done: Vec<Ticket>,
    served: Vec<(TargetId, Ticket)>,
    elsewhere: Vec<Ticket>,
    told: Vec<Command>,
}

fn map(version: u32, stamp: u64, members: &[(TargetId, bool, bool)]) -> GroupMap {
    let standing = |&(target, live, complete): &(TargetId, bool, bool)| Standing { target, live, complete, process: 1 };
    GroupMap { version: MapVersion(version), stamp: Stamp(stamp), members: members.iter().map(standing).collect() }
}

fn name(body: &Body) -> &'static str {
    match body {
        Body::Lead => "lead",
        Body::Holds { .. } => "holds",
        Body::Fetch { .. } => "fetch",
        Body::Found { .. } => "found",
        Body::Append { entries, .. } if entries.is_empty() => "mark",
        Body::Append { .. } => "append",
        Body::Held { .. } => "held",
        Body::Ask { .. } => "ask",
        Body::Stale { .. } => "stale",
    }
}

impl Group {
    fn of(members: &[TargetId]) -> Self {
        let options = Options { keep_entries: 2, plant: Plant::None };
        let member = |target: &TargetId| (*target, Member::open(*target, 1, Held::default(), options));
        let mut group = Group {
            members: members.iter().map(member).collect(),
            now_ns: 1,
            stamp: 1_000,
            cut: vec![],
            sent: vec![],
            done: vec![],
            served: vec![],
            elsewhere: vec![],
            told: vec![],
        };
        let all: Vec<_> = members.iter().map(|target| (*target, true, true)).collect();
        group.map(&map(1, 5, &all));
        group.sent.clear();
        group
    }

    fn at(&mut self) -> At {
        self.stamp += 1;
        At { now_ns: self.now_ns, stamp: Stamp(self.stamp), unix_us: 0 }
    }

    fn map(&mut self, map: &GroupMap) {
        for target in self.members.keys().copied().collect::<Vec<_>>() {
            if !self.cut.contains(&target) {
                let at = self.at();
                self.member(target).set_map(at, map.clone());
            }
        }
        self.settle();
    }

    fn member(&mut self, target: TargetId) -> &mut Member {
        self.members.get_mut(&target).unwrap()
    }

    /// Delivers everything until nobody says anything any more.
    fn settle(&mut self) {
        loop {
            let mut under_way = VecDeque::new();
            for target in self.members.keys().copied().collect::<Vec<_>>() {
                let at = self.at();
                let now_ns = self.now_ns;
                let member = self.member(target);
                if member.next_deadline() <= now_ns {
                    member.tick(at);
                }
                member.finish(at);
                for command in member.take_commands() {
                    match command {
                        Command::Send { to, term, body } => {
                            self.sent.push(name(&body));
                            under_way.push_back((target, to, term, body));
                        }
                        Command::Done(ticket) => self.done.push(ticket),
                        Command::Serve(ticket) => self.served.push((target, ticket)),
                        Command::Elsewhere(ticket) => self.elsewhere.push(ticket),
                        Command::Suspect { .. } | Command::Complete { .. } => self.told.push(command),
                        Command::Apply(_) | Command::Trim(_) | Command::CatchUp(_) => {}
                    }
                }
            }
            if under_way.is_empty() {
                return;
            }
            for (from, to, term, body) in under_way {
                if !self.cut.contains(&from) && !self.cut.contains(&to) {
                    let at = self.at();
                    self.member(to).message(at, from, term, body);
                }
            }
        }
    }

    fn propose(&mut self, leader: TargetId, tx: TxId, ticket: Ticket) -> Stamp {
        let at = self.at();
        let member = self.member(leader);
        let (place, stamp) = member.propose(at, tx).unwrap();
        member.proposed(Entry { place, stamp, tx, request: ticket.to_le_bytes().as_slice().into() }, ticket);
        stamp
    }

    fn read(&mut self, target: TargetId, ticket: Ticket, stamp: Stamp, position: u64) {
        let at = self.at();
        let need = Need::Snapshot(Mark { stamp, position: Position(position) });
        self.member(target).read(at, ticket, need);
        self.settle();
    }

    fn follow(&mut self, target: TargetId, closed: Option<(TxId, Position)>, through: u64) {
        let at = self.at();
        let member = self.member(target);
        if let Some((tx, position)) = closed {
            member.closed(tx, position, Fate::Committed(Stamp(position.0)));
        }
        member.through(at, Position(through));
    }

    fn last(&self, target: TargetId) -> Place {
        self.members[&target].tail.last()
    }

    /// Time passes, and whoever has something to do does it.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now_ns += 10 * MS;
            self.settle();
        }
    }
}

#[test]
fn a_group_of_one_says_nothing_to_anybody() {
    let mut group = Group::of(&[A]);
    let stamp = group.propose(A, TxId(0), 1);
    group.settle();
    group.read(A, 2, stamp, 0);
    assert_eq!((group.done, group.served), (vec![1], vec![(A, 2)]));
    assert!(group.sent.is_empty() && group.members[&A].next_deadline() == u64::MAX, "{:?}", group.sent);
}

#[test]
fn an_update_costs_a_message_and_an_answer_a_member_and_rest_costs_nothing() {
    let mut group = Group::of(&[A, B, C]);
    (1..=3).for_each(|ticket| _ = group.propose(A, TxId(0), ticket));
    group.settle();
    assert_eq!(group.done, [1, 2, 3]);
    assert_eq!(group.sent, ["append", "append", "held", "held"], "what comes in one turn goes in one message");
    group.sent.clear();
    group.pass(2_000);
    assert!(group.sent.is_empty(), "an idle group is silent: {:?}", group.sent);
    assert!(group.members.values().all(|member| member.next_deadline() == u64::MAX));
}

#[test]
fn a_member_asks_for_a_mark_once_and_marks_come_with_updates() {
    let mut group = Group::of(&[A, B, C]);
    let stamp = group.propose(A, TxId(0), 1);
    group.settle();
    group.sent.clear();
    group.read(B, 2, stamp, 0);
    group.read(B, 3, stamp, 0);
    assert_eq!(group.sent, ["ask", "mark"]);
    assert_eq!(group.served, [(B, 2), (B, 3)]);
    group.sent.clear();
    let next = group.propose(A, TxId(0), 4);
    group.settle();
    group.propose(A, TxId(0), 5);
    group.settle();
    group.sent.clear();
    group.read(C, 6, next, 0);
    assert!(group.sent.is_empty(), "the mark over the one before came with the last one: {:?}", group.sent);
    assert_eq!(group.served.last(), Some(&(C, 6)));
}

#[test]
fn an_update_is_acknowledged_when_all_have_it_and_no_mark_passes_it_before() {
    let mut group = Group::of(&[A, B, C]);
    group.cut = vec![C];
    let stamp = group.propose(A, TxId(0), 1);
    group.propose(A, TxId(9), 2);
    group.settle();
    assert!(group.done.is_empty());
    group.follow(A, Some((TxId(9), Position(7))), 8);
    group.follow(B, Some((TxId(9), Position(7))), 8);
    group.read(A, 3, Stamp(stamp.0 - 1), 6);
    group.read(A, 4, stamp, 6);
    group.read(A, 5, Stamp(stamp.0 - 1), 7);
    group.read(B, 6, stamp, 6);
    assert_eq!(group.served, [(A, 3)], "below what is under way in both");
    group.cut.clear();
    group.pass(100);
    assert_eq!(group.done, [1, 2]);
    group.served.sort_unstable();
    assert_eq!(group.served, [(A, 3), (A, 4), (A, 5), (B, 6)]);
}

#[test]
fn a_new_leader_takes_what_any_member_holds_and_an_old_one_is_refused() {
    let mut group = Group::of(&[A, B, C]);
    group.propose(A, TxId(0), 1);
    group.settle();
    // The second one reaches C alone.
    group.cut = vec![B];
    let second = group.propose(A, TxId(0), 2);
    group.settle();
    group.cut = vec![A];
    group.map(&map(2, 1_500, &[(A, false, false), (B, true, true), (C, true, true)]));
    assert_eq!(group.last(B), group.last(C));
    assert_eq!(group.last(B), Place { seq: 2, term: MapVersion(1) });
    assert!(group.sent.contains(&"fetch"));
    assert!(group.propose(B, TxId(0), 3) > Stamp(1_500).max(second), "above M and above all that it holds");
    group.settle();
    assert_eq!(group.done, [1, 3]);
    group.cut.clear();
    group.propose(A, TxId(0), 4);
    group.settle();
    assert_eq!(group.done, [1, 3], "the old leader's is not acknowledged");
    assert_eq!(group.last(C), Place { seq: 3, term: MapVersion(2) });
    // It hears of the map, and has an update that nobody else has in the place of another: it is left to rebuild.
    group.map(&map(3, 9_000, &[(A, true, false), (B, true, true), (C, true, true)]));
    group.pass(100);
    assert_eq!(group.elsewhere, [2, 4]);
    assert!(group.told.iter().all(|command| !matches!(command, Command::Complete { .. })), "{:?}", group.told);
}

#[test]
fn who_was_away_gets_what_it_missed_and_counts_before_the_pool_is_told() {
    let mut group = Group::of(&[A, B]);
    group.cut = vec![B];
    group.map(&map(2, 2_000, &[(A, true, true), (B, false, false)]));
    (1..=2).for_each(|ticket| _ = group.propose(A, TxId(0), ticket));
    group.settle();
    group.cut.clear();
    group.map(&map(3, 3_000, &[(A, true, true), (B, true, false)]));
    assert_eq!(group.last(A), group.last(B));
    assert_eq!(group.told, [Command::Complete { member: B, map: MapVersion(3) }]);
    group.read(B, 9, Stamp(2_000), 0);
    assert_eq!(group.elsewhere, [9], "it serves nothing before the map says so");
    group.cut = vec![B];
    group.propose(A, TxId(0), 3);
    group.settle();
    assert_eq!(group.done, [1, 2], "it counts already");
    group.cut.clear();
    group.pass(40);
    assert_eq!(group.done, [1, 2, 3]);
    // The next time it missed more than the others remember.
    group.cut = vec![B];
    group.map(&map(4, 4_000, &[(A, true, true), (B, false, false)]));
    (4..=20).for_each(|ticket| _ = group.propose(A, TxId(0), ticket));
    group.settle();
    (group.cut, group.told) = (vec![], vec![]);
    group.map(&map(5, 5_000, &[(A, true, true), (B, true, false)]));
    group.pass(2_000);
    assert_eq!(group.told, [], "it is left to rebuild, and nobody is asked again and again");
    assert!(group.members.values().all(|member| member.next_deadline() == u64::MAX));
}

#[test]
fn a_member_that_does_not_answer_is_told_of() {
    let mut group = Group::of(&[A, B]);
    group.cut = vec![B];
    group.propose(A, TxId(0), 1);
    group.pass(1_200);
    assert_eq!(group.told, vec![Command::Suspect { member: B, map: MapVersion(1) }; 2]);
    assert!(group.sent.len() < 80, "{} messages in 1.2 s", group.sent.len());
}
