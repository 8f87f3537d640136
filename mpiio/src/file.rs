//! An open Talea file of this process: what its handle stands for.
//!
//! Owns the per-handle state (view, pointer, split collective). Its lock is held for assignments only, never across MPI or
//! libtalea calls.

use std::ffi::{CString, c_int};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use crate::abi::*;
use crate::agree::Reduction;
use crate::buffering::LazyNode;
use crate::errhandler::Handler;
use crate::error::{Failure, checked, mpi};
use crate::explicit::Explicit;
use crate::pointer::Used;
use crate::postponed::Postponed;
use crate::storage::StorageFile;
use crate::transfer::Direction;
use crate::transfer::split::Begun;
use crate::view::View;

/// The communicator of an open file: a duplicate of the program's, with errors returned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// The duplicate.
    pub(crate) comm: MPI_Comm,
    /// This process's rank in it.
    pub(crate) rank: c_int,
    /// Processes in it.
    pub(crate) size: c_int,
}

impl Group {
    /// Duplicates the program's communicator. Collective.
    pub(crate) fn duplicate(of: MPI_Comm) -> Result<Group, Failure> {
        let mpi = mpi()?;
        let mut inter = 0;
        // SAFETY: MPI checks the communicator and fills the flag.
        checked("MPI_Comm_test_inter", unsafe { (mpi.MPI_Comm_test_inter)(of, &raw mut inter) })?;
        if inter != 0 {
            return Err(Failure::refused(
                MPI_ERR_ARG,
                "a file cannot be opened on an intercommunicator: merge it first",
            ));
        }
        let mut group = Group { comm: MPI_COMM_NULL(), rank: 0, size: 0 };
        // SAFETY: MPI checks the communicator and fills the new one.
        checked("MPI_Comm_dup", unsafe { (mpi.MPI_Comm_dup)(of, &raw mut group.comm) })?;
        // SAFETY: the communicator was made above; each call fills at most one integer.
        unsafe {
            (mpi.MPI_Comm_set_errhandler)(group.comm, MPI_ERRORS_RETURN());
            checked("MPI_Comm_rank", (mpi.MPI_Comm_rank)(group.comm, &raw mut group.rank))?;
            checked("MPI_Comm_size", (mpi.MPI_Comm_size)(group.comm, &raw mut group.size))?;
        }
        Ok(group)
    }

    /// Frees the duplicate.
    pub(crate) fn free(mut self) {
        if let Ok(mpi) = mpi() {
            // SAFETY: a communicator that this driver made.
            unsafe { (mpi.MPI_Comm_free)(&raw mut self.comm) };
        }
    }
}

/// What changes while a file is open.
pub(crate) struct State {
    /// The current view.
    pub(crate) view: Arc<View>,
    /// The individual file pointer, in elementary types of the view.
    pub(crate) position: i64,
    /// A split collective that has begun.
    pub(crate) split: Option<Begun>,
    /// What to do with errors.
    pub(crate) handler: Handler,
    /// Views set so far: each has a shared pointer of its own.
    pub(crate) views: u32,
    /// Is it in atomic mode?
    pub(crate) atomic: bool,
    /// The explicit epoch that it takes part in.
    pub(crate) explicit: Option<Arc<Explicit>>,
    /// The counters that this process has used.
    pub(crate) counters: Used,
    /// What has failed on this rank and is still to be told.
    pub(crate) postponed: Option<Postponed>,
    /// Why a write of this rank failed, which it was told: the epoch must not commit.
    pub(crate) spoiled: Option<Failure>,
}

/// An open file.
pub(crate) struct OpenFile {
    /// The path as the program gave it.
    pub(crate) path: CString,
    /// Number of this open in this process: opens of one communicator have the same order on all its ranks.
    pub(crate) sequence: u64,
    /// The communicator.
    pub(crate) group: Group,
    /// The access mode.
    pub(crate) amode: c_int,
    /// The hints that are in use.
    pub(crate) hints: Vec<(String, String)>,
    /// libtalea's handle.
    pub(crate) storage: StorageFile,
    /// How summaries are reduced.
    pub(crate) reduction: Reduction,
    /// Where file pointers began, in bytes: the file's end in MPI_MODE_APPEND.
    pub(crate) first_position: i64,
    state: Mutex<State>,
    /// Nonblocking transfers that are under way.
    in_flight: Mutex<usize>,
    landed: Condvar,
    me: Weak<OpenFile>,
    /// The ranks of this node, once collective buffering needs them.
    pub(crate) node: LazyNode,
}

/// What an open file is made of.
pub(crate) struct Parts {
    pub(crate) path: CString,
    pub(crate) sequence: u64,
    pub(crate) group: Group,
    pub(crate) amode: c_int,
    pub(crate) hints: Vec<(String, String)>,
    pub(crate) storage: StorageFile,
    pub(crate) reduction: Reduction,
    pub(crate) handler: Handler,
    pub(crate) position: i64,
}

impl OpenFile {
    /// A file with the plain view.
    pub(crate) fn new(parts: Parts) -> Arc<OpenFile> {
        let Parts { path, sequence, group, amode, hints, storage, reduction, handler, position } = parts;
        let view = Arc::new(View::plain());
        let state = State {
            view,
            position,
            split: None,
            handler,
            views: 0,
            atomic: false,
            explicit: None,
            counters: Used::default(),
            postponed: None,
            spoiled: None,
        };
        Arc::new_cyclic(|me| OpenFile {
            path,
            sequence,
            group,
            amode,
            hints,
            storage,
            reduction,
            first_position: position,
            state: Mutex::new(state),
            in_flight: Mutex::new(0),
            landed: Condvar::new(),
            me: me.clone(),
            node: LazyNode::new(),
        })
    }

    /// May collective calls of this direction put pieces together? ROMIO's hints say so.
    pub(crate) fn buffers(&self, direction: Direction) -> bool {
        let key = if direction == Direction::Write { "romio_cb_write" } else { "romio_cb_read" };
        !self.hints.iter().any(|(name, value)| name == key && value == "disable")
    }

    /// Another reference to it.
    pub(crate) fn shared(&self) -> Option<Arc<OpenFile>> {
        self.me.upgrade()
    }

    fn in_flight(&self) -> MutexGuard<'_, usize> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A nonblocking transfer begins.
    pub(crate) fn transfer_begun(&self) {
        *self.in_flight() += 1;
    }

    /// One has ended.
    pub(crate) fn transfer_ended(&self) {
        *self.in_flight() -= 1;
        self.landed.notify_all();
    }

    /// Waits until no transfer is under way: an epoch ends after what was begun in it. Each transfer has its deadline.
    pub(crate) fn await_transfers(&self) {
        let mut in_flight = self.in_flight();
        while *in_flight > 0 {
            in_flight = self.landed.wait(in_flight).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The state, locked.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current view.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.state().view)
    }

    /// Replaces the view; the old one's types are freed when nobody uses them any more.
    pub(crate) fn replace_view(&self, view: View) {
        let old = {
            let mut state = self.state();
            state.position = 0;
            state.views += 1;
            std::mem::replace(&mut state.view, Arc::new(view))
        };
        if let Ok(old) = Arc::try_unwrap(old) {
            old.free();
        }
    }

    /// Was it opened for writing?
    pub(crate) fn writable(&self) -> bool {
        self.amode & (MPI_MODE_WRONLY | MPI_MODE_RDWR) != 0
    }

    /// Refuses a write to a file that was opened for reading only.
    pub(crate) fn require_writable(&self) -> Result<(), Failure> {
        if self.writable() {
            return Ok(());
        }
        let text = format!("{} is open for reading only: open it with MPI_MODE_RDWR to write", self.name());
        Err(Failure::refused(MPI_ERR_READ_ONLY, text))
    }

    /// Refuses a read of a file that was opened for writing only.
    pub(crate) fn require_readable(&self) -> Result<(), Failure> {
        if self.amode & MPI_MODE_WRONLY == 0 {
            return Ok(());
        }
        let text = format!("{} is open for writing only: open it with MPI_MODE_RDWR to read", self.name());
        Err(Failure::refused(MPI_ERR_ACCESS, text))
    }

    /// Refuses what MPI_MODE_SEQUENTIAL forbids (MPI 4.1 §14.2.1): all but shared pointers, in order.
    pub(crate) fn require_random(&self) -> Result<(), Failure> {
        if self.amode & MPI_MODE_SEQUENTIAL == 0 {
            return Ok(());
        }
        let text = format!("{} is open with MPI_MODE_SEQUENTIAL: only shared pointers move in it", self.name());
        Err(Failure::refused(MPI_ERR_UNSUPPORTED_OPERATION, text))
    }

    /// The path for texts.
    pub(crate) fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.to_string_lossy()
    }
}
