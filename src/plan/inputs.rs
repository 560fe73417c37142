//! What a plan is made from beside the request: plain values, read by the room of the same name.

use crate::cache::memo::MemoEntry;
use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::LockFile;
use crate::catalog::patches::PatchDir;
use crate::catalog::toolchain_quirks::{Rule, Tools};
use crate::kconfig::Config;
use crate::kernel::{KernelVersion, VersionRequest};
use crate::plan::request::Request;
use crate::util::digest::Sha256;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything outside the command line that a plan depends on.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `configs/` and `patches/`, the user's own over ours.
    pub library: ConfigLibrary,
    /// The kernels of `library`.
    pub catalog: Catalog,
    /// `--config`.
    pub config: Option<Text>,
    /// A text for each of the request's overrides, in their order.
    pub overrides: Vec<Text>,
    /// Patches of `--patches`.
    pub patches: PatchDir,
    /// What sources were at their first use.
    pub lock: LockFile,
    /// What is known of the source without fetching it.
    pub local: Option<LocalSource>,
    /// The compiler and its companions.
    pub toolchain: Toolchain,
    /// Versions of the tools that the rules are about.
    pub tools: Tools,
    /// What is known of old kernels on new tools.
    pub rules: Vec<Rule>,
    /// What was found out for this, for the next time; decides nothing.
    pub memo_entries: Vec<MemoEntry>,
}

/// A text and what to call it.
#[derive(Clone, Debug)]
pub struct Text {
    /// Its path, or the name of a fragment of the catalog.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// What is known of a source without a network.
#[derive(Clone, Debug)]
pub enum LocalSource {
    /// A file.
    Tarball {
        /// Of the whole file.
        sha256: Sha256,
    },
    /// A directory that holds a kernel tree.
    Directory {
        /// From its Makefile.
        version: KernelVersion,
    },
    /// A package that apt's lists know.
    Package {
        /// The distribution's version: `6.1.192-2`.
        version: String,
        /// Of the .deb.
        sha256: Option<Sha256>,
    },
}

impl LocalSource {
    /// The package's version and digest.
    pub fn package(&self) -> Option<(&str, Option<Sha256>)> {
        match self {
            LocalSource::Package { version, sha256 } => Some((version, *sha256)),
            _ => None,
        }
    }
}

/// What compiles the kernel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Toolchain {
    /// The make variables that choose it: `CC`, `LLVM`, `CROSS_COMPILE`, …
    pub variables: BTreeMap<String, String>,
    /// Tool → the first line of its `--version`; a tool that is not there is missing here too.
    pub identity: BTreeMap<String, String>,
    /// Tool → the digest of its program, where that is a script or not the distribution's: its version does not tell
    /// all of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, Sha256>,
    /// Put before the compiler. One that is known changes when things are compiled, never what comes out; any other is
    /// among the programs.
    #[serde(skip)]
    pub launcher: Option<String>,
}

impl Toolchain {
    /// Without tools that a build with this config does not use; `modules`: are there to be any?
    pub(super) fn used_for(&self, config: &Config, modules: bool) -> Toolchain {
        let is_on = |symbol: &str| config.value(symbol) == "y";
        let is_used = |tool: &str| match tool {
            "depmod" => modules,
            "pahole" => is_on("DEBUG_INFO_BTF"),
            "rustc" | "bindgen" => is_on("RUST"),
            _ => true,
        };
        let mut used = self.clone();
        used.identity.retain(|tool, _| is_used(tool));
        used.programs.retain(|tool, _| is_used(tool));
        used
    }

    /// Without what comes after make: another one of it compiles nothing anew.
    pub fn for_compiling(&self) -> Toolchain {
        let mut compiling = self.clone();
        compiling.identity.remove("depmod");
        compiling.programs.remove("depmod");
        compiling
    }

    /// Each tool with its version, and the digest of its program where that counts: `cc: (Debian 12.2.0-14) 12.2.0`.
    pub fn tools(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.identity.keys().chain(self.programs.keys()).collect();
        let describe = |tool: &String| {
            let program = self.programs.get(tool).map(|sha256| format!("sha256:{}", sha256.short()));
            match (self.identity.get(tool), program) {
                (Some(version), Some(program)) => format!("{tool}: {version} ({program})"),
                (version, program) => format!("{tool}: {}", version.cloned().or(program).unwrap_or_default()),
            }
        };
        names.into_iter().map(describe).collect()
    }

    /// The same in one line.
    pub fn description(&self) -> String {
        self.tools().join("; ")
    }
}

impl Inputs {
    /// The exact version, as far as it is known without fetching the source.
    pub fn version_of(&self, request: &Request) -> Option<KernelVersion> {
        match (&self.local, request.version) {
            (Some(LocalSource::Directory { version }), _) => Some(*version),
            (Some(LocalSource::Package { version, .. }), _) => {
                // Debian's `6.1.192-2`, Ubuntu's `6.8.0-45.45`: the upstream version comes first.
                version.split(['-', '~', '+']).next()?.parse().ok()
            }
            (_, VersionRequest::Exact(version)) => Some(version),
            (_, VersionRequest::Series(..)) => None,
        }
    }
}
