//! The commands at the end of a build work when they are pasted into a shell.

use crate::support::context::{TestContext, has_tool, run_result};
use crate::support::terminal::on_terminal_of;
use crate::support::{qemu, registry};
use camino::Utf8Path;
use std::fs;
use std::process::Command;

const BUILD: &str = "6.1.7 --arch amd64 --source linux --config mini.config --sandbox off";

/// Returns a context with a script instead of QEMU, in whose `PATH` kcompile is.
fn context() -> Option<TestContext> {
    if !has_tool("gcc") || !has_tool("mke2fs") {
        return None;
    }
    let mut context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    qemu::install(&mut context);
    let bin = Utf8Path::new(env!("CARGO_BIN_EXE_kcompile")).parent().unwrap();
    let path = format!("{bin}:{}", context.env["PATH"]);
    context.env.insert("PATH".into(), path);
    Some(context)
}

/// Returns the commands below `next:`.
fn next_commands(text: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| line.trim_end() != "  next:").skip(1);
    lines.map_while(|line| line.strip_prefix("    ")).map(|line| line.trim_end().to_owned()).collect()
}

/// Runs a line in a shell. Returns its standard output.
#[track_caller]
fn paste(context: &TestContext, line: &str) -> String {
    let template = context.command("");
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(template.get_current_dir().unwrap()).env_clear();
    shell.envs(template.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let ran = run_result(shell.output().unwrap());
    assert_eq!(ran.code, 0, "{line}\n{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

#[test]
fn a_build_ends_with_commands_that_boot_extract_and_publish_it() {
    let Some(context) = context() else { return };
    for (options, output, tag) in [
        ("--fc", "out", "6.1.7"),
        ("--fc --builtin", "out", "6.1.7-builtin"),
        ("--ch", "out", "6.1.7"),
        ("--fc --combined-image", "it's $HOME/of mine", "6.1.7"),
    ] {
        let mut build = context.command(&format!("{BUILD} {options} -q"));
        run_result(build.args(["-o", output]).output().unwrap()).ok();
        let mut build = context.command(&format!("{BUILD} {options}"));
        let again = run_result(build.args(["-o", output]).output().unwrap()).ok();
        let commands = next_commands(&again.stderr);
        let [boot, extract, publish @ ..] = &commands[..] else { panic!("{}", again.stderr) };
        assert!(boot.contains("boot") && extract.contains("extract"), "{commands:?}");
        let booted = paste(&context, boot);
        assert!(
            booted.contains(&format!(":{tag}\n")) && booted.contains("result          passed"),
            "{booted}"
        );
        let file = paste(&context, extract);
        let kernel = fs::read(context.path(&format!("work/{}", file.trim()))).unwrap();
        assert!(kernel.starts_with(b"\x7fELF"), "{file}");
        fs::remove_file(context.path(&format!("work/{}", file.trim()))).unwrap();
        assert_eq!(publish.len(), again.stdout.lines().count(), "{publish:?}");
        if !has_tool("skopeo") {
            continue;
        }
        for copy in publish {
            let copy = copy.replace("skopeo copy", "skopeo --insecure-policy copy");
            paste(&context, &copy.replace("docker://REGISTRY/", "oci:copied-"));
        }
    }
}

#[test]
fn a_build_on_a_terminal_ends_with_the_push_of_all_images() {
    let Some(mut context) = context() else { return };
    for (key, value) in [("TERM", "xterm"), ("LANG", "C.UTF-8")] {
        context.env.insert(key.into(), value.into());
    }
    let Some(ran) = on_terminal_of(&context, 80, &format!("{BUILD} --fc -o other")) else { return };
    let commands = next_commands(&ran.ok().stdout);
    let [boot, extract, push] = &commands[..] else { panic!("{commands:?}") };
    assert!(paste(&context, boot).contains("result          passed"));
    assert_eq!(paste(&context, extract), "vmlinux\n");
    assert_eq!(push, "kcompile push REGISTRY/PREFIX -o other");
    if has_tool("skopeo") {
        let registry = registry::honest();
        let target = format!("{}/test", registry.host());
        let push = push.replace("REGISTRY/PREFIX", &target) + " --tls-verify=false --no-attest";
        paste(&context, &push);
        assert!(registry.digest("test/firecracker-kernel-bin-amd64", "6.1.7").is_some());
    }
}
