//! Plain lines for logs: the start and end of each phase, and some progress.

use super::event::{Event, ScopedEvent, UnfinishedPhase, how_it_ended};
use super::phase::Phase;
use super::progress_text::ProgressText;
use crate::util::terminal::{Color, Terminal};
use crate::util::text::{escape_control, format_duration};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The least time between two progress lines of a kernel.
const MIN_INTERVAL: Duration = Duration::from_secs(15);
/// The longest time without a line while a phase runs. CI systems end jobs that are silent for long.
const MAX_SILENCE: Duration = Duration::from_secs(60);

pub(super) struct Plain {
    terminal: Terminal,
    /// The running phase of each kernel.
    running: BTreeMap<Option<String>, Running>,
}

/// A running phase.
struct Running {
    phase: Phase,
    since: Instant,
    /// When its last line was printed.
    last: Instant,
    /// The progress that a line of now would show.
    progress: String,
}

impl Plain {
    pub(super) fn new(terminal: Terminal) -> Plain {
        Plain { terminal, running: BTreeMap::new() }
    }

    pub(super) fn render(&mut self, ScopedEvent { kernel, event }: ScopedEvent<'_>) {
        // Lines name their kernel in a run of several.
        let prefix = prefix(kernel);
        match event {
            Event::Start { phase, what } => {
                let now = Instant::now();
                let running = Running { phase: *phase, since: now, last: now, progress: (*what).to_owned() };
                self.running.insert(kernel.map(str::to_owned), running);
                self.say(&format!("{prefix}{}: {what}", phase.title()));
            }
            Event::Progress { phase, count, seconds_left } => {
                let Some(running) = self.running.get_mut(&kernel.map(str::to_owned)) else { return };
                let left = seconds_left.map(Duration::from_secs_f64);
                running.progress = format!("{}  {}", ProgressText::new(count, left).line(), count.item);
                if running.last.elapsed() < MIN_INTERVAL {
                    return;
                }
                running.last = Instant::now();
                let line = format!("{prefix}{}: {}", phase.title(), running.progress);
                self.say(&line);
            }
            Event::Output { line } => self.say(&format!("{prefix}{line}")),
            Event::Finish { phase, seconds, brief, .. } => {
                self.running.remove(&kernel.map(str::to_owned));
                let took = format_duration(Duration::from_secs_f64(*seconds));
                self.say(&format!("{prefix}{}: done in {took}: {brief}", phase.title()));
            }
            Event::Note { text } => self.message(&prefix, Color::Hint, "note:", text),
            Event::Warning { text } => self.message(&prefix, Color::Warning, "warning:", text),
            Event::Error { text, hint, kind, excerpt, phase, .. } => {
                if let Some(UnfinishedPhase { phase, took }) = phase {
                    let (how, took) = (how_it_ended(kind), format_duration(*took));
                    self.say(&format!("{prefix}{}: {how} after {took}", phase.title()));
                }
                self.message(&prefix, Color::Bad, "error:", text);
                excerpt.iter().for_each(|excerpt| self.say(excerpt));
                hint.iter().for_each(|hint| self.message(&prefix, Color::Hint, "hint:", hint));
            }
            Event::KernelSummary { text, .. } => self.say(&escape_control(text)),
            Event::RunSummary(run_summary) => self.say(&escape_control(&run_summary.to_string())),
        }
    }

    /// Forgets the running phase of a kernel, or of all kernels with `None`.
    pub(super) fn clear(&mut self, kernel: Option<&str>) {
        self.running.retain(|of, _| kernel.is_some() && of.as_deref() != kernel);
    }

    /// Prints a line for each phase that was silent for long.
    pub(super) fn tick(&mut self) {
        self.signs_of_life(Instant::now()).iter().for_each(|line| self.say(line));
    }

    fn signs_of_life(&mut self, now: Instant) -> Vec<String> {
        let silent = self.running.iter_mut().filter(|(_, running)| now - running.last >= MAX_SILENCE);
        let line = |(kernel, running): (&Option<String>, &mut Running)| {
            running.last = now;
            let Running { phase, progress, .. } = running;
            let elapsed = format_duration(now - running.since);
            format!("{}{}: {progress} (running for {elapsed})", prefix(kernel.as_deref()), phase.title())
        };
        silent.map(line).collect()
    }

    fn message(&self, prefix: &str, color: Color, label: &str, text: &str) {
        self.say(&format!("{prefix}{} {text}", self.terminal.paint(color, label)));
    }

    fn say(&self, line: &str) {
        say!("{}", self.terminal.render(line));
    }
}

fn prefix(kernel: Option<&str>) -> String {
    kernel.map_or_else(String::new, |kernel| format!("[{kernel}] "))
}

#[cfg(test)]
mod tests {
    use super::super::{Count, Unit};
    use super::*;

    #[test]
    fn a_silent_phase_gives_a_sign_of_life_each_minute() {
        let mut plain = Plain::new(Terminal::default());
        let start = Event::Start { phase: Phase::Compile, what: "make" };
        plain.render(ScopedEvent { kernel: Some("6.1"), event: &start });
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(plain.signs_of_life(at(59)).is_empty());
        assert_eq!(plain.signs_of_life(at(61)), ["[6.1] Compile: make (running for 1 min 01 s)"]);
        assert!(plain.signs_of_life(at(120)).is_empty());
        let count = Count {
            done: 3,
            total: Some(9),
            estimated: true,
            work: None,
            unit: Unit::Steps,
            item: "LD vmlinux",
        };
        let progress = Event::Progress { phase: Phase::Compile, count, seconds_left: None };
        plain.render(ScopedEvent { kernel: Some("6.1"), event: &progress });
        assert_eq!(
            plain.signs_of_life(at(125)),
            ["[6.1] Compile: 33 %  3/~9  LD vmlinux (running for 2 min 05 s)"]
        );
        plain.clear(None);
        assert!(plain.signs_of_life(at(1000)).is_empty());
    }
}
