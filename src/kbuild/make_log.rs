//! What make's output means: steps, warnings, the first real error. Pure: lines in, facts out.

use crate::util::error::NO_SPACE;
use std::time::SystemTime;

/// More announcements than any kernel makes, and longer ones; what is beyond is only counted.
const MAX_STEPS: usize = 200_000;
const MAX_STEP_LENGTH: usize = 512;

/// The facts of a log, gathered line by line.
#[derive(Debug, Default)]
pub struct LogSummary {
    /// Commands that Kbuild announced (`  CC      init/main.o`).
    pub steps: u64,
    /// These announcements, and when they came.
    pub announced_steps: Vec<(SystemTime, String)>,
    /// Compiler warnings.
    pub warnings: u64,
    /// Files that distcc compiled here because its machines did not (`distcc[1] … running locally instead`).
    pub local_fallbacks: u64,
    /// The first line that is an error of its own, not the echo of one.
    pub first_error: Option<String>,
    /// The first line by which depmod says that it could not do something.
    pub depmod_error: Option<String>,
    /// Did something say that the disk, or the quota, is full?
    pub out_of_space: bool,
    /// `make[2]: *** […] Error 1`, should nothing better be found.
    is_consequence: bool,
}

impl LogSummary {
    /// Takes in a line that came at this time. Returns the step that it announces.
    pub fn add_line<'a>(&mut self, line: &'a str, at: SystemTime) -> Option<&'a str> {
        self.out_of_space |= is_disk_full(line);
        if let Some(step) = step(line) {
            self.steps += 1;
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
            }
            Some(ErrorKind::Consequence) if self.first_error.is_none() => {
                self.first_error = Some(line.trim().to_owned());
                self.is_consequence = true;
            }
            _ => {}
        }
        None
    }
}

/// Kbuild's quiet form: two spaces, a tag in capitals padded to eight columns, a file.
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
    // A warning that names an error (`[-Wno-error=…]`) is no error; one turned into an error is.
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

/// `ld: …` and `/usr/bin/ld: …`, but for what the linker only remarks.
fn is_linker_error(line: &str) -> bool {
    let message =
        line.split_once("ld: ").filter(|(path, _)| path.is_empty() || path.ends_with(['/', '-', '.']));
    let remarks = ["warning: ", "NOTE: ", ": warning: ", "in function `"];
    message.is_some_and(|(path, message)| {
        !path.contains(' ') && !remarks.iter().any(|remark| message.contains(remark))
    })
}

/// Its warnings of symbols that nobody exports are none; nor is that of a file that kernels before 5.2 do not have.
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

/// What to do about an error whose cause is known. The sources are the kernel's history; commits
/// are upstream's.
pub(super) fn hint(error: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 10] = [
        (
            "use-after-free",
            "gcc 12 and later refuse this kernel's tools/lib/subcmd (fixed by 52a9dab6d892): try another --cc, or a newer release of the series",
        ),
        (
            "objtool: missing symbol table",
            "binutils 2.36 and later confuse this kernel's objtool (fixed by 1d489151e9f9): a newer release of the series has the fix",
        ),
        (
            "redundant redeclaration of 'strlcpy'",
            "glibc 2.38 and later clash with this kernel's tools: a newer release of the series has the fix",
        ),
        (
            "cannot use keyword 'false'",
            "gcc 15 compiles C23 by default, which this kernel is not: try --cc 'gcc -std=gnu11'",
        ),
        ("libelf", "a header of libelf is missing: `kcompile doctor` names the package"),
        ("openssl/", "a header of OpenSSL is missing: `kcompile doctor` names the package"),
        ("No space left on device", NO_SPACE),
        ("Disk quota exceeded", NO_SPACE),
        (
            "Killed signal terminated program",
            "the compiler was killed, most likely for want of memory: try fewer --jobs",
        ),
        ("not clean", "the source directory was built in: `make mrproper` there cleans it"),
    ];
    KNOWN.iter().find(|(mark, _)| error.contains(mark)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(log: &str) -> LogSummary {
        let mut digest = LogSummary::default();
        log.lines().for_each(|line| _ = digest.add_line(line, SystemTime::UNIX_EPOCH));
        digest
    }

    #[test]
    fn steps_and_warnings_are_counted() {
        let digest = digest(
            "make[1]: Entering directory '/o'\n  GEN     Makefile\n  CC      init/main.o\n  CC [M]  net/x.o\n  LD [M]  net/x.ko\n\
             ../init/main.c:3:5: warning: unused variable 'x' [-Wunused-variable]\n    indented text\n  AR      built-in.a\n",
        );
        assert_eq!((digest.steps, digest.warnings), (5, 1));
        assert_eq!(digest.announced_steps[2].1, "CC [M]  net/x.o");
        assert_eq!(digest.first_error, None);
    }

    #[test]
    fn the_first_real_error_wins_over_its_echoes() {
        let digest = digest(
            "  CC      kernel/fork.o\nmake[3]: *** [x] Error 1\n../kernel/fork.c:7:1: error: expected ';'\n\
             ../kernel/fork.c:9:1: error: second\nmake[2]: *** [../Makefile:500: kernel/fork.o] Error 1\n",
        );
        assert_eq!(digest.first_error.unwrap(), "../kernel/fork.c:7:1: error: expected ';'");
    }

    #[test]
    fn an_echo_is_better_than_nothing() {
        assert!(digest("make[1]: *** [Makefile:1: x] Error 2\n").first_error.is_some());
        assert!(
            digest("/bin/sh: 1: bc: not found\nmake: *** [x] Error 127\n")
                .first_error
                .unwrap()
                .contains("bc: not found")
        );
    }

    #[test]
    fn a_linkers_remarks_are_no_errors() {
        let digest = digest(
            "ld: warning: x.o: missing .note.GNU-stack section implies executable stack\n\
             ld: NOTE: This behaviour is deprecated and will be removed in a future version of the linker\n\
             /usr/bin/ld: cannot find -lelf: No such file or directory\n",
        );
        assert_eq!(digest.first_error.unwrap(), "/usr/bin/ld: cannot find -lelf: No such file or directory");
    }

    #[test]
    fn depmods_complaints_are_told_from_its_remarks() {
        let remarks = "depmod: WARNING: /x/y.ko needs unknown symbol z\n\
             depmod: WARNING: could not open modules.builtin.modinfo at /x/lib/modules/4.19.0: No such file or directory\n";
        assert_eq!(digest(remarks).depmod_error, None);
        let complaint = "depmod: WARNING: could not open modules.order at /x: No such file or directory";
        assert_eq!(
            digest(&format!("{remarks}{complaint}\ndepmod: ERROR: x\n")).depmod_error.unwrap(),
            complaint
        );
    }

    #[test]
    fn known_causes_have_hints() {
        let error =
            "subcmd-util.h:56:23: error: pointer may be used after 'realloc' [-Werror=use-after-free]";
        assert!(hint(error).unwrap().contains("gcc 12"));
        assert!(hint("x.c:1:1: error: expected ';'").is_none());
    }
}
