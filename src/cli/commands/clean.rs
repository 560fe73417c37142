//! `kcompile clean`.

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

/// The options of `clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Sources (trees with the builds in them, archives, repositories, partial downloads)
    #[arg(long, alias = "cache")]
    pub sources: bool,
    /// Build directories, and the packed images that the cache keeps of each plan
    #[arg(long)]
    pub builds: bool,
    /// Only what was not used for so long: 12h, 30d, 4w
    #[arg(long, value_name = "AGE", value_parser = crate::util::text::parse_age)]
    pub older_than: Option<std::time::Duration>,
    /// Say what would be removed, and leave it
    #[arg(long)]
    pub dry_run: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// The cache [env: KCOMPILE_CACHE_DIR] [default: kcompile in the XDG cache directory]
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
    // To free space in a cache that is not there is no reason to make one.
    let found = match dir.is_dir() {
        true => Some(Cache::open(&dir, host.uid)?),
        false => None,
    };
    let mut removed = Vec::new();
    if let Some(cache) = &found {
        for item in clean::find(cache, options)? {
            crate::host::process::check()?;
            if args.dry_run || clean::remove(cache, &item)? {
                removed.push(item);
            } else {
                reporter.note(&format!("{} is in use and stays", item.path));
            }
        }
    }
    let bytes: u64 = removed.iter().map(|item| item.bytes).sum();
    if args.json {
        print(&render_json(&serde_json::json!({ "bytes": bytes, "removed": removed })))?;
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
