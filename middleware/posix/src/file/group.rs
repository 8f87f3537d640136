//! One founding in one process: the open epoch that all handles of the process on a file share (docs/design.md §7).
//!
//! Any number of threads read and write at once under the state's read lock; flush, commit and advance take its write lock, so
//! that an epoch ends only when what was begun in it has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use talea_abi::Code;
use talea_model::{Extent, Manifest, Oid, Step, Summary, TxId, View, WrittenFile, manifest};

use crate::Fault;
use crate::backing::{Backing, Condition, Epoch, Punch, Update, ValueKind};
use crate::file::auto::Autocommits;
use crate::file::blob::Outcome;
use crate::file::pieces;
use crate::inode::{DATA, END, Inode, META, MTIME, SizeRecord};
use crate::namespace::{Namespace, file_size, now_ns, value};

mod explicit;

/// Chunks of one round of an enumeration.
const CHUNKS_A_ROUND: usize = 1024;

/// See the module.
pub(super) struct Group {
    pub backing: Arc<dyn Backing>,
    /// Random number of the founding, the same in all its processes.
    pub founding: u64,
    /// Size of the founding communicator.
    pub processes: u32,
    /// Whether this process opened the file for the communicator.
    pub opener: bool,
    pub oid: Oid,
    pub chunk_bytes: u64,
    /// It has no epochs: each write is an autocommit.
    autocommits: bool,
    state: RwLock<State>,
    local: Mutex<Local>,
}

/// Changes only when an epoch ends.
struct State {
    epoch: Option<Box<dyn Epoch>>,
    /// The epoch that this process's commit began, until `advance` takes it over.
    next: Option<Box<dyn Epoch>>,
    /// Size in the base.
    base: SizeRecord,
    step: Step,
    /// Why there is no epoch any more and none can be begun.
    dead: Option<String>,
    /// The name that this process made for the file, until a commit has made it last.
    newborn: Option<Newborn>,
    /// The epoch that was to make the name has failed: the present one holds the name alone, until something is written.
    reborn: bool,
    /// The founder's last commit is over: remaining handles write in a transaction of this process alone.
    solo: bool,
    /// The epoch is one of several files: whoever owns it commits.
    explicit: bool,
    /// Names from the container's root on, for manifests.
    path: Vec<u8>,
}

/// What a founding knows of its file.
pub(super) struct Facts {
    pub oid: Oid,
    pub chunk_bytes: u64,
    /// Names from the container's root on.
    pub path: Vec<u8>,
}

/// A name that lives only with its epoch so far.
pub(super) struct Newborn {
    pub directory: Oid,
    pub name: Vec<u8>,
    pub inode: Inode,
}

/// What this process did in the epoch.
#[derive(Default)]
struct Local {
    size: SizeRecord,
    /// The file has at least this many bytes.
    known_bytes: u64,
    failed: bool,
}

/// A commit's end: the caller's result, and what all processes take over.
pub(super) struct Committed {
    pub result: Result<(), Fault>,
    pub outcome: Outcome,
}

impl Group {
    #[allow(clippy::too_many_arguments)] // a founding has that many properties, and one place makes them
    pub(super) fn new(
        backing: Arc<dyn Backing>,
        founding: u64,
        processes: u32,
        opener: bool,
        facts: Facts,
        epoch: Box<dyn Epoch>,
        base: SizeRecord,
        step: Step,
    ) -> Self {
        let Facts { oid, chunk_bytes, path } = facts;
        let autocommits = epoch.autocommits();
        let state = State {
            epoch: Some(epoch),
            next: None,
            base,
            step,
            dead: None,
            newborn: None,
            reborn: false,
            solo: false,
            explicit: false,
            path,
        };
        let size = SizeRecord { bytes: 0, ..base };
        let local = Local { size, known_bytes: base.bytes, failed: false };
        let (state, local) = (RwLock::new(state), Mutex::new(local));
        Self { backing, founding, processes, opener, oid, chunk_bytes, autocommits, state, local }
    }

    /// Tells that this process has just made the file's name, tied to the open epoch.
    pub(super) fn born(&self, newborn: Newborn) {
        self.exclusive().newborn = Some(newborn);
    }

    /// The file has another name from now on.
    pub(super) fn renamed(&self, path: Vec<u8>) {
        self.exclusive().path = path;
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state with an open epoch in it; begins one if this process writes on its own.
    fn open(&self) -> Result<RwLockReadGuard<'_, State>, Fault> {
        loop {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.epoch.is_some() {
                return Ok(state);
            }
            drop(state);
            let mut state = self.exclusive();
            if state.epoch.is_some() {
                continue;
            }
            if !state.solo {
                let why = state.dead.clone().unwrap_or_else(|| "it is closed".to_owned());
                return Err(Fault::new(
                    Code::Aborted,
                    format!("the file's epoch is over: open the file again ({why})"),
                ));
            }
            let epoch = self.begin()?;
            let base = file_size(&*self.backing, epoch.view(), self.oid)?;
            state.step = epoch.base_step();
            state.epoch = Some(epoch);
            self.rebase(&mut state, base);
        }
    }

    /// Another epoch of this file.
    fn begin(&self) -> Result<Box<dyn Epoch>, Fault> {
        if !self.autocommits {
            return self.backing.begin(true);
        }
        let size = file_size(&*self.backing, View::Latest, self.oid)?;
        Ok(Autocommits::boxed(self.backing.clone(), self.chunk_bytes, size, Step(0)))
    }

    fn rebase(&self, state: &mut State, base: SizeRecord) {
        state.base = base;
        let size = SizeRecord { bytes: 0, ..base };
        *self.local() = Local { size, known_bytes: base.bytes, failed: false };
    }

    /// The open epoch as bytes, its base's size and step.
    pub(super) fn shared(&self) -> Result<(Vec<u8>, SizeRecord, Step), Fault> {
        let state = self.open()?;
        Ok((epoch_of(&state)?.blob(), state.base, state.step))
    }

    pub(super) fn step(&self) -> Step {
        self.state.read().unwrap_or_else(PoisonError::into_inner).step
    }

    /// Whether a write of this process has failed in the present epoch, or the epoch is over and has no successor.
    pub(super) fn has_failed(&self) -> bool {
        let dead = self.state.read().unwrap_or_else(PoisonError::into_inner).dead.is_some();
        dead || self.local().failed
    }

    /// The epoch counts as one in which a write has failed.
    pub(super) fn fail(&self) {
        self.local().failed = true;
    }

    /// Processes that share the epoch.
    pub(super) fn sharers(&self) -> u32 {
        if self.is_solo() { 1 } else { self.processes }
    }

    pub(super) fn is_solo(&self) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).solo
    }

    pub(super) fn write(&self, list: &[(u64, &[u8])]) -> Result<(), Fault> {
        let state = self.open()?;
        let epoch = epoch_of(&state)?;
        let mut end = 0;
        for (offset, memory) in list.iter().filter(|(_, memory)| !memory.is_empty()) {
            let piece_end = offset.checked_add(memory.len() as u64).filter(|end| *end <= i64::MAX as u64);
            end = end.max(piece_end.ok_or_else(|| Fault::new(Code::TooLong, "a file ends at 2^63 - 1 bytes"))?);
        }
        let written = pieces::write(list, self.chunk_bytes, |updates| epoch.update(self.oid, updates));
        let mut local = self.local();
        match written {
            Ok(()) => {
                local.size.bytes = local.size.bytes.max(end);
                local.known_bytes = local.known_bytes.max(end);
            }
            Err(_) => local.failed = true,
        }
        written
    }

    /// Reads all pieces; returns the size in bytes. With no pieces: what this process knows of it, without asking anybody.
    pub(super) fn read(&self, list: &mut [(u64, &mut [u8])]) -> Result<u64, Fault> {
        if list.is_empty() {
            return Ok(self.local().known_bytes);
        }
        let state = self.open()?;
        let epoch = epoch_of(&state)?;
        let wanted = list.iter().map(|(offset, memory)| offset.saturating_add(memory.len() as u64)).max().unwrap_or(0);
        let mut end = self.local().known_bytes;
        if wanted > end {
            end = self.exact_bytes(&state)?;
        }
        pieces::read(list, self.chunk_bytes, end, |fetches| self.backing.fetch(epoch.view(), self.oid, fetches))?;
        Ok(end)
    }

    pub(super) fn bytes(&self) -> Result<u64, Fault> {
        self.exact_bytes(&*self.open()?)
    }

    /// The larger of the base and the epoch's pending, over all processes.
    fn exact_bytes(&self, state: &State) -> Result<u64, Fault> {
        let is_alone = self.processes == 1 || state.solo;
        // Without epochs others may write at any time.
        if is_alone && !self.autocommits {
            return Ok(self.local().known_bytes);
        }
        let view = epoch_of(state)?.view();
        let mut end = file_size(&*self.backing, view, self.oid)?.bytes;
        if !is_alone {
            let last = self.backing.last_array(view, self.oid, DATA)?;
            let data = last.map_or(0, |(chunk, end)| chunk.saturating_mul(self.chunk_bytes).saturating_add(end));
            end = end.max(data);
        }
        let mut local = self.local();
        local.known_bytes = local.known_bytes.max(end);
        Ok(local.known_bytes)
    }

    /// Sets the size; ordered after this process's writes.
    pub(super) fn set_bytes(&self, bytes: u64) -> Result<Outcome, Fault> {
        if bytes > i64::MAX as u64 {
            return Err(Fault::new(Code::TooLong, "a file ends at 2^63 - 1 bytes"));
        }
        drop(self.open()?);
        let state = self.exclusive();
        let current = self.exact_bytes(&state)?;
        let known = self.local().size.max(state.base);
        let cut = bytes < current;
        let size = SizeRecord { truncations: known.truncations + u64::from(cut), bytes };
        if bytes != current {
            let done = self.resize(epoch_of(&state)?, current, size);
            if done.is_err() {
                self.local().failed = true;
            }
            done?;
        }
        self.resized(size);
        Ok(Outcome::Truncated { founding: self.founding, size })
    }

    fn resize(&self, epoch: &dyn Epoch, current: u64, size: SizeRecord) -> Result<(), Fault> {
        let (chunk, bytes) = (self.chunk_bytes, size.bytes);
        if bytes == 0 {
            epoch.punch(self.oid, Punch::Object)?;
        } else if bytes < current {
            if let Some(extent) = Extent::new(bytes % chunk, chunk - bytes % chunk).filter(|_| bytes % chunk != 0) {
                let dkey = (bytes / chunk).to_be_bytes();
                epoch.punch(self.oid, Punch::Range { dkey: &dkey, akey: DATA, extent })?;
            }
            self.punch_chunks(epoch, bytes.div_ceil(chunk))?;
            if let Some(extent) = Extent::new(bytes, i64::MAX as u64 - bytes) {
                epoch.punch(self.oid, Punch::Range { dkey: META, akey: END, extent })?;
            }
        }
        epoch.resized(size);
        if bytes == 0 {
            return Ok(());
        }
        epoch.update(self.oid, &[end_record(bytes)])
    }

    /// Punches the chunks from `first` on, those that there are: a sparse file may end anywhere. `first` is not 0.
    fn punch_chunks(&self, epoch: &dyn Epoch, first: u64) -> Result<(), Fault> {
        let mut after = (first - 1).to_be_bytes().to_vec();
        loop {
            let page = self.backing.dkeys(epoch.view(), self.oid, Some(&after), CHUNKS_A_ROUND)?;
            // The file's records have a shorter name than any chunk.
            for chunk in page.names.iter().filter(|name| name.len() == size_of::<u64>()) {
                epoch.punch(self.oid, Punch::Dkey(chunk))?;
            }
            match page.names.last() {
                Some(last) if page.more => after.clone_from(last),
                _ => return Ok(()),
            }
        }
    }

    fn resized(&self, size: SizeRecord) {
        let mut local = self.local();
        if size.truncations > local.size.truncations {
            (local.size, local.known_bytes) = (size, size.bytes);
        } else {
            local.size = local.size.max(size);
            local.known_bytes = local.known_bytes.max(size.bytes);
        }
    }

    /// This process's part; a process on its own commits instead.
    pub(super) fn flush(&self) -> Result<Summary, Fault> {
        let state = self.exclusive();
        let Some(epoch) = &state.epoch else {
            // Nothing was written since the last commit, or the epoch is dead, which the commit tells.
            let failed = state.dead.is_some();
            return Ok(Summary { hlc: self.backing.hlc(), failed, ..Summary::default() });
        };
        let mut summary = epoch.summary()?;
        let local = self.local();
        summary.hlc = summary.hlc.max(self.backing.hlc());
        summary.failed |= local.failed;
        summary.size = (local.size.truncations, local.size.bytes);
        drop(local);
        if !state.solo {
            return Ok(summary);
        }
        drop(state);
        let committed = self.commit(summary, false);
        self.advance(committed.outcome)?;
        committed.result.map(|()| Summary { hlc: self.backing.hlc(), ..Summary::default() })
    }

    /// Commits with the merged summary of all processes.
    pub(super) fn commit(&self, mut merged: Summary, next: bool) -> Committed {
        self.backing.observe(merged.hlc);
        let mut state = self.exclusive();
        let base = state.base;
        let closed = |tx, failed: Option<&Fault>, next, size, step| Outcome::Closed {
            founding: self.founding,
            tx,
            failed: failed.map(|fault| fault.text.clone()),
            next,
            size,
            step,
        };
        let Some(epoch) = &state.epoch else {
            let why = state.dead.clone().unwrap_or_else(|| "it is closed".to_owned());
            let fault = Fault::new(Code::Aborted, format!("the file's epoch is over: {why}"));
            let outcome = closed(TxId(0), Some(&fault), None, base, state.step);
            return Committed { result: Err(fault), outcome };
        };
        let tx = epoch.tx();
        if epoch.autocommits() {
            let fault = merged.failed.then(|| {
                Fault::new(
                    Code::Aborted,
                    "a write failed since the last sync; all others are visible (talea_epoch=none)",
                )
            });
            let idle = Outcome::Idle { founding: self.founding };
            let outcome = if next { idle } else { closed(tx, None, None, base, state.step) };
            return Committed { result: fault.map_or(Ok(()), Err), outcome };
        }
        if state.reborn && !merged.failed && merged.size <= (base.truncations, 0) {
            let outcome =
                if next { Outcome::Idle { founding: self.founding } } else { closed(tx, None, None, base, state.step) };
            let result =
                if next { Ok(()) } else { epoch.abort("the file's first epoch failed, and nothing was written since") };
            return Committed { result, outcome };
        }
        let size = SizeRecord { truncations: merged.size.0, bytes: merged.size.1 }.max(base);
        let files = [WrittenFile { path: state.path.clone(), oid: self.oid }];
        let sealed = self.seal(&**epoch, &mut merged, (size, base), &files);
        let (sealed, names) = match sealed {
            Ok(names) => (Ok(()), names),
            Err(fault) => (Err(fault), None),
        };
        let committed = epoch.commit(&merged, names, next);
        let (fault, following, size, step) = match committed {
            Ok(done) => {
                (state.newborn, state.reborn) = (None, false);
                (None, done.next, size, done.step)
            }
            // What failed first says more than that the commit was refused for it.
            Err(refused) => {
                let next = refused.next.filter(|next| self.name_again(&state, &**next));
                state.reborn = state.newborn.is_some() && next.is_some();
                (Some(sealed.err().unwrap_or(refused.fault)), next, base, state.step)
            }
        };
        // What has failed may be the server that would be asked.
        let size = if fault.is_none() { self.next_size(following.as_deref(), size) } else { size };
        let blob = following.as_ref().map(|next| next.blob());
        state.next = following;
        let outcome = closed(tx, fault.as_ref(), blob, size, step);
        Committed { result: fault.map_or(Ok(()), Err), outcome }
    }

    /// Size in the next epoch's base: others may have committed before this one did.
    fn next_size(&self, next: Option<&dyn Epoch>, own: SizeRecord) -> SizeRecord {
        let found = next.map(|next| file_size(&*self.backing, next.view(), self.oid));
        // Of a server that is lost the next call that needs it tells.
        found.and_then(Result::ok).map_or(own, |found| SizeRecord { truncations: own.truncations, ..found })
    }

    /// A name made in an epoch that failed has vanished with it: ties it to the next one. False if it is lost.
    fn name_again(&self, state: &State, next: &dyn Epoch) -> bool {
        let Some(newborn) = &state.newborn else { return true };
        let space = Namespace::new(self.backing.clone(), View::Latest);
        let named = space.insert(newborn.directory, &newborn.name, &newborn.inode, None, Some(next));
        if named.is_err() {
            let _ = next.abort("the file's name is taken");
        }
        named.is_ok()
    }

    /// Writes size and time into the epoch, and its manifest if it is this file's own, if it holds anything at all. The manifest goes
    /// where size and time go, and the answer says under which key.
    fn seal(
        &self,
        epoch: &dyn Epoch,
        merged: &mut Summary,
        (size, base): (SizeRecord, SizeRecord),
        files: &[WrittenFile],
    ) -> Result<Option<u32>, Fault> {
        if merged.failed || merged.touched.is_empty() {
            return Ok(None);
        }
        let grows = size > base && size.bytes > 0;
        // A file that grows with each commit would leave a record of each.
        let swept = if grows && base.bytes > 0 { sweep(epoch, self.oid, size.bytes) } else { Ok(()) };
        let mtime_bytes = now_ns().to_be_bytes();
        let mut updates = vec![modified(&mtime_bytes)];
        if grows {
            updates.push(end_record(size.bytes));
        }
        let written = swept.and_then(|()| match files {
            [] => epoch.update(self.oid, &updates).map(|()| None),
            files => self.backing.manifest_slot(self.oid, META).and_then(|slot| {
                let (dkey, names) = (manifest::dkey(slot), Manifest::new(epoch.tx(), files.to_vec()).encode());
                let record = [value(&dkey, manifest::AKEY, &names, Condition::None)];
                epoch.update_all(&[(self.oid, &updates), (manifest::object(), &record)])?;
                Ok(Some(slot))
            }),
        });
        let part = epoch.summary();
        merged.failed |= written.is_err() || part.is_err();
        merged.merge(part.as_ref().unwrap_or(&Summary::default()));
        written.and_then(|slot| part.map(|_| slot))
    }

    /// Takes over what some process of the founding did; doing so twice changes nothing.
    pub(super) fn advance(&self, outcome: Outcome) -> Result<(), Fault> {
        let foreign = || Fault::new(Code::Argument, "this result belongs to another file or founding");
        match outcome {
            Outcome::Truncated { founding, size } if founding == self.founding => {
                let state = self.exclusive();
                state.epoch.iter().for_each(|epoch| epoch.resized(size));
                self.resized(size);
                Ok(())
            }
            Outcome::Idle { founding } if founding == self.founding => {
                // A failure has been told.
                self.local().failed = false;
                Ok(())
            }
            Outcome::Closed { founding, tx, failed, next, size, step } if founding == self.founding => {
                let mut state = self.exclusive();
                match state.epoch.take_if(|epoch| epoch.tx() == tx) {
                    Some(epoch) => epoch.closed(),
                    None => return Ok(()),
                }
                state.step = step;
                let mine = state.next.take();
                self.rebase(&mut state, size);
                let Some(blob) = next else {
                    // Without a next epoch the founder is done; what is left of this process's handles goes on alone.
                    state.solo = failed.is_none();
                    state.dead = failed;
                    return Ok(());
                };
                state.epoch = Some(match mine {
                    Some(epoch) => epoch,
                    None => self.backing.join(&blob).inspect_err(|fault| state.dead = Some(fault.text.clone()))?,
                });
                Ok(())
            }
            Outcome::Entered { founding, epoch, size, step, explicit } if founding == self.founding => {
                self.entered(&epoch, size, step, explicit)
            }
            _ => Err(foreign()),
        }
    }

    pub(super) fn abort(&self, reason: &str) -> Result<(), Fault> {
        let mut state = self.exclusive();
        state.dead = Some(reason.to_owned());
        state.solo = false;
        match state.epoch.take() {
            Some(epoch) => {
                let aborted = epoch.abort(reason);
                if aborted.is_ok() {
                    epoch.closed();
                }
                aborted
            }
            None => Ok(()),
        }
    }

    /// The founding handle of a communicator of one has gone without a commit: what remains commits by itself.
    pub(super) fn orphan(&self) {
        self.exclusive().solo |= self.processes == 1;
    }

    /// The last handle has gone. An epoch that nobody will commit is aborted by its opener and left by the others.
    pub(super) fn end(&self) {
        if self.is_explicit() {
            // What it wrote is in the summary of the close, and the process stays a writer until the epoch ends.
            self.exclusive().epoch.take().into_iter().for_each(|epoch| epoch.closed());
            return;
        }
        let alone = self.is_solo();
        if self.opener || alone {
            let open = self.state.read().unwrap_or_else(PoisonError::into_inner).epoch.is_some();
            if open {
                let _ = self.abort("the file was closed without a commit");
            }
        } else {
            self.exclusive().epoch = None;
        }
    }
}

fn epoch_of(state: &State) -> Result<&dyn Epoch, Fault> {
    state.epoch.as_deref().ok_or_else(|| Fault::new(Code::Aborted, "the file's epoch is over: open the file again"))
}

/// The entry that says that a file has so many bytes at least; not 0.
pub(super) fn end_record(bytes: u64) -> Update<'static> {
    let (kind, extents) = (ValueKind::Array { record_bytes: 1 }, Extent::new(bytes - 1, 1).into_iter().collect());
    Update { dkey: META, akey: END, kind, condition: Condition::None, extents, data: &[1] }
}

/// Takes away the records of ends before that of a file of so many bytes, in a transaction that has or writes that one: whoever sees them
/// gone sees it.
pub(super) fn sweep(epoch: &dyn Epoch, oid: Oid, bytes: u64) -> Result<(), Fault> {
    match Extent::new(0, bytes.saturating_sub(1)) {
        Some(extent) => epoch.punch(oid, Punch::Range { dkey: META, akey: END, extent }),
        None => Ok(()),
    }
}

/// The entry that says when a file was changed.
pub(super) fn modified(mtime_bytes: &[u8; 8]) -> Update<'_> {
    let (kind, condition) = (ValueKind::SingleMax, Condition::None);
    Update { dkey: META, akey: MTIME, kind, condition, extents: vec![], data: mtime_bytes }
}
