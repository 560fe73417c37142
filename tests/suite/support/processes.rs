//! Handles of other processes. A process number may be reused before a signal is sent.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

/// A process that was running.
#[derive(Debug)]
pub(crate) struct Process {
    pub pid: Pid,
    handle: OwnedFd,
}

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        // An ended process gets no signal.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Returns whether the process has ended, also if nobody waited for it yet.
    pub(crate) fn is_gone(&self) -> bool {
        let mut ended = [PollFd::new(&self.handle, PollFlags::IN)];
        poll(&mut ended, Some(&Timespec::default())).unwrap() > 0
    }

    /// Returns the arguments of the process, once it has some.
    pub(crate) fn words(&self) -> Vec<String> {
        let text = fs::read(format!("/proc/{}/cmdline", self.pid.as_raw_nonzero())).unwrap_or_default();
        text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

/// Waits until all of them have ended. A supervisor does not announce the end of its work.
pub(crate) fn wait_until_gone(processes: &[Process], what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Some(left) = processes.iter().find(|process| !process.is_gone()) {
        assert!(Instant::now() < deadline, "{what}: left running: {:?}", left.words());
        std::thread::yield_now();
    }
}

/// Returns all processes below `root`, the oldest first.
pub(crate) fn descendants(root: &Child) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Pid>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some((pid, parent)) = pid.and_then(|pid| Some((pid, parent(pid)?))) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut parents = vec![Pid::from_child(root)];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(above) = parents.get(next).copied() {
        let number = above.as_raw_nonzero().get();
        for pid in children.remove(&number).unwrap_or_default() {
            // The process is still a descendant, so the handle refers to it.
            let handle = pidfd_open(pid, PidfdFlags::empty()).ok().filter(|_| parent(pid) == Some(number));
            if let Some(handle) = handle {
                found.push(Process { pid, handle });
                parents.push(pid);
            }
        }
        next += 1;
    }
    found
}

fn parent(pid: Pid) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}
