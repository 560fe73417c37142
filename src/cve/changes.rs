//! The CVEs that lie between two kernels.

use super::assess::{Assessment, Finding, Verdict};
use serde::Serialize;
use std::collections::BTreeSet;

/// The CVEs that affect only one of two kernels. Field names are part of the contract.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct CveChanges {
    /// Those that affect only the first.
    pub only_first: Vec<CveName>,
    /// Those that affect only the second.
    pub only_second: Vec<CveName>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct CveName {
    pub id: String,
    pub title: String,
}

impl CveChanges {
    pub fn between(first: &Assessment<'_>, second: &Assessment<'_>) -> CveChanges {
        CveChanges { only_first: difference(first, second), only_second: difference(second, first) }
    }
}

/// Returns what affects `one`, and does not affect `other`.
fn difference(one: &Assessment<'_>, other: &Assessment<'_>) -> Vec<CveName> {
    let others: BTreeSet<&str> =
        other.with(Verdict::Affected).map(|finding| finding.record.id.as_str()).collect();
    let is_only = |finding: &&Finding<'_>| !others.contains(finding.record.id.as_str());
    let name = |finding: &Finding<'_>| CveName {
        id: finding.record.id.clone(),
        title: finding.record.title.clone(),
    };
    one.with(Verdict::Affected).filter(is_only).map(name).collect()
}
