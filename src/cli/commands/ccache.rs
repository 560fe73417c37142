//! `kcompile ccache`: the cache of ccache as an image, for CI machines that keep no state.

use crate::cli::output::{line, print};
use crate::cli::target::{locate, one_image};
use crate::host::{self, Host};
use crate::ops::ccache_image::{self, Limit};
use crate::report::{Progress, Reporter};
use crate::util::error::Result;
use crate::util::text::{format_size, parse_age, parse_size, pluralize};
use camino::Utf8Path;
use clap::{Args, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  kcompile 6.1 --fc --launcher ccache
  kcompile ccache export oci:warm/ccache:6.1 --max-size 500MB
  skopeo copy oci:warm/ccache:6.1 docker://ghcr.io/foobar/kernel-ccache:6.1

  skopeo copy docker://ghcr.io/foobar/kernel-ccache:6.1 oci:warm/ccache:6.1
  kcompile ccache import oci:warm/ccache:6.1
  kcompile 6.1 --fc --launcher ccache              compiles almost nothing

`export` takes the newest entries of the whole cache (CCACHE_DIR), including those of other programs. If you publish \
the image, use a separate CCACHE_DIR. `import` trusts the image as much as a compiler: its entries become \
part of what you build.

Exit codes: 0 ok, 1 cannot write a file, 2 usage error or nothing to export, 3 image is damaged or is not \
a cache of ccache, 4 ccache is not installed.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CcacheArgs {
    #[command(subcommand)]
    action: Action,
    /// auto, bar, plain, json or quiet
    ///
    /// How to show progress. The default is auto.
    #[arg(long, value_name = "KIND", global = true)]
    pub progress: Option<Progress>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write the newest entries of ccache's cache to an image
    Export(ExportArgs),
    /// Add the entries of an image to ccache's cache
    Import(ImportArgs),
}

/// The options of `ccache export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Layout and tag of the image, such as oci:warm/ccache:6.1
    #[arg(value_name = "oci:DIR:TAG")]
    image: String,
    /// Export at most SIZE of entries
    ///
    /// SIZE is such as 500MB or 2GB.
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = parse_size)]
    max_size: u64,
    /// Export only entries used within AGE
    ///
    /// AGE is such as 12h or 7d.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    used_within: Option<Duration>,
}

/// The options of `ccache import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Layout and tag of the image, such as oci:warm/ccache:6.1
    #[arg(value_name = "oci:DIR[:TAG]")]
    image: String,
}

pub fn ccache(args: &CcacheArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    match &args.action {
        Action::Export(args) => export(args, host, reporter),
        Action::Import(args) => import(args, host, reporter),
    }
}

pub fn export(args: &ExportArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let reference = host.absolute(Utf8Path::new(args.image.strip_prefix("oci:").unwrap_or(&args.image)));
    let since = args.used_within.and_then(|age| host::clock().checked_sub(age));
    let limit = Limit { bytes: args.max_size, since };
    let image = ccache_image::write_layout(&reference, limit, host, reporter)?;
    print(&line(&image.layout, &image.tag, image.digest, host))?;
    Ok(ExitCode::SUCCESS)
}

pub fn import(args: &ImportArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let dir = ccache_image::directory(host)?;
    let image = one_image(&locate(Utf8Path::new(&args.image), host), None)?;
    let imported = ccache_image::import(&image, &dir, host, reporter)?;
    print(&format!(
        "{dir}: added {} ({}), already had {}\n",
        pluralize(imported.new, "entry", "entries"),
        format_size(imported.bytes),
        pluralize(imported.known, "entry", "entries")
    ))?;
    Ok(ExitCode::SUCCESS)
}
