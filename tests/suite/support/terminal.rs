//! Runs kcompile on a terminal.

use crate::support::context::{RunResult, TestContext, has_tool};

/// Runs kcompile on a terminal of this width, which is standard output and standard error. Returns `None` without
/// the program `script`.
pub(crate) fn on_terminal_of(context: &TestContext, columns: u32, args: &str) -> Option<RunResult> {
    if !has_tool("script") {
        return None;
    }
    let script = format!("exec script -qec \"stty cols {columns}; $0 $*\" /dev/null");
    Some(context.run_by(&["sh", "-c", &script], args))
}

/// Returns text without colors.
pub(crate) fn without_colors(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| shown + part.split_once('m').map_or(part, |(_, rest)| rest))
}
