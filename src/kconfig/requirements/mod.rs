//! Requirement profiles: what a consumer (a hypervisor, Kubernetes, a network plugin)
//! needs of a kernel's final `.config`, and checks of a config against them. Pure. The
//! profiles are data in `configs/requirements/*.toml`.

mod profile;
mod result;
mod support;

#[cfg(test)]
pub use profile::Alternative;
pub use profile::{Level, Profile, names, read, read_all};
pub use result::{CheckInput, RequirementResult, RequirementStatus, Stage, Tally, check, tallies};
pub use support::{SupportLevel, support};
