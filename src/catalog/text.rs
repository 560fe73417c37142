//! Reads text files that people edit.

use crate::kernel::binary::ikconfig;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, MAX_CONFIG, read_file};
pub use crate::util::toml::read_toml;
use camino::Utf8Path;
use std::io;

/// Reads a text file like [`read_text`]. Returns `None` if it does not exist.
pub fn read_optional_text(path: &Utf8Path, links: Links, limit: u64) -> Result<Option<String>> {
    match read_file(path, links, limit) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => text_of(path, read).map(Some),
    }
}

/// Reads a user's text file, which may be a link. It must be UTF-8 without NUL bytes,
/// and not larger than `limit`.
pub fn read_text(path: &Utf8Path, limit: u64) -> Result<String> {
    text_of(path, read_file(path, Links::Follow, limit))
}

/// Reads a `.config`, which may be compressed by gzip, as `/proc/config.gz` is.
///
/// # Errors
///
/// Exit code 2: the file cannot be read, is no text, or has more than 2 MiB, also when decompressed.
pub fn read_config(path: &Utf8Path) -> Result<String> {
    let read = read_file(path, Links::Follow, MAX_CONFIG);
    text_of(path, read.and_then(|bytes| if is_gzip(&bytes) { decompress(&bytes) } else { Ok(bytes) }))
}

/// Returns whether `bytes` begin as a gzip file does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    ikconfig::decompress(bytes, MAX_CONFIG).map(String::into_bytes)
}

fn text_of(path: &Utf8Path, read: io::Result<Vec<u8>>) -> Result<String> {
    match String::from_utf8(read.context(Kind::Usage, || format!("cannot read {path}"))?) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::usage(format!("{path}: not a text file"))),
    }
}
