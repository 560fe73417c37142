//! Records how long builds took, to estimate the next ones. Each flavor, architecture and series has a file.

use super::Compiled;
use super::estimate::{Basis, ConfigSize, Estimate, WORK_PER_STEP};
use crate::cache::Cache;
use crate::kconfig::Config;
use crate::plan::Plan;
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_SMALL_FILE, read_file};
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The number of builds in a file. Newer ones replace the oldest.
const MAX_RECORDS: usize = 32;
/// By how much the steps of a similar config may differ, as a factor.
const MAX_DISTANCE: f64 = 1.5;

/// A build in an empty directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    /// The digest of the plan.
    plan: String,
    #[serde(flatten)]
    size: ConfigSize,
    steps: u64,
    /// The work of the steps. Records of earlier versions do not have it.
    #[serde(default)]
    work: Option<f64>,
    seconds: f64,
    /// The size of the build directory on disk.
    bytes: u64,
}

/// Estimates a build in an empty directory. Uses a build of the same plan, or else of a similar config, or
/// else the number of symbols.
pub fn estimate(plan: &Plan, config: &Config, cache: &Cache) -> Estimate {
    estimate_from(&read(plan, cache), &plan.digest().to_string(), config)
}

fn estimate_from(records: &[Record], plan: &str, config: &Config) -> Estimate {
    let model = Estimate::by_symbols(config);
    let work_of = |record: &Record| {
        // A negative number is damage.
        record.work.filter(|work| *work > 0.0).unwrap_or(record.steps as f64 * WORK_PER_STEP)
    };
    if let Some(same) = records.iter().find(|record| record.plan == plan) {
        let took = Duration::try_from_secs_f64(same.seconds).ok();
        let (steps, work, bytes) = (same.steps, work_of(same), same.bytes);
        return Estimate { basis: Basis::SamePlan, steps, work, bytes, took, ..model };
    }
    let steps = ConfigSize::of(config).steps();
    // More than 1 if the new build is larger.
    let ratio = |record: &Record| steps / record.size.steps();
    let distance = |record: &Record| ratio(record).max(1.0 / ratio(record));
    let nearest = records.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    match nearest.filter(|record| distance(record) <= MAX_DISTANCE) {
        Some(record) => Estimate {
            basis: Basis::SimilarConfig,
            steps: (record.steps as f64 * ratio(record)).round() as u64,
            work: work_of(record) * ratio(record),
            bytes: (record.bytes as f64 * ratio(record)) as u64,
            ..model
        },
        None => model,
    }
}

/// Records a build. A build that used objects of earlier ones only compiled what was missing, so it is not
/// recorded. Write errors are ignored, because estimates are optional.
pub fn record_build(plan: &Plan, config: &Config, cache: &Cache, compiled: &Compiled) {
    let Some(bytes) = compiled.clean_build_bytes else { return };
    let mut records = read(plan, cache);
    let plan_digest = plan.digest().to_string();
    records.retain(|record| record.plan != plan_digest);
    let (steps, work, seconds) = (compiled.steps, Some(compiled.work), compiled.seconds);
    records.push(Record { plan: plan_digest, size: ConfigSize::of(config), steps, work, seconds, bytes });
    records.drain(..records.len().saturating_sub(MAX_RECORDS));
    let bytes = serde_json::to_vec(&records).expect("plain numbers");
    let _ = write_atomically(&path(plan, cache), &bytes);
}

fn read(plan: &Plan, cache: &Cache) -> Vec<Record> {
    let bytes = read_file(path(plan, cache), Links::Refuse, MAX_SMALL_FILE).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn path(plan: &Plan, cache: &Cache) -> Utf8PathBuf {
    let (major, minor) = plan.version.unwrap_or_else(|| plan.requested.floor()).series();
    cache.root.join("history").join(format!("{}-{}-{major}.{minor}.json", plan.flavor, plan.arch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn config(built_in: u64) -> Config {
        let mut text = String::new();
        (0..built_in).for_each(|number| writeln!(text, "CONFIG_S{number}=y").unwrap());
        Config::parse(&text)
    }

    fn record(plan: &str, built_in: u64, steps: u64) -> Record {
        let size = ConfigSize { built_in, modules: 0 };
        Record { plan: plan.into(), size, steps, work: None, seconds: 60.0, bytes: steps * 1000 }
    }

    #[test]
    fn the_same_plan_is_exact_and_a_similar_config_is_scaled() {
        let records = [record("a", 800, 2000), record("b", 1000, 3000)];
        let same = estimate_from(&records, "a", &config(800));
        assert_eq!((same.basis, same.steps, same.bytes), (Basis::SamePlan, 2000, 2_000_000));
        assert_eq!(same.took, Some(Duration::from_secs(60)));
        assert_eq!(same.work, 2000.0 * WORK_PER_STEP, "a record of an earlier version");
        let measured = [Record { work: Some(1500.0), ..record("a", 800, 2000) }];
        assert_eq!(estimate_from(&measured, "a", &config(800)).work, 1500.0);
        let similar = estimate_from(&measured, "c", &config(880));
        assert!((similar.work - 1650.0).abs() < 1e-6, "{similar:?}");
        let similar = estimate_from(&records, "c", &config(1100));
        assert_eq!((similar.basis, similar.steps, similar.bytes), (Basis::SimilarConfig, 3300, 3_300_000));
        assert_eq!(similar.took, None);
        let other = estimate_from(&records, "c", &config(100));
        assert_eq!((other.basis, other.steps), (Basis::Symbols, 224));
        assert_eq!(estimate_from(&[], "a", &config(100)), other);
    }

    #[test]
    fn damaged_records_do_not_stop_a_build() {
        let damaged = Record { seconds: -1.0, steps: u64::MAX, ..record("a", 0, 1) };
        let same = estimate_from(std::slice::from_ref(&damaged), "a", &config(10));
        assert_eq!((same.steps, same.took), (u64::MAX, None));
        assert_eq!(estimate_from(&[damaged], "b", &config(10)).basis, Basis::Symbols);
        let none = estimate_from(&[record("a", 0, 3)], "b", &config(0));
        assert_eq!((none.basis, none.steps), (Basis::Symbols, 0));
    }
}
