//! From a request to its whole plan and its tree: the source is fetched or found, what it is goes into
//! the lock file, and its patches are applied. Bundles carry the same to a machine without a network.

use crate::cache::{Cache, memo};
use crate::catalog::kernels::ended_warning;
use crate::catalog::lockfile::{self, LockFile, Locked};
use crate::catalog::toolchain_quirks;
use crate::kconfig::requirements;
use crate::kernel::{Channel, KernelVersion};
use crate::ops::config_files;
use crate::ops::context::Run;
use crate::plan::request::Request;
use crate::plan::{Inputs, Locator, Plan, SourceIdentity};
use crate::source::{self, Tree};
use crate::util::error::Result;
use camino::Utf8Path;
use std::collections::BTreeMap;

/// The version that a channel of kernel.org stands for today. Makes no cache where there is none.
pub fn resolve(channel: Channel, mirrors: &[String], run: &Run<'_>) -> Result<KernelVersion> {
    let cache = Cache { root: run.cache_dir.clone(), uid: run.host.uid };
    source::resolve(channel, mirrors, &run.fetching(&cache, &LockFile::default()))
}

/// The plan of `request`, as far as it is known before the source is fetched. Touches nothing.
pub fn plan(request: &Request, run: &Run<'_>) -> Result<Plan> {
    requirements::read_all(run.library, &request.profiles)?;
    first_plan(request, &run.inputs(request)?)
}

/// The same from `inputs`.
pub fn first_plan(request: &Request, inputs: &Inputs) -> Result<Plan> {
    Ok(config_files::complete(Plan::new(request, inputs, None)?))
}

/// Fetches the source of `request` into the cache, patched, and returns it with the whole plan.
pub fn fetch(request: &Request, run: &Run<'_>) -> Result<(Plan, Tree)> {
    let inputs = run.inputs(request)?;
    let first = first_plan(request, &inputs)?;
    fetch_planned(request, &inputs, &first, &Cache::open(&run.cache_dir, run.host.uid)?, run)
}

/// The same, where the plan as far as it is known is made already.
pub fn fetch_planned(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    cache: &Cache,
    run: &Run<'_>,
) -> Result<(Plan, Tree)> {
    memo::keep(cache, &inputs.facts);
    let fetching = run.fetching(cache, &inputs.lock);
    let pristine = source::obtain(first, &fetching)?;
    let plan = whole_plan(request, inputs, &pristine, run)?;
    let tree = source::patched(pristine, &plan, &fetching)?;
    Ok((plan, tree))
}

/// The whole plan, if what its source is can be told from the cache at once.
pub fn plan_at_hand(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    cache: &Cache,
    run: &Run<'_>,
) -> Result<Option<Plan>> {
    memo::keep(cache, &inputs.facts);
    let tree = source::at_hand(first, &run.fetching(cache, &inputs.lock))?;
    tree.map(|tree| whole_plan(request, inputs, &tree, run)).transpose()
}

/// What the source has shown goes into the plan, whose notices are said, and into the lock file if the
/// plan can be made with it: what is refused must not be pinned. That its series has ended is said, too.
fn whole_plan(request: &Request, inputs: &Inputs, tree: &Tree, run: &Run<'_>) -> Result<Plan> {
    let defects = toolchain_quirks::defects(&inputs.rules, &tree.path);
    let plan = config_files::complete(Plan::new(request, inputs, Some((&tree.identity, &defects)))?);
    lock(&tree.identity, run);
    plan.notices.iter().for_each(|notice| run.report.note(notice));
    if let Some(end) = run.catalog.ended(tree.identity.version, run.host.now) {
        run.report.finding(ended_warning(tree.identity.version.series(), Some(end)));
    }
    Ok(plan)
}

/// Writes what a build of these sources needs into the file `path`; see [`source::write_bundle`].
pub fn write_bundle(path: &Utf8Path, sources: &[(Locator, SourceIdentity)], run: &Run<'_>) -> Result<()> {
    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    source::write_bundle(path, sources, &run.fetching(&cache, &LockFile::default()))
}

/// Brings what is in the bundle `path` into the cache; see [`source::take_bundle`]. Returns what its sources are:
/// an entry reaches the lock file when its source is used.
pub fn take_bundle(path: &Utf8Path, run: &Run<'_>) -> Result<BTreeMap<String, Locked>> {
    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    source::take_bundle(path, &run.fetching(&cache, &run.lock()?))
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
