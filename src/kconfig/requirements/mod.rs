//! Requirement profiles: what a consumer (a hypervisor, Kubernetes, a network plugin) needs of a
//! kernel's final `.config`, and holding a config against them. Pure: the profiles are data,
//! `configs/requirements/*.toml`; what becomes of an outcome is the caller's business.

mod fitness;
mod outcome;
mod profile;

pub use fitness::{Fitness, fitness};
pub use outcome::{Outcome, Stage, Subject, Tally, Verdict, check, tallies};
pub use profile::{KernelRule, Level, Profile, names, read, read_all};
