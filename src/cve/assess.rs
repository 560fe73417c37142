//! Joins records with a kernel: its version and, if they are known, the files that were compiled.

use super::compiled::{CompiledFile, CompiledFiles};
use super::index::{Index, id_key};
use super::record::Record;
use super::severity::Severity;
use super::version_status::VersionStatus;
use crate::kernel::KernelVersion;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The kernel that records are joined with.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub version: KernelVersion,
    /// Without it, the version alone decides.
    pub compiled: Option<&'a CompiledFiles>,
}

/// What a record means for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The version has the fault and, if the compiled files are known, one of its files was compiled.
    Affected,
    /// The version has the fault, but it is not known whether its code was compiled.
    Undetermined,
    /// The version has the fault, but none of its files was compiled.
    NotCompiled,
    /// The version has the fix.
    Fixed,
    /// The fault came with a later version.
    NotIntroduced,
}

impl Verdict {
    pub const ALL: [Verdict; 5] = [
        Verdict::Affected,
        Verdict::Undetermined,
        Verdict::NotCompiled,
        Verdict::Fixed,
        Verdict::NotIntroduced,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Verdict::Affected => "affected",
            Verdict::Undetermined => "undetermined",
            Verdict::NotCompiled => "not-compiled",
            Verdict::Fixed => "fixed",
            Verdict::NotIntroduced => "not-introduced",
        }
    }

    /// Returns whether the version of the kernel has the fault.
    pub fn is_by_version(self) -> bool {
        matches!(self, Verdict::Affected | Verdict::Undetermined | Verdict::NotCompiled)
    }
}

/// A compiled file that the fix of a record changes.
#[derive(Clone, Debug, Serialize)]
pub struct TouchedFile<'a> {
    pub path: &'a str,
    /// `vmlinux`, or modules.
    pub components: Vec<&'a str>,
    /// The option without which Kbuild does not compile the file.
    pub option: Option<&'a str>,
}

/// One record and what it means.
#[derive(Clone, Debug)]
pub struct Finding<'a> {
    pub record: &'a Record,
    pub verdict: Verdict,
    /// The compiled files that the fix changes.
    pub files: Vec<TouchedFile<'a>>,
    /// Why the verdict is [`Verdict::Undetermined`].
    pub reason: Option<String>,
    /// The first later release of the same series that has the fix.
    pub fixed_in: Option<KernelVersion>,
}

impl Finding<'_> {
    pub fn severity(&self) -> Option<Severity> {
        self.record.score.map(super::severity::Score::severity)
    }

    /// Returns the only option without which none of the files would be compiled.
    pub fn option(&self) -> Option<&str> {
        let options: BTreeSet<Option<&str>> = self.files.iter().map(|file| file.option).collect();
        if options.len() == 1 { options.into_iter().next().flatten() } else { None }
    }
}

/// All records with their verdicts, the most severe first.
#[derive(Debug)]
pub struct Assessment<'a> {
    pub findings: Vec<Finding<'a>>,
}

/// A release, and the number of [`Verdict::Affected`] records that it fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FixingRelease {
    pub version: KernelVersion,
    pub fixes: usize,
}

impl Assessment<'_> {
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Finding<'_>> {
        self.findings.iter().filter(move |finding| finding.verdict == verdict)
    }

    pub fn counts(&self) -> BTreeMap<Verdict, usize> {
        let mut counts = Verdict::ALL.map(|verdict| (verdict, 0)).into_iter().collect::<BTreeMap<_, _>>();
        self.findings.iter().for_each(|finding| *counts.entry(finding.verdict).or_default() += 1);
        counts
    }

    /// Returns the first and the last later release of the series that the records name, with what they fix.
    pub fn fixing_releases(&self) -> Option<(FixingRelease, FixingRelease)> {
        let known = self.findings.iter().filter_map(|finding| finding.fixed_in);
        let (first, last) = (known.clone().min()?, known.max()?);
        let fixed_by = |version| FixingRelease {
            version,
            fixes: self
                .with(Verdict::Affected)
                .filter(|finding| finding.fixed_in.is_some_and(|fixed| fixed <= version))
                .count(),
        };
        Some((fixed_by(first), fixed_by(last)))
    }
}

/// The compiled files and the tree of a subject, for look-ups.
pub struct Join<'a> {
    subject: Subject<'a>,
    compiled: HashMap<&'a str, &'a CompiledFile>,
    tree: HashSet<(&'a str, &'a str)>,
}

impl<'a> Join<'a> {
    pub fn new(subject: Subject<'a>) -> Join<'a> {
        let compiled = subject.compiled.map(CompiledFiles::by_path).unwrap_or_default();
        let dirs = subject.compiled.iter().flat_map(|compiled| &compiled.tree);
        let tree = dirs.flat_map(|(dir, names)| names.iter().map(move |name| (dir.as_str(), name.as_str())));
        Join { subject, compiled, tree: tree.collect() }
    }

    /// Gives every record of the index its verdict.
    pub fn assess(&self, index: &'a Index) -> Assessment<'a> {
        let mut findings: Vec<Finding<'a>> =
            index.records.iter().map(|record| self.finding(record)).collect();
        findings.sort_by_key(|finding| {
            (finding.verdict, Reverse(finding.record.score), Reverse(id_key(&finding.record.id)))
        });
        Assessment { findings }
    }

    fn finding(&self, record: &'a Record) -> Finding<'a> {
        let version = self.subject.version;
        let plain = |verdict, reason| Finding { record, verdict, files: Vec::new(), reason, fixed_in: None };
        match record.status(version) {
            VersionStatus::Fixed => plain(Verdict::Fixed, None),
            VersionStatus::NotIntroduced => plain(Verdict::NotIntroduced, None),
            VersionStatus::Unknown => {
                let reason = "the record does not say whether this release candidate has the fault";
                let reason = if version.candidate().is_some() {
                    reason
                } else {
                    "the record has no range of versions"
                };
                plain(Verdict::Undetermined, Some(reason.to_owned()))
            }
            VersionStatus::Affected => {
                let finding = self.by_files(record);
                Finding { fixed_in: record.fixed_in(version), ..finding }
            }
        }
    }

    /// Returns the verdict for a record that the version is affected by.
    fn by_files(&self, record: &'a Record) -> Finding<'a> {
        let plain = |verdict, reason| Finding { record, verdict, files: Vec::new(), reason, fixed_in: None };
        let Some(compiled) = self.subject.compiled else { return plain(Verdict::Affected, None) };
        let code: Vec<&str> =
            record.files.iter().map(String::as_str).filter(|path| !is_documentation(path)).collect();
        let touched = code.iter().filter_map(|path| self.compiled.get(path));
        let files: Vec<TouchedFile<'a>> = touched
            .map(|file| TouchedFile {
                path: &file.path,
                components: compiled.components_of(file),
                option: file.option.as_deref(),
            })
            .collect();
        if !files.is_empty() {
            return Finding { record, verdict: Verdict::Affected, files, reason: None, fixed_in: None };
        }
        let undetermined = |reason: String| plain(Verdict::Undetermined, Some(reason));
        if code.is_empty() {
            return undetermined("the record names no source file".to_owned());
        }
        if code.iter().all(|path| is_build_file(path)) {
            return undetermined(format!("{} decides what is compiled", code.join(", ")));
        }
        let is_unknown = |path: &&&str| !self.tree.contains(&path.rsplit_once('/').unwrap_or(("", path)));
        match code.iter().find(is_unknown) {
            Some(path) => undetermined(format!("{path} is not in this source tree")),
            None => plain(Verdict::NotCompiled, None),
        }
    }
}

/// Returns whether a file is read by people only.
fn is_documentation(path: &str) -> bool {
    path.starts_with("Documentation/")
        || path.ends_with(".rst")
        || ["MAINTAINERS", "CREDITS", ".mailmap"].contains(&path)
}

/// Returns whether a file decides what is compiled, and is not compiled itself.
fn is_build_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    ["Kconfig", "Makefile", "Kbuild"].iter().any(|start| name.starts_with(start))
        || name.ends_with("_defconfig")
        || path.starts_with("kernel/configs/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cve::compiled::tests::example;
    use crate::cve::index::RecordsOrigin;
    use serde_json::json;

    fn index(records: &[(&str, &[&str], Option<f64>)]) -> Index {
        let origin = RecordsOrigin { name: "x".into(), commit: None, date: 0 };
        let mut index = Index::new(String::new(), origin);
        for (id, files, score) in records {
            let metrics = score.map(|score| json!({ "cvssV3_1": { "baseScore": score } }));
            let record = json!({
                "dataType": "CVE_RECORD",
                "cveMetadata": { "cveId": id, "state": "PUBLISHED" },
                "containers": { "cna": {
                    "title": id,
                    "metrics": metrics.into_iter().collect::<Vec<_>>(),
                    "affected": [{ "vendor": "Linux", "product": "Linux", "defaultStatus": "affected",
                        "programFiles": files,
                        "versions": [
                            { "version": "0", "lessThan": "5.15", "status": "unaffected" },
                            { "version": "6.1.9", "lessThanOrEqual": "6.1.*", "status": "unaffected" },
                            { "version": "6.8", "lessThanOrEqual": "*", "status": "unaffected" }] }]
                } }
            });
            index.add(id, record.to_string().as_bytes());
        }
        assert!(index.skipped.is_empty(), "{:?}", index.skipped);
        index.finish()
    }

    fn verdicts(assessment: &Assessment<'_>) -> Vec<(String, &'static str, String)> {
        let one = |finding: &Finding<'_>| {
            let reason = finding.reason.clone().unwrap_or_default();
            (finding.record.id.clone(), finding.verdict.name(), reason)
        };
        assessment.findings.iter().map(one).collect()
    }

    #[test]
    fn compiled_files_decide_for_affected_versions() {
        let index = index(&[
            ("CVE-2024-0001", &["init/main.c"], Some(5.0)),
            ("CVE-2024-0002", &["include/a.h", "Documentation/a.rst"], Some(9.1)),
            ("CVE-2024-0003", &["Makefile"], None),
            ("CVE-2024-0004", &["fs/smb/client/inode.c"], None),
            ("CVE-2024-0005", &[], None),
            ("CVE-2024-0006", &["Documentation/a.rst"], None),
            ("CVE-2024-0007", &["drivers/x.c"], None),
            ("CVE-2024-0008", &["drivers/x.c", "drivers/y.c"], None),
            ("CVE-2024-0009", &["init/main.c", "drivers/y.c"], None),
        ]);
        let mut compiled = example();
        compiled.tree.insert("drivers".into(), vec!["x.c".into()]);
        let subject = Subject { version: KernelVersion::new(6, 1, 7), compiled: Some(&compiled) };
        let assessment = Join::new(subject).assess(&index);
        let expected = [
            ("CVE-2024-0002", "affected", ""),
            ("CVE-2024-0001", "affected", ""),
            ("CVE-2024-0009", "affected", ""),
            ("CVE-2024-0008", "undetermined", "drivers/y.c is not in this source tree"),
            ("CVE-2024-0006", "undetermined", "the record names no source file"),
            ("CVE-2024-0005", "undetermined", "the record names no source file"),
            ("CVE-2024-0004", "undetermined", "fs/smb/client/inode.c is not in this source tree"),
            ("CVE-2024-0003", "undetermined", "Makefile decides what is compiled"),
            ("CVE-2024-0007", "not-compiled", ""),
        ];
        let expected = expected.map(|(id, verdict, why)| (id.to_owned(), verdict, why.to_owned()));
        assert_eq!(verdicts(&assessment), expected);
        assert_eq!(assessment.findings[0].files[0].components, ["vmlinux", "net/a.ko"]);
        let next = FixingRelease { version: KernelVersion::new(6, 1, 9), fixes: 3 };
        assert_eq!(assessment.fixing_releases(), Some((next, next)));
    }

    #[test]
    fn without_compiled_files_the_version_decides() {
        let index = index(&[("CVE-2024-0001", &["drivers/x.c"], None)]);
        for (version, expected) in [
            ("6.1.7", "affected"),
            ("6.1.9", "fixed"),
            ("5.10", "not-introduced"),
            ("6.8-rc1", "undetermined"),
        ] {
            let subject = Subject { version: version.parse().unwrap(), compiled: None };
            let join = Join::new(subject);
            assert_eq!(verdicts(&join.assess(&index))[0].1, expected, "{version}");
        }
    }

    #[test]
    fn one_option_is_named_only_if_all_files_need_it() {
        let index = index(&[("CVE-2024-0001", &["init/main.c", "include/a.h"], None)]);
        let mut compiled = example();
        for (options, expected) in [
            ([Some("CONFIG_A"), Some("CONFIG_A")], Some("CONFIG_A")),
            ([Some("CONFIG_A"), Some("CONFIG_B")], None),
            ([Some("CONFIG_A"), None], None),
        ] {
            for (file, option) in compiled.files.iter_mut().zip(options) {
                file.option = option.map(str::to_owned);
            }
            let subject = Subject { version: KernelVersion::new(6, 1, 7), compiled: Some(&compiled) };
            assert_eq!(Join::new(subject).assess(&index).findings[0].option(), expected);
        }
    }
}
