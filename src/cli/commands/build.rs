//! `kcompile build`: builds kernels and prints a line for each image.

use crate::boot;
use crate::cache::Cache;
use crate::cli::args::{BuildArgs, CompileArgs};
use crate::cli::commands::plan::plan;
use crate::cli::image_caches;
use crate::cli::output::{line, print, render_items};
use crate::cli::resolve::{CatalogFiles, context, host_with_tools, import_bundle, requests};
use crate::host::Host;
use crate::image::pack::{self, PackedImage};
use crate::oci::WrittenImage;
use crate::ops::context::Context;
use crate::ops::{build_many, ccache_image};
use crate::report::Reporter;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::process::ExitCode;

pub fn build(args: &BuildArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    if args.plan.dry_run {
        return plan(args, host, reporter);
    }
    let options = &args.options;
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    let host = &host_with_tools(options, &files, host, reporter)?;
    let image_caches = image_caches::resolve(options, &files.library.project, host, reporter)?;
    let ctx = Context { image_caches, ..context(options, &files, host, reporter)? };
    note_ignored_env(host, reporter);
    let ctx = import_bundle(options, ctx)?;
    let requests = requests(&args.versions.versions, options, &ctx)?;
    pack::check_multi_arch_output(&requests, &ctx.output)?;
    let print_all = |built: &[PackedImage]| {
        if args.plan.json {
            return Ok(());
        }
        let mut lines = built
            .iter()
            .map(|image| line(&image.written.layout, &image.written.tag, image.written.digest, host));
        reporter.suspend(|| lines.try_for_each(|line| print(&line)))
    };
    if options.images.boot {
        let options = boot::Options::default();
        requests.iter().try_for_each(|request| boot::require_host(request.arch, &options, host))?;
    }
    let CompileArgs { ccache_from, ccache_to, .. } = &options.compile;
    if let Some(image) = ccache_from {
        ccache_image::warm_up(image, &Cache::open(&ctx.cache_dir, host.uid)?, host, reporter)?;
    }
    let (built, code) = match &requests[..] {
        [one] => {
            let built = crate::ops::build::build(one, &ctx)?;
            print_all(&built)?;
            (vec![built], ExitCode::SUCCESS)
        }
        several => {
            let results = build_many::build_all(several, &ctx, print_all)?;
            let code = build_many::first_error(&results).map(Error::exit_code);
            let built = results.into_iter().flatten().collect();
            (built, code.map_or(ExitCode::SUCCESS, ExitCode::from))
        }
    };
    if let Some(image) = ccache_to.as_ref().filter(|_| code == ExitCode::SUCCESS) {
        ccache_image::save(image, &Cache::open(&ctx.cache_dir, host.uid)?, host, reporter)?;
    }
    let images: Vec<WrittenImage> = built.iter().flatten().map(|image| image.written.clone()).collect();
    let indexes = pack::write_multi_arch(&images, &ctx.output, reporter)?;
    if args.plan.json {
        let images = images.iter().map(|image| json(&image.layout, &image.tag, image.digest));
        let indexes = indexes.iter().map(|index| json(&index.layout, &index.tag, index.digest));
        print(&render_items(&images.chain(indexes).collect::<Vec<_>>()))?;
    } else {
        indexes.iter().try_for_each(|index| print(&line(&index.layout, &index.tag, index.digest, host)))?;
    }
    if options.images.boot { boot_all(&built, code, &ctx) } else { Ok(code) }
}

fn json(layout: &Utf8Path, tag: &str, digest: Sha256) -> Value {
    json!({ "layout": layout, "tag": tag, "digest": digest.oci() })
}

/// Boots the kernel of each build in turn. A failure does not stop the others. Returns the exit code of the
/// first failure, or else `code`, which is that of the builds.
fn boot_all(builds: &[Vec<PackedImage>], code: ExitCode, ctx: &Context<'_>) -> Result<ExitCode> {
    let mut first_error = None;
    for built in builds {
        let report = crate::ops::build::boot_built(built, &boot::Options::default(), ctx)?;
        let Err(error) = report.require() else { continue };
        if builds.len() == 1 {
            return Err(error);
        }
        ctx.reporter.error(&error);
        first_error.get_or_insert(error.exit_code());
    }
    Ok(first_error.map_or(code, ExitCode::from))
}

fn note_ignored_env(host: &Host, reporter: &Reporter) {
    if !host.ignored.is_empty() {
        reporter.note(&format!(
            "ignored these environment variables, which would change the build: {}",
            host.ignored.join(", ")
        ));
    }
}
