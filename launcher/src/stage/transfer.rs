//! Copying files segment by segment with several workers.
//!
//! A copy to disk goes to a hidden file beside its destination with a journal of its finished segments; whoever copies the same
//! file of the same step again takes over what the journal says, if the bytes still have that checksum.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crc_fast::{CrcAlgorithm, Digest, checksum, checksum_combine};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use talea_model::Summary;
use talea_posix::{Files, Handle, Hints, OpenFlags};

use super::spread::{LoadFile, Mark, Spread};
use super::walk::FoundFile;
use super::{Options, SEGMENT_BYTES};
use crate::failure::Failure;

const CRC: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;
/// Bytes of one request.
const PIECE_BYTES: u64 = 4 << 20;

/// How a file's copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) bytes: u64,
    pub(crate) resumed_bytes: u64,
    pub(crate) crc64: u64,
    /// The destination had the same content already.
    pub(crate) same: bool,
}

/// What a cut-off copy to disk had finished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    source: String,
    bytes: u64,
    step: u64,
    /// CRC of each finished segment by its number.
    segments: BTreeMap<u64, u64>,
}

/// One file to copy.
pub(crate) struct Transfer {
    handle: Handle,
    /// What opening it gave, and what cutting it came to: for the carriers of other nodes.
    shared: Vec<u8>,
    cut: Option<Vec<u8>>,
    bytes: u64,
    side: Side,
    verify: bool,
    give_up: Arc<AtomicBool>,
    state: Mutex<State>,
}

enum Side {
    Out {
        file: fs::File,
        part: PathBuf,
        journal: PathBuf,
        destination: PathBuf,
        mode: u32,
        what: Journal,
        same: Option<u64>,
    },
    In {
        file: fs::File,
        source: PathBuf,
        same: Option<u64>,
    },
}

#[derive(Default)]
struct State {
    segments: BTreeMap<u64, u64>,
    resumed_bytes: u64,
    failure: Option<Failure>,
    /// What carriers on other nodes wrote.
    carried: Option<Summary>,
}

impl Transfer {
    /// A file of Talea to disk. `from` names the state that is copied, `step` says which for the journal.
    pub(crate) fn out(
        files: &Files,
        from: String,
        destination: PathBuf,
        step: u64,
        found: &FoundFile,
        options: &Options,
    ) -> Result<Self, Failure> {
        let shared = files.open(from.as_bytes(), OpenFlags::default(), 1, &Hints::default())?;
        let handle = files.attach(&shared)?;
        let bytes = handle.size()?;
        let name = destination.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let part = destination.with_file_name(format!(".{name}.talea-part"));
        let journal = destination.with_file_name(format!(".{name}.talea-journal"));
        let what = Journal { source: found.name.clone(), bytes, step, segments: BTreeMap::new() };
        let there = fs::metadata(&destination).ok().filter(fs::Metadata::is_file);
        let there = there.and_then(|_| fs::File::open(&destination).ok());
        let same = there.and_then(|file| Some((same_content(&handle, &file, bytes)?, file)));
        let (side, state) = match same {
            Some((same, file)) => {
                let (part, same) = (destination.clone(), Some(same));
                let side = Side::Out { file, part, journal, destination, mode: found.mode, what, same };
                (side, State::default())
            }
            None => {
                let (file, state) = begin_part(&part, &journal, &what)?;
                (Side::Out { file, part, journal, destination, mode: found.mode, what, same: None }, state)
            }
        };
        let (verify, give_up) = (options.verify, options.give_up.clone());
        Ok(Self { handle, shared, cut: None, bytes, side, verify, give_up, state: Mutex::new(state) })
    }

    /// A file from disk into Talea, where it appears whole or not at all.
    pub(crate) fn bring_in(
        files: &Files,
        source: PathBuf,
        to: String,
        found: &FoundFile,
        options: &Options,
    ) -> Result<Self, Failure> {
        let file = fs::File::open(&source).map_err(Failure::io("opening", &source))?;
        let same = same_as_there(files, &file, &to, found.bytes);
        let owner = (found.mode, rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let hints = Hints { owner, ..Hints::default() };
        // Of a file that is there already nothing is written.
        let flags = OpenFlags { write: same.is_none(), create: same.is_none(), ..OpenFlags::default() };
        let shared = files.open(to.as_bytes(), flags, options.processes(), &hints)?;
        let handle = files.attach(&shared)?;
        let cut = if same.is_none() { Some(handle.set_size(0)?) } else { None };
        let side = Side::In { file, source, same };
        Ok(Self {
            handle,
            shared,
            cut,
            bytes: found.bytes,
            side,
            verify: options.verify,
            give_up: options.give_up.clone(),
            state: Mutex::default(),
        })
    }

    fn count(&self) -> u64 {
        match &self.side {
            Side::In { same: Some(_), .. } | Side::Out { same: Some(_), .. } => 0,
            _ => self.bytes.div_ceil(SEGMENT_BYTES),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Segments that are still to be copied.
    pub(super) fn missing(&self) -> impl Iterator<Item = u64> {
        let there: Vec<u64> = self.state().segments.keys().copied().collect();
        (0..self.count()).filter(move |number| !there.contains(number))
    }

    /// What a carrier must know of it.
    pub(super) fn load(&self) -> LoadFile {
        let (into, file, local) = match &self.side {
            Side::Out { file, part, .. } => (false, file, part),
            Side::In { file, source, .. } => (true, file, source),
        };
        let mark = Mark::of(file, !into).unwrap_or_default();
        // A path of this process's directory means nothing elsewhere.
        let local = std::path::absolute(local).unwrap_or_else(|_| local.clone());
        LoadFile { into, shared: self.shared.clone(), cut: self.cut.clone(), local, mark, bytes: self.bytes }
    }

    /// A carrier has copied a segment; its length.
    pub(super) fn copied(&self, number: u64, crc64: u64) -> u64 {
        let (begin, end) = segment_of(number, self.bytes);
        self.done(number, crc64);
        end.saturating_sub(begin)
    }

    /// A carrier has told what it wrote.
    pub(super) fn counted(&self, summary: &[u8]) {
        let mut state = self.state();
        match (Summary::decode(summary), &mut state.carried) {
            (Ok(summary), Some(carried)) => carried.merge(&summary),
            (Ok(summary), none) => *none = Some(summary),
            (Err(error), _) => _ = state.failure.get_or_insert(Failure::Usage(error.to_string())),
        }
    }

    fn done(&self, number: u64, crc64: u64) {
        let mut state = self.state();
        state.segments.insert(number, crc64);
        if let Side::Out { journal, what, .. } = &self.side
            && self.count() > 1
        {
            note(journal, &Journal { segments: state.segments.clone(), ..what.clone() });
        }
    }

    /// Copies one segment, unless the file has failed.
    fn segment(&self, number: u64, bar: &ProgressBar) {
        let (begin, end) = segment_of(number, self.bytes);
        if self.state().failure.is_some() {
            return;
        }
        if self.give_up.load(Ordering::Relaxed) {
            self.state().failure.get_or_insert(Failure::Usage("given up".to_owned()));
            return;
        }
        match self.copy(begin, end, bar) {
            Ok(crc) => self.done(number, crc),
            Err(failure) => _ = self.state().failure.get_or_insert(failure),
        }
    }

    fn copy(&self, begin: u64, end: u64, bar: &ProgressBar) -> Result<u64, Failure> {
        let told = |bytes| {
            bar.inc(bytes);
            match self.give_up.load(Ordering::Relaxed) {
                true => Err(Failure::Usage("given up".to_owned())),
                false => Ok(()),
            }
        };
        match &self.side {
            Side::Out { file, part, .. } => {
                let crc = copy_range(&self.handle, file, part, false, (begin, end), told)?;
                if self.count() > 1 {
                    // The journal must not say more than the disk has.
                    file.sync_data().map_err(Failure::io("flushing", part))?;
                }
                Ok(crc)
            }
            Side::In { file, source, .. } => copy_range(&self.handle, file, source, true, (begin, end), told),
        }
    }

    /// All segments are there: the file gets its name, or commits.
    fn finish(self) -> Result<Done, Failure> {
        let count = self.count();
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = state.failure.take() {
            // Of what there is nothing to take over nothing stays, least of all where there was no room for it.
            if let (Side::Out { part, journal, same: None, .. }, true) = (&self.side, state.segments.is_empty()) {
                let _ = (fs::remove_file(part), fs::remove_file(journal));
            }
            return Err(failure);
        }
        let mut crc64 = checksum(CRC, &[]);
        for number in 0..count {
            let length = ((number + 1) * SEGMENT_BYTES).min(self.bytes) - number * SEGMENT_BYTES;
            let next = state.segments.get(&number).copied().unwrap_or_default();
            crc64 = checksum_combine(CRC, crc64, next, length);
        }
        let done = |crc64, same| Done { bytes: self.bytes, resumed_bytes: state.resumed_bytes, crc64, same };
        match self.side {
            Side::Out { same: Some(crc64), file, mode, .. } => {
                // As a copy would have it; whose file it is may forbid that.
                let _ = file.set_permissions(fs::Permissions::from_mode(mode & 0o777));
                Ok(done(crc64, true))
            }
            Side::Out { file, part, journal, destination, mode, .. } => {
                let failed = Failure::io("finishing", &part);
                let flushed = file.set_permissions(fs::Permissions::from_mode(mode & 0o777));
                flushed.and_then(|()| file.sync_all()).map_err(failed)?;
                if self.verify {
                    compare(crc64, of_file(&file, self.bytes)?, &destination)?;
                }
                fs::rename(&part, &destination).map_err(Failure::io("renaming to", &destination))?;
                let _ = fs::remove_file(journal);
                Ok(done(crc64, false))
            }
            Side::In { same: Some(crc64), .. } => Ok(done(crc64, true)),
            Side::In { source, .. } => {
                let mut summary = self.handle.flush()?;
                state.carried.iter().for_each(|carried| summary.merge(carried));
                let committed = self.handle.commit(summary, true)?;
                self.handle.advance(&committed.outcome)?;
                committed.result?;
                if self.verify {
                    compare(crc64, of_handle(&self.handle, self.bytes)?, &source)?;
                }
                let last = self.handle.commit(self.handle.flush()?, false)?;
                self.handle.advance(&last.outcome)?;
                last.result?;
                Ok(done(crc64, false))
            }
        }
    }
}

/// The hidden file of a copy to disk, with what an earlier copy that was cut off left in it.
fn begin_part(part: &Path, journal: &Path, what: &Journal) -> Result<(fs::File, State), Failure> {
    let before = fs::read(journal).ok().and_then(|bytes| serde_json::from_slice::<Journal>(&bytes).ok());
    let same = |b: &Journal| (&b.source, b.bytes, b.step) == (&what.source, what.bytes, what.step) && what.step > 0;
    let resumable = before.filter(same);
    let mut open = fs::OpenOptions::new();
    open.read(true).write(true).create(true).truncate(resumable.is_none());
    let file = open.open(part).map_err(Failure::io("creating", part))?;
    file.set_len(what.bytes).map_err(Failure::io("growing", part))?;
    let state = resumed(&file, what.bytes, resumable);
    Ok((file, state))
}

/// Where a segment of a file of `bytes` begins and ends.
pub(super) fn segment_of(number: u64, bytes: u64) -> (u64, u64) {
    (number * SEGMENT_BYTES, ((number + 1) * SEGMENT_BYTES).min(bytes))
}

/// Copies a range between a file of Talea and a local one, `into` Talea or out of it; its checksum.
pub(super) fn copy_range(
    handle: &Handle,
    file: &fs::File,
    path: &Path,
    into: bool,
    (begin, end): (u64, u64),
    told: impl Fn(u64) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; PIECE_BYTES.min(end - begin) as usize];
    let mut digest = Digest::new(CRC);
    let mut at = begin;
    while at < end {
        let length = buffer.len().min((end - at) as usize);
        let piece = &mut buffer[..length];
        if into {
            file.read_exact_at(piece, at).map_err(Failure::io("reading", path))?;
            handle.write(&[(at, piece)])?;
        } else {
            handle.read(&mut [(at, &mut piece[..])])?;
            file.write_all_at(piece, at).map_err(Failure::io("writing", path))?;
        }
        digest.update(piece);
        at += length as u64;
        told(length as u64)?;
    }
    Ok(digest.finalize())
}

/// Copies all files with that many workers, and other nodes' where there are carriers; the results have the files' order.
pub(super) fn workers(
    files: Vec<Transfer>,
    workers: usize,
    spread: Option<&mut Spread>,
    bar: &ProgressBar,
) -> Vec<Result<Done, Failure>> {
    bar.inc(files.iter().map(|file| file.state().resumed_bytes).sum());
    if let Some(spread) = spread {
        spread.carry(&files, workers, bar);
    }
    let pieces: Vec<(usize, u64)> =
        files.iter().enumerate().flat_map(|(file, transfer)| transfer.missing().map(move |n| (file, n))).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, pieces.len().max(1)) {
            scope.spawn(|| {
                while let Some((file, number)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                    files[*file].segment(*number, bar);
                }
            });
        }
    });
    files.into_iter().map(Transfer::finish).collect()
}

/// What a journal says, as far as the bytes are still there.
fn resumed(file: &fs::File, bytes: u64, journal: Option<Journal>) -> State {
    let mut state = State::default();
    for (number, crc) in journal.into_iter().flat_map(|journal| journal.segments) {
        let (begin, end) = segment_of(number, bytes);
        if begin < end && of_range(file, begin, end).is_ok_and(|found| found == crc) {
            state.segments.insert(number, crc);
            state.resumed_bytes += end - begin;
        }
    }
    state
}

/// The journal is a help, not a promise: if it cannot be written, the copy cannot be resumed.
fn note(path: &Path, journal: &Journal) {
    let new = path.with_extension("talea-journal-new");
    let written = serde_json::to_vec(journal).map_err(std::io::Error::other).and_then(|bytes| fs::write(&new, bytes));
    let _ = written.and_then(|()| fs::rename(&new, path));
}

/// The checksum of both, if a file of Talea has the content of a file on disk.
fn same_as_there(files: &Files, file: &fs::File, to: &str, bytes: u64) -> Option<u64> {
    files.stat(to.as_bytes()).ok().filter(|stat| stat.bytes == bytes)?;
    let shared = files.open(to.as_bytes(), OpenFlags::default(), 1, &Hints::default()).ok()?;
    same_content(&files.attach(&shared).ok()?, file, bytes)
}

/// The checksum of both, if they have the same content; looks no further than to the first difference.
fn same_content(handle: &Handle, file: &fs::File, bytes: u64) -> Option<u64> {
    if bytes == 0 || file.metadata().ok()?.len() != bytes {
        return None;
    }
    let mut buffers = [vec![0; PIECE_BYTES.min(bytes) as usize], vec![0; PIECE_BYTES.min(bytes) as usize]];
    let (mut digest, mut at) = (Digest::new(CRC), 0);
    while at < bytes {
        let length = PIECE_BYTES.min(bytes - at) as usize;
        let [here, there] = &mut buffers;
        file.read_exact_at(&mut here[..length], at).ok()?;
        handle.read(&mut [(at, &mut there[..length])]).ok()?;
        if here[..length] != there[..length] {
            return None;
        }
        digest.update(&here[..length]);
        at += length as u64;
    }
    Some(digest.finalize())
}

fn of_file(file: &fs::File, bytes: u64) -> Result<u64, Failure> {
    of_range(file, 0, bytes).map_err(Failure::io("reading back", "the copy"))
}

fn of_range(file: &fs::File, begin: u64, end: u64) -> std::io::Result<u64> {
    let mut buffer = vec![0; PIECE_BYTES.min(end - begin) as usize];
    let mut digest = Digest::new(CRC);
    let mut at = begin;
    while at < end {
        let length = buffer.len().min((end - at) as usize);
        file.read_exact_at(&mut buffer[..length], at)?;
        digest.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(digest.finalize())
}

fn of_handle(handle: &Handle, bytes: u64) -> Result<u64, Failure> {
    let mut buffer = vec![0; PIECE_BYTES.min(bytes) as usize];
    let mut digest = Digest::new(CRC);
    let mut at = 0;
    while at < bytes {
        let length = buffer.len().min((bytes - at) as usize);
        handle.read(&mut [(at, &mut buffer[..length])])?;
        digest.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(digest.finalize())
}

fn compare(wanted: u64, found: u64, path: &Path) -> Result<(), Failure> {
    if wanted == found {
        return Ok(());
    }
    let text = format!("{}: reads back with checksum {found:016x} instead of {wanted:016x}", path.display());
    Err(Failure::Usage(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_sums_make_the_whole_ones() {
        let bytes: Vec<u8> = (0..10_000u32).map(|n| (n * 31) as u8).collect();
        let (a, b) = bytes.split_at(3333);
        let combined = checksum_combine(CRC, checksum(CRC, a), checksum(CRC, b), b.len() as u64);
        assert_eq!(combined, checksum(CRC, &bytes));
        assert_eq!(checksum_combine(CRC, checksum(CRC, &[]), checksum(CRC, a), a.len() as u64), checksum(CRC, a));
    }

    #[test]
    fn only_segments_that_are_still_there_are_taken_over() {
        let file = tempfile::tempfile().unwrap();
        let bytes = vec![7u8; 1000];
        file.write_all_at(&bytes, 0).unwrap();
        let journal = |crc| Journal { segments: [(0, crc)].into(), bytes: 1000, ..Journal::default() };
        let state = resumed(&file, 1000, Some(journal(checksum(CRC, &bytes))));
        assert_eq!((state.segments.len(), state.resumed_bytes), (1, 1000));
        let state = resumed(&file, 1000, Some(journal(1)));
        assert_eq!((state.segments.len(), state.resumed_bytes), (0, 0));
    }
}
