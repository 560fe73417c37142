//! The options that choose a hypervisor: one flag for each, and `--flavor`.

use crate::kernel::Flavor;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

/// The hypervisor, if the command line names one.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlavorArgs(Option<Flavor>);

impl FlavorArgs {
    pub fn flavor(self) -> Option<Flavor> {
        self.0
    }
}

impl From<Option<Flavor>> for FlavorArgs {
    fn from(flavor: Option<Flavor>) -> FlavorArgs {
        FlavorArgs(flavor)
    }
}

impl Args for FlavorArgs {
    fn augment_args(command: Command) -> Command {
        let ids = || Flavor::ALL.iter().map(|flavor| flavor.spec().flag).chain(["flavor"]);
        let flags = Flavor::ALL.iter().map(|flavor| {
            let id = flavor.spec().flag;
            let others = ids().filter(move |other| *other != id);
            let flag = Arg::new(id).long(id).action(ArgAction::SetTrue).conflicts_with_all(others);
            flag.help(format!("Short for --flavor {flavor}"))
        });
        let name = Arg::new("flavor").long("flavor").value_name("NAME").value_parser(value_parser!(Flavor));
        command.args(flags).arg(name.help(format!("Hypervisor: {}", Flavor::choices())))
    }

    fn augment_args_for_update(command: Command) -> Command {
        FlavorArgs::augment_args(command)
    }
}

impl FromArgMatches for FlavorArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<FlavorArgs, clap::Error> {
        let by_flag = Flavor::ALL.iter().find(|flavor| matches.get_flag(flavor.spec().flag));
        Ok(FlavorArgs(by_flag.or_else(|| matches.get_one("flavor")).copied()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = FlavorArgs::from_arg_matches(matches)?;
        Ok(())
    }
}
