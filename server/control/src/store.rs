//! Where the log lies: in memory, or in one file that survives power loss.
//!
//! Owns the log's durability: what [`Log::append`] returned from is on the medium. Must never interpret a record beyond
//! decoding it, and must never repair silently: a file that is not what was written is an error that says what to do.

use std::fs;
use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use talea_model::Position;
use talea_wire::codec;
use talea_wire::log::Record;
use thiserror::Error;

#[cfg(test)]
mod tests;

/// Name of the log's file in a server's directory.
pub const LOG_FILE: &str = "pool.log";
/// Version of the file's contents.
const FORMAT: u64 = 1;

/// Key: position. Value: the record as postcard, and its checksum.
const RECORDS: TableDefinition<'_, u64, (&[u8], u64)> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Why the log cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file is not a log, is damaged, or was written by another version.
    #[error(
        "the pool's log {path} is damaged: {what}. Nothing was changed. Restore the file from a copy, or move its directory \
         away to begin an empty pool (what was stored in this one is then lost)"
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
    last: Position,
}

impl FileLog {
    /// Opens the log in `directory`, or begins one there, and reads all of it.
    pub fn open(directory: &Path) -> Result<(Self, Vec<Record>), StoreError> {
        let path = directory.join(LOG_FILE);
        let io = |what, source| StoreError::Io { path: path.clone(), what, source };
        fs::create_dir_all(directory).map_err(|error| io("making its directory", error))?;
        let is_new = !path.exists();
        let database = Database::create(&path).map_err(|error| open_error(&path, error))?;
        let mut log = FileLog { path: path.clone(), database, last: Position(0) };
        if is_new {
            log.begin()?;
            // The file's name must survive too.
            let parent = fs::File::open(directory).map_err(|error| io("opening its directory", error))?;
            parent.sync_all().map_err(|error| io("flushing its directory", error))?;
        }
        let records = log.read()?;
        log.last = records.last().map_or(Position(0), |record| record.position);
        Ok((log, records))
    }

    /// Appends encoded records and flushes them: they are durable when this returns.
    pub fn append(&mut self, records: &[(Position, Vec<u8>)]) -> Result<(), StoreError> {
        let mut write = self.database.begin_write().map_err(|error| self.damaged(error))?;
        write.set_durability(Durability::Immediate).map_err(|error| self.damaged(error))?;
        {
            let mut table = write.open_table(RECORDS).map_err(|error| self.damaged(error))?;
            for (position, bytes) in records {
                let value = (bytes.as_slice(), checksum(*position, bytes));
                table.insert(position.0, value).map_err(|error| self.damaged(error))?;
            }
        }
        write.commit().map_err(|error| self.damaged(error))?;
        self.last = records.last().map_or(self.last, |(position, _)| *position);
        Ok(())
    }

    /// Last position that is on the medium.
    pub fn last(&self) -> Position {
        self.last
    }

    fn begin(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(|error| self.damaged(error))?;
        write.open_table(RECORDS).map_err(|error| self.damaged(error))?;
        let mut meta = write.open_table(META).map_err(|error| self.damaged(error))?;
        meta.insert("format", FORMAT).map_err(|error| self.damaged(error))?;
        drop(meta);
        write.commit().map_err(|error| self.damaged(error))
    }

    fn read(&self) -> Result<Vec<Record>, StoreError> {
        let read = self.database.begin_read().map_err(|error| self.damaged(error))?;
        let meta = read.open_table(META).map_err(|error| self.damaged(error))?;
        let format = meta.get("format").map_err(|error| self.damaged(error))?.map(|value| value.value());
        if format != Some(FORMAT) {
            return Err(self.damaged(format!("its format is {format:?}, this release reads {FORMAT}")));
        }
        let table = read.open_table(RECORDS).map_err(|error| self.damaged(error))?;
        let mut records = Vec::new();
        for item in table.iter().map_err(|error| self.damaged(error))? {
            let (key, value) = item.map_err(|error| self.damaged(error))?;
            let (position, (bytes, sum)) = (Position(key.value()), value.value());
            if position.0 != records.len() as u64 + 1 {
                return Err(self.damaged(format!("record {} is missing", records.len() + 1)));
            }
            if checksum(position, bytes) != sum {
                return Err(self.damaged(format!("record {position} does not match its checksum")));
            }
            match codec::decode::<Record>(bytes) {
                Ok(record) if record.position == position => records.push(record),
                Ok(_) => return Err(self.damaged(format!("record {position} claims another position"))),
                Err(error) => return Err(self.damaged(format!("record {position}: {error}"))),
            }
        }
        Ok(records)
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

/// The position is part of it: a record in another's place is no record.
fn checksum(position: Position, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, position.0)
}
