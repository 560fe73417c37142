//! The console of a machine: what the kernel and our init print there, a line at a time. Whoever made the
//! kernel wrote it, so all that is kept is bounded, and shown with its control characters spelled out.

use crate::util::text::is_printable;
use std::fmt::Write as _;

/// Longer lines are cut.
const MAX_LINE: usize = 400;
/// So many troubles are kept; a kernel in trouble has more and more of them.
const MAX_ISSUES: usize = 20;
/// So many lines after the first one of a trouble belong to it.
const MAX_ISSUE_LINES: usize = 30;
/// So many lines before the end are kept, for a machine that said nothing of why it ended.
const MAX_LAST_LINES: usize = 8;
/// So many lines of a module that is being loaded are kept, for the reason why it was refused.
const MAX_MODULE_LINES: usize = 4;
/// The init checks a dozen things.
const MAX_CHECKS: usize = 100;
/// What the init's lines begin with.
const PREFIX: &str = "kcompile: ";

/// What a console has shown so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Console {
    /// Has it shown anything at all?
    pub has_output: bool,
    /// The kernel's clock when its first process began, in seconds.
    pub seconds_to_init: Option<f64>,
    /// Does the init run, with a clock or without?
    pub init: bool,
    /// What uname(2) says.
    pub release: Option<String>,
    /// What came of loading each module, by its place in the order.
    pub modules: Vec<Option<ModuleLoad>>,
    /// The module that is being loaded.
    pub loading: Option<usize>,
    /// What the init tried.
    pub checks: Vec<GuestCheck>,
    /// Did the init come to its end?
    pub has_ended: bool,
    /// What the kernel said of itself that it should not have to say.
    pub issues: Vec<KernelIssue>,
    /// Troubles that were not kept.
    pub more_issues: usize,
    /// The last lines.
    pub last: Vec<String>,
    lines_of_module: Vec<String>,
    /// The trouble that still takes lines.
    open: Option<usize>,
}

/// What came of loading a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModuleLoad {
    /// 0, or the kernel's error.
    pub errno: i32,
    /// What the kernel printed meanwhile.
    pub lines: Vec<String>,
}

/// What came of a trial of the init's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GuestCheck {
    /// Its name.
    pub name: String,
    /// 0, or the kernel's error.
    pub errno: i32,
    /// The step that failed, or what was found.
    pub text: String,
}

/// A kernel's own complaint.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KernelIssue {
    /// How bad it is.
    #[serde(rename = "kind")]
    pub kind: KernelIssueKind,
    /// Its lines.
    pub lines: Vec<String>,
}

/// How bad a kernel's complaint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelIssueKind {
    /// It goes on.
    #[serde(rename = "warning")]
    Warning,
    /// A process of it was killed; what it held may be locked for ever.
    #[serde(rename = "oops")]
    Oops,
    /// It has stopped.
    #[serde(rename = "panic")]
    Panic,
}

impl Console {
    /// A console that is still dark, of a kernel that so many modules are to be loaded into.
    pub(super) fn new(modules: usize) -> Console {
        Console { modules: vec![None; modules], ..Console::default() }
    }

    /// Has the kernel stopped, or the init come to its end?
    pub(super) fn is_finished(&self) -> bool {
        self.has_ended || self.panic().is_some()
    }

    /// The panic.
    pub(super) fn panic(&self) -> Option<&KernelIssue> {
        self.issues.iter().find(|issue| issue.kind == KernelIssueKind::Panic)
    }

    /// Takes the next line, without its end.
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

    /// A line of the init's.
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

    /// A line of the kernel's.
    fn scan_line(&mut self, line: &str, text: &str) {
        let open = self.open.and_then(|open| self.issues.get_mut(open));
        match (classify(text), open) {
            // An oops has several lines that would each begin one, and often ends in a panic.
            (Some(kind), Some(open)) if kind <= open.kind => open.push_line(line),
            (Some(kind), _) => self.begin(KernelIssue { kind, lines: vec![line.to_owned()] }),
            (None, Some(open)) => {
                open.push_line(line);
                if text.starts_with("---[ end ") {
                    self.open = None;
                }
            }
            (None, None) => {}
        }
    }

    /// Another complaint. There is room for so many, always for a panic; an oops takes the place of one of the
    /// many warnings before it.
    fn begin(&mut self, issue: KernelIssue) {
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

/// What the kernel prints when it is in trouble: the beginnings of lines in `kernel/panic.c`, `lib/bug.c`,
/// `arch/*/kernel/traps.c`, `arch/*/mm/fault.c`, `kernel/watchdog.c`, `kernel/hung_task.c`, `kernel/rcu/`.
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

/// The clock before a line of the kernel's, `[    1.234567] `, with or without the caller behind it.
fn split_clock(line: &str) -> (Option<f64>, &str) {
    let bracket = |text: &'_ str| -> Option<(usize, usize)> {
        let end = text.strip_prefix('[')?.find(']')?;
        Some((1, end + 1))
    };
    let Some((from, to)) = bracket(line) else { return (None, line) };
    let Ok(clock) = line[from..to].trim().parse::<f64>() else { return (None, line) };
    let rest = &line[to + 1..];
    // CONFIG_PRINTK_CALLER puts the thread or the CPU there.
    let rest = match bracket(rest) {
        Some((from, to)) if rest[from..to].trim().starts_with(['T', 'C']) => &rest[to + 1..],
        _ => rest,
    };
    (Some(clock), rest.strip_prefix(' ').unwrap_or(rest))
}

/// A line as a terminal can bear it: control characters spelled out, and not too long.
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

    fn console(modules: usize, text: &str) -> Console {
        let mut console = Console::new(modules);
        text.lines().for_each(|line| console.push_line(line));
        console
    }

    #[test]
    fn the_inits_report_is_read() {
        let stderr = console(
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
        assert_eq!((stderr.seconds_to_init, stderr.release.as_deref()), (Some(1.436_039), Some("6.1.7")));
        assert_eq!(stderr.modules[0], Some(ModuleLoad { errno: 0, lines: vec![] }));
        let reason = "b: version magic '6.1.8' should be '6.1.7'".to_owned();
        assert_eq!(stderr.modules[1], Some(ModuleLoad { errno: 8, lines: vec![reason] }));
        assert_eq!((stderr.loading, &stderr.modules[2]), (Some(2), &None));
        assert_eq!(stderr.checks[0].text, "cpu memory");
        assert_eq!(stderr.checks[1], GuestCheck { name: "vsock".into(), errno: 97, text: "socket".into() });
        assert!(stderr.init && !stderr.is_finished() && stderr.issues.is_empty());
    }

    #[test]
    fn troubles_have_their_lines() {
        let stderr = console(
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
            stderr.issues.iter().map(|one| (one.kind, one.lines.len())).collect();
        use KernelIssueKind::{Oops, Panic, Warning};
        assert_eq!(kinds, [(Warning, 3), (Oops, 3), (Panic, 2)]);
        assert!(stderr.is_finished() && stderr.panic().unwrap().lines[0].contains("Attempted to kill init"));
        assert!(console(0, "[ 1.0] PCI: use \"pci=nocrs\" and report a bug").issues.is_empty());
    }

    #[test]
    fn an_oops_is_not_lost_among_warnings() {
        let mut stderr = Console::new(0);
        for _ in 0..30 {
            stderr.push_line("[    1.0] WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x1");
            stderr.push_line("[    1.0] ---[ end trace 0000000000000000 ]---");
        }
        stderr.push_line("[    2.0] BUG: kernel NULL pointer dereference, address: 0");
        stderr.push_line("[    2.0] Oops: 0000 [#1] SMP");
        let oops = stderr.issues.iter().find(|issue| issue.kind == KernelIssueKind::Oops).unwrap();
        assert_eq!((oops.lines.len(), stderr.issues.len(), stderr.more_issues), (2, MAX_ISSUES, 11));
    }

    #[test]
    fn a_hostile_console_is_bounded_and_harmless() {
        let mut stderr = Console::new(1);
        for number in 0..5_000 {
            stderr.push_line(&format!("[    1.0] BUG: {number}"));
            stderr.push_line("---[ end trace");
            stderr.push_line(&format!("kcompile: check x{number} 0 {}", "y".repeat(9_000)));
            stderr.push_line("kcompile: load 0 x");
            stderr.push_line(&"z".repeat(9_000));
        }
        assert_eq!((stderr.issues.len(), stderr.checks.len()), (MAX_ISSUES, MAX_CHECKS));
        assert!(stderr.more_issues > 4_000 && stderr.last.len() == MAX_LAST_LINES);
        assert!(stderr.issues.iter().all(|issue| issue.lines.len() <= MAX_ISSUE_LINES));
        assert!(stderr.checks.iter().all(|check| check.text.len() <= MAX_LINE + 4));
        // A panic is the one thing that must not get lost in all this.
        stderr.push_line("Kernel panic - not syncing: at last");
        assert!(stderr.panic().is_some());
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
            stderr.push_line(odd);
        }
    }
}
