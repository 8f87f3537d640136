//! The driver under real MPI programs: a family's own mpiexec, C and Fortran programs of `tests/programs`, a libtalea without servers
//! below. What the storage promises is tested with the storage; here it is what MPI-IO promises above it.

mod driver;
#[cfg(family = "mpich")]
mod hdf5;
mod programs;
mod semantics;
mod site;
