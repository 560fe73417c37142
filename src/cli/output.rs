//! Standard output: results, JSON, and text that fits a terminal.

use crate::host::Host;
use crate::kconfig::{Comparison, Renamed, Setting};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::json::Versioned;
use crate::util::terminal::{Terminal, columns};
use crate::util::text::{escape_control, is_printable, sanitize_line, wrap};
use camino::Utf8Path;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;

/// The width of text in files and pipes.
const DEFAULT_WIDTH: usize = 80;
/// The width of text on wider terminals. Longer lines are hard to read.
const MAX_WIDTH: usize = 120;
/// The width of text on narrower terminals, which break its lines.
const MIN_WIDTH: usize = 40;
/// A table on a narrower terminal has no columns.
const MIN_TABLE: usize = 60;

/// What standard output is. The default is a file.
static STDOUT: OnceLock<Terminal> = OnceLock::new();

/// Sets what standard output is, once.
pub fn set_stdout(terminal: Terminal) {
    let _ = STDOUT.set(terminal);
}

fn stdout() -> Terminal {
    STDOUT.get().copied().unwrap_or_default()
}

/// Returns the width of text output, in columns.
pub fn width() -> usize {
    let columns = if stdout().is_terminal { columns(std::io::stdout()) } else { None };
    columns.map_or(DEFAULT_WIDTH, |columns| columns.clamp(MIN_WIDTH, MAX_WIDTH))
}

/// Returns whether the terminal is too narrow for columns.
pub fn is_narrow() -> bool {
    width() < MIN_TABLE
}

/// Prints `text` with its control characters escaped.
pub fn print(text: &str) -> Result<()> {
    print_verbatim(&stdout().render(&escape_control(text)))
}

/// Prints `text` like [`print()`], in the colors that `paint` gives.
pub fn print_painted(text: &str, paint: impl Fn(&str, Terminal) -> String) -> Result<()> {
    let terminal = stdout();
    print_verbatim(&paint(&terminal.render(&escape_control(text)), terminal))
}

/// Prints `text`, such as a `.config` or a man page, as it is. A closed pipe is not an error.
pub fn print_verbatim(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    // Without the flush, an error of the last line would get lost at the exit.
    check_written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Turns a failure to write to standard output into an error. A closed pipe is none.
pub fn check_written(written: std::io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::build("cannot write to standard output").caused_by(error))
                .map_err(|error| error.hint("check the file, disk or device that standard output goes to"))
        }
        _ => Ok(()),
    }
}

/// Formats an object as JSON, with its `schema` first.
pub fn render_json(object: &impl Serialize) -> String {
    escaped_json(&Versioned::new(object))
}

/// Formats the output of a command that may have several results.
pub fn render_items(items: &[impl Serialize]) -> String {
    render_json(&BTreeMap::from([("items", items)]))
}

/// Formats `value` as JSON with all control characters escaped. serde_json escapes only those of ASCII.
/// Control characters occur only in strings, where an escape has the same meaning.
fn escaped_json(value: &impl Serialize) -> String {
    let json = serde_json::to_string_pretty(value).expect("objects with only string keys");
    let mut shown = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        if c == '\n' || is_printable(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(shown, "\\u{unit:04x}").expect("writing to a string");
        }
    }
    shown.push('\n');
    shown
}

/// Prints what [`render_items`] returns, one item at a time, since each may be large.
#[derive(Default)]
pub struct ItemsPrinter {
    count: usize,
}

impl ItemsPrinter {
    pub fn add(&mut self, item: &impl Serialize) -> Result<()> {
        self.count += 1;
        let before = if self.count == 1 { ITEMS_START } else { "," };
        let lines = escaped_json(item).trim_end().replace('\n', "\n    ");
        print(&format!("{before}\n    {lines}"))
    }

    /// Prints the end, also after a failure, so that the JSON is complete. If the first item already failed,
    /// nothing is printed.
    pub fn finish(self, result: Result<()>) -> Result<()> {
        match self.count {
            0 if result.is_err() => return result,
            0 => print(&format!("{ITEMS_START}]\n}}\n"))?,
            _ => print("\n  ]\n}\n")?,
        }
        result
    }
}

const ITEMS_START: &str = "{\n  \"schema\": 1,\n  \"items\": [";

/// Formats the line that scripts read: `PATH:TAG DIGEST`.
pub fn line(layout: &Utf8Path, tag: &str, digest: Sha256, host: &Host) -> String {
    format!("{}:{tag} {}\n", crate::ops::context::display_path(layout, host), digest.oci())
}

/// Formats a comparison in groups, the most important first.
pub fn groups(comparison: &Comparison) -> String {
    if comparison.is_equal() {
        return "the settings are equal\n".to_owned();
    }
    let Comparison { new, removed, renamed: other_names, changed } = comparison;
    let lines = changed.iter().map(|one| format!("{}: {} -> {}", one.symbol, one.from, one.to));
    let mut text = group(&format!("changed ({})", changed.len()), lines.collect());
    let lines = other_names.iter().map(renamed).collect();
    text.push_str(&group(&format!("renamed ({})", other_names.len()), lines));
    for (heading, list, off) in [("new", new, "are off"), ("removed", removed, "were off")] {
        let on: Vec<String> = list.iter().filter(|one| one.is_on()).map(render_setting).collect();
        let rest = match list.len() - on.len() {
            0 => String::new(),
            rest => format!(", and {rest} that {off}"),
        };
        text.push_str(&group(&format!("{heading} ({}{rest})", on.len()), on));
    }
    text
}

/// Formats a list under a heading. An empty list gives an empty text.
pub fn group(heading: &str, list: Vec<String>) -> String {
    if list.is_empty() {
        return String::new();
    }
    let below = |line: String| lines(&line, "    ").replacen("    ", "  ", 1);
    format!("\n{heading}\n{}", list.into_iter().map(below).collect::<String>())
}

/// Wraps and indents untrusted text.
pub fn lines(text: &str, indent: &str) -> String {
    let lines = wrap(&sanitize_line(text), width() - indent.len()).into_iter();
    lines.map(|line| format!("{indent}{line}\n")).collect()
}

/// Formats an old setting and its successors.
pub fn renamed(renamed: &Renamed) -> String {
    let new: Vec<String> = renamed.new.iter().map(render_setting).collect();
    format!("{} -> {}", render_setting(&renamed.old), new.join(", "))
}

pub fn render_setting(setting: &Setting) -> String {
    format!("{}={}", setting.symbol, setting.value)
}

/// Formats the reference of an image as the user would type it.
pub fn reference(layout: &Utf8Path, tag: Option<&str>, host: &Host) -> String {
    let layout = crate::ops::context::display_path(layout, host);
    escape_control(&tag.map_or(layout.clone(), |tag| format!("{layout}:{tag}")))
}

/// Labels and their values in two columns.
pub struct Fields {
    text: String,
    /// The column at which values begin.
    column: usize,
    /// Where lines wrap, if they do.
    width: Option<usize>,
}

impl Fields {
    /// Creates an empty list whose values begin at `column` and wrap at [`width`].
    pub fn new(column: usize) -> Fields {
        Fields { text: String::new(), column, width: Some(width()) }
    }

    /// Creates an empty list whose values wrap only on a terminal, which would break them anywhere.
    pub fn unbroken(column: usize) -> Fields {
        Fields { width: stdout().is_terminal.then(width), ..Fields::new(column) }
    }

    /// Adds a value, which may be untrusted text.
    pub fn add(&mut self, label: &str, value: &str) {
        self.add_at(self.column, label, value);
    }

    /// Adds a value that begins at another column.
    pub fn add_at(&mut self, column: usize, label: &str, value: &str) {
        let mut label = label;
        let value = escape_control(value);
        let lines = self.width.map_or_else(|| vec![value.clone()], |width| wrap(&value, width - column));
        for line in lines {
            self.text.push_str(&format!("{label:indent$} {line}\n", indent = column - 1));
            label = "";
        }
    }

    /// Adds several values under one label.
    pub fn add_all(&mut self, label: &str, values: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut label = label;
        for value in values {
            self.add(label, value.as_ref());
            label = "";
        }
    }

    pub fn text(self) -> String {
        self.text
    }
}

/// Formats a row of a table, whose columns have these widths on a terminal of 80 columns. Cells wrap at the
/// width of their column. On a narrow terminal a row has its first cells on a line, and the others below.
pub fn row<const N: usize>(cells: [&str; N], widths: [usize; N]) -> String {
    if is_narrow() {
        return stacked_row(&cells, width());
    }
    let widths = fit(widths, width());
    let cells = cells.map(str::to_owned).into_iter().zip(widths);
    let cells: Vec<(Vec<String>, usize)> = cells.map(|(cell, width)| (wrap(&cell, width), width)).collect();
    let height = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or_default();
    let mut text = String::new();
    for index in 0..height {
        let line = cells.iter().map(|(lines, width)| {
            let part = lines.get(index).map_or("", String::as_str);
            format!("{part:width$}")
        });
        let line = line.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Gives the widest column what the terminal has more or less than 80 columns.
fn fit<const N: usize>(mut widths: [usize; N], width: usize) -> [usize; N] {
    if let Some(widest) = widths.iter_mut().max() {
        *widest = (*widest + width).saturating_sub(DEFAULT_WIDTH).max(1);
    }
    widths
}

/// Formats a row without columns.
fn stacked_row(cells: &[&str], width: usize) -> String {
    let (first, rest) = cells.split_at(cells.len().min(3));
    let join = |cells: &[&str], separator| {
        let filled = cells.iter().copied().filter(|cell| !cell.is_empty());
        filled.collect::<Vec<_>>().join(separator)
    };
    let mut text = String::new();
    for (part, indent) in [(join(first, "  "), "  "), (join(rest, " | "), "    ")] {
        wrap(&part, width - indent.len()).iter().for_each(|line| text.push_str(&format!("{indent}{line}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_column_takes_the_rest_of_the_terminal() {
        assert_eq!(fit([0, 7, 11, 57], 80), [0, 7, 11, 57]);
        assert_eq!(fit([0, 7, 11, 57], 120), [0, 7, 11, 97]);
        assert_eq!(fit([0, 7, 11, 57], 60), [0, 7, 11, 37]);
    }

    #[test]
    fn a_row_on_a_narrow_terminal_has_no_columns() {
        let text = stacked_row(&["", "REQUIRED", "NETFILTER_XT_TARGET_REJECT", "none is on", "y or m"], 40);
        assert_eq!(text, "  REQUIRED NETFILTER_XT_TARGET_REJECT\n    none is on | y or m\n");
        let long = stacked_row(&["", "ok", "kernel", &"words ".repeat(20)], 40);
        assert!(long.lines().count() > 2 && long.lines().all(|line| line.len() <= 40), "{long}");
    }
}
