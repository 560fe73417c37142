//! Blobs and small files of a layout that anybody may have written: links and special files are refused, sizes are
//! bounded, and digests are checked.

use crate::host::process::Interruptible;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{self, Links, MAX_JSON, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::Descriptor;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read};

/// The digest of a descriptor; `of` is the file that it stands in.
pub(super) fn check_descriptor(of: &Utf8Path, descriptor: &Descriptor) -> Result<Sha256> {
    let text = descriptor.digest().to_string();
    match text.strip_prefix("sha256:").map(str::parse::<Sha256>) {
        Some(Ok(digest)) => Ok(digest),
        _ => Err(Error::fetch(format!("{of}: `{}` is not a sha256 digest", text.escape_debug()))),
    }
}

/// A blob of JSON, and where it lies: its size and digest are as the descriptor says.
pub(super) fn read_blob<T: DeserializeOwned>(
    layout: &Utf8Path,
    descriptor: &Descriptor,
) -> Result<(Utf8PathBuf, T)> {
    let (path, bytes) = read_bytes(layout, descriptor)?;
    let value = parse(&path, &bytes)?;
    Ok((path, value))
}

/// The bytes of a small blob, and where it lies: its size and digest are as the descriptor says.
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

/// Opens a blob of any kind, which has the size that the descriptor says, for its digest to be checked; with where
/// it lies.
pub(super) fn open_blob(layout: &Utf8Path, descriptor: &Descriptor) -> Result<(Utf8PathBuf, Sha256, File)> {
    let digest = check_descriptor(layout, descriptor)?;
    let path = blob_path(layout, digest);
    let (file, size) = open_file(&path)?;
    match size == descriptor.size() {
        true => Ok((path, digest, file)),
        false => Err(size_mismatch(&path, descriptor.size(), size)),
    }
}

/// A blob of any kind: no more of it is read than its descriptor says.
pub(super) fn check_blob(layout: &Utf8Path, descriptor: &Descriptor) -> Result<()> {
    let (path, digest, file) = open_blob(layout, descriptor)?;
    let found = Sha256::of_reader(Interruptible(file.take(descriptor.size())));
    check_digest(&path, digest, found.context(Kind::Fetch, || format!("cannot read {path}"))?)
}

pub(super) fn blob_path(layout: &Utf8Path, digest: Sha256) -> Utf8PathBuf {
    layout.join("blobs/sha256").join(digest.to_string())
}

pub(super) fn size_mismatch(path: &Utf8Path, expected: u64, found: u64) -> Error {
    Error::fetch(format!("{path}: {found} bytes, where its descriptor says {expected}")).mark_damaged()
}

pub(super) fn check_digest(path: &Utf8Path, expected: Sha256, found: Sha256) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => {
            let message = format!("{path}: checksum mismatch: expected {expected}, found {found}");
            Err(Error::fetch(message).mark_damaged())
        }
    }
}

/// Opens a regular file, and tells its size.
pub(super) fn open_file(path: &Utf8Path) -> Result<(File, u64)> {
    let opened = read::open_file(path, Links::Refuse).and_then(|file| {
        let size = file.metadata()?.len();
        Ok((file, size))
    });
    opened.map_err(|error| read_error(path, error))
}

fn read_error(path: &Utf8Path, error: io::Error) -> Error {
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let message = Error::fetch(format!("cannot read {path}")).caused_by(error);
    if is_missing { message.mark_damaged() } else { message }
}

/// The bytes of a small file; a link is not followed.
///
/// Errors (exit code 3): it cannot be read, is no ordinary file, or has more than 4 MiB.
pub(crate) fn read_bounded(path: &Utf8Path) -> Result<Vec<u8>> {
    read_file(path, Links::Refuse, MAX_JSON).map_err(|error| read_error(path, error))
}

/// What a file of JSON says.
///
/// Errors (exit code 3): those of [`read_bounded`]; it says something else.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Utf8Path) -> Result<T> {
    // No digest tells whether these are the bytes that were written.
    parse(path, &read_bounded(path)?).map_err(Error::mark_damaged)
}

pub(super) fn parse<T: DeserializeOwned>(path: &Utf8Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .context(Kind::Fetch, || format!("{path} is not what an OCI layout has there"))
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
