//! Options of what is printed, and how.

use crate::report::{Progress, Verbosity};
use crate::util::terminal::ColorChoice;
use clap::Args;

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct ProgressArgs {
    /// auto, bar, plain, json or quiet
    ///
    /// How to show progress. The default is auto.
    #[arg(long, value_name = "KIND", value_enum)]
    pub progress: Option<Progress>,
    /// Print only warnings and errors
    #[arg(short, long, conflicts_with_all = ["progress", "verbose"])]
    pub quiet: bool,
    /// Also print what make prints
    #[arg(short, long)]
    pub verbose: bool,
}

impl ProgressArgs {
    /// Returns `--progress` or `--quiet`, if one is given.
    pub fn progress(&self) -> Option<Progress> {
        if self.quiet { Some(Progress::Quiet) } else { self.progress }
    }

    pub fn verbosity(&self) -> Verbosity {
        if self.verbose { Verbosity::Verbose } else { Verbosity::Normal }
    }
}

/// Options of all commands.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// Colors: auto, always or never
    ///
    /// The default is auto. NO_COLOR and CLICOLOR_FORCE in the environment override it.
    #[arg(long, value_name = "WHEN", value_enum, global = true)]
    pub color: Option<ColorChoice>,
}
