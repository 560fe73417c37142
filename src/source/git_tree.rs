//! A commit in a git repository, written as a tree by way of `git archive`.

use super::archive::unpack_tar;
use super::context::FetchContext;
use super::directory::check_tree;
use super::git_program::Git;
use super::git_store::ScratchRepository;
use super::tree::Tree;
use super::tree_store::store;
use crate::host::process::Interruptible;
use crate::kernel::{CommitId, SourceDigest};
use crate::plan::{Check, SourceIdentity, SourcePlan, VerificationStep};
use crate::report::{Count, PhaseGuard, Unit};
use crate::util::error::{Error, Kind, Result, ResultExt};
use std::cell::Cell;
use std::io::{self, BufReader};
use std::ops::ControlFlow;

/// Writes the tree of `commit` into the cache. `checks` are what authenticates it.
pub(super) fn write(
    repository: &ScratchRepository,
    commit: &CommitId,
    plan: &SourcePlan,
    mut checks: Vec<Check>,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Tree> {
    let name = &plan.name;
    let digest = SourceDigest::Commit(commit.clone());
    let git = Git::local(ctx.host, &repository.dir())?;
    checks.push(Check::consistent(
        VerificationStep::Transport,
        format!("commit {}", &commit.to_string()[..12]),
    ));
    store(&digest, ctx, |path| {
        let commit = commit.to_string();
        // Files lie below one directory, as in every archive of a kernel.
        let args = ["archive", "--format=tar", "--prefix=linux/", &commit];
        let (exit, unpacked) = git.run(
            &args,
            |tar| {
                let done = Cell::new(0);
                let progress = |item: &str| {
                    done.set(done.get() + 64);
                    phase.progress(Count { done: done.get(), total: None, unit: Unit::Steps, item });
                };
                let mut tar = Interruptible(BufReader::with_capacity(1 << 20, tar));
                let unpacked = unpack_tar(name, &mut tar, path, progress)?;
                // git ends well when all that it writes is taken, also what stands behind the end of the tar.
                io::copy(&mut tar, &mut io::sink()).context(Kind::Fetch, || format!("cannot read {name}"))?;
                Ok(unpacked)
            },
            |_| ControlFlow::Continue(()),
        )?;
        // A refused entry ends git by a closed pipe; a git that fails ends the tar.
        if !exit.is_success && !exit.stderr.trim().is_empty() && !exit.stderr.contains("Broken pipe") {
            return Err(Error::fetch(format!("{name}: cannot read its tree: {}", exit.error_message())));
        }
        let (writer, date) = unpacked?;
        if !exit.is_success {
            return Err(Error::fetch(format!("{name}: cannot read its tree: git was ended")));
        }
        writer.finish()?.record(path.parent().expect("a tree lies in its entry"), path)?;
        Ok(SourceIdentity {
            origin: plan.origin.clone(),
            version: check_tree(path, name)?,
            date,
            checks,
            digest: digest.clone(),
        })
    })
}
