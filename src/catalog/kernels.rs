//! The catalog of known kernels: `configs/kernels.toml`, and the user's entries, which override it.

use crate::catalog::ConfigLibrary;
use crate::catalog::text::read_toml;
use crate::kernel::{Arch, Flavor, KernelVersion, SourceSpec, Variant, VersionRequest};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Whether an entry is known to work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Built and booted with the config of the same name.
    Supported,
    /// Listed for its checksum, but not built and booted.
    #[default]
    Untested,
}

impl Status {
    /// Returns the name that the catalog uses.
    pub fn name(self) -> &'static str {
        match self {
            Status::Supported => "supported",
            Status::Untested => "untested",
        }
    }

    fn is_default(&self) -> bool {
        *self == Status::default()
    }
}

/// One kernel of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// As the user types it. `5.10.77` is one kernel, `6.1` is a whole series. With `sha256`, `5.12` is the
    /// release of this name.
    #[serde(deserialize_with = "deserialize_version")]
    pub version: String,
    pub flavor: Flavor,
    /// The architectures with a config of this or a lower version.
    #[serde(deserialize_with = "deserialize_arches")]
    pub arch: Vec<Arch>,
    /// As `--source` takes it: `kernel.org`, `git#BRANCH`, … The default is the flavor's.
    #[serde(default, deserialize_with = "deserialize_source", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The SHA-256 of kernel.org's `linux-<version>.tar.xz`. Other sources do not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    pub status: Status,
    /// The status of the minimal kernel.
    #[serde(default, skip_serializing_if = "Status::is_default")]
    pub minimal: Status,
    /// The source that `status` holds for, if it is not the one above. `all` takes the kernel from here.
    #[serde(default, deserialize_with = "deserialize_source", skip_serializing_if = "Option::is_none")]
    pub supported_source: Option<String>,
    /// What a user should know before choosing this kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Entry {
    /// Returns the version as a request.
    pub fn request(&self) -> VersionRequest {
        let version: VersionRequest = self.version.parse().expect("checked when the catalog was read");
        // A series has no checksum, since its newest release changes.
        if self.sha256.is_some() { VersionRequest::Exact(version.floor()) } else { version }
    }

    /// Returns the status of a variant.
    pub fn status_of(&self, variant: Variant) -> Status {
        match variant {
            Variant::Node => self.status,
            Variant::Minimal => self.minimal,
        }
    }

    /// Returns whether `version` is spelled as in the catalog. `5.12` and `5.12.0` are two names.
    fn is_named(&self, version: VersionRequest) -> bool {
        self.version == version.in_catalog()
    }

    /// Returns an architecture for which both entries describe the same kernel.
    fn meets(&self, other: &Entry) -> Option<Arch> {
        let same = self.flavor == other.flavor && self.request() == other.request();
        self.arch.iter().copied().find(|arch| same && other.arch.contains(arch))
    }
}

/// A series of releases, and how long it is maintained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// `5.10`.
    #[serde(deserialize_with = "deserialize_version")]
    pub series: String,
    /// The day, `2024-12-05`, or the month, `2026-12`, of the last releases on kernel.org.
    #[serde(deserialize_with = "deserialize_date")]
    pub end_of_life: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Catalog {
    /// Sorted by flavor, then version.
    pub kernels: Vec<Entry>,
    /// Of all flavors.
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
    /// Reads every layer of `configs/kernels.toml`. An entry replaces those of earlier
    /// layers for the same kernel.
    ///
    /// # Errors
    ///
    /// Exit code 2, with file, line and field: an invalid file, or two entries for one kernel.
    pub fn read(library: &ConfigLibrary) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        for (name, text) in library.layers("configs/kernels.toml") {
            let file: File = read_toml(name, text)?;
            for (index, entry) in file.kernel.iter().enumerate() {
                if let Some(arch) = file.kernel[..index].iter().find_map(|other| entry.meets(other)) {
                    let Entry { version, flavor, .. } = entry;
                    return Err(Error::usage(format!(
                        "{name}: version: there are two entries for {version}, {flavor}, {arch}"
                    )));
                }
                for old in &mut catalog.kernels {
                    while let Some(arch) = entry.meets(old) {
                        old.arch.retain(|of_old| *of_old != arch);
                    }
                }
            }
            catalog.kernels.retain(|entry| !entry.arch.is_empty());
            catalog.kernels.extend(file.kernel);
            for series in file.series {
                catalog.series.retain(|old| old.series != series.series);
                catalog.series.push(series);
            }
        }
        catalog.kernels.sort_by_key(|entry| (entry.flavor, entry.request().floor(), entry.arch[0]));
        Ok(catalog)
    }

    /// Returns the release that two numbers such as `5.12` name, if the catalog has this release under this
    /// name and has no entry for the series. Returns any other `version` unchanged.
    pub fn resolve(&self, version: VersionRequest, flavor: Flavor) -> VersionRequest {
        let named = self.kernels.iter().filter(|entry| entry.flavor == flavor && entry.is_named(version));
        let mut requests = named.map(Entry::request);
        if requests.clone().any(|request| request == version) {
            version
        } else {
            requests.next().unwrap_or(version)
        }
    }

    /// Returns the flavors that have an entry for `version` or for its series.
    pub fn flavors_of(&self, version: VersionRequest) -> Vec<Flavor> {
        let (major, minor) = version.floor().series();
        let wanted = [version, VersionRequest::Series(major, minor)];
        let knows = |flavor: &Flavor| {
            self.kernels.iter().any(|entry| {
                entry.flavor == *flavor && (wanted.contains(&entry.request()) || entry.is_named(version))
            })
        };
        Flavor::ALL.iter().copied().filter(knows).collect()
    }

    /// Returns the entry of exactly `version`, preferably for `arch`.
    pub fn find(&self, version: VersionRequest, flavor: Flavor, arch: Arch) -> Option<&Entry> {
        let own = self.kernels.iter().filter(|entry| entry.flavor == flavor && entry.request() == version);
        own.min_by_key(|entry| !entry.arch.contains(&arch))
    }

    /// Returns the day or month when the series of `version` ends, if it is known.
    pub fn end_of_life(&self, version: KernelVersion) -> Option<&str> {
        let (major, minor) = version.series();
        let series = self.series.iter().find(|series| series.series == format!("{major}.{minor}"))?;
        Some(&series.end_of_life)
    }

    /// Returns when the series of `version` ended, if that is before `now`, in seconds since 1970.
    pub fn end_date(&self, version: KernelVersion, now: u64) -> Option<&str> {
        let today = crate::util::time::rfc3339(now);
        // A prefix of today's date compares with a month as well as with a day.
        self.end_of_life(version).filter(|end| *end < &today[..end.len()])
    }

    /// Returns the pinned SHA-256 of kernel.org's tarball of exactly `version`, of any flavor.
    pub fn pin(&self, version: KernelVersion) -> Option<Sha256> {
        let entry =
            self.kernels.iter().find(|entry| entry.sha256.is_some() && entry.request().floor() == version);
        entry.and_then(|entry| entry.sha256)
    }
}

/// Returns the warning that a series has ended. `end` is the day or month, if it is known.
pub fn end_of_life_warning(series: (u32, u32), end: Option<&str>) -> String {
    let end = end.map_or_else(String::new, |end| format!(" ({end})"));
    format!("Linux {}.{} has reached its end of life{end}", series.0, series.1)
}

// Fields are checked while they are read, so that errors have a line.

fn deserialize_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<VersionRequest>().map(|_| text).map_err(D::Error::custom)
}

fn deserialize_source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<SourceSpec>().map(|_| Some(text)).map_err(D::Error::custom)
}

fn deserialize_arches<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arch>, D::Error> {
    let mut arches = Vec::<Arch>::deserialize(deserializer)?;
    arches.sort();
    arches.dedup();
    if arches.is_empty() {
        return Err(D::Error::custom(format!("the list is empty: expected {}", Arch::choices())));
    }
    Ok(arches)
}

/// Reads `2024-12-05` or `2024-12`.
fn deserialize_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let pattern: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if !matches!(pattern.as_str(), "0000-00-00" | "0000-00") {
        return Err(D::Error::custom(format!(
            "`{text}` is neither a day (2024-12-05) nor a month (2024-12)"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(text: &str) -> Result<Catalog> {
        Catalog::read(&ConfigLibrary::from_texts([("configs/kernels.toml", text)]))
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
    fn a_version_with_a_checksum_is_a_release() {
        let pinned = format!("{TWO}sha256 = \"{}\"\n", Sha256::of("x"));
        let resolve = |text: &str, version: &str| {
            catalog(text).unwrap().resolve(version.parse().unwrap(), Flavor::CloudHypervisor)
        };
        let (series, release) = (VersionRequest::Series(5, 12), "5.12.0".parse().unwrap());
        assert_eq!((resolve(TWO, "5.12"), resolve(TWO, "5.12.0")), (series, release));
        assert_eq!((resolve(&pinned, "5.12"), resolve(&pinned, "5.12.0")), (release, release));
        let both = pinned.clone() + &TWO[TWO.rfind("[[kernel]]").unwrap()..];
        assert_eq!((resolve(&both, "5.12"), resolve(&both, "5.12.0")), (series, release));
        let spelled_out = pinned.replace("\"5.12\"", "\"5.12.0\"");
        assert_eq!((resolve(&spelled_out, "5.12"), resolve(&spelled_out, "5.12.0")), (series, release));
        assert_eq!(resolve(&pinned, "6.1"), VersionRequest::Series(6, 1));
        assert_eq!(catalog(&pinned).unwrap().flavors_of(series), [Flavor::CloudHypervisor]);
        let twice = catalog(&(pinned.clone() + &pinned[pinned.rfind("[[kernel]]").unwrap()..])).unwrap_err();
        assert!(twice.to_string().ends_with("there are two entries for 5.12, cloud-hypervisor, amd64"));
    }

    #[test]
    fn a_mistake_names_file_line_and_field() {
        for (from, to, says) in [
            ("untested", "unknown", "line 11, column 18: status: unknown variant `unknown`"),
            ("5.12", "five", "line 8, column 19: version: `five` is not a kernel version"),
            ("[\"amd64\"]", "[]", "line 5, column 16: arch: the list is empty"),
            (
                "status = \"untested\"",
                "source = \"apt:\"",
                "line 11, column 18: source: `apt:`: not the name",
            ),
            ("arch", "arhc", "line 5, column 9: arhc: unknown field `arhc`"),
        ] {
            let error = catalog(&TWO.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.starts_with("configs/kernels.toml: TOML parse error at "), "{error}");
            assert!(error.contains(says), "`{says}` is not in: {error}");
        }
        let error = catalog(&TWO.repeat(2)).unwrap_err().to_string();
        assert_eq!(error, "configs/kernels.toml: version: there are two entries for 6.1, firecracker, amd64");
    }

    #[test]
    fn a_later_layer_overrides_its_architectures_only() {
        let both = TWO.replace("[\"amd64\"]", "[\"arm64\", \"amd64\"]");
        let own = TWO.replace("supported", "untested");
        let name = "configs/kernels.toml";
        let catalog =
            Catalog::read(&ConfigLibrary::from_texts([(name, both.as_str()), (name, &own)])).unwrap();
        let of =
            |arch| catalog.find("6.1".parse().unwrap(), Flavor::Firecracker, arch).map(|entry| entry.status);
        assert_eq!((of(Arch::Amd64), of(Arch::Arm64)), (Some(Status::Untested), Some(Status::Supported)));
        assert_eq!(catalog.kernels.len(), 4);
    }

    #[test]
    fn a_series_ends_after_its_last_day_or_month() {
        let catalog =
            |end: &str| catalog(&format!("[[series]]\nseries = \"5.12\"\nend_of_life = \"{end}\"\n"));
        // 2021-07-20 12:00 UTC.
        let (version, now) = (KernelVersion::new(5, 12, 19), 1_626_782_400);
        for (end, ended) in
            [("2021-07-19", true), ("2021-07-20", false), ("2021-06", true), ("2021-07", false)]
        {
            assert_eq!(catalog(end).unwrap().end_date(version, now).is_some(), ended, "{end}");
        }
        let error = catalog("July 2021").unwrap_err().to_string();
        assert!(error.contains("line 3, column 15: end_of_life: `July 2021` is neither"), "{error}");
    }

    #[test]
    fn the_built_in_catalog_is_sound() {
        let library = ConfigLibrary::built_in();
        let catalog = Catalog::read(&library).unwrap();
        assert!(catalog.kernels.len() >= 4);
        for entry in catalog.kernels.iter().filter(|entry| entry.status == Status::Supported) {
            for arch in &entry.arch {
                let series = entry.version.split('.').take(2).collect::<Vec<_>>().join(".");
                for suffix in Variant::ALL.iter().map(|variant| variant.spec().config_suffix) {
                    let name = format!(
                        "configs/{}/linux-{}-{series}{suffix}.config",
                        entry.flavor,
                        arch.spec().kbuild
                    );
                    assert!(library.text(&name).is_some(), "{name} is missing");
                }
            }
        }
    }
}
