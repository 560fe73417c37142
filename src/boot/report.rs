//! What came of a boot, as a value: what it reached, what failed, and whether that is good enough.

use super::console::{Console, KernelIssue, KernelIssueKind, ModuleLoad};
use super::machine::Accelerator;
use super::module_order::Module;
use crate::util::error::{Error, Result};
use crate::util::text::{format_duration, pluralize};
use camino::Utf8PathBuf;
use serde::Serialize;
use std::time::Duration;

/// What the init tries, what it is for, and in words.
const CHECKS: [(&str, Group, &str); 11] = [
    ("block", Group::Devices, "a virtio block device that can be read"),
    ("network", Group::Devices, "a virtio network device that comes up"),
    ("vsock", Group::Devices, "virtio sockets to the host"),
    ("config", Group::Kubernetes, "/proc/config.gz, which kubeadm reads"),
    ("cgroup2", Group::Kubernetes, "cgroup v2"),
    ("overlay", Group::Kubernetes, "overlayfs"),
    ("veth", Group::Kubernetes, "a veth pair"),
    ("bridge", Group::Kubernetes, "a bridge with a veth port"),
    ("nftables", Group::Kubernetes, "a table, a chain and a rule of nftables"),
    ("iptables", Group::Kubernetes, "a rule of iptables"),
    ("namespaces", Group::Kubernetes, "new namespaces of all kinds"),
];

/// `ENXIO`, `ENODEV`, `EOPNOTSUPP`: how a driver says that there is nothing for it to drive.
const NO_HARDWARE: [i32; 3] = [6, 19, 95];
/// A symbol that no loaded module has, or a driver's own.
const ENOENT: i32 = 2;
/// An error names so many failures, and counts the others.
const MAX_NAMED: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Devices,
    Kubernetes,
}

/// `--require`: what must be in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Modules, devices and Kubernetes.
    All,
    /// Nothing but that the init comes to its end.
    None,
    /// No module is refused.
    Modules,
    /// Every check of the group.
    Devices,
    /// Every check of the group.
    Kubernetes,
    /// The kernel warns of nothing.
    Clean,
    /// The check of this name.
    Check(&'static str),
}

impl std::str::FromStr for Requirement {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let check = || CHECKS.iter().find(|(check, ..)| *check == name).map(|(check, ..)| *check);
        match name {
            "all" => Ok(Requirement::All),
            "none" => Ok(Requirement::None),
            "modules" => Ok(Requirement::Modules),
            "devices" => Ok(Requirement::Devices),
            "kubernetes" => Ok(Requirement::Kubernetes),
            "clean" => Ok(Requirement::Clean),
            _ => check().map(Requirement::Check).ok_or_else(|| {
                let checks: Vec<&str> = CHECKS.iter().map(|(name, ..)| *name).collect();
                format!("known are all, none, modules, devices, kubernetes, clean, {}", checks.join(", "))
            }),
        }
    }
}

/// How the machine ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitReason {
    /// The init did all that it had to do.
    #[serde(rename = "completed")]
    Completed,
    /// The kernel panicked.
    #[serde(rename = "panic")]
    Panic {
        /// What it said.
        #[serde(rename = "reason")]
        reason: String,
        /// What that means, where it is known.
        #[serde(rename = "meaning")]
        meaning: Option<&'static str>,
    },
    /// It went on for too long, or fell silent.
    #[serde(rename = "hang")]
    Hang {
        /// What it did not do.
        #[serde(rename = "why")]
        why: String,
    },
    /// It printed more than any boot does.
    #[serde(rename = "flood")]
    Flood,
    /// The machine ended, and nothing on its console says why.
    #[serde(rename = "died")]
    Died {
        /// The end of its program.
        #[serde(rename = "status")]
        status: String,
        /// What that program printed.
        #[serde(rename = "said")]
        stderr: Vec<String>,
    },
}

/// How the machine was made to end, where it did not end by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    Exited { status: String, stderr: Vec<String> },
    OutOfTime(Duration),
    Silent(Duration),
    Flood,
}

/// A module that was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleFailure {
    /// Its path below `lib/modules/<release>`.
    #[serde(rename = "module")]
    pub module: String,
    /// The kernel's error.
    pub errno: i32,
    /// In words, with what the kernel printed.
    #[serde(rename = "reason")]
    pub reason: String,
}

/// What came of the modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Modules {
    /// How many there are.
    pub total: usize,
    /// How many were loaded.
    pub loaded: usize,
    /// Those whose hardware is not there.
    #[serde(rename = "without_hardware")]
    pub without_hardware: Vec<ModuleFailure>,
    /// Those that the kernel does not take.
    #[serde(rename = "refused")]
    pub failed: Vec<ModuleFailure>,
    /// How many it did not come to.
    #[serde(rename = "not_tried")]
    pub not_run: usize,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, as in `--require`.
    pub name: &'static str,
    /// What it tries.
    #[serde(rename = "what")]
    pub what: &'static str,
    /// What came of it.
    #[serde(rename = "verdict")]
    pub status: CheckStatus,
    /// What was found, or what failed and why.
    #[serde(rename = "text")]
    pub text: String,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// It works.
    #[serde(rename = "passed")]
    Passed,
    /// It does not.
    #[serde(rename = "failed")]
    Failed,
    /// This machine has nothing to try it with.
    #[serde(rename = "skipped")]
    Skipped,
    /// The init did not come to it.
    #[serde(rename = "not-tried")]
    NotRun,
}

/// All that came of a boot. Field names are part of the contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BootReport {
    /// The image, or the kernel, as it was named.
    #[serde(rename = "subject")]
    pub target: String,
    /// Did the init come to its end, and is all in order that must be?
    pub passed: bool,
    /// What is not.
    pub failures: Vec<String>,
    /// The machine.
    pub machine: String,
    /// What executed it.
    pub accelerator: Accelerator,
    /// How it ended.
    #[serde(rename = "ending")]
    pub exit_reason: ExitReason,
    /// What uname(2) says.
    pub release: Option<String>,
    /// The kernel's clock when its first process began.
    pub seconds_to_init: Option<f64>,
    /// From the start of the machine's program to its end.
    pub seconds: f64,
    /// What came of the modules.
    pub modules: Modules,
    /// What came of the checks.
    #[serde(rename = "checks")]
    pub checks: Vec<Check>,
    /// What the kernel complained of.
    #[serde(rename = "troubles")]
    pub issues: Vec<KernelIssue>,
    /// How many complaints more there were.
    #[serde(rename = "more_troubles")]
    pub more_issues: usize,
    /// The last lines of the console, where the init did not come to its end.
    #[serde(rename = "last_lines")]
    pub last_lines: Vec<String>,
    /// What happened before the boot that the user should know.
    #[serde(rename = "notes")]
    pub notes: Vec<String>,
    /// Where all of the console is kept.
    pub console: Utf8PathBuf,
}

/// What is known of a boot when its machine has ended.
pub(super) struct RunRecord<'a> {
    pub target: String,
    pub machine: String,
    pub accelerator: Accelerator,
    pub has_network: bool,
    pub has_vsock: bool,
    pub has_disk_root: bool,
    /// The release that the image says it holds.
    pub expected_release: Option<&'a str>,
    /// In the order in which they are loaded.
    pub modules: &'a [Module],
    pub stop_reason: StopReason,
    pub seconds: f64,
    pub notes: Vec<String>,
    pub console: Utf8PathBuf,
}

/// Judges what a console has shown.
pub(super) fn evaluate(console: &Console, run: RunRecord<'_>, required: &[Requirement]) -> BootReport {
    let modules = modules(console, run.modules);
    let checks = checks(console, &run);
    let exit_reason = exit_reason(console, &run);
    let mut report = BootReport {
        target: run.target,
        passed: false,
        failures: Vec::new(),
        machine: run.machine,
        accelerator: run.accelerator,
        last_lines: if exit_reason == ExitReason::Completed { Vec::new() } else { console.last.clone() },
        exit_reason,
        release: console.release.clone(),
        seconds_to_init: console.seconds_to_init,
        seconds: run.seconds,
        modules,
        checks,
        issues: console.issues.clone(),
        more_issues: console.more_issues,
        notes: run.notes,
        console: run.console,
    };
    report.failures = failures(&report, run.expected_release, required);
    report.passed = report.failures.is_empty();
    report
}

/// Everything that is not as it must be, in one line each.
fn failures(report: &BootReport, expected: Option<&str>, required: &[Requirement]) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(exit_reason) = report.exit_reason.failure() {
        failures.push(exit_reason);
    }
    if let (Some(release), Some(expected)) = (&report.release, expected)
        && release != expected
    {
        failures.push(format!("the kernel says that it is {release}, the image that it is {expected}"));
    }
    failures.extend(
        report
            .issues
            .iter()
            .filter(|issue| issue.kind == KernelIssueKind::Oops)
            .map(|issue| format!("the kernel oopsed: {}", issue.lines.first().map_or("", String::as_str))),
    );
    if report.exit_reason != ExitReason::Completed {
        // What it did not come to is no failure of its own.
        return failures;
    }
    let requires =
        |requirement: &Requirement| required.contains(&Requirement::All) || required.contains(requirement);
    if requires(&Requirement::Modules) {
        failures.extend(report.modules.failed.iter().map(|one| format!("{}: {}", one.module, one.reason)));
        let not_run = report.modules.not_run;
        failures
            .extend((not_run > 0).then(|| format!("{} not tried", pluralize(not_run, "module", "modules"))));
    }
    for (check, (_, group, _)) in report.checks.iter().zip(CHECKS) {
        let group = match group {
            Group::Devices => Requirement::Devices,
            Group::Kubernetes => Requirement::Kubernetes,
        };
        let requirement = requires(&group) || required.contains(&Requirement::Check(check.name));
        match check.status {
            CheckStatus::Failed if requirement => {
                failures.push(format!("{}: {}: {}", check.name, check.what, check.text));
            }
            CheckStatus::NotRun if requirement => {
                failures.push(format!("{}: the init did not try it", check.name));
            }
            _ => {}
        }
    }
    let warnings = report.issues.len() + report.more_issues;
    if required.contains(&Requirement::Clean) && warnings > 0 {
        failures.push(format!("the kernel warned {}", pluralize(warnings, "time", "times")));
    }
    failures
}

fn modules(console: &Console, order: &[Module]) -> Modules {
    let mut modules = Modules { total: order.len(), ..Modules::default() };
    let mut has_no_hardware = vec![false; order.len()];
    for (place, (module, loaded)) in order.iter().zip(&console.modules).enumerate() {
        let Some(ModuleLoad { errno, lines }) = loaded else {
            modules.not_run += 1;
            continue;
        };
        // Its symbols are unknown where the module that has them would not stay.
        let missing = module.dependencies.iter().find(|&&needed| *errno == ENOENT && has_no_hardware[needed]);
        let text = errno_text(*errno);
        let reason = match (missing, lines.first()) {
            (Some(&needed), _) => format!("needs {}, which has no hardware", order[needed].path),
            (None, Some(line)) => format!("{text} ({line})"),
            (None, None) => text,
        };
        let failed = ModuleFailure { module: module.path.clone(), errno: *errno, reason };
        if *errno == 0 {
            modules.loaded += 1;
        } else if missing.is_some() || NO_HARDWARE.contains(errno) {
            has_no_hardware[place] = true;
            modules.without_hardware.push(failed);
        } else {
            modules.failed.push(failed);
        }
    }
    modules
}

fn checks(console: &Console, run: &RunRecord<'_>) -> Vec<Check> {
    let check = |&(name, _, what): &(&'static str, Group, &'static str)| {
        let check = console.checks.iter().find(|check| check.name == name);
        let (status, text) = match check {
            None => (CheckStatus::NotRun, String::new()),
            Some(_) if name == "network" && !run.has_network => {
                (CheckStatus::Skipped, "the machine has no network device".to_owned())
            }
            Some(check) if check.errno != 0 => {
                let why = errno_text(check.errno);
                (
                    CheckStatus::Failed,
                    if check.text.is_empty() { why } else { format!("{}: {why}", check.text) },
                )
            }
            Some(check) if name == "vsock" && check.text == "no device" => match run.has_vsock {
                true => (CheckStatus::Failed, "the driver did not find the machine's device".to_owned()),
                false => (CheckStatus::Passed, "its driver; this host offers no device for it".to_owned()),
            },
            Some(_) if name == "block" && run.has_disk_root => {
                (CheckStatus::Passed, "the root file system is on it".to_owned())
            }
            Some(check) => (CheckStatus::Passed, check.text.clone()),
        };
        Check { name, what, status, text }
    };
    CHECKS.iter().map(check).collect()
}

fn exit_reason(console: &Console, run: &RunRecord<'_>) -> ExitReason {
    if let Some(panic) = console.panic() {
        let line = panic.lines.first().map_or("", String::as_str);
        let reason = line.split_once("not syncing: ").map_or(line, |(_, reason)| reason);
        let reason = reason.trim_end_matches('.').to_owned();
        return ExitReason::Panic { meaning: explain_panic(&reason), reason };
    }
    if console.has_ended {
        return ExitReason::Completed;
    }
    let during = || match console.loading.and_then(|number| run.modules.get(number)) {
        Some(module) => format!("while it loaded {}", module.path),
        None if console.init => "in the init".to_owned(),
        None if console.has_output => "before the init".to_owned(),
        None => "before it printed anything".to_owned(),
    };
    match &run.stop_reason {
        StopReason::OutOfTime(limit) => {
            ExitReason::Hang { why: format!("not done after {}, {}", format_duration(*limit), during()) }
        }
        StopReason::Silent(silence) => {
            ExitReason::Hang { why: format!("fell silent for {}, {}", format_duration(*silence), during()) }
        }
        StopReason::Flood => ExitReason::Flood,
        StopReason::Exited { status, stderr } => {
            ExitReason::Died { status: format!("{status}, {}", during()), stderr: stderr.clone() }
        }
    }
}

impl ExitReason {
    /// Why it is a failure, if it is one.
    fn failure(&self) -> Option<String> {
        match self {
            ExitReason::Completed => None,
            ExitReason::Panic { reason, meaning: None } => Some(format!("the kernel panicked: {reason}")),
            ExitReason::Panic { reason, meaning: Some(meaning) } => {
                Some(format!("the kernel panicked: {reason}: {meaning}"))
            }
            ExitReason::Hang { why } => Some(format!("the kernel hangs: {why}")),
            ExitReason::Flood => Some("the kernel prints without end".to_owned()),
            ExitReason::Died { status, stderr } => {
                let stderr = stderr.last().map_or_else(String::new, |line| format!(": {line}"));
                Some(format!("the machine ended with {status}{stderr}"))
            }
        }
    }
}

/// What the reason of a panic tells about the kernel: the texts are those of `init/do_mounts.c` and
/// `init/main.c`.
fn explain_panic(reason: &str) -> Option<&'static str> {
    let known = [
        (
            "VFS: Unable to mount root fs on unknown-block(0,0)",
            "it has no block device: virtio-blk, or the bus that it is on, is not built in",
        ),
        ("VFS: Unable to mount root fs on", "it has the disk and cannot mount it: ext4 is not built in"),
        ("No working init found", "it could not run the init"),
        ("Requested init", "it could not run the init"),
        ("Attempted to kill init", "the kernel failed while it served the init"),
    ];
    known.into_iter().find(|(start, _)| reason.starts_with(start)).map(|(_, meaning)| meaning)
}

/// The error numbers are the same on x86-64 and arm64, and on this host.
fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

impl BootReport {
    /// Fails (exit code 1) when what must be in order is not.
    pub fn require(&self) -> Result<()> {
        if self.passed {
            return Ok(());
        }
        let mut named: Vec<String> = self.failures.iter().take(MAX_NAMED).cloned().collect();
        let more = self.failures.len() - named.len();
        named.extend((more > 0).then(|| format!("and {more} more")));
        let error = Error::build(format!("{} did not pass: {}", self.target, named.join("; ")));
        Err(error.hint(format!("all of its console is in {}", self.console)))
    }

    /// One line for a summary or a receipt.
    pub fn summary(&self) -> String {
        let status = if self.passed { "booted" } else { "failed" };
        let Modules { loaded, total, .. } = self.modules;
        format!(
            "{status} on {}, by {}: {loaded} of {}",
            self.machine,
            self.accelerator,
            pluralize(total, "module", "modules")
        )
    }
}
