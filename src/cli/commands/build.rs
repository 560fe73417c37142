//! `kcompile build`.

use crate::boot;
use crate::cli::args::BuildArgs;
use crate::cli::commands::plan::plan;
use crate::cli::output::{line, print};
use crate::cli::resolve::{CatalogFiles, requests, run, take_bundle};
use crate::host::Host;
use crate::image::pack::{self, PackedImage};
use crate::oci::Written;
use crate::ops::build_many;
use crate::ops::context::Run;
use crate::report::Report;
use crate::util::error::{Error, Result};
use std::process::ExitCode;

pub fn build(args: &BuildArgs, host: &Host, report: &Report) -> Result<ExitCode> {
    if args.plan.is_dry_run()? {
        return plan(args, host, report);
    }
    let options = &args.options;
    let files = CatalogFiles::read(options.catalog.configs.as_deref(), host)?;
    let run = run(options, &files, host, report)?;
    say_what_was_ignored(host, report);
    let run = take_bundle(options, run)?;
    let requests = requests(&args.versions.versions, options, &run)?;
    pack::check_joined(&requests, &run.output)?;
    let print_all = |built: &[PackedImage]| {
        let mut lines = built
            .iter()
            .map(|image| line(&image.written.layout, &image.written.tag, image.written.digest, host));
        report.aside(|| lines.try_for_each(|line| print(&line)))
    };
    if options.images.boot {
        let options = boot::Options::default();
        requests.iter().try_for_each(|request| boot::require_host(request.arch, &options, host))?;
    }
    let (built, code) = match &requests[..] {
        [one] => {
            let built = crate::ops::build::build(one, &run)?;
            print_all(&built)?;
            (vec![built], ExitCode::SUCCESS)
        }
        several => {
            let results = build_many::build_all(several, &run, print_all)?;
            let code = build_many::first_error(&results).map(Error::exit_code);
            let built = results.into_iter().flatten().collect();
            (built, code.map_or(ExitCode::SUCCESS, ExitCode::from))
        }
    };
    let images: Vec<Written> = built.iter().flatten().map(|image| image.written.clone()).collect();
    for joined in pack::join(&images, &run.output, report)? {
        print(&line(&joined.layout, &joined.tag, joined.digest, host))?;
    }
    if options.images.boot { boot_all(&built, code, &run) } else { Ok(code) }
}

/// Boots the kernels of some builds, one after the other. One that does not pass does not keep the others
/// from being booted; `code` is what the builds have ended with.
fn boot_all(builds: &[Vec<PackedImage>], code: ExitCode, run: &Run<'_>) -> Result<ExitCode> {
    let mut first_error = None;
    for built in builds {
        let outcome = crate::ops::build::boot_built(built, &boot::Options::default(), run)?;
        let Err(error) = outcome.require() else { continue };
        if builds.len() == 1 {
            return Err(error);
        }
        run.report.error(&error);
        first_error.get_or_insert(error.exit_code());
    }
    Ok(first_error.map_or(code, ExitCode::from))
}

fn say_what_was_ignored(host: &Host, report: &Report) {
    if !host.ignored.is_empty() {
        report.note(&format!(
            "ignored from the environment, since it would change the build unseen: {}",
            host.ignored.join(", ")
        ));
    }
}
