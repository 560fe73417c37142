//! Finds the parts of a condition that are not met. Returns as few as possible.

use super::expression::{Expr, MODULE, Relation, Span, Term, YES};
use crate::kconfig::Config;
use std::fmt;

/// The number of parts of a list that the text shows.
const MAX_SHOWN: usize = 4;
/// Bounds the parts of a list. A hostile tree may have a million.
const MAX_PARTS: usize = 64;

/// The unmet parts of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unmet {
    /// A term with the value of its symbol.
    Term { text: String, symbol: Option<String> },
    /// All of these must change.
    All(Vec<Unmet>),
    /// One of these must change.
    Any(Vec<Unmet>),
}

/// How to treat macros, whose values are unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// A part is unmet if no value of its macros meets it.
    Certain,
    /// A part is unmet if a value of its macros may leave it unmet.
    Possible,
}

impl Unmet {
    /// Returns what keeps `conditions` below `level`, or `None` if they reach it.
    pub(super) fn of<'a>(
        conditions: impl IntoIterator<Item = &'a Expr>,
        level: u8,
        config: &Config,
        certainty: Certainty,
    ) -> Option<Unmet> {
        let query = Query { level, config, certainty };
        all(conditions.into_iter().filter_map(|condition| query.walk(condition, false)).collect())
    }

    /// Joins alternatives. Returns `None` if there is none.
    pub(super) fn any(list: Vec<Unmet>) -> Option<Unmet> {
        any(list)
    }

    /// Returns the symbols, in their order.
    pub(super) fn symbols(&self) -> Vec<&str> {
        match self {
            Unmet::Term { symbol, .. } => symbol.as_deref().into_iter().collect(),
            Unmet::All(parts) | Unmet::Any(parts) => parts.iter().flat_map(Unmet::symbols).collect(),
        }
    }
}

#[derive(Clone, Copy)]
struct Query<'a> {
    level: u8,
    config: &'a Config,
    certainty: Certainty,
}

impl Query<'_> {
    fn fails(self, Span { least, most }: Span) -> bool {
        match self.certainty {
            Certainty::Certain => most < self.level,
            Certainty::Possible => least < self.level,
        }
    }

    /// Collects the unmet terms. A negation moves down to the terms, by De Morgan.
    fn walk(self, expr: &Expr, negated: bool) -> Option<Unmet> {
        match (expr, negated) {
            (Expr::Not(inner), _) => self.walk(inner, !negated),
            (Expr::All(parts), false) | (Expr::Any(parts), true) => {
                all(parts.iter().filter_map(|part| self.walk(part, negated)).collect())
            }
            (Expr::Any(parts), false) | (Expr::All(parts), true) => {
                let unmet = parts.iter().map(|part| Some((part, self.walk(part, negated)?)));
                let unmet = unmet.collect::<Option<Vec<_>>>()?;
                any(unmet
                    .into_iter()
                    .filter(|(part, _)| !is_escape(part, parts))
                    .map(|(_, unmet)| unmet)
                    .collect())
            }
            (Expr::Term(term), _) => {
                let Span { least, most } = expr.value(self.config);
                let value = if negated {
                    Span { least: YES - most, most: YES - least }
                } else {
                    expr.value(self.config)
                };
                self.fails(value).then(|| self.term(term, negated))
            }
            (Expr::Compare(left, relation, right), _) => {
                let relation = if negated { relation.opposite() } else { *relation };
                let expr = Expr::Compare(left.clone(), relation, right.clone());
                self.fails(expr.value(self.config)).then(|| self.compared(left, relation, right))
            }
        }
    }

    fn term(self, term: &Term, negated: bool) -> Unmet {
        let is_m = matches!(term, Term::Name(name) if name == "m");
        if is_m && !negated && self.level <= MODULE {
            return Unmet::Term { text: "MODULES (n)".to_owned(), symbol: Some("MODULES".to_owned()) };
        }
        let not = if negated { "!" } else { "" };
        let text = match term.symbol() {
            Some(symbol) => format!("{not}{term} ({})", self.config.value(symbol)),
            None => format!("{not}{term}"),
        };
        Unmet::Term { text, symbol: term.symbol().map(str::to_owned) }
    }

    fn compared(self, left: &Term, relation: Relation, right: &Term) -> Unmet {
        let symbols: Vec<&str> = [left, right].into_iter().filter_map(Term::symbol).collect();
        let values: Vec<&str> = symbols.iter().map(|symbol| self.config.value(symbol)).collect();
        let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
        Unmet::Term {
            text: format!("{left}{relation}{right}{values}"),
            symbol: symbols.first().map(|&symbol| symbol.to_owned()),
        }
    }
}

/// Returns whether `part` is the `!A` of `A || !A`, or the `A=n` of `A || A=n`. Such a condition limits a
/// symbol to the value of A.
fn is_escape(part: &Expr, parts: &[Expr]) -> bool {
    let of = match part {
        Expr::Not(inner) => &**inner,
        Expr::Compare(left, Relation::Equal, Term::Name(value)) if value == "n" => &Expr::Term(left.clone()),
        _ => return false,
    };
    parts.contains(of)
}

/// Joins lists of the same kind into one, without duplicates.
fn all(parts: Vec<Unmet>) -> Option<Unmet> {
    let mut flat: Vec<Unmet> = Vec::new();
    for part in parts {
        let parts = if let Unmet::All(inner) = part { inner } else { vec![part] };
        for part in parts {
            if flat.len() < MAX_PARTS && !flat.contains(&part) {
                flat.push(part);
            }
        }
    }
    // If A must change anyway, `A || B` adds nothing.
    let single = flat.clone();
    flat.retain(|part| !matches!(part, Unmet::Any(some) if some.iter().any(|one| single.contains(one))));
    one_or(flat, Unmet::All)
}

fn any(parts: Vec<Unmet>) -> Option<Unmet> {
    let mut flat: Vec<Unmet> = Vec::new();
    for part in parts {
        let parts = if let Unmet::Any(inner) = part { inner } else { vec![part] };
        for part in parts {
            if flat.len() < MAX_PARTS && !flat.contains(&part) {
                flat.push(part);
            }
        }
    }
    one_or(flat, Unmet::Any)
}

fn one_or(mut parts: Vec<Unmet>, list: fn(Vec<Unmet>) -> Unmet) -> Option<Unmet> {
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(list(parts)),
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, sign) = match self {
            Unmet::Term { text, .. } => return f.write_str(text),
            Unmet::All(parts) => (parts, " && "),
            Unmet::Any(parts) => (parts, " || "),
        };
        // `{:#}` writes all parts.
        let shown = if f.alternate() { parts.len() } else { MAX_SHOWN };
        for (index, part) in parts.iter().take(shown).enumerate() {
            if index > 0 {
                f.write_str(sign)?;
            }
            match part {
                Unmet::Term { text, .. } => f.write_str(text)?,
                list if f.alternate() => write!(f, "({list:#})")?,
                list => write!(f, "({list})")?,
            }
        }
        match parts.len().saturating_sub(shown) {
            0 => Ok(()),
            more => write!(f, "{sign}… {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::expression::tokens;
    use super::*;

    fn unmet(text: &str, level: u8, certainty: Certainty) -> Option<String> {
        let config = Config::parse(
            "CONFIG_MODULES=y\nCONFIG_Y=y\nCONFIG_M=m\nCONFIG_V=30000\nCONFIG_S=\"a\"\nCONFIG_Y2=y\n",
        );
        Unmet::of([&Expr::read(&tokens(text))], level, &config, certainty).map(|unmet| unmet.to_string())
    }

    #[test]
    fn only_what_is_false_is_named() {
        for (text, expected) in [
            ("Y && A && Y2 && B", "A (n) && B (n)"),
            ("Y && (A || B)", "A (n) || B (n)"),
            ("C && (A || B && Y)", "C (n) && (A (n) || B (n))"),
            ("A && (A || B)", "A (n)"),
            ("A && Y && A", "A (n)"),
            ("!Y", "!Y (y)"),
            ("!(Y || A)", "!Y (y)"),
            ("!(Y && Y2)", "!Y (y) || !Y2 (y)"),
            ("M=y", "M=y (m)"),
            ("V >= 40800", "V>=40800 (30000)"),
            ("!(V < 40800)", "V>=40800 (30000)"),
            ("S = \"b\"", "S=\"b\" (\"a\")"),
            ("n", "n"),
            ("V = 1 || V = 2", "V=1 (30000) || V=2 (30000)"),
            ("A && (M=y || M=A)", "A (n) && (M=y (m) || M=A (m, n))"),
            ("A || B || C || D || E || F", "A (n) || B (n) || C (n) || D (n) || … 2 more"),
        ] {
            assert_eq!(unmet(text, MODULE, Certainty::Certain).as_deref(), Some(expected), "{text}");
        }
        for text in ["Y", "M", "A || M", "!A", "$(cc-option,-m)", "A || $(cc-option,-m)"] {
            assert_eq!(unmet(text, MODULE, Certainty::Certain), None, "{text}");
        }
    }

    #[test]
    fn what_limits_to_m_is_named() {
        assert_eq!(unmet("Y && M", YES, Certainty::Certain).as_deref(), Some("M (m)"));
        assert_eq!(unmet("M || !M", YES, Certainty::Certain).as_deref(), Some("M (m)"));
        assert_eq!(unmet("M || M=n", YES, Certainty::Certain).as_deref(), Some("M (m)"));
        assert_eq!(unmet("m && Y", YES, Certainty::Certain).as_deref(), Some("m"));
    }

    #[test]
    fn a_macro_is_named_where_nothing_else_explains() {
        let text = "Y && $(cc-option,-mretpoline)";
        assert_eq!(unmet(text, YES, Certainty::Certain), None);
        assert_eq!(unmet(text, YES, Certainty::Possible).as_deref(), Some("$(cc-option,-mretpoline)"));
    }
}
