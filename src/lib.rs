//! kcompile builds Linux guest kernels natively and packs them as OCI layouts.
//!
//! The interface is the command line. The crate has no stable Rust API. `ops/build.rs` shows the
//! steps of a build, and ARCHITECTURE.md describes the modules.

#![warn(clippy::match_bool, clippy::too_many_lines)]

// A module imports only from those after it in this list, as `tests/suite/imports.rs` checks: cli,
// ops, boot, image, kbuild, source, plan, kconfig, catalog, oci, cache, host, report, cve, kernel, util.
mod boot;
mod cache;
mod catalog;
mod cli;
mod cve;
mod host;
mod image;
mod kbuild;
mod kconfig;
mod kernel;
mod oci;
mod ops;
mod plan;
mod report;
mod source;
mod util;

pub use cli::main;

/// For the tests, fuzz targets and examples of this project only.
#[doc(hidden)]
pub mod internals {
    pub use crate::catalog::ConfigLibrary;
    pub use crate::catalog::lockfile::LockFile;
    pub use crate::cve::CompiledFiles;
    pub use crate::image::inspect::{FileContent, inspect};
    pub use crate::image::receipt::ReceiptFile;
    pub use crate::image::verify::{VerifyCache, VerifyReport, verify};
    pub use crate::kbuild::LogSummary;
    pub use crate::kbuild::compiled_files::{BuiltTree, list as list_compiled_files};
    pub use crate::kconfig::explain::{Kernel, Renames, explain, symbols};
    pub use crate::kconfig::{Config, differences, merge, render};
    pub use crate::kernel::Arch;
    pub use crate::kernel::binary::ikconfig::extract_config;
    pub use crate::oci::layout_reader::LayoutReader;
    pub use crate::oci::{Compression, Encoder, Entries, Entry, ImageSpec, prepare, tags};
    pub use crate::ops::ccache_image;
    pub use crate::util::digest::Sha256;
    pub use crate::util::fs::remove_tree;
    pub use crate::util::openpgp::Keyring;
    pub use crate::util::rusage::peak_memory;

    #[cfg(fuzzing)]
    pub use crate::image::verify::fuzz as fuzz_layout;
    #[cfg(fuzzing)]
    pub use crate::source::fuzz as fuzz_source;
}
