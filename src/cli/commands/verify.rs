//! `kcompile verify`: verifies images, and optionally rebuilds them.

use crate::catalog::ConfigLibrary;
use crate::cli::args::{BuildArgs, BuildCommand, ProgressArgs};
use crate::cli::output::{ItemsPrinter, print, print_painted, reference, row};
use crate::cli::paint;
use crate::cli::resolve::{CatalogFiles, cache_dir, context, host_with_tools, requests};
use crate::cli::target::{one_image, references};
use crate::host::Host;
use crate::image::inspect::{self, ReceiptState};
use crate::image::pack::PackedImage;
use crate::image::receipt::ReceiptFile;
use crate::image::size_limits::SizeLimits;
use crate::image::verify::{self, Check, CheckResult, VerifyCache, VerifyReport};
use crate::kconfig::explain::Renames;
use crate::oci::read::Reference;
use crate::ops::{rebuild, reuse};
use crate::report::Reporter;
use crate::util::error::{Error, Kind, Result};
use crate::util::text::{escape_control, redact_secrets};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Parser as _};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile verify out/firecracker-kernel-bin-amd64:6.1.7
  kcompile verify                           all images in out/
  kcompile verify images.tar:6.1.7          an image in an oci-archive
  kcompile verify out/firecracker-kernel-bin-amd64:6.1.7 --rebuild
  kcompile verify out/*-kernel-* --max-bin-size 48MB --max-modules-size 12MB

Exit codes: 0 ok, 1 an intact image fails a check, 2 no such layout or tag, 3 layout is damaged or not \
valid.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Layouts, or images as LAYOUT:TAG [default: all]
    ///
    /// LAYOUT@DIGEST, skopeo's oci:LAYOUT:TAG and the tar file of an oci-archive are accepted, too. The default is all
    /// layouts in the output directory.
    #[arg(value_name = "LAYOUT[:TAG]")]
    pub layouts: Vec<Utf8PathBuf>,
    #[command(flatten)]
    pub size_limits: SizeLimits,
    /// Rebuild the images and compare the digests
    ///
    /// This runs the command in the receipt of the images, from scratch and in this directory. Use it only with
    /// receipts that you trust.
    #[arg(long, conflicts_with = "json")]
    pub rebuild: bool,
    #[command(flatten)]
    pub progress: ProgressArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub fn verify(args: &VerifyArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    // Several images of one build have the same receipt, so it is keyed by its name.
    let mut receipts = BTreeMap::new();
    let (mut damaged, mut failed, mut count) = (false, false, 0);
    let mut items = ItemsPrinter::default();
    let mut cache = VerifyCache::default();
    let references = references(&args.layouts, host)?;
    let verified = references.iter().try_for_each(|Reference { layout, tag }| {
        verify::verify(layout, tag.as_deref(), &mut cache, |mut report| {
            report.check_size_limits(&args.size_limits);
            damaged |= report.is_damaged();
            failed |= !report.passes();
            count += 1;
            if let Some(ReceiptState::Matching { path, .. }) = &report.receipt {
                let output = report.layout.parent().unwrap_or(Utf8Path::new("/")).to_owned();
                let name = inspect::referrers_layout_of(path)
                    .map_or(path.as_str(), |_| path.file_name().unwrap_or_default());
                receipts.insert(name.to_owned(), (path.clone(), output));
            }
            if args.json {
                return items.add(&json(&report));
            }
            let separator = if count == 1 { "" } else { "\n" };
            print_painted(&format!("{separator}{}", text(&report, host)), paint::first_word)
        })
    });
    if args.json {
        items.finish(verified)?;
    } else {
        verified?;
    }
    if args.rebuild && !failed {
        if receipts.is_empty() {
            return Err(Error::usage("--rebuild: none of the images has a receipt beside it")
                .hint("keep the receipt or the -attest layout in the directory of the layouts"));
        }
        for (receipt, output) in receipts.values() {
            failed |= !rebuild(receipt, output, host, reporter)?;
        }
    }
    Ok(ExitCode::from(if damaged { 3 } else { u8::from(failed) }))
}

/// Rebuilds the images of a receipt and compares them with those in `output`. Returns whether all are equal.
fn rebuild(receipt: &Utf8Path, output: &Utf8Path, host: &Host, reporter: &Reporter) -> Result<bool> {
    let receipt_file =
        ReceiptFile::read(receipt)?.ok_or_else(|| Error::usage(format!("{receipt} was removed")))?;
    if let Some(typed_command) = reuse::typed_command(&receipt_file, &cache_dir(None, host)?) {
        let host = Host { cwd: typed_command.cwd, ..host.clone() };
        return rebuild_by(typed_command.args, &receipt_file, receipt, output, &host, reporter);
    }
    let args = shlex::split(&receipt_file.command).unwrap_or_default();
    let rebuilt = rebuild_by(args, &receipt_file, receipt, output, host, reporter);
    rebuilt.map_err(|error| match error.kind {
        Kind::Usage => error.hint(format!(
            "run this in the directory of the build, since receipts do not record directories; the command was: {}",
            receipt_file.command
        )),
        _ => error,
    })
}

/// Rebuilds with the command line `args`, in the working directory of `host`.
fn rebuild_by(
    args: Vec<String>,
    receipt_file: &ReceiptFile,
    receipt: &Utf8Path,
    output: &Utf8Path,
    host: &Host,
    reporter: &Reporter,
) -> Result<bool> {
    let command = shlex::try_join(args.iter().map(String::as_str)).unwrap_or_default();
    let args = args.into_iter().skip(1).skip_while(|word| word == "build");
    let args = std::iter::once("kcompile".to_owned()).chain(args);
    let not_a_build = |why: String| {
        Error::usage(format!("{receipt}: cannot run its command again: {why}"))
            .hint(format!("the command is: {}", receipt_file.command))
    };
    let parsed = BuildCommand::try_parse_from(args).map_err(|why| not_a_build(why.to_string()))?;
    let BuildArgs { versions, mut options, .. } = parsed.build;
    // A launcher changes the speed of a build and not its output.
    options.compile.remove_launcher();
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    let host = &host_with_tools(&options, &files, host, reporter)?;
    let ctx = context(&options, &files, host, reporter)?;
    // The first argument may be the name of another command, which is not a version.
    let requests = requests(&versions.versions, &options, &ctx)
        .map_err(|error| if error.kind == Kind::Usage { not_a_build(error.to_string()) } else { error })?;
    let rebuilt = rebuild::rebuild(receipt_file, rebuild::select_request(receipt_file, &requests)?, &ctx)?;
    print(&redact_secrets(&format!("\nrebuilt in an empty directory\n  $ {command}\n")))?;
    let mut all_equal = true;
    for image in &rebuilt.images {
        let name = image.written.layout.file_name().unwrap_or_default();
        let Some(recorded) = receipt_file.images.iter().find(|one| one.layout == name) else { continue };
        let is_equal = recorded.digest == image.written.digest.oci();
        all_equal &= is_equal;
        let status = if is_equal { "ok" } else { "FAILED" };
        print(&format!(
            "  {status:7}  {name}:{}\n           {}\n",
            image.written.tag,
            image.written.digest.oci()
        ))?;
        if !is_equal {
            print(&describe_difference(&output.join(name), image, &files.library, host)?)?;
        }
    }
    for difference in &rebuilt.plan_differences {
        print(&escape_control(&format!("\nthe plan differs: {difference}\n")))?;
    }
    Ok(all_equal)
}

/// Describes how the rebuilt image differs from the recorded one.
fn describe_difference(
    recorded: &Utf8Path,
    again: &PackedImage,
    library: &ConfigLibrary,
    host: &Host,
) -> Result<String> {
    let tagged = |layout: &Utf8Path| {
        one_image(&Reference { layout: layout.to_owned(), tag: Some(again.written.tag.clone()) }, None)
    };
    let images = (tagged(recorded)?, tagged(&again.written.layout)?);
    let found = (inspect::inspect(&images.0)?, inspect::inspect(&images.1)?);
    let difference =
        crate::image::diff::diff((&images.0, &images.1), (&found.0, &found.1), &Renames::read(library)?)?;
    Ok(escape_control(&format!("\n{}", crate::cli::output_diff::text(&difference, host))))
}

fn json(report: &VerifyReport) -> serde_json::Value {
    let mut value = serde_json::to_value(report).expect("only string keys");
    value["ok"] = report.passes().into();
    value
}

fn text(report: &VerifyReport, host: &Host) -> String {
    let mut text = reference(&report.layout, report.tag.as_deref(), host);
    if let Some(arch) = &report.arch {
        write!(text, " on {}", escape_control(arch)).expect("writing to a string");
    }
    writeln!(text, "\n  {}", escape_control(&report.digest)).expect("writing to a string");
    for Check { name, result } in &report.checks {
        let (status, details) = match result {
            CheckResult::Passed { detail } => ("ok", std::slice::from_ref(detail)),
            CheckResult::NotApplicable { detail } => ("-", std::slice::from_ref(detail)),
            CheckResult::Failed { problems } => ("FAILED", &problems[..]),
            CheckResult::Damaged { why } => ("DAMAGED", std::slice::from_ref(why)),
            CheckResult::Rejected { why } => ("REFUSED", std::slice::from_ref(why)),
        };
        for (index, detail) in details.iter().enumerate() {
            let (status, name) = if index == 0 { (status, name.title()) } else { ("", "") };
            text.push_str(&row(["", status, name, &escape_control(detail)], [0, 7, 11, 57]));
        }
    }
    text
}
