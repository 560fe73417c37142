//! What kcompile does, one file an operation.

pub mod build;
pub mod doctor;
