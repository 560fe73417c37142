//! The command line: raw arguments as clap takes them, one file for each subcommand's words. What
//! was typed becomes a [`Request`](crate::plan::request::Request); what goes out is printed here.

mod add;
mod args;
mod boot;
mod cache;
mod check;
mod checkup;
mod commands;
mod config;
mod diff;
mod given;
mod inspect;
mod list;
mod push;
mod typed;
mod verify;

use args::FetchArgs;
pub use args::{BuildArgs, Cli, Command};

use crate::catalog::Library;
use crate::host::{self, Host, process};
use crate::report::{Progress, Report};
use crate::util::error::{Error, Result};
use clap::{CommandFactory, FromArgMatches};
use std::process::ExitCode;

/// Parses the process's arguments, runs, prints what went wrong.
pub fn main() -> ExitCode {
    if let Some(code) = process::supervise(host::words()) {
        return code;
    }
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let host = match Host::read() {
        Ok(host) => host,
        Err(error) => return fail(&error, &Report::new(Progress::Plain, false, false)),
    };
    let report = Report::new(cli.progress(), host.terminal, host.color);
    match run(&cli, &matches, &host, &report) {
        Ok(code) => code,
        Err(error) => fail(&error, &report),
    }
}

fn run(cli: &Cli, matches: &clap::ArgMatches, host: &Host, report: &Report) -> Result<ExitCode> {
    process::keep_others_from_writing();
    process::watch_signals()?;
    match (&cli.command, &cli.build) {
        (None, args)
        | (Some(Command::Build(args)), _)
        | (Some(Command::Fetch(FetchArgs { build: args, .. })), _)
            if args.json && !args.dry_run =>
        {
            Err(Error::usage("--json prints a plan: it goes with `kcompile plan` or --dry-run")
                .hint("a build tells its progress as JSON lines with --progress json"))
        }
        (None, args) | (Some(Command::Build(args)), _) => match args.dry_run {
            true => commands::plan(args, true, matches, host, report),
            false => commands::build(args, matches, host, report),
        },
        (Some(Command::Plan(args)), _) => commands::plan(args, true, matches, host, report),
        (Some(Command::Fetch(args)), _) => match args.build.dry_run {
            true => commands::plan(&args.build, false, matches, host, report),
            false => commands::fetch(args, matches, host, report),
        },
        (Some(Command::List(args)), _) => list::list(args, host),
        (Some(Command::Doctor(args)), _) if args.cache => checkup::checkup(args, host, report),
        (Some(Command::Doctor(args)), _) => commands::doctor(args, matches, host, report),
        (Some(Command::Check(args)), _) => check::check(args, matches, host, report),
        (Some(Command::Add(args)), _) => add::add(args, matches, host, report),
        (Some(Command::Config(args)), _) => config::config(args, matches, host, report),
        (Some(Command::Inspect(args)), _) => inspect::inspect(args, host, report),
        (Some(Command::Boot(args)), _) => boot::run(args, host, report),
        (Some(Command::Verify(args)), _) => verify::verify(args, host, report),
        (Some(Command::Diff(args)), _) => diff::diff(args, host, report),
        (Some(Command::Push(args)), _) => push::push(args, host, report),
        (Some(Command::Cache(args)), _) => cache::cache(args, host, report),
        (Some(Command::Clean(args)), _) => commands::clean(args, host, report),
        (Some(Command::Completions { shell }), _) => commands::completions(*shell),
        (Some(Command::Man { command }), _) => commands::man(command.as_deref()),
    }
}

/// The command line, with what only the program knows at run time: the catalog's revision and its fragments.
pub fn command() -> clap::Command {
    let library = Library::built_in();
    let version = format!("{} (catalog {})", env!("CARGO_PKG_VERSION"), library.revision().short());
    let help = format!("{}\n\nFragments (--fragment NAME):\n{}", args::EXAMPLES, list::fragments(&library));
    Cli::command().version(version).after_help(help)
}

fn fail(error: &Error, report: &Report) -> ExitCode {
    report.error(error);
    ExitCode::from(error.exit_code())
}
