//! Makes a patched tree beside the pristine one. Both share the unpatched files.

use super::context::FetchContext;
use super::directory;
use super::git_apply;
use super::tree::{BUILD_DIR_PREFIX, Tree};
use super::tree_manifest;
use super::tree_store::{self, TREE};
use crate::plan::{Plan, SourceLocation};
use crate::report::Phase;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::text::pluralize;
use camino::Utf8Path;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use walkdir::WalkDir;

/// Returns the tree with the plan's patches, from the cache if possible.
///
/// # Errors
///
/// Exit code 1: a patch does not apply. Exit code 2: the source is a directory, which is never patched. Exit
/// code 4: there is no git.
pub fn patched(tree: Tree, plan: &Plan, ctx: &FetchContext<'_>) -> Result<Tree> {
    let Some(digest) = plan.patches_digest() else { return Ok(tree) };
    let FetchContext { cache, reporter, .. } = *ctx;
    if let SourceLocation::Directory { path } = &plan.source.location {
        return Err(Error::usage(format!("--patches: kcompile uses {path} in place and never changes it"))
            .hint("apply the patches there yourself, or use a tarball"));
    }
    let key = format!("{}+{}", tree.key, digest.short());
    let phase = reporter.start(Phase::Patch, &pluralize(plan.patches.len(), "patch", "patches"));
    let _lock = cache.lock(&key, reporter)?;
    if let Some(patched) = tree_store::open(cache, &key)
        && tree_store::is_intact(&patched, ctx)?
    {
        phase.finish("patched tree from the cache");
        return Ok(patched);
    }
    let scratch = cache.scratch()?;
    let copy = scratch.path.join(TREE);
    share(&tree.path, &copy)?;
    git_apply::apply(&plan.patches, &copy, &scratch.path, ctx)?;
    if let Some(name) = directory::build_dir_in(&copy)? {
        return Err(Error::build(format!("a patch adds {name}")).hint(format!(
            "names with {BUILD_DIR_PREFIX} are for build directories: remove that part of the patch"
        )));
    }
    fs::set_permissions(&copy, Permissions::from_mode(0o755))
        .context(Kind::Build, || format!("cannot patch {copy}"))?;
    tree_manifest::TreeManifest::of(&copy)?.record(&scratch.path, &copy)?;
    // Each shared file has one link more, which changes its inode.
    tree_manifest::record_stat(&cache.tree(&tree.key), &tree.path)?;
    tree_store::write_identity(&scratch.path, &tree.identity)?;
    let patched = tree_store::install(ctx, &scratch.path, &key)?;
    for patch in &plan.patches {
        if let Some(reason) = &patch.reason {
            reporter.note(&format!("{}: {reason}", patch.name));
        }
    }
    phase.finish(&pluralize(plan.patches.len(), "patch applied", "patches applied"));
    Ok(patched)
}

/// Copies a tree by hard links, without the build directories in it.
fn share(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    let message = |path: &std::path::Path| format!("cannot copy {}", path.display());
    let walk = WalkDir::new(from).contents_first(false).into_iter().filter_entry(tree_manifest::is_source);
    let mut dirs = Vec::new();
    for entry in walk {
        let entry = entry.context(Kind::Build, || format!("cannot read {from}"))?;
        crate::host::process::check()?;
        let target = to.as_std_path().join(entry.path().strip_prefix(from).expect("walked from there"));
        let done = match entry.file_type() {
            kind if kind.is_dir() => fs::create_dir(&target).map(|()| dirs.push(target)),
            kind if kind.is_symlink() => {
                fs::read_link(entry.path()).and_then(|link| std::os::unix::fs::symlink(link, target))
            }
            _ => fs::hard_link(entry.path(), target),
        };
        done.context(Kind::Build, || message(entry.path()))?;
    }
    for dir in dirs.iter().rev() {
        fs::set_permissions(dir, Permissions::from_mode(0o555)).context(Kind::Build, || message(dir))?;
    }
    Ok(())
}
