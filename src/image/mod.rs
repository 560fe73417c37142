//! Packs, documents, extracts, inspects, verifies, compares and pushes images of kernels.

pub mod attest;
pub mod contents;
pub mod diff;
pub mod extract;
pub mod inspect;
pub mod kernel_image;
pub mod pack;
pub mod push;
pub mod receipt;
pub mod remote;
pub mod signature;
pub mod size_limits;
pub mod tag;
pub mod verify;
