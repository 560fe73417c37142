//! The same plan gives the same digests on different machines.

use crate::support::context::{TestContext, copy, run_result, skipped, write_script};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const ARGS: &str = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --legacy";

/// Returns two contexts with the same tarball.
fn two() -> (TestContext, TestContext) {
    let (here, there) = (TestContext::new(), TestContext::new());
    here.tarball("6.1.7", "xz");
    copy(&here.path("work/linux-6.1.7.tar.xz"), &there.path("work/linux-6.1.7.tar.xz"));
    (here, there)
}

/// Returns whether a program can be run like this on this host.
fn can(words: &[&str], why: &str) -> bool {
    let runs = Command::new(words[0]).args(&words[1..]).arg("true").output();
    let can = runs.is_ok_and(|output| output.status.success());
    if !can {
        skipped(why);
    }
    can
}

#[test]
fn another_machine_gives_the_same_digests() {
    let (here, mut there) = two();
    let first = here.run(&format!("{ARGS} -j 1")).ok().digests();
    assert_eq!(first.len(), 4);
    for (key, value) in [
        ("TZ", "Asia/Kathmandu"),
        ("LANG", "tr_TR.UTF-8"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("USER", "somebody"),
        ("LOGNAME", "somebody"),
        ("HOSTNAME", "elsewhere"),
        ("TMPDIR", "/var/tmp"),
    ] {
        there.env.insert(key.into(), value.into());
    }
    there.env.insert("HOME".into(), there.path("another home").into_string());
    there
        .env
        .insert("KCOMPILE_CACHE_DIR".into(), there.path("a/much/longer/place/for/the/cache").into_string());
    // Another host name, if possible.
    let namespace: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["unshare", "--uts"],
        false => &["unshare", "--uts", "--map-root-user"],
    };
    let as_other = "umask 077; hostname elsewhere 2>/dev/null; exec \"$0\" \"$@\"";
    let by = match can(namespace, "unshare cannot give the machine another name here") {
        true => [namespace, &["sh", "-c", as_other]].concat(),
        false => vec!["sh", "-c", as_other],
    };
    let second = there.run_by(&by, &format!("{ARGS} -j 3 -o deep/er/out --launcher env")).ok();
    assert_eq!(second.digests(), first);
    // The same directory again, with existing objects and another config in between.
    let again = format!("{ARGS} -o deep/er/out --launcher env");
    assert_eq!(there.run(&again).ok().digests(), first);
    assert_ne!(there.run(&format!("{again} --set DEBUG_INFO=y")).ok().digests(), first);
    assert_eq!(there.run(&again).ok().digests(), first);
}

/// Another clock for kcompile and everything that it runs. A script in PATH sets it for make.
#[test]
fn the_clock_does_not_affect_the_output() {
    if !can(&["faketime", "2030-01-01"], "faketime is not installed") {
        return;
    }
    let (here, mut there) = two();
    let now = here.run(ARGS).ok().digests();
    let make = Command::new("sh").args(["-c", "command -v make"]).output().unwrap();
    let make = String::from_utf8(make.stdout).unwrap();
    for (year, output) in [("1970-01-02", "past"), ("2099-01-01", "future")] {
        let shims = there.path(output);
        fs::create_dir(&shims).unwrap();
        let shim = format!("#!/bin/sh\nexec faketime '{year} 00:00:00' {} \"$@\"\n", make.trim());
        fs::write(shims.join("make"), shim).unwrap();
        fs::set_permissions(shims.join("make"), fs::Permissions::from_mode(0o755)).unwrap();
        there.env.insert("PATH".into(), format!("{shims}:{}", std::env::var("PATH").unwrap()));
        let args = format!("{ARGS} -o {output} --cache-dir cache-{output}");
        let ran = there.run_by(&["faketime", &format!("{year} 00:00:00")], &args).ok();
        assert_eq!(ran.digests(), now, "{year}");
    }
}

#[test]
fn files_with_future_timestamps_are_refused() {
    let context = TestContext::new();
    let kconfig = context.tree("6.1.7", "work/linux").join("init/Kconfig");
    let touch = |date: &str| Command::new("touch").args(["-d", date, kconfig.as_str()]).status().unwrap();
    assert!(touch("2099-01-01").success());
    context.build("").failed(
        2,
        &["init/Kconfig has a modification time in the future", "hint: if the clock is right, run `find "],
    );
    assert!(touch("now").success());
    context.build("").ok();
}

/// Another order of directory listings.
#[test]
fn file_system_order_does_not_affect_the_output() {
    let (here, there) = two();
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        return skipped("there is no /dev/shm to write in");
    };
    let first = here.run(ARGS).ok().digests();
    let place = memory.path().to_str().unwrap();
    let ran = there.run(&format!("{ARGS} --cache-dir {place}/cache -o {place}/out"));
    let removable = Command::new("chmod").args(["-R", "u+w", place]).status();
    assert_eq!(ran.ok().digests(), first);
    assert!(removable.unwrap().success());
}

/// A read-only mount, since modes do not stop root.
#[test]
fn unwritable_directories_are_reported_before_building() {
    let namespace: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["unshare", "--mount"],
        false => &["unshare", "--mount", "--map-root-user"],
    };
    let read_only = "mount -t tmpfs -o ro none \"$1\" && shift && exec \"$0\" \"$@\"";
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    fs::create_dir(context.path("work/out")).unwrap();
    fs::create_dir(context.path("cache")).unwrap();
    let out = context.path("work/out");
    let probe =
        [namespace, &["sh", "-c", "mount -t tmpfs -o ro none \"$0\" && \"$@\"", out.as_str()]].concat();
    if !can(&probe, "unshare cannot make a mount here") {
        return;
    }
    for place in ["work/out", "cache"].map(|place| context.path(place)) {
        let command = context.command("6.1.7 --fc --source linux --config mini.config");
        let mut by = Command::new(namespace[0]);
        by.args(&namespace[1..]).args(["sh", "-c", read_only]).arg(command.get_program()).arg(&place);
        by.args(command.get_args()).current_dir(context.path("work")).env_clear();
        by.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let ran = run_result(by.output().unwrap());
        ran.failed(2, &[place.as_str(), "Read-only file system"]);
    }
    let built = ["cache/trees", "cache/builds", "work/out"].map(|dir| context.names(dir)).concat();
    assert!(built.is_empty(), "{built:?}");
}

/// Kconfig's view of the host's tools is not in the plan, but in the images.
#[test]
fn a_new_host_tool_gives_the_config_of_a_clean_build() {
    let mut context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    // Like the kernel's own Kconfig.
    let add = |name: &str, lines: &str| {
        let text = fs::read_to_string(tree.join(name)).unwrap();
        fs::write(tree.join(name), format!("{text}{lines}")).unwrap();
    };
    add("Kconfig", "config PAHOLE_VERSION\n\tstring\n\tdefault \"$(PAHOLE_VERSION)\"\n");
    add("Makefile", "export PAHOLE_VERSION := $(shell pahole --version 2>/dev/null || echo 0)\n");
    let tools = context.path("tools");
    fs::create_dir(&tools).unwrap();
    context.env.insert("PATH".into(), format!("{tools}:{}", std::env::var("PATH").unwrap()));
    let without = context.build("").ok().digests();
    context.build("").ok().says("nothing to do");

    let pahole = tools.join("pahole");
    write_script(&pahole, "echo 124");
    let clean = context.build("--cache-dir clean -o clean-out").ok().digests();
    assert_ne!(clean, without);
    assert_eq!(context.build("").ok().says("Compile: done").digests(), clean);
    fs::remove_file(&pahole).unwrap();
    assert_eq!(context.build("--rebuild").ok().digests(), without);
}
