//! `kcompile add`: a new kernel of the user's catalog, and what its config came to.

use crate::cli::args::{MakeArgs, Options, RequireArgs, TargetArgs};
use crate::cli::output::{group, groups, lines, print, render_json};
use crate::cli::resolve::{CatalogFiles, context, import_bundle, one_request, requests};
use crate::host::Host;
use crate::kconfig::Difference;
use crate::kernel::VersionRequest;
use crate::ops::add::{self, MigratedConfig, NewKernel, NewKernelRequest};
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::report::Reporter;
use crate::util::error::Result;
use crate::util::text::pluralize;
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::slice;

const EXAMPLES: &str = "\
Examples:
  kcompile add 6.6.60 --fc                with the config of the nearest version
  kcompile add 6.6.60 --fc --from 6.12    with that of another one
  kcompile add 6.16.9 --ch --arch amd64 --arch arm64
  kcompile add 6.6 --ch --source git+https://example.org/linux.git#guest-6.6
  kcompile add 6.6.60 --fc --dry-run      says what would come of it

The entry goes into configs/kernels.toml of your project (a directory with a kcompile.toml) or of --configs \
DIR, the config into the directory of its flavor beside it; all of them are written, or none. Afterwards \
`kcompile 6.6.60 --fc` builds it.";

/// The options of `add`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AddArgs {
    /// A kernel version: 6.6.60; 6.6 for a whole series, 6.6.0 for its first release
    #[arg(value_name = "VERSION")]
    version: String,
    /// The version whose config is carried over [default: the nearest one that has a config]
    #[arg(long, value_name = "VERSION")]
    from: Option<VersionRequest>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    require: RequireArgs,
    #[command(flatten)]
    pub make: MakeArgs,
    /// Say what would come of it, and write nothing
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    /// As JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl AddArgs {
    fn options(&self) -> Options {
        Options { target: self.target.clone(), require: self.require.clone(), ..self.make.options() }
    }
}

pub fn add(args: &AddArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let options = args.options();
    let files = CatalogFiles::read(args.make.catalog.configs.as_deref(), host)?;
    // Before the network is asked what `latest` means.
    files.library.project.user_dirs()?;
    let ctx = context(&options, &files, host, reporter)?;
    let ctx = import_bundle(&options, ctx)?;
    let requested = wanted(args, &options, &ctx)?;
    let new_kernel = add::prepare(&requested, &ctx)?;
    if !args.dry_run {
        add::write(&new_kernel, &ctx)?;
    }
    let text = if args.json { render_json(&new_kernel) } else { text(&new_kernel, &ctx, args.dry_run) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn wanted<'a>(args: &AddArgs, options: &Options, ctx: &Context<'a>) -> Result<Vec<NewKernelRequest<'a>>> {
    let with_base = |request: Request| {
        let base = add::base(&request, args.from, ctx.library)?;
        // Only the kernel differs: its own source, by the catalog or the flavor's default.
        let target =
            TargetArgs { hypervisor: Some(request.flavor).into(), arch: vec![request.arch], source: None };
        let options = Options { target, ..options.clone() };
        let older = one_request(&base.version.in_catalog(), &options, ctx)?;
        Ok(NewKernelRequest { request, base, older })
    };
    requests(slice::from_ref(&args.version), options, ctx)?.into_iter().map(with_base).collect()
}

fn text(new_kernel: &NewKernel, ctx: &Context<'_>, is_dry: bool) -> String {
    let NewKernel { entry, source, configs, catalog } = new_kernel;
    let mut text = format!("Linux {} for {}\n", entry.version, entry.flavor.spec().title);
    let origin = source.origin.as_deref().unwrap_or_default();
    let digest = source.digest.to_string();
    for (name, value) in [("source", origin), ("digest", &digest), ("verified", &source.verified())] {
        let indent = " ".repeat(12);
        text.push_str(&lines(value, &indent).replacen(&indent, &format!("  {name:10}"), 1));
    }
    if entry.sha256.is_none() {
        text.push_str(&lines("pinned by kcompile.lock, not by the catalog", &" ".repeat(12)));
    }
    for config in configs {
        text.push_str(&of_config(config));
    }
    let verb = if is_dry { "would write" } else { "wrote" };
    text.push('\n');
    for path in configs.iter().map(|config| &config.path).chain([catalog]) {
        writeln!(text, "{verb} {}", crate::ops::context::display_path(path, ctx.host))
            .expect("writing to a string");
    }
    text
}

fn of_config(config: &MigratedConfig) -> String {
    let MigratedConfig {
        arch, from, from_config, renamed, removed, changed, upstream_changes, profiles, ..
    } = config;
    let mut text = format!("\n{arch}: the config of {} ({from_config})\n", from.in_catalog());
    if renamed.is_empty() && removed.is_empty() && changed.is_empty() {
        text.push_str("\nevery setting takes as it is\n");
    }
    let with_reason = |one: &Difference, what: &str| {
        let reason = one.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{}={}{what}{reason}", one.symbol, one.requested)
    };
    let renamed = renamed.iter().map(crate::cli::output::renamed).collect();
    text.push_str(&group(&format!("renamed ({})", config.renamed.len()), renamed));
    let removed: Vec<String> = removed.iter().map(|one| with_reason(one, "")).collect();
    text.push_str(&group(&format!("gone ({})", removed.len()), removed));
    let became = |one: &Difference| format!(" -> {}", one.found.as_deref().unwrap_or("n"));
    let changed: Vec<String> = changed.iter().map(|one| with_reason(one, &became(one))).collect();
    text.push_str(&group(&format!("changed ({})", changed.len()), changed));
    if let Some(since) = upstream_changes {
        writeln!(text, "\nwhat else can be set and is otherwise than in {}:", since.version)
            .expect("writing to a string");
        text.push_str(&groups(&since.differences));
    }
    let tallies: Vec<String> = profiles
        .iter()
        .map(|tally| {
            format!("{}: {} met, {} advised otherwise", tally.profile, tally.passed, tally.recommended_failed)
        })
        .collect();
    text.push_str(&group(&pluralize(tallies.len(), "requirement profile", "requirement profiles"), tallies));
    text
}
