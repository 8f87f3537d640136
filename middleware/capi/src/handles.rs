//! Handles that C programs hold: numbers in the clothes of pointers, so that a freed, foreign or made-up one is told, not
//! followed. A number is never given twice.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use talea_posix::Fault;

use crate::boundary::argument;

/// Never dereferenced; multiples of 16, as an aligned pointer would be.
static NEXT: AtomicUsize = AtomicUsize::new(16);

/// All handles of one kind; `C` is the opaque type of the C side.
pub(crate) struct Handles<C, T> {
    what: &'static str,
    table: RwLock<Option<HashMap<usize, Arc<T>>>>,
    side: PhantomData<fn() -> C>,
}

impl<C, T> Handles<C, T> {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, table: RwLock::new(None), side: PhantomData }
    }

    /// A handle for a new thing.
    pub(crate) fn add(&self, thing: T) -> *mut C {
        let number = NEXT.fetch_add(16, Ordering::Relaxed);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.get_or_insert_default().insert(number, Arc::new(thing));
        number as *mut C
    }

    /// The thing behind a handle.
    pub(crate) fn get(&self, handle: *const C) -> Result<Arc<T>, Fault> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.as_ref().and_then(|table| table.get(&(handle as usize))).cloned().ok_or_else(|| self.unknown(handle))
    }

    /// Takes a handle back; calls that are using the thing in other threads finish with it.
    pub(crate) fn remove(&self, handle: *const C) -> Result<Arc<T>, Fault> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.as_mut().and_then(|table| table.remove(&(handle as usize))).ok_or_else(|| self.unknown(handle))
    }

    fn unknown(&self, handle: *const C) -> Fault {
        let what = self.what;
        argument(if handle.is_null() {
            format!("the {what} is a null pointer")
        } else {
            format!("this is no open {what}: it was closed, or never one of libtalea's")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talea_abi::Code;

    enum Opaque {}

    #[test]
    fn bad_handles_are_told() {
        let handles: Handles<Opaque, u32> = Handles::new("thing");
        assert_eq!(handles.get(std::ptr::null()).unwrap_err().code, Code::Argument);
        assert_eq!(handles.get(64 as *const Opaque).unwrap_err().code, Code::Argument);
        let handle = handles.add(7);
        assert_eq!(*handles.get(handle).unwrap(), 7);
        assert_eq!(*handles.remove(handle).unwrap(), 7);
        assert!(handles.get(handle).unwrap_err().text.contains("closed"));
        assert!(handles.remove(handle).is_err());
        assert_ne!(handles.add(8), handle, "never given twice");
    }
}
