//! One reference of a git repository: fetched to depth 1 and written as a tree, without checkout,
//! filters, hooks or submodules.

use super::directory::check_tree;
use super::write::TreeWriter;
use super::{Fetching, SourceIdentity, Tree, keep};
use crate::digest::Sha256;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::SourcePlan;
use crate::process;
use crate::report::{Count, Running, Unit};
use camino::Utf8Path;
use git2::{
    AutotagOption, Commit, Cred, CredentialType, Direction, FetchOptions, ObjectType, Oid, ProxyOptions,
    RemoteCallbacks, Repository, TreeWalkMode, TreeWalkResult,
};

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
        let how = ("read from a local repository", true);
        return write(&repository, &commit, plan, how, fetching, running);
    }
    if !["https://", "http://", "ssh://", "git://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::usage(format!("--source git+{url}: not a URL that git can fetch from"))
            .hint("https://…, ssh://…, or the absolute path of a repository on this machine"));
    }
    let dir = fetching.cache.root.join("git").join(Sha256::of(url).short());
    let _lock = fetching.cache.lock(&format!("git-{}", Sha256::of(url).short()), fetching.report)?;
    let repository =
        Repository::init_bare(&dir).context(Kind::Build, || format!("cannot make the repository {dir}"))?;
    let commit = fetch_one(&repository, url, reference, running)?;
    let commit = repository.find_commit(commit).context(Kind::Fetch, || format!("{name} is no commit"))?;
    let how = match url.starts_with("https://") || url.starts_with("ssh://") {
        true => ("fetched from its server", true),
        false => ("fetched over an unencrypted connection", false),
    };
    write(&repository, &commit, plan, how, fetching, running)
}

/// Makes sure that the commit of `reference` is in `repository`, and returns it.
fn fetch_one(repository: &Repository, url: &str, reference: &str, running: &Running<'_>) -> Result<Oid> {
    let wrong = || format!("cannot fetch {url}#{reference}");
    let mut remote = repository.remote_anonymous(url).context(Kind::Fetch, wrong)?;
    let (wanted, refspec) = {
        let connection = remote
            .connect_auth(Direction::Fetch, Some(callbacks(None)), Some(proxy()))
            .context(Kind::Fetch, wrong);
        let connection =
            connection.map_err(|error| error.hint("is there a network, and such a repository?"))?;
        let heads = connection.list().context(Kind::Fetch, wrong)?;
        let named = |prefix: &str| heads.iter().find(|head| head.name() == format!("{prefix}{reference}"));
        match (named("refs/heads/").or(named("refs/tags/")).or(named("")), Oid::from_str(reference)) {
            (Some(head), _) => (head.oid(), format!("+{}:refs/kcompile/fetched", head.name())),
            (None, Ok(commit)) if reference.len() == 40 => {
                (commit, format!("{commit}:refs/kcompile/fetched"))
            }
            _ => {
                let branches: Vec<&str> =
                    heads.iter().filter_map(|head| head.name().strip_prefix("refs/heads/")).collect();
                return Err(no_such_reference(url, reference, &branches));
            }
        }
    };
    if let Ok(object) = repository.find_object(wanted, None) {
        return Ok(object.peel_to_commit().context(Kind::Fetch, wrong)?.id());
    }
    let mut options = FetchOptions::new();
    options.depth(1).download_tags(AutotagOption::None).update_fetchhead(false);
    options.remote_callbacks(callbacks(Some(running))).proxy_options(proxy());
    let fetched = remote.fetch(&[&refspec], Some(&mut options), None);
    process::check()?;
    fetched.context(Kind::Fetch, wrong)?;
    let object = repository.find_object(wanted, None).context(Kind::Fetch, wrong)?;
    Ok(object.peel_to_commit().context(Kind::Fetch, wrong)?.id())
}

/// The proxy that git's configuration or the environment names.
fn proxy() -> ProxyOptions<'static> {
    let mut options = ProxyOptions::new();
    options.auto();
    options
}

/// Never a prompt: the ssh agent once, and nothing else.
fn callbacks<'a>(running: Option<&'a Running<'a>>) -> RemoteCallbacks<'a> {
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
        process::check().is_ok()
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

/// Writes the commit's tree into the cache, file by file, from the objects.
fn write(
    repository: &Repository,
    commit: &Commit<'_>,
    plan: &SourcePlan,
    (how, trusted): (&str, bool),
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let (name, digest) = (&plan.name, format!("commit:{}", commit.id()));
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
        writer.finish()?;
        Ok(SourceIdentity {
            origin: plan.origin.clone(),
            version: check_tree(path, name)?,
            date: u64::try_from(commit.time().seconds()).unwrap_or(0),
            verified: format!("commit {}, {how}", &commit.id().to_string()[..12]),
            trusted,
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
