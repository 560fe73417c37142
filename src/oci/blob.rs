//! Reads blobs and small files of untrusted layouts. Links and special files are refused, sizes
//! have limits, and digests are checked.

use super::archive;
use crate::host::process::Interruptible;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{self, Links, MAX_JSON, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageManifest};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read};

/// Returns the digest of a descriptor, which is part of the file `of`.
pub(super) fn check_descriptor(of: &Utf8Path, descriptor: &Descriptor) -> Result<Sha256> {
    let text = descriptor.digest().to_string();
    match text.strip_prefix("sha256:").map(str::parse::<Sha256>) {
        Some(Ok(digest)) => Ok(digest),
        _ => Err(Error::fetch(format!("{of}: `{}` is not a sha256 digest", text.escape_debug()))),
    }
}

/// Reads a JSON blob, checks its size and digest, and returns its path too.
pub(super) fn read_blob<T: DeserializeOwned>(
    layout: &Utf8Path,
    descriptor: &Descriptor,
) -> Result<(Utf8PathBuf, T)> {
    let (path, bytes) = read_bytes(layout, descriptor)?;
    let value = parse(&path, &bytes)?;
    Ok((path, value))
}

/// Reads a small blob, checks its size and digest, and returns its path too.
pub(super) fn read_bytes(layout: &Utf8Path, descriptor: &Descriptor) -> Result<(Utf8PathBuf, Vec<u8>)> {
    let digest = check_descriptor(layout, descriptor)?;
    let path = blob_path(layout, digest);
    let bytes = read_bounded(&path)?;
    if bytes.len() as u64 != descriptor.size() {
        return Err(size_mismatch(&path, descriptor.size(), bytes.len() as u64));
    }
    check_digest(&path, digest, Sha256::of(&bytes))?;
    Ok((path, bytes))
}

/// Opens a blob and checks its size. Returns its path and the digest too, which the caller has to check.
pub(super) fn open_blob(layout: &Utf8Path, descriptor: &Descriptor) -> Result<(Utf8PathBuf, Sha256, File)> {
    let digest = check_descriptor(layout, descriptor)?;
    let path = blob_path(layout, digest);
    let (file, size) = open_file(&path)?;
    if size != descriptor.size() {
        return Err(size_mismatch(&path, descriptor.size(), size));
    }
    Ok((path, digest, file))
}

/// Checks the config and the layers of a manifest. Returns their size.
pub(super) fn check_blobs(layout: &Utf8Path, manifest: &ImageManifest) -> Result<u64> {
    let blobs = std::iter::once(manifest.config()).chain(manifest.layers());
    blobs.map(|blob| check_blob(layout, blob)).sum()
}

/// Checks the size and the digest of a blob. Returns its size.
pub(super) fn check_blob(layout: &Utf8Path, descriptor: &Descriptor) -> Result<u64> {
    let (path, digest, file) = open_blob(layout, descriptor)?;
    let found = Sha256::of_reader(Interruptible(file.take(descriptor.size())));
    check_digest(&path, digest, found.context(Kind::Fetch, || format!("cannot read {path}"))?)?;
    Ok(descriptor.size())
}

pub(super) fn blob_path(layout: &Utf8Path, digest: Sha256) -> Utf8PathBuf {
    layout.join("blobs/sha256").join(digest.to_string())
}

pub(super) fn size_mismatch(path: &Utf8Path, expected: u64, found: u64) -> Error {
    Error::fetch(format!("{path}: size mismatch: expected {expected} bytes, found {found}")).mark_damaged()
}

pub(super) fn check_digest(path: &Utf8Path, expected: Sha256, found: Sha256) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let message = format!("{path}: checksum mismatch: expected {expected}, found {found}");
    Err(Error::fetch(message).mark_damaged())
}

/// Opens a regular file, which may be in an archive, and returns its size too. The caller reads no more than that.
pub(super) fn open_file(path: &Utf8Path) -> Result<(File, u64)> {
    let opened = match archive::split(path) {
        Some((archive, name)) => archive::open_member(archive, name.as_str()),
        None => read::open_file(path, Links::Refuse).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        }),
    };
    opened.map_err(|error| read_error(path, error))
}

fn read_error(path: &Utf8Path, error: io::Error) -> Error {
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let error = Error::fetch(format!("cannot read {path}")).caused_by(error);
    if is_missing { error.mark_damaged() } else { error }
}

/// Reads a small file. A link is not followed.
///
/// # Errors
///
/// Exit code 3 if the file cannot be read, is not a regular file, or has more than 4 MiB.
pub(crate) fn read_bounded(path: &Utf8Path) -> Result<Vec<u8>> {
    let read = match archive::split(path) {
        Some((archive, name)) => archive::read_member(archive, name.as_str(), MAX_JSON),
        None => read_file(path, Links::Refuse, MAX_JSON),
    };
    read.map_err(|error| read_error(path, error))
}

/// Reads a JSON file.
///
/// # Errors
///
/// Exit code 3 in the cases of [`read_bounded`], and if the JSON is not of this type.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Utf8Path) -> Result<T> {
    // No digest covers this file, so it may be damaged.
    parse(path, &read_bounded(path)?).map_err(Error::mark_damaged)
}

pub(super) fn parse<T: DeserializeOwned>(path: &Utf8Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).context(Kind::Fetch, || {
        format!("{path} does not have the content that the OCI image specification requires")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_a_link_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| Utf8Path::from_path(dir.path()).unwrap().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe").as_std_path(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(open_file(&at("file")).unwrap().1, 1);
        assert!(open_file(&at("link")).is_err());
        // Opening a pipe for reading would wait for somebody who writes.
        assert!(
            open_file(&at("pipe")).unwrap_err().to_string().ends_with("not a regular file, but a named pipe")
        );
    }
}
