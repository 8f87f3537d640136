//! What can go wrong in the driver, as MPI error codes whose text names the remedy.
//!
//! Owns the mapping from libtalea's codes to MPI's error classes, and the codes handed to the program: one per class, which
//! carries the text of its latest failure (MPI has no room for more texts than codes, and codes are never returned). Must never
//! return a code whose class differs from the failure's.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use talea_abi::Code;
use thiserror::Error;

use crate::abi::*;
use crate::real::{self, Mpi};

/// A failure of a call on a Talea file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Failure {
    /// libtalea said so; its text names the remedy.
    #[error("{doing}: {text}")]
    Storage {
        /// What the driver was about.
        doing: &'static str,
        /// libtalea's code.
        code: Code,
        /// libtalea's text.
        text: String,
    },
    /// Another rank of the communicator failed.
    #[error("rank {rank} failed: {text}")]
    Remote {
        /// Its rank in the file's communicator.
        rank: c_int,
        /// MPI error class of its failure.
        class: c_int,
        /// Its text.
        text: String,
    },
    /// The call is wrong, or asks for what the driver does not do.
    #[error("{text}")]
    Refused {
        /// MPI error class.
        class: c_int,
        /// What is wrong and what to do.
        text: String,
    },
    /// A function of MPI failed under the driver.
    #[error("{call} failed inside the MPI-IO driver with MPI error code {code}")]
    Mpi {
        /// The function.
        call: &'static str,
        /// What it returned.
        code: c_int,
    },
    /// The loaded MPI lacks a function.
    #[error("this MPI has no {0}: the driver is for {FAMILY} with MPI 3.0")]
    Missing(&'static str),
    /// A bug in the driver.
    #[error("the MPI-IO driver failed internally ({0}); the file's epoch is not committed by this call")]
    Panic(String),
}

impl Failure {
    /// A refusal of `class`.
    pub(crate) fn refused(class: c_int, text: impl Into<String>) -> Failure {
        Failure::Refused { class, text: text.into() }
    }

    /// The MPI error class.
    pub(crate) fn class(&self) -> c_int {
        match self {
            Failure::Storage { code, .. } => class_of(*code),
            Failure::Remote { class, .. } | Failure::Refused { class, .. } => *class,
            Failure::Mpi { code, .. } => class_of_mpi(*code),
            Failure::Missing(_) => MPI_ERR_OTHER,
            Failure::Panic(_) => MPI_ERR_INTERN,
        }
    }

    /// Of several ranks' failures the heaviest is told to all: the loss of a server before what follows from it. At least one.
    pub(crate) fn weight(&self) -> c_int {
        match self {
            Failure::Storage { code: Code::ServerLost, .. } => 3,
            Failure::Storage { code: Code::Deadline, .. } => 2,
            _ => 1,
        }
    }

    /// The code to return to the program.
    pub(crate) fn code(&self) -> c_int {
        match real::mpi() {
            Ok(mpi) if !crate::handle::forked() => register(mpi, self.class(), &self.to_string()),
            _ => self.class(),
        }
    }
}

/// MPI's functions, or why there are none.
pub(crate) fn mpi() -> Result<&'static Mpi, Failure> {
    real::mpi().map_err(Failure::Missing)
}

/// Turns the return value of MPI's `call` into a result.
pub(crate) fn checked(call: &'static str, code: c_int) -> Result<(), Failure> {
    if code == MPI_SUCCESS { Ok(()) } else { Err(Failure::Mpi { call, code }) }
}

fn class_of_mpi(code: c_int) -> c_int {
    let Ok(mpi) = real::mpi() else { return MPI_ERR_OTHER };
    let mut class = MPI_ERR_OTHER;
    // SAFETY: MPI_Error_class takes any code and fills the class.
    if unsafe { (mpi.MPI_Error_class)(code, &raw mut class) } == MPI_SUCCESS { class } else { MPI_ERR_OTHER }
}

/// MPI's class for a code of libtalea.
fn class_of(code: Code) -> c_int {
    match code {
        Code::Ok => MPI_SUCCESS,
        Code::Argument => MPI_ERR_ARG,
        Code::Path | Code::TooLong | Code::Kind => MPI_ERR_BAD_FILE,
        Code::NotFound | Code::NoContainer | Code::Retention => MPI_ERR_NO_SUCH_FILE,
        Code::Exists => MPI_ERR_FILE_EXISTS,
        Code::Access | Code::NotEmpty => MPI_ERR_ACCESS,
        Code::ReadOnly => MPI_ERR_READ_ONLY,
        Code::NoSpace => MPI_ERR_NO_SPACE,
        Code::Unsupported => MPI_ERR_UNSUPPORTED_OPERATION,
        Code::NoSystem
        | Code::ServerLost
        | Code::Deadline
        | Code::Aborted
        | Code::DataLost
        | Code::Version
        | Code::NotReady
        | Code::End
        | Code::ProducerLost
        | Code::Conflict
        | Code::InFlight => MPI_ERR_IO,
        Code::Other => MPI_ERR_OTHER,
    }
}

/// The codes handed out so far.
struct Codes {
    by_class: BTreeMap<c_int, c_int>,
    texts: BTreeMap<c_int, CString>,
}

static CODES: Mutex<Codes> = Mutex::new(Codes { by_class: BTreeMap::new(), texts: BTreeMap::new() });
static ANY: AtomicBool = AtomicBool::new(false);

/// Returns the driver's code of `class`, now with this text.
fn register(mpi: &Mpi, class: c_int, text: &str) -> c_int {
    let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
    let known = lock().by_class.get(&class).copied();
    let code = known.or_else(|| {
        let mut code = 0;
        // SAFETY: fills one int. Called without the lock.
        (unsafe { (mpi.MPI_Add_error_code)(class, &raw mut code) } == MPI_SUCCESS).then_some(code)
    });
    let Some(code) = code else { return class };
    // SAFETY: a code that MPI has just given out, and a NUL-terminated text that MPI copies.
    unsafe { (mpi.MPI_Add_error_string)(code, shortened(&text).as_ptr()) };
    let mut codes = lock();
    codes.by_class.insert(class, code);
    codes.texts.insert(code, text);
    ANY.store(true, Ordering::Release);
    code
}

fn lock() -> std::sync::MutexGuard<'static, Codes> {
    CODES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text cut to what MPI may copy into a buffer of `MPI_MAX_ERROR_STRING`.
fn shortened(text: &CStr) -> CString {
    let bytes = text.to_bytes();
    let limit = bytes.len().min(MPI_MAX_ERROR_STRING.cast_unsigned() as usize - 1);
    CString::new(&bytes[..limit]).unwrap_or_default()
}

/// `MPI_Error_string` for a code of the driver: MPICH 4.0 loses the text of a user's code in a predefined class. False if the
/// code is not the driver's.
///
/// # Safety
/// `text` and `length` are the program's arguments of `MPI_Error_string`.
pub(crate) unsafe fn error_string(code: c_int, text: *mut c_char, length: *mut c_int) -> bool {
    if !ANY.load(Ordering::Acquire) || text.is_null() || length.is_null() {
        return false;
    }
    let Some(known) = lock().texts.get(&code).map(|known| shortened(known)) else { return false };
    let bytes = known.as_bytes_with_nul();
    // SAFETY: MPI requires room for MPI_MAX_ERROR_STRING bytes in `text`, and `shortened` fits it; `length` points to an int.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), text, bytes.len());
        *length = c_int::try_from(bytes.len() - 1).unwrap_or(0);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_that_programs_test_for_are_told_apart() {
        let class = |code| Failure::Storage { doing: "open", code, text: String::new() }.class();
        assert_eq!(class(Code::NotFound), MPI_ERR_NO_SUCH_FILE);
        assert_eq!(class(Code::Exists), MPI_ERR_FILE_EXISTS);
        assert_eq!(class(Code::NoSpace), MPI_ERR_NO_SPACE);
        assert_eq!(class(Code::ReadOnly), MPI_ERR_READ_ONLY);
        assert_eq!(class(Code::Access), MPI_ERR_ACCESS);
        assert_eq!(class(Code::ServerLost), MPI_ERR_IO);
    }

    #[test]
    fn a_long_text_is_cut_to_what_mpi_allows() {
        let long = CString::new("x".repeat(2000)).unwrap_or_default();
        assert_eq!(shortened(&long).as_bytes().len(), MPI_MAX_ERROR_STRING as usize - 1);
    }
}
