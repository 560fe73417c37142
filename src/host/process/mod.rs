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
use crate::util::threads;
use camino::Utf8PathBuf;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::process::{Child, Command, ExitStatus, Stdio};
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
/// The path of the running program. An update may have replaced the file that it was started from.
const OWN_PROGRAM: &str = "/proc/self/exe";

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
    let watchers = Watchers::start(log)?;
    finish(spawn(command, pid_file, jobs)?, command, watchers, watch)
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

/// An event of the threads that watch a child.
enum ChildEvent {
    Line(Stream, String),
    Exited(std::io::Result<ExitStatus>),
}

type Output = Option<Box<dyn Read + Send>>;

/// The threads that watch a child, and where they get it from. They are started before the child, since nothing
/// would watch it after a failure here.
struct Watchers {
    stdout: mpsc::Sender<Output>,
    stderr: mpsc::Sender<Output>,
    child: mpsc::Sender<Child>,
    events: mpsc::Receiver<ChildEvent>,
}

impl Watchers {
    fn start(log: &File) -> Result<Watchers> {
        let (sender, events) = mpsc::sync_channel(1024);
        let reader = |stream: Stream| {
            let log = log.try_clone();
            let log = log.map_err(|error| Error::build("cannot write the log").caused_by(error))?;
            let (output, given) = mpsc::channel::<Output>();
            let sender = sender.clone();
            threads::spawn(move || {
                if let Ok(output) = given.recv() {
                    forward_lines(stream, output, &log, &sender);
                }
            })?;
            Ok(output)
        };
        let (stdout, stderr) = (reader(Stream::Out)?, reader(Stream::Err)?);
        let (child, given) = mpsc::channel();
        threads::spawn(move || {
            if let Ok(child) = given.recv() {
                let _ = sender.send(ChildEvent::Exited(signals::reap(child)));
            }
        })?;
        Ok(Watchers { stdout, stderr, child, events })
    }

    /// Gives the child to the threads. Returns their events.
    fn watch(self, mut child: Child) -> mpsc::Receiver<ChildEvent> {
        // The threads wait for these, so sending cannot fail.
        let _ = self.stdout.send(child.stdout.take().map(|out| Box::new(out) as _));
        let _ = self.stderr.send(child.stderr.take().map(|err| Box::new(err) as _));
        let _ = self.child.send(child);
        self.events
    }
}

fn finish(
    mut child: Child,
    command: &CommandLine,
    watchers: Watchers,
    mut watch: impl FnMut(WatchEvent<'_>) -> ControlFlow<()>,
) -> Result<ExitStatus> {
    let supervisor = signals::register(&mut child);
    let events = watchers.watch(child);
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

fn forward_lines(stream: Stream, reader: Output, mut log: &File, sender: &mpsc::SyncSender<ChildEvent>) {
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
    let supervisor = signals::register(&mut child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let failed =
        |error: std::io::Error| Error::build(format!("cannot run {}", command.program)).caused_by(error);
    let output = std::thread::scope(|scope| {
        let readers = threads::spawn_scoped(scope, || read_all(stdout))
            .and_then(|stdout| Ok((stdout, threads::spawn_scoped(scope, || read_all(stderr))?)));
        if readers.is_err() {
            // Nobody reads what it prints.
            signals::kill(supervisor);
        }
        let status = signals::reap(child);
        let (stdout, stderr) = readers?;
        let joined = "reading does not panic";
        Ok(std::process::Output {
            stdout: stdout.join().expect(joined).map_err(failed)?,
            stderr: stderr.join().expect(joined).map_err(failed)?,
            status: status.map_err(failed)?,
        })
    });
    check()?;
    output
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

/// Runs a short probe without a supervisor and returns its standard output. Returns `None` if the program does
/// not exist or fails.
///
/// # Errors
///
/// No process can be started (exit code 4), or kcompile was interrupted.
pub fn capture(program: &str, args: &[&str], env: &BTreeMap<String, String>) -> Result<Option<String>> {
    let output = output_without_supervisor(program, args, env)?;
    Ok(output
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok()))
}

/// Runs a short program whose children may stay, such as one that starts a daemon. Returns `None` if the program
/// does not exist.
///
/// # Errors
///
/// As [`capture`].
pub fn output_without_supervisor(
    program: &str,
    args: &[&str],
    env: &BTreeMap<String, String>,
) -> Result<Option<std::process::Output>> {
    let shell = xshell::Shell::new().map_err(|error| Error::host("cannot run commands").caused_by(error))?;
    let mut command: Command = xshell::cmd!(shell, "{program} {args...}").env_clear().envs(env).into();
    let output = command.stdin(Stdio::null()).output();
    check()?;
    match output {
        Ok(output) => Ok(Some(output)),
        Err(error) if is_limit(&error) => Err(cannot_run(program, error)),
        Err(_) => Ok(None),
    }
}

fn spawn(command: &CommandLine, pid_file: Option<&PidFile<'_>>, jobs: Option<&JobServer>) -> Result<Child> {
    if !program_exists(command) {
        return Err(spawn_error(command, std::io::ErrorKind::NotFound.into()));
    }
    let mut process = supervisor::command(pid_file, &command.program);
    process.args(&command.args).env_clear().envs(&command.env).current_dir(&command.cwd);
    if let Some(jobs) = jobs {
        jobs.configure(&mut process);
    }
    process.stdout(Stdio::piped()).stderr(Stdio::piped());
    require_proc()?;
    process.spawn().map_err(|error| spawn_error(command, error))
}

/// Checks that /proc is mounted. The supervisor is this program, which is started by its path there, and finds
/// its descendants there.
///
/// # Errors
///
/// It is not mounted (exit code 4).
pub fn require_proc() -> Result<()> {
    match std::fs::read_link(OWN_PROGRAM) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::host(format!("cannot run programs without {OWN_PROGRAM}"))
            .caused_by(error)
            .hint("mount /proc in this chroot or namespace: `mount -t proc proc /proc`")),
    }
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
    cannot_run(&command.program, error)
}

fn cannot_run(program: &str, error: std::io::Error) -> Error {
    let is_limit = is_limit(&error);
    let error = Error::host(format!("cannot run {program}")).caused_by(error);
    // The hint about the limit follows from the cause.
    if is_limit { error } else { error.hint("`kcompile doctor` names what is missing and how to install it") }
}

/// Returns whether no more processes can be started. The errors are EAGAIN and ENOMEM of fork(2).
fn is_limit(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory)
}

#[cfg(test)]
mod tests;
