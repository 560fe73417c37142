//! Groups of options that several commands share. Each command flattens the groups that it acts on.

// clap prints these texts as they are.
#![allow(rustdoc::bare_urls)]

pub use super::flavor_args::FlavorArgs;
pub use super::progress_args::{GlobalArgs, ProgressArgs};
use crate::kbuild::sandbox;
use crate::kbuild::timings::TimingsFormat;
use crate::kconfig;
use crate::kernel::{Arch, Flavor, SOURCE_FORMS, SourceSpec};
use crate::oci::Compression;
use crate::plan::request::{KernelLink, ModulesLayout, Override};
use camino::Utf8PathBuf;
use clap::{ArgMatches, Args, Command, FromArgMatches, Parser};
use std::collections::BTreeMap;

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
    /// Kernel versions: 5.15.12, 6.1 (newest of the series), 6.18-rc3, latest, longterm, mainline (from
    /// kernel.org's releases.json), or all (every supported kernel of the flavor)
    #[arg(value_name = "VERSION", required = true)]
    pub versions: Vec<String>,
}

/// The kernel's hypervisor, architecture and source.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Kernel")]
pub struct TargetArgs {
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    #[arg(long, value_name = "ARCH", help = format!(
        "Target architecture: {}; repeatable [default: the host's]", Arch::choices()
    ))]
    pub arch: Vec<Arch>,
    #[arg(long, value_name = "SPEC", help = source_help())]
    pub source: Option<SourceSpec>,
}

/// `--fragment` and `--set`, in the order of the command line.
#[derive(Clone, Debug, Default)]
pub struct Overrides(pub Vec<Override>);

/// `--fragment` and `--set` as clap parses them, each by itself.
#[derive(Args)]
#[command(next_help_heading = "Config and patches")]
struct OverrideArgs {
    /// Apply a config fragment (a name from `kcompile list`, or a file); repeatable, in order with --set
    #[arg(long, value_name = "NAME|FILE")]
    fragment: Vec<String>,
    /// Set one config option, such as CONFIG_KSM=n; repeatable, in order with --fragment
    #[arg(long, value_name = "SYMBOL=VALUE", value_parser = kconfig::set_line)]
    set: Vec<String>,
}

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        OverrideArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        OverrideArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Overrides, clap::Error> {
        let OverrideArgs { fragment, set } = OverrideArgs::from_arg_matches(matches)?;
        let indices = |id: &str| matches.indices_of(id).into_iter().flatten();
        let fragments = indices("fragment").zip(fragment.into_iter().map(Override::Fragment));
        let sets = indices("set").zip(set.into_iter().map(Override::Set));
        let by_index: BTreeMap<usize, Override> = fragments.chain(sets).collect();
        Ok(Overrides(by_index.into_values().collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Overrides::from_arg_matches(matches)?;
        Ok(())
    }
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
    /// Build all modules into the kernel and turn modules off; the tag is VERSION-builtin, and there is no
    /// modules image
    #[arg(long)]
    pub builtin: bool,
}

/// `--require`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Config and patches")]
pub struct RequireArgs {
    /// Fail before compiling if the final .config does not meet this requirement profile (kubernetes-1.37,
    /// cilium, …); repeatable; `none` skips the flavor's own profile [default: the flavor's own]
    #[arg(long, value_name = "PROFILE")]
    pub require: Vec<String>,
}

/// The user's own catalog and patches.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Config and patches")]
pub struct CatalogArgs {
    /// Apply the patches in DIR after the catalog's: those that DIR/series lists, or else all *.patch and
    /// *.diff files by name; they may be compressed
    #[arg(long, value_name = "DIR")]
    pub patches: Option<Utf8PathBuf>,
    /// Read your own catalog, configs and patches from DIR; they override the built-in ones [default: the
    /// project directory, which has a kcompile.toml]
    #[arg(long, value_name = "DIR")]
    pub configs: Option<Utf8PathBuf>,
}

/// The contents of the images, where they are written, and whether they are booted.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Images")]
pub struct ImageArgs {
    /// Write the image layouts to DIR [default: out]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<Utf8PathBuf>,
    /// Also write a combined image, with kernel and modules, as firecracker-kernel and flintlock-kernel or as
    /// cloudhypervisor-kernel
    #[arg(long, alias = "legacy")]
    pub combined_image: bool,
    /// Build only the kernel, without modules
    #[arg(long, conflicts_with_all = ["combined_image", "modules_layout"])]
    pub no_modules: bool,
    /// Path of a hard link to the kernel in its image, or `none` [default: boot/
    /// and the kernel's file name]
    #[arg(long, alias = "also-at", value_name = "PATH", value_parser = kernel_link)]
    pub kernel_link: Option<KernelLink>,
    /// Where modules are in their image
    #[arg(long, value_name = "LAYOUT", value_enum, default_value_t, conflicts_with = "builtin")]
    pub modules_layout: ModulesLayout,
    /// Layer compression
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub compression: Compression,
    /// Boot each kernel in QEMU after the build, and fail if a check of `kcompile boot` fails
    #[arg(long)]
    pub boot: bool,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Compiling")]
pub struct JobsArgs {
    /// Number of parallel jobs, shared by all kernels of the run [default: the number of usable CPUs]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

/// How the kernel's make runs, to configure and to compile.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Compiling")]
pub struct KbuildArgs {
    /// C compiler [default: gcc]
    #[arg(long, value_name = "COMMAND")]
    pub cc: Option<String>,
    /// Build with clang and the LLVM tools
    #[arg(long)]
    pub llvm: bool,
    /// Prefix of the cross-compilation tools, such as aarch64-linux-gnu-
    #[arg(long, value_name = "PREFIX")]
    pub cross_compile: Option<String>,
    /// Run the kernel's build in a bubblewrap sandbox, which hides the network, your files and your other
    /// processes; does not affect the output
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
    /// Call the compiler through COMMAND: ccache, sccache, distcc, icecc or another, or none; with distcc
    /// and icecc, -j defaults to the capacity of the compiler farm
    #[arg(long, value_name = "COMMAND", value_parser = launcher)]
    pub launcher: Option<String>,
    /// Write a report of build times and sizes beside the receipt, as html (the default), json or both
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "html", value_delimiter = ',', help_heading = "Output")]
    pub timings: Vec<TimingsFormat>,
}

/// How sources are fetched, cached and verified.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Network and cache")]
pub struct SourceArgs {
    /// Download from this mirror of kernel.org; repeatable, tried in order [env: KCOMPILE_MIRROR] [default:
    /// https://cdn.kernel.org]
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,
    /// Abort and resume a download after SECONDS without progress [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub stall_timeout: Option<u16>,
    /// First import the sources in FILE, which `kcompile fetch --bundle` wrote
    #[arg(long, value_name = "FILE")]
    pub from_bundle: Option<Utf8PathBuf>,
    /// Use neither the network nor a compiler farm; fail if a source is not in the cache
    #[arg(long)]
    pub offline: bool,
    /// Cache directory [env: KCOMPILE_CACHE_DIR] [default: kcompile in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<Utf8PathBuf>,

    /// Fail unless the source is signed by its developers, or pinned if sources of its kind are never signed
    #[arg(long, help_heading = "Verification")]
    pub require_signature: bool,
    /// Also trust the OpenPGP public keys in FILE; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    pub keyring: Vec<Utf8PathBuf>,
    /// Accept a source that differs from its entry in kcompile.lock, and update the entry
    #[arg(long, help_heading = "Verification")]
    pub update_lock: bool,
}

/// Printing the plan instead of doing the work, and the form of what is printed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct PlanArgs {
    /// Print the plan and exit, as `kcompile plan` does
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
    /// Returns `--launcher`, unless it is `none`.
    pub fn launcher(&self) -> Option<&str> {
        self.launcher.as_deref().filter(|command| *command != "none")
    }

    /// Drops `--launcher`.
    pub fn remove_launcher(&mut self) {
        self.launcher = None;
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
    fn fragments_and_settings_keep_their_order() {
        let line = "kcompile --fragment a --set B=y 6.1 --fragment=c --set D=n --fragment a";
        let command = BuildCommand::try_parse_from(line.split(' ')).unwrap();
        let fragment = |name: &str| Override::Fragment(name.into());
        let set = |line: &str| Override::Set(kconfig::set_line(line).unwrap());
        let expected = [fragment("a"), set("B=y"), fragment("c"), set("D=n"), fragment("a")];
        assert_eq!(command.build.options.config.overrides.0, expected);
    }

    #[test]
    fn paths_in_images_are_plain() {
        assert_eq!(image_path("/boot/vmlinux").unwrap(), "boot/vmlinux");
        for invalid in ["", "/", "../x", "a/../b", "a/", "a//b", "./a"] {
            assert!(image_path(invalid).is_err(), "{invalid}");
        }
    }
}
