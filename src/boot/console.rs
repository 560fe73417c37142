//! Reads what the kernel and init print on the console of the virtual machine, line by line. The
//! output is untrusted, so limits apply to all that is kept, and control characters are escaped.

use crate::util::text::is_printable;
use std::fmt::Write as _;

/// Longer lines are truncated.
const MAX_LINE: usize = 400;
/// The number of kernel issues that are kept. A broken kernel prints more and more of them.
const MAX_ISSUES: usize = 20;
/// The number of lines that are kept of a kernel issue.
const MAX_ISSUE_LINES: usize = 30;
/// The number of last lines that are kept, for a virtual machine that ends without a known reason.
const MAX_LAST_LINES: usize = 8;
/// The number of lines that are kept while a module is loaded, since they may explain a failure.
const MAX_MODULE_LINES: usize = 4;
/// Init runs a dozen checks.
const MAX_CHECKS: usize = 100;
/// The prefix of init's lines.
const PREFIX: &str = "kcompile: ";

/// The output of a console so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Console {
    pub has_output: bool,
    /// The kernel's clock when its first process started.
    pub seconds_to_init: Option<f64>,
    /// Whether init has started, also if the line has no clock.
    pub init: bool,
    /// The release from uname(2).
    pub release: Option<String>,
    /// The result for each module in load order.
    pub modules: Vec<Option<ModuleLoad>>,
    /// The module that is being loaded.
    pub loading: Option<usize>,
    pub checks: Vec<GuestCheck>,
    /// Whether init came to its end.
    pub has_ended: bool,
    /// Kernel warnings, oopses and panics.
    pub issues: Vec<KernelIssue>,
    /// The number of issues that were not kept.
    pub more_issues: usize,
    pub last: Vec<String>,
    lines_of_module: Vec<String>,
    /// The issue that the next lines belong to.
    open: Option<usize>,
}

/// The result of loading a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModuleLoad {
    /// 0 for success.
    pub errno: i32,
    /// What the kernel printed meanwhile.
    pub lines: Vec<String>,
}

/// The result of one of init's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GuestCheck {
    pub name: String,
    /// 0 for success.
    pub errno: i32,
    /// The step that failed, or what was found.
    pub text: String,
}

/// A kernel warning, oops or panic.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KernelIssue {
    pub kind: KernelIssueKind,
    pub lines: Vec<String>,
}

/// The severity of a kernel issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelIssueKind {
    /// The kernel goes on.
    Warning,
    /// The kernel killed a process, whose locks may be held for ever.
    Oops,
    /// The kernel has stopped.
    Panic,
}

impl Console {
    /// Returns an empty console for a boot that loads this number of modules.
    pub(super) fn new(modules: usize) -> Console {
        Console { modules: vec![None; modules], ..Console::default() }
    }

    /// Returns whether the kernel panicked or init came to its end.
    pub(super) fn is_finished(&self) -> bool {
        self.has_ended || self.panic().is_some()
    }

    pub(super) fn panic(&self) -> Option<&KernelIssue> {
        self.issues.iter().find(|issue| issue.kind == KernelIssueKind::Panic)
    }

    /// Reads the next line, without its newline.
    pub(super) fn push_line(&mut self, raw: &str) {
        let line = escape_line(raw);
        self.has_output |= !line.is_empty();
        if line.trim().is_empty() {
            return;
        }
        let (clock, text) = split_clock(&line);
        if let Some(report) = text.strip_prefix(PREFIX) {
            self.open = None;
            self.handle_init_line(clock, report);
        } else {
            self.scan_line(&line, text);
            if self.loading.is_some() && self.lines_of_module.len() < MAX_MODULE_LINES {
                self.lines_of_module.push(text.to_owned());
            }
        }
        if self.last.len() == MAX_LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
    }

    /// Reads a line of init.
    fn handle_init_line(&mut self, clock: Option<f64>, report: &str) {
        let (word, rest) = report.split_once(' ').unwrap_or((report, ""));
        match word {
            "init" => {
                self.init = true;
                self.seconds_to_init = self.seconds_to_init.or(clock);
            }
            "release" => self.release = Some(rest.to_owned()),
            "load" => {
                self.loading = rest.split(' ').next().and_then(|number| number.parse().ok());
                self.lines_of_module.clear();
            }
            "loaded" => {
                let mut numbers = rest.split(' ').map(str::parse::<i32>);
                let (Some(Ok(number)), Some(Ok(errno))) = (numbers.next(), numbers.next()) else { return };
                let place = usize::try_from(number).ok().and_then(|number| self.modules.get_mut(number));
                if let Some(place) = place {
                    *place = Some(ModuleLoad { errno, lines: std::mem::take(&mut self.lines_of_module) });
                }
                self.loading = None;
            }
            "check" => {
                let mut fields = rest.splitn(3, ' ');
                let (Some(name), Some(Ok(errno))) = (fields.next(), fields.next().map(str::parse)) else {
                    return;
                };
                let text = fields.next().unwrap_or_default().trim().to_owned();
                if self.checks.len() < MAX_CHECKS {
                    self.checks.push(GuestCheck { name: name.to_owned(), errno, text });
                }
            }
            "end" => self.has_ended = true,
            _ => {}
        }
    }

    /// Reads a line of the kernel.
    fn scan_line(&mut self, line: &str, text: &str) {
        let open = self.open.and_then(|open| self.issues.get_mut(open));
        match (classify(text), open) {
            // An oops has several lines that would each start an issue, and often ends in a panic.
            (Some(kind), Some(open)) if kind <= open.kind => open.push_line(line),
            (Some(kind), _) => self.start_issue(KernelIssue { kind, lines: vec![line.to_owned()] }),
            (None, Some(open)) => {
                open.push_line(line);
                if text.starts_with("---[ end ") {
                    self.open = None;
                }
            }
            (None, None) => {}
        }
    }

    /// Starts an issue. If there are too many, a panic is still kept, and an oops replaces a warning.
    fn start_issue(&mut self, issue: KernelIssue) {
        if self.issues.len() < MAX_ISSUES || issue.kind == KernelIssueKind::Panic {
            self.open = Some(self.issues.len());
            self.issues.push(issue);
            return;
        }
        self.more_issues += 1;
        let place = self.issues.iter().rposition(|one| one.kind < issue.kind);
        if let Some(place) = place {
            self.issues[place] = issue;
            self.open = Some(place);
        }
    }
}

impl KernelIssue {
    fn push_line(&mut self, line: &str) {
        if self.lines.len() < MAX_ISSUE_LINES {
            self.lines.push(line.to_owned());
        }
    }
}

/// Recognizes the first lines of issues that are printed by `kernel/panic.c`, `lib/bug.c`,
/// `arch/*/kernel/traps.c`, `arch/*/mm/fault.c`, `kernel/watchdog.c`, `kernel/hung_task.c` and `kernel/rcu/`.
fn classify(text: &str) -> Option<KernelIssueKind> {
    const PANICS: [&str; 1] = ["Kernel panic - not syncing"];
    const OOPSES: [&str; 12] = [
        "BUG: ",
        "kernel BUG at ",
        "Oops",
        "Internal error: ",
        "Unable to handle kernel ",
        "general protection fault",
        "invalid opcode: ",
        "divide error: ",
        "stack segment: ",
        "double fault: ",
        "Bad page state ",
        "watchdog: BUG: ",
    ];
    const WARNINGS: [&str; 6] =
        ["WARNING: ", "UBSAN: ", "rcu: INFO: ", "INFO: task ", "INFO: rcu", "watchdog: "];
    let begins = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
    if begins(&PANICS) {
        Some(KernelIssueKind::Panic)
    } else if begins(&OOPSES) {
        Some(KernelIssueKind::Oops)
    } else {
        begins(&WARNINGS).then_some(KernelIssueKind::Warning)
    }
}

/// Splits off the kernel's clock, `[    1.234567] `, and the caller if there is one.
fn split_clock(line: &str) -> (Option<f64>, &str) {
    let bracket = |text: &'_ str| -> Option<(usize, usize)> {
        let end = text.strip_prefix('[')?.find(']')?;
        Some((1, end + 1))
    };
    let Some((from, to)) = bracket(line) else { return (None, line) };
    let Ok(clock) = line[from..to].trim().parse::<f64>() else { return (None, line) };
    let rest = &line[to + 1..];
    // CONFIG_PRINTK_CALLER adds the thread or the CPU.
    let rest = match bracket(rest) {
        Some((from, to)) if rest[from..to].trim().starts_with(['T', 'C']) => &rest[to + 1..],
        _ => rest,
    };
    (Some(clock), rest.strip_prefix(' ').unwrap_or(rest))
}

/// Escapes control characters and truncates long lines.
pub(super) fn escape_line(raw: &str) -> String {
    let mut line = String::new();
    for c in raw.trim_end_matches(['\r', '\n']).chars() {
        if line.len() >= MAX_LINE {
            line.push('…');
            break;
        }
        match c {
            '\t' => line.push(' '),
            c if !is_printable(c) => {
                write!(line, "{}", c.escape_unicode()).expect("writing to a string");
            }
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(modules: usize, text: &str) -> Console {
        let mut console = Console::new(modules);
        text.lines().for_each(|line| console.push_line(line));
        console
    }

    #[test]
    fn the_lines_of_init_are_read() {
        let console = read(
            3,
            "[    0.000000] Linux version 6.1.7\r\n\
             [    1.436039] kcompile: init\n\
             [    1.44][    T1] kcompile: release 6.1.7\n\
             kcompile: load 0 /lib/modules/6.1.7/a.ko\n\
             kcompile: loaded 0 0\n\
             [    2.0] kcompile: load 1 /lib/modules/6.1.7/b.ko\n\
             [    2.1] b: version magic '6.1.8' should be '6.1.7'\n\
             [    2.2] kcompile: loaded 1 8\n\
             [    2.2] kcompile: loaded 9 0\n\
             [    2.2] kcompile: loaded x\n\
             [    2.3] kcompile: check cgroup2 0 cpu memory\n\
             [    2.3] kcompile: check vsock 97 socket\n\
             [    2.4] kcompile: load 2 /x\n\
             [    9.9] kcompile: nonsense\n",
        );
        assert_eq!((console.seconds_to_init, console.release.as_deref()), (Some(1.436_039), Some("6.1.7")));
        assert_eq!(console.modules[0], Some(ModuleLoad { errno: 0, lines: vec![] }));
        let reason = "b: version magic '6.1.8' should be '6.1.7'".to_owned();
        assert_eq!(console.modules[1], Some(ModuleLoad { errno: 8, lines: vec![reason] }));
        assert_eq!((console.loading, &console.modules[2]), (Some(2), &None));
        assert_eq!(console.checks[0].text, "cpu memory");
        assert_eq!(console.checks[1], GuestCheck { name: "vsock".into(), errno: 97, text: "socket".into() });
        assert!(console.init && !console.is_finished() && console.issues.is_empty());
    }

    #[test]
    fn kernel_issues_keep_their_lines() {
        let console = read(
            0,
            "[    1.0] WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x1\n\
             [    1.0] Call Trace:\n\
             [    1.0] ---[ end trace 0000000000000000 ]---\n\
             [    1.1] fine again\n\
             [    2.0] BUG: kernel NULL pointer dereference, address: 0\n\
             [    2.0] Oops: 0000 [#1] SMP\n\
             [    2.0] RIP: 0010:init+0x1\n\
             [    2.1] Kernel panic - not syncing: Attempted to kill init!\n\
             [    2.1] Kernel Offset: disabled\n",
        );
        let kinds: Vec<(KernelIssueKind, usize)> =
            console.issues.iter().map(|one| (one.kind, one.lines.len())).collect();
        use KernelIssueKind::{Oops, Panic, Warning};
        assert_eq!(kinds, [(Warning, 3), (Oops, 3), (Panic, 2)]);
        assert!(
            console.is_finished() && console.panic().unwrap().lines[0].contains("Attempted to kill init")
        );
        assert!(read(0, "[ 1.0] PCI: use \"pci=nocrs\" and report a bug").issues.is_empty());
    }

    #[test]
    fn an_oops_is_not_lost_among_warnings() {
        let mut console = Console::new(0);
        for _ in 0..30 {
            console.push_line("[    1.0] WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x1");
            console.push_line("[    1.0] ---[ end trace 0000000000000000 ]---");
        }
        console.push_line("[    2.0] BUG: kernel NULL pointer dereference, address: 0");
        console.push_line("[    2.0] Oops: 0000 [#1] SMP");
        let oops = console.issues.iter().find(|issue| issue.kind == KernelIssueKind::Oops).unwrap();
        assert_eq!((oops.lines.len(), console.issues.len(), console.more_issues), (2, MAX_ISSUES, 11));
    }

    #[test]
    fn a_hostile_console_is_bounded_and_harmless() {
        let mut console = Console::new(1);
        for number in 0..5_000 {
            console.push_line(&format!("[    1.0] BUG: {number}"));
            console.push_line("---[ end trace");
            console.push_line(&format!("kcompile: check x{number} 0 {}", "y".repeat(9_000)));
            console.push_line("kcompile: load 0 x");
            console.push_line(&"z".repeat(9_000));
        }
        assert_eq!((console.issues.len(), console.checks.len()), (MAX_ISSUES, MAX_CHECKS));
        assert!(console.more_issues > 4_000 && console.last.len() == MAX_LAST_LINES);
        assert!(console.issues.iter().all(|issue| issue.lines.len() <= MAX_ISSUE_LINES));
        assert!(console.checks.iter().all(|check| check.text.len() <= MAX_LINE + 4));
        // A panic must never be lost.
        console.push_line("Kernel panic - not syncing: at last");
        assert!(console.panic().is_some());
        assert_eq!(escape_line("a\u{1b}[2J\tb\u{202e}c\r"), "a\\u{1b}[2J b\\u{202e}c");
        for odd in [
            "[",
            "[]",
            "[ x ] y",
            "[1.0",
            "[1.0]",
            "[ 1.0 ][",
            "kcompile: ",
            "[1.0] kcompile: check",
            "é[1.0]",
        ] {
            console.push_line(odd);
        }
    }
}
