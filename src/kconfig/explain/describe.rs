//! Describes symbols: type, conditions, selectors and ranges, with the values of a final `.config`.

use super::absent::Absences;
use super::model::{Condition, Model, Selector, Symbol};
use super::statement::Type;
use super::unmet::{Certainty, Unmet};
use super::{Kernel, read, with_zeros};
use crate::kconfig::{Config, symbol_name};
use crate::util::text::{escape_control, sanitize_line};
use serde::Serialize;

/// Description of a symbol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// Value in the final `.config`, if it is there.
    pub value: Option<String>,
    /// `bool`, `tristate`, `string`, `int` or `hex`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// One for each place that defines it.
    pub definitions: Vec<DescribedDefinition>,
    /// Symbols that select it, those that are on first.
    pub selected_by: Vec<DescribedSelector>,
    /// Symbols that imply it.
    pub implied_by: Vec<DescribedSelector>,
}

impl Description {
    /// Says in a few words why the symbol has its value: what selects it, what it lacks, or its default.
    pub fn why(&self) -> Option<String> {
        let is_on = self.value.as_deref().is_some_and(|value| value != "n");
        let selector = self.selected_by.iter().find(|one| one.value != "n").filter(|_| is_on);
        if let Some(DescribedSelector { symbol, .. }) = selector {
            return Some(format!("selected by {symbol}"));
        }
        let conditions = self.definitions.iter().flat_map(|one| one.depends.iter().chain(&one.prompt_if));
        let unmet = conditions.filter_map(|condition| condition.unmet.as_ref()).next().filter(|_| !is_on);
        if let Some(unmet) = unmet {
            return Some(format!("depends on {unmet}"));
        }
        let definition = self.definitions.iter().find(|definition| definition.prompt)?;
        let prompt = definition.prompt_text.as_deref().unwrap_or_default();
        Some(match definition.defaults.first() {
            Some(default) => format!("{prompt}; the default is {default}"),
            None => format!("{prompt}; off by default"),
        })
    }
}

/// One `config` of a symbol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DescribedDefinition {
    /// Path of the Kconfig file in the tree.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Whether a user can set it here.
    pub prompt: bool,
    /// Text of the prompt.
    pub prompt_text: Option<String>,
    /// Its conditions, each with the part that is not met.
    pub depends: Vec<DescribedCondition>,
    /// Further conditions of its prompt.
    pub prompt_if: Vec<DescribedCondition>,
    pub defaults: Vec<String>,
    pub ranges: Vec<String>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DescribedCondition {
    /// Text from the Kconfig file.
    pub condition: String,
    /// The part that is not met, with values. `None` if all is met.
    pub unmet: Option<String>,
}

/// A symbol that selects or implies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DescribedSelector {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// Value in the final `.config`.
    pub value: String,
    #[serde(rename = "if")]
    pub condition: Option<DescribedCondition>,
}

/// Describes the symbols `names` of `kernel`, whose final `.config` is `config`.
///
/// # Errors
///
/// A message if the Kconfig files cannot be read or do not define a symbol.
pub fn describe(names: &[String], config: &Config, kernel: &Kernel<'_>) -> Result<Vec<Description>, String> {
    let model = Model::new(read::read(kernel.tree, kernel.arch)?);
    let values = with_zeros(config, kernel, &model);
    let one = |name: &String| {
        let name = symbol_name(name);
        match model.defined(&name) {
            Some(symbol) => Ok(described(&name, symbol, &values, config)),
            None => {
                let reason = Absences::new(config, kernel, &model).reason(&name);
                Err(format!("{}: {}", escape_control(&name), sanitize_line(&reason.text)))
            }
        }
    };
    names.iter().map(one).collect()
}

fn described(name: &str, symbol: &Symbol, values: &Config, config: &Config) -> Description {
    let condition = |condition: &Condition| {
        let unmet = Unmet::of([condition.as_ref()], super::expression::MODULE, values, Certainty::Possible);
        DescribedCondition {
            condition: escape_control(&condition.to_string()),
            unmet: unmet.map(|unmet| escape_control(&format!("{unmet:#}"))),
        }
    };
    let with_condition = |text: String, condition: Option<&Condition>| match condition {
        Some(condition) => escape_control(&format!("{text} if {condition}")),
        None => escape_control(&text),
    };
    let selectors = |list: &[Selector]| {
        let mut list: Vec<DescribedSelector> = list
            .iter()
            .map(|one| DescribedSelector {
                symbol: one.by.clone(),
                value: values.value(&one.by).to_owned(),
                condition: one.condition.as_ref().map(condition),
            })
            .collect();
        list.sort_by_key(|one| one.value == "n");
        list
    };
    let definitions = symbol.definitions.iter().map(|one| DescribedDefinition {
        file: escape_control(&one.location.file),
        line: one.location.line,
        prompt: one.prompt.is_some(),
        prompt_text: one.prompt.as_ref().map(|_| escape_control(&one.prompt_text)),
        depends: one.depends.iter().map(condition).collect(),
        prompt_if: one.prompt.iter().flatten().map(condition).collect(),
        defaults: one
            .defaults
            .iter()
            .map(|(value, when)| with_condition(value.to_string(), when.as_ref()))
            .collect(),
        ranges: one
            .ranges
            .iter()
            .map(|(low, high, when)| with_condition(format!("{low} to {high}"), when.as_ref()))
            .collect(),
    });
    Description {
        symbol: name.to_owned(),
        value: config.symbols.get(name).cloned(),
        kind: match symbol.kind {
            Some(Type::Tristate) => "tristate",
            Some(Type::String) => "string",
            Some(Type::Int) => "int",
            Some(Type::Hex) => "hex",
            Some(Type::Bool) | None => "bool",
        },
        definitions: definitions.collect(),
        selected_by: selectors(&symbol.selected_by),
        implied_by: selectors(&symbol.implied_by),
    }
}
