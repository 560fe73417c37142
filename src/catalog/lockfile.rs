//! `kcompile.lock`: what the sources were when they were first used, so that a later change of bytes is
//! noticed. It lies beside the user's configs, where it can be committed, or else in the cache.
//!
//! ```toml
//! [[source]]
//! origin = "https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.1.7.tar.xz"
//! digest = "sha256:…"
//! ```
//!
//! An entry written by hand is as good as one of kcompile's. `unverified = true` marks one whose first
//! use nothing vouched for: it shows a change, and proves no more.

use crate::catalog::text::{read_optional_text, read_toml};
use crate::kernel::SourceDigest;
use crate::util::error::{Error, Result};
use crate::util::fs::{lock_dir, write_atomically};
use crate::util::read::{Links, MAX_TOML};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

/// Its name.
pub const NAME: &str = "kcompile.lock";
const HEADER: &str = "\
# Written by kcompile: what each source was when it was first used. Other bytes are refused until
# `--update-lock` accepts them. Keep this file beside your configs, under version control.
";

/// What is locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFile {
    entries: BTreeMap<String, Locked>,
}

/// A source as it was at its first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Of an archive or a commit: what lies on this machine is not locked.
    pub digest: SourceDigest,
    /// Nothing vouched for it then.
    pub unverified: bool,
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
    /// Reads the text of a lock file; `name` is for errors (exit code 2), which tell line and field.
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
                return Err(Error::usage(format!("{name}: {origin} is there twice")));
            }
        }
        Ok(LockFile { entries })
    }

    /// The text that [`parse`](Self::parse) reads, sorted by origin.
    pub fn render(&self) -> String {
        let source = self.entries.iter().map(|(origin, locked)| Entry {
            origin: origin.clone(),
            digest: locked.digest.to_string(),
            unverified: locked.unverified,
        });
        let document = Document { source: source.collect() };
        format!("{HEADER}\n{}", toml::to_string(&document).expect("plain strings"))
    }

    /// What `origin` was.
    pub fn of(&self, origin: &str) -> Option<&Locked> {
        self.entries.get(origin)
    }

    /// Returns the same with those of `others` that are not there.
    pub fn or(mut self, others: &BTreeMap<String, Locked>) -> LockFile {
        for (origin, locked) in others {
            self.entries.entry(origin.clone()).or_insert_with(|| locked.clone());
        }
        self
    }

    /// Reads the file at `path`; one that is not there locks nothing.
    pub fn read(path: &Utf8Path) -> Result<LockFile> {
        match read_optional_text(path, Links::Refuse, MAX_TOML)? {
            Some(text) => LockFile::parse(path.as_str(), &text),
            None => Ok(LockFile::default()),
        }
    }
}

/// Where the lock file lies: beside the user's configs, else in the cache; in a cache that is shared, each
/// user has one.
pub fn lock_file_path(configs: Option<&Utf8Path>, cache: &Utf8Path, uid: u32) -> Utf8PathBuf {
    let is_shared = || cache.metadata().is_ok_and(|cache| cache.permissions().mode() & 0o022 != 0);
    match configs {
        Some(configs) => configs.join(NAME),
        None if is_shared() => cache.join(format!("kcompile-{uid}.lock")),
        None => cache.join(NAME),
    }
}

/// Writes `entries` into the file at `path`, beside what other runs have written there meanwhile.
/// Entries that are there already are replaced with `replace`, else left alone.
pub fn add(path: &Utf8Path, entries: &[(String, Locked)], replace: bool) -> Result<()> {
    let _writing = lock_dir(path.parent().unwrap_or(Utf8Path::new(".")))?;
    let before = LockFile::read(path)?;
    let mut after = before.clone();
    for (origin, locked) in entries {
        // A verified source takes the place of one that nothing verified, whatever its digest.
        let yields = |old: &Locked| old.unverified && !locked.unverified;
        if replace || after.of(origin).is_none_or(yields) {
            after.entries.insert(origin.clone(), locked.clone());
        }
    }
    match after == before {
        true => Ok(()),
        false => write_atomically(path, after.render().as_bytes()),
    }
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
    fn another_runs_entry_stays_unless_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join(NAME);
        let locked = |digit: &str| Locked {
            digest: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
            unverified: false,
        };
        let add = |digit: &str, replace: bool| {
            super::add(&path, &[("x".to_owned(), locked(digit))], replace).unwrap();
            LockFile::read(&path).unwrap().of("x").unwrap().clone()
        };
        assert_eq!(add("1", false), locked("1"));
        assert_eq!(add("2", false), locked("1"));
        assert_eq!(add("2", true), locked("2"));
    }
}
