//! How long builds took, for estimates of the next ones.

use super::Compiled;
use crate::cache::Cache;
use crate::plan::Plan;
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_SMALL_FILE, read_file};
use camino::Utf8PathBuf;

/// How long a whole build of a plan took, for an estimate of the next one.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct History {
    /// Commands that make ran.
    #[serde(rename = "steps")]
    pub steps: u64,
    /// Wall time.
    pub seconds: f64,
}

/// The longest build of this plan so far.
pub fn history(plan: &Plan, cache: &Cache) -> Option<History> {
    serde_json::from_slice(&read_file(history_path(plan, cache), Links::Refuse, MAX_SMALL_FILE).ok()?).ok()
}

/// Keeps the time of a build that compiled more than any before it of the same plan: one that
/// compiled less did only what was missing. It serves for estimates: where it cannot be kept, it is not.
pub fn record_history(plan: &Plan, cache: &Cache, compiled: &Compiled) {
    if history(plan, cache).is_some_and(|known| known.steps >= compiled.steps) {
        return;
    }
    let history = History { steps: compiled.steps, seconds: compiled.seconds };
    let bytes = serde_json::to_vec(&history).expect("plain numbers");
    let _ = write_atomically(&history_path(plan, cache), &bytes);
}

fn history_path(plan: &Plan, cache: &Cache) -> Utf8PathBuf {
    cache.root.join("history").join(format!("{}.json", plan.digest()))
}
