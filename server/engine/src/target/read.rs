//! Fetches, enumerations, queries; what an independent transaction has read; differences.
//!
//! Must never answer with more than one message carries.

use talea_fabric::PeerId;
use talea_fabric::endpoint::MAX_PAYLOAD_BYTES;
use talea_model::limit::MAX_ENUMERATED;
use talea_model::{Extent, TxId, View};
use talea_vos::{Enumerate, FetchWhat, ObjectRef, Query, ReadSet, Store, StoreError, Walk};
use talea_wire::data::request::Head;
use talea_wire::data::{
    Body, Diff, DiffPlace, Difference, Differences, Differs, Entry, EnumerateKind, Fetched, Located, Prepare,
    QueryKind, ReadOf, ReplyBody, Request, Share, Span, ValueKind,
};

use super::parked::Wait;
use super::{Now, Target};
use crate::outbox::{Outbox, Outgoing};

/// How long a client may read blocks in place after it asked where they lie, in milliseconds. Short, for what is freed
/// meanwhile cannot be used before; long enough that asking again costs nothing.
const LEASE_MS: u64 = 1_000;
/// Clocks of one machine do not drift apart, but a request is a while under way and time is read in steps.
const LEASE_DRIFT_MS: u64 = 250;
/// How long a block is held from the last grant on, in nanoseconds.
pub(super) const HELD_NS: u64 = (LEASE_MS + LEASE_DRIFT_MS) * 1_000_000;

/// Bytes of differences in one answer, and what one costs beside its keys.
const DIFFERENCES_BYTES: usize = 512 * 1024;
const DIFFERENCE_BYTES: usize = 80;
/// What one name costs in a reply beside its bytes.
const NAME_HEAD_BYTES: usize = 2;

/// Names of a page, and whether there are more.
type Names = (Vec<Vec<u8>>, bool);

impl Target {
    /// Answers a read.
    pub(super) fn read(
        &mut self,
        now: Now,
        peer: PeerId,
        request: &Request<'_>,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        if let View::Snapshot { stamp, .. } | View::Inside { base: stamp, .. } = request.head.view {
            self.clock.serve(stamp);
            self.raise_ceiling()?;
        }
        let at = ObjectRef { container: request.head.container, oid: request.head.oid };
        let id = request.head.id;
        match &request.body {
            Body::Fetch(entries) => {
                let mut data = out.buffer();
                match self.fetch(at, request.head.view, entries, &mut data) {
                    Ok(found) => {
                        let fetched = ReplyBody::Fetched(with_data(&found, &data));
                        let head = self.encoded(now, id, fetched, out);
                        self.counters.bytes_out += data.len() as u64;
                        out.hold(peer, Outgoing { head, data, asked: self.asked });
                    }
                    Err(error) => {
                        out.recycle(data);
                        return Err(error);
                    }
                }
                self.counters.fetches += 1;
            }
            Body::Enumerate { kind, dkey, akey, after, limit } => {
                let what = match kind {
                    EnumerateKind::Objects => Enumerate::Objects,
                    EnumerateKind::Dkeys => Enumerate::Dkeys,
                    EnumerateKind::Akeys => Enumerate::Akeys { dkey },
                    EnumerateKind::Extents => Enumerate::Extents { dkey, akey },
                };
                let Some((names, more)) = self.enumerate(at, request.head.view, what, after, *limit)? else {
                    return Ok(());
                };
                let names = names.iter().map(Vec::as_slice).collect();
                self.reply(now, peer, id, ReplyBody::Names { names, more }, out);
            }
            Body::Query { kind, dkey, akey } => {
                let Some((a, b)) = self.query(at, request.head.view, *kind, dkey, akey)? else { return Ok(()) };
                self.reply(now, peer, id, ReplyBody::Numbers(a, b), out);
            }
            Body::Locate { dkey, akey, extent } => {
                let located = self.locate(now, at, request.head.view, (dkey, akey), *extent)?;
                self.reply(now, peer, id, ReplyBody::Located(Box::new(located)), out);
            }
            Body::Prepare(prepare) => {
                let Some(named) = self.prepare(&request.head, prepare)? else { return Ok(()) };
                self.reply(now, peer, id, ReplyBody::Prepared(named), out);
            }
            Body::Diff(diff) => {
                let found = self.diff(&request.head, diff)?;
                self.reply(now, peer, id, ReplyBody::Differences(Box::new(found)), out);
            }
            _ => return Err(StoreError::Bad("a write came as a read")),
        }
        Ok(())
    }

    /// Rule 15: passes the bound, durably by the end of this turn, and looks whether what was read still holds there. `None` if that goes
    /// on in the next turn: what is written meanwhile is later than the bound.
    fn prepare(&mut self, head: &Head, prepare: &Prepare) -> Result<Option<Vec<TxId>>, StoreError> {
        let View::Inside { tx, base, .. } = head.view else {
            return Err(StoreError::Bad("only what was read inside a transaction can be prepared"));
        };
        self.clock.serve(prepare.until);
        self.raise_ceiling()?;
        let reader = talea_vos::Reader { tx, base, until: prepare.until };
        let reads: ReadSet<'_> = prepare.reads.iter().map(|read| (read.oid, read_of(&read.of))).collect();
        let check = |store: &Store, looks: usize, walk: &mut Walk| {
            store.check_reads_some(head.container, &reads, reader, looks, walk)
        };
        let walk = self.walk_on(check)?;
        if self.store.ledger().admits(tx) {
            self.prepared.insert(tx);
        }
        Ok(walk.map(Walk::into_named))
    }

    fn diff(&mut self, head: &Head, diff: &Diff) -> Result<Differences, StoreError> {
        let View::Snapshot { .. } = head.view else {
            return Err(StoreError::Bad("only snapshots can be compared"));
        };
        self.clock.serve(diff.from);
        self.raise_ceiling()?;
        let from = View::Snapshot { stamp: diff.from, position: diff.position, lease: Default::default() };
        let place = |place: &DiffPlace| talea_vos::DiffPlace {
            oid: place.oid,
            dkey: place.dkey.clone(),
            akey: place.akey.clone(),
            index: place.index,
        };
        // A single value has no records.
        let place_behind = |last: &Difference| match last.record_bytes {
            0 => place(&last.place),
            _ => talea_vos::DiffPlace { index: last.extent.end() - 1, ..place(&last.place) },
        };
        let place_back = |place: talea_vos::DiffPlace| {
            let talea_vos::DiffPlace { oid, dkey, akey, index } = place;
            DiffPlace { oid, dkey, akey, index }
        };
        let only = (head.oid.0 != 0).then_some(head.oid);
        let limit = (diff.limit as usize).clamp(1, MAX_ENUMERATED);
        let after = diff.after.as_ref().map(place);
        let (all, mut next) = self.store.diff(head.container, only, (from, head.view), after.as_ref(), limit)?;
        let (mut found, mut room) = (Vec::with_capacity(all.len()), DIFFERENCES_BYTES);
        for one in all {
            let cost = one.place.dkey.len() + one.place.akey.len() + DIFFERENCE_BYTES;
            let Some(left) = room.checked_sub(cost) else {
                next = found.last().map(&place_behind);
                break;
            };
            room = left;
            let how = match one.how {
                talea_vos::Differs::Added => Differs::Added,
                talea_vos::Differs::Changed => Differs::Changed,
                talea_vos::Differs::Removed => Differs::Removed,
            };
            let (record_bytes, extent) = (one.record_bytes, one.extent);
            found.push(Difference { place: place_back(one.place), record_bytes, extent, how });
        }
        Ok(Differences { found, next: next.map(place_back) })
    }

    /// Fetches all entries into `data`, in order. What it looks at others do not look at in this turn.
    fn fetch(
        &mut self,
        at: ObjectRef,
        view: View,
        entries: &[Entry<'_>],
        data: &mut Vec<u8>,
    ) -> Result<Vec<talea_vos::Fetched>, StoreError> {
        let mut fetched = Vec::with_capacity(entries.len());
        for entry in entries {
            let one = self.store.fetch(at, view, entry.dkey, entry.akey, fetch_what(entry), data)?;
            self.fetch_looks = self.fetch_looks.saturating_sub(one.looked as usize);
            fetched.push(one);
        }
        Ok(fetched)
    }

    /// Lets leases end. The count of blocks given back, which a reader compares, does not begin anew with a restart on the same
    /// medium: nobody gives a block back each microsecond. Leases that the process before this one granted are taken to last as
    /// long as they can, and on all that is free: it may have been given back under them.
    pub(super) fn tick(&mut self, now: Now) {
        if self.first_generation == 0 {
            self.first_generation = self.clock.last_us().max(now.unix_us);
        }
        if let Some(locked_ns) = self.restarted_ns.take() {
            self.store.hold_free(locked_ns + HELD_NS);
        }
        self.store.end_leases(now.monotonic_ns);
    }

    /// Names places and leases all blocks: from now on none that is in use is used again before the lease has ended.
    fn locate(
        &mut self,
        now: Now,
        at: ObjectRef,
        view: View,
        (dkey, akey): (&[u8], &[u8]),
        extent: Extent,
    ) -> Result<Located, StoreError> {
        let share = self.store.share().ok_or(StoreError::Unsupported("mapping this kind of tier"))?;
        let found = self.store.locate(at, view, dkey, akey, extent)?;
        self.watched |= matches!(view, View::Inside { .. });
        self.store.lease_blocks(now.monotonic_ns + HELD_NS);
        let span = |span: talea_vos::Span| Span {
            index: span.index,
            count: span.count,
            offset: span.offset,
            bytes: span.bytes,
            skip_bytes: span.skip_bytes,
            checksums: span.checksums,
        };
        let shared = |share: talea_tier::Share, bytes| {
            let talea_tier::Share { path, device, inode } = share;
            Share { path, device, inode, bytes }
        };
        Ok(Located {
            share: shared(share, self.store.shared_bytes()),
            board: self.store.board().map(|board| shared(board, size_of::<u64>() as u64)),
            change: self.change,
            lease_ms: LEASE_MS as u32,
            generation: self.first_generation.saturating_add(self.store.generation()),
            granule_bytes: talea_vos::checksum::GRANULE_BYTES as u32,
            record_bytes: found.record_bytes,
            end: found.end,
            spans: found.spans.into_iter().map(span).collect(),
        })
    }

    /// The names of a page, and whether there are more; `None` if it goes on in the next turn.
    fn enumerate(
        &mut self,
        at: ObjectRef,
        view: View,
        what: Enumerate<'_>,
        after: &[u8],
        limit: u16,
    ) -> Result<Option<Names>, StoreError> {
        let limit = (limit as usize).clamp(1, MAX_ENUMERATED);
        // An extent's name is its index and count; the store's anchor is the index alone.
        let extents = matches!(what, Enumerate::Extents { .. });
        let after = if extents && after.len() == 16 { &after[..8] } else { after };
        let after = (!after.is_empty()).then_some(after);
        let enumerate = |store: &Store, looks: usize, walk: &mut Walk| {
            store.enumerate_some(at, view, what, after, limit, looks, walk)
        };
        let Some(walk) = self.walk_on(enumerate)? else { return Ok(None) };
        let listed = walk.into_listed();
        let mut more = listed.len() == limit;
        let mut names = Vec::with_capacity(listed.len());
        let mut room = MAX_PAYLOAD_BYTES;
        for one in listed {
            let mut name = one.key;
            if extents {
                name = [one.extent.index.to_be_bytes(), one.extent.count.to_be_bytes()].concat();
            }
            let Some(left) = room.checked_sub(name.len() + NAME_HEAD_BYTES) else {
                more = true;
                break;
            };
            room = left;
            names.push(name);
        }
        Ok(Some((names, more)))
    }

    /// Goes through the index as far as the turn allows. `None` if that is not to the end: then the rest waits for the next turn.
    pub(super) fn walk_on(
        &mut self,
        go: impl FnOnce(&Store, usize, &mut Walk) -> Result<bool, StoreError>,
    ) -> Result<Option<Walk>, StoreError> {
        let mut walk = self.parked.walk.take().map_or_else(Walk::default, |walk| *walk);
        if self.looks > 0 {
            let before = walk.looked();
            let done = go(&self.store, self.looks, &mut walk)?;
            self.looks = self.looks.saturating_sub((walk.looked() - before) as usize);
            if done {
                return Ok(Some(walk));
            }
        }
        (self.parked.wanted, self.parked.walk) = (Some(Wait::Turn), Some(Box::new(walk)));
        Ok(None)
    }

    /// The two numbers of an answer; `None` if it is looked for in the next turn as well.
    fn query(
        &mut self,
        at: ObjectRef,
        view: View,
        kind: QueryKind,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let what = match kind {
            QueryKind::ArrayEnd => Query::ArrayEnd { dkey, akey },
            QueryKind::MaxDkeyArrayEnd => Query::MaxDkeyArrayEnd { akey },
            QueryKind::MaxDkey => Query::MaxDkey,
            QueryKind::MinDkey => Query::MinDkey,
        };
        let query = |store: &Store, looks: usize, walk: &mut Walk| store.query_some(at, view, what, looks, walk);
        let Some(walk) = self.walk_on(query)? else { return Ok(None) };
        let answer = walk.into_answer();
        let number = answer.dkey.as_ref().and_then(talea_model::Key::as_u64);
        Ok(Some(match kind {
            QueryKind::ArrayEnd => (u64::from(answer.end > 0), answer.end),
            QueryKind::MaxDkeyArrayEnd => number.map_or((u64::MAX, 0), |dkey| (dkey, answer.end)),
            QueryKind::MaxDkey | QueryKind::MinDkey => number.map_or((0, 0), |dkey| (1, dkey)),
        }))
    }
}

fn read_of(of: &ReadOf) -> talea_vos::ReadOf<'_> {
    match of {
        ReadOf::Object => talea_vos::ReadOf::Object,
        ReadOf::Dkeys { after, through } => talea_vos::ReadOf::Dkeys { after, through: through.as_deref() },
        ReadOf::Dkey(dkey) => talea_vos::ReadOf::Dkey(dkey),
        ReadOf::Akey { dkey, akey, extents } => talea_vos::ReadOf::Akey { dkey, akey, extents },
    }
}

/// Joins what was found with its data.
fn with_data<'a>(found: &[talea_vos::Fetched], mut data: &'a [u8]) -> Vec<Fetched<'a>> {
    let with = found.iter().map(|one| {
        let (this, rest) = data.split_at((one.bytes as usize).min(data.len()));
        data = rest;
        Fetched {
            found: one.found,
            filled: one.filled,
            record_bytes: one.record_bytes,
            checksum: one.checksum,
            data: this,
        }
    });
    with.collect()
}

/// What an entry of a fetch asks the store for.
pub(super) fn fetch_what<'a>(entry: &'a Entry<'_>) -> FetchWhat<'a> {
    match entry.kind {
        ValueKind::Single | ValueKind::SingleMax => FetchWhat::Single,
        ValueKind::Array { record_bytes } => FetchWhat::Records(record_bytes, &entry.extents),
    }
}
