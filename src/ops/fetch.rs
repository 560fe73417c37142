//! From a request to its complete plan and its tree. Fetches the source or finds it in the cache, updates the
//! lock file and applies patches. Bundles carry sources to machines without a network.

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
use crate::util::error::{Error, Kind, Result};
use camino::Utf8Path;
use std::collections::BTreeMap;

/// Returns the current version of a channel of kernel.org. Creates no cache.
pub fn resolve(channel: Channel, mirrors: &[String], ctx: &Context<'_>) -> Result<KernelVersion> {
    let cache = Cache { root: ctx.cache_dir.clone(), uid: ctx.host.uid };
    source::resolve(channel, mirrors, &ctx.fetch_context(&cache, &LockFile::default()))
}

/// Returns the plan of `request` as far as it is known before the source is fetched. Changes nothing.
pub fn plan(request: &Request, ctx: &Context<'_>) -> Result<Plan> {
    requirements::read_all(ctx.library, &request.profiles)?;
    first_plan(request, &ctx.inputs(request)?)
}

/// Returns the plan before the source is fetched, from `inputs`.
pub fn first_plan(request: &Request, inputs: &Inputs) -> Result<Plan> {
    Ok(config_files::with_config_files(Plan::new(request, inputs, None)?))
}

/// Fetches the source of `request` into the cache and patches it. Returns the complete plan and the tree.
pub fn fetch(request: &Request, ctx: &Context<'_>) -> Result<(Plan, Tree)> {
    let inputs = ctx.inputs(request)?;
    let first = first_plan(request, &inputs)?;
    fetch_planned(request, &inputs, &first, &Cache::open(&ctx.cache_dir, ctx.host.uid)?, ctx)
}

/// Does the same as [`fetch`] with the first plan of a request.
pub fn fetch_planned(
    request: &Request,
    inputs: &Inputs,
    first: &Plan,
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<(Plan, Tree)> {
    memo::put(cache, &inputs.memo_entries);
    let fetch_context = ctx.fetch_context(cache, &inputs.lock);
    let pristine = source::open_or_fetch(first, &fetch_context)
        .map_err(|error| hint_at_supported_source(error, request, ctx))?;
    let plan = complete_plan(request, inputs, &pristine, ctx)?;
    let tree = source::patched(pristine, &plan, &fetch_context)?;
    Ok((plan, tree))
}

/// Adds the source that the kernel is supported from to the hint, if `request` has another source.
fn hint_at_supported_source(error: Error, request: &Request, ctx: &Context<'_>) -> Error {
    let Request { version, flavor, arch, source, .. } = request;
    let entry = ctx.catalog.find(*version, *flavor, *arch);
    match entry.and_then(|entry| entry.supported_source.as_deref()) {
        Some(supported) if error.kind == Kind::Fetch && source.to_string() != supported => {
            let hint = format!("Linux {version} is supported from another source: --source {supported}");
            let first = error.hint_text().map_or_else(String::new, |first| format!("{first}; "));
            error.hint(first + &hint)
        }
        _ => error,
    }
}

/// Returns the complete plan if the cache has the source.
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

/// Completes the plan with the identity of the source, updates the lock file, and reports notices. A source
/// that no plan accepts is not added to the lock file.
fn complete_plan(request: &Request, inputs: &Inputs, tree: &Tree, ctx: &Context<'_>) -> Result<Plan> {
    let defects = toolchain_quirks::defects(&inputs.rules, &tree.path);
    let plan = config_files::with_config_files(Plan::new(request, inputs, Some((&tree.identity, &defects)))?);
    update_lock_file(&tree.identity, ctx);
    report_plan(&plan, ctx);
    Ok(plan)
}

/// Reports the notices of a plan, and whether its kernel has reached its end of life.
pub fn report_plan(plan: &Plan, ctx: &Context<'_>) {
    plan.notices.iter().for_each(|notice| ctx.reporter.note(notice));
    let Some(version) = plan.version else { return };
    if let Some(end) = ctx.catalog.end_date(version, ctx.host.now) {
        ctx.reporter.warning(end_of_life_warning(version.series(), Some(end)));
    }
}

/// Writes `sources` to the bundle `path` (see [`source::write_bundle`]).
pub fn write_bundle(
    path: &Utf8Path,
    sources: &[(SourceLocation, SourceIdentity)],
    ctx: &Context<'_>,
) -> Result<()> {
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    source::write_bundle(path, sources, &ctx.fetch_context(&cache, &LockFile::default()))
}

/// Imports the bundle `path` into the cache (see [`source::import_bundle`]). Returns the entries for the lock
/// file, which are added when their sources are used.
pub fn import_bundle(path: &Utf8Path, ctx: &Context<'_>) -> Result<BTreeMap<String, Locked>> {
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    source::import_bundle(path, &ctx.fetch_context(&cache, &ctx.lock()?))
}

/// Adds the source to the lock file. A failure is only a warning, since existing entries were checked.
fn update_lock_file(source: &SourceIdentity, ctx: &Context<'_>) {
    let Some(origin) = source.origin.clone() else { return };
    let locked = Locked { digest: source.digest.clone(), unverified: !source.is_authenticated() };
    let existing = if ctx.update_lock { lockfile::Existing::Replace } else { lockfile::Existing::Keep };
    if let Err(error) = lockfile::add(&ctx.lock_path, origin, locked, existing) {
        ctx.reporter.warning(format!("{error}; kcompile will not notice if the source changes"));
    }
}
