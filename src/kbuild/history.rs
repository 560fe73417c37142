//! Records how long builds took, to estimate the next ones.

use super::Compiled;
use crate::cache::Cache;
use crate::plan::Plan;
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_SMALL_FILE, read_file};
use camino::Utf8PathBuf;

/// Steps and wall time of the longest build of a plan so far.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct History {
    pub steps: u64,
    pub seconds: f64,
}

/// Reads the longest build of this plan so far.
pub fn history(plan: &Plan, cache: &Cache) -> Option<History> {
    serde_json::from_slice(&read_file(history_path(plan, cache), Links::Refuse, MAX_SMALL_FILE).ok()?).ok()
}

/// Records a build if it ran more steps than any before it of the same plan, since a shorter one
/// only compiled what was missing. Write errors are ignored, because estimates are optional.
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
