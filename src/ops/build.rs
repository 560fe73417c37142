//! The story of one build: each step turns one plain value into the next, and a value's existence proves
//! that the step before it worked.

use crate::boot;
use crate::boot::target::{self, ModulesAt, Told};
use crate::cache::Cache;
use crate::host;
use crate::image::contents::Staged;
use crate::image::pack::{self, PackedImage};
use crate::image::{attest, inspect, receipt};
use crate::kbuild::launcher::Network;
use crate::kbuild::{self, BuildDir, Objects, timings};
use crate::kconfig::requirements::{self, Profile};
use crate::oci;
use crate::ops::check_config::{self, Reusable};
use crate::ops::context::{Run, shown};
use crate::ops::reuse::TypedCommand;
use crate::ops::scheduler::Stage;
use crate::ops::{config_files, doctor, fetch, reuse};
use crate::plan::request::Request;
use crate::plan::{Inputs, Locator, Plan};
use crate::report::{self, Summary};
use crate::source;
use crate::util::error::Result;
use crate::util::fs::create_dir;
use crate::util::text;
use camino::{Utf8Path, Utf8PathBuf};

/// Builds the kernel of `request` and packs it. Returns the images, in the order of the plan.
pub fn build(request: &Request, run: &Run<'_>) -> Result<Vec<PackedImage>> {
    let Run { host, report, output, .. } = run;
    let began = host::now();
    let profiles = requirements::read_all(run.library, &request.profiles)?;
    let inputs = run.inputs(request)?;
    let first = fetch::first_plan(request, &inputs)?;
    if let Locator::Directory { path } = &first.source.locator {
        source::keep_out(path, ("the output directory", output), "-o")?;
    }
    if let Some(images) = unchanged(request, &inputs, &first, &profiles, run)? {
        return Ok(images);
    }
    doctor::examine(&first, host).require()?;
    oci::check_output(output, first.images.iter().map(|image| image.layout.as_str()))?;

    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    let fetching = run.enter(Stage::Fetch)?;
    let (plan, tree) = fetch::fetch_planned(request, &inputs, &first, &cache, run)?;
    drop(fetching);
    if let Some(images) = made_before(&plan, &profiles, &cache, run)? {
        return Ok(images);
    }
    // Before the turn comes: a tree in which nobody builds may be removed.
    let _locked = cache.lock(&kbuild::lock_name(&plan, &tree, run.objects), report)?;
    tree.require()?;
    let building = run.enter(Stage::Build)?;
    let private = cache.scratch()?;
    let (farm, jobs) = match run.place {
        Some(place) => (place.farm(), run.jobs),
        None => run.farm(request.toolchain.launcher.as_deref()),
    };
    farm.iter().for_each(|farm| farm.tell(report));
    let build_dir = BuildDir::open(&plan, &tree, run.objects, (host, jobs), report)?
        .sharing(run.place.map(|place| place.jobs()))
        .with_farm(farm)
        .with_network(if run.offline { Network::Forbidden } else { Network::Allowed })
        .confined(run.sandbox, &private.path, report)?;
    let configured = check_config::explained(build_dir.configure(report)?, &plan, &tree, run)?;
    check_config::judge(&configured, &plan, report)?;
    let outcomes = check_config::require(&configured, &plan, &profiles, report)?;
    let reusable = check_config::inputs(&configured, &plan, &tree, build_dir.owners_show(), report)?;
    let compiled = build_dir.compile(&configured, kbuild::history(&plan, &cache).as_ref(), report);
    let unchanged = source::still_the_same(&tree);
    let compiled = compiled?;
    unchanged?;
    config_files::still_the_same(&configured.config, &plan)?;
    build_dir.note_files()?;
    kbuild::remember(&plan, &cache, &compiled);
    if compiled.fell_back > 0 {
        let files = text::counted(compiled.fell_back as usize, "file", "files");
        report.finding(format!("the farm did not compile {files}, which were compiled on this machine"));
    }

    let root = private.path.join("modules");
    create_dir(&root)?;
    let modules = pack::install_modules(&build_dir, &compiled, &plan, &root, report)?;
    let staged =
        Staged { compiled: &compiled, root: modules, config: &configured, version: plan.version_text() };
    drop(building);
    let _packing = run.enter(Stage::Pack)?;
    let _output = pack::lock_output(output, report)?;
    let images = pack::pack(&staged, &plan, output, run.jobs, report)?;
    let built = (&configured, &outcomes[..], &compiled);
    let published = run.published(request, &configured.config);
    let receipt = receipt::write(output, &plan, &tree.identity, built, &images, report, &published)?;
    attest::write(&attest::Build {
        plan: &plan,
        source: &tree.identity,
        configured: &configured,
        compiled: &compiled,
        images: &images,
        receipt: &receipt,
        published: &published,
        began,
        ended: host::now(),
    })?;
    let pages = timings::write(&run.timings, &receipt, &plan, &build_dir, &compiled, report)?;
    let came_out = (&*compiled.release, staged.module_count()?);
    let kept = (&plan, &profiles[..], &compiled.confinement);
    match (run.objects, reusable) {
        (Objects::Kept, Reusable::Yes) => {
            let command = TypedCommand {
                published: published.command,
                words: run.command.iter().map(|word| text::without_secrets(word)).collect(),
                cwd: host.cwd.clone(),
            };
            reuse::keep(kept, came_out, (&images, &receipt), command, &cache, (host, report));
        }
        (Objects::Kept, Reusable::No) => {}
        (Objects::Fresh, _) => build_dir.remove()?,
    }
    let (release, modules) = came_out;
    summarize(&plan, (release, modules, compiled.cached), &images, (&receipt, &pages), run);
    Ok(images)
}

/// The answer to `request` where nothing changed, without a look at its tree or a call of make.
fn unchanged(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    profiles: &[Profile],
    run: &Run<'_>,
) -> Result<Option<Vec<PackedImage>>> {
    if !run.reuses() || !run.cache_dir.is_dir() {
        return Ok(None);
    }
    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    match fetch::plan_at_hand(request, inputs, first, &cache, run)? {
        Some(plan) => made_before(&plan, profiles, &cache, run),
        None => Ok(None),
    }
}

/// The images of `plan`, if it was built before.
fn made_before(
    plan: &Plan,
    profiles: &[Profile],
    cache: &Cache,
    run: &Run<'_>,
) -> Result<Option<Vec<PackedImage>>> {
    let Some((made, images)) = reuse::find(plan, profiles, cache, run)? else { return Ok(None) };
    let receipt = receipt::path(&run.output, plan);
    summarize(plan, (&made.release, made.modules, None), &images, (&receipt, &[]), run);
    Ok(Some(images))
}

fn summarize(
    plan: &Plan,
    (release, modules, cached): (&str, usize, Option<report::Usage>),
    images: &[PackedImage],
    (receipt, pages): (&Utf8Path, &[Utf8PathBuf]),
    run: &Run<'_>,
) {
    let Run { host, report, .. } = run;
    report.summary(&Summary {
        release: release.to_owned(),
        cached,
        images: images
            .iter()
            .map(|image| report::Image {
                layout: shown(&image.written.layout, host),
                tag: image.written.tag.clone(),
                bytes: image.written.size,
            })
            .collect(),
        modules,
        findings: report.findings(),
        times: report.times(),
        plan: plan.digest().to_string(),
        receipt: shown(receipt, host),
        timings: pages.iter().map(|page| shown(page, host)).collect(),
    });
}

/// Boots the kernel image of a build and notes in its receipt what came of it.
pub fn boot_built(images: &[PackedImage], options: &boot::Options, run: &Run<'_>) -> Result<boot::Outcome> {
    let Run { host, report, .. } = run;
    let kernel = images.first().expect("every build has an image of its kernel");
    let has_modules = images.iter().any(|image| !image.holds_kernel);
    let modules = if has_modules { ModulesAt::Beside } else { ModulesAt::Within };
    let name = shown(&kernel.written.layout, host);
    let subject = target::of_layout(
        &name,
        (&kernel.written.layout, Some(&kernel.written.tag)),
        modules,
        Told::default(),
        None,
    )?;
    let cache = Cache::open(&run.cache_dir, host.uid)?;
    let outcome = boot::boot(&subject, options, &cache, host, report)?;
    if let Some(receipt) = inspect::receipt_path(&subject.kernel) {
        let _packing = pack::lock_output(&run.output, report)?;
        receipt::add_boot(&receipt, &outcome)?;
    }
    Ok(outcome)
}
