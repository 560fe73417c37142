//! `kcompile diff`: compares two images.

use crate::cli::output::{print, print_painted, reference, render_json};
use crate::cli::output_diff::{cves_text, text};
use crate::cli::paint;
use crate::cli::resolve::{CatalogFiles, cache_dir};
use crate::cli::target::{architectures, locate, one_image};
use crate::cve::{CveChanges, Join, Subject};
use crate::host::Host;
use crate::image::inspect::ReadCache;
use crate::image::size_limits::SizeLimits;
use crate::image::{diff, inspect};
use crate::kconfig::explain::Renames;
use crate::kernel::Arch;
use crate::oci::read::Image;
use crate::ops::cve_records;
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use crate::util::fs::write_atomically;
use camino::Utf8PathBuf;
use clap::Args;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile diff out/flintlock-kernel:6.1.7 out/flintlock-kernel:6.1.8
  kcompile diff old/flintlock-kernel out/flintlock-kernel --json
  kcompile diff old/flintlock-kernel out/flintlock-kernel --html diff.html
  kcompile diff main/flintlock-kernel out/flintlock-kernel --max-bin-size 48MB

Exit codes: 0 compared (equal or not), 1 SECOND is larger than a size limit, 2 no such layout or tag, \
3 layout is damaged or not valid.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DiffArgs {
    /// Image as LAYOUT[:TAG]
    #[arg(value_name = "FIRST")]
    pub first: Utf8PathBuf,
    /// Image to compare it with
    ///
    /// Size limits apply to this image.
    #[arg(value_name = "SECOND")]
    pub second: Utf8PathBuf,
    #[command(flatten)]
    pub size_limits: SizeLimits,
    /// Architecture, if a tag has several
    ///
    /// It is amd64 or arm64. The default is the other image's, or else the host's.
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<Arch>,
    /// Also write the comparison to FILE, as HTML
    ///
    /// The page has the sizes by directory and the settings.
    #[arg(long, value_name = "FILE")]
    pub html: Option<Utf8PathBuf>,
    /// Print JSON, with complete lists
    #[arg(long)]
    pub json: bool,
}

/// Opens both images. If a tag has several architectures, both images have the same one.
fn images(args: &DiffArgs, host: &Host, reporter: &Reporter) -> Result<(Image, Image)> {
    let sides = [&args.first, &args.second].map(|reference| locate(reference, host));
    let found = [architectures(&sides[0])?, architectures(&sides[1])?];
    let mut only = found.iter().filter(|found| found.len() == 1).map(|found| found[0].clone());
    let own = host.arch.map(|arch| arch.name().to_owned());
    let arch = args.arch.map(|arch| arch.name().to_owned()).or_else(|| only.next()).or(own);
    let images = (one_image(&sides[0], arch.as_deref())?, one_image(&sides[1], arch.as_deref())?);
    if found.iter().any(|found| found.len() > 1) {
        reporter.note(&format!("comparing the images for {} (see --arch)", arch.unwrap_or_default()));
    }
    Ok(images)
}

/// Returns the CVEs that lie between two kernels, if the cache has records and both images list their compiled
/// files. Asks no server.
fn cves(images: &(Image, Image), host: &Host) -> Result<Option<CveChanges>> {
    let Some(index) = cache_dir(None, host).ok().and_then(|dir| cve_records::cached(&dir)) else {
        return Ok(None);
    };
    let mut targets = Vec::new();
    for image in [&images.0, &images.1] {
        match inspect::compiled_files(image, &mut ReadCache::default())? {
            Some((_, files)) => targets.push(files),
            None => return Ok(None),
        }
    }
    let joins =
        targets.iter().map(|files| Join::new(Subject { version: files.version, compiled: Some(files) }));
    let found: Vec<_> = joins.map(|join| join.assess(&index)).collect();
    Ok(Some(CveChanges::between(&found[0], &found[1])))
}

pub fn diff(args: &DiffArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let renames = Renames::read(&CatalogFiles::read(None, host)?.library)?;
    let images = images(args, host, reporter)?;
    let found = (inspect::inspect(&images.0)?, inspect::inspect(&images.1)?);
    let difference = diff::diff((&images.0, &images.1), (&found.0, &found.1), &renames)?;
    if let Some(path) = &args.html {
        let name = |image: &Image| reference(&image.layout, image.tag.as_deref(), host);
        let names = [name(&images.0), name(&images.1)];
        let page = diff::page(&difference, (&found.0, &found.1), [&names[0], &names[1]]);
        write_atomically(&host.absolute(path), page.as_bytes())?;
    }
    let exceeded = args.size_limits.exceeded(&found.1);
    let cves = cves(&images, host)?;
    if args.json {
        let mut value = serde_json::to_value(&difference).expect("only string keys");
        value["over_budget"] = exceeded.clone().into();
        if let Some(cves) = &cves {
            value["cves"] = serde_json::to_value(cves).expect("only string keys");
        }
        print(&render_json(&value))?;
    } else {
        let text = text(&difference, host) + &cves.as_ref().map_or_else(String::new, cves_text);
        print_painted(&text, paint::difference)?;
    }
    if exceeded.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Error::build(exceeded.join("; "))) }
}
