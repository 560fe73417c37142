//! Whether this host lets bubblewrap make a sandbox, and what to do where it does not.

use crate::host::Host;
use crate::host::packages::{Dependency, Diagnosis, Importance, diagnose};
use crate::host::process::{self, CommandLine, SANDBOX};
use crate::util::error::{Error, Result};
use camino::Utf8Path;
use std::collections::BTreeMap;
use std::fs;

/// The argument for a user namespace of its own, in which root is none outside of it.
pub const USER_NAMESPACE: &str = "--unshare-user";
const NAMESPACES: [&str; 8] = [
    "--unshare-pid",
    "--unshare-net",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--die-with-parent",
    // Root keeps all capabilities without this.
    "--cap-drop",
    "ALL",
];

/// What bubblewrap is, for a list of needs.
pub fn dependency() -> Dependency {
    let why = "keeps the kernel's build scripts from the network and from your files";
    Dependency::program(SANDBOX, why, ["bubblewrap"; 5]).recommended()
}

/// Tries bubblewrap out where `diagnosis` has found it, and notes there why it does not work.
pub fn check_sandbox(diagnosis: &mut Diagnosis, host: &Host) {
    let files = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"].map(str::to_owned);
    let bwrap = diagnosis
        .dependencies
        .iter_mut()
        .find(|dependency| dependency.name == SANDBOX && dependency.found.is_some());
    if let Some(bwrap) = bwrap
        && let Err(error) = find_command(&files, Utf8Path::new("/"), &host.child_env, host)
    {
        bwrap.found = None;
        bwrap.why = format!("{error}\n{:29}{}", "", error.hint_text().unwrap_or_default());
    }
}

/// The command line of bubblewrap up to the program that it runs in `dir`: with namespaces of its own, and with the
/// files that `files` shows. It has been tried out.
///
/// # Errors
///
/// bubblewrap is not installed, or the host does not let it make the namespaces (exit code 4).
pub fn find_command(
    files: &[String],
    dir: &Utf8Path,
    env: &BTreeMap<String, String>,
    host: &Host,
) -> Result<Vec<String>> {
    diagnose(vec![Dependency { importance: Importance::Required, ..dependency() }], "gcc", host).require()?;
    // Root may do without a user namespace where the host forbids them.
    let attempts: &[&[&str]] = if host.root { &[&[USER_NAMESPACE], &[]] } else { &[&[USER_NAMESPACE]] };
    let mut failed = None;
    for namespaces in attempts {
        let argv = namespaces.iter().copied().chain(NAMESPACES).chain(["--chdir", dir.as_str()]);
        let argv = argv.map(str::to_owned).chain(files.iter().cloned()).chain(["--".to_owned()]);
        let mut args: Vec<String> = argv.collect();
        let probe = CommandLine {
            program: SANDBOX.to_owned(),
            args: args.iter().cloned().chain(["true".to_owned()]).collect(),
            env: env.clone(),
            cwd: dir.to_owned(),
        };
        let output = process::output(&probe)?;
        if output.status.success() {
            args.insert(0, SANDBOX.to_owned());
            return Ok(args);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = stderr.lines().next().unwrap_or("bwrap failed and printed nothing").trim();
        failed.get_or_insert_with(|| Error::host(stderr).hint(remedy(stderr)));
    }
    Err(failed.expect("there is at least one way"))
}

/// What makes the sandbox possible where bubblewrap says `why`.
fn remedy(why: &str) -> &'static str {
    let is = |setting: &str, value: &str| {
        fs::read_to_string(Utf8Path::new("/proc/sys").join(setting)).is_ok_and(|text| text.trim() == value)
    };
    if why.contains("mount proc") {
        "in a container, mounting /proc must be allowed: with Docker, --security-opt systempaths=unconfined \
         --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor forbids it: sudo apt-get install apparmor-profiles && sudo cp \
         /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ && sudo apparmor_parser -r \
         /etc/apparmor.d/bwrap-userns-restrict"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("user/max_user_namespaces", "0") {
        "sudo sysctl -w user.max_user_namespaces=15000"
    } else {
        "this user must be allowed to make user namespaces: with Docker, --security-opt seccomp=unconfined \
         --security-opt apparmor=unconfined"
    }
}
