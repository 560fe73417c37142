//! One build, step by step. Each step turns one value into the next, which exists only if the step worked.

use crate::boot;
use crate::boot::target::{self, ImageRef, ModulesSource, Overrides};
use crate::cache::Cache;
use crate::host::{self, Host};
use crate::image::contents::ImageInputs;
use crate::image::pack::{self, PackedImage};
use crate::image::{attest, inspect, receipt};
use crate::kbuild::launcher::Network;
use crate::kbuild::{self, BuildDir, BuildMode, Compiled, Configured, MakeOptions, timings};
use crate::kconfig::requirements::{self, Profile, RequirementResult};
use crate::oci;
use crate::ops::check_config::{self, Reusable};
use crate::ops::check_symbols::{self, SymbolCheck};
use crate::ops::context::{Context, display_path};
use crate::ops::image_cache::{self, FoundImages};
use crate::ops::reuse::{CachedBuild, TypedCommand};
use crate::ops::scheduler::Stage;
use crate::ops::{config_files, doctor, fetch, reuse};
use crate::plan::request::Request;
use crate::plan::{Inputs, Plan, SourceIdentity, SourceLocation, with_compiler_names};
use crate::report::{self, KernelSummary, Reporter};
use crate::source::{self, Tree};
use crate::util::error::Result;
use crate::util::fs::create_dir;
use crate::util::{text, time};
use camino::Utf8Path;

/// Builds the kernel of `request` and packs it. Returns the images in the order of the plan.
pub fn build(request: &Request, ctx: &Context<'_>) -> Result<Vec<PackedImage>> {
    let Context { host, output, .. } = ctx;
    let began = host::now();
    let profiles = requirements::read_all(ctx.library, &request.profiles)?;
    let inputs = ctx.inputs(request)?;
    let first = fetch::first_plan(request, &inputs)?;
    if let SourceLocation::Directory { path } = &first.source.location {
        source::reject_inside_source(path, output, "the output directory", "-o")?;
    }
    if let Some(images) = find_unchanged(request, &inputs, &first, &profiles, ctx)? {
        return Ok(images);
    }
    doctor::examine(&first, host)?.require()?;
    oci::check_output(output, first.images.iter().map(|image| image.layout.as_str()))?;

    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    match find_or_fetch(request, &inputs, &first, &profiles, &cache, ctx)? {
        Found::Images(images) => Ok(images),
        Found::Source(plan, tree) => {
            let source = Source { plan: &plan, tree: &tree, profiles: &profiles, began };
            build_from(&source, request, &cache, ctx)
        }
    }
}

/// A source that is there, with its complete plan.
struct Source<'a> {
    plan: &'a Plan,
    tree: &'a Tree,
    profiles: &'a [Profile],
    /// When the build began, in seconds since 1970.
    began: u64,
}

/// Configures, compiles and packs the kernel of a source.
fn build_from(
    source: &Source<'_>,
    request: &Request,
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Vec<PackedImage>> {
    let Context { host, reporter, .. } = ctx;
    let Source { plan, tree, profiles, began } = *source;
    // Locks the tree before it waits for its turn, since another run may remove a tree that nobody uses.
    let _locked = cache.lock(&kbuild::lock_name(plan, tree, ctx.build_mode), reporter)?;
    tree.require()?;
    let building = ctx.acquire(Stage::Build)?;
    let private_dir = cache.scratch()?;
    let options = make_options(request, ctx);
    let build_dir = BuildDir::open(plan, tree, ctx.build_mode, host, options, reporter)?.sandboxed(
        ctx.sandbox,
        &private_dir.path,
        reporter,
    )?;
    let configured = check_config::explain_differences(build_dir.configure(reporter)?, plan, tree, ctx)?;
    let symbols = check_symbols::check(&configured.config, plan, &tree.path, ctx)?;
    check_config::check_overrides(&configured, plan, reporter)?;
    let results = check_config::check_requirements(&configured, plan, profiles, reporter)?;
    let mut reusable = check_config::check_inputs(&configured, plan, tree, &build_dir, reporter)?;
    if symbols == SymbolCheck::OtherKernel {
        // A run of this kernel alone fails.
        reusable = Reusable::No;
    }
    let compiled = compile(&build_dir, &configured, plan, tree, cache, reporter)?;
    let root = private_dir.path.join("modules");
    create_dir(&root)?;
    let modules = pack::install_modules(&build_dir, &compiled, plan, &root, reporter)?;
    drop(building);
    let image_inputs = ImageInputs {
        compiled: &compiled,
        root: modules,
        config: &configured,
        version: plan.version_text(),
        are_planned: reusable == Reusable::Yes,
    };
    let finished = FinishedMake {
        plan,
        source: &tree.identity,
        profiles,
        results: &results,
        build_dir: &build_dir,
        image_inputs,
        reusable,
        began,
    };
    let images = write_images(&finished, request, cache, ctx)?;
    if ctx.build_mode == BuildMode::Clean {
        build_dir.remove()?;
    }
    Ok(images)
}

/// What a build begins with.
enum Found {
    /// The images exist already.
    Images(Vec<PackedImage>),
    /// The complete plan and its source.
    Source(Box<Plan>, Box<Tree>),
}

/// Looks for the images in image caches and in the cache of this machine. Fetches the source if they are not there,
/// or if only the source can tell which images they are.
fn find_or_fetch(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    profiles: &[Profile],
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Found> {
    if let Some(images) = find_in_image_caches(first, profiles, cache, ctx)? {
        return Ok(Found::Images(images));
    }
    let fetching = ctx.acquire(Stage::Fetch)?;
    let (plan, tree) = fetch::fetch_planned(request, inputs, first, cache, ctx)?;
    drop(fetching);
    let mut images = find_cached_build(&plan, profiles, cache, ctx)?;
    if images.is_none() && !image_cache::is_known(first) {
        images = find_in_image_caches(&plan, profiles, cache, ctx)?;
    }
    Ok(images.map_or_else(|| Found::Source(Box::new(plan), Box::new(tree)), Found::Images))
}

/// Compiles the kernel, and checks that neither the source nor a file that the config names was changed.
fn compile(
    build_dir: &BuildDir<'_>,
    configured: &Configured,
    plan: &Plan,
    tree: &Tree,
    cache: &Cache,
    reporter: &Reporter,
) -> Result<Compiled> {
    let estimate = kbuild::estimate(plan, &configured.config, cache);
    let compiled = build_dir.compile(configured, &estimate, reporter);
    let unchanged = source::check_unmodified(tree);
    let compiled = compiled?;
    unchanged?;
    config_files::check_unmodified(&configured.config, plan)?;
    build_dir.record_file_inputs()?;
    kbuild::record_build(plan, &configured.config, cache, &compiled);
    if compiled.local_fallbacks > 0 {
        let files = text::pluralize(compiled.local_fallbacks as usize, "file", "files");
        reporter.warning(format!("the farm did not compile {files}; this machine compiled them"));
    }
    let errors = compiled.cache_stats.map_or(0, |stats| stats.storage_errors);
    if errors > 0 {
        let errors = text::pluralize(errors as usize, "error", "errors");
        reporter.warning(format!("the compiler cache had {errors} of its storage, which cost hits"));
    }
    Ok(compiled)
}

/// How many jobs make gets, from which pool, and whether they may use the network.
pub(super) fn make_options(request: &Request, ctx: &Context<'_>) -> MakeOptions {
    let (farm, jobs) = match ctx.slot {
        Some(slot) => (slot.farm(), ctx.jobs),
        None => ctx.farm(request.toolchain.launcher.as_deref()),
    };
    farm.iter().for_each(|farm| farm.report_to(ctx.reporter));
    MakeOptions {
        jobs,
        jobserver: ctx.slot.map(|slot| slot.jobs().clone()),
        farm,
        module_dir: None,
        network: if ctx.offline { Network::Forbidden } else { Network::Allowed },
    }
}

/// A kernel that is compiled and whose modules are installed.
struct FinishedMake<'a> {
    plan: &'a Plan,
    source: &'a SourceIdentity,
    profiles: &'a [Profile],
    results: &'a [RequirementResult],
    build_dir: &'a BuildDir<'a>,
    image_inputs: ImageInputs<'a>,
    reusable: Reusable,
    /// When the build began, in seconds since 1970.
    began: u64,
}

/// Writes the images and their documents, and stores them in the cache.
fn write_images(
    finished: &FinishedMake<'_>,
    request: &Request,
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Vec<PackedImage>> {
    let Context { host, reporter, output, .. } = ctx;
    let FinishedMake { plan, source, image_inputs, .. } = finished;
    let (configured, compiled) = (image_inputs.config, image_inputs.compiled);
    let compiled_files = finished.build_dir.compiled_files(&configured.config, compiled, reporter);
    let _packing = ctx.acquire(Stage::Pack)?;
    let _output = pack::lock_output(output, reporter)?;
    let images = pack::pack(image_inputs, plan, output, ctx.jobs, reporter)?;
    let redaction = ctx.redaction(request, &configured.config);
    let build = receipt::FinishedBuild {
        plan,
        source,
        configured,
        results: finished.results,
        compiled,
        compiled_files: compiled_files.as_ref(),
        images: &images,
        redaction: &redaction,
    };
    let receipt = receipt::write(output, &build, reporter)?;
    attest::write(
        &build,
        &attest::BuildRun { receipt: &receipt, began: finished.began, ended: host::now() },
    )?;
    let facts = timings_facts(finished, &images, &redaction.command, host);
    let timed = timings::TimedBuild { plan, build_dir: finished.build_dir, compiled, facts };
    let pages = timings::write(&ctx.timings, &receipt, timed, reporter)?;
    let modules = image_inputs.module_count()?;
    if ctx.build_mode == BuildMode::Incremental && finished.reusable == Reusable::Yes {
        let build = reuse::NewCachedBuild {
            plan,
            profiles: finished.profiles,
            sandbox: &compiled.sandbox,
            release: &compiled.release,
            modules,
            images: &images,
            receipt: &receipt,
            command: TypedCommand {
                redacted: redaction.command,
                args: ctx.command.iter().map(|word| text::redact_secrets(word)).collect(),
                cwd: host.cwd.clone(),
            },
        };
        reuse::store(build, cache, ctx);
    }
    let timings = pages.iter().map(|page| display_path(page, host)).collect();
    let summary = summary(plan, &compiled.release, &images, ctx);
    reporter.summary(&KernelSummary { cache_stats: compiled.cache_stats, modules, timings, ..summary });
    Ok(images)
}

/// Returns what the page of timings says about a build.
fn timings_facts(
    finished: &FinishedMake<'_>,
    images: &[PackedImage],
    command: &str,
    host: &Host,
) -> timings::BuildFacts {
    let FinishedMake { plan, image_inputs, began, .. } = finished;
    let layers: Vec<String> =
        plan.config.iter().map(|layer| display_path(Utf8Path::new(&layer.name), host)).collect();
    let count = |value: &str| image_inputs.config.config.symbols.values().filter(|set| *set == value).count();
    let compiler =
        plan.toolchain.identity.get("cc").map(|version| with_compiler_names(&format!("cc: {version}")));
    let compiler =
        compiler.as_deref().and_then(|tool| tool.strip_prefix("cc: ")).unwrap_or_default().to_owned();
    let mut facts = vec![
        ("Built", time::rfc3339(*began)),
        ("Command", command.to_owned()),
        ("Compiler", compiler),
        ("Config", format!("{}: {} built in, {} as modules", layers.join(", "), count("y"), count("m"))),
    ];
    facts.extend(images.iter().map(|PackedImage { written, .. }| {
        let (layout, tag) = (display_path(&written.layout, host), &written.tag);
        let image = format!("{layout}:{tag}, {}, {}", text::format_size(written.size), written.digest.oci());
        ("Image", image)
    }));
    facts.push(("Plan", plan.digest().oci()));
    facts
}

/// Returns the images of `request` if no input changed, without opening the source tree or running make.
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

/// Returns the images of `plan`, if it was built before.
fn find_cached_build(
    plan: &Plan,
    profiles: &[Profile],
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Option<Vec<PackedImage>>> {
    let Some((cached_build, images)) = reuse::find(plan, profiles, cache, ctx)? else { return Ok(None) };
    let CachedBuild { release, modules, .. } = cached_build;
    ctx.reporter.summary(&KernelSummary { modules, ..summary(plan, &release, &images, ctx) });
    Ok(Some(images))
}

/// Returns the images of `plan` from a registry, if `--image-cache` finds them there.
fn find_in_image_caches(
    plan: &Plan,
    profiles: &[Profile],
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Option<Vec<PackedImage>>> {
    let Some(found) = image_cache::find(plan, profiles, cache, ctx)? else { return Ok(None) };
    let FoundImages { images, release, modules, plan: built_by } = found;
    let summary = summary(plan, &release, &images, ctx);
    ctx.reporter.summary(&KernelSummary { modules, plan: built_by, ..summary });
    Ok(Some(images))
}

/// Returns the part of a summary that all builds have.
fn summary(plan: &Plan, release: &str, images: &[PackedImage], ctx: &Context<'_>) -> KernelSummary {
    let Context { host, reporter, .. } = ctx;
    KernelSummary {
        release: release.to_owned(),
        cache_stats: None,
        images: images
            .iter()
            .map(|image| report::Image {
                layout: display_path(&image.written.layout, host),
                tag: image.written.tag.clone(),
                bytes: image.written.size,
            })
            .collect(),
        modules: 0,
        warnings: reporter.warnings(),
        times: reporter.times(),
        plan: plan.digest().oci(),
        receipt: display_path(&receipt::path(&ctx.output, plan), host),
        timings: Vec::new(),
        consumer_fields: inspect::summary_fields(plan, release, images),
    }
}

/// Boots the kernel image of a build and adds the result to its receipt.
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
