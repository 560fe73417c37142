//! `kcompile config`: shows and compares final configs, and changes the user's own configs.

use super::config_args::{Action, ConfigCommand, DiffArgs, ShowArgs, WhyArgs, WrittenConfigArgs};
use super::config_text;
use crate::cli::args::Options;
use crate::cli::output::{
    groups, print, print_painted, print_verbatim, renamed, render_json, render_setting,
};
use crate::cli::paint;
use crate::cli::resolve::{CatalogFiles, context, host_with_tools, import_bundle, one_request};
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
use serde_json::json;
use std::collections::BTreeSet;
use std::process::ExitCode;

/// The number of settings that a note names.
const MAX_NAMED: usize = 12;

pub fn config(command: &ConfigCommand, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let options = command.options();
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    let host = &host_with_tools(&options, &files, host, reporter)?;
    let ctx = import_bundle(&options, context(&options, &files, host, reporter)?)?;
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
    format!("{} for {} on {}", plan.tag(), plan.flavor.spec().title, plan.arch)
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
