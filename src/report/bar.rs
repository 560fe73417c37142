//! A progress bar on the terminal for each running kernel, and a line for each finished phase.

use super::{Event, ScopedEvent, Terminal, Unit};
use crate::util::text::{escape_control, format_duration};
use crate::util::threads;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::time::Duration;

/// The time between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(125);

pub(super) struct Bar {
    terminal: Terminal,
    all: MultiProgress,
    live: BTreeMap<Option<String>, LiveLine>,
    /// The width of the longest name of a kernel so far.
    width: usize,
}

/// The progress bar of a kernel.
struct LiveLine {
    bar: ProgressBar,
    counting: Option<(Unit, bool)>,
}

impl Bar {
    pub(super) fn new(terminal: Terminal) -> Bar {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        Bar { terminal, all, live: BTreeMap::new(), width: 0 }
    }

    /// Clears the line of a kernel, or all lines with `None`.
    pub(super) fn clear(&mut self, kernel: Option<&str>) {
        self.live.retain(|of, live| {
            let gone = kernel.is_none() || of.as_deref() == kernel;
            if gone {
                live.bar.finish_and_clear();
                self.all.remove(&live.bar);
            }
            !gone
        });
    }

    pub(super) fn render(&mut self, ScopedEvent { kernel, event }: ScopedEvent<'_>) {
        let width = self.width.max(kernel.map_or(0, str::len));
        self.width = width;
        let prefix = kernel.map_or_else(String::new, |kernel| format!("{kernel:width$}  "));
        match event {
            Event::Start { phase, what } => {
                self.clear(kernel);
                let bar = self.all.add(ProgressBar::no_length());
                bar.set_style(style("{spinner} {prefix} {elapsed:>4}  {wide_msg}"));
                bar.set_prefix(format!("{prefix}{:10}", phase.title()));
                bar.set_message((*what).to_owned());
                animate(&bar);
                self.live.insert(kernel.map(str::to_owned), LiveLine { bar, counting: None });
            }
            Event::Progress { count, .. } => {
                let Some(live) = self.live.get_mut(&kernel.map(str::to_owned)) else { return };
                let kind = (count.unit, count.total.is_some());
                if live.counting != Some(kind) {
                    live.counting = Some(kind);
                    live.bar.set_style(style(match kind {
                        (Unit::Bytes, true) => {
                            "{spinner} {prefix} {elapsed:>4}  {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left  {wide_msg}"
                        }
                        (Unit::Bytes, false) => "{spinner} {prefix} {elapsed:>4}  {bytes} {bytes_per_sec}  {wide_msg}",
                        (Unit::Steps, true) => "{spinner} {prefix} {elapsed:>4}  {bar:24} {pos}/{len}, {eta} left  {wide_msg}",
                        (Unit::Steps, false) => "{spinner} {prefix} {elapsed:>4}  {pos} steps  {wide_msg}",
                    }));
                }
                if let Some(total) = count.total {
                    live.bar.set_length(total.max(count.done));
                }
                live.bar.set_position(count.done);
                live.bar.set_message(count.item.to_owned());
            }
            Event::Finish { phase, seconds, what, .. } => {
                self.clear(kernel);
                let took = format_duration(Duration::from_secs_f64(*seconds));
                self.say(&format!(
                    "{} {prefix}{:10} {took:>11}  {what}",
                    self.paint("32", "✓"),
                    phase.title()
                ));
            }
            Event::Note { text } => self.say(&format!("{prefix}{} {text}", self.paint("36", "note:"))),
            Event::Warning { text } => self.say(&format!("{prefix}{} {text}", self.paint("33", "warning:"))),
            Event::Error { text, hint, .. } => {
                self.say(&format!("{prefix}{} {text}", self.paint("1;31", "error:")));
                hint.iter()
                    .for_each(|hint| self.say(&format!("{prefix}{} {hint}", self.paint("36", "hint:"))));
            }
            Event::KernelSummary(summary) => self.say(&escape_control(&summary.to_string())),
            Event::RunSummary(run_summary) => self.say(&escape_control(&run_summary.to_string())),
        }
    }

    /// Hides the live lines while `write` writes to the terminal.
    pub(super) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.all.suspend(write)
    }

    /// Prints a line above the live ones.
    fn say(&self, line: &str) {
        self.suspend(|| say!("{line}"));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.terminal == Terminal::Color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Redraws the bar until it ends. indicatif's own thread would panic if it cannot be started.
fn animate(bar: &ProgressBar) {
    let bar = bar.downgrade();
    // Without a thread, the bar moves only with progress.
    let _ = threads::spawn(move || {
        while let Some(bar) = bar.upgrade().filter(|bar| !bar.is_finished()) {
            bar.tick();
            drop(bar);
            std::thread::sleep(TICK);
        }
    });
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("a valid template");
    style.progress_chars("━╸ ").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_with_colors_gets_them() {
        assert_eq!(Bar::new(Terminal::Plain).paint("31", "error:"), "error:");
        assert_eq!(Bar::new(Terminal::Color).paint("31", "error:"), "\u{1b}[31merror:\u{1b}[0m");
    }
}
