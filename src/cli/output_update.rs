//! The output of `kcompile update` as text and JSON. `output_update_report.rs` writes the report.

use crate::cli::output::{lines, render_items, row};
use crate::kernel::CommitId;
use crate::ops::catalog_files::FileChange;
use crate::ops::context::{Context, display_path};
use crate::ops::update::{Available, CatalogKernel, FixedCve, SeriesEnd, WrittenUpdate};
use crate::util::error::Error;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// An entry of the catalog, and the result of its update.
pub struct Row {
    pub kernel: CatalogKernel,
    /// `None` if no server answered.
    pub available: Option<Available>,
    pub written: Option<WrittenUpdate>,
    pub error: Option<Error>,
}

/// The digits of a commit that people read.
const COMMIT_DIGITS: usize = 12;

/// Shortens a commit.
pub fn short(release: &str) -> &str {
    if release.parse::<CommitId>().is_ok() { &release[..COMMIT_DIGITS] } else { release }
}

/// Says which series comes next, for one that has ended.
pub fn successor(end: &SeriesEnd, row: &Row) -> Option<String> {
    let next = end.next_longterm?;
    let (major, minor) = next.series();
    let flag = row.kernel.entry.flavor.spec().flag;
    Some(format!(
        "the next longterm series is {major}.{minor}, and its newest release {next}: kcompile add {major}.{minor} --{flag}"
    ))
}

pub fn text(rows: &[Row], ctx: &Context<'_>) -> String {
    const WIDTHS: [usize; 5] = [9, 16, 14, 14, 18];
    let mut text = row(["VERSION", "FLAVOR", "NOW", "NEWEST", "STATE"], WIDTHS);
    for one in rows {
        let entry = &one.kernel.entry;
        let shown = |release: Option<&String>| short(release.map_or("-", String::as_str)).to_owned();
        let now = shown(one.available.as_ref().and_then(|available| available.current.as_ref()));
        let newest = shown(one.available.as_ref().and_then(|available| available.newest.as_ref()));
        let flavor = entry.flavor.to_string();
        text.push_str(&row([&entry.version, &flavor, &now, &newest, state(one)], WIDTHS));
    }
    for one in rows {
        let end = one.available.as_ref().and_then(|available| available.end_of_life.as_ref());
        if let Some(next) = end.and_then(|end| successor(end, one)) {
            writeln!(text, "\n{}: {next}", one.kernel.entry.version).expect("writing to a string");
        }
    }
    for written in rows.iter().filter_map(|one| one.written.as_ref()) {
        let prepared = &written.prepared;
        let source = prepared.source.origin.as_deref().unwrap_or_default();
        writeln!(text, "\nLinux {} for {}", prepared.source.version, prepared.new.flavor.spec().title)
            .expect("writing to a string");
        for (name, value) in [
            ("source", source),
            ("digest", &prepared.source.digest.to_string()),
            ("verified", &prepared.source.verified()),
        ] {
            let indent = " ".repeat(12);
            text.push_str(&lines(value, &indent).replacen(&indent, &format!("  {name:10}"), 1));
        }
        for FileChange { path, text: content } in &prepared.changes {
            let verb = if content.is_some() { "wrote" } else { "removed" };
            writeln!(text, "{verb} {}", display_path(path, ctx.host)).expect("writing to a string");
        }
        writeln!(text, "wrote {}", display_path(&ctx.lock_path, ctx.host)).expect("writing to a string");
    }
    text
}

/// Describes a row in a word or two.
fn state(row: &Row) -> &'static str {
    match (&row.error, &row.written, &row.available) {
        (Some(_), _, _) => "failed",
        (None, Some(_), _) => "updated",
        (None, None, Some(available)) if available.update => "newer release",
        (None, None, Some(available)) if available.newest.is_none() => "does not move",
        (None, None, _) => "up to date",
    }
}

pub fn json(rows: &[Row]) -> String {
    render_items(&rows.iter().map(row_json).collect::<Vec<_>>())
}

fn row_json(row: &Row) -> Value {
    let Row { kernel, available, written, error } = row;
    let of = |field: fn(&Available) -> Option<&String>| available.as_ref().and_then(field);
    json!({
        "version": kernel.entry.version,
        "flavor": kernel.entry.flavor,
        "arch": kernel.entry.arch,
        "source": kernel.requests[0].source.to_string(),
        "current": of(|available| available.current.as_ref()),
        "newest": of(|available| available.newest.as_ref()),
        "update": available.as_ref().is_some_and(|available| available.update),
        "end_of_life": available.as_ref().and_then(|available| available.end_of_life.as_ref()),
        "written": written.as_ref().map(written_json),
        "error": error.as_ref().map(ToString::to_string),
    })
}

fn written_json(written: &WrittenUpdate) -> Value {
    let WrittenUpdate { prepared, builds, commits, cves } = written;
    let ids = |list: &[FixedCve]| list.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
    let cves = cves.as_ref().and_then(|cves| cves.as_ref().ok());
    let paths = |is_written: bool| {
        let paths = prepared.changes.iter().filter(|change| change.text.is_some() == is_written);
        paths.map(|change| change.path.clone()).collect::<Vec<_>>()
    };
    json!({
        "version": prepared.source.version,
        "entry": prepared.new.version,
        "digest": prepared.source.digest.to_string(),
        "verified": prepared.source.verified(),
        "status": prepared.new.status,
        "written": paths(true),
        "removed": paths(false),
        "builds": builds,
        "commits": commits.as_ref().and_then(|commits| commits.as_ref().ok()),
        "cves": cves.map(|cves| json!({
            "fixed": ids(&cves.fixed),
            "introduced": ids(&cves.introduced),
            "remaining": cves.remaining,
        })),
    })
}
