//! One pool of jobs for several makes, by the protocol of GNU make's jobserver: each job beyond the first of a
//! make holds a token of the pool. Where one make has only one thing to do, the others use its tokens.

use super::{CommandLine, PidFile, Stream, check};
use crate::util::error::{Error, Kind, Result};
use std::fs::File;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How often it is looked whether a signal has come while a job is awaited.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The pool.
#[derive(Clone, Debug)]
pub struct JobServer(jobserver::Client);

impl JobServer {
    /// One of so many jobs.
    pub fn new(jobs: usize) -> Result<JobServer> {
        let client = jobserver::Client::new(jobs);
        client.map(JobServer).map_err(|error| Error::new(Kind::Host, "cannot share jobs").caused_by(error))
    }

    /// Runs a make as [`super::run`] runs a program; its first job is one of the pool, too, and is waited for.
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

    /// Lets `process`, and all that it starts, take jobs.
    pub(super) fn configure(&self, process: &mut Command) {
        self.0.configure_make(process);
        // make knows MAKEFLAGS; these are for others.
        process.env_remove("CARGO_MAKEFLAGS").env_remove("MFLAGS");
    }

    /// Waits in line, as makes do, in a way that Ctrl-C still ends.
    fn acquire_job(&self) -> Result<jobserver::Acquired> {
        let (sender, acquired) = mpsc::channel();
        let client = self.0.clone();
        // Whoever asks now and then only never gets a job while others wait for one.
        std::thread::spawn(move || {
            let _ = sender.send(client.acquire());
        });
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
