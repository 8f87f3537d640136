//! The namespace that files need, over objects of a container.
#![forbid(unsafe_code)]
