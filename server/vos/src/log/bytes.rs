//! Writing and reading of plain numbers and keys, little-endian, with every length checked.

use super::header::RECORD_PREFIX_BYTES;
use super::record::BadRecord;

/// Bytes being written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// Starts a record, keeping the memory: its header goes in front of what is written.
    pub(crate) fn begin_record(&mut self) {
        self.buffer.clear();
        self.buffer.resize(RECORD_PREFIX_BYTES, 0);
    }
    /// Bytes of the record that follow its header.
    pub(crate) fn meta_bytes(&self) -> usize {
        self.buffer.len() - RECORD_PREFIX_BYTES
    }
    /// All bytes, to put a header in.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
    /// What was written.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.buffer
    }
    /// One byte.
    pub(crate) fn u8(&mut self, number: u8) {
        self.buffer.push(number);
    }
    /// Four bytes.
    pub(crate) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }
    /// Eight bytes.
    pub(crate) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }
    /// Sixteen bytes.
    pub(crate) fn u128(&mut self, number: u128) {
        self.bytes(&number.to_le_bytes());
    }
    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }
    /// A key: its length in two bytes, then the key.
    pub(crate) fn key(&mut self, key: &[u8]) {
        self.bytes(&(key.len() as u16).to_le_bytes());
        self.bytes(key);
    }
}

/// Bytes being read.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `all`.
    pub(crate) fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }
    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], BadRecord> {
        let end = self.at.checked_add(len).ok_or(BadRecord)?;
        let found = self.all.get(self.at..end).ok_or(BadRecord)?;
        self.at = end;
        Ok(found)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        self.bytes(N)?.try_into().map_err(|_| BadRecord)
    }
    /// One byte.
    pub(crate) fn u8(&mut self) -> Result<u8, BadRecord> {
        Ok(self.array::<1>()?[0])
    }
    /// Four bytes.
    pub(crate) fn u32(&mut self) -> Result<u32, BadRecord> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    /// Eight bytes.
    pub(crate) fn u64(&mut self) -> Result<u64, BadRecord> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// Sixteen bytes.
    pub(crate) fn u128(&mut self) -> Result<u128, BadRecord> {
        Ok(u128::from_le_bytes(self.array()?))
    }
    /// A key.
    pub(crate) fn key(&mut self) -> Result<&'a [u8], BadRecord> {
        let len = u16::from_le_bytes(self.array()?);
        self.bytes(len.into())
    }
    /// A count of things of at least `each` bytes: never more than the rest can hold.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, BadRecord> {
        let count = self.u32()? as usize;
        if count > (self.all.len() - self.at) / each { Err(BadRecord) } else { Ok(count) }
    }
}
