//! Parses TOML that people edit.

use crate::util::error::{Error, Result};
use crate::util::text::nearest;

/// Parses the text of the TOML file `name`.
///
/// # Errors
///
/// Exit code 2, with file, line and field: the text is not valid.
pub fn read_toml<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|why| {
        let error = Error::usage(format!("{name}: {}", join_lines(&why.to_string())));
        match suggestion(why.message()) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// Returns a hint for ``unknown field `x`, expected one of `a`, `b` ``, and for an unknown variant.
fn suggestion(message: &str) -> Option<String> {
    // The names are between backquotes, and the unknown one is first.
    let mut names = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
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
