//! Which files a collective epoch wrote: a record that is part of the epoch's own transaction (docs/design.md §4 rule 5), so that it is
//! there exactly if the epoch committed, whoever died when.
//!
//! It lies in a reserved object of the container, which has one key a target. The writer takes the key of a target that holds the epoch's
//! updates anyway, so that a commit fails for no target that its files do not lie on; the commit's entry says which key that was. Each
//! epoch writes over an earlier one's record, and a snapshot of a step shows its own.

use thiserror::Error;

use crate::limit::MAX_VALUE_BYTES;
use crate::{Layout, ObjectClass, Oid, TargetId, TxId};

/// akey of the record.
pub const AKEY: &[u8] = b"files";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 16;
const FILE_BYTES: usize = 16 + 2;

/// The reserved object.
pub const fn object() -> Oid {
    Oid::new(ObjectClass::SX, u128::from_be_bytes(*b"\0\0\0\0tal.manifest"))
}

/// Number of the key whose record a target holds, by the layout of the [reserved object](object); `None`: the target is none of it.
pub fn slot(layout: &Layout, target: TargetId) -> Option<u32> {
    (0..layout.groups() as u32).find(|slot| layout.leader_of(&dkey(*slot)) == target)
}

/// dkey of a slot.
pub fn dkey(slot: u32) -> [u8; 8] {
    u64::from(slot).to_be_bytes()
}

/// The files that an epoch wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The epoch's transaction.
    pub tx: TxId,
    /// In the order of their names.
    pub files: Vec<WrittenFile>,
    /// False if there were more than fit into a value.
    pub is_whole: bool,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WrittenFile {
    /// Names from the container's root on, with `/` between them, as the writer opened it.
    pub path: Vec<u8>,
    /// The object that holds its data.
    pub oid: Oid,
}

/// Bytes that are no manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadManifest {
    /// Of another version.
    #[error("a manifest of version {0}, and this release reads {VERSION}: use the release that wrote it")]
    Version(u8),
    /// Cut off or damaged.
    #[error("a manifest of {0} bytes that cannot be read")]
    Damaged(usize),
}

impl Manifest {
    /// The manifest of an epoch that wrote these files.
    pub fn new(tx: TxId, mut files: Vec<WrittenFile>) -> Self {
        files.sort();
        files.dedup();
        Self { tx, files, is_whole: true }
    }

    /// The form that is stored, little-endian: version, 1 if it is not whole, 2 zeros, number of files, transaction; for each file its
    /// object, the length of its path, the path. What does not fit into a value is left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, u8::from(!self.is_whole), 0, 0, 0, 0, 0, 0];
        bytes.extend(self.tx.0.to_le_bytes());
        let mut number = 0_u32;
        for file in &self.files {
            let Ok(length) = u16::try_from(file.path.len()) else {
                bytes[1] = 1;
                continue;
            };
            if bytes.len() + FILE_BYTES + file.path.len() > MAX_VALUE_BYTES {
                bytes[1] = 1;
                break;
            }
            bytes.extend(file.oid.0.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(&file.path);
            number += 1;
        }
        bytes[4..8].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    /// Decodes what [`encode`](Self::encode) made.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadManifest> {
        let damaged = BadManifest::Damaged(bytes.len());
        let (head, mut rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(damaged)?;
        if head[0] != VERSION {
            return Err(BadManifest::Version(head[0]));
        }
        let number = u32::from_le_bytes(std::array::from_fn(|at| head[4 + at]));
        let tx = TxId(u64::from_le_bytes(std::array::from_fn(|at| head[8 + at])));
        let mut files = Vec::new();
        for _ in 0..number {
            let (fixed, after) = rest.split_at_checked(FILE_BYTES).ok_or(damaged)?;
            let oid = Oid(u128::from_le_bytes(std::array::from_fn(|at| fixed[at])));
            let length = u16::from_le_bytes([fixed[16], fixed[17]]);
            let (path, after) = after.split_at_checked(length.into()).ok_or(damaged)?;
            files.push(WrittenFile { path: path.to_vec(), oid });
            rest = after;
        }
        if !rest.is_empty() {
            return Err(damaged);
        }
        Ok(Self { tx, files, is_whole: head[1] == 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::map;
    use proptest::prelude::*;

    fn file(path: Vec<u8>, oid: u128) -> WrittenFile {
        WrittenFile { path, oid: Oid(oid) }
    }

    proptest! {
        #[test]
        fn round_trips(tx in any::<u64>(), files in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<u128>()), 0..20)) {
            let files = files.into_iter().map(|(path, oid)| file(path, oid)).collect();
            let manifest = Manifest::new(TxId(tx), files);
            prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
        }

        #[test]
        fn any_bytes_are_safe(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let files = (0..1000_u128).map(|number| file(vec![b'x'; 4000], number)).collect();
        let manifest = Manifest::new(TxId(7), files);
        let bytes = manifest.encode();
        assert!(bytes.len() <= MAX_VALUE_BYTES);
        let read = Manifest::decode(&bytes).unwrap();
        assert!(!read.is_whole && read.files.len() > 200 && manifest.files.starts_with(&read.files));
        // Objects whose ids are drawn have the highest bit; programs' own are numbers that mean something to them.
        assert_eq!(object().user() >> 95, 0);
    }

    #[test]
    fn each_target_has_a_key_of_its_own() {
        for targets in [1, 2, 3, 7, 64, 1000] {
            let layout = Layout::of(object(), &map(targets)).unwrap();
            for target in (0..targets).map(TargetId) {
                let slot = slot(&layout, target).unwrap();
                assert!(slot < targets && layout.leader_of(&dkey(slot)) == target, "{target:?} of {targets}");
            }
            assert_eq!(slot(&layout, TargetId(targets)), None);
        }
    }
}
