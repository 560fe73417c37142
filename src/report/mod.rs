//! Reports a run on standard error: phases, progress, notes, warnings and summaries. All renderers get the
//! same events. Results go to standard output, and `cli` prints them.

/// Writes a line to standard error.
macro_rules! say {
    ($($words:tt)*) => {
        crate::report::write_line(format!($($words)*))
    };
}

mod bar;
mod compiler_cache_stats;
mod json;
mod kernel_summary;
mod plain;
mod run_summary;

pub use compiler_cache_stats::CompilerCacheStats;
pub use kernel_summary::{ConsumerField, Image, KernelSummary};
pub use run_summary::{KernelResult, RunSummary};

use crate::util::error::Error;
use crate::util::text::{escape_control, redact_secrets};
use serde::Serialize;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether a line could not be written to standard error.
static HAS_LOST_LINES: AtomicBool = AtomicBool::new(false);

/// Writes a line to standard error, at once, since other programs may write there too. A closed pipe is not an error.
fn write_line(line: String) {
    let written = std::io::stderr().write_all((line + "\n").as_bytes());
    if written.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe) {
        HAS_LOST_LINES.store(true, Ordering::Relaxed);
    }
}

/// Returns whether a line could not be written to standard error, for example on a full disk.
pub fn has_lost_lines() -> bool {
    HAS_LOST_LINES.load(Ordering::Relaxed)
}

/// What standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    No,
    /// A terminal without colors.
    Plain,
    Color,
}

/// `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// A bar on a terminal, or else plain lines
    #[default]
    Auto,
    /// A progress bar
    Bar,
    /// Plain lines, for logs
    Plain,
    /// One JSON object per line
    Json,
    /// Only warnings and errors
    Quiet,
}

/// The phases of a build in their order, and of the commands that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Finding, downloading and unpacking the source.
    Source,
    /// Applying patches to a copy of the source.
    Patch,
    /// Merging `.config` and running `olddefconfig`.
    Configure,
    /// `make vmlinux modules`.
    Compile,
    /// `make modules_install`.
    Install,
    /// Writing layers and layouts.
    Pack,
    /// Checking and restoring images of the same plan, instead of building.
    Reuse,
    Boot,
    /// Copying images to a registry.
    Push,
}

impl Phase {
    /// Returns the name for people.
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

/// The unit of a [`Count`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Bytes,
    /// Steps of make, entries of an archive, images.
    Steps,
}

/// The progress of a phase.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Count<'a> {
    pub done: u64,
    /// The total, if it is known or can be estimated.
    pub total: Option<u64>,
    pub unit: Unit,
    /// The current file.
    pub item: &'a str,
}

/// An event, as renderers get it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Start {
        phase: Phase,
        what: &'a str,
    },
    Progress {
        phase: Phase,
        #[serde(flatten)]
        count: Count<'a>,
    },
    Finish {
        phase: Phase,
        seconds: f64,
        what: &'a str,
        /// The peak of kcompile itself.
        peak_memory_bytes: Option<u64>,
    },
    Note {
        text: &'a str,
    },
    #[serde(rename = "finding")]
    Warning {
        text: &'a str,
    },
    Error {
        text: &'a str,
        hint: Option<&'a str>,
        kind: &'static str,
        code: u8,
    },
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

/// The form of errors, unless they are events of `--progress json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    Text,
    /// One JSON object for each error, for `--json`.
    Json,
}

/// An event, and its kernel in a run of several.
#[derive(Clone, Copy, Debug, Serialize)]
struct ScopedEvent<'a> {
    #[serde(rename = "kernel", skip_serializing_if = "Option::is_none")]
    kernel: Option<&'a str>,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Reports events, and keeps warnings and times for the summary.
pub struct Reporter {
    renderer: Arc<Mutex<Renderer>>,
    errors: ErrorFormat,
    /// The name of the kernel in a run of several.
    kernel: Option<String>,
    warnings: Mutex<Vec<String>>,
    times: Mutex<Vec<(Phase, Duration)>>,
    notes: Mutex<Vec<String>>,
}

impl Reporter {
    /// Creates a reporter for `--progress`.
    pub fn new(progress: Progress, terminal: Terminal, errors: ErrorFormat) -> Reporter {
        let renderer = match progress {
            Progress::Auto if terminal == Terminal::No => Renderer::Plain(plain::Plain::default()),
            Progress::Auto | Progress::Bar => Renderer::Bar(bar::Bar::new(terminal)),
            Progress::Plain => Renderer::Plain(plain::Plain::default()),
            Progress::Json => Renderer::Json(json::Json::default()),
            Progress::Quiet => Renderer::Quiet,
        };
        Reporter::of(Arc::new(Mutex::new(renderer)), errors, None)
    }

    /// Returns a reporter for one of several kernels, with separate warnings and times.
    pub fn for_kernel(&self, kernel: &str) -> Reporter {
        Reporter::of(Arc::clone(&self.renderer), self.errors, Some(kernel.to_owned()))
    }

    fn of(renderer: Arc<Mutex<Renderer>>, errors: ErrorFormat, kernel: Option<String>) -> Reporter {
        Reporter {
            renderer,
            errors,
            kernel,
            warnings: Mutex::default(),
            times: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// Reports the start of a phase. The returned guard reports its progress and end.
    pub fn start(&self, phase: Phase, what: &str) -> PhaseGuard<'_> {
        self.render(&Event::Start { phase, what: &sanitize(what) });
        PhaseGuard { reporter: self, phase, since: Instant::now() }
    }

    /// Reports something that the user should know but need not act on. Repeated notes are dropped.
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

    /// Reports something about the result that the user should check. Summary and receipt repeat it.
    pub fn warning(&self, text: String) {
        let text = if text.contains(":/") { redact_secrets(&text) } else { text };
        if lock(&self.warnings).contains(&text) {
            return;
        }
        self.render(&Event::Warning { text: &escape_control(&text) });
        lock(&self.warnings).push(text);
    }

    /// Returns the warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.warnings).clone()
    }

    /// Returns the finished phases and their times.
    pub fn times(&self) -> Vec<(Phase, Duration)> {
        lock(&self.times).clone()
    }

    /// Clears warnings and times for the next kernel of the run.
    pub fn reset(&self) {
        lock(&self.warnings).clear();
        lock(&self.times).clear();
    }

    /// Reports the failure of the run or of a kernel.
    pub fn error(&self, error: &Error) {
        self.clear();
        let (text, hint) = (sanitize(&error.to_string()), error.hint_text().map(sanitize));
        let (hint, kind, code) = (hint.as_deref(), error.kind.name(), error.exit_code());
        if self.errors == ErrorFormat::Json && !matches!(*lock(&self.renderer), Renderer::Json(_)) {
            let kernel = self.kernel.as_deref();
            let line =
                json::error(&json::ErrorObject { message: &text, hint, kind, exit_code: code, kernel });
            self.suspend(|| say!("{line}"));
            return;
        }
        self.render(&Event::Error { text: &text, hint, kind, code });
    }

    pub fn summary(&self, summary: &KernelSummary) {
        self.clear();
        self.render(&Event::KernelSummary(summary));
    }

    /// Reports the end of a run of several kernels.
    pub fn run_summary(&self, mut run_summary: RunSummary) {
        for result in &mut run_summary.kernels {
            result.outcome = result.outcome.clone().map_err(|why| sanitize(&why));
        }
        self.render(&Event::RunSummary(&run_summary));
    }

    /// Clears this kernel's progress bar, so that other text can be printed.
    pub fn clear(&self) {
        if let Renderer::Bar(bar) = &mut *lock(&self.renderer) {
            bar.clear(self.kernel.as_deref());
        }
    }

    /// Hides progress bars while `write` writes to the terminal directly.
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

/// Returns text without control characters and secrets, for a terminal or log.
fn sanitize(text: &str) -> String {
    escape_control(&redact_secrets(text))
}

/// Locks a mutex, even if another thread panicked while it held it.
fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct PhaseGuard<'a> {
    reporter: &'a Reporter,
    phase: Phase,
    since: Instant,
}

impl PhaseGuard<'_> {
    pub fn progress(&self, count: Count<'_>) {
        let count = Count { item: &sanitize(count.item), ..count };
        self.reporter.render(&Event::Progress { phase: self.phase, count });
    }

    /// Reports the end of the phase, with its result. Returns the time that it took.
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
