//! kcompile builds Linux guest kernels natively and packs them as OCI layouts.
//!
//! This crate is the program's own library; its interface is the command line. The story of one
//! build is [`build`]: each step turns one plain value into the next, and a value's existence proves
//! that the step before it worked. ARCHITECTURE.md is the map.

pub mod boot;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod host;
pub mod image;
pub mod kbuild;
pub mod kconfig;
pub mod kernel;
pub mod oci;
pub mod ops;
pub mod plan;
pub mod report;
pub mod source;
pub mod util;
