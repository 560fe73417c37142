//! Turns the output of a console into a [`BootReport`].

use super::MAX_CONSOLE;
use super::console::{Console, GuestCheck, KernelIssueKind, ModuleLoad};
use super::machine::Accelerator;
use super::module_order::Module;
use super::report::{
    BootReport, CHECKS, Check, CheckSpec, CheckStatus, ExitReason, ModuleFailure, Modules, Requirement,
};
use crate::util::error::without_number;
use crate::util::text::{format_duration, pluralize};
use camino::Utf8PathBuf;
use std::time::Duration;

/// `ENXIO`, `ENODEV` and `EOPNOTSUPP`, which drivers return if they find no hardware.
const NO_HARDWARE: [i32; 3] = [6, 19, 95];
/// A symbol that no loaded module exports, or an error of the driver itself.
const ENOENT: i32 = 2;

/// Why kcompile stopped the virtual machine, or that it ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    Exited { status: String, stderr: Vec<String> },
    OutOfTime(Duration),
    Silent(Duration),
    Flood,
}

/// What is known about a boot besides its console.
pub(super) struct RunRecord<'a> {
    pub target: String,
    pub machine: String,
    pub accelerator: Accelerator,
    pub has_network: bool,
    pub has_vsock: bool,
    pub has_disk_root: bool,
    /// The release in the image's annotation.
    pub expected_release: Option<&'a str>,
    /// The modules in load order.
    pub modules: &'a [Module],
    pub stop_reason: StopReason,
    pub seconds: f64,
    pub notes: Vec<String>,
    pub console: Utf8PathBuf,
}

/// Evaluates the output of a console.
pub(super) fn evaluate(console: &Console, run: RunRecord<'_>, required: &[Requirement]) -> BootReport {
    let exit_reason = exit_reason(console, &run);
    let mut report = BootReport {
        modules: modules(console, run.modules),
        checks: checks(console, &run, required),
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
        issues: console.issues.clone(),
        more_issues: console.more_issues,
        notes: run.notes,
        console: run.console,
    };
    report.failures = failures(&report, run.expected_release, required);
    report.passed = report.failures.is_empty();
    report
}

/// Returns a line for each requirement that is not met.
fn failures(report: &BootReport, expected: Option<&str>, required: &[Requirement]) -> Vec<String> {
    let mut failures = Vec::from_iter(report.exit_reason.failure());
    if let (Some(release), Some(expected)) = (&report.release, expected)
        && release != expected
    {
        failures.push(format!("uname reports release {release}, but the image's annotation says {expected}"));
    }
    failures.extend(
        report
            .issues
            .iter()
            .filter(|issue| issue.kind == KernelIssueKind::Oops)
            .map(|issue| format!("the kernel oopsed: {}", issue.lines.first().map_or("", String::as_str))),
    );
    if report.exit_reason != ExitReason::Completed {
        // What init did not get to is a consequence, not another failure.
        return failures;
    }
    if required.iter().any(|one| matches!(one, Requirement::All | Requirement::Modules)) {
        failures.extend(report.modules.failed.iter().map(|one| format!("{}: {}", one.module, one.reason)));
        let not_run = report.modules.not_run;
        failures.extend(
            (not_run > 0).then(|| format!("init did not reach {}", pluralize(not_run, "module", "modules"))),
        );
    }
    for check in report.checks.iter().filter(|check| check.is_required) {
        match check.status {
            CheckStatus::Failed => {
                failures.push(format!("{} ({}): {}", check.name, check.what, check.text));
            }
            CheckStatus::NotRun => {
                failures.push(format!("{}: init did not run this check", check.name));
            }
            CheckStatus::Passed | CheckStatus::Skipped => {}
        }
    }
    let warnings = report.issues.len() + report.more_issues;
    if required.contains(&Requirement::Clean) && warnings > 0 {
        let warnings = pluralize(warnings, "kernel warning", "kernel warnings");
        failures.push(format!("{warnings} on the console"));
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
        // Symbols are missing if the module that exports them found no hardware.
        let missing = module.dependencies.iter().find(|&&needed| *errno == ENOENT && has_no_hardware[needed]);
        let text = errno_text(*errno);
        let reason = match (missing, lines.first()) {
            (Some(&needed), _) => format!("needs {}, which found no hardware", order[needed].path),
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

fn checks(console: &Console, run: &RunRecord<'_>, required: &[Requirement]) -> Vec<Check> {
    let check = |CheckSpec { name, group, what }: CheckSpec| {
        let found = console.checks.iter().find(|check| check.name == name);
        let not_run = (CheckStatus::NotRun, String::new());
        let (status, text) = found.map_or(not_run, |check| check_result(check, run));
        let requires = |one: &Requirement| one.includes(group) || *one == Requirement::Check(name);
        Check { name, what, status, is_required: required.iter().any(requires), text }
    };
    CHECKS.into_iter().map(check).collect()
}

fn check_result(check: &GuestCheck, run: &RunRecord<'_>) -> (CheckStatus, String) {
    if check.name == "network" && !run.has_network {
        return (CheckStatus::Skipped, "this virtual machine has no network device".to_owned());
    }
    if check.errno != 0 {
        let why = errno_text(check.errno);
        let text = if check.text.is_empty() { why } else { format!("{}: {why}", check.text) };
        return (CheckStatus::Failed, text);
    }
    if check.name == "vsock" && check.text == "no device" {
        if run.has_vsock {
            return (CheckStatus::Failed, "the driver did not find the vsock device".to_owned());
        }
        return (CheckStatus::Passed, "only the driver, since this host has no vhost-vsock".to_owned());
    }
    if check.name == "block" && run.has_disk_root {
        return (CheckStatus::Passed, "the root file system is on it".to_owned());
    }
    (CheckStatus::Passed, check.text.clone())
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
    let during = match console.loading.and_then(|number| run.modules.get(number)) {
        Some(module) => format!("while loading {}", module.path),
        None if console.init => "while init ran".to_owned(),
        None if console.has_output => "before init started".to_owned(),
        None => "before any output".to_owned(),
    };
    match &run.stop_reason {
        StopReason::OutOfTime(limit) => {
            ExitReason::Hang { why: format!("not finished after {}, {during}", format_duration(*limit)) }
        }
        StopReason::Silent(limit) => {
            ExitReason::Hang { why: format!("no output for {}, {during}", format_duration(*limit)) }
        }
        StopReason::Flood => ExitReason::Flood,
        StopReason::Exited { status, stderr } => {
            ExitReason::Died { status: format!("{status}, {during}"), stderr: stderr.clone() }
        }
    }
}

impl ExitReason {
    fn failure(&self) -> Option<String> {
        match self {
            ExitReason::Completed => None,
            ExitReason::Panic { reason, meaning: None } => Some(format!("the kernel panicked: {reason}")),
            ExitReason::Panic { reason, meaning: Some(meaning) } => {
                Some(format!("the kernel panicked: {reason} ({meaning})"))
            }
            ExitReason::Hang { why } => Some(format!("the kernel hangs: {why}")),
            ExitReason::Flood => Some(format!("the kernel printed more than {} MiB", MAX_CONSOLE >> 20)),
            ExitReason::Died { status, stderr } => {
                let stderr = stderr.last().map_or_else(String::new, |line| format!(": {line}"));
                Some(format!("the virtual machine ended with {status}{stderr}"))
            }
        }
    }
}

/// Explains the message of a panic. The messages are from the kernel's `init/do_mounts.c` and `init/main.c`.
fn explain_panic(reason: &str) -> Option<&'static str> {
    let known = [
        (
            "VFS: Unable to mount root fs on unknown-block(0,0)",
            "no block device was found; virtio-blk or its bus is not built in",
        ),
        ("VFS: Unable to mount root fs on", "the disk cannot be mounted; ext4 is not built in"),
        ("No working init found", "init could not run"),
        ("Requested init", "init could not run"),
        ("Attempted to kill init", "init ended early, probably because the kernel failed"),
    ];
    known.into_iter().find(|(start, _)| reason.starts_with(start)).map(|(_, meaning)| meaning)
}

/// Returns the text of an error number. The numbers are the same on x86-64, arm64 and this host.
fn errno_text(errno: i32) -> String {
    without_number(&std::io::Error::from_raw_os_error(errno).to_string()).to_lowercase()
}
