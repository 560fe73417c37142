//! kcompile builds Linux guest kernels natively and packs them as OCI layouts.
//!
//! This crate is the program's own library; its interface is the command line. The story of one
//! build is [`build`]: each step turns one plain value into the next, and a value's existence proves
//! that the step before it worked. ARCHITECTURE.md is the map.

pub mod cache;
pub mod cli;
pub mod date;
pub mod digest;
pub mod doctor;
pub mod error;
pub mod files;
pub mod host;
pub mod inputs;
pub mod kbuild;
pub mod kconfig;
pub mod kernel;
pub mod library;
pub mod oci;
pub mod patches;
pub mod plan;
pub mod process;
pub mod receipt;
pub mod report;
pub mod request;
pub mod source;
pub mod staging;
pub mod words;

use cache::{Cache, Lock, lock_file};
use camino::{Utf8Path, Utf8PathBuf};
use error::{Error, Result};
use host::Host;
use kbuild::{BuildDir, Configured};
use kernel::Catalog;
use library::Library;
use oci::Written;
use plan::{Inputs, Plan};
use report::{Phase, Report, Summary};
use request::Request;
use source::{Fetching, Tree};
use staging::Staged;
use std::time::Duration;
use words::{counted, size};

/// What every kernel of a run shares.
pub struct Run<'a> {
    /// The process and its machine.
    pub host: &'a Host,
    /// `configs/` and `patches/`.
    pub library: &'a Library,
    /// The kernels in it.
    pub catalog: &'a Catalog,
    /// Whom to tell.
    pub report: &'a Report,
    /// `--cache-dir`.
    pub cache_dir: Utf8PathBuf,
    /// `-o`.
    pub output: Utf8PathBuf,
    /// `-j`.
    pub jobs: usize,
    /// `--offline`.
    pub offline: bool,
    /// `--stall-timeout`.
    pub stall: Duration,
    /// The command line, for the receipt.
    pub command: Vec<String>,
}

/// The plan of `request`, as far as it is known before the source is fetched. Touches nothing.
pub fn plan(request: &Request, run: &Run<'_>) -> Result<Plan> {
    let inputs = inputs::read(request, run.host, run.library, run.catalog)?;
    Plan::new(request, &inputs, None)
}

/// Fetches the source of `request` into the cache, patched, and returns it with the whole plan.
pub fn fetch(request: &Request, run: &Run<'_>) -> Result<(Plan, Tree)> {
    let inputs = inputs::read(request, run.host, run.library, run.catalog)?;
    let first = Plan::new(request, &inputs, None)?;
    fetch_planned(request, &inputs, &first, &Cache::open(&run.cache_dir)?, run)
}

fn fetch_planned(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    cache: &Cache,
    run: &Run<'_>,
) -> Result<(Plan, Tree)> {
    let fetching =
        Fetching { cache, host: run.host, report: run.report, offline: run.offline, stall: run.stall };
    let pristine = source::obtain(first, &fetching)?;
    let plan = Plan::new(request, inputs, Some(&pristine.identity))?;
    plan.notices.iter().for_each(|notice| run.report.note(notice));
    let tree = source::patched(pristine, &plan, &fetching)?;
    Ok((plan, tree))
}

/// Builds the kernel of `request` and packs it. Returns the images, in the order of the plan.
pub fn build(request: &Request, run: &Run<'_>) -> Result<Vec<Written>> {
    let Run { host, report, output, .. } = run;
    let inputs = inputs::read(request, host, run.library, run.catalog)?;
    let first = Plan::new(request, &inputs, None)?;
    doctor::examine(&first, host).require()?;
    oci::check_output(output, first.images.iter().map(|image| image.layout.as_str()))?;

    let cache = Cache::open(&run.cache_dir)?;
    let (plan, tree) = fetch_planned(request, &inputs, &first, &cache, run)?;
    let _building = cache.lock(&kbuild::lock_name(&plan, &tree), report)?;
    let build_dir = BuildDir::open(&plan, &tree, host, run.jobs)?;
    let configured = build_dir.configure(report)?;
    judge(&configured, &plan, report)?;
    let compiled = build_dir.compile(&configured, kbuild::history(&plan, &cache).as_ref(), report)?;
    kbuild::remember(&plan, &cache, &compiled)?;

    let scratch = cache.scratch()?;
    let root = scratch.path.as_path();
    let with_modules = compiled.modules && kbuild::wants_modules(&plan);
    match (with_modules, kbuild::wants_modules(&plan)) {
        (true, _) => build_dir.install_modules(root, &compiled, report)?,
        (false, true) => {
            report.note("the config has no modules (CONFIG_MODULES is not set): no modules image");
        }
        (false, false) => {}
    }
    let staged = Staged {
        compiled: &compiled,
        root: with_modules.then(|| root.to_owned()),
        config: &configured.path,
        version: plan.version_text(),
    };
    let _packing = lock_output(output, report)?;
    let images = pack(&staged, &plan, output, report)?;
    let built = (&configured, &compiled);
    let receipt = receipt::write(output, &plan, &tree.identity, built, &images, report, &run.command)?;
    report.summary(&Summary {
        release: compiled.release.clone(),
        images: images
            .iter()
            .map(|image| report::Image {
                layout: shown(&image.layout, host),
                tag: image.tag.clone(),
                bytes: image.size,
            })
            .collect(),
        modules: staged.module_count()?,
        findings: report.findings(),
        times: report.times(),
        plan: plan.digest().to_string(),
        receipt: shown(&receipt, host),
    });
    Ok(images)
}

/// What `olddefconfig` changed: a setting that the user gave by `--set` or `--fragment` and that did
/// not take fails the build before anything is compiled; any other is a finding.
fn judge(configured: &Configured, plan: &Plan, report: &Report) -> Result<()> {
    let by = |difference: &kconfig::Difference| &plan.config[difference.layer];
    let (refused, found): (Vec<_>, Vec<_>) =
        configured.differences.iter().partition(|difference| by(difference).must_take);
    for difference in found {
        report.finding(format!("{difference} (asked for by {})", by(difference).name));
    }
    if refused.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = refused
        .iter()
        .map(|difference| format!("{difference} (asked for by {})", by(difference).name))
        .collect();
    Err(Error::build(format!("the kernel's olddefconfig did not take {}", list.join("; "))).hint(
        "an option takes only if this kernel has it and all it depends on is on: set those too, or leave it out",
    ))
}

fn lock_output(output: &Utf8Path, report: &Report) -> Result<Lock> {
    files::create_dir(output)?;
    let lock = lock_file(&output.join(oci::LOCK), report)?;
    oci::sweep(output)?;
    Ok(lock)
}

/// Writes all images, then tags them all: a failure half-way leaves the old ones in force.
fn pack(staged: &Staged<'_>, plan: &Plan, output: &Utf8Path, report: &Report) -> Result<Vec<Written>> {
    let running = report.start(Phase::Pack, output.as_str());
    let epoch = plan.source_date_epoch.expect("known with the source");
    let without_modules = |image: &&plan::ImagePlan| {
        staged.root.is_some() || !matches!(image.contents, plan::Contents::Modules { .. })
    };
    let prepare = |image: &plan::ImagePlan| {
        oci::prepare(output, image, plan.arch, &staged.entries(&image.contents)?, epoch)
    };
    let ready: Result<Vec<_>> = plan.images.iter().filter(without_modules).map(prepare).collect();
    process::check()?;
    let images = ready?.into_iter().map(oci::Ready::publish).collect::<Result<Vec<_>>>()?;
    let bytes = images.iter().map(|image| image.size).sum();
    running.finish(&format!("{}, {}", counted(images.len(), "image", "images"), size(bytes)));
    Ok(images)
}

/// A path as the user would type it: relative where it is below the working directory.
pub fn shown(path: &Utf8Path, host: &Host) -> String {
    path.strip_prefix(&host.cwd).unwrap_or(path).to_string()
}
