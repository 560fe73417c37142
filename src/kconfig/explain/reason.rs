//! Finds the reason for one symbol that the kernel defines.

use super::cause::CauseKind;
use super::expression::{Expr, MODULE, NO, YES, number};
use super::model::{Condition, Model, Selector, Symbol};
use super::solve::level;
use super::statement::Type;
use super::unmet::{Certainty, Unmet};
use crate::kconfig::{Config, Difference};

/// The number of selectors that a reason names.
const MAX_SHOWN: usize = 3;
/// The number of selectors that are looked at. In real trees a symbol has up to 700.
pub(super) const MAX_LINKS: usize = 1000;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) kind: CauseKind,
    pub(super) text: String,
    /// The whole condition that is not met.
    pub(super) unmet: Option<String>,
    /// All symbols that the reason is about.
    pub(super) symbols: Vec<String>,
}

impl Reason {
    pub(super) fn new(kind: CauseKind, text: impl Into<String>) -> Reason {
        Reason { kind, text: text.into(), unmet: None, symbols: Vec::new() }
    }

    fn unmet(kind: CauseKind, before: &str, unmet: &Unmet, after: &str) -> Reason {
        let symbols = unmet.symbols().into_iter().map(str::to_owned).collect();
        Reason { kind, text: format!("{before}{unmet}{after}"), unmet: Some(format!("{unmet:#}")), symbols }
    }
}

/// Returns the reason for `difference`, whose symbol is `symbol`, or `None` if the Kconfig files show none.
pub(super) fn reason(
    difference: &Difference,
    symbol: &Symbol,
    model: &Model,
    config: &Config,
) -> Option<Reason> {
    let query = Query { difference, symbol, model, config, certainty: Certainty::Certain };
    let lenient = Query { certainty: Certainty::Possible, ..query };
    query.reason().or_else(|| lenient.reason()).or_else(|| query.explain_type())
}

#[derive(Clone, Copy)]
struct Query<'a> {
    difference: &'a Difference,
    symbol: &'a Symbol,
    model: &'a Model,
    config: &'a Config,
    certainty: Certainty,
}

impl<'a> Query<'a> {
    fn reason(self) -> Option<Reason> {
        let found = self.difference.found.as_deref().unwrap_or("n");
        match (self.symbol.is_logical(), level(&self.difference.requested), level(found)) {
            (true, Some(requested), Some(found)) if found < requested => self.explain_lowered(requested),
            (true, Some(requested), Some(found)) => self.explain_raised(requested, found),
            (true, _, _) => None,
            (false, _, _) => self
                .explain_hidden(MODULE)
                .or_else(|| self.explain_fixed())
                .or_else(|| self.explain_type())
                .or_else(|| self.explain_range()),
        }
    }

    /// Explains n or m where a higher value was requested.
    fn explain_lowered(self, requested: u8) -> Option<Reason> {
        // A dependency at m is enough for a bool.
        let needed = if self.symbol.kind == Some(Type::Tristate) { requested } else { MODULE };
        if !self.symbol.has_prompt() {
            return self.explain_no_prompt(needed);
        }
        self.explain_hidden(needed).or_else(|| self.explain_choice())
    }

    /// Returns what hides the prompt at the value `needed`.
    fn explain_hidden(self, needed: u8) -> Option<Reason> {
        let unmet = self.unmet_prompts(needed)?;
        let is_m = matches!(&unmet, Unmet::Term { text, .. } if text == "m");
        Some(match self.unmet_prompts(MODULE) {
            _ if is_m => Reason::new(CauseKind::OnlyModule, "can only be a module"),
            None => Reason::unmet(CauseKind::LimitedToModule, "limited to m by ", &unmet, ""),
            Some(_) => Reason::unmet(CauseKind::DependsOn, "depends on ", &unmet, ""),
        })
    }

    /// Returns `None` if a prompt reaches `level`, or if there is no prompt.
    fn unmet_prompts(self, level: u8) -> Option<Unmet> {
        self.unmet_prompts_of(self.symbol, level)
    }

    fn unmet_prompts_of(self, symbol: &Symbol, level: u8) -> Option<Unmet> {
        let prompts = symbol.definitions.iter().filter(|definition| definition.prompt.is_some());
        let unmet = prompts.map(|definition| {
            let prompt = definition.prompt.iter().flatten();
            self.unmet(definition.depends.iter().chain(prompt), level)
        });
        Unmet::any(unmet.collect::<Option<Vec<_>>>()?)
    }

    fn unmet<'b>(self, conditions: impl IntoIterator<Item = &'b Condition>, level: u8) -> Option<Unmet> {
        Unmet::of(conditions.into_iter().map(AsRef::as_ref), level, self.config, self.certainty)
    }

    /// Explains a symbol without a prompt, which only selectors and defaults turn on.
    fn explain_no_prompt(self, needed: u8) -> Option<Reason> {
        if !self.symbol.selected_by.is_empty() {
            return Some(self.explain_selectors());
        }
        let defaults = self.symbol.definitions.iter().flat_map(|definition| {
            definition.defaults.iter().map(move |(value, condition)| (definition, value, condition))
        });
        let unmet: Vec<Option<Unmet>> = defaults
            .map(|(definition, value, condition)| {
                let conditions = definition.depends.iter().chain(condition).map(AsRef::as_ref);
                Unmet::of(conditions.chain([value]), needed, self.config, self.certainty)
            })
            .collect();
        if unmet.is_empty() {
            return Some(Reason::new(CauseKind::NoPrompt, "has no prompt, and nothing selects it"));
        }
        let unmet = Unmet::any(unmet.into_iter().collect::<Option<Vec<_>>>()?)?;
        Some(Reason::unmet(CauseKind::NoPrompt, "has no prompt; its default needs ", &unmet, ""))
    }

    fn explain_selectors(self) -> Reason {
        let mut selectors: Vec<&Selector> = self.symbol.selected_by.iter().take(MAX_LINKS).collect();
        // First those that are on, but whose condition is not met. Then those that a user can turn on.
        let rank = |selector: &&Selector| {
            let askable = self
                .model
                .defined(&selector.by)
                .is_some_and(|symbol| symbol.has_prompt() && self.unmet_prompts_of(symbol, MODULE).is_none());
            (!self.config.enabled(&selector.by), !askable)
        };
        selectors.sort_by_cached_key(rank);
        let examples = selectors.iter().take(MAX_SHOWN).map(|selector| {
            let value = self.config.value(&selector.by);
            let unmet = selector.condition.as_ref().and_then(|condition| self.unmet([condition], MODULE));
            match unmet {
                Some(unmet) if value != "n" => format!("{} ({value}) if {unmet}", selector.by),
                _ => format!("{} ({value})", selector.by),
            }
        });
        let mut text =
            format!("has no prompt; could be selected by {}", examples.collect::<Vec<_>>().join(", "));
        if let Some(more @ 1..) = selectors.len().checked_sub(MAX_SHOWN) {
            text.push_str(&format!(" and {more} more"));
        }
        let symbols = selectors.iter().map(|selector| selector.by.clone()).collect();
        Reason { symbols, ..Reason::new(CauseKind::NotSelected, text) }
    }

    /// Explains a visible member of a choice, of which another member is on.
    fn explain_choice(self) -> Option<Reason> {
        let choice = self.symbol.definitions.iter().find_map(|definition| definition.choice)?;
        // A visible member is in the .config, at least as "not set".
        if self.difference.found.is_none() && self.certainty == Certainty::Certain {
            return None;
        }
        let choice = &self.model.choices[choice];
        if let Some(unmet) = self.unmet(choice.prompt.iter().flatten(), MODULE) {
            return Some(Reason::unmet(
                CauseKind::Choice,
                "its choice has no prompt: depends on ",
                &unmet,
                "",
            ));
        }
        let on = choice.members.iter().find(|member| self.config.value(member) == "y")?;
        Some(Reason {
            symbols: vec![on.clone()],
            ..Reason::new(CauseKind::Choice, format!("its choice took {on}"))
        })
    }

    /// Explains y or m where a lower value was requested.
    fn explain_raised(self, requested: u8, found: u8) -> Option<Reason> {
        if let Some(reason) = self.explain_forced(CauseKind::Selected, requested, found) {
            return Some(reason);
        }
        if self.symbol.kind == Some(Type::Tristate) && requested == MODULE && !self.config.enabled("MODULES")
        {
            return Some(Reason {
                symbols: vec!["MODULES".into()],
                ..Reason::new(CauseKind::DependsOn, "MODULES (n)")
            });
        }
        if self.symbol.definitions.iter().any(|definition| definition.choice.is_some())
            && self.unmet_prompts(MODULE).is_none()
        {
            return Some(Reason::new(
                CauseKind::Choice,
                "one of its choice has to be on, and no other was taken",
            ));
        }
        self.explain_forced(CauseKind::Implied, requested, found)
            .filter(|_| self.unmet_prompts(MODULE).is_some() || !self.symbol.has_prompt())
            .or_else(|| self.explain_fixed())
    }

    /// Names the symbols that select or imply it at a higher value than requested.
    fn explain_forced(self, kind: CauseKind, requested: u8, found: u8) -> Option<Reason> {
        let (selectors, before) = if kind == CauseKind::Selected {
            (&self.symbol.selected_by, "selected by ")
        } else {
            (&self.symbol.implied_by, "cannot be changed here; implied by ")
        };
        let strength = |selector: &Selector| {
            let condition =
                selector.condition.as_ref().map_or(YES, |condition| condition.value(self.config).most);
            level(self.config.value(&selector.by)).unwrap_or(NO).min(condition)
        };
        // A selector at m turns a bool to y, and a tristate to m.
        let enough = if self.symbol.kind == Some(Type::Tristate) { requested + 1 } else { MODULE };
        let on = selectors.iter().filter(|selector| strength(selector) >= enough);
        let mut on: Vec<&str> = on.map(|selector| selector.by.as_str()).collect();
        if on.is_empty() || found <= requested {
            return None;
        }
        on.dedup();
        let examples = on.iter().take(MAX_SHOWN).map(|by| format!("{by} ({})", self.config.value(by)));
        let mut text = format!("{before}{}", examples.collect::<Vec<_>>().join(", "));
        if let Some(more @ 1..) = on.len().checked_sub(MAX_SHOWN) {
            text.push_str(&format!(" and {more} more"));
        }
        let symbols = on.into_iter().map(str::to_owned).collect();
        Some(Reason { symbols, ..Reason::new(kind, text) })
    }

    /// Explains a default that the user cannot change.
    fn explain_fixed(self) -> Option<Reason> {
        let default = self.default_in_force();
        let describe_default = |(value, condition): (&Expr, Option<&Condition>)| match condition {
            Some(condition) => format!("{value} if {condition}"),
            None => value.to_string(),
        };
        if !self.symbol.has_prompt() {
            return Some(match default {
                Some(default) => Reason::new(
                    CauseKind::NoPrompt,
                    format!("has no prompt; default {}", describe_default(default)),
                ),
                None => Reason::new(CauseKind::NoPrompt, "has no prompt"),
            });
        }
        let unmet = self.unmet_prompts(MODULE)?;
        let after =
            default.map(|default| format!("; default {}", describe_default(default))).unwrap_or_default();
        Some(Reason::unmet(CauseKind::Fixed, "to change it needs ", &unmet, &after))
    }

    /// Returns the first default whose condition is met.
    fn default_in_force(self) -> Option<(&'a Expr, Option<&'a Condition>)> {
        let met = |condition: &Condition| condition.value(self.config).most > NO;
        self.symbol.definitions.iter().filter(|definition| definition.depends.iter().all(met)).find_map(
            |definition| {
                let mut defaults = definition.defaults.iter();
                let (value, condition) =
                    defaults.find(|(_, condition)| condition.as_ref().is_none_or(met))?;
                Some((value, condition.as_ref()))
            },
        )
    }

    fn explain_range(self) -> Option<Reason> {
        let (low, high) = self.symbol.bounds_without(number(&self.difference.requested)?, self.config)?;
        Some(Reason::new(CauseKind::Range, format!("outside its range, {low} to {high}")))
    }

    /// Explains a value that does not fit the type.
    fn explain_type(self) -> Option<Reason> {
        let requested = self.difference.requested.as_str();
        let (name, fits) = match self.symbol.kind? {
            Type::Bool => ("a bool: y or n", matches!(requested, "y" | "n")),
            Type::Tristate => ("a tristate: y, m or n", matches!(requested, "y" | "m" | "n")),
            Type::String => ("a string", requested.starts_with('"')),
            Type::Int => match requested.strip_prefix('-').unwrap_or(requested) {
                digits if digits.starts_with("0x") => ("an int: no hexadecimal number", false),
                digits if digits.len() > 1 && digits.starts_with('0') => ("an int: no leading zeros", false),
                _ => ("an int", requested.parse::<i64>().is_ok()),
            },
            Type::Hex => ("a hex number", number(requested).is_some()),
        };
        (!fits).then(|| Reason::new(CauseKind::Type, format!("is {name}")))
    }
}
