//! Versions: what was written at once under one order, held by the pieces that show parts of it.

use talea_model::{Stamp, TxId};

use crate::checksum::Granules;

/// Index of a version in [`Versions`].
pub(crate) type VersionId = u32;

/// How a version is ordered and when it is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Its place among versions: its own stamp, or its transaction's C once settled.
    pub stamp: Stamp,
    /// Views from this stamp on see it (later than `stamp` for what was tied to a transaction).
    pub from: Stamp,
    /// Order among equal stamps, and inside a transaction.
    pub minor: u64,
    /// The transaction whose fate it shares; 0 once that is settled, or if there never was one.
    pub tx: TxId,
    /// An autocommit tied to `tx`, not a pending version.
    pub tied: bool,
}

/// Where the bytes of a version lie on the medium.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// First byte.
    pub offset: u64,
    /// Bytes; 0 for holes, punches and empty values.
    pub len: u32,
    /// In a log record, not in blocks of its own.
    pub inline: bool,
    /// Shows as nothing: a punch.
    pub hole: bool,
    /// Checksums of the bytes.
    pub granules: Granules,
}

impl Place {
    /// A punch.
    pub(crate) fn hole() -> Self {
        Self { hole: true, ..Self::default() }
    }
}

/// One version.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// Its order.
    pub tag: Tag,
    /// Its bytes.
    pub place: Place,
    refs: u32,
}

/// All versions of a store, counted by the pieces that show them.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    slots: Vec<Version>,
    vacant: Vec<VersionId>,
    /// Places of versions that no piece shows any more.
    freed: Vec<Place>,
}

impl Versions {
    /// A version that no piece shows yet: hold it with [`hold`](Self::hold) while pieces are made.
    pub(crate) fn add(&mut self, tag: Tag, place: Place) -> VersionId {
        let version = Version { tag, place, refs: 0 };
        match self.vacant.pop() {
            Some(id) => {
                self.slots[id as usize] = version;
                id
            }
            None => {
                self.slots.push(version);
                (self.slots.len() - 1) as VersionId
            }
        }
    }

    /// The version.
    pub(crate) fn get(&self, id: VersionId) -> &Version {
        &self.slots[id as usize]
    }

    /// Its order, to be settled.
    pub(crate) fn tag_mut(&mut self, id: VersionId) -> &mut Tag {
        &mut self.slots[id as usize].tag
    }

    /// Its place, to be moved.
    pub(crate) fn place_mut(&mut self, id: VersionId) -> &mut Place {
        &mut self.slots[id as usize].place
    }

    /// One more piece shows it.
    pub(crate) fn hold(&mut self, id: VersionId) {
        self.slots[id as usize].refs += 1;
    }

    /// One piece less shows it.
    pub(crate) fn drop_ref(&mut self, id: VersionId) {
        let version = &mut self.slots[id as usize];
        version.refs -= 1;
        if version.refs == 0 {
            let place = std::mem::take(&mut version.place);
            if place.len > 0 {
                self.freed.push(place);
            }
            self.vacant.push(id);
        }
    }

    /// Places freed since the last call.
    pub(crate) fn take_freed(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.freed)
    }

    /// Whether places wait to be taken.
    pub(crate) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// Number of versions.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Places of all versions that are shown.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.slots.iter().filter(|version| version.refs > 0).map(|version| &version.place)
    }
}
