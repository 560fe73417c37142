//! The child that the user is talking to: it has the terminal, and is in our own process group.

use super::{CommandLine, check, interrupted, not_started};
use crate::util::error::Result;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use signal_hook::consts::SIGINT;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Its process number; 0: there is none.
static ATTENDED: AtomicI32 = AtomicI32::new(0);
/// Has Ctrl-C been left to it?
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Runs a command that talks to the user: an installer that may ask for a password, a menu. While it runs, Ctrl-C
/// is its own business; afterwards the terminal is as it was. It goes on if we are killed, since half an
/// installation would be worse. Its standard output is our standard error.
///
/// Errors: it cannot be started (exit code 4), it was ended by Ctrl-C, or a signal asked us to end.
pub fn interact(command: &CommandLine) -> Result<ExitStatus> {
    check()?;
    let mut process = Command::new(&command.program);
    process.args(&command.args).env_clear().envs(&command.env).current_dir(&command.cwd);
    process.stdout(std::io::stderr());
    let terminal = tcgetattr(std::io::stdin()).ok();
    TAKEN.store(false, Ordering::SeqCst);
    let mut child = process.spawn().map_err(|error| not_started(command, error))?;
    ATTENDED.store(Pid::from_child(&child).as_raw_nonzero().get(), Ordering::SeqCst);
    let status = child.wait();
    ATTENDED.store(0, Ordering::SeqCst);
    if let Some(terminal) = terminal {
        // A program that was killed has left it as it needed it.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &terminal);
    }
    check()?;
    let status = status.map_err(|error| not_started(command, error))?;
    // make, which dies of it as a rule, fails where its own children were gone first.
    let was_taken = TAKEN.load(Ordering::SeqCst) && !status.success();
    match was_taken || status.signal() == Some(SIGINT) {
        true => Err(interrupted(SIGINT)),
        false => Ok(status),
    }
}

/// Is `signal` meant for such a child? The terminal sends Ctrl-C to both of us.
pub(super) fn takes(signal: i32) -> bool {
    let is_taken = signal == SIGINT && ATTENDED.load(Ordering::SeqCst) != 0;
    TAKEN.fetch_or(is_taken, Ordering::SeqCst);
    is_taken
}

/// Asks it to end.
pub(super) fn terminate() {
    if let Some(attended) = Pid::from_raw(ATTENDED.load(Ordering::SeqCst)) {
        let _ = kill_process(attended, Signal::TERM);
    }
}
