//! The pool's log of the groups' world: one replica that never fails, behind the same bad network.
//!
//! Owns who is live and who is complete (rule 9), leases (rule 11), fates and snapshots (rule 2). The real one is tested with the
//! whole cluster; here it is as small as it can be.

use std::collections::{BTreeMap, BTreeSet};

use talea_engine::group::{GroupMap, Standing};
use talea_model::{Hlc, MapVersion, Position, Stamp, TargetId, TxId};

use super::net::{LogAsk, LogTell, Maps};

/// A server may serve for so long after it asked.
pub(super) const LEASE_NS: u64 = 400_000_000;
const DRIFT_NS: u64 = 5_000_000;
/// Records of one message at most.
const RECORDS: usize = 256;

/// A record of the log.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Begin(TxId),
    Commit(TxId, Stamp),
    Abort(TxId),
    Map(Maps),
    /// Only a position: that of a snapshot.
    Snapshot,
}

/// What the pool knows of a server.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    live: bool,
    process: u64,
    incarnation: u64,
    lease_ends_ns: u64,
    /// It gets no more leases before it was excluded.
    condemned: bool,
}

pub(super) struct Log {
    records: Vec<Record>,
    ceiling: Stamp,
    hlc: Hlc,
    servers: Vec<Known>,
    groups: Vec<Vec<TargetId>>,
    complete: Vec<BTreeSet<TargetId>>,
    version: MapVersion,
    began: BTreeMap<u64, TxId>,
    pub(super) fates: BTreeMap<TxId, Option<Stamp>>,
    last_tx: u64,
    /// How often who was excluded, and declared complete again.
    pub(super) excluded: u64,
    pub(super) completed: u64,
    /// The group and the member of the last time, until somebody looks.
    pub(super) just_completed: Option<(usize, TargetId)>,
}

impl Log {
    pub(super) fn new(servers: u32, groups: Vec<Vec<TargetId>>) -> Self {
        // The pool begins when all are there.
        let first = Known { live: true, process: 1, incarnation: 1, lease_ends_ns: 2 * LEASE_NS, condemned: false };
        let mut log = Log {
            records: Vec::new(),
            ceiling: Stamp::ZERO,
            hlc: Hlc::default(),
            servers: vec![first; servers as usize],
            complete: groups.iter().map(|group| group.iter().copied().collect()).collect(),
            groups,
            version: MapVersion(0),
            began: BTreeMap::new(),
            fates: BTreeMap::new(),
            last_tx: 0,
            excluded: 0,
            completed: 0,
            just_completed: None,
        };
        log.new_map();
        log
    }

    fn end(&self) -> Position {
        Position(self.records.len() as u64)
    }

    pub(super) fn stamp(&mut self, unix_us: u64) -> Stamp {
        self.hlc.tick(unix_us)
    }

    pub(super) fn observe(&mut self, hlc: Stamp) {
        self.hlc.observe(hlc);
    }

    /// What its map says now.
    pub(super) fn maps(&self) -> Maps {
        let standing = |group: usize, target: TargetId| {
            let known = self.servers[target.0 as usize];
            let complete = self.complete[group].contains(&target);
            Standing { target, live: known.live, complete, process: known.process }
        };
        let map = |(number, group): (usize, &Vec<TargetId>)| GroupMap {
            version: self.version,
            stamp: self.ceiling,
            members: group.iter().map(|target| standing(number, *target)).collect(),
        };
        self.groups.iter().enumerate().map(map).collect()
    }

    fn new_map(&mut self) {
        self.version.0 += 1;
        self.ceiling = self.ceiling.next();
        self.records.push(Record::Map(self.maps()));
    }

    /// Whether what lies on a server lies elsewhere, too.
    pub(super) fn may_lose(&self, server: u32) -> bool {
        let live = |target: &TargetId| self.servers[target.0 as usize].live && target.0 != server;
        let holds = |complete: &BTreeSet<TargetId>| !complete.contains(&TargetId(server)) || complete.iter().any(live);
        self.complete.iter().all(holds)
    }

    /// A server's medium is lost, and whoever looks after the system says so: what lies elsewhere must not be taken for less than
    /// what lay there.
    pub(super) fn lose(&mut self, server: u32, incarnation: u64) {
        let known = &mut self.servers[server as usize];
        (known.live, known.condemned, known.incarnation) = (false, false, incarnation);
        self.complete.iter_mut().for_each(|complete| _ = complete.remove(&TargetId(server)));
        self.new_map();
    }

    /// Leases end.
    pub(super) fn tick(&mut self, now_ns: u64) {
        for server in 0..self.servers.len() {
            let known = &mut self.servers[server];
            if known.live && known.lease_ends_ns <= now_ns {
                (known.live, known.condemned) = (false, false);
                self.excluded += 1;
                self.misses(TargetId(server as u32));
                self.new_map();
            }
        }
    }

    pub(super) fn next_ns(&self) -> u64 {
        let live = self.servers.iter().filter(|known| known.live);
        live.map(|known| known.lease_ends_ns).min().unwrap_or(u64::MAX)
    }

    /// Whoever is away misses what the others do, if there are others.
    fn misses(&mut self, target: TargetId) {
        for complete in &mut self.complete {
            let others = complete.iter().any(|other| *other != target && self.servers[other.0 as usize].live);
            if others {
                complete.remove(&target);
            }
        }
    }

    fn beat(&mut self, now_ns: u64, server: u32, process: u64, incarnation: u64, sent_ns: u64) -> Option<LogTell> {
        let known = self.servers[server as usize];
        if process < known.process || known.condemned && process == known.process {
            return None;
        }
        if known.incarnation != incarnation {
            return None;
        }
        if !known.live || known.process != process {
            self.servers[server as usize] =
                Known { live: true, process, incarnation, lease_ends_ns: 0, condemned: false };
            self.new_map();
        }
        self.servers[server as usize].lease_ends_ns = now_ns + LEASE_NS + DRIFT_NS;
        Some(LogTell::Granted { process, sent_ns, end: self.end() })
    }

    /// A member that does not answer is not given another lease, unless it is the only one that has everything.
    fn suspect(&mut self, member: TargetId, map: MapVersion) {
        let may = |complete: &BTreeSet<TargetId>| {
            let other = |other: &TargetId| {
                let known = self.servers[other.0 as usize];
                *other != member && known.live && !known.condemned
            };
            !complete.contains(&member) || complete.iter().any(other)
        };
        if map == self.version && self.complete.iter().all(may) {
            self.servers[member.0 as usize].condemned = self.servers[member.0 as usize].live;
        }
    }

    fn close(&mut self, tx: TxId, commit: bool) -> LogTell {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.fates.entry(tx) {
            let stamp = commit.then(|| self.ceiling.next().max(self.hlc.last()));
            vacant.insert(stamp);
            self.ceiling = self.ceiling.max(stamp.unwrap_or_default());
            self.records.push(stamp.map_or(Record::Abort(tx), |stamp| Record::Commit(tx, stamp)));
        }
        LogTell::Closed { tx, commit: self.fates[&tx] }
    }

    fn since(&self, after: Position) -> LogTell {
        let records = self.records.iter().skip(after.0 as usize).take(RECORDS).cloned().collect();
        LogTell::Records { after, records }
    }

    /// Answers a question.
    pub(super) fn ask(&mut self, now_ns: u64, ask: LogAsk) -> Option<LogTell> {
        match ask {
            LogAsk::Beat { server, process, incarnation, sent_ns } => {
                self.beat(now_ns, server, process, incarnation, sent_ns)
            }
            LogAsk::Follow { server, after } => {
                let _ = server;
                Some(self.since(after))
            }
            LogAsk::Suspect { member, map } => {
                self.suspect(member, map);
                None
            }
            LogAsk::Complete { group, member, map } => {
                if map == self.version && self.servers[member.0 as usize].live && self.complete[group].insert(member) {
                    self.completed += 1;
                    self.just_completed = Some((group, member));
                    self.new_map();
                }
                None
            }
            LogAsk::Begin { id } => {
                let tx = *self.began.entry(id).or_insert_with(|| {
                    self.last_tx += 1;
                    self.records.push(Record::Begin(TxId(self.last_tx)));
                    TxId(self.last_tx)
                });
                Some(LogTell::Began { id, tx })
            }
            LogAsk::Commit { tx } => Some(self.close(tx, true)),
            LogAsk::Abort { tx } => Some(self.close(tx, false)),
            LogAsk::Snapshot { id } => {
                self.ceiling = self.ceiling.next().max(self.hlc.last());
                self.records.push(Record::Snapshot);
                Some(LogTell::Snapshot { id, stamp: self.ceiling, position: self.end() })
            }
        }
    }
}
