//! Turns a symbol on, by its prompt, its defaults or its selectors.

use super::{Goal, Search, prompts, text};
use crate::kconfig::explain::expression::{Expr, MODULE, NO, Term, YES};
use crate::kconfig::explain::model::{Definition, Selector, Symbol};
use crate::kconfig::explain::reason::MAX_LINKS;
use crate::kconfig::explain::statement::Type;

impl<'a> Search<'a> {
    /// Raises the symbol to at least `wanted`.
    pub(super) fn raise(&mut self, name: &'a str, wanted: u8) -> bool {
        let constant = match name {
            "y" => Some(YES),
            "m" => Some(if self.config.enabled("MODULES") { MODULE } else { NO }),
            "n" => Some(NO),
            _ => None,
        };
        if constant.unwrap_or_else(|| self.level(name)) >= wanted {
            return true;
        }
        if name == "m" && wanted == MODULE {
            return self.raise("MODULES", YES);
        }
        let Some(symbol) = self.model.defined(name) else {
            if constant.is_none() {
                self.missing.insert(name.to_owned());
            }
            return false;
        };
        let is_conflict = self.is_set(name) && self.level(name) == NO || self.open.contains(&(name, false));
        self.is_incomplete |= is_conflict;
        if is_conflict || !symbol.is_logical() || self.open.contains(&(name, true)) {
            return false;
        }
        self.open.push((name, true));
        let has_modules = self.config.enabled("MODULES") && symbol.kind == Some(Type::Tristate);
        let value = if has_modules { wanted } else { YES };
        let needed = if symbol.kind == Some(Type::Tristate) { value } else { MODULE };
        let asked: Vec<Goal<'a>> = prompts(symbol).map(|one| Goal::PromptAndSet(name, one, value)).collect();
        let done = self.any(&asked)
            || self.raise_as_module(name, symbol, wanted)
            || self.raise_unasked(name, symbol, needed)
                && (self.level(name) >= value || self.derive(name, value));
        self.open.pop();
        done
    }

    /// Raises the symbol to a module in a kernel that gets modules.
    fn raise_as_module(&mut self, name: &'a str, symbol: &'a Symbol, wanted: u8) -> bool {
        if wanted > MODULE || symbol.kind != Some(Type::Tristate) || self.config.enabled("MODULES") {
            return false;
        }
        let mark = self.trail.len();
        let goals: Vec<Goal<'a>> = prompts(symbol).map(|one| Goal::PromptAndSet(name, one, MODULE)).collect();
        let done = !goals.is_empty() && self.raise("MODULES", YES) && self.any(&goals);
        if !done {
            self.undo(mark);
        }
        done
    }

    /// Raises the symbol by its selectors or defaults.
    fn raise_unasked(&mut self, name: &'a str, symbol: &'a Symbol, needed: u8) -> bool {
        let kind = |name: &str| self.model.defined(name).and_then(|symbol| symbol.kind);
        // A bool with a dependency at m selects at m.
        let can_select_module = |by: &str| {
            let mut has_tristate = kind(by) == Some(Type::Tristate);
            let mut visit = |term: &Term| {
                has_tristate |= term.symbol().is_some_and(|name| kind(name) == Some(Type::Tristate));
            };
            let definitions = self.model.defined(by).into_iter().flat_map(|by| &by.definitions);
            definitions.flat_map(|one| &one.depends).for_each(|part| part.each_term(&mut visit));
            has_tristate
        };
        if self.ceiling == Some((name, MODULE))
            && symbol.definitions.iter().all(|one| one.defaults.is_empty())
            && symbol.implied_by.is_empty()
            && !symbol.selected_by.iter().any(|one| can_select_module(&one.by))
        {
            return false;
        }
        let mut selectors: Vec<&'a Selector> = symbol.selected_by.iter().take(MAX_LINKS).collect();
        selectors.sort_by_cached_key(|selector| {
            let by = self.model.defined(&selector.by);
            let cost = by.map_or(usize::MAX, |by| {
                let unmet = |one: &'a Definition| {
                    self.prompt(one).filter(|part| part.value(&self.config).most < MODULE).count()
                };
                prompts(by).map(unmet).min().unwrap_or(50)
            });
            (!self.config.enabled(&selector.by), cost)
        });
        let selectors: Vec<Goal<'a>> = selectors.into_iter().map(|one| Goal::Select(one, needed)).collect();
        let defaults = symbol.definitions.iter().flat_map(|one| {
            (0..one.defaults.len()).map(move |index| Goal::Default(name, one, index, needed))
        });
        let defaults: Vec<Goal<'a>> = defaults.collect();
        self.any(&defaults) || self.any(&selectors) || {
            let implied: Vec<Goal<'a>> =
                symbol.implied_by.iter().map(|one| Goal::Select(one, needed)).collect();
            let defined: Vec<Goal<'a>> =
                symbol.definitions.iter().map(|one| Goal::Define(one, needed)).collect();
            self.any(&implied) && self.any(&defined)
        }
    }

    /// Makes the default of `index` the one in force.
    pub(super) fn default(
        &mut self,
        name: &str,
        definition: &'a Definition,
        index: usize,
        level: u8,
    ) -> bool {
        let (value, condition) = &definition.defaults[index];
        let parts = definition.depends.iter().chain(condition).map(AsRef::as_ref);
        if self.is_refused_by_macro(name, parts.chain([value])) {
            return false;
        }
        let mut goals: Vec<Goal<'a>> =
            definition.depends.iter().chain(condition).map(|one| Goal::met(one, level)).collect();
        goals.push(Goal::met(value, level));
        for (earlier, condition) in &definition.defaults[..index] {
            match condition {
                _ if earlier.value(&self.config).most >= level => {}
                Some(expr) => goals.push(Goal::unmet(expr, YES)),
                None => return false,
            }
        }
        self.all(&goals)
    }

    pub(super) fn prompt_and_set(&mut self, name: &'a str, definition: &'a Definition, value: u8) -> bool {
        let is_visible = self.original.symbols.contains_key(name);
        if !is_visible && self.is_refused_by_macro(name, self.prompt(definition)) {
            return false;
        }
        let symbol = self.model.defined(name);
        let is_tristate = symbol.is_some_and(|symbol| symbol.kind == Some(Type::Tristate));
        let needed = if is_tristate { value } else { MODULE };
        if !self.reach_goal(Goal::Prompt(definition, needed)) {
            return false;
        }
        if let Some(choice) = definition.choice {
            let members = self.model.choices[choice].members.iter();
            let on: Vec<&'a String> =
                members.filter(|one| *one != name && self.config.value(one) == "y").collect();
            if !on.into_iter().all(|one| self.set(one, "n")) {
                return false;
            }
        }
        self.set(name, text(value))
    }

    /// Returns whether a macro in these conditions is false. It is, if the rest already holds and the symbol is off.
    fn is_refused_by_macro<'b>(&self, name: &str, parts: impl Iterator<Item = &'b Expr>) -> bool {
        let mut has_macro = false;
        let mut are_met = true;
        for part in parts {
            let value = part.value(&self.original);
            has_macro |= value.least < value.most;
            are_met &= value.most > NO;
        }
        has_macro && are_met && self.original.symbols.get(name).is_none_or(|value| value == "n")
    }
}
