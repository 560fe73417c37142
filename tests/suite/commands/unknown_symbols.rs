//! Names of symbols in `--set`: those that no kernel of the run has, and lower case.

use crate::support::context::{RunResult, TestContext, compress, has_tool, sha256, tar_of};
use crate::support::servers::{self, DIR, Server};
use std::fs::{self, OpenOptions};
use std::io::Write;

fn build(context: &TestContext, args: &str) -> RunResult {
    context.build(&format!("--arch amd64 --sandbox off {args}"))
}

#[test]
fn a_symbol_that_no_kernel_has_is_an_error_for_any_value() {
    let context = TestContext::new();
    for value in ["n", "y", "m", "7", "\"x\""] {
        let ran = build(&context, &format!("--set VIRTIO_NETT={value}"));
        let error = "error: Linux 6.1.7 has no CONFIG_VIRTIO_NETT\nhint: did you mean CONFIG_VIRTIO_NET?\n";
        let ran = ran.failed(1, &[error]);
        assert!(!ran.stderr.contains("Compile"), "{}", ran.stderr);
        assert!(!context.path("work/out").exists());
    }
    build(&context, "--set ZZZ=n --set MEMCG_SWAP=n").failed(
        1,
        &[
            "error: Linux 6.1.7 has no CONFIG_MEMCG_SWAP or CONFIG_ZZZ\n",
            "CONFIG_MEMCG_SWAP: gone since 6.1: ",
        ],
    );
    let show = "config show 6.1.7 --fc --arch amd64 --source linux --config mini.config";
    context.run(&format!("{show} --set ZZZ=n")).failed(1, &["Linux 6.1.7 has no CONFIG_ZZZ"]);
    // A fragment may be for several versions.
    fs::write(context.path("work/f.config"), "# CONFIG_ZZZ is not set\n").unwrap();
    build(&context, "--fragment f.config").ok();
    // The symbol is known, though nothing can turn it on.
    build(&context, "--set MINI_NEEDS_ABSENT=n").ok();
}

#[test]
fn a_symbol_of_another_architecture_is_known() {
    let context = TestContext::new();
    let note = "note: CONFIG_ARM_AMBA=n: only another architecture has it: arm64";
    build(&context, "--set ARM_AMBA=n").ok().says(note);
}

/// Returns a server of 6.1.7 and 6.6.60, of which only the second has the symbol `MINI_NEW`.
fn server(context: &TestContext) -> Server {
    let mut all = Vec::new();
    let mut list = String::new();
    for version in ["6.1.7", "6.6.60"] {
        let tree = context.tree(version, &format!("trees/{version}"));
        if version == "6.6.60" {
            let mut file = OpenOptions::new().append(true).open(tree.join("drivers/mini/Kconfig")).unwrap();
            file.write_all(b"\nconfig MINI_NEW\n\tbool \"New\"\n\tdefault y\n").unwrap();
        }
        let bytes = compress(&tar_of(&tree, &format!("linux-{version}")), "xz");
        list.push_str(&format!("{}  linux-{version}.tar.xz\n", sha256(&bytes)));
        all.push((format!("{DIR}/linux-{version}.tar.xz"), bytes));
    }
    all.push((format!("{DIR}/sha256sums.asc"), list.into_bytes()));
    servers::files(all)
}

#[test]
fn one_kernel_of_the_run_must_have_the_symbol() {
    let mut context = TestContext::new();
    context.env.insert("KCOMPILE_MIRROR".into(), server(&context).url);
    let args = "--fc --arch amd64 --config mini.config --sandbox off";
    let both = context.run(&format!("6.1.7 6.6.60 {args} --set MINI_NEW=n")).ok();
    both.says("[6.1.7] note: CONFIG_MINI_NEW=n: no such symbol in this kernel");
    // The command of the receipt names both kernels.
    context.run("verify --rebuild out/firecracker-kernel-bin-amd64:6.1.7").ok();
    // The images of the run before are not reused, since this run is an error.
    context.run(&format!("6.1.7 {args} --set MINI_NEW=n")).failed(1, &["Linux 6.1.7 has no CONFIG_MINI_NEW"]);
    context.run(&format!("6.6.60 {args} --set MINI_NEW=n")).ok().says("Reuse: done");
    for _ in 0..2 {
        let ran = context.run(&format!("6.1.7 6.6.60 {args} --set MINI_NEWW=n"));
        let ran = ran.failed(1, &["error: no kernel of this run has CONFIG_MINI_NEWW\n"]);
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("did you mean CONFIG_MINI_NEW?") || !ran.stderr.contains("[6.6.60] error")
        );
    }
}

#[test]
fn lower_case_is_understood() {
    let context = TestContext::new();
    let digest = |set: &str| {
        let item = context.run(&format!("plan 6.1 --fc --set {set} --json")).ok().item();
        item["digest"].as_str().unwrap().to_owned()
    };
    for set in ["virtio_net=y", "CONFIG_VIRTIO_NET=y", "config_virtio_net=y", "Config_VIRTIO_NET=y"] {
        assert_eq!(digest(set), digest("VIRTIO_NET=y"), "{set}");
    }
    // Some symbols have capital and small letters.
    assert_ne!(digest("SCx200=y"), digest("SCX200=y"));
    build(&context, "--set Virtio_Net=n").failed(1, &["did you mean CONFIG_VIRTIO_NET?"]);
    let why = "config why 6.1.7 --fc --arch amd64 --source linux --config mini.config virtio_net";
    assert!(context.run(why).ok().stdout.contains("CONFIG_VIRTIO_NET"));
}

#[test]
fn a_plan_says_which_symbols_it_could_not_check() {
    let mut context = TestContext::new();
    context.env.insert("KCOMPILE_MIRROR".into(), server(&context).url);
    let args = "6.1.7 --fc --arch amd64 --config mini.config";
    let plan = |args: &str| context.run(&format!("plan {args}"));
    let text = plan(&format!("{args} --set NET=y --set TYPO=n")).ok().stdout;
    assert!(
        text.contains("CONFIG_NET=y (1 setting, ") && text.matches(", not checked)").count() == 2,
        "{text}"
    );
    let json = plan(&format!("{args} --set TYPO=n --json")).ok();
    assert!(!json.stdout.contains("not checked"), "{}", json.stdout);
    // With the source, it is checked.
    if !has_tool("gcc") {
        return;
    }
    context.run(&format!("fetch {}", args.replace(" --config mini.config", ""))).ok();
    let text = plan(&format!("{args} --set NET=y")).ok().stdout;
    assert!(!text.contains("not checked"), "{text}");
    for format in ["", "--json"] {
        plan(&format!("{args} --set TYPO=n {format}")).failed(1, &["Linux 6.1.7 has no CONFIG_TYPO"]);
    }
    plan(&format!("{args} 6.6.60 --set TYPO=n")).ok();
    plan(&format!("{args} 6.6.60 --set MINI_NEW=n")).ok();
}
