//! Turns a symbol off, or to a module.

use super::{Goal, Search, prompts, text};
use crate::kconfig::explain::expression::{NO, YES};
use crate::kconfig::explain::model::{Condition, Definition, Symbol};
use crate::kconfig::explain::statement::Type;

impl<'a> Search<'a> {
    /// Lowers the symbol to at most `wanted`.
    pub(super) fn lower(&mut self, name: &'a str, wanted: u8) -> bool {
        if self.level(name) <= wanted && name != "y" && (name != "m" || !self.config.enabled("MODULES")) {
            return true;
        }
        let Some(symbol) = self.model.defined(name) else { return false };
        let is_conflict = self.is_set(name) || self.open.contains(&(name, true));
        self.is_incomplete |= is_conflict;
        if is_conflict || self.open.contains(&(name, false)) {
            return false;
        }
        self.open.push((name, false));
        let done = self.lower_closed(name, symbol, wanted);
        self.open.pop();
        done
    }

    fn lower_closed(&mut self, name: &'a str, symbol: &'a Symbol, wanted: u8) -> bool {
        let is_tristate = symbol.kind == Some(Type::Tristate);
        let allowed = if is_tristate { wanted } else { NO };
        let forcing = symbol.selected_by.iter().filter(|one| self.strength(one) > allowed);
        let forcing: Vec<Goal<'a>> = forcing.map(|one| Goal::Unselect(one, allowed)).collect();
        if !self.all(&forcing) {
            return false;
        }
        // One member of a choice is always on, so another one must be turned on.
        if let Some(choice) = symbol.definitions.iter().find_map(|one| one.choice)
            && prompts(symbol).any(|one| self.prompt(one).all(|part| part.value(&self.config).most > NO))
        {
            let others = self.model.choices[choice].members.iter().filter(|other| *other != name);
            let others: Vec<Goal<'a>> = others.map(|other| Goal::Raise(other, YES)).collect();
            return self.derive(name, NO) && self.any(&others);
        }
        if self.any_prompt(symbol) {
            return self.set(name, text(allowed));
        }
        let implying = symbol.implied_by.iter().filter(|one| self.strength(one) > allowed);
        let implying: Vec<Goal<'a>> = implying.map(|one| Goal::Unselect(one, allowed)).collect();
        if !self.all(&implying) {
            return false;
        }
        let in_force = symbol.definitions.iter().filter(|one| {
            !one.defaults.is_empty() && one.depends.iter().all(|part| part.value(&self.config).most > NO)
        });
        let in_force: Vec<&'a Definition> = in_force.collect();
        let done = in_force.iter().all(|one| self.remove_default(one));
        let is_explained = !in_force.is_empty() || !forcing.is_empty() || !implying.is_empty();
        done && is_explained && self.derive(name, allowed)
    }

    /// Makes the default in force ineffective.
    fn remove_default(&mut self, definition: &'a Definition) -> bool {
        let config = &self.config;
        let is_met = |condition: &Option<Condition>| {
            condition.as_ref().is_none_or(|condition| condition.value(config).most > NO)
        };
        let Some((value, condition)) = definition.defaults.iter().find(|(_, condition)| is_met(condition))
        else {
            return true;
        };
        let mut goals: Vec<Goal<'a>> = [Goal::unmet(value, YES)].into();
        goals.extend(condition.as_ref().map(|condition| Goal::unmet(condition, YES)));
        goals.push(Goal::Undefine(definition));
        self.any(&goals)
    }
}
