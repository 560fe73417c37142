//! Runs a program and reads its standard output as bytes, while a watcher may end it.

use super::{CommandLine, SILENCE_INTERVAL, check, signals, spawn};
use crate::util::error::{Error, Result};
use crate::util::threads;
use std::io::Read;
use std::ops::ControlFlow;
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus};
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
    let (sender, events) = mpsc::sync_channel(64);
    let (status, output) = std::thread::scope(|scope| {
        // The threads start before the program, since nothing would watch it after a failure here. They end if
        // they are given nothing.
        let (to_reaper, given) = mpsc::channel::<Child>();
        let exits = sender.clone();
        threads::spawn_scoped(scope, move || {
            given.recv().map(|child| exits.send(ChildEvent::Exited(signals::reap(child))))
        })?;
        let (to_errors, given) = mpsc::channel::<ChildStderr>();
        threads::spawn_scoped(scope, move || given.recv().map(|stderr| forward(stderr, &sender)))?;
        let (to_taker, given) = mpsc::channel::<ChildStdout>();
        let taking = threads::spawn_scoped(scope, move || given.recv().map(take))?;
        let mut child = spawn(command, None, None)?;
        let supervisor = signals::register(&mut child);
        let waiting = "the threads wait";
        to_taker.send(child.stdout.take().expect("it is piped")).expect(waiting);
        to_errors.send(child.stderr.take().expect("it is piped")).expect(waiting);
        to_reaper.send(child).expect(waiting);
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
        let status = ended.expect("the waiting thread reports before it ends");
        Ok((status, output.expect("it was given the output")))
    })?;
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
