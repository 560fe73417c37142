//! What a broken disk, a full one or a power cut may have left in the cache: looked for, and removed, since all
//! of it can be made or fetched again. What another run works with is not looked at.

use crate::cache::Cache;
use crate::catalog::lockfile::{self, LockFile};
use crate::host::process;
use crate::ops::clean::{NO_LOCK, archive_lock, disk_usage, git_lock, list_dir, source_of_builds, try_locks};
use crate::source;
use crate::util::error::Result;
use crate::util::fs::{TEMPORARY, remove_tree};
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// No file is written for longer than this before it gets its name.
const MAX_WRITE_TIME: Duration = Duration::from_secs(60);

/// Something that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheProblem {
    /// For people: `half a source tree`.
    #[serde(rename = "what")]
    pub what: &'static str,
    /// Absolute.
    pub path: Utf8PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Was it removed? Else the user has to look at it.
    #[serde(rename = "repaired")]
    pub repaired: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CacheReport {
    /// In the order of the folders.
    #[serde(rename = "found")]
    pub found: Vec<CacheProblem>,
    /// How many entries were looked at.
    #[serde(rename = "examined")]
    pub examined: usize,
    /// These are in use, and were not.
    #[serde(rename = "in_use")]
    pub in_use: Vec<Utf8PathBuf>,
}

/// Looks through the whole cache, and removes what is of no use. Every archive is read, and each tree that
/// somebody may have written to.
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
        // One that is damaged goes with its record, and a record that means nothing by itself.
        report.check_entry(cache, &path, &archive_lock(&path), source::check_archive_entry)?;
    }
    for path in folder("git")? {
        report.check_entry(cache, &path, &git_lock(&path), check_git_repository)?;
    }
    for path in folder("images")? {
        report.check_entry(cache, &path, NO_LOCK, |_, path| {
            Ok((!is_json(&path.join("record.json"))).then_some("packed images without their record"))
        })?;
    }
    for name in ["known", "history", "releases"] {
        for path in folder(name)? {
            report.check_entry(cache, &path, NO_LOCK, |_, path| {
                Ok((!is_json(path)).then_some("a damaged record"))
            })?;
        }
    }
    for path in folder("tmp")? {
        // What is ours and in use is locked; opening the cache has removed all that was not.
        report.check_entry(cache, &path, NO_LOCK, |_, path| {
            Ok((!file_name(path).starts_with("work-")).then_some("an orphan"))
        })?;
    }
    for path in find_unfinished(&cache.root)? {
        report.check_entry(cache, &path, NO_LOCK, |_, _| Ok(Some("a file that was never finished")))?;
    }
    let lock = lockfile::lock_file_path(None, &cache.root, cache.uid);
    if LockFile::read(&lock).is_err() {
        let what = "a lock file that cannot be read: mend or remove it";
        report.found.push(CacheProblem { what, bytes: disk_usage(&lock), path: lock, repaired: false });
    }
    Ok(report)
}

impl CacheReport {
    /// Looks at one entry while nobody else works with it, and removes it where `ailment` tells of one.
    fn check_entry(
        &mut self,
        cache: &Cache,
        path: &Utf8Path,
        lock: &str,
        check: impl FnOnce(&Cache, &Utf8Path) -> Result<Option<&'static str>>,
    ) -> Result<()> {
        process::check()?;
        // Gone with another that was looked at before.
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
            // Another user's is for that user.
            let repaired = remove_tree(path).is_ok();
            self.found.push(CacheProblem { what, path: path.to_owned(), bytes, repaired });
        }
        Ok(())
    }
}

/// Kbuild keeps a link to the source in each build directory. Without that it is worth nothing.
fn check_build_dir(_: &Cache, build: &Utf8Path) -> Result<Option<&'static str>> {
    let link = build.join("source");
    let is_gone = link.is_symlink() && !link.exists();
    Ok(is_gone.then_some("a build of a source that is gone"))
}

fn check_git_repository(_: &Cache, repository: &Utf8Path) -> Result<Option<&'static str>> {
    let is_whole = repository.join("HEAD").is_file() && repository.join("objects").is_dir();
    Ok((!is_whole).then_some("half a git repository"))
}

/// Files that a killed run was writing, in the folders of the cache and their entries.
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

fn is_json(path: &Utf8Path) -> bool {
    file_name(path).starts_with(TEMPORARY)
        || read_file(path, Links::Refuse, MAX_JSON)
            .is_ok_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok())
}
