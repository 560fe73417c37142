//! All records of a data repository in one value, which the cache keeps. Reading it takes a fraction of the
//! time that reading the records takes.

use super::record::{Record, SkipReason, parse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the form of the index. An index of another form is made anew.
const FORM: u32 = 1;
/// The names of skipped files that are kept for each reason.
const MAX_NAMES: usize = 5;

/// Where records are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsOrigin {
    /// A URL with a branch, or a directory.
    pub name: String,
    /// The commit of a repository. A plain directory has none.
    pub commit: Option<String>,
    /// The date of that commit, or of the newest file, in seconds since 1970.
    pub date: u64,
}

/// The files that are no usable records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub count: usize,
    /// The names of the first few.
    pub names: Vec<String>,
}

/// The records of a data repository, sorted by their ids.
#[derive(Debug, Serialize, Deserialize)]
pub struct Index {
    form: u32,
    /// Identifies the data, as a commit does.
    pub key: String,
    pub origin: RecordsOrigin,
    pub records: Vec<Record>,
    pub skipped: BTreeMap<SkipReason, Skipped>,
}

impl Index {
    pub fn new(key: String, origin: RecordsOrigin) -> Index {
        Index { form: FORM, key, origin, records: Vec::new(), skipped: BTreeMap::new() }
    }

    /// Adds the record in the file `name`, or counts why it is skipped.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        match parse(bytes) {
            Ok(record) => self.records.push(record),
            Err(reason) => self.skip(name, reason),
        }
    }

    /// Counts a file that is not read.
    pub fn skip(&mut self, name: &str, reason: SkipReason) {
        let skipped = self.skipped.entry(reason).or_default();
        skipped.count += 1;
        if skipped.names.len() < MAX_NAMES {
            skipped.names.push(name.to_owned());
        }
    }

    /// Sorts the records. Of two with the same id, only the first stays.
    pub fn finish(mut self) -> Index {
        self.records.sort_by(|a, b| id_key(&a.id).cmp(&id_key(&b.id)));
        let before = self.records.len();
        self.records.dedup_by(|a, b| a.id == b.id);
        let duplicates = before - self.records.len();
        if duplicates > 0 {
            self.skipped.entry(SkipReason::Invalid).or_default().count += duplicates;
        }
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("only string keys")
    }

    /// Parses an index. Returns `None` if it is damaged, has another form, or is of other data.
    pub fn from_bytes(bytes: &[u8], key: &str) -> Option<Index> {
        let is_valid = |index: &Index| index.form == FORM && index.key == key;
        serde_json::from_slice(bytes).ok().filter(is_valid)
    }
}

/// Returns a key that sorts `CVE-2024-9999` before `CVE-2024-10000`.
pub(super) fn id_key(id: &str) -> (usize, &str) {
    (id.len(), id)
}
