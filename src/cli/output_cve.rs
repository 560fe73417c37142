//! The output of `kcompile cve` as text, Markdown and JSON.

use crate::cli::output::row;
use crate::cve::{Assessment, Finding, FixingRelease, Severity, Verdict};
use crate::host::Host;
use crate::image::inspect::referrers_layout_of;
use crate::ops::context::display_path;
use crate::ops::cve_records::Records;
use crate::ops::cve_target::CveTarget;
use crate::util::text::{escape_control, pluralize};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What is shown.
pub struct View<'a> {
    /// The target as the user named it.
    pub name: &'a str,
    pub target: &'a CveTarget,
    pub records: &'a Records,
    pub assessment: &'a Assessment<'a>,
}

impl View<'_> {
    /// Returns the number of records with each verdict, in the order in which they are shown.
    fn counts(&self) -> Vec<(&'static str, usize)> {
        let counts = self.assessment.counts();
        let by_version = counts.iter().filter(|(verdict, _)| verdict.is_by_version()).map(|(_, count)| count);
        let first = ("affected by version", by_version.sum());
        let rest = counts.iter().map(|(verdict, count)| (title(*verdict), *count));
        std::iter::once(first).chain(rest).collect()
    }

    /// Says what later releases of the series fix.
    fn next_releases(&self) -> Option<String> {
        let (next, last) = self.assessment.fixing_releases()?;
        let all = self.assessment.with(Verdict::Affected).count();
        let text =
            |release: FixingRelease| format!("Linux {} fixes {} of {all}", release.version, release.fixes);
        if next == last {
            return Some(text(next));
        }
        Some(format!("{}; {}, the newest release in the records", text(next), text(last)))
    }

    /// Returns the counts of affected records by severity, such as `2 critical, 10 high, 30 without a score`.
    fn severities(&self) -> String {
        let count = |severity: Option<Severity>| {
            self.assessment.with(Verdict::Affected).filter(|finding| finding.severity() == severity).count()
        };
        let scored = Severity::ALL.iter().rev().map(|severity| (severity.name(), count(Some(*severity))));
        let all = scored.chain([("without a score", count(None))]).filter(|(_, count)| *count > 0);
        all.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    }

    pub fn json(&self) -> Value {
        let View { target, records, assessment, .. } = self;
        let origin = &records.index.origin;
        let skipped = records.index.skipped.iter().map(
            |(reason, skipped)| json!({ "reason": reason, "count": skipped.count, "names": skipped.names }),
        );
        let mut counts = json!({});
        for (verdict, count) in assessment.counts() {
            counts[verdict.name().replace('-', "_")] = count.into();
        }
        let releases = assessment.fixing_releases();
        json!({
            "version": target.version,
            "images": target.images.iter().map(|image| json!({
                "layout": image.layout, "tag": image.tag, "digest": image.digest.oci()
            })).collect::<Vec<_>>(),
            "compiled_files": target.compiled.as_ref().map(|(path, files)| json!({
                "path": path, "version": files.version, "files": files.files.len(),
                "components": files.components.len(),
            })),
            "notes": target.notes,
            "records": {
                "origin": origin.name, "commit": origin.commit,
                "date": crate::util::time::rfc3339(origin.date),
                "age_seconds": records.age.map(|age| age.as_secs()),
                "count": records.index.records.len(),
                "skipped": skipped.collect::<Vec<_>>(),
            },
            "counts": counts,
            "next_release": releases.map(|(next, _)| next),
            "newest_release": releases.map(|(_, last)| last),
            "findings": assessment.findings.iter().map(finding_json).collect::<Vec<_>>(),
        })
    }
}

fn finding_json(finding: &Finding<'_>) -> Value {
    let Finding { record, verdict, files, reason, fixed_in } = finding;
    json!({
        "id": record.id,
        "title": record.title,
        "verdict": verdict,
        "severity": finding.severity(),
        "score": record.score.map(crate::cve::Score::value),
        "files": files,
        "option": finding.option(),
        "reason": reason,
        "fixed_in": fixed_in,
    })
}

/// Returns the name of a verdict for people.
fn title(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Affected => "affected",
        Verdict::Undetermined => "undetermined",
        Verdict::NotCompiled => "not compiled",
        Verdict::Fixed => "fixed",
        Verdict::NotIntroduced => "not introduced yet",
    }
}

/// Formats a table of the findings with one of the verdicts, and a summary.
pub fn text(view: &View<'_>, shown: &[Verdict], host: &Host) -> String {
    let mut text = format!("{}: Linux {}\n{}\n", view.name, view.target.version, view.records.describe());
    if let Some((path, files)) = &view.target.compiled {
        let count = pluralize(files.files.len(), "compiled file", "compiled files");
        let place = referrers_layout_of(path).unwrap_or(path);
        writeln!(text, "{count} in {}", display_path(place, host)).expect("writing to a string");
    }
    view.target.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    const WIDTHS: [usize; 4] = [5, 16, 9, 44];
    for verdict in shown {
        let findings: Vec<_> = view.assessment.with(*verdict).collect();
        if findings.is_empty() {
            continue;
        }
        text.push('\n');
        text.push_str(&row(["SCORE", "CVE", "FIXED IN", &title(*verdict).to_uppercase()], WIDTHS));
        for finding in findings {
            let score = finding.record.score.map_or_else(|| "-".to_owned(), |score| score.to_string());
            let fixed_in = finding.fixed_in.map_or_else(|| "-".to_owned(), |version| version.to_string());
            let lines = std::iter::once(finding.record.title.clone()).chain(details(finding));
            for (index, line) in lines.enumerate() {
                let cells = if index == 0 { [&*score, &finding.record.id, &fixed_in] } else { ["", "", ""] };
                text.push_str(&row([cells[0], cells[1], cells[2], &escape_control(&line)], WIDTHS));
            }
        }
    }
    text.push('\n');
    for (name, count) in view.counts() {
        let more = if name == "affected" { view.severities() } else { String::new() };
        let line = format!("{name:20} {count:>6}  {more}");
        writeln!(text, "{}", line.trim_end()).expect("writing to a string");
    }
    if let Some(releases) = view.next_releases() {
        writeln!(text, "\n{releases}").expect("writing to a string");
    }
    text
}

/// Returns the compiled files of a finding, the option that compiles them, or the reason for its verdict.
fn details(finding: &Finding<'_>) -> Vec<String> {
    let file = |file: &crate::cve::TouchedFile<'_>| {
        let components = match &file.components[..] {
            [first, second, third, .., _] => {
                format!("{first}, {second}, {third} and {} more", file.components.len() - 3)
            }
            few => few.join(", "),
        };
        format!("{} in {components}", file.path)
    };
    let option = finding.option().map(|option| format!("not compiled without {option}"));
    finding.files.iter().map(file).chain(option).chain(finding.reason.clone()).collect()
}

/// Formats the same as [`text`] for a pull request or a web page.
pub fn markdown(view: &View<'_>, shown: &[Verdict]) -> String {
    let mut text = format!("## CVEs of Linux {}\n\n{}.\n", view.target.version, view.records.describe());
    for note in &view.target.notes {
        writeln!(text, "\n> {}", escape_markdown(note)).expect("writing to a string");
    }
    text.push_str("\n| verdict | CVEs |\n| --- | ---: |\n");
    for (name, count) in view.counts() {
        writeln!(text, "| {name} | {count} |").expect("writing to a string");
    }
    if let Some(releases) = view.next_releases() {
        writeln!(text, "\n{releases}.").expect("writing to a string");
    }
    for verdict in shown {
        let findings: Vec<_> = view.assessment.with(*verdict).collect();
        if findings.is_empty() {
            continue;
        }
        writeln!(text, "\n### {}\n", title(*verdict)).expect("writing to a string");
        text.push_str("| score | CVE | fixed in | title | where |\n| ---: | --- | --- | --- | --- |\n");
        for finding in findings {
            let id = &finding.record.id;
            let score = finding.record.score.map_or_else(String::new, |score| score.to_string());
            let fixed_in = finding.fixed_in.map_or_else(String::new, |version| version.to_string());
            let details: Vec<String> = details(finding).iter().map(|line| escape_markdown(line)).collect();
            let link = format!("[{id}](https://www.cve.org/CVERecord?id={id})");
            let (name, details) = (escape_markdown(&finding.record.title), details.join("<br>"));
            writeln!(text, "| {score} | {link} | {fixed_in} | {name} | {details} |")
                .expect("writing to a string");
        }
    }
    text
}

/// Escapes what Markdown or HTML would interpret, since titles and paths come from other people.
pub fn escape_markdown(text: &str) -> String {
    let mut escaped = String::new();
    for c in escape_control(text).replace('\n', " ").chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~' | '@' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_of_a_record_has_no_markup() {
        let text = "a|b <img src=x> [x](y) *z* @team\u{1b}[2J\nnext";
        let escaped = escape_markdown(text);
        assert!(!escaped.contains(['\n', '\u{1b}', '<']), "{escaped}");
        assert!(escaped.starts_with("a\\|b &lt;img src=x&gt; \\[x\\](y) \\*z\\* \\@team"), "{escaped}");
    }
}
