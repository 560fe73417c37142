//! Checks that the kernels of a run have the symbols that `--set` names. `CONFIG_X=n` would have no effect if the
//! name is misspelt, and nothing else would show it.

use crate::cache::Cache;
use crate::kconfig::Config;
use crate::kconfig::explain::{self, Absent, CauseKind, Kernel, Renames};
use crate::ops::context::Context;
use crate::plan::{self, Plan, SourceLocation};
use crate::source::{self, FetchContext};
use crate::util::error::{Error, Result};
use crate::util::text::join_list;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;

/// Whether a kernel has the symbols of `--set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolCheck {
    Passed,
    /// Another kernel of the run has a symbol that this one lacks.
    OtherKernel,
    /// The source is not on this machine.
    NotChecked,
}

/// Checks the symbols of `--set` that the final config of a kernel lacks.
///
/// # Errors
///
/// No kernel of the run has one of them (exit code 1).
pub fn check(config: &Config, plan: &Plan, tree: &Utf8Path, ctx: &Context<'_>) -> Result<SymbolCheck> {
    let settings = plan.config.iter().filter(|layer| layer.is_set_option());
    let names = settings.flat_map(|layer| layer.config.symbols.keys().map(|name| (name, &layer.name)));
    let lines: BTreeMap<&str, &str> = names
        .filter(|(name, _)| !config.symbols.contains_key(*name))
        .map(|(name, line)| (&**name, &**line))
        .collect();
    let names: Vec<&str> = lines.keys().copied().collect();
    let renames = Renames::read(ctx.library)?;
    let kernel = Kernel { tree, arch: plan.arch, version: plan.version, renames: &renames };
    let absent = match explain::absent(&names, config, &kernel) {
        Ok(absent) => absent,
        Err(error) => {
            ctx.reporter.note(&format!("cannot check the names of --set: {error}"));
            return Ok(SymbolCheck::NotChecked);
        }
    };
    let (of_others, absent): (Vec<_>, Vec<_>) =
        absent.into_iter().partition(|one| one.kind == CauseKind::OtherArchitecture);
    let note = |one: &Absent| ctx.reporter.note(&format!("{}: {}", lines[&*one.symbol], one.text));
    of_others.iter().for_each(note);
    if absent.is_empty() {
        return Ok(SymbolCheck::Passed);
    }
    let nowhere = ctx.absent_symbols.add(absent.clone());
    if nowhere.is_empty() {
        absent.iter().for_each(note);
        return Ok(SymbolCheck::OtherKernel);
    }
    let names = join_list(nowhere.iter().map(|one| format!("CONFIG_{}", one.symbol)), "or");
    let whose = match ctx.absent_symbols.kernels {
        1 => format!("Linux {} has no", plan.version_text()),
        _ => "no kernel of this run has".to_owned(),
    };
    Err(Error::build(format!("{whose} {names}")).hint(hint(&nowhere)))
}

/// Returns what the kernels have in place of these symbols.
fn hint(absent: &[Absent]) -> String {
    let one = |one: &Absent| match (one.kind, one.nearest.first()) {
        (CauseKind::Unknown, None) => None,
        (CauseKind::Unknown, Some(nearest)) if absent.len() == 1 => {
            Some(format!("did you mean CONFIG_{nearest}?"))
        }
        (CauseKind::Unknown, Some(nearest)) => Some(format!("CONFIG_{} may be CONFIG_{nearest}", one.symbol)),
        _ => Some(format!("CONFIG_{}: {}", one.symbol, one.text)),
    };
    let hints: Vec<String> = absent.iter().filter_map(one).collect();
    if hints.is_empty() {
        return "check the name; `kcompile config show` prints all settings of a version".to_owned();
    }
    hints.join("; ")
}

/// Checks the symbols of `--set` before the source is fetched, if it is on this machine.
///
/// # Errors
///
/// As for [`check`].
pub fn check_plan(plan: &Plan, ctx: &Context<'_>) -> Result<SymbolCheck> {
    if !plan.config.iter().any(plan::ConfigLayer::is_set_option) {
        return Ok(SymbolCheck::Passed);
    }
    match find_tree(plan, ctx)? {
        // The settings of the plan are no final config, which would have what exists.
        Some(tree) => check(&Config::default(), plan, &tree, ctx),
        None => Ok(SymbolCheck::NotChecked),
    }
}

/// Returns the source of a plan if it is on this machine. A patch may add symbols, so there must be none.
fn find_tree(plan: &Plan, ctx: &Context<'_>) -> Result<Option<Utf8PathBuf>> {
    if !plan.patches.is_empty() || plan.version.is_none() {
        return Ok(None);
    }
    if let SourceLocation::Directory { path } = &plan.source.location {
        return Ok(Some(path.clone()));
    }
    let cache = Cache { root: ctx.cache_dir.clone(), uid: ctx.host.uid };
    let lock = ctx.lock()?;
    // What is not verified may be fetched again, but has the same symbols.
    let lookup = FetchContext { offline: true, require_signature: false, ..ctx.fetch_context(&cache, &lock) };
    Ok(source::find_cached(plan, &lookup).ok().flatten().map(|tree| tree.path))
}
