//! Rollback: a new step that holds what an earlier snapshot held (docs/design.md §4 rule 17). Nothing is cut off: the steps
//! between stay readable as retention has it.
//!
//! One process writes back what differs, inside one epoch; what others commit meanwhile stays.

use talea_model::{Extent, Oid, View};
use talea_wire::control::Committed;
use talea_wire::data::{Condition, Difference, Differs, ValueKind};
use talea_wire::log::SnapshotAt;

use crate::container::Container;
use crate::epoch::Epoch;
use crate::error::Result;
use crate::object::{EntryFetch, EntryUpdate, Object, Punch, Write};

/// Differences that are written back together, and about how many bytes.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 8 << 20;
/// Room for a single value at first; larger ones are fetched again.
const SINGLE_BYTES: usize = 4096;

/// A value, or a run of records, on its way back.
struct Piece {
    difference: Difference,
    extent: Vec<Extent>,
    data: Vec<u8>,
}

impl Container {
    /// Makes a step whose contents are those of an earlier step or of a named snapshot. Without any difference there is no new
    /// step. On an error nothing is changed.
    pub fn rollback(&self, to: SnapshotAt, attributes: &[u8]) -> Result<Committed> {
        self.client.block_on(self.rollback_async(to, attributes))?
    }

    /// The same, and tells how many bytes of arrays it has written back since it last told.
    pub fn rollback_telling(
        &self,
        to: SnapshotAt,
        attributes: &[u8],
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Committed> {
        self.client.block_on(self.roll_back(to, attributes, progress))?
    }

    /// Asynchronous [`rollback`](Self::rollback).
    pub async fn rollback_async(&self, to: SnapshotAt, attributes: &[u8]) -> Result<Committed> {
        self.roll_back(to, attributes, &mut |_| ()).await
    }

    async fn roll_back(
        &self,
        to: SnapshotAt,
        attributes: &[u8],
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Committed> {
        let snapshot = self.snapshot_async(to).await?;
        let epoch = self.begin_async(true).await?;
        match self.write_back(&epoch, &snapshot.view(), progress).await {
            Ok(()) => epoch.commit_async(&epoch.try_summary()?, attributes, false).await.committed,
            Err(error) => {
                // What failed is the error to tell; what the abort says could only follow from it.
                let _ = epoch.abort_async("a rollback failed").await;
                Err(error)
            }
        }
    }

    async fn write_back(&self, epoch: &Epoch, to: &View, progress: &mut (dyn FnMut(u64) + Send)) -> Result<()> {
        let mut differences = self.differences(&epoch.base(), to, None)?;
        let (mut batch, mut bytes, mut of) = (vec![], 0, Oid(0));
        while let Some(difference) = differences.next_async().await? {
            let oid = difference.place.oid;
            if oid != of || batch.len() >= BATCH || bytes >= BATCH_BYTES {
                progress(self.object(of).put_back(epoch, to, std::mem::take(&mut batch)).await?);
                (bytes, of) = (0, oid);
            }
            for piece in pieces(difference) {
                if bytes + piece.data.len() > BATCH_BYTES && !batch.is_empty() {
                    progress(self.object(of).put_back(epoch, to, std::mem::take(&mut batch)).await?);
                    bytes = 0;
                }
                bytes += piece.data.len();
                batch.push(piece);
            }
        }
        progress(self.object(of).put_back(epoch, to, batch).await?);
        Ok(())
    }
}

/// Parts of a difference that fit into a batch.
fn pieces(difference: Difference) -> Vec<Piece> {
    let record_bytes = difference.record_bytes as usize;
    if record_bytes == 0 {
        return vec![Piece { difference, extent: vec![], data: vec![0; SINGLE_BYTES] }];
    }
    if difference.how == Differs::Removed {
        let extent = vec![difference.extent];
        return vec![Piece { difference, extent, data: vec![] }];
    }
    let most = (BATCH_BYTES / 2 / record_bytes).max(1) as u64;
    let Extent { index, count } = difference.extent;
    let starts = (0..count.div_ceil(most)).map(|part| part * most);
    let piece = |skip: u64| {
        let extent = Extent { index: index + skip, count: most.min(count - skip) };
        let data = vec![0; extent.count as usize * record_bytes];
        Piece { difference: difference.clone(), extent: vec![extent], data }
    };
    starts.map(piece).collect()
}

impl Object {
    /// Writes an object's pieces back as the snapshot has them; how many bytes of arrays that were.
    async fn put_back(&self, epoch: &Epoch, from: &View, mut batch: Vec<Piece>) -> Result<u64> {
        for piece in batch.extract_if(.., |piece| piece.difference.how == Differs::Removed) {
            let (place, extent) = (&piece.difference.place, piece.extent.first().copied());
            let punch = Punch { dkey: &place.dkey, akey: &place.akey, extent, condition: Condition::None };
            self.punch_async(&Write::Inside(epoch), &punch).await?;
        }
        if batch.is_empty() {
            return Ok(0);
        }
        self.fetch_batch(from, &mut batch).await?;
        let entries: Vec<EntryUpdate<'_>> = batch
            .iter()
            .map(|piece| EntryUpdate {
                dkey: &piece.difference.place.dkey,
                akey: &piece.difference.place.akey,
                kind: kind_of(&piece.difference),
                condition: Condition::None,
                extents: &piece.extent,
                data: &piece.data,
            })
            .collect();
        self.update_async(&Write::Inside(epoch), &entries).await?;
        let arrays = batch.iter().filter(|piece| piece.difference.record_bytes > 0);
        Ok(arrays.map(|piece| piece.data.len() as u64).sum())
    }

    async fn fetch_batch(&self, from: &View, batch: &mut [Piece]) -> Result<()> {
        loop {
            let mut entries: Vec<EntryFetch<'_>> = batch.iter_mut().map(fetch_of).collect();
            self.fetch_async(from, &mut entries).await?;
            let sizes: Vec<usize> = entries.iter().map(|entry| entry.bytes).collect();
            let mut grown = false;
            for (piece, bytes) in batch.iter_mut().zip(sizes) {
                if piece.difference.record_bytes == 0 {
                    grown |= bytes > piece.data.len();
                    piece.data.resize(bytes, 0);
                }
            }
            if !grown {
                return Ok(());
            }
        }
    }
}

fn kind_of(difference: &Difference) -> ValueKind {
    match difference.record_bytes {
        0 => ValueKind::Single,
        record_bytes => ValueKind::Array { record_bytes },
    }
}

fn fetch_of(piece: &mut Piece) -> EntryFetch<'_> {
    let kind = kind_of(&piece.difference);
    let place = &piece.difference.place;
    EntryFetch {
        dkey: &place.dkey,
        akey: &place.akey,
        kind,
        extents: &piece.extent,
        out: &mut piece.data,
        found: false,
        filled: false,
        bytes: 0,
    }
}
