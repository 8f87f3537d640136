//! Data representations (MPI 4.1 §14.5): `native`, `internal`, `external32`, and those that the program registers.
//!
//! Owns the registry and the conversion of elements between memory and a file's form, which lies contiguously in a buffer. Must
//! never do I/O.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use crate::abi::*;
use crate::datatype;
use crate::error::{Failure, checked, mpi};

/// How data lies in a file.
#[derive(Clone)]
pub(crate) enum Representation {
    /// As in memory.
    Native,
    /// As in memory, by another name.
    Internal,
    /// Big-endian IEEE, with sizes that MPI fixes.
    External32,
    /// The program's own.
    User(Arc<Registered>),
}

/// A conversion function of the program, with a small or a large count.
#[derive(Clone, Copy)]
pub(crate) enum Conversion {
    /// None is needed.
    None,
    /// Of MPI_Register_datarep.
    Small(ConversionFn),
    /// Of MPI_Register_datarep_c.
    Large(LargeConversionFn),
}

/// What the program registered.
pub(crate) struct Registered {
    name: CString,
    read: Conversion,
    write: Conversion,
    extent: ExtentFn,
    state: *mut c_void,
}

// SAFETY: the state is the program's and only passed back to its own functions, as MPI says.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

static REGISTERED: Mutex<BTreeMap<Vec<u8>, Arc<Registered>>> = Mutex::new(BTreeMap::new());

/// `MPI_Register_datarep` (§14.5.3): a name is given once.
pub(crate) fn note(
    name: &CStr,
    read: Conversion,
    write: Conversion,
    extent: ExtentFn,
    state: *mut c_void,
) -> Result<(), Failure> {
    if let Ok(known) = Representation::named(name) {
        let text = format!("there is a data representation \"{}\" already", known.name().to_string_lossy());
        return Err(Failure::refused(MPI_ERR_DUP_DATAREP, text));
    }
    let registered = Registered { name: name.to_owned(), read, write, extent, state };
    let mut all = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(name.to_bytes().to_vec(), Arc::new(registered));
    Ok(())
}

impl Representation {
    /// By its name.
    pub(crate) fn named(name: &CStr) -> Result<Representation, Failure> {
        match name.to_bytes().to_ascii_lowercase().as_slice() {
            b"native" => return Ok(Representation::Native),
            b"internal" => return Ok(Representation::Internal),
            b"external32" => return Ok(Representation::External32),
            _ => {}
        }
        let all = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registered) = all.get(name.to_bytes()) {
            return Ok(Representation::User(registered.clone()));
        }
        let text = format!(
            "data representation \"{}\" is unknown: use \"native\", \"internal\", \"external32\" or one that MPI_Register_datarep made",
            name.to_string_lossy()
        );
        Err(Failure::refused(MPI_ERR_UNSUPPORTED_DATAREP, text))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &CStr {
        match self {
            Representation::Native => c"native",
            Representation::Internal => c"internal",
            Representation::External32 => c"external32",
            Representation::User(registered) => &registered.name,
        }
    }

    /// May predefined types have other sizes in the file than in memory?
    pub(crate) fn resizes(&self) -> bool {
        matches!(self, Representation::External32 | Representation::User(_))
    }

    /// Do bytes change on their way to the file (`writing`) or from it?
    pub(crate) fn converts(&self, writing: bool) -> bool {
        match self {
            Representation::Native | Representation::Internal => false,
            Representation::External32 => true,
            Representation::User(registered) => !matches!(registered.conversion(writing), Conversion::None),
        }
    }

    /// Bytes of a predefined type in the file.
    pub(crate) fn bytes_of(&self, handle: MPI_Datatype) -> Result<u64, Failure> {
        let mut bytes: MPI_Aint = 0;
        match self {
            Representation::Native | Representation::Internal => return datatype::size_of_type(handle),
            Representation::External32 => {
                // SAFETY: a NUL-terminated name, a handle that MPI checks, and a place for the answer.
                let value = unsafe { (mpi()?.MPI_Pack_external_size)(EXTERNAL32.as_ptr(), 1, handle, &raw mut bytes) };
                checked("MPI_Pack_external_size", value)?;
            }
            Representation::User(registered) => {
                // SAFETY: the program's function and state, of MPI's type.
                let value = unsafe { (registered.extent)(handle, &raw mut bytes, registered.state) };
                self.converted(value)?;
            }
        }
        u64::try_from(bytes).map_err(|_| Failure::refused(MPI_ERR_CONVERSION, "a type's size in the file is negative"))
    }

    fn converted(&self, value: c_int) -> Result<(), Failure> {
        if value == MPI_SUCCESS {
            return Ok(());
        }
        let name = self.name().to_string_lossy();
        let text = format!("a function of the data representation \"{name}\" failed with code {value}");
        Err(Failure::refused(MPI_ERR_CONVERSION, text))
    }

    /// Converts `count` elements at `memory` into `file`, which holds exactly them.
    ///
    /// # Safety
    /// `memory` has `count` elements of the datatype.
    pub(crate) unsafe fn write(
        &self,
        memory: *const c_void,
        count: c_int,
        handle: MPI_Datatype,
        file: &mut [u8],
    ) -> Result<(), Failure> {
        let bytes = MPI_Aint::try_from(file.len()).unwrap_or(MPI_Aint::MAX);
        match self {
            Representation::User(registered) => {
                let memory = memory.cast_mut();
                // SAFETY: the program's function; `file` has room for the elements as its extent function measured them.
                self.converted(unsafe { registered.convert(true, memory, handle, count, file.as_mut_ptr().cast()) })
            }
            _ => {
                let (name, mut position) = (EXTERNAL32.as_ptr(), 0);
                let into = file.as_mut_ptr().cast();
                // SAFETY: the program's elements, and a buffer of the size that MPI measured.
                let value =
                    unsafe { (mpi()?.MPI_Pack_external)(name, memory, count, handle, into, bytes, &raw mut position) };
                checked("MPI_Pack_external", value)
            }
        }
    }

    /// Converts `count` elements in `file` into `memory`.
    ///
    /// # Safety
    /// `memory` has `count` elements of the datatype.
    pub(crate) unsafe fn read(
        &self,
        file: &mut [u8],
        memory: *mut c_void,
        count: c_int,
        handle: MPI_Datatype,
    ) -> Result<(), Failure> {
        let bytes = MPI_Aint::try_from(file.len()).unwrap_or(MPI_Aint::MAX);
        match self {
            Representation::User(registered) => {
                // SAFETY: the program's function; `file` holds the elements as its extent function measured them.
                self.converted(unsafe { registered.convert(false, memory, handle, count, file.as_mut_ptr().cast()) })
            }
            _ => {
                let (name, mut position) = (EXTERNAL32.as_ptr(), 0);
                let from = file.as_ptr().cast();
                // SAFETY: as for MPI_Pack_external.
                let value = unsafe {
                    (mpi()?.MPI_Unpack_external)(name, from, bytes, &raw mut position, memory, count, handle)
                };
                checked("MPI_Unpack_external", value)
            }
        }
    }
}

const EXTERNAL32: &CStr = c"external32";

impl Registered {
    fn conversion(&self, writing: bool) -> Conversion {
        if writing { self.write } else { self.read }
    }

    /// # Safety
    /// Both buffers hold `count` elements, each in its form.
    unsafe fn convert(
        &self,
        writing: bool,
        memory: *mut c_void,
        handle: MPI_Datatype,
        count: c_int,
        file: *mut c_void,
    ) -> c_int {
        // SAFETY: the program's own function and state; the position counts from the buffer's start (§14.5.3).
        unsafe {
            match self.conversion(writing) {
                Conversion::None => MPI_SUCCESS,
                Conversion::Small(function) => function(memory, handle, count, file, 0, self.state),
                Conversion::Large(function) => function(memory, handle, count.into(), file, 0, self.state),
            }
        }
    }
}
