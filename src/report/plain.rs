//! Plain lines for logs: the start and end of each phase, and some progress.

use super::{Event, ScopedEvent, Unit};
use crate::util::text::{escape_control, format_duration, format_size};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The least time between two progress lines of a kernel.
const MIN_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(super) struct Plain {
    /// When each kernel printed its last line.
    last: BTreeMap<Option<String>, Instant>,
}

impl Plain {
    pub(super) fn render(&mut self, ScopedEvent { kernel, event }: ScopedEvent<'_>) {
        // Lines name their kernel in a run of several.
        let prefix = kernel.map_or_else(String::new, |kernel| format!("[{kernel}] "));
        match event {
            Event::Start { phase, what } => {
                self.last.insert(kernel.map(str::to_owned), Instant::now());
                say!("{prefix}{}: {what}", phase.title());
            }
            Event::Progress { phase, count } => {
                let last = self.last.entry(kernel.map(str::to_owned)).or_insert_with(Instant::now);
                if last.elapsed() < MIN_INTERVAL {
                    return;
                }
                *last = Instant::now();
                let number = |n: u64| match count.unit {
                    Unit::Bytes => format_size(n),
                    Unit::Steps => n.to_string(),
                };
                let total = count.total.filter(|&total| total >= count.done);
                let of = total.map_or_else(String::new, |total| format!(" of {}", number(total)));
                say!("{prefix}{}: {}{of}  {}", phase.title(), number(count.done), count.item);
            }
            Event::Finish { phase, seconds, what, .. } => {
                let took = format_duration(Duration::from_secs_f64(*seconds));
                say!("{prefix}{}: done in {took}: {what}", phase.title());
            }
            Event::Note { text } => say!("{prefix}note: {text}"),
            Event::Warning { text } => say!("{prefix}warning: {text}"),
            Event::Error { text, hint, .. } => {
                say!("{prefix}error: {text}");
                hint.iter().for_each(|hint| say!("{prefix}hint: {hint}"));
            }
            Event::KernelSummary(summary) => say!("{}", escape_control(&summary.to_string())),
            Event::RunSummary(run_summary) => say!("{}", escape_control(&run_summary.to_string())),
        }
    }
}
