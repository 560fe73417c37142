//! `kcompile ccache`: the compiler cache as an image, for machines that are thrown away after their work.

use crate::cli::output::{line, print};
use crate::host::{self, Host};
use crate::oci::annotations::{DESCRIPTION, TITLE};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::{Encoder, ImageSpec, read, tags};
use crate::ops::ccache_image::{self, Limit};
use crate::report::{Progress, Reporter};
use crate::util::error::{Error, Result};
use crate::util::text::{format_size, parse_age, parse_size, pluralize};
use camino::Utf8Path;
use camino::Utf8PathBuf;
use clap::Args;
use clap::Subcommand;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  kcompile 6.1 --fc --launcher ccache
  kcompile ccache export oci:warm/ccache:6.1 --max-size 500MB
  skopeo copy oci:warm/ccache:6.1 docker://ghcr.io/foobar/kernel-ccache:6.1

  skopeo copy docker://ghcr.io/foobar/kernel-ccache:6.1 oci:warm/ccache:6.1
  kcompile ccache import oci:warm/ccache:6.1
  kcompile 6.1 --fc --launcher ccache              compiles next to nothing

What is exported is the whole cache of ccache (CCACHE_DIR), whatever was compiled into it: use a cache of its own for what
is published. What is imported decides what the compiler is said to have made: take it only from where you would take
a compiler.

Exit codes: 0 ok, 1 a file could not be written, 2 usage, nothing to export, 3 the image holds anything but
undamaged entries, 4 ccache is not installed.";

/// The options of `ccache`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CcacheArgs {
    #[command(subcommand)]
    action: Action,
    /// How progress is shown
    #[arg(long, value_name = "KIND", default_value = "auto", global = true)]
    pub progress: Progress,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write what ccache has compiled, the newest first, as an image into a layout
    Export(ExportArgs),
    /// Give ccache what an image holds that it has not compiled itself
    Import(ImportArgs),
}

/// The options of `ccache export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The layout and the tag of the image: oci:warm/ccache:6.1
    #[arg(value_name = "oci:DIR:TAG")]
    image: String,
    /// No more than so many bytes of entries: 500MB, 2GB
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = parse_size)]
    max_size: u64,
    /// Only entries that were used so recently: 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    used_within: Option<Duration>,
}

/// The options of `ccache import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The layout and the tag of the image: oci:warm/ccache:6.1
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
    let (path, tag) = reference(&args.image, host);
    let tag = tag.filter(|tag| tags::is_registry_tag(tag)).ok_or_else(|| {
        Error::usage(format!("{}: no tag", args.image)).hint("give one at the end: oci:warm/ccache:6.1")
    })?;
    let (Some(output), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::usage(format!("{path} is no place for a layout")));
    };
    let arch = host.own_arch()?;
    let annotations = BTreeMap::from([
        (TITLE.to_owned(), "ccache".to_owned()),
        (DESCRIPTION.to_owned(), "what ccache has compiled, for kcompile ccache import".to_owned()),
    ]);
    let spec = ImageSpec { layout: name, tag, encoder: Encoder::Zstd, annotations: &annotations };
    let since = args.used_within.and_then(|age| host::clock().checked_sub(age));
    let limit = Limit { bytes: args.max_size, since };
    let image = ccache_image::export(
        &ccache_image::directory(host)?,
        limit,
        (output, spec),
        arch,
        host.cpus,
        reporter,
    )?;
    print(&line(&image.layout, tag, image.digest, host))?;
    Ok(ExitCode::SUCCESS)
}

pub fn import(args: &ImportArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let (path, tag) = reference(&args.image, host);
    let dir = ccache_image::directory(host)?;
    let image = LayoutReader::open(&path)?.open_image(tag, None)?;
    let imported = ccache_image::import(&image, &dir, host, reporter)?;
    print(&format!(
        "{dir}: {}, {}; {} before\n",
        pluralize(imported.new, "new entry", "new entries"),
        format_size(imported.bytes),
        pluralize(imported.known, "was there", "were there")
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `oci:DIR[:TAG]`, as skopeo has it; the word at the front may be left out.
fn reference<'a>(text: &'a str, host: &Host) -> (Utf8PathBuf, Option<&'a str>) {
    let (path, tag) = read::split_reference(text.strip_prefix("oci:").unwrap_or(text));
    (host.absolute(Utf8Path::new(path)), tag)
}
