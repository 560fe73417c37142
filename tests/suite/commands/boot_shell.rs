//! `kcompile boot --shell` opens a console in QEMU. A script replaces QEMU here.

use crate::support::context::{RunResult, TestContext, has_tool, run_result};
use crate::support::qemu;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Keeps the initramfs, and says whether standard input is a terminal.
const QEMU: &str = "for word; do [ \"$last\" = -initrd ] && cp \"$word\" \"$HOME/initramfs\"; last=$word; done\n\
                    [ -t 0 ] && echo on a terminal\n";

fn context() -> TestContext {
    let mut context = TestContext::new();
    qemu::install(&mut context);
    qemu::set_console(&context, "", QEMU);
    let busybox = context.path("fake/busybox");
    fs::write(&busybox, "a static program").unwrap();
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
    context.build("").ok();
    context
}

/// Runs kcompile on a terminal, which `script` provides.
fn run_on_terminal(context: &TestContext, args: &str) -> RunResult {
    let command = context.command(args);
    let mut words = vec![command.get_program()];
    words.extend(command.get_args());
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]).current_dir(context.path("work")).env_clear();
    script.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?)))).env("SHELL", "/bin/sh");
    run_result(script.output().unwrap())
}

#[test]
fn a_shell_has_busybox_and_the_modules() {
    if !has_tool("script") {
        return;
    }
    let context = context();
    let told = run_on_terminal(&context, "boot 6.1 --fc --shell --append quiet");
    assert_eq!(told.code, 0, "{}", told.stdout);
    for text in ["Ctrl-A X ends the machine", "on a terminal"] {
        assert!(told.stdout.contains(text), "`{text}` is not in:\n{}", told.stdout);
    }
    let args = fs::read_to_string(context.path("home/args")).unwrap();
    for text in ["\nmon:stdio\n", "snapshot=on", "user,id=net", " rdinit=/init quiet\n"] {
        assert!(args.contains(text), "`{text}` is not in:\n{args}");
    }
    let initramfs = fs::read(context.path("home/initramfs")).unwrap();
    let initramfs = String::from_utf8_lossy(&initramfs);
    for text in ["bin/busybox\0", "a static program", "setsid cttyhack sh", "lib/modules/6.1.7/modules.dep\0"]
    {
        assert!(initramfs.contains(text), "`{text}` is not in the initramfs");
    }
}

#[test]
fn a_shell_runs_on_the_users_own_root() {
    if !has_tool("script") || !has_tool("mke2fs") {
        return;
    }
    let context = context();
    fs::write(context.path("work/root.ext4"), "").unwrap();
    fs::create_dir_all(context.path("work/root/sbin")).unwrap();
    for root in ["root.ext4", "root"] {
        let told = run_on_terminal(&context, &format!("boot 6.1 --fc --shell --root {root}"));
        assert_eq!(told.code, 0, "{}", told.stdout);
        let args = fs::read_to_string(context.path("home/args")).unwrap();
        assert!(args.contains(" root=/dev/vda rw\n") && !args.contains("-initrd"), "{args}");
        assert_eq!(args.contains("work/root.ext4"), root == "root.ext4", "{args}");
    }
}

#[test]
fn a_shell_says_what_it_cannot_do() {
    let context = context();
    context.run("boot 6.1 --fc --shell").failed(2, &["--shell needs a terminal"]);
    context.run("boot 6.1 --fc --root rootfs.ext4").failed(2, &["--root rootfs.ext4", "needs --shell"]);
    context.run("boot 6.1 --fc --shell --json").failed(2, &["--json"]);
    if !has_tool("script") {
        return;
    }
    let told = run_on_terminal(&context, "boot 6.1 --fc --shell --root nowhere");
    assert!(told.code == 2 && told.stdout.contains("nowhere: no such file or directory"), "{}", told.stdout);
    fs::copy("/bin/true", context.path("fake/busybox")).unwrap();
    let told = run_on_terminal(&context, "boot 6.1 --fc --shell");
    assert!(told.code == 4 && told.stdout.contains("fake/busybox is not static"), "{}", told.stdout);
}
