//! One JSON object per line, for programs. `event` is `start`, `progress`, `finish`, `note`, `finding`,
//! `error`, `summary` or `overview`. `kernel` names the kernel in a run of several. Times are in seconds.

use super::event::{Event, ScopedEvent};
use crate::util::json::Versioned;
use serde::Serialize;
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
        say!("{}", line(&scoped));
    }
}

/// The error of a command with `--json`.
#[derive(Serialize)]
pub(super) struct ErrorObject<'a> {
    pub message: &'a str,
    pub hint: Option<&'a str>,
    pub kind: &'static str,
    pub exit_code: u8,
    /// The kernel, in a run of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<&'a str>,
}

/// Formats an error as one line.
pub(super) fn error(error: &ErrorObject<'_>) -> String {
    line(&BTreeMap::from([("error", error)]))
}

fn line(object: &impl Serialize) -> String {
    serde_json::to_string(&Versioned::new(object)).expect("objects with only string keys")
}
