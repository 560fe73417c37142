//! Turns a plan's source into a read-only kernel tree on disk. The source is fetched or found in the cache,
//! verified, unpacked and patched. Each kind of source has its own file and returns a [`Tree`].

mod apt;
mod archive;
mod archive_store;
mod bundle;
mod changelog;
mod check;
mod context;
mod directory;
mod download;
#[cfg(fuzzing)]
pub mod fuzz;
mod git;
mod git_apply;
mod git_data;
mod git_fetch;
mod git_program;
mod git_store;
mod git_tree;
mod http;
mod kernel_org;
mod kernel_proofs;
mod kernel_release;
mod newest_release;
mod patched_tree;
mod prebuilt;
mod probe;
#[cfg(test)]
mod proptests;
mod releases;
mod signature_file;
mod stream;
mod tarball;
mod tree;
mod tree_manifest;
mod tree_store;
mod tree_writer;
mod walk;

pub use apt::{candidate as apt_candidate, newest as newest_package, state as apt_state};
pub use bundle::{import as import_bundle, write as write_bundle};
pub use changelog::count_commits;
pub use check::{cached_archive_name, cached_version, check_archive_entry, check_tree_entry};
pub use context::FetchContext;
pub use directory::{check_unmodified, reject_inside_source, tree_version};
pub use git::branch_commit;
pub use git_data::{DataLimits, DataRepository, cached_data, fetch_data, local_data};
pub use newest_release::{SeriesState, newest_of_series, resolve};
pub use patched_tree::patched;
pub use prebuilt::{PrebuiltArchive, fetch as fetch_prebuilt};
pub use probe::answers;
pub use tree::{BUILD_DIR_PREFIX, Tree};
pub use tree_manifest::stat as tree_stat;

use crate::catalog::lockfile;
use crate::kernel::{CommitId, VersionRequest};
use crate::plan::{KERNEL_ORG, Plan, SourceIdentity, SourceLocation, SourcePlan, release_url};
use crate::report::{Phase, PhaseGuard};
use crate::util::error::{Error, Result};
use tree_store::find;

/// Returns the plan's source, unpatched, from the cache or the network.
///
/// # Errors
///
/// Exit code 3: the source cannot be fetched or does not verify. Exit code 2: it is not a kernel tree.
pub fn open_or_fetch(plan: &Plan, ctx: &FetchContext<'_>) -> Result<Tree> {
    let ctx = &FetchContext { location: Some(&plan.source.location), ..*ctx };
    let FetchContext { reporter, .. } = *ctx;
    let source = &plan.source;
    let phase = reporter.start(Phase::Source, &source.name);
    let cached = find_in_cache(plan, ctx)?.filter(|tree| ctx.accepts(&tree.identity));
    let tree = match cached {
        Some(tree) if tree_store::is_intact(&tree, ctx)? => {
            phase.finish(&format!("Linux {} from the cache", tree.identity.version));
            tree
        }
        _ => {
            let tree = fetch(plan, ctx, &phase)?;
            // The warning below says what is missing.
            let version = format!("Linux {}", tree.identity.version);
            let whole = format!("{version}, {}", tree.identity.verified());
            let brief = if tree.identity.is_authenticated() { &whole } else { &version };
            phase.finish_briefly(&whole, brief);
            tree
        }
    };
    let tree = with_origin(tree, source);
    check_lock_file(&tree.identity, ctx)?;
    if !tree.identity.is_authenticated() {
        let verified = tree.identity.verified();
        reporter.warning(format!("the source is not verified: {} ({verified})", source.name));
    }
    Ok(tree)
}

/// Looks for the plan's source in the cache, without a network and without reading its files. The files may
/// be damaged, but the result has their identity.
///
/// # Errors
///
/// Exit code 3: the source has changed since its first use, or lacks a required signature.
pub fn find_cached(plan: &Plan, ctx: &FetchContext<'_>) -> Result<Option<Tree>> {
    let ctx = &FetchContext { location: Some(&plan.source.location), ..*ctx };
    let found = match &plan.source.location {
        SourceLocation::Directory { path } => directory::open_recorded(path, ctx)?,
        _ => find_in_cache(plan, ctx)?.filter(|tree| ctx.accepts(&tree.identity)),
    };
    let found = found.map(|tree| with_origin(tree, &plan.source));
    if let Some(tree) = &found {
        check_lock_file(&tree.identity, ctx)?;
    }
    Ok(found)
}

/// Sets the origin that this run uses. The tree may be in the cache under another one: a branch for a commit.
fn with_origin(tree: Tree, source: &SourcePlan) -> Tree {
    let origin = source.origin.clone().or(tree.identity.origin);
    Tree { identity: SourceIdentity { origin, ..tree.identity }, ..tree }
}

/// Fails if the source has changed since its first use. `--update-lock` accepts the change.
fn check_lock_file(identity: &SourceIdentity, ctx: &FetchContext<'_>) -> Result<()> {
    let locked = identity.origin.as_ref().and_then(|origin| Some((origin, ctx.lock.of(origin)?)));
    let (found, name) = (&identity.digest, lockfile::NAME);
    match locked.filter(|(_, locked)| locked.digest != *found) {
        None => Ok(()),
        Some((origin, locked)) if locked.unverified && identity.is_authenticated() => {
            let before = &locked.digest;
            ctx.reporter.note(&format!(
                "{origin} is now {found}, which is verified; {name} has the unverified {before}"
            ));
            Ok(())
        }
        Some((origin, locked)) => Err(Error::fetch(format!(
            "{origin} has changed since its first use: {name} has {}, found {found}",
            locked.digest
        ))
        .hint("if this change is expected, rerun with --update-lock")),
    }
}

fn fetch(plan: &Plan, ctx: &FetchContext<'_>, phase: &PhaseGuard<'_>) -> Result<Tree> {
    match &plan.source.location {
        SourceLocation::KernelOrg { mirrors } => kernel_org::fetch(plan.requested, mirrors, ctx, phase),
        SourceLocation::Git { url, reference } => git::fetch(url, reference, &plan.source, ctx, phase),
        SourceLocation::Apt { package, version, pin } => {
            apt::fetch(package, version.as_deref(), *pin, &plan.source, ctx, phase)
        }
        SourceLocation::Tarball { path, sha256 } => tarball::fetch(path, *sha256, ctx, phase),
        SourceLocation::Directory { path } => directory::open_in_place(path, ctx, phase),
    }
}

/// Returns the plan's tree in the cache, if it can be identified without a network.
fn find_in_cache(plan: &Plan, ctx: &FetchContext<'_>) -> Result<Option<Tree>> {
    let FetchContext { cache, offline, .. } = *ctx;
    let source = &plan.source;
    let has_origin = |identity: &SourceIdentity| source.origin.is_some() && identity.origin == source.origin;
    match (&source.location, plan.requested) {
        (SourceLocation::Directory { .. }, _) => Ok(None),
        // A branch moves, so its server must be asked.
        (SourceLocation::Git { reference, .. }, _) if !offline && !git::is_commit(reference) => Ok(None),
        // A commit is its own digest, independent of the lock file.
        (SourceLocation::Git { reference, .. }, _)
            if source.location.is_remote() && git::is_commit(reference) =>
        {
            let commit = reference.to_ascii_lowercase().parse::<CommitId>().ok();
            find(cache, |identity| commit.is_some() && identity.digest.commit() == commit.as_ref())
        }
        _ if source.digest.is_some() => {
            find(cache, |identity| Some(&identity.digest) == source.digest.as_ref())
        }
        // A release of kernel.org never changes.
        (SourceLocation::KernelOrg { .. }, VersionRequest::Exact(_)) => find(cache, has_origin),
        (SourceLocation::KernelOrg { .. }, VersionRequest::Series(..)) if offline => {
            find(cache, |identity| {
                let origin = release_url(KERNEL_ORG, identity.version);
                plan.requested.admits(identity.version) && identity.origin == Some(origin)
            })
        }
        (SourceLocation::Apt { package, version: None, .. }, _) if offline => find(cache, |identity| {
            identity.origin.as_ref().is_some_and(|origin| origin.starts_with(&format!("apt:{package}=")))
        }),
        _ if offline => find(cache, has_origin),
        _ => Ok(None),
    }
}
