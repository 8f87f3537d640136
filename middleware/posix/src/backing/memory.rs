//! An obvious model of a container for tests: every read replays all operations that its view sees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use talea_abi::Code;
use talea_model::{LeaseId, ObjectClass, Oid, Position, Stamp, Step, Summary, TargetId, TxId, View};

use super::*;

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Open,
    Committed(u64),
    Aborted,
}

enum What {
    Put { dkey: Vec<u8>, akey: Vec<u8>, kind: ValueKind, extents: Vec<Extent>, data: Vec<u8> },
    Punch { dkey: Option<Vec<u8>>, range: Option<(Vec<u8>, Extent)> },
}

struct Op {
    /// Autocommit's stamp, 0 for a pending version.
    stamp: u64,
    /// Its transaction, or the one it is tied to.
    tx: Option<TxId>,
    oid: Oid,
    what: What,
}

#[derive(Default)]
struct State {
    ops: Vec<Op>,
    fates: BTreeMap<TxId, (Fate, u64)>,
    clock: u64,
    step: u64,
    steps: Vec<u64>,
    /// Where each of them says that its files are named.
    manifests: Vec<Option<u32>>,
    /// Number of updates still to be taken before one fails; a test's switch.
    fail_after: Option<usize>,
    begins: usize,
    /// Objects that each independent transaction has read.
    reads: BTreeMap<TxId, BTreeSet<Oid>>,
}

/// A container in memory; clones are other processes' views of it.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

/// A single value, and the cells of an array.
type Found = (Option<Vec<u8>>, BTreeMap<u64, u8>);

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Indices of the operations that a view sees, in order.
    fn seen(&self, view: View) -> Vec<usize> {
        let (limit, inside) = match view {
            View::Latest => (u64::MAX, None),
            View::Snapshot { stamp, .. } => (stamp.0, None),
            View::Inside { tx, base, .. } => (base.0, Some(tx)),
        };
        let place = |op: &Op| -> Option<u64> {
            let fate = op.tx.map(|tx| self.fates[&tx].0);
            if op.tx.is_some() && op.tx == inside {
                return Some(if op.stamp > 0 { op.stamp } else { u64::MAX });
            }
            match (op.stamp, fate) {
                (0, Some(Fate::Committed(c))) => (c <= limit).then_some(c),
                (0, _) | (_, Some(Fate::Aborted)) => None,
                (stamp, Some(Fate::Open)) => (limit == u64::MAX).then_some(stamp),
                (stamp, Some(Fate::Committed(c))) => (c.max(stamp) <= limit).then_some(stamp),
                (stamp, None) => (stamp <= limit).then_some(stamp),
            }
        };
        let mut seen: Vec<(u64, usize)> =
            self.ops.iter().enumerate().filter_map(|(i, op)| place(op).map(|at| (at, i))).collect();
        seen.sort_unstable();
        seen.into_iter().map(|(_, i)| i).collect()
    }

    /// All values of an object in a view.
    fn object(&self, view: View, oid: Oid) -> BTreeMap<(Vec<u8>, Vec<u8>), Found> {
        let mut object: BTreeMap<(Vec<u8>, Vec<u8>), Found> = BTreeMap::new();
        for op in self.seen(view).into_iter().map(|i| &self.ops[i]).filter(|op| op.oid == oid) {
            match &op.what {
                What::Put { dkey, akey, kind, extents, data } => {
                    let value = object.entry((dkey.clone(), akey.clone())).or_default();
                    match kind {
                        ValueKind::Single | ValueKind::SingleMax => value.0 = Some(data.clone()),
                        ValueKind::Array { .. } => {
                            let cells = extents.iter().flat_map(|e| e.index..e.end());
                            value.1.extend(cells.zip(data.iter().copied()));
                        }
                    }
                }
                What::Punch { dkey: None, .. } => object.clear(),
                What::Punch { dkey: Some(dkey), range: None } => object.retain(|key, _| key.0 != *dkey),
                What::Punch { dkey: Some(dkey), range: Some((akey, extent)) } => {
                    if let Some(value) = object.get_mut(&(dkey.clone(), akey.clone())) {
                        value.1.retain(|cell, _| !(extent.index..extent.end()).contains(cell));
                    }
                }
            }
        }
        object.retain(|_, value| value.0.is_some() || !value.1.is_empty());
        object
    }

    fn put(&mut self, oid: Oid, stamp: u64, tx: Option<TxId>, entries: &[Update<'_>], view: View) -> Result<(), Fault> {
        if let Some(left) = &mut self.fail_after {
            if *left == 0 {
                return Err(Fault::new(Code::NoSpace, "the pool is full"));
            }
            *left -= 1;
        }
        let object = self.object(view, oid);
        for entry in entries {
            let there = object.contains_key(&(entry.dkey.to_vec(), entry.akey.to_vec()));
            if entry.condition == Condition::Insert && there {
                return Err(Fault::new(Code::Exists, "exists"));
            }
            // As a store does: judged once, by what the writer sees, and from then on a value like any other.
            let before = object.get(&(entry.dkey.to_vec(), entry.akey.to_vec())).and_then(|found| found.0.as_deref());
            if entry.kind == ValueKind::SingleMax && before.is_some_and(|before| before >= entry.data) {
                continue;
            }
            let array = entry.extents.iter().map(|e| e.count).sum::<u64>();
            assert!(entry.extents.is_empty() || array == entry.data.len() as u64);
            let (dkey, akey) = (entry.dkey.to_vec(), entry.akey.to_vec());
            let what =
                What::Put { dkey, akey, kind: entry.kind, extents: entry.extents.clone(), data: entry.data.to_vec() };
            self.ops.push(Op { stamp, tx, oid, what });
        }
        Ok(())
    }

    /// Notes what an independent transaction reads.
    fn note(&mut self, view: View, oid: Oid) {
        if let View::Inside { tx, .. } = view
            && let Some(reads) = self.reads.get_mut(&tx)
        {
            reads.insert(oid);
        }
    }

    /// Whether everything that an independent transaction has read is as it was.
    fn holds(&self, tx: TxId, base: u64) -> bool {
        let at = |stamp| View::Snapshot { stamp: Stamp(stamp), position: Position(1), lease: LeaseId(0) };
        let same = |oid: &Oid| self.object(at(base), *oid) == self.object(at(self.clock), *oid);
        self.reads.get(&tx).into_iter().flatten().all(same)
    }

    fn remove(&mut self, oid: Oid, stamp: u64, tx: Option<TxId>, what: Punch<'_>) {
        let what = match what {
            Punch::Object => What::Punch { dkey: None, range: None },
            Punch::Dkey(dkey) => What::Punch { dkey: Some(dkey.to_vec()), range: None },
            Punch::Range { dkey, akey, extent } => {
                What::Punch { dkey: Some(dkey.to_vec()), range: Some((akey.to_vec(), extent)) }
            }
        };
        self.ops.push(Op { stamp, tx, oid, what });
    }
}

impl Memory {
    pub(crate) fn fail_after(&self, updates: Option<usize>) {
        self.0.lock().unwrap().fail_after = updates;
    }
    /// Records of an array in the newest state.
    pub(crate) fn cells(&self, oid: Oid, dkey: &[u8], akey: &[u8]) -> usize {
        let object = self.0.lock().unwrap().object(View::Latest, oid);
        object.get(&(dkey.to_vec(), akey.to_vec())).map_or(0, |found| found.1.len())
    }
    pub(crate) fn steps(&self) -> u64 {
        self.0.lock().unwrap().step
    }
    pub(crate) fn manifest(&self, step: u64) -> Option<u32> {
        self.0.lock().unwrap().manifests[step as usize - 1]
    }
    pub(crate) fn begins(&self) -> usize {
        self.0.lock().unwrap().begins
    }
    pub(crate) fn open_epochs(&self) -> usize {
        self.0.lock().unwrap().fates.values().filter(|(fate, _)| *fate == Fate::Open).count()
    }
    pub(crate) fn latest(&self) -> View {
        View::Latest
    }
    fn auto(&self, oid: Oid, tied: Option<TxId>, entries: &[Update<'_>]) -> Result<(), Fault> {
        assert!(entries.iter().all(|entry| entry.dkey == entries[0].dkey), "an autocommit covers one dkey");
        let mut state = self.0.lock().unwrap();
        let stamp = state.tick();
        state.put(oid, stamp, tied, entries, View::Latest)
    }
    fn begun(&self, state: &mut State) -> Box<dyn Epoch> {
        let tx = TxId(state.fates.len() as u64 + 1);
        let base = state.tick();
        state.begins += 1;
        state.fates.insert(tx, (Fate::Open, base));
        self.part(tx, base)
    }
    fn part(&self, tx: TxId, base: u64) -> Box<dyn Epoch> {
        Box::new(Part { memory: self.clone(), tx, base, touched: Mutex::default() })
    }
}

impl System for Memory {
    fn container(&self, name: &str) -> Result<Arc<dyn Backing>, Fault> {
        if name == "run" { Ok(Arc::new(self.clone())) } else { Err(Fault::new(Code::NoContainer, "no such container")) }
    }
    fn join(&self, blob: &[u8]) -> Result<Arc<dyn Backing>, Fault> {
        self.container(&String::from_utf8_lossy(blob))
    }
}

impl Backing for Memory {
    fn name(&self) -> &str {
        "run"
    }
    fn blob(&self) -> Vec<u8> {
        b"run".to_vec()
    }
    fn default_class(&self) -> ObjectClass {
        ObjectClass::SX
    }
    fn default_chunk_bytes(&self) -> u64 {
        4096
    }
    fn targets(&self) -> usize {
        4
    }
    fn hlc(&self) -> Stamp {
        Stamp(self.0.lock().unwrap().clock)
    }
    fn observe(&self, stamp: Stamp) {
        let mut state = self.0.lock().unwrap();
        state.clock = state.clock.max(stamp.0);
    }
    fn manifest_slot(&self, oid: Oid, dkey: &[u8]) -> Result<u32, Fault> {
        assert_eq!(dkey, crate::inode::META, "where the file's records are");
        Ok((oid.0 % self.targets() as u128) as u32)
    }
    fn update(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault> {
        self.auto(oid, None, entries)
    }
    fn punch(&self, oid: Oid, what: Punch<'_>, condition: Condition) -> Result<(), Fault> {
        let mut state = self.0.lock().unwrap();
        if let (Punch::Dkey(dkey), Condition::DkeyUpdate) = (what, condition)
            && !state.object(View::Latest, oid).keys().any(|key| key.0 == dkey)
        {
            return Err(Fault::new(Code::NotFound, "no such dkey"));
        }
        let stamp = state.tick();
        state.remove(oid, stamp, None, what);
        Ok(())
    }
    fn fetch(&self, view: View, oid: Oid, entries: &mut [Fetch<'_>]) -> Result<(), Fault> {
        let mut state = self.0.lock().unwrap();
        state.note(view, oid);
        let object = state.object(view, oid);
        for entry in entries {
            let value = object.get(&(entry.dkey.to_vec(), entry.akey.to_vec()));
            entry.found = value.is_some();
            entry.out.fill(0);
            if entry.extents.is_empty() {
                let bytes = value.and_then(|v| v.0.clone()).unwrap_or_default();
                entry.bytes = bytes.len();
                entry.out[..bytes.len()].copy_from_slice(&bytes);
            } else if let Some((_, cells)) = value {
                let wanted = entry.extents.iter().flat_map(|e| e.index..e.end());
                wanted.zip(entry.out.iter_mut()).for_each(|(i, out)| *out = cells.get(&i).copied().unwrap_or(0));
            }
        }
        Ok(())
    }
    fn dkeys(&self, view: View, oid: Oid, after: Option<&[u8]>, limit: usize) -> Result<Names, Fault> {
        let mut state = self.0.lock().unwrap();
        state.note(view, oid);
        let all: BTreeSet<Vec<u8>> = state.object(view, oid).into_keys().map(|key| key.0).collect();
        let mut names: Vec<Vec<u8>> = all.into_iter().filter(|name| after.is_none_or(|a| &name[..] > a)).collect();
        let more = names.len() > limit;
        names.truncate(limit);
        Ok(Names { names, more })
    }
    fn array_end(&self, view: View, oid: Oid, dkey: &[u8], akey: &[u8]) -> Result<u64, Fault> {
        let mut state = self.0.lock().unwrap();
        state.note(view, oid);
        let object = state.object(view, oid);
        let cells = object.get(&(dkey.to_vec(), akey.to_vec())).and_then(|found| found.1.last_key_value());
        Ok(cells.map_or(0, |(last, _)| last + 1))
    }
    fn last_array(&self, view: View, oid: Oid, akey: &[u8]) -> Result<Option<(u64, u64)>, Fault> {
        let object = self.0.lock().unwrap().object(view, oid);
        let ends = object.into_iter().filter(|(key, _)| key.1 == akey);
        let number = |dkey: &[u8]| u64::from_be_bytes(dkey.try_into().unwrap());
        let end = |cells: &BTreeMap<u64, u8>| cells.last_key_value().map_or(0, |(last, _)| last + 1);
        Ok(ends.map(|(key, value)| (number(&key.0), end(&value.1))).max())
    }
    fn begin(&self, _collective: bool) -> Result<Box<dyn Epoch>, Fault> {
        Ok(self.begun(&mut self.0.lock().unwrap()))
    }
    fn tx_open(&self) -> Result<Box<dyn Epoch>, Fault> {
        let mut state = self.0.lock().unwrap();
        let part = self.begun(&mut state);
        state.reads.insert(part.tx(), BTreeSet::new());
        Ok(part)
    }
    fn join(&self, blob: &[u8]) -> Result<Box<dyn Epoch>, Fault> {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| blob[at + i]));
        Ok(self.part(TxId(number(0)), number(8)))
    }
    fn snapshot(&self, at: SnapshotAt) -> Result<Box<dyn Snapshot>, Fault> {
        let mut state = self.0.lock().unwrap();
        let (stamp, step) = match at {
            SnapshotAt::Latest => (state.tick(), state.step),
            SnapshotAt::Step(Step(step)) => {
                let stamp = state.steps.get((step as usize).wrapping_sub(1));
                (*stamp.ok_or(Fault::new(Code::NotFound, "no such step"))?, step)
            }
            SnapshotAt::Named(_) => return Err(Fault::new(Code::NotFound, "no such snapshot")),
        };
        Ok(Box::new(Lease(
            View::Snapshot { stamp: Stamp(stamp), position: Position(1), lease: LeaseId(0) },
            Step(step),
        )))
    }
}

struct Lease(View, Step);

impl Snapshot for Lease {
    fn view(&self) -> View {
        self.0
    }
    fn step(&self) -> Step {
        self.1
    }
}

struct Part {
    memory: Memory,
    tx: TxId,
    base: u64,
    touched: Mutex<Summary>,
}

impl Part {
    fn open(&self, state: &State) -> Result<(), Fault> {
        match state.fates[&self.tx].0 {
            Fate::Open => Ok(()),
            _ => Err(Fault::new(Code::Aborted, "the transaction is closed")),
        }
    }
}

impl Epoch for Part {
    fn tx(&self) -> TxId {
        self.tx
    }
    fn view(&self) -> View {
        View::Inside { tx: self.tx, base: Stamp(self.base), position: Position(1) }
    }
    fn base_step(&self) -> Step {
        Step(0)
    }
    fn blob(&self) -> Vec<u8> {
        [self.tx.0.to_le_bytes(), self.base.to_le_bytes()].concat()
    }
    fn update(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault> {
        let mut state = self.memory.0.lock().unwrap();
        self.open(&state)?;
        let mut touched = self.touched.lock().unwrap();
        touched.touched.insert(TargetId(0));
        let done = state.put(oid, 0, Some(self.tx), entries, self.view());
        touched.failed |= done.is_err();
        done
    }
    fn update_tied(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault> {
        self.touched.lock().unwrap().touched.insert(TargetId(0));
        self.memory.auto(oid, Some(self.tx), entries)
    }
    fn punch(&self, oid: Oid, what: Punch<'_>) -> Result<(), Fault> {
        let mut state = self.memory.0.lock().unwrap();
        self.open(&state)?;
        self.touched.lock().unwrap().touched.insert(TargetId(0));
        state.remove(oid, 0, Some(self.tx), what);
        Ok(())
    }
    fn summary(&self) -> Result<Summary, Fault> {
        Ok(self.touched.lock().unwrap().clone())
    }
    fn commit(&self, summary: &Summary, manifest: Option<u32>, next: bool) -> Result<Done, Refused> {
        let mut state = self.memory.0.lock().unwrap();
        let mut fault = self.open(&state).err();
        if fault.is_none() && summary.failed {
            fault = Some(Fault::new(Code::Aborted, "an update failed"));
        }
        if fault.is_none() && !state.holds(self.tx, self.base) {
            fault = Some(Fault::new(Code::Conflict, "what it has read was changed"));
        }
        let independent = state.reads.remove(&self.tx).is_some();
        let stamp = state.tick();
        if fault.is_none() {
            state.fates.get_mut(&self.tx).unwrap().0 = Fate::Committed(stamp);
            if !summary.touched.is_empty() && !independent {
                state.step += 1;
                state.steps.push(stamp);
                state.manifests.push(manifest);
            }
        } else if state.fates[&self.tx].0 == Fate::Open {
            state.fates.get_mut(&self.tx).unwrap().0 = Fate::Aborted;
        }
        let next = next.then(|| self.memory.begun(&mut state));
        match fault {
            None => Ok(Done { stamp: Stamp(stamp), step: Step(state.step), next }),
            Some(fault) => Err(Refused { fault, next }),
        }
    }
    fn abort(&self, _reason: &str) -> Result<(), Fault> {
        let mut state = self.memory.0.lock().unwrap();
        self.open(&state)?;
        state.fates.get_mut(&self.tx).unwrap().0 = Fate::Aborted;
        Ok(())
    }
    fn closed(self: Box<Self>) {}
}
