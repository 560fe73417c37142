//! The user's own repository with `kcompile.toml`, `configs/` and `patches/`.

use crate::support::context::{RunResult, TestContext, has_tool, run_result};
use crate::support::git::repository;
use crate::support::servers;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};

/// Returns a context with a project in `work/own` with this `kcompile.toml`.
fn project(text: &str) -> TestContext {
    let context = TestContext::new();
    fs::create_dir_all(context.path("work/own/configs/firecracker")).unwrap();
    fs::create_dir_all(context.path("work/own/sub/directory")).unwrap();
    fs::write(context.path("work/own/kcompile.toml"), text).unwrap();
    context
}

/// Runs kcompile below the top of the project.
fn run(context: &TestContext, args: &str) -> RunResult {
    run_result(context.command(args).current_dir(context.path("work/own/sub/directory")).output().unwrap())
}

fn plan(context: &TestContext, args: &str) -> Value {
    run(context, &format!("plan {args} --json")).ok().item()
}

#[test]
fn project_files_override_the_built_in_ones() {
    let context = project("");
    let own = context.path("work/own");
    let entry = "[[kernel]]\nversion = \"9.9\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \"untested\"\n";
    fs::write(own.join("configs/kernels.toml"), entry).unwrap();
    fs::write(own.join("configs/firecracker/linux-x86_64-9.9.config"), "CONFIG_NET=y\n").unwrap();
    fs::create_dir(own.join("patches")).unwrap();
    fs::write(own.join("patches/x.patch"), "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n").unwrap();
    let series = "[[patch]]\nfile = \"x.patch\"\nfrom = \"9.9\"\nbefore = \"9.10\"\nreason = \"ours\"\n";
    fs::write(own.join("patches/series.toml"), series).unwrap();
    let ran = run(&context, "plan 9.9.3").ok();
    assert!(ran.stdout.contains("linux-x86_64-9.9.config (1 setting"), "{}", ran.stdout);
    assert!(ran.stdout.contains("patches/x.patch"), "{}", ran.stdout);
    assert!(ran.stderr.contains("own/kcompile.toml"), "{}", ran.stderr);
    assert!(run(&context, "list").ok().stdout.contains("\n9.9 "));
    // --configs replaces the project's files.
    run(&context, "plan 9.9.3 --configs ../../configs/firecracker").failed(2, &["does not know Linux 9.9.3"]);
    // The project has no effect outside its directory.
    context.run("plan 9.9.3").failed(2, &["does not know Linux 9.9.3"]);
}

#[test]
fn command_line_options_override_project_defaults() {
    let mut context = project(
        "flavor = \"cloud-hypervisor\"\narch = [\"arm64\"]\noutput = \"images\"\n\
         mirror = [\"https://mirror.example\"]\nrequire = [\"kubernetes-1.37\"]\n",
    );
    let by_project = plan(&context, "6.1");
    assert_eq!(by_project["plan"]["flavor"], "cloud-hypervisor");
    assert_eq!(by_project["plan"]["arch"], "arm64");
    assert!(run(&context, "plan 6.1").ok().stdout.contains("from https://mirror.example"));
    let typed = plan(&context, "6.1 --fc --arch amd64");
    assert_eq!((&typed["plan"]["flavor"], &typed["plan"]["arch"]), (&"firecracker".into(), &"amd64".into()));
    assert!(run(&context, "plan 6.1 --mirror http://x").ok().stdout.contains("from http://x"));
    context.env.insert("KCOMPILE_MIRROR".into(), "http://environment".into());
    assert!(run(&context, "plan 6.1").ok().stdout.contains("from http://environment"));
    fs::write(context.path("work/own/kcompile.toml"), "require = [\"nobody\"]\n").unwrap();
    run(&context, "plan 6.1 --fc").failed(2, &["unknown requirement profile `nobody`"]);
}

#[test]
fn a_project_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        crate::support::context::skipped("only root can give files to another user");
        return;
    }
    let context = project("mirror = [\"https://theirs.example\"]\n");
    let (file, sub) = (context.path("work/own/kcompile.toml"), context.path("work/own/sub/directory"));
    chown(&file, Some(12345), None).unwrap();
    let says = [&*format!("{file} belongs to another user (12345)"), "hint: ", "--configs"];
    run(&context, "plan 6.1 --fc").failed(2, &says);
    let named = run(&context, "plan 6.1 --fc --configs ../../configs").ok().stdout;
    assert!(!named.contains("theirs.example"), "only what was named is believed: {named}");
    // A link of another user to our file is refused too.
    fs::rename(&file, context.path("work/ours.toml")).unwrap();
    chown(context.path("work/ours.toml"), Some(0), None).unwrap();
    symlink(context.path("work/ours.toml"), &file).unwrap();
    lchown(&file, Some(12345), None).unwrap();
    run(&context, "plan 6.1 --fc").failed(2, &says);
    // The working directory also belongs to another user.
    chown(&sub, Some(12345), None).unwrap();
    assert!(run(&context, "plan 6.1 --fc").ok().stdout.contains("theirs.example"));
    chown(&sub, Some(0), None).unwrap();
    fs::write(sub.join("kcompile.toml"), "").unwrap();
    assert!(!run(&context, "plan 6.1 --fc").ok().stdout.contains("theirs.example"));
}

#[test]
fn images_and_the_lock_file_are_written_to_the_project_root() {
    let context = project("flavor = \"firecracker\"\noutput = \"images\"\n");
    context.tree("6.1.7", "work/linux");
    let config = context.path("work/mini.config");
    let linux = context.path("work/linux");
    let ran = run(&context, &format!("6.1.7 --source {linux} --config {config}")).ok();
    assert!(ran.stdout.contains("own/images/firecracker-kernel-bin-amd64:6.1.7 "), "{}", ran.stdout);
    run(&context, &format!("6.1.7 --source {linux} --config {config} -o here")).ok();
    assert!(context.path("work/own/sub/directory/here/firecracker-kernel-bin-amd64").is_dir());
    if !has_tool("git") {
        return;
    }
    repository(&context);
    let server = servers::git(context.path("repos").as_str());
    run(&context, &format!("fetch 6.1.7 --source git+{}/linux/.git#ch-6.1.7", server.url)).ok();
    assert!(fs::read_to_string(context.path("work/own/kcompile.lock")).unwrap().contains("commit:"));
}
