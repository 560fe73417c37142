//! Groups of options that several commands share. Each command flattens the groups that it acts on.

// clap prints these texts as they are.
#![allow(rustdoc::bare_urls)]

pub use super::flavor_args::FlavorArgs;
pub use super::override_args::Overrides;
pub use super::progress_args::{GlobalArgs, ProgressArgs};
use crate::cli::image_cache_args::ImageCacheArgs;
use crate::kbuild::sandbox;
use crate::kbuild::timings::TimingsFormat;
use crate::kernel::{Arch, Flavor, SOURCE_FORMS, SourceSpec, ToolchainSpec, VariantChoice};
use crate::oci::Compression;
use crate::ops::ccache_image::CcacheImage;
use crate::plan::request::{KernelLink, ModulesLayout};
use camino::Utf8PathBuf;
use clap::{Args, Parser};

const SOURCE_FORMS_SHORT: &str = "kernel.org, git[+URL][#REF], apt[:PACKAGE] or a path";

fn source_help() -> String {
    let default = |flavor: &Flavor| format!("{} with --{}", flavor.spec().source, flavor.spec().flag);
    let defaults: Vec<String> = Flavor::ALL.iter().map(default).collect();
    format!(
        "Kernel source: {SOURCE_FORMS} \
         [default: the catalog's source, or else {}]",
        defaults.join(", ")
    )
}

/// One or more `VERSION` arguments.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Kernel versions: 6.1.7, 6.1, latest, longterm, mainline or all
    ///
    /// 5.15.12 and 6.18-rc3 are exact versions, and 6.1 is the newest version of its series. `latest`, `longterm`
    /// and `mainline` are from kernel.org's releases.json. `all` is every supported kernel of the flavor. The default is `version` in
    /// kcompile.toml.
    #[arg(value_name = "VERSION")]
    pub versions: Vec<String>,
}

/// The kernel's hypervisor, architecture, variant and source.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Kernel")]
pub struct TargetArgs {
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    #[arg(
        long, value_name = "ARCH", help = format!("Architecture: {}; repeatable", Arch::choices()),
        long_help = format!("Target architecture: {}; repeatable [default: the host's]", Arch::choices())
    )]
    pub arch: Vec<Arch>,
    /// Variant: node, minimal or all
    ///
    /// A minimal kernel is for sandboxes and functions. It has all drivers built in and loads no modules, and its
    /// tag is VERSION-minimal. The default is node.
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<VariantChoice>,
    #[arg(long, value_name = "SPEC", help = SOURCE_FORMS_SHORT, long_help = source_help())]
    pub source: Option<SourceSpec>,
}

/// The config and its overrides.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Config and patches")]
pub struct ConfigArgs {
    /// Use this .config instead of the catalog's
    #[arg(long, value_name = "FILE")]
    pub config: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub overrides: Overrides,
    /// Build all modules into the kernel
    ///
    /// This turns modules off. The tag is VERSION-builtin, and there is no modules image.
    #[arg(long)]
    pub builtin: bool,
}

/// `--require`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Config and patches")]
pub struct RequireArgs {
    /// Check the config against this profile
    ///
    /// The build fails before it compiles if the final .config lacks something. The option is repeatable. A profile is kubernetes-1.37, cilium or another one in
    /// configs/requirements. The flavor's own profile is always checked, unless `none` is given.
    #[arg(long, value_name = "PROFILE")]
    pub require: Vec<String>,
}

/// The user's own catalog and patches.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Config and patches")]
pub struct CatalogArgs {
    /// Apply the patches in DIR
    ///
    /// They are applied after the catalog's patches. They are those that DIR/series lists, or else all *.patch and
    /// *.diff files by name. They may be compressed.
    #[arg(long, value_name = "DIR")]
    pub patches: Option<Utf8PathBuf>,
    /// Your own catalog, configs and patches
    ///
    /// Your files override the built-in ones. The default is the project directory, which has a kcompile.toml.
    #[arg(long, value_name = "DIR")]
    pub configs: Option<Utf8PathBuf>,
}

/// The contents of the images, where they are written, and whether they are booted.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Images")]
pub struct ImageArgs {
    /// Output directory [default: out]
    ///
    /// The image layouts and receipts are written to DIR.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<Utf8PathBuf>,
    /// Also write an image with both
    ///
    /// It has the kernel and the modules. Its names are firecracker-kernel and flintlock-kernel, or cloudhypervisor-kernel.
    #[arg(long, alias = "legacy")]
    pub combined_image: bool,
    /// Build only the kernel, without modules
    #[arg(long, conflicts_with_all = ["combined_image", "modules_layout"])]
    pub no_modules: bool,
    /// Second path of the kernel, or none
    ///
    /// The second path is a hard link. The default is the kernel's file name in boot/.
    #[arg(long, alias = "also-at", value_name = "PATH", value_parser = kernel_link)]
    pub kernel_link: Option<KernelLink>,
    /// Modules: tree or flat
    ///
    /// `tree` is lib/modules/RELEASE, and `flat` the root of the image.
    #[arg(long, value_name = "LAYOUT", value_enum, default_value_t, conflicts_with = "builtin")]
    pub modules_layout: ModulesLayout,
    /// Layers: gzip, zstd or none
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub compression: Compression,
    /// Boot each kernel in QEMU after the build
    ///
    /// The build fails if a check of `kcompile boot` fails.
    #[arg(long)]
    pub boot: bool,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Compiling")]
pub struct JobsArgs {
    /// Number of parallel jobs [default: usable CPUs]
    ///
    /// All kernels of a run share the jobs. With distcc and icecc, the default is the capacity of the compiler farm.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

/// How the kernel's make runs, to configure and to compile.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Compiling")]
pub struct KbuildArgs {
    /// Where the tools of the build come from
    ///
    /// The compiler and all other tools come from a root file system instead of this host: oci:DIR[:TAG] or
    /// docker://REFERENCE. `kernel.org:gcc-14.2.0` and `kernel.org:llvm-21.1.0` are compilers of kernel.org, beside
    /// this host's other tools. `host` stands for this host's own tools.
    #[arg(long, value_name = "SPEC")]
    pub toolchain: Option<ToolchainSpec>,
    /// C compiler [default: gcc]
    #[arg(long, value_name = "COMMAND")]
    pub cc: Option<String>,
    /// Build with clang and the LLVM tools
    #[arg(long)]
    pub llvm: bool,
    /// Prefix of the cross-compilation tools
    ///
    /// An example is aarch64-linux-gnu-.
    #[arg(long, value_name = "PREFIX")]
    pub cross_compile: Option<String>,
    /// Sandbox: auto, on or off
    ///
    /// A sandbox of bubblewrap hides the network, your files and your other processes from the kernel's build. A sandbox does not
    /// affect the output.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub sandbox: sandbox::SandboxMode,
}

/// How the kernel is compiled.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Compiling")]
pub struct CompileArgs {
    /// Rebuild even if a cached image exists
    #[arg(long)]
    pub rebuild: bool,
    /// Compiler launcher, such as ccache
    ///
    /// kcompile calls the compiler through COMMAND, which is ccache, sccache, distcc, icecc, another command or none.
    #[arg(long, value_name = "COMMAND", value_parser = launcher)]
    pub launcher: Option<String>,
    /// First add an image's entries to ccache's
    ///
    /// IMAGE is oci:DIR[:TAG] or docker://REFERENCE. It is read before compiling, and need not exist yet. Implies
    /// --launcher ccache.
    #[arg(long, value_name = "IMAGE")]
    pub ccache_from: Option<CcacheImage>,
    /// Finally write ccache's entries to an image
    ///
    /// After a successful build, writes the newest entries of ccache's cache, up to 1 GB, to oci:DIR:TAG or
    /// docker://REFERENCE. Implies --launcher ccache.
    #[arg(long, value_name = "IMAGE", value_parser = CcacheImage::writable)]
    pub ccache_to: Option<CcacheImage>,
    #[command(flatten)]
    pub image_cache: ImageCacheArgs,
    /// Report times and sizes as html, json or both
    ///
    /// The report is written beside the receipt. The default is html.
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "html", value_delimiter = ',', help_heading = "Output")]
    pub timings: Vec<TimingsFormat>,
}

/// How sources are fetched, cached and verified.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Network and cache")]
pub struct SourceArgs {
    /// Mirror of kernel.org; repeatable
    ///
    /// KCOMPILE_MIRROR sets mirrors, too. Mirrors are tried in order. The default is https://cdn.kernel.org.
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,
    /// Resume a download that stops [default: 30]
    ///
    /// A download without progress for SECONDS is aborted and resumed.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub stall_timeout: Option<u16>,
    /// First import the sources in this bundle
    ///
    /// `kcompile fetch --bundle FILE` writes bundles.
    #[arg(long, value_name = "FILE")]
    pub from_bundle: Option<Utf8PathBuf>,
    /// Do not use the network
    ///
    /// A build fails if a source is not in the cache, and no compiler farm is used.
    #[arg(long)]
    pub offline: bool,
    /// Cache directory [env: KCOMPILE_CACHE_DIR]
    ///
    /// The default is `kcompile` in $XDG_CACHE_HOME or ~/.cache.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<Utf8PathBuf>,

    /// Fail if the source is not signed by its developers
    ///
    /// A source of a kind that is never signed must be pinned.
    #[arg(long, help_heading = "Verification")]
    pub require_signature: bool,
    /// Also trust the OpenPGP keys in FILE; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    pub keyring: Vec<Utf8PathBuf>,
    /// Accept a changed source
    ///
    /// The source differs from its entry in kcompile.lock, which is updated.
    #[arg(long, help_heading = "Verification")]
    pub update_lock: bool,
}

/// Printing the plan instead of doing the work, and the form of what is printed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct PlanArgs {
    /// Print the plan and exit
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of a build. Commands that take only some groups leave the others at their defaults.
#[derive(Clone, Debug, Default, Args)]
pub struct Options {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub require: RequireArgs,
    #[command(flatten)]
    pub images: ImageArgs,
    #[command(flatten)]
    pub make: MakeArgs,
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// How a source is fetched and configured.
#[derive(Clone, Debug, Default, Args)]
pub struct MakeArgs {
    #[command(flatten)]
    pub catalog: CatalogArgs,
    #[command(flatten)]
    pub jobs: JobsArgs,
    #[command(flatten)]
    pub kbuild: KbuildArgs,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

impl From<CatalogArgs> for MakeArgs {
    fn from(catalog: CatalogArgs) -> MakeArgs {
        MakeArgs { catalog, ..MakeArgs::default() }
    }
}

impl MakeArgs {
    /// Returns the options of a build with these.
    pub fn options(&self) -> Options {
        Options { make: self.clone(), ..Options::default() }
    }
}

/// The options of `build` and `plan`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub versions: VersionArgs,
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub plan: PlanArgs,
}

/// The command line of a build as a receipt records it, without the word `build`.
#[derive(Debug, Parser)]
#[command(name = "kcompile")]
pub struct BuildCommand {
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    global: GlobalArgs,
}

impl CompileArgs {
    /// Returns `--launcher`, unless it is `none`, or the launcher that other options imply.
    pub fn launcher(&self) -> Option<&str> {
        let implied = self.uses_ccache_image().then_some("ccache");
        self.launcher.as_deref().or(implied).filter(|command| *command != "none")
    }

    pub fn uses_ccache_image(&self) -> bool {
        self.ccache_from.is_some() || self.ccache_to.is_some()
    }

    /// Drops `--launcher`, and the default one.
    pub fn remove_launcher(&mut self) {
        self.launcher = Some("none".to_owned());
        (self.ccache_from, self.ccache_to) = (None, None);
    }
}

/// Checks that `--launcher` names a program.
fn launcher(text: &str) -> Result<String, String> {
    if shlex::split(text).is_some_and(|words| !words.is_empty()) {
        return Ok(text.to_owned());
    }
    Err("expected a command such as ccache, or none".into())
}

/// Parses `none` or a path inside an image.
fn kernel_link(text: &str) -> Result<KernelLink, String> {
    if text == "none" { Ok(KernelLink::None) } else { image_path(text).map(KernelLink::At) }
}

/// Parses a path inside an image. A leading `/` is dropped, and `.` and `..` are refused.
fn image_path(text: &str) -> Result<String, String> {
    let path = text.trim_start_matches('/');
    if path.contains('\0') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("expected the path of a file inside the image, such as boot/vmlinux".into());
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_images_are_plain() {
        assert_eq!(image_path("/boot/vmlinux").unwrap(), "boot/vmlinux");
        for invalid in ["", "/", "../x", "a/../b", "a/", "a//b", "./a"] {
            assert!(image_path(invalid).is_err(), "{invalid}");
        }
    }
}
