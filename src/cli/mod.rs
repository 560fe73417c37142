//! The command line. clap parses the arguments, `resolve` turns them into a
//! [`Request`](crate::plan::request::Request), and each command prints its results.

mod args;
mod candidates;
mod commands;
mod flavor_args;
mod help;
mod image_cache_args;
mod image_caches;
mod man_page;
mod output;
mod output_cve;
mod output_diff;
mod output_update;
mod output_update_report;
mod override_args;
mod overview;
mod paint;
mod progress_args;
mod resolve;
mod target;
mod toolchain_choice;
mod variants;

use crate::catalog::ConfigLibrary;
use crate::cli::args::{BuildArgs, GlobalArgs, ProgressArgs};
use crate::cli::commands::boot::BootArgs;
use crate::cli::commands::cache::CacheArgs;
use crate::cli::commands::ccache::CcacheArgs;
use crate::cli::commands::check::CheckArgs;
use crate::cli::commands::clean::CleanArgs;
use crate::cli::commands::config_args::ConfigCommand;
use crate::cli::commands::diff::DiffArgs;
use crate::cli::commands::doctor::DoctorArgs;
use crate::cli::commands::extract::ExtractArgs;
use crate::cli::commands::fetch::FetchArgs;
use crate::cli::commands::inspect::InspectArgs;
use crate::cli::commands::make::MakeCommandArgs;
use crate::cli::commands::man::ManArgs;
use crate::cli::commands::push::PushArgs;
use crate::cli::commands::toolchain::ToolchainArgs;
use crate::cli::commands::verify::VerifyArgs;
use crate::host::{self, Host, process};
use crate::kernel::{Channel, Flavor, VersionRequest};
use crate::report::{self, ErrorFormat, Progress, Reporter, Verbosity};
use crate::util::error::{Error, Result};
use crate::util::terminal::Terminals;
use crate::util::text::{escape_control, join_list, nearest, redact_secrets};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::CompleteEnv;
use commands::{
    add, boot, build, cache, ccache, check, clean, completions, config, cve, diff, doctor, extract, fetch,
    inspect, list, make, man, plan, push, toolchain, update, verify,
};
use overview::{EXAMPLES, OVERVIEW};
use std::io::Write as _;
use std::process::ExitCode;

/// The variable by which the scripts of `kcompile completions` ask for candidates.
const COMPLETE: &str = "KCOMPILE_COMPLETE";

#[derive(Debug, Parser)]
#[command(name = "kcompile", arg_required_else_help = true, about = about())]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
#[command(override_usage = usage())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `build`, if there is no subcommand.
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub global: GlobalArgs,
}

fn about() -> String {
    let titles = join_list(Flavor::ALL.iter().map(|flavor| flavor.spec().title), "and");
    format!("Build Linux guest kernels for {titles} as OCI images")
}

fn usage() -> String {
    let flags: Vec<String> = Flavor::ALL.iter().map(|flavor| format!("--{}", flavor.spec().flag)).collect();
    format!("kcompile [build] [VERSION]... [{}] [OPTIONS]\n       kcompile <COMMAND>", flags.join(" | "))
}

impl Cli {
    /// Returns the subcommand, or else `build`.
    fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Build(self.build))
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build kernels and pack them as OCI images (the default command)
    #[command(after_long_help = EXAMPLES)]
    Build(BuildArgs),
    /// Show every input that determines the output; changes nothing
    #[command(after_long_help = plan::EXAMPLES)]
    Plan(BuildArgs),
    /// Fetch sources into the cache, for later builds with --offline
    Fetch(FetchArgs),
    /// List kernels, their Kubernetes support, and fragments
    List(list::ListArgs),
    /// Check what this host lacks, and how to install it
    Doctor(DoctorArgs),
    /// Check a .config, an image or a version against profiles
    Check(CheckArgs),
    /// Add a kernel to your catalog, with a migrated config
    Add(add::AddArgs),
    /// Update the kernels of your catalog to newer releases
    Update(update::UpdateArgs),
    /// Show, compare and edit configs
    Config(ConfigCommand),
    /// Show what an image contains and what it was built from
    Inspect(InspectArgs),
    /// Write kernel, modules or config of an image as files
    Extract(ExtractArgs),
    /// Run other targets of the kernel's make
    Make(MakeCommandArgs),
    /// Boot an image in a virtual machine, and check it
    Boot(BootArgs),
    /// Verify images: digests, contents, annotations and receipts
    Verify(VerifyArgs),
    /// Show which CVEs affect the files that were compiled
    Cve(cve::CveArgs),
    /// Compare two images, and explain why they differ
    Diff(DiffArgs),
    /// Copy images to a registry with skopeo
    Push(PushArgs),
    /// Show, check and prune the cache of sources, builds and images
    Cache(CacheArgs),
    /// Export the cache of ccache as an image, or import it
    Ccache(CcacheArgs),
    /// Make, list and check toolchains, which build kernels
    Toolchain(ToolchainArgs),
    /// Remove sources and builds from the cache
    Clean(CleanArgs),
    /// Print shell completions
    #[command(after_long_help = completions::EXAMPLES)]
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the man page of kcompile or of one command
    Man(ManArgs),
}

impl Command {
    /// Returns the options of progress. A command without them has no phases to show.
    fn progress(&self) -> ProgressArgs {
        match self {
            Command::Build(args) | Command::Plan(args) => args.options.make.progress.clone(),
            Command::Fetch(args) => args.progress.clone(),
            Command::Add(args) => args.make.progress.clone(),
            Command::Update(args) => args.make.progress.clone(),
            Command::Config(args) => args.progress(),
            Command::Make(args) => args.make.progress.clone(),
            Command::Boot(args) => args.progress.clone(),
            Command::Verify(args) => args.progress.clone(),
            Command::Cve(args) => args.progress.clone(),
            Command::Push(args) => args.progress.clone(),
            Command::Cache(args) => ProgressArgs { progress: args.progress, ..ProgressArgs::default() },
            Command::Ccache(args) => ProgressArgs { progress: args.progress, ..ProgressArgs::default() },
            Command::Toolchain(args) => args.progress(),
            Command::List(_)
            | Command::Doctor(_)
            | Command::Check(_)
            | Command::Inspect(_)
            | Command::Diff(_)
            | Command::Extract(_)
            | Command::Clean(_)
            | Command::Completions { .. }
            | Command::Man(_) => ProgressArgs::default(),
        }
    }
}

/// Parses the arguments of the process, runs the command and prints its error.
pub fn main() -> ExitCode {
    // The script of `kcompile completions` sets this variable to ask for candidates.
    CompleteEnv::with_factory(|| candidates::add_to(help::arrange(Cli::command()))).var(COMPLETE).complete();
    if let Some(code) = process::supervise(host::args()) {
        return code;
    }
    if host::args().nth(1).is_none() {
        return show_overview();
    }
    let matches = help::list_values(command_line()).try_get_matches().unwrap_or_else(|error| exit(&error));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| exit(&error));
    let errors = if is_json(&matches) { ErrorFormat::Json } else { ErrorFormat::Text };
    let color = cli.global.color;
    let command = cli.into_command();
    let host = match Host::read(color) {
        Ok(host) => host,
        Err(error) => return fail(&error, &plain_reporter(errors)),
    };
    output::set_stdout(host.terminals.stdout);
    let progress = command.progress();
    let reporter = Reporter::new(
        progress.progress().or(host.user.progress).unwrap_or_default(),
        progress.verbosity(),
        host.terminals,
        errors,
    );
    match run(&command, &host, &reporter) {
        // Warnings are lost, or the events of `--progress json`.
        Ok(code) if code == ExitCode::SUCCESS && report::has_lost_lines() => ExitCode::FAILURE,
        Ok(code) => code,
        Err(error) => fail(&error, &reporter),
    }
}

/// Returns whether the innermost subcommand has the option `--json`.
fn is_json(matches: &ArgMatches) -> bool {
    match matches.subcommand() {
        Some((_, inner)) => is_json(inner),
        None => matches!(matches.try_get_one("json"), Ok(Some(true))),
    }
}

/// Checks that the first argument of `kcompile ARGUMENT` is a version and not a misspelt command.
fn check_version(args: &BuildArgs) -> Result<()> {
    let [text, ..] = &args.versions.versions[..] else { return Ok(()) };
    if text == "all" || text.parse::<VersionRequest>().is_ok() || text.parse::<Channel>().is_ok() {
        return Ok(());
    }
    let command = Cli::command();
    match nearest(text, command.get_subcommands().map(clap::Command::get_name)) {
        Some(name) if name == text => {
            Err(Error::usage(format!("the command `{name}` comes after an option of `kcompile build`"))
                .hint(format!("put the command first: `kcompile {name} …`")))
        }
        Some(name) => Err(Error::usage(format!("`{text}` is neither a command nor a kernel version"))
            .hint(format!("did you mean `kcompile {name}`?"))),
        None => Ok(()),
    }
}

fn run(command: &Command, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    process::set_safe_umask();
    process::watch_signals()?;
    match command {
        Command::Build(args) => check_version(args).and_then(|()| build::build(args, host, reporter)),
        Command::Plan(args) => plan::plan(args, host, reporter),
        Command::Fetch(args) => fetch::fetch(args, host, reporter),
        Command::List(args) => list::list(args, host),
        Command::Doctor(args) => doctor::doctor(args, host, reporter),
        Command::Check(args) => check::check(args, host, reporter),
        Command::Add(args) => add::add(args, host, reporter),
        Command::Update(args) => update::update(args, host, reporter),
        Command::Config(args) => config::config(args, host, reporter),
        Command::Inspect(args) => inspect::inspect(args, host, reporter),
        Command::Extract(args) => extract::extract(args, host, reporter),
        Command::Make(args) => make::make(args, host, reporter),
        Command::Boot(args) => boot::run(args, host, reporter),
        Command::Verify(args) => verify::verify(args, host, reporter),
        Command::Cve(args) => cve::cve(args, host, reporter),
        Command::Diff(args) => diff::diff(args, host, reporter),
        Command::Push(args) => push::push(args, host, reporter),
        Command::Cache(args) => cache::cache(args, host, reporter),
        Command::Ccache(args) => ccache::ccache(args, host, reporter),
        Command::Toolchain(args) => toolchain::toolchain(args, host, reporter),
        Command::Clean(args) => clean::clean(args, host, reporter),
        Command::Completions { shell } => completions::completions(*shell, COMPLETE),
        Command::Man(args) => man::man(args, command_line(), host),
    }
}

/// Prints the overview, as `kcompile` without arguments does.
fn show_overview() -> ExitCode {
    let text = format!("{}\n\nUsage: {}\n\n{OVERVIEW}", about(), usage());
    match output::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, &plain_reporter(ErrorFormat::Text)),
    }
}

/// Prints a message of the parser and exits. The message repeats arguments, which may hold a password.
fn exit(error: &clap::Error) -> ! {
    let text = error.to_string();
    let mut options = host::args().take_while(|word| word != "--");
    if error.use_stderr() && options.any(|word| word == "--json") {
        plain_reporter(ErrorFormat::Json).error(&usage_error(&text));
        std::process::exit(error.exit_code());
    }
    let shown = escape_control(&redact_secrets(&text));
    if shown != text {
        let _ = std::io::stderr().write_all(shown.as_bytes());
        std::process::exit(error.exit_code());
    }
    let written = error.print().and_then(|()| std::io::stdout().flush());
    if error.use_stderr() {
        std::process::exit(error.exit_code());
    }
    // `--help` and `--version`.
    match output::check_written(written) {
        Ok(()) => std::process::exit(error.exit_code()),
        Err(error) => {
            plain_reporter(ErrorFormat::Text).error(&error);
            std::process::exit(error.exit_code().into())
        }
    }
}

/// Turns a message of the parser into an error. Its first paragraph says what is wrong, and one that begins
/// with `tip:` what to do.
fn usage_error(text: &str) -> Error {
    let one_line = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n").map(one_line);
    let message = paragraphs.next().unwrap_or_default();
    let error = Error::usage(message.trim_start_matches("error: "));
    match paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned)) {
        Some(tip) => error.hint(tip),
        None => error,
    }
}

/// Returns the command line, with the catalog's revision in the version.
fn command_line() -> clap::Command {
    let revision = ConfigLibrary::built_in().revision().short();
    let version = format!("{} (catalog {revision})", env!("CARGO_PKG_VERSION"));
    help::arrange(Cli::command()).version(version).after_long_help(EXAMPLES)
}

/// Returns a reporter for errors before the host is known.
fn plain_reporter(errors: ErrorFormat) -> Reporter {
    Reporter::new(Progress::Plain, Verbosity::Normal, Terminals::default(), errors)
}

fn fail(error: &Error, reporter: &Reporter) -> ExitCode {
    reporter.error(error);
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod tests;
