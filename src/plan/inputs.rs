//! What a plan is made from besides the request. `ops/inputs.rs` reads it.

use crate::cache::memo::MemoEntry;
use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::LockFile;
use crate::catalog::patches::PatchDir;
use crate::catalog::tool_versions::Tools;
use crate::catalog::toolchain_quirks::Rule;
use crate::kconfig::Config;
use crate::kernel::{KernelVersion, VersionRequest};
use crate::plan::request::{ImageChoice, Request};
use crate::util::digest::Sha256;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything outside the command line that a plan depends on.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `configs/` and `patches/`, built-in and the user's.
    pub library: ConfigLibrary,
    /// The kernels of `library`.
    pub catalog: Catalog,
    pub config: Option<Text>,
    /// The texts of the request's overrides, in the same order.
    pub overrides: Vec<Text>,
    pub patches: PatchDir,
    /// The digests of sources at their first use.
    pub lock: LockFile,
    /// What is known of the source without fetching it.
    pub local: Option<LocalSource>,
    pub toolchain: Toolchain,
    /// The versions of the tools that `rules` are about.
    pub tools: Tools,
    /// The rules for old kernels on new tools.
    pub rules: Vec<Rule>,
    /// Results to memoize. They do not affect the output.
    pub memo_entries: Vec<MemoEntry>,
}

/// A text and its name.
#[derive(Clone, Debug)]
pub struct Text {
    /// A path, or the name of a fragment of the catalog.
    pub name: String,
    pub text: String,
}

/// What is known of a source without a network.
#[derive(Clone, Debug)]
pub enum LocalSource {
    /// A tarball, and the digest of the file.
    Tarball { sha256: Sha256 },
    /// A directory with a kernel tree, and the version in its Makefile.
    Directory { version: KernelVersion },
    /// A package in apt's lists, with its version (`6.1.192-2`) and the digest of its .deb.
    Package { version: String, sha256: Option<Sha256> },
}

impl LocalSource {
    /// Returns the version and digest of a package.
    pub fn package(&self) -> Option<(&str, Option<Sha256>)> {
        match self {
            LocalSource::Package { version, sha256 } => Some((version, *sha256)),
            _ => None,
        }
    }
}

/// A compiler of kernel.org.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PinnedCompiler {
    /// Such as `kernel.org:gcc-14.2.0`.
    pub name: String,
    /// The digest of its archive.
    pub sha256: Sha256,
}

/// What compiles the kernel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Toolchain {
    /// The ID of the image of `--toolchain`, whose tools these are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Sha256>,
    /// The compiler of kernel.org that `--toolchain` names. The other tools are the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiler: Option<PinnedCompiler>,
    /// The make variables that choose it: `CC`, `LLVM`, `CROSS_COMPILE`, …
    pub variables: BTreeMap<String, String>,
    /// The first line of each tool's `--version`. Missing tools are not in it.
    pub identity: BTreeMap<String, String>,
    /// The digests of scripts and tools from elsewhere than the distribution, whose version is not enough.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, Sha256>,
    /// The program before the compiler. Known launchers do not affect the output,
    /// and others are in `programs`.
    #[serde(skip)]
    pub launcher: Option<String>,
}

impl Toolchain {
    /// Returns the toolchain without the tools that a build of these images with this config does not use.
    pub(super) fn used_for(&self, config: &Config, images: &ImageChoice) -> Toolchain {
        let is_on = |symbol: &str| config.value(symbol) == "y";
        let is_used = |tool: &str| match tool {
            "depmod" => images.has_modules(),
            "pahole" => is_on("DEBUG_INFO_BTF"),
            "rustc" | "bindgen" => is_on("RUST"),
            _ => true,
        };
        let mut used = self.clone();
        used.identity.retain(|tool, _| is_used(tool));
        used.programs.retain(|tool, _| is_used(tool));
        used
    }

    /// Returns the toolchain without tools that run after make, which cause no recompilation.
    pub fn for_compiling(&self) -> Toolchain {
        let mut compiling = self.clone();
        compiling.identity.remove("depmod");
        compiling.programs.remove("depmod");
        compiling
    }

    /// Describes each tool by its version and its program's digest, if there is one: `cc: (Debian) 12.2.0`.
    pub fn tools(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.identity.keys().chain(self.programs.keys()).collect();
        let describe = |tool: &String| {
            let program = self.programs.get(tool).map(|sha256| format!("sha256:{}", sha256.short()));
            match (self.identity.get(tool), program) {
                (Some(version), Some(program)) => format!("{tool}: {version} ({program})"),
                (version, program) => format!("{tool}: {}", version.cloned().or(program).unwrap_or_default()),
            }
        };
        let root = self.root.map(|root| format!("toolchain: sha256:{root}"));
        let compiler = self.compiler.as_ref();
        let compiler =
            compiler.map(|compiler| format!("toolchain: {} (sha256:{})", compiler.name, compiler.sha256));
        root.into_iter().chain(compiler).chain(names.into_iter().map(describe)).collect()
    }

    /// Describes the tools in one line.
    pub fn description(&self) -> String {
        self.tools().join("; ")
    }
}

/// Adds the name of GCC to the descriptions of tools, for people. Plans and annotations lack it, because GCC prints
/// the name that it was called by, which does not affect the output.
pub fn with_compiler_names(tools: &str) -> String {
    tools.replace("cc: (", "cc: gcc (")
}

impl Inputs {
    /// Returns the exact version if it is known without fetching the source.
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
