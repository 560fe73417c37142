//! kcompile builds Linux guest kernels natively and packs them as OCI layouts.
//!
//! This crate is the program's own library; its interface is the command line. The story of one
//! build is [`build`]: each step turns one plain value into the next, and a value's existence proves
//! that the step before it worked. ARCHITECTURE.md is the map.

pub mod add;
pub mod attest;
pub mod binary;
pub mod cache;
pub mod clean;
pub mod cli;
pub mod configs;
pub mod date;
pub mod digest;
pub mod doctor;
pub mod error;
pub mod fetch;
pub mod files;
pub mod host;
pub mod inputs;
pub mod inspect;
pub mod kbuild;
pub mod kconfig;
pub mod kernel;
pub mod library;
pub mod lockfile;
pub mod oci;
pub mod openpgp;
pub mod pack;
pub mod patches;
pub mod plan;
pub mod process;
pub mod project;
pub mod push;
pub mod receipt;
pub mod report;
pub mod request;
pub mod requirements;
pub mod run;
pub mod source;
pub mod staging;
pub mod timings;
pub mod toolchain;
pub mod verdict;
pub mod words;

pub use fetch::{fetch, plan, resolve, take_bundle, write_bundle};
pub use run::Run;

use cache::Cache;
use camino::Utf8Path;
use error::Result;
use host::Host;
use kbuild::BuildDir;
use oci::Written;
use plan::Plan;
use report::Summary;
use request::Request;
use staging::Staged;

/// Builds the kernel of `request` and packs it. Returns the images, in the order of the plan.
pub fn build(request: &Request, run: &Run<'_>) -> Result<Vec<Written>> {
    let Run { host, report, output, .. } = run;
    let began = host::now();
    let profiles = requirements::read_all(run.library, &request.profiles)?;
    let inputs = run.inputs(request)?;
    let first = Plan::new(request, &inputs, None)?;
    doctor::examine(&first, host).require()?;
    oci::check_output(output, first.images.iter().map(|image| image.layout.as_str()))?;

    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    let (plan, tree) = fetch::fetch_planned(request, &inputs, &first, &cache, run)?;
    let _building = cache.lock(&kbuild::lock_name(&plan, &tree), report)?;
    let build_dir = BuildDir::open(&plan, &tree, host, run.jobs, report)?;
    let configured = verdict::explained(build_dir.configure(report)?, &plan, &tree, run)?;
    verdict::judge(&configured, &plan, report)?;
    let outcomes = verdict::require(&configured, &plan, &profiles, report)?;
    let compiled = build_dir.compile(&configured, kbuild::history(&plan, &cache).as_ref(), report)?;
    kbuild::remember(&plan, &cache, &compiled);

    let scratch = cache.scratch()?;
    let modules = pack::install_modules(&build_dir, &compiled, &plan, &scratch.path, report)?;
    let staged =
        Staged { compiled: &compiled, root: modules, config: &configured, version: plan.version_text() };
    let _packing = pack::lock_output(output, report)?;
    let images = pack::pack(&staged, &plan, output, report)?;
    let built = (&configured, &outcomes[..], &compiled);
    let receipt = receipt::write(output, &plan, &tree.identity, built, &images, report, &run.command)?;
    attest::write(&attest::Build {
        plan: &plan,
        source: &tree.identity,
        configured: &configured,
        compiled: &compiled,
        images: &images,
        receipt: &receipt,
        began,
        ended: host::now(),
    })?;
    let pages = timings::write(&run.timings, output, &plan, &build_dir, &compiled, report)?;
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
        timings: pages.iter().map(|page| shown(page, host)).collect(),
    });
    Ok(images)
}

/// A path as the user would type it: relative where it is below the working directory.
pub fn shown(path: &Utf8Path, host: &Host) -> String {
    path.strip_prefix(&host.cwd).unwrap_or(path).to_string()
}
