//! `kcompile config`: final configs shown and compared, and the user's own edited and written back.

use crate::cli::args::BuildArgs;
use crate::cli::output::{assigned, groups, print, printed_json, renamed};
use crate::cli::resolve::{library, one_request, run, take_bundle};
use crate::cli::target::{Given, config_of};
use crate::host::Host;
use crate::image::kernel_image;
use crate::kconfig::explain::Renames;
use crate::kconfig::{self, Comparison, Config, Setting};
use crate::kernel::Arch;
use crate::oci::tags;
use crate::ops::config::{self, Form, Rewritten};
use crate::ops::context::Run;
use crate::plan::Plan;
use crate::report::Report;
use crate::util::error::{Error, Result};
use crate::util::text::{counted, tame};
use camino::Utf8PathBuf;
use clap::ArgMatches;
use clap::Args;
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;

/// A note names so many settings, and counts the others.
const MOST_NAMED: usize = 12;

const EXAMPLES: &str = "\
Examples:
  kcompile config show 6.1 --fc                the .config that a build would have
  kcompile config show 6.1 --fc --minimal      what of it is no default
  kcompile config diff 6.1 6.12 --fc           what two versions have otherwise
  kcompile config diff my.config out/firecracker-kernel-modules-amd64:6.1.7
  kcompile config edit 6.1 --fc                menuconfig, for your project's config
  kcompile config edit 6.1.7 --fc --config my.config
  kcompile config save new.config 6.1 --fc     takes the settings of a .config in

`edit` and `save` write one line for each setting that is no default, under the headings of the file as \
it was: a line that still holds stays where it is, and what is new comes under the name of its menu. The \
kernel then has to make the same .config of it. A config of the built-in catalog becomes your own, in the \
configs/ of your project or in the --configs DIR.";

/// The options of `config`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the final .config of a version, as its own olddefconfig makes it
    Show(ShowArgs),
    /// Compare two: a version, a .config file, or the config in an image each
    Diff(DiffArgs),
    /// Change a config in the kernel's menuconfig, and write it back
    Edit(EditArgs),
    /// Write the settings of a .config file back to the config of a version
    Save(SaveArgs),
}

#[derive(Debug, Args)]
#[command(mut_arg("json", |arg| arg.help("As JSON")), mut_arg("dry_run", |arg| arg.hide(true)))]
struct ShowArgs {
    /// Only what differs from the kernel's own defaults
    #[arg(long)]
    minimal: bool,
    #[command(flatten)]
    build: BuildArgs,
}

#[derive(Debug, Args)]
#[command(mut_arg("versions", |arg| arg.value_names(["FIRST", "SECOND"]).num_args(2).help(
    "A .config file, an image as LAYOUT[:TAG], or a kernel version"
)))]
#[command(mut_arg("json", |arg| arg.help("As JSON")), mut_arg("dry_run", |arg| arg.hide(true)))]
struct DiffArgs {
    #[command(flatten)]
    build: BuildArgs,
}

#[derive(Debug, Args)]
#[command(mut_arg("json", |arg| arg.hide(true)))]
#[command(mut_arg("dry_run", |arg| arg.help("Print the config instead of writing it")))]
struct EditArgs {
    #[command(flatten)]
    build: BuildArgs,
}

#[derive(Debug, Args)]
#[command(mut_arg("json", |arg| arg.hide(true)))]
#[command(mut_arg("dry_run", |arg| arg.help("Print the config instead of writing it")))]
struct SaveArgs {
    /// A whole .config, or any part of one
    #[arg(value_name = "FILE")]
    file: Utf8PathBuf,
    #[command(flatten)]
    build: BuildArgs,
}

impl ConfigArgs {
    /// The build options in force.
    pub fn build_args(&self) -> &BuildArgs {
        match &self.action {
            Action::Show(ShowArgs { build, .. })
            | Action::Diff(DiffArgs { build })
            | Action::Edit(EditArgs { build })
            | Action::Save(SaveArgs { build, .. }) => build,
        }
    }
}

pub fn config(args: &ConfigArgs, matches: &ArgMatches, host: &Host, report: &Report) -> Result<ExitCode> {
    let build = args.build_args();
    let (library, catalog) = library(build.configs.as_deref(), host)?;
    let run = run(build, host, &library, &catalog, report)?;
    take_bundle(build, &run)?;
    match &args.action {
        Action::Show(ShowArgs { minimal, .. }) => {
            let form = if *minimal { Form::Minimal } else { Form::Whole };
            show(form, build, matches, &run)
        }
        Action::Diff(_) => diff(build, matches, &run),
        Action::Edit(_) => {
            let request = one_request(build, matches, &run)?;
            if !host.interactive {
                return Err(Error::usage("config edit shows menus on a terminal, and this is none")
                    .hint("config show prints a .config, config save writes an edited one back"));
            }
            written(config::edit(&request, &run)?, build, &run)
        }
        Action::Save(SaveArgs { file, .. }) => {
            let request = one_request(build, matches, &run)?;
            written(config::save(host.absolute(file), &request, &run)?, build, &run)
        }
    }
}

fn show(form: Form, args: &BuildArgs, matches: &ArgMatches, run: &Run<'_>) -> Result<ExitCode> {
    let (plan, text) = config::final_config(&one_request(args, matches, run)?, form, run)?;
    print(&match args.json {
        true => {
            let (kernel, flavor, arch) = (plan.version_text(), plan.flavor, plan.arch);
            let symbols = Config::parse(&text).symbols;
            printed_json(&json!({ "kernel": kernel, "flavor": flavor, "arch": arch, "symbols": symbols }))
        }
        false => text,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What is compared, whatever it was given as.
struct Side {
    name: String,
    config: Config,
}

fn diff(args: &BuildArgs, matches: &ArgMatches, run: &Run<'_>) -> Result<ExitCode> {
    let sides =
        args.versions.iter().map(|text| side(text, args, matches, run)).collect::<Result<Vec<_>>>()?;
    let [first, second] = &sides[..] else { return Err(Error::usage("config diff compares two configs")) };
    let comparison = kconfig::compare(&first.config, &second.config, &Renames::read(run.library)?);
    print(&match args.json {
        true => {
            printed_json(&json!({ "first": first.name, "second": second.name, "differences": comparison }))
        }
        false => format!("{} -> {}\n{}", first.name, second.name, groups(&comparison)),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn side(text: &str, args: &BuildArgs, matches: &ArgMatches, run: &Run<'_>) -> Result<Side> {
    match Given::of(text, run.host)? {
        Given::File(path) => Ok(Side { name: text.to_owned(), config: config_of(&path)? }),
        Given::Layout(path, tag) => {
            let arch = args.arch.first().copied().or(run.host.arch);
            let image = tags::open(&path, tag.as_deref(), arch.map(Arch::name))?;
            let told = kernel_image::kernel_config(&image)?;
            let told =
                told.ok_or_else(|| Error::usage(format!("{text}: the image holds no kernel config")))?;
            Ok(Side { name: text.to_owned(), config: Config::parse(&told) })
        }
        Given::Version => {
            let args = BuildArgs { versions: vec![text.to_owned()], ..args.clone() };
            let request = one_request(&args, matches, run)?;
            let (plan, text) = config::final_config(&request, Form::Whole, run)?;
            Ok(Side { name: title(&plan), config: Config::parse(&text) })
        }
    }
}

fn title(plan: &Plan) -> String {
    format!("{} for {} on {}", plan.version_text(), plan.flavor.title(), plan.arch)
}

/// Writes what came of `edit` or `save`, and says what that is.
fn written(rewritten: Option<Rewritten>, args: &BuildArgs, run: &Run<'_>) -> Result<ExitCode> {
    let Some(rewritten) = rewritten else {
        run.report.note("nothing has changed, and nothing was written");
        return Ok(ExitCode::SUCCESS);
    };
    if args.dry_run {
        print(&rewritten.text)?;
        return Ok(ExitCode::SUCCESS);
    }
    config::write(&rewritten)?;
    let Comparison { new, gone, renamed: other_names, changed } = &rewritten.comparison;
    let on = |list: &[Setting]| list.iter().filter(|one| one.is_on()).map(assigned).collect::<Vec<_>>();
    let changed = changed.iter().map(|one| format!("{} {} -> {}", one.symbol, one.from, one.to)).collect();
    let renamed = other_names.iter().map(renamed).collect();
    for (heading, list) in [("changed", changed), ("new", on(new)), ("gone", on(gone)), ("renamed", renamed)]
    {
        note(heading, &list, run.report);
    }
    print(&format!("{}\n", crate::ops::context::shown(&rewritten.path, run.host)))?;
    Ok(ExitCode::SUCCESS)
}

fn note(heading: &str, list: &[String], report: &Report) {
    if list.is_empty() {
        return;
    }
    let mut named: Vec<String> = list.iter().take(MOST_NAMED).cloned().collect();
    named.extend((list.len() > MOST_NAMED).then(|| format!("{} more", list.len() - MOST_NAMED)));
    let count = counted(list.len(), "setting", "settings");
    report.note(&tame(&format!("{heading}, {count}: {}", named.join(", "))));
}
