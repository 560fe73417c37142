//! Shows where the time and the bytes of a build went. `--timings` writes an HTML page that needs
//! no network and no script, `--timings=json` the same numbers as JSON, and `--timings=trace` the steps as a
//! trace.
//!
//! Nothing runs between make and the compiler, since Kbuild compiles everything again if a command
//! changes. A step starts when Kbuild announces it, and ends with the last file that Kbuild writes
//! for it (`steps.rs`). Object files give the sizes of directories in vmlinux (`objects.rs`).

mod chart;
mod directories;
mod file_tree;
mod objects;
mod page;
mod steps;
mod trace;
mod treemap;

pub use directories::Directory;
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
use std::collections::BTreeMap;

/// `--timings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TimingsFormat {
    /// An HTML page
    Html,
    /// JSON for programs
    Json,
    /// A trace of all steps, for ui.perfetto.dev and chrome://tracing
    Trace,
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
    /// The modules, as paths in the build directory, with their sizes.
    pub modules: BTreeMap<String, u64>,
    /// The top directory of the kernel.
    pub directories: Directory,
    #[serde(skip)]
    pub facts: BuildFacts,
}

/// What the head of the page says about the build, as names and texts.
pub type BuildFacts = Vec<(&'static str, String)>;

#[derive(Debug, Serialize)]
pub struct PhaseTime {
    pub phase: Phase,
    pub seconds: f64,
}

/// The number of parts of the compile phase in `jobs_running`.
const PARTS: usize = 240;

/// A build that is timed.
pub struct TimedBuild<'a> {
    pub plan: &'a Plan,
    pub build_dir: &'a BuildDir<'a>,
    pub compiled: &'a Compiled,
    pub facts: BuildFacts,
}

/// Writes `<flavor>-<version>-<arch>-timings.html`, `.json` or `.trace.json` beside the receipt. Reads the object
/// files of the build directory and the time stamps of make's files. Returns the paths.
pub fn write(
    formats: &[TimingsFormat],
    receipt: &Utf8Path,
    build: TimedBuild<'_>,
    reporter: &Reporter,
) -> Result<Vec<Utf8PathBuf>> {
    if formats.is_empty() {
        return Ok(Vec::new());
    }
    let timings = read(build, reporter);
    let base = receipt.with_extension("");
    let write_one = |format: &TimingsFormat| {
        let (extension, text) = match format {
            TimingsFormat::Html => ("html", page::render(&timings)),
            TimingsFormat::Json => (
                "json",
                serde_json::to_string_pretty(&Versioned::new(&timings)).expect("numbers and strings") + "\n",
            ),
            TimingsFormat::Trace => ("trace.json", trace::render(&timings)),
        };
        let path = Utf8PathBuf::from(format!("{base}-timings.{extension}"));
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    };
    formats.iter().map(write_one).collect()
}

fn read(build: TimedBuild<'_>, reporter: &Reporter) -> Timings {
    let TimedBuild { plan, build_dir, compiled, facts } = build;
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
        modules: objects::modules(&build_dir.path),
        steps,
        vmlinux,
        facts,
    }
}

impl Timings {
    /// `Linux 6.1.7 for Firecracker on amd64`.
    fn title(&self) -> String {
        format!("Linux {} for {} on {}", self.release, self.flavor.spec().title, self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn step(target: &str, begin: f64, seconds: f64) -> Step {
        Step { tool: "CC".into(), target: target.into(), module: false, begin, seconds, measured: true }
    }

    /// Returns a build of a few files.
    pub(super) fn timings() -> Timings {
        let steps =
            vec![step("fs/ext4/inode.o", 0.0, 2.0), step("fs/open.o", 2.0, 1.0), step("vmlinux", 3.0, 4.0)];
        let objects = [("fs/ext4/inode.o", 10), ("fs/ext4/dir.o", 5), ("kernel/fork.o", 7)];
        let vmlinux =
            ObjectSizes { bytes: 30, objects: objects.map(|(name, bytes)| (name.to_owned(), bytes)).into() };
        Timings {
            release: "6.1.7".into(),
            flavor: Flavor::Firecracker,
            arch: Arch::Amd64,
            jobs: 2,
            phases: [(Phase::Configure, 1.0), (Phase::Compile, 7.0)]
                .map(|(phase, seconds)| PhaseTime { phase, seconds })
                .into(),
            compile_seconds: 7.0,
            jobs_running: vec![1.0, 0.5],
            directories: Directory::of(&steps, &vmlinux),
            steps,
            vmlinux,
            modules: [("fs/ext4/ext4.ko".to_owned(), 30)].into(),
            facts: vec![("Command", "kcompile 6.1.7".into())],
        }
    }
}
