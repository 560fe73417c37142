//! `kcompile clean`: removes sources and builds from the cache.

use crate::cache::Cache;
use crate::cli::output::{print, render_json};
use crate::cli::resolve::cache_dir;
use crate::host::Host;
use crate::ops::clean::{self, CleanItem, CleanOptions};
use crate::report::Reporter;
use crate::util::error::Result;
use crate::util::text::{format_age, format_size};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile clean --dry-run               show what would be removed
  kcompile clean                         remove builds, keep sources
  kcompile clean --sources --builds      remove all
  kcompile clean --older-than 4w         remove builds unused for 4 weeks

Exit codes: 0 ok, 1 cannot remove an entry, 2 usage error.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CleanArgs {
    /// Remove sources, with the builds in them
    ///
    /// Sources are trees, archives, git repositories and partial downloads.
    #[arg(long, alias = "cache")]
    pub sources: bool,
    /// Remove build directories and cached images
    ///
    /// This is the default without --sources.
    #[arg(long)]
    pub builds: bool,
    /// Remove only what was not used for AGE
    ///
    /// AGE is a number of minutes, hours, days or weeks, such as 12h, 30d or 4w.
    #[arg(long, value_name = "AGE", value_parser = crate::util::text::parse_age)]
    pub older_than: Option<std::time::Duration>,
    /// Show what would be removed and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Cache directory [env: KCOMPILE_CACHE_DIR]
    ///
    /// The default is `kcompile` in $XDG_CACHE_HOME or ~/.cache.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<Utf8PathBuf>,
}

/// Formats an entry of the cache in `dir`.
pub fn item_line(item: &CleanItem, dir: &Utf8Path) -> String {
    let path = item.path.strip_prefix(dir).unwrap_or(&item.path);
    let (bytes, age) = (format_size(item.bytes), format_age(item.idle_time));
    let kernel = item.kernel.as_deref().unwrap_or("-");
    format!("{bytes:>9}  {:16} {kernel:32} used {age:>8} ago  {path}\n", item.what)
}

pub fn clean(args: &CleanArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let dir = cache_dir(args.cache_dir.as_deref(), host)?;
    // Builds are quickly made again. Sources come from the network.
    let builds = args.builds || !args.sources;
    let options = CleanOptions { sources: args.sources, builds, older_than: args.older_than };
    // If there is no cache, this does not create one.
    let found = if dir.is_dir() { Some(Cache::open(&dir, host.uid)?) } else { None };
    let mut removed = Vec::new();
    if let Some(cache) = &found {
        for item in clean::find(cache, options)? {
            crate::host::process::check()?;
            if args.dry_run || clean::remove(cache, &item)? {
                removed.push(item);
            } else {
                reporter.note(&format!("{} is in use and was not removed", item.path));
            }
        }
    }
    let bytes: u64 = removed.iter().map(|item| item.bytes).sum();
    if args.json {
        print(&render_json(&serde_json::json!({ "bytes": bytes, "items": removed })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for item in &removed {
        text.push_str(&item_line(item, &dir));
    }
    let verb = if args.dry_run { "would be freed" } else { "freed" };
    writeln!(text, "{:>9}  {verb} in {dir}", format_size(bytes)).expect("writing to a string");
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
