//! Frames: whole messages on a byte stream, without I/O.
//!
//! Owns the framing (a little-endian `u32` of length, then so many bytes). Must never allocate by a length that it has not
//! checked. Used by [`crate::stream`] and by whoever drives a socket otherwise, such as the control plane's tokio side.

use thiserror::Error;

use crate::endpoint::MAX_MESSAGE_BYTES;

/// Bytes before each message.
pub const FRAME_HEADER_BYTES: usize = 4;

/// A frame whose announced length is more than the receiver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a frame of {announced_bytes} bytes was announced, at most {max_bytes} are taken")]
pub struct FrameTooLarge {
    /// The length in the frame's header.
    pub announced_bytes: u64,
    /// The receiver's limit.
    pub max_bytes: usize,
}

/// The header that goes before a message of `message_bytes`.
pub fn frame_header(message_bytes: usize, max_bytes: usize) -> Result<[u8; FRAME_HEADER_BYTES], FrameTooLarge> {
    let too_large = FrameTooLarge { announced_bytes: message_bytes as u64, max_bytes };
    if message_bytes > max_bytes {
        return Err(too_large);
    }
    u32::try_from(message_bytes).map(u32::to_le_bytes).map_err(|_| too_large)
}

/// Cuts a byte stream into messages. After an error the stream has no meaning any more.
pub struct FrameDecoder {
    max_bytes: usize,
    header: [u8; FRAME_HEADER_BYTES],
    header_filled: usize,
    body: Option<Vec<u8>>,
    body_filled: usize,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new(MAX_MESSAGE_BYTES)
    }
}

impl FrameDecoder {
    /// A decoder that takes messages of up to `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        FrameDecoder { max_bytes, header: [0; FRAME_HEADER_BYTES], header_filled: 0, body: None, body_filled: 0 }
    }

    /// Where the stream's next bytes go; never empty. Read into it, then call [`advance`](Self::advance).
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.body {
            Some(body) => &mut body[self.body_filled..],
            None => &mut self.header[self.header_filled..],
        }
    }

    /// Says that `read_bytes` of [`space`](Self::space) were filled; gives a message if that completed one.
    pub fn advance(&mut self, read_bytes: usize) -> Result<Option<Vec<u8>>, FrameTooLarge> {
        match &self.body {
            Some(body) => self.body_filled = (self.body_filled + read_bytes).min(body.len()),
            None => {
                self.header_filled = (self.header_filled + read_bytes).min(FRAME_HEADER_BYTES);
                if self.header_filled < FRAME_HEADER_BYTES {
                    return Ok(None);
                }
                let announced = u32::from_le_bytes(self.header);
                let body_bytes = usize::try_from(announced).unwrap_or(usize::MAX);
                if body_bytes > self.max_bytes {
                    return Err(FrameTooLarge { announced_bytes: announced.into(), max_bytes: self.max_bytes });
                }
                self.body = Some(vec![0; body_bytes]);
                self.body_filled = 0;
            }
        }
        let complete = self.body.as_ref().is_some_and(|body| body.len() == self.body_filled);
        if !complete {
            return Ok(None);
        }
        self.header_filled = 0;
        Ok(self.body.take())
    }

    /// Takes bytes from the front of `input` and moves it on, up to the end of one message.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameTooLarge> {
        while !input.is_empty() {
            let space = self.space();
            let take = space.len().min(input.len());
            let (now, later) = input.split_at(take);
            space[..take].copy_from_slice(now);
            *input = later;
            if let Some(message) = self.advance(take)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1usize..50, 1..40),
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                stream.extend_from_slice(&frame_header(message.len(), 300).unwrap());
                stream.extend_from_slice(message);
            }
            let mut decoder = FrameDecoder::new(300);
            let mut got = Vec::new();
            let mut rest = &stream[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (mut piece, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = later;
                while !piece.is_empty() {
                    got.extend(decoder.push(&mut piece).unwrap());
                }
            }
            prop_assert_eq!(got, messages);
        }

        #[test]
        fn garbage_never_makes_it_allocate_more_than_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = FrameDecoder::new(100);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match decoder.push(&mut rest) {
                    Ok(message) => prop_assert!(message.is_none_or(|m| m.len() <= 100)),
                    Err(_) => break,
                }
                prop_assert!(decoder.space().len() <= 100);
            }
        }
    }

    #[test]
    fn too_large_is_an_error_on_both_sides() {
        assert!(frame_header(101, 100).is_err());
        let mut decoder = FrameDecoder::new(100);
        assert!(decoder.push(&mut &101u32.to_le_bytes()[..]).is_err());
    }
}
