//! Records the files of a tree in the cache, to find later changes.
//!
//! Two records lie beside a tree. `files` has a line for each file, with the hash of its content, its kind
//! and its name. `stat` is one hash over the metadata of all files (size, times, inode). While it is
//! unchanged, nobody has written there, and 84,000 files need not be read again. The hash is XXH3, which is
//! fast and finds damage. The archive's SHA-256 and signature verify the content at first.

use super::tree::BUILD_DIR_PREFIX;
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt, cannot};
use crate::util::file_stamp::nanoseconds;
use crate::util::fs::{digest_file, write_atomically};
use crate::util::read::{Links, MAX_SMALL_FILE, open_file, read_text};
use camino::{Utf8Path, Utf8PathBuf};
use std::fmt::Write as _;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::SystemTime;
use walkdir::{DirEntry, WalkDir};
use xxhash_rust::xxh3::Xxh3;

/// The limit of all files of a tree. Kernel trees have 1.4 GB.
pub(super) const MAX_BYTES: u64 = 8 << 30;

/// The record with a line for each file.
pub(super) const FILES: &str = "files";
/// The record with the hash of their metadata.
pub(super) const STAT: &str = "stat";

/// The content and kind of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHash {
    hash: u128,
    /// `-` is a file, `x` an executable, `l` a link.
    kind: char,
}

impl FileHash {
    /// Returns whether it is a regular file.
    pub(super) fn is_file(self) -> bool {
        self.kind != 'l'
    }

    /// Hashes a link to `target`.
    pub(super) fn link(target: &str) -> FileHash {
        FileHash { hash: xxhash_rust::xxh3::xxh3_128(target.as_bytes()), kind: 'l' }
    }
}

/// Hashes a file while it is written.
#[derive(Default)]
pub(super) struct FileHasher(Xxh3);

impl FileHasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Finishes a file with these permissions, of which only the owner's execute bit matters.
    pub(super) fn file(&self, mode: u32) -> FileHash {
        FileHash { hash: self.0.digest128(), kind: if mode & 0o100 == 0 { '-' } else { 'x' } }
    }
}

/// The files of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeManifest {
    /// Sorted by name.
    lines: String,
}

impl TreeManifest {
    pub(super) fn new(mut files: Vec<(Utf8PathBuf, FileHash)>) -> TreeManifest {
        files.sort_unstable_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        let mut lines = String::new();
        for (path, FileHash { hash, kind }) in files {
            writeln!(lines, "{hash:032x} {kind} {}", path.as_str().escape_debug())
                .expect("writing to a string");
        }
        TreeManifest { lines }
    }

    /// Reads all files of the tree.
    pub(super) fn of(tree: &Utf8Path) -> Result<TreeManifest> {
        let mut contents = Vec::new();
        let mut buffer = vec![0; 1 << 17];
        for entry in walk(tree) {
            crate::host::process::check()?;
            let (path, metadata) = entry?;
            let full = tree.join(&path);
            let content = if metadata.is_symlink() {
                FileHash::link(full.read_link_utf8().context(Kind::Build, cannot("read", &full))?.as_str())
            } else if metadata.is_file() {
                let mut hasher = FileHasher::default();
                let mut file = open_file(&full, Links::Refuse).context(Kind::Build, cannot("read", &full))?;
                loop {
                    crate::host::process::check()?;
                    match file.read(&mut buffer).context(Kind::Build, cannot("read", &full))? {
                        0 => break,
                        read => hasher.update(&buffer[..read]),
                    }
                }
                hasher.file(metadata.permissions().mode())
            } else {
                continue;
            };
            contents.push((path, content));
        }
        Ok(TreeManifest::new(contents))
    }

    /// Writes both records of the complete tree `tree` into `entry`.
    pub(super) fn record(&self, entry: &Utf8Path, tree: &Utf8Path) -> Result<()> {
        write_atomically(&entry.join(FILES), self.lines.as_bytes())?;
        record_stat(entry, tree)
    }
}

/// Records the metadata of the tree again, after its files got more links or a new place.
pub(super) fn record_stat(entry: &Utf8Path, tree: &Utf8Path) -> Result<()> {
    write_atomically(&entry.join(STAT), stat(tree)?.as_bytes())
}

/// Records that the entry is used now, if it can be written.
pub(super) fn touch(entry: &Utf8Path) {
    let _ =
        open_file(entry.join(STAT), Links::Refuse).and_then(|record| record.set_modified(SystemTime::now()));
}

/// Returns whether `tree` has the files that were recorded in `entry`. Reads them only if metadata changed.
pub(super) fn is_intact(entry: &Utf8Path, tree: &Utf8Path) -> Result<bool> {
    let recorded = read_text(entry.join(STAT), Links::Refuse, MAX_SMALL_FILE);
    if recorded.is_ok_and(|recorded| stat(tree).is_ok_and(|now| now == recorded)) {
        return Ok(true);
    }
    if bytes_of(tree)? > MAX_BYTES {
        return Ok(false);
    }
    // Comparing digests keeps only one list in memory.
    let Ok(recorded) = digest_file(&entry.join(FILES), Links::Refuse) else { return Ok(false) };
    let is_intact = Sha256::of(TreeManifest::of(tree)?.lines) == recorded;
    if is_intact {
        // In another user's cache this fails, and the files are read each time.
        let _ = record_stat(entry, tree);
    }
    Ok(is_intact)
}

/// Returns the size of all files. A damaged file may have any size.
fn bytes_of(tree: &Utf8Path) -> Result<u64> {
    walk(tree).try_fold(0, |bytes, entry| Ok(entry?.1.len().saturating_add(bytes)))
}

/// Hashes the metadata of all files of a tree. Every change of a file changes its ctime.
pub fn stat(tree: &Utf8Path) -> Result<String> {
    let mut hasher = Xxh3::new();
    for entry in walk(tree) {
        let (path, metadata) = entry?;
        hash_stat(&mut hasher, &path, &metadata);
    }
    Ok(format!("{:032x}\n", hasher.digest128()))
}

/// Hashes the metadata of one file, and returns its `ctime` in nanoseconds since 1970.
pub(super) fn hash_stat(hasher: &mut Xxh3, path: &Utf8Path, metadata: &Metadata) -> i64 {
    hasher.update(path.as_str().as_bytes());
    hasher.update(&[0]);
    let numbers = [
        u64::from(metadata.mode()),
        metadata.ino(),
        metadata.size(),
        metadata.mtime() as u64,
        metadata.mtime_nsec() as u64,
        metadata.ctime() as u64,
        metadata.ctime_nsec() as u64,
    ];
    // Build directories change the times of the directory.
    let count = if metadata.is_dir() { 1 } else { numbers.len() };
    numbers[..count].iter().for_each(|number| hasher.update(&number.to_le_bytes()));
    nanoseconds(metadata.ctime(), metadata.ctime_nsec())
}

/// Returns whether the entry is part of the source. Build directories are not.
pub(super) fn is_source(entry: &DirEntry) -> bool {
    entry.depth() != 1 || !entry.file_name().to_string_lossy().starts_with(BUILD_DIR_PREFIX)
}

/// Walks the tree sorted by name, with paths relative to the tree.
fn walk(tree: &Utf8Path) -> impl Iterator<Item = Result<(Utf8PathBuf, Metadata)>> {
    let walk = WalkDir::new(tree).sort_by_file_name().into_iter().filter_entry(is_source);
    let tree = tree.to_owned();
    walk.map(move |entry| {
        let entry = entry.context(Kind::Build, cannot("read", &tree))?;
        let metadata = entry.metadata().context(Kind::Build, cannot("read", &tree))?;
        let path = entry.path().strip_prefix(&tree).expect("walked from there").to_path_buf();
        let path = Utf8PathBuf::from_path_buf(path)
            .unwrap_or_else(|path| path.to_string_lossy().into_owned().into());
        Ok((path, metadata))
    })
}
