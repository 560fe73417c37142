//! `kcompile extract`: writes plain files out of an image.

use crate::boot::target::Overrides;
use crate::cache::Cache;
use crate::cli::flavor_args::FlavorArgs;
use crate::cli::output::print;
use crate::cli::resolve::cache_dir;
use crate::cli::target::{Target, images_of_version, one_image};
use crate::host::Host;
use crate::image::extract::Images;
use crate::kernel::{Arch, Variant};
use crate::oci::read::Reference;
use crate::ops::context::display_path;
use crate::ops::debug_files;
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use crate::util::text::pluralize;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile extract 6.1 --fc                          write ./vmlinux
  kcompile extract 6.1 --fc -o kernels/vmlinux-6.1 --modules rootfs
  kcompile extract out/firecracker-kernel-bin-amd64:6.1.7 --config 6.1.config
  kcompile extract 6.1 --fc --debug debug            vmlinux for gdb, System.map

Exit codes: 0 ok, 1 cannot write a file, 2 no such image, no such part or file exists, 3 image is not valid.";

/// The options of `extract`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ExtractArgs {
    /// Image as LAYOUT[:TAG], or a version that was built
    ///
    /// A version or series means the newest such image in the output directory.
    #[arg(value_name = "IMAGE|VERSION")]
    pub image: String,
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    /// Variant of a version: node or minimal
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<Variant>,
    #[arg(
        long, value_name = "ARCH", help = "Architecture, if a tag has several", long_help = format!(
            "Architecture of the image if there are several: {} [default: the host's]", Arch::choices()
        )
    )]
    pub arch: Option<Arch>,
    /// Write the kernel to FILE
    ///
    /// The default is its name in the image, if no other part is asked for.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<Utf8PathBuf>,
    /// Write the modules to DIR/lib/modules/RELEASE
    #[arg(long, value_name = "DIR")]
    pub modules: Option<Utf8PathBuf>,
    /// Write the final .config to FILE
    #[arg(long, value_name = "FILE")]
    pub config: Option<Utf8PathBuf>,
    /// Write unstripped vmlinux and System.map to DIR
    ///
    /// They are copied from the build directory in the cache.
    #[arg(long, value_name = "DIR")]
    pub debug: Option<Utf8PathBuf>,
    /// Directory with the image of a version [default: out]
    #[arg(long, value_name = "DIR")]
    pub images: Option<Utf8PathBuf>,
    /// Cache directory [env: KCOMPILE_CACHE_DIR]
    ///
    /// The default is `kcompile` in $XDG_CACHE_HOME or ~/.cache.
    #[arg(long, value_name = "DIR", requires = "debug")]
    pub cache_dir: Option<Utf8PathBuf>,
}

pub fn extract(args: &ExtractArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let images = open(args, host, reporter)?;
    let print_path = |path: &Utf8Path| print(&format!("{}\n", display_path(path, host)));
    if let Some(to) = kernel_output(args, &images)? {
        let to = host.absolute(&to);
        images.kernel(&to)?;
        print_path(&to)?;
    }
    if let Some(dir) = &args.modules {
        let written = images.modules(&host.absolute(dir))?;
        if written.skipped > 0 {
            let skipped = pluralize(written.skipped, "link or special file", "links and special files");
            reporter.note(&format!("{skipped} among the modules: not extracted"));
        }
        print_path(&written.directory)?;
    }
    if let Some(to) = &args.config {
        let to = host.absolute(to);
        images.config(&to)?;
        print_path(&to)?;
    }
    if let Some(dir) = &args.debug {
        let info = &images.kernel_image()?.info;
        let (path, _) = info.scan.main_kernel().expect("the image has a kernel");
        let kernel = info.kernels.iter().find(|kernel| kernel.path == *path);
        let build_id = kernel.and_then(|kernel| kernel.build_id.as_deref()).ok_or_else(|| {
            Error::usage("--debug: the kernel has no build id, by which its build directory is found")
        })?;
        let cache = Cache::open(&cache_dir(args.cache_dir.as_deref(), host)?, host.uid)?;
        for path in debug_files::copy(build_id, &cache, &host.absolute(dir))? {
            print_path(&path)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns where to write the kernel, if it is asked for.
fn kernel_output(args: &ExtractArgs, images: &Images) -> Result<Option<Utf8PathBuf>> {
    if args.output.is_some() || args.modules.is_some() || args.config.is_some() || args.debug.is_some() {
        return Ok(args.output.clone());
    }
    let (path, _) = images.kernel_image()?.info.scan.main_kernel().expect("the image has a kernel");
    Ok(Utf8Path::new(path).file_name().map(Utf8PathBuf::from))
}

fn open(args: &ExtractArgs, host: &Host, reporter: &Reporter) -> Result<Images> {
    match Target::of(&args.image, host)? {
        Target::Layout(layout, tag) => {
            let reference = Reference { layout, tag };
            let arch = args.arch.or(host.arch).map(Arch::name);
            return Images::open(one_image(&reference, arch)?);
        }
        Target::File(path) => {
            return Err(Error::usage(format!("{path} is not an OCI layout"))
                .hint("give an image as LAYOUT[:TAG], or a version"));
        }
        Target::Version => {}
    }
    let overrides = Overrides { flavor: args.hypervisor.flavor(), arch: args.arch };
    let found = images_of_version(&args.image, args.variant, args.images.as_deref(), overrides, host)?;
    found.notes.iter().for_each(|note| reporter.note(note));
    Images::of(found.kernel, found.modules)
}
