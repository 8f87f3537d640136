//! Finds libtalea and its table for a shim. Must never load it twice, and never before a `/talea/` path is met.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{LIBRARY, TABLE_SYMBOL, Table, TableFn, VERSION};

/// Why a shim has no client.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The library was not found or did not load.
    #[error("cannot load {LIBRARY}: {0} (start the program with `talea run` or `talea exec`, or set LD_LIBRARY_PATH)")]
    Library(String),
    /// The library has another version of the table.
    #[error("{LIBRARY} does not speak table version {VERSION}: install shim and library of the same Talea release")]
    Version,
}

/// Loads `libtalea.so.0` from beside the calling shim (`neighbour`: any function of it), else by the loader's own search, and returns its table.
pub fn load(neighbour: fn()) -> Result<&'static Table, LoadError> {
    // A build tree has the library under its linker name.
    let beside = directory_of(neighbour).and_then(|directory| {
        [LIBRARY, "libtalea.so"].map(|name| directory.join(name)).into_iter().find(|path| path.exists())
    });
    let name = beside.as_deref().unwrap_or(Path::new(LIBRARY));
    let c_name = CString::new(name.as_os_str().as_bytes()).map_err(|e| LoadError::Library(e.to_string()))?;
    // SAFETY: dlopen takes a NUL-terminated name; libtalea has no constructors that depend on the caller.
    let handle = unsafe { libc::dlopen(c_name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(LoadError::Library(dl_error()));
    }
    // SAFETY: the handle is open (and never closed), the symbol's name is NUL-terminated.
    let symbol = unsafe { libc::dlsym(handle, TABLE_SYMBOL.as_ptr().cast()) };
    if symbol.is_null() {
        return Err(LoadError::Library(dl_error()));
    }
    // SAFETY: libtalea exports `talea_table` with exactly this type in every version.
    let table_of: TableFn = unsafe { std::mem::transmute::<*mut std::ffi::c_void, TableFn>(symbol) };
    // SAFETY: any version number may be asked for; the answer is null or a table of static lifetime.
    let table = unsafe { table_of(VERSION).as_ref() }.ok_or(LoadError::Version)?;
    if table.size < size_of::<Table>() { Err(LoadError::Version) } else { Ok(table) }
}

/// Directory of the shared object that holds `function`.
pub fn directory_of(function: fn()) -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr accepts any address and fills the struct if it returns non-zero.
    if unsafe { libc::dladdr(function as *const std::ffi::c_void, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: zeroed is a valid Dl_info, and dladdr has filled it.
    let info = unsafe { info.assume_init() };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dli_fname is a NUL-terminated string that lives as long as the object is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Path::new(OsStr::from_bytes(name.to_bytes())).parent().map(Path::to_path_buf)
}

fn dl_error() -> String {
    // SAFETY: dlerror returns null or a NUL-terminated string of this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "unknown error".to_owned();
    }
    // SAFETY: checked non-null above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
