//! The texts that people edit, read from disk and as TOML.

use crate::util::error::{Context, Error, Kind, Result};
use camino::Utf8Path;

/// A file of a user's own directory is a config, a patch or a catalog: none is near this size.
const LARGEST_FILE: u64 = 16 << 20;

/// Reads the text of a TOML file called `name`. An error (exit code 2) names it, the line and the field.
pub fn read_toml<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| Error::usage(format!("{name}: {}", one_line(&error.to_string()))))
}

/// A TOML error spans lines with a drawing of the place: keep its position, the field that is drawn
/// there, and its words.
fn one_line(message: &str) -> String {
    let mut parts = Vec::new();
    for line in message.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once('|') {
            Some((number, drawn)) if number.trim().bytes().all(|b| b.is_ascii_digit()) => {
                let field = drawn.split_once('=').map(|(field, _)| field.trim());
                parts.extend(field.filter(|field| field.bytes().all(is_of_a_key)));
            }
            _ => parts.push(line),
        }
    }
    parts.join(": ")
}

fn is_of_a_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// [`read_text`] of a file that may not be there.
pub fn read_text_if_there(path: &Utf8Path) -> Result<Option<String>> {
    path.exists().then(|| read_text(path)).transpose()
}

/// Reads a user's text file: not larger than 16 MiB, UTF-8, no NUL bytes.
pub fn read_text(path: &Utf8Path) -> Result<String> {
    match String::from_utf8(read_bytes(path)?) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::usage(format!("{path}: not a text file"))),
    }
}

/// Reads a user's file: not larger than 16 MiB.
pub fn read_bytes(path: &Utf8Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).context(Kind::Usage, || format!("cannot read {path}"))?.len();
    if size > LARGEST_FILE {
        return Err(Error::usage(format!(
            "{path}: larger than {} MiB, this is no text file",
            LARGEST_FILE >> 20
        )));
    }
    std::fs::read(path).context(Kind::Usage, || format!("cannot read {path}"))
}
