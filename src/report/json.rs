//! One JSON object a line, for programs. `event` is `start`, `progress`, `finish`, `note` or
//! `finding`; times are seconds.

use super::Event;
use std::time::{Duration, Instant};

/// More often would cost more than it tells.
const EVERY: Duration = Duration::from_millis(200);

pub(super) struct Json {
    last: Option<Instant>,
}

impl Json {
    pub(super) fn new() -> Json {
        Json { last: None }
    }

    pub(super) fn render(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Progress { .. }) {
            if self.last.is_some_and(|last| last.elapsed() < EVERY) {
                return;
            }
            self.last = Some(Instant::now());
        }
        say!("{}", serde_json::to_string(event).expect("events have only string keys"));
    }
}
