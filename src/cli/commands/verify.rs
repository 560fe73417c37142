//! `kcompile verify`: its words, and what it prints.

use crate::catalog::Library;
use crate::cli::args::{BuildArgs, BuildCommand};
use crate::cli::output::{PrintedArray, print, reference, row};
use crate::cli::resolve::{CatalogFiles, cache_dir, requests, run};
use crate::cli::target::one_image;
use crate::host::Host;
use crate::image::inspect::{self, ReceiptFound};
use crate::image::pack::PackedImage;
use crate::image::receipt::Known;
use crate::image::size_limits::Budget;
use crate::image::verify::{self, Check, Outcome, Verified, VerifyCache};
use crate::kconfig::explain::Renames;
use crate::oci::read;
use crate::ops::{rebuild, reuse};
use crate::report::{Progress, Report};
use crate::util::error::{Error, Kind, Result};
use crate::util::text::{printable, without_secrets};
use camino::Utf8Path;
use camino::Utf8PathBuf;
use clap::Args;
use clap::Parser as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile verify out/firecracker-kernel-bin-amd64:6.1.7
  kcompile verify out/*-kernel-*
  kcompile verify out/firecracker-kernel-bin-amd64:6.1.7 --rebuild
  kcompile verify out/*-kernel-* --max-bin-size 48MB --max-modules-size 12MB

Exit codes: 0 all is as it should be, 1 something is whole but not what it should be, 2 no such layout or
tag, 3 a layout is damaged or breaks a rule.";

/// The options of `verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Layouts, or one image of a layout as LAYOUT:TAG
    #[arg(value_name = "LAYOUT[:TAG]", required = true)]
    pub layouts: Vec<Utf8PathBuf>,
    /// How large it may be.
    #[command(flatten)]
    pub budget: Budget,
    /// Build it again by the receipt beside it, from nothing, and compare the digests. It runs what the
    /// receipt says, in this directory: only for receipts that you trust
    #[arg(long, conflicts_with = "json")]
    pub rebuild: bool,
    /// How progress of --rebuild is shown
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub progress: Progress,
    /// As JSON: an array with what was checked of each image
    #[arg(long)]
    pub json: bool,
}

pub fn verify(args: &VerifyArgs, host: &Host, report: &Report) -> Result<ExitCode> {
    // Of several images that one receipt is attached to, each has a copy.
    let mut receipts = BTreeMap::new();
    let (mut damaged, mut wrong, mut count) = (false, false, 0);
    let mut array = PrintedArray::default();
    let mut cache = VerifyCache::default();
    let verified = args.layouts.iter().try_for_each(|given| {
        let (layout, tag) = read::locate(&host.absolute(given));
        verify::verify(&layout, tag.as_deref(), &mut cache, |mut verified| {
            verified.hold_to(&args.budget);
            damaged |= verified.is_damaged();
            wrong |= !verified.is_right();
            count += 1;
            if let Some(ReceiptFound::Of { path, .. }) = &verified.receipt {
                let output = verified.layout.parent().unwrap_or(Utf8Path::new("/")).to_owned();
                let name = inspect::attached_in(path)
                    .map_or(path.as_str(), |_| path.file_name().unwrap_or_default());
                receipts.insert(name.to_owned(), (path.clone(), output));
            }
            match (args.json, count) {
                (true, _) => array.add(&json(&verified)),
                (false, 1) => print(&text(&verified, host)),
                (false, _) => print(&format!("\n{}", text(&verified, host))),
            }
        })
    });
    array.close()?;
    verified?;
    if args.rebuild && !wrong {
        if receipts.is_empty() {
            return Err(Error::usage("there is no receipt of any of these images beside them")
                .hint("--rebuild goes by the receipt: keep it, or the -attest layout, with the layouts"));
        }
        for (receipt, output) in receipts.values() {
            wrong |= !rebuild(receipt, output, host, report)?;
        }
    }
    Ok(match (damaged, wrong) {
        (true, _) => ExitCode::from(3),
        (false, true) => ExitCode::from(1),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Builds by this receipt, and compares each image, which lies in `output`. Are they all the same?
fn rebuild(receipt: &Utf8Path, output: &Utf8Path, host: &Host, report: &Report) -> Result<bool> {
    let known = Known::read(receipt)?.ok_or_else(|| Error::usage(format!("{receipt} is gone")))?;
    if let Some(typed) = reuse::typed_command(&known, &cache_dir(None, host)?) {
        let host = Host { cwd: typed.cwd, ..host.clone() };
        return rebuild_by(typed.words, &known, receipt, output, &host, report);
    }
    let words = shlex::split(&known.command).unwrap_or_default();
    let rebuilt = rebuild_by(words, &known, receipt, output, host, report);
    rebuilt.map_err(|error| match error.kind {
        Kind::Usage => error.hint(format!(
            "the receipt names no directories: run it where its files lie; its command is {}",
            known.command
        )),
        _ => error,
    })
}

/// The same by the words of its command, in the working directory of `host`.
fn rebuild_by(
    words: Vec<String>,
    known: &Known,
    receipt: &Utf8Path,
    output: &Utf8Path,
    host: &Host,
    report: &Report,
) -> Result<bool> {
    let command = shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default();
    let words = words.into_iter().skip(1).skip_while(|word| word == "build");
    let words = std::iter::once("kcompile".to_owned()).chain(words);
    let not_a_build = |why: String| {
        Error::usage(format!("{receipt}: its command cannot be run again: {why}"))
            .hint(format!("it is: {}", known.command))
    };
    let parsed = BuildCommand::try_parse_from(words).map_err(|why| not_a_build(why.to_string()))?;
    let BuildArgs { versions, mut options, .. } = parsed.build;
    // What puts itself before the compiler changes when things are compiled, never what comes out.
    options.compile.launcher = None;
    let files = CatalogFiles::read(options.catalog.configs.as_deref(), host)?;
    let run = run(&options, &files, host, report)?;
    // A word that is no version may be the name of another command.
    let requests = requests(&versions.versions, &options, &run)
        .map_err(|error| if error.kind == Kind::Usage { not_a_build(error.to_string()) } else { error })?;
    let rebuilt = rebuild::rebuild(known, rebuild::request_of(known, &requests)?, &run)?;
    print(&without_secrets(&format!("\nrebuilt in a fresh directory\n  $ {command}\n")))?;
    let mut all_equal = true;
    for image in &rebuilt.images {
        let name = image.written.layout.file_name().unwrap_or_default();
        let Some(recorded) = known.images.iter().find(|one| one.layout == name) else { continue };
        let is_equal = recorded.digest == image.written.digest.oci();
        all_equal &= is_equal;
        let verdict = if is_equal { "ok" } else { "FAILED" };
        print(&format!(
            "  {verdict:7}  {name}:{}\n           {}\n",
            image.written.tag,
            image.written.digest.oci()
        ))?;
        if !is_equal {
            print(&why_not(&output.join(name), image, &files.library, host)?)?;
        }
    }
    for difference in &rebuilt.plan_differences {
        print(&printable(&format!("\nthe plan differs: {difference}\n")))?;
    }
    Ok(all_equal)
}

/// How the image that was recorded differs from the one that came out now.
fn why_not(recorded: &Utf8Path, again: &PackedImage, library: &Library, host: &Host) -> Result<String> {
    let tagged =
        |layout: &Utf8Path| one_image(&Utf8PathBuf::from(format!("{layout}:{}", again.written.tag)), None);
    let images = (tagged(recorded)?, tagged(&again.written.layout)?);
    let found = (inspect::inspect(&images.0)?, inspect::inspect(&images.1)?);
    let difference =
        crate::image::diff::diff((&images.0, &images.1), (&found.0, &found.1), &Renames::read(library)?)?;
    Ok(printable(&format!("\n{}", crate::cli::output_diff::text(&difference, host))))
}

fn json(verified: &Verified) -> serde_json::Value {
    let mut value = serde_json::to_value(verified).expect("only string keys");
    value["ok"] = verified.is_right().into();
    value
}

fn text(verified: &Verified, host: &Host) -> String {
    let mut text = reference(&verified.layout, verified.tag.as_deref(), host);
    if let Some(arch) = &verified.arch {
        write!(text, " on {}", printable(arch)).expect("writing to a string");
    }
    writeln!(text, "\n  {}", printable(&verified.digest)).expect("writing to a string");
    for Check { name, outcome } in &verified.checks {
        let (verdict, details) = match outcome {
            Outcome::Holds { detail } => ("ok", std::slice::from_ref(detail)),
            Outcome::NotSaid { detail } => ("-", std::slice::from_ref(detail)),
            Outcome::Fails { faults } => ("FAILED", &faults[..]),
            Outcome::Damaged { why } => ("DAMAGED", std::slice::from_ref(why)),
            Outcome::Refused { why } => ("REFUSED", std::slice::from_ref(why)),
        };
        for (index, detail) in details.iter().enumerate() {
            let (verdict, name) = if index == 0 { (verdict, name.title()) } else { ("", "") };
            text.push_str(&row(["", verdict, name, &printable(detail)], [0, 7, 11, 57]));
        }
    }
    text
}
