//! `kcompile completions` and `kcompile man`.

use crate::cli::output::print;
use crate::util::error::{Context, Error, Kind, Result};
use std::process::ExitCode;

pub fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::command(), "kcompile", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(command: Option<&str>) -> Result<ExitCode> {
    let mut whole = crate::cli::command();
    // Building gives the subcommands their full names: `kcompile plan`.
    whole.build();
    let page = match command {
        None => whole,
        Some(name) => {
            let found = whole.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| Error::usage(format!("there is no command `{name}`")))?;
            let name = format!("kcompile-{}", found.get_name());
            found.name(name)
        }
    };
    let mut text = Vec::new();
    let written = clap_mangen::Man::new(page).render(&mut text);
    written.context(Kind::Build, || "cannot write the man page".into())?;
    print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}
