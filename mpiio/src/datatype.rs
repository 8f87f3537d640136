//! Datatypes of MPI flattened to runs of bytes.
//!
//! Owns the walk over a datatype's envelope and contents. Must never pack, and must keep the type map's order: it decides
//! which byte of the memory meets which byte of the file.

mod contents;
mod distribute;
mod layout;

use std::ffi::c_int;

use contents::{Contents, Envelope, malformed};
pub(crate) use layout::{Cursor, Layout};

use crate::abi::*;
use crate::error::{Failure, checked, mpi};
use crate::real::Mpi;
use crate::representation::Representation;

/// Runs that one datatype may flatten to: 1 GiB of them in memory. Larger ones are refused instead of exhausting memory.
const MAX_RUNS: usize = 1 << 26;

/// A datatype that the driver keeps beyond the program's call: a duplicate, freed with the value; a predefined one is kept as it is.
pub(crate) struct KeptType {
    /// The handle.
    pub(crate) handle: MPI_Datatype,
    owned: bool,
}

impl KeptType {
    /// A predefined type.
    pub(crate) const fn predefined(handle: MPI_Datatype) -> KeptType {
        KeptType { handle, owned: false }
    }

    /// Duplicates `handle` unless it is predefined.
    pub(crate) fn duplicate(handle: MPI_Datatype) -> Result<KeptType, Failure> {
        let owned = Envelope::of(mpi()?, handle)?.combiner != MPI_COMBINER_NAMED;
        Ok(KeptType { handle: if owned { duplicate(handle)? } else { handle }, owned })
    }

    /// A handle for the program: a duplicate, or the predefined type.
    pub(crate) fn given(&self) -> Result<MPI_Datatype, Failure> {
        if self.owned { duplicate(self.handle) } else { Ok(self.handle) }
    }

    /// Gives the handle up without freeing it, when MPI is no longer there to free it.
    pub(crate) fn free(self) {
        if self.owned
            && let Ok(mpi) = mpi()
        {
            free(mpi, self.handle);
        }
    }
}

fn duplicate(handle: MPI_Datatype) -> Result<MPI_Datatype, Failure> {
    let mut new = MPI_DATATYPE_NULL();
    // SAFETY: a handle that MPI has accepted before, and a place for the new one.
    checked("MPI_Type_dup", unsafe { (mpi()?.MPI_Type_dup)(handle, &raw mut new) })?;
    Ok(new)
}

fn free(mpi: &Mpi, mut handle: MPI_Datatype) {
    // SAFETY: a handle that this driver got from MPI and owns.
    unsafe { (mpi.MPI_Type_free)(&raw mut handle) };
}

/// Bytes of data in one element.
pub(crate) fn size_of_type(handle: MPI_Datatype) -> Result<u64, Failure> {
    if handle == MPI_DATATYPE_NULL() {
        return Err(Failure::refused(MPI_ERR_TYPE, "the datatype is MPI_DATATYPE_NULL"));
    }
    let mut size = 0;
    // SAFETY: MPI checks the handle and fills the size.
    checked("MPI_Type_size_x", unsafe { (mpi()?.MPI_Type_size_x)(handle, &raw mut size) })?;
    u64::try_from(size).map_err(|_| Failure::refused(MPI_ERR_TYPE, "the datatype's size exceeds 2^63 bytes"))
}

/// Extent of one element in bytes.
pub(crate) fn extent_of_type(handle: MPI_Datatype) -> Result<i64, Failure> {
    if handle == MPI_DATATYPE_NULL() {
        return Err(Failure::refused(MPI_ERR_TYPE, "the datatype is MPI_DATATYPE_NULL"));
    }
    let (mut lower, mut extent) = (0, 0);
    // SAFETY: MPI checks the handle and fills both numbers.
    let value = unsafe { (mpi()?.MPI_Type_get_extent_x)(handle, &raw mut lower, &raw mut extent) };
    checked("MPI_Type_get_extent_x", value)?;
    Ok(extent)
}

/// How many bytes a predefined type takes.
#[derive(Clone, Copy)]
pub(super) enum Measure<'a> {
    /// In memory.
    Native,
    /// In memory with its padding, and which type it is: runs of different types are not merged.
    Leaves,
    /// In a file, by its data representation; constructors' own displacements in bytes stay what they are (MPI 4.1 §14.5.1).
    File(&'a Representation),
}

/// Elements of one predefined type that follow each other in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// Where they begin, in bytes from the start of the datatype's element.
    pub(crate) at: i64,
    /// How many.
    pub(crate) count: c_int,
    /// The predefined type.
    pub(crate) kind: MPI_Datatype,
}

/// The predefined types that one element of a datatype consists of, in the order of its type map.
pub(crate) fn leaves(handle: MPI_Datatype) -> Result<Vec<Leaf>, Failure> {
    let mut runs = Runs::default();
    walk(mpi()?, handle, Measure::Leaves, &mut runs)?;
    let leaf = |(&(at, bytes), &kind): (&(i64, u64), &MPI_Datatype)| {
        let count = bytes / extent_of_type(kind)?.max(1).cast_unsigned();
        c_int::try_from(count).map(|count| Leaf { at, count, kind }).map_err(|_| too_far())
    };
    runs.runs.iter().zip(&runs.kinds).map(leaf).collect()
}

/// Flattens a datatype as it lies in memory.
pub(crate) fn flatten(handle: MPI_Datatype) -> Result<Layout, Failure> {
    let bytes = size_of_type(handle)?;
    let extent = extent_of_type(handle)?;
    let mut runs = Runs::default();
    walk(mpi()?, handle, Measure::Native, &mut runs)?;
    let layout = Layout::new(runs.runs, extent);
    if layout.bytes() == bytes {
        Ok(layout)
    } else {
        Err(Failure::refused(MPI_ERR_TYPE, format!("a datatype of {bytes} bytes flattens to {} bytes", layout.bytes())))
    }
}

/// Flattens a datatype as it lies in a file of this representation.
pub(crate) fn flatten_in(handle: MPI_Datatype, representation: &Representation) -> Result<Layout, Failure> {
    if !representation.resizes() {
        return flatten(handle);
    }
    // Checks the handle.
    size_of_type(handle)?;
    let mut runs = Runs::default();
    let measure = Measure::File(representation);
    walk(mpi()?, handle, measure, &mut runs)?;
    let extent = runs.extent(handle, measure)?;
    Ok(Layout::new(runs.runs, extent))
}

/// Runs under construction: (displacement, bytes) in type-map order, adjacent ones merged.
#[derive(Default)]
struct Runs {
    runs: Vec<(i64, u64)>,
    /// The predefined type of each run, where that is asked for.
    kinds: Vec<MPI_Datatype>,
    /// Lower and upper bound so far.
    bounds: Option<(i64, i64)>,
}

impl Runs {
    /// Appends a run, of a predefined type if that is asked for.
    fn push(&mut self, displacement: i64, bytes: u64, kind: Option<MPI_Datatype>) -> Result<(), Failure> {
        if bytes == 0 {
            return Ok(());
        }
        if let Some((start, length)) = self.runs.last_mut()
            && start.checked_add_unsigned(*length) == Some(displacement)
            && self.kinds.last().copied() == kind
        {
            *length += bytes;
            return Ok(());
        }
        if self.runs.len() >= MAX_RUNS {
            let text = format!("a datatype with more than {MAX_RUNS} pieces: use several smaller calls");
            return Err(Failure::refused(MPI_ERR_TYPE, text));
        }
        self.runs.push((displacement, bytes));
        self.kinds.extend(kind);
        Ok(())
    }

    /// Appends `count` copies of `child`, `stride` bytes apart, the first one at `at`.
    fn repeat(&mut self, child: &Child, at: i64, stride: i64, count: i64) -> Result<(), Failure> {
        if count > 0 {
            self.reach(child, at)?;
            let last = stride.checked_mul(count - 1).and_then(|far| at.checked_add(far)).ok_or_else(too_far)?;
            self.reach(child, last)?;
        }
        if let [(start, bytes)] = child.runs[..]
            && i64::try_from(bytes) == Ok(stride)
        {
            let total = bytes.checked_mul(count.max(0).cast_unsigned()).ok_or_else(too_far)?;
            return self.push(at.checked_add(start).ok_or_else(too_far)?, total, child.kinds.first().copied());
        }
        for index in 0..count {
            let base = stride.checked_mul(index).and_then(|far| at.checked_add(far)).ok_or_else(too_far)?;
            for (index, &(start, bytes)) in child.runs.iter().enumerate() {
                self.push(base.checked_add(start).ok_or_else(too_far)?, bytes, child.kinds.get(index).copied())?;
            }
        }
        Ok(())
    }
}

impl Runs {
    /// Widens the bounds to hold `child` at `at`.
    fn reach(&mut self, child: &Child, at: i64) -> Result<(), Failure> {
        let lower = at.checked_add(child.lower).ok_or_else(too_far)?;
        let upper = lower.checked_add(child.extent).ok_or_else(too_far)?;
        let (low, high) = self.bounds.unwrap_or((lower, upper));
        self.bounds = Some((low.min(lower), high.max(upper)));
        Ok(())
    }

    fn lower(&self) -> i64 {
        self.bounds.map_or(0, |(lower, _)| lower)
    }

    /// The extent of `handle`, whose runs these are: MPI's own word in memory (it may pad), the bounds in a file.
    fn extent(&self, handle: MPI_Datatype, measure: Measure<'_>) -> Result<i64, Failure> {
        match measure {
            Measure::Native | Measure::Leaves => extent_of_type(handle),
            Measure::File(_) => {
                self.bounds.map_or(Ok(0), |(lower, upper)| upper.checked_sub(lower).ok_or_else(too_far))
            }
        }
    }
}

fn too_far() -> Failure {
    Failure::refused(MPI_ERR_TYPE, "a datatype's displacement exceeds 2^63 bytes")
}

/// A flattened constituent, its lower bound and its extent.
struct Child {
    runs: Vec<(i64, u64)>,
    kinds: Vec<MPI_Datatype>,
    lower: i64,
    extent: i64,
}

/// Appends the runs of one element of `handle`.
fn walk(mpi: &Mpi, handle: MPI_Datatype, measure: Measure<'_>, runs: &mut Runs) -> Result<(), Failure> {
    let envelope = Envelope::of(mpi, handle)?;
    match envelope.combiner {
        MPI_COMBINER_NAMED | MPI_COMBINER_F90_REAL | MPI_COMBINER_F90_COMPLEX | MPI_COMBINER_F90_INTEGER => {
            return named(handle, measure, runs);
        }
        _ => {}
    }
    let contents = Contents::of(mpi, handle, &envelope, measure)?;
    match envelope.combiner {
        MPI_COMBINER_DUP => {
            let child = contents.child(0)?;
            runs.repeat(&child, 0, child.extent, 1)
        }
        MPI_COMBINER_RESIZED => {
            let child = contents.child(0)?;
            runs.repeat(&child, 0, child.extent, 1)?;
            let (lower, extent) = (contents.address(0)?, contents.address(1)?);
            runs.bounds = Some((lower, lower.checked_add(extent).ok_or_else(too_far)?));
            Ok(())
        }
        MPI_COMBINER_CONTIGUOUS => {
            let child = contents.child(0)?;
            runs.repeat(&child, 0, child.extent, contents.integer(0)?)
        }
        MPI_COMBINER_VECTOR | MPI_COMBINER_HVECTOR => vector(&contents, envelope.combiner, runs),
        MPI_COMBINER_INDEXED | MPI_COMBINER_HINDEXED => indexed(&contents, envelope.combiner, runs),
        MPI_COMBINER_INDEXED_BLOCK | MPI_COMBINER_HINDEXED_BLOCK => blocks(&contents, envelope.combiner, runs),
        MPI_COMBINER_STRUCT => structure(&contents, runs),
        MPI_COMBINER_SUBARRAY => distribute::subarray(&contents, runs),
        MPI_COMBINER_DARRAY => distribute::darray(&contents, runs),
        other => Err(Failure::refused(
            MPI_ERR_UNSUPPORTED_OPERATION,
            format!(
                "a datatype made by combiner {other} is not supported on Talea files: build it with an MPI-3 constructor"
            ),
        )),
    }
}

/// A predefined type: its bytes without holes, except for two pairs whose second part is aligned.
fn named(handle: MPI_Datatype, measure: Measure<'_>, runs: &mut Runs) -> Result<(), Failure> {
    if let Measure::File(representation) = measure {
        let bytes = representation.bytes_of(handle)?;
        runs.bounds = Some((0, i64::try_from(bytes).map_err(|_| too_far())?));
        return runs.push(0, bytes, None);
    }
    if let Measure::Leaves = measure {
        return runs.push(0, extent_of_type(handle)?.unsigned_abs(), Some(handle));
    }
    let bytes = size_of_type(handle)?;
    if handle == MPI_SHORT_INT() {
        runs.push(0, 2, None)?;
        return runs.push(4, bytes - 2, None);
    }
    runs.push(0, bytes, None)
}

/// Integers: count, block length (, stride in elements); address: stride in bytes.
fn vector(contents: &Contents<'_>, combiner: c_int, runs: &mut Runs) -> Result<(), Failure> {
    let child = contents.child(0)?;
    let stride = if combiner == MPI_COMBINER_VECTOR {
        contents.integer(2)?.checked_mul(child.extent).ok_or_else(too_far)?
    } else {
        contents.address(0)?
    };
    let block = block_of(&child, contents.integer(1)?)?;
    runs.repeat(&block, 0, stride, contents.integer(0)?)
}

/// `length` elements in a row, as one constituent.
fn block_of(child: &Child, length: i64) -> Result<Child, Failure> {
    let mut block = Runs::default();
    block.repeat(child, 0, child.extent, length)?;
    let extent = child.extent.checked_mul(length).ok_or_else(too_far)?;
    Ok(Child { lower: block.lower(), runs: block.runs, kinds: block.kinds, extent })
}

/// Integers: count, block lengths (, displacements in elements); addresses: displacements in bytes.
fn indexed(contents: &Contents<'_>, combiner: c_int, runs: &mut Runs) -> Result<(), Failure> {
    let child = contents.child(0)?;
    let count = contents.integer(0)?.max(0).cast_unsigned() as usize;
    for block in 0..count {
        let at = if combiner == MPI_COMBINER_INDEXED {
            contents.integer(1 + count + block)?.checked_mul(child.extent).ok_or_else(too_far)?
        } else {
            contents.address(block)?
        };
        runs.repeat(&child, at, child.extent, contents.integer(1 + block)?)?;
    }
    Ok(())
}

/// Integers: count, the common block length (, displacements in elements); addresses: displacements in bytes.
fn blocks(contents: &Contents<'_>, combiner: c_int, runs: &mut Runs) -> Result<(), Failure> {
    let child = contents.child(0)?;
    let count = contents.integer(0)?.max(0).cast_unsigned() as usize;
    let block = block_of(&child, contents.integer(1)?)?;
    for index in 0..count {
        let at = if combiner == MPI_COMBINER_INDEXED_BLOCK {
            contents.integer(2 + index)?.checked_mul(child.extent).ok_or_else(too_far)?
        } else {
            contents.address(index)?
        };
        runs.repeat(&block, at, block.extent, 1)?;
    }
    Ok(())
}

/// Integers: count, block lengths; addresses: displacements in bytes; one datatype a block.
fn structure(contents: &Contents<'_>, runs: &mut Runs) -> Result<(), Failure> {
    let count = contents.integer(0)?.max(0).cast_unsigned() as usize;
    for index in 0..count {
        let child = contents.child(index)?;
        runs.repeat(&child, contents.address(index)?, child.extent, contents.integer(1 + index)?)?;
    }
    Ok(())
}
