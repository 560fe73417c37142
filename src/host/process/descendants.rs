//! Signals to processes that are not our children: by pidfd, so that none reaches a stranger that has got the number
//! of a process that has ended.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// A running process, as proc(5) describes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: Pid,
    pub parent: i32,
    /// The number of its session: that of the process that has begun it.
    pub session: i32,
}

impl Process {
    fn read(pid: Pid) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        // The name, in parentheses, may hold anything; state, parent, group and session follow it.
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(1).map(str::parse);
        let (parent, _group) = (fields.next()?.ok()?, fields.next()?);
        Some(Process { pid, parent, session: fields.next()?.ok()? })
    }

    /// Opens a handle on this process. Another process may have its number by now, so its entry in /proc is
    /// read again when the handle is open.
    pub(super) fn open(self) -> Option<OwnedFd> {
        let handle = pidfd_open(self.pid, PidfdFlags::empty()).ok()?;
        // Where its parent has ended since, the next look finds it under another.
        (Process::read(self.pid)? == self).then_some(handle)
    }
}

/// All processes of this machine that we may see.
pub(super) fn all() -> impl Iterator<Item = Process> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        Process::read(pid)
    })
}

/// Sends `signal` to all that came of this process, but for `spared`. One that comes into being meanwhile gets it the
/// next time.
pub(super) fn signal_descendants(signal: Signal, except: Option<Pid>) {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut parents = vec![rustix::process::getpid()];
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent.as_raw_nonzero().get()).unwrap_or_default() {
            if let Some(handle) = child.open().filter(|_| except != Some(child.pid)) {
                // One that has just ended is no error.
                let _ = pidfd_send_signal(handle, signal);
            }
            parents.push(child.pid);
        }
    }
}
