//! URLs of mirrors.

use crate::util::text::{has_credentials, redact_credentials};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Returns what is wrong with the URL of a mirror, if anything is.
pub fn mirror_error(url: &str) -> Option<String> {
    let printed = redact_credentials(url);
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Some(format!("the mirror `{printed}` is not an http or https URL"));
    }
    // Receipts and logs would show the credentials, as the process list already does.
    has_credentials(url)
        .then(|| format!("the mirror `{printed}` has credentials in its URL, which are not supported"))
}

/// Reads the URLs of mirrors.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mirrors = Vec::<String>::deserialize(deserializer)?;
    match mirrors.iter().find_map(|mirror| mirror_error(mirror)) {
        Some(message) => Err(D::Error::custom(message)),
        None => Ok(mirrors),
    }
}
