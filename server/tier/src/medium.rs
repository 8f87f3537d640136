//! The seam between the store and the bytes. Must never grow knowledge of records or versions.

use crate::TierError;

/// What a medium is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumKind {
    /// Memory; nothing survives the process.
    Ram,
    /// Byte-granular persistent memory.
    Pmem,
    /// Blocks behind a queue.
    Nvme,
    /// A simulation.
    Sim,
}

/// Where another process of this node finds a medium's bytes: offset n of the medium is byte n of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// A path that opens the file.
    pub path: String,
    /// Device number of the file: whoever opened another file must not read it.
    pub device: u64,
    /// Inode number of the file.
    pub inode: u64,
}

/// One target's share of one tier: a flat space of bytes `0..capacity_bytes()`.
///
/// An address is an offset into it, never a pointer: a second process can map the same bytes. Bytes stay where they were
/// written until the same offset is written again. A fresh medium reads as zeros.
pub trait Medium: Send {
    /// What it is made of.
    fn kind(&self) -> MediumKind;

    /// Size of the space in bytes; never changes while open.
    fn capacity_bytes(&self) -> u64;

    /// Bytes that were there when it was opened: fewer than its capacity if opening made a file, or made one longer.
    fn found_bytes(&self) -> u64 {
        self.capacity_bytes()
    }

    /// Puts back what opening did to a file, for a store that refuses what it found there. Nothing else is asked of the medium after it.
    fn undo_open(&mut self) {}

    /// Whether persisted bytes outlive the process and the machine's power.
    fn is_persistent(&self) -> bool;

    /// Writes bytes. Readable at once, durable after the next [`persist`](Self::persist); until then a power loss keeps any
    /// part of them. A device may find out later that it cannot: then the next `persist` fails, and each one after it, whoever else
    /// was told meanwhile.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError>;

    /// As [`write`](Self::write), for a caller that owns whole blocks of 4096 bytes: `offset` begins one, and what lies behind the
    /// data in its last block may become zeros. Spares block devices the reading of what will never be needed.
    fn write_padded(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        self.write(offset, data)
    }

    /// Reads bytes, also those not yet persisted.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError>;

    /// Whether a read waits for a device, so that several that are known together had better be under way together.
    fn reads_wait(&self) -> bool {
        false
    }

    /// Begins to read bytes that are [`read`](Self::read) soon; only a wish. False: no more of that now.
    fn read_ahead(&self, _offset: u64, _len: u64) -> bool {
        false
    }

    /// Nothing of what was begun so is read any more.
    fn forget_ahead(&self) {}

    /// The bytes in place, on media that are mapped; `None` where they must be [`read`](Self::read).
    fn bytes(&self, _offset: u64, _len: u64) -> Option<&[u8]> {
        None
    }

    /// How another process of the same user can map these bytes; `None` on media that are not memory.
    fn share(&self) -> Option<Share> {
        None
    }

    /// Where others find the number that [`post`](Self::post) shows; `None` on media whose bytes another process may take over: it would
    /// show its own.
    fn board(&self) -> Option<Share> {
        None
    }

    /// Shows a number on the medium's board, to whoever looks from now on.
    fn post(&mut self, _number: u64) {}

    /// Makes sure that writing to a range will find room, where a file system below may be full. Changes no bytes.
    fn reserve(&mut self, _offset: u64, _len: u64) -> Result<(), TierError> {
        Ok(())
    }

    /// For so many bytes from its beginning on a medium has room for sure.
    fn promised_bytes(&self) -> u64 {
        self.capacity_bytes()
    }

    /// Flush and fence: everything written before is durable when it returns.
    fn persist(&mut self) -> Result<(), TierError>;

    /// Whether each [`persist`](Self::persist) costs a device's flush (tens of microseconds and more): then who can, saves one.
    fn is_persist_costly(&self) -> bool {
        false
    }
}

/// Checks that a range lies inside a medium.
pub(crate) fn check_range(offset: u64, len: usize, capacity_bytes: u64) -> Result<(), TierError> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= capacity_bytes => Ok(()),
        _ => Err(TierError::OutOfRange { offset, len: len as u64, capacity_bytes }),
    }
}
