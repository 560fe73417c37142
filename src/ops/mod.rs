//! The operations of kcompile, one for each command. [`build`](build::build) builds one kernel.

pub mod absent_symbols;
pub mod add;
pub mod build;
pub mod build_many;
pub mod ccache_image;
pub mod check_cache;
pub mod check_config;
pub mod check_symbols;
pub mod clean;
mod compiler_identity;
pub mod config;
mod config_files;
pub mod context;
pub mod cve_records;
pub mod cve_target;
pub mod debug_files;
pub mod doctor;
pub mod fetch;
pub mod host_overview;
mod initramfs_source;
pub mod inputs;
pub mod make;
mod named_files;
pub mod rebuild;
pub mod reuse;
pub mod scheduler;
pub mod toolchain;
