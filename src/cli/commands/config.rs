//! `kcompile config`: shows and compares final configs, and changes the user's own configs.

use super::config_text::{self, Group};
use crate::cli::args::{ConfigArgs, MakeArgs, Options, ProgressArgs, RequireArgs, TargetArgs};
use crate::cli::output::{
    groups, print, print_painted, print_verbatim, renamed, render_json, render_setting,
};
use crate::cli::paint;
use crate::cli::resolve::{CatalogFiles, context, import_bundle, one_request};
use crate::cli::target::{Target, config_of};
use crate::host::Host;
use crate::image::inspect;
use crate::kconfig::explain::Renames;
use crate::kconfig::{self, Comparison, Config, Setting};
use crate::kernel::Arch;
use crate::oci::layout_reader::LayoutReader;
use crate::ops::absent_symbols::AbsentSymbols;
use crate::ops::config::{self, ConfigEdit, ConfigFormat, Dependencies, FileExtent};
use crate::ops::context::Context;
use crate::plan::Plan;
use crate::plan::request::{Override, Request};
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use crate::util::text::{join_first, pluralize, sanitize_line};
use camino::Utf8PathBuf;
use clap::Args;
use clap::Subcommand;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::ExitCode;

/// The number of settings that a note names.
const MAX_NAMED: usize = 12;

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
#[command(after_help = EXAMPLES)]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
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
struct ShowArgs {
    #[command(flatten)]
    version: VersionArg,
    /// Print only settings that differ from the kernel's defaults
    #[arg(long)]
    minimal: bool,
    #[command(flatten)]
    final_config: FinalConfigArgs,
}

#[derive(Debug, Args)]
struct DiffArgs {
    /// A .config file, an image as LAYOUT or LAYOUT:TAG, or a kernel version
    #[arg(value_names = ["FIRST", "SECOND"], num_args = 2, required = true)]
    sides: Vec<String>,
    /// Print every line of every group instead of a summary
    #[arg(long)]
    all: bool,
    /// Print only these groups
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    only: Vec<Group>,
    /// Print only symbols that a user can set in the compared versions; one side must be a version
    #[arg(long)]
    settable: bool,
    #[command(flatten)]
    final_config: FinalConfigArgs,
}

#[derive(Debug, Args)]
struct EditArgs {
    #[command(flatten)]
    version: VersionArg,
    #[command(flatten)]
    written: WrittenConfigArgs,
}

#[derive(Debug, Args)]
struct SaveArgs {
    /// A complete .config, or with --merge a partial one
    #[arg(value_name = "FILE")]
    file: Utf8PathBuf,
    #[command(flatten)]
    version: VersionArg,
    /// Merge FILE into the present config
    #[arg(long, conflicts_with = "whole")]
    merge: bool,
    /// Accept FILE as the complete config; settings that it leaves out get their defaults
    #[arg(long)]
    whole: bool,
    #[command(flatten)]
    written: WrittenConfigArgs,
}

#[derive(Debug, Args)]
struct SetArgs {
    #[command(flatten)]
    version: VersionArg,
    /// Settings to change, such as XFS_FS=m
    #[arg(value_name = "SYMBOL=VALUE", required = true, value_parser = kconfig::set_line)]
    lines: Vec<String>,
    /// Also set the options that these settings depend on
    #[arg(long)]
    with_dependencies: bool,
    #[command(flatten)]
    written: WrittenConfigArgs,
}

#[derive(Debug, Args)]
struct WhyArgs {
    #[command(flatten)]
    version: VersionArg,
    /// Symbols, with or without CONFIG_
    #[arg(value_name = "SYMBOL", required = true)]
    symbols: Vec<String>,
    #[command(flatten)]
    final_config: FinalConfigArgs,
}

#[derive(Debug, Args)]
struct VersionArg {
    /// Kernel version: 5.15.12, 6.1 (newest of the series), latest, longterm or mainline (from kernel.org's
    /// releases.json)
    version: String,
}

/// Options of `show` and `diff`, which only read.
#[derive(Debug, Args)]
struct FinalConfigArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    make: MakeArgs,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Options of `edit`, `save` and `set`, which write one config file.
#[derive(Debug, Args)]
struct WrittenConfigArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Use this .config instead of the catalog's
    #[arg(long, value_name = "FILE", help_heading = "Config and patches")]
    config: Option<Utf8PathBuf>,
    #[command(flatten)]
    require: RequireArgs,
    #[command(flatten)]
    make: MakeArgs,
    /// Print the config instead of writing it
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
}

impl FinalConfigArgs {
    fn options(&self) -> Options {
        Options { target: self.target.clone(), config: self.config.clone(), ..self.make.options() }
    }
}

impl WrittenConfigArgs {
    fn options(&self) -> Options {
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

    fn options(&self) -> Options {
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

pub fn config(command: &ConfigCommand, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let options = command.options();
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    let ctx = context(&options, &files, host, reporter)?;
    let ctx = import_bundle(&options, ctx)?;
    match &command.action {
        Action::Show(args) => show(args, &options, &ctx),
        Action::Diff(args) => diff(args, &options, &ctx),
        Action::Edit(args) => {
            let request = one_request(&args.version.version, &options, &ctx)?;
            if !host.interactive {
                return Err(Error::usage("config edit shows menus and needs a terminal").hint(
                    "without a terminal, print a .config with `config show`, edit it, and write it back with \
                        `config save`",
                ));
            }
            written(config::edit(&request, &ctx)?, &args.written, &ctx)
        }
        Action::Save(args) => {
            let request = one_request(&args.version.version, &options, &ctx)?;
            let extent = if args.merge {
                FileExtent::Part
            } else if args.whole {
                FileExtent::Whole
            } else {
                FileExtent::Checked
            };
            written(config::save(host.absolute(&args.file), extent, &request, &ctx)?, &args.written, &ctx)
        }
        Action::Set(args) => {
            let overrides = args.lines.iter().cloned().map(Override::Set).collect();
            let request = Request { overrides, ..one_request(&args.version.version, &options, &ctx)? };
            let dependencies = if args.with_dependencies { Dependencies::Add } else { Dependencies::Refuse };
            written(config::set(&request, dependencies, &ctx)?, &args.written, &ctx)
        }
        Action::Why(args) => why(args, &options, &ctx),
    }
}

fn show(args: &ShowArgs, options: &Options, ctx: &Context<'_>) -> Result<ExitCode> {
    let form = if args.minimal { ConfigFormat::Minimal } else { ConfigFormat::Full };
    let request = one_request(&args.version.version, options, ctx)?;
    let (plan, text) = config::final_config(&request, form, ctx)?;
    if !args.final_config.json {
        print_verbatim(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (kernel, flavor, arch) = (plan.version_text(), plan.flavor, plan.arch);
    let symbols = Config::parse(&text).symbols;
    let json = json!({ "kernel": kernel, "flavor": flavor, "arch": arch, "symbols": symbols });
    print(&render_json(&json))?;
    Ok(ExitCode::SUCCESS)
}

fn why(args: &WhyArgs, options: &Options, ctx: &Context<'_>) -> Result<ExitCode> {
    let request = one_request(&args.version.version, options, ctx)?;
    let (plan, symbols) = config::describe(&args.symbols, &request, ctx)?;
    if args.final_config.json {
        let (kernel, flavor, arch) = (plan.version_text(), plan.flavor, plan.arch);
        let json = json!({ "kernel": kernel, "flavor": flavor, "arch": arch, "items": symbols });
        print(&render_json(&json))?;
    } else {
        print(&config_text::described(&symbols))?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Side {
    name: String,
    config: Config,
    /// The symbols that can be set, if this side is a version.
    settable: Option<BTreeSet<String>>,
}

fn diff(args: &DiffArgs, options: &Options, ctx: &Context<'_>) -> Result<ExitCode> {
    let is_version = |text: &&String| matches!(Target::of(text, ctx.host), Ok(Target::Version));
    let absent_symbols = AbsentSymbols::of_run(args.sides.iter().filter(is_version).count());
    let ctx = &Context { absent_symbols, ..ctx.clone() };
    let sides = args.sides.iter().map(|text| side(text, args, options, ctx)).collect::<Result<Vec<_>>>()?;
    let [first, second] = &sides[..] else { return Err(Error::usage("config diff compares two configs")) };
    let mut comparison = kconfig::compare(&first.config, &second.config, &Renames::read(ctx.library)?);
    if args.settable {
        let known: Vec<&BTreeSet<String>> = sides.iter().filter_map(|side| side.settable.as_ref()).collect();
        if known.is_empty() {
            return Err(Error::usage(format!(
                "--settable needs a kernel version: {} and {} have no Kconfig files, which tell what can be set",
                first.name, second.name
            ))
            .hint("give the version of one side in its place, such as 6.1, or leave --settable out"));
        }
        comparison.retain(|symbol| known.iter().any(|settable| settable.contains(symbol)));
    }
    config_text::keep_groups(&mut comparison, &args.only);
    if args.final_config.json {
        let json = json!({ "first": first.name, "second": second.name, "differences": comparison });
        return print(&render_json(&json)).map(|()| ExitCode::SUCCESS);
    }
    let text = if args.all { groups(&comparison) } else { config_text::summary(&comparison) };
    print_painted(&format!("{} -> {}\n{text}", first.name, second.name), paint::difference)?;
    Ok(ExitCode::SUCCESS)
}

fn side(text: &str, args: &DiffArgs, options: &Options, ctx: &Context<'_>) -> Result<Side> {
    match Target::of(text, ctx.host)? {
        Target::File(path) => {
            let config = config_of(&path)?;
            config.repeated_symbols(text).iter().for_each(|note| ctx.reporter.note(note));
            Ok(Side { name: text.to_owned(), config, settable: None })
        }
        Target::Layout(path, tag) => {
            let arch = options.target.arch.first().copied().or(ctx.host.arch);
            let image = LayoutReader::open(&path)?.open_image(tag.as_deref(), arch.map(Arch::name))?;
            let config = inspect::kernel_config(&image)?;
            let config =
                config.ok_or_else(|| Error::usage(format!("{text}: the image has no kernel config")))?;
            let config = Config::parse(&config);
            config.skipped_lines(text).iter().for_each(|note| ctx.reporter.warning(note.clone()));
            Ok(Side { name: text.to_owned(), config, settable: None })
        }
        Target::Version => {
            let request = one_request(text, options, ctx)?;
            if args.settable {
                let (plan, text, settable) = config::settable_symbols(&request, ctx)?;
                let (config, settable) = (Config::parse(&text), Some(settable));
                return Ok(Side { name: title(&plan), config, settable });
            }
            let (plan, text) = config::final_config(&request, ConfigFormat::Full, ctx)?;
            Ok(Side { name: title(&plan), config: Config::parse(&text), settable: None })
        }
    }
}

fn title(plan: &Plan) -> String {
    format!("{} for {} on {}", plan.version_text(), plan.flavor.spec().title, plan.arch)
}

/// Writes the result of `edit`, `save` or `set`, and prints what changed.
fn written(edit: Option<ConfigEdit>, args: &WrittenConfigArgs, ctx: &Context<'_>) -> Result<ExitCode> {
    let Some(edit) = edit else {
        ctx.reporter.note("nothing changed, so nothing was written");
        return Ok(ExitCode::SUCCESS);
    };
    if args.dry_run {
        print_verbatim(&edit.text)?;
        return Ok(ExitCode::SUCCESS);
    }
    config::write(&edit)?;
    let Comparison { new, removed, renamed: other_names, changed } = &edit.comparison;
    let on = |list: &[Setting]| list.iter().filter(|one| one.is_on()).map(render_setting).collect::<Vec<_>>();
    let changed = changed.iter().map(|one| format!("{} {} -> {}", one.symbol, one.from, one.to)).collect();
    let renamed = other_names.iter().map(renamed).collect();
    for (heading, list) in
        [("changed", changed), ("new", on(new)), ("gone", on(removed)), ("renamed", renamed)]
    {
        note(heading, &list, ctx.reporter);
    }
    print(&format!("{}\n", crate::ops::context::display_path(&edit.path, ctx.host)))?;
    Ok(ExitCode::SUCCESS)
}

fn note(heading: &str, list: &[String], reporter: &Reporter) {
    if list.is_empty() {
        return;
    }
    let count = pluralize(list.len(), "setting", "settings");
    reporter.note(&sanitize_line(&format!("{heading}, {count}: {}", join_first(list, MAX_NAMED, ", "))));
}
