//! `kcompile diff`: its words, and what it prints.

use crate::cli::output::{print, render_json};
use crate::cli::output_diff::text;
use crate::cli::resolve::CatalogFiles;
use crate::cli::target::{architectures, one_image};
use crate::host::Host;
use crate::image::size_limits::SizeLimits;
use crate::image::{diff, inspect};
use crate::kconfig::explain::Renames;
use crate::kernel::Arch;
use crate::oci::read::Image;
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use crate::util::text::escape_control;
use camino::Utf8PathBuf;
use clap::Args;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile diff out/firecracker-kernel-bin-amd64:6.1.7 out/firecracker-kernel-bin-amd64:6.1.8
  kcompile diff old/firecracker-kernel-modules-amd64 out/firecracker-kernel-modules-amd64 --json
  kcompile diff main/firecracker-kernel-bin-amd64 out/firecracker-kernel-bin-amd64 --max-bin-size 48MB

Exit codes: 0 they were compared, be they equal or not, 1 the second is over a budget, 2 no such layout
or tag, 3 a layout is damaged or breaks a rule.";

/// The options of `diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// An image: LAYOUT:TAG, or a layout that has only one
    #[arg(value_name = "FIRST")]
    pub first: Utf8PathBuf,
    /// The image that it is compared with, and that budgets are for
    #[arg(value_name = "SECOND")]
    pub second: Utf8PathBuf,
    /// How large the second may be.
    #[command(flatten)]
    pub size_limits: SizeLimits,
    /// Of a tag that stands for several architectures, the image for this one: amd64 or arm64 [default: that of the
    /// other side, else this machine's]
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<Arch>,
    /// As JSON, with all names
    #[arg(long)]
    pub json: bool,
}

/// Both images. Where a tag stands for several architectures, it is the same one on both sides.
fn images(args: &DiffArgs, host: &Host, reporter: &Reporter) -> Result<(Image, Image)> {
    let sides = [&args.first, &args.second].map(|reference| host.absolute(reference));
    let found = [architectures(&sides[0])?, architectures(&sides[1])?];
    let mut only = found.iter().filter(|found| found.len() == 1).map(|found| found[0].clone());
    let own = host.arch.map(|arch| arch.name().to_owned());
    let arch = args.arch.map(|arch| arch.name().to_owned()).or_else(|| only.next()).or(own);
    let images = (one_image(&sides[0], arch.as_deref())?, one_image(&sides[1], arch.as_deref())?);
    if found.iter().any(|found| found.len() > 1) {
        reporter.note(&format!("compared for {}: choose with --arch", arch.unwrap_or_default()));
    }
    Ok(images)
}

pub fn diff(args: &DiffArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let renames = Renames::read(&CatalogFiles::read(None, host)?.library)?;
    let images = images(args, host, reporter)?;
    let found = (inspect::inspect(&images.0)?, inspect::inspect(&images.1)?);
    let difference = diff::diff((&images.0, &images.1), (&found.0, &found.1), &renames)?;
    let exceeded = args.size_limits.exceeded(&found.1);
    print(&match args.json {
        true => {
            let mut value = serde_json::to_value(&difference).expect("only string keys");
            value["over_budget"] = exceeded.clone().into();
            render_json(&value)
        }
        false => escape_control(&text(&difference, host)),
    })?;
    match exceeded.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => {
            reporter.error(&Error::build(exceeded.join("; ")));
            Ok(ExitCode::from(1))
        }
    }
}
