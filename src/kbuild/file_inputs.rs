//! Removes objects that were made from other files than those that the config names now. Make only
//! compares time stamps, so it misses a file that is replaced by an older one or whose mode
//! changes. The digests of the files are therefore kept beside the objects.

use super::BuildDir;
use crate::kconfig::file_settings;
use crate::plan;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use crate::util::fs::{remove_tree, write_atomically};
use crate::util::read::{Links, MAX_SMALL_FILE, read_file};
use camino::Utf8PathBuf;
use std::collections::{BTreeMap, BTreeSet};

/// The plan's `config_files` of the last successful build.
const FILES: &str = ".kcompile-files";

impl BuildDir<'_> {
    /// Removes objects that were made from other files than the plan's. Also removes the record, so
    /// that all files count as changed until [`record_file_inputs`](Self::record_file_inputs).
    pub(super) fn drop_stale_objects(&self) -> Result<()> {
        let stamp = self.files_stamp();
        let before: BTreeMap<String, Sha256> = read_file(&stamp, Links::RefuseAnywhere, MAX_SMALL_FILE)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let now = &self.plan.config_files;
        let all: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let mut stale: Vec<&str> = all
            .into_iter()
            .filter(|symbol| before.get(*symbol) != now.get(*symbol))
            .map(String::as_str)
            .collect();
        let key = plan::requested_config(self.plan).text("MODULE_SIG_KEY").unwrap_or_default();
        // kcompile cannot read a key in a token, so it may have changed.
        stale.extend(file_settings::is_in_token(&key).then_some("MODULE_SIG_KEY"));
        for symbol in stale {
            match file_settings::setting(symbol).objects {
                Some(dirs) => dirs.iter().try_for_each(|dir| remove_tree(&self.path.join(dir)))?,
                None => self.clear(&stamp)?,
            }
        }
        remove_tree(&stamp)
    }

    /// Records that the objects are made from the plan's files.
    pub fn record_file_inputs(&self) -> Result<()> {
        let files = &self.plan.config_files;
        if files.is_empty() {
            return Ok(());
        }
        write_atomically(&self.files_stamp(), &serde_json::to_vec(files).expect("only string keys"))
    }

    fn files_stamp(&self) -> Utf8PathBuf {
        self.path.join(FILES)
    }
}
