//! An environment of our own for as long as libfabric reads it.
//!
//! It is replaced as a whole by one store and put back; no entry is changed in place, so that another thread that reads the environment
//! meanwhile reads one valid array or the other.

use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// One at a time: who came second would take the first one's environment for the program's.
static TURN: Mutex<()> = Mutex::new(());

/// The name of an entry, with its `=`.
fn name(entry: &CStr) -> &[u8] {
    let bytes = entry.to_bytes();
    &bytes[..bytes.iter().position(|byte| *byte == b'=').map_or(bytes.len(), |at| at + 1)]
}

/// Runs `work` under an environment in which these entries, `NAME=value`, take the place of the program's.
pub fn with<T>(own: &[&'static CStr], work: impl FnOnce() -> T) -> T {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: `environ` is the C library's pointer, aligned and always there; others store to it only in setenv and its kin.
    let current = unsafe { AtomicPtr::from_ptr(&raw mut environ) };
    let theirs = current.load(Ordering::Acquire);
    let mut ours: Vec<*mut c_char> = own.iter().map(|entry| entry.as_ptr().cast_mut()).collect();
    let mut hidden = Vec::new();
    let mut entry = theirs;
    // SAFETY: a null-terminated array of C strings; null only if the program cleared its environment.
    unsafe {
        while !entry.is_null() && !(*entry).is_null() {
            let text = CStr::from_ptr(*entry);
            if own.iter().any(|one| text.to_bytes().starts_with(name(one))) {
                hidden.push(text.to_owned());
            } else {
                ours.push(*entry);
            }
            entry = entry.add(1);
        }
    }
    ours.push(std::ptr::null_mut());
    // Never freed: another thread may be reading it when it is no longer current.
    let ours = ours.leak().as_mut_ptr();
    current.store(ours, Ordering::Release);
    let result = work();
    let put_back = current.compare_exchange(ours, theirs, Ordering::AcqRel, Ordering::Acquire);
    if put_back.is_err() {
        restore(own, &hidden);
    }
    result
}

/// Another thread called setenv meanwhile, which copied our array: its change stays, the program's own entries come back.
fn restore(own: &[&'static CStr], hidden: &[CString]) {
    for one in own {
        let name = name(one);
        let Ok(bare) = CString::new(&name[..name.len().saturating_sub(1)]) else { continue };
        let theirs = hidden.iter().find(|entry| entry.to_bytes().starts_with(name));
        // SAFETY: setenv and unsetenv take C strings and copy them.
        unsafe {
            match theirs.map(|entry| entry.to_bytes_with_nul()[name.len()..].as_ptr()) {
                Some(value) => libc::setenv(bare.as_ptr(), value.cast(), 1),
                None => libc::unsetenv(bare.as_ptr()),
            };
        }
    }
}
