//! Sends signals to processes that are not children of this one. Uses pidfds, so that no signal reaches
//! another process with a reused ID.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// A running process, as proc(5) describes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: Pid,
    pub parent: i32,
    /// The ID of its session, which is that of the session leader.
    pub session: i32,
}

impl Process {
    fn read(pid: Pid) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        // The name is in parentheses and may have any character. State, parent, group and session follow it.
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(1).map(str::parse);
        let (parent, _group) = (fields.next()?.ok()?, fields.next()?);
        Some(Process { pid, parent, session: fields.next()?.ok()? })
    }

    /// Opens a pidfd. Another process may have the ID by now, so this reads the entry in /proc again.
    pub(super) fn open(self) -> Option<OwnedFd> {
        let handle = pidfd_open(self.pid, PidfdFlags::empty()).ok()?;
        // If its parent has ended in the meantime, the next call finds it under another one.
        (Process::read(self.pid)? == self).then_some(handle)
    }
}

/// Returns all visible processes of this machine.
pub(super) fn all() -> impl Iterator<Item = Process> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        Process::read(pid)
    })
}

/// Sends `signal` to all descendants of this process except `except`. Processes that start in the
/// meantime get the next signal.
pub(super) fn signal_descendants(signal: Signal, except: Option<Pid>) {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut parents = vec![rustix::process::getpid()];
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent.as_raw_nonzero().get()).unwrap_or_default() {
            if let Some(handle) = child.open().filter(|_| except != Some(child.pid)) {
                // A process that has just ended is not an error.
                let _ = pidfd_send_signal(handle, signal);
            }
            parents.push(child.pid);
        }
    }
}
