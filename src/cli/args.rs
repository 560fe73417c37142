//! The words of the command line. Help texts are part of the contract: they say the same as the
//! README, in the field's terms.

use super::boot::BootArgs;
use super::cache::CacheArgs;
use super::diff::DiffArgs;
use super::inspect::InspectArgs;
use super::push::PushArgs;
use super::verify::VerifyArgs;
use crate::kbuild::sandbox;
use crate::kbuild::timings::Form;
use crate::kconfig;
use crate::kernel::{Arch, Flavor, KernelVersion, SourceSpec};
use crate::oci::Compression;
use crate::plan::request::ModulesLayout;
use crate::report::Progress;
use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand};

pub(super) const EXAMPLES: &str = "\
Examples:
  kcompile 6.1 --fc                        the newest 6.1 from kernel.org, for Firecracker
  kcompile 5.10 6.1 --fc                   both at once
  kcompile 5.15.12 --ch                    branch ch-5.15.12 of cloud-hypervisor/linux
  kcompile 6.1 --fc --source apt           from the distribution's kernel source package
  kcompile 6.1.7 --fc --source ./linux     from a directory, which is used in place
  kcompile plan 6.1 --fc --set KSM=n       all that would decide the bytes; touches nothing
  kcompile check my.config --for kubernetes-1.35 cilium
  kcompile doctor --install                install what this host lacks to build a kernel
  kcompile boot 6.1 --fc                   boot what was built, and try it
  kcompile push docker.io/foobar           copy all images in out/ to a registry

Exit codes: 0 ok, 1 the build or a check failed, 2 usage or plan, 3 fetch or verification,
4 the host lacks something, 130 interrupted.";

const CHECK_EXAMPLES: &str = "\
Examples:
  kcompile check my.config --for kubernetes-1.35 cilium
  kcompile check out/firecracker-kernel-modules-amd64:6.1.7 --for flintlock
  kcompile check 6.1 --fc

Exit codes: 0 all that is required is met, 1 something is not, 2 usage, 3 the layout is damaged.";

/// Builds Linux guest kernels for Firecracker and Cloud Hypervisor, and packs them as OCI layouts
#[derive(Debug, Parser)]
#[command(name = "kcompile", arg_required_else_help = true)]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
#[command(
    override_usage = "kcompile [build] <VERSION>... [--fc | --ch] [OPTIONS]\n       kcompile <COMMAND>"
)]
pub struct Cli {
    /// What to do instead of building.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `build`, which may be left out.
    #[command(flatten)]
    pub build: BuildArgs,
}

impl Cli {
    /// The build options in force, if the command has them.
    pub fn build_args(&self) -> Option<&BuildArgs> {
        match &self.command {
            None => Some(&self.build),
            Some(Command::Build(args) | Command::Plan(args)) => Some(args),
            Some(Command::Fetch(args)) => Some(&args.build),
            Some(Command::Config(args)) => Some(args.build_args()),
            Some(Command::Add(args)) => Some(&args.build),
            Some(_) => None,
        }
    }

    /// How progress is to be shown.
    pub fn progress(&self) -> Progress {
        match &self.command {
            Some(Command::Verify(args)) => args.progress,
            Some(Command::Push(args)) => args.progress,
            Some(Command::Boot(args)) => args.progress,
            Some(Command::Cache(args)) => args.progress,
            _ => self.build_args().map_or(Progress::Auto, |args| args.progress),
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build kernels and pack them (the word `build` may be left out)
    Build(BuildArgs),
    /// Print all that would decide the bytes; touches nothing
    Plan(BuildArgs),
    /// Only fill the cache, for later --offline builds
    Fetch(FetchArgs),
    /// Show the catalog: known kernels, their Kubernetes verdict, and fragments for --fragment
    List(super::list::ListArgs),
    /// Say what this host lacks to build, and the one command that installs it
    Doctor(DoctorArgs),
    /// Hold a .config, a built image or a kernel of the catalog against requirement profiles
    Check(CheckArgs),
    /// Add a kernel to your catalog: pin its source, carry a config over, say what changed
    Add(super::add::AddArgs),
    /// Show, compare and edit configs
    Config(super::config::ConfigArgs),
    /// Say what is in an image, and from what it was built, without unpacking it
    Inspect(InspectArgs),
    /// Boot an image in a virtual machine, load every module, and try what a Kubernetes node needs
    Boot(BootArgs),
    /// Read every byte of images, and say whether they are what they should be
    Verify(VerifyArgs),
    /// Say how two images differ: config, modules, sizes, tools, and why their bytes do
    Diff(DiffArgs),
    /// Copy layouts to a registry by skopeo, and check what it then serves
    Push(PushArgs),
    /// Move what ccache has compiled between machines, as an image
    Cache(CacheArgs),
    /// Free space in the cache: all of it, or what the options say
    Clean(CleanArgs),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page of kcompile or of one of its commands
    Man {
        /// The command
        command: Option<String>,
    },
}

/// The words for a hypervisor: at most one of them.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct FlavorArgs {
    /// For Firecracker
    #[arg(long, conflicts_with_all = ["ch", "flavor"])]
    pub fc: bool,
    /// For Cloud Hypervisor
    #[arg(long, conflicts_with = "flavor")]
    pub ch: bool,
    /// firecracker or cloud-hypervisor
    #[arg(long, value_name = "NAME")]
    pub flavor: Option<Flavor>,
}

impl FlavorArgs {
    /// Which one; `None`: it is left open.
    pub fn chosen(self) -> Option<Flavor> {
        match (self.fc, self.ch) {
            (true, _) => Some(Flavor::Firecracker),
            (_, true) => Some(Flavor::CloudHypervisor),
            _ => self.flavor,
        }
    }
}

impl From<Option<Flavor>> for FlavorArgs {
    fn from(flavor: Option<Flavor>) -> FlavorArgs {
        FlavorArgs { flavor, ..FlavorArgs::default() }
    }
}

/// The options of `build`, `plan` and `fetch`.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Kernel versions: 5.15.12, 6.1 (the newest of a series), 6.18-rc3, latest, longterm, mainline (by
    /// kernel.org's releases.json), all (every supported kernel of the flavor)
    #[arg(value_name = "VERSION", required = true)]
    pub versions: Vec<String>,

    /// The hypervisor.
    #[command(flatten, next_help_heading = "What to build")]
    pub hypervisor: FlavorArgs,
    /// amd64 or arm64; repeatable; cross-compiles where it is not the host's [default: the host's]
    #[arg(long, value_name = "ARCH", help_heading = "What to build")]
    pub arch: Vec<Arch>,
    /// kernel.org, git[+URL][#REF], apt[:PACKAGE], or the path of a tarball or directory
    /// [default: the catalog's; else kernel.org with --fc, git with --ch]
    #[arg(long, value_name = "SPEC", help_heading = "What to build")]
    pub source: Option<SourceSpec>,

    /// This .config in place of the catalog's
    #[arg(long, value_name = "FILE", help_heading = "Config and patches")]
    pub config: Option<Utf8PathBuf>,
    /// Settings over the config: a fragment of the catalog (`kcompile list` describes them) or a file;
    /// repeatable, in order with --set
    #[arg(long, value_name = "NAME|FILE", help_heading = "Config and patches")]
    pub fragment: Vec<String>,
    /// One setting over the config, as in CONFIG_KSM=n; repeatable, in order with --fragment
    #[arg(long, value_name = "SYMBOL=VALUE", value_parser = kconfig::set_line, help_heading = "Config and patches")]
    pub set: Vec<String>,
    /// Fail before compiling where the final .config lacks what this profile requires (kubernetes-1.35,
    /// cilium, …); repeatable; `none` leaves the flavor's own profile out [default: the flavor's own]
    #[arg(long, value_name = "PROFILE", help_heading = "Config and patches")]
    pub require: Vec<String>,
    /// More patches, after the catalog's: the *.patch files of DIR in the order of their names
    #[arg(long, value_name = "DIR", help_heading = "Config and patches")]
    pub patches: Option<Utf8PathBuf>,
    /// Your own catalog, configs and patches over the built-in ones [default: those of the project, a
    /// directory with kcompile.toml, in which kcompile runs]
    #[arg(long, value_name = "DIR", help_heading = "Config and patches")]
    pub configs: Option<Utf8PathBuf>,

    /// Where the layouts go [default: out]
    #[arg(short, long, value_name = "DIR", help_heading = "Images")]
    pub output: Option<Utf8PathBuf>,
    /// Also the combined image (kernel and modules in one)
    #[arg(long, help_heading = "Images")]
    pub legacy: bool,
    /// Only the kernel binary
    #[arg(long, help_heading = "Images", conflicts_with_all = ["legacy", "modules_layout"])]
    pub no_modules: bool,
    /// A hard link of the kernel inside its image, such as boot/vmlinux
    #[arg(long, value_name = "PATH", value_parser = image_path, help_heading = "Images")]
    pub also_at: Option<String>,
    /// lib/modules/<release>/…, or its contents at the root of the image
    #[arg(long, value_name = "LAYOUT", default_value = "tree", help_heading = "Images")]
    pub modules_layout: ModulesLayout,
    /// Compression of the layers
    #[arg(long, value_name = "KIND", default_value = "gzip", help_heading = "Images")]
    pub compression: Compression,

    /// Jobs in all, shared by every kernel of the run [default: the CPUs that this process may use]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Compiling")]
    pub jobs: Option<u16>,
    /// The compiler [default: gcc]
    #[arg(long, value_name = "COMMAND", help_heading = "Compiling")]
    pub cc: Option<String>,
    /// Build with clang and the LLVM tools
    #[arg(long, help_heading = "Compiling")]
    pub llvm: bool,
    /// Prefix of the cross tools, such as aarch64-linux-gnu-
    #[arg(long, value_name = "PREFIX", help_heading = "Compiling")]
    pub cross_compile: Option<String>,
    /// Compile though images of the same plan are in the cache
    #[arg(long, help_heading = "Compiling")]
    pub rebuild: bool,
    /// Put before the compiler: ccache, sccache (their hits are counted), distcc, icecc (as many jobs as the
    /// farm takes, unless -j says otherwise), or any other command
    #[arg(long, value_name = "COMMAND", help_heading = "Compiling")]
    pub launcher: Option<String>,
    /// Keep the kernel's own build scripts from the network, from writing into the source, and from your
    /// environment and home directory: as far as this host lets us, wholly or not at all; no byte changes
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Compiling")]
    pub sandbox: sandbox::Choice,

    /// A mirror with kernel.org's layout; repeatable, tried in order [env: KCOMPILE_MIRROR] [default:
    /// https://cdn.kernel.org]
    #[arg(long, value_name = "URL", help_heading = "Network and cache")]
    pub mirror: Vec<String>,
    /// Give a connection up that makes no progress for this long, and resume
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Network and cache")]
    pub stall_timeout: u16,
    /// Take everything from a file that `kcompile fetch --bundle` wrote, then as without it
    #[arg(long, value_name = "FILE", help_heading = "Network and cache")]
    pub from_bundle: Option<Utf8PathBuf>,
    /// No network: from the cache, or an error
    #[arg(long, help_heading = "Network and cache")]
    pub offline: bool,
    /// Where sources and builds are kept [env: KCOMPILE_CACHE_DIR] [default: kcompile in the XDG cache directory]
    #[arg(long, value_name = "DIR", help_heading = "Network and cache")]
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

    /// Then boot it in QEMU, as `kcompile boot` does, and fail where something is not in order
    #[arg(long, help_heading = "Images")]
    pub boot: bool,

    /// How progress is shown
    #[arg(long, value_name = "KIND", default_value = "auto", help_heading = "Output")]
    pub progress: Progress,
    /// Write where time and bytes went beside the receipt: a page (html) or numbers (json), or both
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "html", value_delimiter = ',', help_heading = "Output")]
    pub timings: Vec<Form>,
    /// Print the plan and stop; touches nothing (same as `kcompile plan`)
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
    /// Print the plan as JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Options of `build` that make no difference to a source: `fetch` takes them, and does not show them.
const NOT_OF_FETCH: &[&str] = &[
    "config",
    "fragment",
    "set",
    "require",
    "output",
    "legacy",
    "no_modules",
    "also_at",
    "modules_layout",
    "compression",
    "boot",
    "cc",
    "llvm",
    "cross_compile",
    "rebuild",
    "launcher",
    "sandbox",
    "timings",
];

/// The options of `fetch`.
#[derive(Clone, Debug, Args)]
#[command(mut_args(|arg| match NOT_OF_FETCH.contains(&arg.get_id().as_str()) {
    true => arg.hide(true),
    false => arg,
}))]
#[command(after_help = "All other options of `build` are taken, too, and make no difference to the source.")]
pub struct FetchArgs {
    /// Those of `build`.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Also write everything that a later --offline build needs into this file, for --from-bundle
    #[arg(long, value_name = "FILE", help_heading = "Network and cache")]
    pub bundle: Option<Utf8PathBuf>,
}

/// The options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Kernel versions [default: any kernel of the catalog]
    #[arg(value_name = "VERSION")]
    pub versions: Vec<String>,
    /// amd64 or arm64 [default: the host's]
    #[arg(long, value_name = "ARCH")]
    pub arch: Vec<Arch>,
    /// For --llvm
    #[arg(long)]
    pub llvm: bool,
    /// Run the install command
    #[arg(long)]
    pub install: bool,
    /// Look through the cache instead, and remove what a broken disk, a full one or a power cut has left there
    #[arg(long, conflicts_with_all = ["versions", "arch", "llvm", "install"])]
    pub cache: bool,
    /// The cache [env: KCOMPILE_CACHE_DIR] [default: kcompile in the XDG cache directory]
    #[arg(long, value_name = "DIR", requires = "cache")]
    pub cache_dir: Option<Utf8PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Sources (trees with the builds in them, archives, repositories, partial downloads)
    #[arg(long)]
    pub cache: bool,
    /// Build directories, and the packed images that the cache keeps of each plan
    #[arg(long)]
    pub builds: bool,
    /// Only what was not used for so long: 12h, 30d, 4w
    #[arg(long, value_name = "AGE", value_parser = crate::ops::clean::parse_age)]
    pub older_than: Option<std::time::Duration>,
    /// Say what would be removed, and leave it
    #[arg(long)]
    pub dry_run: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// The cache [env: KCOMPILE_CACHE_DIR] [default: kcompile in the XDG cache directory]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<Utf8PathBuf>,
}

/// The options of `check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub struct CheckArgs {
    /// A .config file, an OCI layout as LAYOUT[:TAG], or a kernel version of the catalog
    #[arg(value_name = "CONFIG|LAYOUT|VERSION")]
    pub subject: String,
    /// The profiles, after what is checked; repeatable [default: the flavor's own]
    #[arg(long = "for", value_name = "PROFILE", num_args = 1.., value_delimiter = ',')]
    pub profiles: Vec<String>,
    /// The hypervisor.
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    /// amd64 or arm64 [default: what the config or image says; the host's for a version]
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<Arch>,
    /// The kernel's version [default: what the config's header says]
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<KernelVersion>,
    /// Also show what is met, left open, or for other kernels
    #[arg(long)]
    pub all: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Your own catalog, configs and profiles over the built-in ones
    #[arg(long, value_name = "DIR")]
    pub configs: Option<Utf8PathBuf>,
}

/// A path inside an image: relative, without `.` and `..`.
fn image_path(text: &str) -> Result<String, String> {
    let path = text.trim_start_matches('/');
    let plain = |part: camino::Utf8Component<'_>| matches!(part, camino::Utf8Component::Normal(_));
    let fits = !path.is_empty() && !path.ends_with('/') && !path.contains("//") && !path.contains('\0');
    match fits
        && camino::Utf8Path::new(path).components().all(plain)
        && !path.split('/').any(|part| part == ".")
    {
        true => Ok(path.to_owned()),
        false => Err("expected the path of a file inside the image, such as boot/vmlinux".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn timings_take_a_form_or_none() {
        let forms = |words: &str| Cli::try_parse_from(words.split(' ')).unwrap().build.timings;
        assert_eq!(forms("kcompile 6.1"), []);
        assert_eq!(forms("kcompile --timings 6.1"), [Form::Html]);
        assert_eq!(forms("kcompile --timings=html,json 6.1"), [Form::Html, Form::Json]);
    }

    #[test]
    fn paths_in_images_are_plain() {
        assert_eq!(image_path("/boot/vmlinux").unwrap(), "boot/vmlinux");
        for wrong in ["", "/", "../x", "a/../b", "a/", "a//b", "./a"] {
            assert!(image_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_word_build_may_be_left_out() {
        let short = Cli::try_parse_from(["kcompile", "6.1", "--fc"]).unwrap();
        let long = Cli::try_parse_from(["kcompile", "build", "6.1", "--fc"]).unwrap();
        assert!(short.command.is_none() && short.build.hypervisor.fc);
        assert!(matches!(long.command, Some(Command::Build(args)) if args.hypervisor.fc));
        assert!(Cli::try_parse_from(["kcompile", "6.1", "--fc", "--ch"]).is_err());
    }
}
