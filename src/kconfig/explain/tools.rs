//! Finds the symbols that Kconfig computes from the compiler and other tools, by their definitions.

use super::expression::{Expr, Term};
use super::model::{Definition, Model, Symbol};
use std::collections::HashSet;

/// Bounds chains of symbols that are computed from each other.
const MAX_CHAIN: usize = 16;

/// Returns the symbols, such as `GCC_VERSION` and `CC_HAS_…`, that cannot be set and come from a macro or
/// only from other such symbols.
pub(super) fn tool_dependent_symbols(model: &Model) -> HashSet<&str> {
    let candidates: Vec<(&str, &Symbol)> = model
        .symbols
        .iter()
        .filter(|(_, symbol)| !symbol.has_prompt() && symbol.selected_by.is_empty())
        .map(|(name, symbol)| (name.as_str(), symbol))
        .collect();
    let mut found = HashSet::new();
    for _ in 0..MAX_CHAIN {
        let before = found.len();
        for (name, symbol) in &candidates {
            if !found.contains(name) && depends_on_tools(symbol, &found) {
                found.insert(*name);
            }
        }
        if found.len() == before {
            break;
        }
    }
    found
}

fn depends_on_tools(symbol: &Symbol, found: &HashSet<&str>) -> bool {
    let (mut macros, mut known, mut others) = (false, false, false);
    let mut visit = |term: &Term| match (term, term.symbol()) {
        (Term::Macro(_), _) => macros = true,
        (_, Some(symbol)) if found.contains(symbol) => known = true,
        (_, Some(_)) => others = true,
        (_, None) => {}
    };
    symbol.definitions.iter().flat_map(parts).for_each(|part| part.each_term(&mut visit));
    macros || known && !others
}

/// Returns the expressions that give a symbol without a prompt its value.
fn parts(definition: &Definition) -> impl Iterator<Item = &Expr> {
    let depends = definition.depends.iter().map(AsRef::as_ref);
    let defaults = definition.defaults.iter();
    depends.chain(
        defaults
            .flat_map(|(value, condition)| [value].into_iter().chain(condition.as_ref().map(AsRef::as_ref))),
    )
}

#[cfg(test)]
mod tests {
    use super::super::statement::statements;
    use super::*;

    #[test]
    fn tool_symbols_are_known_by_how_they_are_made() {
        let text = "config CC_VERSION_TEXT\n\tstring\n\tdefault \"$(CC_VERSION_TEXT)\"\n\
                    config CC_IS_GCC\n\tdef_bool $(success,test 1)\n\
                    config GCC_VERSION\n\tint\n\tdefault $(cc-version) if CC_IS_GCC\n\tdefault 0\n\
                    config CC_HAS_X\n\tdef_bool !CC_IS_GCC || GCC_VERSION >= 80300\n\
                    config SALT\n\tstring \"Salt\"\n\tdefault \"$(shell,date)\"\n\
                    config ASKED\n\tbool \"a\"\n\tdepends on $(cc-option,-m)\n\
                    config MIXED\n\tdef_bool CC_HAS_X && ASKED\n\
                    config PLAIN\n\tdef_bool y\n";
        let model = Model::new(statements(&"Kconfig".into(), text));
        let mut found: Vec<&str> = tool_dependent_symbols(&model).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, ["CC_HAS_X", "CC_IS_GCC", "CC_VERSION_TEXT", "GCC_VERSION"]);
    }
}
