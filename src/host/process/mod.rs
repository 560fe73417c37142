//! The only spawner of processes. Children that work (make, apt-get, …) run in a session of
//! their own, under a [`supervisor`], so that a signal to kcompile can end them with all their descendants,
//! and its death does; their output is copied into a log and handed on line by line. Nothing of the
//! environment reaches them but what [`Host`](crate::host::Host) allows.

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

/// What children get to end in good order before they are killed: make removes the targets it was
/// writing when it is told to terminate.
const GRACE_PERIOD: Duration = Duration::from_millis(1_000);
/// How long output is awaited when its process is gone.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a child that is watched may be silent before its watcher is told so.
const SILENCE_INTERVAL: Duration = Duration::from_millis(100);
/// Lines of output are cut here; a log keeps them whole.
const MAX_LINE: usize = 64 * 1024;
/// What [`output`] holds in memory. The longest lists are those of the files that a patch changes.
const MAX_OUTPUT: u64 = 32 << 20;

/// The program that keeps another from what it has no business with: bubblewrap.
pub const SANDBOX: &str = "bwrap";

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
        let args = std::iter::once(self.program.as_str()).chain(self.args.iter().map(String::as_str));
        f.write_str(&shlex::try_join(args).unwrap_or_else(|_| self.program.clone()))
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

/// From now on nobody else may write what we, or our children, make, whatever the umask was: what make
/// compiles goes into images. A stricter umask stays as it is. To be called before threads are.
pub fn set_safe_umask() {
    use rustix::fs::Mode;
    let given = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(given | Mode::from_raw_mode(0o022));
}

/// Words of the command line of a process that we have started as a supervisor: its whole life, and its
/// exit code. `None`: this is kcompile itself.
pub fn supervise(args: impl IntoIterator<Item = std::ffi::OsString>) -> Option<std::process::ExitCode> {
    let mut args = args.into_iter();
    (args.next()? == supervisor::NAME).then(|| supervisor::main(args))
}

/// Runs `command` with no standard input; copies all it prints to `log`; gives each line to
/// `on_line` on the calling thread. Returns how it ended, after every process that came of it is gone.
/// `note`, where there is one, holds the number of its process group while it runs.
///
/// Errors: it cannot be started (exit code 4), or a signal asked us to end.
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

/// What the watcher of a child is told.
#[derive(Clone, Copy, Debug)]
pub enum WatchEvent<'a> {
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
    watch: impl FnMut(WatchEvent<'_>) -> ControlFlow<()>,
) -> Result<ExitStatus> {
    run_with(command, log, None, None, watch)
}

/// A watcher that only wants the lines.
fn line_watcher(mut on_line: impl FnMut(Stream, &str)) -> impl FnMut(WatchEvent<'_>) -> ControlFlow<()> {
    move |event| {
        if let WatchEvent::Line(stream, line) = event {
            on_line(stream, line);
        }
        ControlFlow::Continue(())
    }
}

/// The log for each of the threads that write to it. Made before the child is: nobody would look after it where this fails.
fn clone_log(log: &File) -> Result<[File; 2]> {
    let copy = || log.try_clone().map_err(|error| Error::build("cannot write the log").caused_by(error));
    Ok([copy()?, copy()?])
}

/// What the threads around a child report.
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
        // A descendant outside the group may hold the pipes open for as long as it likes: once the
        // leader is gone, only what is there already is read.
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
        // `take` bounds the memory that a child without line ends can make us use.
        match reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // A full disk must not end the build by itself: make will notice it on its own files.
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

/// Runs a short probe and returns its standard output; a failure is an error of kind `Host`. It ends by
/// itself, with us or without us.
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

/// Is there such a program? The supervisor, which starts it, could only fail.
fn program_exists(command: &CommandLine) -> bool {
    let mut dirs = command.env.get("PATH").map_or("", String::as_str).split(':');
    match command.program.contains('/') {
        true => command.cwd.join(&command.program).is_file(),
        false => dirs.any(|dir| command.cwd.join(dir).join(&command.program).is_file()),
    }
}

fn spawn_error(command: &CommandLine, error: std::io::Error) -> Error {
    let error = Error::host(format!("cannot run {}", command.program)).caused_by(error);
    error.hint("`kcompile doctor` names what is missing and how to install it")
}

#[cfg(test)]
mod tests;
