//! The report of `kcompile update`, as the text of a pull request.

use crate::catalog::kernels::end_of_life_warning;
use crate::cli::output::render_setting;
use crate::cli::output_cve::escape_markdown;
use crate::cli::output_update::{Row, short, successor};
use crate::kconfig::requirements::Tally;
use crate::kconfig::{Difference, Renamed, Setting};
use crate::ops::add::{AddedSetting, MigratedConfig, UpstreamChanges};
use crate::ops::update::{Build, FixedCve, FixedCves, Measured, WrittenUpdate};
use crate::util::text::{format_size, pluralize};

/// The most lines of a list. GitHub accepts 65,536 characters.
const MAX_LINES: usize = 100;

/// Returns the report of all kernels that were updated.
pub fn report(rows: &[Row]) -> String {
    let kernels: Vec<String> = rows.iter().filter_map(kernel).collect();
    if kernels.is_empty() { "No kernel was updated.\n".to_owned() } else { kernels.join("\n") }
}

fn kernel(row: &Row) -> Option<String> {
    let WrittenUpdate { prepared, builds, commits, cves } = row.written.as_ref()?;
    let available = row.available.as_ref()?;
    let old = prepared.old_version.map(|version| version.to_string());
    let current = available.current.as_deref().filter(|current| Some(*current) != old.as_deref()).map(short);
    let newest = prepared.source.version;
    let title = prepared.new.flavor.spec().title;
    let mut parts = vec![match prepared.old_version.filter(|old| *old != newest) {
        Some(old) => format!("## Linux {old} to {newest} for {title}"),
        None => format!("## Linux {newest} for {title}"),
    }];
    let mut facts = vec![format!("Entry of the catalog: {}", escape_markdown(&row.kernel.entry.version))];
    facts.extend(current.map(|current| format!("Before: {}", escape_markdown(current))));
    let origin = prepared.source.origin.as_deref().unwrap_or("a local repository");
    facts.push(format!("Source: <{origin}>, {}", prepared.source.digest));
    facts.push(format!("Verified: {}", escape_markdown(&prepared.source.verified())));
    facts.extend(commits.as_ref().map(|commits| match commits {
        Ok(count) => format!("Shortlog: {} in between", pluralize(*count, "commit", "commits")),
        Err(why) => format!("Shortlog: left out ({})", escape_markdown(why)),
    }));
    if let Some(end) = &available.end_of_life {
        let warning = end_of_life_warning(row.kernel.entry.request().floor().series(), end.date.as_deref());
        let next = successor(end, row).map_or_else(String::new, |next| format!("; {next}"));
        facts.push(format!("{warning}{next}"));
    }
    parts.push(facts.iter().map(|fact| format!("- {fact}\n")).collect::<String>().trim_end().to_owned());
    parts.extend(sizes(builds));
    parts.extend(prepared.configs.iter().map(settings));
    parts.extend(cves.as_ref().map(|cves| match cves {
        Ok(cves) => cves_text(cves),
        Err(why) => format!("### CVEs\n\nLeft out: {}.", escape_markdown(why)),
    }));
    parts.extend(prepared.configs.iter().map(profiles));
    Some(parts.join("\n\n") + "\n")
}

/// Compares the sizes and the boot times.
fn sizes(builds: &[Build]) -> Option<String> {
    if builds.is_empty() {
        return Some("### Build\n\nThe new kernel was not built.".to_owned());
    }
    let mut text = "### Build\n\n| | before | after |\n| --- | ---: | ---: |".to_owned();
    for Build { arch, before, after, .. } in builds {
        let before = before.as_ref().map_or_else(|| ["-"; 3].map(str::to_owned), cells);
        let names = ["kernel", "modules", "boot to init"];
        for ((name, before), after) in names.iter().zip(before).zip(cells(after)) {
            text.push_str(&format!("\n| {name}, {arch} | {before} | {after} |"));
        }
    }
    for Build { arch, why_not_before, .. } in builds {
        if let Some(why) = why_not_before {
            text.push_str(&format!(
                "\n\nThe kernel before was not built for {arch}: {}.",
                escape_markdown(why)
            ));
        }
    }
    Some(text)
}

/// Returns the sizes of kernel and modules, and the time to boot.
fn cells(kernel: &Measured) -> [String; 3] {
    let modules = pluralize(kernel.modules, "file", "files");
    let seconds = kernel.seconds_to_init.map(|seconds| format!("{seconds:.2} s"));
    [
        format_size(kernel.kernel_bytes),
        format!("{} in {modules}", format_size(kernel.module_bytes)),
        seconds.unwrap_or_else(|| "not booted".to_owned()),
    ]
}

/// Lists the settings that changed, each with the reason.
fn settings(config: &MigratedConfig) -> String {
    let MigratedConfig { arch, from_config, renamed, added, removed, changed, upstream_changes, .. } = config;
    let needed = |one: &AddedSetting| {
        format!("`{}`: needed by {}", render_setting(&one.setting), one.needed_by.join(", "))
    };
    let mut lists = vec![
        ("Renamed", renamed.iter().map(renamed_text).collect::<Vec<_>>()),
        ("Added", added.iter().map(needed).collect()),
        ("Removed", removed.iter().map(|one| with_reason(one, "")).collect()),
        ("Changed", changed.iter().map(|one| with_reason(one, &became(one))).collect()),
    ];
    if let Some(UpstreamChanges { differences, reasons, .. }) = upstream_changes {
        let why = |symbol: &str, text: String| match reasons.get(symbol) {
            Some(reason) => format!("`{text}`: {}", escape_markdown(reason)),
            None => format!("`{text}`"),
        };
        let on = |list: &[Setting]| list.iter().filter(|one| one.is_on()).cloned().collect::<Vec<_>>();
        let new = on(&differences.new).iter().map(|one| why(&one.symbol, render_setting(one))).collect();
        lists.push(("New in this version", new));
        let gone = on(&differences.removed).iter().map(|one| format!("`{}`", render_setting(one))).collect();
        lists.push(("Gone in this version", gone));
        let other = differences.changed.iter();
        let other = other.map(|one| why(&one.symbol, format!("{}: {} to {}", one.symbol, one.from, one.to)));
        lists.push(("Other values in this version", other.collect()));
        lists.push(("Other names in this version", differences.renamed.iter().map(renamed_text).collect()));
    }
    let mut text = format!("### Settings, {arch}\n\nFrom {}.", escape_markdown(from_config));
    if upstream_changes.is_none() {
        text.push_str(" The final configs of both kernels were not compared.");
    }
    if lists.iter().all(|(_, list)| list.is_empty()) {
        text.push_str(" No setting changed.");
    }
    for (heading, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        text.push_str(&format!("\n\n{heading} ({}):\n", list.len()));
        list.iter().take(MAX_LINES).for_each(|line| text.push_str(&format!("\n- {line}")));
        if list.len() > MAX_LINES {
            text.push_str(&format!("\n- and {} more", list.len() - MAX_LINES));
        }
    }
    text
}

fn renamed_text(renamed: &Renamed) -> String {
    format!("`{}`", crate::cli::output::renamed(renamed))
}

fn became(difference: &Difference) -> String {
    format!(" to {}", difference.found.as_deref().unwrap_or("n"))
}

fn with_reason(difference: &Difference, became: &str) -> String {
    let reason = difference
        .reason
        .as_deref()
        .map_or_else(String::new, |reason| format!(": {}", escape_markdown(reason)));
    format!("`{}={}{became}`{reason}", difference.symbol, difference.requested)
}

fn cves_text(cves: &FixedCves) -> String {
    let FixedCves { fixed, introduced, remaining, judged_by, records } = cves;
    let mut text = format!(
        "### CVEs\n\nThe update fixes {}. It leaves {}. They are judged {judged_by}, with {records}.",
        pluralize(fixed.len(), "CVE", "CVEs"),
        remaining,
    );
    if !introduced.is_empty() {
        let ids: Vec<&str> = introduced.iter().map(|one| one.id.as_str()).collect();
        text.push_str(&format!(" New in this version: {}.", ids.join(", ")));
    }
    if fixed.is_empty() {
        return text;
    }
    text.push_str("\n\n| score | CVE | title | compiled files |\n| ---: | --- | --- | --- |");
    for FixedCve { id, title, score, files } in fixed.iter().take(MAX_LINES) {
        let score = score.map_or_else(String::new, |score| score.to_string());
        let files: Vec<String> = files.iter().map(|file| escape_markdown(file)).collect();
        let link = format!("[{id}](https://www.cve.org/CVERecord?id={id})");
        text.push_str(&format!(
            "\n| {score} | {link} | {} | {} |",
            escape_markdown(title),
            files.join("<br>")
        ));
    }
    if fixed.len() > MAX_LINES {
        text.push_str(&format!("\n\nAnd {} more.", fixed.len() - MAX_LINES));
    }
    text
}

fn profiles(config: &MigratedConfig) -> String {
    let line = |tally: &Tally| {
        let Tally { profile, passed, recommended_failed, .. } = tally;
        let recommendations = pluralize(*recommended_failed, "recommendation", "recommendations");
        format!("\n- {}: {passed} met, {recommendations} not met", escape_markdown(profile))
    };
    let lines: String = config.profiles.iter().map(line).collect();
    format!("### Requirement profiles, {}\n{lines}", config.arch)
}
