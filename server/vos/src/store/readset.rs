//! What an independent transaction has read, each part once, however often and under however many names it was told.

use std::collections::{BTreeMap, BTreeSet};

use talea_model::{Extent, Oid};

use crate::ReadOf;

/// Dkeys after one (empty: from the first) up to another one, inclusive (`None`: to the last).
type Range<'a> = (&'a [u8], Option<&'a [u8]>);

/// A dkey and an akey.
type Key<'a> = (&'a [u8], &'a [u8]);

/// A part of what was read; no two of a set overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Which dkeys there are, and anything of them.
    Dkeys(Range<'a>),
    /// Anything of a dkey.
    Dkey(&'a [u8]),
    /// A value, or records of an array, in order: all of them where there are no extents.
    Akey(&'a [u8], &'a [u8], Vec<Extent>),
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSet<'a> {
    pub(super) parts: Vec<(Oid, Part<'a>)>,
}

/// What was read of one object.
#[derive(Default)]
struct OfObject<'a> {
    ranges: Vec<Range<'a>>,
    dkeys: BTreeSet<&'a [u8]>,
    /// `None`: all records.
    akeys: BTreeMap<Key<'a>, Option<Vec<Extent>>>,
}

impl<'a> FromIterator<(Oid, ReadOf<'a>)> for ReadSet<'a> {
    fn from_iter<I: IntoIterator<Item = (Oid, ReadOf<'a>)>>(reads: I) -> Self {
        let mut objects: BTreeMap<Oid, OfObject<'a>> = BTreeMap::new();
        for (oid, read) in reads {
            let of = objects.entry(oid).or_default();
            match read {
                ReadOf::Object => of.ranges.push((&[], None)),
                ReadOf::Dkeys { after, through } => of.ranges.push((after, through)),
                ReadOf::Dkey(dkey) => _ = of.dkeys.insert(dkey),
                ReadOf::Akey { dkey, akey, extents } => {
                    let known = of.akeys.entry((dkey, akey)).or_insert_with(|| Some(Vec::new()));
                    match known {
                        Some(all) if !extents.is_empty() => all.extend_from_slice(extents),
                        known => *known = None,
                    }
                }
            }
        }
        let parts = objects.into_iter().flat_map(|(oid, of)| of.parts().into_iter().map(move |part| (oid, part)));
        Self { parts: parts.collect() }
    }
}

impl<'a> OfObject<'a> {
    fn parts(self) -> Vec<Part<'a>> {
        let ranges = merged_ranges(self.ranges);
        let listed = |dkey: &[u8]| {
            let last = ranges.partition_point(|(after, _)| *after < dkey).checked_sub(1);
            last.is_some_and(|last| ranges[last].1.is_none_or(|through| dkey <= through))
        };
        let dkeys = self.dkeys.iter().filter(|dkey| !listed(dkey)).map(|dkey| Part::Dkey(dkey));
        let akeys = self.akeys.into_iter().filter(|((dkey, _), _)| !listed(dkey) && !self.dkeys.contains(dkey));
        let akeys =
            akeys.map(|((dkey, akey), extents)| Part::Akey(dkey, akey, extents.map_or_else(Vec::new, Extent::merged)));
        ranges.iter().copied().map(Part::Dkeys).chain(dkeys).chain(akeys).collect()
    }
}

fn merged_ranges(mut ranges: Vec<Range<'_>>) -> Vec<Range<'_>> {
    ranges.sort_unstable();
    let mut all: Vec<Range<'_>> = Vec::new();
    for (after, through) in ranges {
        match all.last_mut() {
            Some((_, last)) if last.is_none_or(|last| after <= last) => {
                *last = last.zip(through).map(|(last, through)| last.max(through));
            }
            _ => all.push((after, through)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Oid = Oid(1);

    #[test]
    fn what_was_read_twice_is_in_it_once() {
        let extent = |index, count| Extent { index, count };
        let akey = |dkey: &'static [u8], extents: &'static [Extent]| (A, ReadOf::Akey { dkey, akey: b"a", extents });
        const WIDE: &[Extent] = &[Extent { index: 0, count: u64::MAX }];
        const SOME: &[Extent] = &[Extent { index: 9, count: 3 }, Extent { index: 0, count: 4 }];
        const MORE: &[Extent] = &[Extent { index: 4, count: 1 }, Extent { index: 10, count: 9 }];
        let set: ReadSet<'_> = std::iter::repeat_n(akey(b"d", WIDE), 1000).chain([akey(b"d", SOME)]).collect();
        assert_eq!(set.parts, [(A, Part::Akey(b"d", b"a", WIDE.to_vec()))]);
        let set: ReadSet<'_> = [akey(b"d", SOME), akey(b"d", MORE)].into_iter().collect();
        assert_eq!(set.parts, [(A, Part::Akey(b"d", b"a", vec![extent(0, 5), extent(9, 10)]))]);
        // All records, however they are told.
        let set: ReadSet<'_> = [akey(b"d", SOME), akey(b"d", &[]), akey(b"d", MORE)].into_iter().collect();
        assert_eq!(set.parts, [(A, Part::Akey(b"d", b"a", vec![]))]);
        // What a dkey, a list or the object holds is not asked for again.
        let dkeys = |after: &'static [u8], through| (A, ReadOf::Dkeys { after, through });
        let reads =
            [akey(b"b", SOME), akey(b"f", SOME), akey(b"k", SOME), (A, ReadOf::Dkey(b"f")), (A, ReadOf::Dkey(b"c"))];
        let lists = [dkeys(b"a", Some(b"c".as_slice())), dkeys(b"b", Some(b"d".as_slice())), dkeys(b"x", None)];
        let set: ReadSet<'_> = reads.into_iter().chain(lists).collect();
        let expected = [
            Part::Dkeys((b"a", Some(b"d"))),
            Part::Dkeys((b"x", None)),
            Part::Dkey(b"f"),
            Part::Akey(b"k", b"a", vec![extent(0, 4), extent(9, 3)]),
        ];
        assert_eq!(set.parts, expected.map(|part| (A, part)));
        let all = reads.into_iter().chain(lists).chain([(A, ReadOf::Object), (Oid(2), ReadOf::Dkey(b"z"))]);
        let set: ReadSet<'_> = all.collect();
        assert_eq!(set.parts, [(A, Part::Dkeys((b"", None))), (Oid(2), Part::Dkey(b"z"))]);
    }
}
