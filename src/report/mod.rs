//! What a run tells while it goes on, on standard error: phases, progress, notes, findings. Every
//! renderer gets the same events; results go to standard output and are not this room's business.

/// Writes a line to standard error. A reader that has gone away is no reason to fail.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod bar;
mod compiler_cache_stats;
mod json;
mod kernel_summary;
mod plain;
mod run_summary;

pub use compiler_cache_stats::CompilerCacheStats;
pub use kernel_summary::{Image, KernelSummary};
pub use run_summary::{KernelResult, RunSummary};

use crate::util::error::Error;
use crate::util::text::{escape_control, redact_secrets};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// A bar on a terminal, else plain lines.
    #[default]
    Auto,
    /// A live bar.
    Bar,
    /// A line now and then.
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing but warnings and errors.
    Quiet,
}

/// The steps of a build, in their order; and what may come after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The source is found, downloaded and unpacked.
    Source,
    /// Patches are applied to a copy of it.
    Patch,
    /// `.config` is merged and completed by `olddefconfig`.
    Configure,
    /// `make vmlinux modules`.
    Compile,
    /// `make modules_install`.
    Install,
    /// Layers and layouts are written.
    Pack,
    /// In place of most of them: images that the same plan made before are checked, or put back.
    Reuse,
    /// An image is booted.
    Boot,
    /// Images are copied to a registry.
    Push,
}

impl Phase {
    /// One word for people.
    pub fn title(self) -> &'static str {
        match self {
            Phase::Source => "Source",
            Phase::Patch => "Patch",
            Phase::Configure => "Configure",
            Phase::Compile => "Compile",
            Phase::Install => "Install",
            Phase::Pack => "Pack",
            Phase::Reuse => "Reuse",
            Phase::Boot => "Boot",
            Phase::Push => "Push",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Steps of make, entries of an archive, images.
    Steps,
}

/// How far a phase is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Count<'a> {
    /// So far.
    pub done: u64,
    /// In all, where that is known or can be guessed.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: Unit,
    /// The file in hand.
    pub item: &'a str,
}

/// What happens, as a renderer sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    #[serde(rename = "start")]
    Start {
        phase: Phase,
        #[serde(rename = "what")]
        what: &'a str,
    },
    #[serde(rename = "progress")]
    Progress {
        phase: Phase,
        #[serde(flatten)]
        count: Count<'a>,
    },
    #[serde(rename = "finish")]
    Finish {
        phase: Phase,
        seconds: f64,
        #[serde(rename = "what")]
        what: &'a str,
        /// Of kcompile itself, so far.
        peak_memory_bytes: Option<u64>,
    },
    #[serde(rename = "note")]
    Note { text: &'a str },
    #[serde(rename = "finding")]
    Warning { text: &'a str },
    #[serde(rename = "error")]
    Error { text: &'a str, hint: Option<&'a str>, code: u8 },
    #[serde(rename = "summary")]
    KernelSummary(&'a KernelSummary),
    #[serde(rename = "overview")]
    RunSummary(&'a RunSummary),
}

enum Renderer {
    Bar(bar::Bar),
    Plain(plain::Plain),
    Json(json::Json),
    Quiet,
}

/// An event, and the kernel that it is about where the run has several.
#[derive(Clone, Copy, Debug, Serialize)]
struct ScopedEvent<'a> {
    #[serde(rename = "kernel", skip_serializing_if = "Option::is_none")]
    kernel: Option<&'a str>,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// The teller. Findings and times are kept for the summary.
pub struct Reporter {
    renderer: Arc<Mutex<Renderer>>,
    /// Whose report it is, where the run has several kernels.
    kernel: Option<String>,
    warnings: Mutex<Vec<String>>,
    times: Mutex<Vec<(Phase, Duration)>>,
    notes: Mutex<Vec<String>>,
}

impl Reporter {
    /// A teller as `--progress` asks for it; `terminal` and `color` are the host's.
    pub fn new(progress: Progress, terminal: bool, color: bool) -> Reporter {
        let renderer = match (progress, terminal) {
            (Progress::Bar, _) | (Progress::Auto, true) => Renderer::Bar(bar::Bar::new(color)),
            (Progress::Plain, _) | (Progress::Auto, false) => Renderer::Plain(plain::Plain::default()),
            (Progress::Json, _) => Renderer::Json(json::Json::default()),
            (Progress::Quiet, _) => Renderer::Quiet,
        };
        Reporter::of(Arc::new(Mutex::new(renderer)), None)
    }

    /// The same teller for one of several kernels, which it names; with findings and times of its own.
    pub fn for_kernel(&self, kernel: &str) -> Reporter {
        Reporter::of(Arc::clone(&self.renderer), Some(kernel.to_owned()))
    }

    fn of(renderer: Arc<Mutex<Renderer>>, kernel: Option<String>) -> Reporter {
        Reporter {
            renderer,
            kernel,
            warnings: Mutex::default(),
            times: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// A phase begins; `what` says on what. It is finished through the value returned.
    pub fn start(&self, phase: Phase, what: &str) -> PhaseGuard<'_> {
        self.render(&Event::Start { phase, what: &sanitize(what) });
        PhaseGuard { reporter: self, phase, since: Instant::now() }
    }

    /// Something that the user should know and need not act on. Said once.
    pub fn note(&self, text: &str) {
        {
            let mut notes = lock(&self.notes);
            if notes.iter().any(|note| note == text) {
                return;
            }
            notes.push(text.to_owned());
        }
        self.render(&Event::Note { text: &sanitize(text) });
    }

    /// Something about the result that the user should look at; repeated in the summary and kept in
    /// the receipt.
    pub fn warning(&self, text: String) {
        let text = if text.contains(":/") { redact_secrets(&text) } else { text };
        if lock(&self.warnings).contains(&text) {
            return;
        }
        self.render(&Event::Warning { text: &escape_control(&text) });
        lock(&self.warnings).push(text);
    }

    /// The findings so far.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.warnings).clone()
    }

    /// The phases so far and what they took.
    pub fn times(&self) -> Vec<(Phase, Duration)> {
        lock(&self.times).clone()
    }

    /// Forgets findings and times: the next kernel of the run begins.
    pub fn reset(&self) {
        lock(&self.warnings).clear();
        lock(&self.times).clear();
    }

    /// The run, or one of its kernels, failed.
    pub fn error(&self, error: &Error) {
        self.clear();
        self.render(&Event::Error {
            text: &sanitize(&error.to_string()),
            hint: error.hint_text().map(sanitize).as_deref(),
            code: error.exit_code(),
        });
    }

    /// A kernel is done.
    pub fn summary(&self, summary: &KernelSummary) {
        self.clear();
        self.render(&Event::KernelSummary(summary));
    }

    /// All kernels of the run are done.
    pub fn run_summary(&self, mut run_summary: RunSummary) {
        for result in &mut run_summary.kernels {
            result.outcome = result.outcome.clone().map_err(|why| sanitize(&why));
        }
        self.render(&Event::RunSummary(&run_summary));
    }

    /// Clears what is drawn on the terminal of this kernel, so that other text can be printed.
    pub fn clear(&self) {
        if let Renderer::Bar(bar) = &mut *lock(&self.renderer) {
            bar.clear(self.kernel.as_deref());
        }
    }

    /// Does what writes to the terminal by another way than this report, with nothing drawn there.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &*lock(&self.renderer) {
            Renderer::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    fn render(&self, event: &Event<'_>) {
        let scoped = ScopedEvent { kernel: self.kernel.as_deref(), event };
        match &mut *lock(&self.renderer) {
            Renderer::Bar(bar) => bar.render(scoped),
            Renderer::Plain(plain) => plain.render(scoped),
            Renderer::Json(json) => json.render(scoped),
            Renderer::Quiet => {
                if matches!(event, Event::Warning { .. } | Event::Error { .. }) {
                    plain::Plain::default().render(scoped);
                }
            }
        }
    }
}

/// A text as it may go to a terminal or a log.
fn sanitize(text: &str) -> String {
    escape_control(&redact_secrets(text))
}

/// What another thread left half-said is no reason to say nothing more.
fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A phase that goes on.
pub struct PhaseGuard<'a> {
    reporter: &'a Reporter,
    phase: Phase,
    since: Instant,
}

impl PhaseGuard<'_> {
    /// How far it is.
    pub fn progress(&self, count: Count<'_>) {
        let count = Count { item: &sanitize(count.item), ..count };
        self.reporter.render(&Event::Progress { phase: self.phase, count });
    }

    /// It is done; `what` says what came out. Returns what it took.
    pub fn finish(self, what: &str) -> Duration {
        let took = self.since.elapsed();
        lock(&self.reporter.times).push((self.phase, took));
        self.reporter.render(&Event::Finish {
            phase: self.phase,
            seconds: took.as_secs_f64(),
            what: &sanitize(what),
            peak_memory_bytes: crate::util::rusage::peak_memory(),
        });
        took
    }
}

#[cfg(test)]
mod tests;
