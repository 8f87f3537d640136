//! libpmem, loaded when it is needed: it knows each processor's flush and streaming copy.
//!
//! Loaded rather than linked, so that a system without pmem tiers does not need it.

use std::ffi::{c_int, c_void};

use libloading::os::unix::{Library as Loaded, RTLD_LOCAL, RTLD_NOW, Symbol};

use crate::TierError;
use crate::map::Mapping;

type Copy = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;
type Drain = unsafe extern "C" fn();
type IsPmem = unsafe extern "C" fn(*const c_void, usize) -> c_int;
type Sync = unsafe extern "C" fn(*const c_void, usize) -> c_int;

/// The functions used of libpmem 1.
pub(super) struct Library {
    copy: Symbol<Copy>,
    drain: Symbol<Drain>,
    is_pmem: Symbol<IsPmem>,
    sync: Symbol<Sync>,
    /// The symbols point into it.
    _loaded: Loaded,
}

impl Library {
    /// Loads the library.
    pub(super) fn load() -> Result<Self, TierError> {
        let missing = |error: libloading::Error| TierError::NoLibrary { why: error.to_string() };
        // SAFETY: libpmem's initialiser only detects the processor; it neither unwinds nor touches our memory.
        let loaded = unsafe { Loaded::open(Some("libpmem.so.1"), RTLD_NOW | RTLD_LOCAL) }.map_err(missing)?;
        // SAFETY: void *pmem_memcpy_nodrain(void *pmemdest, const void *src, size_t len), as in libpmem.h.
        let copy = unsafe { loaded.get::<Copy>(b"pmem_memcpy_nodrain\0") }.map_err(missing)?;
        // SAFETY: void pmem_drain(void), as in libpmem.h.
        let drain = unsafe { loaded.get::<Drain>(b"pmem_drain\0") }.map_err(missing)?;
        // SAFETY: int pmem_is_pmem(const void *addr, size_t len), as in libpmem.h.
        let is_pmem = unsafe { loaded.get::<IsPmem>(b"pmem_is_pmem\0") }.map_err(missing)?;
        // SAFETY: int pmem_msync(const void *addr, size_t len), as in libpmem.h.
        let sync = unsafe { loaded.get::<Sync>(b"pmem_msync\0") }.map_err(missing)?;
        Ok(Self { copy, drain, is_pmem, sync, _loaded: loaded })
    }

    /// Whether stores to a mapping are durable after a flush of their cache lines.
    pub(super) fn is_pmem(&self, map: &Mapping) -> bool {
        // SAFETY: address and length are those of a live mapping; the function only looks at its kind.
        unsafe { (self.is_pmem)(map.address(0).cast(), map.len() as usize) == 1 }
    }

    /// Copies and begins to flush; durable after [`drain`](Self::drain). The range must have been checked.
    pub(super) fn copy(&self, map: &mut Mapping, offset: u64, data: &[u8]) {
        let target = map.slice_mut(offset, data.len() as u64);
        // SAFETY: target is an exclusive slice of exactly data.len() bytes, so the two do not overlap.
        unsafe { (self.copy)(target.as_mut_ptr().cast(), data.as_ptr().cast(), data.len()) };
    }

    /// Waits until everything copied is durable.
    pub(super) fn drain(&self) {
        // SAFETY: a fence; it takes nothing and touches no memory.
        unsafe { (self.drain)() }
    }

    /// Writes pages back to their file; the range must lie inside the mapping and begin at a page.
    pub(super) fn sync(&self, map: &Mapping, offset: u64, len: u64) -> std::io::Result<()> {
        let range = map.slice(offset, len);
        // SAFETY: the range lies inside a live mapping, checked by the slice.
        match unsafe { (self.sync)(range.as_ptr().cast(), len as usize) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}
