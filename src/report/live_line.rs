//! The line of a running phase, which fits the terminal.

use super::event::Count;
use super::phase::Phase;
use super::progress_text::{self, ProgressText};
use crate::util::terminal::Terminal;
use crate::util::text::format_duration;
use std::time::{Duration, Instant};

/// The width of the bar. It is left out on a narrow terminal.
const BAR: usize = 16;
/// The least width of the current file. A shorter one says nothing.
const MIN_ITEM: usize = 10;

pub(super) struct LiveLine {
    phase: Phase,
    since: Instant,
    progress: Option<ProgressText>,
    pub percent: Option<u64>,
    item: String,
}

impl LiveLine {
    pub(super) fn new(phase: Phase, what: &str) -> LiveLine {
        LiveLine { phase, since: Instant::now(), progress: None, percent: None, item: what.to_owned() }
    }

    pub(super) fn set_progress(&mut self, count: &Count<'_>, left: Option<Duration>) {
        self.progress = Some(ProgressText::new(count, left));
        self.percent = progress_text::percent(count);
        count.item.clone_into(&mut self.item);
    }

    /// Returns the line for a terminal of this width. It leaves the last column free, where some terminals
    /// already break the line.
    pub(super) fn text(&self, prefix: &str, columns: usize, terminal: Terminal) -> String {
        self.text_after(prefix, columns, terminal, self.since.elapsed())
    }

    fn text_after(&self, prefix: &str, columns: usize, terminal: Terminal, elapsed: Duration) -> String {
        let width = columns.saturating_sub(1);
        let head = format!("{} {prefix}{:10}", spinner(elapsed, terminal), self.phase.title());
        let progress = self.progress.clone().unwrap_or_default();
        let mut parts = [
            // Tenths of a second would flicker.
            Some(elapsed_text(elapsed)),
            self.percent.map(|percent| bar(percent, terminal)),
            progress.percent,
            Some(progress.count).filter(|count| !count.is_empty()),
            progress.left,
        ];
        let join = |parts: &[Option<String>]| {
            let parts: Vec<&str> =
                std::iter::once(head.as_str()).chain(parts.iter().flatten().map(String::as_str)).collect();
            parts.join("  ")
        };
        // What can be spared first: the bar, the elapsed time, the count.
        for spared in [1, 0, 3] {
            if join(&parts).chars().count() <= width {
                break;
            }
            parts[spared] = None;
        }
        let line = join(&parts);
        let rest = width.saturating_sub(line.chars().count() + 2);
        let item = terminal.render(&self.item);
        let line =
            if rest >= MIN_ITEM && !item.is_empty() { format!("{line}  {}", cut(&item, rest)) } else { line };
        cut(&line, width)
    }
}

/// Returns the start of `text` in at most `width` columns. A character outside ASCII may take two columns.
fn cut(text: &str, width: usize) -> String {
    let mut used = 0;
    let fits = |c: &char| {
        used += if c.is_ascii() || matches!(c, '\u{2500}'..='\u{28ff}') { 1 } else { 2 };
        used <= width
    };
    text.chars().take_while(fits).collect()
}

fn elapsed_text(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format_duration(elapsed) }
}

fn spinner(elapsed: Duration, terminal: Terminal) -> char {
    let frames = if terminal.ascii { "|/-\\" } else { "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" };
    let count = frames.chars().count();
    frames.chars().nth((elapsed.as_millis() / 125) as usize % count).expect("a remainder is less")
}

fn bar(percent: u64, terminal: Terminal) -> String {
    let (full, empty) = if terminal.ascii { ('=', '.') } else { ('━', '┄') };
    let done = (percent.min(100) as usize * BAR) / 100;
    (0..BAR).map(|cell| if cell < done { full } else { empty }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::*;

    fn line(columns: usize, terminal: Terminal) -> String {
        let mut live = LiveLine::new(Phase::Compile, "make");
        let item = "CC      drivers/net/ethernet/somebody/something.o";
        let count =
            Count { done: 612, total: Some(1480), estimated: true, work: None, unit: Unit::Steps, item };
        live.set_progress(&count, Some(Duration::from_secs(290)));
        live.text_after("", columns, terminal, Duration::from_secs(185))
    }

    #[test]
    fn a_line_fits_every_terminal() {
        let ascii = Terminal { ascii: true, ..Terminal::default() };
        for (columns, expected) in [
            (40, "| Compile     41 %  about 5 min left"),
            (60, "| Compile     3 min 05 s  41 %  612/~1480  about 5 min left"),
            (80, "| Compile     3 min 05 s  ======..........  41 %  612/~1480  about 5 min left"),
            (
                120,
                "| Compile     3 min 05 s  ======..........  41 %  612/~1480  about 5 min left  CC      drivers/net/ethernet/somebody/so",
            ),
        ] {
            assert_eq!(line(columns, ascii), expected, "{columns}");
        }
        for columns in 0..200 {
            assert!(line(columns, Terminal::default()).chars().count() < columns.max(1), "{columns}");
        }
        assert!(line(120, Terminal::default()).starts_with("⠋ Compile     3 min 05 s  ━━━━━━┄┄"));
    }

    #[test]
    fn wide_characters_do_not_break_the_line() {
        assert_eq!(cut("ab漢字", 5), "ab漢");
        assert_eq!(cut("━━━", 2), "━━");
    }
}
