//! Images of kernels: what goes into them, and what others say in theirs.

pub mod kernel_image;
