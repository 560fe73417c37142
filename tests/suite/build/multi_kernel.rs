//! Builds several kernels in one run.

use crate::support::context::TestContext;
use crate::support::processes::{Process, descendants};
use crate::support::servers::mirror;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn one_failed_kernel_does_not_stop_the_others() {
    let mut context = TestContext::new();
    let server = mirror(&context, &["6.1.7", "6.1.9"]);
    // Records the job arguments of each make.
    let path = std::env::var("PATH").unwrap();
    fs::create_dir(context.path("bin")).unwrap();
    let make = context.path("bin/make");
    let script = "#!/bin/sh\nfor word; do case $word in O=*) echo \"$MAKEFLAGS / $*\" >>\"${word#O=}/calls\";; esac; done\n\
                  PATH='{path}' exec make \"$@\"\n";
    fs::write(&make, script.replace("{path}", &path)).unwrap();
    fs::set_permissions(&make, fs::Permissions::from_mode(0o755)).unwrap();
    context.env.insert("PATH".into(), format!("{}:{path}", context.path("bin")));

    let args = format!("6.1.7 6.1.8 6.1.9 --fc --config mini.config -j 3 --mirror {}", server.url);
    let ran = context.run(&args).failed(
        3,
        &[
            "[6.1.7] Compile: make -j3 vmlinux modules",
            "[6.1.9] Pack: done in ",
            "[6.1.8] error: ",
            "404",
            "2 of 3 kernels built in ",
            "built   6.1.7  Linux 6.1.7, after ",
            "FAILED  6.1.8  ",
            "built   6.1.9  Linux 6.1.9, after ",
        ],
    );
    let layouts: Vec<&str> = ran.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let layout = |what, version| format!("out/firecracker-kernel-{what}-amd64:{version}");
    assert_eq!(
        layouts,
        [
            layout("bin", "6.1.7"),
            layout("modules", "6.1.7"),
            layout("bin", "6.1.9"),
            layout("modules", "6.1.9")
        ]
    );
    let found = walkdir::WalkDir::new(context.path("cache/trees")).into_iter().flatten();
    let found = found.filter(|entry| entry.file_name() == "calls");
    let calls: Vec<String> = found.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect();
    assert_eq!(calls.len(), 2);
    for call in calls.iter().flat_map(|calls| calls.lines()) {
        assert!(call.contains("--jobserver-auth=") && !call.contains(" -j3"), "{call}");
        assert!(!call.contains("CARGO"), "{call}");
    }
    assert!(!ran.stderr.contains("waiting for the lock"), "{}", ran.stderr);

    // Separate builds give the same images.
    for (version, digests) in [("6.1.7", &ran.digests()[..2]), ("6.1.9", &ran.digests()[2..])] {
        let alone = format!(
            "{version} --fc --config mini.config --mirror {} --cache-dir fresh -o fresh-out",
            server.url
        );
        assert_eq!(context.run(&alone).ok().digests(), digests);
    }
}

#[test]
fn every_json_event_names_its_kernel() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7", "6.1.9"]);
    let args = format!("6.1.7 6.1.9 --fc --config mini.config --progress json --mirror {}", server.url);
    let ran = context.run(&args).ok();
    let events: Vec<serde_json::Value> =
        ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for kernel in ["6.1.7", "6.1.9"] {
        let finished: Vec<&str> = events
            .iter()
            .filter(|event| event["event"] == "finish" && event["kernel"] == kernel)
            .map(|event| event["phase"].as_str().unwrap())
            .collect();
        assert_eq!(finished, ["source", "configure", "compile", "install", "pack"]);
    }
    let (last, others) = events.split_last().unwrap();
    assert!(others.iter().all(|event| event["kernel"].is_string()), "{}", ran.stderr);
    assert_eq!((&last["event"], &last["kernels"][1]["kernel"]), (&"overview".into(), &"6.1.9".into()));
}

#[test]
fn two_kernels_build_from_one_tree_at_the_same_time() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    let args = "6.1.7 6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --rebuild";
    let ran = context.run(args).ok().says("[6.1.7] Source: ").says("[6.1.7 #2] Compile: done");
    let digests = ran.digests();
    assert_eq!((&digests[..2], context.names("cache/trees").len()), (&digests[2..], 1));
}

#[test]
fn the_tree_of_a_queued_kernel_is_not_cleaned() {
    let context = TestContext::new();
    let versions = ["6.1.7", "6.1.8", "6.1.9"];
    let server = mirror(&context, &versions);
    let args = format!(
        "{} --fc --config mini.config --set MINI_STALL=y --progress quiet --mirror {} -j 2",
        versions.join(" "),
        server.url
    );
    let mut child = context.command(&args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    // Two kernels compile for ever, and the third has its tree and waits.
    let deadline = Instant::now() + Duration::from_secs(60);
    let builds = |name: &String| name.contains("-kcompile-");
    while context.names("cache/locks").iter().filter(|name| builds(name)).count() < versions.len() {
        assert!(Instant::now() < deadline, "the third has no lock: {:?}", context.names("cache/locks"));
        std::thread::yield_now();
    }
    let trees = context.names("cache/trees");
    context.run("clean").ok().says("is in use and was not removed");
    assert_eq!((context.names("cache/trees"), trees.len()), (trees, 3));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn ctrl_c_stops_all_kernels() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7", "6.1.9"]);
    let args = format!(
        "6.1.7 6.1.9 --fc --config mini.config --set MINI_STALL=y --progress quiet --mirror {} -j 2",
        server.url
    );
    let mut child = context.command(&args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let files = |name: &str| -> Vec<String> {
        let found = walkdir::WalkDir::new(context.path("cache/trees")).into_iter().flatten();
        let found = found.filter(|entry| entry.file_name() == name);
        found.map(|entry| fs::read_to_string(entry.path()).unwrap_or_default()).collect()
    };
    while files("kcompile.log").iter().filter(|log| log.contains("  STALL   waiting")).count() < 2 {
        assert!(Instant::now() < deadline, "the makes never stalled");
        std::thread::yield_now();
    }
    let below = descendants(&child);
    assert!(below.len() > 10, "{below:?}");
    let since = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert!(below.iter().all(Process::is_gone));
    assert!(!context.path("work/out").exists());
}
