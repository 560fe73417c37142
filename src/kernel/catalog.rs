//! The catalog of known kernels: `configs/kernels.toml`, with the user's own entries over it.

use super::{Arch, Flavor, KernelVersion, VersionRequest};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::library::Library;
use serde::{Deserialize, Serialize};

/// How sure we are that an entry works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Built and booted with the config of the same name.
    Supported,
    /// Listed for its pin; not built and booted by us.
    Untested,
}

/// One kernel of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// As the user types it: `5.10.77` is one kernel, `6.1` stands for its whole series.
    pub version: String,
    /// The hypervisor that it is for.
    pub flavor: Flavor,
    /// The architectures that there is a config for.
    pub arch: Vec<Arch>,
    /// `kernel.org`, `git#BRANCH`, …: as `--source` takes it; absent: the flavor's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// SHA-256 of kernel.org's `linux-<version>.tar.xz`. Not used for other sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// How sure we are.
    pub status: Status,
    /// Anything that a user should know before choosing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Entry {
    /// The version of this entry as a request.
    pub fn request(&self) -> VersionRequest {
        self.version.parse().expect("checked when the catalog was read")
    }
}

/// All known kernels, in the order of their flavor and version.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Catalog {
    /// Sorted by flavor, then version.
    pub kernels: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    kernel: Vec<Entry>,
}

impl Catalog {
    /// Reads every layer of `configs/kernels.toml`; an entry of a later layer replaces an earlier
    /// one of the same version and flavor.
    pub fn read(library: &Library) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        for (name, text) in library.layers("configs/kernels.toml") {
            let file: File = toml::from_str(text)
                .map_err(|error| Error::usage(format!("{name}: {}", one_line(&error.to_string()))))?;
            for entry in file.kernel {
                entry
                    .version
                    .parse::<VersionRequest>()
                    .map_err(|why| Error::usage(format!("{name}: version: {why}")))?;
                catalog.kernels.retain(|old| (&old.version, old.flavor) != (&entry.version, entry.flavor));
                catalog.kernels.push(entry);
            }
        }
        catalog.kernels.sort_by_key(|entry| (entry.flavor, entry.request().floor()));
        Ok(catalog)
    }

    /// The flavors under which `version` is known: by its own entry, else by its series'.
    pub fn flavors_of(&self, version: VersionRequest) -> Vec<Flavor> {
        Flavor::ALL.into_iter().filter(|&flavor| self.find(version, flavor).is_some()).collect()
    }

    /// The entry for `version`: its own, else the one of its series.
    pub fn find(&self, version: VersionRequest, flavor: Flavor) -> Option<&Entry> {
        let of_flavor = || self.kernels.iter().filter(move |entry| entry.flavor == flavor);
        let own = of_flavor().find(|entry| entry.request() == version);
        own.or_else(|| {
            let (major, minor) = version.floor().series();
            of_flavor().find(|entry| entry.request() == VersionRequest::Series(major, minor))
        })
    }

    /// The pinned SHA-256 of kernel.org's tarball of exactly `version`, whatever the flavor.
    pub fn pin(&self, version: KernelVersion) -> Option<Sha256> {
        let entry =
            self.kernels.iter().find(|entry| entry.sha256.is_some() && entry.request().floor() == version);
        entry.and_then(|entry| entry.sha256)
    }
}

/// A TOML error spans lines with a drawing of the place: keep its position and its words.
fn one_line(message: &str) -> String {
    let words =
        message.lines().filter(|line| !line.trim_start().starts_with(['|', '^']) && !line.contains(" | "));
    words.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(text: &str) -> Result<Catalog> {
        Catalog::read(&Library::from_texts([("configs/kernels.toml", text)]))
    }

    const TWO: &str = r#"
        [[kernel]]
        version = "6.1"
        flavor = "firecracker"
        arch = ["amd64"]
        status = "supported"
        [[kernel]]
        version = "5.12"
        flavor = "cloud-hypervisor"
        arch = ["amd64"]
        status = "untested"
    "#;

    #[test]
    fn a_version_is_found_by_itself_or_by_its_series() {
        let catalog = catalog(TWO).unwrap();
        let find = |version: &str| catalog.flavors_of(version.parse().unwrap());
        assert_eq!(find("6.1.192"), [Flavor::Firecracker]);
        assert_eq!(find("5.12"), [Flavor::CloudHypervisor]);
        assert_eq!(find("4.19"), []);
    }

    #[test]
    fn a_mistake_names_file_line_and_field() {
        let error = catalog(&TWO.replace("untested", "unknown")).unwrap_err().to_string();
        assert!(error.starts_with("configs/kernels.toml: TOML parse error at line 11"), "{error}");
        assert!(error.contains("unknown variant `unknown`"), "{error}");
    }

    #[test]
    fn the_built_in_catalog_is_sound() {
        let library = Library::built_in();
        let catalog = Catalog::read(&library).unwrap();
        assert!(catalog.kernels.len() >= 4);
        for entry in catalog.kernels.iter().filter(|entry| entry.status == Status::Supported) {
            for arch in &entry.arch {
                let name =
                    format!("configs/{}/linux-{}-{}.config", entry.flavor, arch.kbuild(), entry.version);
                assert!(library.text(&name).is_some(), "{name} is missing");
            }
        }
    }
}
