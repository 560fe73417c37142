//! The child that the user is talking to: it has the terminal, and is in our own process group.

use super::signals::{check, interrupted, wait_interactive};
use super::{CommandLine, spawn_error};
use crate::util::error::Result;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use signal_hook::consts::SIGINT;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// Runs a command that talks to the user: an installer that may ask for a password, a menu. While it runs, Ctrl-C
/// is its own business; afterwards the terminal is as it was. It goes on if we are killed, since half an
/// installation would be worse. Its standard output is our standard error.
///
/// Errors: it cannot be started (exit code 4), it was ended by Ctrl-C, or a signal asked us to end.
pub fn run_interactive(command: &CommandLine) -> Result<ExitStatus> {
    check()?;
    let mut process = Command::new(&command.program);
    process.args(&command.args).env_clear().envs(&command.env).current_dir(&command.cwd);
    process.stdout(std::io::stderr());
    let terminal = tcgetattr(std::io::stdin()).ok();
    let mut child = process.spawn().map_err(|error| spawn_error(command, error))?;
    let (status, was_interrupted) = wait_interactive(&mut child);
    if let Some(terminal) = terminal {
        // A program that was killed has left it as it needed it.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &terminal);
    }
    check()?;
    let status = status.map_err(|error| spawn_error(command, error))?;
    // make, which dies of it as a rule, fails where its own children were gone first.
    let has_failed = was_interrupted && !status.success();
    if has_failed || status.signal() == Some(SIGINT) { Err(interrupted(SIGINT)) } else { Ok(status) }
}
