//! The text of `kcompile check`.

use crate::cli::output::{is_narrow, row, width};
use crate::kconfig::Config;
use crate::kconfig::requirements::{self, Level, RequirementResult, RequirementStatus, Stage, Tally};
use crate::kernel::{Arch, Flavor, KernelVersion, Variant};
use crate::util::text::{escape_control, sanitize_line, wrap};
use std::fmt::Write as _;

/// What is checked, whatever it was given as.
pub struct CheckedConfig {
    pub name: String,
    pub config: Config,
    pub version: KernelVersion,
    pub arch: Arch,
    pub stage: Stage,
    pub flavor: Option<Flavor>,
    pub variant: Variant,
    pub notes: Vec<String>,
}

/// Widths of the table's columns. With the spaces around them they fit 80.
const WIDTHS: [usize; 5] = [0, 11, 34, 11, 17];

pub fn text(checked: &CheckedConfig, results: &[RequirementResult], all: bool) -> String {
    let mut text =
        format!("{}: Linux {} on {}\n", escape_control(&checked.name), checked.version, checked.arch);
    for tally in requirements::tallies(results) {
        let of_profile = results.iter().filter(|result| result.profile == tally.profile);
        let of_profile: Vec<&RequirementResult> = of_profile.collect();
        let heading = wrap(&format!("{}: {}", tally.profile, counts(&tally)), width() - 2).join("\n  ");
        writeln!(text, "\n{heading}").expect("writing to a string");
        text.push_str(&table(&of_profile, all));
    }
    text
}

fn counts(tally: &Tally) -> String {
    let mut parts = vec![
        format!("{} required and {} recommended not met", tally.failed, tally.recommended_failed),
        format!("{} met", tally.passed),
    ];
    parts.extend((tally.undecided > 0).then(|| format!("{} open", tally.undecided)));
    parts.extend((tally.not_applicable > 0).then(|| format!("{} for other kernels", tally.not_applicable)));
    parts.join(", ")
}

/// What is not met, the worst first; with `all` the rest after it. The lines of one reason follow each
/// other, and the reason stands once below them.
fn table(results: &[&RequirementResult], all: bool) -> String {
    let rank = |result: &RequirementResult| match (result.status, result.level) {
        (RequirementStatus::Failed, Level::Required | Level::Forbidden) => 0,
        (RequirementStatus::Failed, Level::Recommended) => 1,
        (RequirementStatus::Undecided, _) => 2,
        (RequirementStatus::Passed, _) => 3,
        (RequirementStatus::NotApplicable, _) => 4,
    };
    let mut rows: Vec<&RequirementResult> =
        results.iter().filter(|one| all || rank(one) < 2).copied().collect();
    rows.sort_by_key(|result| rank(result));
    let mut text = String::new();
    let mut source = "";
    for (index, result) in rows.iter().enumerate() {
        let cells =
            ["", label(result), &result.symbols_text(), &sanitize_line(&result.found), &result.requested];
        text.push_str(&row(cells, WIDTHS));
        let same = |next: &&RequirementResult| {
            (rank(next), &next.reason, &next.source) == (rank(result), &result.reason, &result.source)
        };
        if !rows.get(index + 1).is_some_and(same) {
            let indent = " ".repeat(if is_narrow() { 6 } else { WIDTHS[1] + 5 });
            // Many lines come from one place: said once, until another one comes.
            let from = if source == result.source { String::new() } else { format!(" ({})", result.source) };
            source = &result.source;
            for line in wrap(&format!("{}{from}", result.reason), width() - indent.len()) {
                writeln!(text, "{indent}{line}").expect("writing to a string");
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("{}{text}", row(["", "", "OPTION", "FOUND", "WANTED"], WIDTHS))
}

fn label(result: &RequirementResult) -> &'static str {
    match (result.status, result.level) {
        (RequirementStatus::Failed, Level::Required) => "REQUIRED",
        (RequirementStatus::Failed, Level::Forbidden) => "FORBIDDEN",
        (RequirementStatus::Failed, Level::Recommended) => "recommended",
        (RequirementStatus::Undecided, _) => "open",
        (RequirementStatus::Passed, _) => "met",
        (RequirementStatus::NotApplicable, _) => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(symbols: &[&str], level: Level, status: RequirementStatus, reason: &str) -> RequirementResult {
        RequirementResult {
            profile: "p".into(),
            symbols: symbols.iter().map(|symbol| (*symbol).to_owned()).collect(),
            requested: "y or m".into(),
            found: "none is on".into(),
            level,
            reason: reason.into(),
            source: "somebody".into(),
            status,
        }
    }

    #[test]
    fn a_table_fits_a_terminal_and_has_the_worst_first() {
        let wide =
            ["IP_NF_TARGET_REJECT", "MITIGATION_PAGE_TABLE_ISOLATION", "NETFILTER_XT_TARGET_REJECT", "X"];
        let all = [
            outcome(&["A"], Level::Recommended, RequirementStatus::Failed, "one reason"),
            outcome(&["B"], Level::Recommended, RequirementStatus::Failed, "one reason"),
            outcome(&wide, Level::Required, RequirementStatus::Failed, &"words ".repeat(40)),
            outcome(&["MET"], Level::Required, RequirementStatus::Passed, "r"),
        ];
        let results: Vec<&RequirementResult> = all.iter().collect();
        let rows = table(&results, false);
        assert!(rows.lines().all(|line| line.chars().count() <= 80), "{rows}");
        assert_eq!(rows.matches("one reason").count(), 1, "{rows}");
        assert!(rows.find("REQUIRED") < rows.find("recommended") && !rows.contains("MET"), "{rows}");
        assert!(table(&results, true).contains("met          MET"));
        let hostile = RequirementResult { found: "\"\u{1b}[2J\u{202e}\"".into(), ..all[3].clone() };
        assert!(table(&[&hostile], true).contains("\"?[2J?\""));
        assert_eq!(table(&results[3..], false), "");
    }
}
