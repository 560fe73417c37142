//! Unchanged builds do nothing, and small changes only rebuild what they affect.

use crate::support::context::{TestContext, sha256, write_script};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

const BIN: &str = "work/out/firecracker-kernel-bin-amd64";
const RECEIPT: &str = "work/out/firecracker-6.1.7-amd64.json";

/// Makes `make` record its arguments, for [`calls`].
fn watch_make(context: &mut TestContext) {
    let path = std::env::var("PATH").unwrap();
    let dir = context.path("bin");
    fs::create_dir(&dir).unwrap();
    // The record is in the build directory, because make cannot write elsewhere in the sandbox.
    let note = "for word; do case $word in O=*) echo \"$@\" >>\"${word#O=}/calls\";; esac; done";
    let script = format!("#!/bin/sh\n{note}\nPATH='{path}' exec make \"$@\"\n");
    fs::write(dir.join("make"), script).unwrap();
    fs::set_permissions(dir.join("make"), fs::Permissions::from_mode(0o755)).unwrap();
    context.env.insert("PATH".into(), format!("{dir}:{path}"));
}

/// Returns how often make ran in a build directory since the last call.
fn calls(context: &TestContext) -> usize {
    let files = walkdir::WalkDir::new(context.path("cache")).into_iter().flatten();
    let files = files.filter(|entry| entry.file_name() == "calls");
    let count = files.map(|entry| {
        let calls = fs::read_to_string(entry.path()).unwrap();
        fs::write(entry.path(), "").unwrap();
        calls.lines().count()
    });
    count.sum()
}

/// Returns the blobs of the kernel layout.
fn blobs(context: &TestContext) -> Vec<String> {
    context.names(&format!("{BIN}/blobs/sha256"))
}

#[test]
fn an_unchanged_plan_does_not_run_make() {
    let mut context = TestContext::new();
    watch_make(&mut context);
    let first = context.build("").ok();
    assert!(calls(&context) > 0);
    let before = context.snapshot("work/out");
    let again = context.build("").ok().says("Reuse: done in ").says("2 images, intact: nothing to do");
    assert_eq!((again.stdout, calls(&context)), (first.stdout.clone(), 0));
    assert!(again.stderr.contains("kernel release  6.1.7, "), "{}", again.stderr);
    assert_eq!(context.snapshot("work/out"), before);
    // Another directory, a launcher and other jobs do not change the plan.
    let elsewhere = context
        .build("-o elsewhere --launcher env -j 7")
        .ok()
        .says("2 images restored from the cache, nothing compiled");
    assert_eq!((elsewhere.digests(), calls(&context)), (first.digests(), 0));
    let images = |dir: &str| -> Vec<String> {
        let all = context.snapshot(dir).into_iter();
        all.map(|(path, content)| format!("{} {content}", path.replace(dir, "")))
            .filter(|line| !line.contains(".lock"))
            .collect()
    };
    assert_eq!(images("work/out"), images("work/elsewhere"));
    // Compiled again only on request.
    let rebuilt = context.build("--rebuild").ok().says("6.1.7, 0 steps");
    assert_eq!(rebuilt.digests(), first.digests());
    assert!(calls(&context) > 0);
}

#[test]
fn damaged_output_is_repaired_without_compiling() {
    let mut context = TestContext::new();
    watch_make(&mut context);
    let whole = context.build("").ok();
    context.tree("6.1.8", "work/next");
    context.run("6.1.8 --fc --source next --config mini.config").ok();
    calls(&context);
    let mut repairs = 0;
    for blob in blobs(&context) {
        let path = context.path(&format!("{BIN}/blobs/sha256/{blob}"));
        let bytes = fs::read(&path).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        // Flips one bit. The size and the time of the content stay the same.
        let mut damaged = bytes.clone();
        damaged[10] ^= 1;
        fs::write(&path, damaged).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let ran = context.build("").ok();
        if ran.stderr.contains("nothing to do") {
            // A blob of the other version, which belongs to another plan.
            fs::write(&path, &bytes).unwrap();
        } else {
            repairs += 1;
        }
        assert_eq!((sha256(&fs::read(&path).unwrap()), calls(&context)), (blob, 0));
    }
    assert_eq!(repairs, 3, "a manifest, a config, a layer");
    let receipt = fs::read_to_string(context.path(RECEIPT)).unwrap();
    // Annotations, which no digest covers.
    let index = |from: &'static str, to: &'static str| {
        let path = context.path(&format!("{BIN}/index.json"));
        move || fs::write(&path, fs::read_to_string(&path).unwrap().replacen(from, to, 1)).unwrap()
    };
    let damages: [&dyn Fn(); 6] = [
        &index("amd64", "arm64"),
        &index("\"schemaVersion\":2", "\"schemaVersion\":3"),
        &|| fs::remove_file(context.path(RECEIPT)).unwrap(),
        &|| fs::write(context.path(RECEIPT), "{}").unwrap(),
        &|| fs::remove_dir_all(context.path(BIN)).unwrap(),
        &|| fs::remove_dir_all(context.path("work/out")).unwrap(),
    ];
    for damage in damages {
        damage();
        let repaired = context.build("").ok().says("2 images restored from the cache, nothing compiled");
        assert_eq!(repaired.digests(), whole.digests());
        assert_eq!(fs::read_to_string(context.path(RECEIPT)).unwrap(), receipt);
        context.build("").ok().says("nothing to do");
        assert_eq!(calls(&context), 0);
    }
}

#[test]
fn damaged_cached_images_are_rebuilt() {
    let context = TestContext::new();
    let first = context.build("").ok().digests();
    for blob in walkdir::WalkDir::new(context.path("cache/images")).into_iter().flatten() {
        if blob.path().parent().is_some_and(|dir| dir.ends_with("blobs/sha256")) {
            fs::write(blob.path(), "x").unwrap();
        }
    }
    // The output directory is right, so none of them is needed.
    context.build("").ok().says("nothing to do");
    fs::remove_dir_all(context.path("work/out")).unwrap();
    let made =
        context.build("").ok().says("note: cannot reuse the images in the cache: ").says("6.1.7, 0 steps");
    assert_eq!(made.digests(), first);
    fs::remove_dir_all(context.path("work/out")).unwrap();
    assert_eq!(context.build("").ok().says("nothing compiled").digests(), first);
}

#[test]
fn unchanged_builds_still_check_requirements_and_tools() {
    let mut context = TestContext::new();
    // Directories of the user in PATH may change at any moment, such as the shims of version
    // managers.
    let programs = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    context.env.insert("PATH".into(), programs.into());
    context.build("--require none").ok();
    // Another profile may have unmet requirements.
    context.build("--require kubernetes").failed(1, &["does not meet kubernetes"]);
    context.build("--require none").ok().says("nothing to do");
    // A warning is repeated. Another tool on the host may change Kconfig's answer.
    let mut config = fs::read_to_string(context.path("work/mini.config")).unwrap();
    config.push_str("CONFIG_NO_SUCH_THING=y\n");
    fs::write(context.path("work/mini.config"), config).unwrap();
    context.build("--require none").ok();
    context
        .build("--require none")
        .ok()
        .says("nothing to do")
        .says("warning: CONFIG_NO_SUCH_THING=y is missing");
    let dir = context.path("tools");
    fs::create_dir(&dir).unwrap();
    context.env.insert("PATH".into(), format!("{programs}:{dir}"));
    fs::write(dir.join("kcompile.d"), "").unwrap();
    write_script(&dir.join("kcompile"), "");
    context.build("--require none").ok().says("nothing to do");
    for tool in ["pahole", "bpftool"] {
        write_script(&dir.join(tool), "exit 1");
        context.build("--require none").ok().says("Compile: done");
        context.build("--require none").ok().says("nothing to do");
    }
}

#[test]
fn cached_sources_are_only_read_again_after_a_change() {
    let context = TestContext::new();
    let tarball = context.tarball("6.1.7", "gz");
    let args = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.gz";
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&tarball).unwrap().set_modified(long_ago).unwrap();
    context.run(args).ok();
    context.run(args).ok().says("nothing to do");
    let known = || context.names("cache/known");
    assert_eq!(known().len(), 1);
    let fact = fs::read_to_string(context.path(&format!("cache/known/{}", known()[0]))).unwrap();
    assert!(fact.contains(&sha256(&fs::read(&tarball).unwrap())), "{fact}");
    // The same size and time with other bytes.
    let mut bytes = fs::read(&tarball).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&tarball, bytes).unwrap();
    fs::File::options().write(true).open(&tarball).unwrap().set_modified(long_ago).unwrap();
    context.run(args).failed(3, &["corrupt archive"]);
}

/// Returns the number of commands in the summary of the compile phase.
fn steps(ran: &crate::support::context::RunResult) -> u64 {
    let text = ran.stderr.split("Compile: done").nth(1).unwrap().split("6.1.7, ").nth(1).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_incremental_build_equals_a_clean_build() {
    let context = TestContext::new();
    let whole = steps(&context.build("").ok());
    for set in ["DUMMY=n", "DUMMY=y", "PSI=y"] {
        let changed = context.build(&format!("--set {set}")).ok();
        assert!(steps(&changed) * 2 < whole, "{set}: {} of {whole} steps", steps(&changed));
        let clean = context.build(&format!("--set {set} --cache-dir {set} -o {set}-out")).ok();
        assert_eq!(changed.digests(), clean.digests(), "{set}");
    }
    let builds = walkdir::WalkDir::new(context.path("cache/builds")).max_depth(2).into_iter().flatten();
    let builds = builds.filter(|entry| entry.file_name().to_string_lossy().starts_with("kcompile-"));
    assert_eq!(builds.count(), 1);
}
