//! `kcompile fetch`.

use crate::cli::args::BuildArgs;
use crate::cli::output::print;
use crate::cli::resolve::{library, requests, run, take_bundle};
use crate::host::Host;
use crate::ops::context::Run;
use crate::plan::request::Request;
use crate::report::Report;
use crate::util::error::{Kind, Result};
use camino::Utf8PathBuf;
use clap::ArgMatches;
use clap::Args;
use std::process::ExitCode;

/// Options of `build` that make no difference to a source: `fetch` takes them, and does not show them.
const NOT_OF_FETCH: &[&str] = &[
    "config",
    "fragment",
    "set",
    "require",
    "output",
    "legacy",
    "no_modules",
    "also_at",
    "modules_layout",
    "compression",
    "boot",
    "cc",
    "llvm",
    "cross_compile",
    "rebuild",
    "launcher",
    "sandbox",
    "timings",
];

/// The options of `fetch`.
#[derive(Clone, Debug, Args)]
#[command(mut_args(|arg| match NOT_OF_FETCH.contains(&arg.get_id().as_str()) {
    true => arg.hide(true),
    false => arg,
}))]
#[command(after_help = "All other options of `build` are taken, too, and make no difference to the source.")]
pub struct FetchArgs {
    /// Those of `build`.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Also write everything that a later --offline build needs into this file, for --from-bundle
    #[arg(long, value_name = "FILE", help_heading = "Network and cache")]
    pub bundle: Option<Utf8PathBuf>,
}

pub fn fetch(args: &FetchArgs, matches: &ArgMatches, host: &Host, report: &Report) -> Result<ExitCode> {
    let FetchArgs { build: args, bundle } = args;
    let (library, catalog) = library(args.configs.as_deref(), host)?;
    let run = Run { archive_wanted: bundle.is_some(), ..run(args, host, &library, &catalog, report)? };
    take_bundle(args, &run)?;
    let mut sources = Vec::new();
    let code = for_each_kernel(&requests(args, matches, &run)?, report, |request| {
        let request = Request { configures: false, ..request.clone() };
        let (plan, tree) = crate::ops::fetch::fetch(&request, &run)?;
        print(&format!("{} {} {}\n", tree.path, plan.version_text(), tree.identity.digest))?;
        sources.push((plan.source.locator.clone(), tree.identity));
        Ok(())
    })?;
    if let Some(path) = bundle.as_deref().filter(|_| code == ExitCode::SUCCESS) {
        crate::ops::fetch::write_bundle(&host.absolute(path), &sources, &run)?;
    }
    Ok(code)
}

/// One failure does not keep the other kernels from being built; the first one decides the code.
fn for_each_kernel(
    requests: &[Request],
    report: &Report,
    mut job: impl FnMut(&Request) -> Result<()>,
) -> Result<ExitCode> {
    let mut first_error = None;
    for request in requests {
        report.next_kernel();
        let Err(error) = job(request) else { continue };
        if requests.len() == 1 || matches!(error.kind, Kind::Interrupted(_)) {
            return Err(error);
        }
        report.error(&error);
        first_error.get_or_insert(error.exit_code());
    }
    Ok(first_error.map_or(ExitCode::SUCCESS, ExitCode::from))
}
