//! What a kernel is called and what is known about it: versions, architectures, flavors, and the
//! catalog of kernels with their pins. Pure: text in, values out.

mod arch;
pub mod binary;
mod flavor;
mod range;
mod source_spec;
mod version;

pub use arch::Arch;
pub use flavor::Flavor;
pub use range::VersionRange;
pub use source_spec::{SourceSpec, source_package};
pub use version::{Channel, KernelVersion, VersionRequest};
