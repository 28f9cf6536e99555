//! Ceph's `librados` and `librbd`, loaded at run time: a table of typed functions and nothing else.
//!
//! One binary serves every machine: where no RBD device is configured, nothing is loaded, and where Ceph is missing, the
//! error names the package. The crate `librbd-sys` of 2016 links at build time and lacks the vectored and the
//! zeroing calls, the exclusive lock, and the watch, which is why this one stands here.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | the functions, with the types of Ceph's headers |
//! | [`signature`] | the same types as C text, to be checked by a C compiler against the headers |
//!
//! Nothing here calls a function of the table; who does says why that is sound.

pub mod api;
pub mod signature;

pub use api::{Api, LoadError};
