//! `kcompile.lock`: the digests of sources at their first use, to notice a later change. It lies beside the
//! user's configs, where it can be committed, or else in the cache.
//!
//! ```toml
//! [[source]]
//! origin = "https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.1.7.tar.xz"
//! digest = "sha256:…"
//! ```
//!
//! Entries may be written by hand. `unverified = true` marks a source that nothing authenticated at its first
//! use. Such an entry shows a change, but authenticates nothing.

use crate::catalog::text::{read_optional_text, read_toml};
use crate::kernel::SourceDigest;
use crate::util::error::{Error, Result};
use crate::util::fs::{lock_dir, write_atomically};
use crate::util::read::{Links, MAX_TOML};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

pub const NAME: &str = "kcompile.lock";
const HEADER: &str = "\
# Written by kcompile: what each source was when it was first used. Other bytes are refused until
# `--update-lock` accepts them. Keep this file beside your configs, under version control.
";

/// The locked sources by their origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFile {
    entries: BTreeMap<String, Locked>,
}

/// A source at its first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Of an archive or a commit. Local directories are not locked.
    pub digest: SourceDigest,
    /// Nothing authenticated it then.
    pub unverified: bool,
}

/// What to do with entries that the lock file has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Keep,
    Replace,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "source", default)]
    source: Vec<Entry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    origin: String,
    digest: String,
    #[serde(rename = "unverified", default, skip_serializing_if = "std::ops::Not::not")]
    unverified: bool,
}

impl LockFile {
    /// Parses a lock file. `name` is for errors (exit code 2), which have line and field.
    pub fn parse(name: &str, text: &str) -> Result<LockFile> {
        let document: Document = read_toml(name, text)?;
        let mut entries = BTreeMap::new();
        for Entry { origin, digest, unverified } in document.source {
            let Ok(digest @ (SourceDigest::Sha256(_) | SourceDigest::Commit(_))) = digest.parse() else {
                return Err(Error::usage(format!(
                    "{name}: the digest of {origin} is neither sha256:… nor commit:…, but `{digest}`"
                )));
            };
            if entries.insert(origin.clone(), Locked { digest, unverified }).is_some() {
                return Err(Error::usage(format!("{name}: there are two entries for {origin}")));
            }
        }
        Ok(LockFile { entries })
    }

    /// Returns the text for [`parse`](Self::parse), sorted by origin.
    pub fn render(&self) -> String {
        let source = self.entries.iter().map(|(origin, locked)| Entry {
            origin: origin.clone(),
            digest: locked.digest.to_string(),
            unverified: locked.unverified,
        });
        let document = Document { source: source.collect() };
        format!("{HEADER}\n{}", toml::to_string(&document).expect("plain strings"))
    }

    /// Returns the entry of `origin`.
    pub fn of(&self, origin: &str) -> Option<&Locked> {
        self.entries.get(origin)
    }

    /// Returns the origins of all entries, sorted.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Returns the entries without that of `origin`.
    pub fn without(mut self, origin: &str) -> LockFile {
        self.entries.remove(origin);
        self
    }

    /// Adds the entries of `others` for new origins.
    pub fn or(mut self, others: &BTreeMap<String, Locked>) -> LockFile {
        for (origin, locked) in others {
            self.entries.entry(origin.clone()).or_insert_with(|| locked.clone());
        }
        self
    }

    /// Reads the file at `path`. A missing file is an empty one.
    pub fn read(path: &Utf8Path) -> Result<LockFile> {
        match read_optional_text(path, Links::Refuse, MAX_TOML)? {
            Some(text) => LockFile::parse(path.as_str(), &text),
            None => Ok(LockFile::default()),
        }
    }
}

/// Returns the path of the lock file: beside the user's configs, else in the cache. Each user of
/// a shared cache has one.
pub fn lock_file_path(configs: Option<&Utf8Path>, cache: &Utf8Path, uid: u32) -> Utf8PathBuf {
    let is_shared = || cache.metadata().is_ok_and(|cache| cache.permissions().mode() & 0o022 != 0);
    match configs {
        Some(configs) => configs.join(NAME),
        None if is_shared() => cache.join(format!("kcompile-{uid}.lock")),
        None => cache.join(NAME),
    }
}

/// Adds an entry to the file at `path`, and keeps what other runs have added.
pub fn add(path: &Utf8Path, origin: String, locked: Locked, existing: Existing) -> Result<()> {
    let _writing = lock_dir(path.parent().unwrap_or(Utf8Path::new(".")))?;
    let mut lock = LockFile::read(path)?;
    // A verified source replaces an unverified entry, whatever its digest.
    let is_replaced = |old: &Locked| existing == Existing::Replace || (old.unverified && !locked.unverified);
    if lock.of(&origin).is_some_and(|old| *old == locked || !is_replaced(old)) {
        return Ok(());
    }
    lock.entries.insert(origin, locked);
    write_atomically(path, lock.render().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_reads_what_it_writes() {
        let mut lock = LockFile::default();
        let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        lock.entries.insert("x\"y\n#z".into(), Locked { digest, unverified: true });
        let commit = format!("commit:{}", "0".repeat(40)).parse().unwrap();
        lock.entries.insert("https://x#y".into(), Locked { digest: commit, unverified: false });
        assert_eq!(LockFile::parse("x", &lock.render()).unwrap(), lock);
        assert_eq!(LockFile::parse("x", "").unwrap(), LockFile::default());
    }

    #[test]
    fn a_mistake_is_named() {
        let error = |text: &str| LockFile::parse("kcompile.lock", text).unwrap_err().to_string();
        assert!(error("[[source]]\norigin = 1\n").starts_with("kcompile.lock: TOML parse error at line 2"));
        assert!(error("[[source]]\norigin = \"x\"\ndigest = \"md5:1\"\n").contains("`md5:1`"));
        assert!(error("[[source]]\norigin = \"x\"\nhash = \"1\"\n").contains("unknown field `hash`"));
    }

    #[test]
    fn an_entry_stays_unless_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join(NAME);
        let locked = |digit: &str| Locked {
            digest: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
            unverified: false,
        };
        let add = |digit: &str, existing: Existing| {
            super::add(&path, "x".to_owned(), locked(digit), existing).unwrap();
            LockFile::read(&path).unwrap().of("x").unwrap().clone()
        };
        assert_eq!(add("1", Existing::Keep), locked("1"));
        assert_eq!(add("2", Existing::Keep), locked("1"));
        assert_eq!(add("2", Existing::Replace), locked("2"));
    }
}
