//! `kcompile completions` and `kcompile man`: print shell completions and man pages.

use crate::cli::output::print_verbatim;
use crate::util::error::{Error, Kind, Result, ResultExt};
use clap_complete::env::Shells;
use std::process::ExitCode;

/// Prints a script that asks kcompile itself for candidates, by the environment variable `variable`.
pub fn completions(shell: clap_complete::Shell, variable: &str) -> Result<ExitCode> {
    let mut text = Vec::new();
    let shells = Shells::builtins();
    let script = shells.completer(&shell.to_string()).expect("both have the same shells");
    let written = script.write_registration(variable, "kcompile", "kcompile", "kcompile", &mut text);
    written.context(Kind::Build, || "cannot write the script".into())?;
    print_verbatim(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the page of `whole`, or of its command `name`.
pub fn man(name: Option<&str>, mut whole: clap::Command) -> Result<ExitCode> {
    // Building gives the subcommands their full names: `kcompile plan`.
    whole.build();
    let page = match name {
        None => whole,
        Some(name) => {
            let found = whole.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| Error::usage(format!("unknown command `{name}`")))?;
            let name = format!("kcompile-{}", found.get_name());
            found.name(name)
        }
    };
    let mut text = Vec::new();
    let written = clap_mangen::Man::new(page).render(&mut text);
    written.context(Kind::Build, || "cannot write the man page".into())?;
    print_verbatim(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}
