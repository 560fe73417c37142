//! Prints the comparison of two images.

use crate::cli::output::{group, groups, lines, reference};
use crate::cve::CveChanges;
use crate::host::Host;
use crate::image::diff::{Change, DiffSide, Difference, FileChange, ModulesChange, SizeChange};
use crate::plan::with_compiler_names;
use crate::util::text::{format_size, pluralize};

/// The most names printed of each group. `--json` has all of them.
const MAX_LINES: usize = 20;

/// Formats the CVEs that lie between two kernels.
pub fn cves_text(changes: &CveChanges) -> String {
    let CveChanges { only_first, only_second } = changes;
    let sides = [("only the first", only_first), ("only the second", only_second)];
    let text = sides.into_iter().filter(|(_, cves)| !cves.is_empty()).map(|(side, cves)| {
        let mut lines: Vec<String> =
            cves.iter().take(MAX_LINES).map(|cve| format!("{}: {}", cve.id, cve.title)).collect();
        if cves.len() > MAX_LINES {
            lines.push(format!("and {} more", cves.len() - MAX_LINES));
        }
        group(&format!("CVEs that affect {side} ({})", cves.len()), lines)
    });
    text.collect()
}

/// Formats the comparison. Groups that explain others come first.
pub fn text(difference: &Difference, host: &Host) -> String {
    let Difference { first, second, sizes, annotations, tools, config, modules, files, .. } = difference;
    let named = |side: &DiffSide| {
        format!("{}  {}", reference(&side.layout, side.tag.as_deref(), host), &side.digest[..19])
    };
    let mut text = format!("{}\n{}\n", named(first), named(second));
    if difference.equal {
        text.push_str("\nthe images are identical\n");
        return text;
    }
    if !difference.inputs.is_empty() {
        text.push_str(&group("different inputs", difference.inputs.clone()));
    }
    text.push_str(&group("sizes", sizes.iter().map(size_change).collect()));
    text.push_str(&group("tools", tools.iter().map(tool_change).collect()));
    if let Some(config) = config.as_ref().filter(|config| !config.is_equal()) {
        text.push_str("\nconfig");
        text.push_str(&groups(config));
    }
    text.push_str(&modules_text(modules));
    text.push_str(&one_sided_text(files, modules));
    text.push_str(&files_text(files, difference.more_files));
    if files.is_empty() {
        text.push_str("\nthe files are equal, but the images store them differently\n");
    }
    text.push_str(&group("annotations", annotations.iter().map(change).collect()));
    text
}

fn tool_change(tool: &Change) -> String {
    with_compiler_names(&change(tool)).replace(" -> (", " -> gcc (")
}

fn change(Change { name, first, second }: &Change) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
    format!("{name}: {} -> {}", text(first), text(second))
}

fn size_change(SizeChange { name, first, second }: &SizeChange) -> String {
    let (sign, by) = if second >= first { ("+", second - first) } else { ("-", first - second) };
    let percent = match first {
        0 => String::new(),
        _ => format!(", {sign}{:.1} %", by as f64 * 100.0 / *first as f64),
    };
    format!(
        "{name}: {} -> {} ({sign}{}{percent})",
        format_size(*first),
        format_size(*second),
        format_size(by)
    )
}

/// Returns the first [`MAX_LINES`] names and the number of the others.
fn some(names: &[String]) -> Vec<String> {
    let more = names.len().saturating_sub(MAX_LINES);
    let mut lines: Vec<String> = names.iter().take(MAX_LINES).cloned().collect();
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines
}

/// Formats files that only one image has, and links that differ. Modules are listed apart.
fn one_sided_text(files: &[FileChange], modules: &ModulesChange) -> String {
    let is_module = |path: &String| modules.new.contains(path) || modules.removed.contains(path);
    let (mut removed, mut new, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for file in files.iter().filter(|file| !is_module(&file.path)) {
        let first = content(file.first, file.first_link.as_ref());
        let second = content(file.second, file.second_link.as_ref());
        match (first, second) {
            (Some(first), None) => removed.push(format!("{}, {first}", file.path)),
            (None, Some(second)) => new.push(format!("{}, {second}", file.path)),
            (Some(first), Some(second)) if file.first.is_none() || file.second.is_none() => {
                changed.push(format!("{}: {first} -> {second}", file.path));
            }
            _ => {}
        }
    }
    [
        group(&format!("only in the first ({})", removed.len()), some(&removed)),
        group(&format!("only in the second ({})", new.len()), some(&new)),
        group(&format!("changed links ({})", changed.len()), some(&changed)),
    ]
    .concat()
}

fn content(file: Option<u64>, link: Option<&String>) -> Option<String> {
    let link = link.map(|to| format!("a link to {to}"));
    file.map(format_size).or(link)
}

fn modules_text(modules: &ModulesChange) -> String {
    let sizes: Vec<String> = modules.sizes.iter().map(size_change).collect();
    [
        group(&format!("new modules ({})", modules.new.len()), some(&modules.new)),
        group(&format!("removed modules ({})", modules.removed.len()), some(&modules.removed)),
        group(&format!("modules with another size ({})", sizes.len()), some(&sizes)),
    ]
    .concat()
}

/// Formats files whose bytes differ. Files with equal sections and causes share a line.
fn files_text(files: &[FileChange], more: usize) -> String {
    let mut groups: Vec<(&FileChange, usize)> = Vec::new();
    for file in files.iter().filter(|file| file.first.is_some() && file.second.is_some()) {
        let is_same = |one: &FileChange| {
            (&one.sections, &one.causes, one.skipped) == (&file.sections, &file.causes, file.skipped)
        };
        let same = groups.iter_mut().find(|(one, _)| is_same(one));
        match same {
            Some((_, count)) => *count += 1,
            None => groups.push((file, 1)),
        }
    }
    let mut text = String::new();
    for (file, count) in groups.iter().take(MAX_LINES) {
        text.push_str(&lines(&group_line(file, *count), "  "));
        file.causes.iter().for_each(|cause| text.push_str(&lines(&cause.to_string(), "    ")));
    }
    let left = groups.iter().skip(MAX_LINES).map(|(_, count)| count).sum::<usize>() + more;
    if left > 0 {
        text.push_str(&format!("  and {} more\n", pluralize(left, "file", "files")));
    }
    if text.is_empty() { text } else { format!("\nbytes\n{text}") }
}

fn group_line(file: &FileChange, count: usize) -> String {
    let others = match count {
        1 => String::new(),
        _ => format!(" and {} like it", pluralize(count - 1, "file", "files")),
    };
    let sections = match file.sections.len() {
        0 => String::new(),
        1..=6 => format!(" in {}", file.sections.join(", ")),
        more => format!(" in {} and {} more sections", file.sections[..5].join(", "), more - 5),
    };
    let skipped = file.skipped.map(|reason| format!(" (sections not compared: {reason})"));
    format!("{}{others}{sections}{}", file.path, skipped.unwrap_or_default())
}
