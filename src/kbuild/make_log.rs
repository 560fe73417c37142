//! Reads make's output line by line. Counts steps and warnings and finds the first real error.

use super::work;
use crate::util::error::{NO_PROCESSES, NO_SPACE};
use std::time::SystemTime;

/// More steps than any kernel build has. Further steps, and longer ones, are only counted.
const MAX_STEPS: usize = 200_000;
const MAX_STEP_LENGTH: usize = 512;
/// The lines of source below an error, and their length.
const MAX_EXCERPT: usize = 4;
const MAX_EXCERPT_LENGTH: usize = 200;

/// What make and gcc print if they cannot start a process, and what dash prints.
const NO_PROCESS: [&str; 2] = ["Resource temporarily unavailable", ": Cannot fork"];

/// The summary of a log.
#[derive(Debug, Default)]
pub struct LogSummary {
    /// The number of commands that Kbuild announced (`  CC      init/main.o`).
    pub steps: u64,
    /// The work of these commands.
    pub work: f64,
    /// These commands, with the time of their lines.
    pub announced_steps: Vec<(SystemTime, String)>,
    /// The number of compiler warnings.
    pub warnings: u64,
    /// The number of files that distcc compiled on this machine (`distcc[1] … running locally instead`).
    pub local_fallbacks: u64,
    /// The first line with the cause of an error, or else the first `make[2]: *** […] Error 1`.
    pub first_error: Option<String>,
    /// The lines of source that the compiler printed below it.
    pub excerpt: Vec<String>,
    /// The first line with which depmod reports a failure.
    pub depmod_error: Option<String>,
    /// Whether a line reports a full disk or quota.
    pub out_of_space: bool,
    /// Whether `first_error` only reports the consequence of an error.
    is_consequence: bool,
    /// Whether the next lines may be source of `first_error`.
    is_excerpt: bool,
    /// The line before, which is source if a line with a caret follows.
    before: String,
}

impl LogSummary {
    /// Reads a line. Returns the step that the line announces.
    pub fn add_line<'a>(&mut self, line: &'a str, at: SystemTime) -> Option<&'a str> {
        self.out_of_space |= is_disk_full(line);
        if self.is_excerpt {
            self.add_source_line(line);
        }
        if let Some(step) = step(line) {
            self.steps += 1;
            self.work += work::of_step(step);
            if self.announced_steps.len() < MAX_STEPS && step.len() <= MAX_STEP_LENGTH {
                self.announced_steps.push((at, step.to_owned()));
            }
            return Some(step);
        }
        if line.contains(": warning: ") && !line.contains("warning: treating") {
            self.warnings += 1;
        }
        if is_depmod_error(line) {
            self.depmod_error.get_or_insert_with(|| line.trim().to_owned());
        }
        if line.starts_with("distcc[") && line.contains("locally") {
            self.local_fallbacks += 1;
        }
        match error_kind(line) {
            Some(ErrorKind::Cause) if self.first_error.is_none() || self.is_consequence => {
                self.first_error = Some(line.trim().to_owned());
                self.is_consequence = false;
                self.is_excerpt = line.contains(": error: ") || line.contains(": fatal error: ");
            }
            Some(ErrorKind::Consequence) if self.first_error.is_none() => {
                self.first_error = Some(line.trim().to_owned());
                self.is_consequence = true;
            }
            _ => {}
        }
        None
    }

    /// Adds a line of source. gcc puts a number and a bar before it, and clang before 17 a line with a caret below it.
    fn add_source_line(&mut self, line: &str) {
        let rest = line.trim_start();
        let has_bar = line.starts_with(' ')
            && rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|');
        let is_caret = rest.contains('^') && rest.chars().all(|c| matches!(c, ' ' | '^' | '~'));
        let before = std::mem::replace(&mut self.before, line.to_owned());
        let lines = if has_bar {
            vec![line]
        } else if is_caret {
            vec![&*before, line]
        } else {
            Vec::new()
        };
        self.excerpt
            .extend(lines.into_iter().map(|line| line.chars().take(MAX_EXCERPT_LENGTH).collect::<String>()));
        let is_next_message = [": error: ", ": warning: ", ": note: "].iter().any(|mark| line.contains(mark));
        self.is_excerpt = !is_next_message && !is_caret && self.excerpt.len() < MAX_EXCERPT;
    }
}

/// Reads Kbuild's quiet output, which is two spaces, a tag in capitals padded to eight columns, and a file.
fn step(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("  ")?;
    let tag = rest.split_whitespace().next()?;
    let is_tag = tag.len() >= 2
        && tag.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "-_/".contains(c));
    (is_tag && !rest.starts_with(' ')).then_some(rest)
}

enum ErrorKind {
    Cause,
    Consequence,
}

fn error_kind(line: &str) -> Option<ErrorKind> {
    // A warning that contains "error" (`[-Wno-error=…]`) is not an error.
    let cause = [
        ": error: ",
        ": fatal error: ",
        ": undefined reference to ",
        ": multiple definition of ",
        ": not found",
        ": Error: ",
    ]
    .iter()
    .any(|mark| line.contains(mark))
        || line.starts_with("ERROR: ")
        || line.starts_with("error: ")
        || is_disk_full(line)
        || line.contains("Killed signal terminated program")
        || NO_PROCESS.iter().any(|mark| line.contains(mark))
        || is_linker_error(line)
        || (line.contains("*** ")
            && (line.contains("No rule to make target")
                || line.contains(".  Stop.")
                || line.contains("not clean")));
    if cause {
        return Some(ErrorKind::Cause);
    }
    (line.starts_with("make") && line.contains("*** ")).then_some(ErrorKind::Consequence)
}

/// Matches `ld: …` and `/usr/bin/ld: …`, except for the linker's warnings and notes.
fn is_linker_error(line: &str) -> bool {
    let message =
        line.split_once("ld: ").filter(|(path, _)| path.is_empty() || path.ends_with(['/', '-', '.']));
    let remarks = ["warning: ", "NOTE: ", ": warning: ", "in function `"];
    message.is_some_and(|(path, message)| {
        !path.contains(' ') && !remarks.iter().any(|remark| message.contains(remark))
    })
}

/// depmod's warnings of unknown symbols are not errors, nor is the one of a file that kernels
/// before 5.2 do not have.
fn is_depmod_error(line: &str) -> bool {
    let message = line
        .strip_prefix("depmod: ")
        .filter(|message| !message.contains("could not open modules.builtin.modinfo"));
    message.is_some_and(|message| {
        ["ERROR:", "FATAL:", "WARNING: could not"].iter().any(|mark| message.starts_with(mark))
    })
}

fn is_disk_full(line: &str) -> bool {
    line.contains("No space left on device") || line.contains("Disk quota exceeded")
}

/// Returns what to do about a known error. Commits are those of the upstream kernel.
pub(super) fn hint(error: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 12] = [
        (
            "use-after-free",
            "gcc 12 and later reject tools/lib/subcmd of this kernel (fixed by 52a9dab6d892); use another --cc or a newer release of the series",
        ),
        (
            "objtool: missing symbol table",
            "objtool of this kernel does not support binutils 2.36 and later (fixed by 1d489151e9f9); use a newer release of the series",
        ),
        (
            "redundant redeclaration of 'strlcpy'",
            "tools of this kernel do not compile with glibc 2.38 and later; use a newer release of the series",
        ),
        (
            "cannot use keyword 'false'",
            "gcc 15 compiles as C23 by default, which this kernel does not support; use --cc 'gcc -std=gnu11'",
        ),
        ("libelf", "a header of libelf is missing; `kcompile doctor` names its package"),
        ("openssl/", "a header of OpenSSL is missing; `kcompile doctor` names its package"),
        ("No space left on device", NO_SPACE),
        ("Disk quota exceeded", NO_SPACE),
        (
            "Killed signal terminated program",
            "the compiler was killed, probably because memory ran out; use fewer --jobs",
        ),
        (NO_PROCESS[0], NO_PROCESSES),
        (NO_PROCESS[1], NO_PROCESSES),
        ("not clean", "the source directory contains a build; run `make mrproper` in it"),
    ];
    KNOWN.iter().find(|(mark, _)| error.contains(mark)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summarize(log: &str) -> LogSummary {
        let mut summary = LogSummary::default();
        log.lines().for_each(|line| _ = summary.add_line(line, SystemTime::UNIX_EPOCH));
        summary
    }

    #[test]
    fn steps_and_warnings_are_counted() {
        let summary = summarize(
            "make[1]: Entering directory '/o'\n  GEN     Makefile\n  CC      init/main.o\n  CC [M]  net/x.o\n  LD [M]  net/x.ko\n\
             ../init/main.c:3:5: warning: unused variable 'x' [-Wunused-variable]\n    indented text\n  AR      built-in.a\n",
        );
        assert_eq!((summary.steps, summary.warnings), (5, 1));
        assert_eq!(summary.announced_steps[2].1, "CC [M]  net/x.o");
        assert_eq!(summary.first_error, None);
    }

    #[test]
    fn the_cause_of_an_error_is_preferred_to_its_consequences() {
        let summary = summarize(
            "  CC      kernel/fork.o\nmake[3]: *** [x] Error 1\n../kernel/fork.c:7:1: error: expected ';'\n\
             ../kernel/fork.c:9:1: error: second\nmake[2]: *** [../Makefile:500: kernel/fork.o] Error 1\n",
        );
        assert_eq!(summary.first_error.unwrap(), "../kernel/fork.c:7:1: error: expected ';'");
    }

    #[test]
    fn the_source_below_the_first_error_is_kept() {
        let gcc = "a.c: In function 'f':\na.c:7:22: error: 'x' undeclared\n    7 |  int y = x;\n  CC      other.o\n      \
                   |          ^\na.c:7:22: note: each\n    8 | not this\n";
        assert_eq!(summarize(gcc).excerpt, ["    7 |  int y = x;", "      |          ^"]);
        let clang =
            "a.c:7:22: error: undeclared 'x'\n int y = x;\n         ^\na.c:8:1: error: second\n z;\n ^\n";
        assert_eq!(summarize(clang).excerpt, [" int y = x;", "         ^"]);
        assert!(summarize("make: *** [x] Error 2\n    7 | x\n").excerpt.is_empty());
    }

    #[test]
    fn a_consequence_is_reported_if_no_cause_is_found() {
        assert!(summarize("make[1]: *** [Makefile:1: x] Error 2\n").first_error.is_some());
        assert!(
            summarize("/bin/sh: 1: bc: not found\nmake: *** [x] Error 127\n")
                .first_error
                .unwrap()
                .contains("bc: not found")
        );
    }

    #[test]
    fn linker_warnings_are_not_errors() {
        let summary = summarize(
            "ld: warning: x.o: missing .note.GNU-stack section implies executable stack\n\
             ld: NOTE: This behaviour is deprecated and will be removed in a future version of the linker\n\
             /usr/bin/ld: cannot find -lelf: No such file or directory\n",
        );
        assert_eq!(summary.first_error.unwrap(), "/usr/bin/ld: cannot find -lelf: No such file or directory");
    }

    #[test]
    fn depmod_errors_are_distinguished_from_its_warnings() {
        let warnings = "depmod: WARNING: /x/y.ko needs unknown symbol z\n\
             depmod: WARNING: could not open modules.builtin.modinfo at /x/lib/modules/4.19.0: No such file or directory\n";
        assert_eq!(summarize(warnings).depmod_error, None);
        let error = "depmod: WARNING: could not open modules.order at /x: No such file or directory";
        assert_eq!(summarize(&format!("{warnings}{error}\ndepmod: ERROR: x\n")).depmod_error.unwrap(), error);
    }

    #[test]
    fn known_errors_have_hints() {
        let error =
            "subcmd-util.h:56:23: error: pointer may be used after 'realloc' [-Werror=use-after-free]";
        assert!(hint(error).unwrap().contains("gcc 12"));
        assert!(hint("x.c:1:1: error: expected ';'").is_none());
    }
}
