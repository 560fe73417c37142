//! Meets a condition or its negation.

use super::{Goal, Search, level};
use crate::kconfig::explain::expression::{Expr, MODULE, NO, Relation, Term, YES, number};
use crate::kconfig::explain::model::Condition;
use crate::kconfig::explain::statement::Type;

impl<'a> Search<'a> {
    pub(super) fn condition(&mut self, condition: Option<&'a Condition>, level: u8) -> bool {
        condition.is_none_or(|expr| self.expr(expr, level, false))
    }

    pub(super) fn expr(&mut self, expr: &'a Expr, level: u8, negated: bool) -> bool {
        let value = expr.value(&self.config);
        // Count an unknown macro as met.
        if (if negated { YES - value.least } else { value.most }) >= level {
            return true;
        }
        let parts = |parts: &'a [Expr]| -> Vec<Goal<'a>> {
            parts.iter().map(|expr| Goal::Expr { expr, level, negated }).collect()
        };
        match (expr, negated) {
            (Expr::Not(inner), _) => self.expr(inner, level, !negated),
            (Expr::All(list), false) | (Expr::Any(list), true) => self.all(&parts(list)),
            (Expr::Any(list), false) | (Expr::All(list), true) => self.any(&parts(list)),
            (Expr::Term(Term::Name(name)), false) => self.raise(name, level),
            (Expr::Term(Term::Name(name)), true) => self.lower(name, YES - level),
            (Expr::Term(_), _) => false,
            (Expr::Compare(left, relation, right), _) => {
                let relation = if negated { relation.opposite() } else { *relation };
                self.compare(left, relation, right)
            }
        }
    }

    fn compare(&mut self, left: &'a Term, relation: Relation, right: &'a Term) -> bool {
        let (name, constant) = match (left.symbol(), right.symbol()) {
            (Some(name), None) => (name, right.text(&self.config).unwrap_or_default().to_owned()),
            (None, Some(name)) => (name, left.text(&self.config).unwrap_or_default().to_owned()),
            // Nothing changes constants.
            (None, None) => return false,
            (Some(_), Some(_)) => {
                self.is_incomplete = true;
                return false;
            }
        };
        let Some(symbol) = self.model.defined(name) else {
            self.missing.insert(name.to_owned());
            return false;
        };
        if symbol.is_logical() {
            let value = level(&constant).unwrap_or(NO);
            return match relation {
                Relation::Equal if value > self.level(name) => self.reach(name, symbol, value),
                Relation::Equal => self.lower(name, value),
                Relation::Unequal if value == NO => self.raise(name, MODULE),
                Relation::Unequal => self.lower(name, value - 1),
                _ => false,
            };
        }
        let value = match (relation, number(&constant)) {
            (Relation::Equal | Relation::LessOrEqual | Relation::GreaterOrEqual, _) => constant,
            (Relation::Less, Some(bound)) => (bound - 1).to_string(),
            (Relation::Greater, Some(bound)) => (bound + 1).to_string(),
            _ => return false,
        };
        let value = if symbol.kind == Some(Type::String) { format!("\"{value}\"") } else { value };
        self.any_prompt(symbol) && self.set(name, &value)
    }
}
