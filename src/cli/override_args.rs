//! The options that override the config: `--fragment` and `--set`.

use crate::catalog::project::{Defaults, FILE, Project};
use crate::kconfig;
use crate::plan::request::Override;
use crate::util::error::{Error, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use std::collections::BTreeMap;

/// `--fragment` and `--set`, in the order of the command line. `None` is of a command that takes neither, so that
/// those of a project do not apply.
#[derive(Clone, Debug, Default)]
pub struct Overrides(pub Option<Vec<Override>>);

impl Overrides {
    /// Returns those of a command line without any.
    pub fn none_given() -> Overrides {
        Overrides(Some(Vec::new()))
    }

    /// Returns those of the project and then those of the command line, which may repeat the project's.
    ///
    /// # Errors
    ///
    /// Exit code 2: a line of `set` in kcompile.toml is not a setting.
    pub fn with_project(&self, project: &Project) -> Result<Vec<Override>> {
        let Some(typed) = &self.0 else { return Ok(Vec::new()) };
        let Defaults { fragment, set, .. } = &project.defaults;
        let mut overrides: Vec<Override> = fragment.iter().cloned().map(Override::Fragment).collect();
        for line in set {
            let line = kconfig::set_line(line).map_err(|why| {
                let file = project.file.as_deref().unwrap_or(FILE.into());
                Error::usage(format!("{file}: set: {why}"))
            })?;
            overrides.push(Override::Set(line));
        }
        overrides.retain(|one| !typed.contains(one));
        Ok(overrides.into_iter().chain(typed.iter().cloned()).collect())
    }
}

/// `--fragment` and `--set` as clap parses them, each by itself.
#[derive(Args)]
#[command(next_help_heading = "Config and patches")]
struct OverrideArgs {
    /// Apply a config fragment; repeatable
    ///
    /// A fragment is a name that `kcompile list --fragments` prints, or a file. Fragments and --set apply in the
    /// order of the command line.
    #[arg(long, value_name = "NAME|FILE")]
    fragment: Vec<String>,
    /// Set one config option, such as KSM=n; repeatable
    ///
    /// The symbol may begin with CONFIG_. Settings and fragments apply in the order of the command line.
    #[arg(long, value_name = "SYMBOL=VALUE", value_parser = kconfig::set_line)]
    set: Vec<String>,
}

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        OverrideArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        OverrideArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Overrides, clap::Error> {
        let OverrideArgs { fragment, set } = OverrideArgs::from_arg_matches(matches)?;
        let indices = |id: &str| matches.indices_of(id).into_iter().flatten();
        let fragments = indices("fragment").zip(fragment.into_iter().map(Override::Fragment));
        let sets = indices("set").zip(set.into_iter().map(Override::Set));
        let by_index: BTreeMap<usize, Override> = fragments.chain(sets).collect();
        Ok(Overrides(Some(by_index.into_values().collect())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Overrides::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::BuildCommand;
    use clap::Parser as _;

    #[test]
    fn fragments_and_settings_keep_their_order() {
        let line = "kcompile --fragment a --set B=y 6.1 --fragment=c --set D=n --fragment a";
        let command = BuildCommand::try_parse_from(line.split(' ')).unwrap();
        let fragment = |name: &str| Override::Fragment(name.into());
        let set = |line: &str| Override::Set(kconfig::set_line(line).unwrap());
        let expected = [fragment("a"), set("B=y"), fragment("c"), set("D=n"), fragment("a")];
        assert_eq!(command.build.options.config.overrides.0.unwrap(), expected);
    }
}
