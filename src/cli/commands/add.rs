//! `kcompile add`: adds a kernel to the user's catalog.

use crate::cli::args::{MakeArgs, Options, RequireArgs, TargetArgs};
use crate::cli::output::{group, groups, lines, print, render_json};
use crate::cli::resolve::{CatalogFiles, context, host_with_tools, import_bundle, one_request, requests};
use crate::host::Host;
use crate::kconfig::Difference;
use crate::kconfig::requirements::Tally;
use crate::kernel::{VariantChoice, VersionRequest};
use crate::ops::add::{self, AddedSetting, MigratedConfig, NewKernel, NewKernelRequest};
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::report::Reporter;
use crate::util::error::Result;
use crate::util::text::{join_first, pluralize};
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::slice;

/// The most settings that the line of an added setting names.
const MAX_NEEDED_BY: usize = 3;

const EXAMPLES: &str = "\
Examples:
  kcompile add 6.6.60 --fc                migrate the nearest config
  kcompile add 6.6.60 --fc --from 6.12    migrate the config of 6.12
  kcompile add 6.16.9 --ch --arch amd64 --arch arm64
  kcompile add 6.6 --ch --source git+https://example.org/linux.git#guest-6.6
  kcompile add 6.6.60 --fc --dry-run      show the changes, write nothing

The entry is written to configs/kernels.toml in your project (a directory with kcompile.toml) or in \
--configs DIR, and the config to the directory of its flavor beside it. Either all files are written or \
none. Then `kcompile 6.6.60 --fc` builds the kernel.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct AddArgs {
    /// Kernel version, such as 6.6.60, or 6.6 for a series
    ///
    /// 6.6.0 is the first release of the series 6.6.
    #[arg(value_name = "VERSION")]
    version: String,
    /// Migrate the config of this version
    ///
    /// The default is the nearest version that has a config.
    #[arg(long, value_name = "VERSION")]
    from: Option<VersionRequest>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    require: RequireArgs,
    #[command(flatten)]
    pub make: MakeArgs,
    /// Show the changes and write nothing
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    /// Print JSON
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
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    // Fails before the network is asked for the version of `latest`.
    files.library.project.user_dirs()?;
    let host = &host_with_tools(&options, &files, host, reporter)?;
    let ctx = context(&options, &files, host, reporter)?;
    let ctx = import_bundle(&options, ctx)?;
    let requested = new_kernel_requests(args, &options, &ctx)?;
    let new_kernel = add::prepare(&requested, &ctx)?;
    if !args.dry_run {
        add::write(&new_kernel, &ctx)?;
    }
    let verb = if args.dry_run { "would write" } else { "wrote" };
    print(&if args.json { render_json(&json(&new_kernel)) } else { text(&new_kernel, &ctx, verb) })?;
    Ok(ExitCode::SUCCESS)
}

fn new_kernel_requests<'a>(
    args: &AddArgs,
    options: &Options,
    ctx: &Context<'a>,
) -> Result<Vec<NewKernelRequest<'a>>> {
    let with_base = |request: Request| {
        let base = add::base(&request, args.from, ctx.library)?;
        // The older kernel comes from the catalog's source or the flavor's default, whatever --source says.
        let target = TargetArgs {
            hypervisor: Some(request.flavor).into(),
            arch: vec![request.arch],
            variant: Some(VariantChoice::One(request.variant)),
            source: None,
        };
        let options = Options { target, ..options.clone() };
        let older = one_request(&base.version.in_catalog(), &options, ctx)?;
        Ok(NewKernelRequest { config_version: request.version, request, base, older: Some(older) })
    };
    requests(slice::from_ref(&args.version), options, ctx)?.into_iter().map(with_base).collect()
}

/// Returns the kernel as JSON. The catalog and receipts have SHA-256 digests without a prefix.
fn json(new_kernel: &NewKernel) -> Value {
    let mut value = serde_json::to_value(new_kernel).expect("only string keys");
    let add_prefix = |digest: &mut Value| {
        if let Some(digits) = digest.as_str() {
            *digest = format!("sha256:{digits}").into();
        }
    };
    value.pointer_mut("/entry/sha256").map(add_prefix);
    for check in value["source"]["checks"].as_array_mut().into_iter().flatten() {
        check.pointer_mut("/signature/sha256").map(add_prefix);
    }
    value
}

fn text(new_kernel: &NewKernel, ctx: &Context<'_>, verb: &str) -> String {
    let NewKernel { entry, source, configs, catalog, adds_entry } = new_kernel;
    let mut text = format!("Linux {} for {}\n", entry.version, entry.flavor.spec().title);
    let origin = source.origin.as_deref().unwrap_or_default();
    let digest = source.digest.to_string();
    for (name, value) in [("source", origin), ("digest", &digest), ("verified", &source.verified())] {
        let indent = " ".repeat(12);
        text.push_str(&lines(value, &indent).replacen(&indent, &format!("  {name:10}"), 1));
    }
    if entry.sha256.is_none() {
        text.push_str(&lines("pinned in kcompile.lock, not in the catalog", &" ".repeat(12)));
    }
    for config in configs {
        text.push_str(&config_text(config));
    }
    text.push('\n');
    for path in configs.iter().map(|config| &config.path).chain(adds_entry.then_some(catalog)) {
        writeln!(text, "{verb} {}", crate::ops::context::display_path(path, ctx.host))
            .expect("writing to a string");
    }
    text
}

fn config_text(config: &MigratedConfig) -> String {
    let MigratedConfig {
        arch,
        from,
        from_config,
        renamed,
        added,
        removed,
        changed,
        upstream_changes,
        profiles,
        ..
    } = config;
    let mut text = format!("\n{arch}: config of {} ({from_config})\n", from.in_catalog());
    if renamed.is_empty() && added.is_empty() && removed.is_empty() && changed.is_empty() {
        text.push_str("\nall settings apply unchanged\n");
    }
    let with_reason = |one: &Difference, what: &str| {
        let reason = one.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{}={}{what}{reason}", one.symbol, one.requested)
    };
    let renamed = renamed.iter().map(crate::cli::output::renamed).collect();
    text.push_str(&group(&format!("renamed ({})", config.renamed.len()), renamed));
    let added: Vec<String> = added.iter().map(added_line).collect();
    text.push_str(&group(&format!("added ({})", added.len()), added));
    let removed: Vec<String> = removed.iter().map(|one| with_reason(one, "")).collect();
    text.push_str(&group(&format!("removed ({})", removed.len()), removed));
    let became = |one: &Difference| format!(" -> {}", one.found.as_deref().unwrap_or("n"));
    let changed: Vec<String> = changed.iter().map(|one| with_reason(one, &became(one))).collect();
    text.push_str(&group(&format!("changed ({})", changed.len()), changed));
    if let Some(since) = upstream_changes {
        writeln!(text, "\nother options that differ from {}:", since.version).expect("writing to a string");
        text.push_str(&groups(&since.differences));
    }
    let tallies: Vec<String> = profiles
        .iter()
        .map(|tally| {
            let Tally { profile, passed, recommended_failed, .. } = tally;
            let recommendations = pluralize(*recommended_failed, "recommendation", "recommendations");
            format!("{profile}: {passed} met, {recommendations} not met")
        })
        .collect();
    text.push_str(&group(&pluralize(tallies.len(), "requirement profile", "requirement profiles"), tallies));
    text
}

fn added_line(added: &AddedSetting) -> String {
    let AddedSetting { setting, needed_by } = added;
    format!("{}={}, needed by {}", setting.symbol, setting.value, join_first(needed_by, MAX_NEEDED_BY, ", "))
}
