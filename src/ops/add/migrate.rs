//! The config of one version, carried over to another: what has another name, what is gone, what comes out otherwise.

use super::NewKernelRequest;
use crate::catalog::ConfigLibrary;
use crate::catalog::project::ProjectDirs;
use crate::kbuild::{BuildDir, Configured};
use crate::kconfig::explain::{self, Renames};
use crate::kconfig::requirements::{self, Tally};
use crate::kconfig::{self, Comparison, Config, Difference, Renamed, Setting};
use crate::kernel::{Arch, VersionRequest};
use crate::ops::context::Context;
use crate::ops::{check_config, config};
use crate::plan::request::Request;
use crate::plan::{BaseConfig, Plan, SourceIdentity, Text, config_name};
use crate::source::Tree;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result};
use camino::Utf8PathBuf;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Symbol → the settings that take the place of its line.
type Replacements = BTreeMap<String, Vec<Setting>>;

/// How often a config is asked again for what did not take. Each round costs an `olddefconfig`.
const MAX_ROUNDS: usize = 5;

/// A config that was carried over from another version.
#[derive(Debug, Serialize)]
pub struct MigratedConfig {
    /// For which machine.
    pub arch: Arch,
    /// The version, or series, whose config it was.
    #[serde(rename = "from")]
    pub from: VersionRequest,
    /// The name of that config in the library.
    #[serde(rename = "from_config")]
    pub from_config: String,
    /// Where it goes.
    pub path: Utf8PathBuf,
    /// Settings that have another name here.
    #[serde(rename = "renamed")]
    pub renamed: Vec<Renamed>,
    /// Settings that this kernel does not have.
    #[serde(rename = "gone")]
    pub removed: Vec<Difference>,
    /// Settings that came out otherwise, and are asked for as they came out.
    #[serde(rename = "changed")]
    pub changed: Vec<Difference>,
    /// What else the final `.config` has otherwise than that of the other version, where its source could be had;
    /// only what can be set: the rest follows from it.
    #[serde(rename = "since")]
    pub upstream_changes: Option<UpstreamChanges>,
    /// How it stands with the requirement profiles.
    #[serde(rename = "profiles")]
    pub profiles: Vec<Tally>,
    /// The whole config.
    #[serde(skip)]
    pub(super) text: String,
}

/// The final `.config` against that of another version.
#[derive(Debug, Serialize)]
pub struct UpstreamChanges {
    /// Which release that is.
    pub version: String,
    /// In groups.
    #[serde(rename = "differences")]
    pub differences: Comparison,
}

/// The config that is carried over to the version of `request`: that of `from`, else of the nearest version.
///
/// Errors (exit code 2): there is none.
pub fn base<'a>(
    request: &Request,
    from: Option<VersionRequest>,
    library: &'a ConfigLibrary,
) -> Result<BaseConfig<'a>> {
    let Request { flavor, arch, version, .. } = *request;
    let requested = from.unwrap_or(version).floor();
    let base = BaseConfig::find_nearest(library, flavor, arch, requested);
    base.filter(|base| from.is_none() || base.is_for(requested)).ok_or_else(|| {
        let all = BaseConfig::all(library, flavor, arch);
        let have: Vec<String> = all.iter().map(|base| base.version.in_catalog()).collect();
        let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
        Error::usage(format!("there is no {flavor} config for Linux {requested} on {arch} to carry over"))
            .hint(format!("there are: {have}"))
    })
}

/// Carries the config over. Returns what the source has shown, too.
pub(super) fn migrate(
    requested: &NewKernelRequest<'_>,
    dirs: &ProjectDirs,
    ctx: &Context<'_>,
) -> Result<(SourceIdentity, MigratedConfig)> {
    let NewKernelRequest { request, base, older } = requested;
    let name = config_name(request.flavor, request.arch, request.version);
    let path = dirs.path_of(&name);
    if path.exists() && base.name() != name {
        return Err(Error::usage(format!("{path} is there already"))
            .hint("without --from it is the one that is carried over; else remove it first"));
    }
    let profiles = requirements::read_all(ctx.library, &request.profiles)?;
    let mut inputs = ctx.inputs(request)?;
    inputs.config = Some(Text { name: base.name(), text: base.text.to_owned() });
    let (source, mut migrated, config, symbols) =
        config::with_configured_inputs(request, &inputs, ctx, |dir, plan, tree, configured| {
            let mut migration = Migration::new(plan, tree, ctx, base.text)?;
            let configured = migration.converge(dir, configured)?;
            let results = check_config::check_requirements(&configured, plan, &profiles, ctx.reporter)?;
            let Migration { text, renamed, removed, changed, symbols, .. } = migration;
            let migrated = MigratedConfig {
                arch: request.arch,
                from: base.version,
                from_config: base.name(),
                path,
                renamed,
                removed,
                changed,
                upstream_changes: None,
                profiles: requirements::tallies(&results),
                text,
            };
            Ok((tree.identity.clone(), migrated, configured.config, symbols))
        })?;
    // The directory of the one is free again: it may be that of the other, too.
    let since = upstream_changes(older, &config, &symbols, ctx)?;
    migrated.upstream_changes = since.filter(|since| since.version != source.version.to_string());
    if let Some(since) = &mut migrated.upstream_changes {
        let listed = migrated.removed.iter().chain(&migrated.changed).map(|difference| &difference.symbol);
        let listed = listed.chain(migrated.renamed.iter().map(|one| &one.old.symbol));
        let listed: HashSet<&str> = listed.map(String::as_str).collect();
        since.differences.retain(|symbol| !listed.contains(symbol));
    }
    Ok((source, migrated))
}

/// What is otherwise in the final `config` than in that of the kernel that it comes from: of what can be set, by the
/// `symbols` of the one or the other, since the rest follows from it. The source of that one may be gone, or there
/// may be no network: that is no reason to fail.
fn upstream_changes(
    older: &Request,
    config: &Config,
    symbols: &HashMap<String, bool>,
    ctx: &Context<'_>,
) -> Result<Option<UpstreamChanges>> {
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
            Ok(Some(UpstreamChanges { version, differences }))
        }
        Err(error) if matches!(error.kind, Kind::Interrupted(_)) => Err(error),
        Err(error) => {
            let version = older.version;
            ctx.reporter
                .note(&format!("what is new since {version} cannot be said without its source: {error}"));
            Ok(None)
        }
    }
}

/// A config on its way to another kernel.
struct Migration<'a> {
    plan: &'a Plan,
    tree: &'a Tree,
    ctx: &'a Context<'a>,
    renames: Renames,
    /// All symbols of the kernel, and whether they can be set; none: its Kconfig files cannot be read.
    symbols: HashMap<String, bool>,
    text: String,
    renamed: Vec<Renamed>,
    removed: Vec<Difference>,
    changed: Vec<Difference>,
}

impl<'a> Migration<'a> {
    fn new(plan: &'a Plan, tree: &'a Tree, ctx: &'a Context<'a>, text: &str) -> Result<Migration<'a>> {
        let symbols = explain::symbols(&tree.path, plan.arch);
        if let Err(why) = &symbols {
            ctx.reporter.note(&format!("what is gone cannot be told from what did not take: {why}"));
        }
        Ok(Migration {
            plan,
            tree,
            ctx,
            renames: Renames::read(ctx.library)?,
            symbols: symbols.unwrap_or_default(),
            text: text.to_owned(),
            renamed: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
        })
    }

    /// Changes the text until the kernel takes all of it.
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
        Err(Error::build(format!("the config does not settle: {}", configured.differences[0]))
            .hint("carry over another one with --from VERSION"))
    }

    /// What has to be said in place of what did not take. First what is gone or renamed: other settings may have
    /// missed just that; then new names that are no tristates; and only then the rest.
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
        self.changed.extend(configured.differences.iter().cloned());
        // What is off, or computed, need not be said.
        let as_it_came = |Difference { symbol, found, .. }: &Difference| {
            let value =
                found.iter().filter(|found| *found != "n" && self.symbols.get(symbol) != Some(&false));
            (symbol.clone(), value.map(|value| setting(symbol, value)).collect())
        };
        configured.differences.iter().map(as_it_came).collect()
    }

    fn replace_unknown(&mut self, differences: &[Difference]) -> Replacements {
        let asked = Config::parse(&self.text).symbols;
        let is_defined = |symbol: &str| self.symbols.is_empty() || self.symbols.contains_key(symbol);
        // What is asked to be off is no difference where it does not exist.
        let off = asked.iter().filter(|(symbol, value)| *value == "n" && !is_defined(symbol));
        let mut replacements: Replacements = off.map(|(symbol, _)| (symbol.clone(), Vec::new())).collect();
        for difference in differences.iter().filter(|difference| !is_defined(&difference.symbol)) {
            let Difference { symbol, requested, .. } = difference;
            let successors = self.renames.successors(symbol, |name| self.symbols.contains_key(name));
            let new: Vec<Setting> = successors.into_iter().map(|new| setting(new, requested)).collect();
            match new.is_empty() {
                true => self.removed.push(difference.clone()),
                false => self.renamed.push(Renamed { old: setting(symbol, requested), new: new.clone() }),
            }
            let is_set = |new: &Setting| asked.contains_key(&new.symbol);
            replacements.insert(symbol.clone(), new.into_iter().filter(|new| !is_set(new)).collect());
        }
        replacements
    }

    /// Did the symbol take the place of an old name?
    fn is_new_name(&self, symbol: &str) -> bool {
        self.renamed.iter().flat_map(|renamed| &renamed.new).any(|new| new.symbol == symbol)
    }
}

fn setting(symbol: &str, value: &str) -> Setting {
    Setting { symbol: symbol.to_owned(), value: value.to_owned() }
}
