//! Simulates the defaults of symbols that become visible.

use super::{MAX_STEPS, Search, text};
use crate::kconfig::Setting;
use crate::kconfig::explain::expression::{Expr, Term, number};
use crate::kconfig::explain::model::Symbol;

/// Bounds chains of defaults that are symbols.
const MAX_CHAIN: usize = 8;

impl<'a> Search<'a> {
    /// Leaves out the settings that symbols get as their defaults, once the other settings make them visible. For
    /// example, `IP_NF_IPTABLES_LEGACY` follows from `NETFILTER_XTABLES_LEGACY`.
    pub(super) fn without_defaults(&mut self, settings: Vec<Setting>) -> Vec<Setting> {
        let model = self.model;
        let name_of = |setting: &Setting| -> Option<&'a str> {
            model.symbols.get_key_value(&setting.symbol).map(|(name, _)| name.as_str())
        };
        let is_new =
            |setting: &Setting| setting.value != "n" && !self.original.symbols.contains_key(&setting.symbol);
        let (new, mut kept): (Vec<_>, Vec<_>) = settings.into_iter().partition(is_new);
        if new.is_empty() {
            return kept;
        }
        for setting in &kept {
            if let Some(name) = name_of(setting) {
                self.set(name, &setting.value);
            }
        }
        self.apply_defaults();
        kept.extend(new.into_iter().filter(|one| self.config.value(&one.symbol) != one.value));
        kept.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        self.undo(0);
        kept
    }

    /// Gives symbols that the changes make visible their defaults, as `olddefconfig` does. Returns these defaults.
    pub(super) fn apply_defaults(&mut self) -> Vec<(String, String)> {
        let mut changed: Vec<String> = self.trail.iter().map(|step| step.symbol.clone()).collect();
        let (mut defaults, mut visits) = (Vec::new(), 0);
        while let Some(symbol) = changed.pop() {
            let dependents = self.dependents.get(symbol.as_str()).cloned().unwrap_or_default();
            for name in dependents {
                visits += 1;
                if visits > MAX_STEPS {
                    return defaults;
                }
                let Some(symbol) = self.model.defined(name) else { continue };
                let is_known = self.original.symbols.contains_key(name) || self.is_set(name);
                let Some(default) = symbol.default_level(&self.config).filter(|_| !is_known) else {
                    continue;
                };
                if default > self.level(name) {
                    let mark = self.trail.len();
                    self.record(name, text(default), false);
                    self.select_targets(name);
                    changed.extend(self.trail[mark..].iter().map(|step| step.symbol.clone()));
                    defaults.push((name.to_owned(), text(default).to_owned()));
                }
            }
        }
        defaults
    }

    /// Returns whether a default or a bound of a range may give a number or text the value `wanted`. The values of
    /// macros and of symbols that can be set are unknown.
    pub(super) fn may_default_to(&self, symbol: &Symbol, wanted: &str, depth: usize) -> bool {
        let may_be = |term: &Term| match term.symbol().and_then(|name| self.model.defined(name)) {
            Some(other) => {
                other.has_prompt() || depth == MAX_CHAIN || self.may_default_to(other, wanted, depth + 1)
            }
            None => term.text(&self.config).is_none_or(|text| match (number(text), number(wanted)) {
                (Some(text), Some(wanted)) => text == wanted,
                _ => text == wanted.trim_matches('"'),
            }),
        };
        symbol.definitions.iter().any(|one| {
            let may_give = |value: &Expr| !matches!(value, Expr::Term(term) if !may_be(term));
            one.defaults.iter().any(|(value, _)| may_give(value))
                || one.ranges.iter().any(|(low, high, _)| may_be(low) || may_be(high))
        })
    }
}
