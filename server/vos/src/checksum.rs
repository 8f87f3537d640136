//! CRC-32C of stored bytes, by granules, and the arithmetic that joins them.
//!
//! One pass over the data gives both the checksum of the whole and those of its granules, so that a small read of a large
//! extent verifies one granule.

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use smallvec::SmallVec;

/// Bytes of a granule: what one stored checksum covers.
pub const GRANULE_BYTES: usize = 32 * 1024;

/// Checksums of the granules of one extent or value, in order.
pub type Granules = SmallVec<[u32; 4]>;

/// CRC-32C of bytes.
pub fn crc32c(data: &[u8]) -> u32 {
    crc_fast::checksum(Crc32Iscsi, data) as u32
}

/// CRC-32C of the concatenation of parts.
pub fn crc32c_of_parts(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

/// Checksums of the granules of `data`, and of all of it. No data has no granules.
pub fn granules(data: &[u8]) -> (Granules, u32) {
    let mut whole = Joined::default();
    let parts = data
        .chunks(GRANULE_BYTES)
        .map(|part| {
            let crc = crc32c(part);
            whole.push(crc, part.len() as u64);
            crc
        })
        .collect();
    (parts, whole.crc)
}

/// Checksum of a concatenation, built from the checksums of its parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joined {
    /// Checksum of what was pushed so far.
    pub crc: u32,
    any: bool,
    /// The last length, and what it shifts by: parts are often of one length.
    shift: (u64, u32),
}

impl Joined {
    /// Appends a part of `len` bytes with checksum `crc`.
    pub fn push(&mut self, crc: u32, len: u64) {
        if len == 0 {
            return;
        }
        if self.any && self.shift.0 != len {
            self.shift = (len, shift_of(len));
        }
        self.crc = if self.any { multiply(self.shift.1, self.crc) ^ crc } else { crc };
        self.any = true;
    }
}

/// The reflected polynomial of CRC-32C.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^(2^n) modulo the polynomial.
const POWERS: [u32; 32] = powers();

/// CRC of A followed by B from CRC(A), CRC(B) and the length of B in bytes (as in zlib's crc32_combine).
pub fn combine(first: u32, second: u32, second_bytes: u64) -> u32 {
    multiply(shift_of(second_bytes), first) ^ second
}

/// Product of two polynomials modulo ours, bits reflected.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut bit, mut product) = (1u32 << 31, 0);
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        bit >>= 1;
        b = if b & 1 != 0 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
    }
    product
}

const fn powers() -> [u32; 32] {
    let mut table = [1u32 << 30; 32];
    let mut n = 1;
    while n < 32 {
        table[n] = multiply(table[n - 1], table[n - 1]);
        n += 1;
    }
    table
}

/// x^(8 * bytes) modulo the polynomial.
const fn shift_of(mut bytes: u64) -> u32 {
    let (mut product, mut k) = (1u32 << 31, 3);
    while bytes != 0 {
        if bytes & 1 != 0 {
            product = multiply(POWERS[k & 31], product);
        }
        bytes >>= 1;
        k += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_join_to_the_whole(a in prop::collection::vec(any::<u8>(), 0..300), b in prop::collection::vec(any::<u8>(), 0..300)) {
            let whole: Vec<u8> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(combine(crc32c(&a), crc32c(&b), b.len() as u64), crc32c(&whole));
            let mut joined = Joined::default();
            joined.push(crc32c(&a), a.len() as u64);
            joined.push(crc32c(&b), b.len() as u64);
            prop_assert_eq!(joined.crc, crc32c(&whole));
        }
    }

    #[test]
    fn granules_cover_everything() {
        let data: Vec<u8> = (0..3 * GRANULE_BYTES as u32 + 77).map(|n| (n * 7 + n / 251) as u8).collect();
        let (parts, whole) = granules(&data);
        assert_eq!(parts.len(), 4);
        assert_eq!(whole, crc32c(&data));
        assert_eq!(granules(&[]), (Granules::new(), crc32c(&[])));
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    }
}
