//! What a terminal of 40, 80 and 120 columns shows, in `tests/golden/text/terminal-*.txt`.

use crate::support::context::TestContext;
use crate::support::golden::{compare, context, section};
use crate::support::normalize::without_places;
use crate::support::terminal::on_terminal_of;
use std::num::NonZero;

const BUILD: &str = "6.1.7 --fc --arch amd64 --config mini.config --sandbox off -j1";
/// More lines than any capture has.
const ROWS: u16 = 1000;

#[test]
fn commands_fit_terminals_of_40_80_and_120_columns() {
    for columns in [40, 80, 120] {
        let Some(mut context) = context() else { return };
        for (key, value) in [("TERM", "xterm"), ("LANG", "C.UTF-8")] {
            context.env.insert(key.into(), value.into());
        }
        let mut text = String::new();
        for args in [
            "list",
            "plan 6.1.7 --fc --arch amd64",
            "check mini.config --for firecracker,docker --arch amd64 --kernel 6.1.7",
            BUILD,
            &format!("{BUILD} --set MINI_FAIL=y --require none"),
        ] {
            let Some(ran) = on_terminal_of(&context, columns, args) else { return };
            let code = if ran.code == 0 { String::new() } else { format!(" (exit code {})", ran.code) };
            text += &section(&format!("{args}{code}"), &shown(&context, columns, &ran.stdout));
        }
        compare(&format!("text/terminal-{columns}.txt"), &text);
    }
}

/// Returns the lines that the terminal shows at the end. Places and times are masked before, since they decide
/// where the terminal breaks lines.
fn shown(context: &TestContext, columns: u32, output: &str) -> String {
    let size = [ROWS, columns as u16].map(|count| NonZero::new(count).unwrap());
    let mut terminal = vt100::Parser::new(size[0], size[1], 0);
    terminal.process(without_times(&without_places(context, output)).as_bytes());
    let lines = terminal.screen().rows(0, columns as u16);
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Replaces times by `0.0`, and keeps what is aligned with them.
fn without_times(output: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in output.split(' ') {
        let is_unit = word.strip_prefix('s').is_some_and(|rest| !rest.starts_with(char::is_alphanumeric));
        let is_time = |word: &&&str| word.contains('.') && word.parse::<f64>().is_ok();
        if let Some(time) = words.last().filter(is_time).filter(|_| is_unit).copied() {
            words.pop();
            if words.last() == Some(&"") {
                words.resize(words.len() + time.len() - 3, "");
            }
            words.push("0.0");
        }
        words.push(word);
    }
    words.join(" ")
}
