//! Reports a run on standard error: phases, progress, notes, warnings and summaries. All renderers get the
//! same events. Results go to standard output, and `cli` prints them.

/// Writes a line to standard error.
macro_rules! say {
    ($($words:tt)*) => {
        crate::report::write_text(&(format!($($words)*) + "\n"))
    };
}

mod bar;
mod compiler_cache_stats;
mod event;
mod json;
mod kernel_summary;
mod live_line;
mod phase;
mod plain;
mod progress_text;
mod rate;
mod run_summary;
mod similar;

pub use compiler_cache_stats::CompilerCacheStats;
pub use event::{Count, Unit, Work};
pub use kernel_summary::{ConsumerField, Image, KernelSummary};
pub use phase::Phase;
#[cfg(test)]
pub(crate) use rate::Rate;
pub use run_summary::{KernelResult, RunSummary};
pub use similar::SettingsWarning;

use event::{Event, ScopedEvent, UnfinishedPhase};

use crate::util::error::Error;
use crate::util::terminal::Terminals;
use crate::util::text::{escape_control, redact_secrets};
use crate::util::threads;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// How often live lines are drawn, and plain lines check for silence.
const TICK: Duration = Duration::from_millis(125);

/// Whether a line could not be written to standard error.
static HAS_LOST_LINES: AtomicBool = AtomicBool::new(false);

/// Writes text to standard error, at once, since other programs may write there too. A closed pipe is not an error.
fn write_text(text: &str) {
    let written = std::io::stderr().write_all(text.as_bytes());
    if written.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe) {
        HAS_LOST_LINES.store(true, Ordering::Relaxed);
    }
}

/// Returns whether a line could not be written to standard error, for example on a full disk.
pub fn has_lost_lines() -> bool {
    HAS_LOST_LINES.load(Ordering::Relaxed)
}

/// `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// A bar on a terminal; plain lines elsewhere, in CI, and if TERM is dumb
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

/// Whether the output of programs is reported, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    #[default]
    Normal,
    /// `--verbose`
    Verbose,
}

enum Renderer {
    Bar(bar::Bar),
    Plain(plain::Plain),
    Json(json::Json),
    /// Plain lines for warnings and errors only.
    Quiet(plain::Plain),
}

/// The form of errors, unless they are events of `--progress json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    Text,
    /// One JSON object for each error, for `--json`.
    Json,
}

/// What the reporters of all kernels share.
struct Shared {
    renderer: Mutex<Renderer>,
    verbosity: Verbosity,
    terminals: Terminals,
    errors: ErrorFormat,
    /// Starts the thread of [`tick`].
    ticker: Once,
}

/// Reports events, and keeps warnings and times for the summary.
pub struct Reporter {
    shared: Arc<Shared>,
    /// The name of the kernel in a run of several.
    kernel: Option<String>,
    warnings: Mutex<Vec<String>>,
    times: Mutex<Vec<(Phase, Duration)>>,
    notes: Mutex<Vec<String>>,
    /// The last phase, if it ended without a result.
    unfinished: Mutex<Option<UnfinishedPhase>>,
}

impl Reporter {
    /// Creates a reporter for `--progress` and `--verbose`.
    pub fn new(
        progress: Progress,
        verbosity: Verbosity,
        terminals: Terminals,
        errors: ErrorFormat,
    ) -> Reporter {
        let terminal = terminals.stderr;
        let renderer = match progress {
            Progress::Auto if terminal.can_redraw => Renderer::Bar(bar::Bar::new(terminal)),
            Progress::Bar => Renderer::Bar(bar::Bar::new(terminal)),
            Progress::Auto | Progress::Plain => Renderer::Plain(plain::Plain::new(terminal)),
            Progress::Json => Renderer::Json(json::Json::default()),
            Progress::Quiet => Renderer::Quiet(plain::Plain::new(terminal)),
        };
        let renderer = Mutex::new(renderer);
        Reporter::of(Arc::new(Shared { renderer, verbosity, terminals, errors, ticker: Once::new() }), None)
    }

    /// Returns a reporter for one of several kernels, with separate warnings and times.
    pub fn for_kernel(&self, kernel: &str) -> Reporter {
        Reporter::of(Arc::clone(&self.shared), Some(kernel.to_owned()))
    }

    fn of(shared: Arc<Shared>, kernel: Option<String>) -> Reporter {
        Reporter {
            shared,
            kernel,
            warnings: Mutex::default(),
            times: Mutex::default(),
            notes: Mutex::default(),
            unfinished: Mutex::default(),
        }
    }

    /// Reports the start of a phase. The returned guard reports its progress and end.
    pub fn start(&self, phase: Phase, what: &str) -> PhaseGuard<'_> {
        // Not earlier, since some commands must have only one thread while they set up the process.
        self.shared.ticker.call_once(|| tick(&self.shared));
        *lock(&self.unfinished) = None;
        self.render(&Event::Start { phase, what: &sanitize(what) });
        PhaseGuard {
            reporter: self,
            phase,
            since: Instant::now(),
            rate: Mutex::default(),
            is_finished: false,
        }
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

    /// Reports warnings about settings. People see similar ones as one, which names the command `list` that prints all.
    pub fn warnings_of_settings(&self, warnings: Vec<SettingsWarning>, list: &str) {
        let new: Vec<SettingsWarning> =
            warnings.into_iter().filter(|warning| !lock(&self.warnings).contains(&warning.text)).collect();
        let shown: Vec<String> = if matches!(*self.lock(), Renderer::Json(_)) {
            new.iter().map(|warning| warning.text.clone()).collect()
        } else if self.is_verbose() {
            new.iter().flat_map(|warning| warning.settings.clone()).collect()
        } else {
            similar::join_similar(&new, list)
        };
        for text in shown {
            self.render(&Event::Warning { text: &escape_control(&text) });
        }
        lock(&self.warnings).extend(new.into_iter().map(|warning| warning.text));
    }

    fn is_verbose(&self) -> bool {
        self.shared.verbosity == Verbosity::Verbose
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
        if self.shared.errors == ErrorFormat::Json
            && !matches!(*lock(&self.shared.renderer), Renderer::Json(_))
        {
            let kernel = self.kernel.as_deref();
            let line =
                json::error(&json::ErrorObject { message: &text, hint, kind, exit_code: code, kernel });
            self.suspend(|| say!("{line}"));
            return;
        }
        let excerpt = error.excerpt_text().map(sanitize);
        let is_quiet = matches!(*self.lock(), Renderer::Quiet(_));
        let (excerpt, phase) = (excerpt.as_deref(), lock(&self.unfinished).take().filter(|_| !is_quiet));
        self.render(&Event::Error { text: &text, hint, kind, code, excerpt, phase });
    }

    pub fn summary(&self, summary: &KernelSummary) {
        self.clear();
        // On a terminal the images are on standard output, below the summary.
        let terminals = self.shared.terminals;
        let text = if terminals.stdout.is_terminal && terminals.stderr.is_terminal {
            format!("{summary:#}")
        } else {
            summary.to_string()
        };
        self.render(&Event::KernelSummary { summary, text: &text });
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
        match &mut *self.lock() {
            Renderer::Bar(bar) => bar.clear(self.kernel.as_deref()),
            Renderer::Plain(plain) => plain.clear(self.kernel.as_deref()),
            Renderer::Json(_) | Renderer::Quiet(_) => {}
        }
    }

    /// Hides progress bars while `write` writes to the terminal directly.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &mut *self.lock() {
            Renderer::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    fn render(&self, event: &Event<'_>) {
        let scoped = ScopedEvent { kernel: self.kernel.as_deref(), event };
        match &mut *self.lock() {
            Renderer::Bar(bar) => bar.render(scoped),
            Renderer::Plain(plain) => plain.render(scoped),
            Renderer::Json(json) => json.render(scoped),
            Renderer::Quiet(plain) => {
                if matches!(event, Event::Warning { .. } | Event::Error { .. }) {
                    plain.render(scoped);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Renderer> {
        lock(&self.shared.renderer)
    }
}

/// Draws live lines and gives signs of life from a thread, until the last reporter is gone.
fn tick(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    // Without a thread, lines move only with progress.
    let _ = threads::spawn(move || {
        while let Some(shared) = shared.upgrade() {
            match &mut *lock(&shared.renderer) {
                Renderer::Bar(bar) => bar.tick(),
                Renderer::Plain(plain) => plain.tick(),
                Renderer::Json(_) | Renderer::Quiet(_) => return,
            }
            drop(shared);
            std::thread::sleep(TICK);
        }
    });
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
    rate: Mutex<rate::Rate>,
    is_finished: bool,
}

impl Drop for PhaseGuard<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            let unfinished = UnfinishedPhase { phase: self.phase, took: self.since.elapsed() };
            *lock(&self.reporter.unfinished) = Some(unfinished);
        }
    }
}

impl PhaseGuard<'_> {
    pub fn progress(&self, count: Count<'_>) {
        let count = Count { item: &sanitize(count.item), ..count };
        let left = lock(&self.rate).time_left(&count, self.since.elapsed());
        let seconds_left = left.map(|left| left.as_secs_f64());
        self.reporter.render(&Event::Progress { phase: self.phase, count, seconds_left });
    }

    /// Reports a line that make printed, if the user wants them.
    pub fn output(&self, line: &str) {
        if self.reporter.is_verbose() {
            self.reporter.render(&Event::Output { line: &sanitize(line) });
        }
    }

    /// Reports the end of the phase, with its result. Returns the time that it took.
    pub fn finish(self, what: &str) -> Duration {
        self.finish_briefly(what, what)
    }

    /// Does the same with a shorter result for people, who get the rest from a warning.
    pub fn finish_briefly(mut self, what: &str, brief: &str) -> Duration {
        self.is_finished = true;
        let took = self.since.elapsed();
        lock(&self.reporter.times).push((self.phase, took));
        self.reporter.render(&Event::Finish {
            phase: self.phase,
            seconds: took.as_secs_f64(),
            what: &sanitize(what),
            brief: &sanitize(brief),
            peak_memory_bytes: crate::util::rusage::peak_memory(),
        });
        took
    }
}

#[cfg(test)]
mod tests;
