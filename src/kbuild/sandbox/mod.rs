//! What the kernel's own build scripts can reach: bubblewrap (`bwrap`) runs make in namespaces of its own, without
//! capabilities, network and terminal. It sees the system's programs, the source and what the config names, all
//! read-only, and can write into the build directory and its private directories. Images are the same with and without it.

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
    /// A sandbox where the host allows it; a note says why there is none
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// A sandbox, or an error
    #[serde(rename = "on")]
    On,
    /// No sandbox
    #[serde(rename = "off")]
    Off,
}

/// Which walls stood, for the receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SandboxReport {
    /// What was asked for.
    #[serde(rename = "asked")]
    pub mode: SandboxMode,
    /// `none`, or the `host`'s.
    pub network: &'static str,
    /// `read-only`, or `writable` as far as its modes let the user.
    pub source: &'static str,
    /// `private`, or the `user`'s own.
    pub home: &'static str,
    /// `listed`: the system's programs, the source and what the config names; or `all` that the user may read.
    pub files: &'static str,
    /// `own`: no other processes are visible; or the `host`'s.
    pub processes: &'static str,
    /// `none`, or the `user`'s.
    pub capabilities: &'static str,
    /// Why there is no sandbox.
    #[serde(rename = "why")]
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

    /// Does it satisfy `--sandbox on`?
    pub fn is_complete(&self) -> bool {
        self.network == "none"
    }
}

/// What make works on.
#[derive(Clone, Copy)]
pub struct SandboxPaths<'a> {
    pub plan: &'a Plan,
    pub tree: &'a Tree,
    /// The build directory.
    pub build: &'a Utf8Path,
    /// An empty directory: HOME and TMPDIR lie in it, and modules are installed there.
    pub private_dir: &'a Utf8Path,
}

/// A sandbox that is there to be used.
#[derive(Debug)]
pub struct Sandbox {
    /// Which walls it has.
    pub confinement: SandboxReport,
    /// What stands before the program.
    argv: Vec<String>,
    /// The environment in it.
    env: BTreeMap<String, String>,
}

impl Sandbox {
    /// None at all.
    pub fn none(host: &Host) -> Sandbox {
        Sandbox { confinement: SandboxReport::NONE, argv: Vec::new(), env: host.child_env.clone() }
    }

    /// Makes the sandbox that `choice` asks for.
    ///
    /// # Errors
    ///
    /// `--sandbox on` cannot be had: this host does not allow it (exit code 4), or the launcher or the signing key
    /// needs what it keeps away (2).
    pub fn find(mode: SandboxMode, paths: SandboxPaths<'_>, host: &Host) -> Result<Sandbox> {
        let Sandbox { mut confinement, mut argv, mut env } = Sandbox::none(host);
        if mode == SandboxMode::Off {
            return Ok(Sandbox { confinement, argv, env });
        }
        confinement.mode = mode;
        let tmp = paths.private_dir.join("tmp");
        create_dir(&tmp)?;
        env.insert("TMPDIR".into(), tmp.into_string());
        // A launcher keeps what it has compiled, and its settings, in the user's home directory.
        if paths.plan.toolchain.launcher.is_none() {
            let home = paths.private_dir.join("home");
            create_dir(&home)?;
            env.insert("HOME".into(), home.into_string());
            confinement.home = "private";
        }
        let prefix = match sandbox_obstacle(paths.plan, host) {
            None => files::arguments(paths, &env, host)
                .and_then(|files| bubblewrap::find_command(&files, paths.build, &env, host)),
            Some(why) => Err(Error::usage(why).hint("--sandbox auto does without the sandbox here")),
        };
        process::check()?;
        match prefix {
            Ok(found) => {
                argv = found;
                confinement = SandboxReport {
                    network: "none",
                    source: "read-only",
                    home: "private",
                    files: "listed",
                    processes: "own",
                    capabilities: "none",
                    ..confinement
                };
            }
            Err(error) if mode == SandboxMode::On => return Err(error.with_prefix("--sandbox on")),
            Err(error) => confinement.why = Some(error.to_string()),
        }
        Ok(Sandbox { confinement, argv, env })
    }

    /// Are there other users in it? In a user namespace there is only its own.
    pub fn keeps_owners(&self) -> bool {
        !self.argv.iter().any(|word| word == bubblewrap::USER_NAMESPACE)
    }

    /// The environment in it: what make may see of ours.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The command line that runs `command` in it.
    pub fn wrap(&self, command: &CommandLine) -> CommandLine {
        let mut argv = self.argv.iter().chain([&command.program]).chain(&command.args).cloned();
        let program = argv.next().expect("at least the program itself");
        CommandLine { program, args: argv.collect(), env: command.env.clone(), cwd: command.cwd.clone() }
    }
}

/// What of the plan needs something that the sandbox keeps away.
fn sandbox_obstacle(plan: &Plan, host: &Host) -> Option<String> {
    // ccache may be told to ask a server, too.
    let asks_others = host.launcher_env.contains_key("CCACHE_REMOTE_STORAGE");
    let launcher = plan.toolchain.launcher.as_deref();
    if let Some(launcher) = launcher.filter(|launcher| asks_others || !works_alone(launcher)) {
        return Some(format!("{launcher} works through the network"));
    }
    let key = plan::requested_config(plan).text("MODULE_SIG_KEY").unwrap_or_default();
    file_settings::is_in_token(&key).then(|| "the key of CONFIG_MODULE_SIG_KEY is in a token".to_owned())
}

/// Does the launcher do without a network? ccache looks into its own directory; all others ask other machines, or a
/// server on this one.
fn works_alone(launcher: &str) -> bool {
    Tool::of(launcher) == Some(Tool::Ccache)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ccache_does_without_a_network() {
        assert!(works_alone("ccache") && works_alone("/usr/bin/ccache -x"));
        assert!(!works_alone("distcc") && !works_alone("icecc") && !works_alone("sccache"));
        assert!(!works_alone("env CCACHE_PREFIX=distcc ccache"));
    }

    #[test]
    fn the_program_stands_after_the_words() {
        let argv = ["bwrap", "--"].map(str::to_owned).to_vec();
        let sandbox = Sandbox { confinement: SandboxReport::NONE, argv, env: BTreeMap::new() };
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
