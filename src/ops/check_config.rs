//! What is said of a final config before anything is compiled: what `olddefconfig` changed and why, what
//! the requirement profiles miss; and which of that ends the build.

use crate::kbuild::Configured;
use crate::kconfig;
use crate::kconfig::explain::{self, Kernel, Renames};
use crate::kconfig::reproducibility;
use crate::kconfig::requirements::{self, CheckInput, Profile, RequirementResult, Stage};
use crate::ops::config_files::{self, FileInputs};
use crate::ops::context::Context;
use crate::plan::Plan;
use crate::report::Reporter;
use crate::source::Tree;
use crate::util::error::{Error, Result};

/// An error names so many unmet requirements, and counts the others.
const MAX_NAMED: usize = 6;

/// Says why each setting came out otherwise, where there is one that did. What cannot be explained is
/// no reason to fail.
pub fn explain_differences(
    configured: Configured,
    plan: &Plan,
    tree: &Tree,
    ctx: &Context<'_>,
) -> Result<Configured> {
    if configured.differences.is_empty() {
        return Ok(configured);
    }
    let renames = Renames::read(ctx.library)?;
    let kernel = Kernel { tree: &tree.path, arch: plan.arch, version: plan.version, renames: &renames };
    let is_snapshot = |difference: &kconfig::Difference| !plan.config[difference.layer].is_required;
    match explain::explain(&configured.differences, &configured.config, &kernel, is_snapshot) {
        Ok(differences) => Ok(Configured { differences, ..configured }),
        Err(error) => {
            ctx.reporter.note(&format!("no reasons for what olddefconfig changed: {error}"));
            Ok(configured)
        }
    }
}

/// What `olddefconfig` changed: a setting that the user gave by `--set` or `--fragment` and that did
/// not take fails the build before anything is compiled; any other is a finding.
pub fn check_overrides(configured: &Configured, plan: &Plan, reporter: &Reporter) -> Result<()> {
    let by = |difference: &kconfig::Difference| &plan.config[difference.layer];
    let (refused, found): (Vec<_>, Vec<_>) =
        configured.differences.iter().partition(|difference| by(difference).is_required);
    for difference in found {
        reporter.warning(format!("{difference} (asked for by {})", by(difference).name));
    }
    if refused.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = refused
        .iter()
        .map(|difference| format!("{difference} (asked for by {})", by(difference).name))
        .collect();
    Err(Error::build(format!("the kernel's olddefconfig did not take {}", list.join("; "))).hint(
        "an option takes only if this kernel has it and all it depends on is on: set those too, or leave it out",
    ))
}

/// Holds the final config against the profiles: what one of them requires and the config lacks fails
/// the build before anything is compiled; what is only recommended is one finding for each profile.
pub fn check_requirements(
    configured: &Configured,
    plan: &Plan,
    profiles: &[Profile],
    reporter: &Reporter,
) -> Result<Vec<RequirementResult>> {
    let version = plan.version.expect("known with the source");
    let input = CheckInput { config: &configured.config, version, arch: plan.arch, stage: Stage::Final };
    let results = requirements::check(profiles, &input);
    let fatal: Vec<&RequirementResult> = results.iter().filter(|result| result.is_fatal()).collect();
    if fatal.is_empty() {
        for profile in profiles {
            let advice = results.iter().filter(|one| one.profile == profile.name && one.is_advice());
            let advice: Vec<String> = advice.map(RequirementResult::to_string).collect();
            if !advice.is_empty() {
                reporter.warning(format!(
                    "the profile {} recommends otherwise: {}",
                    profile.name,
                    advice.join("; ")
                ));
            }
        }
        return Ok(results);
    }
    let mut list: Vec<String> =
        fatal.iter().take(MAX_NAMED).map(|result| format!("{result} ({})", result.reason)).collect();
    list.extend((fatal.len() > MAX_NAMED).then(|| format!("and {} more", fatal.len() - MAX_NAMED)));
    let mut names: Vec<&str> = fatal.iter().map(|result| result.profile.as_str()).collect();
    names.dedup();
    let error =
        Error::build(format!("the final .config does not meet {}: {}", names.join(", "), list.join("; ")));
    Err(error.hint(format!(
        "change it with --set or --fragment; all of it: kcompile check {} --for {}\n      \
         (--require none leaves the flavor's own profile out)",
        configured.path,
        names.join(" ")
    )))
}

/// May the same plan be answered with the same images the next time?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reusable {
    /// It may.
    Yes,
    /// They depend on something that is in no plan.
    No,
}

/// Checks that the files are there that the final config names, and says what makes two builds of it differ.
///
/// Errors (exit code 2): a file is not there, or is not the plan's.
pub fn check_inputs(
    configured: &Configured,
    plan: &Plan,
    tree: &Tree,
    keeps_owners: bool,
    reporter: &Reporter,
) -> Result<Reusable> {
    let config = &configured.config;
    let FileInputs { included, warnings, mut unknown } =
        config_files::check(config, plan, tree, keeps_owners)?;
    if !included.is_empty() {
        reporter.note(&format!("files of this machine get into the kernel: {}", included.join(", ")));
    }
    unknown.extend(reproducibility::host_dependent_settings(config));
    let is_checked_out = [".git", ".hg", ".svn"].iter().any(|name| tree.path.join(name).exists());
    if config.value("LOCALVERSION_AUTO") == "y" && is_checked_out {
        unknown.push(
            "CONFIG_LOCALVERSION_AUTO: the release says which commit is checked out in the source directory"
                .to_owned(),
        );
    }
    let reusable = if unknown.is_empty() { Reusable::Yes } else { Reusable::No };
    let unknown = unknown.into_iter().map(|why| format!("{why}: its images are never reused"));
    for finding in warnings.into_iter().chain(reproducibility::irreproducible_settings(config)).chain(unknown)
    {
        reporter.warning(finding);
    }
    Ok(reusable)
}
