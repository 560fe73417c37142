//! Ctrl-C and its relatives, on the real binary with a make that stalls.

use crate::world::{World, have, signals};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts a build that stalls, sends `signal` when it does, and returns the exit code, how long the
/// end took, and the processes that had been running.
fn interrupt(world: &World, signal: Signal) -> (i32, Duration, Vec<Pid>) {
    let (mut child, pids) = stall(world);
    let since = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    BufReader::new(child.stderr.take().unwrap()).lines().for_each(drop);
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (code, since.elapsed(), pids)
}

/// A build that stalls, and the processes that make has started when it does.
pub(crate) fn stall(world: &World) -> (Child, Vec<Pid>) {
    world.tree("6.1.7", "work/linux");
    let mut command = world
        .command("6.1.7 --fc --source linux --config mini.config --set MINI_STALL=y --progress json -j 2");
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // JSON progress may skip a step: the pids are there before the stall is announced, the log after.
    let pids = stalled(world, &mut BufReader::new(child.stderr.as_mut().unwrap()).lines());
    (child, pids)
}

/// Waits until the log says that make stalls, and returns the pids of what it started.
fn stalled(world: &World, lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Vec<Pid> {
    // Compiling has begun once its start is told; from then on the log is the thing to watch.
    assert!(lines.any(|line| line.unwrap().contains("\"phase\":\"compile\"")));
    stalled_by_the_log(world)
}

fn stalled_by_the_log(world: &World) -> Vec<Pid> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "make never stalled");
        let log = find(world, "kcompile.log");
        let log = log.map(|log| std::fs::read_to_string(log).unwrap_or_default()).unwrap_or_default();
        if log.contains("  STALL   waiting") {
            break;
        }
        std::thread::yield_now();
    }
    let pids = std::fs::read_to_string(find(world, "stall.pids").unwrap()).unwrap();
    pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
}

/// A file of this name among the builds.
fn find(world: &World, name: &str) -> Option<PathBuf> {
    let found = walkdir::WalkDir::new(world.path("cache/builds")).into_iter().flatten();
    found.map(walkdir::DirEntry::into_path).find(|path| path.file_name().is_some_and(|found| found == name))
}

/// Gone, or dead and only not yet waited for by whoever adopted it.
pub(crate) fn gone(pid: &Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(*pid).is_err() || state.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn ctrl_c_ends_everything_and_the_next_run_resumes() {
    let world = World::new();
    let (code, took, pids) = interrupt(&world, Signal::INT);
    assert_eq!(code, 130);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(pids.len(), 4);
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
        assert!(took < Duration::from_secs(10) && pids.iter().all(gone));
    }
}

#[test]
fn nothing_is_left_running_by_a_run_that_was_killed() {
    let world = World::new();
    let (_, _, pids) = interrupt(&world, Signal::KILL);
    // Nobody tells when the supervisor has done it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !pids.iter().all(gone) {
        assert!(Instant::now() < deadline, "{pids:?} are still there");
        std::thread::yield_now();
    }
    world.build("").ok();
}

#[test]
fn what_was_left_running_by_a_run_killed_with_its_supervisor_is_ended_by_the_next() {
    let world = World::new();
    let (mut child, pids) = stall(&world);
    let note = find(&world, ".kcompile-make.pid").unwrap();
    let supervisor = std::fs::read_to_string(&note).unwrap().parse().unwrap();
    for pid in [Pid::from_child(&child), Pid::from_raw(supervisor).unwrap()] {
        kill_process(pid, Signal::KILL).unwrap();
    }
    child.wait().unwrap();
    assert!(pids.iter().any(|pid| !gone(pid)), "make should have survived");
    // What make was writing when it was killed may be only a part, and looks as if it were done.
    let object = find(&world, "main.o").unwrap();
    std::fs::write(&object, "half an obj").unwrap();
    let again = world.build("").ok().says("make failed or was killed in ");
    assert!(!note.exists());
    // One of them has left the group; it is out of reach when its supervisor is gone.
    let (escaped, others): (Vec<_>, Vec<_>) = pids.iter().partition(|pid| has_left(**pid));
    assert!(others.into_iter().all(gone), "{pids:?} are still there");
    for pid in escaped {
        kill_process(*pid, Signal::KILL).unwrap();
    }
    assert_eq!(again.digests(), world.build("--cache-dir fresh -o fresh").ok().digests());
}

/// Does it lead a session of its own?
fn has_left(pid: Pid) -> bool {
    rustix::process::getsid(Some(pid)).is_ok_and(|session| session == pid)
}

/// As on a real terminal, which `script` makes.
#[test]
fn the_terminal_is_as_it_was() {
    if !have("script") || !have("stty") {
        return;
    }
    for (ends, code) in [(None, "130"), (Some(Signal::KILL), "137")] {
        let world = World::new();
        world.tree("6.1.7", "work/linux");
        let build = world.command("6.1.7 --fc --source linux --config mini.config --set MINI_STALL=y");
        let words = build.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let program = build.get_program().to_str().unwrap();
        let session = format!(
            "trap : INT; stty -g > before; sh -c 'echo $$ > pid; exec {program} {words}'; echo $? > code; stty -g > after"
        );
        let mut script = Command::new("script");
        script.args(["-qec", &session, "/dev/null"]).current_dir(world.path("work")).env_clear();
        script.envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))));
        script.env("TERM", "xterm").env("SHELL", "/bin/sh");
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let drawn = std::thread::spawn({
            let mut stdout = script.stdout.take().unwrap();
            move || std::io::read_to_string(&mut stdout).unwrap()
        });
        let pids = stalled_by_the_log(&world);
        let read = |name: &str| std::fs::read_to_string(world.path("work").join(name)).unwrap();
        match ends {
            None => script.stdin.as_mut().unwrap().write_all(b"\x03").unwrap(),
            Some(signal) => {
                let pid = read("pid").trim().parse().unwrap();
                kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
            }
        }
        script.wait().unwrap();
        let drawn = drawn.join().unwrap();
        assert_eq!((read("code").trim(), read("after")), (code, read("before")), "{drawn}");
        assert!(drawn.contains("Compile"), "{drawn}");
        assert_eq!(
            drawn.matches("\x1b[?25l").count(),
            drawn.matches("\x1b[?25h").count(),
            "the cursor is hidden"
        );
        assert!(ends.is_some() || pids.iter().all(gone));
    }
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
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    }
}

#[test]
fn nohup_is_respected() {
    let world = World::new();
    world.tree("6.1.7", "work/linux");
    let mut command = Command::new("/usr/bin/env");
    // Whatever this process ignores.
    command
        .args(["--default-signal=INT", "nohup", env!("CARGO_BIN_EXE_kcompile")])
        .args(["fetch", "6.1.7", "--fc", "--mirror"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    command.arg(format!("http://{}", silent.local_addr().unwrap())).current_dir(world.path("work"));
    command.env("KCOMPILE_CACHE_DIR", world.path("cache")).stderr(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let (_connection, _) = silent.accept().unwrap();
    let mask = |name: &str| signals(&child.id().to_string(), name);
    assert_eq!((mask("SigIgn") & 1, mask("SigCgt") & 1, mask("SigCgt") & 2), (1, 0, 2));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
}
