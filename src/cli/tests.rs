//! Tests of the command line.

use super::*;
use crate::kbuild::timings::TimingsFormat;

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_is_in_the_overview() {
    let (_, commands) = OVERVIEW.split_once("Commands:\n").unwrap();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let mut words: Vec<&str> = lines.flat_map(|line| line.split_whitespace().skip(1)).collect();
    let command = Cli::command();
    let mut names: Vec<&str> =
        command.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
    words.sort_unstable();
    names.sort_unstable();
    assert_eq!(words, names);
}

#[test]
fn examples_in_help_fit_80_columns() {
    fn check(command: &clap::Command) {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
        }
        command.get_subcommands().for_each(check);
    }
    check(&command_line());
}

#[test]
fn timings_have_an_optional_value() {
    let forms = |words: &str| Cli::try_parse_from(words.split(' ')).unwrap().build.options.compile.timings;
    assert_eq!(forms("kcompile 6.1"), []);
    assert_eq!(forms("kcompile --timings 6.1"), [TimingsFormat::Html]);
    assert_eq!(forms("kcompile --timings=html,json 6.1"), [TimingsFormat::Html, TimingsFormat::Json]);
}

#[test]
fn every_command_with_progress_obeys_it() {
    for command in [
        "6.1",
        "build 6.1",
        "plan 6.1",
        "fetch 6.1",
        "add 6.1",
        "config show 6.1",
        "config diff 6.1 6.2",
        "config edit 6.1",
        "config save x 6.1",
        "boot 6.1",
        "make 6.1 -- x",
        "verify out",
        "push x",
        "cve x",
        "ccache export x:y",
        "ccache import x:y",
        "toolchain make debian:sid -o x:y",
        "cache export x:y",
        "cache import x:y",
    ] {
        let (command, rest) = command.split_once(" -- ").unwrap_or((command, ""));
        let rest = if rest.is_empty() { String::new() } else { format!(" -- {rest}") };
        let line = format!("kcompile {command} --progress json{rest}");
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(cli.into_command().progress().progress(), Some(Progress::Json), "{line}");
    }
}

#[test]
fn the_word_build_may_be_left_out() {
    let firecracker = Some(Flavor::Firecracker);
    let short = Cli::try_parse_from(["kcompile", "6.1", "--fc"]).unwrap();
    let long = Cli::try_parse_from(["kcompile", "build", "6.1", "--fc"]).unwrap();
    assert!(short.command.is_none() && short.build.options.target.hypervisor.flavor() == firecracker);
    assert!(
        matches!(long.command, Some(Command::Build(args)) if args.options.target.hypervisor.flavor() == firecracker)
    );
    assert!(Cli::try_parse_from(["kcompile", "6.1", "--fc", "--ch"]).is_err());
}
