//! `kcompile make` runs the kernel's make with the user's own targets.

use crate::support::context::TestContext;
use std::fs;

const MAKE: &str = "make 6.1.7 --fc --source linux --config mini.config";

#[test]
fn targets_run_in_the_build_directory_of_the_kernel() {
    let context = TestContext::new();
    let built = context.build("").ok();
    let told = context.run(&format!("{MAKE} -- kernelrelease")).ok().says("6.1.7\n");
    let build_dir = told.stdout.trim_end().to_owned();
    assert!(fs::metadata(format!("{build_dir}/vmlinux")).is_ok(), "{build_dir} is the one of the build");
    // What the targets remove is made again.
    context.run(&format!("{MAKE} -- clean")).ok();
    assert!(fs::metadata(format!("{build_dir}/vmlinux")).is_err());
    let again = context.build("--rebuild").ok();
    assert_eq!(again.digests(), built.digests());
}

#[test]
fn a_module_outside_the_tree_may_be_written() {
    let context = TestContext::new();
    let makefile = context.tree("6.1.7", "work/linux").join("Makefile");
    let text = fs::read_to_string(&makefile).unwrap();
    let goal = ".PHONY: kernelrelease";
    let probe = "probe:\n\ttouch $(M)/written; touch $(M)/../escaped || true\n";
    let text = text.replacen(goal, &format!("{probe}{goal}"), 1);
    // It refuses M=, since it has no rules for modules outside the tree.
    let text: String = text
        .lines()
        .filter(|line| !line.contains("has no external modules"))
        .fold(String::new(), |text, line| text + line + "\n");
    fs::write(&makefile, text).unwrap();
    fs::create_dir(context.path("work/hello")).unwrap();
    let told = context.run(&format!("{MAKE} --sandbox on -- M=hello probe"));
    if told.code == 4 {
        println!("skipped: no sandbox on this host");
        return;
    }
    told.ok();
    assert!(context.path("work/hello/written").exists() && !context.path("work/escaped").exists());
}

#[test]
fn a_failed_target_is_an_error_and_spoils_no_build() {
    let context = TestContext::new();
    let built = context.build("").ok();
    context
        .run(&format!("{MAKE} -- no-such-target"))
        .failed(1, &["error: make no-such-target failed", "and its command is in "]);
    let again = context.build("--rebuild").ok();
    assert_eq!(again.digests(), built.digests());
}

#[test]
fn words_that_change_the_plan_are_refused() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    for (words, says) in [
        ("O=/tmp x", "O=/tmp: the plan sets O"),
        ("ARCH=arm64 x", "ARCH=arm64: the plan sets ARCH"),
        ("CC:=clang x", "CC:=clang: the plan sets CC"),
        ("-k x", "-k: options of make are not passed on"),
        ("M=nowhere modules", "M=nowhere: cannot use"),
    ] {
        context.run(&format!("{MAKE} -- {words}")).failed(2, &[says]);
    }
    context.run(MAKE).failed(2, &["<TARGET>"]);
}
