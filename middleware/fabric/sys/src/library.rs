//! Loading libfabric: at first use, and as a copy of our own.
//!
//! An MPI in the same process may use libfabric too, initialised by the site's `FI_PROVIDER`. libfabric reads that variable
//! once, when it is first asked for anything, and filters for the whole process. So one shared copy would either miss the
//! providers that we need, or, initialised by us first, show MPI providers that the site has ruled out. Therefore:
//!
//! - The library's file is copied to a memfd and loaded from there: a second, independent instance, bound to itself
//!   (`RTLD_DEEPBIND`) and invisible to others (`RTLD_LOCAL`). Where that is forbidden the plain library serves.
//! - That instance is initialised under an environment of its own ([`crate::environment`]), in which `FI_PROVIDER` names only what we use.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::OnceLock;

use thiserror::Error;

use crate::bindings::{fi_info, fid_fabric};
use crate::environment;

/// Providers that our instance initialises, as `FI_PROVIDER` would name them; what libfabric layers on them comes with them.
const PROVIDERS: &CStr = c"FI_PROVIDER=tcp";
/// libfabric's interface version that we program against.
pub const API_VERSION: u32 = 1 << 16 | 17;

/// Why libfabric is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// No such library, or one that does not load.
    #[error("libfabric.so.1 does not load ({0}); install the package libfabric1 or use the TCP fabric")]
    Missing(String),
    /// The library lacks a function.
    #[error("libfabric.so.1 has no {0}: it is too old")]
    TooOld(&'static str),
}

type GetInfo = unsafe extern "C" fn(u32, *const c_char, *const c_char, u64, *const fi_info, *mut *mut fi_info) -> c_int;
type FreeInfo = unsafe extern "C" fn(*mut fi_info);
type DupInfo = unsafe extern "C" fn(*const fi_info) -> *mut fi_info;
type OpenFabric = unsafe extern "C" fn(*mut c_void, *mut *mut fid_fabric, *mut c_void) -> c_int;
type ExplainError = unsafe extern "C" fn(c_int) -> *const c_char;
type Version = unsafe extern "C" fn() -> u32;

/// The functions of libfabric that are not inline.
pub struct Library {
    /// `fi_getinfo`.
    pub getinfo: GetInfo,
    /// `fi_freeinfo`.
    pub freeinfo: FreeInfo,
    /// `fi_dupinfo`; of null it makes an empty one (`fi_allocinfo`).
    pub dupinfo: DupInfo,
    /// `fi_fabric`.
    pub fabric: OpenFabric,
    /// `fi_strerror`.
    pub strerror: ExplainError,
    /// `fi_version`.
    pub version: Version,
    /// Whether this instance is our own: else the process shares it.
    pub private: bool,
}

/// The library, loaded by the first call.
pub fn library() -> Result<&'static Library, LoadError> {
    static LIBRARY: OnceLock<Result<Library, LoadError>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(Clone::clone)
}

impl Library {
    /// What libfabric says of an error code (of either sign).
    pub fn explain(&self, code: i64) -> String {
        let code = c_int::try_from(code.unsigned_abs()).unwrap_or(c_int::MAX);
        // SAFETY: fi_strerror takes any value and returns a static string.
        unsafe { CStr::from_ptr((self.strerror)(code)) }.to_string_lossy().into_owned()
    }

    fn from_handle(handle: *mut c_void, private: bool) -> Result<Self, LoadError> {
        let symbol = |name: &'static CStr, called: &'static str| {
            // SAFETY: the handle is open and stays so; the name is a C string.
            let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if symbol.is_null() { Err(LoadError::TooOld(called)) } else { Ok(symbol) }
        };
        let getinfo = symbol(c"fi_getinfo", "fi_getinfo")?;
        let freeinfo = symbol(c"fi_freeinfo", "fi_freeinfo")?;
        let dupinfo = symbol(c"fi_dupinfo", "fi_dupinfo")?;
        let fabric = symbol(c"fi_fabric", "fi_fabric")?;
        let strerror = symbol(c"fi_strerror", "fi_strerror")?;
        let version = symbol(c"fi_version", "fi_version")?;
        // SAFETY: these are libfabric's documented functions, whose C types the fields' types are.
        Ok(unsafe {
            Library {
                getinfo: std::mem::transmute::<*mut c_void, GetInfo>(getinfo),
                freeinfo: std::mem::transmute::<*mut c_void, FreeInfo>(freeinfo),
                dupinfo: std::mem::transmute::<*mut c_void, DupInfo>(dupinfo),
                fabric: std::mem::transmute::<*mut c_void, OpenFabric>(fabric),
                strerror: std::mem::transmute::<*mut c_void, ExplainError>(strerror),
                version: std::mem::transmute::<*mut c_void, Version>(version),
                private,
            }
        })
    }

    /// Makes the instance initialise itself.
    fn initialise(&self) {
        let mut info = std::ptr::null_mut();
        // SAFETY: null hints, node and service are allowed; info is an out parameter, freed below.
        unsafe {
            if (self.getinfo)(API_VERSION, std::ptr::null(), std::ptr::null(), 0, std::ptr::null(), &mut info) == 0 {
                (self.freeinfo)(info);
            }
        }
    }
}

fn load() -> Result<Library, LoadError> {
    // SAFETY: loading a library runs its constructors; libfabric's do nothing before it is asked for something.
    let plain = unsafe { libc::dlopen(c"libfabric.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if plain.is_null() {
        return Err(LoadError::Missing(last_error()));
    }
    // The plain instance stays loaded and untouched: whoever asks for the library's name later must find it before our copy.
    let library = match open_copy(plain) {
        Ok(copy) => Library::from_handle(copy, true)?,
        Err(_) => Library::from_handle(plain, false)?,
    };
    if library.private {
        environment::with(&[PROVIDERS], || library.initialise());
    } else {
        library.initialise()
    }
    Ok(library)
}

fn last_error() -> String {
    // SAFETY: dlerror returns null or a string that is valid until this thread's next call of the dl functions.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// Loads a second instance of the library that `plain` is.
fn open_copy(plain: *mut c_void) -> io::Result<*mut c_void> {
    let mut original = File::open(path_of(plain)?)?;
    // SAFETY: the name is a C string; the result is checked.
    let fd = unsafe { libc::memfd_create(c"talea-libfabric".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let mut copy = unsafe { File::from_raw_fd(fd) };
    io::copy(&mut original, &mut copy)?;
    let path = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    // SAFETY: as in `load`; the file may be closed once it is mapped.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_DEEPBIND) };
    if handle.is_null() { Err(io::Error::other(last_error())) } else { Ok(handle) }
}

fn path_of(handle: *mut c_void) -> io::Result<String> {
    // SAFETY: the handle is open; dladdr fills `info` if it returns nonzero, with strings that live as long as the library.
    unsafe {
        let symbol = libc::dlsym(handle, c"fi_getinfo".as_ptr());
        let mut info: libc::Dl_info = std::mem::zeroed();
        if symbol.is_null() || libc::dladdr(symbol, &mut info) == 0 || info.dli_fname.is_null() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(CStr::from_ptr(info.dli_fname).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn providers(library: &Library) -> Vec<String> {
        let mut names = Vec::new();
        let mut info = std::ptr::null_mut();
        // SAFETY: as in `initialise`; the list and its attributes are valid until freed.
        unsafe {
            (library.getinfo)(API_VERSION, std::ptr::null(), std::ptr::null(), 0, std::ptr::null(), &mut info);
            let mut one: *mut fi_info = info;
            while !one.is_null() {
                names.push(CStr::from_ptr((*(*one).fabric_attr).prov_name).to_string_lossy().into_owned());
                one = (*one).next;
            }
            if !info.is_null() {
                (library.freeinfo)(info);
            }
        }
        names.sort();
        names.dedup();
        names
    }

    /// Runs alone in a process of its own when the test below starts it.
    #[test]
    fn child_under_a_site_filter() {
        let Ok(filter) = std::env::var("TALEA_TEST_SITE_FILTER") else { return };
        let ours = library().unwrap();
        assert!(ours.private);
        assert!(providers(ours).iter().all(|name| name.starts_with("tcp")) && !providers(ours).is_empty());
        assert_eq!(std::env::var("FI_PROVIDER").as_ref(), Ok(&filter), "the environment is as it was");
        // What MPI would see.
        // SAFETY: as in `load`.
        let plain = unsafe { libc::dlopen(c"libfabric.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let theirs = Library::from_handle(plain, false).unwrap();
        let seen = providers(&theirs);
        // Without its hardware a provider offers nothing, and then there is none.
        let of_filter = |name: &String| name.starts_with(&filter);
        assert!(seen.iter().all(of_filter) && (filter != "udp" || !seen.is_empty()), "{seen:?}");
    }

    #[test]
    fn the_sites_filter_holds_for_mpi_and_not_for_us() {
        for filter in ["udp", "verbs"] {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "library::tests::child_under_a_site_filter", "--nocapture"])
                .env("TALEA_TEST_SITE_FILTER", filter)
                .env("FI_PROVIDER", filter)
                .status()
                .unwrap();
            assert!(status.success(), "{filter}");
        }
    }

    #[test]
    fn errors_are_explained() {
        assert!(!library().unwrap().explain(-11).is_empty());
    }
}
