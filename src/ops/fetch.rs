//! From a request to its whole plan and its tree: the source is fetched or found, what it is goes into
//! the lock file, and its patches are applied. Bundles carry the same to a machine without a network.

use crate::cache::{Cache, memo};
use crate::catalog::kernels::end_of_life_warning;
use crate::catalog::lockfile::{self, LockFile, Locked};
use crate::catalog::toolchain_quirks;
use crate::kconfig::requirements;
use crate::kernel::{Channel, KernelVersion};
use crate::ops::config_files;
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::plan::{Inputs, Plan, SourceIdentity, SourceLocation};
use crate::source::{self, Tree};
use crate::util::error::Result;
use camino::Utf8Path;
use std::collections::BTreeMap;

/// The version that a channel of kernel.org stands for today. Makes no cache where there is none.
pub fn resolve(channel: Channel, mirrors: &[String], ctx: &Context<'_>) -> Result<KernelVersion> {
    let cache = Cache { root: ctx.cache_dir.clone(), uid: ctx.host.uid };
    source::resolve(channel, mirrors, &ctx.fetch_context(&cache, &LockFile::default()))
}

/// The plan of `request`, as far as it is known before the source is fetched. Touches nothing.
pub fn plan(request: &Request, ctx: &Context<'_>) -> Result<Plan> {
    requirements::read_all(ctx.library, &request.profiles)?;
    first_plan(request, &ctx.inputs(request)?)
}

/// The same from `inputs`.
pub fn first_plan(request: &Request, inputs: &Inputs) -> Result<Plan> {
    Ok(config_files::with_config_files(Plan::new(request, inputs, None)?))
}

/// Fetches the source of `request` into the cache, patched, and returns it with the whole plan.
pub fn fetch(request: &Request, ctx: &Context<'_>) -> Result<(Plan, Tree)> {
    let inputs = ctx.inputs(request)?;
    let first = first_plan(request, &inputs)?;
    fetch_planned(request, &inputs, &first, &Cache::open(&ctx.cache_dir, ctx.host.uid)?, ctx)
}

/// The same, where the plan as far as it is known is made already.
pub fn fetch_planned(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<(Plan, Tree)> {
    memo::put(cache, &inputs.memo_entries);
    let fetch_context = ctx.fetch_context(cache, &inputs.lock);
    let pristine = source::open_or_fetch(first, &fetch_context)?;
    let plan = complete_plan(request, inputs, &pristine, ctx)?;
    let tree = source::patched(pristine, &plan, &fetch_context)?;
    Ok((plan, tree))
}

/// The whole plan, if what its source is can be told from the cache at once.
pub fn cached_plan(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Option<Plan>> {
    memo::put(cache, &inputs.memo_entries);
    let tree = source::find_cached(first, &ctx.fetch_context(cache, &inputs.lock))?;
    tree.map(|tree| complete_plan(request, inputs, &tree, ctx)).transpose()
}

/// What the source has shown goes into the plan, whose notices are said, and into the lock file if the
/// plan can be made with it: what is refused must not be pinned. That its series has ended is said, too.
fn complete_plan(request: &Request, inputs: &Inputs, tree: &Tree, ctx: &Context<'_>) -> Result<Plan> {
    let defects = toolchain_quirks::defects(&inputs.rules, &tree.path);
    let plan = config_files::with_config_files(Plan::new(request, inputs, Some((&tree.identity, &defects)))?);
    update_lock_file(&tree.identity, ctx);
    plan.notices.iter().for_each(|notice| ctx.reporter.note(notice));
    if let Some(end) = ctx.catalog.end_date(tree.identity.version, ctx.host.now) {
        ctx.reporter.warning(end_of_life_warning(tree.identity.version.series(), Some(end)));
    }
    Ok(plan)
}

/// Writes what a build of these sources needs into the file `path`; see [`source::write_bundle`].
pub fn write_bundle(
    path: &Utf8Path,
    sources: &[(SourceLocation, SourceIdentity)],
    ctx: &Context<'_>,
) -> Result<()> {
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    source::write_bundle(path, sources, &ctx.fetch_context(&cache, &LockFile::default()))
}

/// Brings what is in the bundle `path` into the cache; see [`source::import_bundle`]. Returns what its sources are:
/// an entry reaches the lock file when its source is used.
pub fn import_bundle(path: &Utf8Path, ctx: &Context<'_>) -> Result<BTreeMap<String, Locked>> {
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    source::import_bundle(path, &ctx.fetch_context(&cache, &ctx.lock()?))
}

/// Writes into the lock file what the source is, if it is not there yet. A lock file that cannot be
/// written is no reason to fail: what it held has been checked.
fn update_lock_file(source: &SourceIdentity, ctx: &Context<'_>) {
    let Some(origin) = source.origin.clone() else { return };
    let locked = Locked { digest: source.digest.clone(), unverified: !source.is_authenticated() };
    if let Err(error) = lockfile::add(&ctx.lock_path, &[(origin, locked)], ctx.update_lock) {
        ctx.reporter.warning(format!("{error}: a later change of the source would not be noticed"));
    }
}
