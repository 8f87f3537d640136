//! Data representations (MPI 4.1 §14.5): `native`, `internal`, `external32`, and those that the program registers.
//!
//! Owns the registry and the conversion of elements between memory and a file's form, which lies contiguously in a buffer. Must
//! never do I/O.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use crate::abi::*;
use crate::datatype::{self, Leaf};
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
            Representation::External32 => return external32_bytes_of(handle),
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
        mixed: Option<&Mixed>,
        file: &mut [u8],
    ) -> Result<(), Failure> {
        match self {
            Representation::User(registered) => {
                let memory = memory.cast_mut();
                // SAFETY: the program's function; `file` has room for the elements as its extent function measured them.
                self.converted(unsafe { registered.convert(true, memory, handle, count, file.as_mut_ptr().cast()) })
            }
            _ => match mixed {
                Some(mixed) => mixed.each(memory.cast_mut(), count, file, |memory, leaf, file| {
                    // SAFETY: a part of the program's elements, and of a buffer of the size that MPI measured.
                    unsafe { pack(memory, leaf.count, leaf.kind, file) }
                }),
                // SAFETY: the program's elements, and a buffer of the size that MPI measured.
                None => unsafe { pack(memory, count, handle, file) },
            },
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
        mixed: Option<&Mixed>,
    ) -> Result<(), Failure> {
        match self {
            Representation::User(registered) => {
                // SAFETY: the program's function; `file` holds the elements as its extent function measured them.
                self.converted(unsafe { registered.convert(false, memory, handle, count, file.as_mut_ptr().cast()) })
            }
            _ => match mixed {
                Some(mixed) => mixed.each(memory, count, file, |memory, leaf, file| {
                    // SAFETY: as for writing.
                    unsafe { unpack(file, memory, leaf.count, leaf.kind) }
                }),
                // SAFETY: as for writing.
                None => unsafe { unpack(file, memory, count, handle) },
            },
        }
    }

    /// How to convert elements of a datatype that consists of several predefined types: MPICH's conversion to external32 ends the process
    /// when it meets one.
    pub(crate) fn mixed(&self, handle: MPI_Datatype) -> Result<Option<Mixed>, Failure> {
        if !matches!(self, Representation::External32) {
            return Ok(None);
        }
        let leaves = datatype::leaves(handle)?;
        if leaves.windows(2).all(|pair| pair[0].kind == pair[1].kind) {
            return Ok(None);
        }
        let measured = |leaf: Leaf| {
            let bytes = self.bytes_of(leaf.kind)?.checked_mul(u64::from(leaf.count.unsigned_abs()));
            let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
            bytes.map(|bytes| (leaf, bytes)).ok_or_else(|| Failure::refused(MPI_ERR_TYPE, "a datatype is too large"))
        };
        let leaves = leaves.into_iter().map(measured).collect::<Result<_, _>>()?;
        Ok(Some(Mixed { leaves, extent: datatype::extent_of_type(handle)? }))
    }
}

const EXTERNAL32: &CStr = c"external32";

/// A datatype of several predefined types.
pub(crate) struct Mixed {
    /// Each with the bytes that it takes in the file.
    leaves: Vec<(Leaf, usize)>,
    extent: i64,
}

impl Mixed {
    /// Calls `convert` with the memory of each leaf of `count` elements, and its part of `file`.
    fn each(
        &self,
        memory: *mut c_void,
        count: c_int,
        file: &mut [u8],
        convert: impl Fn(*mut c_void, &Leaf, &mut [u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest = file;
        for element in 0..i64::from(count) {
            for (leaf, bytes) in &self.leaves {
                let (part, after) = rest.split_at_mut_checked(*bytes).ok_or_else(|| {
                    Failure::refused(MPI_ERR_CONVERSION, "external32: a type's parts exceed its size in the file")
                })?;
                let at = element.wrapping_mul(self.extent).wrapping_add(leaf.at);
                convert(memory.wrapping_byte_offset(at as isize), leaf, part)?;
                rest = after;
            }
        }
        Ok(())
    }
}

/// # Safety
/// `memory` has `count` elements of the datatype.
unsafe fn pack(memory: *const c_void, count: c_int, handle: MPI_Datatype, file: &mut [u8]) -> Result<(), Failure> {
    let (name, into, mut position) = (EXTERNAL32.as_ptr(), file.as_mut_ptr().cast(), 0);
    let bytes = MPI_Aint::try_from(file.len()).unwrap_or(MPI_Aint::MAX);
    // SAFETY: the caller vouches for the elements; a buffer of so many bytes.
    let value = unsafe { (mpi()?.MPI_Pack_external)(name, memory, count, handle, into, bytes, &raw mut position) };
    checked("MPI_Pack_external", value)
}

/// # Safety
/// `memory` has `count` elements of the datatype.
unsafe fn unpack(file: &[u8], memory: *mut c_void, count: c_int, handle: MPI_Datatype) -> Result<(), Failure> {
    let (name, from, mut position) = (EXTERNAL32.as_ptr(), file.as_ptr().cast(), 0);
    let bytes = MPI_Aint::try_from(file.len()).unwrap_or(MPI_Aint::MAX);
    // SAFETY: as for packing.
    let value = unsafe { (mpi()?.MPI_Unpack_external)(name, from, bytes, &raw mut position, memory, count, handle) };
    checked("MPI_Unpack_external", value)
}

/// Bytes of a predefined type in external32. Open MPI's word for it differs from what it packs: a long has four bytes.
#[cfg(family = "openmpi")]
fn external32_bytes_of(handle: MPI_Datatype) -> Result<u64, Failure> {
    // The longest predefined type has 32 bytes.
    let (memory, mut file, mut position) = ([0_u64; 16], [0_u64; 16], 0);
    datatype::size_of_type(handle)?;
    let (from, into) = (memory.as_ptr().cast(), file.as_mut_ptr().cast());
    // SAFETY: one element of a predefined type goes out, and there is room for it.
    let value =
        unsafe { (mpi()?.MPI_Pack_external)(EXTERNAL32.as_ptr(), from, 1, handle, into, 128, &raw mut position) };
    checked("MPI_Pack_external", value)?;
    u64::try_from(position).map_err(|_| Failure::refused(MPI_ERR_CONVERSION, "a type's size in the file is negative"))
}

/// Bytes of a predefined type in external32. Types that MPICH cannot convert are refused: it would end the process.
#[cfg(not(family = "openmpi"))]
fn external32_bytes_of(handle: MPI_Datatype) -> Result<u64, Failure> {
    let mut bytes: MPI_Aint = 0;
    let memory_bytes = datatype::size_of_type(handle)?;
    // SAFETY: a NUL-terminated name, a handle that MPI checks, and a place for the answer.
    let value = unsafe { (mpi()?.MPI_Pack_external_size)(EXTERNAL32.as_ptr(), 1, handle, &raw mut bytes) };
    checked("MPI_Pack_external_size", value)?;
    // Only a long is converted to another size than it has in memory.
    match (u64::try_from(bytes), memory_bytes) {
        (Ok(bytes), memory) if bytes == memory => Ok(bytes),
        (Ok(4), 8) => Ok(4),
        _ => {
            let text = "this MPI converts no pairs (as MPI_2INT) and no MPI_WCHAR to external32: use other types, or \"native\"";
            Err(Failure::refused(MPI_ERR_UNSUPPORTED_DATAREP, text))
        }
    }
}

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
