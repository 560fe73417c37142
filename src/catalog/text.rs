//! Reads text files and TOML that people edit.

use crate::kernel::binary::ikconfig;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, MAX_CONFIG, read_file};
use crate::util::text::nearest;
use camino::Utf8Path;
use std::io;

/// Parses the text of the TOML file `name`.
///
/// # Errors
///
/// Exit code 2, with file, line and field: the text is not valid.
pub fn read_toml<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let message = join_lines(&error.to_string());
        let error = Error::usage(format!("{name}: {message}"));
        match suggestion(&message) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// Returns a hint for ``unknown field `x`, expected one of `a`, `b` ``, and for an unknown variant.
fn suggestion(message: &str) -> Option<String> {
    let (_, unknown) = message.split_once(": unknown ")?;
    // The names are between backquotes, and the unknown one is first.
    let mut names = unknown.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    Some(format!("did you mean `{}`?", nearest(unknown, names)?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        output: Option<String>,
        kind: Option<Kind>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Tested,
        Untested,
    }

    #[test]
    fn a_misspelt_key_or_value_finds_its_neighbour() {
        for (text, hint) in [
            ("outptu = \"x\"\n", Some("did you mean `output`?")),
            ("kind = \"testd\"\n", Some("did you mean `tested`?")),
            ("zzz = 1\n", None),
            ("output = 1\n", None),
            ("output = \n", None),
        ] {
            let error = read_toml::<Table>("x.toml", text).unwrap_err();
            assert_eq!(error.hint_text(), hint, "{error}");
        }
    }
}
