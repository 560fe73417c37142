//! The identity of a kernel's source.

use crate::util::digest::Sha256;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What identifies the bytes of a source. Its kind is part of its text, as in `sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SourceDigest {
    /// The digest of an archive.
    Sha256(Sha256),
    Commit(CommitId),
    /// The digest of all files of a directory.
    Content(Sha256),
}

impl SourceDigest {
    /// Returns the digest of the archive, if the source is an archive.
    pub fn sha256(&self) -> Option<Sha256> {
        match self {
            SourceDigest::Sha256(sha256) => Some(*sha256),
            SourceDigest::Commit(_) | SourceDigest::Content(_) => None,
        }
    }

    /// Returns the commit, if the source is a commit.
    pub fn commit(&self) -> Option<&CommitId> {
        match self {
            SourceDigest::Commit(commit) => Some(commit),
            SourceDigest::Sha256(_) | SourceDigest::Content(_) => None,
        }
    }
}

impl fmt::Display for SourceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceDigest::Sha256(sha256) => write!(f, "sha256:{sha256}"),
            SourceDigest::Commit(commit) => write!(f, "commit:{commit}"),
            SourceDigest::Content(sha256) => write!(f, "content:{sha256}"),
        }
    }
}

impl FromStr for SourceDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digest = match text.split_once(':') {
            Some(("sha256", digits)) => digits.parse().ok().map(SourceDigest::Sha256),
            Some(("commit", digits)) => digits.parse().ok().map(SourceDigest::Commit),
            Some(("content", digits)) => digits.parse().ok().map(SourceDigest::Content),
            _ => None,
        };
        // Only one spelling, because lock files and the names of cache entries are compared as text.
        digest
            .filter(|digest| digest.to_string() == text)
            .ok_or_else(|| format!("`{text}` is not sha256:…, commit:… or content:…"))
    }
}

impl TryFrom<String> for SourceDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SourceDigest> for String {
    fn from(digest: SourceDigest) -> String {
        digest.to_string()
    }
}

/// A whole commit hash, of 40 or 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CommitId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for CommitId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && matches!(text.len(), 40 | 64) {
            Ok(CommitId(text))
        } else {
            Err(format!("`{text}` is not a whole commit hash"))
        }
    }
}

impl From<CommitId> for String {
    fn from(commit: CommitId) -> String {
        commit.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_in_one_spelling() {
        let (sha256, commit) = ("ab".repeat(32), "0c".repeat(20));
        for text in [format!("sha256:{sha256}"), format!("commit:{commit}"), format!("content:{sha256}")] {
            let digest: SourceDigest = text.parse().unwrap();
            assert_eq!(digest.to_string(), text);
            assert_eq!(serde_json::to_value(&digest).unwrap(), text);
            assert_eq!(serde_json::from_value::<SourceDigest>(text.into()).unwrap(), digest);
        }
        for invalid in [
            sha256.clone(),
            commit.clone(),
            format!("sha256:{commit}"),
            format!("sha256:sha256:{sha256}"),
            format!("sha256:{}", sha256.to_uppercase()),
            format!("commit:{}", commit.to_uppercase()),
            format!("commit:{}", &commit[..12]),
            format!("md5:{sha256}"),
            format!("sha256:{sha256} "),
        ] {
            assert!(invalid.parse::<SourceDigest>().is_err(), "{invalid}");
        }
    }
}
