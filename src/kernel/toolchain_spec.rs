//! Where the tools of a build come from, as `--toolchain` and `kcompile.toml` write it.

use crate::util::text::is_registry_reference;
use camino::Utf8PathBuf;
use std::fmt;
use std::str::FromStr;

/// The forms of a toolchain, for messages.
const FORMS: &str = "host, oci:DIR[:TAG] or docker://REFERENCE";

/// The toolchain of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolchainSpec {
    /// The tools of this host.
    #[default]
    Host,
    /// A root file system in an OCI layout on this machine, as `DIR[:TAG]`.
    Oci(Utf8PathBuf),
    /// A root file system in a registry, as skopeo names it: `docker://docker.io/library/gcc:14`.
    Registry(String),
}

impl fmt::Display for ToolchainSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolchainSpec::Host => f.write_str("host"),
            ToolchainSpec::Oci(reference) => write!(f, "oci:{reference}"),
            ToolchainSpec::Registry(reference) => f.write_str(reference),
        }
    }
}

impl FromStr for ToolchainSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, String> {
        if spec.strip_prefix("docker://").is_some_and(is_registry_reference) {
            return Ok(ToolchainSpec::Registry(spec.to_owned()));
        }
        match spec.strip_prefix("oci:").filter(|reference| !reference.is_empty()) {
            Some(reference) => Ok(ToolchainSpec::Oci(reference.into())),
            None if spec == "host" => Ok(ToolchainSpec::Host),
            None => Err(format!("`{spec}` is not a toolchain; expected {FORMS}")),
        }
    }
}
