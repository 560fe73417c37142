//! Estimates the steps of make and the disk space of a build from the number of symbols that are set.

use super::work;
use crate::kconfig::Config;
use crate::util::error::{Error, Result};
use crate::util::fs::free_space;
use crate::util::text::format_size;
use camino::Utf8Path;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use walkdir::WalkDir;

/// Steps for each symbol that is `y`, and for each that is `m`. Fitted to the builds in the tests.
const STEPS_PER_BUILT_IN: f64 = 2.24;
const STEPS_PER_MODULE: f64 = 4.03;
/// The work of an average step, of which a compilation has 1.
pub(super) const WORK_PER_STEP: f64 = 0.67;
/// Bytes on disk for each step of a build without debug information. 5.10.77 for Firecracker took 342 MB in
/// 2861 steps, and 5.15.12 for Cloud Hypervisor 387 MB in 2997.
const BYTES_PER_STEP: u64 = 125_000;
/// The commands that Kbuild records (`.main.o.cmd`) for each step that it announces. 5.10.77 for Firecracker
/// had 3357 commands in 2861 steps.
const COMMANDS_PER_STEP: f64 = 1.17;
/// The estimate of a smaller build is too rough to refuse it.
const MIN_CHECKED_BYTES: u64 = 64 << 20;

/// The number of symbols that decides how long a build takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSize {
    /// Symbols that are `y`.
    pub built_in: u64,
    /// Symbols that are `m`.
    pub modules: u64,
}

impl ConfigSize {
    pub fn of(config: &Config) -> ConfigSize {
        let count = |wanted: &str| config.symbols.values().filter(|value| *value == wanted).count() as u64;
        ConfigSize { built_in: count("y"), modules: count("m") }
    }

    /// Returns the number of steps by the model.
    pub fn steps(self) -> f64 {
        self.built_in as f64 * STEPS_PER_BUILT_IN + self.modules as f64 * STEPS_PER_MODULE
    }
}

/// What an estimate is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A build of the same plan.
    SamePlan,
    /// A build of a similar config of the same series.
    SimilarConfig,
    /// The number of symbols alone.
    Symbols,
}

/// The steps and the disk space of a build in an empty directory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub basis: Basis,
    pub steps: u64,
    /// The work of the steps, of which a compilation has 1.
    pub work: f64,
    pub bytes: u64,
    /// The wall time of a build of the same plan.
    pub took: Option<Duration>,
    pub size: ConfigSize,
    pub has_debug_info: bool,
}

/// The steps that a build will run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpectedSteps {
    pub total: u64,
    /// Whether the total is an estimate.
    pub estimated: bool,
    /// Their work.
    pub work: f64,
    /// The part of the work from the link of vmlinux on.
    pub last_work: f64,
}

impl Estimate {
    /// Returns the estimate by the number of symbols.
    pub fn by_symbols(config: &Config) -> Estimate {
        let size = ConfigSize::of(config);
        let steps = size.steps().round() as u64;
        let has_debug_info = config.value("DEBUG_INFO") == "y";
        let bytes = steps * BYTES_PER_STEP;
        let work = steps as f64 * WORK_PER_STEP;
        Estimate { basis: Basis::Symbols, steps, work, bytes, took: None, size, has_debug_info }
    }

    /// Returns the steps of a build in a directory in which make ran `commands` before. Returns `None` if
    /// make has little left to do, which no estimate of the whole can tell.
    pub fn expected_steps(&self, commands: u64) -> Option<ExpectedSteps> {
        let last_work = work::of_last_steps(self.size.modules);
        if commands == 0 {
            let estimated = self.basis != Basis::SamePlan;
            return Some(ExpectedSteps { total: self.steps, estimated, work: self.work, last_work });
        }
        let total = self.steps.saturating_sub((commands as f64 / COMMANDS_PER_STEP) as u64);
        let work = self.work * total as f64 / self.steps.max(1) as f64;
        (total > self.steps / 10).then_some(ExpectedSteps { total, estimated: true, work, last_work })
    }

    /// Formats what the build will take: `~2837 steps, about 340.4 MB on disk`.
    pub fn describe(&self, expected: ExpectedSteps) -> String {
        let about = if expected.estimated { "~" } else { "" };
        let bytes = format_size(self.bytes_of(expected));
        // No build with debug information was measured. It takes more.
        let least = if self.has_debug_info && self.basis == Basis::Symbols { "at least" } else { "about" };
        format!("{about}{} steps, {least} {bytes} on disk", expected.total)
    }

    /// Checks that the disk of `dir` has enough space for the build.
    ///
    /// # Errors
    ///
    /// It has much less space than the build needs (exit code 4).
    pub fn check_space(&self, dir: &Utf8Path, expected: ExpectedSteps) -> Result<()> {
        match free_space(dir) {
            Some(free) => self.require_space(dir, free, expected),
            None => Ok(()),
        }
    }

    fn require_space(&self, dir: &Utf8Path, free: u64, expected: ExpectedSteps) -> Result<()> {
        let needed = self.bytes_of(expected);
        // An estimate may be too high by a quarter.
        if needed < MIN_CHECKED_BYTES || free >= needed / 4 * 3 {
            return Ok(());
        }
        let (needed, free) = (format_size(needed), format_size(free));
        Err(Error::host(format!("the build needs about {needed} on the disk of {dir}, which has {free} free"))
            .hint("free some space (`kcompile clean` removes sources and builds that are not in use), or choose another disk with --cache-dir"))
    }

    fn bytes_of(&self, expected: ExpectedSteps) -> u64 {
        (self.bytes as f64 * expected.total as f64 / self.steps.max(1) as f64) as u64
    }
}

/// Returns how many commands of Kbuild ran in a build directory, without those of `scripts`, where Kconfig is
/// built before the config is complete.
pub(super) fn count_commands(build_dir: &Utf8Path) -> u64 {
    let scripts = build_dir.join("scripts");
    let entries = WalkDir::new(build_dir).into_iter();
    let entries = entries.filter_entry(|entry| entry.path() != scripts.as_std_path()).flatten();
    let is_command = |name: &[u8]| name.starts_with(b".") && name.ends_with(b".cmd");
    entries.filter(|entry| is_command(entry.file_name().as_encoded_bytes())).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds with their symbols and steps. `real` builds ran; the steps of the others were counted in what
    /// `make -n` prints, with the two for each module and the 38 around the link that it leaves out. For the
    /// config of 5.10.77 this gives 2870 steps, and the build had 2861. For 5.15.12 it gives 3004, not 2997.
    const BUILDS: &str = include_str!("estimate_builds.tsv");

    struct Build {
        name: &'static str,
        size: ConfigSize,
        steps: f64,
    }

    fn builds() -> Vec<Build> {
        let lines = BUILDS.lines().filter(|line| !line.starts_with('#'));
        let parse = |line: &'static str| {
            let [name, _, built_in, modules, steps] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let number = |text: &str| text.parse::<u64>().unwrap();
            let size = ConfigSize { built_in: number(built_in), modules: number(modules) };
            Build { name, size, steps: number(steps) as f64 }
        };
        lines.map(parse).collect()
    }

    /// Fits the two factors to builds, with the least squares of the relative errors.
    fn fit<'a>(builds: impl Iterator<Item = &'a Build>) -> (f64, f64) {
        let (mut yy, mut ym, mut mm, mut y1, mut m1) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for Build { size, steps, .. } in builds {
            let (y, m) = (size.built_in as f64 / steps, size.modules as f64 / steps);
            yy += y * y;
            ym += y * m;
            mm += m * m;
            y1 += y;
            m1 += m;
        }
        let determinant = yy * mm - ym * ym;
        ((y1 * mm - m1 * ym) / determinant, (m1 * yy - y1 * ym) / determinant)
    }

    #[test]
    fn a_config_left_out_of_the_model_is_estimated_within_a_quarter() {
        let builds = builds();
        let real = BUILDS.lines().filter(|line| line.contains("\treal\t")).count();
        assert!(builds.len() >= 10 && real >= 3, "{} builds, {real} of them real", builds.len());
        for (left_out, build) in builds.iter().enumerate() {
            let others = builds.iter().enumerate().filter(|(index, _)| *index != left_out);
            let (per_built_in, per_module) = fit(others.map(|(_, build)| build));
            let estimate = build.size.built_in as f64 * per_built_in + build.size.modules as f64 * per_module;
            let error = estimate / build.steps - 1.0;
            assert!(
                error.abs() < 0.25,
                "{}: {estimate:.0} of {}, {:+.1} %",
                build.name,
                build.steps,
                error * 100.0
            );
        }
    }

    #[test]
    fn catalog_configs_with_fragments_are_estimated_within_15_percent() {
        let fragments: Vec<Build> = builds().into_iter().filter(|build| build.name.contains('+')).collect();
        assert!(fragments.len() >= 5);
        for build in fragments {
            let error = build.size.steps() / build.steps - 1.0;
            assert!(error.abs() < 0.15, "{}: {:+.1} %", build.name, error * 100.0);
        }
    }

    #[test]
    fn the_factors_are_those_of_the_builds() {
        let (per_built_in, per_module) = fit(builds().iter());
        assert!((per_built_in - STEPS_PER_BUILT_IN).abs() < 0.01, "{per_built_in}");
        assert!((per_module - STEPS_PER_MODULE).abs() < 0.01, "{per_module}");
    }

    fn estimate() -> Estimate {
        let size = ConfigSize { built_in: 837, modules: 239 };
        let steps = size.steps().round() as u64;
        Estimate {
            basis: Basis::Symbols,
            steps,
            work: steps as f64 * WORK_PER_STEP,
            bytes: steps * BYTES_PER_STEP,
            took: None,
            size,
            has_debug_info: false,
        }
    }

    #[test]
    fn what_an_earlier_make_did_is_not_expected_again() {
        let estimate = estimate();
        let whole = estimate.expected_steps(0).unwrap();
        assert_eq!((whole.total, whole.estimated, whole.work), (2838, true, estimate.work));
        assert_eq!(estimate.describe(whole), "~2838 steps, about 354.8 MB on disk");
        let half = estimate.expected_steps(1660).unwrap();
        assert_eq!((half.total, half.estimated), (1420, true));
        assert!((half.work / whole.work - 0.5).abs() < 0.01 && half.last_work == whole.last_work, "{half:?}");
        assert_eq!(estimate.expected_steps(3300), None, "make has little left to do");
        let same = Estimate { basis: Basis::SamePlan, ..estimate };
        assert!(!same.expected_steps(0).unwrap().estimated && same.expected_steps(1660).unwrap().estimated);
    }

    #[test]
    fn a_build_is_refused_if_the_disk_is_much_too_small() {
        let estimate = estimate();
        let whole = estimate.expected_steps(0).unwrap();
        let check = |free| estimate.require_space("/cache".into(), free, whole);
        let error = check(200_000_000).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        let text = error.to_string();
        assert_eq!(text, "the build needs about 354.8 MB on the disk of /cache, which has 200.0 MB free");
        assert!(check(300_000_000).is_ok());
        let rest = ExpectedSteps { total: 300, ..whole };
        assert!(estimate.require_space("/cache".into(), 10_000, rest).is_ok(), "38 MB are too rough");
        let debug = Estimate { has_debug_info: true, ..estimate };
        assert!(debug.describe(whole).contains("at least 354.8 MB"));
    }

    #[test]
    fn commands_of_kbuild_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        for dir in ["init", "scripts/kconfig"].map(|dir| path.join(dir)) {
            std::fs::create_dir_all(dir).unwrap();
        }
        for name in [
            "init/.main.o.cmd",
            "scripts/kconfig/.conf.o.cmd",
            "init/main.o",
            ".vmlinux.cmd",
            "x.cmd",
            ".config",
        ] {
            std::fs::write(path.join(name), "").unwrap();
        }
        assert_eq!(count_commands(path), 2);
    }
}
