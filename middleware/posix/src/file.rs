//! Open files: what MPI-IO, FUSE and libdfs share (docs/design.md §7).
//!
//! One process opens ([`Files::open`]) and gets bytes; every process of the communicator, the opener included, attaches with
//! them. All handles of a process on one founding share its open epoch. Must never commit what a failed write left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use talea_abi::Code;
use talea_model::{ObjectClass, Oid, Step, Summary, TxId, View, WrittenFile};

use crate::backing::{Backing, Epoch, Snapshot, SnapshotAt, System};
use crate::inode::{self, Inode, Kind, SizeRecord};
use crate::namespace::{NewFile, Stat, file_size};
use crate::path::{PathView, TaleaPath};
use crate::{Fault, Namespace};

mod auto;
pub(crate) mod blob;
mod counter;
mod epoch;
mod group;
mod handle;
mod pieces;
#[cfg(test)]
mod tests;

use auto::Autocommits;
use blob::{Base, Mode, Shared};
pub use counter::CounterChange;
pub use epoch::SharedEpoch;
use group::{Facts, Group, Newborn};
pub use handle::{CommitAnswer, Handle, Info, merge_summaries};

/// Room for targets that join the pool while a file is open, so that summaries keep their size.
const SPARE_TARGETS: usize = 64;

/// How to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// For writing too: founds an epoch or shares the process's.
    pub write: bool,
    /// Make the file if it does not exist.
    pub create: bool,
    /// With `create`: it must not exist.
    pub exclusive: bool,
    /// Abort and unlink at the end.
    pub delete_on_close: bool,
}

/// What a program may wish for a new file; unknown keys are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `talea_class`.
    pub class: Option<ObjectClass>,
    /// `talea_chunk_bytes`.
    pub chunk_bytes: Option<u64>,
    /// `talea_epoch=none`: each write is visible to all when it returns.
    pub autocommits: bool,
    /// Permission bits, owner and group.
    pub owner: (u32, u32, u32),
}

impl Hints {
    /// From lines of `key=value`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut hints = Self { owner: (0o644, 0, 0), ..Self::default() };
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let bad = |why: String| Fault::new(Code::Argument, format!("hint {key}={value}: {why}"));
            match key.trim() {
                "talea_class" => {
                    let class: ObjectClass = value.trim().parse().map_err(|e| bad(format!("{e}")))?;
                    hints.class = Some(class);
                }
                "talea_chunk_bytes" => {
                    let bytes = value.trim().parse().map_err(|_| bad("not a number of bytes".to_owned()))?;
                    inode::check_chunk(bytes).map_err(|fault| bad(fault.text))?;
                    hints.chunk_bytes = Some(bytes);
                }
                "talea_epoch" => hints.autocommits = value.trim() == "none",
                _ => {}
            }
        }
        Ok(hints)
    }
}

type GroupKey = (String, Oid);

/// The open files of this process.
pub struct Files {
    system: Arc<dyn System>,
    open: Arc<Registry>,
}

/// What handles need to know when they end.
#[derive(Default)]
pub(crate) struct Registry {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Foundings that this process has a part in, with the number of its handles.
    groups: HashMap<GroupKey, Vec<(Arc<Group>, usize)>>,
    /// Leases of read-only opens that this process made and has not attached to yet.
    leases: HashMap<u64, Box<dyn Snapshot>>,
    /// Files that explicit epochs which have not committed yet wrote, as far as this process sealed them.
    written: HashMap<TxId, Vec<WrittenFile>>,
}

impl Registry {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An explicit epoch wrote a file.
    fn wrote(&self, tx: TxId, file: WrittenFile) {
        self.table().written.entry(tx).or_default().push(file);
    }

    /// What an explicit epoch wrote, which is now about to end.
    fn take_written(&self, tx: TxId) -> Vec<WrittenFile> {
        self.table().written.remove(&tx).unwrap_or_default()
    }

    /// A handle has gone.
    fn release(&self, container: &str, group: &Arc<Group>) {
        let last = {
            let mut table = self.table();
            let key = (container.to_owned(), group.oid);
            let Some(groups) = table.groups.get_mut(&key) else { return };
            if let Some(entry) = groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, group)) {
                entry.1 = entry.1.saturating_sub(1);
            }
            let last = groups.iter().any(|(other, handles)| Arc::ptr_eq(other, group) && *handles == 0);
            if last {
                groups.retain(|(other, _)| !Arc::ptr_eq(other, group));
            }
            if groups.is_empty() {
                table.groups.remove(&key);
            }
            last
        };
        // Outside of the lock: it may speak to a server.
        if last {
            group.end();
        }
    }
}

impl Files {
    /// Files of a system.
    pub fn new(system: Arc<dyn System>) -> Self {
        Self { system, open: Arc::default() }
    }

    /// The names of a path's container in the path's view; the lease of a view of the past lasts as long as the second value.
    pub fn namespace(&self, path: &TaleaPath) -> Result<(Namespace, Option<Box<dyn Snapshot>>), Fault> {
        let backing = self.system.container(&path.container)?;
        match past(path) {
            None => Ok((Namespace::new(backing, View::Latest), None)),
            Some(at) => {
                let snapshot = backing.snapshot(at)?;
                Ok((Namespace::new(backing, snapshot.view()), Some(snapshot)))
            }
        }
    }

    /// What a path is.
    pub fn stat(&self, path: &[u8]) -> Result<Stat, Fault> {
        let path = TaleaPath::parse(path)?;
        let (namespace, _lease) = self.namespace(&path)?;
        namespace.stat(&path.names)
    }

    /// Unlinks a path.
    pub fn unlink(&self, path: &[u8]) -> Result<(), Fault> {
        let path = live(path)?;
        Namespace::new(self.system.container(&path.container)?, View::Latest).unlink(&path.names)
    }

    /// Renames within a container; a file that this process alone is writing is committed first.
    pub fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), Fault> {
        let (from, to) = (live(from)?, live(to)?);
        if from.container != to.container {
            return Err(Fault::new(Code::Unsupported, "a rename stays in its container: copy the file instead"));
        }
        let backing = self.system.container(&from.container)?;
        let namespace = Namespace::new(backing, View::Latest);
        let inode = namespace.lookup(&from.names)?;
        let groups = inode.map_or_else(Vec::new, |inode| self.groups_on(&from.container, inode.oid));
        for group in &groups {
            if group.processes > 1 {
                return Err(Fault::new(
                    Code::Unsupported,
                    "a file that several processes write cannot be renamed: close it first",
                ));
            }
            let committed = group.commit(group.flush()?, true);
            group.advance(committed.outcome)?;
            committed.result?;
        }
        namespace.rename(&from.names, &to.names)?;
        groups.iter().for_each(|group| group.renamed(to.names.join(&b'/')));
        Ok(())
    }

    /// Opens on one process of a communicator of `processes`; the bytes are for [`attach`](Self::attach).
    pub fn open(&self, path: &[u8], flags: OpenFlags, processes: u32, hints: &Hints) -> Result<Vec<u8>, Fault> {
        let parsed = TaleaPath::parse(path)?;
        let backing = self.system.container(&parsed.container)?;
        let writes = flags.write || flags.create || flags.delete_on_close;
        if writes && parsed.view != PathView::Live {
            return Err(Fault::new(
                Code::ReadOnly,
                format!("'{}' shows a committed state, which never changes: open it read-only", path.escape_ascii()),
            ));
        }
        let shared = if writes {
            self.open_writer(path, &parsed, backing, flags, processes.max(1), hints)?
        } else {
            self.open_reader(path, &parsed, backing)?
        };
        blob::encode(&Shared { counters: random()?, ..shared })
    }

    fn open_reader(&self, path: &[u8], parsed: &TaleaPath, backing: Arc<dyn Backing>) -> Result<Shared, Fault> {
        let at = past(parsed);
        let fixed = at.is_some();
        let snapshot = backing.snapshot(at.unwrap_or(SnapshotAt::Latest))?;
        let view = snapshot.view();
        let namespace = Namespace::new(backing.clone(), view);
        let inode = file_of(&namespace, parsed, namespace.lookup(&parsed.names)?)?;
        let size = file_size(&*backing, view, inode.oid)?;
        let base = Base { view, bytes: size.bytes, step: snapshot.step() };
        let lease = random()?;
        self.open.table().leases.insert(lease, snapshot);
        Ok(shared(path, &inode, &*backing, false, Mode::Reader { lease, base, fixed }))
    }

    fn open_writer(
        &self,
        path: &[u8],
        parsed: &TaleaPath,
        backing: Arc<dyn Backing>,
        flags: OpenFlags,
        processes: u32,
        hints: &Hints,
    ) -> Result<Shared, Fault> {
        let found = find_or_create(path, parsed, &backing, flags, hints)?;
        let (inode, delete) = (found.inode, flags.delete_on_close);
        if found.created.is_none()
            && let Some(group) = self.shareable(&parsed.container, inode.oid, processes)
        {
            let (epoch, size, step) = group.shared()?;
            let (founding, processes) = (group.founding, group.processes);
            let mode = Mode::Writer { founding, founder: false, processes, epoch, size, step };
            return Ok(shared(path, &inode, &*backing, delete, mode));
        }
        let founding = random()?;
        let (epoch, newborn) = match found.created {
            Some((epoch, newborn)) => (epoch, Some(newborn)),
            None if hints.autocommits => {
                let size = file_size(&*backing, View::Latest, inode.oid)?;
                (Autocommits::boxed(backing.clone(), inode.chunk_bytes, size, Step(0)), None)
            }
            None => (backing.begin(true)?, None),
        };
        let size = match &newborn {
            Some(_) => SizeRecord::default(),
            None => file_size(&*backing, epoch.view(), inode.oid)?,
        };
        let (step, bytes) = (epoch.base_step(), epoch.blob());
        let mode = Mode::Writer { founding, founder: true, processes, epoch: bytes, size, step };
        let shared = shared(path, &inode, &*backing, delete, mode);
        let facts = Facts { oid: inode.oid, chunk_bytes: inode.chunk_bytes, path: parsed.names.join(&b'/') };
        let group = Arc::new(Group::new(backing, founding, processes, true, facts, epoch, size, step));
        newborn.into_iter().for_each(|newborn| group.born(newborn));
        let key = (parsed.container.clone(), inode.oid);
        self.open.table().groups.entry(key).or_default().push((group, 0));
        Ok(shared)
    }

    /// This process's foundings on a file.
    fn groups_on(&self, container: &str, oid: Oid) -> Vec<Arc<Group>> {
        let table = self.open.table();
        let groups = table.groups.get(&(container.to_owned(), oid));
        groups.into_iter().flatten().map(|(group, _)| group.clone()).collect()
    }

    /// A founding of this process that a communicator of `processes` is part of.
    fn shareable(&self, container: &str, oid: Oid, processes: u32) -> Option<Arc<Group>> {
        let table = self.open.table();
        let groups = table.groups.get(&(container.to_owned(), oid))?;
        let fits =
            groups.iter().map(|(group, _)| group).filter(|group| group.processes >= processes && !group.is_solo());
        fits.max_by_key(|group| group.processes).cloned()
    }

    /// Makes this process's handle from the bytes of an [`open`](Self::open) by any process.
    pub fn attach(&self, shared: &[u8]) -> Result<Handle, Fault> {
        let shared: Shared = blob::decode(shared)?;
        inode::check_chunk(shared.chunk_bytes)?;
        let backing = self.system.join(&shared.container)?;
        match &shared.mode {
            Mode::Reader { lease, base, fixed } => {
                let lease = self.open.table().leases.remove(lease);
                let (base, fixed) = (*base, *fixed);
                Ok(Handle::reader(shared, backing, base, lease, fixed))
            }
            Mode::Writer { founder, .. } => {
                let founder = *founder;
                let group = self.group_of(&shared, backing.clone())?;
                Ok(Handle::writer(shared, backing, group, founder, self.open.clone()))
            }
        }
    }

    /// The founding that a blob names, with one handle more.
    fn group_of(&self, shared: &Shared, backing: Arc<dyn Backing>) -> Result<Arc<Group>, Fault> {
        let Mode::Writer { founding, founder, processes, epoch, size, step } = &shared.mode else {
            return Err(Fault::new(Code::Argument, "not open for writing"));
        };
        let mut table = self.open.table();
        let groups = table.groups.entry((backing.name().to_owned(), shared.oid)).or_default();
        if let Some((group, handles)) = groups.iter_mut().find(|(group, _)| group.founding == *founding) {
            *handles += 1;
            return Ok(group.clone());
        }
        if !founder {
            return Err(Fault::new(
                Code::Conflict,
                "the file is being written by a communicator that this process is not in: close it there first",
            ));
        }
        // The path was parsed when the file was opened.
        let path = TaleaPath::parse(&shared.path).map_or_else(|_| Vec::new(), |path| path.names.join(&b'/'));
        let facts = Facts { oid: shared.oid, chunk_bytes: shared.chunk_bytes, path };
        let epoch = match epoch.as_slice() {
            [] => Autocommits::boxed(backing.clone(), shared.chunk_bytes, *size, *step),
            epoch => backing.join(epoch)?,
        };
        let group = Group::new(backing.clone(), *founding, *processes, false, facts, epoch, *size, *step);
        let group = Arc::new(group);
        groups.push((group.clone(), 1));
        Ok(group)
    }
}

/// A file that is there, or one that was made for this open.
struct Found {
    inode: Inode,
    created: Option<(Box<dyn Epoch>, Newborn)>,
}

/// Finds the file to write, or makes it in an epoch of its own.
fn find_or_create(
    path: &[u8],
    parsed: &TaleaPath,
    backing: &Arc<dyn Backing>,
    flags: OpenFlags,
    hints: &Hints,
) -> Result<Found, Fault> {
    let namespace = Namespace::new(backing.clone(), View::Latest);
    let (name, parents) = parsed.names.split_last().ok_or_else(|| namespace.is_directory(&parsed.names))?;
    let directory = namespace.directory(parents)?;
    let there = |found| Ok(Found { inode: file_of(&namespace, parsed, found)?, created: None });
    match namespace.entry(directory, name)? {
        Some(_) if flags.create && flags.exclusive => {
            return Err(Fault::new(Code::Exists, format!("'{}' exists already", path.escape_ascii())));
        }
        None if !flags.create => return Err(namespace.not_found(&parsed.names)),
        None => {}
        found => return there(found),
    }
    let (mode, uid, gid) = hints.owner;
    let class = hints.class.unwrap_or_else(|| backing.default_class());
    let chunk_bytes = hints.chunk_bytes.unwrap_or_else(|| backing.default_chunk_bytes());
    let new = NewFile { mode, uid, gid, class, chunk_bytes };
    if hints.autocommits {
        return match namespace.create(directory, name, &new, None) {
            Ok(inode) => Ok(Found { inode, created: None }),
            Err(fault) if fault.code == Code::Exists && !flags.exclusive => there(namespace.entry(directory, name)?),
            Err(fault) => Err(fault),
        };
    }
    let epoch = backing.begin(true)?;
    match namespace.create(directory, name, &new, Some(&*epoch)) {
        Ok(inode) => {
            let newborn = Newborn { directory, name: name.clone(), inode };
            Ok(Found { inode, created: Some((epoch, newborn)) })
        }
        Err(fault) => {
            let _ = epoch.abort("the file could not be created");
            // Somebody was faster: theirs is the file.
            if fault.code == Code::Exists && !flags.exclusive {
                there(namespace.entry(directory, name)?)
            } else {
                Err(fault)
            }
        }
    }
}

fn shared(path: &[u8], inode: &Inode, backing: &dyn Backing, delete: bool, mode: Mode) -> Shared {
    Shared {
        container: backing.blob(),
        path: path.to_vec(),
        oid: inode.oid,
        chunk_bytes: inode.chunk_bytes,
        summary_bytes: Summary::encoded_bytes(backing.targets() + SPARE_TARGETS) as u32,
        delete_on_close: delete,
        counters: 0,
        mode,
    }
}

fn file_of(namespace: &Namespace, path: &TaleaPath, found: Option<Inode>) -> Result<Inode, Fault> {
    match found {
        None if path.names.is_empty() => Err(namespace.is_directory(&path.names)),
        None => Err(namespace.not_found(&path.names)),
        Some(inode) => match inode.kind {
            Kind::File => Ok(inode),
            Kind::Directory => Err(namespace.is_directory(&path.names)),
            Kind::Symlink => Err(Fault::new(Code::Unsupported, "links are not followed yet: open what it points to")),
        },
    }
}

fn past(path: &TaleaPath) -> Option<SnapshotAt> {
    match &path.view {
        PathView::Live => None,
        PathView::Step(step) => Some(SnapshotAt::Step(Step(*step))),
        PathView::Snapshot(name) => Some(SnapshotAt::Named(name.clone())),
    }
}

fn live(path: &[u8]) -> Result<TaleaPath, Fault> {
    let parsed = TaleaPath::parse(path)?;
    if parsed.view == PathView::Live {
        return Ok(parsed);
    }
    Err(Fault::new(Code::ReadOnly, format!("'{}' shows a committed state, which never changes", path.escape_ascii())))
}

fn random() -> Result<u64, Fault> {
    getrandom::u64().map_err(|error| Fault::new(Code::Other, format!("the kernel gives no random numbers: {error}")))
}
