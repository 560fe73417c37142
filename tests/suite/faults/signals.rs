//! Signals, such as Ctrl-C, to the real binary while make stalls.

use crate::support::context::{TestContext, has_tool, signals};
use crate::support::processes::{Process, wait_until_gone};
use crate::support::progress::{find_build_file, start_stalled_build, wait_until_make_stalls};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Starts a build that stalls, sends `signal`, and returns the exit code, the time until the end,
/// and the processes that were running.
fn interrupt(context: &TestContext, signal: Signal) -> (i32, Duration, Vec<Process>) {
    let (mut child, below) = start_stalled_build(context, "");
    let since = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    BufReader::new(child.stderr.take().unwrap()).lines().for_each(drop);
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (code, since.elapsed(), below)
}

#[test]
fn ctrl_c_ends_all_processes_and_the_next_run_resumes() {
    let context = TestContext::new();
    let (code, took, below) = interrupt(&context, Signal::INT);
    assert_eq!(code, 130);
    assert!(took < Duration::from_secs(10), "{took:?}");
    // The supervisor, make, shells and their children.
    assert!(below.len() > 5 && below.iter().all(Process::is_gone));
    assert!(!context.path("work/out").exists() && context.names("cache/tmp").is_empty());
    // What was compiled before the interruption is not compiled again.
    let again = context.run("6.1.7 --fc --source linux --config mini.config --progress plain").ok();
    let clean = TestContext::new().build("").ok();
    let steps = |ran: &crate::support::context::RunResult| -> u64 {
        let text = ran.stderr.split("Compile: done").nth(1).unwrap().split("6.1.7, ").nth(1).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(steps(&again) < steps(&clean), "{} of {}", steps(&again), steps(&clean));
}

#[test]
fn sigterm_and_sighup_have_their_own_exit_codes() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let context = TestContext::new();
        let (found, took, below) = interrupt(&context, signal);
        assert_eq!(found, code);
        assert!(took < Duration::from_secs(10) && below.iter().all(Process::is_gone));
    }
}

#[test]
fn a_killed_run_leaves_no_processes() {
    for sandbox in ["on", "off"] {
        let context = TestContext::new();
        let (mut child, below) = start_stalled_build(&context, &format!("--sandbox {sandbox}"));
        // A stopped supervisor still notices that kcompile has ended.
        below[0].signal(Signal::STOP);
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
        wait_until_gone(&below, sandbox);
        context.build("").ok();
    }
}

#[test]
fn the_next_run_ends_processes_of_a_killed_supervisor() {
    let context = TestContext::new();
    let (mut child, below) = start_stalled_build(&context, "--sandbox off");
    let (supervisor, below) = below.split_first().unwrap();
    assert_eq!(supervisor.words()[0], "kcompile-supervisor");
    let kcompile = Pid::from_child(&child);
    kill_process(kcompile, Signal::STOP).unwrap();
    supervisor.signal(Signal::STOP);
    // The supervisor first, since the end of kcompile would continue it.
    supervisor.signal(Signal::KILL);
    kill_process(kcompile, Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(below.iter().any(|process| !process.is_gone()), "make should have survived");
    // A file that make was writing when killed may be incomplete, although it looks finished.
    let object = find_build_file(&context, "main.o").unwrap();
    std::fs::write(&object, "half an obj").unwrap();
    let again = context.build("").ok().says("failed or was killed, so ");
    assert!(find_build_file(&context, ".kcompile-make.pid").is_none());
    // One of the processes has left the session, so it survives if its supervisor is gone.
    let (escaped, others): (Vec<_>, Vec<_>) = below.iter().partition(|process| has_left(process.pid));
    assert!(others.into_iter().all(Process::is_gone));
    escaped.into_iter().for_each(|process| process.signal(Signal::KILL));
    assert_eq!(again.digests(), context.build("--cache-dir fresh -o fresh").ok().digests());
}

/// In a sandbox nothing survives the supervisor, and half-written files are not used.
#[test]
fn a_sandbox_ends_with_its_supervisor() {
    let context = TestContext::new();
    let (mut child, below) = start_stalled_build(&context, "--sandbox on");
    below[0].signal(Signal::KILL);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    wait_until_gone(&below, "after the supervisor");
    context.build("").ok().says("failed or was killed, so ");
}

/// Make has a session of its own, so the terminal's Ctrl-Z does not reach it.
#[test]
fn ctrl_z_stops_and_continues_make() {
    for sandbox in ["on", "off"] {
        let context = TestContext::new();
        let (mut child, below) = start_stalled_build(&context, &format!("--sandbox {sandbox}"));
        let kcompile = Pid::from_child(&child);
        let is_stopped = |pid: Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            stat.is_ok_and(|stat| stat.contains(") T "))
        };
        let wait = |what: &str, is_so: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !is_so() {
                assert!(Instant::now() < deadline, "{sandbox}: {what}");
                std::thread::yield_now();
            }
        };
        // The supervisor must not stop, because it handles all other events.
        let make = &below[1..];
        let all_stop = || make.iter().all(|process| process.is_gone() || is_stopped(process.pid));
        kill_process(kcompile, Signal::TSTP).unwrap();
        wait("not stopped", &|| is_stopped(kcompile) && all_stop());
        kill_process(kcompile, Signal::CONT).unwrap();
        wait("still stopped", &|| !make.iter().any(|process| is_stopped(process.pid)));
        // A stopped build ends too.
        kill_process(kcompile, Signal::TSTP).unwrap();
        wait("not stopped again", &|| is_stopped(kcompile) && all_stop());
        kill_process(kcompile, Signal::INT).unwrap();
        kill_process(kcompile, Signal::CONT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(below.iter().all(Process::is_gone));
    }
}

/// Returns whether a process leads its own session.
fn has_left(pid: Pid) -> bool {
    rustix::process::getsid(Some(pid)).is_ok_and(|session| session == pid)
}

/// Like a real terminal, which `script` provides.
#[test]
fn terminal_settings_are_restored() {
    if !has_tool("script") || !has_tool("stty") {
        return;
    }
    for (ends, code) in [(None, "130"), (Some(Signal::KILL), "137")] {
        let context = TestContext::new();
        context.tree("6.1.7", "work/linux");
        let build = context.command("6.1.7 --fc --source linux --config mini.config --set MINI_STALL=y");
        let words = build.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let program = build.get_program().to_str().unwrap();
        let session = format!(
            "trap : INT; stty -g > before; sh -c 'echo $$ > pid; exec {program} {words}'; echo $? > code; stty -g > after"
        );
        let mut script = Command::new("script");
        script.args(["-qec", &session, "/dev/null"]).current_dir(context.path("work")).env_clear();
        script.envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))));
        script.env("TERM", "xterm").env("SHELL", "/bin/sh");
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let drawn = std::thread::spawn({
            let mut stdout = script.stdout.take().unwrap();
            move || std::io::read_to_string(&mut stdout).unwrap()
        });
        wait_until_make_stalls(&context);
        let read = |name: &str| std::fs::read_to_string(context.path("work").join(name)).unwrap();
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
    }
}

#[test]
fn ctrl_c_works_while_a_server_is_silent() {
    let context = TestContext::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    for source in [format!("--mirror http://{address}"), format!("--source git+http://{address}/x")] {
        let mut command = context.command(&format!("fetch 6.1.7 --fc {source}"));
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        // The client has connected and waits for an answer.
        let (_connection, _) = silent.accept().unwrap();
        let since = Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    }
}

#[test]
fn nohup_is_respected() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let mut command = Command::new("/usr/bin/env");
    // Independent of the signals that the test process ignores.
    command
        .args(["--default-signal=INT", "nohup", env!("CARGO_BIN_EXE_kcompile")])
        .args(["fetch", "6.1.7", "--fc", "--mirror"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    command.arg(format!("http://{}", silent.local_addr().unwrap())).current_dir(context.path("work"));
    command.env("KCOMPILE_CACHE_DIR", context.path("cache")).stderr(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let (_connection, _) = silent.accept().unwrap();
    let mask = |name: &str| signals(&child.id().to_string(), name);
    assert_eq!((mask("SigIgn") & 1, mask("SigCgt") & 1, mask("SigCgt") & 2), (1, 0, 2));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
}
