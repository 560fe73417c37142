//! Collects from statements the type, definitions, conditions and selectors of each symbol. Pure.

use super::expression::{Expr, NO, Term, YES, number};
use super::statement::{Location, Statement, Type};
use crate::kconfig::Config;
use std::collections::HashMap;
use std::rc::Rc;

/// No kernel nests blocks deeper. A deeper block adds no condition.
const MAX_DEPTH: usize = 64;

/// Bounds the conditions of all blocks around a symbol. Real trees have fewer.
const MAX_CONDITIONS: usize = 256;

/// A condition, shared by all symbols of a block.
pub(super) type Condition = Rc<Expr>;

/// All symbols of a tree.
#[derive(Default)]
pub(super) struct Model {
    /// Symbols by name, without `CONFIG_`.
    pub(super) symbols: HashMap<String, Symbol>,
    pub(super) choices: Vec<Choice>,
}

/// A symbol. It has no definition if it is only selected.
#[derive(Default)]
pub(super) struct Symbol {
    pub(super) kind: Option<Type>,
    pub(super) definitions: Vec<Definition>,
    pub(super) selected_by: Vec<Selector>,
    pub(super) implied_by: Vec<Selector>,
    /// The symbols that it selects, with the conditions.
    pub(super) selects: Vec<(String, Option<Condition>)>,
    /// Whether it only passes the value of an old name to a new one, and is never in a `.config`.
    pub(super) is_transitional: bool,
}

/// One `config` of a symbol.
#[derive(Default)]
pub(super) struct Definition {
    pub(super) location: Location,
    /// Its own `depends on`, and those of the enclosing blocks.
    pub(super) depends: Vec<Condition>,
    /// Further conditions of the prompt. `None` if there is no prompt.
    pub(super) prompt: Option<Vec<Condition>>,
    pub(super) prompt_text: String,
    pub(super) defaults: Vec<(Expr, Option<Condition>)>,
    pub(super) ranges: Vec<(Term, Term, Option<Condition>)>,
    /// Index of its choice.
    pub(super) choice: Option<usize>,
    /// `visible if` of the enclosing menus.
    visible: Vec<Condition>,
}

/// A `select` or `imply`.
pub(super) struct Selector {
    pub(super) by: String,
    pub(super) condition: Option<Condition>,
}

/// A `choice`, of which at most one member is on.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) depends: Vec<Condition>,
    pub(super) prompt: Option<Vec<Condition>>,
    pub(super) members: Vec<String>,
    visible: Vec<Condition>,
}

/// An open block.
#[derive(Default)]
struct Block {
    depends: Vec<Condition>,
    visible: Vec<Condition>,
    choice: Option<usize>,
}

/// The owner of an attribute.
enum Current {
    Nothing,
    Symbol(String),
    Choice(usize),
    Menu,
}

impl Model {
    /// Builds the model from the statements of a whole tree, in their order.
    pub(super) fn new(statements: Vec<Statement>) -> Model {
        let mut model = Model::default();
        let mut blocks: Vec<Block> = Vec::new();
        let mut current = Current::Nothing;
        for statement in statements {
            current = model.add_statement(statement, current, &mut blocks);
        }
        model
    }

    /// Returns the symbol, if the tree defines it.
    pub(super) fn defined(&self, name: &str) -> Option<&Symbol> {
        self.symbols.get(name).filter(|symbol| !symbol.definitions.is_empty())
    }

    fn add_statement(&mut self, statement: Statement, current: Current, blocks: &mut Vec<Block>) -> Current {
        match statement {
            Statement::Config(name, location) => {
                let (depends, visible) = enclosing_conditions(blocks);
                let choice = blocks.iter().rev().find_map(|block| block.choice);
                if let Some(choice) = choice {
                    let members = &mut self.choices[choice].members;
                    if members.last() != Some(&name) {
                        members.push(name.clone());
                    }
                }
                let definition = Definition { location, depends, visible, choice, ..Definition::default() };
                self.symbols.entry(name.clone()).or_default().definitions.push(definition);
                return Current::Symbol(name);
            }
            Statement::Choice => {
                let (depends, visible) = enclosing_conditions(blocks);
                self.choices.push(Choice { depends, visible, ..Choice::default() });
                let choice = self.choices.len() - 1;
                blocks.push(Block { choice: Some(choice), ..Block::default() });
                return Current::Choice(choice);
            }
            Statement::Menu => {
                blocks.push(Block::default());
                return Current::Menu;
            }
            Statement::If(condition) => {
                blocks.push(Block { depends: vec![Rc::new(condition)], ..Block::default() });
                return Current::Nothing;
            }
            Statement::EndMenu | Statement::EndIf | Statement::EndChoice => {
                blocks.pop();
                return Current::Nothing;
            }
            Statement::Comment | Statement::Source(_) => return Current::Nothing,
            attribute => self.add_attribute(attribute, &current, blocks),
        }
        current
    }

    fn add_attribute(&mut self, attribute: Statement, current: &Current, blocks: &mut [Block]) {
        match current {
            Current::Nothing => {}
            Current::Menu => {
                let Some(menu) = blocks.last_mut() else { return };
                match attribute {
                    Statement::DependsOn(condition) => menu.depends.push(Rc::new(condition)),
                    Statement::VisibleIf(condition) => menu.visible.push(Rc::new(condition)),
                    _ => {}
                }
            }
            Current::Choice(index) => {
                let choice = &mut self.choices[*index];
                match attribute {
                    Statement::DependsOn(condition) => {
                        let condition = Rc::new(condition);
                        choice.depends.push(Rc::clone(&condition));
                        if let Some(block) = blocks.last_mut() {
                            block.depends.push(condition);
                        }
                    }
                    Statement::Prompt(_, condition) => {
                        choice.prompt = Some(prompt_conditions(&choice.visible, condition));
                    }
                    _ => {}
                }
            }
            Current::Symbol(name) => self.add_symbol_attribute(name, attribute),
        }
    }

    fn add_symbol_attribute(&mut self, name: &str, attribute: Statement) {
        match attribute {
            Statement::Select(target, condition) => {
                let condition = condition.map(Rc::new);
                let selector = Selector { by: name.to_owned(), condition: condition.clone() };
                self.symbols.entry(target.clone()).or_default().selected_by.push(selector);
                self.symbols.entry(name.to_owned()).or_default().selects.push((target, condition));
                return;
            }
            Statement::Imply(target, condition) => {
                let selector = Selector { by: name.to_owned(), condition: condition.map(Rc::new) };
                self.symbols.entry(target).or_default().implied_by.push(selector);
                return;
            }
            _ => {}
        }
        let Some(symbol) = self.symbols.get_mut(name) else { return };
        let Some(definition) = symbol.definitions.last_mut() else { return };
        match attribute {
            Statement::Type(kind) => symbol.kind = Some(kind),
            Statement::Transitional => symbol.is_transitional = true,
            Statement::Prompt(text, condition) => {
                definition.prompt_text = text;
                definition.prompt = Some(prompt_conditions(&definition.visible, condition));
            }
            Statement::Default(value, condition) => {
                definition.defaults.push((value, condition.map(Rc::new)));
            }
            Statement::DependsOn(condition) => definition.depends.push(Rc::new(condition)),
            Statement::Range(low, high, condition) => {
                definition.ranges.push((low, high, condition.map(Rc::new)));
            }
            _ => {}
        }
    }
}

impl Symbol {
    /// Returns the current bounds of its number, if `number` is outside.
    pub(super) fn bounds_without(&self, wanted: i128, config: &Config) -> Option<(String, String)> {
        let in_force = |definition: &Definition| {
            let holds = |condition: &Condition| condition.value(config).most > NO;
            let mut ranges = definition.ranges.iter();
            let (low, high, _) = ranges.find(|(_, _, condition)| condition.as_ref().is_none_or(holds))?;
            let is_outside = wanted < number(low.text(config)?)? || wanted > number(high.text(config)?)?;
            let describe = |term: &Term| match term.symbol() {
                Some(symbol) => format!("{term} ({})", config.value(symbol)),
                None => term.to_string(),
            };
            Some(is_outside.then(|| (describe(low), describe(high))))
        };
        self.definitions.iter().find_map(in_force).flatten()
    }

    /// Returns the value of its defaults, or `None` if it is not a bool or tristate.
    pub(super) fn default_level(&self, config: &Config) -> Option<u8> {
        if !self.is_logical() {
            return None;
        }
        let is_met = |condition: &Condition| condition.value(config).least > NO;
        let in_force = self.definitions.iter().filter(|one| one.depends.iter().all(is_met));
        let value = in_force.flat_map(|one| one.defaults.iter().map(move |default| (one, default)));
        let mut met = value.filter(|(_, (_, condition))| condition.as_ref().is_none_or(is_met));
        let (definition, (value, condition)) = met.next()?;
        let limits = definition.depends.iter().chain(condition).map(|one| one.value(config).least);
        let value = limits.fold(value.value(config).least, u8::min);
        Some(if value > NO && self.kind != Some(Type::Tristate) { YES } else { value })
    }

    /// Returns whether it is a bool or tristate.
    pub(super) fn is_logical(&self) -> bool {
        matches!(self.kind, None | Some(Type::Bool | Type::Tristate))
    }

    /// Returns whether a user can set it anywhere.
    pub(super) fn has_prompt(&self) -> bool {
        self.definitions.iter().any(|definition| definition.prompt.is_some())
    }
}

fn prompt_conditions(visible: &[Condition], condition: Option<Expr>) -> Vec<Condition> {
    visible.iter().cloned().chain(condition.map(Rc::new)).collect()
}

/// Returns the dependencies and the `visible if` of all open blocks.
fn enclosing_conditions(blocks: &[Block]) -> (Vec<Condition>, Vec<Condition>) {
    let near = || blocks.iter().take(MAX_DEPTH);
    (
        near().flat_map(|block| block.depends.iter().cloned()).take(MAX_CONDITIONS).collect(),
        near().flat_map(|block| block.visible.iter().cloned()).take(MAX_CONDITIONS).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::expression::tokens;
    use super::super::statement::statements;
    use super::*;

    fn conditions(list: &[Condition]) -> Vec<Expr> {
        list.iter().map(|condition| (**condition).clone()).collect()
    }

    fn exprs<const N: usize>(texts: [&str; N]) -> Vec<Expr> {
        texts.map(|text| Expr::read(&tokens(text))).into()
    }

    #[test]
    fn blocks_add_their_conditions() {
        let text = "menu \"m\"\ndepends on A\nvisible if V\nif B\nconfig X\n\tbool \"x\" if P\n\tdepends on C\nendif\n\
                    comment \"c\"\n\tdepends on NOT_MINE\nconfig Y\n\tbool\nendmenu\nconfig Z\n\tselect Y if X\n";
        let model = Model::new(statements(&"Kconfig".into(), text));
        let x = &model.symbols["X"].definitions[0];
        assert_eq!(conditions(&x.depends), exprs(["A", "B", "C"]));
        assert_eq!(conditions(x.prompt.as_ref().unwrap()), exprs(["V", "P"]));
        let y = &model.symbols["Y"];
        assert_eq!(conditions(&y.definitions[0].depends), exprs(["A"]));
        assert!(!y.has_prompt() && y.selected_by[0].by == "Z");
        assert!(model.symbols["Z"].definitions[0].depends.is_empty());
    }

    #[test]
    fn a_choice_knows_its_members() {
        let text = "choice\n\tprompt \"p\" if E\n\tdepends on A\nconfig X\n\tbool \"x\"\nif B\nconfig Y\n\tbool \"y\"\n\
                    endif\nendchoice\nconfig Z\n\tbool \"z\"\n";
        let model = Model::new(statements(&"Kconfig".into(), text));
        assert_eq!(model.choices[0].members, ["X", "Y"]);
        assert_eq!(conditions(&model.symbols["Y"].definitions[0].depends), exprs(["A", "B"]));
        assert_eq!(model.symbols["Z"].definitions[0].choice, None);
    }

    #[test]
    fn unmatched_blocks_are_ignored() {
        Model::new(statements(
            &"Kconfig".into(),
            "endif\nendmenu\nendchoice\ndepends on X\nif A\nmenu \"m\"\nselect Y\nconfig Z\n",
        ));
    }
}
