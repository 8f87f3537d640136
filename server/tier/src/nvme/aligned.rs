//! Memory that a device can be given: aligned to a page.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

const ALIGNMENT_BYTES: usize = 4096;

/// A run of bytes, aligned to 4096.
pub(super) struct Aligned {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is owned by this value alone and reached only through borrows of it.
unsafe impl Send for Aligned {}

impl Aligned {
    /// Zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not 0 (at least one byte is asked for).
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Self { start, len },
            None => handle_alloc_error(layout),
        }
    }

    fn layout(len: usize) -> Layout {
        match Layout::from_size_align(len.max(1), ALIGNMENT_BYTES) {
            Ok(layout) => layout,
            Err(_) => panic!("{len} bytes are more than an address space holds"),
        }
    }

    /// Where it begins, for the kernel.
    pub(super) fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: start and len describe the allocation, which is initialised (zeroed).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsMut<[u8]> for Aligned {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout, and not freed before.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) };
    }
}
