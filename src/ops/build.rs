//! The story of one build: each step turns one plain value into the next, and a value's existence proves
//! that the step before it worked.

use crate::boot;
use crate::boot::target::{self, ImageRef, ModulesSource, Overrides};
use crate::cache::Cache;
use crate::host;
use crate::image::contents::ImageInputs;
use crate::image::pack::{self, PackedImage};
use crate::image::{attest, inspect, receipt};
use crate::kbuild::launcher::Network;
use crate::kbuild::{self, BuildDir, BuildMode, MakeOptions, timings};
use crate::kconfig::requirements::{self, Profile};
use crate::oci;
use crate::ops::check_config::{self, Reusable};
use crate::ops::context::{Context, display_path};
use crate::ops::reuse::TypedCommand;
use crate::ops::scheduler::Stage;
use crate::ops::{config_files, doctor, fetch, reuse};
use crate::plan::request::Request;
use crate::plan::{Inputs, Plan, SourceLocation};
use crate::report::{self, KernelSummary};
use crate::source;
use crate::util::error::Result;
use crate::util::fs::create_dir;
use crate::util::text;
use camino::{Utf8Path, Utf8PathBuf};

/// Builds the kernel of `request` and packs it. Returns the images, in the order of the plan.
pub fn build(request: &Request, ctx: &Context<'_>) -> Result<Vec<PackedImage>> {
    let Context { host, reporter, output, .. } = ctx;
    let began = host::now();
    let profiles = requirements::read_all(ctx.library, &request.profiles)?;
    let inputs = ctx.inputs(request)?;
    let first = fetch::first_plan(request, &inputs)?;
    if let SourceLocation::Directory { path } = &first.source.location {
        source::reject_inside_source(path, ("the output directory", output), "-o")?;
    }
    if let Some(images) = find_unchanged(request, &inputs, &first, &profiles, ctx)? {
        return Ok(images);
    }
    doctor::examine(&first, host).require()?;
    oci::check_output(output, first.images.iter().map(|image| image.layout.as_str()))?;

    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    let fetching = ctx.acquire(Stage::Fetch)?;
    let (plan, tree) = fetch::fetch_planned(request, &inputs, &first, &cache, ctx)?;
    drop(fetching);
    if let Some(images) = find_cached_build(&plan, &profiles, &cache, ctx)? {
        return Ok(images);
    }
    // Before the turn comes: a tree in which nobody builds may be removed.
    let _locked = cache.lock(&kbuild::lock_name(&plan, &tree, ctx.build_mode), reporter)?;
    tree.require()?;
    let building = ctx.acquire(Stage::Build)?;
    let private_dir = cache.scratch()?;
    let (farm, jobs) = match ctx.slot {
        Some(slot) => (slot.farm(), ctx.jobs),
        None => ctx.farm(request.toolchain.launcher.as_deref()),
    };
    farm.iter().for_each(|farm| farm.report_to(reporter));
    let options = MakeOptions {
        jobs,
        jobserver: ctx.slot.map(|slot| slot.jobs().clone()),
        farm,
        network: if ctx.offline { Network::Forbidden } else { Network::Allowed },
    };
    let build_dir = BuildDir::open(&plan, &tree, ctx.build_mode, host, options, reporter)?.sandboxed(
        ctx.sandbox,
        &private_dir.path,
        reporter,
    )?;
    let configured = check_config::explain_differences(build_dir.configure(reporter)?, &plan, &tree, ctx)?;
    check_config::check_overrides(&configured, &plan, reporter)?;
    let results = check_config::check_requirements(&configured, &plan, &profiles, reporter)?;
    let reusable = check_config::check_inputs(&configured, &plan, &tree, build_dir.keeps_owners(), reporter)?;
    let compiled = build_dir.compile(&configured, kbuild::history(&plan, &cache).as_ref(), reporter);
    let unchanged = source::check_unmodified(&tree);
    let compiled = compiled?;
    unchanged?;
    config_files::check_unmodified(&configured.config, &plan)?;
    build_dir.record_file_inputs()?;
    kbuild::record_history(&plan, &cache, &compiled);
    if compiled.local_fallbacks > 0 {
        let files = text::pluralize(compiled.local_fallbacks as usize, "file", "files");
        reporter.warning(format!("the farm did not compile {files}, which were compiled on this machine"));
    }

    let root = private_dir.path.join("modules");
    create_dir(&root)?;
    let modules = pack::install_modules(&build_dir, &compiled, &plan, &root, reporter)?;
    let image_inputs =
        ImageInputs { compiled: &compiled, root: modules, config: &configured, version: plan.version_text() };
    drop(building);
    let _packing = ctx.acquire(Stage::Pack)?;
    let _output = pack::lock_output(output, reporter)?;
    let images = pack::pack(&image_inputs, &plan, output, ctx.jobs, reporter)?;
    let built = (&configured, &results[..], &compiled);
    let redaction = ctx.redaction(request, &configured.config);
    let receipt = receipt::write(output, &plan, &tree.identity, built, &images, reporter, &redaction)?;
    attest::write(&attest::Build {
        plan: &plan,
        source: &tree.identity,
        configured: &configured,
        compiled: &compiled,
        images: &images,
        receipt: &receipt,
        redaction: &redaction,
        began,
        ended: host::now(),
    })?;
    let pages = timings::write(&ctx.timings, &receipt, &plan, &build_dir, &compiled, reporter)?;
    let release_and_count = (&*compiled.release, image_inputs.module_count()?);
    let cache_entry = (&plan, &profiles[..], &compiled.sandbox);
    match (ctx.build_mode, reusable) {
        (BuildMode::Incremental, Reusable::Yes) => {
            let command = TypedCommand {
                redacted: redaction.command,
                args: ctx.command.iter().map(|word| text::redact_secrets(word)).collect(),
                cwd: host.cwd.clone(),
            };
            reuse::store(
                cache_entry,
                release_and_count,
                (&images, &receipt),
                command,
                &cache,
                (host, reporter),
            );
        }
        (BuildMode::Incremental, Reusable::No) => {}
        (BuildMode::Clean, _) => build_dir.remove()?,
    }
    let (release, modules) = release_and_count;
    summarize(&plan, (release, modules, compiled.cache_stats), &images, (&receipt, &pages), ctx);
    Ok(images)
}

/// The answer to `request` where nothing changed, without a look at its tree or a call of make.
fn find_unchanged(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    profiles: &[Profile],
    ctx: &Context<'_>,
) -> Result<Option<Vec<PackedImage>>> {
    if !ctx.may_reuse() || !ctx.cache_dir.is_dir() {
        return Ok(None);
    }
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    match fetch::cached_plan(request, inputs, first, &cache, ctx)? {
        Some(plan) => find_cached_build(&plan, profiles, &cache, ctx),
        None => Ok(None),
    }
}

/// The images of `plan`, if it was built before.
fn find_cached_build(
    plan: &Plan,
    profiles: &[Profile],
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Option<Vec<PackedImage>>> {
    let Some((cached_build, images)) = reuse::find(plan, profiles, cache, ctx)? else { return Ok(None) };
    let receipt = receipt::path(&ctx.output, plan);
    summarize(plan, (&cached_build.release, cached_build.modules, None), &images, (&receipt, &[]), ctx);
    Ok(Some(images))
}

fn summarize(
    plan: &Plan,
    (release, modules, cache_stats): (&str, usize, Option<report::CompilerCacheStats>),
    images: &[PackedImage],
    (receipt, pages): (&Utf8Path, &[Utf8PathBuf]),
    ctx: &Context<'_>,
) {
    let Context { host, reporter, .. } = ctx;
    reporter.summary(&KernelSummary {
        release: release.to_owned(),
        cache_stats,
        images: images
            .iter()
            .map(|image| report::Image {
                layout: display_path(&image.written.layout, host),
                tag: image.written.tag.clone(),
                bytes: image.written.size,
            })
            .collect(),
        modules,
        warnings: reporter.warnings(),
        times: reporter.times(),
        plan: plan.digest().to_string(),
        receipt: display_path(receipt, host),
        timings: pages.iter().map(|page| display_path(page, host)).collect(),
    });
}

/// Boots the kernel image of a build and notes in its receipt what came of it.
pub fn boot_built(
    images: &[PackedImage],
    options: &boot::Options,
    ctx: &Context<'_>,
) -> Result<boot::BootReport> {
    let Context { host, reporter, .. } = ctx;
    let kernel = images.first().expect("every build has an image of its kernel");
    let has_modules = images.iter().any(|image| !image.holds_kernel);
    let modules = if has_modules { ModulesSource::Sibling } else { ModulesSource::SameImage };
    let name = display_path(&kernel.written.layout, host);
    let image = ImageRef { layout: &kernel.written.layout, tag: Some(&kernel.written.tag) };
    let target = target::from_layout(&name, image, modules, Overrides::default(), None)?;
    let cache = Cache::open(&ctx.cache_dir, host.uid)?;
    let report = boot::boot(&target, options, &cache, host, reporter)?;
    if let Some(receipt) = inspect::receipt_path(&target.kernel) {
        let _packing = pack::lock_output(&ctx.output, reporter)?;
        receipt::add_boot(&receipt, &report)?;
    }
    Ok(report)
}
