//! Explains why settings did not take effect, from the kernel's own Kconfig files: dependencies, selects,
//! choices, ranges, and symbols that were renamed or removed. Reads only these files, and runs nothing.
//!
//! The final `.config` has all values, so nothing of Kconfig is computed again. This module finds the parts of
//! a condition that do not hold with these values.
//!
//! The parser is our own. nom-kconfig 0.13 needs 4.6 s of processor time for Linux 6.12, and this parser 0.14 s.
//! If files source each other in a circle, nom-kconfig overflows the stack. A tree is hostile input here.

mod absent;
mod cause;
mod describe;
mod expression;
mod model;
mod nearest;
mod read;
mod reason;
mod renames;
mod solve;
mod statement;
mod tools;
mod unmet;

#[cfg(test)]
mod tests;

pub use absent::{Absent, absent};
pub use cause::{Cause, CauseKind};
pub use describe::{Description, describe};
pub use renames::Renames;

use super::{Config, Difference, Setting};
use crate::kernel::{Arch, KernelVersion};
use crate::util::text::{escape_control, sanitize_line};
use absent::Absences;
use camino::Utf8Path;
use expression::{Expr, Term};
use model::{Definition, Model};
use reason::Reason;
use solve::{Search, Solution};
use statement::Type;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The number of needed settings that a reason names. The JSON has all of them.
const MAX_SET: usize = 12;
/// The number of symbols of other architectures that a reason names.
const MAX_MISSING: usize = 3;

/// A configured kernel.
pub struct Kernel<'a> {
    /// The top of its source.
    pub tree: &'a Utf8Path,
    pub arch: Arch,
    /// Its version, if known.
    pub version: Option<KernelVersion>,
    pub renames: &'a Renames,
}

/// Returns the differences, with reasons from the Kconfig files of `kernel`. Does not read the files
/// if there is no difference.
///
/// A whole `.config` has symbols that Kconfig computed from the tools of another build. Nobody asked for these,
/// so they are left out if `is_snapshot` returns true for them.
///
/// # Errors
///
/// A message if the files cannot be read.
pub fn explain(
    differences: &[Difference],
    config: &Config,
    kernel: &Kernel<'_>,
    is_snapshot: impl Fn(&Difference) -> bool,
) -> Result<Vec<Difference>, String> {
    if differences.is_empty() {
        return Ok(Vec::new());
    }
    let model = Model::new(read::read(kernel.tree, kernel.arch)?);
    Ok(add_reasons(differences, config, kernel, &model, is_snapshot))
}

/// Returns all symbols that the Kconfig files of `tree` define for `arch`, each with whether it has a prompt.
///
/// # Errors
///
/// As for [`explain`].
pub fn symbols(tree: &Utf8Path, arch: Arch) -> Result<HashMap<String, bool>, String> {
    let model = Model::new(read::read(tree, arch)?);
    let defined = model.symbols.into_iter().filter(|(_, symbol)| !symbol.definitions.is_empty());
    Ok(defined.map(|(name, symbol)| (name, symbol.has_prompt())).collect())
}

/// Sets each int and hex symbol without a value to 0, as kernels since 6.12 do. Older kernels leave it empty.
fn with_zeros(config: &Config, kernel: &Kernel<'_>, model: &Model) -> Config {
    let mut config = config.clone();
    if kernel.version.is_some_and(|version| version >= KernelVersion::new(6, 12, 0)) {
        for (name, symbol) in &model.symbols {
            let zero = match symbol.kind {
                Some(Type::Int) => "0",
                Some(Type::Hex) => "0x0",
                _ => continue,
            };
            config.symbols.entry(name.clone()).or_insert_with(|| zero.to_owned());
        }
    }
    config
}

/// Returns whether the setting took effect in another form. Kconfig gives the value of a transitional symbol to its
/// new name, and writes hexadecimal numbers with `0x`.
fn is_taken(difference: &Difference, config: &Config, model: &Model) -> bool {
    let Some(symbol) = model.defined(&difference.symbol) else { return false };
    let requested = difference.requested.as_str();
    let same_hex =
        || difference.found.as_deref().is_some_and(|found| found.strip_prefix("0x") == Some(requested));
    let carried = || {
        let takes = |definition: &Definition| {
            definition
                .defaults
                .iter()
                .any(|(value, _)| *value == Expr::Term(Term::Name(difference.symbol.clone())))
        };
        let mut new = model.symbols.iter().filter(|(_, symbol)| symbol.definitions.iter().any(takes));
        new.any(|(name, _)| config.value(name) == requested)
    };
    symbol.kind == Some(Type::Hex) && same_hex() || symbol.is_transitional && carried()
}

fn add_reasons(
    differences: &[Difference],
    config: &Config,
    kernel: &Kernel<'_>,
    model: &Model,
    is_snapshot: impl Fn(&Difference) -> bool,
) -> Vec<Difference> {
    let tools = tools::tool_dependent_symbols(model);
    let is_noise =
        |difference: &&Difference| tools.contains(difference.symbol.as_str()) && is_snapshot(difference);
    let config = &with_zeros(config, kernel, model);
    let relevant = differences.iter().filter(|one| !is_noise(one) && !is_taken(one, config, model));
    let relevant: Vec<&Difference> = relevant.collect();
    let absences = Absences::new(config, kernel, model);
    let mut search = Search::new(model, config);
    let reasons: HashMap<&str, (Reason, Solution)> = relevant
        .iter()
        .filter_map(|difference| {
            let name = difference.symbol.as_str();
            let Some(symbol) = model.defined(name) else {
                return Some((name, (absences.reason(name), Solution::Impossible(BTreeSet::new()))));
            };
            let reason = reason::reason(difference, symbol, model, config)?;
            let solution = match reason.kind {
                CauseKind::Range | CauseKind::Type => Solution::Impossible(BTreeSet::new()),
                _ => search.solve(name, &difference.requested),
            };
            Some((name, (reason, solution)))
        })
        .collect();
    relevant
        .into_iter()
        .map(|difference| {
            let found = reasons.get(difference.symbol.as_str());
            let reason = found.map(|(reason, solution)| {
                let text = match root_cause(&difference.symbol, &reasons) {
                    Some(root) if reason.symbols == [root] => format!("{}, see there", reason.text),
                    Some(root) => format!("{}, see CONFIG_{root}", reason.text),
                    None => reason.text.clone(),
                };
                let taken = taken_member(&difference.symbol, model, config);
                sanitize_line(&text) + &describe_solution(reason, solution, kernel.arch, taken)
            });
            let cause = found.map(|found| cause(found, config));
            Difference { reason, cause, ..difference.clone() }
        })
        .collect()
}

fn cause((reason, solution): &(Reason, Solution), config: &Config) -> Cause {
    let (set, possible) = match solution {
        Solution::Settings(set) => (set.clone(), Some(true)),
        Solution::Impossible(_) | Solution::OutOfRange(..) => (Vec::new(), Some(false)),
        Solution::Unknown => (Vec::new(), None),
    };
    let unmet = reason.unmet.as_deref().map(escape_control);
    let setting =
        |symbol: &String| Setting { symbol: symbol.clone(), value: config.value(symbol).to_owned() };
    let symbols = reason.symbols.iter().map(setting).collect();
    Cause { kind: reason.kind, unmet, symbols, set, possible }
}

/// Returns the member of the symbol's choice that is on.
fn taken_member<'a>(symbol: &str, model: &'a Model, config: &Config) -> Option<&'a str> {
    let choice = model.defined(symbol)?.definitions.iter().find_map(|definition| definition.choice)?;
    let mut members = model.choices[choice].members.iter();
    members.find(|member| config.value(member) == "y").map(String::as_str)
}

/// Returns the part of the text that names the needed settings, or says that no setting helps. `taken` is the member
/// of the symbol's choice that is on.
fn describe_solution(reason: &Reason, solution: &Solution, arch: Arch, taken: Option<&str>) -> String {
    match solution {
        // The reason says already what to do.
        Solution::Settings(set)
            if reason.kind != CauseKind::Choice
                && set.iter().all(|one| reason.symbols == [one.symbol.as_str()]) =>
        {
            String::new()
        }
        Solution::Settings(set) => {
            let line = |one: &Setting| sanitize_line(&format!("CONFIG_{}={}", one.symbol, one.value));
            let mut shown: Vec<String> = set.iter().take(MAX_SET).map(line).collect();
            shown.extend((set.len() > MAX_SET).then(|| format!("{} more", set.len() - MAX_SET)));
            format!("; set {} too", shown.join(", "))
        }
        Solution::Impossible(missing) if !missing.is_empty() => {
            let names: Vec<&str> = missing.iter().take(MAX_MISSING).map(String::as_str).collect();
            format!("; no setting helps, since {arch} has no {}", sanitize_line(&names.join(" or ")))
        }
        Solution::OutOfRange(low, high) => format!("; its range is then {low} to {high}"),
        // Of a macro that is false, another compiler may make it true.
        Solution::Impossible(_) if reason.kind == CauseKind::DependsOn && !reason.symbols.is_empty() => {
            let taken = taken.map_or_else(String::new, |taken| format!(" (its choice took {taken})"));
            format!("; no setting helps, so remove it{}", sanitize_line(&taken))
        }
        Solution::Impossible(_) | Solution::Unknown => String::new(),
    }
}

/// Follows the reason for `symbol` to other symbols that did not take effect. Returns the last one, whose reason
/// the user has to look at.
fn root_cause<'a>(symbol: &'a str, reasons: &'a HashMap<&str, (Reason, Solution)>) -> Option<&'a str> {
    let mut visited = HashSet::from([symbol]);
    let mut at = symbol;
    while let Some(next) = reasons[at].0.symbols.iter().find(|next| reasons.contains_key(next.as_str())) {
        if !visited.insert(next) {
            break;
        }
        at = next;
    }
    (at != symbol).then_some(at)
}
