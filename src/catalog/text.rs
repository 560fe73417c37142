//! Reads text files and TOML that people edit.

use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, read_file};
use camino::Utf8Path;
use std::io;

/// Parses the text of the TOML file `name`.
///
/// # Errors
///
/// Exit code 2, with file, line and field: the text is not valid.
pub fn read_toml<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| Error::usage(format!("{name}: {}", join_lines(&error.to_string()))))
}

/// Joins the lines of a TOML error, which draw the place. Keeps the position, the field and the message.
fn join_lines(message: &str) -> String {
    let mut parts = Vec::new();
    for line in message.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once('|') {
            Some((number, drawn)) if number.trim().bytes().all(|b| b.is_ascii_digit()) => {
                let field = drawn.split_once('=').map(|(field, _)| field.trim());
                parts.extend(field.filter(|field| field.bytes().all(is_key_byte)));
            }
            _ => parts.push(line),
        }
    }
    parts.join(": ")
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Reads a text file like [`read_text`]. Returns `None` if it does not exist.
pub fn read_optional_text(path: &Utf8Path, links: Links, limit: u64) -> Result<Option<String>> {
    match read_file(path, links, limit) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => text_of(path, read).map(Some),
    }
}

/// Reads a user's text file, which may be a link. It must be UTF-8 without NUL bytes, and not larger than
/// `limit`.
pub fn read_text(path: &Utf8Path, limit: u64) -> Result<String> {
    text_of(path, read_file(path, Links::Follow, limit))
}

fn text_of(path: &Utf8Path, read: io::Result<Vec<u8>>) -> Result<String> {
    match String::from_utf8(read.context(Kind::Usage, || format!("cannot read {path}"))?) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::usage(format!("{path}: not a text file"))),
    }
}
