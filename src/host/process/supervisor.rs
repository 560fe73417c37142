//! Between kcompile and a program that it runs stands another process, which ends the program and all that
//! came of it when kcompile is gone, be it by `kill -9`.
//!
//! kcompile starts itself again under the name [`NAME`] and holds one end of a pipe, the leash, of which the other
//! end is the supervisor's standard input. kcompile asks for signals by that pipe and sends none itself. However
//! kcompile ends, the kernel closes the leash, and wakes a supervisor that was stopped (`PR_SET_PDEATHSIG` in
//! prctl(2)). The supervisor is the reaper of everything below it (`PR_SET_CHILD_SUBREAPER`): a process whose parent
//! has ended becomes its child, even where it has left the process group and the session. It leads a session of its
//! own, so that the program has no terminal.

use super::descendants::signal_descendants;
use super::{GRACE_PERIOD, PidFile, SANDBOX};
use rustix::process::{Pid, Signal, WaitOptions};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the supervisor is called in lists of processes, and what tells it from kcompile itself.
pub(super) const NAME: &str = "kcompile-supervisor";
/// How often it is looked whether everything has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// What cannot be killed in this time hangs in the kernel: it is not waited for any longer.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);

/// Must all that is left be killed, without time to end in good order?
static FORCE_KILL: AtomicBool = AtomicBool::new(false);

/// What a supervisor is asked to send to the program and all its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To end in good order.
    Terminate,
    /// To end at once.
    Kill,
    /// To stop, until it is told to go on.
    Stop,
    /// To go on.
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

/// The pipe by which a supervisor knows that kcompile is there. Dropped, it has the program and all its
/// descendants terminated, and killed if they do not end.
pub(super) struct Lifeline(ChildStdin);

impl Lifeline {
    /// Of a supervisor that was just started.
    pub(super) fn of(supervisor: &mut Child) -> Option<Lifeline> {
        supervisor.stdin.take().map(Lifeline)
    }

    pub(super) fn send(&mut self, request: Request) {
        // A supervisor that is gone has killed it already.
        let _ = self.0.write_all(&[request.byte()]);
    }
}

/// The command that runs `program` under a supervisor; arguments, environment and working directory of the
/// program are added to it. `note` is a file that is there as long as the program runs, and stays unless it succeeds,
/// or ends when it is told to.
pub(super) fn command(pid_file: Option<&PidFile<'_>>, program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    // Not by its path: that may have been replaced since, by an update.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(pid_file.map_or("", |pid_file| pid_file.0.as_str())).arg(program);
    command.stdin(Stdio::piped());
    command
}

/// The supervisor's whole life: runs the program that `args` name, and returns its exit code.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(pid_file), Some(program)) = (args.next(), args.next()) else { return ExitCode::from(2) };
    let pid_file = (!pid_file.is_empty()).then_some(pid_file);
    let is_sandbox = program == SANDBOX;
    // A signal to end is meant for the program: when that has ended, so will this process.
    let terminate_requested = Arc::<AtomicBool>::default();
    let _ = signal_hook::flag::register(signal_hook::consts::SIGTERM, terminate_requested.clone());
    let ourselves = rustix::process::getpid();
    let prepared = rustix::process::setsid()
        .and_then(|_| rustix::process::set_child_subreaper(Some(ourselves)))
        .and_then(|()| rustix::process::set_parent_process_death_signal(Some(Signal::CONT)));
    if let Err(error) = prepared {
        eprintln!("{NAME}: cannot adopt processes: {error}");
        return ExitCode::from(127);
    }
    if let Some(pid_file) = &pid_file {
        // Without it only a kill of ourselves would go unnoticed.
        let _ = write_pid_file(pid_file, ourselves);
    }
    let started = Command::new(&program).args(args).stdin(Stdio::null()).spawn();
    let status = match started {
        Ok(child) => {
            let program = Pid::from_child(&child);
            // It would be ended by a signal, and kill its sandbox, where make is to end in good order.
            let except = is_sandbox.then_some(program);
            std::thread::spawn({
                let terminate_requested = terminate_requested.clone();
                move || watch_lifeline(except, &terminate_requested)
            });
            let status = wait_for(program);
            terminate_descendants();
            status
        }
        Err(error) => {
            eprintln!("cannot run {}: {error}", program.display());
            Some(ProgramExit::Exited(127))
        }
    };
    let is_clean = match status {
        Some(ProgramExit::Exited(0)) => true,
        // A program that fails by itself may have had one of its own killed, which has removed nothing.
        Some(ProgramExit::Exited(_)) => terminate_requested.load(Ordering::SeqCst),
        // make ends so when it was told to. A sandbox has killed all that was in it.
        Some(ProgramExit::Signalled(_)) => terminate_requested.load(Ordering::SeqCst) && !is_sandbox,
        None => false,
    };
    if let Some(pid_file) = pid_file.filter(|_| is_clean && !FORCE_KILL.load(Ordering::SeqCst)) {
        let _ = std::fs::remove_file(pid_file);
    }
    ExitCode::from(status.and_then(ProgramExit::code).unwrap_or(1))
}

/// How the program has ended.
#[derive(Clone, Copy)]
enum ProgramExit {
    Exited(i32),
    Signalled(i32),
}

impl ProgramExit {
    /// The exit code, as a shell has it.
    fn code(self) -> Option<u8> {
        let (ProgramExit::Exited(code) | ProgramExit::Signalled(code)) = self;
        let base = if matches!(self, ProgramExit::Signalled(_)) { 128 } else { 0 };
        u8::try_from(base + code).ok()
    }
}

/// On the disk, so that it tells of a power cut, too.
fn write_pid_file(pid_file: &OsStr, pid: Pid) -> std::io::Result<()> {
    // A build script may have left a link there.
    let _ = std::fs::remove_file(pid_file);
    let mut file = File::create_new(pid_file)?;
    write!(file, "{}", pid.as_raw_nonzero())?;
    file.sync_all()
}

/// Does what kcompile asks for, and ends everything when kcompile is gone.
fn watch_lifeline(except: Option<Pid>, terminate_requested: &AtomicBool) {
    let mut byte = [0];
    // The end of the pipe: kcompile is gone.
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

/// make removes the targets that it was writing if it is given the time. A stopped process gets the signal when it
/// goes on.
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

/// Waits for `program`, and meanwhile for all that were adopted.
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

/// The program is gone: ends what it has left running.
fn terminate_descendants() {
    let since = Instant::now();
    let mut sent_term = false;
    while has_children() && since.elapsed() < REAP_TIMEOUT {
        if since.elapsed() > GRACE_PERIOD {
            FORCE_KILL.store(true, Ordering::SeqCst);
        }
        // A second SIGTERM would end a make before it has removed what it was writing.
        if FORCE_KILL.load(Ordering::SeqCst) {
            signal_descendants(Signal::KILL, None);
        } else if !sent_term {
            signal_descendants(Signal::TERM, None);
        }
        sent_term = true;
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Is anything left? Takes note of all that have ended.
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
