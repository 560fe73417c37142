//! `kcompile man`: prints man pages, or writes all of them.

use crate::cli::man_page;
use crate::cli::output::{print, print_verbatim};
use crate::host::Host;
use crate::ops::context::display_path;
use crate::util::error::{Error, Result};
use crate::util::fs::{create_dir, write_atomically};
use crate::util::text::nearest;
use camino::Utf8PathBuf;
use clap::{Args, Command};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile man | man -l -                the page of kcompile
  kcompile man config set | man -l -     the page of one command
  kcompile man --output man1             write the pages of all commands

Exit codes: 0 ok, 1 cannot write, 2 usage error or unknown command.";

/// The options of `man`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ManArgs {
    /// Command, such as plan or config set [default: kcompile]
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Write the pages of all commands to DIR
    #[arg(short, long, value_name = "DIR", conflicts_with = "command")]
    pub output: Option<Utf8PathBuf>,
}

/// Prints the page of a command, or writes the pages of `whole` and all commands below it.
pub fn man(args: &ManArgs, whole: Command, host: &Host) -> Result<ExitCode> {
    // The generated command `help` has no page.
    let mut whole = whole.disable_help_subcommand(true);
    // Building gives the commands their full names, such as `kcompile config set`.
    whole.build();
    let Some(dir) = &args.output else {
        let mut command = &whole;
        for name in &args.command {
            command = command.find_subcommand(name).ok_or_else(|| unknown(name, command))?;
        }
        print_verbatim(&man_page::page(command, &whole)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let dir = host.absolute(dir);
    create_dir(&dir)?;
    let mut commands = vec![&whole];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()));
        let path = dir.join(format!("{}.1", man_page::name(command)));
        write_atomically(&path, man_page::page(command, &whole)?.as_bytes())?;
        print(&format!("{}\n", display_path(&path, host)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(name: &str, command: &Command) -> Error {
    let error = Error::usage(format!("unknown command `{name}`"));
    match nearest(name, command.get_subcommands().map(Command::get_name)) {
        Some(known) => error.hint(format!("did you mean `{known}`?")),
        None => error
            .hint(format!("`{} --help` lists the commands", command.get_bin_name().unwrap_or("kcompile"))),
    }
}
