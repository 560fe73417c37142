//! Kernel versions as kernel.org writes them, and what a user may ask for.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An exact kernel version. `5.12` and `5.12.0` are the same version and print as `5.12`, as on kernel.org. A
/// release candidate sorts before its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelVersion {
    /// `VERSION` of the top Makefile.
    pub major: u32,
    /// `PATCHLEVEL`.
    pub minor: u32,
    /// `SUBLEVEL`.
    pub patch: u32,
    // `u32::MAX` for a release, so that the derived order puts every candidate before it.
    candidate: u32,
}

impl KernelVersion {
    /// Returns the version of a release.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        KernelVersion { major, minor, patch, candidate: u32::MAX }
    }

    /// Returns the number of a release candidate, or `None` for a release.
    pub fn candidate(self) -> Option<u32> {
        (self.candidate != u32::MAX).then_some(self.candidate)
    }

    /// Returns the series, `(major, minor)`.
    pub fn series(self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// Returns the version in the top `Makefile` of a kernel tree, or `None` if the text is not such a file.
    ///
    /// An `EXTRAVERSION` that a distribution has set is ignored. It is part of the kernel
    /// release, not of the version.
    pub fn from_makefile(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.lines().take(40).find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            })
        };
        let number = |name: &str| value(name)?.parse::<u32>().ok();
        let version = KernelVersion::new(number("VERSION")?, number("PATCHLEVEL")?, number("SUBLEVEL")?);
        let candidate = value("EXTRAVERSION").and_then(|extra| extra.strip_prefix("-rc")?.parse().ok());
        Some(KernelVersion { candidate: candidate.unwrap_or(u32::MAX), ..version })
    }

    /// Returns the version at the start of a kernel release or of the version in a `.config` header.
    /// `6.1.7-custom+` is 6.1.7, and `6.12.0-rc3-dirty` is 6.12-rc3.
    pub fn from_release(release: &str) -> Option<Self> {
        let mut parts = release.split(['-', '+', '~']);
        let version = parts.next()?;
        let candidate =
            parts.next().filter(|part| part.starts_with("rc")).map(|rc| format!("{version}-{rc}"));
        candidate.and_then(|text| text.parse().ok()).or_else(|| version.parse().ok())
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch != 0 {
            write!(f, ".{}", self.patch)?;
        }
        match self.candidate() {
            Some(number) => write!(f, "-rc{number}"),
            None => Ok(()),
        }
    }
}

impl FromStr for KernelVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text)
            .ok_or_else(|| format!("`{text}` is not a kernel version; examples are 5.10, 6.1.7 and 6.12-rc3"))
    }
}

fn parse(text: &str) -> Option<KernelVersion> {
    let number = |part: &str| -> Option<u32> {
        let is_number = part.len() <= 5 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|_| is_number)
    };
    let (release, candidate) = match text.split_once("-rc") {
        Some((release, candidate)) => (release, number(candidate)?),
        None => (text, u32::MAX),
    };
    match release.split('.').map(number).collect::<Option<Vec<_>>>()?[..] {
        [major, minor] => Some(KernelVersion { major, minor, patch: 0, candidate }),
        [major, minor, patch] => Some(KernelVersion { major, minor, patch, candidate }),
        _ => None,
    }
}

impl Serialize for KernelVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KernelVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The VERSION of the command line. What it stands for depends on the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum VersionRequest {
    /// One version, such as `5.10.77`, `6.12-rc3` or `5.12.0`.
    Exact(KernelVersion),
    /// A series, such as `5.10`. Most sources take its newest release, and some take its first.
    Series(u32, u32),
}

impl VersionRequest {
    /// Returns the version, or the first release of a series.
    pub fn floor(self) -> KernelVersion {
        match self {
            VersionRequest::Exact(version) => version,
            VersionRequest::Series(major, minor) => KernelVersion::new(major, minor, 0),
        }
    }

    /// Returns the version as catalogs and the names of configs write it. There `6.6` is the series, and
    /// `6.6.0` is its first release.
    pub fn in_catalog(self) -> String {
        match self {
            VersionRequest::Exact(version) if version.patch == 0 && version.candidate().is_none() => {
                format!("{version}.0")
            }
            version => version.to_string(),
        }
    }

    /// Returns whether `version` is the requested one, or is in the requested series.
    pub fn admits(self, version: KernelVersion) -> bool {
        match self {
            VersionRequest::Exact(exact) => exact == version,
            VersionRequest::Series(major, minor) => version.series() == (major, minor),
        }
    }
}

impl FromStr for VersionRequest {
    type Err = String;

    /// Accepts `v6.1` and `linux-6.1` too, as tags and archives are named.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = ["v", "linux-"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let version: KernelVersion = text.parse()?;
        let is_series = text.split('.').count() == 2 && version.candidate().is_none();
        Ok(if is_series {
            VersionRequest::Series(version.major, version.minor)
        } else {
            VersionRequest::Exact(version)
        })
    }
}

impl fmt::Display for VersionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.floor().fmt(f)
    }
}

impl From<VersionRequest> for String {
    fn from(version: VersionRequest) -> String {
        version.to_string()
    }
}

/// A name for a release that changes from day to day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The newest stable release.
    Latest,
    /// The newest release of the newest longterm series.
    Longterm,
    /// The newest release of the mainline tree, most weeks a release candidate.
    Mainline,
}

impl FromStr for Channel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "latest" => Ok(Channel::Latest),
            "longterm" => Ok(Channel::Longterm),
            "mainline" => Ok(Channel::Mainline),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Channel::Latest => "latest",
            Channel::Longterm => "longterm",
            Channel::Mainline => "mainline",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_print_as_kernel_org_publishes_them() {
        for (text, printed) in
            [("5.12", "5.12"), ("5.12.0", "5.12"), ("5.10.77", "5.10.77"), ("6.12-rc3", "6.12-rc3")]
        {
            assert_eq!(text.parse::<KernelVersion>().unwrap().to_string(), printed);
        }
        for invalid in
            ["", "5", "5.", "5.x", "5.1.2.3", "5.10-rc", "v5.10", "5.10 ", "5.999999", "+5.1", "6.1-rc-1"]
        {
            assert!(invalid.parse::<KernelVersion>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn candidates_come_before_their_release() {
        let sorted = ["5.10.77", "6.1-rc1", "6.1-rc2", "6.1", "6.1.7", "6.12"]
            .map(|v| v.parse::<KernelVersion>().unwrap());
        assert!(sorted.is_sorted());
    }

    #[test]
    fn the_makefile_has_the_version() {
        let makefile = "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 0\nEXTRAVERSION = -rc3\nNAME = x\n";
        assert_eq!(KernelVersion::from_makefile(makefile).unwrap().to_string(), "6.12-rc3");
        assert_eq!(KernelVersion::from_makefile("all:\n\ttrue\n"), None);
    }

    #[test]
    fn a_release_starts_with_its_version() {
        let version = |release: &str| KernelVersion::from_release(release).map(|found| found.to_string());
        for (release, found) in [
            ("5.10.77", "5.10.77"),
            ("6.1.7-custom+", "6.1.7"),
            ("6.12.0-rc3-dirty", "6.12-rc3"),
            ("6.1-rcx", "6.1"),
        ] {
            assert_eq!(version(release).as_deref(), Some(found));
        }
        assert_eq!(version("mine-6.1"), None);
    }

    #[test]
    fn a_series_admits_its_versions_only() {
        let series: VersionRequest = "5.10".parse().unwrap();
        assert!(series.admits(KernelVersion::new(5, 10, 77)) && !series.admits(KernelVersion::new(5, 1, 0)));
        let exact: VersionRequest = "5.12.0".parse().unwrap();
        assert_eq!(exact, VersionRequest::Exact(KernelVersion::new(5, 12, 0)));
        for text in ["5.12", "5.12.0", "5.12.1", "5.12-rc3"] {
            assert_eq!(text.parse::<VersionRequest>().unwrap().in_catalog(), text);
        }
    }
}
