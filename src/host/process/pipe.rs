//! Runs a program and reads its standard output as bytes, while a watcher may end it.

use super::{CommandLine, SILENCE_INTERVAL, check, signals, spawn};
use crate::util::error::{Error, Result};
use std::io::Read;
use std::ops::ControlFlow;
use std::process::{ChildStderr, ChildStdout, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};

/// An event for the watcher of a program.
#[derive(Clone, Copy, Debug)]
pub enum PipeEvent<'a> {
    /// Bytes of standard error.
    Stderr(&'a [u8]),
    /// A short time without output.
    Silence,
}

/// An event of the threads that watch the program.
enum ChildEvent {
    Stderr(Vec<u8>),
    Exited(std::io::Result<ExitStatus>),
}

/// Runs `command` without standard input, and passes its standard output to `take` on another
/// thread. `watch` gets its standard error and the silence in between. If `watch` returns `Break`,
/// all processes of the command are killed, which is not an error. Returns the exit status once all
/// processes have ended, and the result of `take`.
///
/// # Errors
///
/// The program cannot be started (exit code 4), or kcompile was interrupted.
pub fn pipe<T: Send>(
    command: &CommandLine,
    take: impl FnOnce(ChildStdout) -> T + Send,
    mut watch: impl FnMut(PipeEvent<'_>) -> ControlFlow<()>,
) -> Result<(ExitStatus, T)> {
    check()?;
    let mut child = spawn(command, None, None)?;
    let supervisor = signals::register(&mut child);
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let (sender, events) = mpsc::sync_channel(64);
    let (status, output) = std::thread::scope(|scope| {
        let taking = scope.spawn(move || take(stdout));
        let errors = sender.clone();
        scope.spawn(move || forward(stderr, &errors));
        scope.spawn(move || {
            let _ = sender.send(ChildEvent::Exited(signals::reap(child)));
        });
        let mut ended = None;
        loop {
            let goes_on = match events.recv_timeout(SILENCE_INTERVAL) {
                Ok(ChildEvent::Stderr(bytes)) => watch(PipeEvent::Stderr(&bytes)),
                Ok(ChildEvent::Exited(status)) => {
                    ended = Some(status);
                    ControlFlow::Continue(())
                }
                Err(RecvTimeoutError::Timeout) if ended.is_none() => watch(PipeEvent::Silence),
                Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if goes_on.is_break() && ended.is_none() {
                signals::kill(supervisor);
            }
        }
        let output = taking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (ended.expect("the waiting thread reports before it ends"), output)
    });
    check()?;
    let status =
        status.map_err(|error| Error::build(format!("cannot wait for {}", command.program)).caused_by(error));
    Ok((status?, output))
}

fn forward(mut stderr: ChildStderr, events: &SyncSender<ChildEvent>) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = stderr.read(&mut buffer) {
        if events.send(ChildEvent::Stderr(buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}
