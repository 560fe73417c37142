//! Stores archives in the cache as they were sent, with their signatures and checksums. They restore a
//! damaged or removed tree without a network, and go into bundles.
//!
//! ```text
//! archives/<sha256>        the archive
//! archives/<sha256>.zst    a copy that unpacks in a tenth of the time
//! archives/<sha256>.json   the record of both, written last
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

/// The record of an archive. Fields from a newer kcompile stay in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredArchive {
    /// As in a plan: kernel.org's URL, `apt:PACKAGE=VERSION`.
    pub origin: String,
    /// The digest of the archive, which is hashed again whenever it is read.
    pub sha256: Sha256,
    /// For kernel.org's releases.
    pub proofs: Proofs,
    /// The digest of the fast copy, which was made from a verified archive.
    #[serde(rename = "zstd", default, skip_serializing_if = "Option::is_none")]
    pub zstd: Option<Sha256>,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Fields of a record that this version does not know.
pub(super) type Unknown = serde_json::Map<String, serde_json::Value>;

/// The signature and checksum of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proofs {
    /// The text of `linux-<version>.tar.sign`.
    pub signature: Option<String>,
    /// The content of `sha256sums.asc` at the last request.
    #[serde(rename = "sums", default)]
    pub checksums: ChecksumList,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The checksum of a release in the server's list.
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
    /// The list does not have this release.
    #[serde(rename = "missing")]
    Missing,
    /// The digest of the compressed archive, and the signer of the list. An unsigned list has no signer.
    #[serde(rename = "listed")]
    Listed { sha256: Sha256, signer: Option<Signer> },
    /// Written by a newer kcompile.
    #[serde(untagged)]
    Unknown(serde_json::Value),
}

fn dir(cache: &Cache) -> Utf8PathBuf {
    cache.root.join("archives")
}

/// Returns the path of the archive `sha256`, which may not exist yet.
pub(super) fn path(cache: &Cache, sha256: Sha256) -> Utf8PathBuf {
    dir(cache).join(sha256.to_string())
}

/// Returns the path of the fast copy, which may not exist yet.
pub(super) fn copy_path(cache: &Cache, sha256: Sha256) -> Utf8PathBuf {
    dir(cache).join(format!("{sha256}.zst"))
}

fn record(cache: &Cache, sha256: Sha256) -> Utf8PathBuf {
    dir(cache).join(format!("{sha256}.json"))
}

impl Proofs {
    /// Returns whether a signature over the archive or over a list with its digest can authenticate it.
    pub fn can_authenticate(&self) -> bool {
        self.signature.is_some() || matches!(self.checksums, ChecksumList::Listed { signer: Some(_), .. })
    }
}

pub(super) fn all(cache: &Cache) -> Result<Vec<StoredArchive>> {
    let dir = dir(cache);
    let entries = dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))?;
    let records = entries.flatten().filter(|entry| entry.file_name().ends_with(".json"));
    Ok(records.filter_map(|entry| read(cache, entry.path())).collect())
}

/// Returns the record of the archive `sha256`, if it is there.
pub(super) fn find(cache: &Cache, sha256: Sha256) -> Option<StoredArchive> {
    read(cache, &record(cache, sha256))
}

/// Reads a record. An invalid one, and one without its archive, are ignored.
fn read(cache: &Cache, record: &Utf8Path) -> Option<StoredArchive> {
    let archive: StoredArchive =
        serde_json::from_slice(&read_file(record, Links::Refuse, MAX_JSON).ok()?).ok()?;
    path(cache, archive.sha256).is_file().then_some(archive)
}

/// Moves the verified archive at `from` and its fast copy at `copy` into the store.
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

/// Removes the fast copy, which is damaged.
pub(super) fn remove_copy(cache: &Cache, archive: &StoredArchive) -> Result<()> {
    write_record(cache, &StoredArchive { zstd: None, ..archive.clone() })?;
    remove_tree(&copy_path(cache, archive.sha256))
}

/// Updates the proofs in the record of the archive `sha256`.
pub(super) fn record_proofs(cache: &Cache, sha256: Sha256, proofs: &Proofs) -> Result<()> {
    find(cache, sha256)
        .map_or(Ok(()), |archive| write_record(cache, &StoredArchive { proofs: proofs.clone(), ..archive }))
}

fn write_record(cache: &Cache, archive: &StoredArchive) -> Result<()> {
    let text = serde_json::to_vec_pretty(archive).expect("plain values");
    write_atomically(&record(cache, archive.sha256), &text)
}

fn move_into_store(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    let move_file = || {
        let file = open_file(from, Links::Refuse)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(from, to)
    };
    move_file().context(Kind::Build, || format!("cannot store {to}"))
}

/// Removes an archive with its record and its copy.
pub(super) fn remove(cache: &Cache, sha256: Sha256) -> Result<()> {
    remove_tree(&record(cache, sha256))?;
    remove_tree(&copy_path(cache, sha256))?;
    remove_tree(&path(cache, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_stay_in_a_record() {
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
