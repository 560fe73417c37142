//! Decides by version ranges whether a kernel has a fault. The ranges are those of a CVE record of the
//! kernel's CNA.

use crate::kernel::KernelVersion;
use serde::{Deserialize, Serialize};

/// What the record says about a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionStatus {
    Affected,
    /// The version has the fix.
    Fixed,
    /// The fault came with a later version.
    NotIntroduced,
    /// The record does not say enough about this version.
    Unknown,
}

/// A version of a record without its candidate. Two and three numbers are the same as on kernel.org.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Release(pub u32, pub u32, pub u32);

impl Release {
    /// Parses `6.1`, `6.1.7` or `0`.
    pub fn parse(text: &str) -> Option<Release> {
        let number = |part: &str| {
            let is_number = (1..=5).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { part.parse().ok() } else { None }
        };
        match text.split('.').map(number).collect::<Option<Vec<u32>>>()?[..] {
            [0] => Some(Release(0, 0, 0)),
            [major, minor] => Some(Release(major, minor, 0)),
            // Linux 2.6.39.4 is a point release of 2.6.39. Nobody builds it, and it sorts correctly so.
            [major, minor, patch] | [major, minor, patch, _] => Some(Release(major, minor, patch)),
            _ => None,
        }
    }

    fn of(version: KernelVersion) -> Release {
        Release(version.major, version.minor, version.patch)
    }
}

/// The end of a range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// The version itself is the only one in the range.
    Same,
    /// `lessThan`.
    Before(Release),
    /// `lessThanOrEqual` with a version.
    Through(Release),
    /// `lessThanOrEqual` with `6.1.*`.
    Series(u32, u32),
    /// `lessThanOrEqual` with `*`.
    Open,
}

/// One range of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub start: Release,
    pub end: End,
    pub affected: bool,
}

impl Range {
    fn contains(&self, release: Release) -> bool {
        let is_before_end = match self.end {
            End::Same => release == self.start,
            End::Before(end) => release < end,
            End::Through(end) => release <= end,
            End::Series(major, minor) => (release.0, release.1) == (major, minor),
            End::Open => true,
        };
        release >= self.start && is_before_end
    }
}

/// The ranges of one entry of `affected`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ranges {
    /// `defaultStatus`, for versions outside of all ranges.
    pub default_affected: bool,
    pub ranges: Vec<Range>,
}

impl Ranges {
    /// Returns whether a release is affected by these ranges, without those that `is_ignored`.
    fn is_affected(&self, release: Release, is_ignored: impl Fn(&Range) -> bool) -> bool {
        let mut status = None;
        for range in self.ranges.iter().filter(|range| range.contains(release) && !is_ignored(range)) {
            // A fix in a series ends what an earlier range says.
            status = Some(status.unwrap_or(true) && range.affected);
        }
        status.unwrap_or(self.default_affected)
    }

    /// Returns whether the fault was introduced after this release, in all series.
    fn is_before_introduction(&self, release: Release) -> bool {
        let before = self.ranges.iter().find(|range| !range.affected && range.start == Release(0, 0, 0));
        before.is_some_and(|range| range.contains(release))
    }
}

/// Returns the status of a version. `all` are the entries of `affected` that have version ranges.
pub(super) fn status(all: &[Ranges], version: KernelVersion) -> VersionStatus {
    let release = Release::of(version);
    let now = release_status(all, release);
    if version.candidate().is_none() {
        return now;
    }
    // The records name releases only. A fix or a fault of 6.2 is in some candidate of 6.2, so a candidate is
    // judged only if the release before it has the same status.
    let before = match release {
        Release(major, minor @ 1.., _) => Release(major, minor - 1, 0),
        _ => return VersionStatus::Unknown,
    };
    if release_status(all, before) == now { now } else { VersionStatus::Unknown }
}

fn release_status(all: &[Ranges], release: Release) -> VersionStatus {
    if all.is_empty() {
        return VersionStatus::Unknown;
    }
    let has_default = all.iter().any(|ranges| ranges.default_affected);
    // Where all versions are affected by default, a range from version 0 up to a fix of one series says
    // nothing new, and must not override the fixes of other series.
    let is_redundant = |range: &Range| has_default && range.affected && range.start == Release(0, 0, 0);
    if all.iter().any(|ranges| ranges.is_affected(release, is_redundant)) {
        return VersionStatus::Affected;
    }
    // A range of versions that a backport brought the fault to begins in the middle of a series. A release
    // of the same series at or after its end has the fix.
    let has_backport_before = all.iter().any(|ranges| {
        ranges.ranges.iter().any(|range| {
            range.affected
                && (range.start.0, range.start.1) == (release.0, release.1)
                && range.start.2 > 0
                && range.start <= release
        })
    });
    let only_backports = all.iter().all(|ranges| !ranges.default_affected);
    let is_before = all.iter().any(|ranges| ranges.is_before_introduction(release)) || only_backports;
    if is_before && !has_backport_before { VersionStatus::NotIntroduced } else { VersionStatus::Fixed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        Release::parse(text).unwrap()
    }

    fn range(start: &str, end: End, affected: bool) -> Range {
        Range { start: release(start), end, affected }
    }

    /// Introduced in 5.15, also in 5.10.30 until 5.10.40, fixed in 6.1.120, 6.6.19 and 6.8.
    fn example() -> Vec<Ranges> {
        vec![
            Ranges {
                default_affected: false,
                ranges: vec![range("5.10.30", End::Before(release("5.10.40")), true)],
            },
            Ranges {
                default_affected: true,
                ranges: vec![
                    range("5.15", End::Same, true),
                    range("0", End::Before(release("5.15")), false),
                    range("6.1.120", End::Series(6, 1), false),
                    range("6.6.19", End::Series(6, 6), false),
                    range("6.8", End::Open, false),
                ],
            },
        ]
    }

    #[test]
    fn versions_have_the_status_of_their_series() {
        use VersionStatus::{Affected, Fixed, NotIntroduced, Unknown};
        for (version, expected) in [
            ("4.19.300", NotIntroduced),
            ("5.10.29", NotIntroduced),
            ("5.10.30", Affected),
            ("5.10.39", Affected),
            ("5.10.40", Fixed),
            ("5.14.5", NotIntroduced),
            ("5.15", Affected),
            ("5.15.200", Affected),
            ("5.16", Affected),
            ("6.1.119", Affected),
            ("6.1.120", Fixed),
            ("6.2.5", Affected),
            ("6.6.18", Affected),
            ("6.6.19", Fixed),
            ("6.7.20", Affected),
            ("6.8", Fixed),
            ("7.1.3", Fixed),
            // Some candidate has the fix or the fault.
            ("6.8-rc1", Unknown),
            ("5.15-rc7", Unknown),
            ("6.7-rc3", Affected),
            ("6.9-rc1", Fixed),
            ("7.0-rc1", Unknown),
        ] {
            assert_eq!(status(&example(), version.parse().unwrap()), expected, "{version}");
        }
    }

    /// Always there, and fixed in 5.4.278, 6.1.93 and 6.10. The first entry repeats that for each fix.
    #[test]
    fn ranges_from_the_first_version_do_not_override_fixes() {
        let affected = |end| range("0", End::Before(release(end)), true);
        let all = [
            Ranges { default_affected: false, ranges: vec![affected("5.4.278"), affected("6.1.93")] },
            Ranges {
                default_affected: true,
                ranges: vec![
                    range("5.4.278", End::Series(5, 4), false),
                    range("6.1.93", End::Series(6, 1), false),
                    range("6.10", End::Open, false),
                ],
            },
        ];
        for (version, expected) in [
            ("5.4.277", VersionStatus::Affected),
            ("5.4.290", VersionStatus::Fixed),
            ("5.10.200", VersionStatus::Affected),
            ("6.1.93", VersionStatus::Fixed),
            ("6.12", VersionStatus::Fixed),
        ] {
            assert_eq!(status(&all, version.parse().unwrap()), expected, "{version}");
        }
    }

    #[test]
    fn no_ranges_say_nothing() {
        assert_eq!(status(&[], "6.1.7".parse().unwrap()), VersionStatus::Unknown);
    }

    #[test]
    fn only_plain_versions_are_parsed() {
        assert_eq!(Release::parse("6.1"), Release::parse("6.1.0"));
        assert_eq!(Release::parse("2.6.39.4"), Some(Release(2, 6, 39)));
        for text in ["", "6", "6.", ".1", "6.1.x", "6.1.-1", "999999.1", "6.1.7.8.9", "+6.1"] {
            assert_eq!(Release::parse(text), None, "{text}");
        }
    }
}
