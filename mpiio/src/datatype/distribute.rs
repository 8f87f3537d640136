//! Subarray and distributed-array datatypes: products of what is owned in each dimension.

use super::{Contents, Runs, malformed, too_far};
use crate::abi::*;
use crate::error::Failure;

/// One dimension of a global array, in elements.
struct Dimension {
    size: i64,
    /// (start, length), ascending.
    owned: Vec<(i64, i64)>,
}

/// Integers: ndims, sizes, subsizes, starts, order.
pub(super) fn subarray(contents: &Contents<'_>, runs: &mut Runs) -> Result<(), Failure> {
    let count = dimensions(contents, 0)?;
    let mut dims = Vec::with_capacity(count);
    for d in 0..count {
        let owned = vec![(contents.integer(1 + 2 * count + d)?, contents.integer(1 + count + d)?)];
        dims.push(Dimension { size: contents.integer(1 + d)?, owned });
    }
    product(contents, dims, contents.integer(1 + 3 * count)?, runs)
}

/// Integers: size, rank, ndims, gsizes, distribs, dargs, psizes, order.
pub(super) fn darray(contents: &Contents<'_>, runs: &mut Runs) -> Result<(), Failure> {
    let count = dimensions(contents, 2)?;
    let at = |list: usize, d: usize| contents.integer(3 + list * count + d);
    // The process grid is row-major whatever the array's order is.
    let (mut rank, mut processes) = (contents.integer(1)?, contents.integer(0)?);
    let mut dims = Vec::with_capacity(count);
    for d in 0..count {
        let (size, grid) = (at(0, d)?, at(3, d)?.max(1));
        processes = (processes / grid).max(1);
        let coordinate = rank / processes;
        rank %= processes;
        let owned = owned(size, at(1, d)?, at(2, d)?, grid, coordinate)?;
        dims.push(Dimension { size, owned });
    }
    product(contents, dims, contents.integer(3 + 4 * count)?, runs)
}

fn dimensions(contents: &Contents<'_>, index: usize) -> Result<usize, Failure> {
    usize::try_from(contents.integer(index)?).map_err(|_| malformed())
}

/// What process `coordinate` of `grid` owns of a dimension.
fn owned(size: i64, distribution: i64, argument: i64, grid: i64, coordinate: i64) -> Result<Vec<(i64, i64)>, Failure> {
    let default = argument == i64::from(MPI_DISTRIBUTE_DFLT_DARG);
    let kind = i32::try_from(distribution).map_err(|_| malformed())?;
    let block = match kind {
        MPI_DISTRIBUTE_NONE => return Ok(vec![(0, size)]),
        MPI_DISTRIBUTE_BLOCK if default => (size + grid - 1) / grid,
        MPI_DISTRIBUTE_CYCLIC if default => 1,
        MPI_DISTRIBUTE_BLOCK | MPI_DISTRIBUTE_CYCLIC => argument,
        _ => return Err(malformed()),
    };
    let block = block.max(1);
    let cycle = block.checked_mul(grid).ok_or_else(too_far)?;
    let mut owned = Vec::new();
    let mut start = coordinate.checked_mul(block).ok_or_else(too_far)?;
    while start < size {
        owned.push((start, block.min(size - start)));
        if kind == MPI_DISTRIBUTE_BLOCK {
            break;
        }
        start = start.checked_add(cycle).ok_or_else(too_far)?;
    }
    Ok(owned)
}

/// Appends the elements at every combination of owned indices, the fastest dimension innermost.
fn product(contents: &Contents<'_>, mut dims: Vec<Dimension>, order: i64, runs: &mut Runs) -> Result<(), Failure> {
    let child = contents.child(0)?;
    if order == i64::from(MPI_ORDER_FORTRAN) {
        dims.reverse();
    }
    let whole = dims.iter().try_fold(child.extent, |bytes, dim| bytes.checked_mul(dim.size)).ok_or_else(too_far)?;
    let Some((fastest, slower)) = dims.split_last() else { return Ok(()) };
    let mut row_starts: Vec<i64> = vec![0];
    for (dim, next) in slower.iter().zip(slower.iter().skip(1).chain(std::iter::once(fastest))) {
        let mut starts = Vec::new();
        for &base in &row_starts {
            for index in dim.owned.iter().flat_map(|&(start, length)| start..start + length) {
                let row = base.checked_add(index).and_then(|row| row.checked_mul(next.size)).ok_or_else(too_far)?;
                starts.push(row);
            }
        }
        row_starts = starts;
    }
    for row in row_starts {
        for &(start, length) in &fastest.owned {
            let element = row.checked_add(start).ok_or_else(too_far)?;
            let at = element.checked_mul(child.extent).ok_or_else(too_far)?;
            runs.repeat(&child, at, child.extent, length)?;
        }
    }
    // The type stands for the whole array, whatever part of it is owned.
    runs.bounds = Some((0, whole));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_of_a_grid_share_a_dimension_out_without_gap_or_overlap() {
        for kind in [MPI_DISTRIBUTE_BLOCK, MPI_DISTRIBUTE_CYCLIC] {
            for argument in [MPI_DISTRIBUTE_DFLT_DARG, 3, 7] {
                // A block argument must cover the dimension, as MPI demands.
                if kind == MPI_DISTRIBUTE_BLOCK && argument == 3 {
                    continue;
                }
                let mut all: Vec<i64> = (0..4)
                    .flat_map(|p| owned(23, kind.into(), argument.into(), 4, p).unwrap())
                    .flat_map(|(start, length)| start..start + length)
                    .collect();
                all.sort_unstable();
                assert_eq!(all, (0..23).collect::<Vec<_>>());
            }
        }
    }
}
