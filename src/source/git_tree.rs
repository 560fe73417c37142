//! A commit in a git repository, written as a tree, file by file, from the objects.

use super::context::Fetching;
use super::directory::check_tree;
use super::tree::Tree;
use super::tree_store::keep;
use super::tree_writer::TreeWriter;
use crate::host::process;
use crate::kernel::SourceDigest;
use crate::plan::{Check, Link, SourceIdentity, SourcePlan};
use crate::report::{Count, Running, Unit};
use crate::util::error::{Context, Kind, Result};
use crate::util::text::size;
use git2::{Commit, ObjectType, Repository, TreeWalkMode, TreeWalkResult};

/// libgit2 has a whole file in memory, however well it was compressed. The largest of Linux 6.12 is 24 MB.
const LARGEST_FILE: usize = 64 << 20;

/// Writes the tree of `commit` into the cache. `checks` are what vouches for it.
pub(super) fn write(
    repository: &Repository,
    commit: &Commit<'_>,
    plan: &SourcePlan,
    mut checks: Vec<Check>,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let name = &plan.name;
    let digest = SourceDigest::Commit(commit.id().to_string().parse().expect("an object's id in full"));
    checks.push(Check::holds(Link::Transport, format!("commit {}", &commit.id().to_string()[..12])));
    keep(&digest, fetching, |path| {
        let tree = commit.tree().context(Kind::Fetch, || format!("{name}: no tree"))?;
        let mut writer = TreeWriter::create(path, name)?;
        let mut failed = None;
        let walked = tree.walk(TreeWalkMode::PreOrder, |dir, entry| {
            let Err(error) = write_entry(repository, dir, entry, &mut writer, running) else {
                return TreeWalkResult::Ok;
            };
            failed = Some(error);
            TreeWalkResult::Abort
        });
        if let Some(error) = failed {
            return Err(error);
        }
        walked.context(Kind::Fetch, || format!("{name}: cannot read its tree"))?;
        writer.finish()?.record(path.parent().expect("a tree lies in its entry"), path)?;
        Ok(SourceIdentity {
            origin: plan.origin.clone(),
            version: check_tree(path, name)?,
            date: u64::try_from(commit.time().seconds()).unwrap_or(0),
            checks,
            digest: digest.clone(),
        })
    })
}

fn write_entry(
    repository: &Repository,
    dir: &str,
    entry: &git2::TreeEntry<'_>,
    writer: &mut TreeWriter,
    running: &Running<'_>,
) -> Result<()> {
    process::check()?;
    let name = entry.name().map_err(|_| writer.refuse(dir, "a name that is not UTF-8"))?;
    let path = format!("{dir}{name}");
    if writer.entries().is_multiple_of(256) {
        running.progress(Count { done: writer.entries(), total: None, unit: Unit::Steps, item: &path });
    }
    match entry.kind() {
        Some(ObjectType::Tree) => writer.dir(&path),
        Some(ObjectType::Blob) => {
            let header = repository.odb().and_then(|objects| objects.read_header(entry.id()));
            let (bytes, _) = header.context(Kind::Fetch, || format!("cannot read {path}"))?;
            if bytes > LARGEST_FILE {
                return Err(writer.refuse(&path, &format!("too large a file, {}", size(bytes as u64))));
            }
            let blob =
                repository.find_blob(entry.id()).context(Kind::Fetch, || format!("cannot read {path}"))?;
            match entry.filemode() {
                0o120000 => {
                    let target = std::str::from_utf8(blob.content())
                        .map_err(|_| writer.refuse(&path, "a link that is not UTF-8"))?;
                    writer.link(&path, target)
                }
                mode => writer.file(&path, mode & 0o100 != 0, blob.content().len() as u64, blob.content()),
            }
        }
        // Submodules are not followed; the kernel has none.
        _ => Ok(()),
    }
}
