//! Fetches a git repository of data, such as the CVE records of the kernel, and reads files from its tree.
//! Nothing is checked out.

use super::context::FetchContext;
use super::git_fetch::{self, no_such_reference};
use super::git_program::{Git, committer_date};
use super::git_store::{FETCHED, ScratchRepository, commit_of, repository_lock};
use crate::cache::Cache;
use crate::host::Host;
use crate::host::process::Interruptible;
use crate::report::PhaseGuard;
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::Utf8Path;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use tar::EntryType;

/// A commit whose files can be read.
pub struct DataRepository {
    repository: ScratchRepository,
    /// The name for messages.
    name: String,
    pub commit: String,
    /// The date of the commit, in seconds since 1970.
    pub date: u64,
}

/// The limits of the files that are read.
#[derive(Clone, Copy, Debug)]
pub struct DataLimits {
    /// The number of files.
    pub files: usize,
    /// The size of each. A larger file is reported without its content.
    pub bytes: u64,
}

/// Fetches the branch `reference` of `url` to depth 1, unless the cache has its commit.
///
/// # Errors
///
/// Exit code 3: the server cannot be reached, or has no such branch.
pub fn fetch_data(
    url: &str,
    reference: &str,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<DataRepository> {
    let _lock = ctx.cache.lock(&repository_lock(url), ctx.reporter)?;
    let repository = ScratchRepository::of_url(url, ctx.cache)?;
    let git = Git::local(ctx.host, &repository.dir())?;
    let resolved = git_fetch::resolve_ref(url, reference, ctx)??;
    let commit = match commit_of(&git, &resolved.object)? {
        Some(commit) => commit,
        None => {
            git_fetch::fetch(&resolved, reference, &repository, ctx, phase)?;
            let commit = commit_of(&git, FETCHED)?;
            repository.store_packs(url, ctx.cache)?;
            commit.ok_or_else(|| Error::fetch(format!("{url}#{reference} is not a commit")))?
        }
    };
    DataRepository::new(repository, format!("{url}#{reference}"), commit, ctx.host)
}

/// Opens `commit` of `url` in the cache, if it is there.
pub fn cached_data(url: &str, commit: &str, cache: &Cache, host: &Host) -> Result<Option<DataRepository>> {
    let repository = ScratchRepository::of_url(url, cache)?;
    let found = commit_of(&Git::local(host, &repository.dir())?, commit)?;
    found.map(|commit| DataRepository::new(repository, url.to_owned(), commit, host)).transpose()
}

/// Opens the commit that is checked out in the local repository `dir`, or that its `HEAD` names.
///
/// # Errors
///
/// Exit code 3: it is not a repository, or has no commit.
pub fn local_data(dir: &Utf8Path, cache: &Cache, host: &Host) -> Result<DataRepository> {
    let inside = dir.join(".git");
    let git = Git::local(host, if inside.exists() { &inside } else { dir })?;
    let commit = commit_of(&git, "HEAD")?.ok_or_else(|| no_such_reference(dir.as_str(), "HEAD", &[]))?;
    let objects = git.run_for_text(&["rev-parse", "--git-path", "objects"])?;
    let objects = objects.ok_or_else(|| Error::fetch(format!("cannot open the git repository {dir}")))?;
    let repository = ScratchRepository::new(&host.absolute(objects.as_ref()), None, cache)?;
    DataRepository::new(repository, dir.to_string(), commit, host)
}

impl DataRepository {
    fn new(
        repository: ScratchRepository,
        name: String,
        commit: String,
        host: &Host,
    ) -> Result<DataRepository> {
        let text = Git::local(host, &repository.dir())?.run_for_text(&["cat-file", "commit", &commit])?;
        let date = text.as_deref().and_then(committer_date).unwrap_or(0);
        Ok(DataRepository { repository, name, commit, date })
    }

    /// Passes the name and the content of each file that `pattern` matches to `visit`. The content is `None`
    /// if the file exceeds the limit of bytes.
    ///
    /// # Errors
    ///
    /// Exit code 3: there are too many files, or the repository is damaged.
    pub fn visit_files(
        &self,
        pattern: &str,
        limits: DataLimits,
        host: &Host,
        visit: impl FnMut(&str, Option<&[u8]>) + Send,
    ) -> Result<()> {
        let git = Git::local(host, &self.repository.dir())?;
        let pathspec = format!(":(glob){pattern}");
        let args = ["archive", "--format=tar", &self.commit, "--", &pathspec];
        let (exit, read) =
            git.run(&args, |tar| read_tar(tar, limits, visit), |_| ControlFlow::Continue(()))?;
        read.context(Kind::Fetch, || format!("cannot read the files of {}", self.name))?;
        if exit.is_success {
            return Ok(());
        }
        Err(Error::fetch(format!("cannot read the files of {}: {}", self.name, exit.error_message())))
    }
}

fn read_tar(
    tar: impl Read,
    limits: DataLimits,
    mut visit: impl FnMut(&str, Option<&[u8]>),
) -> io::Result<()> {
    let mut reader = Interruptible(BufReader::with_capacity(1 << 20, tar));
    let mut archive = tar::Archive::new(&mut reader);
    let mut count = 0;
    let mut content = Vec::new();
    // Raw entries: the records of longer names than 100 bytes are skipped and never held in memory.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        count += 1;
        if count > limits.files {
            return Err(io::Error::other(format!("more than {} files", limits.files)));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.size() > limits.bytes {
            visit(&name, None);
            continue;
        }
        content.clear();
        entry.read_to_end(&mut content)?;
        visit(&name, Some(&content));
    }
    // git succeeds only if all its output is read.
    io::copy(&mut reader, &mut io::sink()).map(drop)
}
