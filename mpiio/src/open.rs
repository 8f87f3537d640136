//! Opening a file: one request by rank 0, one broadcast, one agreement.
//!
//! Owns the order of a collective open and its undo. Must never leave a handle, an epoch or a communicator behind when any rank
//! failed, nor return different error classes on different ranks.

use std::ffi::{CStr, CString, c_int};
use std::sync::atomic::{AtomicU64, Ordering};

use talea_abi::{FileInfo, OPEN_CREATE, OPEN_DELETE_ON_CLOSE, OPEN_EXCLUSIVE, OPEN_READ, OPEN_WRITE};

use crate::abi::*;
use crate::agree::{self, Reduction};
use crate::errhandler::Handler;
use crate::error::Failure;
use crate::file::{Group, OpenFile, Parts};
use crate::storage::{self, StorageFile};
use crate::wishes::{self, Hints};
use crate::{explicit, finalize, handle, info};

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// `MPI_File_open` of a path below `/talea/`. Collective over `comm`.
pub(crate) fn open(comm: MPI_Comm, path: &CStr, amode: c_int, hints: MPI_Info) -> Result<MPI_File, Failure> {
    if handle::forked() {
        return Err(Failure::refused(MPI_ERR_FILE, "a forked child cannot use MPI: open files in the parent"));
    }
    let group = Group::duplicate(comm)?;
    match open_in(&group, path, amode, hints) {
        Ok(named) => Ok(named),
        Err(failure) => {
            group.free();
            Err(failure)
        }
    }
}

fn open_in(group: &Group, path: &CStr, amode: c_int, hints: MPI_Info) -> Result<MPI_File, Failure> {
    let prepared = flags_of(amode).and_then(|flags| Ok((flags, info::read(hints)?)));
    let (outcome, shared) = if group.rank == 0 {
        match prepared
            .as_ref()
            .map_err(Failure::clone)
            .and_then(|(flags, hints)| open_first(group, path, *flags, hints.clone(), amode))
        {
            Ok(shared) => (Ok(()), shared),
            Err(failure) => (Err(failure), Vec::new()),
        }
    } else {
        (Ok(()), Vec::new())
    };
    let (outcome, shared) = agree::broadcast(group, outcome, shared)?;
    outcome?;
    // Rank 0's hints are everybody's: calls that depend on them are collective.
    let joined = prepared.and_then(|_| join(group, &shared, amode));
    agree_on(group, path, amode, joined)
}

/// Every bit that MPI defines. MPI_MODE_UNIQUE_OPEN is a promise that needs no answer.
const KNOWN_MODES: c_int = MPI_MODE_CREATE
    | MPI_MODE_RDONLY
    | MPI_MODE_WRONLY
    | MPI_MODE_RDWR
    | MPI_MODE_DELETE_ON_CLOSE
    | MPI_MODE_UNIQUE_OPEN
    | MPI_MODE_EXCL
    | MPI_MODE_APPEND
    | MPI_MODE_SEQUENTIAL;

/// Checks the access mode, as MPI-IO wants it checked, and translates it.
fn flags_of(amode: c_int) -> Result<u32, Failure> {
    let has = |mode: c_int| amode & mode != 0;
    if amode & !KNOWN_MODES != 0 {
        return Err(Failure::refused(
            MPI_ERR_AMODE,
            format!("the access mode {amode:#x} has bits that MPI does not define"),
        ));
    }
    let ways = [MPI_MODE_RDONLY, MPI_MODE_WRONLY, MPI_MODE_RDWR].iter().filter(|&&mode| has(mode)).count();
    if ways != 1 {
        let text = "the access mode must have exactly one of MPI_MODE_RDONLY, MPI_MODE_WRONLY and MPI_MODE_RDWR";
        return Err(Failure::refused(MPI_ERR_AMODE, text));
    }
    if has(MPI_MODE_RDONLY) && (has(MPI_MODE_CREATE) || has(MPI_MODE_EXCL)) {
        let text = "MPI_MODE_CREATE and MPI_MODE_EXCL need write access: use MPI_MODE_RDWR or MPI_MODE_WRONLY";
        return Err(Failure::refused(MPI_ERR_AMODE, text));
    }
    if has(MPI_MODE_RDWR) && has(MPI_MODE_SEQUENTIAL) {
        return Err(Failure::refused(MPI_ERR_AMODE, "MPI_MODE_SEQUENTIAL cannot be combined with MPI_MODE_RDWR"));
    }
    let table = [
        (MPI_MODE_RDONLY, OPEN_READ),
        (MPI_MODE_WRONLY, OPEN_WRITE),
        (MPI_MODE_RDWR, OPEN_READ | OPEN_WRITE),
        (MPI_MODE_CREATE, OPEN_CREATE),
        (MPI_MODE_EXCL, OPEN_EXCLUSIVE),
        (MPI_MODE_DELETE_ON_CLOSE, OPEN_DELETE_ON_CLOSE),
    ];
    Ok(table.iter().filter(|(mode, _)| has(*mode)).fold(0, |flags, (_, flag)| flags | flag))
}

/// Rank 0's part: its answer is the access mode, the hints behind their length, then libtalea's blob.
fn open_first(group: &Group, path: &CStr, flags: u32, hints: Hints, amode: c_int) -> Result<Vec<u8>, Failure> {
    let hints = wishes::complete(hints);
    info::warn(&hints);
    wishes::sync_commits(&hints)?;
    let path = wishes::path(path, &hints, amode)?;
    if wishes::is_explicit(&hints) && amode & MPI_MODE_RDONLY == 0 {
        explicit::require_one_for(&path)?;
    }
    let lines = wishes::lines(&hints);
    let c_lines = CString::new(lines.as_str()).unwrap_or_default();
    let open = || storage::open(&path, flags, group.size.cast_unsigned(), &c_lines);
    let blob = wishes::awaited(&hints, open)?;
    let mut shared = amode.to_ne_bytes().to_vec();
    shared.extend((lines.len() as u64).to_ne_bytes());
    shared.extend(lines.as_bytes());
    shared.extend(blob);
    Ok(shared)
}

/// What a rank has made of rank 0's answer.
struct Joined {
    storage: StorageFile,
    info: FileInfo,
    reduction: Reduction,
    position: i64,
}

/// Every rank's part after the broadcast. Local.
fn join(group: &Group, shared: &[u8], amode: c_int) -> Result<(Joined, Hints), Failure> {
    let (first, rest) = shared.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    let (length, rest) = rest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let length = usize::try_from(u64::from_ne_bytes(*length)).unwrap_or(usize::MAX);
    let (lines, blob) = rest.split_at(length.min(rest.len()));
    if c_int::from_ne_bytes(*first) != amode {
        return Err(Failure::refused(MPI_ERR_NOT_SAME, "the ranks gave different access modes to MPI_File_open"));
    }
    handle::require_room()?;
    let storage = StorageFile::attach(blob)?;
    let prepared = storage.info().and_then(|info| {
        let reduction = Reduction::new(group, info.summary_bytes)?;
        let position =
            if amode & MPI_MODE_APPEND == 0 { 0 } else { i64::try_from(storage.size()?).unwrap_or(i64::MAX) };
        finalize::arm()?;
        Ok((info, reduction, position))
    });
    match prepared {
        Ok((info, reduction, position)) => Ok((Joined { storage, info, reduction, position }, wishes::of_lines(lines))),
        Err(failure) => {
            // The open fails on all ranks for the reason above; closing can add nothing to it.
            let _ = storage.close();
            Err(failure)
        }
    }
}

/// One all-reduce: either all ranks have the file, or none.
fn agree_on(
    group: &Group,
    path: &CStr,
    amode: c_int,
    joined: Result<(Joined, Hints), Failure>,
) -> Result<MPI_File, Failure> {
    let (mine, summary) = match &joined {
        Ok((joined, _)) => (Ok(()), joined.info.summary_bytes.cast_signed()),
        Err(failure) => (Err(failure.clone()), 0),
    };
    let all = agree::outcome_and_maximum(group, mine, [summary, summary.saturating_neg()]);
    let agreed = all.and_then(|((), [most, least])| {
        let text =
            "the ranks of the communicator disagree about the file's summaries: start all with one Talea release";
        if most == least.saturating_neg() { Ok(()) } else { Err(Failure::refused(MPI_ERR_INTERN, text)) }
    });
    match (joined, agreed) {
        (Ok((joined, hints)), Ok(())) => install(group, path, amode, joined, hints),
        (Ok((joined, _)), Err(failure)) => {
            undo(group, &joined);
            Err(failure)
        }
        (Err(_), Err(failure)) | (Err(failure), Ok(())) => Err(failure),
    }
}

fn undo(group: &Group, joined: &Joined) {
    // Every step is tried and none can add anything to the failure that is being reported.
    if group.rank == 0 && joined.info.founder != 0 {
        let _ = joined.storage.abort();
    }
    let _ = joined.storage.close();
    joined.reduction.free();
}

fn install(group: &Group, path: &CStr, amode: c_int, joined: Joined, hints: Hints) -> Result<MPI_File, Failure> {
    let Joined { storage, info, reduction, position } = joined;
    let explicit = wishes::is_explicit(&hints) && info.writable != 0;
    let file = OpenFile::new(Parts {
        path: path.to_owned(),
        sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed),
        group: *group,
        amode,
        hints: info::in_use(&hints, info.chunk_bytes),
        storage,
        reduction,
        handler: Handler::default_for_files(),
        position,
    });
    if explicit && let Err(failure) = explicit::enter_last(&file) {
        // As in `undo`.
        if group.rank == 0 && info.founder != 0 {
            let _ = file.storage.abort();
        }
        let _ = file.storage.close();
        file.reduction.free();
        return Err(failure);
    }
    handle::insert(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_modes_that_mpi_forbids_are_refused_with_its_classes() {
        let class = |amode| flags_of(amode).err().map(|failure| failure.class());
        assert_eq!(class(0), Some(MPI_ERR_AMODE));
        assert_eq!(class(MPI_MODE_RDONLY | MPI_MODE_RDWR), Some(MPI_ERR_AMODE));
        assert_eq!(class(MPI_MODE_RDONLY | MPI_MODE_CREATE), Some(MPI_ERR_AMODE));
        assert_eq!(class(MPI_MODE_RDONLY | MPI_MODE_EXCL), Some(MPI_ERR_AMODE));
        assert_eq!(class(MPI_MODE_RDWR | MPI_MODE_SEQUENTIAL), Some(MPI_ERR_AMODE));
        assert_eq!(flags_of(MPI_MODE_WRONLY | MPI_MODE_SEQUENTIAL), Ok(OPEN_WRITE));
        assert_eq!(flags_of(MPI_MODE_RDONLY | MPI_MODE_UNIQUE_OPEN), Ok(OPEN_READ));
        assert_eq!(
            flags_of(MPI_MODE_RDWR | MPI_MODE_CREATE | MPI_MODE_EXCL | MPI_MODE_DELETE_ON_CLOSE),
            Ok(OPEN_READ | OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE | OPEN_DELETE_ON_CLOSE)
        );
    }
}
