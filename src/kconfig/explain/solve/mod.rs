//! Finds the settings, with their own dependencies, that give a symbol the wanted value.
//!
//! The search changes a copy of the final `.config`, and undoes changes that lead nowhere. The result follows from
//! the Kconfig files. Only the kernel's own `olddefconfig` can prove it.

mod condition;
mod defaults;
mod lower;
mod raise;

use super::expression::{Expr, MODULE, NO, Term, YES, number};
use super::model::{Definition, Model, Selector, Symbol};
use super::statement::Type;
use crate::kconfig::{Config, Setting};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// No kernel has deeper chains of dependencies.
const MAX_DEPTH: usize = 40;
/// The number of steps for one symbol.
const MAX_STEPS: usize = 20_000;
/// The number of steps for all symbols. Real configs need less than a tenth.
const MAX_ALL_STEPS: usize = 10_000_000;
/// The number of times that the search restarts because of conflicting defaults.
const MAX_ROUNDS: usize = 3;
/// The number of alternatives to try. In real trees a symbol has up to 700 selectors.
const MAX_ALTERNATIVES: usize = 32;

/// The result of a search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Solution {
    /// The needed settings, without the wanted one.
    Settings(Vec<Setting>),
    /// No settings give the value. The symbols are those that are not in this architecture.
    Impossible(BTreeSet<String>),
    /// The number can be set, but is outside these bounds.
    OutOfRange(String, String),
    /// The search gave up.
    Unknown,
}

/// Something to reach.
#[derive(Clone, Copy)]
enum Goal<'a> {
    /// The expression, or its negation, is at least this.
    Expr { expr: &'a Expr, level: u8, negated: bool },
    /// The symbol is at least this.
    Raise(&'a str, u8),
    /// The symbol is at most this.
    Lower(&'a str, u8),
    /// The prompt of the definition is visible at this level.
    Prompt(&'a Definition, u8),
    /// The same, and the symbol is set.
    PromptAndSet(&'a str, &'a Definition, u8),
    /// The selector selects at least at this level.
    Select(&'a Selector, u8),
    /// The selector selects at most at this level.
    Unselect(&'a Selector, u8),
    /// The default of this index gives at least this.
    Default(&'a str, &'a Definition, usize, u8),
    /// The dependencies of the definition are at least this.
    Define(&'a Definition, u8),
    /// The definition and its defaults do not apply.
    Undefine(&'a Definition),
}

impl<'a> Goal<'a> {
    fn met(expr: &'a Expr, level: u8) -> Goal<'a> {
        Goal::Expr { expr, level, negated: false }
    }

    /// The expression is at most `YES - level`.
    fn unmet(expr: &'a Expr, level: u8) -> Goal<'a> {
        Goal::Expr { expr, level, negated: true }
    }
}

/// A change of the config, which can be undone.
struct Step {
    symbol: String,
    before: Option<String>,
    /// Whether the user must set it. Other changes follow from these.
    is_given: bool,
}

/// A change to make again.
struct Change {
    symbol: String,
    value: String,
    is_given: bool,
}

pub(super) struct Search<'a> {
    model: &'a Model,
    /// For each symbol, those with a default that depends on it.
    dependents: HashMap<&'a str, Vec<&'a str>>,
    /// The final `.config`.
    original: Config,
    /// The same with the changes of the trail.
    config: Config,
    /// The wanted symbol, and its highest value.
    ceiling: Option<(&'a str, u8)>,
    trail: Vec<Step>,
    /// Symbols that are being raised (`true`) or lowered.
    open: Vec<(&'a str, bool)>,
    missing: BTreeSet<String>,
    steps: usize,
    /// Steps left for all symbols.
    left: usize,
    /// Whether a branch was skipped, so that a failure proves nothing.
    is_incomplete: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(model: &'a Model, config: &Config) -> Search<'a> {
        let mut dependents: HashMap<&'a str, Vec<&'a str>> = HashMap::new();
        // Sorted, so that the result is always the same.
        let symbols: BTreeMap<&String, &Symbol> = model.symbols.iter().collect();
        for (name, symbol) in symbols {
            let depends = symbol.definitions.iter().filter(|one| !one.defaults.is_empty()).flat_map(|one| {
                let conditions = one.defaults.iter().flat_map(|(value, condition)| {
                    [value].into_iter().chain(condition.as_ref().map(AsRef::as_ref))
                });
                one.depends.iter().map(AsRef::as_ref).chain(conditions)
            });
            let mut add = |term: &'a Term| {
                if let Some(on) = term.symbol() {
                    dependents.entry(on).or_default().push(name);
                }
            };
            depends.for_each(|expr| expr.each_term(&mut add));
        }
        Search {
            model,
            dependents,
            original: config.clone(),
            config: config.clone(),
            ceiling: None,
            trail: Vec::new(),
            open: Vec::new(),
            missing: BTreeSet::new(),
            steps: 0,
            left: MAX_ALL_STEPS,
            is_incomplete: false,
        }
    }

    /// Finds the settings that give `name` the value `wanted`.
    pub(super) fn solve(&mut self, name: &'a str, wanted: &str) -> Solution {
        let Some(symbol) = self.model.defined(name) else { return Solution::Impossible(BTreeSet::new()) };
        (self.steps, self.missing, self.is_incomplete) = (0, BTreeSet::new(), false);
        let wanted_level = level(wanted).filter(|_| symbol.is_logical());
        self.ceiling = wanted_level.filter(|level| *level > self.level(name)).map(|level| (name, level));
        let (mut reached, mut holds) = (false, false);
        for _ in 0..MAX_ROUNDS {
            reached = match wanted_level {
                Some(wanted) => self.reach(name, symbol, wanted) && self.level(name) == wanted,
                None => {
                    // The search does not look for the conditions of a default.
                    self.is_incomplete |= !symbol.has_prompt() && self.may_default_to(symbol, wanted, 0);
                    self.any_prompt(symbol)
                }
            };
            if !reached {
                break;
            }
            let defaults = self.apply_defaults();
            holds = self.trail_holds() && wanted_level.is_none_or(|wanted| self.level(name) == wanted);
            if holds {
                break;
            }
            // A default was in the way. The next round knows it, and turns it off.
            self.undo(0);
            for (symbol, value) in defaults {
                self.record(&symbol, &value, false);
            }
        }
        let bounds =
            number(wanted).filter(|_| reached).and_then(|wanted| symbol.bounds_without(wanted, &self.config));
        let given = self.trail.iter().filter(|step| step.is_given && step.symbol != name);
        let symbols: BTreeSet<&str> = given.map(|step| step.symbol.as_str()).collect();
        let setting =
            |symbol: &str| Setting { symbol: symbol.to_owned(), value: self.config.value(symbol).to_owned() };
        let settings: Vec<Setting> = symbols.into_iter().map(setting).collect();
        self.undo(0);
        self.left = self.left.saturating_sub(self.steps);
        if let Some((low, high)) = bounds {
            Solution::OutOfRange(low, high)
        } else if holds {
            Solution::Settings(self.without_defaults(settings))
        } else if reached || self.is_incomplete {
            Solution::Unknown
        } else {
            Solution::Impossible(std::mem::take(&mut self.missing))
        }
    }

    fn reach(&mut self, name: &'a str, symbol: &Symbol, wanted: u8) -> bool {
        let current = self.level(name);
        match wanted {
            MODULE if symbol.kind != Some(Type::Tristate) => false,
            MODULE if current > MODULE => self.raise("MODULES", YES) && self.lower(name, MODULE),
            MODULE => self.raise("MODULES", YES) && self.raise(name, MODULE),
            _ if wanted > current => self.raise(name, wanted),
            _ => self.lower(name, wanted),
        }
    }

    /// Returns whether all settings of the trail can still be set. A later step may undo what an earlier one needs.
    fn trail_holds(&self) -> bool {
        self.trail.iter().filter(|step| step.is_given).all(|step| {
            let Some(symbol) = self.model.defined(&step.symbol) else { return false };
            let value = self.level(&step.symbol);
            let needed = if symbol.kind == Some(Type::Tristate) { value.max(MODULE) } else { MODULE };
            value == NO
                || prompts(symbol)
                    .any(|one| self.prompt(one).all(|part| part.value(&self.config).most >= needed))
        })
    }

    fn level(&self, name: &str) -> u8 {
        level(self.config.value(name)).unwrap_or(NO)
    }

    fn prompt(&self, definition: &'a Definition) -> impl Iterator<Item = &'a Expr> + use<'a> {
        let choice = definition.choice.and_then(|choice| self.model.choices[choice].prompt.as_ref());
        let conditions = definition.depends.iter().chain(definition.prompt.iter().flatten());
        conditions.chain(choice.into_iter().flatten()).map(AsRef::as_ref)
    }

    /// Makes one of the prompts of the symbol visible.
    fn any_prompt(&mut self, symbol: &'a Symbol) -> bool {
        let goals: Vec<Goal<'a>> = prompts(symbol).map(|one| Goal::Prompt(one, MODULE)).collect();
        self.any(&goals)
    }

    fn all(&mut self, goals: &[Goal<'a>]) -> bool {
        goals.iter().all(|goal| self.reach_goal(*goal))
    }

    /// Reaches the goal that needs the fewest settings.
    fn any(&mut self, goals: &[Goal<'a>]) -> bool {
        let mark = self.trail.len();
        self.is_incomplete |= goals.len() > MAX_ALTERNATIVES;
        let mut best: Option<Vec<Change>> = None;
        for goal in goals.iter().take(MAX_ALTERNATIVES) {
            let is_below = |search: &Self| {
                search.ceiling.is_none_or(|(name, most)| {
                    search.open.len() > 1 || search.level(name) <= most || search.trail.is_empty()
                })
            };
            let is_reached = self.reach_goal(*goal);
            let is_good = is_reached && is_below(self) && self.trail_holds();
            self.is_incomplete |= is_reached && !is_good;
            if is_good {
                let made: Vec<Change> = self.trail[mark..].iter().map(|step| self.change(step)).collect();
                if best.as_ref().is_none_or(|best| cost(&made) < cost(best)) {
                    best = Some(made);
                }
            }
            self.undo(mark);
            if best.as_ref().is_some_and(|best| cost(best) <= 1) {
                break;
            }
        }
        let Some(made) = best else { return false };
        for change in made {
            self.record(&change.symbol, &change.value, change.is_given);
        }
        true
    }

    fn change(&self, step: &Step) -> Change {
        let value = self.config.value(&step.symbol).to_owned();
        Change { symbol: step.symbol.clone(), value, is_given: step.is_given }
    }

    fn reach_goal(&mut self, goal: Goal<'a>) -> bool {
        self.steps += 1;
        if self.steps >= MAX_STEPS.min(self.left) || self.open.len() > MAX_DEPTH {
            self.is_incomplete = true;
            return false;
        }
        match goal {
            Goal::Expr { expr, level, negated } => self.expr(expr, level, negated),
            Goal::Raise(name, level) => self.raise(name, level),
            Goal::Lower(name, level) => self.lower(name, level),
            Goal::Prompt(definition, level) => {
                let goals: Vec<Goal<'a>> =
                    self.prompt(definition).map(|expr| Goal::met(expr, level)).collect();
                self.all(&goals)
            }
            Goal::PromptAndSet(name, definition, level) => self.prompt_and_set(name, definition, level),
            Goal::Select(selector, level) => {
                self.raise(&selector.by, level) && self.condition(selector.condition.as_ref(), level)
            }
            Goal::Unselect(selector, level) => {
                let by = Goal::Lower(&selector.by, level);
                let condition = selector.condition.as_ref().map(|expr| Goal::unmet(expr, YES - level));
                let goals: Vec<Goal<'a>> = [by].into_iter().chain(condition).collect();
                self.any(&goals)
            }
            Goal::Default(name, definition, index, level) => self.default(name, definition, index, level),
            Goal::Define(definition, level) => {
                let goals: Vec<Goal<'a>> =
                    definition.depends.iter().map(|expr| Goal::met(expr, level)).collect();
                self.all(&goals)
            }
            Goal::Undefine(definition) => {
                let goals: Vec<Goal<'a>> =
                    definition.depends.iter().map(|expr| Goal::unmet(expr, YES)).collect();
                self.any(&goals)
            }
        }
    }

    fn strength(&self, selector: &Selector) -> u8 {
        let condition = selector.condition.as_ref().map_or(YES, |one| one.value(&self.config).most);
        self.level(&selector.by).min(condition)
    }

    fn is_set(&self, name: &str) -> bool {
        self.trail.iter().any(|step| step.is_given && step.symbol == name)
    }

    /// Sets the symbol as a user would. Fails if an earlier step needs another value.
    fn set(&mut self, name: &'a str, value: &str) -> bool {
        if self.is_set(name)
            && self.config.value(name) != value
            && level(self.config.value(name)) >= level(value)
        {
            return false;
        }
        self.record(name, value, true);
        self.select_targets(name)
    }

    fn derive(&mut self, name: &'a str, value: u8) -> bool {
        self.record(name, text(value), false);
        self.select_targets(name)
    }

    /// Raises the symbols that the symbol selects.
    fn select_targets(&mut self, name: &'a str) -> bool {
        let Some(symbol) = self.model.defined(name) else { return true };
        for (target, condition) in &symbol.selects {
            let condition = condition.as_ref().map_or(YES, |one| one.value(&self.config).least);
            let strength = self.level(name).min(condition);
            let Some(selected) = self.model.defined(target) else { continue };
            if strength <= self.level(target) {
                continue;
            }
            if self.is_set(target) && self.level(target) == NO || self.open.contains(&(target, false)) {
                self.is_incomplete = true;
                return false;
            }
            let value = if selected.kind == Some(Type::Tristate) { strength } else { YES };
            if !self.derive(target, value) {
                return false;
            }
        }
        true
    }

    fn record(&mut self, symbol: &str, value: &str, is_given: bool) {
        let before = self.config.symbols.insert(symbol.to_owned(), value.to_owned());
        self.trail.push(Step { symbol: symbol.to_owned(), before, is_given });
    }

    fn undo(&mut self, mark: usize) {
        for Step { symbol, before, .. } in self.trail.drain(mark..).rev() {
            match before {
                Some(value) => self.config.symbols.insert(symbol, value),
                None => self.config.symbols.remove(&symbol),
            };
        }
    }
}

/// Returns the number of settings that a user must make.
fn cost(changes: &[Change]) -> usize {
    changes.iter().filter(|change| change.is_given).count()
}

fn text(level: u8) -> &'static str {
    ["n", "m", "y"][usize::from(level)]
}

fn prompts(symbol: &Symbol) -> impl Iterator<Item = &Definition> {
    symbol.definitions.iter().filter(|definition| definition.prompt.is_some())
}

/// Returns the value of a tristate, or `None` if `value` is another kind of value.
pub(super) fn level(value: &str) -> Option<u8> {
    match value {
        "y" => Some(YES),
        "m" => Some(MODULE),
        "n" => Some(NO),
        _ => None,
    }
}
