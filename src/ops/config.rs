//! Makes final configs without compiling a kernel, by the `olddefconfig` of a version. Edits the configs that
//! users maintain, by the kernel's menus or from a `.config`, and writes them in minimal form.

use crate::cache::Cache;
use crate::catalog::text::{is_gzip, read_config, read_optional_text, read_text};
use crate::host::packages;
use crate::kbuild::{self, BuildDir, Configured};
use crate::kconfig::explain::{self, Description, Kernel, Renames};
use crate::kconfig::{self, Comparison, Config, EditInput, requirements, rewrite};
use crate::ops::context::Context;
use crate::ops::{check_config, check_symbols, doctor, fetch};
use crate::plan::request::{Override, Request};
use crate::plan::{BaseConfig, ConfigSet, Inputs, Plan, requested_config};
use crate::source::Tree;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{create_dir, write_atomically};
use crate::util::read::{Links, MAX_CONFIG, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::{BTreeMap, BTreeSet};

/// The number of rounds that add settings which a minimal form lacks. Each round runs `olddefconfig`.
const MAX_ROUNDS: usize = 4;

/// The settings of a final config to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFormat {
    Full,
    /// Settings that are not defaults.
    Minimal,
}

/// Whether the file of [`save`] is a whole config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileExtent {
    /// A whole config. This is checked.
    Checked,
    /// A whole config. Missing settings become defaults.
    Whole,
    /// A part of a config, which is merged.
    Part,
}

/// A changed config of the user.
#[derive(Debug)]
pub struct ConfigEdit {
    /// Path of the file, which may not exist yet.
    pub path: Utf8PathBuf,
    pub text: String,
    /// Differences between the final `.config` before and after.
    pub comparison: Comparison,
    /// Previous text of the file.
    on_disk: Option<String>,
}

struct EditTarget {
    path: Utf8PathBuf,
    before: String,
    on_disk: Option<String>,
}

/// Fetches the source of `request`, and completes the settings by its own `olddefconfig`. Returns the final
/// `.config`, its text in `form`, and the plan.
///
/// # Errors
///
/// As for the same steps of a build, and if a setting of `--set` or `--fragment` has no effect.
pub fn final_config(request: &Request, form: ConfigFormat, ctx: &Context<'_>) -> Result<(Plan, String)> {
    with_configured(request, ctx, |dir, plan, configured| {
        check_config::check_overrides(&configured, plan, ctx.reporter)?;
        let text = match form {
            ConfigFormat::Full => dir.config_text(),
            ConfigFormat::Minimal => dir.minimal(),
        };
        Ok((plan.clone(), text?))
    })
}

/// Like [`final_config`], with the symbols that can be set in this kernel.
///
/// # Errors
///
/// As for [`final_config`]. Exit code 1 if the Kconfig files cannot be read.
pub fn settable_symbols(request: &Request, ctx: &Context<'_>) -> Result<(Plan, String, BTreeSet<String>)> {
    with_configured_inputs(request, &ctx.inputs(request)?, ctx, |dir, plan, tree, configured| {
        check_config::check_overrides(&configured, plan, ctx.reporter)?;
        let symbols = explain::symbols(&tree.path, plan.arch).map_err(Error::build)?;
        let settable = symbols.into_iter().filter(|(_, has_prompt)| *has_prompt).map(|(name, _)| name);
        Ok((plan.clone(), dir.config_text()?, settable.collect()))
    })
}

/// Describes symbols of the kernel of `request`, with the values of its final config.
///
/// # Errors
///
/// As for [`final_config`]. Exit code 1 if the Kconfig files cannot be read, 2 if one of `names` is unknown.
pub fn describe(names: &[String], request: &Request, ctx: &Context<'_>) -> Result<(Plan, Vec<Description>)> {
    with_configured_inputs(request, &ctx.inputs(request)?, ctx, |_, plan, tree, configured| {
        let renames = Renames::read(ctx.library)?;
        let kernel = Kernel { tree: &tree.path, arch: plan.arch, version: plan.version, renames: &renames };
        let described = explain::describe(names, &configured.config, &kernel).map_err(Error::usage)?;
        Ok((plan.clone(), described))
    })
}

/// Shows the kernel's menus for the config of `request`. Returns the changed config, or `None` if nothing changed.
///
/// # Errors
///
/// Exit code 2 if there is no place to write the config to.
pub fn edit(request: &Request, ctx: &Context<'_>) -> Result<Option<ConfigEdit>> {
    check_target(request, ctx)?;
    packages::examine_menus(ctx.host)?.require()?;
    with_configured(request, ctx, |dir, plan, configured| {
        check_config::check_overrides(&configured, plan, ctx.reporter)?;
        let target = edit_target(request, plan, ctx)?;
        ctx.reporter.clear();
        dir.menuconfig()?;
        edit_from_build(dir, plan, target, &configured.config, request, ctx)
    })
}

/// A file that leaves out more settings of the config than this counts as a part of a config.
const MAX_LEFT_OUT: usize = 20;

/// The number of rounds in which [`set`] adds dependencies.
const MAX_DEPENDENCY_ROUNDS: usize = 4;

/// How to treat requested settings whose dependencies are not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependencies {
    /// Fail, and name the dependencies.
    Refuse,
    /// Set the dependencies too.
    Add,
}

/// Merges the overrides of `request` into its config. Returns `None` if the config has them already.
///
/// # Errors
///
/// As for [`edit`]. Exit code 1 if the kernel does not take a setting.
pub fn set(request: &Request, dependencies: Dependencies, ctx: &Context<'_>) -> Result<Option<ConfigEdit>> {
    check_target(request, ctx)?;
    let without = Request { overrides: Vec::new(), ..request.clone() };
    let old = with_configured(&without, ctx, |_, _, configured| Ok(configured.config))?;
    let mut request = request.clone();
    if dependencies == Dependencies::Add {
        add_dependencies(&mut request, ctx)?;
    }
    with_configured(&request, ctx, |dir, plan, configured| {
        check_config::check_overrides(&configured, plan, ctx.reporter)?;
        edit_from_build(dir, plan, edit_target(&request, plan, ctx)?, &old, &request, ctx)
    })
}

/// Adds the dependencies of the overrides of `request`, by the kernel's Kconfig files.
fn add_dependencies(request: &mut Request, ctx: &Context<'_>) -> Result<()> {
    for _ in 0..MAX_DEPENDENCY_ROUNDS {
        let needed = with_configured(request, ctx, |_, plan, configured| {
            let refused = configured.differences.into_iter().filter(|one| plan.config[one.layer].is_required);
            let needed = refused.filter_map(|one| one.cause).flat_map(|cause| cause.set);
            Ok(needed.map(|one| (one.symbol, one.value)).collect::<BTreeMap<_, _>>())
        })?;
        if needed.is_empty() {
            return Ok(());
        }
        let lines = needed.iter().map(|(symbol, value)| format!("CONFIG_{symbol}={value}\n"));
        let lines: Vec<String> = lines.collect();
        ctx.reporter.note(&format!("also set: {}", lines.concat().trim_end().replace('\n', ", ")));
        // The last value wins, so the requested settings are last.
        request.overrides.splice(0..0, lines.into_iter().map(Override::Set));
    }
    Ok(())
}

/// Checks that `file` is a whole config. If it were a part, the rest would become defaults.
///
/// # Errors
///
/// Exit code 2 if it leaves out many settings of the config of `request`.
fn check_whole(file: &Utf8Path, plan: &Plan, old: &Config) -> Result<()> {
    let [layer, ..] = &plan.config[..] else { return Ok(()) };
    let left_out = old.symbols.keys().filter(|symbol| !layer.config.symbols.contains_key(*symbol)).count();
    if layer.config.header_version.is_some() || left_out <= MAX_LEFT_OUT {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{file}: only a part of a config: it lacks {left_out} settings of the present config, which would get their defaults"
    ))
    .hint("apply it on top of the present config with --merge, or accept it as the complete config with --whole"))
}

/// Merges `file`, a whole `.config` or a part, into the config of `request`. Returns `None` if nothing changed.
///
/// # Errors
///
/// As for [`edit`]. Exit code 2 if `file` is not a config.
pub fn save(
    file: Utf8PathBuf,
    extent: FileExtent,
    request: &Request,
    ctx: &Context<'_>,
) -> Result<Option<ConfigEdit>> {
    check_target(request, ctx)?;
    if extent == FileExtent::Part {
        let overrides = vec![Override::Fragment(file.into_string())];
        return set(&Request { overrides, ..request.clone() }, Dependencies::Refuse, ctx);
    }
    let with_file = Request { config: Some(file.clone()), ..request.clone() };
    // Before anything is fetched, and without the name of an option.
    Config::parse_given(file.as_str(), &read_config(&file)?)?;
    let plan = Plan::new(&with_file, &ctx.inputs(&with_file)?, None)?;
    if let (FileExtent::Checked, Ok(kept)) = (extent, Plan::new(request, &ctx.inputs(request)?, None)) {
        check_whole(&file, &plan, &requested_config(&kept))?;
    }
    // A version without a config in the catalog starts with an empty one.
    let old = match Plan::new(request, &ctx.inputs(request)?, None) {
        Err(_) if request.config.is_none() => Config::default(),
        _ => with_configured(request, ctx, |_, _, configured| Ok(configured.config))?,
    };
    with_configured(&with_file, ctx, |dir, plan, configured| {
        plan.notices.iter().for_each(|notice| ctx.reporter.note(notice));
        check_config::check_overrides(&configured, plan, ctx.reporter)?;
        edit_from_build(dir, plan, edit_target(request, plan, ctx)?, &old, request, ctx)
    })
}

/// Writes the config atomically.
///
/// # Errors
///
/// Exit code 2 if the file has changed since it was read. The new text is then beside it.
pub fn write(edit: &ConfigEdit) -> Result<()> {
    let ConfigEdit { path, text, on_disk, .. } = edit;
    create_dir(path.parent().expect("a file is in a directory"))?;
    if read_optional_text(path, Links::Follow, MAX_CONFIG)? != *on_disk {
        let sibling = Utf8PathBuf::from(format!("{path}.edited"));
        write_atomically(&sibling, text.as_bytes())?;
        return Err(Error::usage(format!("{path} was changed by somebody else in the meantime"))
            .hint(format!("your version is in {sibling}")));
    }
    write_atomically(path, text.as_bytes())
}

/// Fetches the source of `request`, completes its config, and runs `job` with the build directory.
fn with_configured<T>(
    request: &Request,
    ctx: &Context<'_>,
    job: impl FnOnce(&BuildDir<'_>, &Plan, Configured) -> Result<T>,
) -> Result<T> {
    with_configured_inputs(request, &ctx.inputs(request)?, ctx, |dir, plan, _, configured| {
        job(dir, plan, configured)
    })
}

/// Like [`with_configured`], with other inputs than those of the request.
pub(crate) fn with_configured_inputs<T>(
    request: &Request,
    inputs: &Inputs,
    ctx: &Context<'_>,
    job: impl FnOnce(&BuildDir<'_>, &Plan, &Tree, Configured) -> Result<T>,
) -> Result<T> {
    let first = Plan::new(request, inputs, None)?;
    doctor::examine(&first, ctx.host)?.require()?;
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    let (plan, tree) = fetch::fetch_planned(request, inputs, &first, &cache, ctx)?;
    let _configuring = cache.lock(&kbuild::config_lock_name(&plan, &tree), ctx.reporter)?;
    let private_dir = cache.scratch()?;
    let dir = BuildDir::open_for_config(&plan, &tree, ctx.host, ctx.jobs, ctx.reporter)?;
    let dir = dir.sandboxed(ctx.sandbox, &private_dir.path, ctx.reporter)?;
    let configured = check_config::explain_differences(dir.configure(ctx.reporter)?, &plan, &tree, ctx)?;
    check_symbols::check(&configured.config, &plan, &tree.path, ctx)?;
    job(&dir, &plan, &tree, configured)
}

/// Checks before anything is fetched that the result can be written.
fn check_target(request: &Request, ctx: &Context<'_>) -> Result<()> {
    match &request.config {
        Some(path) => {
            let bytes = read_file(path, Links::Follow, MAX_CONFIG).unwrap_or_default();
            if is_gzip(&bytes) {
                return Err(Error::usage(format!(
                    "--config {path} is compressed, but the changed config would be written as text"
                ))
                .hint("decompress it with gzip -d first"));
            }
            Ok(())
        }
        None => ctx.library.project.user_dirs().map(|_| ()),
    }
}

/// Returns the user's file for the config of `plan`. It may not exist yet, as for a config of the catalog.
fn edit_target(request: &Request, plan: &Plan, ctx: &Context<'_>) -> Result<EditTarget> {
    if let Some(path) = &request.config {
        // Keep a link, and replace its target.
        let path = path.canonicalize_utf8().context(Kind::Usage, || format!("cannot read {path}"))?;
        let before = read_text(&path, MAX_CONFIG)?;
        return Ok(EditTarget { path, on_disk: Some(before.clone()), before });
    }
    let set = ConfigSet::of(request);
    let version = plan.version.unwrap_or(request.version.floor());
    let base = BaseConfig::of(ctx.library, set, version);
    let name = match base {
        Some(base) if base.is_for(version) => base.name(),
        _ => set.config_name(request.version),
    };
    let path = ctx.library.project.user_dirs()?.path_of(&name);
    let before = base.map_or_else(String::new, |base| base.text.to_owned());
    Ok(EditTarget { on_disk: read_optional_text(&path, Links::Follow, MAX_CONFIG)?, path, before })
}

/// Reduces the `.config` in `dir` to the settings that `kept` needs in addition, and checks that the kernel makes
/// the same config of them.
fn edit_from_build(
    dir: &BuildDir<'_>,
    plan: &Plan,
    target: EditTarget,
    old: &Config,
    request: &Request,
    ctx: &Context<'_>,
) -> Result<Option<ConfigEdit>> {
    let new_text = dir.config_text()?;
    let new = Config::parse(&new_text);
    let EditTarget { path, before, on_disk } = target;
    if new.symbols == old.symbols {
        return Ok(None);
    }
    let minimal = dir.minimal()?;
    let mut explicit = BTreeSet::new();
    for _ in 0..MAX_ROUNDS {
        let edited = EditInput { old, new: &new_text, minimal: &minimal, explicit: &explicit };
        let text = rewrite(&before, &edited);
        let result = Config::parse(&dir.complete(&text)?);
        let missed: Vec<&String> = differing_symbols(&new, &result).collect();
        if missed.is_empty() {
            warn_unmet_requirements(dir, plan, &new, request, ctx)?;
            let comparison = kconfig::compare(old, &new, &Renames::read(ctx.library)?);
            return Ok(Some(ConfigEdit { path, text, comparison, on_disk }));
        }
        explicit.extend(missed.into_iter().cloned());
    }
    let whole = dir.path.join("kcompile-edited.config");
    write_atomically(&whole, new_text.as_bytes())?;
    Err(Error::build(format!("{path}: not written, since no minimal config gives the same .config"))
        .hint(format!("the complete .config is in {whole}")))
}

/// Returns the symbols that differ between two final configs.
fn differing_symbols<'a>(one: &'a Config, other: &'a Config) -> impl Iterator<Item = &'a String> {
    let symbols: BTreeSet<&String> = one.symbols.keys().chain(other.symbols.keys()).collect();
    symbols.into_iter().filter(|symbol| one.symbols.get(*symbol) != other.symbols.get(*symbol))
}

/// Warns about what a build would refuse. The config is written in any case.
fn warn_unmet_requirements(
    dir: &BuildDir<'_>,
    plan: &Plan,
    config: &Config,
    request: &Request,
    ctx: &Context<'_>,
) -> Result<()> {
    let profiles = requirements::read_all(ctx.library, &request.profiles)?;
    let configured = Configured {
        config: config.clone(),
        sha256: Sha256::of(dir.config_text()?),
        path: dir.path.join(".config"),
        differences: Vec::new(),
    };
    match check_config::check_requirements(&configured, plan, &profiles, ctx.reporter) {
        Err(error) if error.kind == Kind::Build => ctx.reporter.warning(error.to_string()),
        results => drop(results?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("new/x.config")).unwrap();
        let edit = |on_disk: Option<&str>| ConfigEdit {
            path: path.clone(),
            text: "ours".into(),
            comparison: Comparison::default(),
            on_disk: on_disk.map(str::to_owned),
        };
        write(&edit(None)).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        let error = write(&edit(Some("ours"))).unwrap_err();
        assert!(error.to_string().contains("was changed by somebody else"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(std::fs::read_to_string(format!("{path}.edited")).unwrap(), "ours");
    }
}
