//! Names: lookup, create, remove, list and rename, over one container in one view (docs/design.md §7).
//!
//! Every change is an autocommit of one name and visible at once; what touches more, a rename or the end of a directory, is an
//! independent transaction. Must never touch a file's data other than to remove it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use talea_abi::Code;
use talea_model::{ObjectClass, Oid, View};

use crate::Fault;
use crate::backing::{Backing, Condition, Epoch, Fetch, Punch, Update, ValueKind};
use crate::inode::{self, END, Inode, Kind, META, MTIME, SizeRecord};
use crate::path::check_name;

/// Longest target of a symbolic link in bytes.
const MAX_LINK_BYTES: usize = crate::path::MAX_PATH_BYTES;
/// Names of one round of an enumeration.
const NAMES_A_ROUND: usize = 1024;

/// Tries of a change of several names while others are faster.
const MAX_TRIES: u32 = 100;

/// A name, and those of the directories above it.
type Split<'a> = (&'a Vec<u8>, &'a [Vec<u8>]);

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The inode; `None` for the root directory.
    pub inode: Option<Inode>,
    /// What it is.
    pub kind: Kind,
    /// Size of a file in bytes.
    pub bytes: u64,
    /// Last change of a file's data: nanoseconds since the Unix epoch, 0 if it was never written.
    pub modified_ns: u64,
}

/// One container's names in one view.
#[derive(Clone)]
pub struct Namespace {
    backing: Arc<dyn Backing>,
    view: View,
}

/// What a new file is made with.
#[derive(Clone, Copy, Debug)]
pub struct NewFile {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Class of its data.
    pub class: ObjectClass,
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
}

impl Namespace {
    /// Names of a container as `view` sees them.
    pub fn new(backing: Arc<dyn Backing>, view: View) -> Self {
        Self { backing, view }
    }

    /// A path as users write it, for texts.
    pub(crate) fn shown(&self, names: &[Vec<u8>]) -> String {
        let names: String = names.iter().map(|name| format!("/{}", name.escape_ascii())).collect();
        format!("'/talea/{}{names}'", self.backing.name())
    }

    pub(crate) fn not_found(&self, names: &[Vec<u8>]) -> Fault {
        let parent = self.shown(names.split_last().map_or(&[], |(_, parents)| parents));
        let text = format!(
            "{}: no such file or directory: `talea ls {}` shows what is there; a program that is to make a file opens it \
             with MPI_MODE_CREATE or O_CREAT, in a directory that exists",
            self.shown(names),
            parent.trim_matches('\'')
        );
        Fault::new(Code::NotFound, text)
    }

    pub(crate) fn is_directory(&self, names: &[Vec<u8>]) -> Fault {
        Fault::new(Code::Kind, format!("{} is a directory: name a file in it", self.shown(names)))
    }

    fn exists(&self, names: &[Vec<u8>]) -> Fault {
        Fault::new(Code::Exists, format!("{} exists already", self.shown(names)))
    }

    /// What a path is; `None` is the root directory. One round trip a name.
    pub fn lookup(&self, names: &[Vec<u8>]) -> Result<Option<Inode>, Fault> {
        let mut directory = inode::root();
        let mut found = None;
        for (depth, name) in names.iter().enumerate() {
            let inode = self.entry(directory, name)?.ok_or_else(|| self.not_found(&names[..=depth]))?;
            if inode.kind != Kind::Directory && depth + 1 < names.len() {
                return Err(Fault::new(Code::Kind, format!("{} is not a directory", self.shown(&names[..=depth]))));
            }
            directory = inode.oid;
            found = Some(inode);
        }
        Ok(found)
    }

    /// One name of a directory.
    pub fn entry(&self, directory: Oid, name: &[u8]) -> Result<Option<Inode>, Fault> {
        let mut out = [0; inode::INODE_BYTES];
        let found = {
            let mut fetch = [single(name, inode::INODE, &mut out)];
            self.backing.fetch(self.view, directory, &mut fetch)?;
            fetch[0].found.then_some(fetch[0].bytes)
        };
        found
            .map(|bytes| Inode::decode(&out[..bytes.min(out.len())]).map_err(|f| f.at(name.escape_ascii())))
            .transpose()
    }

    /// The object of a directory.
    pub fn directory(&self, names: &[Vec<u8>]) -> Result<Oid, Fault> {
        match self.lookup(names)? {
            None => Ok(inode::root()),
            Some(inode) if inode.kind == Kind::Directory => Ok(inode.oid),
            Some(_) => Err(Fault::new(Code::Kind, format!("{} is not a directory", self.shown(names)))),
        }
    }

    /// Makes a file that must not exist; `tied` to an epoch it vanishes if that aborts before its first commit.
    pub fn create(&self, directory: Oid, name: &[u8], new: &NewFile, tied: Option<&dyn Epoch>) -> Result<Inode, Fault> {
        inode::check_chunk(new.chunk_bytes)?;
        if !new.class.is_supported() {
            return Err(Fault::new(
                Code::Unsupported,
                format!("object class {} is not supported yet: use S1 to SX", new.class),
            ));
        }
        let inode = Inode {
            kind: Kind::File,
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            oid: Oid::new(new.class, random()?),
            chunk_bytes: new.chunk_bytes,
            created_ns: now_ns(),
        };
        self.insert(directory, name, &inode, None, tied)?;
        Ok(inode)
    }

    /// Makes a directory.
    pub fn mkdir(&self, names: &[Vec<u8>], mode: u32, uid: u32, gid: u32) -> Result<Inode, Fault> {
        let (name, parents) = names.split_last().ok_or_else(|| self.exists(names))?;
        let inode = plain(Kind::Directory, mode, uid, gid)?;
        self.insert(self.directory(parents)?, name, &inode, None, None).map_err(|fault| fault.at(self.shown(names)))?;
        Ok(inode)
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, names: &[Vec<u8>], target: &[u8], uid: u32, gid: u32) -> Result<Inode, Fault> {
        let (name, parents) = names.split_last().ok_or_else(|| self.exists(names))?;
        if target.is_empty() || target.len() > MAX_LINK_BYTES {
            return Err(Fault::new(Code::TooLong, format!("a link's target has 1 to {MAX_LINK_BYTES} bytes")));
        }
        let inode = plain(Kind::Symlink, 0o777, uid, gid)?;
        self.insert(self.directory(parents)?, name, &inode, Some(target), None).map_err(|f| f.at(self.shown(names)))?;
        Ok(inode)
    }

    /// Target of a symbolic link.
    pub fn readlink(&self, names: &[Vec<u8>]) -> Result<Vec<u8>, Fault> {
        let (name, parents) = names.split_last().ok_or_else(|| self.not_found(names))?;
        let mut out = vec![0; MAX_LINK_BYTES];
        let mut fetch = [single(name, inode::TARGET, &mut out)];
        self.backing.fetch(self.view, self.directory(parents)?, &mut fetch)?;
        let (found, bytes) = (fetch[0].found, fetch[0].bytes);
        if !found {
            return Err(Fault::new(Code::Kind, format!("{} is not a symbolic link", self.shown(names))));
        }
        out.truncate(bytes);
        Ok(out)
    }

    /// All names of a directory after one, in order: at most `limit`, and whether more follow.
    pub fn list(&self, directory: Oid, after: Option<&[u8]>, limit: usize) -> Result<(Vec<Vec<u8>>, bool), Fault> {
        let names = self.backing.dkeys(self.view, directory, after, limit.clamp(1, NAMES_A_ROUND))?;
        Ok((names.names, names.more))
    }

    /// What a path is, with size and time of a file.
    pub fn stat(&self, names: &[Vec<u8>]) -> Result<Stat, Fault> {
        let Some(inode) = self.lookup(names)? else {
            return Ok(Stat { inode: None, kind: Kind::Directory, bytes: 0, modified_ns: 0 });
        };
        let (mut bytes, mut modified_ns) = (0, inode.created_ns);
        if inode.kind == Kind::File {
            bytes = file_size(&*self.backing, self.view, inode.oid)?.bytes;
            modified_ns = mtime_of(&*self.backing, self.view, inode.oid)?;
        }
        Ok(Stat { inode: Some(inode), kind: inode.kind, bytes, modified_ns })
    }

    /// Removes a file or link and its data.
    pub fn unlink(&self, names: &[Vec<u8>]) -> Result<(), Fault> {
        let (name, parents) = names.split_last().ok_or_else(|| self.is_directory(names))?;
        let directory = self.directory(parents)?;
        let inode = self.entry(directory, name)?.ok_or_else(|| self.not_found(names))?;
        if inode.kind == Kind::Directory {
            return Err(self.is_directory(names));
        }
        self.remove(directory, name).map_err(|fault| fault.at(self.shown(names)))?;
        // Snapshots keep the data that they show; nobody finds it by name any more.
        self.backing.punch(inode.oid, Punch::Object, Condition::None)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, names: &[Vec<u8>]) -> Result<(), Fault> {
        let (name, parents) = names
            .split_last()
            .ok_or_else(|| Fault::new(Code::Argument, "a container's root goes with its container only"))?;
        self.in_transaction(|inside, tx| {
            let directory = inside.directory(parents)?;
            let inode = inside.present(directory, name, names)?;
            if inode.kind != Kind::Directory {
                return Err(Fault::new(Code::Kind, format!("{} is not a directory", inside.shown(names))));
            }
            inside.check_empty(inode.oid, names)?;
            tx.punch(directory, Punch::Dkey(name))
        })
        .map_err(|fault| fault.at(self.shown(names)))
    }

    /// Renames; what the new name was before is replaced, as POSIX has it. Both names change at one instant, and of several
    /// renames of one name one succeeds.
    pub fn rename(&self, from: &[Vec<u8>], to: &[Vec<u8>]) -> Result<(), Fault> {
        let (Some(old), Some(new)) = (from.split_last(), to.split_last()) else {
            return Err(Fault::new(Code::Argument, "a container's root cannot be renamed"));
        };
        check_name(new.0)?;
        self.in_transaction(|inside, tx| inside.move_name(tx, (from, old), (to, new)))
            .map_err(|fault| fault.at(self.shown(from)))
    }

    /// Does `work` in an independent transaction; begins anew while others are faster.
    fn in_transaction(&self, work: impl Fn(&Namespace, &dyn Epoch) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut tries = 0;
        loop {
            let tx = self.backing.tx_open()?;
            let inside = Namespace::new(self.backing.clone(), tx.view());
            let result = match work(&inside, &*tx).and_then(|()| tx.summary()) {
                Ok(summary) => tx.commit(&summary, None, false).map(drop).map_err(|refused| refused.fault),
                Err(fault) => {
                    let _ = tx.abort("a change of names failed");
                    Err(fault)
                }
            };
            tries += 1;
            match result {
                Err(fault) if fault.code == Code::Conflict && tries < MAX_TRIES => {}
                result => return result,
            }
        }
    }

    /// An entry that must be there.
    fn present(&self, directory: Oid, name: &[u8], names: &[Vec<u8>]) -> Result<Inode, Fault> {
        if let Some(inode) = self.entry(directory, name)? {
            return Ok(inode);
        }
        match Namespace::new(self.backing.clone(), View::Latest).entry(directory, name)? {
            None => Err(self.not_found(names)),
            Some(_) => Err(Fault::new(
                Code::NotFound,
                format!(
                    "{} was made in an epoch that has not committed yet: close or sync it first",
                    self.shown(names)
                ),
            )),
        }
    }

    fn move_name(
        &self,
        tx: &dyn Epoch,
        (from, old): (&[Vec<u8>], Split<'_>),
        (to, new): (&[Vec<u8>], Split<'_>),
    ) -> Result<(), Fault> {
        let (source, place) = (self.directory(old.1)?, self.directory(new.1)?);
        let inode = self.present(source, old.0, from)?;
        if from == to {
            return Ok(());
        }
        if inode.kind == Kind::Directory && to.starts_with(from) {
            return Err(Fault::new(Code::Argument, "a directory cannot be moved into itself"));
        }
        let replaced = self.entry(place, new.0)?;
        if let Some(replaced) = &replaced {
            match (inode.kind == Kind::Directory, replaced.kind == Kind::Directory) {
                (false, true) => return Err(self.is_directory(to)),
                (true, false) => return Err(Fault::new(Code::Kind, format!("{} is not a directory", self.shown(to)))),
                (true, true) => self.check_empty(replaced.oid, to)?,
                (false, false) => {}
            }
        }
        let target = if inode.kind == Kind::Symlink { Some(self.readlink(from)?) } else { None };
        if replaced.is_some() {
            // A link's target must not stay behind under another kind of inode.
            tx.punch(place, Punch::Dkey(new.0))?;
        }
        let encoded = inode.encode();
        let mut entries = vec![value(new.0, inode::INODE, &encoded, Condition::None)];
        entries.extend(target.as_deref().map(|target| value(new.0, inode::TARGET, target, Condition::None)));
        tx.update(place, &entries)?;
        tx.punch(source, Punch::Dkey(old.0))?;
        match replaced {
            // Snapshots keep the data that they show; nobody finds it by name any more.
            Some(gone) if gone.kind == Kind::File => tx.punch(gone.oid, Punch::Object),
            _ => Ok(()),
        }
    }

    fn check_empty(&self, directory: Oid, names: &[Vec<u8>]) -> Result<(), Fault> {
        // The latest names are those, too, that open epochs have made.
        let is_empty = |view| Ok::<_, Fault>(self.backing.dkeys(view, directory, None, 1)?.names.is_empty());
        if is_empty(self.view)? && is_empty(View::Latest)? {
            return Ok(());
        }
        Err(Fault::new(Code::NotEmpty, format!("{} is not empty: remove what is in it first", self.shown(names))))
    }

    fn remove(&self, directory: Oid, name: &[u8]) -> Result<(), Fault> {
        self.backing.punch(directory, Punch::Dkey(name), Condition::DkeyUpdate).map_err(|fault| match fault.code {
            Code::Conflict => Fault::new(Code::NotFound, "no such file or directory"),
            _ => fault,
        })
    }

    /// Makes a name that must not exist.
    pub(crate) fn insert(
        &self,
        directory: Oid,
        name: &[u8],
        inode: &Inode,
        target: Option<&[u8]>,
        tied: Option<&dyn Epoch>,
    ) -> Result<(), Fault> {
        check_name(name)?;
        let encoded = inode.encode();
        let mut entries = vec![value(name, inode::INODE, &encoded, Condition::Insert)];
        entries.extend(target.map(|target| value(name, inode::TARGET, target, Condition::None)));
        let done = match tied {
            Some(epoch) => epoch.update_tied(directory, &entries),
            None => self.backing.update(directory, &entries),
        };
        done.map_err(|fault| match fault.code {
            // The only condition is that the name is new.
            Code::Conflict | Code::Exists => {
                Fault::new(Code::Exists, format!("'{}' exists already", name.escape_ascii()))
            }
            _ => fault,
        })
    }
}

/// Size of a file's object; 0 if it was never written.
pub(crate) fn file_size(backing: &dyn Backing, view: View, oid: Oid) -> Result<SizeRecord, Fault> {
    Ok(SizeRecord { truncations: 0, bytes: backing.array_end(view, oid, META, END)? })
}

/// When a file's object was written last; 0 if it was never.
fn mtime_of(backing: &dyn Backing, view: View, oid: Oid) -> Result<u64, Fault> {
    let mut mtime = [0; 8];
    let mut fetch = [single(META, MTIME, &mut mtime)];
    backing.fetch(view, oid, &mut fetch)?;
    let found = fetch[0].found;
    Ok(if found { u64::from_be_bytes(mtime) } else { 0 })
}

/// The entry that writes a single value.
pub(crate) fn value<'a>(dkey: &'a [u8], akey: &'a [u8], data: &'a [u8], condition: Condition) -> Update<'a> {
    Update { dkey, akey, kind: ValueKind::Single, condition, extents: vec![], data }
}

fn single<'a>(dkey: &'a [u8], akey: &'a [u8], out: &'a mut [u8]) -> Fetch<'a> {
    Fetch { dkey, akey, extents: vec![], out, found: false, bytes: 0 }
}

fn plain(kind: Kind, mode: u32, uid: u32, gid: u32) -> Result<Inode, Fault> {
    let oid = Oid::new(ObjectClass::SX, random()?);
    Ok(Inode { kind, mode, uid, gid, oid, chunk_bytes: inode::MAX_CHUNK_BYTES, created_ns: now_ns() })
}

/// The user's bits of a new object id. Never one of the few fixed ones.
fn random() -> Result<u128, Fault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Fault::new(Code::Other, format!("the kernel gives no random numbers: {error}")))?;
    Ok(u128::from_le_bytes(bytes) | 1 << 95)
}

/// Wall time in nanoseconds since the Unix epoch; only ever shown to people.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

mod remove;
#[cfg(test)]
mod tests;
mod tree;
