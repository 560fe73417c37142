//! Reads the files that a config names, with limits.

use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, open_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::{self, Metadata};
use std::io::Read;

/// The limit of a file. Nothing larger fits into a kernel, and some files of `/proc` are endless.
pub(super) const MAX_FILE: u64 = 4 << 30;

/// The files of one setting, as lines. A single file has its digest alone, and several have a line each.
#[derive(Default)]
pub(super) struct FileDigests {
    lines: Vec<String>,
    pub paths: Vec<Utf8PathBuf>,
    /// The first path that belongs to neither this user nor this group.
    pub foreign: Option<String>,
}

impl FileDigests {
    pub fn add(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Returns the digest of all files, if there are files outside of the source.
    pub fn digest(&self) -> Option<Sha256> {
        match &self.lines[..] {
            [] => None,
            [one] if one.parse::<Sha256>().is_ok() => one.parse().ok(),
            lines => Some(Sha256::of(lines.join("\n"))),
        }
    }
}

/// Returns the error for a relative path.
pub(super) fn relative_path_error(path: &Utf8Path) -> Error {
    Error::usage(format!("`{path}` is a relative path, which make looks for in its build directory"))
        .hint("give the absolute path")
}

pub(super) fn metadata_of(path: &Utf8Path) -> Result<Metadata> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::usage(format!("{path}: no such file or directory")))
        }
        metadata => metadata.context(Kind::Usage, || format!("cannot read {path}")),
    }
}

pub(super) fn digest(path: &Utf8Path) -> Result<Sha256> {
    Sha256::of_reader(open(path)?).context(Kind::Usage, || format!("cannot read {path}"))
}

/// Opens a regular file that is not larger than [`MAX_FILE`].
pub(super) fn open(path: &Utf8Path) -> Result<impl Read + use<>> {
    let metadata = metadata_of(path)?;
    if metadata.is_dir() {
        return Err(Error::usage(format!("{path} is not a file")));
    }
    if !metadata.is_file() {
        return Err(Error::usage(format!("{path} is neither a file nor a directory")));
    }
    if metadata.len() > MAX_FILE {
        return Err(Error::usage(format!("{path} is larger than {} GiB", MAX_FILE >> 30)));
    }
    let file = open_file(path, Links::Follow).context(Kind::Usage, || format!("cannot read {path}"))?;
    Ok(file.take(MAX_FILE))
}
