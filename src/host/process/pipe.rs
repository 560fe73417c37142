//! A program whose standard output is taken byte for byte while it runs, and which is watched meanwhile.

use super::{CommandLine, SILENCE_INTERVAL, check, signals, spawn};
use crate::util::error::{Error, Result};
use std::io::Read;
use std::ops::ControlFlow;
use std::process::{ChildStderr, ChildStdout, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};

/// What the watcher of a program is told.
#[derive(Clone, Copy, Debug)]
pub enum PipeEvent<'a> {
    /// Bytes of its standard error.
    Stderr(&'a [u8]),
    /// A moment without any.
    Silence,
}

/// What the threads around the program report.
enum ChildEvent {
    Stderr(Vec<u8>),
    Exited(std::io::Result<ExitStatus>),
}

/// Runs `command` with no standard input, and gives its standard output to `take` on another thread. `watch` sees
/// its standard error and the silence in between. When `watch` breaks off, all that was started is killed, and that
/// is no error. Returns how the program ended, after every process that came of it is gone, and what `take` returned.
///
/// # Errors
///
/// The program cannot be started (exit code 4), or a signal asked us to end.
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
