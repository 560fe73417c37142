//! Limits what the kernel's build scripts can reach. bubblewrap (`bwrap`) runs make in namespaces
//! of its own, without capabilities, network and terminal. Make sees the system's programs, the
//! source and the files that the config names read-only, and writes to the build directory and
//! private directories. Images are the same with and without it.

mod files;

use crate::host::process::{self, CommandLine};
use crate::host::{Host, bubblewrap};
use crate::kbuild::launcher::Tool;
use crate::kconfig::file_settings;
use crate::plan::{self, Plan};
use crate::source::Tree;
use crate::util::error::{Error, Result};
use crate::util::fs::create_dir;
use camino::Utf8Path;
use serde::Serialize;
use std::collections::BTreeMap;

/// `--sandbox`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SandboxMode {
    /// Use a sandbox if the host allows it; otherwise print a note
    #[default]
    Auto,
    /// Fail if the host does not allow a sandbox
    On,
    /// Do not use a sandbox
    Off,
}

/// What the sandbox isolated, for the receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SandboxReport {
    #[serde(rename = "asked")]
    pub mode: SandboxMode,
    /// `none` or `host`.
    pub network: &'static str,
    /// `read-only`, or `writable` as its file modes allow.
    pub source: &'static str,
    /// `private` or `user`.
    pub home: &'static str,
    /// `listed` for the files that the sandbox binds, or `all` that the user may read.
    pub files: &'static str,
    /// `own` if no other processes are visible, or `host`.
    pub processes: &'static str,
    /// `none` or `user`.
    pub capabilities: &'static str,
    /// Why there is no sandbox.
    pub why: Option<String>,
}

impl SandboxReport {
    const NONE: SandboxReport = SandboxReport {
        mode: SandboxMode::Off,
        network: "host",
        source: "writable",
        home: "user",
        files: "all",
        processes: "host",
        capabilities: "user",
        why: None,
    };

    /// Returns whether this satisfies `--sandbox on`.
    pub fn is_complete(&self) -> bool {
        self.network == "none"
    }
}

/// The directories that make needs.
#[derive(Clone, Copy)]
pub struct SandboxPaths<'a> {
    pub plan: &'a Plan,
    pub tree: &'a Tree,
    pub build: &'a Utf8Path,
    /// An empty directory for HOME, TMPDIR and installed modules.
    pub private_dir: &'a Utf8Path,
    /// The directory of a module outside the tree.
    pub module_dir: Option<&'a Utf8Path>,
}

/// A sandbox, or none.
#[derive(Debug)]
pub struct Sandbox {
    pub report: SandboxReport,
    /// The command that runs a program in the sandbox.
    argv: Vec<String>,
    /// The environment in the sandbox.
    env: BTreeMap<String, String>,
}

impl Sandbox {
    /// Returns a sandbox that isolates nothing.
    pub fn none(host: &Host) -> Sandbox {
        Sandbox { report: SandboxReport::NONE, argv: Vec::new(), env: host.child_env.clone() }
    }

    /// Returns the sandbox for `--sandbox`.
    ///
    /// # Errors
    ///
    /// With `--sandbox on`, the host allows no sandbox (exit code 4), or the launcher or the
    /// signing key does not work in one (2).
    pub fn find(mode: SandboxMode, paths: SandboxPaths<'_>, host: &Host) -> Result<Sandbox> {
        let Sandbox { mut report, mut argv, mut env } = Sandbox::none(host);
        if mode == SandboxMode::Off {
            return Ok(Sandbox { report, argv, env });
        }
        report.mode = mode;
        let tmp = paths.private_dir.join("tmp");
        create_dir(&tmp)?;
        env.insert("TMPDIR".into(), tmp.into_string());
        if let Some(root) = &host.tool_root {
            env = root.env(env);
            let tree = ("the source", &*paths.tree.path);
            for (what, path) in [tree, ("the build directory", paths.build)] {
                root.check_uncovered(what, path)?;
            }
        }
        // Launchers keep caches and settings in the user's home directory.
        if paths.plan.toolchain.launcher.is_none() {
            let home = paths.private_dir.join("home");
            create_dir(&home)?;
            env.insert("HOME".into(), home.into_string());
            report.home = "private";
        }
        let prefix = match sandbox_obstacle(paths.plan, host) {
            None => files::arguments(paths, &env, host)
                .and_then(|files| bubblewrap::find_command(&files, paths.build, &env, host)),
            Some(why) => Err(Error::usage(why).hint("use --sandbox auto to build without a sandbox")),
        };
        process::check()?;
        match prefix {
            Ok(found) => {
                argv = found;
                report = SandboxReport {
                    network: "none",
                    source: "read-only",
                    home: "private",
                    files: "listed",
                    processes: "own",
                    capabilities: "none",
                    ..report
                };
            }
            Err(error) if mode == SandboxMode::On => return Err(error.with_prefix("--sandbox on")),
            Err(error) => report.why = Some(error.to_string()),
        }
        Ok(Sandbox { report, argv, env })
    }

    /// Returns whether the sandbox shows the owners of files. A user namespace only has one user.
    pub fn keeps_owners(&self) -> bool {
        !self.argv.iter().any(|word| word == bubblewrap::USER_NAMESPACE)
    }

    /// Returns the environment in the sandbox.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Returns the command line that runs `command` in the sandbox.
    pub fn wrap(&self, command: &CommandLine) -> CommandLine {
        let mut argv = self.argv.iter().chain([&command.program]).chain(&command.args).cloned();
        let program = argv.next().expect("at least the program itself");
        CommandLine { program, args: argv.collect(), env: command.env.clone(), cwd: command.cwd.clone() }
    }
}

/// Returns why the plan does not work in a sandbox.
fn sandbox_obstacle(plan: &Plan, host: &Host) -> Option<String> {
    // With this variable ccache uses a server too.
    let asks_others = host.launcher_env.contains_key("CCACHE_REMOTE_STORAGE");
    let launcher = plan.toolchain.launcher.as_deref();
    if let Some(launcher) = launcher.filter(|launcher| asks_others || !works_alone(launcher)) {
        return Some(format!("{launcher} works through the network"));
    }
    let key = plan::requested_config(plan).text("MODULE_SIG_KEY").unwrap_or_default();
    file_settings::is_in_token(&key)
        .then(|| "the key of CONFIG_MODULE_SIG_KEY is in a PKCS#11 token".to_owned())
}

/// Returns whether the launcher works without a network. ccache uses its own directory. All others
/// use other machines, or a server on this one.
fn works_alone(launcher: &str) -> bool {
    Tool::of(launcher) == Some(Tool::Ccache)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ccache_works_without_a_network() {
        assert!(works_alone("ccache") && works_alone("/usr/bin/ccache -x"));
        assert!(!works_alone("distcc") && !works_alone("icecc") && !works_alone("sccache"));
        assert!(!works_alone("env CCACHE_PREFIX=distcc ccache"));
    }

    #[test]
    fn the_command_follows_the_arguments_of_the_sandbox() {
        let argv = ["bwrap", "--"].map(str::to_owned).to_vec();
        let sandbox = Sandbox { report: SandboxReport::NONE, argv, env: BTreeMap::new() };
        let make = CommandLine {
            program: "make".into(),
            args: vec!["-j2".into()],
            env: BTreeMap::new(),
            cwd: "/o".into(),
        };
        assert_eq!(sandbox.wrap(&make).to_string(), "bwrap -- make -j2");
        let none = Sandbox { argv: Vec::new(), ..sandbox };
        assert_eq!(none.wrap(&make).to_string(), "make -j2");
    }
}
