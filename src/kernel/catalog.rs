//! The catalog of known kernels: `configs/kernels.toml`, with the user's own entries over it.

use super::{Arch, Flavor, KernelVersion, VersionRequest};
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::library::{Library, read_toml};
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

/// A series of releases, and how long it is looked after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// `5.10`.
    pub series: String,
    /// The day, `2024-12-05`, or the month, `2026-12`, after which kernel.org publishes no more
    /// releases of it.
    pub end_of_life: String,
}

/// All known kernels, in the order of their flavor and version.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Catalog {
    /// Sorted by flavor, then version.
    pub kernels: Vec<Entry>,
    /// What is known of series, whatever the flavor.
    pub series: Vec<Series>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    kernel: Vec<Entry>,
    #[serde(default)]
    series: Vec<Series>,
}

impl Catalog {
    /// Reads every layer of `configs/kernels.toml`; an entry of a later layer replaces an earlier
    /// one of the same version and flavor.
    pub fn read(library: &Library) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        for (name, text) in library.layers("configs/kernels.toml") {
            let file: File = read_toml(name, text)?;
            for entry in file.kernel {
                entry
                    .version
                    .parse::<VersionRequest>()
                    .map_err(|why| Error::usage(format!("{name}: version: {why}")))?;
                catalog.kernels.retain(|old| (&old.version, old.flavor) != (&entry.version, entry.flavor));
                catalog.kernels.push(entry);
            }
            for series in file.series {
                if !is_day_or_month(&series.end_of_life) {
                    return Err(Error::usage(format!(
                        "{name}: end_of_life of series {}: `{}` is neither a day (2024-12-05) nor a month",
                        series.series, series.end_of_life
                    )));
                }
                catalog.series.retain(|old| old.series != series.series);
                catalog.series.push(series);
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

    /// The end of the series of `version`, if it is over at `now`, seconds since 1970: a day or a month.
    pub fn ended(&self, version: KernelVersion, now: u64) -> Option<&str> {
        let (major, minor) = version.series();
        let series = self.series.iter().find(|series| series.series == format!("{major}.{minor}"))?;
        let today = crate::date::rfc3339(now);
        // A month is over when its name is smaller than the beginning of today's.
        (series.end_of_life.as_str() < &today[..series.end_of_life.len()]).then_some(&series.end_of_life)
    }

    /// The pinned SHA-256 of kernel.org's tarball of exactly `version`, whatever the flavor.
    pub fn pin(&self, version: KernelVersion) -> Option<Sha256> {
        let entry =
            self.kernels.iter().find(|entry| entry.sha256.is_some() && entry.request().floor() == version);
        entry.and_then(|entry| entry.sha256)
    }
}

/// `2024-12-05` or `2024-12`.
fn is_day_or_month(text: &str) -> bool {
    let pattern = |c: char| if c.is_ascii_digit() { '0' } else { c };
    matches!(text.chars().map(pattern).collect::<String>().as_str(), "0000-00-00" | "0000-00")
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
        assert!(error.contains(": status: unknown variant `unknown`"), "{error}");
    }

    #[test]
    fn a_series_ends_with_its_last_day_or_month() {
        let catalog =
            |end: &str| catalog(&format!("[[series]]\nseries = \"5.12\"\nend_of_life = \"{end}\"\n"));
        // 2021-07-20 12:00 UTC.
        let (version, now) = (KernelVersion::new(5, 12, 19), 1_626_782_400);
        for (end, ended) in
            [("2021-07-19", true), ("2021-07-20", false), ("2021-06", true), ("2021-07", false)]
        {
            assert_eq!(catalog(end).unwrap().ended(version, now).is_some(), ended, "{end}");
        }
        assert!(catalog("July 2021").unwrap_err().to_string().contains("end_of_life of series 5.12"));
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
