//! Entries of the cache with an unpacked toolchain.

use crate::cache::Cache;
use crate::report::Reporter;
use crate::source;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::fs::{remove_tree, write_atomically};
use crate::util::read::{Links, MAX_SMALL_FILE, read_text};
use camino::{Utf8Path, Utf8PathBuf};

/// The directory of an entry with the files of the toolchain.
pub(super) const ROOT: &str = "root";
/// The file of an entry with a digest of its metadata. It is written last.
const STATE: &str = "state";
/// The file of an entry with the toolchain as the last run named it. Each use writes it.
const SPEC: &str = "spec";

/// Returns the entry of a toolchain with this digest.
pub(super) fn entry_of(cache: &Cache, digest: Sha256) -> Utf8PathBuf {
    cache.root.join("toolchains").join(digest.to_string())
}

/// Finishes a new entry, whose files are written.
pub(super) fn finish(entry: &Utf8Path) -> Result<()> {
    write_atomically(&entry.join(STATE), source::tree_stat(&entry.join(ROOT))?.as_bytes())
}

/// Records that a run uses the entry, if it can be written.
pub(super) fn record_use(entry: &Utf8Path, spec: &str) {
    let _ = write_atomically(&entry.join(SPEC), format!("{spec}\n").as_bytes());
}

/// Returns the toolchain of an entry as the last run named it.
pub fn spec_of(entry: &Utf8Path) -> Option<String> {
    let text = read_text(entry.join(SPEC), Links::RefuseAnywhere, MAX_SMALL_FILE).ok()?;
    Some(text.trim_end().to_owned())
}

/// Returns whether the cache has a toolchain. Removes one that is damaged. The caller holds its lock.
pub(super) fn check(entry: &Utf8Path, cache: &Cache, reporter: &Reporter) -> Result<bool> {
    if !entry.exists() {
        return Ok(false);
    }
    if let Some(owner) = cache.foreign_owner(entry) {
        return Err(Error::usage(format!("{entry} belongs to another user ({owner})"))
            .hint("choose a cache of your own with --cache-dir DIR"));
    }
    let Some(what) = problem(entry) else { return Ok(true) };
    reporter.note(&format!("{entry}: {what}; unpacking it again"));
    remove_tree(entry)?;
    Ok(false)
}

/// Returns the name of the lock of an unpacked toolchain.
pub(crate) fn lock_name(entry: &Utf8Path) -> String {
    format!("toolchain-{}", entry.file_name().unwrap_or_default())
}

/// Returns what is wrong with an unpacked toolchain.
pub(crate) fn problem(entry: &Utf8Path) -> Option<&'static str> {
    let Ok(recorded) = read_text(entry.join(STATE), Links::RefuseAnywhere, MAX_SMALL_FILE) else {
        return Some("incomplete toolchain");
    };
    let is_unchanged = source::tree_stat(&entry.join(ROOT)).is_ok_and(|now| now == recorded);
    (!is_unchanged).then_some("toolchain that was changed")
}
