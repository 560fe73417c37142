//! Ranges of kernel versions, as data files write them.

use super::{KernelVersion, VersionRequest};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A set of kernel versions, such as `>=5.2, <6.2`, the series `5.10`, or several of these with `|`
/// between them (`5.4 | 5.10 | >=6.0`). A release candidate counts as its release, because new
/// features come in before the first candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionRange {
    text: String,
    // A version is in the set if it satisfies all bounds of one inner list.
    alternatives: Vec<Vec<Bound>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    From(KernelVersion),
    Before(KernelVersion),
    Series(u32, u32),
}

impl Bound {
    fn parse(text: &str) -> Option<Bound> {
        let version = |text: &str| text.trim().parse::<KernelVersion>().ok();
        let text = text.trim();
        if let Some(first) = text.strip_prefix(">=") {
            return version(first).map(Bound::From);
        }
        if let Some(end) = text.strip_prefix('<') {
            // `<=5.1` would leave open whether 5.1.21 is meant.
            return version(end).map(Bound::Before);
        }
        match text.parse().ok()? {
            VersionRequest::Series(major, minor) => Some(Bound::Series(major, minor)),
            VersionRequest::Exact(_) => None,
        }
    }
}

impl VersionRange {
    /// Returns whether `version` is in the set.
    pub fn contains(&self, version: KernelVersion) -> bool {
        let release = KernelVersion::new(version.major, version.minor, version.patch);
        let holds = |bound: &Bound| match *bound {
            Bound::From(first) => release >= first,
            Bound::Before(end) => release < end,
            Bound::Series(major, minor) => release.series() == (major, minor),
        };
        self.alternatives.iter().any(|bounds| bounds.iter().all(holds))
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for VersionRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = |bounds: &str| bounds.split(',').map(Bound::parse).collect::<Option<Vec<_>>>();
        let alternatives = text.split('|').map(all).collect::<Option<Vec<_>>>().ok_or_else(|| {
            format!(
                "`{text}` is not a range of kernel versions; examples are `>=5.2, <6.2` and `5.10 | >=6.0`"
            )
        })?;
        Ok(VersionRange { text: text.to_owned(), alternatives })
    }
}

impl TryFrom<String> for VersionRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<VersionRange> for String {
    fn from(range: VersionRange) -> String {
        range.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_their_versions_only() {
        for (range, inside, outside) in [
            (">=4.20", vec!["4.20", "4.20-rc1", "6.1.7"], vec!["4.19.215"]),
            ("<5.2", vec!["4.19.215", "5.1.21"], vec!["5.2", "5.2-rc1", "5.10"]),
            (">=5.2, <6.2", vec!["5.2", "6.1.192"], vec!["5.1.21", "6.2"]),
            ("5.4 | 5.10 | >=6.0", vec!["5.4.1", "5.10.77", "6.18"], vec!["5.2.21", "5.12", "5.15.12"]),
        ] {
            let parsed: VersionRange = range.parse().unwrap();
            let holds = |version: &str| parsed.contains(version.parse().unwrap());
            assert!(inside.iter().all(|version| holds(version)), "{range}");
            assert!(!outside.iter().any(|version| holds(version)), "{range}");
        }
        for invalid in ["", "<=5.1", ">5.1", "5.10.77", "5", ">=", "5.1,", "5.4 ||5.10", ">=x"] {
            assert!(invalid.parse::<VersionRange>().is_err(), "{invalid}");
        }
    }
}
