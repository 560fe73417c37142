//! The man page of a command, from the parser and the end of the command's help.

use crate::cli::overview::OVERVIEW;
use crate::util::error::{Kind, Result, ResultExt};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// The last change of the form of all pages.
const DATE: &str = "2026-11-30";

/// What clap_mangen's escaped text needs.
const APOSTROPHE: [&str; 2] = [r".ie \n(.g .ds Aq \(aq", r".el .ds Aq '"];

/// The exit status of commands whose help has no list.
const EXIT_CODES: &str = "0 ok, 1 failed, 2 usage error, 3 fetch or verification failed, 4 host lacks something, \
                          130 interrupted.";

/// Variables and files, each with the option of the commands that use it. Without an option, all commands do.
const ENVIRONMENT: [(&str, &str, &str); 13] = [
    ("cache_dir", "KCOMPILE_CACHE_DIR", "The cache directory. --cache-dir overrides it."),
    ("cache_dir", "XDG_CACHE_HOME", "The directory of the default cache, `kcompile`."),
    (
        "mirror",
        "KCOMPILE_MIRROR",
        "Mirrors of kernel.org, separated by commas or spaces. --mirror overrides it.",
    ),
    ("mirror", "HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "The proxy of downloads, and hosts without one."),
    ("kernel_link", "SOURCE_DATE_EPOCH", "The date of all files in images, in seconds since 1970."),
    ("launcher", "CCACHE_DIR, SCCACHE_DIR, DISTCC_HOSTS, ICECC_SCHEDULER", "The state of the launcher."),
    ("used_within", "CCACHE_DIR", "The cache of ccache."),
    ("authfile", "REGISTRY_AUTH_FILE, DOCKER_CONFIG", "Where skopeo finds credentials."),
    ("cc", "ARCH, CROSS_COMPILE, CC, MAKEFLAGS, KBUILD_*, KCONFIG_*", "These never reach the kernel's make."),
    ("", "NO_COLOR", "Turns colors off. --color overrides it."),
    ("", "CLICOLOR_FORCE", "Turns colors on, also without a terminal."),
    ("", "XDG_CONFIG_HOME", "The directory of the user config. The default is ~/.config."),
    ("", "TERM, CI", "A dumb terminal and a CI job get plain lines."),
];
const FILES: [(&str, &str, &str); 7] = [
    ("", "~/.config/kcompile/config.toml", "Your defaults of options that do not affect the output."),
    ("configs", "kcompile.toml", "Marks a project, and holds its defaults."),
    ("update_lock", "kcompile.lock", "The digests of sources at their first use."),
    ("configs", "configs/, patches/", "The project's own kernels, configs, profiles and patches."),
    ("kernel_link", "out/", "The image layouts and receipts."),
    ("images", "out/", "The image layouts."),
    ("cache_dir", "~/.cache/kcompile/", "The cache of sources, builds and images."),
];

/// Returns the name of the page, such as `kcompile-config-set`.
pub fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

/// Returns the page of `command`, which is `whole` or a command below it.
///
/// # Errors
///
/// Writing to memory fails.
pub fn page(command: &Command, whole: &Command) -> Result<String> {
    let text = render(command, whole).context(Kind::Build, || "cannot write the man page".into())?;
    Ok(clean(&text, command))
}

fn render(command: &Command, whole: &Command) -> io::Result<String> {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let man = Man::new(command.clone().override_usage(usage));
    let mut text = Vec::new();
    writeln!(
        text,
        ".TH {} 1 {DATE} \"kcompile {}\" \"kcompile manual\"",
        name(command).to_uppercase(),
        env!("CARGO_PKG_VERSION")
    )?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    let end = End::of(command);
    terms(&mut roff, "EXIT STATUS", &exit_codes(&end.exit_codes));
    terms(&mut roff, "ENVIRONMENT", &used_by(command, &ENVIRONMENT));
    terms(&mut roff, "FILES", &used_by(command, &FILES));
    if !end.notes.is_empty() {
        roff.control("SH", ["NOTES"]);
        for (index, paragraph) in end.notes.iter().enumerate() {
            if index > 0 {
                roff.control("PP", []);
            }
            add_paragraph(&mut roff, paragraph);
        }
    }
    roff.control("SH", ["EXAMPLES"]);
    for (index, block) in end.examples.iter().enumerate() {
        if index > 0 {
            roff.control("PP", []);
        }
        literal(&mut roff, block);
    }
    roff.control("SH", ["SEE ALSO"]);
    let pages: Vec<String> = see_also(command, whole).iter().map(|page| format!("{page}(1)")).collect();
    roff.text([roman(pages.join(", "))]);
    roff.to_writer(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The end of a command's help.
#[derive(Default)]
struct End {
    examples: Vec<String>,
    notes: Vec<String>,
    exit_codes: String,
}

impl End {
    fn of(command: &Command) -> End {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let mut end = End { exit_codes: EXIT_CODES.to_owned(), ..End::default() };
        for paragraph in help.split("\n\n") {
            if let Some(examples) = paragraph.strip_prefix("Examples:\n") {
                end.examples.push(examples.to_owned());
            } else if let Some(codes) = paragraph.strip_prefix("Exit codes: ") {
                end.exit_codes = codes.to_owned();
            } else if paragraph.starts_with("  ") {
                end.examples.push(paragraph.to_owned());
            } else {
                end.notes.push(paragraph.to_owned());
            }
        }
        end
    }
}

/// Splits `0 ok, 1 a check failed` into its codes.
fn exit_codes(text: &str) -> Vec<(String, String)> {
    let mut codes: Vec<(String, String)> = Vec::new();
    let mut starts = true;
    for word in text.trim_end_matches('.').split_whitespace() {
        match codes.last_mut() {
            _ if starts && word.parse::<u8>().is_ok() => codes.push((word.to_owned(), String::new())),
            Some((_, what)) => {
                let space = if what.is_empty() { "" } else { " " };
                write!(what, "{space}{word}").expect("writing to a string");
            }
            None => {}
        }
        starts = word.ends_with(',');
    }
    codes.into_iter().map(|(code, what)| (code, what.trim_end_matches(',').to_owned())).collect()
}

/// Returns the variables or files of a table that the command uses.
fn used_by(command: &Command, table: &[(&str, &str, &str)]) -> Vec<(String, String)> {
    let has = |id: &str| {
        id.is_empty() || command.get_arguments().any(|arg| arg.get_id() == id && !arg.is_hide_set())
    };
    let used = table.iter().filter(|(option, _, _)| has(option));
    used.map(|(_, name, what)| ((*name).to_owned(), (*what).to_owned())).collect()
}

/// Adds a section of names and what they mean.
fn terms(roff: &mut Roff, heading: &str, terms: &[(String, String)]) {
    if terms.is_empty() {
        return;
    }
    roff.control("SH", [heading]);
    for (term, what) in terms {
        roff.control("TP", []);
        roff.text([bold(term.as_str())]);
        roff.text([roman(what.as_str())]);
    }
}

/// Adds a paragraph. Its indented lines stay as they are.
fn add_paragraph(roff: &mut Roff, paragraph: &str) {
    let (filled, table): (Vec<&str>, Vec<&str>) = paragraph.lines().partition(|line| !line.starts_with("  "));
    roff.text([roman(filled.join(" "))]);
    if !table.is_empty() {
        roff.control("PP", []);
        literal(roff, &table.join("\n"));
    }
}

fn literal(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
}

/// Returns the pages of the commands above, below and beside a command. The overview groups the first level.
fn see_also(command: &Command, whole: &Command) -> Vec<String> {
    let inner = |command: &Command| -> Vec<String> {
        command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(name).collect()
    };
    let own = name(command);
    let parent = whole.get_subcommands().find(|outer| inner(outer).contains(&own));
    let beside = match parent {
        Some(parent) => inner(parent).into_iter().chain([name(parent)]).collect(),
        None => {
            let (_, commands) = OVERVIEW.split_once("Commands:\n").expect("the overview lists the commands");
            let groups = commands
                .lines()
                .take_while(|line| !line.is_empty())
                .map(|line| line.split_whitespace().skip(1));
            let group = groups.map(|names| names.map(|name| format!("kcompile-{name}")).collect::<Vec<_>>());
            group.into_iter().find(|group| group.contains(&own)).unwrap_or_default()
        }
    };
    let mut pages: Vec<String> = inner(command).into_iter().chain(beside).chain([name(whole)]).collect();
    pages.retain(|page| *page != own && page != "kcompile-help");
    pages.sort();
    pages.dedup();
    pages
}

/// Cleans what clap_mangen writes: sections of options become subsections, and characters outside of ASCII
/// their names, since groff reads Latin-1.
fn clean(text: &str, command: &Command) -> String {
    let headings: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_help_heading).collect();
    let line_of = |line: &str| {
        let heading = line.strip_prefix(".SH ").map(|heading| heading.trim_matches('"'));
        let of_options =
            heading.and_then(|found| headings.iter().find(|known| known.to_uppercase() == found));
        match (of_options, heading) {
            (Some(heading), _) => format!(".SS \"{heading}\""),
            (None, Some("SUBCOMMANDS")) => ".SH COMMANDS".to_owned(),
            // An empty line in filled text.
            _ if line.is_empty() => ".sp".to_owned(),
            _ => ascii(line),
        }
    };
    // Each section that clap_mangen writes begins with the same definition of an apostrophe.
    let written = text.lines().filter(|line| !APOSTROPHE.contains(line));
    let mut lines: Vec<String> = written.map(|line| line_of(line.trim_end())).collect();
    // A line break beside an empty line has no effect.
    lines.dedup_by(|next, line| next == ".br" && line == ".br");
    let is_beside = |at: usize| {
        [at.wrapping_sub(1), at + 1].iter().any(|&at| lines.get(at).is_some_and(|line| line == ".sp"))
    };
    let kept = lines.iter().enumerate().filter(|(at, line)| *line != ".br" || !is_beside(*at));
    let lines = APOSTROPHE.into_iter().chain(kept.map(|(_, line)| line.as_str()));
    lines.map(|line| format!("{line}\n")).collect()
}

fn ascii(line: &str) -> String {
    let escaped = |c: char| if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", c as u32) };
    line.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_split_at_numbers_after_commas() {
        let codes = exit_codes("0 ok, 1 a tag exists, or 2 do, 4 host lacks QEMU, 130 interrupted.");
        let codes: Vec<(&str, &str)> = codes.iter().map(|(code, what)| (&**code, &**what)).collect();
        let expected =
            [("0", "ok"), ("1", "a tag exists, or 2 do"), ("4", "host lacks QEMU"), ("130", "interrupted")];
        assert_eq!(codes, expected);
    }
}
