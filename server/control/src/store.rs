//! Where a replica of the log lies: in memory, or in one file that survives power loss.
//!
//! Owns the log's durability: what [`FileLog::apply`] returned from is on the medium. Must never interpret an entry, and must
//! never repair silently: a file that is not what was written is an error that says what to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use talea_model::{ServerId, SessionId, TxId};
use thiserror::Error;

use crate::node::{Joined, Note, StoreOp, Stored};

#[cfg(test)]
mod tests;

/// Name of a server's log in a directory, which servers of one node may share.
pub fn log_file(server: ServerId) -> String {
    format!("pool-{}.log", server.0)
}

/// What the one log of earlier releases was called.
const EARLIER_FILE: &str = "pool.log";
/// Version of the file's contents.
const FORMAT: u64 = 6;

/// Key: index in Raft's log. Value: the entry as postcard, and its checksum.
const ENTRIES: TableDefinition<'_, u64, (&[u8], u64)> = TableDefinition::new("entries");
/// The vote, the snapshot, and what was purged, each with its checksum.
const KEPT: TableDefinition<'_, &str, (&[u8], u64)> = TableDefinition::new("kept");
/// What processes of this server's clients write in: session and transaction.
const JOINED: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("joined");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VOTE: &str = "vote";
const SNAPSHOT: &str = "snapshot";
const PURGED: &str = "purged";

/// Why the log cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file is not a log, is damaged, or was written by another version.
    #[error(
        "the pool's log {path} is damaged: {what}. Nothing was changed. Restore the file from a copy, or move it away: other \
         replicas of the log, if there are any, then bring this server up again (without any, what was stored is lost)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process has it open.
    #[error("the pool's log {0} is in use: another server runs on this directory; stop it first")]
    InUse(PathBuf),
    /// The file system said no.
    #[error("the pool's log {path}: {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
}

/// The log's storage.
pub enum Log {
    /// None: the log lives as long as its server, as do targets in RAM.
    Memory,
    /// One file.
    File(FileLog),
}

/// A log in a `redb` file.
pub struct FileLog {
    path: PathBuf,
    database: Database,
    life: u64,
    joined: Option<Joined>,
}

impl FileLog {
    /// Opens the log in `directory`, or begins one there under the name `life`, and reads all of it.
    pub fn open(directory: &Path, server: ServerId, life: u64) -> Result<(Self, Stored), StoreError> {
        let path = directory.join(log_file(server));
        let io = |what, source| StoreError::Io { path: path.clone(), what, source };
        fs::create_dir_all(directory).map_err(|error| io("making its directory", error))?;
        let is_new = !path.exists();
        let earlier = directory.join(EARLIER_FILE);
        if is_new && earlier.exists() {
            let what = "it was written by an earlier release, which this one does not read".to_owned();
            return Err(StoreError::Damaged { path: earlier, what });
        }
        let database = Database::create(&path).map_err(|error| open_error(&path, error))?;
        let mut log = FileLog { path: path.clone(), database, life, joined: None };
        if is_new {
            log.begin()?;
            // The file's name must survive too.
            let parent = fs::File::open(directory).map_err(|error| io("opening its directory", error))?;
            parent.sync_all().map_err(|error| io("flushing its directory", error))?;
        }
        let (life, stored) = log.read()?;
        log.life = life;
        // A file that begins now may follow one that was lost, and with it its notes.
        log.joined = if is_new { None } else { Some(log.read_joined()?) };
        Ok((log, stored))
    }

    /// What this server noted of its clients before; `None` if the file is new.
    pub fn joined(&self) -> Option<&Joined> {
        self.joined.as_ref()
    }

    /// What was drawn when this log began.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Makes changes of the log and notes and flushes them, all or none: they are durable when this returns.
    pub fn apply(&mut self, ops: &[StoreOp], notes: &[Note]) -> Result<(), StoreError> {
        let mut write = self.database.begin_write().map_err(|error| self.damaged(error))?;
        write.set_durability(Durability::Immediate).map_err(|error| self.damaged(error))?;
        {
            let mut entries = write.open_table(ENTRIES).map_err(|error| self.damaged(error))?;
            let mut kept = write.open_table(KEPT).map_err(|error| self.damaged(error))?;
            let mut keep = |name: &str, bytes: &[u8]| {
                let value = (bytes, checksum(name.len() as u64, bytes));
                kept.insert(name, value).map(drop).map_err(|error| self.damaged(error))
            };
            for op in ops {
                match op {
                    StoreOp::Vote(bytes) => keep(VOTE, bytes)?,
                    StoreOp::Snapshot(bytes) => keep(SNAPSHOT, bytes)?,
                    StoreOp::Append { index, bytes } => {
                        let value = (bytes.as_slice(), checksum(*index, bytes));
                        entries.insert(index, value).map_err(|error| self.damaged(error))?;
                    }
                    StoreOp::Truncate { from } => {
                        entries.retain_in(*from.., |_, _| false).map_err(|error| self.damaged(error))?;
                    }
                    StoreOp::Purge { through, id } => {
                        entries.retain_in(..=*through, |_, _| false).map_err(|error| self.damaged(error))?;
                        keep(PURGED, id)?;
                    }
                }
            }
        }
        self.write_notes(&write, notes)?;
        write.commit().map_err(|error| self.damaged(error))
    }

    fn write_notes(&self, write: &redb::WriteTransaction, notes: &[Note]) -> Result<(), StoreError> {
        if notes.is_empty() {
            return Ok(());
        }
        let mut joined = write.open_table(JOINED).map_err(|error| self.damaged(error))?;
        for note in notes {
            let done = match *note {
                Note::Join { session, tx } => joined.insert((session.0, tx.0), ()).map(drop),
                Note::Leave { session, tx } => joined.remove((session.0, tx.0)).map(drop),
                Note::End { session } => joined.retain_in((session.0, 0)..=(session.0, u64::MAX), |_, ()| false),
            };
            done.map_err(|error| self.damaged(error))?;
        }
        Ok(())
    }

    fn read_joined(&self) -> Result<Joined, StoreError> {
        let read = self.database.begin_read().map_err(|error| self.damaged(error))?;
        let table = read.open_table(JOINED).map_err(|error| self.damaged(error))?;
        let mut joined = Joined::new();
        for item in table.iter().map_err(|error| self.damaged(error))? {
            let (session, tx) = item.map_err(|error| self.damaged(error))?.0.value();
            let of_session: &mut BTreeSet<TxId> = joined.entry(SessionId(session)).or_default();
            of_session.insert(TxId(tx));
        }
        Ok(joined)
    }

    fn begin(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(|error| self.damaged(error))?;
        write.open_table(ENTRIES).map_err(|error| self.damaged(error))?;
        write.open_table(KEPT).map_err(|error| self.damaged(error))?;
        write.open_table(JOINED).map_err(|error| self.damaged(error))?;
        let mut meta = write.open_table(META).map_err(|error| self.damaged(error))?;
        meta.insert("format", FORMAT).map_err(|error| self.damaged(error))?;
        meta.insert("life", self.life).map_err(|error| self.damaged(error))?;
        drop(meta);
        write.commit().map_err(|error| self.damaged(error))
    }

    fn read(&self) -> Result<(u64, Stored), StoreError> {
        let read = self.database.begin_read().map_err(|error| self.damaged(error))?;
        let meta = read.open_table(META).map_err(|error| self.damaged(error))?;
        let number = |name: &str| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(name).map_err(|error| self.damaged(error))?.map(|value| value.value()))
        };
        let format = number("format")?;
        if format != Some(FORMAT) {
            return Err(self.damaged(format!("its format is {format:?}, this release reads {FORMAT}")));
        }
        let life = number("life")?.ok_or_else(|| self.damaged("it has no name"))?;
        let kept = read.open_table(KEPT).map_err(|error| self.damaged(error))?;
        let keep = |name: &'static str| -> Result<Option<Vec<u8>>, StoreError> {
            let Some(value) = kept.get(name).map_err(|error| self.damaged(error))? else { return Ok(None) };
            let (bytes, sum) = value.value();
            match checksum(name.len() as u64, bytes) == sum {
                true => Ok(Some(bytes.to_vec())),
                false => Err(self.damaged(format!("its {name} does not match its checksum"))),
            }
        };
        let (vote, snapshot, purged) = (keep(VOTE)?, keep(SNAPSHOT)?, keep(PURGED)?);
        Ok((life, Stored { vote, purged, entries: self.read_entries(&read)?, snapshot }))
    }

    fn read_entries(&self, read: &redb::ReadTransaction) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let table = read.open_table(ENTRIES).map_err(|error| self.damaged(error))?;
        let mut entries: Vec<(u64, Vec<u8>)> = Vec::new();
        for item in table.iter().map_err(|error| self.damaged(error))? {
            let (key, value) = item.map_err(|error| self.damaged(error))?;
            let (index, (bytes, sum)) = (key.value(), value.value());
            if let Some((last, _)) = entries.last().filter(|(last, _)| last + 1 != index) {
                return Err(self.damaged(format!("entry {} is missing", last + 1)));
            }
            if checksum(index, bytes) != sum {
                return Err(self.damaged(format!("entry {index} does not match its checksum")));
            }
            entries.push((index, bytes.to_vec()));
        }
        Ok(entries)
    }

    fn damaged(&self, what: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.to_string() }
    }
}

fn open_error(path: &Path, error: redb::DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path),
        redb::DatabaseError::Storage(redb::StorageError::Io(source))
            if !matches!(source.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Io { path, what: "opening it", source }
        }
        other => StoreError::Damaged { path, what: other.to_string() },
    }
}

/// The index is part of it: an entry in another's place is no entry.
fn checksum(index: u64, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, index)
}
