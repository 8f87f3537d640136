//! Fetching by the short way: copies out of a target's own memory (docs/design.md §6).
//!
//! Copy, verify, then see that the lease still held: in this order, or the bytes could be another version's. A granule is
//! verified at its first use under a lease; under the same lease it cannot change. Must never report damage itself: whatever
//! does not fit is read again by the long way, which does.

use smallvec::SmallVec;
use talea_model::{Extent, TargetId, View};
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Located, ReplyBody, Span, ValueKind};

use super::fetch::{Found, Piece, Pieces};
use super::{Object, checksum};
use crate::client::gather;
use crate::core::exchange::{Answer, Question};
use crate::core::place::{ExtentMap, Lent, Placed, Seen, Subject};
use crate::error::{ClientError, Result};

/// Targets are told, for their statistics, when so many bytes were read in place, and at the end.
const TELL_READS_BYTES: u64 = 64 << 20;

/// Inside of a transaction so many pieces of the size of the one that is read are located together: a change makes all of it worthless.
const AHEAD_PIECES: u64 = 64;

/// Targets that did not say where something lies.
pub(super) type Silent = SmallVec<[TargetId; 4]>;

/// What became of a piece.
enum Short {
    Done(Found),
    /// The target has to be asked where records from this one on lie.
    Ask(u64),
    /// The long way.
    Long,
}

impl Object {
    /// Takes out of `pieces` what could be read in place, and gives `done` its results. All of it is part of the one call that
    /// `question` is of: a target that does not answer is asked once, and not for each piece; the names of these come back.
    pub(super) async fn fetch_short<'k, 'o>(
        &self,
        question: Question,
        mut pieces: Pieces<'k, 'o>,
        mut done: impl FnMut(usize, Found),
    ) -> Result<(Pieces<'k, 'o>, Silent)> {
        let mut silent = Silent::new();
        let Some(seen) = Seen::by(question.view) else { return Ok((pieces, silent)) };
        let shared = &self.container.client.shared;
        let layout = self.layout()?;
        let mut left = Pieces::new();
        // Small pieces of many arrays cost a message together; a question each would cost one each. One is asked, and so all of what is
        // read again and again comes to be known.
        let mut questioned = Silent::new();
        for mut piece in pieces.drain(..) {
            let target = layout.leader_of(piece.entry.dkey);
            let ValueKind::Array { record_bytes } = piece.entry.kind else {
                left.push(piece);
                continue;
            };
            if silent.contains(&target) || !shared.may_read_in_place(target) {
                left.push(piece);
                continue;
            }
            let (dkey, akey) = (piece.entry.dkey, piece.entry.akey);
            let subject = Subject { container: self.container.id(), oid: self.oid, seen, dkey, akey };
            let mut asked = 0;
            let quiet = match seen {
                Seen::At(_) => true,
                Seen::Inside(..) => shared.places.is_quiet(target),
            };
            let pays = quiet && (!questioned.contains(&target) || piece.bytes() >= shared.tuning.near_bytes);
            loop {
                match self.read_in_place(target, &subject, record_bytes, &mut piece) {
                    Short::Done(found) => break done(piece.index, found),
                    Short::Ask(from) if pays && asked <= piece.entry.extents.len() => {
                        asked += 1;
                        questioned.push(target);
                        let records = (piece.bytes() as u64 / u64::from(record_bytes.max(1))).max(1);
                        let count = match seen {
                            Seen::At(_) => u64::MAX,
                            Seen::Inside(..) => records.saturating_mul(AHEAD_PIECES),
                        };
                        let question = Question { target, ..question };
                        if Box::pin(self.ask_places(question, &subject, from, count)).await {
                            continue;
                        }
                        silent.push(target);
                    }
                    Short::Ask(_) | Short::Long => {}
                }
                break left.push(piece);
            }
        }
        Ok((left, silent))
    }

    /// Asks where records lie; false if that helps nobody.
    async fn ask_places(&self, question: Question, subject: &Subject<'_>, from: u64, count: u64) -> bool {
        let shared = &self.container.client.shared;
        let asked_ns = shared.machine_ns();
        let extent = Extent { index: from, count: count.min(u64::MAX - from) };
        let Some(located) = self.ask(question, subject.dkey, subject.akey, extent).await else { return false };
        shared.places.learn(question.target, subject, from, *located, asked_ns)
    }

    /// Asks where records lie.
    async fn ask(&self, question: Question, dkey: &[u8], akey: &[u8], extent: Extent) -> Option<Box<Located>> {
        let shared = &self.container.client.shared;
        let target = question.target;
        let mut request = question.request(Body::Locate { dkey, akey, extent });
        let read = |body: ReplyBody<'_>| match body {
            ReplyBody::Located(located) => Ok(located),
            _ => Err(ClientError::unexpected("locating")),
        };
        let moved = |_: &Body<'_>| self.layout().is_ok_and(|layout| layout.leader_of(dkey) != target);
        match shared.exchange(question, &mut request, moved, read).await {
            Ok(Answer::Done(located, _)) => {
                shared.tell_reads(TELL_READS_BYTES);
                Some(located)
            }
            Err(ClientError::Refused { refusal, .. }) if refusal.code == RefusalCode::Unsupported => {
                shared.places.refuse(target);
                None
            }
            // The long way will say what is wrong, if it still is.
            Ok(Answer::Moved) | Err(_) => None,
        }
    }

    /// As [`fetch_short`](Self::fetch_short), where places are not known for longer: a long piece of one extent is asked for by its place,
    /// which is good for this one copy. The answer is what the view saw when the target gave it, and no block that it names is used again
    /// before its lease has ended.
    pub(super) async fn fetch_near<'k, 'o>(
        &self,
        question: Question,
        pieces: Pieces<'k, 'o>,
        silent: Silent,
        mut done: impl FnMut(usize, Found),
    ) -> Result<Pieces<'k, 'o>> {
        let shared = &self.container.client.shared;
        let layout = self.layout()?;
        let is_near = |piece: &Piece<'_, '_>| {
            let array = matches!(piece.entry.kind, ValueKind::Array { .. });
            let target = layout.leader_of(piece.entry.dkey);
            self.is_long(piece) && array && !silent.contains(&target) && shared.may_read_in_place(target)
        };
        let (near, mut left): (Vec<_>, Vec<_>) = pieces.into_iter().partition(is_near);
        let asked = near.into_iter().map(|piece| {
            let target = layout.leader_of(piece.entry.dkey);
            self.read_near(Question { target, ..question }, piece)
        });
        for (piece, found) in gather(asked.collect()).await {
            match found {
                Some(found) => done(piece.index, found),
                None => left.push(piece),
            }
        }
        Ok(left.into())
    }

    /// Whether asking where the pieces lie may pay in any view.
    pub(super) fn may_be_near(&self, view: View, pieces: &[Piece<'_, '_>]) -> bool {
        !matches!(view, View::Snapshot { .. }) && pieces.iter().any(|piece| self.is_long(piece))
    }

    fn is_long(&self, piece: &Piece<'_, '_>) -> bool {
        let near_bytes = self.container.client.shared.tuning.near_bytes;
        piece.bytes() >= near_bytes && piece.entry.extents.len() == 1 && piece.out.len() == 1
    }

    async fn read_near<'k, 'o>(&self, question: Question, mut piece: Piece<'k, 'o>) -> (Piece<'k, 'o>, Option<Found>) {
        let shared = &self.container.client.shared;
        let (extent, (dkey, akey)) = (piece.entry.extents[0], (piece.entry.dkey, piece.entry.akey));
        let ValueKind::Array { record_bytes } = piece.entry.kind else { return (piece, None) };
        let asked_ns = shared.machine_ns();
        let located = self.ask(question, dkey, akey, extent).await;
        let lent = located.and_then(|located| shared.places.lend(question.target, extent.index, *located, asked_ns));
        let Some(lent) = lent.filter(|lent| lent.map.end >= extent.end() && has_records_of(&lent.map, record_bytes))
        else {
            return (piece, None);
        };
        let mut result = Found { found: false, filled: true, bytes: piece.bytes() };
        let copied =
            copy_records(&lent, extent.index, extent.end(), record_bytes as usize, &mut *piece.out[0], &mut result);
        // Only now is it certain that nothing of what was copied had been used again before.
        if !copied || shared.machine_ns() >= lent.until_ns {
            return (piece, None);
        }
        lent.count(result.bytes);
        (piece, Some(result))
    }

    fn read_in_place(
        &self,
        target: TargetId,
        subject: &Subject<'_>,
        record_bytes: u32,
        piece: &mut Piece<'_, '_>,
    ) -> Short {
        let shared = &self.container.client.shared;
        let size = record_bytes as usize;
        let mut result = Found { found: false, filled: true, bytes: piece.bytes() };
        let mut lent: Option<Lent> = None;
        let mut until_ns = u64::MAX;
        let mut places = piece.out.iter_mut();
        let mut out: &mut [u8] = &mut [];
        for extent in &piece.entry.extents {
            let mut at = extent.index;
            while at < extent.end() {
                while out.is_empty() {
                    let Some(place) = places.next() else { return Short::Long };
                    out = place;
                }
                // A record that lies in two places goes the long way.
                let room = (out.len() / size) as u64;
                if room == 0 {
                    return Short::Long;
                }
                let holds = |lent: &Lent| (lent.map.from..lent.map.end).contains(&at);
                if !lent.as_ref().is_some_and(holds) {
                    lent = shared.places.find(target, subject, at, shared.machine_ns());
                }
                let Some(lent) = &lent else { return Short::Ask(at) };
                if !has_records_of(&lent.map, record_bytes) {
                    return Short::Long;
                }
                until_ns = until_ns.min(lent.until_ns);
                let end = extent.end().min(lent.map.end).min(at + room);
                let (here, rest) = std::mem::take(&mut out).split_at_mut((end - at) as usize * size);
                if !copy_records(lent, at, end, size, here, &mut result) {
                    return Short::Long;
                }
                (at, out) = (end, rest);
            }
        }
        // Only now is it certain that nothing of what was copied had been given back before.
        if shared.machine_ns() >= until_ns {
            return Short::Long;
        }
        lent.iter().for_each(|lent| lent.count(result.bytes));
        Short::Done(result)
    }
}

/// Whether a map is of an array with such records, or says that there is none. Else the target says what is wrong, also of a hole.
fn has_records_of(map: &ExtentMap, record_bytes: u32) -> bool {
    map.record_bytes == record_bytes || (map.record_bytes == 0 && map.spans.is_empty())
}

/// Copies the records `at..end` of a map; false if they are not what their checksums say.
fn copy_records(lent: &Lent, mut at: u64, end: u64, size: usize, mut out: &mut [u8], result: &mut Found) -> bool {
    let spans = &lent.map.spans;
    let first = spans.partition_point(|placed| placed.span.index + placed.span.count <= at);
    for placed in &spans[first..] {
        let span = &placed.span;
        if span.index >= end {
            break;
        }
        let (from, to) = (span.index.max(at), (span.index + span.count).min(end));
        let (hole, rest) = out.split_at_mut((from - at) as usize * size);
        hole.fill(0);
        result.filled &= hole.is_empty();
        let (here, rest) = rest.split_at_mut((to - from) as usize * size);
        let skip = u64::from(span.skip_bytes) + (from - span.index) * size as u64;
        if !copy_span(lent, placed, skip, here) {
            return false;
        }
        result.found = true;
        (at, out) = (to, rest);
    }
    out.fill(0);
    result.filled &= out.is_empty();
    true
}

/// Copies bytes of a version from `skip` on, granule by granule. One that was not yet verified is, while it is in the nearest cache: in
/// the copy if that has all of it, else in a copy of its own.
fn copy_span(lent: &Lent, placed: &Placed, skip: u64, out: &mut [u8]) -> bool {
    let granule = u64::from(lent.map.granule_bytes);
    let (span, version_bytes) = (&placed.span, u64::from(placed.span.bytes));
    let first = u64::from(span.skip_bytes) / granule;
    let (mut at, end) = (skip, skip + out.len() as u64);
    while at < end {
        let number = at / granule;
        let (from, to) = (number * granule, ((number + 1) * granule).min(version_bytes));
        let stop = to.min(end);
        let here = &mut out[(at - skip) as usize..(stop - skip) as usize];
        if !lent.memory.copy(span.offset + at, here) {
            return false;
        }
        let index = (number - first) as usize;
        if !placed.is_verified(index) {
            let found = if (from, to) == (at, stop) {
                Some(checksum(here))
            } else {
                sum_around(lent, span, (from, to), at, here)
            };
            if found != Some(span.checksums[index]) {
                return false;
            }
            placed.set_verified(index);
        }
        at = stop;
    }
    true
}

/// The checksum of the granule `from..to` of which `here` was copied from `at` on, if that is still the same.
fn sum_around(lent: &Lent, span: &Span, (from, to): (u64, u64), at: u64, here: &[u8]) -> Option<u32> {
    let mut whole = vec![0; (to - from) as usize];
    let read = lent.memory.copy(span.offset + from, &mut whole);
    // The part that was copied before must be the part that was verified.
    let same = read && whole[(at - from) as usize..][..here.len()] == *here;
    same.then(|| checksum(&whole))
}
