//! The bare repositories in the cache: one for each URL that was fetched from.

use crate::cache::Cache;
use crate::util::digest::Sha256;
use crate::util::error::{Context, Kind, Result};
use camino::Utf8PathBuf;
use git2::{Oid, Repository};

pub(super) fn repository_lock(url: &str) -> String {
    format!("git-{}", Sha256::of(url).short())
}

/// The bare repository in the cache for what comes from `url`. The caller holds its lock.
///
/// The git configuration of the user and of the system is not read: `url.*.insteadOf` would fetch from another
/// server than the one that the receipt names.
pub(super) fn cached_repository(url: &str, cache: &Cache) -> Result<Repository> {
    let dir = repository_dir(url, cache);
    let opened = Repository::init_bare(&dir).and_then(|repository| {
        repository.set_config(&git2::Config::new()?)?;
        Ok(repository)
    });
    opened.context(Kind::Build, || format!("cannot make the repository {dir}"))
}

/// Is `commit` in the cache's repository for `url`?
pub(super) fn has_commit(url: &str, commit: &str, cache: &Cache) -> bool {
    let repository = Repository::open_bare(repository_dir(url, cache));
    repository.and_then(|repository| Ok(repository.find_commit(Oid::from_str(commit)?)?.id())).is_ok()
}

/// Each user has repositories of their own: git refuses those of others.
pub(super) fn repository_dir(url: &str, cache: &Cache) -> Utf8PathBuf {
    cache.root.join("git").join(format!("{}-{}", Sha256::of(url).short(), cache.uid))
}
