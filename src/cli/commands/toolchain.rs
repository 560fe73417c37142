//! `kcompile toolchain`: makes, lists and checks toolchains.

use crate::cache::Cache;
use crate::cli::args::ProgressArgs;
use crate::cli::commands::doctor::{self, DoctorArgs};
use crate::cli::output::{line, print, render_items};
use crate::cli::resolve::cache_dir;
use crate::host::Host;
use crate::kernel::{Arch, ToolchainSpec};
use crate::ops::clean::{self, CleanItem};
use crate::ops::toolchain::{self, NewToolchain, Suite};
use crate::report::Reporter;
use crate::util::error::Result;
use crate::util::text::{format_age, format_size};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile toolchain make debian:bookworm -o oci:toolchains/debian:bookworm
  kcompile toolchain check oci:toolchains/debian:bookworm
  kcompile 6.1 --fc --toolchain oci:toolchains/debian:bookworm
  kcompile toolchain list

A toolchain is what builds a kernel: a root file system with a compiler and other tools, or a compiler of kernel.org. \
`make` needs mmdebstrap.

Exit codes: 0 ok, 1 cannot write a file, 2 usage error, 3 packages or image cannot be fetched, 4 toolchain or host \
lacks something.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ToolchainArgs {
    #[command(subcommand)]
    action: Action,
}

impl ToolchainArgs {
    pub fn progress(&self) -> ProgressArgs {
        match &self.action {
            Action::Make(args) => args.progress.clone(),
            Action::List(_) | Action::Check(_) => ProgressArgs::default(),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a toolchain from the packages of Debian or Ubuntu
    Make(MakeArgs),
    /// List the toolchains in the cache, with their last use
    List(ListArgs),
    /// Check whether a toolchain has all that a kernel needs
    Check(CheckArgs),
}

/// The options of `toolchain make`.
#[derive(Debug, Args)]
struct MakeArgs {
    /// Release, such as debian:bookworm or ubuntu:noble
    #[arg(value_name = "RELEASE")]
    suite: Suite,
    /// Layout and tag of the new image
    ///
    /// An example is oci:toolchains/debian:bookworm.
    #[arg(short, long, value_name = "oci:DIR:TAG")]
    output: String,
    #[arg(
        long,
        value_name = "ARCH",
        help = format!("Compile for ARCH too: {}; repeatable", Arch::choices()),
        long_help = "Add a cross compiler for this architecture. The programs themselves are for this machine."
    )]
    arch: Vec<Arch>,
    /// Archive of packages; repeatable
    ///
    /// URL is a URL or a line of sources.list, as mmdebstrap takes it. The default is the archive that apt uses on this
    /// host, if it is of the same distribution, or else that of mmdebstrap. A snapshot gives the same packages again later.
    #[arg(long = "mirror", value_name = "URL", value_parser = package_mirror)]
    package_mirrors: Vec<String>,
    /// Cache directory [env: KCOMPILE_CACHE_DIR]
    ///
    /// The default is `kcompile` in $XDG_CACHE_HOME or ~/.cache.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<Utf8PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// The options of `toolchain list`.
#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Cache directory [env: KCOMPILE_CACHE_DIR]
    ///
    /// The default is `kcompile` in $XDG_CACHE_HOME or ~/.cache.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<Utf8PathBuf>,
}

/// The options of `toolchain check`.
#[derive(Debug, Args)]
struct CheckArgs {
    /// Toolchain, as `kcompile build --toolchain` takes it
    #[arg(value_name = "SPEC")]
    spec: ToolchainSpec,
    #[arg(long, value_name = "ARCH", help = format!("Architecture: {}; repeatable", Arch::choices()))]
    arch: Vec<Arch>,
    /// Check for clang and the LLVM tools
    #[arg(long)]
    llvm: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Parses `--mirror`, which must not be an option of mmdebstrap.
fn package_mirror(text: &str) -> std::result::Result<String, String> {
    let schemes = ["http://", "https://", "file:", "copy:", "deb "];
    if schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(text.to_owned());
    }
    Err("expected a URL, or a line of sources.list such as `deb URL bookworm-security main`".into())
}

pub fn toolchain(args: &ToolchainArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    match &args.action {
        Action::Make(args) => make(args, host, reporter),
        Action::List(args) => list(args, host),
        Action::Check(args) => check(args, host, reporter),
    }
}

fn make(args: &MakeArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let cache = Cache::open(&cache_dir(args.cache_dir.as_deref(), host)?, host.uid)?;
    let reference = args.output.strip_prefix("oci:").unwrap_or(&args.output);
    let reference = host.absolute(Utf8Path::new(reference));
    let new = NewToolchain {
        suite: &args.suite,
        arches: &args.arch,
        mirrors: &args.package_mirrors,
        reference: &reference,
    };
    let image = toolchain::make(&new, &cache, host, reporter)?;
    print(&line(&image.layout, &image.tag, image.digest, host))?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ListArgs, host: &Host) -> Result<ExitCode> {
    let dir = cache_dir(args.cache_dir.as_deref(), host)?;
    // If there is no cache, this does not create one.
    let found = if dir.is_dir() { clean::toolchains(&Cache::open(&dir, host.uid)?)? } else { Vec::new() };
    if args.json {
        let items: Vec<Value> = found.iter().map(item).collect();
        print(&render_items(&items))?;
    } else {
        print(&found.iter().map(row).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the digest of a toolchain, which is the name of its entry.
fn digest(item: &CleanItem) -> String {
    format!("sha256:{}", item.path.file_name().unwrap_or_default())
}

fn item(item: &CleanItem) -> Value {
    json!({
        "toolchain": toolchain::spec_of(&item.path),
        "digest": digest(item),
        "path": item.path,
        "bytes": item.bytes,
        "unused_seconds": item.idle_time.as_secs(),
    })
}

fn row(item: &CleanItem) -> String {
    let spec = toolchain::spec_of(&item.path).unwrap_or_else(|| "-".to_owned());
    let (size, age, digest) = (format_size(item.bytes), format_age(item.idle_time), digest(item));
    format!("{size:>9}  used {age:>8} ago  {digest:.19}  {spec}\n")
}

fn check(args: &CheckArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let CheckArgs { spec, arch, llvm, json } = args;
    let args = DoctorArgs {
        toolchain: Some(spec.clone()),
        arch: arch.clone(),
        llvm: *llvm,
        json: *json,
        offline: true,
        ..DoctorArgs::default()
    };
    doctor::check_tools(&args, host, reporter)
}
