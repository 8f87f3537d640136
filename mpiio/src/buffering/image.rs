//! What one rank moves of a file in an exchange: the touched part of each of its chunks in memory, and a bit for each byte that
//! somebody has or wants. Pure; must never make a byte part of a run that nobody covered.

use std::collections::BTreeMap;

use super::trains::Train;

/// Bytes for which there is one word of bits.
const WORD: u64 = 64;

/// The touched part of a chunk.
#[derive(Clone, Copy, Debug)]
struct Slot {
    chunk: u64,
    /// Offset in the file where it begins: a multiple of [`WORD`].
    low: u64,
    /// Where it begins in the image: a multiple of [`WORD`].
    at: usize,
}

/// See the module.
pub(super) struct Image {
    chunk_bytes: u64,
    /// In the order of their chunks.
    slots: Vec<Slot>,
    pub(super) bytes: Vec<u8>,
    covered: Vec<u64>,
}

/// Adjacent bytes that are covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Offset in the file.
    pub(super) offset: u64,
    /// Where in the image.
    pub(super) at: usize,
    /// Bytes.
    pub(super) bytes: usize,
}

impl Image {
    /// An image with room for these trains, each inside one chunk; nothing is covered yet.
    pub(super) fn over<'a>(trains: impl Iterator<Item = &'a Train>, chunk_bytes: u64) -> Image {
        let mut spans: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for train in trains {
            let span = spans.entry(train.offset / chunk_bytes).or_insert((train.offset, train.end()));
            *span = (span.0.min(train.offset), span.1.max(train.end()));
        }
        let mut length = 0;
        let place = |(chunk, (low, high)): (u64, (u64, u64))| {
            let slot = Slot { chunk, low: low / WORD * WORD, at: length };
            length += (high - slot.low).next_multiple_of(WORD) as usize;
            slot
        };
        let slots = spans.into_iter().map(place).collect();
        Image { chunk_bytes, slots, bytes: vec![0; length], covered: vec![0; length / WORD as usize] }
    }

    /// Where a byte of the file lies in the image; its chunk has a slot.
    pub(super) fn place(&self, offset: u64) -> usize {
        let chunk = offset / self.chunk_bytes;
        let slot = self.slots.partition_point(|slot| slot.chunk < chunk).min(self.slots.len().saturating_sub(1));
        self.slots.get(slot).map_or(0, |slot| slot.at + offset.saturating_sub(slot.low) as usize)
    }

    /// Covers a train's bytes.
    pub(super) fn cover(&mut self, train: &Train) {
        let first = self.place(train.offset);
        let (bytes, stride) = (train.bytes as usize, train.stride as usize);
        if stride == bytes {
            self.cover_range(first, bytes * train.count as usize);
        } else {
            (0..train.count as usize).for_each(|number| self.cover_range(first + number * stride, bytes));
        }
    }

    fn cover_range(&mut self, from: usize, bytes: usize) {
        let (mut at, end, word) = (from, from + bytes, WORD as usize);
        while at < end {
            let here = (word - at % word).min(end - at);
            self.covered[at / word] |= (u64::MAX >> (word - here)) << (at % word);
            at += here;
        }
    }

    /// Covers a train's bytes and takes their values, which are as many as the train has.
    pub(super) fn paint(&mut self, train: &Train, data: &[u8]) {
        self.cover(train);
        let (first, stride) = (self.place(train.offset), train.stride as usize);
        let image = &mut self.bytes[first..];
        if train.stride == train.bytes {
            image[..data.len()].copy_from_slice(data);
            return;
        }
        match train.bytes {
            4 => scatter::<4>(image, stride, data),
            8 => scatter::<8>(image, stride, data),
            16 => scatter::<16>(image, stride, data),
            bytes => {
                let pieces = data.chunks_exact(bytes as usize).enumerate();
                pieces.for_each(|(number, piece)| image[number * stride..][..piece.len()].copy_from_slice(piece));
            }
        }
    }

    /// Appends the part of a train's bytes that lies below the file's `end`.
    pub(super) fn collect(&self, train: &Train, end: u64, into: &mut Vec<u8>) {
        let first = self.place(train.offset);
        if train.end() <= end {
            let image = &self.bytes[first..];
            let (bytes, stride) = (train.bytes as usize, train.stride as usize);
            match bytes {
                _ if stride == bytes => into.extend_from_slice(&image[..train.total() as usize]),
                8 => (0..train.count as usize)
                    .for_each(|number| into.extend_from_slice(&fixed::<8>(&image[number * stride..]))),
                _ => (0..train.count as usize)
                    .for_each(|number| into.extend_from_slice(&image[number * stride..][..bytes])),
            }
            return;
        }
        for start in train.starts() {
            let bytes = end.saturating_sub(start).min(train.bytes) as usize;
            into.extend_from_slice(&self.bytes[first + (start - train.offset) as usize..][..bytes]);
        }
    }

    /// What is covered, in the order of the file.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            let end = self.slots.get(number + 1).map_or(self.bytes.len(), |next| next.at);
            let mut at = slot.at;
            while let Some(from) = self.next(at, end, true) {
                at = self.next(from, end, false).unwrap_or(end);
                runs.push(Run { offset: slot.low + (from - slot.at) as u64, at: from, bytes: at - from });
            }
        }
        runs
    }

    /// The first byte from `at` on, and before `end`, that is covered or is not.
    fn next(&self, mut at: usize, end: usize, covered: bool) -> Option<usize> {
        let word = WORD as usize;
        while at < end {
            let bits = (if covered { self.covered[at / word] } else { !self.covered[at / word] }) >> (at % word);
            if bits != 0 {
                return Some(at + bits.trailing_zeros() as usize).filter(|at| *at < end);
            }
            at = (at / word + 1) * word;
        }
        None
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// Pieces of a size that the compiler knows: a copy is one instruction.
fn scatter<const N: usize>(image: &mut [u8], stride: usize, data: &[u8]) {
    let (pieces, _) = data.as_chunks::<N>();
    for (number, piece) in pieces.iter().enumerate() {
        image[number * stride..][..N].copy_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn train() -> impl Strategy<Value = Train> {
        (0u64..3, 0u64..2000, prop_oneof![Just(8u64), 1u64..80], 0u64..40, 1u64..12).prop_map(
            |(chunk, at, bytes, gap, count)| {
                let stride = bytes + gap;
                let count = count.min((4096 - at - bytes) / stride + 1);
                Train { offset: chunk * 4096 + at, bytes, stride, count }
            },
        )
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_file(trains in prop::collection::vec(train(), 0..20), end in 0u64..13_000) {
            let mut file: Vec<Option<u8>> = vec![None; 3 * 4096];
            let mut image = Image::over(trains.iter(), 4096);
            for (number, train) in trains.iter().enumerate() {
                let data: Vec<u8> = (0..train.total()).map(|i| (number * 31) as u8 ^ i as u8).collect();
                let places = train.starts().flat_map(|start| start..start + train.bytes);
                places.zip(&data).for_each(|(at, byte)| file[at as usize] = Some(*byte));
                image.paint(train, &data);
            }
            let mut got: Vec<Option<u8>> = vec![None; file.len()];
            let runs = image.runs();
            prop_assert!(runs.is_sorted_by_key(|run| run.offset));
            for run in &runs {
                let bytes = &image.bytes[run.at..][..run.bytes];
                got[run.offset as usize..][..run.bytes].iter_mut().zip(bytes).for_each(|(to, byte)| *to = Some(*byte));
            }
            prop_assert_eq!(&got, &file);
            for train in &trains {
                let mut collected = Vec::new();
                image.collect(train, end, &mut collected);
                let places = train.starts().flat_map(|start| start..start + train.bytes).filter(|at| *at < end);
                let wanted: Vec<u8> = places.filter_map(|at| file[at as usize]).collect();
                prop_assert_eq!(collected, wanted);
            }
        }
    }
}
