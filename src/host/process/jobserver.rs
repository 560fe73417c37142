//! One pool of jobs for several makes, by the protocol of GNU make's job server. Each job of a make beyond
//! the first holds a token of the pool. Tokens that one make does not need are free for the others.

use super::{CommandLine, PidFile, Stream, check};
use crate::util::error::{Error, Kind, Result};
use crate::util::threads;
use std::fs::File;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How often a wait for a job checks for signals.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct JobServer(jobserver::Client);

impl JobServer {
    /// Creates a pool of `jobs` jobs.
    pub fn new(jobs: usize) -> Result<JobServer> {
        let client = jobserver::Client::new(jobs);
        client.map(JobServer).map_err(|error| Error::new(Kind::Host, "cannot share jobs").caused_by(error))
    }

    /// Runs a make as [`super::run`] runs a program. Waits for its first job, which is also one of the pool.
    pub fn run(
        &self,
        command: &CommandLine,
        log: &File,
        pid_file: Option<&PidFile<'_>>,
        on_line: impl FnMut(Stream, &str),
    ) -> Result<ExitStatus> {
        let _first = self.acquire_job()?;
        super::run_with(command, log, pid_file, Some(self), super::line_watcher(on_line))
    }

    /// Gives `process` and its descendants access to the pool.
    pub(super) fn configure(&self, process: &mut Command) {
        self.0.configure_make(process);
        // make reads MAKEFLAGS. These variables are for other programs.
        process.env_remove("CARGO_MAKEFLAGS").env_remove("MFLAGS");
    }

    /// Waits for a job as makes do, until a signal ends the wait.
    fn acquire_job(&self) -> Result<jobserver::Acquired> {
        let (sender, acquired) = mpsc::channel();
        let client = self.0.clone();
        // A blocking wait is necessary, since polling would never get a job while others wait.
        threads::spawn(move || {
            let _ = sender.send(client.acquire());
        })?;
        loop {
            check()?;
            match acquired.recv_timeout(POLL_INTERVAL) {
                Ok(job) => {
                    return job.map_err(|error| Error::build("cannot wait for a job").caused_by(error));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::build("cannot wait for a job")),
            }
        }
    }
}
