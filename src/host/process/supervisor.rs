//! Between kcompile and a program that it runs stands another process, which ends the program and all that
//! came of it when kcompile is gone, be it by `kill -9`.
//!
//! kcompile starts itself again under the name [`NAME`] and holds one end of a pipe, the leash, of which the other
//! end is the supervisor's standard input. kcompile asks for signals by that pipe and sends none itself. However
//! kcompile ends, the kernel closes the leash, and wakes a supervisor that was stopped (`PR_SET_PDEATHSIG` in
//! prctl(2)). The supervisor is the reaper of everything below it (`PR_SET_CHILD_SUBREAPER`): a process whose parent
//! has ended becomes its child, even where it has left the process group and the session. It leads a session of its
//! own, so that the program has no terminal.

use super::descendants::signal_all;
use super::{GRACE, Note, SANDBOX};
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
const EVERY: Duration = Duration::from_millis(5);
/// What cannot be killed in this time hangs in the kernel: it is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Must all that is left be killed, without time to end in good order?
static KILL: AtomicBool = AtomicBool::new(false);

/// What a supervisor is asked to send to the program and all its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// To end in good order.
    Terminate,
    /// To end at once.
    Kill,
    /// To stop, until it is told to go on.
    Stop,
    /// To go on.
    Continue,
}

impl Ask {
    const ALL: [Ask; 4] = [Ask::Terminate, Ask::Kill, Ask::Stop, Ask::Continue];

    fn byte(self) -> u8 {
        match self {
            Ask::Terminate => b't',
            Ask::Kill => b'k',
            Ask::Stop => b's',
            Ask::Continue => b'c',
        }
    }
}

/// The pipe by which a supervisor knows that kcompile is there. Dropped, it has the program and all its
/// descendants terminated, and killed if they do not end.
pub(super) struct Leash(ChildStdin);

impl Leash {
    /// Of a supervisor that was just started.
    pub(super) fn of(supervisor: &mut Child) -> Option<Leash> {
        supervisor.stdin.take().map(Leash)
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        // A supervisor that is gone has killed it already.
        let _ = self.0.write_all(&[ask.byte()]);
    }
}

/// The command that runs `program` under a supervisor; arguments, environment and working directory of the
/// program are added to it. `note` is a file that is there as long as the program runs, and stays unless it succeeds,
/// or ends when it is told to.
pub(super) fn command(note: Option<&Note<'_>>, program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    // Not by its path: that may have been replaced since, by an update.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(note.map_or("", |note| note.0.as_str())).arg(program);
    command.stdin(Stdio::piped());
    command
}

/// The supervisor's whole life: runs the program that `args` name, and returns its exit code.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(note), Some(program)) = (args.next(), args.next()) else { return ExitCode::from(2) };
    let note = (!note.is_empty()).then_some(note);
    let is_sandbox = program == SANDBOX;
    // A signal to end is meant for the program: when that has ended, so will this process.
    let told_to_end = Arc::<AtomicBool>::default();
    let _ = signal_hook::flag::register(signal_hook::consts::SIGTERM, told_to_end.clone());
    let ourselves = rustix::process::getpid();
    let prepared = rustix::process::setsid()
        .and_then(|_| rustix::process::set_child_subreaper(Some(ourselves)))
        .and_then(|()| rustix::process::set_parent_process_death_signal(Some(Signal::CONT)));
    if let Err(error) = prepared {
        eprintln!("{NAME}: cannot adopt processes: {error}");
        return ExitCode::from(127);
    }
    if let Some(note) = &note {
        // Without it only a kill of ourselves would go unnoticed.
        let _ = write_note(note, ourselves);
    }
    let started = Command::new(&program).args(args).stdin(Stdio::null()).spawn();
    let status = match started {
        Ok(child) => {
            let program = Pid::from_child(&child);
            // It would be ended by a signal, and kill its sandbox, where make is to end in good order.
            let spared = is_sandbox.then_some(program);
            std::thread::spawn({
                let told_to_end = told_to_end.clone();
                move || hold_leash(spared, &told_to_end)
            });
            let status = wait_for(program);
            end_descendants();
            status
        }
        Err(error) => {
            eprintln!("cannot run {}: {error}", program.display());
            Some(Ended::Exited(127))
        }
    };
    let ended_well = match status {
        Some(Ended::Exited(0)) => true,
        // A program that fails by itself may have had one of its own killed, which has removed nothing.
        Some(Ended::Exited(_)) => told_to_end.load(Ordering::SeqCst),
        // make ends so when it was told to. A sandbox has killed all that was in it.
        Some(Ended::Signalled(_)) => told_to_end.load(Ordering::SeqCst) && !is_sandbox,
        None => false,
    };
    if let Some(note) = note.filter(|_| ended_well && !KILL.load(Ordering::SeqCst)) {
        let _ = std::fs::remove_file(note);
    }
    ExitCode::from(status.and_then(Ended::code).unwrap_or(1))
}

/// How the program has ended.
#[derive(Clone, Copy)]
enum Ended {
    Exited(i32),
    Signalled(i32),
}

impl Ended {
    /// The exit code, as a shell has it.
    fn code(self) -> Option<u8> {
        let (Ended::Exited(code) | Ended::Signalled(code)) = self;
        let base = if matches!(self, Ended::Signalled(_)) { 128 } else { 0 };
        u8::try_from(base + code).ok()
    }
}

/// On the disk, so that it tells of a power cut, too.
fn write_note(note: &OsStr, pid: Pid) -> std::io::Result<()> {
    // A build script may have left a link there.
    let _ = std::fs::remove_file(note);
    let mut file = File::create_new(note)?;
    write!(file, "{}", pid.as_raw_nonzero())?;
    file.sync_all()
}

/// Does what kcompile asks for, and ends everything when kcompile is gone.
fn hold_leash(spared: Option<Pid>, told_to_end: &AtomicBool) {
    let mut asked = [0];
    // The end of the pipe: kcompile is gone.
    while std::io::stdin().read_exact(&mut asked).is_ok() {
        match Ask::ALL.into_iter().find(|ask| ask.byte() == asked[0]) {
            Some(Ask::Terminate) => terminate(spared, told_to_end),
            Some(Ask::Stop) => signal_all(Signal::STOP, None),
            Some(Ask::Continue) => signal_all(Signal::CONT, None),
            Some(Ask::Kill) | None => kill_for_ever(),
        }
    }
    terminate(spared, told_to_end);
    std::thread::sleep(GRACE);
    kill_for_ever();
}

/// make removes the targets that it was writing if it is given the time. A stopped process gets the signal when it
/// goes on.
fn terminate(spared: Option<Pid>, told_to_end: &AtomicBool) {
    told_to_end.store(true, Ordering::SeqCst);
    signal_all(Signal::TERM, spared);
    signal_all(Signal::CONT, None);
}

fn kill_for_ever() -> ! {
    KILL.store(true, Ordering::SeqCst);
    loop {
        signal_all(Signal::KILL, None);
        std::thread::sleep(EVERY);
    }
}

/// Waits for `program`, and meanwhile for all that were adopted.
fn wait_for(program: Pid) -> Option<Ended> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => {
                let exited = status.exit_status().map(Ended::Exited);
                return exited.or(status.terminating_signal().map(Ended::Signalled));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// The program is gone: ends what it has left running.
fn end_descendants() {
    let since = Instant::now();
    let mut told = false;
    while has_children() && since.elapsed() < PATIENCE {
        if since.elapsed() > GRACE {
            KILL.store(true, Ordering::SeqCst);
        }
        // A second SIGTERM would end a make before it has removed what it was writing.
        if KILL.load(Ordering::SeqCst) {
            signal_all(Signal::KILL, None);
        } else if !told {
            signal_all(Signal::TERM, None);
        }
        told = true;
        std::thread::sleep(EVERY);
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
