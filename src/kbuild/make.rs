//! Runs make, and turns its failure into an error with a hint.

use super::estimate::ExpectedSteps;
use super::launcher::Launcher;
use super::make_log::{self, LogSummary};
use super::work::WorkMeter;
use super::{BuildDir, MAKE_PID, make_vars, recovery};
use crate::host;
use crate::host::process::{self, CommandLine, PidFile};
use crate::report::{Count, PhaseGuard, Unit};
use crate::util::error::{Error, Result};
use crate::util::fs::{is_full, remove_tree};
use std::collections::BTreeMap;
use std::io::Write;

/// Where make's output and its steps are shown, and how many steps are expected.
#[derive(Clone, Copy)]
pub(super) struct Progress<'a> {
    pub phase: &'a PhaseGuard<'a>,
    pub expected: Option<ExpectedSteps>,
}

impl BuildDir<'_> {
    /// Runs make with `targets` and summarizes its output. The command line is complete, so that
    /// the same command in an empty environment does the same again.
    pub(super) fn make(
        &self,
        targets: &[&str],
        extra: &BTreeMap<String, String>,
        progress: Option<Progress<'_>>,
    ) -> Result<LogSummary> {
        assert!(
            self.host.tool_root.is_none() || self.sandbox.report.is_complete(),
            "a toolchain's make runs in a sandbox only"
        );
        let mut command = self.make_command(targets, extra);
        // make fails too if the log cannot be written.
        let _ = writeln!(&self.log, "+ {command}");
        let mut log_summary = LogSummary::default();
        let path = self.path.join(MAKE_PID);
        let pid_file = Some(&PidFile(&path));
        let expected = progress.and_then(|progress| progress.expected);
        let mut meter = expected.map(|expected| WorkMeter::new(expected.work, expected.last_work));
        let on_line = |_, line: &str| {
            let step = log_summary.add_line(line, host::clock());
            let Some(Progress { phase, expected }) = progress else { return };
            phase.output(line);
            if let Some(item) = step {
                let done = log_summary.steps;
                let (total, estimated) =
                    expected.map_or((None, false), |expected| (Some(expected.total), expected.estimated));
                let work = meter.as_mut().map(|meter| meter.add(item));
                phase.progress(Count { done, total, estimated, work, unit: Unit::Steps, item });
            }
        };
        let status = match &self.options.jobserver {
            None => process::run(&self.sandbox.wrap(&command), &self.log, pid_file, on_line)?,
            Some(jobserver) => {
                // With -j make would leave the job server.
                command.args.retain(|arg| *arg != self.jobs_arg());
                jobserver.run(&self.sandbox.wrap(&command), &self.log, pid_file, on_line)?
            }
        };
        if status.success() { Ok(log_summary) } else { Err(self.failed(targets, &log_summary)) }
    }

    pub(super) fn make_command(&self, targets: &[&str], extra: &BTreeMap<String, String>) -> CommandLine {
        let mut args =
            vec!["-C".to_owned(), self.tree.path.to_string(), format!("O={}", self.path), self.jobs_arg()];
        let variables = make_vars::variables(self.plan, self.tree, &self.path);
        args.extend(variables.iter().chain(extra).map(|(key, value)| format!("{key}={value}")));
        args.extend(targets.iter().map(|target| (*target).to_owned()));
        let env = match self.launcher() {
            Some(launcher) => launcher.environment(self.sandbox.env(), self.host, self.options.farm.as_ref()),
            None => self.sandbox.env().clone(),
        };
        CommandLine { program: "make".into(), args, env, cwd: self.path.clone() }
    }

    pub(super) fn launcher(&self) -> Option<Launcher<'_>> {
        Some(Launcher::of(&self.plan.toolchain, &self.path)?.with_network(self.options.network))
    }

    fn jobs_arg(&self) -> String {
        format!("-j{}", self.options.jobs)
    }

    fn failed(&self, targets: &[&str], log_summary: &LogSummary) -> Error {
        let mut first = log_summary.first_error.as_deref().unwrap_or("make printed no error").to_owned();
        let is_full = is_full(&self.path);
        if is_full || log_summary.out_of_space {
            // Not every program notices a short write, and the PID file may be missing for the same
            // reason. If nothing can be removed, the next run fails too.
            let removed = recovery::remove_unfinished(&self.path);
            let _ = removed.and_then(|_| remove_tree(&self.path.join(MAKE_PID)));
        }
        if is_full && !log_summary.out_of_space {
            first = format!("No space left on device: the disk of {} is full ({first})", self.path);
        }
        Error::build(format!("make {} failed: {first}", targets.join(" ")))
            .excerpt(&log_summary.excerpt)
            .hint(self.log_hint(&first))
    }

    /// Returns the hint for a known error, and the path of the log.
    pub(super) fn log_hint(&self, error: &str) -> String {
        let known = make_log::hint(error).map(|hint| format!("{hint}\n      ")).unwrap_or_default();
        format!("{known}full log: {}", self.log_path)
    }
}
