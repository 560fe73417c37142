//! What standard output and standard error are, and what they can show.

use rustix::fd::AsFd;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// `--color`. The values have no comments, since --help of every command would print them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorChoice {
    #[default]
    Auto,
    Always,
    Never,
}

/// A standard stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    pub is_terminal: bool,
    /// Whether lines can be redrawn, as on every terminal that is not dumb and not the log of a CI job.
    pub can_redraw: bool,
    pub color: bool,
    /// Whether only ASCII can be shown, as on a terminal whose locale is not UTF-8.
    pub ascii: bool,
    /// Whether the terminal shows progress on its tab or in the taskbar (OSC 9;4).
    pub has_progress: bool,
}

/// Both standard streams that kcompile writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminals {
    pub stdout: Terminal,
    pub stderr: Terminal,
}

/// The meaning of a color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Good,
    Bad,
    Warning,
    Hint,
}

impl Color {
    /// Returns the parameters of SGR (ECMA-48).
    fn sgr(self) -> &'static str {
        match self {
            Color::Good => "32",
            Color::Bad => "1;31",
            Color::Warning => "33",
            Color::Hint => "36",
        }
    }
}

impl Terminal {
    /// Returns `text` in a color, if the stream has colors.
    pub fn paint(self, color: Color, text: &str) -> String {
        if self.color { format!("\x1b[{}m{text}\x1b[0m", color.sgr()) } else { text.to_owned() }
    }

    /// Returns `text` with the characters that this terminal shows. The program's own characters have
    /// ASCII replacements, and all others become `?`.
    pub fn render(self, text: &str) -> String {
        if !self.ascii || text.is_ascii() {
            return text.to_owned();
        }
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '…' => shown.push_str("..."),
                '✓' => shown.push_str("ok"),
                '×' | '✗' => shown.push('x'),
                '–' | '—' => shown.push('-'),
                c if c.is_ascii() => shown.push(c),
                _ => shown.push('?'),
            }
        }
        shown
    }
}

/// Returns the width of a terminal. Returns `None` for a file, or if the width is unknown.
pub fn columns(stream: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// What removes the live lines from the terminal. Empty if there are none.
static REMOVE_LIVE_LINES: Mutex<&str> = Mutex::new("");

/// Sets what [`restore`] writes.
pub fn set_restore(sequence: &'static str) {
    *REMOVE_LIVE_LINES.lock().unwrap_or_else(PoisonError::into_inner) = sequence;
}

/// Removes the live lines from the terminal, before the process stops or exits.
pub fn restore() {
    let sequence = std::mem::take(&mut *REMOVE_LIVE_LINES.lock().unwrap_or_else(PoisonError::into_inner));
    let _ = std::io::stderr().write_all(sequence.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_with_colors_gets_them() {
        let color = Terminal { color: true, ..Terminal::default() };
        assert_eq!(color.paint(Color::Bad, "error:"), "\u{1b}[1;31merror:\u{1b}[0m");
        assert_eq!(Terminal::default().paint(Color::Bad, "error:"), "error:");
    }

    #[test]
    fn without_utf_8_everything_is_ascii() {
        let ascii = Terminal { ascii: true, ..Terminal::default() };
        assert_eq!(ascii.render("✓ sha256:12… – ä"), "ok sha256:12... - ?");
        assert_eq!(Terminal::default().render("✓ …"), "✓ …");
    }
}
