//! `-h`, `--help` and man pages of every command.

use crate::support::context::{TestContext, has_tool};
use std::process::Command;

/// Returns every command, such as `config set`, and the program itself as an empty text.
fn commands(context: &TestContext) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut next = 0;
    while let Some(command) = found.get(next).cloned() {
        let help = context.run(format!("{command} -h").trim_start()).ok().stdout;
        let listed =
            help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let names = names.filter(|name| !name.is_empty() && *name != "help");
        found.extend(names.map(|name| format!("{command} {name}").trim_start().to_owned()));
        next += 1;
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

/// Runs a command for the width of a terminal.
fn help(context: &TestContext, args: &str, columns: &str) -> String {
    let output = context.command(args.trim_start()).env("COLUMNS", columns).output().unwrap();
    assert!(output.status.success(), "{args}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_option_has_one_line_in_the_short_help() {
    let context = TestContext::new();
    let mut wrapped = Vec::new();
    for command in commands(&context) {
        let text = help(&context, &format!("{command} -h"), "80");
        for line in text.lines().filter(|line| line.starts_with(' ')) {
            let entry = line.trim_start();
            let indent = line.len() - entry.len();
            let is_option = entry.starts_with('-') && [2, 6].contains(&indent);
            // An argument, a command, or the second line of the usage.
            let is_other = indent == 2 || entry.starts_with("kcompile ");
            // The help is in the line of its option.
            let has_help = entry.contains("  ") || entry.starts_with("kcompile ");
            if !(is_option || is_other) || !has_help || line.chars().count() > 80 {
                wrapped.push(format!("kcompile {command} -h: {line}"));
            }
        }
    }
    assert!(wrapped.is_empty(), "{} lines:\n{}", wrapped.len(), wrapped.join("\n"));
}

#[test]
fn the_long_help_of_every_command_has_examples() {
    let context = TestContext::new();
    for command in commands(&context) {
        let text = help(&context, &format!("{command} --help"), "100");
        let examples = text.split_once("\nExamples:\n").map(|(_, examples)| examples).unwrap_or_default();
        let name = format!("kcompile {command}");
        // The examples of a build leave the word out, and those of shells begin with another program.
        let own = if command.is_empty() || command == "build" { "kcompile 6.1 --fc" } else { &name };
        assert!(examples.contains(own), "kcompile {command} --help:\n{text}");
    }
}

#[test]
fn plan_shows_no_option_that_it_ignores() {
    let context = TestContext::new();
    let text = help(&context, "plan --help", "100");
    for option in ["--jobs", "--rebuild", "--timings", "--boot", "--output", "--from-bundle", "--update-lock"]
    {
        assert!(!text.contains(option), "{option}:\n{text}");
        assert!(help(&context, "build --help", "100").contains(option), "{option}");
    }
    // A command line of a build needs no change.
    context.run("plan 6.1 --fc -j2 --rebuild --timings --boot -o x --update-lock").ok();
}

#[test]
fn a_man_page_has_every_section() {
    let context = TestContext::new();
    for command in commands(&context) {
        let page = context.run(format!("man {command}").trim_end()).ok().stdout;
        let mut sections = page.lines().filter_map(|line| line.strip_prefix(".SH "));
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "\"EXIT STATUS\"",
            "ENVIRONMENT",
            "FILES",
            "EXAMPLES",
            "\"SEE ALSO\"",
        ] {
            assert!(sections.any(|found| found == section), "{section} is not in man {command}:\n{page}");
        }
    }
    context.run("man confg set").failed(2, &["unknown command `confg`", "did you mean `config`?"]);
    context.run("man config shwo").failed(2, &["unknown command `shwo`", "did you mean `show`?"]);
}

#[test]
fn man_pages_have_no_warnings() {
    let context = TestContext::new();
    let written = context.run("man --output man1").ok().stdout;
    let pages: Vec<&str> = written.lines().collect();
    assert_eq!(pages.len(), commands(&context).len(), "{written}");
    assert!(pages.contains(&"man1/kcompile.1") && pages.contains(&"man1/kcompile-config-set.1"), "{written}");
    let work = context.path("work");
    let warnings = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).args(&pages).current_dir(&work).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    if has_tool("mandoc") {
        assert_eq!(warnings("mandoc", &["-T", "lint", "-W", "warning"]), "");
    }
    if has_tool("groff") {
        assert_eq!(warnings("groff", &["-ww", "-man", "-z", "-Tutf8"]), "");
    }
}
