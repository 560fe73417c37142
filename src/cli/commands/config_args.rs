//! The options of `kcompile config`.

use super::config_text::Group;
use crate::cli::args::{ConfigArgs, MakeArgs, Options, ProgressArgs, RequireArgs, TargetArgs};
use crate::kconfig;
use camino::Utf8PathBuf;
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  kcompile config show 6.1 --fc                the .config of a build
  kcompile config show 6.1 --fc --minimal      only what differs from defaults
  kcompile config diff 6.1 6.12 --fc           compare two versions
  kcompile config diff my.config out/firecracker-kernel-modules-amd64:6.1.7
  kcompile config edit 6.1 --fc                change your config in menuconfig
  kcompile config edit 6.1.7 --fc --config my.config
  kcompile config save new.config 6.1 --fc     copy the settings of a .config
  kcompile config set 6.1 --fc XFS_FS=m        set a symbol in your config
  kcompile config set 6.1 --fc XFS_RT=y --with-dependencies
  kcompile config why 6.1 --fc XFS_FS          describe a symbol

`edit`, `save` and `set` write one line for each setting that differs from its default. Lines that still apply \
stay where they are in the file, and new ones are added below the name of their menu. kcompile then \
checks that the kernel makes the same .config from the file. An edited config of the built-in catalog is \
written to configs/ in your project or in --configs DIR.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ConfigCommand {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Print the final .config of a version, after olddefconfig
    Show(ShowArgs),
    /// Compare two configs, each of a version, a .config file or an image
    Diff(DiffArgs),
    /// Edit the config of a version in the kernel's menuconfig
    Edit(EditArgs),
    /// Copy the settings of a .config file to the config of a version
    Save(SaveArgs),
    /// Set symbols in the config of a version
    Set(SetArgs),
    /// Show the type, dependencies, selectors and ranges of symbols
    Why(WhyArgs),
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// Print only settings that differ from the kernel's defaults
    #[arg(long)]
    pub minimal: bool,
    #[command(flatten)]
    pub final_config: FinalConfigArgs,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A .config, an image as LAYOUT[:TAG], or a version
    #[arg(value_names = ["FIRST", "SECOND"], num_args = 2, required = true)]
    pub sides: Vec<String>,
    /// Print every line instead of a summary
    #[arg(long)]
    pub all: bool,
    /// Groups: changed, renamed, new or removed
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub only: Vec<Group>,
    /// Print only symbols that a user can set
    ///
    /// One side must be a version.
    #[arg(long)]
    pub settable: bool,
    #[command(flatten)]
    pub final_config: FinalConfigArgs,
}

#[derive(Debug, Args)]
pub struct EditArgs {
    #[command(flatten)]
    pub version: VersionArg,
    #[command(flatten)]
    pub written: WrittenConfigArgs,
}

#[derive(Debug, Args)]
pub struct SaveArgs {
    /// A complete .config, or with --merge a partial one
    #[arg(value_name = "FILE")]
    pub file: Utf8PathBuf,
    #[command(flatten)]
    pub version: VersionArg,
    /// Merge FILE into the present config
    #[arg(long, conflicts_with = "whole")]
    pub merge: bool,
    /// Accept FILE as the complete config
    ///
    /// Settings that it leaves out get their defaults.
    #[arg(long)]
    pub whole: bool,
    #[command(flatten)]
    pub written: WrittenConfigArgs,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// Settings to change, such as XFS_FS=m
    #[arg(value_name = "SYMBOL=VALUE", required = true, value_parser = kconfig::set_line)]
    pub lines: Vec<String>,
    /// Also set the options that these settings depend on
    #[arg(long)]
    pub with_dependencies: bool,
    #[command(flatten)]
    pub written: WrittenConfigArgs,
}

#[derive(Debug, Args)]
pub struct WhyArgs {
    #[command(flatten)]
    pub version: VersionArg,
    /// Symbols, with or without CONFIG_
    #[arg(value_name = "SYMBOL", required = true)]
    pub symbols: Vec<String>,
    #[command(flatten)]
    pub final_config: FinalConfigArgs,
}

#[derive(Debug, Args)]
pub struct VersionArg {
    /// Kernel version: 6.1.7, 6.1, latest, longterm or mainline
    ///
    /// 6.1 is the newest version of its series. `latest`, `longterm` and `mainline` are from kernel.org's
    /// releases.json.
    pub version: String,
}

/// Options of `show` and `diff`, which only read.
#[derive(Debug, Args)]
pub struct FinalConfigArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub make: MakeArgs,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Options of `edit`, `save` and `set`, which write one config file.
#[derive(Debug, Args)]
pub struct WrittenConfigArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Use this .config instead of the catalog's
    #[arg(long, value_name = "FILE", help_heading = "Config and patches")]
    pub config: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub require: RequireArgs,
    #[command(flatten)]
    pub make: MakeArgs,
    /// Print the config instead of writing it
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
}

impl FinalConfigArgs {
    pub fn options(&self) -> Options {
        Options { target: self.target.clone(), config: self.config.clone(), ..self.make.options() }
    }
}

impl WrittenConfigArgs {
    pub fn options(&self) -> Options {
        let config = ConfigArgs { config: self.config.clone(), ..ConfigArgs::default() };
        let require = self.require.clone();
        Options { target: self.target.clone(), config, require, ..self.make.options() }
    }
}

impl ConfigCommand {
    /// The options of progress.
    pub fn progress(&self) -> ProgressArgs {
        let make = match &self.action {
            Action::Show(args) => &args.final_config.make,
            Action::Diff(args) => &args.final_config.make,
            Action::Edit(args) => &args.written.make,
            Action::Save(args) => &args.written.make,
            Action::Set(args) => &args.written.make,
            Action::Why(args) => &args.final_config.make,
        };
        make.progress.clone()
    }

    pub fn options(&self) -> Options {
        match &self.action {
            Action::Show(args) => args.final_config.options(),
            Action::Diff(args) => args.final_config.options(),
            Action::Edit(args) => args.written.options(),
            Action::Save(args) => args.written.options(),
            Action::Set(args) => args.written.options(),
            Action::Why(args) => args.final_config.options(),
        }
    }
}
