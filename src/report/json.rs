//! One JSON object per line, for programs. `event` is `start`, `progress`, `finish`, `note`, `finding`,
//! `error`, `summary` or `overview`. `kernel` names the kernel in a run of several. Times are in seconds.

use super::{Event, ScopedEvent};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The least time between two progress events of a kernel.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Json {
    last: BTreeMap<Option<String>, Instant>,
}

impl Json {
    pub(super) fn render(&mut self, scoped: ScopedEvent<'_>) {
        if matches!(scoped.event, Event::Progress { .. }) {
            let kernel = scoped.kernel.map(str::to_owned);
            if self.last.get(&kernel).is_some_and(|last| last.elapsed() < MIN_INTERVAL) {
                return;
            }
            self.last.insert(kernel, Instant::now());
        }
        say!("{}", serde_json::to_string(&scoped).expect("events have only string keys"));
    }
}
