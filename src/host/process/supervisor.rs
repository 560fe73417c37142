//! Between kcompile and a program that it runs stands another process, which ends the program and all that
//! came of it when kcompile is gone, be it by `kill -9`.
//!
//! kcompile starts itself again under the name [`NAME`] and holds one end of a pipe, the leash, of which the other
//! end is the supervisor's standard input. However kcompile ends, the kernel closes the leash. The supervisor is
//! the reaper of everything below it (`PR_SET_CHILD_SUBREAPER` in prctl(2)): a process whose parent has
//! ended becomes its child, even where it has left the process group and the session, so that nothing is out of
//! its reach. It leads the process group of the program, so that a signal to the group reaches all of it at once.

use super::{GRACE, Note};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};
use std::collections::BTreeMap;
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

/// The pipe by which a supervisor knows that kcompile is there. Dropped, it has the program and all its
/// descendants terminated, and killed if they do not end.
pub(super) struct Leash(ChildStdin);

impl Leash {
    /// Of a supervisor that was just started.
    pub(super) fn of(supervisor: &mut Child) -> Option<Leash> {
        supervisor.stdin.take().map(Leash)
    }

    /// Has everything killed at once.
    pub(super) fn kill(&mut self) {
        // A supervisor that is gone has killed it already.
        let _ = self.0.write_all(b"k");
    }
}

/// The command that runs `program` under a supervisor; arguments, environment and working directory of the
/// program are added to it. `note` is where the supervisor's process number stands as long as the program
/// runs, and stays unless it succeeds, or ends when it is told to.
pub(super) fn command(note: Option<&Note<'_>>, program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    // Not by its path: that may have been replaced since, by an update.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(note.map_or("", |note| note.0.as_str())).arg(program);
    command.stdin(Stdio::piped()).process_group(0);
    command
}

/// The supervisor's whole life: runs the program that `args` name, and returns its exit code.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(note), Some(program)) = (args.next(), args.next()) else { return ExitCode::from(2) };
    let note = (!note.is_empty()).then_some(note);
    // A signal to end is meant for the program: when that has ended, so will this process.
    let told_to_end = Arc::<AtomicBool>::default();
    let _ = signal_hook::flag::register(signal_hook::consts::SIGTERM, told_to_end.clone());
    let ourselves = rustix::process::getpid();
    if let Err(error) = rustix::process::set_child_subreaper(Some(ourselves)) {
        eprintln!("{NAME}: cannot adopt processes: {error}");
    }
    if let Some(note) = &note {
        // Without it only a kill of ourselves would go unnoticed.
        let _ = write_note(note, ourselves);
    }
    let started = Command::new(&program).args(args).stdin(Stdio::null()).spawn();
    let status = match started {
        Ok(child) => {
            std::thread::spawn(hold_leash);
            let status = wait_for(Pid::from_child(&child));
            end_descendants();
            status
        }
        Err(error) => {
            eprintln!("cannot run {}: {error}", program.display());
            Some(127)
        }
    };
    // A program that fails by itself may have had one of its own killed, which has removed nothing.
    let ended_well = status == Some(0) || told_to_end.load(Ordering::SeqCst);
    if let Some(note) = note.filter(|_| ended_well && !KILL.load(Ordering::SeqCst)) {
        let _ = std::fs::remove_file(note);
    }
    ExitCode::from(status.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// On the disk, so that it tells of a power cut, too.
fn write_note(note: &OsStr, pid: Pid) -> std::io::Result<()> {
    let mut file = File::create(note)?;
    write!(file, "{}", pid.as_raw_nonzero())?;
    file.sync_all()
}

/// Waits until kcompile speaks or is gone, and ends everything then.
fn hold_leash() {
    // One byte: kill. The end of the pipe: kcompile is gone. make removes the targets that it was writing
    // if it is given the time.
    if let Ok(0) | Err(_) = std::io::stdin().read(&mut [0]) {
        signal_descendants(Signal::TERM);
        std::thread::sleep(GRACE);
    }
    KILL.store(true, Ordering::SeqCst);
    loop {
        signal_descendants(Signal::KILL);
        std::thread::sleep(EVERY);
    }
}

/// Waits for `program`, and meanwhile for all that were adopted. Returns its exit code, as a shell has it.
fn wait_for(program: Pid) -> Option<i32> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => return exit_code(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

fn exit_code(status: WaitStatus) -> Option<i32> {
    status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal))
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
        match (KILL.load(Ordering::SeqCst), told) {
            (true, _) => signal_descendants(Signal::KILL),
            (false, false) => signal_descendants(Signal::TERM),
            (false, true) => {}
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

/// A process that comes into being meanwhile is met the next time.
fn signal_descendants(signal: Signal) {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in super::processes() {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let mut parents = vec![rustix::process::getpid().as_raw_nonzero().get()];
    while let Some(parent) = parents.pop() {
        for pid in children.remove(&parent).unwrap_or_default() {
            // One that has just ended is no error.
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
            parents.push(pid);
        }
    }
}
