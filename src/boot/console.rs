//! The console of a machine: what the kernel and our init print there, a line at a time. Whoever made the
//! kernel wrote it, so all that is kept is bounded, and shown with its control characters spelled out.

use crate::util::text::is_plain;
use std::fmt::Write as _;

/// Longer lines are cut.
const LONGEST_LINE: usize = 400;
/// So many troubles are kept; a kernel in trouble has more and more of them.
const MOST_TROUBLES: usize = 20;
/// So many lines after the first one of a trouble belong to it.
const LINES_OF_TROUBLE: usize = 30;
/// So many lines before the end are kept, for a machine that said nothing of why it ended.
const LAST_LINES: usize = 8;
/// So many lines of a module that is being loaded are kept, for the reason why it was refused.
const LINES_OF_MODULE: usize = 4;
/// The init checks a dozen things.
const MOST_CHECKS: usize = 100;
/// What the init's lines begin with.
const PREFIX: &str = "kcompile: ";

/// What a console has shown so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Console {
    /// Has it shown anything at all?
    pub heard: bool,
    /// The kernel's clock when its first process began, in seconds.
    pub seconds_to_init: Option<f64>,
    /// Does the init run, with a clock or without?
    pub init: bool,
    /// What uname(2) says.
    pub release: Option<String>,
    /// What came of loading each module, by its place in the order.
    pub modules: Vec<Option<Loaded>>,
    /// The module that is being loaded.
    pub loading: Option<usize>,
    /// What the init tried.
    pub checks: Vec<Tried>,
    /// Did the init come to its end?
    pub ended: bool,
    /// What the kernel said of itself that it should not have to say.
    pub troubles: Vec<Trouble>,
    /// Troubles that were not kept.
    pub more_troubles: usize,
    /// The last lines.
    pub last: Vec<String>,
    lines_of_module: Vec<String>,
    /// The trouble that still takes lines.
    open: Option<usize>,
}

/// What came of loading a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    /// 0, or the kernel's error.
    pub errno: i32,
    /// What the kernel printed meanwhile.
    pub lines: Vec<String>,
}

/// What came of a trial of the init's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    /// Its name.
    pub name: String,
    /// 0, or the kernel's error.
    pub errno: i32,
    /// The step that failed, or what was found.
    pub text: String,
}

/// A kernel's own complaint.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Trouble {
    /// How bad it is.
    #[serde(rename = "kind")]
    pub kind: TroubleKind,
    /// Its lines.
    pub lines: Vec<String>,
}

/// How bad a kernel's complaint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TroubleKind {
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
    pub(super) fn is_over(&self) -> bool {
        self.ended || self.panic().is_some()
    }

    /// The panic.
    pub(super) fn panic(&self) -> Option<&Trouble> {
        self.troubles.iter().find(|trouble| trouble.kind == TroubleKind::Panic)
    }

    /// Takes the next line, without its end.
    pub(super) fn see(&mut self, raw: &str) {
        let line = shown(raw);
        self.heard |= !line.is_empty();
        if line.trim().is_empty() {
            return;
        }
        let (clock, text) = split_clock(&line);
        if let Some(report) = text.strip_prefix(PREFIX) {
            self.open = None;
            self.report(clock, report);
        } else {
            self.notice(&line, text);
            if self.loading.is_some() && self.lines_of_module.len() < LINES_OF_MODULE {
                self.lines_of_module.push(text.to_owned());
            }
        }
        if self.last.len() == LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
    }

    /// A line of the init's.
    fn report(&mut self, clock: Option<f64>, report: &str) {
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
                    *place = Some(Loaded { errno, lines: std::mem::take(&mut self.lines_of_module) });
                }
                self.loading = None;
            }
            "check" => {
                let mut words = rest.splitn(3, ' ');
                let (Some(name), Some(Ok(errno))) = (words.next(), words.next().map(str::parse)) else {
                    return;
                };
                let text = words.next().unwrap_or_default().trim().to_owned();
                if self.checks.len() < MOST_CHECKS {
                    self.checks.push(Tried { name: name.to_owned(), errno, text });
                }
            }
            "end" => self.ended = true,
            _ => {}
        }
    }

    /// A line of the kernel's.
    fn notice(&mut self, line: &str, text: &str) {
        let open = self.open.and_then(|open| self.troubles.get_mut(open));
        match (kind_of(text), open) {
            // An oops has several lines that would each begin one, and often ends in a panic.
            (Some(kind), Some(open)) if kind <= open.kind => open.take(line),
            (Some(kind), _) => self.begin(Trouble { kind, lines: vec![line.to_owned()] }),
            (None, Some(open)) => {
                open.take(line);
                if text.starts_with("---[ end ") {
                    self.open = None;
                }
            }
            (None, None) => {}
        }
    }

    /// Another complaint. There is room for so many, always for a panic; an oops takes the place of one of the
    /// many warnings before it.
    fn begin(&mut self, trouble: Trouble) {
        if self.troubles.len() < MOST_TROUBLES || trouble.kind == TroubleKind::Panic {
            self.open = Some(self.troubles.len());
            self.troubles.push(trouble);
            return;
        }
        self.more_troubles += 1;
        let place = self.troubles.iter().rposition(|one| one.kind < trouble.kind);
        if let Some(place) = place {
            self.troubles[place] = trouble;
            self.open = Some(place);
        }
    }
}

impl Trouble {
    fn take(&mut self, line: &str) {
        if self.lines.len() < LINES_OF_TROUBLE {
            self.lines.push(line.to_owned());
        }
    }
}

/// What the kernel prints when it is in trouble: the beginnings of lines in `kernel/panic.c`, `lib/bug.c`,
/// `arch/*/kernel/traps.c`, `arch/*/mm/fault.c`, `kernel/watchdog.c`, `kernel/hung_task.c`, `kernel/rcu/`.
fn kind_of(text: &str) -> Option<TroubleKind> {
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
        Some(TroubleKind::Panic)
    } else if begins(&OOPSES) {
        Some(TroubleKind::Oops)
    } else {
        begins(&WARNINGS).then_some(TroubleKind::Warning)
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
pub(super) fn shown(raw: &str) -> String {
    let mut line = String::new();
    for c in raw.trim_end_matches(['\r', '\n']).chars() {
        if line.len() >= LONGEST_LINE {
            line.push('…');
            break;
        }
        match c {
            '\t' => line.push(' '),
            c if !is_plain(c) => {
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
        text.lines().for_each(|line| console.see(line));
        console
    }

    #[test]
    fn the_inits_report_is_read() {
        let said = console(
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
        assert_eq!((said.seconds_to_init, said.release.as_deref()), (Some(1.436_039), Some("6.1.7")));
        assert_eq!(said.modules[0], Some(Loaded { errno: 0, lines: vec![] }));
        let reason = "b: version magic '6.1.8' should be '6.1.7'".to_owned();
        assert_eq!(said.modules[1], Some(Loaded { errno: 8, lines: vec![reason] }));
        assert_eq!((said.loading, &said.modules[2]), (Some(2), &None));
        assert_eq!(said.checks[0].text, "cpu memory");
        assert_eq!(said.checks[1], Tried { name: "vsock".into(), errno: 97, text: "socket".into() });
        assert!(said.init && !said.is_over() && said.troubles.is_empty());
    }

    #[test]
    fn troubles_have_their_lines() {
        let said = console(
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
        let kinds: Vec<(TroubleKind, usize)> =
            said.troubles.iter().map(|one| (one.kind, one.lines.len())).collect();
        use TroubleKind::{Oops, Panic, Warning};
        assert_eq!(kinds, [(Warning, 3), (Oops, 3), (Panic, 2)]);
        assert!(said.is_over() && said.panic().unwrap().lines[0].contains("Attempted to kill init"));
        assert!(console(0, "[ 1.0] PCI: use \"pci=nocrs\" and report a bug").troubles.is_empty());
    }

    #[test]
    fn an_oops_is_not_lost_among_warnings() {
        let mut said = Console::new(0);
        for _ in 0..30 {
            said.see("[    1.0] WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x1");
            said.see("[    1.0] ---[ end trace 0000000000000000 ]---");
        }
        said.see("[    2.0] BUG: kernel NULL pointer dereference, address: 0");
        said.see("[    2.0] Oops: 0000 [#1] SMP");
        let oops = said.troubles.iter().find(|trouble| trouble.kind == TroubleKind::Oops).unwrap();
        assert_eq!((oops.lines.len(), said.troubles.len(), said.more_troubles), (2, MOST_TROUBLES, 11));
    }

    #[test]
    fn a_hostile_console_is_bounded_and_harmless() {
        let mut said = Console::new(1);
        for number in 0..5_000 {
            said.see(&format!("[    1.0] BUG: {number}"));
            said.see("---[ end trace");
            said.see(&format!("kcompile: check x{number} 0 {}", "y".repeat(9_000)));
            said.see("kcompile: load 0 x");
            said.see(&"z".repeat(9_000));
        }
        assert_eq!((said.troubles.len(), said.checks.len()), (MOST_TROUBLES, MOST_CHECKS));
        assert!(said.more_troubles > 4_000 && said.last.len() == LAST_LINES);
        assert!(said.troubles.iter().all(|trouble| trouble.lines.len() <= LINES_OF_TROUBLE));
        assert!(said.checks.iter().all(|check| check.text.len() <= LONGEST_LINE + 4));
        // A panic is the one thing that must not get lost in all this.
        said.see("Kernel panic - not syncing: at last");
        assert!(said.panic().is_some());
        assert_eq!(shown("a\u{1b}[2J\tb\u{202e}c\r"), "a\\u{1b}[2J b\\u{202e}c");
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
            said.see(odd);
        }
    }
}
