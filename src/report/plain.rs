//! Lines for a log: when a phase starts and ends, and now and then how far it is.

use super::{Event, Told, Unit};
use crate::util::text::{duration, printable, size};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A log wants a sign of life, not every step.
const EVERY: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(super) struct Plain {
    /// When the kernel last gave a sign of life.
    last: BTreeMap<Option<String>, Instant>,
}

impl Plain {
    pub(super) fn render(&mut self, Told { kernel, event }: Told<'_>) {
        // The word that a line begins with where several kernels speak at once.
        let whose = kernel.map_or_else(String::new, |kernel| format!("[{kernel}] "));
        match event {
            Event::Start { phase, what } => {
                self.last.insert(kernel.map(str::to_owned), Instant::now());
                say!("{whose}{}: {what}", phase.title());
            }
            Event::Progress { phase, count } => {
                let last = self.last.entry(kernel.map(str::to_owned)).or_insert_with(Instant::now);
                if last.elapsed() < EVERY {
                    return;
                }
                *last = Instant::now();
                let number = |n: u64| match count.unit {
                    Unit::Bytes => size(n),
                    Unit::Steps => n.to_string(),
                };
                let total = count.total.filter(|&total| total >= count.done);
                let of = total.map_or_else(String::new, |total| format!(" of {}", number(total)));
                say!("{whose}{}: {}{of}  {}", phase.title(), number(count.done), count.item);
            }
            Event::Finish { phase, seconds, what, .. } => {
                let took = duration(Duration::from_secs_f64(*seconds));
                say!("{whose}{}: done in {took}: {what}", phase.title());
            }
            Event::Note { text } => say!("{whose}note: {text}"),
            Event::Finding { text } => say!("{whose}warning: {text}"),
            Event::Error { text, hint, .. } => {
                say!("{whose}error: {text}");
                hint.iter().for_each(|hint| say!("{whose}hint: {hint}"));
            }
            Event::Summary(summary) => say!("{}", printable(&summary.to_string())),
            Event::Overview(overview) => say!("{}", printable(&overview.to_string())),
        }
    }
}
