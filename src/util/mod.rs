//! Errors, text, pages, time, digests and files. Nothing here knows of kernels or images.

pub mod digest;
pub mod error;
pub mod file_stamp;
pub mod fs;
pub mod html;
pub mod json;
pub mod mirror;
pub mod openpgp;
pub mod read;
pub mod rusage;
pub mod terminal;
pub mod text;
pub mod threads;
pub mod time;
pub mod toml;
