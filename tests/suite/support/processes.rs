//! Processes of others, by handles: a number alone may be a stranger's by the time a signal is sent.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

/// A process that has been seen running.
#[derive(Debug)]
pub(crate) struct Process {
    pub pid: Pid,
    handle: OwnedFd,
}

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        // What has ended meanwhile gets none.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Gone, or dead and only not yet waited for.
    pub(crate) fn is_gone(&self) -> bool {
        let mut ended = [PollFd::new(&self.handle, PollFlags::IN)];
        poll(&mut ended, Some(&Timespec::default())).unwrap() > 0
    }

    /// The words of its command line, once it has some.
    pub(crate) fn words(&self) -> Vec<String> {
        let text = fs::read(format!("/proc/{}/cmdline", self.pid.as_raw_nonzero())).unwrap_or_default();
        text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
}

/// Waits until all of them are gone. Nobody tells when a supervisor has done its work.
pub(crate) fn wait_until_gone(processes: &[Process], what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Some(left) = processes.iter().find(|process| !process.is_gone()) {
        assert!(Instant::now() < deadline, "{what}: left running: {:?}", left.words());
        std::thread::yield_now();
    }
}

/// Everything below `root`, those that came first foremost.
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
            // It is still what it was: the handle is of the same process.
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
