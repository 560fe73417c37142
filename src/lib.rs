//! kcompile builds Linux guest kernels natively and packs them as OCI layouts.
//!
//! This crate is the program's own library; its interface is the command line. The story of one
//! build is [`build`]: each step turns one plain value into the next, and a value's existence proves
//! that the step before it worked. ARCHITECTURE.md is the map.

pub mod cache;
pub mod clean;
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
pub mod lockfile;
pub mod oci;
pub mod openpgp;
pub mod patches;
pub mod plan;
pub mod process;
pub mod receipt;
pub mod report;
pub mod request;
pub mod requirements;
pub mod source;
pub mod staging;
pub mod toolchain;
pub mod words;

use cache::{Cache, Lock, lock_file};
use camino::{Utf8Path, Utf8PathBuf};
use error::{Error, Result};
use host::Host;
use kbuild::{BuildDir, Configured};
use kconfig::why::{self, Kernel, Renames};
use kernel::{Catalog, Channel, KernelVersion};
use library::Library;
use lockfile::{LockFile, Locked};
use oci::Written;
use openpgp::Keyring;
use plan::{Inputs, Locator, Plan, SourceIdentity};
use report::{Phase, Report, Summary};
use request::Request;
use requirements::{Outcome, Profile, Stage, Subject};
use source::{Fetching, Tree};
use staging::Staged;
use std::time::Duration;
use words::{counted, size};

/// An error names so many unmet requirements, and counts the others.
const MOST_NAMED: usize = 6;

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
    /// Whose signatures are believed: our own keys and those of `--keyring`.
    pub keyring: Keyring,
    /// `--require-signature`.
    pub signature_required: bool,
    /// Where the lock file lies or will lie.
    pub lock_path: Utf8PathBuf,
    /// `--update-lock`.
    pub update_lock: bool,
    /// `fetch --bundle`: archives are wanted beside their trees.
    pub archive_wanted: bool,
    /// The command line, for the receipt.
    pub command: Vec<String>,
}

impl Run<'_> {
    fn inputs(&self, request: &Request) -> Result<Inputs> {
        // An entry that is to be replaced is none.
        let lock = if self.update_lock { LockFile::default() } else { LockFile::read(&self.lock_path)? };
        inputs::read(request, self.host, (self.library, self.catalog), lock)
    }

    fn fetching<'a>(&'a self, cache: &'a Cache, lock: &'a LockFile) -> Fetching<'a> {
        Fetching {
            cache,
            host: self.host,
            report: self.report,
            offline: self.offline,
            stall: self.stall,
            jobs: self.jobs,
            catalog: self.catalog,
            lock,
            keyring: &self.keyring,
            signature_required: self.signature_required,
            archive_wanted: self.archive_wanted,
        }
    }
}

/// The version that a channel of kernel.org stands for today. Makes no cache where there is none.
pub fn resolve(channel: Channel, mirrors: &[String], run: &Run<'_>) -> Result<KernelVersion> {
    let cache = Cache { root: run.cache_dir.clone(), uid: run.host.uid };
    source::resolve(channel, mirrors, &run.fetching(&cache, &LockFile::default()))
}

/// The plan of `request`, as far as it is known before the source is fetched. Touches nothing.
pub fn plan(request: &Request, run: &Run<'_>) -> Result<Plan> {
    requirements::read_all(run.library, &request.profiles)?;
    Plan::new(request, &run.inputs(request)?, None)
}

/// Fetches the source of `request` into the cache, patched, and returns it with the whole plan.
pub fn fetch(request: &Request, run: &Run<'_>) -> Result<(Plan, Tree)> {
    let inputs = run.inputs(request)?;
    let first = Plan::new(request, &inputs, None)?;
    fetch_planned(request, &inputs, &first, &Cache::open(&run.cache_dir, run.host.uid)?, run)
}

fn fetch_planned(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    cache: &Cache,
    run: &Run<'_>,
) -> Result<(Plan, Tree)> {
    let fetching = run.fetching(cache, &inputs.lock);
    let pristine = source::obtain(first, &fetching)?;
    lock(&pristine.identity, run);
    let defects = toolchain::defects(&inputs.rules, &pristine.path);
    let plan = Plan::new(request, inputs, Some((&pristine.identity, &defects)))?;
    plan.notices.iter().for_each(|notice| run.report.note(notice));
    let tree = source::patched(pristine, &plan, &fetching)?;
    Ok((plan, tree))
}

/// Writes what a build of these sources needs into the file `path`; see [`source::write_bundle`].
pub fn write_bundle(path: &Utf8Path, sources: &[(Locator, SourceIdentity)], run: &Run<'_>) -> Result<()> {
    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    source::write_bundle(path, sources, &run.fetching(&cache, &LockFile::default()))
}

/// Brings what is in the bundle `path` into the cache and the lock file; see [`source::take_bundle`].
///
/// Errors (exit code 3): the lock file has another digest for one of its sources.
pub fn take_bundle(path: &Utf8Path, run: &Run<'_>) -> Result<()> {
    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    let entries = source::take_bundle(path, &run.fetching(&cache, &LockFile::default()))?;
    let lock = LockFile::read(&run.lock_path)?;
    let differs = |(origin, locked): &&(String, Locked)| {
        lock.of(origin).is_some_and(|ours| ours.digest != locked.digest)
    };
    match entries.iter().find(differs).filter(|_| !run.update_lock) {
        None => lockfile::add(&run.lock_path, &entries, run.update_lock),
        Some((origin, _)) => {
            Err(Error::fetch(format!("{path}: its {origin} is not what {} says it was", run.lock_path))
                .hint("if that is to be, --update-lock accepts it"))
        }
    }
}

/// Writes into the lock file what the source is, if it is not there yet. A lock file that cannot be
/// written is no reason to fail: what it held has been checked.
fn lock(source: &SourceIdentity, run: &Run<'_>) {
    let Some(origin) = source.origin.clone() else { return };
    let locked = Locked { digest: source.digest.clone(), unverified: !source.is_vouched_for() };
    if let Err(error) = lockfile::add(&run.lock_path, &[(origin, locked)], run.update_lock) {
        run.report.finding(format!("{error}: a later change of the source would not be noticed"));
    }
}

/// Builds the kernel of `request` and packs it. Returns the images, in the order of the plan.
pub fn build(request: &Request, run: &Run<'_>) -> Result<Vec<Written>> {
    let Run { host, report, output, .. } = run;
    let profiles = requirements::read_all(run.library, &request.profiles)?;
    let inputs = run.inputs(request)?;
    let first = Plan::new(request, &inputs, None)?;
    doctor::examine(&first, host).require()?;
    oci::check_output(output, first.images.iter().map(|image| image.layout.as_str()))?;

    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    let (plan, tree) = fetch_planned(request, &inputs, &first, &cache, run)?;
    let _building = cache.lock(&kbuild::lock_name(&plan, &tree), report)?;
    let build_dir = BuildDir::open(&plan, &tree, host, run.jobs)?;
    let configured = explained(build_dir.configure(report)?, &plan, &tree, run)?;
    judge(&configured, &plan, report)?;
    let outcomes = require(&configured, &plan, &profiles, report)?;
    let compiled = build_dir.compile(&configured, kbuild::history(&plan, &cache).as_ref(), report)?;
    kbuild::remember(&plan, &cache, &compiled);

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
    let built = (&configured, &outcomes[..], &compiled);
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

/// Says why each setting came out otherwise, where there is one that did. What cannot be explained is
/// no reason to fail.
fn explained(configured: Configured, plan: &Plan, tree: &Tree, run: &Run<'_>) -> Result<Configured> {
    if configured.differences.is_empty() {
        return Ok(configured);
    }
    let renames = Renames::read(run.library)?;
    let kernel = Kernel { tree: &tree.path, arch: plan.arch, version: plan.version, renames: &renames };
    let is_snapshot = |difference: &kconfig::Difference| !plan.config[difference.layer].must_take;
    match why::explain(&configured.differences, &configured.config, &kernel, is_snapshot) {
        Ok(differences) => Ok(Configured { differences, ..configured }),
        Err(error) => {
            run.report.note(&format!("no reasons for what olddefconfig changed: {error}"));
            Ok(configured)
        }
    }
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

/// Holds the final config against the profiles: what one of them requires and the config lacks fails
/// the build before anything is compiled; what is only recommended is one finding for each profile.
fn require(
    configured: &Configured,
    plan: &Plan,
    profiles: &[Profile],
    report: &Report,
) -> Result<Vec<Outcome>> {
    let version = plan.version.expect("known with the source");
    let subject = Subject { config: &configured.config, version, arch: plan.arch, stage: Stage::Final };
    let outcomes = requirements::check(profiles, &subject);
    let fatal: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.is_fatal()).collect();
    if fatal.is_empty() {
        for profile in profiles {
            let advice = outcomes.iter().filter(|one| one.profile == profile.name && one.is_advice());
            let advice: Vec<String> = advice.map(Outcome::to_string).collect();
            if !advice.is_empty() {
                report.finding(format!(
                    "the profile {} recommends otherwise: {}",
                    profile.name,
                    advice.join("; ")
                ));
            }
        }
        return Ok(outcomes);
    }
    let mut list: Vec<String> =
        fatal.iter().take(MOST_NAMED).map(|outcome| format!("{outcome} ({})", outcome.reason)).collect();
    list.extend((fatal.len() > MOST_NAMED).then(|| format!("and {} more", fatal.len() - MOST_NAMED)));
    let mut names: Vec<&str> = fatal.iter().map(|outcome| outcome.profile.as_str()).collect();
    names.dedup();
    let error =
        Error::build(format!("the final .config does not meet {}: {}", names.join(", "), list.join("; ")));
    Err(error.hint(format!(
        "change it with --set or --fragment; all of it: kcompile check {} --for {}\n      \
         (--require none leaves the flavor's own profile out)",
        configured.path,
        names.join(" ")
    )))
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
