//! Starts threads. The standard library's own functions panic if the limit of processes is reached.

use crate::util::error::{Error, Result};
use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread.
///
/// # Errors
///
/// Exit code 4: a limit of processes or of memory is reached.
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().spawn(work).map_err(spawn_error)
}

/// Starts a thread of `scope`. After an error, the caller must let the other threads of the scope end.
///
/// # Errors
///
/// As for [`spawn`].
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).map_err(spawn_error)
}

fn spawn_error(error: io::Error) -> Error {
    Error::host("cannot start a thread").caused_by(error)
}
