//! `kcompile cache`: where the cache is, what it holds, whether it is whole, and what is no longer used.

use crate::cache::Cache;
use crate::cli::commands::ccache::{self, ExportArgs, ImportArgs};
use crate::cli::commands::clean::{CleanArgs, clean as remove_entries};
use crate::cli::output::{print, render_json};
use crate::cli::resolve::cache_dir;
use crate::host::Host;
use crate::ops::check_cache::{self, CacheReport};
use crate::ops::clean::{self, CleanItem, CleanOptions};
use crate::report::{Progress, Reporter};
use crate::util::error::Result;
use crate::util::text::{format_age, format_size, parse_age, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  kcompile cache size                      how much space sources, builds and images take
  kcompile cache check                     remove what a broken disk or a power cut has damaged
  kcompile cache prune --older-than 2w     remove what no run has used for two weeks

`kcompile clean` removes all sources, all builds or both, whenever they were used.

Exit codes: 0 ok, 1 `check` has found something that it cannot remove, 2 usage.";

/// The options of `cache`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CacheArgs {
    #[command(subcommand)]
    action: Action,
    /// For `export` and `import`, which are commands of `ccache` now.
    #[arg(long, value_name = "KIND", default_value = "auto", global = true, hide = true)]
    pub progress: Progress,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the path of the cache directory
    Dir(LocationArgs),
    /// Show how much space each kind of entry takes
    Size(ListArgs),
    /// List the entries, the largest first, and when each was last used
    Ls(ListArgs),
    /// Check all entries, and remove what a broken disk, a full one or a power cut has damaged
    Check(CheckArgs),
    /// Remove entries that no run has used for some time
    Prune(PruneArgs),
    /// The old spelling of `ccache export`
    #[command(hide = true)]
    Export(ExportArgs),
    /// The old spelling of `ccache import`
    #[command(hide = true)]
    Import(ImportArgs),
}

/// Where the cache is.
#[derive(Debug, Args)]
pub struct LocationArgs {
    /// The cache [env: KCOMPILE_CACHE_DIR] [default: kcompile in the XDG cache directory]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<Utf8PathBuf>,
}

/// The options of `cache size` and `cache ls`.
#[derive(Debug, Args)]
struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    location: LocationArgs,
}

/// The options of `cache check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Where the cache is.
    #[command(flatten)]
    pub location: LocationArgs,
}

/// The options of `cache prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// Only what was not used for so long: 12h, 30d, 4w
    #[arg(long, value_name = "AGE", default_value = "30d", value_parser = parse_age)]
    older_than: Duration,
    /// Say what would be removed, and leave it
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    location: LocationArgs,
}

pub fn cache(args: &CacheArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    match &args.action {
        Action::Dir(args) => {
            print(&format!("{}\n", cache_dir(args.cache_dir.as_deref(), host)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Size(args) => size(args, host),
        Action::Ls(args) => ls(args, host),
        Action::Check(args) => check(args, host, reporter),
        Action::Prune(args) => prune(args, host, reporter),
        Action::Export(args) => ccache::export(args, host, reporter),
        Action::Import(args) => ccache::import(args, host, reporter),
    }
}

/// The entries of the cache in `dir`, the largest first. To look at a cache that is not there is no reason to make one.
fn entries(dir: &Utf8Path, host: &Host) -> Result<Vec<CleanItem>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let all = CleanOptions { sources: true, builds: true, older_than: None };
    clean::find(&Cache::open(dir, host.uid)?, all)
}

fn size(args: &ListArgs, host: &Host) -> Result<ExitCode> {
    let dir = cache_dir(args.location.cache_dir.as_deref(), host)?;
    let mut kinds: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for entry in entries(&dir, host)? {
        let (count, bytes) = kinds.entry(entry.what).or_default();
        *count += 1;
        *bytes += entry.bytes;
    }
    let total: u64 = kinds.values().map(|(_, bytes)| bytes).sum();
    if args.json {
        let items = kinds
            .iter()
            .map(|(what, (count, bytes))| json!({ "what": what, "count": count, "bytes": bytes }));
        let items: Vec<Value> = items.collect();
        print(&render_json(&json!({ "schema": 1, "dir": dir, "bytes": total, "items": items })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for (what, (count, bytes)) in &kinds {
        writeln!(text, "{:>9}  {what} ({count})", format_size(*bytes)).expect("writing to a string");
    }
    writeln!(text, "{:>9}  in {dir}", format_size(total)).expect("writing to a string");
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn ls(args: &ListArgs, host: &Host) -> Result<ExitCode> {
    let dir = cache_dir(args.location.cache_dir.as_deref(), host)?;
    let entries = entries(&dir, host)?;
    if args.json {
        let items: Vec<Value> = entries
            .iter()
            .map(|entry| {
                let idle = entry.idle_time.as_secs();
                json!({ "what": entry.what, "path": entry.path, "bytes": entry.bytes, "unused_seconds": idle })
            })
            .collect();
        print(&render_json(&json!({ "schema": 1, "items": items })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for entry in &entries {
        let path = entry.path.strip_prefix(&dir).unwrap_or(&entry.path);
        let (bytes, age) = (format_size(entry.bytes), format_age(entry.idle_time));
        writeln!(text, "{bytes:>9}  {:16} used {age:>8} ago  {path}", entry.what)
            .expect("writing to a string");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks all entries. Exit code 1: something is left for the user to look at.
pub fn check(args: &CheckArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let dir = cache_dir(args.location.cache_dir.as_deref(), host)?;
    // To look through a cache that is not there is no reason to make one.
    let report = if dir.is_dir() {
        check_cache::examine(&Cache::open(&dir, host.uid)?)?
    } else {
        CacheReport::default()
    };
    for path in &report.in_use {
        reporter.note(&format!("{path} is in use and was not looked at"));
    }
    let code = ExitCode::from(u8::from(report.found.iter().any(|problem| !problem.repaired)));
    let text = if args.json { render_json(&report) } else { report_text(&report, &dir) };
    print(&text)?;
    Ok(code)
}

fn report_text(report: &CacheReport, dir: &Utf8Path) -> String {
    let mut text = String::new();
    for problem in &report.found {
        let verb = if problem.repaired { "removed" } else { "LOOK AT" };
        let path = problem.path.strip_prefix(dir).unwrap_or(&problem.path);
        writeln!(text, "{verb}  {:>9}  {}: {path}", format_size(problem.bytes), problem.what)
            .expect("writing to a string");
    }
    let examined = pluralize(report.examined, "entry", "entries");
    match report.found.len() {
        0 => writeln!(text, "{examined} in {dir}: all as they should be"),
        count => writeln!(text, "{examined} in {dir}: {count} not as they should be"),
    }
    .expect("writing to a string");
    text
}

fn prune(args: &PruneArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let all = CleanArgs {
        sources: true,
        builds: true,
        older_than: Some(args.older_than),
        dry_run: args.dry_run,
        json: args.json,
        cache_dir: args.location.cache_dir.clone(),
    };
    remove_entries(&all, host, reporter)
}
