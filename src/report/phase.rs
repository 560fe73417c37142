//! The phases of a run.

use serde::Serialize;

/// The phases of a build in their order, and of the commands that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Finding, downloading and unpacking the source.
    Source,
    /// Applying patches to a copy of the source.
    Patch,
    /// Merging `.config` and running `olddefconfig`.
    Configure,
    /// `make vmlinux modules`.
    Compile,
    /// `make modules_install`.
    Install,
    /// Writing layers and layouts.
    Pack,
    /// Checking and restoring images of the same plan, instead of building.
    Reuse,
    Boot,
    /// Copying images to a registry.
    Push,
}

impl Phase {
    /// Returns the name for people.
    pub fn title(self) -> &'static str {
        match self {
            Phase::Source => "Source",
            Phase::Patch => "Patch",
            Phase::Configure => "Configure",
            Phase::Compile => "Compile",
            Phase::Install => "Install",
            Phase::Pack => "Pack",
            Phase::Reuse => "Reuse",
            Phase::Boot => "Boot",
            Phase::Push => "Push",
        }
    }
}
