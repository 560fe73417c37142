//! Golden files of text for people, which are `--help` and the output of commands.

use crate::support::context::{TestContext, has_tool};
use crate::support::golden::{compare, context, section};
use crate::support::normalize::{masked, plain};
use crate::support::qemu;
use std::fs;

/// Returns standard output, standard error and a nonzero exit code of a command.
fn read(context: &TestContext, args: &str) -> String {
    let ran = context.run(args);
    let heading = if ran.code == 0 { args.to_owned() } else { format!("{args} (exit code {})", ran.code) };
    let parts = [("", &ran.stdout), ("-- standard error\n", &ran.stderr)];
    let told = parts.into_iter().filter(|(_, text)| !text.is_empty());
    section(&heading, &told.map(|(name, text)| format!("{name}{}", plain(context, text))).collect::<String>())
}

/// Adds the help of a command and of all commands below it.
fn help(context: &TestContext, command: &str, text: &mut String) {
    let args = format!("{command} --help").trim_start().to_owned();
    let told = context.run(&args).ok().stdout;
    text.push_str(&section(&args, &told));
    let commands =
        told.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A name is indented by two spaces, and continued descriptions by more.
    for name in commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()) {
        if !name.is_empty() && name != "help" {
            help(context, format!("{command} {name}").trim_start(), text);
        }
    }
}

#[test]
fn the_help_of_every_command() {
    let mut text = String::new();
    help(&TestContext::new(), "", &mut text);
    assert!(text.matches("--help\n").count() > 20, "{text}");
    compare("text/help.txt", &text);
}

#[test]
fn plans_the_catalog_and_configs() {
    let Some(context) = context() else { return };
    fs::write(context.path("work/a"), "CONFIG_NF_NAT_IPV4=m\nCONFIG_A=y\nCONFIG_B=m\n").unwrap();
    fs::write(context.path("work/b"), "CONFIG_NF_NAT=m\nCONFIG_B=y\nCONFIG_C=\"c\"\n").unwrap();
    let show = "--fc --arch amd64 --source linux-6.1.7.tar.gz --config odd.config";
    let text = [
        "list",
        "plan 6.1.7 --fc --arch amd64 --config mini.config",
        "plan 6.5 --ch --arch arm64 --config mini.config --cross-compile x- --set KSM=y --combined-image",
        "plan 5.10.77 --fc --arch amd64 --source linux --config mini.config --patches patches --fragment some.config",
        "check mini.config --for firecracker --arch amd64 --kernel 6.1.7",
        "check a --for firecracker,docker --arch amd64 --kernel 6.1.7",
        "check 6.1 --fc --arch amd64 --all",
        "config diff a b",
        &format!("config show 6.1.7 {show} --minimal --progress quiet"),
        "doctor 6.1.7 --arch amd64",
    ]
    .map(|args| match args {
        // Whether a series has ended depends on the date.
        "list" => read(&context, args).replace("!  ", "   "),
        _ if args.starts_with("doctor 6") => doctor(&context, args),
        _ => read(&context, args),
    });
    compare("text/plan.txt", &text.concat());
}

/// Versions and missing tools depend on the host.
fn doctor(context: &TestContext, args: &str) -> String {
    let told = plain(context, &context.run(args).stdout);
    let finding = |line: &str| match line.trim_start().split_once("  ") {
        Some((state, rest)) if ["ok", "MISSING"].contains(&state) => {
            format!("  *  {}", rest.trim_start().split("  ").next().unwrap_or_default())
        }
        _ => line.to_owned(),
    };
    section(args, &told.lines().map(|line| finding(line) + "\n").collect::<String>())
}

#[test]
fn builds_and_images() {
    let Some(context) = context() else { return };
    let build = "6.1.7 --fc --arch amd64 --config mini.config --sandbox off --progress plain -j1";
    let mut text = read(&context, build);
    text.push_str(&read(&context, build));
    text.push_str(&read(&context, &format!("{build} --set PSI=y --require none -o other --timings")));
    // The lines of two kernels come in any order. Only the end is always the same.
    let two = context.run("6.1.7 6.6.61 --fc --arch amd64 --config mini.config --sandbox off -o two");
    let end = two.stderr.find("  1 of 2 kernels").unwrap_or_else(|| panic!("{}", two.stderr));
    text.push_str(&section("the end of a run of two kernels", &plain(&context, &two.stderr[end..])));
    let bin = "out/firecracker-kernel-bin-amd64";
    let modules = "out/firecracker-kernel-modules-amd64";
    for args in [
        format!("inspect {bin} {modules}"),
        format!("inspect {bin} --as flintlock"),
        format!("verify {bin} {modules}"),
        format!("verify {bin} --max-bin-size 1k"),
        format!("diff {modules} {modules}"),
        format!("diff {bin} other/firecracker-kernel-bin-amd64"),
        format!("check {modules} --for firecracker"),
        "push --dry-run registry.example/x".to_owned(),
        "fetch 6.1.7 --fc --offline --bundle all.tar --progress plain".to_owned(),
        "fetch 6.1.7 --fc --offline --progress plain".to_owned(),
        "cache check".to_owned(),
    ] {
        text.push_str(&read(&context, &args));
    }
    compare("text/build.txt", &masked(&text, "built   from ", |c| c != '\n'));
}

#[test]
fn kernels_that_are_added_and_booted() {
    if !has_tool("gcc") || !has_tool("mke2fs") {
        return;
    }
    let Some(mut context) = context() else { return };
    fs::create_dir_all(context.path("work/own/firecracker")).unwrap();
    fs::copy(context.path("work/mini.config"), context.path("work/own/firecracker/linux-x86_64-6.1.config"))
        .unwrap();
    let mut text = read(&context, "add 6.6.60 --fc --arch amd64 --from 6.1 --configs own --progress plain");
    context.run("6.1.7 --fc --arch amd64 --config mini.config --progress quiet").ok();
    qemu::install(&mut context);
    text.push_str(&read(&context, "boot 6.1.7 --fc --accel tcg --progress plain"));
    let panic =
        "[    0.0] Linux version 6.1.7\n[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n";
    qemu::set_console(&context, panic, "");
    text.push_str(&read(&context, "boot 6.1.7 --fc --accel tcg --progress plain"));
    compare("text/add-and-boot.txt", &text);
}
