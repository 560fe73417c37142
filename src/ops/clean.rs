//! Frees space in the cache. Lists entries with their size and last use, and removes them. Entries that
//! another run uses stay, and so does the lock file.

use crate::cache::{Cache, Lock};
use crate::ops::toolchain;
use crate::source::{self, BUILD_DIR_PREFIX};
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::{disk_usage, remove_tree};
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize, Serializer};
use std::time::{Duration, SystemTime};
use walkdir::WalkDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanOptions {
    /// Trees, archives, git repositories, partial downloads, toolchains.
    pub sources: bool,
    /// Build directories, cached images, console logs.
    pub builds: bool,
    /// Only entries that were not used for this long.
    pub older_than: Option<Duration>,
}

/// An entry of the cache that is removed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CleanItem {
    /// The kind, such as `source tree`.
    pub what: &'static str,
    /// The absolute path.
    pub path: Utf8PathBuf,
    /// Bytes on disk, including files with hard links elsewhere.
    pub bytes: u64,
    /// The kernel, such as `6.1.7` or `6.1.7 firecracker-amd64-gcc`, if it is known.
    pub kernel: Option<String>,
    /// The time since its last use.
    #[serde(rename = "unused_seconds", serialize_with = "seconds")]
    pub idle_time: Duration,
    /// The name of its lock.
    #[serde(skip)]
    lock: String,
    /// The record of an archive, which is removed with it.
    #[serde(skip)]
    record: Option<Utf8PathBuf>,
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_secs())
}

/// Finds the entries that `options` selects, the largest first. A tree includes the build directories in it,
/// which are useless without it.
pub fn find(cache: &Cache, options: CleanOptions) -> Result<Vec<CleanItem>> {
    let mut items = Vec::new();
    for tree in list_dir(&cache.root.join("trees"))? {
        let key = tree.file_name().unwrap_or_default();
        let version = source::cached_version(cache, key);
        if options.sources {
            items.push(CleanItem { kernel: version, ..item("source tree", &tree, key, 3) });
        } else if options.builds {
            items.extend(builds(&tree.join("linux"), key, version.as_deref())?);
        }
    }
    if options.builds {
        for place in list_dir(&cache.root.join("builds"))? {
            let key = source_of_builds(&place);
            items.extend(builds(&place, key, source::cached_version(cache, key).as_deref())?);
        }
        for path in list_dir(&cache.root.join("images"))? {
            items.push(CleanItem {
                kernel: kernel_of_images(&path),
                ..item("packed images", &path, NO_LOCK, 1)
            });
        }
        for path in list_dir(&cache.root.join("boots"))? {
            let image = path.file_stem().unwrap_or_default();
            items.push(item("console", &path, &format!("boot-{image}"), 0));
        }
    }
    if options.sources {
        for (what, dir) in [("archive", "archives"), ("partial download", "partial")] {
            for path in list_dir(&cache.root.join(dir))? {
                // The record of an archive is removed with it.
                if path.extension() == Some("json") && path.with_extension("").exists() {
                    continue;
                }
                let record = path.extension().is_none().then(|| path.with_extension("json"));
                let kernel = source::cached_archive_name(cache, &path);
                items.push(CleanItem { record, kernel, ..item(what, &path, &archive_lock(&path), 0) });
            }
        }
        for path in list_dir(&cache.root.join("cve"))? {
            items.push(item("CVE records", &path, NO_LOCK, 0));
        }
        for path in list_dir(&cache.root.join("git"))? {
            items.push(item("git repository", &path, &git_lock(&path), 1));
        }
        items.extend(toolchains(cache)?);
    }
    items.retain(|item| options.older_than.is_none_or(|limit| item.idle_time >= limit));
    items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    Ok(items)
}

/// Returns the unpacked toolchains.
pub fn toolchains(cache: &Cache) -> Result<Vec<CleanItem>> {
    let paths = list_dir(&cache.root.join("toolchains"))?;
    Ok(paths.iter().map(|path| item("toolchain", path, &toolchain::lock_name(path), 1)).collect())
}

/// Removes an entry, unless another run uses it. Returns whether it was removed.
pub fn remove(cache: &Cache, item: &CleanItem) -> Result<bool> {
    let Some(_locks) = try_locks(cache, &item.lock)? else { return Ok(false) };
    if let Some(record) = &item.record {
        remove_tree(record)?;
    }
    // Renames it first, so that another run finds it complete or not at all.
    let scratch = cache.scratch()?;
    let trash = scratch.path.join("removed");
    match std::fs::rename(&item.path, &trash) {
        Ok(()) => remove_tree(&trash)?,
        // An ordinary user cannot rename a read-only directory.
        Err(_) => remove_tree(&item.path)?,
    }
    Ok(true)
}

/// The name of no lock, for entries that have none.
pub(crate) const NO_LOCK: &str = "/";

/// Returns the name of the lock of an archive, its record and its download.
pub(crate) fn archive_lock(path: &Utf8Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("sha256-{}", name.split('.').next().unwrap_or(name))
}

/// Returns the name of the lock of a git repository.
pub(crate) fn git_lock(path: &Utf8Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("git-{}", name.split('-').next().unwrap_or(name))
}

/// Returns the source of `builds/<source>-<uid>`.
pub(crate) fn source_of_builds(place: &Utf8Path) -> &str {
    let name = place.file_name().unwrap_or_default();
    name.rsplit_once('-').map_or(name, |(source, _)| source)
}

/// Takes all locks whose name begins with `name`, such as those of a tree and of the builds in it. Returns
/// `None` if one of them is held.
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

/// The names of layouts and tags in the record of cached images.
#[derive(Deserialize)]
struct ImagesRecord {
    #[serde(default)]
    tags: Vec<ImageTag>,
}

#[derive(Deserialize)]
struct ImageTag {
    layout: String,
    tag: String,
}

/// Returns the kernel of cached images, such as `6.1.7 firecracker-kernel-bin-amd64`.
fn kernel_of_images(dir: &Utf8Path) -> Option<String> {
    let record = read_file(dir.join("record.json"), Links::Refuse, MAX_JSON).ok()?;
    let record: ImagesRecord = serde_json::from_slice(&record).ok()?;
    let ImageTag { layout, tag } = record.tags.into_iter().next()?;
    Some(format!("{tag} {layout}"))
}

/// Lists the build directories in `dir`, of the kernel `version`.
fn builds(dir: &Utf8Path, key: &str, version: Option<&str>) -> Result<Vec<CleanItem>> {
    let builds = list_dir(dir)?
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.starts_with(BUILD_DIR_PREFIX)));
    let lock = |build: &Utf8Path| format!("{key}-{}", build.file_name().unwrap_or_default());
    let kernel = |build: &Utf8Path| {
        let what = build.file_name()?.strip_prefix(BUILD_DIR_PREFIX)?.to_owned();
        Some(version.map_or(what.clone(), |version| format!("{version} {what}")))
    };
    let found = builds.map(|build| CleanItem {
        kernel: kernel(&build),
        ..item("build directory", &build, &lock(&build), 1)
    });
    Ok(found.collect())
}

/// Creates an item. Its last use is the newest change down to `depth` levels.
fn item(what: &'static str, path: &Utf8Path, lock: &str, depth: usize) -> CleanItem {
    CleanItem {
        what,
        path: path.to_owned(),
        bytes: disk_usage(path),
        kernel: None,
        idle_time: idle_time(path, depth),
        lock: lock.to_owned(),
        record: None,
    }
}

/// Returns the time since the newest change. Builds write a log to their directory, and each use of a tree
/// touches the record beside it.
fn idle_time(path: &Utf8Path, depth: usize) -> Duration {
    let newest = WalkDir::new(path).max_depth(depth).into_iter().flatten();
    let newest = newest.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max();
    newest.and_then(|newest| SystemTime::now().duration_since(newest).ok()).unwrap_or_default()
}

/// Lists a directory by name. A missing directory has no entries.
pub(crate) fn list_dir(dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))?;
    let mut children: Vec<Utf8PathBuf> = entries.flatten().map(camino::Utf8DirEntry::into_path).collect();
    children.sort();
    Ok(children)
}
