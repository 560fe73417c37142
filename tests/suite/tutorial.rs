//! Runs every command of the tutorial in the order of the page. The kernel is the miniature one, from a server on
//! loopback. Scripts replace the programs that install packages, compile kcompile, and run a virtual machine.

use crate::support::context::{
    CONFIG, RunResult, TestContext, compress, copy, has_tool, run_result, sha256, skipped, tar_of,
    write_script,
};
use crate::support::{qemu, servers};
use camino::Utf8Path;
use std::fs;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = "6.1.192";
/// Symbols that the tutorial names and the miniature kernel does not have.
const SYMBOLS: &str = "
config KSM
\tbool \"Kernel samepage merging\"

config XFS_FS
\ttristate \"XFS filesystem support\"

config XFS_QUOTA
\tbool \"XFS quota support\"
\tdepends on XFS_FS

config XFS_POSIX_ACL
\tbool \"XFS POSIX ACL support\"
\tdepends on XFS_FS
";
/// The only command that the page expects to fail.
const FAILS: &str = "kcompile 6.1 --fc --set XFS_QUOTA=y";

/// Returns the lines of the page's shell blocks.
fn commands() -> Vec<String> {
    let page = fs::read_to_string(format!("{ROOT}/docs/tutorial.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// Returns a fresh clone in the working directory, on a machine without QEMU and KVM.
fn fresh_clone() -> TestContext {
    let mut context = TestContext::new();
    let tree = context.tree(VERSION, "mirrored");
    let kconfig = tree.join("fs/Kconfig");
    fs::write(&kconfig, fs::read_to_string(&kconfig).unwrap() + SYMBOLS).unwrap();
    let tarball = compress(&tar_of(&tree, &format!("linux-{VERSION}")), "xz");
    let sums = format!("{}  linux-{VERSION}.tar.xz\n", sha256(&tarball));
    let dir = servers::DIR;
    let server = servers::files([
        (format!("{dir}/linux-{VERSION}.tar.xz"), tarball),
        (format!("{dir}/sha256sums.asc"), sums.into_bytes()),
    ]);
    context.env.insert("KCOMPILE_MIRROR".into(), server.url);

    for script in ["quickstart", "packages"] {
        copy(&Utf8Path::new(ROOT).join("scripts").join(script), &context.path("work/scripts").join(script));
    }
    // The configs of the catalog name symbols that the miniature kernel does not have.
    let config = context.path("work/configs/firecracker/linux-x86_64-6.1.config");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(config, format!("{CONFIG}CONFIG_KSM=y\n")).unwrap();
    fs::write(context.path("work/kcompile.toml"), "").unwrap();

    qemu::install(&mut context);
    qemu::set_console(&context, &qemu::good_console().replace("6.1.7", VERSION), "");
    let kcompile = env!("CARGO_BIN_EXE_kcompile");
    for (name, lines) in [
        ("sudo", "exec \"$@\"".to_owned()),
        ("apt-get", "echo \"$@\" >>\"$HOME/apt-get\"".to_owned()),
        ("curl", String::new()),
        ("busybox", String::new()),
        ("cargo", format!("mkdir -p target/release && ln -sf {kcompile} target/release/kcompile")),
    ] {
        write_script(&context.path("fake").join(name), &lines);
    }
    context
}

/// Runs a line in a shell that ran `before`. The shell is on a terminal for an interactive command.
fn run(context: &TestContext, before: &str, line: &str) -> RunResult {
    let template = context.command("");
    let mut shell = if line.contains("--shell") {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{before}{line}"), "/dev/null"]);
        script
    } else {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{before}{line}")]);
        shell
    };
    shell.current_dir(template.get_current_dir().unwrap()).env_clear();
    shell.envs(template.get_envs().filter_map(|(key, value)| Some((key, value?)))).env("SHELL", "/bin/sh");
    run_result(shell.output().unwrap())
}

/// Returns whether the tools for a command are there.
fn can_run(line: &str) -> bool {
    let tools: &[&str] = match line {
        _ if line.contains("--shell") => &["gcc", "script"],
        _ if line.starts_with("kcompile boot") => &["gcc", "mke2fs"],
        _ => &[],
    };
    tools.iter().all(|tool| has_tool(tool))
}

/// What the page says about a command, as a part of its output.
fn expected_text(line: &str) -> &'static str {
    match line.split("  #").next().unwrap_or_default().trim() {
        "kcompile plan 6.1 --fc" => "linux-6.1.*.tar.xz",
        "kcompile 6.1 --fc" => "nothing to do",
        "kcompile boot 6.1 --fc" => "result          passed",
        "kcompile boot 6.1 --fc --shell" => "Ctrl-A X ends the machine",
        "kcompile extract 6.1 --fc" => "vmlinux",
        "kcompile config diff catalog.config out/firecracker-kernel-modules-amd64" => "KSM",
        FAILS => "XFS_FS",
        "kcompile 6.1 --fc --fragment xfs" => "Compile: done in",
        _ => "",
    }
}

#[test]
fn the_commands_of_the_tutorial_work() {
    if std::env::consts::ARCH != "x86_64" {
        return skipped("the tutorial is for an x86-64 host");
    }
    let context = fresh_clone();
    let mut exports = String::new();
    let (mut failed, mut checked) = (0, 0);
    for line in commands() {
        if !can_run(&line) {
            continue;
        }
        if line.contains("--shell") {
            qemu::set_console(&context, "", "");
        }
        let ran = run(&context, &exports, &line);
        let expected = if line == FAILS { 1 } else { 0 };
        assert_eq!(ran.code, expected, "{line}\n{}{}", ran.stdout, ran.stderr);
        failed += expected;
        let text = expected_text(&line);
        checked += usize::from(!text.is_empty());
        assert!(
            ran.stdout.contains(text) || ran.stderr.contains(text),
            "{line}: no `{text}`\n{}{}",
            ran.stdout,
            ran.stderr
        );
        if line.starts_with("export ") {
            exports += &format!("{line}\n");
        }
    }
    assert!(!exports.is_empty() && failed == 1 && checked >= 5, "{exports}{failed} {checked}");
    assert!(!context.path("work/out").exists() && context.names("cache/trees").is_empty());
    let installed = fs::read_to_string(context.path("home/apt-get")).unwrap();
    assert!(installed.contains("qemu-system-x86") && installed.contains("busybox-static"), "{installed}");
}
