//! `kcompile diff`: its words, and what it prints.

use super::commands::{print, printed_json};
use super::config::{group, groups, lines};
use super::inspect::reference;
use super::typed::library;
use crate::host::Host;
use crate::image::diff::{self, Change, Difference, FileChange, ModulesChange, Side, SizeChange};
use crate::image::inspect;
use crate::image::size_limits::Budget;
use crate::kconfig::explain::Renames;
use crate::oci::read::{self, Image};
use crate::oci::tags;
use crate::report::Report;
use crate::util::error::{Error, Result};
use crate::util::text::{counted, printable, size};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use std::process::ExitCode;

/// So many names of a kind are printed; `--json` has them all.
const MOST_LINES: usize = 20;

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
    pub budget: Budget,
    /// As JSON, with all names
    #[arg(long)]
    pub json: bool,
}

pub(super) fn diff(args: &DiffArgs, host: &Host, report: &Report) -> Result<ExitCode> {
    let renames = Renames::read(&library(None, host)?.0)?;
    let images = (only_image(&host.absolute(&args.first))?, only_image(&host.absolute(&args.second))?);
    let found = (inspect::inspect(&images.0)?, inspect::inspect(&images.1)?);
    let difference = diff::diff((&images.0, &images.1), (&found.0, &found.1), &renames)?;
    let exceeded = args.budget.exceeded(&found.1);
    print(&match args.json {
        true => {
            let mut value = serde_json::to_value(&difference).expect("only string keys");
            value["over_budget"] = exceeded.clone().into();
            printed_json(&value)
        }
        false => printable(&text(&difference, host)),
    })?;
    match exceeded.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => {
            report.error(&Error::build(exceeded.join("; ")));
            Ok(ExitCode::from(1))
        }
    }
}

/// The only image that a reference means.
pub(super) fn only_image(given: &Utf8Path) -> Result<Image> {
    let (layout, tag) = read::locate(given);
    match &tags::images(&layout, tag.as_deref())?[..] {
        [one] => one.open(&layout),
        several => {
            let tags: Vec<String> = several.iter().filter_map(|part| part.tag.clone()).collect();
            Err(Error::usage(format!("{given} has several images"))
                .hint(format!("choose one with {layout}:TAG, of {}", tags.join(", "))))
        }
    }
}

/// The whole comparison, the groups first that tell the reason of the others.
pub(super) fn text(difference: &Difference, host: &Host) -> String {
    let Difference { first, second, sizes, annotations, tools, config, modules, files, .. } = difference;
    let named = |side: &Side| {
        format!("{}  {}", reference(&side.layout, side.tag.as_deref(), host), &side.digest[..19])
    };
    let mut text = format!("{}\n{}\n", named(first), named(second));
    if difference.equal {
        text.push_str("\nthe two are the same image\n");
        return text;
    }
    if !difference.inputs.is_empty() {
        text.push_str(&group("what they are built from differs", difference.inputs.clone()));
    }
    text.push_str(&group("sizes", sizes.iter().map(size_change).collect()));
    text.push_str(&group("tools", tools.iter().map(change).collect()));
    if let Some(config) = config.as_ref().filter(|config| !config.is_equal()) {
        text.push_str("\nconfig");
        text.push_str(&groups(config));
    }
    text.push_str(&modules_text(modules));
    text.push_str(&files_text(files, difference.more_files));
    text.push_str(&group("annotations", annotations.iter().map(change).collect()));
    text
}

fn change(Change { name, first, second }: &Change) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
    format!("{name}: {} -> {}", shown(first), shown(second))
}

fn size_change(SizeChange { name, first, second }: &SizeChange) -> String {
    let (sign, by) = if second >= first { ("+", second - first) } else { ("-", first - second) };
    let percent = match first {
        0 => String::new(),
        _ => format!(", {sign}{:.1} %", by as f64 * 100.0 / *first as f64),
    };
    format!("{name}: {} -> {} ({sign}{}{percent})", size(*first), size(*second), size(by))
}

fn modules_text(modules: &ModulesChange) -> String {
    let some = |names: &[String]| {
        let more = names.len().saturating_sub(MOST_LINES);
        let mut lines: Vec<String> = names.iter().take(MOST_LINES).cloned().collect();
        lines.extend((more > 0).then(|| format!("and {more} more")));
        lines
    };
    let sizes: Vec<String> = modules.sizes.iter().map(size_change).collect();
    [
        group(&format!("new modules ({})", modules.new.len()), some(&modules.new)),
        group(&format!("modules that are gone ({})", modules.gone.len()), some(&modules.gone)),
        group(&format!("modules of another size ({})", sizes.len()), some(&sizes)),
    ]
    .concat()
}

/// Files with the same sections and causes are told together.
fn files_text(files: &[FileChange], more: usize) -> String {
    let mut groups: Vec<(&FileChange, usize)> = Vec::new();
    for file in files.iter().filter(|file| file.first.is_some() && file.second.is_some()) {
        let same =
            groups.iter_mut().find(|(one, _)| (&one.sections, &one.causes) == (&file.sections, &file.causes));
        match same {
            Some((_, count)) => *count += 1,
            None => groups.push((file, 1)),
        }
    }
    let mut text = String::new();
    for (file, count) in groups.iter().take(MOST_LINES) {
        text.push_str(&lines(&group_line(file, *count), "  "));
        file.causes.iter().for_each(|cause| text.push_str(&lines(&cause.to_string(), "    ")));
    }
    let left = groups.iter().skip(MOST_LINES).map(|(_, count)| count).sum::<usize>() + more;
    if left > 0 {
        text.push_str(&format!("  and {} more\n", counted(left, "file", "files")));
    }
    match text.is_empty() {
        true => text,
        false => format!("\nbytes\n{text}"),
    }
}

fn group_line(file: &FileChange, count: usize) -> String {
    let others = match count {
        1 => String::new(),
        _ => format!(" and {} like it", counted(count - 1, "file", "files")),
    };
    let sections = match file.sections.len() {
        0 => String::new(),
        1..=6 => format!(" in {}", file.sections.join(", ")),
        more => format!(" in {} and {} more sections", file.sections[..5].join(", "), more - 5),
    };
    format!("{}{others}{sections}", file.path)
}
