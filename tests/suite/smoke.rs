//! A short way through the whole program for `scripts/test-fast`, with a build, its images, and an
//! error of each exit code.

use crate::support::context::{TestContext, compress};
use crate::support::fixtures::tar_with;
use crate::support::processes::Process;
use crate::support::progress::start_stalled_build;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use tar::EntryType::Regular;

const BIN: &str = "out/firecracker-kernel-bin-amd64";
const MODULES: &str = "out/firecracker-kernel-modules-amd64";

#[test]
fn a_kernel_is_planned_built_verified_and_reused() {
    let context = TestContext::new();
    context.tarball("6.1.7", "gz");
    let args = "6.1.7 --fc --arch amd64 --source linux-6.1.7.tar.gz --config mini.config --cross-compile=";
    let plan = context.run(&format!("plan {args}")).ok().stdout;
    assert!(plan.contains("Linux 6.1.7 for Firecracker on amd64"), "{plan}");
    let built = context.run(args).ok();
    assert!(built.stdout.starts_with(&format!("{BIN}:6.1.7 sha256:")), "{}", built.stdout);
    context.run(&format!("verify {BIN} {MODULES}")).ok();
    let inspected = context.run(&format!("inspect {MODULES}")).ok().stdout;
    assert!(inspected.contains("4 modules in lib/modules/6.1.7"), "{inspected}");
    let again = context.run(args).ok();
    assert_eq!(again.digests(), built.digests());
    assert!(!again.stderr.contains("Compile:"), "{}", again.stderr);
    // Changes a byte of an image.
    let blobs = context.path("work").join(BIN).join("blobs/sha256");
    let layer = blobs.read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path());
    let layer = layer.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    context.run(&format!("inspect {BIN}")).failed(3, &["checksum mismatch"]);
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let mut context = TestContext::new();
    context.build("--set MINI_FAIL=y").failed(1, &["error: ", "hint: "]);
    context.run("6.1 --fc --ch").failed(2, &["cannot be used with"]);
    context.run("fetch 6.1.7 --fc --offline").failed(3, &["is not in the cache"]);
    context.env.insert("PATH".into(), context.path("nothing").into_string());
    context.run("6.1.7 --fc --config mini.config").failed(4, &["this host lacks"]);
}

#[test]
fn an_entry_outside_of_an_archives_directory_is_refused() {
    let context = TestContext::new();
    let tar = tar_with(&[("linux-6.1.7/../../evil", Regular, b"x")]);
    fs::write(context.path("work/evil.tar.gz"), compress(&tar, "gz")).unwrap();
    context.run("fetch 6.1.7 --fc --source evil.tar.gz").failed(3, &["refused entry", "evil"]);
    assert!(context.names("cache/trees").is_empty() && context.names("cache/tmp").is_empty());
}

#[test]
fn ctrl_c_ends_a_build_with_exit_code_130() {
    let context = TestContext::new();
    let (child, below) = start_stalled_build(&context, "");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert!(below.iter().all(Process::is_gone));
}
