//! The request for one kernel, resolved from the command line.

use crate::kernel::{Arch, Flavor, SourceSpec, ToolchainSpec, Variant, VersionRequest};
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
    /// `--variant`, or the project's.
    pub variant: Variant,
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
    /// The requirement profiles that the final config is checked against: those of
    /// [`own_profiles`], and those of `--require`.
    pub profiles: Vec<String>,
    /// `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: Option<u64>,
}

impl Request {
    /// Returns what the tag of the kernel has behind the version.
    pub fn tag_suffix(&self) -> TagSuffix {
        TagSuffix::of(self.variant, self.images.module_mode)
    }
}

/// Returns the profiles that every kernel of the flavor and variant is checked against.
pub fn own_profiles(flavor: Flavor, variant: Variant) -> Vec<String> {
    let of_variant = variant.spec().profiles.iter().map(|name| (*name).to_owned());
    [flavor.to_string()].into_iter().chain(of_variant).collect()
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
}

/// What tags and file names have behind the version. It tells the kernels of one version apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagSuffix {
    #[default]
    None,
    Builtin,
    Minimal,
}

impl TagSuffix {
    pub fn of(variant: Variant, module_mode: ModuleMode) -> TagSuffix {
        match (variant, module_mode) {
            (Variant::Minimal, _) => TagSuffix::Minimal,
            (Variant::Node, ModuleMode::Builtin) => TagSuffix::Builtin,
            (Variant::Node, ModuleMode::Loadable) => TagSuffix::None,
        }
    }

    /// Splits a version and its suffix.
    pub fn split(text: &str) -> (&str, TagSuffix) {
        let suffixes = [TagSuffix::Builtin, TagSuffix::Minimal];
        let find = |suffix: TagSuffix| Some((text.strip_suffix(suffix.text())?, suffix));
        suffixes.into_iter().find_map(find).unwrap_or((text, TagSuffix::None))
    }

    /// Returns the version with the suffix.
    pub fn add_to(self, version: &str) -> String {
        format!("{version}{}", self.text())
    }

    /// Returns what the kernels with this suffix are for.
    pub fn variant(self) -> Variant {
        match self {
            TagSuffix::None | TagSuffix::Builtin => Variant::Node,
            TagSuffix::Minimal => Variant::Minimal,
        }
    }

    /// Returns the option that makes kernels with this suffix.
    pub fn option(self) -> &'static str {
        match self {
            TagSuffix::None => "--variant node",
            TagSuffix::Builtin => "--builtin",
            TagSuffix::Minimal => "--variant minimal",
        }
    }

    fn text(self) -> &'static str {
        match self {
            TagSuffix::None => "",
            TagSuffix::Builtin => "-builtin",
            TagSuffix::Minimal => "-minimal",
        }
    }
}

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
