//! Reads one CVE record (CVE JSON 5.x) of the kernel's CNA. Records are untrusted: their size, their number of
//! entries and their texts have limits, and what breaks a limit is skipped with a reason.

use super::severity::Score;
use super::version_status::{End, Range, Ranges, Release, VersionStatus, status};
use crate::kernel::KernelVersion;
use crate::util::text::sanitize_line;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The limit of a record. The largest of the CNA has 20 kB.
pub const MAX_RECORD: u64 = 256 << 10;
/// The limit of the files of a record. The largest change of the CNA names 135.
const MAX_FILES: usize = 2_000;
/// The limit of the ranges of a record.
const MAX_RANGES: usize = 2_000;
/// The limit of a path. Linux has a limit of 4,096 bytes, and kernel trees have one of about 100.
const MAX_PATH: usize = 512;
/// The limit of a title.
const MAX_TITLE: usize = 200;

/// What is needed of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `CVE-2024-27407`.
    pub id: String,
    pub title: String,
    /// The highest CVSS score, if there is any.
    pub score: Option<Score>,
    /// The files that the fix changes, by the paths of mainline, sorted.
    pub files: Vec<String>,
    pub(super) affected: Vec<Ranges>,
}

impl Record {
    pub fn status(&self, version: KernelVersion) -> VersionStatus {
        status(&self.affected, version)
    }

    /// Returns the first release after `version`, in the same series, that has the fix.
    pub fn fixed_in(&self, version: KernelVersion) -> Option<KernelVersion> {
        let is_candidate =
            |release: &Release| (release.0, release.1) == version.series() && release.2 > version.patch;
        let ends =
            self.affected.iter().flat_map(|ranges| &ranges.ranges).filter_map(|range| match range.end {
                End::Before(end) if range.affected => Some(end),
                End::Series(..) | End::Open if !range.affected => Some(range.start),
                _ => None,
            });
        let mut releases: Vec<Release> = ends.filter(is_candidate).collect();
        releases.sort_unstable();
        let versions =
            releases.into_iter().map(|release| KernelVersion::new(release.0, release.1, release.2));
        versions.into_iter().find(|version| self.status(*version) == VersionStatus::Fixed)
    }
}

/// Why a file is not a record that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// It is larger than [`MAX_RECORD`].
    TooLarge,
    /// It is not a CVE record, or breaks a limit.
    Invalid,
    /// The CNA has withdrawn it.
    Rejected,
    /// It is about another product.
    OtherProduct,
    /// A version or a range of versions makes no sense.
    BadRange,
}

impl SkipReason {
    pub fn describe(self) -> &'static str {
        match self {
            SkipReason::TooLarge => "larger than 256 KiB",
            SkipReason::Invalid => "not a valid CVE record",
            SkipReason::Rejected => "rejected",
            SkipReason::OtherProduct => "about another product",
            SkipReason::BadRange => "with an invalid version range",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    data_type: String,
    cve_metadata: Metadata,
    containers: Containers,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    cve_id: String,
    state: String,
}

#[derive(Deserialize)]
struct Containers {
    cna: Cna,
}

#[derive(Deserialize)]
struct Cna {
    #[serde(default)]
    title: String,
    #[serde(default)]
    affected: Vec<AffectedEntry>,
    #[serde(default)]
    metrics: Vec<Metric>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AffectedEntry {
    #[serde(default)]
    vendor: String,
    #[serde(default)]
    product: String,
    #[serde(default)]
    default_status: String,
    #[serde(default)]
    program_files: Vec<String>,
    #[serde(default)]
    versions: Vec<VersionEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionEntry {
    version: String,
    status: String,
    version_type: Option<String>,
    less_than: Option<String>,
    less_than_or_equal: Option<String>,
}

#[derive(Deserialize)]
struct Metric {
    #[serde(rename = "cvssV4_0")]
    v4: Option<Cvss>,
    #[serde(rename = "cvssV3_1")]
    v31: Option<Cvss>,
    #[serde(rename = "cvssV3_0")]
    v30: Option<Cvss>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cvss {
    base_score: f64,
}

/// Parses a record.
pub(super) fn parse(bytes: &[u8]) -> Result<Record, SkipReason> {
    if bytes.len() as u64 > MAX_RECORD {
        return Err(SkipReason::TooLarge);
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|_| SkipReason::Invalid)?;
    let Document { data_type, cve_metadata: Metadata { cve_id, state }, containers: Containers { cna } } =
        document;
    if data_type != "CVE_RECORD" || !is_id(&cve_id) {
        return Err(SkipReason::Invalid);
    }
    match &*state {
        "PUBLISHED" => {}
        "REJECTED" => return Err(SkipReason::Rejected),
        _ => return Err(SkipReason::Invalid),
    }
    let is_linux = |entry: &&AffectedEntry| entry.vendor == "Linux" && entry.product == "Linux";
    let entries: Vec<&AffectedEntry> = cna.affected.iter().filter(is_linux).collect();
    if entries.is_empty() {
        return Err(SkipReason::OtherProduct);
    }
    let files: BTreeSet<&String> = entries.iter().flat_map(|entry| &entry.program_files).collect();
    let ranges = entries.iter().map(|entry| entry.versions.len()).sum::<usize>();
    if files.len() > MAX_FILES || ranges > MAX_RANGES || !files.iter().all(|path| is_path(path)) {
        return Err(SkipReason::Invalid);
    }
    let affected = entries.into_iter().filter_map(|entry| self::ranges(entry).transpose());
    let affected = affected.collect::<Result<_, _>>()?;
    let scores = cna.metrics.iter().flat_map(|metric| [&metric.v4, &metric.v31, &metric.v30]).flatten();
    let scores = scores.map(|cvss| Score::new(cvss.base_score).ok_or(SkipReason::Invalid));
    let scores = scores.collect::<Result<Vec<_>, _>>()?;
    Ok(Record {
        id: cve_id,
        title: sanitize_line(&cna.title).chars().take(MAX_TITLE).collect(),
        score: scores.into_iter().max(),
        files: files.into_iter().cloned().collect(),
        affected,
    })
}

/// Returns whether the text is an id such as `CVE-2024-27407`.
fn is_id(text: &str) -> bool {
    let Some((year, number)) = text.strip_prefix("CVE-").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    year.len() == 4 && (4..=19).contains(&number.len()) && is_number(year) && is_number(number)
}

/// Returns whether the text can be the path of a file in a tree.
pub(super) fn is_path(text: &str) -> bool {
    (1..=MAX_PATH).contains(&text.len())
        && !text.contains(char::is_control)
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Returns the version ranges of an entry. An entry that has only ranges of commits has none, since one commit
/// of a shallow history does not say which others it contains.
fn ranges(entry: &AffectedEntry) -> Result<Option<Ranges>, SkipReason> {
    let is_version = |one: &&VersionEntry| one.version_type.as_deref() != Some("git");
    let ranges = entry.versions.iter().filter(is_version).map(range);
    let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
    let default_affected = match &*entry.default_status {
        "affected" => true,
        "unaffected" => false,
        // `unknown`, which is the default, says nothing about other versions.
        _ => return Err(SkipReason::BadRange),
    };
    let has_versions = !ranges.is_empty() || default_affected;
    Ok(has_versions.then_some(Ranges { default_affected, ranges }))
}

fn range(entry: &VersionEntry) -> Result<Range, SkipReason> {
    let release = |text: &str| Release::parse(text).ok_or(SkipReason::BadRange);
    let start = release(&entry.version)?;
    let end = match (&entry.less_than, &entry.less_than_or_equal) {
        (None, None) => End::Same,
        (Some(end), None) => End::Before(release(end)?),
        (None, Some(end)) if end == "*" => End::Open,
        (None, Some(end)) => match end.strip_suffix(".*") {
            Some(series) => match release(series)? {
                Release(major, minor, 0) if series.matches('.').count() == 1 => End::Series(major, minor),
                // `2.6.32.*`: all point releases of 2.6.32, which have the number of their series here.
                series if series.0 == 2 => End::Through(series),
                _ => return Err(SkipReason::BadRange),
            },
            None => End::Through(release(end)?),
        },
        (Some(_), Some(_)) => return Err(SkipReason::BadRange),
    };
    let is_empty = match end {
        // Point releases of 2.6.39 are one release here.
        End::Before(end) => end < start,
        End::Through(end) => end < start,
        End::Series(major, minor) => (start.0, start.1) != (major, minor),
        End::Same | End::Open => false,
    };
    let affected = match &*entry.status {
        "affected" => true,
        "unaffected" => false,
        _ => return Err(SkipReason::BadRange),
    };
    if is_empty { Err(SkipReason::BadRange) } else { Ok(Range { start, end, affected }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn example() -> Value {
        let files = json!(["fs/ntfs3/record.c", "fs/ntfs3/ntfs.h"]);
        json!({
            "dataType": "CVE_RECORD",
            "dataVersion": "5.1",
            "cveMetadata": { "cveId": "CVE-2024-27407", "state": "PUBLISHED" },
            "containers": { "cna": {
                "title": "fs/ntfs3: Fixed\u{1b}[2J overflow",
                "affected": [
                    { "vendor": "Linux", "product": "Linux", "defaultStatus": "unaffected", "programFiles": files,
                      "versions": [
                          { "version": "4534a70b", "lessThan": "e99faa97", "status": "affected",
                            "versionType": "git" },
                          { "version": "5.10.30", "lessThan": "5.10.40", "status": "affected",
                            "versionType": "semver" }] },
                    { "vendor": "Linux", "product": "Linux", "defaultStatus": "affected", "programFiles": files,
                      "versions": [
                          { "version": "5.15", "status": "affected" },
                          { "version": "0", "lessThan": "5.15", "status": "unaffected", "versionType": "semver" },
                          { "version": "6.1.120", "lessThanOrEqual": "6.1.*", "status": "unaffected",
                            "versionType": "semver" },
                          { "version": "6.8", "lessThanOrEqual": "*", "status": "unaffected",
                            "versionType": "original_commit_for_fix" }] }],
                "metrics": [{ "cvssV3_1": { "version": "3.1", "baseScore": 7.8, "baseSeverity": "HIGH" } }]
            } }
        })
    }

    fn parsed(value: &Value) -> Result<Record, SkipReason> {
        parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_record_has_its_files_score_and_ranges() {
        let record = parsed(&example()).unwrap();
        assert_eq!(record.id, "CVE-2024-27407");
        assert!(!record.title.contains('\u{1b}'), "{}", record.title);
        assert_eq!(record.files, ["fs/ntfs3/ntfs.h", "fs/ntfs3/record.c"]);
        assert_eq!(record.score.unwrap().to_string(), "7.8");
        let fixed_in = |version: &str| record.fixed_in(version.parse().unwrap()).map(|one| one.to_string());
        assert_eq!(record.status("6.1.119".parse().unwrap()), VersionStatus::Affected);
        assert_eq!(fixed_in("6.1.119").as_deref(), Some("6.1.120"));
        assert_eq!(fixed_in("5.10.31").as_deref(), Some("5.10.40"));
        assert_eq!(fixed_in("6.2"), None);
        assert_eq!(fixed_in("6.1.130"), None);
    }

    #[test]
    fn records_that_make_no_sense_are_skipped_with_a_reason() {
        let changed = |pointer: &str, value: Value| {
            let mut record = example();
            *record.pointer_mut(pointer).unwrap() = value;
            parsed(&record).unwrap_err()
        };
        const AFFECTED: &str = "/containers/cna/affected";
        for (pointer, value, expected) in [
            ("/dataType", json!("ADVISORY"), SkipReason::Invalid),
            ("/cveMetadata/cveId", json!("CVE-2024-1/../x"), SkipReason::Invalid),
            ("/cveMetadata/cveId", json!("GHSA-1"), SkipReason::Invalid),
            ("/cveMetadata/state", json!("REJECTED"), SkipReason::Rejected),
            ("/containers/cna", json!("x"), SkipReason::Invalid),
            (AFFECTED, json!([]), SkipReason::OtherProduct),
            (AFFECTED, json!([{ "vendor": "x", "product": "Linux" }]), SkipReason::OtherProduct),
            ("/containers/cna/metrics/0/cvssV3_1/baseScore", json!(1e300), SkipReason::Invalid),
        ] {
            assert_eq!(changed(pointer, value.clone()), expected, "{pointer} {value}");
        }
        for path in ["/etc/passwd", "a/../b", "", "a//b", "a\u{0}b", &"x/".repeat(300)] {
            let pointer = format!("{AFFECTED}/1/programFiles");
            assert_eq!(changed(&pointer, json!([path])), SkipReason::Invalid, "{path:?}");
        }
        for version in [
            json!({ "version": "6.1.5", "lessThan": "6.1.2", "status": "affected" }),
            json!({ "version": "6.1.5", "lessThanOrEqual": "5.10.*", "status": "unaffected" }),
            json!({ "version": "99999999999.1", "status": "affected" }),
            json!({ "version": "6.1", "lessThan": "6.2", "lessThanOrEqual": "6.3", "status": "affected" }),
            json!({ "version": "6.1", "status": "perhaps" }),
        ] {
            let pointer = format!("{AFFECTED}/1/versions");
            assert_eq!(changed(&pointer, json!([version])), SkipReason::BadRange, "{version}");
        }
        let nested = "[".repeat(100_000);
        assert_eq!(parse(nested.as_bytes()), Err(SkipReason::Invalid));
        assert_eq!(parse(&vec![b' '; MAX_RECORD as usize + 1]), Err(SkipReason::TooLarge));
    }
}
