//! What every entry point does around its work: catch panics, refuse forked children, keep the error's text for the thread.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use talea_abi::Code;
use talea_posix::Fault;

use crate::{meter, process};

thread_local! {
    static ERROR: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// Runs an entry point's work and returns its code, 0 or positive; the time counts as I/O.
pub(crate) fn code(work: impl FnOnce() -> Result<(), Fault>) -> Code {
    let began = meter::begin();
    let code = untimed(work);
    meter::end(began);
    code
}

/// The same without the time: for calls that wait for other programs.
fn untimed(work: impl FnOnce() -> Result<(), Fault>) -> Code {
    let result = catch_unwind(AssertUnwindSafe(|| {
        process::check_fork()?;
        work()
    }));
    match result {
        Ok(Ok(())) => Code::Ok,
        Ok(Err(fault)) => {
            remember(&fault.text);
            fault.code
        }
        Err(panic) => {
            let why = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let why = why.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            remember(&format!("libtalea met a bug and gave up this call ({why}): please report it"));
            Code::Other
        }
    }
}

/// For functions of the table: 0 or the negated code.
pub(crate) fn table(work: impl FnOnce() -> Result<(), Fault>) -> c_int {
    code(work).negated()
}

/// For functions of `talea.h`: 0 or the code.
pub(crate) fn public(work: impl FnOnce() -> Result<(), Fault>) -> c_int {
    code(work) as c_int
}

/// Leaves an operation's error with the thread, for the function that is told of its end.
pub(crate) fn with_error(fault: Option<Fault>) {
    if let Some(fault) = fault {
        remember(&fault.text);
    }
}

/// For functions of `talea.h` that wait for other programs.
pub(crate) fn waiting(work: impl FnOnce() -> Result<(), Fault>) -> c_int {
    untimed(work) as c_int
}

fn remember(text: &str) {
    let clean: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    let _ = ERROR.try_with(|error| {
        if let (Ok(mut error), Ok(text)) = (error.try_borrow_mut(), CString::new(clean)) {
            *error = Some(text);
        }
    });
}

/// The thread's last error text, valid until its next failing call.
pub(crate) extern "C" fn error_text() -> *const c_char {
    let text = ERROR.try_with(|error| error.try_borrow().ok()?.as_ref().map(|text| text.as_ptr()));
    text.ok().flatten().unwrap_or(c"".as_ptr())
}

/// A fault that a caller's argument caused.
pub(crate) fn argument(text: impl Into<String>) -> Fault {
    Fault::new(Code::Argument, text)
}

/// The caller's string.
///
/// # Safety
/// `text` is null or a NUL-terminated string that lives as long as `'a`.
pub(crate) unsafe fn string<'a>(text: *const c_char, what: &str) -> Result<&'a [u8], Fault> {
    // SAFETY: the caller says so.
    unsafe { optional_string(text) }.ok_or_else(|| argument(format!("the {what} is a null pointer")))
}

/// The caller's string, if there is one.
///
/// # Safety
/// As for [`string`].
pub(crate) unsafe fn optional_string<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and NUL-terminated by the caller's word.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// The caller's string as UTF-8.
///
/// # Safety
/// As for [`string`].
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Fault> {
    // SAFETY: the caller says so.
    let bytes = unsafe { string(text, what) }?;
    std::str::from_utf8(bytes).map_err(|_| argument(format!("the {what} is not UTF-8")))
}

/// The caller's bytes; a null pointer is fine for none.
///
/// # Safety
/// `data` is valid for reading `bytes` bytes for as long as `'a`.
pub(crate) unsafe fn bytes<'a>(data: *const u8, bytes: usize, what: &str) -> Result<&'a [u8], Fault> {
    // SAFETY: the caller says so.
    unsafe { slice(data, bytes, what) }
}

/// The caller's array; a null pointer is fine for none.
///
/// # Safety
/// `data` is valid for reading `count` values for as long as `'a`.
pub(crate) unsafe fn slice<'a, T>(data: *const T, count: usize, what: &str) -> Result<&'a [T], Fault> {
    check(data, count, what)?;
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: not null, aligned, its size does not overflow; valid by the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(data, count) })
}

/// The caller's array to fill; a null pointer is fine for none.
///
/// # Safety
/// `data` is valid for writing `count` values for as long as `'a`, and nothing else refers to them meanwhile.
pub(crate) unsafe fn slice_mut<'a, T>(data: *mut T, count: usize, what: &str) -> Result<&'a mut [T], Fault> {
    check(data, count, what)?;
    if count == 0 {
        return Ok(&mut []);
    }
    // SAFETY: not null, aligned, its size does not overflow; valid by the caller's word.
    Ok(unsafe { std::slice::from_raw_parts_mut(data, count) })
}

fn check<T>(data: *const T, count: usize, what: &str) -> Result<(), Fault> {
    if count == 0 {
        return Ok(());
    }
    if data.is_null() {
        return Err(argument(format!("a null pointer was given for the {what}")));
    }
    if !data.is_aligned() || count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(argument(format!("the pointer to the {what} is misaligned, or they are impossibly large")));
    }
    Ok(())
}

/// Puts a result where the caller wants it.
///
/// # Safety
/// `out` is null or valid for writing one `T`.
pub(crate) unsafe fn put<T>(out: *mut T, value: T, what: &str) -> Result<(), Fault> {
    if out.is_null() || !out.is_aligned() {
        return Err(argument(format!("no place for the {what}: the pointer is null or misaligned")));
    }
    // SAFETY: not null, aligned; valid by the caller's word.
    unsafe { out.write(value) };
    Ok(())
}

/// Checks a place for a result before the work that makes it.
pub(crate) fn place<T>(out: *mut T, what: &str) -> Result<(), Fault> {
    if out.is_null() || !out.is_aligned() {
        return Err(argument(format!("no place for the {what}: the pointer is null or misaligned")));
    }
    Ok(())
}
