//! A file that shows the next run that a program may have left half-written files.

use super::{GRACE_PERIOD, descendants};
use crate::util::read::{Links, MAX_SMALL_FILE, read_text};
use camino::Utf8Path;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use std::time::{Duration, Instant};

/// A file with the session ID of a running program. It stays if the program fails or is killed, since the
/// program may have left half-written files.
pub struct PidFile<'a>(pub &'a Utf8Path);

impl PidFile<'_> {
    /// Returns whether there may be half-written files.
    pub fn exists(&self) -> bool {
        self.0.symlink_metadata().is_ok()
    }

    /// Ends the processes of a run that was killed together with its supervisor. A session with that ID
    /// belongs to another program if none of its processes has one of `dirs` as its working directory.
    pub fn kill_orphans(&self, dirs: &[&Utf8Path]) {
        let noted: Option<i32> = read_text(self.0, Links::RefuseAnywhere, MAX_SMALL_FILE)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            // Session 0 is every process that started outside this PID namespace.
            .filter(|&session| session > 0);
        let Some(session) = noted else { return };
        let works_there = |pid: Pid| {
            let works_in = std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
            works_in.is_ok_and(|works_in| dirs.iter().any(|dir| works_in == dir.as_std_path()))
        };
        let since = Instant::now();
        let mut signal = Signal::TERM;
        loop {
            let members: Vec<_> = descendants::all().filter(|process| process.session == session).collect();
            if !members.iter().any(|member| works_there(member.pid)) || since.elapsed() > GRACE_PERIOD * 3 {
                return;
            }
            if signal == Signal::TERM || since.elapsed() > GRACE_PERIOD {
                for member in members {
                    member.open().map(|handle| pidfd_send_signal(handle, signal));
                }
                signal = Signal::KILL;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
