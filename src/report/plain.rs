//! Lines for a log: when a phase starts and ends, and now and then how far it is.

use super::{Event, ScopedEvent, Unit};
use crate::util::text::{escape_control, format_duration, format_size};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A log wants a sign of life, not every step.
const MIN_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(super) struct Plain {
    /// When the kernel last gave a sign of life.
    last: BTreeMap<Option<String>, Instant>,
}

impl Plain {
    pub(super) fn render(&mut self, ScopedEvent { kernel, event }: ScopedEvent<'_>) {
        // The word that a line begins with where several kernels speak at once.
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
