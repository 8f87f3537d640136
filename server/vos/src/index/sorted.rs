//! A sorted map in chunks: few bytes beside the entries, three nodes deep at any size, and no step that grows with the whole.
//!
//! Searches take a function, so that a key can be a number that stands for something longer.

/// Entries of a chunk.
const CHUNK: usize = 64;
/// Chunks of a group.
const GROUP: usize = 128;
/// Neighbouring chunks of fewer entries together are joined.
const JOIN: usize = CHUNK / 4;

type Chunk<K, V> = Vec<(K, V)>;
/// Each with its first key.
type Group<K, V> = Vec<(K, Chunk<K, V>)>;

/// A place in a map; valid until the map changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pos {
    group: u32,
    chunk: u32,
    at: u32,
}

/// A sorted map.
#[derive(Debug)]
pub(crate) enum Sorted<K, V> {
    /// One chunk.
    Small(Chunk<K, V>),
    /// Groups, each with its first key.
    Large(Vec<(K, Group<K, V>)>),
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl<K: Copy, V> Sorted<K, V> {
    /// True without entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.entry(Pos::default()).is_none()
    }

    /// The first entry that is not `less`: all before it must be.
    pub(crate) fn seek(&self, less: impl Fn(&K) -> bool) -> Pos {
        match self {
            Self::Small(chunk) => Pos { group: 0, chunk: 0, at: chunk.partition_point(|(key, _)| less(key)) as u32 },
            Self::Large(groups) => {
                let group = groups.partition_point(|(first, _)| less(first)).saturating_sub(1);
                let chunks = &groups[group].1;
                let chunk = chunks.partition_point(|(first, _)| less(first)).saturating_sub(1);
                let at = chunks[chunk].1.partition_point(|(key, _)| less(key));
                self.normal(Pos { group: group as u32, chunk: chunk as u32, at: at as u32 })
            }
        }
    }

    /// Nodes that a search looks into, and keys that it compares.
    pub(crate) fn cost(&self) -> (u32, u32) {
        let probes = |len: usize| usize::BITS - len.leading_zeros();
        match self {
            Self::Small(chunk) => (1, probes(chunk.len())),
            Self::Large(groups) => {
                let chunks = groups.first().map_or(0, |(_, chunks)| chunks.len());
                (3, probes(groups.len()) + probes(chunks) + probes(CHUNK))
            }
        }
    }

    fn chunk(&self, pos: Pos) -> Option<&Chunk<K, V>> {
        match self {
            Self::Small(chunk) => Some(chunk),
            Self::Large(groups) => Some(&groups.get(pos.group as usize)?.1.get(pos.chunk as usize)?.1),
        }
    }

    fn chunk_mut(&mut self, pos: Pos) -> Option<&mut Chunk<K, V>> {
        match self {
            Self::Small(chunk) => Some(chunk),
            Self::Large(groups) => Some(&mut groups.get_mut(pos.group as usize)?.1.get_mut(pos.chunk as usize)?.1),
        }
    }

    /// The same place, not behind the end of a chunk that another follows.
    fn normal(&self, pos: Pos) -> Pos {
        let Self::Large(groups) = self else { return pos };
        let Some((_, chunks)) = groups.get(pos.group as usize) else { return pos };
        if chunks.get(pos.chunk as usize).is_some_and(|(_, chunk)| (pos.at as usize) < chunk.len()) {
            pos
        } else if (pos.chunk as usize) + 1 < chunks.len() {
            Pos { chunk: pos.chunk + 1, at: 0, ..pos }
        } else if (pos.group as usize) + 1 < groups.len() {
            Pos { group: pos.group + 1, chunk: 0, at: 0 }
        } else {
            pos
        }
    }

    /// The entry there; none at the end.
    pub(crate) fn entry(&self, pos: Pos) -> Option<(K, &V)> {
        self.chunk(pos)?.get(pos.at as usize).map(|(key, value)| (*key, value))
    }

    /// The entry there; none at the end.
    pub(crate) fn entry_mut(&mut self, pos: Pos) -> Option<(K, &mut V)> {
        self.chunk_mut(pos)?.get_mut(pos.at as usize).map(|(key, value)| (*key, value))
    }

    /// The place after.
    pub(crate) fn step(&self, pos: Pos) -> Pos {
        self.normal(Pos { at: pos.at + 1, ..pos })
    }

    /// The place before, if there is one.
    pub(crate) fn back(&self, pos: Pos) -> Option<Pos> {
        if pos.at > 0 {
            return Some(Pos { at: pos.at - 1, ..pos });
        }
        let Self::Large(groups) = self else { return None };
        let (group, chunk) = match (pos.group, pos.chunk) {
            (0, 0) => return None,
            (group, 0) => (group - 1, groups.get(group as usize - 1)?.1.len() as u32 - 1),
            (group, chunk) => (group, chunk - 1),
        };
        let len = groups.get(group as usize)?.1.get(chunk as usize)?.1.len();
        Some(Pos { group, chunk, at: len as u32 - 1 })
    }

    /// The place behind the last entry.
    pub(crate) fn end(&self) -> Pos {
        self.seek(|_| true)
    }

    /// Entries from a place on.
    pub(crate) fn iter_from(&self, mut pos: Pos) -> impl Iterator<Item = (K, &V)> {
        std::iter::from_fn(move || {
            let found = self.entry(pos)?;
            pos = self.step(pos);
            Some(found)
        })
    }

    /// All entries.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.iter_from(Pos::default())
    }

    /// All entries, the last one first.
    pub(crate) fn iter_back(&self) -> impl Iterator<Item = (K, &V)> {
        let mut pos = Some(self.end());
        std::iter::from_fn(move || {
            pos = self.back(pos?);
            self.entry(pos?)
        })
    }

    /// Puts an entry before a place that [`seek`](Self::seek) found for it.
    pub(crate) fn insert(&mut self, pos: Pos, key: K, value: V) {
        if let Self::Small(chunk) = self {
            if chunk.len() < CHUNK {
                // One at a time at first: most maps stay tiny.
                if chunk.len() < 2 {
                    chunk.reserve_exact(1);
                }
                chunk.insert(pos.at as usize, (key, value));
                return;
            }
            let chunk = std::mem::take(chunk);
            let first = chunk[0].0;
            *self = Self::Large(vec![(first, vec![(first, chunk)])]);
        }
        let Self::Large(groups) = self else { return };
        let (mut group, mut chunk, mut at) = (pos.group as usize, pos.chunk as usize, pos.at as usize);
        if groups[group].1[chunk].1.len() >= CHUNK {
            if groups[group].1.len() >= GROUP {
                let appends = group + 1 == groups.len() && chunk + 1 == GROUP && at == CHUNK;
                let keep = if appends { GROUP - 1 } else { GROUP / 2 };
                let right = groups[group].1.split_off(keep);
                groups.insert(group + 1, (right[0].0, right));
                if chunk >= keep {
                    (group, chunk) = (group + 1, chunk - keep);
                }
            }
            let chunks = &mut groups[group].1;
            let keep = if at == CHUNK { CHUNK } else { CHUNK / 2 };
            let mut right = chunks[chunk].1.split_off(keep);
            if at >= keep {
                right.reserve_exact(CHUNK - right.len());
                (chunk, at) = (chunk + 1, at - keep);
                if right.is_empty() {
                    right.push((key, value));
                    chunks.insert(chunk, (key, right));
                    return;
                }
                chunks.insert(chunk, (right[0].0, right));
            } else {
                chunks.insert(chunk + 1, (right[0].0, right));
            }
        }
        let (first_of_group, chunks) = &mut groups[group];
        let (first, entries) = &mut chunks[chunk];
        entries.insert(at, (key, value));
        if at == 0 {
            *first = key;
            if chunk == 0 {
                *first_of_group = key;
            }
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, pos: Pos) -> Option<(K, V)> {
        let chunk = self.chunk_mut(pos)?;
        if pos.at as usize >= chunk.len() {
            return None;
        }
        let gone = chunk.remove(pos.at as usize);
        if let Self::Large(groups) = self {
            let (group, at) = (pos.group as usize, pos.chunk as usize);
            let chunks = &mut groups[group].1;
            match chunks[at].1.first() {
                Some((first, _)) => chunks[at].0 = *first,
                None => _ = chunks.remove(at),
            }
            join(chunks, at);
            match chunks.first() {
                Some((first, _)) => groups[group].0 = *first,
                None => _ = groups.remove(group),
            }
            if groups.is_empty() {
                *self = Self::default();
            }
        } else if self.is_empty() {
            *self = Self::default();
        }
        Some(gone)
    }

    /// Takes the last entry out.
    pub(crate) fn pop(&mut self) -> Option<(K, V)> {
        let last = self.back(self.end())?;
        self.remove(last)
    }
}

/// Joins a chunk with the next one if both hold little.
fn join<K: Copy, V>(chunks: &mut Group<K, V>, at: usize) {
    if at + 1 < chunks.len() && chunks[at].1.len() + chunks[at + 1].1.len() <= JOIN {
        let (_, next) = chunks.remove(at + 1);
        chunks[at].1.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn check(sorted: &Sorted<u64, u64>, model: &BTreeMap<u64, u64>) {
        assert!(sorted.iter().map(|(k, v)| (k, *v)).eq(model.iter().map(|(k, v)| (*k, *v))));
        assert!(sorted.iter_back().map(|(k, _)| k).eq(model.keys().rev().copied()));
        assert_eq!(sorted.is_empty(), model.is_empty());
    }

    fn insert(sorted: &mut Sorted<u64, u64>, model: &mut BTreeMap<u64, u64>, key: u64) {
        let pos = sorted.seek(|k| *k < key);
        match sorted.entry_mut(pos) {
            Some((found, value)) if found == key => *value += 1,
            _ => sorted.insert(pos, key, 0),
        }
        model.entry(key).and_modify(|value| *value += 1).or_insert(0);
    }

    fn remove(sorted: &mut Sorted<u64, u64>, model: &mut BTreeMap<u64, u64>, key: u64) {
        let pos = sorted.seek(|k| *k < key);
        match sorted.entry(pos) {
            Some((found, _)) if found == key => assert_eq!(sorted.remove(pos).map(|(k, _)| k), Some(key)),
            _ => {}
        }
        model.remove(&key);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn is_a_sorted_map(runs in prop::collection::vec((any::<bool>(), any::<bool>(), 0u64..3000, 1u64..900), 1..24)) {
            let (mut sorted, mut model) = (Sorted::default(), BTreeMap::new());
            for (add, down, from, count) in runs {
                for n in 0..count {
                    let key = if down { from + count - n } else { from + n } * 7 % 3001;
                    if add { insert(&mut sorted, &mut model, key) } else { remove(&mut sorted, &mut model, key) }
                }
                check(&sorted, &model);
                for key in [0, from, from + 1, 5000] {
                    let expected = model.range(key..).next().map(|(k, _)| *k);
                    assert_eq!(sorted.entry(sorted.seek(|k| *k < key)).map(|(k, _)| k), expected);
                    let before = sorted.back(sorted.seek(|k| *k < key)).and_then(|pos| sorted.entry(pos));
                    assert_eq!(before.map(|(k, _)| k), model.range(..key).next_back().map(|(k, _)| *k));
                }
            }
            while let Some((key, _)) = sorted.pop() {
                assert_eq!(model.pop_last().map(|(k, _)| k), Some(key));
            }
            check(&sorted, &model);
        }
    }

    #[test]
    fn a_million_entries_are_three_nodes_deep_in_either_order() {
        for order in [0u64, 1, 2] {
            let mut sorted = Sorted::default();
            for n in 0..1_000_000u64 {
                let key = [n, 1_000_000 - n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15)][order as usize];
                let pos = sorted.seek(|k| *k < key);
                sorted.insert(pos, key, ());
            }
            assert_eq!(sorted.iter().count(), 1_000_000);
            assert_eq!(sorted.cost().0, 3);
        }
    }
}
