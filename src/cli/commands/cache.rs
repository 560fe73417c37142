//! `kcompile cache`: shows, checks and prunes the cache.

use crate::cache::Cache;
use crate::cli::commands::ccache::{self, ExportArgs, ImportArgs};
use crate::cli::commands::clean::{CleanArgs, clean as remove_entries, item_line};
use crate::cli::output::{print, render_items, render_json};
use crate::cli::resolve::cache_dir;
use crate::host::Host;
use crate::ops::check_cache::{self, CacheReport};
use crate::ops::clean::{self, CleanItem, CleanOptions};
use crate::report::{Progress, Reporter};
use crate::util::error::Result;
use crate::util::text::{format_size, parse_age, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  kcompile cache size                      show the space that each kind takes
  kcompile cache check                     find and remove damaged entries
  kcompile cache prune --older-than 2w     remove what was unused for 2 weeks

`kcompile clean` removes all builds, all sources or both.

Exit codes: 0 ok, 1 `check` found damage that it cannot remove, 2 usage error.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CacheArgs {
    #[command(subcommand)]
    action: Action,
    /// For `export` and `import`, the old spellings of commands of `ccache`.
    #[arg(long, value_name = "KIND", global = true, hide = true)]
    pub progress: Option<Progress>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the path of the cache directory
    Dir(LocationArgs),
    /// Show the size of each kind of entry
    Size(ListArgs),
    /// List entries by size, with the time since their last use
    Ls(ListArgs),
    /// Check all entries and remove damaged ones
    Check(CheckArgs),
    /// Remove entries that were not used for some time
    Prune(PruneArgs),
    /// Old spelling of `ccache export`
    #[command(hide = true)]
    Export(ExportArgs),
    /// Old spelling of `ccache import`
    #[command(hide = true)]
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub struct LocationArgs {
    /// Cache directory [env: KCOMPILE_CACHE_DIR]
    ///
    /// The default is `kcompile` in $XDG_CACHE_HOME or ~/.cache.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<Utf8PathBuf>,
}

/// The options of `cache size` and `cache ls`.
#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    location: LocationArgs,
}

/// The options of `cache check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub location: LocationArgs,
}

/// The options of `cache prune`.
#[derive(Debug, Args)]
struct PruneArgs {
    /// Remove what was not used for AGE
    ///
    /// AGE is a number of minutes, hours, days or weeks, such as 12h, 30d or 4w.
    #[arg(long, value_name = "AGE", default_value = "30d", value_parser = parse_age)]
    older_than: Duration,
    /// Show what would be removed and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
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

/// Lists the entries of the cache in `dir`, the largest first. Creates no cache if there is none.
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
        print(&render_json(&json!({ "dir": dir, "bytes": total, "items": items })))?;
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
                json!({
                    "what": entry.what,
                    "path": entry.path,
                    "bytes": entry.bytes,
                    "kernel": entry.kernel,
                    "unused_seconds": idle,
                })
            })
            .collect();
        print(&render_items(&items))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&entries.iter().map(|entry| item_line(entry, &dir)).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// Checks all entries. Returns exit code 1 if a damaged entry is left for the user.
pub fn check(args: &CheckArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let dir = cache_dir(args.location.cache_dir.as_deref(), host)?;
    // If there is no cache, this does not create one.
    let report = if dir.is_dir() {
        check_cache::examine(&Cache::open(&dir, host.uid)?)?
    } else {
        CacheReport::default()
    };
    for path in &report.in_use {
        reporter.note(&format!("{path} is in use and was not checked"));
    }
    let code = ExitCode::from(u8::from(report.found.iter().any(|problem| !problem.repaired)));
    let text = if args.json { render_json(&report) } else { report_text(&report, &dir) };
    print(&text)?;
    Ok(code)
}

fn report_text(report: &CacheReport, dir: &Utf8Path) -> String {
    let mut text = String::new();
    for problem in &report.found {
        let verb = if problem.repaired { "removed" } else { "DAMAGED" };
        let path = problem.path.strip_prefix(dir).unwrap_or(&problem.path);
        writeln!(text, "{verb}  {:>9}  {}: {path}", format_size(problem.bytes), problem.what)
            .expect("writing to a string");
    }
    let examined = pluralize(report.examined, "entry", "entries");
    match report.found.len() {
        0 => writeln!(text, "{examined} in {dir}: no damage found"),
        count => writeln!(text, "{examined} in {dir}: {count} damaged"),
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
