//! Inodes and the records of a file's metadata: what is stored under which key, byte by byte.
//!
//! A directory is an object of class SX whose dkeys are names, so that a large directory spreads over all targets; akey
//! [`INODE`] of a name holds the [`Inode`], akey [`TARGET`] a symbolic link's target. A file's data is in an object of its
//! own: dkey = chunk number, akey [`DATA`], an array of bytes; its end is at ([`META`], [`END`]).

use talea_abi::Code;
use talea_model::{ObjectClass, Oid};

use crate::Fault;

/// akey of a name's inode.
pub const INODE: &[u8] = b"inode";
/// akey of a symbolic link's target.
pub const TARGET: &[u8] = b"target";
/// akey of a chunk's bytes.
pub const DATA: &[u8] = b"d";
/// dkey of a file's records.
pub const META: &[u8] = b"meta";
/// akey of a file's end: an array of bytes that ends where the file does, with its last record alone as a rule. So the ends that several
/// transactions write come together as their data do: the largest counts, and what is cut off is punched here, too.
pub const END: &[u8] = b"end";
/// akey of a file's time of last change: nanoseconds since the Unix epoch, eight bytes big-endian, the larger wins.
pub const MTIME: &[u8] = b"mtime";
/// Bytes of an encoded inode.
pub const INODE_BYTES: usize = 64;
/// Largest chunk in bytes: one value.
pub const MAX_CHUNK_BYTES: u64 = talea_model::limit::MAX_VALUE_BYTES as u64;

const VERSION: u8 = 2;

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
}

/// What a directory says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Object of its data or of its names; its class is in it.
    pub oid: Oid,
    /// Bytes of a chunk of a file's data.
    pub chunk_bytes: u64,
    /// When the name was made: nanoseconds since the Unix epoch.
    pub created_ns: u64,
}

impl Inode {
    /// The form that is stored, little-endian: version, kind, 2 zeros, mode, uid, gid, oid, chunk bytes, created, 16 zeros.
    pub fn encode(&self) -> [u8; INODE_BYTES] {
        let mut bytes = [0; INODE_BYTES];
        bytes[0] = VERSION;
        bytes[1] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.mode.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.uid.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.gid.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.oid.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.chunk_bytes.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.created_ns.to_le_bytes());
        bytes
    }

    /// Decodes what [`encode`](Self::encode) made.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let lost = |why: String| Fault::new(Code::DataLost, format!("an inode that cannot be read: {why}"));
        if bytes.len() < INODE_BYTES {
            return Err(lost(format!("{} bytes instead of {INODE_BYTES}", bytes.len())));
        }
        if bytes[0] != VERSION {
            return Err(Fault::new(
                Code::Version,
                format!(
                    "an inode of version {}: this Talea reads version {VERSION}, use the one that wrote it",
                    bytes[0]
                ),
            ));
        }
        let kind = [Kind::File, Kind::Directory, Kind::Symlink].into_iter().find(|kind| *kind as u8 == bytes[1]);
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let inode = Self {
            kind: kind.ok_or_else(|| lost(format!("kind {}", bytes[1])))?,
            mode: word(4),
            uid: word(8),
            gid: word(12),
            oid: Oid(u128::from_le_bytes(std::array::from_fn(|i| bytes[16 + i]))),
            chunk_bytes: long(32),
            created_ns: long(40),
        };
        check_chunk(inode.chunk_bytes).map_err(|fault| lost(fault.text))?;
        if inode.oid.class().is_none() {
            return Err(lost(format!("object {} has no class", inode.oid)));
        }
        Ok(inode)
    }
}

/// Checks a chunk size.
pub fn check_chunk(chunk_bytes: u64) -> Result<(), Fault> {
    if (4096..=MAX_CHUNK_BYTES).contains(&chunk_bytes) {
        return Ok(());
    }
    Err(Fault::new(Code::Argument, format!("a chunk has 4096 to {MAX_CHUNK_BYTES} bytes, not {chunk_bytes}")))
}

/// The object of a container's root directory.
pub fn root() -> Oid {
    Oid::new(ObjectClass::SX, 1)
}

/// Size of a file as the processes of an epoch add theirs up: compared first by how often it was truncated in it, then by the largest end
/// (docs/design.md §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct SizeRecord {
    /// Truncations so far.
    pub truncations: u64,
    /// Bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn inodes_round_trip(mode in any::<u32>(), uid in any::<u32>(), user in any::<u128>(), created_ns in any::<u64>()) {
            let oid = Oid::new(ObjectClass::SX, user);
            let inode = Inode { kind: Kind::File, mode, uid, gid: !uid, oid, chunk_bytes: 1 << 20, created_ns };
            prop_assert_eq!(Inode::decode(&inode.encode()).unwrap(), inode);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Inode::decode(&bytes);
        }
    }
}
