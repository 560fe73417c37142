//! `kcompile verify`: its words, and what it prints.

use super::commands::{print, printed_json};
use super::inspect::reference;
use crate::budget::Budget;
use crate::error::Result;
use crate::host::Host;
use crate::oci::read;
use crate::verify::{self, Check, Outcome, Verified};
use crate::words::{printable, wrapped};
use camino::Utf8PathBuf;
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile verify out/firecracker-kernel-bin-amd64:6.1.7
  kcompile verify out/*-kernel-*
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
    /// As JSON: an array with what was checked of each image
    #[arg(long)]
    pub json: bool,
}

pub(super) fn verify(args: &VerifyArgs, host: &Host) -> Result<ExitCode> {
    let (mut damaged, mut wrong, mut count) = (false, false, 0);
    for given in &args.layouts {
        let (layout, tag) = read::locate(&host.absolute(given));
        verify::verify(&layout, tag.as_deref(), |mut verified| {
            verified.hold_to(&args.budget);
            damaged |= verified.is_damaged();
            wrong |= !verified.is_right();
            count += 1;
            print(&match (args.json, count) {
                (true, 1) => format!("[\n{}", json(&verified)),
                (true, _) => format!(",\n{}", json(&verified)),
                (false, 1) => text(&verified, host),
                (false, _) => format!("\n{}", text(&verified, host)),
            })
        })?;
    }
    if args.json {
        print("\n]\n")?;
    }
    Ok(match (damaged, wrong) {
        (true, _) => ExitCode::from(3),
        (false, true) => ExitCode::from(1),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn json(verified: &Verified) -> String {
    let mut value = serde_json::to_value(verified).expect("only string keys");
    value["ok"] = verified.is_right().into();
    printed_json(&value)
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
        };
        let lines = details.iter().flat_map(|detail| wrapped(&printable(detail), 57));
        for (index, line) in lines.enumerate() {
            let (verdict, name) = if index == 0 { (verdict, name.title()) } else { ("", "") };
            writeln!(text, "  {verdict:7}  {name:11}  {line}").expect("writing to a string");
        }
    }
    text
}
