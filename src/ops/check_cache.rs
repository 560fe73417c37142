//! Finds and removes entries of the cache that a broken or full disk or a power failure has damaged. All of
//! them can be built or fetched again. Entries that another run uses are not checked.

use crate::cache::Cache;
use crate::catalog::lockfile::{self, LockFile};
use crate::host::process;
use crate::ops::clean::{NO_LOCK, archive_lock, git_lock, list_dir, source_of_builds, try_locks};
use crate::ops::cve_records::MAX_INDEX;
use crate::ops::toolchain;
use crate::source;
use crate::util::error::Result;
use crate::util::fs::{TEMPORARY, disk_usage, remove_tree};
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// A temporary file older than this belongs to no running process.
const MAX_WRITE_TIME: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheProblem {
    /// The damage, such as `incomplete source tree`.
    pub what: &'static str,
    /// The absolute path.
    pub path: Utf8PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether it was removed. If not, the user has to repair it.
    pub repaired: bool,
}

/// The result of a check of the cache.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CacheReport {
    #[serde(rename = "items")]
    pub found: Vec<CacheProblem>,
    /// The number of checked entries.
    pub examined: usize,
    /// Entries that are in use and were not checked.
    pub in_use: Vec<Utf8PathBuf>,
}

/// Checks the whole cache and removes damaged entries. Reads all archives and possibly modified trees.
pub fn examine(cache: &Cache) -> Result<CacheReport> {
    let mut report = CacheReport::default();
    let folder = |name: &str| list_dir(&cache.root.join(name));
    for path in folder("trees")? {
        report.check_entry(cache, &path, file_name(&path), source::check_tree_entry)?;
        for build in list_dir(&path.join("linux"))?.iter().filter(|path| is_build(path)) {
            report.check_entry(cache, build, file_name(&path), check_build_dir)?;
        }
    }
    for place in folder("builds")? {
        for build in list_dir(&place)? {
            report.check_entry(cache, &build, &format!("{}-", source_of_builds(&place)), check_build_dir)?;
        }
    }
    for path in folder("archives")? {
        // Removes a damaged archive with its record, and a record without an archive.
        report.check_entry(cache, &path, &archive_lock(&path), source::check_archive_entry)?;
    }
    for path in folder("git")? {
        report.check_entry(cache, &path, &git_lock(&path), check_git_repository)?;
    }
    for path in folder("toolchains")? {
        let check = |_: &Cache, path: &Utf8Path| Ok(toolchain::problem(path));
        report.check_entry(cache, &path, &toolchain::lock_name(&path), check)?;
    }
    for path in folder("images")? {
        report.check_entry(cache, &path, NO_LOCK, |_, path| {
            Ok((!is_json(&path.join("record.json"), MAX_JSON))
                .then_some("packed images without their record"))
        })?;
    }
    for (name, limit) in
        [("known", MAX_JSON), ("history", MAX_JSON), ("releases", MAX_JSON), ("cve", MAX_INDEX)]
    {
        for path in folder(name)? {
            report.check_entry(cache, &path, NO_LOCK, |_, path| {
                Ok((!is_json(path, limit)).then_some("damaged record"))
            })?;
        }
    }
    for path in folder("tmp")? {
        // Directories of running processes are locked. Opening the cache has removed all others.
        report.check_entry(cache, &path, NO_LOCK, |_, path| {
            Ok((!file_name(path).starts_with("work-")).then_some("unknown file"))
        })?;
    }
    for path in find_unfinished(&cache.root)? {
        report.check_entry(cache, &path, NO_LOCK, |_, _| Ok(Some("incomplete temporary file")))?;
    }
    let lock = lockfile::lock_file_path(None, &cache.root, cache.uid);
    if LockFile::read(&lock).is_err() {
        let what = "unreadable lock file (repair or remove it)";
        report.found.push(CacheProblem { what, bytes: disk_usage(&lock), path: lock, repaired: false });
    }
    Ok(report)
}

impl CacheReport {
    /// Locks and checks one entry, and removes it if `check` finds damage.
    fn check_entry(
        &mut self,
        cache: &Cache,
        path: &Utf8Path,
        lock: &str,
        check: impl FnOnce(&Cache, &Utf8Path) -> Result<Option<&'static str>>,
    ) -> Result<()> {
        process::check()?;
        // It was removed with an earlier entry.
        if path.symlink_metadata().is_err() || file_name(path).starts_with(TEMPORARY) && lock != NO_LOCK {
            return Ok(());
        }
        let Some(_held) = try_locks(cache, lock)? else {
            self.in_use.push(path.to_owned());
            return Ok(());
        };
        self.examined += 1;
        if let Some(what) = check(cache, path)? {
            let bytes = disk_usage(path);
            // An entry of another user stays, for that user to remove.
            let repaired = remove_tree(path).is_ok();
            self.found.push(CacheProblem { what, path: path.to_owned(), bytes, repaired });
        }
        Ok(())
    }
}

/// Each build directory of Kbuild has a link to its source, and is useless without the source.
fn check_build_dir(_: &Cache, build: &Utf8Path) -> Result<Option<&'static str>> {
    let link = build.join("source");
    let is_gone = link.is_symlink() && !link.exists();
    Ok(is_gone.then_some("build of a removed source"))
}

fn check_git_repository(_: &Cache, repository: &Utf8Path) -> Result<Option<&'static str>> {
    let is_whole = repository.join("HEAD").is_file() && repository.join("objects").is_dir();
    Ok((!is_whole).then_some("incomplete git repository"))
}

/// Finds temporary files of killed runs in the directories of the cache and their entries.
fn find_unfinished(root: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let is_old = |path: &Utf8Path| {
        let written = path.symlink_metadata().and_then(|file| file.modified());
        written.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > MAX_WRITE_TIME))
    };
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    for depth in 0..3 {
        let mut next = Vec::new();
        for path in dirs.iter().map(|dir| list_dir(dir)).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            if file_name(&path).starts_with(TEMPORARY) && is_old(&path) {
                found.push(path);
            } else if depth < 2 && path.is_dir() && !path.is_symlink() && file_name(&path) != "linux" {
                next.push(path);
            }
        }
        dirs = next;
    }
    Ok(found)
}

fn is_build(path: &Utf8Path) -> bool {
    file_name(path).starts_with(source::BUILD_DIR_PREFIX)
}

fn file_name(path: &Utf8Path) -> &str {
    path.file_name().unwrap_or_default()
}

fn is_json(path: &Utf8Path, limit: u64) -> bool {
    file_name(path).starts_with(TEMPORARY)
        || read_file(path, Links::Refuse, limit)
            .is_ok_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok())
}
