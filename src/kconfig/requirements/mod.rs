//! Requirement profiles: what a consumer (a hypervisor, Kubernetes, a network plugin) needs of a
//! kernel's final `.config`, and holding a config against them. Pure: the profiles are data,
//! `configs/requirements/*.toml`; what becomes of an outcome is the caller's business.

mod profile;
mod result;
mod support;

pub use profile::{Level, Profile, names, read, read_all};
pub use result::{CheckInput, RequirementResult, RequirementStatus, Stage, Tally, check, tallies};
pub use support::{SupportLevel, support};
