//! The only spawner of processes. Children that work (make, apt-get, …) run in a process group of
//! their own, under a [`supervisor`], so that a signal to kcompile can end them with all their descendants,
//! and its death does; their output is copied into a log and handed on line by line. Nothing of the
//! environment reaches them but what [`Host`](crate::host::Host) allows.

mod interactive;
mod jobserver;
mod supervisor;

pub use interactive::interact;
pub use jobserver::JobServer;

use crate::util::error::{Error, Kind, Result};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use supervisor::Leash;

/// The first signal that asked us to end; 0: none.
static SIGNALLED: AtomicI32 = AtomicI32::new(0);
/// Process groups that are running now, and their supervisors.
static GROUPS: Mutex<Vec<(Pid, Option<Leash>)>> = Mutex::new(Vec::new());
/// What children get to end in good order before they are killed: make removes the targets it was
/// writing when it is told to terminate.
const GRACE: Duration = Duration::from_millis(1_000);
/// How long output is awaited when its process is gone.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long a child that is watched may be silent before its watcher is told so.
const TICK: Duration = Duration::from_millis(100);
/// Lines of output are cut here; a log keeps them whole.
const LONGEST_LINE: usize = 64 * 1024;

/// A command line: what is run, where, with which environment.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// Searched in the `PATH` of `env`, or a path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: Utf8PathBuf,
}

impl std::fmt::Display for CommandLine {
    /// As a shell takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = std::iter::once(self.program.as_str()).chain(self.args.iter().map(String::as_str));
        f.write_str(&shlex::try_join(words).unwrap_or_else(|_| self.program.clone()))
    }
}

/// Which of a child's two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// From now on SIGINT, SIGTERM and SIGHUP end all children and make [`check`] fail; a second signal
/// kills the children at once. What does not end by itself soon after (a library that waits for the
/// network) is ended with the process. Signals that were ignored when we started (`nohup`) stay so.
/// To be called once.
pub fn watch_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let ignored = ignored_signals();
    let watched = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = signal_hook::iterator::Signals::new(watched)
        .map_err(|error| Error::host("cannot watch signals").because(error))?;
    std::thread::spawn(move || {
        for signal in signals.forever().filter(|signal| !interactive::takes(*signal)) {
            let first = SIGNALLED.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if !first {
                kill_groups();
            } else {
                terminate_groups();
                std::thread::spawn(move || {
                    std::thread::sleep(GRACE);
                    kill_groups();
                    std::thread::sleep(GRACE / 2);
                    // Scratch directories that stay are removed by the next run.
                    std::process::exit(128 + signal);
                });
            }
        }
    });
    Ok(())
}

/// From now on nobody else may write what we, or our children, make, whatever the umask was: what make
/// compiles goes into images. A stricter umask stays as it is. To be called before threads are.
pub fn keep_others_from_writing() {
    use rustix::fs::Mode;
    let given = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(given | Mode::from_raw_mode(0o022));
}

/// The mask of signals that are ignored, bit 0 for signal 1: `SigIgn` of proc(5).
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Words of the command line of a process that we have started as a supervisor: its whole life, and its
/// exit code. `None`: this is kcompile itself.
pub fn supervise(words: impl IntoIterator<Item = std::ffi::OsString>) -> Option<std::process::ExitCode> {
    let mut words = words.into_iter();
    (words.next()? == supervisor::NAME).then(|| supervisor::main(words))
}

fn groups() -> std::sync::MutexGuard<'static, Vec<(Pid, Option<Leash>)>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn terminate_groups() {
    for (group, _) in groups().iter() {
        // A group that has just ended is no error.
        let _ = kill_process_group(*group, Signal::TERM);
    }
    interactive::terminate();
}

fn kill_groups() {
    groups().iter_mut().filter_map(|(_, leash)| leash.as_mut()).for_each(Leash::kill);
}

/// Fails with the kind `Interrupted` once a signal has asked us to end. Long loops call it often.
pub fn check() -> Result<()> {
    match SIGNALLED.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => Err(interrupted(signal)),
    }
}

fn interrupted(signal: i32) -> Error {
    let message = match signal {
        signal_hook::consts::SIGTERM => "terminated",
        signal_hook::consts::SIGHUP => "the terminal was closed",
        _ => "interrupted",
    };
    Error::new(Kind::Interrupted(signal), message).hint("the same command goes on from here")
}

/// A reader that fails once a signal has asked us to end, so that a download or an archive being
/// unpacked stops at its next read.
pub struct Interruptible<R>(pub R);

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        check().map_err(std::io::Error::other)?;
        self.0.read(buffer)
    }
}

/// Where a process number stands as long as its process runs; after it has ended only if it failed or was killed, so
/// that it, or one of its own that was killed, may have left files half-written.
pub struct Note<'a>(pub &'a Utf8Path);

impl Note<'_> {
    /// May there be files that are half-written?
    pub fn is_there(&self) -> bool {
        self.0.exists()
    }

    /// Ends what a run that was killed together with its supervisor has left running. A process group of
    /// that number of which no member works in one of `dirs` is somebody else's.
    pub fn end_left_behind(&self, dirs: &[&Utf8Path]) {
        let noted = std::fs::read_to_string(self.0).ok().and_then(|text| text.trim().parse().ok());
        let Some(group) =
            noted.and_then(Pid::from_raw).filter(|group| test_kill_process_group(*group).is_ok())
        else {
            return;
        };
        let works_there = |process: &Process| {
            let works_in = std::fs::read_link(format!("/proc/{}/cwd", process.pid));
            works_in.is_ok_and(|works_in| dirs.iter().any(|dir| works_in == dir.as_std_path()))
        };
        // The leader may be gone already, of a closed pipe, and its children not.
        let members = processes().filter(|process| process.group == group.as_raw_nonzero().get());
        if members.into_iter().any(|member| works_there(&member)) {
            end_group(group);
        }
    }
}

/// A running process, as proc(5) tells of it.
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

/// All of this machine that we may see.
fn processes() -> impl Iterator<Item = Process> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in parentheses, may hold anything; state, parent and group follow it.
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(1).map(str::parse);
        Some(Process { pid, parent: fields.next()?.ok()?, group: fields.next()?.ok()? })
    })
}

/// Runs `command` with no standard input; copies all it prints to `log`; gives each line to
/// `on_line` on the calling thread. Returns how it ended, after every process that came of it is gone.
/// `note`, where there is one, holds the number of its process group while it runs.
///
/// Errors: it cannot be started (exit code 4), or a signal asked us to end.
pub fn run(
    command: &CommandLine,
    log: &File,
    note: Option<&Note<'_>>,
    on_line: impl FnMut(Stream, &str),
) -> Result<ExitStatus> {
    run_with(command, log, note, None, listening(on_line))
}

fn run_with(
    command: &CommandLine,
    log: &File,
    note: Option<&Note<'_>>,
    jobs: Option<&JobServer>,
    watch: impl FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<ExitStatus> {
    check()?;
    let logs = copies(log)?;
    let mut child = spawn(command, note, jobs)?;
    let group = Group::enter(&mut child);
    finish(child, group, command, logs, watch)
}

/// What the watcher of a child is told.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A line of its output.
    Line(Stream, &'a str),
    /// A moment without one.
    Silence,
}

/// Runs `command` like [`run`], as long as `watch` lets it: it sees each line of the output, and the silence
/// in between; when it breaks off, all that was started is killed, and that is no error.
pub fn watch(
    command: &CommandLine,
    log: &File,
    watch: impl FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<ExitStatus> {
    run_with(command, log, None, None, watch)
}

/// A watcher that only wants the lines.
fn listening(mut on_line: impl FnMut(Stream, &str)) -> impl FnMut(Seen<'_>) -> ControlFlow<()> {
    move |seen| {
        if let Seen::Line(stream, line) = seen {
            on_line(stream, line);
        }
        ControlFlow::Continue(())
    }
}

/// The log for each of the threads that write to it. Made before the child is: nobody would look after it where this fails.
fn copies(log: &File) -> Result<[File; 2]> {
    let copy = || log.try_clone().map_err(|error| Error::build("cannot write the log").because(error));
    Ok([copy()?, copy()?])
}

/// What the threads around a child report.
enum Said {
    Line(Stream, String),
    Ended(std::io::Result<ExitStatus>),
}

fn finish(
    mut child: std::process::Child,
    group: Group,
    command: &CommandLine,
    logs: [File; 2],
    mut watch: impl FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<ExitStatus> {
    let leader = group.0;
    let (sender, said) = mpsc::sync_channel(1024);
    let readers: [(Stream, Option<Box<dyn Read + Send>>); 2] = [
        (Stream::Out, child.stdout.take().map(|out| Box::new(out) as _)),
        (Stream::Err, child.stderr.take().map(|err| Box::new(err) as _)),
    ];
    for ((stream, reader), log) in readers.into_iter().zip(logs) {
        let sender = sender.clone();
        std::thread::spawn(move || forward_lines(stream, reader, &log, &sender));
    }
    std::thread::spawn(move || {
        let status = child.wait();
        group.leave();
        let _ = sender.send(Said::Ended(status));
    });
    let mut ended = None;
    loop {
        // A descendant outside the group may hold the pipes open for as long as it likes: once the
        // leader is gone, only what is there already is read.
        let goes_on = match said.recv_timeout(if ended.is_some() { LAST_WORDS } else { TICK }) {
            Ok(Said::Line(stream, line)) => watch(Seen::Line(stream, &line)),
            Ok(Said::Ended(status)) => {
                ended = Some(status);
                ControlFlow::Continue(())
            }
            Err(mpsc::RecvTimeoutError::Timeout) if ended.is_none() => watch(Seen::Silence),
            Err(_) => break,
        };
        if goes_on.is_break() && ended.is_none() {
            let mut groups = groups();
            let of_child = groups.iter_mut().find(|(group, _)| *group == leader);
            of_child.and_then(|(_, leash)| leash.as_mut()).into_iter().for_each(Leash::kill);
        }
    }
    check()?;
    let status = ended.expect("the waiting thread reports before it ends");
    status.map_err(|error| Error::build(format!("cannot wait for {}", command.program)).because(error))
}

fn forward_lines(
    stream: Stream,
    reader: Option<Box<dyn Read + Send>>,
    mut log: &File,
    sender: &mpsc::SyncSender<Said>,
) {
    let Some(reader) = reader else { return };
    let mut reader = BufReader::with_capacity(LONGEST_LINE, reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        // `take` bounds the memory that a child without line ends can make us use.
        match reader.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // A full disk must not end the build by itself: make will notice it on its own files.
        let _ = log.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        if sender.send(Said::Line(stream, text)).is_err() {
            return;
        }
    }
}

/// Runs `command` with no standard input and returns what it printed, byte for byte, after every
/// process of its group is gone. It is held in memory: for what says little.
///
/// Errors: it cannot be started (exit code 4), or a signal asked us to end.
pub fn output(command: &CommandLine) -> Result<std::process::Output> {
    check()?;
    let mut child = spawn(command, None, None)?;
    let group = Group::enter(&mut child);
    let output = child.wait_with_output();
    group.leave();
    check()?;
    output.map_err(|error| Error::build(format!("cannot wait for {}", command.program)).because(error))
}

/// Runs a short probe and returns its standard output; a failure is an error of kind `Host`. It ends by
/// itself, with us or without us.
pub fn capture(program: &str, args: &[&str], env: &BTreeMap<String, String>) -> Result<String> {
    let shell = xshell::Shell::new().map_err(|error| Error::host("cannot run commands").because(error))?;
    let command = xshell::cmd!(shell, "{program} {args...}").env_clear().envs(env).quiet().ignore_stderr();
    let output = command.read();
    check()?;
    output.map_err(|error| Error::host(format!("cannot run {program}")).because(error))
}

fn spawn(
    command: &CommandLine,
    note: Option<&Note<'_>>,
    jobs: Option<&JobServer>,
) -> Result<std::process::Child> {
    if !is_program(command) {
        return Err(not_started(command, std::io::ErrorKind::NotFound.into()));
    }
    let mut process = supervisor::command(note, &command.program);
    process.args(&command.args).env_clear().envs(&command.env).current_dir(&command.cwd);
    if let Some(jobs) = jobs {
        jobs.admit(&mut process);
    }
    process.stdout(Stdio::piped()).stderr(Stdio::piped());
    process.spawn().map_err(|error| not_started(command, error))
}

/// Is there such a program? The supervisor, which starts it, could only fail.
fn is_program(command: &CommandLine) -> bool {
    let mut dirs = command.env.get("PATH").map_or("", String::as_str).split(':');
    match command.program.contains('/') {
        true => command.cwd.join(&command.program).is_file(),
        false => dirs.any(|dir| command.cwd.join(dir).join(&command.program).is_file()),
    }
}

fn not_started(command: &CommandLine, error: std::io::Error) -> Error {
    let error = Error::host(format!("cannot run {}", command.program)).because(error);
    error.hint("`kcompile doctor` names what is missing and how to install it")
}

/// A child's process group, known to the signal thread while it lives.
struct Group(Pid);

impl Group {
    fn enter(supervisor: &mut std::process::Child) -> Group {
        let pid = Pid::from_child(supervisor);
        groups().push((pid, Leash::of(supervisor)));
        // A signal that came between the check and this line has not reached the new group.
        if check().is_err() {
            let _ = kill_process_group(pid, Signal::TERM);
        }
        Group(pid)
    }

    /// The supervisor is gone, with all that was below it, unless it was killed.
    fn leave(self) {
        end_group(self.0);
        groups().retain(|(group, _)| *group != self.0);
    }
}

/// Ends every process of the group, and waits until they are gone.
fn end_group(group: Pid) {
    let since = Instant::now();
    let mut told = false;
    while test_kill_process_group(group).is_ok() && since.elapsed() < GRACE * 3 {
        let late = since.elapsed() >= GRACE;
        if late || !told {
            let _ = kill_process_group(group, if late { Signal::KILL } else { Signal::TERM });
        }
        told = true;
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_us_within_two_seconds() {
        // What the signal's thread waits before it kills, and after that.
        assert!(GRACE + GRACE / 2 < Duration::from_secs(2));
    }
}
