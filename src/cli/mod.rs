//! The command line: raw arguments as clap takes them, one file for each subcommand's words. What
//! was typed becomes a [`Request`](crate::plan::request::Request); what goes out is printed here.

mod args;
mod commands;
mod output;
mod output_diff;
mod resolve;
mod target;

use crate::catalog::Library;
use crate::cli::args::BuildArgs;
use crate::cli::commands::boot::BootArgs;
use crate::cli::commands::cache::CacheArgs;
use crate::cli::commands::check::CheckArgs;
use crate::cli::commands::clean::CleanArgs;
use crate::cli::commands::diff::DiffArgs;
use crate::cli::commands::doctor::DoctorArgs;
use crate::cli::commands::fetch::FetchArgs;
use crate::cli::commands::inspect::InspectArgs;
use crate::cli::commands::push::PushArgs;
use crate::cli::commands::verify::VerifyArgs;
use crate::host::{self, Host, process};
use crate::report::{Progress, Report};
use crate::util::error::{Error, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use commands::{
    add, boot, build, cache, check, clean, completions, config, diff, doctor, fetch, inspect, list, plan,
    push, verify,
};
use std::process::ExitCode;

pub const EXAMPLES: &str = "\
Examples:
  kcompile 6.1 --fc                        the newest 6.1 from kernel.org, for Firecracker
  kcompile 5.10 6.1 --fc                   both at once
  kcompile 5.15.12 --ch                    branch ch-5.15.12 of cloud-hypervisor/linux
  kcompile 6.1 --fc --source apt           from the distribution's kernel source package
  kcompile 6.1.7 --fc --source ./linux     from a directory, which is used in place
  kcompile plan 6.1 --fc --set KSM=n       all that would decide the bytes; touches nothing
  kcompile check my.config --for kubernetes-1.35 cilium
  kcompile doctor --install                install what this host lacks to build a kernel
  kcompile boot 6.1 --fc                   boot what was built, and try it
  kcompile push docker.io/foobar           copy all images in out/ to a registry

Exit codes: 0 ok, 1 the build or a check failed, 2 usage or plan, 3 fetch or verification,
4 the host lacks something, 130 interrupted.";

/// Builds Linux guest kernels for Firecracker and Cloud Hypervisor, and packs them as OCI layouts
#[derive(Debug, Parser)]
#[command(name = "kcompile", arg_required_else_help = true)]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
#[command(
    override_usage = "kcompile [build] <VERSION>... [--fc | --ch] [OPTIONS]\n       kcompile <COMMAND>"
)]
pub struct Cli {
    /// What to do instead of building.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `build`, which may be left out.
    #[command(flatten)]
    pub build: BuildArgs,
}

impl Cli {
    /// The build options in force, if the command has them.
    pub fn build_args(&self) -> Option<&BuildArgs> {
        match &self.command {
            None => Some(&self.build),
            Some(Command::Build(args) | Command::Plan(args)) => Some(args),
            Some(Command::Fetch(args)) => Some(&args.build),
            Some(Command::Config(args)) => Some(args.build_args()),
            Some(Command::Add(args)) => Some(&args.build),
            Some(_) => None,
        }
    }

    /// How progress is to be shown.
    pub fn progress(&self) -> Progress {
        match &self.command {
            Some(Command::Verify(args)) => args.progress,
            Some(Command::Push(args)) => args.progress,
            Some(Command::Boot(args)) => args.progress,
            Some(Command::Cache(args)) => args.progress,
            _ => self.build_args().map_or(Progress::Auto, |args| args.progress),
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build kernels and pack them (the word `build` may be left out)
    Build(BuildArgs),
    /// Print all that would decide the bytes; touches nothing
    Plan(BuildArgs),
    /// Only fill the cache, for later --offline builds
    Fetch(FetchArgs),
    /// Show the catalog: known kernels, their Kubernetes verdict, and fragments for --fragment
    List(list::ListArgs),
    /// Say what this host lacks to build, and the one command that installs it
    Doctor(DoctorArgs),
    /// Hold a .config, a built image or a kernel of the catalog against requirement profiles
    Check(CheckArgs),
    /// Add a kernel to your catalog: pin its source, carry a config over, say what changed
    Add(add::AddArgs),
    /// Show, compare and edit configs
    Config(config::ConfigArgs),
    /// Say what is in an image, and from what it was built, without unpacking it
    Inspect(InspectArgs),
    /// Boot an image in a virtual machine, load every module, and try what a Kubernetes node needs
    Boot(BootArgs),
    /// Read every byte of images, and say whether they are what they should be
    Verify(VerifyArgs),
    /// Say how two images differ: config, modules, sizes, tools, and why their bytes do
    Diff(DiffArgs),
    /// Copy layouts to a registry by skopeo, and check what it then serves
    Push(PushArgs),
    /// Move what ccache has compiled between machines, as an image
    Cache(CacheArgs),
    /// Free space in the cache: all of it, or what the options say
    Clean(CleanArgs),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page of kcompile or of one of its commands
    Man {
        /// The command
        command: Option<String>,
    },
}

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
            true => plan::plan(args, true, matches, host, report),
            false => build::build(args, matches, host, report),
        },
        (Some(Command::Plan(args)), _) => plan::plan(args, true, matches, host, report),
        (Some(Command::Fetch(args)), _) => match args.build.dry_run {
            true => plan::plan(&args.build, false, matches, host, report),
            false => fetch::fetch(args, matches, host, report),
        },
        (Some(Command::List(args)), _) => list::list(args, host),
        (Some(Command::Doctor(args)), _) if args.cache => doctor::checkup(args, host, report),
        (Some(Command::Doctor(args)), _) => doctor::doctor(args, matches, host, report),
        (Some(Command::Check(args)), _) => check::check(args, matches, host, report),
        (Some(Command::Add(args)), _) => add::add(args, matches, host, report),
        (Some(Command::Config(args)), _) => config::config(args, matches, host, report),
        (Some(Command::Inspect(args)), _) => inspect::inspect(args, host, report),
        (Some(Command::Boot(args)), _) => boot::run(args, host, report),
        (Some(Command::Verify(args)), _) => verify::verify(args, host, report),
        (Some(Command::Diff(args)), _) => diff::diff(args, host, report),
        (Some(Command::Push(args)), _) => push::push(args, host, report),
        (Some(Command::Cache(args)), _) => cache::cache(args, host, report),
        (Some(Command::Clean(args)), _) => clean::clean(args, host, report),
        (Some(Command::Completions { shell }), _) => completions::completions(*shell, self::command()),
        (Some(Command::Man { command }), _) => completions::man(command.as_deref(), self::command()),
    }
}

/// The command line, with what only the program knows at run time: the catalog's revision and its fragments.
pub fn command() -> clap::Command {
    let library = Library::built_in();
    let version = format!("{} (catalog {})", env!("CARGO_PKG_VERSION"), library.revision().short());
    let help = format!("{}\n\nFragments (--fragment NAME):\n{}", EXAMPLES, list::fragments(&library));
    Cli::command().version(version).after_help(help)
}

fn fail(error: &Error, report: &Report) -> ExitCode {
    report.error(error);
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kbuild::timings::Form;

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn timings_take_a_form_or_none() {
        let forms = |words: &str| Cli::try_parse_from(words.split(' ')).unwrap().build.timings;
        assert_eq!(forms("kcompile 6.1"), []);
        assert_eq!(forms("kcompile --timings 6.1"), [Form::Html]);
        assert_eq!(forms("kcompile --timings=html,json 6.1"), [Form::Html, Form::Json]);
    }

    #[test]
    fn the_word_build_may_be_left_out() {
        let short = Cli::try_parse_from(["kcompile", "6.1", "--fc"]).unwrap();
        let long = Cli::try_parse_from(["kcompile", "build", "6.1", "--fc"]).unwrap();
        assert!(short.command.is_none() && short.build.hypervisor.fc);
        assert!(matches!(long.command, Some(Command::Build(args)) if args.hypervisor.fc));
        assert!(Cli::try_parse_from(["kcompile", "6.1", "--fc", "--ch"]).is_err());
    }
}
