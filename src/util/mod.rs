//! What knows nothing of kernels or images: errors, text, time, digests, files.

pub mod digest;
pub mod error;
pub mod file_stamp;
pub mod fs;
pub mod openpgp;
pub mod read;
pub mod rusage;
pub mod text;
pub mod time;
