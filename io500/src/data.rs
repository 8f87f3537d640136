//! What is written, and whether what is read is it.
//!
//! Every 8-byte word tells its file, its transfer and its place, so that a byte in the wrong place is found.

/// Scrambles a number (the finalizer of SplitMix64).
fn scramble(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// First word of transfer `transfer` of the rank `writer`.
fn first_word(writer: i32, transfer: u64) -> u64 {
    scramble(scramble(writer.cast_unsigned().into()) ^ transfer)
}

/// Fills a transfer's buffer.
pub(crate) fn fill(buffer: &mut [u8], writer: i32, transfer: u64) {
    let mut word = first_word(writer, transfer);
    for bytes in buffer.chunks_exact_mut(8) {
        bytes.copy_from_slice(&word.to_ne_bytes());
        word = word.wrapping_add(1);
    }
}

/// The byte of a transfer that is wrong, if one is.
pub(crate) fn wrong_at(buffer: &[u8], writer: i32, transfer: u64) -> Option<usize> {
    let mut word = first_word(writer, transfer);
    for (index, bytes) in buffer.chunks_exact(8).enumerate() {
        if bytes != word.to_ne_bytes() {
            return Some(index * 8);
        }
        word = word.wrapping_add(1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_bit_a_foreign_transfer_and_a_foreign_writer_are_found() {
        let mut buffer = vec![0_u8; 47008];
        fill(&mut buffer, 1, 7);
        assert_eq!(wrong_at(&buffer, 1, 7), None);
        assert_eq!(wrong_at(&buffer, 0, 7), Some(0));
        assert_eq!(wrong_at(&buffer, 1, 8), Some(0));
        buffer[40005] ^= 1;
        assert_eq!(wrong_at(&buffer, 1, 7), Some(40000));
    }
}
