//! The words of the command line. Help texts are part of the contract: they say the same as the
//! README, in the field's terms.

use crate::kbuild::sandbox;
use crate::kbuild::timings::Form;
use crate::kconfig;
use crate::kernel::{Arch, Flavor, SourceSpec};
use crate::oci::Compression;
use crate::plan::request::ModulesLayout;
use crate::report::Progress;
use camino::Utf8PathBuf;
use clap::Args;

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

    #[test]
    fn paths_in_images_are_plain() {
        assert_eq!(image_path("/boot/vmlinux").unwrap(), "boot/vmlinux");
        for wrong in ["", "/", "../x", "a/../b", "a/", "a//b", "./a"] {
            assert!(image_path(wrong).is_err(), "{wrong}");
        }
    }
}
