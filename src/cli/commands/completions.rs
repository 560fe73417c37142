//! `kcompile completions`: prints scripts that complete command lines.

use crate::cli::output::print_verbatim;
use crate::util::error::{Kind, Result, ResultExt};
use clap_complete::env::Shells;
use std::process::ExitCode;

pub const EXAMPLES: &str = "\
Examples:
  source <(kcompile completions bash)                        in ~/.bashrc
  source <(kcompile completions zsh)                         in ~/.zshrc
  kcompile completions fish > ~/.config/fish/completions/kcompile.fish

Exit codes: 0 ok, 1 cannot write, 2 usage error.";

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
