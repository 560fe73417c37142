//! Colors of tables and comparisons.

use crate::util::terminal::{Color, Terminal};

/// Paints the status of each line of a table, if it is the first word.
pub fn first_word(text: &str, terminal: Terminal) -> String {
    status(text, 0, terminal)
}

/// Paints the status of each line of a table, if it is the third word.
pub fn third_word(text: &str, terminal: Terminal) -> String {
    status(text, 2, terminal)
}

fn status(text: &str, number: usize, terminal: Terminal) -> String {
    let paint = |line: &str| {
        let word = line.split_whitespace().nth(number)?;
        let color = match word {
            "ok" | "met" | "supported" => Color::Good,
            "FAILED" | "DAMAGED" | "REFUSED" | "MISSING" | "REQUIRED" | "FORBIDDEN" => Color::Bad,
            "recommended" | "optional" | "untested" => Color::Warning,
            "open" => Color::Hint,
            _ => return None,
        };
        // The words are of one text, so their distance is the place of this one.
        let start = word.as_ptr() as usize - line.as_ptr() as usize;
        Some(format!("{}{}{}", &line[..start], terminal.paint(color, word), &line[start + word.len()..]))
    };
    lines(text, |line| paint(line).unwrap_or_else(|| line.to_owned()))
}

/// Paints what only the first side has and old values red, and new ones green.
pub fn difference(text: &str, terminal: Terminal) -> String {
    let mut color = None;
    lines(text, |line| {
        let is_heading = !line.starts_with(' ');
        if is_heading {
            color = match line.split(" (").next().unwrap_or_default() {
                "removed" | "removed modules" | "only in the first" => Some(Color::Bad),
                "new" | "new modules" | "only in the second" => Some(Color::Good),
                _ => None,
            };
            return line.to_owned();
        }
        match (color, line.split_once(": ")) {
            (Some(color), _) => terminal.paint(color, line),
            (None, Some((name, change))) => match change.split_once(" -> ") {
                Some((old, new)) => {
                    let (old, new) = (terminal.paint(Color::Bad, old), terminal.paint(Color::Good, new));
                    format!("{name}: {old} -> {new}")
                }
                None => line.to_owned(),
            },
            (None, None) => line.to_owned(),
        }
    })
}

fn lines(text: &str, mut paint: impl FnMut(&str) -> String) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => paint(line) + "\n",
            None => paint(line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOR: Terminal =
        Terminal { is_terminal: true, can_redraw: true, color: true, ascii: false, has_progress: false };

    #[test]
    fn only_the_status_is_painted() {
        let table = "  ok       index   ok\n  FAILED   size    x\n\nno status";
        let painted = first_word(table, COLOR);
        assert_eq!(
            painted,
            "  \u{1b}[32mok\u{1b}[0m       index   ok\n  \u{1b}[1;31mFAILED\u{1b}[0m   size    x\n\nno status"
        );
        assert_eq!(third_word("6.1 amd64 untested x\n", COLOR), "6.1 amd64 \u{1b}[33muntested\u{1b}[0m x\n");
        assert_eq!(first_word(table, Terminal::default()), table);
    }

    #[test]
    fn a_difference_is_red_and_green() {
        let text = "config\nchanged (1)\n  PSI: n -> y\n\nnew (1)\n  A=y\n\nremoved (1)\n  B=y\n";
        let painted = difference(text, COLOR);
        let (red, green, end) = ("\u{1b}[1;31m", "\u{1b}[32m", "\u{1b}[0m");
        let expected = format!(
            "config\nchanged (1)\n  PSI: {red}n{end} -> {green}y{end}\n\nnew (1)\n{green}  A=y{end}\n\nremoved (1)\n{red}  B=y{end}\n"
        );
        assert_eq!(painted, expected);
        assert_eq!(difference(text, Terminal::default()), text);
    }
}
