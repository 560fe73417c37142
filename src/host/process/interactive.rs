//! Runs an interactive child, which has the terminal and is in the process group of kcompile.

use super::signals::{check, interrupted, wait_interactive};
use super::{CommandLine, spawn_error};
use crate::util::error::Result;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use signal_hook::consts::SIGINT;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// Runs an interactive command, such as an installer that asks for a password, or a menu. The command handles
/// Ctrl-C while it runs, and the terminal is restored afterwards. It continues if kcompile is killed, since
/// half an installation would be worse. Its standard output is kcompile's standard error.
///
/// # Errors
///
/// It cannot be started (exit code 4), Ctrl-C ended it, or a signal ended kcompile (130).
pub fn run_interactive(command: &CommandLine) -> Result<ExitStatus> {
    check()?;
    let mut process = Command::new(&command.program);
    process.args(&command.args).env_clear().envs(&command.env).current_dir(&command.cwd);
    process.stdout(std::io::stderr());
    let terminal = tcgetattr(std::io::stdin()).ok();
    let mut child = process.spawn().map_err(|error| spawn_error(command, error))?;
    let (status, was_interrupted) = wait_interactive(&mut child);
    if let Some(terminal) = terminal {
        // A program that was killed does not restore the terminal.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &terminal);
    }
    check()?;
    let status = status.map_err(|error| spawn_error(command, error))?;
    // make usually dies of SIGINT, but fails if its children ended first.
    let has_failed = was_interrupted && !status.success();
    if has_failed || status.signal() == Some(SIGINT) { Err(interrupted(SIGINT)) } else { Ok(status) }
}
