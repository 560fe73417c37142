//! Handles signals that end or stop kcompile, and passes them on to supervisors.

use super::GRACE_PERIOD;
use super::supervisor::{Lifeline, Request};
use crate::util::error::{Error, Kind, Result};
use crate::util::{terminal, threads};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The first signal that ends kcompile, or 0.
static SIGNALLED: AtomicI32 = AtomicI32::new(0);
static SUPERVISORS: Mutex<Vec<Supervisor>> = Mutex::new(Vec::new());

/// Starts to handle signals. SIGINT, SIGTERM and SIGHUP end all children and make [`check`] fail. A second
/// signal kills the children. The process exits soon after the first signal, even if a library still waits
/// for the network. SIGTSTP (Ctrl-Z) also stops the children. Signals that are ignored (`nohup`) stay
/// ignored. Must be called once.
pub fn watch_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};
    let ignored = ignored_signals();
    let watched = [SIGINT, SIGTERM, SIGHUP, SIGTSTP];
    let watched = watched.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = signal_hook::iterator::Signals::new(watched)
        .map_err(|error| Error::host("cannot watch signals").caused_by(error))?;
    threads::spawn(move || {
        for signal in signals.forever().filter(|signal| !forward_sigint(*signal)) {
            if signal == SIGTSTP {
                stop();
                continue;
            }
            let first = SIGNALLED.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if !first {
                send_to_all(Request::Kill);
            } else {
                send_to_all(Request::Terminate);
                terminate_interactive();
                let end = move || {
                    std::thread::sleep(GRACE_PERIOD);
                    send_to_all(Request::Kill);
                    std::thread::sleep(GRACE_PERIOD / 2);
                    terminal::restore();
                    // The next run removes remaining scratch directories.
                    std::process::exit(128 + signal);
                };
                // Without another thread, a second signal does not hurry the end.
                if threads::spawn(end).is_err() {
                    end();
                }
            }
        }
    })?;
    Ok(())
}

/// Stops the children, which have no terminal, and then this process until it is continued.
fn stop() {
    send_to_all(Request::Stop);
    terminal::restore();
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP);
    send_to_all(Request::Continue);
}

/// Returns the mask of ignored signals, with signal 1 as bit 0 (`SigIgn` in proc(5)).
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Fails with `Kind::Interrupted` after a signal that ends kcompile. Long loops call it often.
pub fn check() -> Result<()> {
    match SIGNALLED.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => Err(interrupted(signal)),
    }
}

pub(super) fn interrupted(signal: i32) -> Error {
    let message = match signal {
        signal_hook::consts::SIGTERM => "terminated",
        signal_hook::consts::SIGHUP => "the terminal was closed",
        _ => "interrupted",
    };
    Error::new(Kind::Interrupted(signal), message).hint("run the same command again to continue")
}

/// A reader that fails after a signal that ends kcompile, so that downloads and unpacking stop.
pub struct Interruptible<R>(pub R);

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        check().map_err(std::io::Error::other)?;
        self.0.read(buffer)
    }
}

/// The interactive child, which is in the process group of kcompile.
static INTERACTIVE: Mutex<Option<OwnedFd>> = Mutex::new(None);
/// Whether Ctrl-C was left to the interactive child.
static SIGINT_FORWARDED: AtomicBool = AtomicBool::new(false);

fn interactive_child() -> MutexGuard<'static, Option<OwnedFd>> {
    INTERACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for an interactive child. Returns its exit status, and whether Ctrl-C was pressed.
pub(super) fn wait_interactive(child: &mut Child) -> (std::io::Result<ExitStatus>, bool) {
    SIGINT_FORWARDED.store(false, Ordering::SeqCst);
    *interactive_child() = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
    let status = child.wait();
    *interactive_child() = None;
    (status, SIGINT_FORWARDED.load(Ordering::SeqCst))
}

/// Returns whether `signal` is left to an interactive child. The terminal sends Ctrl-C to both processes.
fn forward_sigint(signal: i32) -> bool {
    let is_forwarded = signal == signal_hook::consts::SIGINT && interactive_child().is_some();
    SIGINT_FORWARDED.fetch_or(is_forwarded, Ordering::SeqCst);
    is_forwarded
}

fn terminate_interactive() {
    if let Some(handle) = &*interactive_child() {
        let _ = pidfd_send_signal(handle, Signal::TERM);
    }
}

struct Supervisor {
    pid: Pid,
    lifeline: Option<Lifeline>,
}

/// Registers a new supervisor for signals. Returns its process ID.
pub(super) fn register(child: &mut Child) -> Pid {
    let pid = Pid::from_child(child);
    let mut lifeline = Lifeline::of(child);
    let mut supervisors = supervisors();
    // A signal since the last check has not reached this supervisor.
    if check().is_err() {
        lifeline.iter_mut().for_each(|lifeline| lifeline.send(Request::Terminate));
    }
    supervisors.push(Supervisor { pid, lifeline });
    pid
}

/// Makes a supervisor kill all its descendants.
pub(super) fn kill(pid: Pid) {
    let mut supervisors = supervisors();
    let found = supervisors.iter_mut().find(|supervisor| supervisor.pid == pid);
    found
        .and_then(|supervisor| supervisor.lifeline.as_mut())
        .into_iter()
        .for_each(|lifeline| lifeline.send(Request::Kill));
}

/// Waits for a supervisor, which ends after all its descendants. If it was killed, this kills its process
/// group. The ID of the group is not reused until its leader is reaped.
pub(super) fn reap(mut child: Child) -> std::io::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let ended = loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            ended => break ended?,
        }
    };
    supervisors().retain(|supervisor| supervisor.pid != pid);
    if ended.is_some_and(|ended| ended.killed() || ended.dumped()) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    child.wait()
}

fn supervisors() -> MutexGuard<'static, Vec<Supervisor>> {
    SUPERVISORS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send_to_all(request: Request) {
    supervisors()
        .iter_mut()
        .filter_map(|supervisor| supervisor.lifeline.as_mut())
        .for_each(|lifeline| lifeline.send(request));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_signal_ends_kcompile_within_two_seconds() {
        // The time before children are killed, and after that.
        assert!(GRACE_PERIOD + GRACE_PERIOD / 2 < Duration::from_secs(2));
    }
}
