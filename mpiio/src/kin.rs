//! The MPI that is in this process. A launcher preloads the driver of one family into everything that it starts, and what a script starts
//! may be a program of another one, whose handles and numbers mean nothing here.
//!
//! Owns the look at what is loaded and the sibling driver that is for it: such a process's calls go there, bit by bit, or without a
//! sibling to the MPI itself. Must never look at an argument of theirs but a path, nor load anything in a process of its own family.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::abi::FAMILY;
use crate::storage;

/// A family of MPI, as the loader and people know it.
struct Kin {
    /// As in [`FAMILY`].
    title: &'static str,
    /// File name of its driver.
    driver: &'static str,
    /// Value of `TALEA_MPI` that chooses it.
    wish: &'static str,
    /// Its number for `MPI_ERR_OTHER`.
    error: c_int,
}

const KIN: [Kin; 3] = [
    Kin { title: "the MPICH family (libmpi.so.12)", driver: "libtalea_mpiio.so", wish: "mpich", error: 15 },
    Kin { title: "Open MPI (libmpi.so.40)", driver: "libtalea_mpiio_openmpi.so", wish: "openmpi", error: 16 },
    Kin {
        title: "the MPI-5 standard ABI (libmpi_abi.so.1)",
        driver: "libtalea_mpiio_standard.so",
        wish: "standard",
        error: 16,
    },
];

/// Which of [`KIN`] a library belongs to, by its file name.
fn of_library(name: &[u8]) -> Option<usize> {
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    if name.starts_with(b"libmpi_abi.so") {
        Some(2)
    } else if name.starts_with(b"libmpi.so.40") {
        Some(1)
    } else if name.starts_with(b"libmpi") && has(b".so.12") {
        Some(0)
    } else {
        None
    }
}

/// The driver of the family that is in this process, which is not this one.
pub(crate) struct Foreign {
    kin: &'static Kin,
    /// The sibling's handle, or why there is none.
    sibling: Result<Library, String>,
}

/// A library that is never closed.
struct Library(*mut c_void);

// SAFETY: a handle of dlopen, good for any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

const UNKNOWN: u8 = 0;
const OURS: u8 = 1;
const THEIRS: u8 = 2;
static WHOSE: AtomicU8 = AtomicU8::new(UNKNOWN);
static FOREIGN: OnceLock<Foreign> = OnceLock::new();

/// The driver to hand a call to, if this process has the MPI of another family. One load of a number, once that is known.
pub(crate) fn foreign() -> Option<&'static Foreign> {
    match WHOSE.load(Ordering::Acquire) {
        OURS => None,
        THEIRS => FOREIGN.get(),
        _ => look(),
    }
}

#[cold]
fn look() -> Option<&'static Foreign> {
    let mut loaded = [false; KIN.len()];
    // SAFETY: calls back with valid structs and the pointer given here, while no library comes or goes.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut loaded).cast()) };
    let mine = KIN.iter().position(|kin| kin.title == FAMILY);
    // A process that has this family's library, too, is this family's; one that has none yet may load any.
    if mine.is_some_and(|mine| loaded[mine]) {
        WHOSE.store(OURS, Ordering::Release);
        return None;
    }
    let kin = &KIN[loaded.iter().position(|loaded| *loaded)?];
    let foreign = FOREIGN.get_or_init(|| Foreign { kin, sibling: sibling(kin) });
    WHOSE.store(THEIRS, Ordering::Release);
    Some(foreign)
}

unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, loaded: *mut c_void) -> c_int {
    // SAFETY: `look` passed its array, and the loader a valid struct.
    let (loaded, name) = unsafe { (&mut *loaded.cast::<[bool; KIN.len()]>(), (*info).dlpi_name) };
    if !name.is_null() {
        // SAFETY: not null, NUL-terminated.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
        let known = path.file_name().and_then(|name| of_library(name.as_bytes()));
        known.into_iter().for_each(|index| loaded[index] = true);
    }
    0
}

/// A function of this library, by whose address the loader finds its directory.
fn beside() {}

fn sibling(kin: &Kin) -> Result<Library, String> {
    let directory = talea_abi::loader::directory_of(beside).ok_or("its directory is unknown")?;
    let path = directory.join(kin.driver);
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: a NUL-terminated name; a driver has no constructors that depend on the caller.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() { Err(format!("{} cannot be loaded", path.display())) } else { Ok(Library(handle)) }
}

impl Foreign {
    /// Where a call by this name goes. Null if nobody has it.
    pub(crate) fn target(&self, name: &CStr) -> *mut c_void {
        let found = match &self.sibling {
            // SAFETY: an open handle and a NUL-terminated name.
            Ok(library) => unsafe { libc::dlsym(library.0, name.as_ptr()) },
            Err(_) => std::ptr::null_mut(),
        };
        // SAFETY: a NUL-terminated name.
        if found.is_null() { unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } } else { found }
    }

    /// Refuses a path of ours, with the number that the program's MPI has for other errors, if no driver can serve it.
    ///
    /// # Safety
    /// `path` is null or NUL-terminated.
    pub(crate) unsafe fn refuse(&self, path: *const c_char) -> Option<c_int> {
        let why = self.sibling.as_ref().err()?;
        if path.is_null() {
            return None;
        }
        // SAFETY: not null; MPI wants a NUL-terminated string.
        let path = unsafe { CStr::from_ptr(path) };
        if !storage::is_talea(path) {
            return None;
        }
        let Kin { title, wish, error, .. } = self.kin;
        eprintln!(
            "talea: {}: this program runs with {title}, the preloaded driver is for {FAMILY}, and {why}: set TALEA_MPI={wish} for `talea run`, and install that driver",
            path.to_string_lossy()
        );
        Some(*error)
    }
}

/// How an argument travels: in a whole register, whatever the family makes of it. In C a handle is an `int` with one family and a
/// pointer with the others; the machines that Talea runs on (x86-64, AArch64) pass both in the same place.
pub(crate) trait Passed {
    /// What arrives.
    type Word: Copy;
    /// What it is for this family.
    fn of(word: Self::Word) -> Self;
}

impl Passed for c_int {
    type Word = u64;
    fn of(word: u64) -> c_int {
        // The upper half of the register is undefined.
        (word as u32).cast_signed()
    }
}

/// Types that fill their register.
macro_rules! whole {
    ($(($($generic:ident)?) $kind:ty;)*) => {
        $(impl$(<$generic>)? Passed for $kind where Self: Copy {
            type Word = Self;
            fn of(word: Self) -> Self {
                word
            }
        })*
    };
}
whole! {
    () i64;
    () usize;
    () isize;
    (T) *mut T;
    (T) *const T;
    (T) Option<T>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_apart_by_their_names() {
        let family = |name: &str| of_library(name.as_bytes()).map(|index| KIN[index].wish);
        for name in
            ["libmpich.so.12", "libmpi.so.12.1.8", "libmpi_gnu_123.so.12", "libmpifort.so.12", "libmpi_cray.so.12"]
        {
            assert_eq!(family(name), Some("mpich"), "{name}");
        }
        assert_eq!(family("libmpi.so.40"), Some("openmpi"));
        assert_eq!(family("libmpi.so.40.30.4"), Some("openmpi"));
        assert_eq!(family("libmpi_abi.so.1"), Some("standard"));
        for name in ["libmpi_mpifh.so.40", "libhwloc.so.15", "libmpi.so", "libtalea_mpiio.so", ""] {
            assert_eq!(family(name), None, "{name}");
        }
        assert_eq!(KIN.iter().filter(|kin| kin.title == FAMILY).count(), 1);
    }

    #[test]
    fn an_int_is_the_lower_half_of_its_register() {
        assert_eq!(c_int::of(0xdead_beef_ffff_fffe), -2);
    }
}
