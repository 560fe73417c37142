//! Where the time and the bytes of a build went: `--timings` writes a page that any browser shows without a network
//! and without a script, `--timings=json` the same numbers.
//!
//! Nothing is put between make and the compiler, since Kbuild would compile everything anew with another command:
//! a step begins when Kbuild announces it, and ends when the file is written that Kbuild writes last (`steps.rs`).
//! What a directory costs in vmlinux is read from its object files (`objects.rs`).

mod chart;
mod directories;
mod objects;
mod page;
mod steps;
mod treemap;

pub use directories::{Cost, Directory};
pub use objects::ObjectSizes;
pub use steps::Step;

use crate::kbuild::{BuildDir, Compiled};
use crate::kernel::{Arch, Flavor};
use crate::plan::Plan;
use crate::report::{Phase, Reporter};
use crate::util::error::Result;
use crate::util::fs::write_atomically;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

/// `--timings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TimingsFormat {
    /// A page for a browser
    Html,
    /// Numbers for programs
    Json,
}

/// Where the time and the bytes of one build went. Field names are part of the contract; times are seconds of wall
/// time, sizes bytes.
#[derive(Debug, Serialize)]
pub struct Timings {
    /// `uname -r` of the kernel.
    pub release: String,
    /// For which hypervisor.
    pub flavor: Flavor,
    /// For which machine.
    pub arch: Arch,
    /// `-j`.
    pub jobs: usize,
    /// What each phase took, in order.
    pub phases: Vec<PhaseTime>,
    /// What the compile phase took.
    pub compile_seconds: f64,
    /// How many jobs ran, from the beginning of the compile phase to its end, in equal parts.
    pub jobs_running: Vec<f64>,
    /// What make ran in this run, in the order of its beginnings.
    pub steps: Vec<Step>,
    /// What is in vmlinux.
    pub vmlinux: ObjectSizes,
    /// What each directory cost; the top one is the kernel.
    pub directories: Directory,
}

/// A phase and what it took.
#[derive(Debug, Serialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// How long.
    pub seconds: f64,
}

/// Into how many parts the compile phase is cut for its utilisation.
const PARTS: usize = 240;

/// Writes what was asked for beside the receipt, as `<flavor>-<version>-<arch>-timings.html` and `.json`. Returns
/// the paths.
///
/// Reads the object files of the build directory and the times of what make wrote there.
pub fn write(
    forms: &[TimingsFormat],
    receipt: &Utf8Path,
    plan: &Plan,
    build_dir: &BuildDir<'_>,
    compiled: &Compiled,
    reporter: &Reporter,
) -> Result<Vec<Utf8PathBuf>> {
    if forms.is_empty() {
        return Ok(Vec::new());
    }
    let timings = read(plan, build_dir, compiled, reporter);
    let base = receipt.with_extension("");
    let one = |form: &TimingsFormat| {
        let (extension, text) = match form {
            TimingsFormat::Html => ("html", page::render(&timings)),
            TimingsFormat::Json => {
                ("json", serde_json::to_string_pretty(&timings).expect("numbers and strings") + "\n")
            }
        };
        let path = Utf8PathBuf::from(format!("{base}-timings.{extension}"));
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    };
    forms.iter().map(one).collect()
}

fn read(plan: &Plan, build_dir: &BuildDir<'_>, compiled: &Compiled, reporter: &Reporter) -> Timings {
    let steps = steps::read(&build_dir.path, compiled);
    let vmlinux = objects::read(&build_dir.path);
    Timings {
        release: compiled.release.clone(),
        flavor: plan.flavor,
        arch: plan.arch,
        jobs: build_dir.jobs,
        phases: reporter
            .times()
            .into_iter()
            .map(|(phase, took)| PhaseTime { phase, seconds: took.as_secs_f64() })
            .collect(),
        compile_seconds: compiled.seconds,
        jobs_running: steps::jobs_running(&steps, compiled.seconds, PARTS),
        directories: Directory::of(&steps, &vmlinux),
        steps,
        vmlinux,
    }
}
