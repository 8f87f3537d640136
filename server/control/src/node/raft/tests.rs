//! Replicas alone: votes and entries between them, with time and media in the test's hand.

use super::*;

/// Replicas, and all that is between them.
struct Group {
    now_ns: u64,
    replicas: Vec<Replica>,
    media: Vec<Stored>,
    digest: Vec<(u64, usize, usize)>,
    /// Replicas that are gone.
    gone: Vec<usize>,
}

fn id(server: usize) -> ReplicaId {
    ReplicaId { server: ServerId(server as u32), life: 7 }
}

impl Group {
    fn new(size: usize, seed: u64) -> Self {
        let open = |server| Replica::open(id(server), 2_000, 0, seed + server as u64, &Stored::default()).unwrap();
        let replicas: Vec<Replica> = (0..size).map(open).collect();
        replicas[0].found((0..size).map(id).collect());
        Group { now_ns: 0, replicas, media: vec![Stored::default(); size], digest: vec![], gone: vec![] }
    }

    /// Everything that happens at this moment.
    fn instant(&mut self) {
        loop {
            let mut busy = false;
            for server in (0..self.replicas.len()).filter(|server| !self.gone.contains(server)) {
                busy |= self.replicas[server].run(self.now_ns);
                if let Some(ops) = self.replicas[server].take_ops() {
                    ops.into_iter().for_each(|op| self.media[server].apply(op));
                    self.replicas[server].stored();
                    busy = true;
                }
                for outgoing in self.replicas[server].take_outgoing() {
                    let to = outgoing.to.server.0 as usize;
                    self.digest.push((self.now_ns, server, outgoing.bytes.len()));
                    if self.gone.contains(&to) {
                        continue;
                    }
                    self.replicas[to].receive(self.now_ns, PeerId(server as u64), outgoing.call, &outgoing.bytes);
                }
                for (peer, call, bytes) in self.replicas[server].take_replies() {
                    self.replicas[peer.0 as usize].answered(call, &bytes);
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn advance(&mut self, ms: u64) {
        let end_ns = self.now_ns + ms * 1_000_000;
        while self.now_ns < end_ns {
            self.instant();
            let living = (0..self.replicas.len()).filter(|server| !self.gone.contains(server));
            let next_ns = living.filter_map(|server| self.replicas[server].next_deadline()).min().unwrap_or(u64::MAX);
            self.now_ns = next_ns.clamp(self.now_ns + 1, end_ns);
        }
        self.instant();
    }

    fn leader(&self) -> usize {
        let leads = |server: &usize| !self.gone.contains(server) && self.replicas[*server].leading().own.is_some();
        (0..self.replicas.len()).find(leads).expect("a leader")
    }
}

fn proposal() -> Proposal {
    let entry = LogEntry::Leader { server: ServerId(9) };
    Proposal { proposed: Stamp(5), session: SessionId(0), sequence: 0, entry }
}

#[test]
fn three_replicas_elect_one_and_agree_on_what_it_is_told() {
    let mut group = Group::new(3, 1);
    group.advance(100);
    let leader = group.leader();
    assert!(group.replicas[leader].vouched_ns() > group.now_ns);
    group.replicas[leader].propose(3, vec![proposal(), proposal()]);
    group.advance(1_000);
    for replica in &group.replicas {
        let normal = |committed| match committed {
            Committed::Entry(entry) => match entry.payload {
                openraft::EntryPayload::Normal(payload) => Some(payload),
                _ => None,
            },
            Committed::Snapshot(_) => None,
        };
        let payloads: Vec<Payload> = replica.take_applied().into_iter().filter_map(normal).collect();
        assert_eq!(payloads.len(), 1);
        assert_eq!((payloads[0].ticket, payloads[0].proposals.len()), (3, 2));
    }
}

#[test]
fn equal_seeds_make_equal_histories() {
    let run = |seed| {
        let mut group = Group::new(3, seed);
        group.advance(1_000);
        group.gone.push(group.leader());
        group.advance(5_000);
        group.leader();
        group.digest
    };
    assert_eq!(run(4), run(4));
    assert_ne!(run(4), run(5), "the seed decides");
}

#[test]
fn i9_idle_replicas_speak_a_few_times_a_second() {
    let mut group = Group::new(3, 1);
    group.advance(2_000);
    let before = group.digest.len();
    group.advance(10_000);
    let calls = group.digest.len() - before;
    assert!(calls <= 120, "{calls} calls in ten idle seconds");
}

#[test]
fn what_a_medium_holds_makes_the_same_replica_again_and_damage_is_named() {
    let mut group = Group::new(1, 1);
    group.advance(10);
    group.replicas[0].propose(1, vec![proposal()]);
    group.advance(10);
    let mut again = Replica::open(id(0), 2_000, group.now_ns, 3, &group.media[0]).unwrap();
    let mut media = group.media[0].clone();
    loop {
        let busy = again.run(group.now_ns);
        match again.take_ops() {
            Some(ops) => ops.into_iter().for_each(|op| media.apply(op)),
            None if !busy => break,
            None => continue,
        }
        again.stored();
    }
    assert!(again.leading().own.is_some(), "alone, it leads at once");
    let mut damaged = group.media[0].clone();
    damaged.entries.remove(1);
    assert!(Replica::open(id(0), 2_000, 0, 3, &damaged).is_err(), "a hole");
    damaged = group.media[0].clone();
    damaged.entries[1].1[0] ^= 0xff;
    assert!(Replica::open(id(0), 2_000, 0, 3, &damaged).is_err(), "another entry");
}
