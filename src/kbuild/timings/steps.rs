//! Finds out how long each step of make took. Kbuild announces a step (`  CC      init/main.o`) just before
//! its command runs, and writes `init/.main.o.cmd` when the step, including objtool, has ended.

use crate::kbuild::Compiled;
use camino::{Utf8Component, Utf8Path};
use serde::Serialize;
use std::fs;
use std::time::SystemTime;

/// A busy machine may read an announcement so many seconds late, when a short step has already ended.
const READ_LATE: f64 = 0.05;

/// A command that make ran. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Kbuild's tag, such as `CC`, `AS` or `LD`.
    pub tool: String,
    /// The file that was made, as a path in the build directory.
    pub target: String,
    /// Whether the target is part of a module.
    pub module: bool,
    /// The time from the start of the compile phase to the announcement.
    pub begin: f64,
    pub seconds: f64,
    /// Whether the end is known. If not, the step counts until the next one starts.
    pub measured: bool,
}

impl Step {
    /// Returns whether the step compiled one source file.
    pub fn is_translation_unit(&self) -> bool {
        self.measured
            && self.target.ends_with(".o")
            && !matches!(&*self.tool, "LD" | "AR" | "HOSTLD" | "OBJCOPY")
    }
}

/// Returns the steps that Kbuild announced while it compiled in the directory `build`.
pub(super) fn read(build: &Utf8Path, compiled: &Compiled) -> Vec<Step> {
    let since =
        |time: SystemTime| time.duration_since(compiled.began).map_or(0.0, |since| since.as_secs_f64());
    let announced = compiled.announced_steps.iter();
    let mut steps: Vec<Step> =
        announced.filter_map(|(at, text)| Some(Step { begin: since(*at), ..parse(text, build)? })).collect();
    let mut next = compiled.seconds;
    for step in steps.iter_mut().rev() {
        let begin = step.begin;
        let ended = end_marks(&step.target).into_iter().find_map(|mark| {
            let modified = fs::symlink_metadata(build.join(mark)).ok()?.modified().ok()?;
            let end = since(modified);
            (end >= begin - READ_LATE && end <= compiled.seconds).then_some(end.max(begin))
        });
        step.measured = ended.is_some();
        step.seconds = (ended.unwrap_or(next) - begin).max(0.0);
        next = begin;
    }
    steps
}

/// Parses `CC [M]  drivers/net/dummy.o`, without times. Makes an absolute target (of host tools)
/// relative to the build directory. Returns `None` for targets elsewhere.
fn parse(step: &str, build: &Utf8Path) -> Option<Step> {
    let (tool, rest) = step.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    let module = rest.starts_with("[M]");
    let target = rest.strip_prefix("[M]").unwrap_or(rest).trim();
    let target = target.strip_prefix(build.as_str()).unwrap_or(target).trim_start_matches('/');
    let plain = |part: Utf8Component<'_>| matches!(part, Utf8Component::Normal(_));
    let fits = !target.is_empty() && !target.contains(char::is_whitespace);
    (fits && Utf8Path::new(target).components().all(plain)).then(|| Step {
        tool: tool.to_owned(),
        target: target.to_owned(),
        module,
        begin: 0.0,
        seconds: 0.0,
        measured: false,
    })
}

/// Returns the files that are written last for `target`, the most reliable first.
fn end_marks(target: &str) -> [String; 2] {
    let (dir, name) = target.rsplit_once('/').map_or(("", target), |(dir, name)| (dir, name));
    let slash = if dir.is_empty() { "" } else { "/" };
    [format!("{dir}{slash}.{name}.cmd"), target.to_owned()]
}

/// Returns the average number of running steps in each of `parts` equal parts of `seconds`.
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
        let parsed =
            |text| parse(text, Utf8Path::new("/build")).map(|step| (step.tool, step.module, step.target));
        let step = |tool: &str, module, target: &str| Some((tool.to_owned(), module, target.to_owned()));
        assert_eq!(parsed("CC      init/main.o"), step("CC", false, "init/main.o"));
        assert_eq!(parsed("CC [M]  drivers/net/dummy.o"), step("CC", true, "drivers/net/dummy.o"));
        assert_eq!(parsed("CC       /build/tools/objtool/elf.o"), step("CC", false, "tools/objtool/elf.o"));
        assert_eq!(parsed("INSTALL /usr/../x"), None);
        assert_eq!(parsed("CALL    a b"), None);
        assert_eq!(parsed("CC"), None);
    }

    #[test]
    fn end_marks_are_beside_their_target() {
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
