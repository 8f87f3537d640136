//! Pieces of one rank on their way to the rank that moves them: equally long ones at equal distances are one train, so that
//! thousands of small strided pieces are a few numbers. Pure; must trust nothing that another rank sent.

/// Pieces of `bytes` bytes each, `stride` apart, inside one chunk of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Train {
    /// Offset of the first piece in the file.
    pub(super) offset: u64,
    /// Bytes of a piece.
    pub(super) bytes: u64,
    /// From one piece's start to the next one's; at least `bytes`.
    pub(super) stride: u64,
    /// Pieces.
    pub(super) count: u64,
}

/// Bytes of a train in a message.
const TRAIN_BYTES: usize = 32;

impl Train {
    /// One past the last byte.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.stride * (self.count - 1) + self.bytes
    }

    /// Bytes of all pieces.
    pub(super) fn total(&self) -> u64 {
        self.bytes * self.count
    }

    /// Where each piece begins.
    pub(super) fn starts(self) -> impl Iterator<Item = u64> {
        (0..self.count).map(move |number| self.offset + number * self.stride)
    }

    /// A train of a message, if it is one inside a chunk.
    fn checked(numbers: [u64; 4], chunk_bytes: u64) -> Option<Train> {
        let [offset, bytes, stride, count] = numbers;
        let span = stride.checked_mul(count.checked_sub(1)?)?.checked_add(bytes)?;
        let end = offset.checked_add(span)?;
        let good = bytes > 0 && stride >= bytes && offset / chunk_bytes == (end - 1) / chunk_bytes;
        good.then_some(Train { offset, bytes, stride, count })
    }
}

/// What a rank has for another one: trains, and for a write their data in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) trains: Vec<Train>,
    pub(super) data: Vec<u8>,
}

impl Parcel {
    /// Adds a piece; `same_chunk` says that it lies in the chunk of the piece before.
    pub(super) fn add(&mut self, offset: u64, bytes: u64, same_chunk: bool) {
        if let Some(last) = self.trains.last_mut().filter(|last| same_chunk && last.bytes == bytes) {
            if last.count > 1 && offset == last.offset + last.stride * last.count {
                last.count += 1;
                return;
            }
            if last.count == 1 && offset >= last.offset + bytes {
                (last.stride, last.count) = (offset - last.offset, 2);
                return;
            }
        }
        self.trains.push(Train { offset, bytes, stride: bytes, count: 1 });
    }

    /// The message: data first, which need not be moved for it, then the trains and their number.
    pub(super) fn into_message(self) -> Vec<u8> {
        let Parcel { trains, data: mut message } = self;
        message.reserve_exact(trains.len() * TRAIN_BYTES + 8);
        for train in &trains {
            for number in [train.offset, train.bytes, train.stride, train.count] {
                message.extend_from_slice(&number.to_ne_bytes());
            }
        }
        message.extend_from_slice(&(trains.len() as u64).to_ne_bytes());
        message
    }
}

/// Bytes of a message of `pieces` pieces with `bytes` bytes in all, at most.
pub(super) fn most_bytes(bytes: u64, pieces: u64) -> u64 {
    pieces.saturating_mul(TRAIN_BYTES as u64).saturating_add(bytes).saturating_add(8)
}

/// Takes a number off a message's end.
pub(super) fn last_number(message: &mut &[u8]) -> Option<u64> {
    let (front, number) = message.split_last_chunk()?;
    *message = front;
    Some(u64::from_ne_bytes(*number))
}

/// A message's trains and data. None if it is not one; whether the data are as many as the trains say is the caller's to check.
pub(super) fn opened(mut message: &[u8], chunk_bytes: u64) -> Option<(Vec<Train>, &[u8])> {
    let count = usize::try_from(last_number(&mut message)?).ok()?;
    let (data, list) = message.split_at_checked(message.len().checked_sub(count.checked_mul(TRAIN_BYTES)?)?)?;
    let number = |bytes: &[u8], at: usize| bytes[at * 8..][..8].try_into().map_or(0, u64::from_ne_bytes);
    let train = |bytes: &[u8]| Train::checked(std::array::from_fn(|at| number(bytes, at)), chunk_bytes);
    Some((list.chunks_exact(TRAIN_BYTES).map(train).collect::<Option<_>>()?, data))
}

/// Bytes of all trains.
pub(super) fn total(trains: &[Train]) -> Option<u64> {
    trains.iter().try_fold(0_u64, |sum, train| sum.checked_add(train.bytes.checked_mul(train.count)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_pieces_become_trains_and_survive_their_message() {
        let mut parcel = Parcel::default();
        for offset in [0, 16, 32, 48, 100, 108, 200] {
            parcel.add(offset, 8, offset > 0);
        }
        parcel.add(208, 4, true);
        parcel.add(4096, 4, false);
        parcel.data = vec![7; 64];
        let train = |offset, bytes, stride, count| Train { offset, bytes, stride, count };
        let wanted =
            [train(0, 8, 16, 4), train(100, 8, 8, 2), train(200, 8, 8, 1), train(208, 4, 4, 1), train(4096, 4, 4, 1)];
        assert_eq!(parcel.trains, wanted);
        assert_eq!(total(&wanted), Some(64));
        let message = parcel.into_message();
        assert_eq!(opened(&message, 4096), Some((wanted.to_vec(), &[7; 64][..])));
    }

    #[test]
    fn what_is_no_list_of_trains_is_told() {
        let message = |trains: &[[u64; 4]]| {
            let mut bytes: Vec<u8> = trains.iter().flatten().flat_map(|number| number.to_ne_bytes()).collect();
            bytes.extend((trains.len() as u64).to_ne_bytes());
            bytes
        };
        assert!(opened(&message(&[[0, 8, 16, 4]]), 4096).is_some());
        for bad in [[0, 0, 8, 1], [0, 8, 4, 2], [0, 8, 8, 0], [4090, 8, 8, 1], [u64::MAX, 8, 8, 1], [0, 8, u64::MAX, 3]]
        {
            assert_eq!(opened(&message(&[bad]), 4096), None, "{bad:?}");
        }
        let whole = message(&[[0, 8, 8, 1]]);
        assert_eq!(opened(&whole[1..], 4096), None);
        assert_eq!(opened(&[], 4096), None);
        assert_eq!(opened(&u64::MAX.to_ne_bytes(), 4096), None);
    }
}
