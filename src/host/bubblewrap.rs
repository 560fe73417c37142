//! Checks whether bubblewrap can create a sandbox on this host, and suggests what to do if not.

use crate::host::Host;
use crate::host::packages::{Dependency, Diagnosis, Importance, diagnose};
use crate::host::process::{self, CommandLine, SANDBOX};
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::fs;

/// The argument for a user namespace, whose root has no privileges outside of it.
pub const USER_NAMESPACE: &str = "--unshare-user";
const NAMESPACES: [&str; 8] = [
    "--unshare-pid",
    "--unshare-net",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup-try",
    "--die-with-parent",
    // Without this, root keeps all capabilities.
    "--cap-drop",
    "ALL",
];

/// Returns bubblewrap as a recommended dependency.
pub fn dependency() -> Dependency {
    let why = "hides the network and your files from the kernel's build scripts";
    Dependency::program(SANDBOX, why, ["bubblewrap"; 5]).recommended()
}

/// Runs bubblewrap if `diagnosis` has found it, and records there why it fails.
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

/// Returns a command line of bubblewrap that works on this host, up to the program that it runs in `dir`.
/// `files` are the arguments that make files visible.
///
/// # Errors
///
/// bubblewrap is not installed, or the host does not allow the namespaces (exit code 4).
pub fn find_command(
    files: &[String],
    dir: &Utf8Path,
    env: &BTreeMap<String, String>,
    host: &Host,
) -> Result<Vec<String>> {
    diagnose(vec![Dependency { importance: Importance::Required, ..dependency() }], "gcc", host)?
        .require()?;
    // The PATH of `env` may be that of a toolchain.
    let program = host.find_program(SANDBOX).map_or(SANDBOX.to_owned(), Utf8PathBuf::into_string);
    // Root needs no user namespace, if the host forbids them.
    let attempts: &[&[&str]] = if host.root { &[&[USER_NAMESPACE], &[]] } else { &[&[USER_NAMESPACE]] };
    let mut failed = None;
    for namespaces in attempts {
        let argv = namespaces.iter().copied().chain(NAMESPACES).chain(["--chdir", dir.as_str()]);
        let argv = argv.map(str::to_owned).chain(files.iter().cloned()).chain(["--".to_owned()]);
        let mut args: Vec<String> = argv.collect();
        let probe = CommandLine {
            program: program.clone(),
            args: args.iter().cloned().chain(["true".to_owned()]).collect(),
            env: env.clone(),
            cwd: dir.to_owned(),
        };
        let output = process::output(&probe)?;
        if output.status.success() {
            args.insert(0, program);
            return Ok(args);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = stderr.lines().next().unwrap_or("bwrap failed and printed nothing").trim();
        failed.get_or_insert_with(|| Error::host(stderr).hint(remedy(stderr)));
    }
    Err(failed.expect("there is at least one attempt"))
}

/// Returns the hint for an error message of bubblewrap.
fn remedy(why: &str) -> &'static str {
    let is = |setting: &str, value: &str| {
        fs::read_to_string(Utf8Path::new("/proc/sys").join(setting)).is_ok_and(|text| text.trim() == value)
    };
    if why.contains("mount proc") {
        "allow the container to mount /proc; with Docker, use --security-opt systempaths=unconfined \
         --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor forbids user namespaces: sudo apt-get install apparmor-profiles && sudo cp \
         /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ && sudo apparmor_parser -r \
         /etc/apparmor.d/bwrap-userns-restrict"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("user/max_user_namespaces", "0") {
        "sudo sysctl -w user.max_user_namespaces=15000"
    } else {
        "allow this user to create user namespaces; with Docker, use --security-opt seccomp=unconfined \
         --security-opt apparmor=unconfined"
    }
}
