//! Frees space in the cache: what is there, how large it is, how long it has not been used. What another
//! run works with stays, and so does the lock file with its pins.

use crate::cache::{Cache, Lock};
use crate::source::BUILD_DIR_PREFIX;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::remove_tree;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};
use walkdir::WalkDir;

/// What to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanOptions {
    /// Sources: trees, archives, repositories, partial downloads.
    pub sources: bool,
    /// Build directories, and the images that came of them.
    pub builds: bool,
    /// Only what was not used for so long.
    pub older_than: Option<Duration>,
}

/// Something in the cache that can be removed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CleanItem {
    /// What it is, for people: `source tree`.
    #[serde(rename = "what")]
    pub what: &'static str,
    /// Absolute.
    pub path: Utf8PathBuf,
    /// Bytes on disk. Files that have another name outside count, too, though they free nothing.
    pub bytes: u64,
    /// Since it was last used.
    #[serde(skip)]
    pub idle_time: Duration,
    /// The name of the lock that a user of it holds.
    #[serde(skip)]
    lock: String,
    /// A file that says what it is, and goes with it.
    #[serde(skip)]
    record: Option<Utf8PathBuf>,
}

/// Everything in the cache that `choice` means, the largest first. A tree is removed with the build
/// directories in it, which are worth nothing without it.
pub fn find(cache: &Cache, options: CleanOptions) -> Result<Vec<CleanItem>> {
    let mut items = Vec::new();
    for tree in list_dir(&cache.root.join("trees"))? {
        let key = tree.file_name().unwrap_or_default();
        match (options.sources, options.builds) {
            (true, _) => items.push(item("source tree", &tree, key, 3)),
            (false, true) => items.extend(builds(&tree.join("linux"), key)?),
            (false, false) => {}
        }
    }
    if options.builds {
        for place in list_dir(&cache.root.join("builds"))? {
            items.extend(builds(&place, source_of_builds(&place))?);
        }
    }
    if options.builds {
        for path in list_dir(&cache.root.join("images"))? {
            items.push(item("packed images", &path, NO_LOCK, 1));
        }
        for path in list_dir(&cache.root.join("boots"))? {
            let image = path.file_stem().unwrap_or_default();
            items.push(item("console", &path, &format!("boot-{image}"), 0));
        }
    }
    if options.sources {
        for (what, dir) in [("archive", "archives"), ("partial download", "partial")] {
            for path in list_dir(&cache.root.join(dir))? {
                // The record of an archive goes with it.
                if path.extension() == Some("json") && path.with_extension("").exists() {
                    continue;
                }
                let record = path.extension().is_none().then(|| path.with_extension("json"));
                items.push(CleanItem { record, ..item(what, &path, &archive_lock(&path), 0) });
            }
        }
        for path in list_dir(&cache.root.join("git"))? {
            items.push(item("git repository", &path, &git_lock(&path), 1));
        }
    }
    items.retain(|item| options.older_than.is_none_or(|limit| item.idle_time >= limit));
    items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    Ok(items)
}

/// Removes it, unless another run works with it: then `false`.
pub fn remove(cache: &Cache, item: &CleanItem) -> Result<bool> {
    let Some(_locks) = try_locks(cache, &item.lock)? else { return Ok(false) };
    if let Some(record) = &item.record {
        remove_tree(record)?;
    }
    // Out of the way by one rename first: a run that comes now finds it whole or not at all.
    let scratch = cache.scratch()?;
    let trash = scratch.path.join("removed");
    match std::fs::rename(&item.path, &trash) {
        Ok(()) => remove_tree(&trash)?,
        // A read-only directory cannot be moved by an ordinary user.
        Err(_) => remove_tree(&item.path)?,
    }
    Ok(true)
}

/// No lock is called so: for what nobody holds while he works with it.
pub(crate) const NO_LOCK: &str = "/";

/// The lock of an archive, of its record and of its download.
pub(crate) fn archive_lock(path: &Utf8Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("sha256-{}", name.split('.').next().unwrap_or(name))
}

/// The lock of a git repository: the first part of its name.
pub(crate) fn git_lock(path: &Utf8Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("git-{}", name.split('-').next().unwrap_or(name))
}

/// The source of `builds/<source>-<user>`, by the number of the user whose builds they are.
pub(crate) fn source_of_builds(place: &Utf8Path) -> &str {
    let name = place.file_name().unwrap_or_default();
    name.rsplit_once('-').map_or(name, |(source, _)| source)
}

/// The locks of all that begin with `name`: of a tree, and of the builds in it.
pub(crate) fn try_locks(cache: &Cache, name: &str) -> Result<Option<Vec<Lock>>> {
    let mut locks = Vec::new();
    for name in cache.lock_names(name)? {
        match cache.try_lock(&name)? {
            Some(lock) => locks.push(lock),
            None => return Ok(None),
        }
    }
    Ok(Some(locks))
}

/// The build directories right in `dir`.
fn builds(dir: &Utf8Path, key: &str) -> Result<Vec<CleanItem>> {
    let builds = list_dir(dir)?
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.starts_with(BUILD_DIR_PREFIX)));
    let lock = |build: &Utf8Path| format!("{key}-{}", build.file_name().unwrap_or_default());
    Ok(builds.map(|build| item("build directory", &build, &lock(&build), 1)).collect())
}

/// `depth`: how far down it shows when it was used.
fn item(what: &'static str, path: &Utf8Path, lock: &str, depth: usize) -> CleanItem {
    CleanItem {
        what,
        path: path.to_owned(),
        bytes: disk_usage(path),
        idle_time: idle_time(path, depth),
        lock: lock.to_owned(),
        record: None,
    }
}

/// Bytes on disk of all below `path`.
pub(crate) fn disk_usage(path: &Utf8Path) -> u64 {
    let files = WalkDir::new(path).into_iter().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

/// Since the newest change there: a build writes its log into its directory, a use of a tree touches the
/// record beside it.
fn idle_time(path: &Utf8Path, depth: usize) -> Duration {
    let newest = WalkDir::new(path).max_depth(depth).into_iter().flatten();
    let newest = newest.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max();
    newest.and_then(|newest| SystemTime::now().duration_since(newest).ok()).unwrap_or_default()
}

/// The entries of a directory by name; of one that is not there, none.
pub(crate) fn list_dir(dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))?;
    let mut children: Vec<Utf8PathBuf> = entries.flatten().map(camino::Utf8DirEntry::into_path).collect();
    children.sort();
    Ok(children)
}
