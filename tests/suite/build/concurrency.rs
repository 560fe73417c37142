//! Runs several builds at once, on one cache and into one output directory, and kills some of them.

use crate::support::context::{RunResult, TestContext, run_result};
use crate::support::downloads::{answer_range, archive_requests, archive_server};
use crate::support::layouts::layouts_are_whole;
use crate::support::progress::start_stalled_build;
use crate::support::servers::Server;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

fn release(context: &TestContext) -> Server {
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    archive_server(&bytes, |_, request, stream, bytes| answer_range(request, stream, bytes))
}

fn spawn(context: &TestContext, args: &str) -> Child {
    let mut command = context.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait(child: Child) -> RunResult {
    run_result(child.wait_with_output().unwrap())
}

#[test]
fn eight_concurrent_runs_succeed_when_three_are_killed() {
    let context = TestContext::new();
    let server = release(&context);
    let args = |run: usize| {
        // The two configs share a tree and a build directory.
        let set = if run.is_multiple_of(2) { "--set DUMMY=y" } else { "" };
        format!("6.1.7 --fc --config mini.config {set} -j 1 -o out-{run} --mirror {}", server.url)
    };
    let mut runs: Vec<Child> = (0..8).map(|run| spawn(&context, &args(run))).collect();
    for killed in [0, 3, 6] {
        // The run has started, and waits for others or makes others wait.
        let mut first = String::new();
        BufReader::new(runs[killed].stderr.as_mut().unwrap()).read_line(&mut first).unwrap();
        kill_process(Pid::from_child(&runs[killed]), Signal::KILL).unwrap();
        runs[killed].wait().unwrap();
    }
    let mut digests = Vec::new();
    for (run, child) in runs.into_iter().enumerate() {
        let first = wait(child);
        let ran = if [0, 3, 6].contains(&run) { context.run(&args(run)) } else { first };
        digests.push(ran.ok().digests());
        layouts_are_whole(&context.path(&format!("work/out-{run}")), &format!("run {run}"));
    }
    assert!(digests.iter().skip(2).zip(&digests).all(|(later, earlier)| later == earlier), "{digests:?}");
    assert_ne!(digests[0], digests[1]);
    // A killed run may have had to start again.
    let downloads = archive_requests(&server).len();
    assert!(downloads <= 4, "{:?}", archive_requests(&server));
    assert_eq!(context.names("cache/trees").len(), 1);
    assert_eq!(context.names("cache/tmp"), [""; 0]);
}

#[test]
fn two_runs_can_write_to_one_output_directory() {
    let context = TestContext::new();
    let server = release(&context);
    let args = |more: &str| format!("6.1.7 --config mini.config --mirror {} {more}", server.url);
    let (one, two) = ("--fc", "--ch --source kernel.org");
    let both = [spawn(&context, &args(one)), spawn(&context, &args(two))].map(|child| wait(child).ok());
    let ours = ["firecracker-kernel-bin-amd64", "cloudhypervisor-kernel-bin-amd64"];
    layouts_are_whole(&context.path("work/out"), "both");
    for (ran, layout) in both.iter().zip(ours) {
        assert!(ran.stdout.contains(layout) && context.path("work/out").join(layout).is_dir());
    }
    assert_eq!(archive_requests(&server).len(), 1);
    let again = [context.run(&args(one)).ok(), context.run(&args(two)).ok()];
    assert_eq!(again.map(|ran| ran.digests()), both.map(|ran| ran.digests()));
}

#[test]
fn a_lock_is_released_when_its_holder_is_killed() {
    let context = TestContext::new();
    let (mut holder, _) = start_stalled_build(&context, "");
    let mut waiting =
        spawn(&context, "6.1.7 --fc --source linux --config mini.config --progress plain -o second");
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.find(|line| line.contains("waiting for the lock")).unwrap();
    assert!(told.ends_with(&format!("held by pid {}", holder.id())), "{told}");
    kill_process(Pid::from_child(&holder), Signal::KILL).unwrap();
    holder.wait().unwrap();
    lines.for_each(drop);
    assert_eq!(wait(waiting).ok().digests().len(), 2);
    layouts_are_whole(&context.path("work/second"), "second");
}
