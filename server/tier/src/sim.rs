//! A simulated medium: it knows which bytes were flushed, and a crash keeps any subset of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::medium::check_range;
use crate::{Medium, MediumKind, Share, TierError};

/// In which units unflushed bytes survive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Cache lines of 64 bytes, as on pmem.
    Lines,
    /// Sectors of 512 bytes, as on NVMe.
    Sectors,
}

impl Torn {
    const fn unit_bytes(self) -> u64 {
        match self {
            Torn::Lines => 64,
            Torn::Sectors => 512,
        }
    }
}

struct State {
    torn: Torn,
    /// What a reader sees.
    current: Vec<u8>,
    /// Contents at the last flush of each unit written since.
    unflushed: BTreeMap<u64, Vec<u8>>,
    persists: u64,
    written_bytes: u64,
    read_bytes: u64,
    fail_after_writes: Option<u64>,
    lose_after_writes: Option<u64>,
    /// Where a write was lost that had been taken.
    lost_at: Option<u64>,
    /// Its inode number, if others can map it.
    shared_as: Option<u64>,
    /// It says that nothing outlives the process.
    volatile: bool,
    /// What its board shows.
    posted: u64,
    /// Reads wait for it; and each of them and of those that were begun, in order.
    waits: bool,
    reads: Vec<SimRead>,
}

/// What a medium that reads wait for was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimRead {
    /// A read was begun, at this offset.
    Begun(u64),
    /// Bytes were read from there.
    Done(u64),
}

/// A medium in memory whose contents can be asked "what if the power failed now". Clones are handles to one medium.
#[derive(Clone)]
pub struct SimMedium {
    state: Arc<Mutex<State>>,
}

impl SimMedium {
    /// Path under which its board is shared.
    pub const BOARD: &str = "simulated board";

    /// A zeroed medium.
    pub fn new(capacity_bytes: u64, torn: Torn) -> Self {
        Self::of(vec![0; capacity_bytes as usize], torn)
    }

    fn of(current: Vec<u8>, torn: Torn) -> Self {
        let unflushed = BTreeMap::new();
        let state = State {
            torn,
            current,
            unflushed,
            persists: 0,
            written_bytes: 0,
            read_bytes: 0,
            fail_after_writes: None,
            lose_after_writes: None,
            lost_at: None,
            shared_as: None,
            volatile: false,
            posted: 0,
            waits: false,
            reads: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new medium that holds what survives a power loss now: all flushed bytes, and of each unflushed unit either the old or
    /// the new contents as `random` decides. The original is not changed.
    pub fn crash(&self, random: &mut dyn FnMut() -> u64) -> SimMedium {
        let state = self.lock();
        let mut survives = state.current.clone();
        for (unit, old) in &state.unflushed {
            if random() & 1 == 0 {
                let at = (unit * state.torn.unit_bytes()) as usize;
                survives[at..at + old.len()].copy_from_slice(old);
            }
        }
        Self::of(survives, state.torn)
    }

    /// Bytes written since the last flush, in whole units.
    pub fn unflushed_bytes(&self) -> u64 {
        let state = self.lock();
        state.unflushed.len() as u64 * state.torn.unit_bytes()
    }

    /// Number of flushes so far.
    pub fn persists(&self) -> u64 {
        self.lock().persists
    }

    /// Bytes read so far.
    pub fn read_bytes(&self) -> u64 {
        self.lock().read_bytes
    }

    /// Bytes written so far.
    pub fn written_bytes(&self) -> u64 {
        self.lock().written_bytes
    }

    /// Flips bits of one byte, as a failing device does: XORs `mask` into it, flushed or not.
    pub fn corrupt(&self, offset: u64, mask: u8) {
        let mut state = self.lock();
        if let Some(byte) = state.current.get_mut(offset as usize) {
            *byte ^= mask;
        }
    }

    /// All current bytes.
    pub fn image(&self) -> Vec<u8> {
        self.lock().current.clone()
    }

    /// From now on it is memory, and says so.
    pub fn is_memory(&self) {
        self.lock().volatile = true;
    }

    /// From now on reads wait for it, and are noted.
    pub fn is_device(&self) {
        self.lock().waits = true;
    }

    /// What it was asked since the last call.
    pub fn take_reads(&self) -> Vec<SimRead> {
        std::mem::take(&mut self.lock().reads)
    }

    /// What its board shows.
    pub fn posted(&self) -> u64 {
        self.lock().posted
    }

    /// Says under which number others find it ([`Medium::share`]).
    pub fn share_as(&self, inode: u64) {
        self.lock().shared_as = Some(inode);
    }

    /// Lets every write after the next `writes` fail.
    pub fn fail_after(&self, writes: u64) {
        self.lock().fail_after_writes = Some(writes);
    }

    /// Takes the write after the next `writes` and loses it, as a device does that finds out later: whoever writes or flushes after it
    /// is told.
    pub fn lose_after(&self, writes: u64) {
        self.lock().lose_after_writes = Some(writes);
    }
}

impl State {
    /// Says that a write was lost.
    fn check_lost(&self) -> Result<(), TierError> {
        let Some(offset) = self.lost_at else { return Ok(()) };
        Err(TierError::Io { what: "write", offset, source: std::io::Error::other("simulated, late") })
    }
}

impl Medium for SimMedium {
    fn kind(&self) -> MediumKind {
        MediumKind::Sim
    }
    fn capacity_bytes(&self) -> u64 {
        self.lock().current.len() as u64
    }
    fn is_persistent(&self) -> bool {
        !self.lock().volatile
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        check_range(offset, data.len(), state.current.len() as u64)?;
        if let Some(left) = &mut state.fail_after_writes {
            if *left == 0 {
                let source = std::io::Error::other("simulated");
                return Err(TierError::Io { what: "write", offset, source });
            }
            *left -= 1;
        }
        state.check_lost()?;
        if data.is_empty() {
            return Ok(());
        }
        if let Some(left) = &mut state.lose_after_writes {
            if *left == 0 {
                (state.lose_after_writes, state.lost_at) = (None, Some(offset));
                return Ok(());
            }
            *left -= 1;
        }
        let unit = state.torn.unit_bytes();
        for number in offset / unit..=(offset + data.len() as u64 - 1) / unit {
            let at = (number * unit) as usize;
            let end = (at + unit as usize).min(state.current.len());
            state.unflushed.entry(number).or_insert_with(|| state.current[at..end].to_vec());
        }
        state.current[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        state.written_bytes += data.len() as u64;
        Ok(())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        let mut state = self.lock();
        check_range(offset, out.len(), state.current.len() as u64)?;
        state.read_bytes += out.len() as u64;
        if state.waits {
            state.reads.push(SimRead::Done(offset));
        }
        out.copy_from_slice(&state.current[offset as usize..offset as usize + out.len()]);
        Ok(())
    }
    fn share(&self) -> Option<Share> {
        let inode = self.lock().shared_as?;
        Some(Share { path: "simulated".to_owned(), device: 0, inode })
    }
    fn reads_wait(&self) -> bool {
        self.lock().waits
    }
    fn read_ahead(&self, offset: u64, _len: u64) -> bool {
        self.lock().reads.push(SimRead::Begun(offset));
        true
    }
    fn board(&self) -> Option<Share> {
        let state = self.lock();
        let inode = state.shared_as.filter(|_| state.volatile)?;
        Some(Share { path: Self::BOARD.to_owned(), device: 0, inode })
    }
    fn post(&mut self, number: u64) {
        self.lock().posted = number;
    }
    fn is_persist_costly(&self) -> bool {
        self.lock().torn == Torn::Sectors
    }
    fn persist(&mut self) -> Result<(), TierError> {
        let mut state = self.lock();
        state.check_lost()?;
        state.unflushed.clear();
        state.persists += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushed_bytes_survive_and_others_may() {
        let mut sim = SimMedium::new(4096, Torn::Lines);
        sim.write(0, &[1; 64]).unwrap();
        sim.persist().unwrap();
        sim.write(60, &[2; 200]).unwrap();
        assert_eq!(sim.unflushed_bytes(), 5 * 64);
        let none = sim.crash(&mut || 0).image();
        assert_eq!(none[..64], [1; 64]);
        assert_eq!(none[64..], [0; 4032]);
        assert_eq!(sim.crash(&mut || 1).image(), sim.image());
        let mut turn = 0;
        let every_other = sim.crash(&mut || (turn += 1, turn).1).image();
        assert_eq!(every_other[60..64], [2; 4]);
        assert_eq!(every_other[64..128], [0; 64]);
        assert_eq!(every_other[128..192], [2; 64]);
    }
}
