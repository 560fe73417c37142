//! A live line on the terminal for the phase in hand; a finished phase leaves a line behind.

use super::{Event, Unit};
use crate::words::duration;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

pub(super) struct Bar {
    color: bool,
    live: Option<ProgressBar>,
    counting: Option<(Unit, bool)>,
}

impl Bar {
    pub(super) fn new(color: bool) -> Bar {
        Bar { color, live: None, counting: None }
    }

    pub(super) fn clear(&mut self) {
        if let Some(live) = self.live.take() {
            live.finish_and_clear();
        }
        self.counting = None;
    }

    pub(super) fn render(&mut self, event: &Event<'_>) {
        match event {
            Event::Start { phase, what } => {
                self.clear();
                let live = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
                live.set_style(style("{spinner} {prefix:10} {elapsed:>4}  {wide_msg}"));
                live.set_prefix(phase.title());
                live.set_message((*what).to_owned());
                live.enable_steady_tick(Duration::from_millis(125));
                self.live = Some(live);
            }
            Event::Progress { count, .. } => {
                let Some(live) = &self.live else { return };
                let kind = (count.unit, count.total.is_some());
                if self.counting != Some(kind) {
                    self.counting = Some(kind);
                    live.set_style(style(match kind {
                        (Unit::Bytes, true) => {
                            "{spinner} {prefix:10} {elapsed:>4}  {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left  {wide_msg}"
                        }
                        (Unit::Bytes, false) => "{spinner} {prefix:10} {elapsed:>4}  {bytes} {bytes_per_sec}  {wide_msg}",
                        (Unit::Steps, true) => "{spinner} {prefix:10} {elapsed:>4}  {bar:24} {pos}/{len}, {eta} left  {wide_msg}",
                        (Unit::Steps, false) => "{spinner} {prefix:10} {elapsed:>4}  {pos} steps  {wide_msg}",
                    }));
                }
                if let Some(total) = count.total {
                    live.set_length(total.max(count.done));
                }
                live.set_position(count.done);
                live.set_message(count.item.to_owned());
            }
            Event::Finish { phase, seconds, what, .. } => {
                self.clear();
                let took = duration(Duration::from_secs_f64(*seconds));
                say!("{} {:10} {took:>11}  {what}", self.paint("32", "✓"), phase.title());
            }
            Event::Note { text } => self.say(&format!("{} {text}", self.paint("36", "note:"))),
            Event::Finding { text } => self.say(&format!("{} {text}", self.paint("33", "warning:"))),
            Event::Error { text, hint, .. } => {
                say!("{} {text}", self.paint("1;31", "error:"));
                hint.iter().for_each(|hint| say!("{} {hint}", self.paint("36", "hint:")));
            }
            Event::Summary(summary) => say!("{summary}"),
        }
    }

    /// Prints a line above the live one.
    fn say(&self, line: &str) {
        match &self.live {
            Some(live) => live.suspend(|| say!("{line}")),
            None => say!("{line}"),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("our own template");
    style.progress_chars("━╸ ").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}
