//! The process between kcompile and a program that it runs. It ends the program and all its descendants when
//! kcompile ends, even by `kill -9`.
//!
//! kcompile starts itself again under the name [`NAME`] and holds one end of a pipe, the lifeline. The other
//! end is the supervisor's standard input. kcompile requests signals through that pipe and sends none itself.
//! When kcompile ends, the kernel closes the pipe and continues a stopped supervisor (`PR_SET_PDEATHSIG` in
//! prctl(2)). The supervisor is the subreaper of its descendants (`PR_SET_CHILD_SUBREAPER`), so that it
//! adopts orphans even if they have left the process group and the session. It leads a new session, so that
//! the program has no terminal.

use super::descendants::signal_descendants;
use super::{GRACE_PERIOD, OWN_PROGRAM, PidFile, SANDBOX};
use crate::util::threads;
use rustix::process::{Pid, Signal, WaitOptions};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The name of the supervisor's process, which distinguishes it from kcompile itself.
pub(super) const NAME: &str = "kcompile-supervisor";
/// How often the supervisor checks whether all descendants have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long to wait for killed processes. Processes that take longer hang in the kernel.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether descendants are killed without time to clean up.
static FORCE_KILL: AtomicBool = AtomicBool::new(false);

/// A request to send a signal to the program and all its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Terminate,
    Kill,
    Stop,
    Continue,
}

impl Request {
    const ALL: [Request; 4] = [Request::Terminate, Request::Kill, Request::Stop, Request::Continue];

    fn byte(self) -> u8 {
        match self {
            Request::Terminate => b't',
            Request::Kill => b'k',
            Request::Stop => b's',
            Request::Continue => b'c',
        }
    }
}

/// kcompile's end of the pipe to a supervisor. When it is dropped, the supervisor terminates the program and
/// its descendants, and kills those that do not end.
pub(super) struct Lifeline(ChildStdin);

impl Lifeline {
    pub(super) fn of(supervisor: &mut Child) -> Option<Lifeline> {
        supervisor.stdin.take().map(Lifeline)
    }

    pub(super) fn send(&mut self, request: Request) {
        // A supervisor that has ended has no descendants left.
        let _ = self.0.write_all(&[request.byte()]);
    }
}

/// Returns a command that runs `program` under a supervisor. The caller adds the program's arguments,
/// environment and working directory. `pid_file` exists while the program runs, and stays unless the program
/// succeeds or ends on request.
pub(super) fn command(pid_file: Option<&PidFile<'_>>, program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0(NAME).arg(pid_file.map_or("", |pid_file| pid_file.0.as_str())).arg(program);
    command.stdin(Stdio::piped());
    command
}

/// Runs the supervisor: starts the program in `args`, waits for it and its descendants, returns its exit code.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(pid_file), Some(program)) = (args.next(), args.next()) else { return ExitCode::from(2) };
    let pid_file = (!pid_file.is_empty()).then_some(pid_file);
    let is_sandbox = program == SANDBOX;
    // A SIGTERM is meant for the program. The supervisor ends when the program has ended.
    let terminate_requested = Arc::<AtomicBool>::default();
    let _ = signal_hook::flag::register(signal_hook::consts::SIGTERM, terminate_requested.clone());
    let ourselves = rustix::process::getpid();
    let prepared = rustix::process::setsid()
        .and_then(|_| rustix::process::set_child_subreaper(Some(ourselves)))
        .and_then(|()| rustix::process::set_parent_process_death_signal(Some(Signal::CONT)));
    if let Err(error) = prepared {
        say(&format!("{NAME}: cannot adopt processes: {error}"));
        return ExitCode::from(127);
    }
    if let Some(pid_file) = &pid_file {
        // A failure matters only if this process is killed, too.
        let _ = write_pid_file(pid_file, ourselves);
    }
    let name = program;
    let started = Command::new(&name).args(args).stdin(Stdio::null()).spawn();
    let status = match started {
        Ok(child) => {
            let program = Pid::from_child(&child);
            // bubblewrap kills its sandbox when a signal ends it, but make needs time to clean up.
            let except = is_sandbox.then_some(program);
            let watching = threads::spawn({
                let terminate_requested = terminate_requested.clone();
                move || watch_lifeline(except, &terminate_requested)
            });
            match watching {
                Ok(_) => {
                    let status = wait_for(program);
                    terminate_descendants();
                    status
                }
                Err(error) => {
                    say(&format!("cannot run {}: {error}", name.display()));
                    FORCE_KILL.store(true, Ordering::SeqCst);
                    terminate_descendants();
                    Some(ProgramExit::Exited(127))
                }
            }
        }
        Err(error) => {
            say(&format!("cannot run {}: {error}", name.display()));
            Some(ProgramExit::Exited(127))
        }
    };
    let is_clean = match status {
        Some(ProgramExit::Exited(0)) => true,
        // If a program fails without a request, one of its children may have been killed and left files.
        Some(ProgramExit::Exited(_)) => terminate_requested.load(Ordering::SeqCst),
        // make ends by the signal after cleaning up. A sandbox kills everything in it.
        Some(ProgramExit::Signalled(_)) => terminate_requested.load(Ordering::SeqCst) && !is_sandbox,
        None => false,
    };
    if let Some(pid_file) = pid_file.filter(|_| is_clean && !FORCE_KILL.load(Ordering::SeqCst)) {
        let _ = std::fs::remove_file(pid_file);
    }
    ExitCode::from(status.and_then(ProgramExit::code).unwrap_or(1))
}

/// Writes a line to standard error. Nobody is left to report a failure to.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How the program ended.
#[derive(Clone, Copy)]
enum ProgramExit {
    Exited(i32),
    Signalled(i32),
}

impl ProgramExit {
    /// Returns the exit code, as shells define it.
    fn code(self) -> Option<u8> {
        let (ProgramExit::Exited(code) | ProgramExit::Signalled(code)) = self;
        let base = if matches!(self, ProgramExit::Signalled(_)) { 128 } else { 0 };
        u8::try_from(base + code).ok()
    }
}

/// Writes the file and syncs it, so that it survives a power failure.
fn write_pid_file(pid_file: &OsStr, pid: Pid) -> std::io::Result<()> {
    // A build script may have left a link there.
    let _ = std::fs::remove_file(pid_file);
    let mut file = File::create_new(pid_file)?;
    write!(file, "{}", pid.as_raw_nonzero())?;
    file.sync_all()
}

/// Carries out requests of kcompile, and ends all descendants when kcompile ends.
fn watch_lifeline(except: Option<Pid>, terminate_requested: &AtomicBool) {
    let mut byte = [0];
    // The loop ends when kcompile ends, which closes the pipe.
    while std::io::stdin().read_exact(&mut byte).is_ok() {
        match Request::ALL.into_iter().find(|request| request.byte() == byte[0]) {
            Some(Request::Terminate) => terminate(except, terminate_requested),
            Some(Request::Stop) => signal_descendants(Signal::STOP, None),
            Some(Request::Continue) => signal_descendants(Signal::CONT, None),
            Some(Request::Kill) | None => kill_forever(),
        }
    }
    terminate(except, terminate_requested);
    std::thread::sleep(GRACE_PERIOD);
    kill_forever();
}

/// Sends SIGTERM, upon which make removes unfinished targets. Stopped processes are continued to get it.
fn terminate(except: Option<Pid>, terminate_requested: &AtomicBool) {
    terminate_requested.store(true, Ordering::SeqCst);
    signal_descendants(Signal::TERM, except);
    signal_descendants(Signal::CONT, None);
}

fn kill_forever() -> ! {
    FORCE_KILL.store(true, Ordering::SeqCst);
    loop {
        signal_descendants(Signal::KILL, None);
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Waits for `program`, and reaps adopted processes.
fn wait_for(program: Pid) -> Option<ProgramExit> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => {
                let exited = status.exit_status().map(ProgramExit::Exited);
                return exited.or(status.terminating_signal().map(ProgramExit::Signalled));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Ends the descendants that the program has left running.
fn terminate_descendants() {
    let since = Instant::now();
    let mut sent_term = false;
    while has_children() && since.elapsed() < REAP_TIMEOUT {
        if since.elapsed() > GRACE_PERIOD {
            FORCE_KILL.store(true, Ordering::SeqCst);
        }
        // A second SIGTERM would end make before it has removed unfinished targets.
        if FORCE_KILL.load(Ordering::SeqCst) {
            signal_descendants(Signal::KILL, None);
        } else if !sent_term {
            signal_descendants(Signal::TERM, None);
        }
        sent_term = true;
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Reaps ended children. Returns whether any are left.
fn has_children() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_request_is_one_byte() {
        let bytes: BTreeSet<u8> = Request::ALL.into_iter().map(Request::byte).collect();
        assert_eq!(bytes.len(), Request::ALL.len());
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(ProgramExit::Exited(0).code(), Some(0));
        assert_eq!(ProgramExit::Exited(2).code(), Some(2));
        assert_eq!(ProgramExit::Signalled(9).code(), Some(137));
        assert_eq!(ProgramExit::Exited(256).code(), None);
    }

    #[test]
    fn a_pid_file_replaces_a_link_and_not_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let (note, other) = (dir.path().join("note"), dir.path().join("other"));
        std::fs::write(&other, "as it was").unwrap();
        std::os::unix::fs::symlink(&other, &note).unwrap();
        let ourselves = rustix::process::getpid();
        write_pid_file(note.as_os_str(), ourselves).unwrap();
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "as it was");
        assert_eq!(std::fs::read_to_string(&note).unwrap(), ourselves.as_raw_nonzero().to_string());
    }
}
