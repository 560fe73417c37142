//! Parses the expressions of Kconfig, evaluates them with a final `.config`, and formats them.
//!
//! Shell macros such as `$(cc-option,…)` are never run. Their value is unknown, so an
//! expression has a least and a greatest value. If the macro is the value of a symbol, the
//! final `.config` shows what Kconfig computed.

use crate::kconfig::Config;
use std::cmp::Ordering;
use std::fmt;

/// Bounds the recursion. No kernel nests parentheses and negations deeper.
const MAX_DEPTH: usize = 64;

/// The values of a tristate, in the order n, m, y.
pub(super) const NO: u8 = 0;
/// Module.
pub(super) const MODULE: u8 = 1;
/// Built in.
pub(super) const YES: u8 = 2;

/// A token of a Kconfig line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, a constant, a quoted text or a macro.
    Term(Term),
    /// `&&`, `||`, `!`, `=`, `!=`, `<`, `<=`, `>`, `>=`, `(` or `)`.
    Sign(&'static str),
}

/// An operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// A symbol, a number or one of the constants `y`, `m` and `n`.
    Name(String),
    /// A quoted text.
    Text(String),
    /// A text with `$` in it, as written. Its value is unknown.
    Macro(String),
}

/// An expression of `depends on`, `if`, `default` and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    Term(Term),
    Compare(Term, Relation, Term),
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The least and the greatest value of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) least: u8,
    pub(super) most: u8,
}

/// Splits `text` into tokens, up to a comment. Bytes that start no token are skipped.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let size = match first {
            '#' => break,
            '"' | '\'' => {
                let (term, size) = quoted(rest, first);
                tokens.push(Token::Term(term));
                size
            }
            _ if is_word(first) || first == '$' => {
                let size = word_size(rest);
                let word = rest[..size].to_owned();
                let term = if word.contains('$') { Term::Macro(word) } else { Term::Name(word) };
                tokens.push(Token::Term(term));
                size
            }
            _ => match sign(rest) {
                Some(sign) => {
                    tokens.push(Token::Sign(sign));
                    sign.len()
                }
                None => first.len_utf8(),
            },
        };
        rest = rest[size..].trim_start();
    }
    tokens
}

fn sign(text: &str) -> Option<&'static str> {
    let signs = ["&&", "||", "!=", "<=", ">=", "!", "=", "<", ">", "(", ")"];
    signs.into_iter().find(|sign| text.starts_with(sign))
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_-./".contains(character)
}

/// Returns the size of the word at the start. A macro in it ends at its closing parenthesis.
fn word_size(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '(' if depth > 0 || before == '$' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 || character == '$' || is_word(character) => {}
            _ => return at,
        }
        before = character;
    }
    text.len()
}

/// Returns the quoted text at the start of `text`, and its size with the quotes.
fn quoted(text: &str, quote: char) -> (Term, usize) {
    let mut inner = String::new();
    let mut escaped = false;
    let mut size = text.len();
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => {
                inner.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            _ if character == quote => {
                size = at + 1;
                break;
            }
            _ => inner.push(character),
        }
    }
    (if inner.contains('$') { Term::Macro(inner) } else { Term::Text(inner) }, size)
}

impl Expr {
    /// Parses `tokens`. An expression that cannot be parsed has an unknown value, like a macro.
    pub(super) fn read(tokens: &[Token]) -> Expr {
        let mut rest = tokens;
        match any(&mut rest, 0) {
            Some(expr) if rest.is_empty() => expr,
            _ => Expr::Term(Term::Macro("…".into())),
        }
    }

    /// Evaluates the expression with the values of `config`.
    pub(super) fn value(&self, config: &Config) -> Span {
        match self {
            Expr::Term(term) => term.value(config),
            Expr::Compare(left, relation, right) => {
                relation.holds(left, right, config).map_or(Span { least: NO, most: YES }, |holds| {
                    let value = if holds { YES } else { NO };
                    Span { least: value, most: value }
                })
            }
            Expr::Not(inner) => {
                let Span { least, most } = inner.value(config);
                Span { least: YES - most, most: YES - least }
            }
            Expr::All(parts) => fold(parts, config, YES, u8::min),
            Expr::Any(parts) => fold(parts, config, NO, u8::max),
        }
    }

    /// Calls `visit` with every term.
    pub(super) fn each_term<'a>(&'a self, visit: &mut dyn FnMut(&'a Term)) {
        match self {
            Expr::Term(term) => visit(term),
            Expr::Compare(left, _, right) => [left, right].into_iter().for_each(visit),
            Expr::Not(inner) => inner.each_term(visit),
            Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| part.each_term(visit)),
        }
    }
}

fn fold(parts: &[Expr], config: &Config, start: u8, with: fn(u8, u8) -> u8) -> Span {
    parts.iter().map(|part| part.value(config)).fold(Span { least: start, most: start }, |a, b| Span {
        least: with(a.least, b.least),
        most: with(a.most, b.most),
    })
}

fn any(rest: &mut &[Token], depth: usize) -> Option<Expr> {
    let mut parts = vec![all(rest, depth)?];
    while take(rest, "||") {
        parts.push(all(rest, depth)?);
    }
    Some(if parts.len() == 1 { parts.remove(0) } else { Expr::Any(parts) })
}

fn all(rest: &mut &[Token], depth: usize) -> Option<Expr> {
    let mut parts = vec![one(rest, depth)?];
    while take(rest, "&&") {
        parts.push(one(rest, depth)?);
    }
    Some(if parts.len() == 1 { parts.remove(0) } else { Expr::All(parts) })
}

fn one(rest: &mut &[Token], depth: usize) -> Option<Expr> {
    if depth > MAX_DEPTH {
        return None;
    }
    if take(rest, "!") {
        return Some(Expr::Not(Box::new(one(rest, depth + 1)?)));
    }
    if take(rest, "(") {
        let inner = any(rest, depth + 1)?;
        return take(rest, ")").then_some(inner);
    }
    let left = term(rest)?;
    let relation = [
        ("=", Relation::Equal),
        ("!=", Relation::Unequal),
        ("<", Relation::Less),
        ("<=", Relation::LessOrEqual),
        (">", Relation::Greater),
        (">=", Relation::GreaterOrEqual),
    ];
    match relation.into_iter().find(|(sign, _)| take(rest, sign)) {
        Some((_, relation)) => Some(Expr::Compare(left, relation, term(rest)?)),
        None => Some(Expr::Term(left)),
    }
}

fn take(rest: &mut &[Token], sign: &str) -> bool {
    match rest.split_first() {
        Some((Token::Sign(first), after)) if *first == sign => {
            *rest = after;
            true
        }
        _ => false,
    }
}

fn term(rest: &mut &[Token]) -> Option<Term> {
    let (first, after) = rest.split_first()?;
    let Token::Term(term) = first else { return None };
    *rest = after;
    Some(term.clone())
}

impl Term {
    /// Returns the name of the symbol, or `None` for a constant.
    pub(super) fn symbol(&self) -> Option<&str> {
        match self {
            Term::Name(name) if !is_constant(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the text that Kconfig compares, or `None` if it is unknown.
    pub(super) fn text<'a>(&'a self, config: &'a Config) -> Option<&'a str> {
        match self {
            Term::Name(name) if is_constant(name) => Some(name),
            Term::Name(name) => {
                let value = config.value(name);
                Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
            }
            Term::Text(text) => Some(text),
            Term::Macro(_) => None,
        }
    }

    fn value(&self, config: &Config) -> Span {
        let exactly = |value| Span { least: value, most: value };
        match (self, self.text(config)) {
            (_, None) => Span { least: NO, most: YES },
            (_, Some("y")) => exactly(YES),
            // In Kconfig, the constant `m` means `m && MODULES`.
            (Term::Name(name), Some("m")) if name == "m" && !config.enabled("MODULES") => exactly(NO),
            (_, Some("m")) => exactly(MODULE),
            (_, Some(_)) => exactly(NO),
        }
    }
}

/// Some symbols start with a digit, such as `64BIT`.
fn is_constant(name: &str) -> bool {
    matches!(name, "y" | "m" | "n") || number(name).is_some()
}

impl Relation {
    /// Returns the opposite relation.
    pub(super) fn opposite(self) -> Relation {
        match self {
            Relation::Equal => Relation::Unequal,
            Relation::Unequal => Relation::Equal,
            Relation::Less => Relation::GreaterOrEqual,
            Relation::LessOrEqual => Relation::Greater,
            Relation::Greater => Relation::LessOrEqual,
            Relation::GreaterOrEqual => Relation::Less,
        }
    }

    /// Compares as numbers if both are numbers, else as texts.
    fn holds(self, left: &Term, right: &Term, config: &Config) -> Option<bool> {
        // A symbol that is missing from `.config` is n, or empty if it is a string.
        let plain = |text: &'_ str| if text == "n" { String::new() } else { text.to_owned() };
        let (left, right) = (plain(left.text(config)?), plain(right.text(config)?));
        let order = match (number(&left), number(&right)) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => left.cmp(&right),
        };
        Some(match self {
            Relation::Equal => order == Ordering::Equal,
            Relation::Unequal => order != Ordering::Equal,
            Relation::Less => order == Ordering::Less,
            Relation::LessOrEqual => order != Ordering::Greater,
            Relation::Greater => order == Ordering::Greater,
            Relation::GreaterOrEqual => order != Ordering::Less,
        })
    }
}

/// Parses a decimal number, or a hexadecimal number with `0x`.
pub(super) fn number(text: &str) -> Option<i128> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => i128::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Relation::Equal => "=",
            Relation::Unequal => "!=",
            Relation::Less => "<",
            Relation::LessOrEqual => "<=",
            Relation::Greater => ">",
            Relation::GreaterOrEqual => ">=",
        })
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Name(name) => f.write_str(name),
            Term::Text(text) => write!(f, "\"{text}\""),
            Term::Macro(text) => match text.char_indices().nth(60) {
                Some((at, _)) => write!(f, "{}…", &text[..at]),
                None => f.write_str(text),
            },
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, sign) = match self {
            Expr::Term(term) => return write!(f, "{term}"),
            Expr::Compare(left, relation, right) => return write!(f, "{left}{relation}{right}"),
            Expr::Not(inner) => {
                return match **inner {
                    Expr::Term(_) => write!(f, "!{inner}"),
                    _ => write!(f, "!({inner})"),
                };
            }
            Expr::All(parts) => (parts, " && "),
            Expr::Any(parts) => (parts, " || "),
        };
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                f.write_str(sign)?;
            }
            match part {
                Expr::All(_) | Expr::Any(_) => write!(f, "({part})")?,
                _ => write!(f, "{part}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
