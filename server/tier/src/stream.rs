//! Copies past the caches, into memory that its writer does not look at soon.
//!
//! An ordinary store fetches the line that it overwrites, and puts out of the cache what is used sooner. Must never return before what it
//! wrote is ordered before later stores: whoever is told of the bytes may read them.

/// From this size on it pays (docs/performance.md, "Copies past the caches").
const LEAST_BYTES: usize = 16 * 1024;

/// Copies `from` to `to`, which is as long.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a copy to a place of another size");
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if to.len() >= LEAST_BYTES {
        return x86::copy(to, from);
    }
    to.copy_from_slice(from);
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    /// A cache line, of which the processor writes none in parts if all of it follows at once.
    const LINE: usize = 64;

    pub(super) fn copy(to: &mut [u8], from: &[u8]) {
        let head = to.as_ptr().align_offset(LINE).min(to.len());
        let (head_to, to) = to.split_at_mut(head);
        let (head_from, from) = from.split_at(head);
        head_to.copy_from_slice(head_from);
        let lines = to.len() / LINE * LINE;
        for (to, from) in to[..lines].chunks_exact_mut(LINE).zip(from[..lines].chunks_exact(LINE)) {
            // SAFETY: both are a line long, and `to` begins at one.
            unsafe { line(to.as_mut_ptr().cast(), from.as_ptr().cast()) };
        }
        to[lines..].copy_from_slice(&from[lines..]);
        // SAFETY: no precondition; SSE2 is part of x86-64. Streaming stores are not ordered before later ones without it.
        unsafe { _mm_sfence() };
    }

    /// # Safety
    /// `from` is readable and `to` writable for 64 bytes, and `to` is aligned to 16.
    #[inline(always)]
    unsafe fn line(to: *mut __m128i, from: *const __m128i) {
        // SAFETY: the caller says so. All is read before anything is written, so that the stores follow each other.
        unsafe {
            let parts = [0, 1, 2, 3].map(|part| _mm_loadu_si128(from.add(part)));
            parts.into_iter().enumerate().for_each(|(part, value)| _mm_stream_si128(to.add(part), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_and_none_besides_from_any_place_to_any_place() {
        let from: Vec<u8> = (0..3 * LEAST_BYTES).map(|at| (at * 7 % 251) as u8).collect();
        for start in [0, 1, 15, 16, 63, 64] {
            for end in
                [0, 1, 63, 64, LEAST_BYTES - 1, LEAST_BYTES, LEAST_BYTES + 1, LEAST_BYTES + 104, 2 * LEAST_BYTES + 65]
            {
                for skip in [0, 3, 8] {
                    let mut to = vec![0xee; 3 * LEAST_BYTES];
                    copy(&mut to[start..start + end], &from[skip..skip + end]);
                    assert_eq!(&to[start..start + end], &from[skip..skip + end], "{end} bytes from {skip} to {start}");
                    assert!(to[..start].iter().chain(&to[start + end..]).all(|byte| *byte == 0xee));
                }
            }
        }
    }
}
