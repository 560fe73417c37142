//! One reference of a git repository: fetched to depth 1 and written as a tree, without checkout,
//! filters, hooks or submodules.

use super::context::Fetching;
use super::git_store::{cached_repository, repository_dir, repository_lock};
use super::git_tree::write;
use super::http::proxies_named;
use super::tree::Tree;
use crate::catalog::lockfile;
use crate::host::process;
use crate::plan::{Check, Link, Signable, SourcePlan};
use crate::report::{Count, Running, Unit};
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::fs::remove_tree;
use crate::util::text::size;
use camino::Utf8Path;
use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, ProxyOptions,
    RemoteCallbacks, RemoteHead, Repository,
};
use std::fs::File;
use std::io::{self, Write};

/// A pack of one commit has about 250 MB, a kernel archive, which a bundle holds as well, about 140 MB.
pub(super) const LARGEST_PACK: u64 = 2 << 30;

/// Fetches `reference` (a branch, a tag, or a commit in full) of `url` and writes its tree.
///
/// Of a repository on this machine nothing is fetched: its objects are read where they are.
pub(super) fn fetch(
    url: &str,
    reference: &str,
    plan: &SourcePlan,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let name = format!("{url}#{reference}");
    let local = Utf8Path::new(url.strip_prefix("file://").unwrap_or(url));
    if local.is_absolute() {
        let repository = Repository::open(local)
            .context(Kind::Fetch, || format!("cannot open the git repository {local}"))?;
        let object =
            repository.revparse_single(reference).map_err(|_| no_such_reference(url, reference, &[]))?;
        let commit = object.peel_to_commit().context(Kind::Fetch, || format!("{name} is no commit"))?;
        let checks = vec![Check::proves(Link::User, "read from a local repository")];
        fetching.require_signature(&name, &[], Signable::No)?;
        return write(&repository, &commit, plan, checks, fetching, running);
    }
    if !["https://", "http://", "ssh://", "git://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::usage(format!("--source git+{url}: not a URL that git can fetch from"))
            .hint("https://…, ssh://…, or the absolute path of a repository on this machine"));
    }
    let locked = fetching.lock.of(&name);
    let asked = is_commit(reference).then(|| Oid::from_str(reference).ok()).flatten();
    let pinned = locked.and_then(|locked| Oid::from_str(&locked.digest.commit()?.to_string()).ok());
    let check = match locked {
        _ if asked.is_some() => Some(Check::proves(Link::LockFile, "the commit that was asked for")),
        Some(locked) if locked.unverified => {
            let detail = format!("as at its first use ({}), which nothing verified", lockfile::NAME);
            Some(Check::holds(Link::LockFile, detail))
        }
        Some(_) => Some(Check::proves(Link::LockFile, format!("pinned by {}", lockfile::NAME))),
        None => None,
    };
    fetching.require_signature(&name, check.as_slice(), Signable::No)?;
    let checks = Vec::from_iter(check);

    let _lock = fetching.cache.lock(&repository_lock(url), fetching.report)?;
    let repository = cached_repository(url, fetching.cache)?;
    let wanted = Wanted { url, reference, plan, asked, pinned, checks };
    match wanted.take(&repository, fetching, running) {
        // What cannot be read does not get better by itself.
        Err(failed) if failed.kind() == Kind::Fetch && is_damaged(&repository, &failed) => {
            let error = failed.into_error();
            if fetching.offline {
                return Err(error
                    .hint("the repository in the cache is damaged; without --offline it is fetched again"));
            }
            fetching.report.note(&format!("{error}; the repository in the cache is thrown away"));
            drop(repository);
            remove_tree(&repository_dir(url, fetching.cache))?;
            let again = wanted.take(&cached_repository(url, fetching.cache)?, fetching, running);
            again.map_err(Unfetched::into_error)
        }
        taken => taken.map_err(Unfetched::into_error),
    }
}

/// One reference of a repository on a server.
struct Wanted<'a> {
    url: &'a str,
    reference: &'a str,
    plan: &'a SourcePlan,
    /// The commit that the reference itself is, where it is one in full.
    asked: Option<Oid>,
    /// The commit that it must be.
    pinned: Option<Oid>,
    /// What vouches for it so far.
    checks: Vec<Check>,
}

impl Wanted<'_> {
    /// Makes sure that its commit is in `repository`, the cache's, and writes its tree.
    fn take(
        &self,
        repository: &Repository,
        fetching: &Fetching<'_>,
        running: &Running<'_>,
    ) -> Result<Tree, Unfetched> {
        use Unfetched::{Refused, Unreachable};
        let Wanted { url, reference, asked, pinned, .. } = *self;
        let name = format!("{url}#{reference}");
        let mut checks = self.checks.clone();
        let cached = asked
            .or(pinned)
            .and_then(|commit| repository.find_object(commit, None).ok()?.peel_to_commit().ok());
        let commit = match cached {
            Some(commit) if fetching.offline || asked.is_some() => commit,
            None if fetching.offline => return Err(Unreachable(fetching.not_here(&name))),
            cached => match fetch_one(repository, self, fetching, running) {
                Ok(commit) => {
                    checks.push(match url.starts_with("https://") || url.starts_with("ssh://") {
                        true => Check::proves(Link::Transport, "fetched from its server"),
                        false => Check::holds(Link::Transport, "fetched over an unencrypted connection"),
                    });
                    let found = repository.find_commit(commit);
                    found.context(Kind::Fetch, || format!("{name} is no commit")).map_err(Refused)?
                }
                Err(Refused(error)) => return Err(Refused(error)),
                Err(Unreachable(error)) => match cached {
                    None => return Err(Unreachable(error)),
                    Some(commit) => {
                        fetching.report.finding(format!(
                            "{error}; going on with the commit that {} pins, from the cache",
                            lockfile::NAME
                        ));
                        commit
                    }
                },
            },
        };
        write(repository, &commit, self.plan, checks, fetching, running).map_err(Refused)
    }
}

/// Is something missing in it, or an object that cannot be read? Each one is its own checksum. Where
/// the server is to blame, not all of them are read.
fn is_damaged(repository: &Repository, failed: &Unfetched) -> bool {
    let is_lost = |reference: Result<git2::Reference<'_>, git2::Error>| {
        reference.and_then(|reference| reference.peel_to_commit()).is_err()
    };
    if repository.references().map_or(true, |mut references| references.any(is_lost)) {
        return true;
    }
    if matches!(failed, Unfetched::Unreachable(_)) {
        return false;
    }
    let Ok(objects) = repository.odb() else { return true };
    let mut whole = true;
    // An error here is the end that the closure asks for, or a damaged index.
    let listed = objects.foreach(|id| {
        whole &= objects.read(*id).is_ok();
        whole
    });
    listed.is_err() || !whole
}

/// Is it a commit in full? Such a reference never moves.
pub(super) fn is_commit(reference: &str) -> bool {
    reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes a pack with `commit` of `url` and all of its tree, and nothing else.
pub(super) fn write_pack(url: &str, commit: &str, pack: &mut File, fetching: &Fetching<'_>) -> Result<()> {
    let wrong = || format!("cannot bundle the commit {commit} of {url}");
    let repository = cached_repository(url, fetching.cache)?;
    let mut builder = repository.packbuilder().context(Kind::Build, wrong)?;
    let id = Oid::from_str(commit).context(Kind::Build, wrong)?;
    // Inserting the commit inserts its tree, too; its parents are not here.
    builder.insert_commit(id).context(Kind::Build, wrong)?;
    let mut failed = None;
    let written = builder.foreach(|bytes| {
        failed = process::check().err().or_else(|| {
            pack.write_all(bytes).context(Kind::Build, || "cannot write the bundle".into()).err()
        });
        failed.is_none()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    written.context(Kind::Build, wrong)
}

/// Takes a pack into the repository for `url`; it must hold together and have `commit` in it.
pub(super) fn take_pack(url: &str, commit: &str, pack: &Utf8Path, fetching: &Fetching<'_>) -> Result<()> {
    let wrong = || format!("the bundle's pack of {url} is damaged");
    let _lock = fetching.cache.lock(&repository_lock(url), fetching.report)?;
    let repository = cached_repository(url, fetching.cache)?;
    let objects = repository.odb().context(Kind::Fetch, wrong)?;
    let mut writer = objects.packwriter().context(Kind::Fetch, wrong)?;
    let mut pack = File::open(pack).context(Kind::Fetch, wrong)?;
    io::copy(&mut pack, &mut writer).context(Kind::Fetch, wrong)?;
    writer.commit().context(Kind::Fetch, wrong)?;
    drop(writer);
    let id = Oid::from_str(commit).context(Kind::Fetch, wrong)?;
    repository.find_commit(id).context(Kind::Fetch, wrong)?;
    Ok(())
}

/// Why a reference was not fetched.
enum Unfetched {
    /// The server cannot be asked.
    Unreachable(Error),
    /// It was asked, and what it says, or what has come of it, will not do; or we were told to stop.
    Refused(Error),
}

impl Unfetched {
    fn kind(&self) -> Kind {
        match self {
            Unfetched::Unreachable(error) | Unfetched::Refused(error) => error.kind,
        }
    }

    fn into_error(self) -> Error {
        match self {
            Unfetched::Unreachable(error) | Unfetched::Refused(error) => error,
        }
    }
}

/// Makes sure that the commit of the reference, which must be the `pinned` one, is in `repository`, and
/// returns it.
fn fetch_one(
    repository: &Repository,
    &Wanted { url, reference, asked, pinned, .. }: &Wanted<'_>,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Oid, Unfetched> {
    use Unfetched::{Refused, Unreachable};
    let wrong = || format!("cannot fetch {url}#{reference}");
    let mut remote = repository.remote_anonymous(url).context(Kind::Fetch, wrong).map_err(Refused)?;
    let (wanted, from) = {
        let connected =
            remote.connect_auth(Direction::Fetch, Some(callbacks(None, LARGEST_PACK)), Some(proxy()));
        let connection = connected.map_err(|error| {
            let hint = format!("{}{}", unconnected(url, &error), proxies_named(&fetching.host.proxies));
            Unreachable(Error::fetch(wrong()).because(error).hint(hint))
        })?;
        let heads = connection.list().context(Kind::Fetch, wrong).map_err(Unreachable)?;
        let named = |prefix: &str| heads.iter().find(|head| head.name() == format!("{prefix}{reference}"));
        match (asked, named("refs/heads/").or(named("refs/tags/")).or(named(""))) {
            // What a server calls by the name of a commit may be anything. libgit2 looks for such a name, too,
            // unless it is given the whole name of a branch or tag that is at the commit.
            (Some(commit), _) => {
                let is_at = |head: &&RemoteHead<'_>| head.oid() == commit && !head.name().ends_with("^{}");
                let at = heads.iter().find(|head| head.name().starts_with("refs/") && is_at(head));
                (commit, at.map_or_else(|| commit.to_string(), |head| head.name().to_owned()))
            }
            (None, Some(head)) => (head.oid(), head.name().to_owned()),
            (None, None) => {
                let branches: Vec<&str> =
                    heads.iter().filter_map(|head| head.name().strip_prefix("refs/heads/")).collect();
                return Err(Refused(no_such_reference(url, reference, &branches)));
            }
        }
    };
    // An annotated tag is an object of its own: what it points at shows when it is here.
    let commit = |object: git2::Object<'_>| {
        let commit = object.peel_to_commit().context(Kind::Fetch, wrong)?.id();
        match pinned.filter(|pinned| *pinned != commit) {
            None => Ok(commit),
            Some(pinned) => Err(Error::fetch(format!(
                "{url}#{reference} has moved: {} pins the commit {pinned}, and it is at {commit} now",
                lockfile::NAME
            ))
            .hint("--update-lock accepts the new commit; --offline builds the pinned one while the cache has it")),
        }
    };
    if let Ok(object) = repository.find_object(wanted, None) {
        return commit(object).map_err(Refused);
    }
    let mut options = FetchOptions::new();
    options.depth(1).download_tags(AutotagOption::None).update_fetchhead(false);
    options.remote_callbacks(callbacks(Some(running), LARGEST_PACK)).proxy_options(proxy());
    let refspec = format!("+{from}:refs/kcompile/fetched");
    let fetched = remote.fetch(&[&refspec], Some(&mut options), None);
    process::check().map_err(Refused)?;
    if remote.stats().received_bytes() as u64 > LARGEST_PACK {
        return Err(Refused(Error::fetch(format!("{}: more than {}", wrong(), size(LARGEST_PACK)))));
    }
    fetched.context(Kind::Fetch, wrong).map_err(Unreachable)?;
    let object = repository.find_object(wanted, None).context(Kind::Fetch, wrong).map_err(Refused)?;
    commit(object).map_err(Refused)
}

/// What to do about a connection that did not come about.
fn unconnected(url: &str, error: &git2::Error) -> &'static str {
    match (url.starts_with("ssh://"), error.code()) {
        (true, ErrorCode::Certificate) => {
            "the server's key is not in ~/.ssh/known_hosts: connect once with ssh, and look at the key"
        }
        (true, _) if error.class() != ErrorClass::Net => {
            "has the ssh agent the key for it? `ssh-add -l` lists what it has"
        }
        _ => "is there a network, and such a repository?",
    }
}

/// The proxy that the environment names.
fn proxy() -> ProxyOptions<'static> {
    let mut options = ProxyOptions::new();
    options.auto();
    options
}

/// Never a prompt: the ssh agent once, and nothing else. A transfer of more than `most` bytes is broken off.
fn callbacks<'a>(running: Option<&'a Running<'a>>, most: u64) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    let mut tried = false;
    callbacks.credentials(move |url, user, allowed| {
        if allowed.contains(CredentialType::SSH_KEY) && !std::mem::replace(&mut tried, true) {
            return Cred::ssh_key_from_agent(user.unwrap_or("git"));
        }
        Err(git2::Error::from_str(&format!("{url} asks for a login, and kcompile never prompts for one")))
    });
    callbacks.transfer_progress(move |progress| {
        if let Some(running) = running {
            running.progress(Count {
                done: progress.received_objects() as u64,
                total: Some(progress.total_objects() as u64),
                unit: Unit::Steps,
                item: "objects from git",
            });
        }
        process::check().is_ok() && progress.received_bytes() as u64 <= most
    });
    callbacks
}

fn no_such_reference(url: &str, reference: &str, branches: &[&str]) -> Error {
    let error = Error::fetch(format!("{url} has no branch or tag `{reference}`"));
    match branches {
        [] => error,
        // The newest names are the last ones of a sorted list, more or less.
        _ => error.hint(format!(
            "it has, among others: {}",
            branches[branches.len().saturating_sub(8)..].join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::Signature;

    #[test]
    fn a_pack_ends_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let there = Repository::init(dir.path().join("there")).unwrap();
        let tree = there.find_tree(there.treebuilder(None).unwrap().write().unwrap()).unwrap();
        let author = Signature::now("x", "x@example.org").unwrap();
        there.commit(Some("refs/heads/x"), &author, &author, "x", &tree, &[]).unwrap();
        let here = Repository::init_bare(dir.path().join("here")).unwrap();
        let fetch = |most: u64| {
            let mut options = FetchOptions::new();
            options.remote_callbacks(callbacks(None, most));
            let mut remote = here.remote_anonymous(there.path().to_str().unwrap()).unwrap();
            remote.fetch(&["refs/heads/x:refs/heads/x"], Some(&mut options), None)
        };
        assert!(fetch(16).is_err());
        assert!(fetch(LARGEST_PACK).is_ok());
    }
}
