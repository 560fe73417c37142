//! File systems for tests.

use crate::support::context::skipped;
use std::process::Command;

/// Returns the command that gives a process its own mounts, with or without root.
pub(crate) fn mount_namespace_command() -> Option<Vec<&'static str>> {
    let ways = [vec!["unshare", "--user", "--map-root-user", "--mount"], vec!["unshare", "--mount"]];
    let works = |way: &Vec<&str>| {
        let mount = "mount -t tmpfs tmpfs /mnt";
        Command::new(way[0])
            .args(&way[1..])
            .args(["sh", "-c", mount])
            .output()
            .is_ok_and(|it| it.status.success())
    };
    let way = ways.into_iter().find(works);
    if way.is_none() {
        skipped("no mount namespace: a full disk cannot be had");
    }
    way
}
