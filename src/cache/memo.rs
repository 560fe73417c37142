//! What was found out at some cost, beside the fingerprint of what it was found out from: an answer is
//! remembered as long as that is the same. Asking touches nothing; what is new is written when there is a
//! cache to write it into.

use crate::cache::Cache;
use crate::util::digest::Sha256;
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_NOTE, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

/// Its folder in the cache directory.
const DIR: &str = "known";

/// A question, what its answer hangs on, and the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Such as `sha256 of /home/me/linux-6.1.7.tar.xz`.
    #[serde(rename = "question")]
    pub question: String,
    /// Fingerprints of all that was looked at, as text.
    #[serde(rename = "from")]
    pub from: String,
    /// As text.
    #[serde(rename = "answer")]
    pub answer: String,
}

/// The answer to `question` that was kept in `cache_dir`, if it was found out from the same.
pub fn recall(cache_dir: &Utf8Path, question: &str, from: &str) -> Option<String> {
    let bytes = read_file(path(cache_dir, question), Links::Refuse, MAX_NOTE).ok()?;
    let fact: Fact = serde_json::from_slice(&bytes).ok()?;
    (fact.question == question && fact.from == from).then_some(fact.answer)
}

/// Keeps `facts` for the next time; where they cannot be written they are found out again.
pub fn keep(cache: &Cache, facts: &[Fact]) {
    let is_known =
        |fact: &&Fact| recall(&cache.root, &fact.question, &fact.from).as_ref() == Some(&fact.answer);
    for fact in facts.iter().filter(|fact| !is_known(fact)) {
        let bytes = serde_json::to_vec(fact).expect("plain strings");
        let _ = write_atomically(&path(&cache.root, &fact.question), &bytes);
    }
}

fn path(cache_dir: &Utf8Path, question: &str) -> Utf8PathBuf {
    cache_dir.join(DIR).join(format!("{}.json", Sha256::of(question).short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_as_long_as_what_it_came_from() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().join("cache")).unwrap();
        let cache = Cache::open(&root, 0).unwrap();
        let fact =
            |from: &str| Fact { question: "q".into(), from: from.into(), answer: format!("of {from}") };
        assert_eq!(recall(&root, "q", "1"), None);
        keep(&cache, &[fact("1")]);
        assert_eq!(recall(&root, "q", "1").unwrap(), "of 1");
        assert_eq!((recall(&root, "q", "2"), recall(&root, "p", "1")), (None, None));
        keep(&cache, &[fact("2")]);
        assert_eq!((recall(&root, "q", "1"), recall(&root, "q", "2").unwrap()), (None, "of 2".to_owned()));
    }
}
