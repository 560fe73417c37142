//! Launchers before the compiler, which are compiler caches (ccache, sccache) and compile farms
//! (distcc, icecc). Sets their environment so that they do not affect the output, reads their
//! statistics and finds out how many jobs a farm takes.

mod farm;
mod stats;

pub use farm::{Farm, probe};

use crate::host::{Host, process};
use crate::plan::Toolchain;
use crate::report::CompilerCacheStats;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::fs::{make_executable, remove_tree, write_atomically};
use crate::util::read::{Links, read_text};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;

/// ccache's log of this run, in the build directory.
const CCACHE_LOG: &str = "kcompile-ccache.log";
/// The script that runs sccache.
const WRAPPER: &str = "kcompile-sccache";
/// The limit of ccache's log. 30,000 calls take 5 MB.
const MAX_STATS: u64 = 32 << 20;

/// A launcher that kcompile knows. Any other command is put before the compiler unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Ccache,
    Sccache,
    Distcc,
    Icecc,
}

/// The arguments of sccache that print its statistics.
const SHOW_STATS: [&str; 3] = ["--show-stats", "--stats-format", "json"];
/// An sccache server that kcompile started ends after this time without work.
const SERVER_IDLE_SECONDS: &str = "60";

/// `--launcher`, for one build directory.
pub struct Launcher<'a> {
    command: &'a str,
    tool: Option<Tool>,
    /// The compiler and its assembler.
    toolchain: &'a Toolchain,
    build: &'a Utf8Path,
    network: Network,
}

/// Whether a compiler cache may use other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// As configured by the user.
    Allowed,
    /// `--offline`.
    Forbidden,
}

impl Tool {
    /// Returns the launcher that `command` runs, by the name of its program.
    pub fn of(command: &str) -> Option<Tool> {
        let program = shlex::split(command)?.into_iter().next()?;
        match Utf8Path::new(&program).file_name()? {
            "ccache" => Some(Tool::Ccache),
            "sccache" => Some(Tool::Sccache),
            "distcc" => Some(Tool::Distcc),
            "icecc" => Some(Tool::Icecc),
            _ => None,
        }
    }

    /// Returns whether the launcher uses other machines, or a server that may.
    pub fn is_remote(self) -> bool {
        self != Tool::Ccache
    }

    pub fn name(self) -> &'static str {
        match self {
            Tool::Ccache => "ccache",
            Tool::Sccache => "sccache",
            Tool::Distcc => "distcc",
            Tool::Icecc => "icecc",
        }
    }
}

impl<'a> Launcher<'a> {
    /// Returns the toolchain's launcher for the compilers of `build`.
    pub fn of(toolchain: &'a Toolchain, build: &'a Utf8Path) -> Option<Launcher<'a>> {
        let command = toolchain.launcher.as_deref()?;
        Some(Launcher { command, tool: Tool::of(command), toolchain, build, network: Network::Allowed })
    }

    /// Returns the same launcher with other access to the network.
    pub fn with_network(self, network: Network) -> Launcher<'a> {
        Launcher { network, ..self }
    }

    /// Returns what to put before the compiler's command. It never changes, since make compiles
    /// everything again if a command changes.
    pub fn command_prefix(&self) -> String {
        match self.tool {
            Some(Tool::Sccache) => self.wrapper().into_string(),
            _ => self.command.to_owned(),
        }
    }

    /// Prepares a run of make. Returns the cache's statistics so far if they cover all its uses.
    pub fn prepare(&self, host: &Host) -> Result<Option<CompilerCacheStats>> {
        match self.tool {
            Some(Tool::Ccache) => remove_tree(&self.log()).map(|()| None),
            Some(Tool::Sccache) => {
                write_atomically(&self.wrapper(), wrapper(self.command).as_bytes())?;
                make_executable(&self.wrapper())?;
                self.start_sccache(host)?;
                Ok(self.sccache_stats(host))
            }
            _ => Ok(None),
        }
    }

    /// Returns the environment of make, which is `base` with the launcher's variables.
    pub fn environment(
        &self,
        base: &BTreeMap<String, String>,
        host: &Host,
        farm: Option<&Farm>,
    ) -> BTreeMap<String, String> {
        let mut env = base.clone();
        env.extend(host.launcher_env.clone());
        env.extend(farm.and_then(Farm::environment));
        // Neither cache checks the assembler. With another one, old objects would be returned.
        let Toolchain { identity, programs, .. } = self.toolchain.for_compiling();
        let mut tools = serde_json::to_string(&identity).expect("plain strings");
        programs.iter().for_each(|(tool, sha256)| tools.push_str(&format!(" {tool} {sha256}")));
        let tools = Sha256::of(tools).short();
        if self.tool == Some(Tool::Ccache) {
            let settings = [
                // Override settings of the user's configuration that may change the output (paths
                // in `__FILE__` and debug information, dates, ignored options and headers, another
                // compiler). A variable overrides a setting even if it is empty.
                ("CCACHE_BASEDIR", ""),
                ("CCACHE_SLOPPINESS", ""),
                ("CCACHE_HASHDIR", "true"),
                ("CCACHE_COMPILERCHECK", "mtime"),
                ("CCACHE_IGNOREOPTIONS", ""),
                ("CCACHE_IGNOREHEADERS", ""),
                ("CCACHE_COMPILER", ""),
                ("CCACHE_PATH", ""),
                ("CCACHE_PREFIX", ""),
                ("CCACHE_PREFIX_CPP", ""),
                ("CCACHE_NAMESPACE", &tools),
                ("CCACHE_STATSLOG", self.log().as_str()),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
            env.extend(settings);
            if self.network == Network::Forbidden {
                env.insert("CCACHE_REMOTE_STORAGE".to_owned(), String::new());
                env.remove("CCACHE_REMOTE_ONLY");
                env.insert("CCACHE_NOREMOTE_ONLY".to_owned(), "true".to_owned());
            }
        }
        if self.tool == Some(Tool::Distcc) {
            // distcc would call gcc by its long name, which the kernel writes into its config.
            env.insert("DISTCC_NO_REWRITE_CROSS".to_owned(), "1".to_owned());
        }
        if self.tool == Some(Tool::Sccache) {
            env.insert("SCCACHE_C_CUSTOM_CACHE_BUSTER".to_owned(), tools);
            env.entry("SCCACHE_IDLE_TIMEOUT".to_owned()).or_insert_with(|| SERVER_IDLE_SECONDS.to_owned());
        }
        env
    }

    /// Returns the cache's statistics since [`prepare`](Self::prepare) returned `before`.
    pub fn stats(&self, before: Option<CompilerCacheStats>, host: &Host) -> Option<CompilerCacheStats> {
        match self.tool {
            Some(Tool::Ccache) => {
                stats::read_log(&read_text(self.log(), Links::RefuseAnywhere, MAX_STATS).ok()?)
            }
            Some(Tool::Sccache) => Some(self.sccache_stats(host)?.since(before?)),
            _ => None,
        }
    }

    /// Starts sccache's server if none runs. A server that a compilation starts would be killed with its make.
    /// This one ends by itself when idle. Only the server gets the variables of its storage. They may have
    /// passwords, and make runs the kernel's scripts.
    fn start_sccache(&self, host: &Host) -> Result<()> {
        let mut env = self.environment(&host.child_env, host, None);
        env.extend(host.cache_storage_env.clone());
        let started = process::output_without_supervisor("sccache", &["--start-server"], &env)?;
        let Some(failed) = started.filter(|output| !output.status.success()) else { return Ok(()) };
        let reason = stats::start_error(&String::from_utf8_lossy(&failed.stderr));
        if !reason.contains("in use") {
            let message = format!("sccache's server does not start: {reason}");
            let hint = "check the variables SCCACHE_* of its storage, or build with --launcher none";
            return Err(Error::host(message).hint(hint));
        }
        // Another server listens on the port, and uses the storage of whoever started it.
        let has_storage = host.cache_storage_env.keys().any(|key| key.starts_with("SCCACHE_"));
        let stats = process::capture("sccache", &SHOW_STATS, &env)?.unwrap_or_default();
        if has_storage && stats::is_local(&stats) {
            let message = "the running sccache server does not use the storage of the variables SCCACHE_*";
            let hint = "stop it with `sccache --stop-server`, or choose another SCCACHE_SERVER_PORT";
            return Err(Error::host(message).hint(hint));
        }
        Ok(())
    }

    fn sccache_stats(&self, host: &Host) -> Option<CompilerCacheStats> {
        let env = self.environment(&host.child_env, host, None);
        stats::read_stats(&process::capture("sccache", &SHOW_STATS, &env).ok()??)
    }

    fn log(&self) -> Utf8PathBuf {
        self.build.join(CCACHE_LOG)
    }

    fn wrapper(&self) -> Utf8PathBuf {
        self.build.join(WRAPPER)
    }
}

/// Returns a script that compiles sources with `.incbin` without sccache. sccache does not track
/// files that are included by `.incbin` (mozilla/sccache#2795), so the config or a key inside the
/// kernel would be that of another build.
fn wrapper(command: &str) -> String {
    format!(
        "#!/bin/sh\n\
         # Written by kcompile. Compiles sources with .incbin without sccache.\n\
         for word; do\n\
         \tcase $word in *.c | *.S) ! grep -qs '\\.incbin' \"$word\" || exec \"$@\" ;; esac\n\
         done\n\
         exec {command} \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::user_config::KnownLauncher;

    #[test]
    fn a_launcher_is_recognized_by_its_program() {
        assert_eq!(Tool::of("/usr/bin/ccache"), Some(Tool::Ccache));
        assert_eq!(Tool::of("distcc -x"), Some(Tool::Distcc));
        assert_eq!((Tool::of("env"), Tool::of("")), (None, None));
    }

    #[test]
    fn a_launcher_of_a_config_file_is_known() {
        let all =
            [KnownLauncher::Ccache, KnownLauncher::Sccache, KnownLauncher::Distcc, KnownLauncher::Icecc];
        for known in all {
            let program = known.program().unwrap();
            assert_eq!(Tool::of(program).unwrap().name(), program);
        }
    }
}
