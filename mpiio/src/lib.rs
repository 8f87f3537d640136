//! The MPI-IO driver: interposes MPI_File_* for paths below /talea/.
#![forbid(unsafe_code)]
