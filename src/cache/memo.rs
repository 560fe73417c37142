//! Memoized results of slow computations. A result is valid while its inputs are unchanged. Reading needs no
//! cache directory. New results are written once there is one.

use crate::cache::Cache;
use crate::util::digest::Sha256;
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_SMALL_FILE, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

/// The folder in the cache directory.
const DIR: &str = "known";

/// A key, the inputs of its value, and the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoEntry {
    /// Such as `sha256 of /home/me/linux-6.1.7.tar.xz`.
    #[serde(rename = "question")]
    pub key: String,
    /// The state of everything that the value depends on, as text.
    #[serde(rename = "from")]
    pub inputs: String,
    #[serde(rename = "answer")]
    pub value: String,
}

/// Returns the stored value of `key`, if it is for these inputs.
pub fn get(cache_dir: &Utf8Path, key: &str, inputs: &str) -> Option<String> {
    let bytes = read_file(path(cache_dir, key), Links::Refuse, MAX_SMALL_FILE).ok()?;
    let entry: MemoEntry = serde_json::from_slice(&bytes).ok()?;
    (entry.key == key && entry.inputs == inputs).then_some(entry.value)
}

/// Stores `entries`. Those that cannot be written are computed again the next time.
pub fn put(cache: &Cache, entries: &[MemoEntry]) {
    let is_stored =
        |entry: &&MemoEntry| get(&cache.root, &entry.key, &entry.inputs).as_ref() == Some(&entry.value);
    for entry in entries.iter().filter(|entry| !is_stored(entry)) {
        let bytes = serde_json::to_vec(entry).expect("plain strings");
        let _ = write_atomically(&path(&cache.root, &entry.key), &bytes);
    }
}

fn path(cache_dir: &Utf8Path, key: &str) -> Utf8PathBuf {
    cache_dir.join(DIR).join(format!("{}.json", Sha256::of(key).short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_valid_for_its_inputs_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().join("cache")).unwrap();
        let cache = Cache::open(&root, 0).unwrap();
        let entry = |inputs: &str| MemoEntry {
            key: "q".into(),
            inputs: inputs.into(),
            value: format!("of {inputs}"),
        };
        assert_eq!(get(&root, "q", "1"), None);
        put(&cache, &[entry("1")]);
        assert_eq!(get(&root, "q", "1").unwrap(), "of 1");
        assert_eq!((get(&root, "q", "2"), get(&root, "p", "1")), (None, None));
        put(&cache, &[entry("2")]);
        assert_eq!((get(&root, "q", "1"), get(&root, "q", "2").unwrap()), (None, "of 2".to_owned()));
    }
}
