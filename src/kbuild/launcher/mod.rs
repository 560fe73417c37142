//! What stands before the compiler: a cache of what was compiled (ccache, sccache) or a farm of machines (distcc,
//! icecc). Here is what each of them has to be told so that the bytes stay the same, what it says it has done,
//! and how many jobs a farm is good for. None of it decides a byte of a kernel.

mod farm;
mod stats;

pub use farm::{Farm, probe};

use crate::host::{Host, process};
use crate::plan::Toolchain;
use crate::report::CompilerCacheStats;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use crate::util::fs::{make_executable, remove_tree, write_atomically};
use crate::util::read::{Links, read_text};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;

/// ccache notes what it has done in this run in this file of the build directory.
const CCACHE_LOG: &str = "kcompile-ccache.log";
/// The script before sccache.
const WRAPPER: &str = "kcompile-sccache";
/// The limit of ccache's log of a build: 30,000 calls take 5 MB.
const MAX_STATS: u64 = 32 << 20;

/// A launcher that is known; any other command is put before the compiler as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// A cache.
    Ccache,
    /// A cache.
    Sccache,
    /// A farm.
    Distcc,
    /// A farm.
    Icecc,
}

/// A server of sccache that we have started ends after so long without work.
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

/// Whether a compiler cache may ask other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// As its user has configured it.
    Allowed,
    /// `--offline`.
    Forbidden,
}

impl Tool {
    /// The one that `command` runs, by the name of its program.
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

    /// Returns whether it works through other machines, or a server that may.
    pub fn is_remote(self) -> bool {
        self != Tool::Ccache
    }

    /// Its name.
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
    /// Before the compilers of `build`, where the toolchain has one.
    pub fn of(toolchain: &'a Toolchain, build: &'a Utf8Path) -> Option<Launcher<'a>> {
        let command = toolchain.launcher.as_deref()?;
        Some(Launcher { command, tool: Tool::of(command), toolchain, build, network: Network::Allowed })
    }

    /// The same where a compiler cache may ask other machines, or not.
    pub fn with_network(self, network: Network) -> Launcher<'a> {
        Launcher { network, ..self }
    }

    /// What to put before the compiler's command. It is the same each time: another command compiles all anew.
    pub fn command_prefix(&self) -> String {
        match self.tool {
            Some(Tool::Sccache) => self.wrapper().into_string(),
            _ => self.command.to_owned(),
        }
    }

    /// Gets ready for a run of make. Returns what the cache counted until now, where it counts all its uses.
    pub fn prepare(&self, host: &Host) -> Result<Option<CompilerCacheStats>> {
        match self.tool {
            Some(Tool::Ccache) => remove_tree(&self.log()).map(|()| None),
            Some(Tool::Sccache) => {
                write_atomically(&self.wrapper(), wrapper(self.command).as_bytes())?;
                make_executable(&self.wrapper())?;
                // One that a compilation started would be ended with its make. It ends by itself when it has had
                // nothing to do for a while. One that runs already is no error.
                let _ = process::capture(
                    "sccache",
                    &["--start-server"],
                    &self.environment(&host.child_env, host, None),
                );
                Ok(self.sccache_stats(host))
            }
            _ => Ok(None),
        }
    }

    /// The environment of make: `base` with what this launcher is told.
    pub fn environment(
        &self,
        base: &BTreeMap<String, String>,
        host: &Host,
        farm: Option<&Farm>,
    ) -> BTreeMap<String, String> {
        let mut env = base.clone();
        env.extend(host.launcher_env.clone());
        env.extend(farm.and_then(Farm::environment));
        // Neither cache looks at the assembler: without this, an object of an older one would be handed out.
        let Toolchain { identity, programs, .. } = self.toolchain.for_compiling();
        let mut tools = serde_json::to_string(&identity).expect("plain strings");
        programs.iter().for_each(|(tool, sha256)| tools.push_str(&format!(" {tool} {sha256}")));
        let tools = Sha256::of(tools).short();
        if self.tool == Some(Tool::Ccache) {
            let settings = [
                // What the user's own configuration may have loosened would change bytes: paths in `__FILE__`
                // and debug information, dates, options and headers that count. Nor may it choose another
                // compiler, or put something before the compiler. Where a variable is there its setting is not
                // read, also where the variable is empty.
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
            // It would call gcc by its long name, which the kernel writes into its config.
            env.insert("DISTCC_NO_REWRITE_CROSS".to_owned(), "1".to_owned());
        }
        if self.tool == Some(Tool::Sccache) {
            env.insert("SCCACHE_C_CUSTOM_CACHE_BUSTER".to_owned(), tools);
            env.entry("SCCACHE_IDLE_TIMEOUT".to_owned()).or_insert_with(|| SERVER_IDLE_SECONDS.to_owned());
        }
        env
    }

    /// What it has done since [`prepare`](Self::prepare) returned `before`, where it tells.
    pub fn stats(&self, before: Option<CompilerCacheStats>, host: &Host) -> Option<CompilerCacheStats> {
        match self.tool {
            Some(Tool::Ccache) => {
                stats::read_log(&read_text(self.log(), Links::RefuseAnywhere, MAX_STATS).ok()?)
            }
            Some(Tool::Sccache) => Some(self.sccache_stats(host)?.since(before?)),
            _ => None,
        }
    }

    fn sccache_stats(&self, host: &Host) -> Option<CompilerCacheStats> {
        let args = ["--show-stats", "--stats-format", "json"];
        stats::read_stats(
            &process::capture("sccache", &args, &self.environment(&host.child_env, host, None)).ok()?,
        )
    }

    fn log(&self) -> Utf8PathBuf {
        self.build.join(CCACHE_LOG)
    }

    fn wrapper(&self) -> Utf8PathBuf {
        self.build.join(WRAPPER)
    }
}

/// sccache does not see that a source takes in another file by the assembler's `.incbin` and hands out the object of
/// an older one (mozilla/sccache#2795): the config inside the kernel, or a key, would be another build's. Such
/// sources go past it.
fn wrapper(command: &str) -> String {
    format!(
        "#!/bin/sh\n\
         # Written by kcompile: what takes in other files unseen is compiled, not taken from a cache.\n\
         for word; do\n\
         \tcase $word in *.c | *.S) ! grep -qs '\\.incbin' \"$word\" || exec \"$@\" ;; esac\n\
         done\n\
         exec {command} \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_is_known_by_its_program() {
        assert_eq!(Tool::of("/usr/bin/ccache"), Some(Tool::Ccache));
        assert_eq!(Tool::of("distcc -x"), Some(Tool::Distcc));
        assert_eq!((Tool::of("env"), Tool::of("")), (None, None));
    }
}
