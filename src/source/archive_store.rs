//! Archives that are kept in the cache as they were sent, with what proves them: a tree that was damaged
//! or removed comes back without a network, and a bundle is made of them.
//!
//! ```text
//! archives/<sha256>        the bytes
//! archives/<sha256>.zst    what is in them, compressed so that it unpacks in a tenth of the time
//! archives/<sha256>.json   what they are, written last
//! ```

use crate::cache::Cache;
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::{remove_tree, write_atomically};
use crate::util::openpgp::Signer;
use crate::util::read::{Links, MAX_JSON, open_file, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

/// What an archive is, and what came with it. Fields that a newer kcompile wrote stay in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredArchive {
    /// As in a plan: kernel.org's URL, `apt:PACKAGE=VERSION`.
    pub origin: String,
    /// Of the archive. It is hashed again whenever it is read.
    pub sha256: Sha256,
    /// Of kernel.org's releases.
    #[serde(rename = "proofs")]
    pub proofs: Proofs,
    /// Of the copy that unpacks quickly, where there is one; this kcompile made it of what had been verified.
    #[serde(rename = "zstd", default, skip_serializing_if = "Option::is_none")]
    pub zstd: Option<Sha256>,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Fields of a record that this version does not know.
pub(super) type Unknown = serde_json::Map<String, serde_json::Value>;

/// What a server has beside a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proofs {
    /// The text of `linux-<version>.tar.sign`.
    #[serde(rename = "signature")]
    pub signature: Option<String>,
    /// What `sha256sums.asc` said when it was asked.
    #[serde(rename = "sums", default)]
    pub checksums: ChecksumList,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What a server's list of checksums says of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ChecksumList {
    /// No server was asked in this run, and none had a list before.
    #[default]
    #[serde(rename = "no-list")]
    NotAsked,
    /// The server was asked in this run, and has no list.
    #[serde(rename = "no-list", skip_deserializing)]
    NoList,
    /// It has one, without this release.
    #[serde(rename = "missing")]
    Missing,
    /// This digest.
    #[serde(rename = "listed")]
    Listed {
        /// Of the compressed archive.
        sha256: Sha256,
        /// Who signed the list; `None`: nobody.
        signer: Option<Signer>,
    },
    /// Written by a newer kcompile.
    #[serde(untagged)]
    Unknown(serde_json::Value),
}

fn dir(cache: &Cache) -> Utf8PathBuf {
    cache.root.join("archives")
}

/// Where the bytes of `sha256` lie or will lie.
pub(super) fn path(cache: &Cache, sha256: Sha256) -> Utf8PathBuf {
    dir(cache).join(sha256.to_string())
}

/// Where the copy that unpacks quickly lies or will lie.
pub(super) fn copy_path(cache: &Cache, sha256: Sha256) -> Utf8PathBuf {
    dir(cache).join(format!("{sha256}.zst"))
}

fn record(cache: &Cache, sha256: Sha256) -> Utf8PathBuf {
    dir(cache).join(format!("{sha256}.json"))
}

impl Proofs {
    /// Returns whether they can prove an archive, by a signature over it or over a list with its digest.
    pub fn can_authenticate(&self) -> bool {
        self.signature.is_some() || matches!(self.checksums, ChecksumList::Listed { signer: Some(_), .. })
    }
}

/// Every archive that is there.
pub(super) fn all(cache: &Cache) -> Result<Vec<StoredArchive>> {
    let dir = dir(cache);
    let entries = dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))?;
    let records = entries.flatten().filter(|entry| entry.file_name().ends_with(".json"));
    Ok(records.filter_map(|entry| read(cache, entry.path())).collect())
}

/// The archive of this digest, if it is there.
pub(super) fn find(cache: &Cache, sha256: Sha256) -> Option<StoredArchive> {
    read(cache, &record(cache, sha256))
}

/// A record that cannot be read, or whose bytes are gone, is none.
fn read(cache: &Cache, record: &Utf8Path) -> Option<StoredArchive> {
    let archive: StoredArchive =
        serde_json::from_slice(&read_file(record, Links::Refuse, MAX_JSON).ok()?).ok()?;
    path(cache, archive.sha256).is_file().then_some(archive)
}

/// Keeps the file at `from`, and the one at `copy`, which are moved: their bytes have been checked.
pub(super) fn store(
    cache: &Cache,
    from: &Utf8Path,
    copy: Option<&Utf8Path>,
    archive: &StoredArchive,
) -> Result<()> {
    move_into_store(from, &path(cache, archive.sha256))?;
    if let Some(copy) = copy {
        move_into_store(copy, &copy_path(cache, archive.sha256))?;
    }
    write_record(cache, archive)
}

/// Forgets the copy, which is not what it should be.
pub(super) fn remove_copy(cache: &Cache, archive: &StoredArchive) -> Result<()> {
    write_record(cache, &StoredArchive { zstd: None, ..archive.clone() })?;
    remove_tree(&copy_path(cache, archive.sha256))
}

/// Notes what a server has beside the archive `sha256`, which is there. Whether there is a copy stays as it is.
pub(super) fn record_proofs(cache: &Cache, sha256: Sha256, proofs: &Proofs) -> Result<()> {
    match find(cache, sha256) {
        Some(archive) => write_record(cache, &StoredArchive { proofs: proofs.clone(), ..archive }),
        None => Ok(()),
    }
}

fn write_record(cache: &Cache, archive: &StoredArchive) -> Result<()> {
    let text = serde_json::to_vec_pretty(archive).expect("plain values");
    write_atomically(&record(cache, archive.sha256), &text)
}

fn move_into_store(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    let message = || format!("cannot keep {to}");
    let file = open_file(from, Links::Refuse).context(Kind::Build, message)?;
    file.set_permissions(Permissions::from_mode(0o644)).context(Kind::Build, message)?;
    file.sync_all().context(Kind::Build, message)?;
    fs::rename(from, to).context(Kind::Build, message)
}

/// Removes an archive that is not what its name says.
pub(super) fn remove(cache: &Cache, sha256: Sha256) -> Result<()> {
    remove_tree(&record(cache, sha256))?;
    remove_tree(&copy_path(cache, sha256))?;
    remove_tree(&path(cache, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_wrote_stays_in_a_record() {
        let sha256 = Sha256::of("x");
        for checksums in [r#""signed-twice""#, r#"{"merkle":{"root":"x"}}"#, r#""no-list""#] {
            let proofs = format!(r#"{{"signature":null,"sums":{checksums},"log":[1]}}"#);
            let text = format!(r#"{{"origin":"https://x","sha256":"{sha256}","proofs":{proofs},"size":7}}"#);
            let archive: StoredArchive = serde_json::from_str(&text).unwrap();
            let written = serde_json::to_value(&archive).unwrap();
            assert_eq!(written, serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }
    }
}
