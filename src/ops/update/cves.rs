//! The CVEs that an update fixes in the code that was compiled.

use super::{Build, PreparedUpdate};
use crate::cache::Cache;
use crate::cve::{Assessment, CompiledFiles, Finding, Index, Join, Score, Subject, Verdict};
use crate::image::attest::COMPILED_SUFFIX;
use crate::image::receipt;
use crate::kernel::{Arch, KernelVersion};
use crate::ops::context::Context;
use crate::ops::cve_records::{self, DataSource};
use crate::ops::cve_target::CveTarget;
use crate::util::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where the records are, and how old they may be.
#[derive(Clone, Debug)]
pub struct RecordsChoice {
    pub source: DataSource,
    pub max_age: Duration,
}

/// The CVEs that affect only the kernel before, and those that affect only the one after.
#[derive(Debug, Default)]
pub struct FixedCves {
    /// The most severe first.
    pub fixed: Vec<FixedCve>,
    /// Those that came with the newer version.
    pub introduced: Vec<FixedCve>,
    /// The number of those that affect both.
    pub remaining: usize,
    /// What decides: compiled files, or the version alone.
    pub judged_by: String,
    /// The records in one line.
    pub records: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FixedCve {
    pub id: String,
    pub title: String,
    pub score: Option<Score>,
    /// The compiled files that the fix changes. Empty if the version alone decides.
    pub files: Vec<String>,
}

/// The lists of compiled files of one architecture.
struct Sides<'a> {
    before: Option<&'a CompiledFiles>,
    after: Option<&'a CompiledFiles>,
}

/// Joins the CVE records with the kernels before and after an update.
///
/// # Errors
///
/// The version before is not known, or there are no records (exit code 3).
pub fn fixed(
    prepared: &PreparedUpdate,
    builds: &[Build],
    choice: &RecordsChoice,
    ctx: &Context<'_>,
) -> Result<FixedCves> {
    let old = prepared.old_version.ok_or_else(|| Error::fetch("the version before is not known"))?;
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    let lock = ctx.lock()?;
    let records = cve_records::read(&choice.source, choice.max_age, &ctx.fetch_context(&cache, &lock))?;
    let earlier = if builds.is_empty() { earlier_files(prepared, ctx) } else { Vec::new() };
    let mut sides: Vec<Sides<'_>> = builds
        .iter()
        .map(|build| {
            let before = build.before.as_ref().and_then(|before| before.compiled.as_ref());
            Sides { before: before.or(build.after.compiled.as_ref()), after: build.after.compiled.as_ref() }
        })
        .collect();
    sides.extend(earlier.iter().map(|files| Sides { before: Some(files), after: Some(files) }));
    let judged_by = match &sides[..] {
        [] => "by the version alone, since no list of compiled files is here",
        _ if builds.is_empty() => "by the files that the version before compiled",
        _ => "by the files that were compiled",
    };
    if sides.is_empty() {
        sides.push(Sides { before: None, after: None });
    }
    let mut found =
        FixedCves { judged_by: judged_by.to_owned(), records: records.describe(), ..FixedCves::default() };
    compare(&sides, [old, prepared.source.version], &records.index, &mut found);
    Ok(found)
}

/// Returns the compiled files of the version before, if the output directory has them.
fn earlier_files(prepared: &PreparedUpdate, ctx: &Context<'_>) -> Vec<CompiledFiles> {
    let Some(version) = prepared.old_version else { return Vec::new() };
    let files = |arch: &Arch| {
        let name = receipt::file_name(prepared.old.flavor, &version.to_string(), *arch);
        let path = ctx.output.join(name).with_extension(COMPILED_SUFFIX);
        Some(CveTarget::of_file(&path).ok()?.compiled?.1)
    };
    prepared.old.arch.iter().filter_map(files).collect()
}

/// Adds the CVEs of all architectures.
fn compare(sides: &[Sides<'_>], versions: [KernelVersion; 2], index: &Index, found: &mut FixedCves) {
    let (mut fixed, mut introduced) = (BTreeMap::new(), BTreeMap::new());
    let mut remaining = BTreeSet::new();
    for Sides { before, after } in sides {
        let joins = [
            Subject { version: versions[0], compiled: *before },
            Subject { version: versions[1], compiled: *after },
        ]
        .map(Join::new);
        let [before, after] = joins.each_ref().map(|join| join.assess(index));
        fixed.extend(only_in(&before, &after));
        introduced.extend(only_in(&after, &before));
        remaining.extend(after.with(Verdict::Affected).map(|finding| finding.record.id.clone()));
    }
    let by_severity = |found: BTreeMap<String, FixedCve>| {
        let mut list: Vec<FixedCve> = found.into_values().collect();
        list.sort_by_key(|one| std::cmp::Reverse(one.score));
        list
    };
    remaining.retain(|id| !introduced.contains_key(id));
    found.remaining = remaining.len();
    (found.fixed, found.introduced) = (by_severity(fixed), by_severity(introduced));
}

/// Returns what affects `one`, and does not affect `other`.
fn only_in(one: &Assessment<'_>, other: &Assessment<'_>) -> Vec<(String, FixedCve)> {
    let others: BTreeSet<&str> =
        other.with(Verdict::Affected).map(|finding| finding.record.id.as_str()).collect();
    let is_only = |finding: &&Finding<'_>| !others.contains(finding.record.id.as_str());
    let named = |finding: &Finding<'_>| {
        let files = finding.files.iter().map(|file| file.path.to_owned()).collect();
        let (id, title) = (finding.record.id.clone(), finding.record.title.clone());
        (id.clone(), FixedCve { id, title, score: finding.record.score, files })
    };
    one.with(Verdict::Affected).filter(is_only).map(named).collect()
}
