//! Checks the final config before anything is compiled. Explains what `olddefconfig` changed, and fails if an
//! override or a requirement profile is not met.

use crate::kbuild::{BuildDir, Configured};
use crate::kconfig::explain::{self, CauseKind, Kernel, Renames};
use crate::kconfig::reproducibility;
use crate::kconfig::requirements::{self, CheckInput, Profile, RequirementResult, Stage};
use crate::kconfig::{self, Config};
use crate::ops::config_files::{self, FileInputs};
use crate::ops::context::Context;
use crate::ops::settings_warnings;
use crate::plan::request::ModuleMode;
use crate::plan::{self, Plan};
use crate::report::Reporter;
use crate::source::Tree;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::text::join_first;
use camino::Utf8PathBuf;

/// The most unmet requirements that an error lists.
const MAX_NAMED: usize = 6;

/// Adds a reason to each setting that `olddefconfig` changed. A failure to explain is not an error.
pub fn explain_differences(
    configured: Configured,
    plan: &Plan,
    tree: &Tree,
    ctx: &Context<'_>,
) -> Result<Configured> {
    let differences = without_loader_options(configured.differences, plan, ctx.reporter);
    let configured = Configured { differences, ..configured };
    if configured.differences.is_empty() {
        return Ok(configured);
    }
    let renames = Renames::read(ctx.library)?;
    let kernel = Kernel { tree: &tree.path, arch: plan.arch, version: plan.version, renames: &renames };
    let is_snapshot = |difference: &kconfig::Difference| !is_required(difference, plan);
    match explain::explain(&configured.differences, &configured.config, &kernel, is_snapshot) {
        Ok(differences) => Ok(Configured { differences, ..configured }),
        Err(error) => {
            ctx.reporter.note(&format!("cannot explain what olddefconfig changed: {error}"));
            Ok(configured)
        }
    }
}

/// Returns whether the setting was requested by an option, so that it must take effect. A module that `--builtin`
/// lost may be one that only a default requested.
fn is_required(difference: &kconfig::Difference, plan: &Plan) -> bool {
    let layer = &plan.config[difference.layer];
    layer.is_required && layer.config.symbols.contains_key(&difference.symbol)
}

/// Returns whether the symbol has another name in this kernel, which is on. A fragment for several versions may set the
/// names of all of them.
fn is_on_by_another_name(difference: &kconfig::Difference) -> bool {
    difference.cause.as_ref().is_some_and(|cause| {
        let is_on = |new: &kconfig::Setting| new.value != "n";
        cause.kind == CauseKind::Renamed && !cause.symbols.is_empty() && cause.symbols.iter().all(is_on)
    })
}

/// Removes the options of the module loader, such as `MODULE_UNLOAD`, which `--builtin` turns off with it. Other
/// options that need modules stay, such as `BPF_JIT` before 6.10.
fn without_loader_options(
    differences: Vec<kconfig::Difference>,
    plan: &Plan,
    reporter: &Reporter,
) -> Vec<kconfig::Difference> {
    if plan.module_mode == ModuleMode::Loadable {
        return differences;
    }
    let is_silent =
        |one: &kconfig::Difference| kconfig::is_loader_option(&one.symbol) && !is_required(one, plan);
    let (options, others): (Vec<_>, Vec<_>) = differences.into_iter().partition(is_silent);
    if !options.is_empty() {
        let names: Vec<&str> = options.iter().map(|one| one.symbol.as_str()).collect();
        let option = plan.tag_suffix().option();
        reporter.note(&format!("off with the module loader, by {option}: {}", names.join(", ")));
    }
    others
}

/// Reports the settings that `olddefconfig` changed, as warnings.
///
/// # Errors
///
/// A setting of `--set` or `--fragment` did not take effect (exit code 1).
pub fn check_overrides(configured: &Configured, plan: &Plan, reporter: &Reporter) -> Result<()> {
    let text = |difference: &kconfig::Difference| {
        format!("{difference} (requested by {})", plan.config[difference.layer].name)
    };
    let (required, others): (Vec<_>, Vec<_>) =
        configured.differences.iter().partition(|difference| is_required(difference, plan));
    let (renamed, required): (Vec<_>, Vec<_>) = required.into_iter().partition(|difference| {
        !plan.config[difference.layer].is_set_option() && is_on_by_another_name(difference)
    });
    renamed.into_iter().map(text).for_each(|text| reporter.note(&text));
    reporter.warnings_of_settings(settings_warnings::warnings(&others, plan), &list_command(plan));
    if required.is_empty() {
        return Ok(());
    }
    let option = |difference: &&kconfig::Difference| {
        let layer = &plan.config[difference.layer];
        if layer.is_set_option() { difference.to_string() } else { text(difference) }
    };
    let list: Vec<String> = required.iter().map(option).collect();
    Err(Error::build(format!("settings did not take effect: {}", list.join("; "))).hint(
        "set what the option depends on too, or remove the option; `kcompile config why` shows all its conditions",
    ))
}

/// Returns the command that prints all warnings about the settings of a plan.
pub fn list_command(plan: &Plan) -> String {
    let variant =
        if plan.variant.is_default() { String::new() } else { format!(" --variant {}", plan.variant) };
    format!("`kcompile config show {} --{}{variant} --verbose`", plan.version_text(), plan.flavor.spec().flag)
}

/// Checks the final config against requirement profiles. Warns of recommendations that are not met.
///
/// # Errors
///
/// A requirement is not met (exit code 1).
pub fn check_requirements(
    configured: &Configured,
    plan: &Plan,
    profiles: &[Profile],
    reporter: &Reporter,
) -> Result<Vec<RequirementResult>> {
    let version = plan.version.expect("known with the source");
    let input = CheckInput { config: &configured.config, version, arch: plan.arch, stage: Stage::Final };
    let mut results = requirements::check(profiles, &input);
    if plan.module_mode == ModuleMode::Builtin {
        results.retain(|result| !(result.is_advice() && result.symbols == ["MODULES"]));
    }
    let fatal: Vec<&RequirementResult> = results.iter().filter(|result| result.is_fatal()).collect();
    if fatal.is_empty() {
        for profile in profiles {
            let advice = results.iter().filter(|one| one.profile == profile.name && one.is_advice());
            let advice: Vec<String> = advice.map(RequirementResult::to_string).collect();
            if !advice.is_empty() {
                let (name, advice) = (&profile.name, join_first(&advice, MAX_NAMED, "; "));
                reporter.warning(format!("recommendations of profile {name} are not met: {advice}"));
            }
        }
        return Ok(results);
    }
    let list: Vec<String> = fatal.iter().map(|result| format!("{result} ({})", result.reason)).collect();
    let list = join_first(&list, MAX_NAMED, "; ");
    let mut names: Vec<&str> = fatal.iter().map(|result| result.profile.as_str()).collect();
    names.dedup();
    let error = Error::build(format!("the final .config does not meet {}: {list}", names.join(", ")));
    Err(error.hint(format!(
        "change it with --set or --fragment; to see all results: kcompile check {} --for {}\n      \
         (--require none skips the flavor's own profile)",
        configured.path,
        names.join(" ")
    )))
}

/// Checks the final config of images that another machine built, as a build does before it compiles. `path` is
/// the place of the config, for messages.
///
/// # Errors
///
/// A setting of an option did not take effect, or a requirement is not met (exit code 1).
pub fn check_built(
    text: &str,
    path: Utf8PathBuf,
    plan: &Plan,
    profiles: &[Profile],
    reporter: &Reporter,
) -> Result<()> {
    let config = Config::parse(text);
    let differences = kconfig::differences(&plan::requested_settings(plan), &config);
    let differences = without_loader_options(differences, plan, reporter);
    let configured = Configured { config, sha256: Sha256::of(text), path, differences };
    check_overrides(&configured, plan, reporter)?;
    check_requirements(&configured, plan, profiles, reporter)?;
    let warnings = reproducibility::irreproducible_settings(&configured.config);
    warnings.into_iter().for_each(|warning| reporter.warning(warning));
    Ok(())
}

/// Whether later builds of the same plan may reuse the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reusable {
    Yes,
    /// The images depend on inputs that are not in the plan.
    No,
}

/// Checks the files that the final config names, and warns of settings that make builds differ.
///
/// # Errors
///
/// A file is missing, or is not the plan's (exit code 2).
pub fn check_inputs(
    configured: &Configured,
    plan: &Plan,
    tree: &Tree,
    build_dir: &BuildDir<'_>,
    reporter: &Reporter,
) -> Result<Reusable> {
    let config = &configured.config;
    let FileInputs { included, warnings, mut unknown } = config_files::check(config, plan, tree, build_dir)?;
    if !included.is_empty() {
        reporter.note(&format!("files of this machine become part of the kernel: {}", included.join(", ")));
    }
    unknown.extend(reproducibility::host_dependent_settings(config));
    let is_checked_out = [".git", ".hg", ".svn"].iter().any(|name| tree.path.join(name).exists());
    if config.value("LOCALVERSION_AUTO") == "y" && is_checked_out {
        unknown.push(
            "CONFIG_LOCALVERSION_AUTO: the release contains the commit that is checked out in the source directory"
                .to_owned(),
        );
    }
    let reusable = if unknown.is_empty() { Reusable::Yes } else { Reusable::No };
    let unknown = unknown.into_iter().map(|why| format!("{why}; kcompile never reuses these images"));
    for warning in warnings.into_iter().chain(reproducibility::irreproducible_settings(config)).chain(unknown)
    {
        reporter.warning(warning);
    }
    Ok(reusable)
}
