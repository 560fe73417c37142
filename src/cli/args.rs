//! The options that several commands take, in groups: a command flattens the groups that it acts on. Help texts
//! are part of the contract: they say the same as the README, in the field's terms.

pub use super::flavor_args::FlavorArgs;
use crate::kbuild::sandbox;
use crate::kbuild::timings::TimingsFormat;
use crate::kconfig;
use crate::kernel::{Arch, Flavor, SourceSpec};
use crate::oci::Compression;
use crate::plan::request::{KernelLink, ModulesLayout, Override};
use crate::report::Progress;
use crate::util::error::{self, Error};
use camino::Utf8PathBuf;
use clap::{ArgMatches, Args, Command, FromArgMatches, Parser};
use std::collections::BTreeMap;

fn source_help() -> String {
    let default = |flavor: &Flavor| format!("{} with --{}", flavor.spec().source, flavor.spec().flag);
    let defaults: Vec<String> = Flavor::ALL.iter().map(default).collect();
    format!(
        "kernel.org, git[+URL][#REF], apt[:PACKAGE], or the path of a tarball or directory [default: the \
         catalog's; else {}]",
        defaults.join(", ")
    )
}

/// VERSION, as often as wanted.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Kernel versions: 5.15.12, 6.1 (the newest of a series), 6.18-rc3, latest, longterm, mainline (by
    /// kernel.org's releases.json), all (every supported kernel of the flavor)
    #[arg(value_name = "VERSION", required = true)]
    pub versions: Vec<String>,
}

/// Which kernel: the hypervisor, the machine, and where the source comes from.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What to build")]
pub struct TargetArgs {
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    #[arg(long, value_name = "ARCH", help = format!(
        "{}; repeatable; cross-compiles where it is not the host's [default: the host's]", Arch::choices()
    ))]
    pub arch: Vec<Arch>,
    #[arg(long, value_name = "SPEC", help = source_help())]
    pub source: Option<SourceSpec>,
}

/// `--fragment` and `--set`, in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub struct Overrides(pub Vec<Override>);

/// The same as clap parses them: each option by itself.
#[derive(Args)]
#[command(next_help_heading = "Config and patches")]
struct OverrideArgs {
    /// Settings over the config: a fragment of the catalog (`kcompile list` describes them) or a file;
    /// repeatable, in order with --set
    #[arg(long, value_name = "NAME|FILE")]
    fragment: Vec<String>,
    /// One setting over the config, as in CONFIG_KSM=n; repeatable, in order with --fragment
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

/// The config, and the settings over it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Config and patches")]
pub struct ConfigArgs {
    /// This .config in place of the catalog's
    #[arg(long, value_name = "FILE")]
    pub config: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub overrides: Overrides,
}

/// The requirement profiles.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Config and patches")]
pub struct RequireArgs {
    /// Fail before compiling where the final .config lacks what this profile requires (kubernetes-1.35,
    /// cilium, …); repeatable; `none` leaves the flavor's own profile out [default: the flavor's own]
    #[arg(long, value_name = "PROFILE")]
    pub require: Vec<String>,
}

/// The user's own files over the built-in ones.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Config and patches")]
pub struct CatalogArgs {
    /// More patches, after the catalog's: those that a quilt `series` in DIR lists, or else its *.patch and
    /// *.diff files in the order of their names, also compressed; git apply applies them
    #[arg(long, value_name = "DIR")]
    pub patches: Option<Utf8PathBuf>,
    /// Your own catalog, configs and patches over the built-in ones [default: those of the project, a
    /// directory with kcompile.toml, in which kcompile runs]
    #[arg(long, value_name = "DIR")]
    pub configs: Option<Utf8PathBuf>,
}

/// What goes into the images, where they go, and whether they are booted.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Images")]
pub struct ImageArgs {
    /// Where the layouts go [default: out]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<Utf8PathBuf>,
    /// Also the combined image (kernel and modules in one)
    #[arg(long, alias = "legacy")]
    pub combined_image: bool,
    /// Only the kernel binary
    #[arg(long, conflicts_with_all = ["combined_image", "modules_layout"])]
    pub no_modules: bool,
    /// Second name of the kernel inside its image, a hard link; `none`: no second name [default: its file name in
    /// boot, such as boot/vmlinux]
    #[arg(long, alias = "also-at", value_name = "PATH", value_parser = kernel_link)]
    pub kernel_link: Option<KernelLink>,
    /// lib/modules/<release>/…, or its contents at the root of the image
    #[arg(long, value_name = "LAYOUT", value_enum, default_value_t)]
    pub modules_layout: ModulesLayout,
    /// Compression of the layers
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub compression: Compression,
    /// Then boot it in QEMU, as `kcompile boot` does, and fail where something is not in order
    #[arg(long)]
    pub boot: bool,
}

/// How much runs at once.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Compiling")]
pub struct JobsArgs {
    /// Jobs in all, shared by every kernel of the run [default: the CPUs that this process may use]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

/// How the kernel's make runs, be it to configure or to compile.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Compiling")]
pub struct KbuildArgs {
    /// The compiler [default: gcc]
    #[arg(long, value_name = "COMMAND")]
    pub cc: Option<String>,
    /// Build with clang and the LLVM tools
    #[arg(long)]
    pub llvm: bool,
    /// Prefix of the cross tools, such as aarch64-linux-gnu-
    #[arg(long, value_name = "PREFIX")]
    pub cross_compile: Option<String>,
    /// Run the kernel's own build scripts in a sandbox, by bubblewrap: without the network, your files and your
    /// other processes; auto builds without it where the host does not allow it. No byte changes
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub sandbox: sandbox::SandboxMode,
}

/// How the kernel is compiled.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Compiling")]
pub struct CompileArgs {
    /// Compile though images of the same plan are in the cache
    #[arg(long)]
    pub rebuild: bool,
    /// Put before the compiler: ccache, sccache (their hits are counted), distcc, icecc (as many jobs as the
    /// farm takes, unless -j says otherwise), or any other command
    #[arg(long, value_name = "COMMAND")]
    pub launcher: Option<String>,
    /// Write where time and bytes went beside the receipt: a page (html) or numbers (json), or both
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "html", value_delimiter = ',', help_heading = "Output")]
    pub timings: Vec<TimingsFormat>,
}

/// How sources are fetched, kept and verified.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Network and cache")]
pub struct SourceArgs {
    /// A mirror with kernel.org's layout; repeatable, tried in order [env: KCOMPILE_MIRROR] [default:
    /// https://cdn.kernel.org]
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,
    /// Give a connection up that makes no progress for this long, and resume [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    pub stall_timeout: Option<u16>,
    /// Take everything from a file that `kcompile fetch --bundle` wrote, then as without it
    #[arg(long, value_name = "FILE")]
    pub from_bundle: Option<Utf8PathBuf>,
    /// No network: from the cache, or an error; no compiler farm
    #[arg(long)]
    pub offline: bool,
    /// Where sources and builds are kept [env: KCOMPILE_CACHE_DIR] [default: kcompile in the XDG cache directory]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<Utf8PathBuf>,

    /// Fail unless the source is signed by its developers, or, where nobody signs, pinned
    #[arg(long, help_heading = "Verification")]
    pub require_signature: bool,
    /// OpenPGP public keys to believe beside kernel.org's; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    pub keyring: Vec<Utf8PathBuf>,
    /// Accept a source that is not what kcompile.lock (in the --configs DIR, else in the cache) says it was
    #[arg(long, help_heading = "Verification")]
    pub update_lock: bool,
}

/// How progress is shown.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct ProgressArgs {
    /// How progress is shown
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    pub progress: Progress,
}

/// A plan in place of the work.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct PlanArgs {
    /// Print the plan and stop; touches nothing (same as `kcompile plan`)
    #[arg(long)]
    pub dry_run: bool,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

impl PlanArgs {
    /// Returns whether only the plan is wanted from a command that does more.
    ///
    /// # Errors
    ///
    /// Exit code 2: `--json` is given, and no plan is wanted.
    pub fn is_dry_run(&self) -> error::Result<bool> {
        if self.json && !self.dry_run {
            return Err(Error::usage("--json prints a plan: it goes with `kcompile plan` or --dry-run")
                .hint("a build tells its progress as JSON lines with --progress json"));
        }
        Ok(self.dry_run)
    }
}

/// What a build depends on, beside the versions. A command that takes only some of these groups leaves the
/// others at their defaults.
#[derive(Clone, Debug, Default, Args)]
pub struct Options {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub require: RequireArgs,
    #[command(flatten)]
    pub catalog: CatalogArgs,
    #[command(flatten)]
    pub images: ImageArgs,
    #[command(flatten)]
    pub jobs: JobsArgs,
    #[command(flatten)]
    pub kbuild: KbuildArgs,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// How a command that compiles nothing fetches and configures a source.
#[derive(Debug, Args)]
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

impl MakeArgs {
    /// Returns the options of a build with these groups.
    pub fn options(&self) -> Options {
        Options {
            catalog: self.catalog.clone(),
            jobs: self.jobs.clone(),
            kbuild: self.kbuild.clone(),
            source: self.source.clone(),
            ..Options::default()
        }
    }
}

/// The options of `build`; `plan` takes the same command line.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub versions: VersionArgs,
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub progress: ProgressArgs,
    #[command(flatten)]
    pub plan: PlanArgs,
}

/// The command line of a build, as a receipt records it without the word `build`.
#[derive(Debug, Parser)]
#[command(name = "kcompile")]
pub struct BuildCommand {
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `none`, or a path inside an image.
fn kernel_link(text: &str) -> Result<KernelLink, String> {
    if text == "none" { Ok(KernelLink::None) } else { image_path(text).map(KernelLink::At) }
}

/// A path inside an image: relative, without `.` and `..`.
fn image_path(text: &str) -> Result<String, String> {
    let path = text.trim_start_matches('/');
    let plain = |part: camino::Utf8Component<'_>| matches!(part, camino::Utf8Component::Normal(_));
    let fits = !path.is_empty() && !path.ends_with('/') && !path.contains("//") && !path.contains('\0');
    let fits = fits
        && camino::Utf8Path::new(path).components().all(plain)
        && !path.split('/').any(|part| part == ".");
    if !fits {
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
