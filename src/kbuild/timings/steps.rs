//! The steps of make, and how long each took. Kbuild announces a step (`  CC      init/main.o`) just before its
//! command runs, and writes `init/.main.o.cmd` when it has ended, after objtool and all else that belongs to it.

use crate::kbuild::Compiled;
use camino::{Utf8Component, Utf8Path};
use serde::Serialize;
use std::fs;
use std::time::SystemTime;

/// A busy machine reads an announcement so many seconds late: a short step may have ended by then.
const READ_LATE: f64 = 0.05;

/// A command that make ran. Times are seconds; `begin` counts from the beginning of the compile phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Kbuild's word: `CC`, `AS`, `LD`, …
    pub tool: String,
    /// What was made, as a path in the build directory.
    pub target: String,
    /// Is it part of a module?
    pub module: bool,
    /// When it was announced.
    pub begin: f64,
    /// How long it ran.
    pub seconds: f64,
    /// Was the end found? Else it is taken to be the beginning of the next step.
    #[serde(rename = "measured")]
    pub measured: bool,
}

impl Step {
    /// Is it the compilation of one source file?
    pub fn is_translation_unit(&self) -> bool {
        self.measured
            && self.target.ends_with(".o")
            && !matches!(&*self.tool, "LD" | "AR" | "HOSTLD" | "OBJCOPY")
    }
}

/// The steps that Kbuild announced while it compiled in the directory `build`.
pub(super) fn read(build: &Utf8Path, compiled: &Compiled) -> Vec<Step> {
    let since =
        |time: SystemTime| time.duration_since(compiled.began).map_or(0.0, |since| since.as_secs_f64());
    let announced_steps: Vec<_> = compiled
        .announced_steps
        .iter()
        .filter_map(|(at, text)| Some((since(*at), parse(text, build)?)))
        .collect();
    let begins: Vec<f64> = announced_steps.iter().map(|(begin, _)| *begin).collect();
    let steps = announced_steps.into_iter().enumerate().map(|(index, (begin, (tool, module, target)))| {
        let ended = end_marks(&target).into_iter().find_map(|mark| {
            let modified = fs::symlink_metadata(build.join(mark)).ok()?.modified().ok()?;
            let end = since(modified);
            (end >= begin - READ_LATE && end <= compiled.seconds).then_some(end.max(begin))
        });
        let next = begins.get(index + 1).copied().unwrap_or(compiled.seconds);
        let seconds = (ended.unwrap_or(next) - begin).max(0.0);
        Step { tool, target, module, begin, seconds, measured: ended.is_some() }
    });
    steps.collect()
}

/// `CC [M]  drivers/net/dummy.o` → tool, whether it is a module's, target. What is announced by its whole path (as
/// the tools are) is shown as one in the build directory; what lies elsewhere is none of its steps.
fn parse(step: &str, build: &Utf8Path) -> Option<(String, bool, String)> {
    let (tool, rest) = step.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    let (module, target) = match rest.strip_prefix("[M]") {
        Some(target) => (true, target.trim()),
        None => (false, rest),
    };
    let target = target.strip_prefix(build.as_str()).unwrap_or(target).trim_start_matches('/');
    let plain = |part: Utf8Component<'_>| matches!(part, Utf8Component::Normal(_));
    let fits = !target.is_empty() && !target.contains(char::is_whitespace);
    (fits && Utf8Path::new(target).components().all(plain))
        .then(|| (tool.to_owned(), module, target.to_owned()))
}

/// The files whose last writing ends the making of `target`, best first.
fn end_marks(target: &str) -> [String; 2] {
    let (dir, name) = target.rsplit_once('/').map_or(("", target), |(dir, name)| (dir, name));
    let slash = if dir.is_empty() { "" } else { "/" };
    [format!("{dir}{slash}.{name}.cmd"), target.to_owned()]
}

/// How many steps ran at a time, on average, in each of so many equal parts of so many seconds.
pub(super) fn jobs_running(steps: &[Step], seconds: f64, parts: usize) -> Vec<f64> {
    let mut running = vec![0.0; parts];
    let width = seconds / parts as f64;
    if width <= 0.0 {
        return running;
    }
    for step in steps {
        let end = step.begin + step.seconds;
        let first = (step.begin / width) as usize;
        for (part, jobs) in running.iter_mut().enumerate().skip(first) {
            let (from, to) = (part as f64 * width, (part + 1) as f64 * width);
            if from >= end {
                break;
            }
            *jobs += (end.min(to) - step.begin.max(from)).max(0.0) / width;
        }
    }
    running
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_parsed() {
        let parsed = |text| parse(text, Utf8Path::new("/build"));
        let step = |tool: &str, module, target: &str| Some((tool.to_owned(), module, target.to_owned()));
        assert_eq!(parsed("CC      init/main.o"), step("CC", false, "init/main.o"));
        assert_eq!(parsed("CC [M]  drivers/net/dummy.o"), step("CC", true, "drivers/net/dummy.o"));
        assert_eq!(parsed("CC       /build/tools/objtool/elf.o"), step("CC", false, "tools/objtool/elf.o"));
        assert_eq!(parsed("INSTALL /usr/../x"), None);
        assert_eq!(parsed("CALL    a b"), None);
        assert_eq!(parsed("CC"), None);
    }

    #[test]
    fn marks_lie_beside_their_target() {
        assert_eq!(end_marks("init/main.o"), ["init/.main.o.cmd", "init/main.o"]);
        assert_eq!(end_marks("vmlinux"), [".vmlinux.cmd", "vmlinux"]);
    }

    #[test]
    fn jobs_are_averaged_over_each_part() {
        let step = |begin, seconds| Step {
            tool: "CC".into(),
            target: "a.o".into(),
            module: false,
            begin,
            seconds,
            measured: true,
        };
        let steps = [step(0.0, 2.0), step(0.5, 1.0), step(3.5, 9.0)];
        assert_eq!(jobs_running(&steps, 4.0, 4), [1.5, 1.5, 0.0, 0.5]);
        assert_eq!(jobs_running(&steps, 0.0, 2), [0.0, 0.0]);
    }
}
