//! A progress line on the terminal for each running kernel, and a line for each finished phase.

use super::event::{Event, ScopedEvent, UnfinishedPhase, how_it_ended};
use super::live_line::LiveLine;
use super::write_text;
use crate::util::terminal::{self, Color, Terminal};
use crate::util::text::{escape_control, format_duration};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The least time between two drawings because of progress.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The width of a terminal that does not say it.
const DEFAULT_COLUMNS: usize = 80;
/// Clears the terminal from the start of the live lines. The cursor always rests there, so that it is the
/// right place after a resize too, however the terminal breaks the lines anew.
///
/// The first line is cleared by itself, since tmux moves what is cleared from the top of its screen to the
/// scrollback.
const ERASE: &str = "\r\x1b[K\x1b[J";
/// Removes progress from the terminal's tab.
const NO_PROGRESS: &str = "\x1b]9;4;0;\x1b\\";

pub(super) struct Bar {
    terminal: Terminal,
    live: BTreeMap<Option<String>, LiveLine>,
    /// The width of the longest name of a kernel so far.
    width: usize,
    /// What was last written as the progress of the terminal's tab.
    progress: String,
    is_drawn: bool,
    drawn_at: Option<Instant>,
}

impl Bar {
    pub(super) fn new(terminal: Terminal) -> Bar {
        Bar {
            terminal,
            live: BTreeMap::new(),
            width: 0,
            progress: NO_PROGRESS.to_owned(),
            is_drawn: false,
            drawn_at: None,
        }
    }

    /// Clears the line of a kernel, or all lines with `None`.
    pub(super) fn clear(&mut self, kernel: Option<&str>) {
        self.live.retain(|of, _| kernel.is_some() && of.as_deref() != kernel);
        self.draw("");
    }

    pub(super) fn render(&mut self, ScopedEvent { kernel, event }: ScopedEvent<'_>) {
        let width = self.width.max(kernel.map_or(0, str::len));
        self.width = width;
        let prefix = kernel.map_or_else(String::new, |kernel| format!("{kernel:width$}  "));
        match event {
            Event::Start { phase, what } => {
                self.live.insert(kernel.map(str::to_owned), LiveLine::new(*phase, what));
                self.draw("");
            }
            Event::Progress { count, seconds_left, .. } => {
                let Some(live) = self.live.get_mut(&kernel.map(str::to_owned)) else { return };
                live.set_progress(count, seconds_left.map(Duration::from_secs_f64));
                if self.drawn_at.is_none_or(|at| at.elapsed() >= MIN_INTERVAL) {
                    self.draw("");
                }
            }
            Event::Output { line } => self.say(line),
            Event::Finish { phase, seconds, brief, .. } => {
                self.live.remove(&kernel.map(str::to_owned));
                let took = format_duration(Duration::from_secs_f64(*seconds));
                let done = self.terminal.paint(Color::Good, &self.terminal.render("✓"));
                self.say(&format!("{done} {prefix}{:10} {took:>11}  {brief}", phase.title()));
            }
            Event::Note { text } => self.message(&prefix, Color::Hint, "note:", text),
            Event::Warning { text } => self.message(&prefix, Color::Warning, "warning:", text),
            Event::Error { text, hint, kind, excerpt, phase, .. } => {
                if let Some(UnfinishedPhase { phase, took }) = phase {
                    let took = format_duration(*took);
                    let failed = self.terminal.paint(Color::Bad, &self.terminal.render("✗"));
                    let how = how_it_ended(kind);
                    self.say(&format!("{failed} {prefix}{:10} {took:>11}  {how}", phase.title()));
                }
                self.message(&prefix, Color::Bad, "error:", text);
                excerpt.iter().for_each(|excerpt| self.say(excerpt));
                hint.iter().for_each(|hint| self.message(&prefix, Color::Hint, "hint:", hint));
            }
            Event::KernelSummary { text, .. } => self.say(&escape_control(text)),
            Event::RunSummary(run_summary) => self.say(&escape_control(&run_summary.to_string())),
        }
    }

    /// Draws the live lines again, so that they show the time and fit the terminal.
    pub(super) fn tick(&mut self) {
        if !self.live.is_empty() {
            self.draw("");
        }
    }

    /// Hides the live lines while `write` writes to the terminal.
    pub(super) fn suspend<T>(&mut self, write: impl FnOnce() -> T) -> T {
        if self.is_drawn {
            write_text(ERASE);
            self.is_drawn = false;
        }
        let written = write();
        self.draw("");
        written
    }

    fn message(&mut self, prefix: &str, color: Color, label: &str, text: &str) {
        let label = self.terminal.paint(color, label);
        self.say(&format!("{prefix}{label} {text}"));
    }

    /// Prints lines above the live ones.
    fn say(&mut self, lines: &str) {
        let lines = self.terminal.render(lines);
        self.draw(&format!("{lines}\n"));
    }

    /// Replaces the live lines by `above` and the live lines of now, with one write.
    fn draw(&mut self, above: &str) {
        let columns = terminal::columns(std::io::stderr()).unwrap_or(DEFAULT_COLUMNS);
        let mut text = String::new();
        if self.is_drawn && (!above.is_empty() || self.live.is_empty()) {
            text.push_str(ERASE);
        }
        text.push_str(above);
        // `--progress bar` may write to a file.
        let shown = self.live.iter().filter(|_| self.terminal.is_terminal);
        let lines: Vec<String> = shown
            .map(|(kernel, live)| {
                let prefix =
                    kernel.as_ref().map_or_else(String::new, |kernel| format!("{kernel:0$}  ", self.width));
                live.text(&prefix, columns, self.terminal)
            })
            .collect();
        text.push_str(&lines.join("\x1b[K\n"));
        self.is_drawn = !lines.is_empty();
        if self.is_drawn {
            text.push_str("\x1b[K\x1b[J");
        }
        if lines.len() > 1 {
            text.push_str(&format!("\x1b[{}A", lines.len() - 1));
        }
        if self.is_drawn {
            text.push('\r');
        }
        text.push_str(&self.tab_progress());
        terminal::set_restore(match (self.is_drawn, self.terminal.has_progress) {
            (false, _) => "",
            (true, false) => ERASE,
            (true, true) => "\r\x1b[K\x1b[J\x1b]9;4;0;\x1b\\",
        });
        write_text(&text);
        self.drawn_at = Some(Instant::now());
    }

    /// Returns the sequence that shows progress on the terminal's tab, if it has changed. It is the least
    /// progress of all kernels.
    fn tab_progress(&mut self) -> String {
        if !self.terminal.has_progress {
            return String::new();
        }
        let least = self.live.values().map(|live| live.percent).min();
        let progress = match least {
            None => NO_PROGRESS.to_owned(),
            Some(None) => "\x1b]9;4;3;\x1b\\".to_owned(),
            Some(Some(percent)) => format!("\x1b]9;4;1;{percent}\x1b\\"),
        };
        if progress == self.progress {
            return String::new();
        }
        self.progress.clone_from(&progress);
        progress
    }
}
