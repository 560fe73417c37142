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
mod properties;
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
pub use bundle::{take as take_bundle, write as write_bundle};
pub use check::{archive_ailment, tree_ailment};
pub use context::Fetching;
pub use directory::{keep_out, still_the_same, tree_version};
pub use patched_tree::patched;
pub use tree::{BUILD_DIR_PREFIX, Tree};

use crate::cache::Cache;
use crate::catalog::lockfile;
use crate::kernel::{Channel, CommitId, KernelVersion, VersionRequest};
use crate::plan::{KERNEL_ORG, Locator, Plan, SourceIdentity, SourcePlan, release_url};
use crate::report::{Phase, Running};
use crate::util::error::{Error, Result};
use tree_store::find;

/// Gets the plan's source, unpatched: from the cache where it is there already.
///
/// Touches the network and the cache. Errors: exit code 3 for what cannot be fetched or does not
/// verify, 2 for a source that is no kernel tree.
pub fn obtain(plan: &Plan, fetching: &Fetching<'_>) -> Result<Tree> {
    let fetching = &Fetching { locator: Some(&plan.source.locator), ..*fetching };
    let Fetching { cache, report, .. } = *fetching;
    let source = &plan.source;
    let running = report.start(Phase::Source, &source.name);
    let cached = cached(plan, cache, fetching.offline)?.filter(|tree| fetching.accepts(&tree.identity));
    let tree = match cached {
        Some(tree) if tree_store::is_intact(&tree, fetching)? => {
            running.finish(&format!("Linux {} from the cache", tree.identity.version));
            tree
        }
        _ => {
            let tree = fetch(plan, fetching, &running)?;
            running.finish(&format!("Linux {}, {}", tree.identity.version, tree.identity.verified()));
            tree
        }
    };
    let tree = called_as(tree, source);
    refuse_changed(&tree.identity, fetching)?;
    if !tree.identity.is_vouched_for() {
        report.finding(format!("the source is not verified: {} ({})", source.name, tree.identity.verified()));
    }
    Ok(tree)
}

/// The plan's source as it is in the cache, if it can be told without a network and without reading it.
/// Whether it still holds what it held is open: what it is called, and what was made from it, can be told.
///
/// Errors: it has changed since its first use, or is not signed where that is required (exit code 3).
pub fn at_hand(plan: &Plan, fetching: &Fetching<'_>) -> Result<Option<Tree>> {
    let fetching = &Fetching { locator: Some(&plan.source.locator), ..*fetching };
    let found = match &plan.source.locator {
        Locator::Directory { path } => directory::recall(path, fetching)?,
        _ => cached(plan, fetching.cache, fetching.offline)?.filter(|tree| fetching.accepts(&tree.identity)),
    };
    let found = found.map(|tree| called_as(tree, &plan.source));
    if let Some(tree) = &found {
        refuse_changed(&tree.identity, fetching)?;
    }
    Ok(found)
}

/// A tree in the cache may have come under another name: that of a branch where a commit is asked for now.
fn called_as(tree: Tree, source: &SourcePlan) -> Tree {
    let origin = source.origin.clone().or(tree.identity.origin);
    Tree { identity: SourceIdentity { origin, ..tree.identity }, ..tree }
}

/// The version that a channel of kernel.org stands for today; none of `mirrors`: kernel.org's own.
pub fn resolve(channel: Channel, mirrors: &[String], fetching: &Fetching<'_>) -> Result<KernelVersion> {
    kernel_org::resolve(channel, mirrors, fetching)
}

/// A source is what it was at its first use, or `--update-lock` says otherwise.
fn refuse_changed(identity: &SourceIdentity, fetching: &Fetching<'_>) -> Result<()> {
    let locked = identity.origin.as_ref().and_then(|origin| Some((origin, fetching.lock.of(origin)?)));
    match locked.filter(|(_, locked)| locked.digest != identity.digest) {
        None => Ok(()),
        // Nothing verified what it was at its first use.
        Some((origin, locked)) if locked.unverified && identity.is_vouched_for() => {
            fetching.report.note(&format!(
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

fn fetch(plan: &Plan, fetching: &Fetching<'_>, running: &Running<'_>) -> Result<Tree> {
    match &plan.source.locator {
        Locator::KernelOrg { mirrors } => kernel_org::fetch(plan.requested, mirrors, fetching, running),
        Locator::Git { url, reference } => git::fetch(url, reference, &plan.source, fetching, running),
        Locator::Apt { package, version, pin } => {
            apt::fetch(package, version.as_deref(), *pin, &plan.source, fetching, running)
        }
        Locator::Tarball { path, sha256 } => tarball::fetch(path, *sha256, fetching, running),
        Locator::Directory { path } => directory::adopt(path, fetching, running),
    }
}

/// The tree in the cache that the plan means, if it can be told without a network.
fn cached(plan: &Plan, cache: &Cache, offline: bool) -> Result<Option<Tree>> {
    let source = &plan.source;
    let has_origin = |identity: &SourceIdentity| source.origin.is_some() && identity.origin == source.origin;
    match (&source.locator, plan.requested) {
        (Locator::Directory { .. }, _) => Ok(None),
        // A branch moves: its server is asked where it is now.
        (Locator::Git { reference, .. }, _) if !offline && !git::is_commit(reference) => Ok(None),
        // It is its own digest, whatever the lock file says.
        (Locator::Git { reference, .. }, _) if source.locator.is_remote() && git::is_commit(reference) => {
            let commit = reference.to_ascii_lowercase().parse::<CommitId>().ok();
            find(cache, |identity| commit.is_some() && identity.digest.commit() == commit.as_ref())
        }
        _ if source.digest.is_some() => {
            find(cache, |identity| Some(&identity.digest) == source.digest.as_ref())
        }
        // A release of kernel.org never changes: the tree that was fetched from there is it.
        (Locator::KernelOrg { .. }, VersionRequest::Exact(_)) => find(cache, has_origin),
        (Locator::KernelOrg { .. }, VersionRequest::Series(..)) if offline => find(cache, |identity| {
            let origin = release_url(KERNEL_ORG, identity.version);
            plan.requested.admits(identity.version) && identity.origin == Some(origin)
        }),
        (Locator::Apt { package, version: None, .. }, _) if offline => find(cache, |identity| {
            identity.origin.as_ref().is_some_and(|origin| origin.starts_with(&format!("apt:{package}=")))
        }),
        _ if offline => find(cache, has_origin),
        _ => Ok(None),
    }
}
