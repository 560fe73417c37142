//! Formats the output of `kcompile config`: summaries of comparisons, and descriptions of symbols.

use crate::cli::output::groups;
use crate::kconfig::Comparison;
use crate::kconfig::explain::Description;
use crate::util::text::sanitize_line;
use clap::ValueEnum;
use std::fmt::Write as _;

/// How many lines a summary has.
const MAX_LINES: usize = 40;
/// How many selectors of a symbol are shown.
const MAX_SELECTORS: usize = 20;

/// A group of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    Changed,
    Renamed,
    New,
    #[value(alias = "gone")]
    Removed,
}

/// Removes the groups that are not in `only`. An empty `only` keeps all.
pub fn keep_groups(comparison: &mut Comparison, only: &[Group]) {
    let is_kept = |group| only.is_empty() || only.contains(&group);
    if !is_kept(Group::Changed) {
        comparison.changed.clear();
    }
    if !is_kept(Group::Renamed) {
        comparison.renamed.clear();
    }
    if !is_kept(Group::New) {
        comparison.new.clear();
    }
    if !is_kept(Group::Removed) {
        comparison.removed.clear();
    }
}

/// Returns the groups, cut so that a heading and all of them have at most 40 lines.
pub fn summary(comparison: &Comparison) -> String {
    let whole = groups(comparison);
    if whole.lines().count() < MAX_LINES {
        return whole;
    }
    let sections: Vec<&str> = whole.split("\n\n").map(|section| section.trim_matches('\n')).collect();
    // Each group has an empty line, a heading and a count of what is left out. Two lines say how to see all.
    let mut left = MAX_LINES - 3 - 3 * sections.len();
    let mut text = String::new();
    for (index, section) in sections.iter().enumerate() {
        let mut lines = section.lines();
        let count = section.lines().count() - 1;
        let shown = count.min(left / (sections.len() - index));
        left -= shown;
        writeln!(text, "\n{}", lines.next().unwrap_or_default()).expect("writing to a string");
        lines.by_ref().take(shown).for_each(|line| text.extend([line, "\n"]));
        if count > shown {
            writeln!(text, "  … {} more", count - shown).expect("writing to a string");
        }
    }
    text + "\n--all shows all, --only changed,new,removed,renamed some groups, --settable what can be set\n"
}

/// Returns a description of each symbol.
pub fn described(symbols: &[Description]) -> String {
    let mut text = String::new();
    for (index, symbol) in symbols.iter().enumerate() {
        let value = symbol.value.as_deref().unwrap_or("not in the .config");
        let gap = if index == 0 { "" } else { "\n" };
        let heading = format!("{gap}CONFIG_{}: {}, {value}\n", symbol.symbol, symbol.kind);
        let mut lines: Vec<(&str, String)> = Vec::new();
        for definition in &symbol.definitions {
            lines.push(("defined at", format!("{}:{}", definition.file, definition.line)));
            let prompt = definition.prompt_text.as_deref().unwrap_or("none, so it cannot be set here");
            lines.push(("prompt", prompt.to_owned()));
            for (label, conditions) in
                [("depends on", &definition.depends), ("prompt if", &definition.prompt_if)]
            {
                lines.extend(conditions.iter().map(|one| (label, met(&one.condition, one.unmet.as_deref()))));
            }
            lines.extend(definition.ranges.iter().map(|one| ("range", one.clone())));
            lines.extend(definition.defaults.iter().map(|one| ("default", one.clone())));
        }
        for (label, selectors) in [("selected by", &symbol.selected_by), ("implied by", &symbol.implied_by)] {
            for one in selectors.iter().take(MAX_SELECTORS) {
                let condition = one.condition.as_ref();
                let condition = condition.map_or_else(String::new, |one| {
                    format!(" if {}", met(&one.condition, one.unmet.as_deref()))
                });
                lines.push((label, format!("{} ({}){condition}", one.symbol, one.value)));
            }
            if selectors.len() > MAX_SELECTORS {
                lines.push((label, format!("{} more (--json lists all)", selectors.len() - MAX_SELECTORS)));
            }
        }
        text.push_str(&heading);
        for (label, value) in lines {
            writeln!(text, "  {label:12} {}", sanitize_line(&value)).expect("writing to a string");
        }
    }
    text
}

fn met(condition: &str, unmet: Option<&str>) -> String {
    match unmet {
        Some(unmet) => format!("{condition}: not met, {unmet}"),
        None => format!("{condition}: met"),
    }
}
