//! Fetches a git reference to depth 1, and writes its tree without checkout, filters, hooks or submodules.

use super::context::FetchContext;
use super::git_fetch::{self, no_such_reference};
use super::git_program::Git;
use super::git_store::{FETCHED, ScratchRepository, commit_of, repository_dir, repository_lock};
use super::git_tree::write;
use super::tree::Tree;
use crate::catalog::lockfile;
use crate::kernel::CommitId;
use crate::plan::{Check, Signable, SourcePlan, VerificationStep};
use crate::report::PhaseGuard;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{remove_tree, write_atomically};
use crate::util::read::{Links, MAX_JSON, read_text};
use camino::Utf8Path;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;

/// Fetches `reference` (a branch, a tag or a full commit id) of `url`, and writes its tree. A local
/// repository is read in place.
pub(super) fn fetch(
    url: &str,
    reference: &str,
    plan: &SourcePlan,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Tree> {
    let name = format!("{url}#{reference}");
    let local = Utf8Path::new(url.strip_prefix("file://").unwrap_or(url));
    if local.is_absolute() {
        ctx.check_signature_policy(&name, &[], Signable::No)?;
        return read_local(local, reference, plan, ctx, phase);
    }
    if !["https://", "http://", "ssh://", "git://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::usage(format!("--source git+{url}: not a URL that git can fetch from"))
            .hint("use https://…, ssh://…, or the absolute path of a repository on this machine"));
    }
    let locked = ctx.lock.of(&name);
    let requested_commit = is_commit(reference).then(|| reference.to_ascii_lowercase());
    let pinned = locked.and_then(|locked| Some(locked.digest.commit()?.to_string()));
    let is_unverified = locked.is_some_and(|locked| locked.unverified);
    let check = match locked {
        _ if requested_commit.is_some() => {
            Some(Check::authenticated(VerificationStep::LockFile, "the commit that was asked for"))
        }
        Some(locked) if locked.unverified => {
            let detail = format!("as at its first use ({}), which nothing verified", lockfile::NAME);
            Some(Check::consistent(VerificationStep::LockFile, detail))
        }
        Some(_) => {
            Some(Check::authenticated(VerificationStep::LockFile, format!("pinned by {}", lockfile::NAME)))
        }
        None => None,
    };
    ctx.check_signature_policy(&name, check.as_slice(), Signable::No)?;
    let checks = Vec::from_iter(check);
    let _lock = ctx.cache.lock(&repository_lock(url), ctx.reporter)?;
    let request = GitRequest { url, reference, plan, requested_commit, pinned, is_unverified, checks };
    match request.fetch_tree(ctx, phase) {
        Err(failed) if failed.kind() == Kind::Fetch && is_damaged(url, &failed, ctx)? => {
            let error = failed.into_error();
            if ctx.offline {
                return Err(error.hint(
                    "the repository in the cache is damaged: run without --offline to fetch it again",
                ));
            }
            ctx.reporter.note(&format!("{error}; removing the damaged repository from the cache"));
            remove_tree(&repository_dir(url, ctx.cache))?;
            request.fetch_tree(ctx, phase).map_err(FetchFailure::into_error)
        }
        tree => tree.map_err(FetchFailure::into_error),
    }
}

/// Returns the commit of a branch on a server. Fetches no objects. `None` means that `reference` does not move, as
/// a tag or a commit, or that the repository is on this machine, which no lock file pins.
///
/// # Errors
///
/// Exit code 3: the server cannot be reached, or has no such branch.
pub fn branch_commit(url: &str, reference: &str, ctx: &FetchContext<'_>) -> Result<Option<CommitId>> {
    if is_commit(reference) || url.starts_with('/') || url.starts_with("file://") {
        return Ok(None);
    }
    if ctx.offline {
        return Err(Error::fetch(format!("--offline: cannot ask {url} for {reference}")));
    }
    let resolved = git_fetch::resolve_ref(url, reference, ctx)??;
    if resolved.name.starts_with("refs/tags/") {
        return Ok(None);
    }
    commit_id(&resolved.object).map(Some)
}

/// Writes the tree of `reference` in the local repository `local`.
fn read_local(
    local: &Utf8Path,
    reference: &str,
    plan: &SourcePlan,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Tree> {
    let inside = local.join(".git");
    let git = Git::local(ctx.host, if inside.exists() { &inside } else { local })?;
    let commit = commit_of(&git, reference)?;
    let commit = commit.ok_or_else(|| no_such_reference(local.as_str(), reference, &[]))?;
    let objects = git.run_for_text(&["rev-parse", "--git-path", "objects"])?;
    let objects = objects.ok_or_else(|| Error::fetch(format!("cannot open the git repository {local}")))?;
    let repository = ScratchRepository::new(&ctx.host.absolute(objects.as_ref()), None, ctx.cache)?;
    let checks = vec![Check::authenticated(VerificationStep::User, "read from a local repository")];
    write(&repository, &commit_id(&commit)?, plan, checks, ctx, phase)
}

fn commit_id(commit: &str) -> Result<CommitId> {
    commit.parse().map_err(|why: String| Error::fetch(why))
}

/// One reference of a repository on a server.
struct GitRequest<'a> {
    url: &'a str,
    reference: &'a str,
    plan: &'a SourcePlan,
    /// The reference itself, if it is a full commit id.
    requested_commit: Option<String>,
    /// The commit in the lock file.
    pinned: Option<String>,
    /// Nothing authenticated the pinned commit.
    is_unverified: bool,
    /// The verification steps so far.
    checks: Vec<Check>,
}

impl GitRequest<'_> {
    /// Gets the commit into the cache's repository, and writes its tree.
    fn fetch_tree(&self, ctx: &FetchContext<'_>, phase: &PhaseGuard<'_>) -> Result<Tree, FetchFailure> {
        use FetchFailure::{Refused, Unreachable};
        let GitRequest { url, reference, requested_commit, pinned, .. } = self;
        let name = format!("{url}#{reference}");
        let mut checks = self.checks.clone();
        let repository = ScratchRepository::of_url(url, ctx.cache).map_err(Refused)?;
        let git = Git::local(ctx.host, &repository.dir()).map_err(Refused)?;
        let cached = match requested_commit.as_ref().or(pinned.as_ref()) {
            Some(commit) => commit_of(&git, commit).map_err(Refused)?,
            None => None,
        };
        let commit = match cached {
            Some(commit) if ctx.offline || requested_commit.is_some() => commit,
            None if ctx.offline => return Err(Unreachable(ctx.not_cached_error(&name))),
            cached => match (self.fetch(&repository, ctx, phase), cached) {
                (Ok(commit), _) => {
                    checks.push(if self.is_encrypted() {
                        Check::authenticated(VerificationStep::Transport, "fetched from its server")
                    } else {
                        Check::consistent(
                            VerificationStep::Transport,
                            "fetched over an unencrypted connection",
                        )
                    });
                    commit
                }
                (Err(Unreachable(error)), Some(commit)) => {
                    let name = lockfile::NAME;
                    ctx.reporter
                        .warning(format!("{error}; using the commit that {name} pins, from the cache"));
                    commit
                }
                (Err(failed), _) => return Err(failed),
            },
        };
        if pinned.as_ref().is_some_and(|pinned| *pinned != commit) {
            checks.retain(|check| check.step != VerificationStep::LockFile);
        }
        let commit = commit_id(&commit).map_err(Refused)?;
        write(&repository, &commit, self.plan, checks, ctx, phase).map_err(Refused)
    }

    /// Returns whether the connection is encrypted, which authenticates the server.
    fn is_encrypted(&self) -> bool {
        self.url.starts_with("https://") || self.url.starts_with("ssh://")
    }

    /// Gets the commit of the reference, which must be the pinned one, into `repository` and the cache.
    fn fetch(
        &self,
        repository: &ScratchRepository,
        ctx: &FetchContext<'_>,
        phase: &PhaseGuard<'_>,
    ) -> Result<String, FetchFailure> {
        use FetchFailure::Refused;
        let GitRequest { url, reference, requested_commit, .. } = self;
        let git = Git::local(ctx.host, &repository.dir()).map_err(Refused)?;
        let resolved = match requested_commit {
            // The server may have a branch with the name of a commit, so it is not asked.
            Some(commit) => git_fetch::ResolvedRef {
                object: commit.clone(),
                name: commit.clone(),
                url: (*url).to_owned(),
            },
            None => {
                git_fetch::resolve_ref(url, reference, ctx).map_err(FetchFailure::of)?.map_err(Refused)?
            }
        };
        if let Some(commit) = commit_of(&git, &resolved.object).map_err(Refused)? {
            return self.check_pin(commit, ctx).map_err(Refused);
        }
        git_fetch::fetch(&resolved, reference, repository, ctx, phase).map_err(FetchFailure::of)?;
        // An annotated tag is another object than its commit.
        let commit = commit_of(&git, FETCHED).map_err(Refused)?;
        let refuse = |why: &str| Refused(Error::fetch(format!("{url}#{reference} {why}")));
        let commit = commit.ok_or_else(|| refuse("is not a commit"))?;
        if requested_commit.as_ref().is_some_and(|requested_commit| *requested_commit != commit) {
            return Err(refuse(&format!("is another commit on the server: {commit}")));
        }
        let commit = self.check_pin(commit, ctx).map_err(Refused)?;
        repository.store_packs(url, ctx.cache).map_err(Refused)?;
        Ok(commit)
    }

    /// Fails if another commit is pinned. An authenticated server overrides an unverified pin.
    fn check_pin(&self, commit: String, ctx: &FetchContext<'_>) -> Result<String> {
        let GitRequest { url, reference, pinned, .. } = self;
        let Some(pinned) =
            pinned.as_ref().filter(|pinned| **pinned != commit && self.requested_commit.is_none())
        else {
            return Ok(commit);
        };
        let name = lockfile::NAME;
        if self.is_unverified && self.is_encrypted() {
            ctx.reporter
                .note(&format!("{url}#{reference} is now {commit}; {name} has the unverified {pinned}"));
            return Ok(commit);
        }
        Err(Error::fetch(format!(
            "{url}#{reference} has moved: {name} pins the commit {pinned}, but it is now at {commit}"
        ))
        .hint(
            "accept the new commit with --update-lock, or build the pinned one from the cache with --offline",
        ))
    }
}

/// Returns whether an object in the cache's repository is missing or damaged. Reads all objects, unless the
/// server could not be reached.
fn is_damaged(url: &str, failed: &FetchFailure, ctx: &FetchContext<'_>) -> Result<bool> {
    let repository = repository_dir(url, ctx.cache);
    if !repository.join(FETCHED).is_file() {
        return Ok(false);
    }
    let git = Git::local(ctx.host, &repository)?;
    if commit_of(&git, FETCHED)?.is_none() {
        return Ok(true);
    }
    if matches!(failed, FetchFailure::Unreachable(_)) {
        return Ok(false);
    }
    let args = ["fsck", "--full", "--no-dangling", "--no-progress"];
    let (exit, _) =
        git.run(&args, |out| io::copy(&mut { out }, &mut io::sink()), |_| ControlFlow::Continue(()))?;
    Ok(!exit.is_success)
}

/// Returns whether the reference is a full commit id, which never moves.
pub(super) fn is_commit(reference: &str) -> bool {
    reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes a pack with `commit` of `url` and its tree only.
pub(super) fn write_pack(url: &str, commit: &str, pack: &mut File, ctx: &FetchContext<'_>) -> Result<()> {
    let message = |why: String| Error::build(format!("cannot bundle the commit {commit} of {url}: {why}"));
    let repository = ScratchRepository::of_url(url, ctx.cache)?;
    // The repository does not have the parents of the commit.
    write_atomically(&repository.dir().join("shallow"), format!("{commit}\n").as_bytes())?;
    fs::create_dir_all(repository.dir().join("refs/heads")).map_err(|error| message(error.to_string()))?;
    write_atomically(&repository.dir().join("refs/heads/bundled"), format!("{commit}\n").as_bytes())?;
    let git = Git::local(ctx.host, &repository.dir())?;
    let args = ["pack-objects", "--all", "--stdout", "-q"];
    let copy = |out| io::copy(&mut { out }, pack);
    let (exit, copied) = git.run(&args, copy, |_| ControlFlow::Continue(()))?;
    copied.context(Kind::Build, || "cannot write the bundle".into())?;
    if exit.is_success { Ok(()) } else { Err(message(exit.error_message())) }
}

/// Makes a repository from a bundle's pack, which must be valid and contain `commit`.
pub(super) fn read_pack(
    url: &str,
    commit: &str,
    pack: &Utf8Path,
    ctx: &FetchContext<'_>,
) -> Result<ScratchRepository> {
    let repository = ScratchRepository::of_url(url, ctx.cache)?;
    let path = repository.packs().join(format!("pack-{commit}.pack"));
    fs::copy(pack, &path).context(Kind::Build, || format!("cannot write {path}"))?;
    let shallow = repository.dir().join("shallow");
    let before = read_text(&shallow, Links::Refuse, MAX_JSON).unwrap_or_default();
    write_atomically(&shallow, format!("{before}{commit}\n").as_bytes())?;
    let git = Git::local(ctx.host, &repository.dir())?;
    let indexed = git.run_for_text(&["index-pack", "--fsck-objects", path.as_str()])?;
    if indexed.is_none() || commit_of(&git, commit)?.as_deref() != Some(commit) {
        return Err(Error::fetch(format!("the bundle's pack of {url} is damaged")));
    }
    Ok(repository)
}

/// Why a reference was not fetched.
enum FetchFailure {
    /// The server could not be reached.
    Unreachable(Error),
    /// The server sent something wrong, or the run was interrupted.
    Refused(Error),
}

impl FetchFailure {
    /// Classifies an error of a request to the server.
    fn of(error: Error) -> FetchFailure {
        if error.kind == Kind::Fetch {
            FetchFailure::Unreachable(error)
        } else {
            FetchFailure::Refused(error)
        }
    }

    fn kind(&self) -> Kind {
        match self {
            FetchFailure::Unreachable(error) | FetchFailure::Refused(error) => error.kind,
        }
    }

    fn into_error(self) -> Error {
        match self {
            FetchFailure::Unreachable(error) | FetchFailure::Refused(error) => error,
        }
    }
}
