//! The config of one version, carried over to another: what has another name, what is gone, what comes out otherwise.

use super::Wanted;
use crate::catalog::Library;
use crate::catalog::project::Place;
use crate::kbuild::{BuildDir, Configured};
use crate::kconfig::explain::{self, Renames};
use crate::kconfig::requirements::{self, Tally};
use crate::kconfig::{self, Comparison, Config, Difference, Renamed, Setting};
use crate::kernel::{Arch, VersionRequest};
use crate::ops::context::Run;
use crate::ops::{check_config, config};
use crate::plan::request::Request;
use crate::plan::{Base, Plan, SourceIdentity, Text, config_name};
use crate::source::Tree;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result};
use camino::Utf8PathBuf;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Symbol → the settings that take the place of its line.
type Replacements = BTreeMap<String, Vec<Setting>>;

/// How often a config is asked again for what did not take. Each round costs an `olddefconfig`.
const ROUNDS: usize = 5;

/// A config that was carried over from another version.
#[derive(Debug, Serialize)]
pub struct Carried {
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
    pub gone: Vec<Difference>,
    /// Settings that came out otherwise, and are asked for as they came out.
    #[serde(rename = "changed")]
    pub changed: Vec<Difference>,
    /// What else the final `.config` has otherwise than that of the other version, where its source could be had;
    /// only what can be set: the rest follows from it.
    #[serde(rename = "since")]
    pub since: Option<Since>,
    /// How it stands with the requirement profiles.
    #[serde(rename = "profiles")]
    pub profiles: Vec<Tally>,
    /// The whole config.
    #[serde(skip)]
    pub(super) text: String,
}

/// The final `.config` against that of another version.
#[derive(Debug, Serialize)]
pub struct Since {
    /// Which release that is.
    pub version: String,
    /// In groups.
    #[serde(rename = "differences")]
    pub differences: Comparison,
}

/// The config that is carried over to the version of `request`: that of `from`, else of the nearest version.
///
/// Errors (exit code 2): there is none.
pub fn base<'a>(request: &Request, from: Option<VersionRequest>, library: &'a Library) -> Result<Base<'a>> {
    let Request { flavor, arch, version, .. } = *request;
    let wanted = from.unwrap_or(version).floor();
    let base = Base::nearest(library, flavor, arch, wanted);
    base.filter(|base| from.is_none() || base.is_for(wanted)).ok_or_else(|| {
        let all = Base::all(library, flavor, arch);
        let have: Vec<String> = all.iter().map(|base| base.version.in_catalog()).collect();
        let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
        Error::usage(format!("there is no {flavor} config for Linux {wanted} on {arch} to carry over"))
            .hint(format!("there are: {have}"))
    })
}

/// Carries the config over. Returns what the source has shown, too.
pub(super) fn carry(wanted: &Wanted<'_>, place: &Place, run: &Run<'_>) -> Result<(SourceIdentity, Carried)> {
    let Wanted { request, base, older } = wanted;
    let name = config_name(request.flavor, request.arch, request.version);
    let path = place.path_of(&name);
    if path.exists() && base.name() != name {
        return Err(Error::usage(format!("{path} is there already"))
            .hint("without --from it is the one that is carried over; else remove it first"));
    }
    let profiles = requirements::read_all(run.library, &request.profiles)?;
    let mut inputs = run.inputs(request)?;
    inputs.config = Some(Text { name: base.name(), text: base.text.to_owned() });
    let (source, mut carried, config, symbols) =
        config::configured_by(request, &inputs, run, |dir, plan, tree, configured| {
            let mut carrying = Carrying::new(plan, tree, run, base.text)?;
            let configured = carrying.settle(dir, configured)?;
            let outcomes = check_config::require(&configured, plan, &profiles, run.report)?;
            let Carrying { text, renamed, gone, changed, symbols, .. } = carrying;
            let carried = Carried {
                arch: request.arch,
                from: base.version,
                from_config: base.name(),
                path,
                renamed,
                gone,
                changed,
                since: None,
                profiles: requirements::tallies(&outcomes),
                text,
            };
            Ok((tree.identity.clone(), carried, configured.config, symbols))
        })?;
    // The directory of the one is free again: it may be that of the other, too.
    let since = since(older, &config, &symbols, run)?;
    carried.since = since.filter(|since| since.version != source.version.to_string());
    if let Some(since) = &mut carried.since {
        let told = carried.gone.iter().chain(&carried.changed).map(|difference| &difference.symbol);
        let told = told.chain(carried.renamed.iter().map(|one| &one.old.symbol));
        let told: HashSet<&str> = told.map(String::as_str).collect();
        since.differences.retain(|symbol| !told.contains(symbol));
    }
    Ok((source, carried))
}

/// What is otherwise in the final `config` than in that of the kernel that it comes from: of what can be set, by the
/// `symbols` of the one or the other, since the rest follows from it. The source of that one may be gone, or there
/// may be no network: that is no reason to fail.
fn since(
    older: &Request,
    config: &Config,
    symbols: &HashMap<String, bool>,
    run: &Run<'_>,
) -> Result<Option<Since>> {
    let old = run.inputs(older).and_then(|inputs| {
        config::configured_by(older, &inputs, run, |_, plan, tree, configured| {
            let old_symbols = explain::symbols(&tree.path, plan.arch).unwrap_or_default();
            Ok((plan.version_text(), configured.config, old_symbols))
        })
    });
    match old {
        Ok((version, old, old_symbols)) => {
            let mut differences = kconfig::compare(&old, config, &Renames::read(run.library)?);
            let can_be_set = |symbol: &str| symbols.get(symbol).or(old_symbols.get(symbol)) != Some(&false);
            differences.retain(can_be_set);
            Ok(Some(Since { version, differences }))
        }
        Err(error) if matches!(error.kind, Kind::Interrupted(_)) => Err(error),
        Err(error) => {
            let version = older.version;
            run.report
                .note(&format!("what is new since {version} cannot be said without its source: {error}"));
            Ok(None)
        }
    }
}

/// A config on its way to another kernel.
struct Carrying<'a> {
    plan: &'a Plan,
    tree: &'a Tree,
    run: &'a Run<'a>,
    renames: Renames,
    /// All symbols of the kernel, and whether they can be set; none: its Kconfig files cannot be read.
    symbols: HashMap<String, bool>,
    text: String,
    renamed: Vec<Renamed>,
    gone: Vec<Difference>,
    changed: Vec<Difference>,
}

impl<'a> Carrying<'a> {
    fn new(plan: &'a Plan, tree: &'a Tree, run: &'a Run<'a>, text: &str) -> Result<Carrying<'a>> {
        let symbols = explain::symbols(&tree.path, plan.arch);
        if let Err(why) = &symbols {
            run.report.note(&format!("what is gone cannot be told from what did not take: {why}"));
        }
        Ok(Carrying {
            plan,
            tree,
            run,
            renames: Renames::read(run.library)?,
            symbols: symbols.unwrap_or_default(),
            text: text.to_owned(),
            renamed: Vec::new(),
            gone: Vec::new(),
            changed: Vec::new(),
        })
    }

    /// Changes the text until the kernel takes all of it.
    fn settle(&mut self, dir: &BuildDir<'_>, first: Configured) -> Result<Configured> {
        let mut configured = first;
        for _ in 0..ROUNDS {
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
            configured = check_config::explained(next, self.plan, self.tree, self.run)?;
        }
        Err(Error::build(format!("the config does not settle: {}", configured.differences[0]))
            .hint("carry over another one with --from VERSION"))
    }

    /// What has to be said in place of what did not take. First what is gone or renamed: other settings may have
    /// missed just that; then new names that are no tristates; and only then the rest.
    fn replacements(&mut self, configured: &Configured) -> Replacements {
        let gone = self.gone_or_renamed(&configured.differences);
        if !gone.is_empty() {
            return gone;
        }
        let of_bools = configured.differences.iter().filter(|difference| {
            let is_module = difference.wanted == "m" && difference.found.as_deref() != Some("y");
            is_module && self.has_come_as(&difference.symbol)
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

    fn gone_or_renamed(&mut self, differences: &[Difference]) -> Replacements {
        let asked = Config::parse(&self.text).symbols;
        let is_defined = |symbol: &str| self.symbols.is_empty() || self.symbols.contains_key(symbol);
        // What is asked to be off is no difference where it does not exist.
        let off = asked.iter().filter(|(symbol, value)| *value == "n" && !is_defined(symbol));
        let mut replacements: Replacements = off.map(|(symbol, _)| (symbol.clone(), Vec::new())).collect();
        for difference in differences.iter().filter(|difference| !is_defined(&difference.symbol)) {
            let Difference { symbol, wanted, .. } = difference;
            let successors = self.renames.successors(symbol, |name| self.symbols.contains_key(name));
            let new: Vec<Setting> = successors.into_iter().map(|new| setting(new, wanted)).collect();
            match new.is_empty() {
                true => self.gone.push(difference.clone()),
                false => self.renamed.push(Renamed { old: setting(symbol, wanted), new: new.clone() }),
            }
            let said = |new: &Setting| asked.contains_key(&new.symbol);
            replacements.insert(symbol.clone(), new.into_iter().filter(|new| !said(new)).collect());
        }
        replacements
    }

    /// Did the symbol take the place of an old name?
    fn has_come_as(&self, symbol: &str) -> bool {
        self.renamed.iter().flat_map(|renamed| &renamed.new).any(|new| new.symbol == symbol)
    }
}

fn setting(symbol: &str, value: &str) -> Setting {
    Setting { symbol: symbol.to_owned(), value: value.to_owned() }
}
