//! The work of make's steps. A compilation takes many times as long as most other steps, so that the number of
//! steps alone does not tell how much is left.

use crate::report::Work;

/// The work of steps in compilations of an average C file of the kernel, by Kbuild's tag. Measured on a build of
/// 5.12 for Cloud Hypervisor with gcc 12, as all numbers here.
const WORK: [(&str, f64); 7] = [
    ("HOSTCC", 0.5),
    ("KSYMS", 1.7),
    ("KSYM", 1.7),
    ("MODPOST", 1.7),
    ("SORTTAB", 0.5),
    ("BTF", 20.0),
    ("LD", 0.1),
];
const OTHER: f64 = 0.02;
/// Directories whose files take less or more than an average one.
const DIRECTORIES: [(&str, f64); 7] = [
    ("arch/", 0.7),
    ("drivers/acpi/", 0.65),
    ("fs/", 0.6),
    ("lib/", 0.7),
    ("mm/", 1.4),
    ("net/", 1.3),
    ("security/", 1.6),
];
/// The C file with the header of a module.
const MODULE_HEADER: f64 = 0.26;
const LINK_OF_VMLINUX: f64 = 2.3;
/// The steps that link vmlinux, beginning with [`LINK_BEGINS`].
const LAST_OF_VMLINUX: f64 = 17.0;
/// For each module, the steps after vmlinux is linked.
const LAST_OF_MODULE: f64 = MODULE_HEADER + OTHER;
/// The target of the step after which nothing but links and modules is left.
const LINK_BEGINS: &str = "vmlinux.o";

/// Returns the work of a step, such as `CC [M]  drivers/net/dummy.o`.
pub(super) fn of_step(step: &str) -> f64 {
    let tag = step.split_whitespace().next().unwrap_or_default();
    let target = target(step);
    match tag {
        "CC" if target.ends_with(".mod.o") => MODULE_HEADER,
        "CC" => DIRECTORIES.iter().find(|(dir, _)| target.starts_with(dir)).map_or(1.0, |(_, work)| *work),
        "LD" if target.contains("vmlinux") => LINK_OF_VMLINUX,
        "LD" if target.ends_with(".ko") => OTHER,
        _ => WORK.iter().find(|(known, _)| *known == tag).map_or(OTHER, |(_, work)| *work),
    }
}

fn target(step: &str) -> &str {
    step.rsplit(char::is_whitespace).next().unwrap_or_default()
}

/// Returns the work from the link of vmlinux on.
pub(super) fn of_last_steps(modules: u64) -> f64 {
    LAST_OF_VMLINUX + modules as f64 * LAST_OF_MODULE
}

/// Adds up the work of the steps of one make.
#[derive(Debug)]
pub(super) struct WorkMeter {
    /// The expected work of all steps.
    expected: f64,
    /// The expected work from the link of vmlinux on.
    last: f64,
    done: f64,
    /// What was done when the link of vmlinux began.
    link_began: Option<f64>,
}

impl WorkMeter {
    pub(super) fn new(expected: f64, last: f64) -> WorkMeter {
        WorkMeter { expected, last, done: 0.0, link_began: None }
    }

    /// Adds a step that begins. Returns what was done before it and what is left.
    pub(super) fn add(&mut self, step: &str) -> Work {
        if target(step) == LINK_BEGINS && self.link_began.is_none() {
            self.link_began = Some(self.done);
        }
        let done = self.done;
        self.done += of_step(step);
        let left = match self.link_began {
            Some(began) => began + self.last - done,
            // The expected work was too little.
            None if done > self.expected => 0.0,
            // What comes last is not done, whatever the estimate says.
            None => (self.expected - done).max(self.last),
        };
        Work { done, left: (left > 0.0).then_some(left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Count, Rate, Unit};
    use std::time::Duration;

    #[test]
    fn compilations_are_most_of_the_work() {
        for (step, work) in [
            ("CC      init/main.o", 1.0),
            ("CC      net/core/dev.o", 1.3),
            ("CC [M]  drivers/net/dummy.o", 1.0),
            ("CC [M]  drivers/net/dummy.mod.o", MODULE_HEADER),
            ("LD [M]  drivers/net/dummy.ko", OTHER),
            ("LD      .tmp_vmlinux.kallsyms1", LINK_OF_VMLINUX),
            ("AR      drivers/built-in.a", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(of_step(step), work, "{step}");
        }
    }

    #[test]
    fn the_link_of_vmlinux_shows_what_is_left() {
        let mut meter = WorkMeter::new(100.0, 10.0);
        assert_eq!(meter.add("CC      a.o"), Work { done: 0.0, left: Some(100.0) });
        assert_eq!(meter.add("CC      b.o"), Work { done: 1.0, left: Some(99.0) });
        // The estimate was far too high.
        assert_eq!(meter.add("LD      vmlinux.o"), Work { done: 2.0, left: Some(10.0) });
        let rest = 10.0 - LINK_OF_VMLINUX;
        assert_eq!(meter.add("SORTTAB vmlinux"), Work { done: 2.0 + LINK_OF_VMLINUX, left: Some(rest) });
        // It was too low.
        let mut meter = WorkMeter::new(1.5, 1.0);
        assert_eq!(meter.add("CC      a.o"), Work { done: 0.0, left: Some(1.5) });
        assert_eq!(meter.add("CC      b.o"), Work { done: 1.0, left: Some(1.0) });
        assert_eq!(meter.add("CC      c.o"), Work { done: 2.0, left: None });
        assert_eq!(meter.add("LD      vmlinux.o"), Work { done: 3.0, left: Some(1.0) });
    }

    /// The steps of 5.12 for Cloud Hypervisor, from the 377th on, with half of the CPU time that the build had
    /// used. This is the time on two cores without other work.
    const RECORDED: &str = include_str!("recorded_build.tsv");

    #[test]
    fn the_time_left_of_a_recorded_build_is_within_30_percent_or_10_seconds_from_half_way_on() {
        let rows: Vec<(f64, u64, String)> = RECORDED
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let [seconds, count, step] = line.split('\t').collect::<Vec<_>>()[..] else {
                    panic!("{line}")
                };
                (seconds.parse().unwrap(), count.parse().unwrap(), step.to_owned())
            })
            .collect();
        let total: u64 = rows.iter().map(|(_, count, _)| count).sum();
        let work: f64 = rows.iter().map(|(_, count, step)| *count as f64 * of_step(step)).sum();
        let end = rows.last().unwrap().0;
        let mut meter = WorkMeter::new(work, of_last_steps(230));
        let (mut rate, mut done, mut checked) = (Rate::default(), 0, 0);
        for (seconds, count, step) in &rows {
            for _ in 0..*count {
                done += 1;
                let work = Some(meter.add(step));
                let count =
                    Count { done, total: Some(total), estimated: false, work, unit: Unit::Steps, item: step };
                let estimate = rate.time_left(&count, Duration::from_secs_f64(*seconds));
                if *seconds < end / 2.0 {
                    continue;
                }
                let left = end - seconds;
                let error = (estimate.unwrap().as_secs_f64() - left).abs();
                checked += 1;
                assert!(error < (0.3 * left).max(10.0), "{left:.0} s are left, not {estimate:?}, at {step}");
            }
        }
        assert!(checked > 900, "{checked} estimates");
    }
}
