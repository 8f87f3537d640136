//! Ids, keys, extents, stamps, classes, placement: the vocabulary of Talea, pure and without I/O.
#![forbid(unsafe_code)]
