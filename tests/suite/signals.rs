//! Ctrl-C and its relatives, on the real binary with a make that stalls.

use crate::world::World;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Starts a build that stalls, sends `signal` when it does, and returns the exit code, how long the
/// end took, and the processes that had been running.
fn interrupt(world: &World, signal: Signal) -> (i32, Duration, Vec<Pid>) {
    world.tree("6.1.7", "work/linux");
    let mut command = world
        .command("6.1.7 --fc --source linux --config mini.config --set MINI_STALL=y --progress json -j 2");
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // JSON progress may skip a step: the pids are there before the stall is announced, the log after.
    let pids = stalled(world, &mut lines);
    let since = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    lines.for_each(drop);
    let code = child.wait().unwrap().code().unwrap();
    (code, since.elapsed(), pids)
}

/// Waits until the log says that make stalls, and returns the pids of what it started.
fn stalled(world: &World, lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Vec<Pid> {
    // Compiling has begun once its start is told; from then on the log is the thing to watch.
    assert!(lines.any(|line| line.unwrap().contains("\"phase\":\"compile\"")));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "make never stalled");
        let found = walkdir::WalkDir::new(world.path("cache/builds"))
            .into_iter()
            .flatten()
            .find(|entry| entry.file_name() == "kcompile.log");
        let log =
            found.map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default()).unwrap_or_default();
        if log.contains("  STALL   waiting") {
            break;
        }
        std::thread::yield_now();
    }
    let pids = walkdir::WalkDir::new(world.path("cache/builds"))
        .into_iter()
        .flatten()
        .find(|entry| entry.file_name() == "stall.pids")
        .unwrap();
    let pids = std::fs::read_to_string(pids.path()).unwrap();
    pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
}

/// Gone, or dead and only not yet waited for by whoever adopted it.
fn gone(pid: &Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(*pid).is_err() || state.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn ctrl_c_ends_everything_within_two_seconds_and_the_next_run_resumes() {
    let world = World::new();
    let (code, took, pids) = interrupt(&world, Signal::INT);
    assert_eq!(code, 130);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(gone), "{pids:?} are still there");
    assert!(!world.path("work/out").exists() && world.names("cache/tmp").is_empty());
    // What was compiled before the interruption is not compiled again.
    let again = world.run("6.1.7 --fc --source linux --config mini.config --progress plain").ok();
    let clean = World::new().build("").ok();
    let steps = |ran: &crate::world::Ran| -> u64 {
        let text = ran.stderr.split("6.1.7, ").nth(1).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(steps(&again) < steps(&clean), "{} of {}", steps(&again), steps(&clean));
}

#[test]
fn terminate_and_hang_up_have_their_own_codes() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let world = World::new();
        let (found, took, pids) = interrupt(&world, signal);
        assert_eq!(found, code);
        assert!(took < Duration::from_secs(2) && pids.iter().all(gone));
    }
}
