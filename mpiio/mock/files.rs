//! The mock's files: bases, pending copies and what is written into them.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use talea_abi::{
    COMMIT_NEXT, COUNTER_ADD, COUNTER_SET, Code, FileInfo, OPEN_CREATE, OPEN_EXCLUSIVE, OPEN_WRITE, Piece,
};

use crate::Answer;

static COUNTER: AtomicU64 = AtomicU64::new(0);
/// Pending copies that this process has open, by base: handles on the same file share one.
static EPOCHS: Mutex<Option<HashMap<PathBuf, Epoch>>> = Mutex::new(None);

/// A pending copy, and how many processes share it.
#[derive(Clone)]
struct Epoch {
    pending: PathBuf,
    processes: u32,
}

/// What the last commit of a handle answers.
const CLOSED: &[u8] = b"closed";

fn root() -> PathBuf {
    std::env::var_os("TALEA_MOCK_DIR").map_or_else(|| PathBuf::from("/nonexistent"), PathBuf::from)
}

/// Notes a call for the test to count.
pub(crate) fn trace(line: &str) {
    if let Ok(mut file) = fs::OpenOptions::new().append(true).create(true).open(root().join(".trace")) {
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

/// Holds a write back until the test opens the gate, a file in the mock's directory.
fn await_gate() {
    let Some(gate) = std::env::var_os("TALEA_MOCK_GATE") else { return };
    while !root().join(&gate).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn io_error(path: &Path, error: &std::io::Error) -> (Code, String) {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => Code::NotFound,
        std::io::ErrorKind::AlreadyExists => Code::Exists,
        std::io::ErrorKind::StorageFull => Code::NoSpace,
        _ => Code::Other,
    };
    (code, format!("{}: {error}", path.display()))
}

fn base_of(path: &str) -> Answer<PathBuf> {
    let rest = path.strip_prefix("/talea/").or_else(|| path.strip_prefix("talea:")).unwrap_or(path);
    let Some((container, rest)) = rest.split_once('/').filter(|(_, rest)| !rest.is_empty()) else {
        return Err((Code::Path, format!("{path} names no file of a container: use /talea/CONTAINER/PATH")));
    };
    let directory = root().join(container);
    if !directory.is_dir() {
        return Err((Code::NoContainer, format!("no container {container}: create it with `talea mkdir`")));
    }
    Ok(directory.join(rest))
}

fn epochs<T>(work: impl FnOnce(&mut HashMap<PathBuf, Epoch>) -> T) -> T {
    work(EPOCHS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

fn fresh_pending(base: &Path) -> Answer<PathBuf> {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let pending = root().join(format!(".pending-{}-{number}", std::process::id()));
    let made = if base.exists() { fs::copy(base, &pending).map(drop) } else { fs::File::create(&pending).map(drop) };
    made.map(|()| pending.clone()).map_err(|e| io_error(&pending, &e))
}

/// What says that a write of an epoch has failed, until the epoch ends: seen by all handles.
fn mark_of(pending: &Path) -> PathBuf {
    pending.with_extension("failed")
}

/// The blob of an open: flags, founder, base, pending, its processes.
pub(crate) fn open(path: &str, flags: u32, processes: u32) -> Answer<Vec<u8>> {
    let base = base_of(path)?;
    let there = base.exists() || epochs(|all| all.contains_key(&base));
    if flags & OPEN_EXCLUSIVE != 0 && there {
        return Err((Code::Exists, format!("{path} exists already")));
    }
    if flags & OPEN_CREATE == 0 && !there {
        return Err((Code::NotFound, format!("no file {path}: open it with MPI_MODE_CREATE to make it")));
    }
    let (founder, pending, processes) = if flags & OPEN_WRITE == 0 {
        (false, base.clone(), 0)
    } else if let Some(Epoch { pending, processes }) = epochs(|all| all.get(&base).cloned()) {
        (false, pending, processes)
    } else {
        let pending = fresh_pending(&base)?;
        epochs(|all| all.insert(base.clone(), Epoch { pending: pending.clone(), processes }));
        (true, pending, processes)
    };
    let counters = root().join(format!(".counter-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let (base, pending, counters) = (base.display(), pending.display(), counters.display());
    Ok(format!("{flags}\n{founder}\n{base}\n{pending}\n{counters}\n{processes}").into_bytes())
}

/// Unlinks.
pub(crate) fn delete(path: &str) -> Answer<()> {
    let base = base_of(path)?;
    fs::remove_file(&base).map_err(|e| io_error(&base, &e))
}

/// Sums both counters.
pub(crate) fn merge(into: &mut [u8], from: &[u8]) {
    for (into, from) in into.chunks_exact_mut(8).zip(from.chunks_exact(8)) {
        let sum = number(into) + number(from);
        into.copy_from_slice(&sum.to_ne_bytes());
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

struct Current {
    pending: PathBuf,
    file: fs::File,
}

/// One process's handle.
pub(crate) struct MockFile {
    writable: bool,
    founder: bool,
    base: PathBuf,
    counters: String,
    processes: u32,
    current: RwLock<Current>,
    written: AtomicU64,
}

impl MockFile {
    pub(crate) fn attach(shared: &[u8]) -> Answer<MockFile> {
        let text = String::from_utf8_lossy(shared).into_owned();
        let parts: Vec<&str> = text.split('\n').collect();
        let [flags, founder, base, pending, counters, processes] = parts[..] else {
            return Err((Code::Argument, "a foreign blob".to_owned()));
        };
        let writable = flags.parse::<u32>().unwrap_or(0) & OPEN_WRITE != 0;
        let processes = processes.parse().unwrap_or(0);
        if writable {
            epochs(|all| all.insert(base.into(), Epoch { pending: pending.into(), processes }));
        }
        let current = Self::open_pending(Path::new(pending), writable)?;
        Ok(MockFile {
            writable,
            founder: founder == "true",
            base: base.into(),
            counters: counters.to_owned(),
            processes,
            current: RwLock::new(current),
            written: AtomicU64::new(0),
        })
    }

    fn open_pending(pending: &Path, writable: bool) -> Answer<Current> {
        let file =
            fs::OpenOptions::new().read(true).write(writable).open(pending).map_err(|e| io_error(pending, &e))?;
        Ok(Current { pending: pending.to_owned(), file })
    }

    /// The pending copy. That of a handle which does not commit follows the founder's.
    fn current(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        let meant = epochs(|all| all.get(&self.base).map(|epoch| epoch.pending.clone()))
            .filter(|_| self.writable && !self.founder);
        if let Some(meant) = meant
            && self.current.read().unwrap_or_else(PoisonError::into_inner).pending != meant
            && let Ok(next) = Self::open_pending(&meant, true)
        {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        }
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn info(&self) -> FileInfo {
        FileInfo {
            founder: (self.founder && self.writable).into(),
            writable: self.writable.into(),
            chunk_bytes: 1 << 20,
            summary_bytes: 16,
            step: 0,
            failed: (self.writable && mark_of(&self.current().pending).exists()).into(),
            processes: self.processes,
        }
    }

    /// # Safety
    /// The pieces' memory is readable.
    pub(crate) unsafe fn write(&self, pieces: &[Piece]) -> Answer<()> {
        let current = self.current();
        trace(&format!("write {}", pieces.len()));
        await_gate();
        let done = crate::planned("write").and_then(|()| {
            for piece in pieces {
                // SAFETY: the caller vouches for the memory.
                let bytes = unsafe { std::slice::from_raw_parts(piece.memory.cast::<u8>(), piece.bytes as usize) };
                current.file.write_all_at(bytes, piece.offset).map_err(|e| io_error(&current.pending, &e))?;
            }
            Ok(())
        });
        self.written.fetch_add(pieces.iter().map(|piece| piece.bytes).sum(), Ordering::Relaxed);
        drop(current);
        if done.is_err() {
            self.fail();
        }
        done
    }

    /// # Safety
    /// The pieces' memory is writable.
    pub(crate) unsafe fn read(&self, pieces: &[Piece]) -> Answer<u64> {
        crate::planned("read")?;
        let current = self.current();
        for piece in pieces {
            // SAFETY: the caller vouches for the memory.
            let bytes = unsafe { std::slice::from_raw_parts_mut(piece.memory.cast::<u8>(), piece.bytes as usize) };
            let mut done = 0;
            while done < bytes.len() {
                match current.file.read_at(&mut bytes[done..], piece.offset + done as u64) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(e) => return Err(io_error(&current.pending, &e)),
                }
            }
        }
        drop(current);
        Ok(self.size())
    }

    pub(crate) fn size(&self) -> u64 {
        self.current().file.metadata().map_or(0, |metadata| metadata.len())
    }

    pub(crate) fn set_size(&self, bytes: u64) -> Answer<()> {
        let current = self.current();
        current.file.set_len(bytes).map_err(|e| io_error(&current.pending, &e))
    }

    pub(crate) fn flush(&self, summary: &mut [u8]) {
        summary[..8].copy_from_slice(&self.written.swap(0, Ordering::Relaxed).to_ne_bytes());
        let failed = u64::from(self.info().failed);
        summary[8..16].copy_from_slice(&failed.to_ne_bytes());
    }

    /// Commits; the blob is the next pending copy.
    pub(crate) fn commit(&self, summary: &[u8], flags: u32, plan: Answer<()>) -> (Answer<()>, Vec<u8>) {
        trace(&format!("commit {flags} {}", number(&summary[..8])));
        if !self.writable {
            return (Ok(()), self.base.display().to_string().into_bytes());
        }
        let pending = self.current().pending.clone();
        let outcome = plan.and_then(|()| {
            if number(&summary[8..16]) > 0 || mark_of(&pending).exists() {
                return Err((Code::Aborted, "a write of this epoch failed: write it again, then sync".to_owned()));
            }
            let copy = pending.with_extension("copy");
            fs::copy(&pending, &copy).and_then(|_| fs::rename(&copy, &self.base)).map_err(|e| io_error(&self.base, &e))
        });
        let _ = (fs::remove_file(&pending), fs::remove_file(mark_of(&pending)));
        if flags != COMMIT_NEXT {
            epochs(|all| all.remove(&self.base));
            return (outcome, CLOSED.to_vec());
        }
        match fresh_pending(&self.base) {
            Ok(next) => (outcome, next.display().to_string().into_bytes()),
            Err(failure) => (outcome.and(Err(failure)), Vec::new()),
        }
    }

    /// Takes the next pending copy over.
    pub(crate) fn advance(&self, result: &[u8]) -> Answer<()> {
        if result.is_empty() || result == CLOSED {
            return Ok(());
        }
        let pending = PathBuf::from(String::from_utf8_lossy(result).into_owned());
        let next = Self::open_pending(&pending, self.writable)?;
        if self.writable {
            epochs(|all| all.insert(self.base.clone(), Epoch { pending, processes: self.processes }));
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// A counter is a file with a number, changed under a lock.
    pub(crate) fn counter(&self, number: u32, operation: u32, operand: i64) -> Answer<i64> {
        crate::planned("counter")?;
        let path = PathBuf::from(format!("{}-{number}", self.counters));
        let failed = |e: std::io::Error| io_error(&path, &e);
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        file.lock().map_err(failed)?;
        let mut bytes = [0; 8];
        let before = if file.read_exact_at(&mut bytes, 0).is_ok() { i64::from_ne_bytes(bytes) } else { 0 };
        let after = match operation {
            COUNTER_ADD => before + operand,
            COUNTER_SET => operand,
            _ => return Ok(before),
        };
        file.write_all_at(&after.to_ne_bytes(), 0).map(|()| before).map_err(failed)
    }

    pub(crate) fn drop_counters(&self, first: u32, last: u32) {
        for number in first..=last {
            let _ = fs::remove_file(format!("{}-{number}", self.counters));
        }
    }

    pub(crate) fn fail(&self) {
        let _ = fs::write(mark_of(&self.current().pending), "");
    }

    pub(crate) fn abort(&self) {
        trace("abort");
        if self.writable {
            let pending = self.current().pending.clone();
            let _ = (fs::remove_file(&pending), fs::remove_file(mark_of(&pending)));
            epochs(|all| all.remove(&self.base));
        }
    }

    pub(crate) fn leave(&self) {
        if self.founder {
            epochs(|all| all.remove(&self.base));
        }
    }
}
