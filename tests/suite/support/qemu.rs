//! A script that replaces QEMU and prints consoles.

use crate::support::context::TestContext;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const CHECKS: [&str; 11] = [
    "block eth0",
    "network eth0",
    "vsock device",
    "config",
    "cgroup2 cpu memory",
    "overlay",
    "veth",
    "bridge",
    "nftables",
    "iptables",
    "namespaces",
];

/// Installs the script as QEMU, with the console of a good boot.
pub(crate) fn install(context: &mut TestContext) {
    let script =
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$HOME/args\"\ncat \"$HOME/console\"\n. \"$HOME/then\"\n";
    fs::create_dir(context.path("fake")).unwrap();
    fs::write(context.path("fake/qemu-system-x86_64"), script).unwrap();
    fs::set_permissions(context.path("fake/qemu-system-x86_64"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = context.env.get("PATH").map_or_else(|| std::env::var("PATH").unwrap(), Clone::clone);
    context.env.insert("PATH".into(), format!("{}:{path}", context.path("fake")));
    set_console(context, &good_console(), "");
}

/// Sets what the machine prints and what the script does then.
pub(crate) fn set_console(context: &TestContext, console: &str, then: &str) {
    fs::write(context.path("home/console"), console).unwrap();
    fs::write(context.path("home/then"), then).unwrap();
}

/// Returns the console of a good boot.
pub(crate) fn good_console() -> String {
    let loads = (0..4).map(|n| format!("[    2.0] kcompile: load {n} x\n[    2.0] kcompile: loaded {n} 0\n"));
    let checks = CHECKS.map(|check| {
        let (name, found) = check.split_once(' ').unwrap_or((check, ""));
        format!("[    3.0] kcompile: check {name} 0 {found}\n")
    });
    format!(
        "[    0.0] Linux version 6.1.7\n[    1.25] kcompile: init\n[    1.25] kcompile: release 6.1.7\n{}{}\
         [    4.0] kcompile: end\n",
        loads.collect::<String>(),
        checks.concat()
    )
}
