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
    let code = child.wait().unwrap().code().unwrap_or(-1);
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
        let text = ran.stderr.split("Compile: done").nth(1).unwrap().split("6.1.7, ").nth(1).unwrap();
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

#[test]
fn what_was_left_running_by_a_killed_run_is_ended_by_the_next() {
    let world = World::new();
    let (_, _, pids) = interrupt(&world, Signal::KILL);
    assert!(pids.iter().any(|pid| !gone(pid)), "make should have survived a kill -9 of its driver");
    world.run("6.1.7 --fc --source linux --config mini.config").ok();
    assert!(pids.iter().all(gone), "{pids:?} are still there");
}

#[test]
fn a_silent_server_does_not_keep_ctrl_c_waiting() {
    let world = World::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    for source in [format!("--mirror http://{address}"), format!("--source git+http://{address}/x")] {
        let mut command = world.command(&format!("fetch 6.1.7 --fc {source}"));
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        // It has connected: it waits for an answer.
        let (_connection, _) = silent.accept().unwrap();
        let since = Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    }
}

#[test]
fn nohup_is_respected() {
    let world = World::new();
    world.tree("6.1.7", "work/linux");
    let mut command = std::process::Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_kcompile")).args(["fetch", "6.1.7", "--fc", "--mirror"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    command.arg(format!("http://{}", silent.local_addr().unwrap())).current_dir(world.path("work"));
    command.env("KCOMPILE_CACHE_DIR", world.path("cache")).stderr(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let (_connection, _) = silent.accept().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!((mask("SigIgn:") & 1, mask("SigCgt:") & 1, mask("SigCgt:") & 2), (1, 0, 2));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
}
