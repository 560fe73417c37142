//! The only module that starts processes. Children such as make and apt-get run in a separate
//! session, under a [`supervisor`]. It ends them with all their descendants when kcompile gets a
//! signal or dies. Their output is copied to a log and passed on line by line. Their environment
//! has only what [`Host`](crate::host::Host) selects.

mod descendants;
mod interactive;
mod jobserver;
mod pid_file;
mod pipe;
mod signals;
mod supervisor;

pub use interactive::run_interactive;
pub use jobserver::JobServer;
pub use pid_file::PidFile;
pub use pipe::{PipeEvent, pipe};
pub use signals::{Interruptible, check, watch_signals};

use crate::util::error::{Error, Result};
use camino::Utf8PathBuf;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long children may take to end after SIGTERM before they are killed. make removes unfinished targets.
const GRACE_PERIOD: Duration = Duration::from_millis(1_000);
/// How long to wait for output after its process has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a child may be silent before its watcher gets an event.
const SILENCE_INTERVAL: Duration = Duration::from_millis(100);
/// The longest line that is passed on. Logs have complete lines.
const MAX_LINE: usize = 64 * 1024;
/// The limit of [`output`]. The longest lists are those of the files that a patch changes.
const MAX_OUTPUT: u64 = 32 << 20;

pub const SANDBOX: &str = "bwrap";

/// A command line with its environment and working directory.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// A path, or a name that is looked up in the `PATH` of `env`.
    pub program: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: Utf8PathBuf,
}

impl std::fmt::Display for CommandLine {
    /// Formats the command line for a shell.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let args = std::iter::once(self.program.as_str()).chain(self.args.iter().map(String::as_str));
        f.write_str(&shlex::try_join(args).unwrap_or_else(|_| self.program.clone()))
    }
}

/// The standard output or standard error of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// Sets a umask so that no other user can write to files of this process and its children, since what make
/// compiles goes into images. A stricter umask stays. Must be called before threads start.
pub fn set_safe_umask() {
    use rustix::fs::Mode;
    let given = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(given | Mode::from_raw_mode(0o022));
}

/// Runs the supervisor if `args` are those of one, and returns its exit code. Returns `None` if
/// this process is kcompile itself.
pub fn supervise(args: impl IntoIterator<Item = std::ffi::OsString>) -> Option<std::process::ExitCode> {
    let mut args = args.into_iter();
    (args.next()? == supervisor::NAME).then(|| supervisor::main(args))
}

/// Runs `command` without standard input, copies its output to `log`, and calls `on_line` for each
/// line on the calling thread. Returns its exit status once all its processes have ended.
/// `pid_file` exists while it runs.
///
/// # Errors
///
/// The program cannot be started (exit code 4), or kcompile was interrupted.
pub fn run(
    command: &CommandLine,
    log: &File,
    pid_file: Option<&PidFile<'_>>,
    on_line: impl FnMut(Stream, &str),
) -> Result<ExitStatus> {
    run_with(command, log, pid_file, None, line_watcher(on_line))
}

fn run_with(
    command: &CommandLine,
    log: &File,
    pid_file: Option<&PidFile<'_>>,
    jobs: Option<&JobServer>,
    watch: impl FnMut(WatchEvent<'_>) -> ControlFlow<()>,
) -> Result<ExitStatus> {
    check()?;
    let logs = clone_log(log)?;
    finish(spawn(command, pid_file, jobs)?, command, logs, watch)
}

/// An event for the watcher of a child.
#[derive(Clone, Copy, Debug)]
pub enum WatchEvent<'a> {
    Line(Stream, &'a str),
    /// A short time without output.
    Silence,
}

/// Runs `command` like [`run`]. `watch` gets each line of output and the silence in between. If it returns
/// `Break`, all processes of the command are killed, which is not an error.
pub fn watch(
    command: &CommandLine,
    log: &File,
    watch: impl FnMut(WatchEvent<'_>) -> ControlFlow<()>,
) -> Result<ExitStatus> {
    run_with(command, log, None, None, watch)
}

/// Returns a watcher that calls `on_line` for each line.
fn line_watcher(mut on_line: impl FnMut(Stream, &str)) -> impl FnMut(WatchEvent<'_>) -> ControlFlow<()> {
    move |event| {
        if let WatchEvent::Line(stream, line) = event {
            on_line(stream, line);
        }
        ControlFlow::Continue(())
    }
}

/// Clones the log for the two threads that write to it. Called before the child starts, since nothing would
/// watch the child after a failure here.
fn clone_log(log: &File) -> Result<[File; 2]> {
    let copy = || log.try_clone().map_err(|error| Error::build("cannot write the log").caused_by(error));
    Ok([copy()?, copy()?])
}

/// An event of the threads that watch a child.
enum ChildEvent {
    Line(Stream, String),
    Exited(std::io::Result<ExitStatus>),
}

fn finish(
    mut child: std::process::Child,
    command: &CommandLine,
    logs: [File; 2],
    mut watch: impl FnMut(WatchEvent<'_>) -> ControlFlow<()>,
) -> Result<ExitStatus> {
    let supervisor = signals::register(&mut child);
    let (sender, events) = mpsc::sync_channel(1024);
    let readers: [(Stream, Option<Box<dyn Read + Send>>); 2] = [
        (Stream::Out, child.stdout.take().map(|out| Box::new(out) as _)),
        (Stream::Err, child.stderr.take().map(|err| Box::new(err) as _)),
    ];
    for ((stream, reader), log) in readers.into_iter().zip(logs) {
        let sender = sender.clone();
        std::thread::spawn(move || forward_lines(stream, reader, &log, &sender));
    }
    std::thread::spawn(move || {
        let _ = sender.send(ChildEvent::Exited(signals::reap(child)));
    });
    let mut ended = None;
    loop {
        // A descendant may hold the pipes open. After the child has ended, only available output is read.
        let goes_on =
            match events.recv_timeout(if ended.is_some() { DRAIN_TIMEOUT } else { SILENCE_INTERVAL }) {
                Ok(ChildEvent::Line(stream, line)) => watch(WatchEvent::Line(stream, &line)),
                Ok(ChildEvent::Exited(status)) => {
                    ended = Some(status);
                    ControlFlow::Continue(())
                }
                Err(mpsc::RecvTimeoutError::Timeout) if ended.is_none() => watch(WatchEvent::Silence),
                Err(_) => break,
            };
        if goes_on.is_break() && ended.is_none() {
            signals::kill(supervisor);
        }
    }
    check()?;
    let status = ended.expect("the waiting thread reports before it ends");
    status.map_err(|error| Error::build(format!("cannot wait for {}", command.program)).caused_by(error))
}

fn forward_lines(
    stream: Stream,
    reader: Option<Box<dyn Read + Send>>,
    mut log: &File,
    sender: &mpsc::SyncSender<ChildEvent>,
) {
    let Some(reader) = reader else { return };
    let mut reader = BufReader::with_capacity(MAX_LINE, reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        // `take` limits the memory for output without line ends.
        match reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // A full disk is not an error here, since make will fail on its own files.
        let _ = log.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        if sender.send(ChildEvent::Line(stream, text)).is_err() {
            return;
        }
    }
}

/// Runs `command` without standard input. Returns what it printed, once all its processes have ended.
///
/// # Errors
///
/// The program cannot be started (exit code 4), it prints more than 32 MiB (1), or kcompile was interrupted.
pub fn output(command: &CommandLine) -> Result<std::process::Output> {
    check()?;
    let mut child = spawn(command, None, None)?;
    signals::register(&mut child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = std::thread::scope(|scope| {
        let stdout = scope.spawn(|| read_all(stdout));
        let stderr = scope.spawn(|| read_all(stderr));
        let status = signals::reap(child);
        let joined = "reading does not panic";
        Ok(std::process::Output {
            stdout: stdout.join().expect(joined)?,
            stderr: stderr.join().expect(joined)?,
            status: status?,
        })
    });
    check()?;
    output.map_err(|error: std::io::Error| {
        Error::build(format!("cannot run {}", command.program)).caused_by(error)
    })
}

/// Reads to the end. A pipe with too much in it is closed, which ends most programs.
fn read_all(from: Option<impl Read>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.map_or(Ok(0), |from| from.take(MAX_OUTPUT + 1).read_to_end(&mut bytes))?;
    if bytes.len() as u64 > MAX_OUTPUT {
        return Err(std::io::Error::other(format!("it printed more than {} MiB", MAX_OUTPUT >> 20)));
    }
    Ok(bytes)
}

/// Runs a short probe without a supervisor and returns its standard output.
///
/// # Errors
///
/// The program fails or cannot be started (exit code 4), or kcompile was interrupted.
pub fn capture(program: &str, args: &[&str], env: &BTreeMap<String, String>) -> Result<String> {
    let shell = xshell::Shell::new().map_err(|error| Error::host("cannot run commands").caused_by(error))?;
    let command = xshell::cmd!(shell, "{program} {args...}").env_clear().envs(env).quiet().ignore_stderr();
    let output = command.read();
    check()?;
    output.map_err(|error| Error::host(format!("cannot run {program}")).caused_by(error))
}

fn spawn(
    command: &CommandLine,
    pid_file: Option<&PidFile<'_>>,
    jobs: Option<&JobServer>,
) -> Result<std::process::Child> {
    if !program_exists(command) {
        return Err(spawn_error(command, std::io::ErrorKind::NotFound.into()));
    }
    let mut process = supervisor::command(pid_file, &command.program);
    process.args(&command.args).env_clear().envs(&command.env).current_dir(&command.cwd);
    if let Some(jobs) = jobs {
        jobs.configure(&mut process);
    }
    process.stdout(Stdio::piped()).stderr(Stdio::piped());
    process.spawn().map_err(|error| spawn_error(command, error))
}

/// Returns whether the program exists. Without this check, only the supervisor could report the error.
fn program_exists(command: &CommandLine) -> bool {
    let mut dirs = command.env.get("PATH").map_or("", String::as_str).split(':');
    if command.program.contains('/') {
        command.cwd.join(&command.program).is_file()
    } else {
        dirs.any(|dir| command.cwd.join(dir).join(&command.program).is_file())
    }
}

fn spawn_error(command: &CommandLine, error: std::io::Error) -> Error {
    let error = Error::host(format!("cannot run {}", command.program)).caused_by(error);
    error.hint("`kcompile doctor` names what is missing and how to install it")
}

#[cfg(test)]
mod tests;
