//! Lines for a log: when a phase starts and ends, and now and then how far it is.

use super::{Event, Unit};
use crate::words::{duration, size};
use std::time::{Duration, Instant};

/// A log wants a sign of life, not every step.
const EVERY: Duration = Duration::from_secs(15);

pub(super) struct Plain {
    last: Instant,
}

impl Plain {
    pub(super) fn new() -> Plain {
        Plain { last: Instant::now() }
    }

    pub(super) fn render(&mut self, event: &Event<'_>) {
        match event {
            Event::Start { phase, what } => {
                self.last = Instant::now();
                say!("{}: {what}", phase.title());
            }
            Event::Progress { phase, count } => {
                if self.last.elapsed() < EVERY {
                    return;
                }
                self.last = Instant::now();
                let number = |n: u64| match count.unit {
                    Unit::Bytes => size(n),
                    Unit::Steps => n.to_string(),
                };
                let total = count.total.filter(|&total| total >= count.done);
                let of = total.map_or_else(String::new, |total| format!(" of {}", number(total)));
                say!("{}: {}{of}  {}", phase.title(), number(count.done), count.item);
            }
            Event::Finish { phase, seconds, what, .. } => {
                say!("{}: done in {}: {what}", phase.title(), duration(Duration::from_secs_f64(*seconds)));
            }
            Event::Note { text } => say!("note: {text}"),
            Event::Finding { text } => say!("warning: {text}"),
            Event::Error { text, hint, .. } => {
                say!("error: {text}");
                hint.iter().for_each(|hint| say!("hint: {hint}"));
            }
            Event::Summary(summary) => say!("{summary}"),
        }
    }
}
