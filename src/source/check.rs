//! Looks for damaged trees and archives in the cache.

use super::{archive_store, tree_manifest, tree_store};
use crate::cache::Cache;
use crate::util::error::Result;
use crate::util::fs::digest_file;
use crate::util::read::Links;
use camino::Utf8Path;

/// Returns the version of the tree with this key, if the cache has it.
pub fn cached_version(cache: &Cache, key: &str) -> Option<String> {
    Some(tree_store::open(cache, key)?.identity.version.to_string())
}

/// Returns the name of an archive, such as `linux-6.1.7.tar.xz`, by its record.
pub fn cached_archive_name(cache: &Cache, path: &Utf8Path) -> Option<String> {
    let record = archive_store::find(cache, path.file_stem()?.parse().ok()?)?;
    record.origin.rsplit('/').next().map(str::to_owned)
}

/// Returns what is wrong with the tree entry at `path`.
pub fn check_tree_entry(cache: &Cache, path: &Utf8Path) -> Result<Option<&'static str>> {
    match tree_store::open(cache, path.file_name().unwrap_or_default()) {
        None => Ok(Some("incomplete source tree")),
        Some(tree) => Ok((!tree_manifest::is_intact(path, &tree.path)?).then_some("damaged source tree")),
    }
}

/// Returns what is wrong with a file in `archives/`.
pub fn check_archive_entry(cache: &Cache, path: &Utf8Path) -> Result<Option<&'static str>> {
    let digest = path.file_stem().unwrap_or_default().parse().ok();
    let record = digest.and_then(|digest| archive_store::find(cache, digest));
    let Some((record, digest)) = record.zip(digest) else {
        return Ok(Some("archive without its record, or record without its archive"));
    };
    let is_damaged = match path.extension() {
        None => !digest_file(path, Links::Refuse).is_ok_and(|found| found == digest),
        Some("zst") => digest_file(path, Links::Refuse).ok().is_none_or(|found| record.zstd != Some(found)),
        Some(_) => false,
    };
    if is_damaged && path.extension().is_some() {
        archive_store::remove_copy(cache, &record)?;
    }
    Ok(is_damaged.then_some("damaged archive"))
}
