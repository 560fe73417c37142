//! From a plan's source to a kernel tree on disk: fetched or found, checked, unpacked once, patched
//! once, read-only. Each kind of source has a file of its own; all of them end in [`Tree`].

mod apt;
mod archive;
mod archive_store;
mod bundle;
mod check;
mod context;
mod directory;
mod download;
#[cfg(fuzzing)]
pub mod fuzz;
mod git;
mod git_apply;
mod git_fetch;
mod git_program;
mod git_store;
mod git_tree;
mod http;
mod kernel_org;
mod kernel_proofs;
mod kernel_release;
mod patched_tree;
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

pub use apt::{candidate as apt_candidate, state as apt_state};
pub use bundle::{import as import_bundle, write as write_bundle};
pub use check::{check_archive_entry, check_tree_entry};
pub use context::FetchContext;
pub use directory::{check_unmodified, reject_inside_source, tree_version};
pub use patched_tree::patched;
pub use tree::{BUILD_DIR_PREFIX, Tree};

use crate::cache::Cache;
use crate::catalog::lockfile;
use crate::kernel::{Channel, CommitId, KernelVersion, VersionRequest};
use crate::plan::{KERNEL_ORG, Plan, SourceIdentity, SourceLocation, SourcePlan, release_url};
use crate::report::{Phase, PhaseGuard};
use crate::util::error::{Error, Result};
use tree_store::find;

/// Gets the plan's source, unpatched: from the cache where it is there already.
///
/// Touches the network and the cache. Errors: exit code 3 for what cannot be fetched or does not
/// verify, 2 for a source that is no kernel tree.
pub fn open_or_fetch(plan: &Plan, ctx: &FetchContext<'_>) -> Result<Tree> {
    let ctx = &FetchContext { location: Some(&plan.source.location), ..*ctx };
    let FetchContext { cache, reporter, .. } = *ctx;
    let source = &plan.source;
    let phase = reporter.start(Phase::Source, &source.name);
    let cached = find_in_cache(plan, cache, ctx.offline)?.filter(|tree| ctx.accepts(&tree.identity));
    let tree = match cached {
        Some(tree) if tree_store::is_intact(&tree, ctx)? => {
            phase.finish(&format!("Linux {} from the cache", tree.identity.version));
            tree
        }
        _ => {
            let tree = fetch(plan, ctx, &phase)?;
            phase.finish(&format!("Linux {}, {}", tree.identity.version, tree.identity.verified()));
            tree
        }
    };
    let tree = with_origin(tree, source);
    check_lock_file(&tree.identity, ctx)?;
    if !tree.identity.is_authenticated() {
        reporter.warning(format!(
            "the source is not verified: {} ({})",
            source.name,
            tree.identity.verified()
        ));
    }
    Ok(tree)
}

/// The plan's source as it is in the cache, if it can be told without a network and without reading it.
/// Whether it still holds what it held is open: what it is called, and what was made from it, can be told.
///
/// Errors: it has changed since its first use, or is not signed where that is required (exit code 3).
pub fn find_cached(plan: &Plan, ctx: &FetchContext<'_>) -> Result<Option<Tree>> {
    let ctx = &FetchContext { location: Some(&plan.source.location), ..*ctx };
    let found = match &plan.source.location {
        SourceLocation::Directory { path } => directory::open_recorded(path, ctx)?,
        _ => find_in_cache(plan, ctx.cache, ctx.offline)?.filter(|tree| ctx.accepts(&tree.identity)),
    };
    let found = found.map(|tree| with_origin(tree, &plan.source));
    if let Some(tree) = &found {
        check_lock_file(&tree.identity, ctx)?;
    }
    Ok(found)
}

/// A tree in the cache may have come under another name: that of a branch where a commit is asked for now.
fn with_origin(tree: Tree, source: &SourcePlan) -> Tree {
    let origin = source.origin.clone().or(tree.identity.origin);
    Tree { identity: SourceIdentity { origin, ..tree.identity }, ..tree }
}

/// The version that a channel of kernel.org stands for today; none of `mirrors`: kernel.org's own.
pub fn resolve(channel: Channel, mirrors: &[String], ctx: &FetchContext<'_>) -> Result<KernelVersion> {
    kernel_org::resolve(channel, mirrors, ctx)
}

/// A source is what it was at its first use, or `--update-lock` says otherwise.
fn check_lock_file(identity: &SourceIdentity, ctx: &FetchContext<'_>) -> Result<()> {
    let locked = identity.origin.as_ref().and_then(|origin| Some((origin, ctx.lock.of(origin)?)));
    match locked.filter(|(_, locked)| locked.digest != identity.digest) {
        None => Ok(()),
        // Nothing verified what it was at its first use.
        Some((origin, locked)) if locked.unverified && identity.is_authenticated() => {
            ctx.reporter.note(&format!(
                "{origin} is {}, which is verified; {} had {}, which nothing verified",
                identity.digest,
                lockfile::NAME,
                locked.digest
            ));
            Ok(())
        }
        Some((origin, locked)) => Err(Error::fetch(format!(
            "{origin} has changed since its first use: {} has {}, found {}",
            lockfile::NAME,
            locked.digest,
            identity.digest
        ))
        .hint("if that is to be, --update-lock accepts it")),
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

/// The tree in the cache that the plan means, if it can be told without a network.
fn find_in_cache(plan: &Plan, cache: &Cache, offline: bool) -> Result<Option<Tree>> {
    let source = &plan.source;
    let has_origin = |identity: &SourceIdentity| source.origin.is_some() && identity.origin == source.origin;
    match (&source.location, plan.requested) {
        (SourceLocation::Directory { .. }, _) => Ok(None),
        // A branch moves: its server is asked where it is now.
        (SourceLocation::Git { reference, .. }, _) if !offline && !git::is_commit(reference) => Ok(None),
        // It is its own digest, whatever the lock file says.
        (SourceLocation::Git { reference, .. }, _)
            if source.location.is_remote() && git::is_commit(reference) =>
        {
            let commit = reference.to_ascii_lowercase().parse::<CommitId>().ok();
            find(cache, |identity| commit.is_some() && identity.digest.commit() == commit.as_ref())
        }
        _ if source.digest.is_some() => {
            find(cache, |identity| Some(&identity.digest) == source.digest.as_ref())
        }
        // A release of kernel.org never changes: the tree that was fetched from there is it.
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
