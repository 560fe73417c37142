//! Shows where the time and the bytes of a build went. `--timings` writes an HTML page that needs
//! no network and no script, and `--timings=json` writes the same numbers as JSON.
//!
//! Nothing runs between make and the compiler, since Kbuild compiles everything again if a command
//! changes. A step starts when Kbuild announces it, and ends with the last file that Kbuild writes
//! for it (`steps.rs`). Object files give the sizes of directories in vmlinux (`objects.rs`).

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
use crate::util::json::Versioned;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

/// `--timings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TimingsFormat {
    /// An HTML page
    Html,
    /// JSON for programs
    Json,
}

/// The timings of one build. Field names are part of the contract. Times are wall time in seconds,
/// and sizes are in bytes.
#[derive(Debug, Serialize)]
pub struct Timings {
    /// `uname -r`.
    pub release: String,
    pub flavor: Flavor,
    pub arch: Arch,
    /// `-j`.
    pub jobs: usize,
    pub phases: Vec<PhaseTime>,
    pub compile_seconds: f64,
    /// The number of running jobs in each of equal parts of the compile phase.
    pub jobs_running: Vec<f64>,
    /// The commands of this run, in the order of their start.
    pub steps: Vec<Step>,
    pub vmlinux: ObjectSizes,
    /// The top directory of the kernel.
    pub directories: Directory,
}

#[derive(Debug, Serialize)]
pub struct PhaseTime {
    pub phase: Phase,
    pub seconds: f64,
}

/// The number of parts of the compile phase in `jobs_running`.
const PARTS: usize = 240;

/// Writes `<flavor>-<version>-<arch>-timings.html` or `.json` beside the receipt. Reads the object
/// files of the build directory and the time stamps of make's files. Returns the paths.
pub fn write(
    formats: &[TimingsFormat],
    receipt: &Utf8Path,
    plan: &Plan,
    build_dir: &BuildDir<'_>,
    compiled: &Compiled,
    reporter: &Reporter,
) -> Result<Vec<Utf8PathBuf>> {
    if formats.is_empty() {
        return Ok(Vec::new());
    }
    let timings = read(plan, build_dir, compiled, reporter);
    let base = receipt.with_extension("");
    let write_one = |format: &TimingsFormat| {
        let (extension, text) = match format {
            TimingsFormat::Html => ("html", page::render(&timings)),
            TimingsFormat::Json => (
                "json",
                serde_json::to_string_pretty(&Versioned::new(&timings)).expect("numbers and strings") + "\n",
            ),
        };
        let path = Utf8PathBuf::from(format!("{base}-timings.{extension}"));
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    };
    formats.iter().map(write_one).collect()
}

fn read(plan: &Plan, build_dir: &BuildDir<'_>, compiled: &Compiled, reporter: &Reporter) -> Timings {
    let steps = steps::read(&build_dir.path, compiled);
    let vmlinux = objects::read(&build_dir.path);
    Timings {
        release: compiled.release.clone(),
        flavor: plan.flavor,
        arch: plan.arch,
        jobs: build_dir.options.jobs,
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
