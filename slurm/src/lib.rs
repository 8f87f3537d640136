//! The site file and Slurm's environment.
#![forbid(unsafe_code)]
