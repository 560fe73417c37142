//! Writes the tree of a git commit with `git archive`.

use super::archive::{HardLinks, unpack_tar};
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

/// Writes the tree of `commit` into the cache. `checks` are its verification steps so far.
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
        // Every archive of a kernel has one top directory.
        let args = ["archive", "--format=tar", "--prefix=linux/", &commit];
        let (exit, unpacked) = git.run(
            &args,
            |tar| {
                let done = Cell::new(0);
                let progress = |item: &str| {
                    done.set(done.get() + 64);
                    phase.progress(Count {
                        done: done.get(),
                        total: None,
                        estimated: false,
                        work: None,
                        unit: Unit::Steps,
                        item,
                    });
                };
                let mut tar = Interruptible(BufReader::with_capacity(1 << 20, tar));
                let unpacked = unpack_tar(name, &mut tar, path, HardLinks::Refuse, progress)?;
                // git succeeds only if all its output is read, also what follows the end of the tar.
                io::copy(&mut tar, &mut io::sink()).context(Kind::Fetch, || format!("cannot read {name}"))?;
                Ok(unpacked)
            },
            |_| ControlFlow::Continue(()),
        )?;
        // A refused entry closes the pipe, which ends git. If git fails, the tar is incomplete.
        if !exit.is_success && !exit.stderr.trim().is_empty() && !exit.stderr.contains("Broken pipe") {
            return Err(Error::fetch(format!("{name}: cannot read its tree: {}", exit.error_message())));
        }
        let (writer, date) = unpacked?;
        if !exit.is_success {
            return Err(Error::fetch(format!("{name}: cannot read its tree: git was killed")));
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
