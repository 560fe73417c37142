//! `kcompile clean`: removes sources and builds from the cache.

use crate::cache::Cache;
use crate::cli::output::{print, render_json};
use crate::cli::resolve::cache_dir;
use crate::host::Host;
use crate::ops::clean::{self, CleanOptions};
use crate::report::Reporter;
use crate::util::error::Result;
use crate::util::text::format_size;
use camino::Utf8PathBuf;
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile clean --dry-run               show what would be removed
  kcompile clean --builds                remove builds, keep sources
  kcompile clean --older-than 4w         remove what was unused for 4 weeks

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

pub fn clean(args: &CleanArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let dir = cache_dir(args.cache_dir.as_deref(), host)?;
    let everything = !args.sources && !args.builds;
    let options = CleanOptions {
        sources: args.sources || everything,
        builds: args.builds || everything,
        older_than: args.older_than,
    };
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
        let path = item.path.strip_prefix(&dir).unwrap_or(&item.path);
        writeln!(text, "{:>9}  {:16} {path}", format_size(item.bytes), item.what)
            .expect("writing to a string");
    }
    let verb = if args.dry_run { "would be freed" } else { "freed" };
    writeln!(text, "{:>9}  {verb} in {dir}", format_size(bytes)).expect("writing to a string");
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
