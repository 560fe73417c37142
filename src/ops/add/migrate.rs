//! Migrates the config of one version to another. Renames settings and removes unknown ones.

use super::NewKernelRequest;
use crate::catalog::ConfigLibrary;
use crate::catalog::project::ProjectDirs;
use crate::kbuild::{BuildDir, Configured};
use crate::kconfig::explain::{self, Kernel, Renames};
use crate::kconfig::requirements::{self, CheckInput, RequirementResult, Stage, Tally};
use crate::kconfig::{self, Comparison, Config, Difference, Renamed, Setting};
use crate::kernel::{Arch, KernelVersion, VersionRequest};
use crate::ops::context::Context;
use crate::ops::{check_config, config};
use crate::plan::request::Request;
use crate::plan::{BaseConfig, ConfigSet, Plan, SourceIdentity, Text};
use crate::source::Tree;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result};
use camino::Utf8PathBuf;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The settings that replace the line of each symbol.
type Replacements = BTreeMap<String, Vec<Setting>>;

/// The most runs of `olddefconfig` until the config must be stable.
const MAX_ROUNDS: usize = 8;

/// A config that was migrated from another version.
#[derive(Debug, Serialize)]
pub struct MigratedConfig {
    pub arch: Arch,
    /// The version or series of the old config.
    pub from: VersionRequest,
    /// The name of the old config in the library.
    pub from_config: String,
    /// The path of the new config.
    pub path: Utf8PathBuf,
    /// Settings that have another name in this kernel.
    pub renamed: Vec<Renamed>,
    /// New settings that old ones need in this kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<AddedSetting>,
    /// Settings that this kernel does not have.
    #[serde(rename = "gone")]
    pub removed: Vec<Difference>,
    /// Settings that got another value, which the new config has.
    pub changed: Vec<Difference>,
    /// Other differences between the final configs of both versions, if the source of the old one is
    /// available. Only options with a prompt are listed, since the others depend on them.
    #[serde(rename = "since")]
    pub upstream_changes: Option<UpstreamChanges>,
    /// The results of the requirement profiles.
    pub profiles: Vec<Tally>,
    /// The text of the new config.
    #[serde(skip)]
    pub text: String,
}

/// A new setting without which old ones do not take effect in this kernel.
#[derive(Debug, Serialize)]
pub struct AddedSetting {
    #[serde(flatten)]
    pub setting: Setting,
    /// The old settings that need it.
    pub needed_by: Vec<String>,
}

/// The differences between the final configs of two versions.
#[derive(Debug, Serialize)]
pub struct UpstreamChanges {
    pub version: String,
    pub differences: Comparison,
    /// Why symbols of the new kernel have their values, as far as its Kconfig files say so.
    #[serde(skip)]
    pub reasons: BTreeMap<String, String>,
}

/// Returns the config to migrate for `request`: that of `from`, or else of the nearest version.
///
/// # Errors
///
/// There is no such config (exit code 2).
pub fn base<'a>(
    request: &Request,
    from: Option<VersionRequest>,
    library: &'a ConfigLibrary,
) -> Result<BaseConfig<'a>> {
    let (set, arch) = (ConfigSet::of(request), request.arch);
    let requested = from.unwrap_or(request.version).floor();
    let base = BaseConfig::find_nearest(library, set, requested);
    base.filter(|base| from.is_none() || base.is_for(requested)).ok_or_else(|| {
        let all = BaseConfig::all(library, set);
        let have: Vec<String> = all.iter().map(|base| base.version.in_catalog()).collect();
        let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
        Error::usage(format!("no {set} for Linux {requested} on {arch} to migrate"))
            .hint(format!("existing configs: {have}"))
    })
}

/// Migrates the config. Returns it with the identity of the source.
pub(in crate::ops) fn migrate(
    requested: &NewKernelRequest<'_>,
    dirs: &ProjectDirs,
    ctx: &Context<'_>,
) -> Result<(SourceIdentity, MigratedConfig)> {
    let NewKernelRequest { request, base, config_version, older } = requested;
    let name = ConfigSet::of(request).config_name(*config_version);
    let path = dirs.path_of(&name);
    if path.exists() && base.name() != name {
        return Err(Error::usage(format!("{path} exists already"))
            .hint("leave out --from to migrate this file, or remove it"));
    }
    let profiles = requirements::read_all(ctx.library, &request.profiles)?;
    let mut inputs = ctx.inputs(request)?;
    inputs.config = Some(Text { name: base.name(), text: base.text.to_owned() });
    let (source, mut migrated, config, symbols, tree) =
        config::with_configured_inputs(request, &inputs, ctx, |dir, plan, tree, configured| {
            let mut migration = Migration::new(plan, tree, ctx, base.text)?;
            let configured = migration.converge(dir, configured)?;
            let results = check_config::check_requirements(&configured, plan, &profiles, ctx.reporter)?;
            let Migration { text, renamed, added, removed, changed, symbols, .. } = migration;
            let migrated = MigratedConfig {
                arch: request.arch,
                from: base.version,
                from_config: base.name(),
                path,
                renamed,
                added,
                removed,
                changed,
                upstream_changes: None,
                profiles: requirements::tallies(&results),
                text,
            };
            Ok((tree.identity.clone(), migrated, configured.config, symbols, tree.path.clone()))
        })?;
    // Runs after the first build directory is unlocked, since both kernels may share it.
    let changes = match older {
        Some(older) => upstream_changes(older, &config, &symbols, ctx)?,
        None => None,
    };
    let changes = match changes {
        Some((changes, old)) => {
            let version = source.version;
            let new = CheckInput { config: &config, version, arch: request.arch, stage: Stage::Final };
            let old_version = KernelVersion::from_release(&changes.version).unwrap_or(version);
            let old = CheckInput { config: &old, version: old_version, ..new };
            migrated.profiles.extend(check_met_profiles(&old, &new, &request.profiles, ctx)?);
            Some(changes)
        }
        None => None,
    };
    migrated.upstream_changes = changes.filter(|changes| changes.version != source.version.to_string());
    if let Some(changes) = &mut migrated.upstream_changes {
        let listed = migrated.removed.iter().chain(&migrated.changed).map(|difference| &difference.symbol);
        let listed = listed.chain(migrated.renamed.iter().map(|one| &one.old.symbol));
        let listed = listed.chain(migrated.added.iter().map(|one| &one.setting.symbol));
        let listed: HashSet<&str> = listed.map(String::as_str).collect();
        changes.differences.retain(|symbol| !listed.contains(symbol));
        let renames = Renames::read(ctx.library)?;
        let kernel =
            Kernel { tree: &tree, arch: request.arch, version: Some(source.version), renames: &renames };
        changes.reasons = reasons(&changes.differences, &config, &kernel);
    }
    Ok((source, migrated))
}

/// Returns why the settings of `config` that are new or changed have their values.
fn reasons(differences: &Comparison, config: &Config, kernel: &Kernel<'_>) -> BTreeMap<String, String> {
    let new = differences.new.iter().filter(|one| one.is_on()).map(|one| &one.symbol);
    let names: Vec<String> = new.chain(differences.changed.iter().map(|one| &one.symbol)).cloned().collect();
    if names.is_empty() {
        return BTreeMap::new();
    }
    let described = explain::describe(&names, config, kernel).unwrap_or_default();
    described.into_iter().filter_map(|one| Some((one.symbol.clone(), one.why()?))).collect()
}

/// Checks the new config against every other profile that the old one met. What it no longer meets is a warning.
fn check_met_profiles(
    old: &CheckInput<'_>,
    new: &CheckInput<'_>,
    checked: &[String],
    ctx: &Context<'_>,
) -> Result<Vec<Tally>> {
    let mut tallies = Vec::new();
    for name in requirements::names(ctx.library).iter().filter(|name| !checked.contains(name)) {
        let profile = [requirements::read(ctx.library, name)?];
        if requirements::check(&profile, old).iter().any(RequirementResult::is_fatal) {
            continue;
        }
        let results = requirements::check(&profile, new);
        let lost: Vec<String> =
            results.iter().filter(|one| one.is_fatal()).map(ToString::to_string).collect();
        if !lost.is_empty() {
            ctx.reporter.warning(format!(
                "the config of {} meets the profile {name}, but the new config does not: {}",
                old.version,
                lost.join("; ")
            ));
        }
        tallies.extend(requirements::tallies(&results));
    }
    Ok(tallies)
}

/// Compares the final `config` with that of the `older` kernel. Lists only options with a prompt, by
/// `symbols` of either kernel. If the older source cannot be fetched, this is only a note.
fn upstream_changes(
    older: &Request,
    config: &Config,
    symbols: &HashMap<String, bool>,
    ctx: &Context<'_>,
) -> Result<Option<(UpstreamChanges, Config)>> {
    let old = ctx.inputs(older).and_then(|inputs| {
        config::with_configured_inputs(older, &inputs, ctx, |_, plan, tree, configured| {
            let old_symbols = explain::symbols(&tree.path, plan.arch).unwrap_or_default();
            Ok((plan.version_text(), configured.config, old_symbols))
        })
    });
    match old {
        Ok((version, old, old_symbols)) => {
            let mut differences = kconfig::compare(&old, config, &Renames::read(ctx.library)?);
            let can_be_set = |symbol: &str| symbols.get(symbol).or(old_symbols.get(symbol)) != Some(&false);
            differences.retain(can_be_set);
            Ok(Some((UpstreamChanges { version, differences, reasons: BTreeMap::new() }, old)))
        }
        Err(error) if matches!(error.kind, Kind::Interrupted(_)) => Err(error),
        Err(error) => {
            let version = older.version;
            ctx.reporter.note(&format!(
                "cannot list the options that are new since {version}, because its source is missing: {error}"
            ));
            Ok(None)
        }
    }
}

/// A config during its migration.
struct Migration<'a> {
    plan: &'a Plan,
    tree: &'a Tree,
    ctx: &'a Context<'a>,
    renames: Renames,
    /// All symbols of the kernel, and whether they have a prompt. Empty if the Kconfig files cannot be read.
    symbols: HashMap<String, bool>,
    text: String,
    renamed: Vec<Renamed>,
    added: Vec<AddedSetting>,
    removed: Vec<Difference>,
    changed: Vec<Difference>,
}

impl<'a> Migration<'a> {
    fn new(plan: &'a Plan, tree: &'a Tree, ctx: &'a Context<'a>, text: &str) -> Result<Migration<'a>> {
        let symbols = explain::symbols(&tree.path, plan.arch);
        if let Err(why) = &symbols {
            ctx.reporter.note(&format!("cannot distinguish removed options from changed ones: {why}"));
        }
        Ok(Migration {
            plan,
            tree,
            ctx,
            renames: Renames::read(ctx.library)?,
            symbols: symbols.unwrap_or_default(),
            text: text.to_owned(),
            renamed: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
        })
    }

    /// Changes the text until the kernel accepts all of it.
    fn converge(&mut self, dir: &BuildDir<'_>, first: Configured) -> Result<Configured> {
        let mut configured = first;
        for _ in 0..MAX_ROUNDS {
            let replacements = self.replacements(&configured);
            if replacements.is_empty() {
                return Ok(configured);
            }
            self.text = kconfig::replace(&self.text, &replacements);
            let result = dir.complete(&self.text)?;
            let config = Config::parse(&result);
            let differences = kconfig::differences(&kconfig::merge([&Config::parse(&self.text)]), &config);
            let sha256 = Sha256::of(&result);
            let next = Configured { config, sha256, path: configured.path, differences };
            configured = check_config::explain_differences(next, self.plan, self.tree, self.ctx)?;
        }
        let difference = &configured.differences[0];
        Err(Error::build(format!(
            "config did not converge after {MAX_ROUNDS} olddefconfig rounds: {difference}"
        ))
        .hint("migrate another config with --from VERSION"))
    }

    /// Returns replacements for settings that the kernel changed. Removed and renamed ones come first, since
    /// others may depend on them. Then come new names that are not tristate, settings that others need, and then
    /// all others.
    fn replacements(&mut self, configured: &Configured) -> Replacements {
        let removed = self.replace_unknown(&configured.differences);
        if !removed.is_empty() {
            return removed;
        }
        let of_bools = configured.differences.iter().filter(|difference| {
            let is_module = difference.requested == "m" && difference.found.as_deref() != Some("y");
            is_module && self.is_new_name(&difference.symbol)
        });
        let bools: Replacements =
            of_bools.map(|Difference { symbol, .. }| (symbol.clone(), vec![setting(symbol, "y")])).collect();
        if !bools.is_empty() {
            return bools;
        }
        let needed = self.add_needed(&configured.differences);
        if !needed.is_empty() {
            return needed;
        }
        self.changed.extend(configured.differences.iter().cloned());
        // Settings that are off or computed need no line.
        let as_found = |Difference { symbol, found, .. }: &Difference| {
            let value =
                found.iter().filter(|found| *found != "n" && self.symbols.get(symbol) != Some(&false));
            (symbol.clone(), value.map(|value| setting(symbol, value)).collect())
        };
        configured.differences.iter().map(as_found).collect()
    }

    fn replace_unknown(&mut self, differences: &[Difference]) -> Replacements {
        let requested = Config::parse(&self.text).symbols;
        let is_defined = |symbol: &str| self.symbols.is_empty() || self.symbols.contains_key(symbol);
        // A setting that is off is not a difference if the kernel does not have it.
        let off = requested.iter().filter(|(symbol, value)| *value == "n" && !is_defined(symbol));
        let mut replacements: Replacements = off.map(|(symbol, _)| (symbol.clone(), Vec::new())).collect();
        for difference in differences.iter().filter(|difference| !is_defined(&difference.symbol)) {
            let Difference { symbol, requested: value, .. } = difference;
            let successors = self.renames.successors(symbol, |name| self.symbols.contains_key(name));
            let new: Vec<Setting> = successors.into_iter().map(|new| setting(new, value)).collect();
            if new.is_empty() {
                self.removed.push(difference.clone());
            } else {
                self.renamed.push(Renamed { old: setting(symbol, value), new: new.clone() });
            }
            let is_set = |new: &Setting| requested.contains_key(&new.symbol);
            replacements.insert(symbol.clone(), new.into_iter().filter(|new| !is_set(new)).collect());
        }
        replacements
    }

    /// Adds the settings without which those that are on in the old config are not on in this kernel. They go before
    /// the first setting that needs them. A setting that the config has with another value stays.
    fn add_needed(&mut self, differences: &[Difference]) -> Replacements {
        let mut requested = Config::parse(&self.text).symbols;
        let mut replacements = Replacements::new();
        for difference in differences.iter().filter(|difference| difference.requested != "n") {
            let Difference { symbol, requested: value, cause, .. } = difference;
            let needed: &[Setting] = cause.as_ref().map_or(&[], |cause| &cause.set);
            let can_be_added = |new: &Setting| {
                let is_enough = |value: &String| *value == new.value || value == "y";
                new.value != "n" && requested.get(&new.symbol).is_none_or(is_enough)
            };
            if !needed.iter().all(can_be_added) {
                continue;
            }
            let mut lines = Vec::new();
            for new in needed {
                if let Some(added) = self.added.iter_mut().find(|added| added.setting == *new) {
                    added.needed_by.push(symbol.clone());
                } else if !requested.contains_key(&new.symbol) {
                    requested.insert(new.symbol.clone(), new.value.clone());
                    self.added.push(AddedSetting { setting: new.clone(), needed_by: vec![symbol.clone()] });
                    lines.push(new.clone());
                }
            }
            if !lines.is_empty() {
                lines.push(setting(symbol, value));
                replacements.insert(symbol.clone(), lines);
            }
        }
        replacements
    }

    /// Returns whether the symbol replaced an old name.
    fn is_new_name(&self, symbol: &str) -> bool {
        self.renamed.iter().flat_map(|renamed| &renamed.new).any(|new| new.symbol == symbol)
    }
}

fn setting(symbol: &str, value: &str) -> Setting {
    Setting { symbol: symbol.to_owned(), value: value.to_owned() }
}
