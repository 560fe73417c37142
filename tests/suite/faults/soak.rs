//! Builds, kills and cleans in rounds. The content of the cache must be the same after the last
//! round as after the first.
//!
//! Two rounds here, or as many as `scripts/soak ROUNDS` asks for.

use crate::support::context::TestContext;
use crate::support::downloads::{answer_range, archive_server};
use crate::support::random::number_from_env;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

/// Returns every path in the cache and the total size.
fn contents(context: &TestContext) -> (Vec<String>, u64) {
    let cache = context.path("cache");
    let mut bytes = 0;
    let entries = walkdir::WalkDir::new(&cache).into_iter().map(Result::unwrap);
    let mut paths: Vec<String> = entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            bytes += if metadata.is_file() { metadata.len() } else { 0 };
            entry.path().strip_prefix(&cache).unwrap().display().to_string()
        })
        .collect();
    paths.sort();
    (paths, bytes)
}

/// Makes abandoned files of killed runs old enough to be removed.
fn grow_old(context: &TestContext) {
    for entry in walkdir::WalkDir::new(context.path("cache")).into_iter().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".tmp-") && entry.file_type().is_file() {
            let old = SystemTime::now() - Duration::from_secs(120);
            File::options().write(true).open(entry.path()).unwrap().set_modified(old).unwrap();
        }
    }
}

#[test]
fn repeated_builds_kills_and_cleans_leave_no_residue() {
    let rounds = number_from_env("KCOMPILE_ROUNDS").unwrap_or(2);
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let server = archive_server(&bytes, |_, request, stream, bytes| answer_range(request, stream, bytes));
    let args = |set: &str| {
        format!("6.1.7 --fc --config mini.config {set} -j 2 --progress plain --mirror {}", server.url)
    };
    let mut first = None;
    for round in 0..=rounds {
        for set in ["", "--set DUMMY=y"] {
            let mut killed = context.command(&args(set));
            let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            // Each round kills after another line of progress.
            let lines = BufReader::new(killed.stderr.take().unwrap()).lines();
            lines.take(1 + round as usize % 9).for_each(drop);
            kill_process(Pid::from_child(&killed), Signal::KILL).unwrap();
            killed.wait().unwrap();
            context.run(&args(set)).ok();
        }
        context.run("clean --builds").ok();
        if round % 3 == 2 {
            context.run("clean").ok();
            context.run(&args("")).ok();
            context.run("clean --builds").ok();
        }
        grow_old(&context);
        context.run("doctor --cache").ok();
        let (paths, bytes) = contents(&context);
        let left: Vec<&String> =
            paths.iter().filter(|path| path.contains(".tmp-") || path.contains("work-")).collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
        match &first {
            // Round 0 starts with an empty cache, so it does not count.
            None if round > 0 => first = Some((paths, bytes)),
            None => {}
            Some((paths_then, bytes_then)) => {
                assert_eq!(&paths, paths_then, "round {round}");
                // Some records contain numbers of different length.
                assert!(bytes.abs_diff(*bytes_then) < 4096, "round {round}: {bytes}, at first {bytes_then}");
            }
        }
    }
    let (paths, bytes) = contents(&context);
    println!("rounds: {rounds}; the cache has {} entries of {bytes} bytes, as after the first", paths.len());
    // No lock is held, and none is left in the way.
    context.run(&format!("{} --offline", args(""))).ok();
}
