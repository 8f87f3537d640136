//! How a datatype was made: its constructor's arguments, as MPI hands them out, in one form for small and large counts.
//!
//! Owns the constituents that MPI hands out. Must never know what the arguments mean, but for where large counts stand.

use std::ffi::c_int;

use super::{Child, Measure, Runs, free, walk};
use crate::abi::*;
use crate::error::{Failure, checked};
use crate::real::{self, Mpi};

/// How a datatype was made, and of how many arguments.
pub(super) struct Envelope {
    integers: MPI_Count,
    addresses: MPI_Count,
    /// Large counts; only with constructors of MPI 4 (§5.1.13).
    counts: MPI_Count,
    datatypes: MPI_Count,
    pub(super) combiner: c_int,
}

impl Envelope {
    pub(super) fn of(mpi: &Mpi, handle: MPI_Datatype) -> Result<Envelope, Failure> {
        if let Some(get) = real::large_counts().envelope {
            let mut envelope = Envelope { integers: 0, addresses: 0, counts: 0, datatypes: 0, combiner: 0 };
            let Envelope { integers, addresses, counts, datatypes, combiner } = &mut envelope;
            // SAFETY: MPI checks the handle and fills five numbers.
            checked("MPI_Type_get_envelope_c", unsafe {
                get(handle, integers, addresses, counts, datatypes, combiner)
            })?;
            return Ok(envelope);
        }
        let (mut integers, mut addresses, mut datatypes, mut combiner) = (0, 0, 0, 0);
        // SAFETY: MPI checks the handle and fills four integers.
        let value = unsafe {
            (mpi.MPI_Type_get_envelope)(
                handle,
                &raw mut integers,
                &raw mut addresses,
                &raw mut datatypes,
                &raw mut combiner,
            )
        };
        checked("MPI_Type_get_envelope", value)?;
        let [integers, addresses, datatypes] = [integers, addresses, datatypes].map(MPI_Count::from);
        Ok(Envelope { integers, addresses, counts: 0, datatypes, combiner })
    }
}

/// The arguments that a datatype was made with; constituents that MPI handed out are freed with it.
pub(super) struct Contents<'a> {
    mpi: &'a Mpi,
    measure: Measure<'a>,
    integers: Vec<i64>,
    addresses: Vec<i64>,
    datatypes: Vec<MPI_Datatype>,
}

/// Arguments as MPI hands them out.
#[derive(Default)]
struct Raw {
    integers: Vec<c_int>,
    addresses: Vec<MPI_Aint>,
    counts: Vec<MPI_Count>,
    datatypes: Vec<MPI_Datatype>,
}

impl Contents<'_> {
    pub(super) fn of<'a>(
        mpi: &'a Mpi,
        handle: MPI_Datatype,
        envelope: &Envelope,
        measure: Measure<'a>,
    ) -> Result<Contents<'a>, Failure> {
        let raw = Raw::of(mpi, handle, envelope)?;
        let mut contents =
            Contents { mpi, measure, integers: Vec::new(), addresses: Vec::new(), datatypes: raw.datatypes };
        let integers = raw.integers.iter().map(|&n| i64::from(n));
        if raw.counts.is_empty() {
            contents.integers = integers.collect();
            contents.addresses = raw.addresses.iter().map(|&n| n as i64).collect();
        } else {
            (contents.integers, contents.addresses) =
                in_small_form(envelope.combiner, integers.collect(), raw.counts).ok_or_else(malformed)?;
        }
        Ok(contents)
    }

    pub(super) fn integer(&self, index: usize) -> Result<i64, Failure> {
        self.integers.get(index).copied().ok_or_else(malformed)
    }

    pub(super) fn address(&self, index: usize) -> Result<i64, Failure> {
        self.addresses.get(index).copied().ok_or_else(malformed)
    }

    pub(super) fn child(&self, index: usize) -> Result<Child, Failure> {
        let handle = *self.datatypes.get(index).ok_or_else(malformed)?;
        let mut runs = Runs::default();
        walk(self.mpi, handle, self.measure, &mut runs)?;
        let extent = runs.extent(handle, self.measure)?;
        Ok(Child { lower: runs.lower(), runs: runs.runs, kinds: runs.kinds, extent })
    }
}

impl Drop for Contents<'_> {
    fn drop(&mut self) {
        for &handle in &self.datatypes {
            if Envelope::of(self.mpi, handle).is_ok_and(|envelope| envelope.combiner != MPI_COMBINER_NAMED) {
                free(self.mpi, handle);
            }
        }
    }
}

impl Raw {
    fn of(mpi: &Mpi, handle: MPI_Datatype, envelope: &Envelope) -> Result<Raw, Failure> {
        let length = |n: MPI_Count| usize::try_from(n).unwrap_or(0);
        let small = |n: MPI_Count| c_int::try_from(n).map_err(|_| malformed());
        let mut raw = Raw {
            integers: vec![0; length(envelope.integers)],
            addresses: vec![0; length(envelope.addresses)],
            counts: vec![0; length(envelope.counts)],
            datatypes: vec![MPI_DATATYPE_NULL(); length(envelope.datatypes)],
        };
        let value = match real::large_counts().contents {
            // SAFETY: the arrays have the lengths that the envelope asked for.
            Some(get) => unsafe {
                get(
                    handle,
                    envelope.integers,
                    envelope.addresses,
                    envelope.counts,
                    envelope.datatypes,
                    raw.integers.as_mut_ptr(),
                    raw.addresses.as_mut_ptr(),
                    raw.counts.as_mut_ptr(),
                    raw.datatypes.as_mut_ptr(),
                )
            },
            // SAFETY: as above.
            None => unsafe {
                (mpi.MPI_Type_get_contents)(
                    handle,
                    small(envelope.integers)?,
                    small(envelope.addresses)?,
                    small(envelope.datatypes)?,
                    raw.integers.as_mut_ptr(),
                    raw.addresses.as_mut_ptr(),
                    raw.datatypes.as_mut_ptr(),
                )
            },
        };
        checked("MPI_Type_get_contents", value)?;
        Ok(raw)
    }
}

/// Arguments of a large-count constructor in the order of the small one (MPI 4.1 §5.1.13): integers and addresses.
fn in_small_form(combiner: c_int, integers: Vec<i64>, counts: Vec<i64>) -> Option<(Vec<i64>, Vec<i64>)> {
    let split = |at: usize| (at <= counts.len()).then(|| (counts[..at].to_vec(), counts[at..].to_vec()));
    let blocks = usize::try_from(*counts.first()?).ok()?;
    match combiner {
        MPI_COMBINER_CONTIGUOUS | MPI_COMBINER_VECTOR | MPI_COMBINER_INDEXED | MPI_COMBINER_INDEXED_BLOCK => {
            Some((counts, Vec::new()))
        }
        MPI_COMBINER_HVECTOR | MPI_COMBINER_HINDEXED_BLOCK => split(2),
        MPI_COMBINER_HINDEXED | MPI_COMBINER_STRUCT => split(blocks.checked_add(1)?),
        MPI_COMBINER_RESIZED => Some((Vec::new(), counts)),
        // ndims | sizes, subsizes, starts | order
        MPI_COMBINER_SUBARRAY => Some(([integers.get(..1)?, &counts[..], integers.get(1..)?].concat(), Vec::new())),
        // size, rank, ndims | gsizes | distribs, dargs, psizes, order
        MPI_COMBINER_DARRAY => Some(([integers.get(..3)?, &counts[..], integers.get(3..)?].concat(), Vec::new())),
        _ => None,
    }
}

pub(super) fn malformed() -> Failure {
    Failure::refused(MPI_ERR_TYPE, "MPI describes a datatype with other arguments than its constructor takes")
}
