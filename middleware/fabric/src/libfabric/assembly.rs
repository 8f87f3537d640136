//! Putting a message together from its chunks, without I/O.
//!
//! Must never allocate by a length that was not checked, and takes chunks only in order, each of which brings the message on.

use crate::endpoint::MAX_MESSAGE_BYTES;

/// Bytes before each chunk: the message's length and the chunk's offset in it, little-endian `u32` each.
pub(crate) const HEADER_BYTES: usize = 8;

/// A chunk that no honest peer sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// The beginning of a message.
#[derive(Default)]
pub(crate) struct Assembly {
    bytes: Vec<u8>,
    total: usize,
}

/// The header of the chunk at `offset` of a message of `total` bytes, both of which are at most [`MAX_MESSAGE_BYTES`].
pub(crate) fn header(total: usize, offset: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&(total as u32).to_le_bytes());
    header[4..].copy_from_slice(&(offset as u32).to_le_bytes());
    header
}

impl Assembly {
    /// Takes a chunk; gives the message that it completes.
    pub(crate) fn take(&mut self, chunk: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        let (header, body) = chunk.split_at_checked(HEADER_BYTES).ok_or(Broken)?;
        let word = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).map_err(|_| Broken);
        let (total, offset) = (word(0)? as usize, word(4)? as usize);
        if total > MAX_MESSAGE_BYTES || offset != self.bytes.len() || body.len() > total.saturating_sub(offset) {
            return Err(Broken);
        }
        if offset == 0 {
            self.bytes = Vec::with_capacity(total);
            self.total = total;
        }
        if total != self.total || (body.is_empty() && total > 0) {
            return Err(Broken);
        }
        self.bytes.extend_from_slice(body);
        Ok((self.bytes.len() == total).then(|| std::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..500), 0..10),
            cuts in prop::collection::vec(1usize..60, 1..30),
        ) {
            let mut assembly = Assembly::default();
            let mut cuts = cuts.iter().cycle();
            for message in messages {
                let mut offset = 0;
                loop {
                    let end = (offset + cuts.next().unwrap()).min(message.len());
                    let mut chunk = header(message.len(), offset).to_vec();
                    chunk.extend_from_slice(&message[offset..end]);
                    offset = end;
                    let got = assembly.take(&chunk).unwrap();
                    if offset == message.len() {
                        prop_assert_eq!(got, Some(message));
                        break;
                    }
                    prop_assert_eq!(got, None);
                }
            }
        }
    }

    #[test]
    fn chunks_that_no_honest_peer_sends_are_refused() {
        let chunk = |total, offset, body: &[u8]| [&header(total, offset), body].concat();
        assert_eq!(Assembly::default().take(&[0; 7]), Err(Broken));
        assert_eq!(Assembly::default().take(&chunk(MAX_MESSAGE_BYTES + 1, 0, b"x")), Err(Broken));
        assert_eq!(Assembly::default().take(&chunk(4, 1, b"x")), Err(Broken));
        assert_eq!(Assembly::default().take(&chunk(4, 0, b"12345")), Err(Broken));
        assert_eq!(Assembly::default().take(&chunk(4, 0, b"")), Err(Broken));
        let mut begun = Assembly::default();
        assert_eq!(begun.take(&chunk(4, 0, b"12")), Ok(None));
        assert_eq!(begun.take(&chunk(5, 2, b"34")), Err(Broken));
        assert_eq!(begun.take(&chunk(4, 2, b"34")), Ok(Some(b"1234".to_vec())));
    }
}
