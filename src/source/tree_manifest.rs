//! What a tree in the cache holds, so that it can be told later whether it is still what was unpacked.
//!
//! Two records lie beside a tree. `files` has a line for each file: a hash of its content, what it is,
//! its name. `stat` is one hash over what the file system says of all of them (size, times, inode): as
//! long as that is the same nobody has written there, and 84,000 files need not be read again. The
//! hash is XXH3, which is fast and finds damage; that the content was right at first is not its
//! business, but that of the SHA-256 and the signature of the archive.

use super::tree::BUILD_DIR_PREFIX;
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt};
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

/// The limit of all files of a tree. Real ones have 1.4 GB.
pub(super) const MAX_BYTES: u64 = 8 << 30;

/// Beside the tree: a line for each file.
pub(super) const FILES: &str = "files";
/// Beside the tree: what the file system said of them.
pub(super) const STAT: &str = "stat";

/// What one file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHash {
    hash: u128,
    /// `-` a file, `x` an executable one, `l` a link.
    kind: char,
}

impl FileHash {
    /// A link to `target`.
    pub(super) fn link(target: &str) -> FileHash {
        FileHash { hash: xxhash_rust::xxh3::xxh3_128(target.as_bytes()), kind: 'l' }
    }
}

/// The content of a file as it is written.
#[derive(Default)]
pub(super) struct FileHasher(Xxh3);

impl FileHasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn file(&self, executable: bool) -> FileHash {
        FileHash { hash: self.0.digest128(), kind: if executable { 'x' } else { '-' } }
    }
}

/// What a whole tree holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeManifest {
    /// In the order of their names.
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

    /// Reads the tree, all of it.
    pub(super) fn of(tree: &Utf8Path) -> Result<TreeManifest> {
        let mut contents = Vec::new();
        let mut buffer = vec![0; 1 << 17];
        for entry in walk(tree) {
            crate::host::process::check()?;
            let (path, metadata) = entry?;
            let full = tree.join(&path);
            let message = || format!("cannot read {full}");
            let content = if metadata.is_symlink() {
                FileHash::link(full.read_link_utf8().context(Kind::Build, message)?.as_str())
            } else if metadata.is_file() {
                let mut hasher = FileHasher::default();
                let mut file = open_file(&full, Links::Refuse).context(Kind::Build, message)?;
                loop {
                    crate::host::process::check()?;
                    match file.read(&mut buffer).context(Kind::Build, message)? {
                        0 => break,
                        read => hasher.update(&buffer[..read]),
                    }
                }
                hasher.file(metadata.permissions().mode() & 0o100 != 0)
            } else {
                continue;
            };
            contents.push((path, content));
        }
        Ok(TreeManifest::new(contents))
    }

    /// Writes both records into `entry`, whose tree is `tree`, now and whole.
    pub(super) fn record(&self, entry: &Utf8Path, tree: &Utf8Path) -> Result<()> {
        write_atomically(&entry.join(FILES), self.lines.as_bytes())?;
        record_stat(entry, tree)
    }
}

/// Writes anew what the file system says of the tree: its files have got more links, or a new place.
pub(super) fn record_stat(entry: &Utf8Path, tree: &Utf8Path) -> Result<()> {
    write_atomically(&entry.join(STAT), stat(tree)?.as_bytes())
}

/// Notes that the entry was used now; whether that can be written does not matter.
pub(super) fn touch(entry: &Utf8Path) {
    let _ =
        open_file(entry.join(STAT), Links::Refuse).and_then(|record| record.set_modified(SystemTime::now()));
}

/// Does `tree` still hold what was recorded in `entry`? Reads the files only where the file system
/// says that something has happened to them.
pub(super) fn is_intact(entry: &Utf8Path, tree: &Utf8Path) -> Result<bool> {
    let recorded = read_text(entry.join(STAT), Links::Refuse, MAX_SMALL_FILE);
    if recorded.is_ok_and(|recorded| stat(tree).is_ok_and(|now| now == recorded)) {
        return Ok(true);
    }
    if bytes_of(tree)? > MAX_BYTES {
        return Ok(false);
    }
    // By their digests: so the two lists are not in memory at once.
    let Ok(recorded) = digest_file(&entry.join(FILES), Links::Refuse) else { return Ok(false) };
    let is_intact = Sha256::of(TreeManifest::of(tree)?.lines) == recorded;
    if is_intact {
        // In another user's cache this cannot be written: then the files are read each time.
        let _ = record_stat(entry, tree);
    }
    Ok(is_intact)
}

/// How many bytes its files have: a damaged file may have any number.
fn bytes_of(tree: &Utf8Path) -> Result<u64> {
    walk(tree).try_fold(0, |bytes, entry| Ok(entry?.1.len().saturating_add(bytes)))
}

/// One hash over what the file system says of each file of a tree in the cache.
fn stat(tree: &Utf8Path) -> Result<String> {
    let mut hasher = Xxh3::new();
    for entry in walk(tree) {
        let (path, metadata) = entry?;
        hash_stat(&mut hasher, &path, &metadata);
    }
    Ok(format!("{:032x}\n", hasher.digest128()))
}

/// Hashes what the file system says of one file, and returns when that changed last, in nanoseconds since 1970.
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
    // The times of a directory change with the build directories in it.
    let count = if metadata.is_dir() { 1 } else { numbers.len() };
    numbers[..count].iter().for_each(|number| hasher.update(&number.to_le_bytes()));
    nanoseconds(metadata.ctime(), metadata.ctime_nsec())
}

/// Is it part of the source? Build directories are not.
pub(super) fn is_source(entry: &DirEntry) -> bool {
    entry.depth() != 1 || !entry.file_name().to_string_lossy().starts_with(BUILD_DIR_PREFIX)
}

/// Everything in the tree in the order of its name, with its path in the tree.
fn walk(tree: &Utf8Path) -> impl Iterator<Item = Result<(Utf8PathBuf, Metadata)>> {
    let walk = WalkDir::new(tree).sort_by_file_name().into_iter().filter_entry(is_source);
    let tree = tree.to_owned();
    walk.map(move |entry| {
        let message = || format!("cannot read {tree}");
        let entry = entry.context(Kind::Build, message)?;
        let metadata = entry.metadata().context(Kind::Build, message)?;
        let path = entry.path().strip_prefix(&tree).expect("walked from there").to_path_buf();
        let path = Utf8PathBuf::from_path_buf(path)
            .unwrap_or_else(|path| path.to_string_lossy().into_owned().into());
        Ok((path, metadata))
    })
}
