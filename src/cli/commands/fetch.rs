//! `kcompile fetch`: fetches sources into the cache, and writes bundles.

use crate::cli::args::{
    CatalogArgs, JobsArgs, MakeArgs, Options, PlanArgs, ProgressArgs, SourceArgs, TargetArgs, VersionArgs,
};
use crate::cli::commands::plan::print_plans;
use crate::cli::output::{print, render_items};
use crate::cli::resolve::{CatalogFiles, context, import_bundle, requests};
use crate::host::Host;
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::report::Reporter;
use crate::util::error::{Kind, Result};
use camino::Utf8PathBuf;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile fetch 6.1 --fc                            into the cache
  kcompile fetch 5.10 6.1 --fc --bundle src.tar      also into one file
  kcompile fetch 6.1 --ch --source git               from the git repository

A line with the path, the version and the digest is printed for each source.

Exit codes: 0 ok, 2 usage or plan error, 3 fetch or verification failed, 130 interrupted.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct FetchArgs {
    #[command(flatten)]
    versions: VersionArgs,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    catalog: CatalogArgs,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Also write the sources to FILE
    ///
    /// Builds with --from-bundle read FILE on machines without a network.
    #[arg(long, value_name = "FILE", help_heading = "Network and cache")]
    bundle: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub progress: ProgressArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

impl FetchArgs {
    fn options(&self) -> Options {
        let make = MakeArgs {
            catalog: self.catalog.clone(),
            jobs: self.jobs.clone(),
            source: self.source.clone(),
            ..MakeArgs::default()
        };
        Options { target: self.target.clone(), make, ..Options::default() }
    }
}

pub fn fetch(args: &FetchArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let PlanArgs { dry_run, json } = args.plan;
    let options = args.options();
    let files = CatalogFiles::read(args.catalog.configs.as_deref(), host)?;
    let ctx = context(&options, &files, host, reporter)?;
    let ctx = Context { keep_archive: args.bundle.is_some(), ..ctx };
    let ctx = if dry_run { ctx } else { import_bundle(&options, ctx)? };
    let mut requests = requests(&args.versions.versions, &options, &ctx)?;
    requests.iter_mut().for_each(|request| request.configures = false);
    if dry_run {
        return print_plans(&requests, &args.plan, &ctx);
    }
    let (mut sources, mut items) = (Vec::new(), Vec::new());
    let code = for_each_kernel(&requests, reporter, |request| {
        let (plan, tree) = crate::ops::fetch::fetch(request, &ctx)?;
        let version = plan.version_text();
        if json {
            items.push(json!({ "path": tree.path, "version": version, "digest": tree.identity.digest }));
        } else {
            print(&format!("{} {version} {}\n", tree.path, tree.identity.digest))?;
        }
        sources.push((plan.source.location.clone(), tree.identity));
        Ok(())
    })?;
    if json {
        print(&render_items(&items))?;
    }
    if let Some(path) = args.bundle.as_deref().filter(|_| code == ExitCode::SUCCESS) {
        crate::ops::fetch::write_bundle(&host.absolute(path), &sources, &ctx)?;
    }
    Ok(code)
}

/// Runs `job` for each kernel, even after failures. Returns the exit code of the first failure.
fn for_each_kernel(
    requests: &[Request],
    reporter: &Reporter,
    mut job: impl FnMut(&Request) -> Result<()>,
) -> Result<ExitCode> {
    let mut first_error = None;
    for request in requests {
        reporter.reset();
        let Err(error) = job(request) else { continue };
        if requests.len() == 1 || matches!(error.kind, Kind::Interrupted(_)) {
            return Err(error);
        }
        reporter.error(&error);
        first_error.get_or_insert(error.exit_code());
    }
    Ok(first_error.map_or(ExitCode::SUCCESS, ExitCode::from))
}
