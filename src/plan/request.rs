//! The request for one kernel, resolved from the command line.

use crate::kernel::{Arch, Flavor, SourceSpec, ToolchainSpec, VersionRequest};
use crate::oci::Compression;
use camino::Utf8PathBuf;
use serde::Serialize;

/// One kernel to build. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Request {
    /// VERSION.
    pub version: VersionRequest,
    /// `--fc`, `--ch`, or the catalog's.
    pub flavor: Flavor,
    /// `--arch`, or the host's.
    pub arch: Arch,
    /// `--source`, or the flavor's own.
    pub source: SourceSpec,
    pub config: Option<Utf8PathBuf>,
    /// `--fragment` and `--set`, in the order in which they were given.
    pub overrides: Vec<Override>,
    pub patches: Option<Utf8PathBuf>,
    /// `--cc`, `--llvm`, `--cross-compile`, `--launcher`.
    pub toolchain: ToolchainChoice,
    /// What goes into which image.
    pub images: ImageChoice,
    /// `--mirror`, or `KCOMPILE_MIRROR`, in the order in which they are tried. Empty means kernel.org.
    pub mirrors: Vec<String>,
    /// Whether the kernel is configured. `fetch` and `doctor` need no config.
    pub configures: bool,
    /// The requirement profiles that the final config is checked against: the
    /// flavor's, and those of `--require`.
    pub profiles: Vec<String>,
    /// `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: Option<u64>,
}

/// Settings that override the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Override {
    /// A fragment of the catalog by name, or a file.
    Fragment(String),
    /// One setting, already a line of a `.config`.
    Set(String),
}

/// Which compiler builds the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolchainChoice {
    /// `--toolchain`.
    pub spec: ToolchainSpec,
    pub cc: Option<String>,
    pub llvm: bool,
    /// `--cross-compile`, a prefix such as `aarch64-linux-gnu-`.
    pub cross_compile: Option<String>,
    /// `--launcher`, a program to put before the compiler.
    pub launcher: Option<String>,
}

/// What goes into which image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageChoice {
    pub combined_image: bool,
    pub no_modules: bool,
    pub module_mode: ModuleMode,
    pub kernel_link: KernelLink,
    pub modules_layout: ModulesLayout,
    pub compression: Compression,
}

impl ImageChoice {
    /// Returns whether an image of modules is written.
    pub fn has_modules(&self) -> bool {
        !self.no_modules && self.module_mode == ModuleMode::Loadable
    }
}

/// How the kernel has what its config requests as modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleMode {
    /// As the config says.
    #[default]
    Loadable,
    /// Everything is built in, and the kernel loads no modules.
    Builtin,
}

impl ModuleMode {
    pub fn is_default(&self) -> bool {
        *self == ModuleMode::default()
    }

    /// Returns the version with the suffix of tags and file names.
    pub fn name(self, version: &str) -> String {
        match self {
            ModuleMode::Loadable => version.to_owned(),
            ModuleMode::Builtin => format!("{version}{BUILTIN_SUFFIX}"),
        }
    }
}

/// What `--builtin` adds to tags and file names.
pub const BUILTIN_SUFFIX: &str = "-builtin";

/// The second name of the kernel in its image, a hard link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KernelLink {
    /// The same file name in `boot`, where CAPMVM's templates and Flintlock's users look.
    #[default]
    Boot,
    None,
    /// This path.
    At(String),
}

/// Where the modules lie in their image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ModulesLayout {
    /// In `lib/modules/<release>`
    #[default]
    Tree,
    /// At the root of the image
    Flat,
}
