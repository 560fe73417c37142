//! Parses a Kconfig file line by line into statements. Pure.
//!
//! Each line is a keyword and its words, and the indentation ends a help text. Unknown lines, such as macro
//! definitions and keywords of later kernels, are skipped.

use super::expression::{Expr, Term, Token, tokens};
use std::rc::Rc;

/// A statement of a Kconfig file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// The symbol of `config` or `menuconfig`.
    Config(String, Location),
    Choice,
    EndChoice,
    Menu,
    EndMenu,
    If(Expr),
    EndIf,
    /// `comment`, which has dependencies of its own.
    Comment,
    /// `bool`, `def_tristate`, …
    Type(Type),
    /// Text and condition of `prompt`, or of the text after a type.
    Prompt(String, Option<Expr>),
    /// Value and condition of `default` or `def_…`.
    Default(Expr, Option<Expr>),
    DependsOn(Expr),
    /// `visible if` of a menu.
    VisibleIf(Expr),
    Select(String, Option<Expr>),
    Imply(String, Option<Expr>),
    Range(Term, Term, Option<Expr>),
    /// The symbol is an old name, whose value its new name takes.
    Transitional,
    /// The path, as written.
    Source(String),
}

/// A place in the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) file: Rc<str>,
    /// Counted from 1.
    pub(super) line: usize,
}

/// The type of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Tristate,
    String,
    Int,
    Hex,
}

/// Returns the statements of the text of `file`, without help texts.
pub(super) fn statements(file: &Rc<str>, text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut help: Option<Help> = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(open) = &mut help {
            if open.continues(line) {
                continue;
            }
            help = None;
        }
        let mut line = line.trim().to_owned();
        while line.ends_with('\\') {
            line.pop();
            let Some((_, more)) = lines.next() else { break };
            line.push_str(more.trim_end());
        }
        let end = line.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(line.len());
        let (keyword, rest) = line.split_at(end);
        match keyword {
            "help" | "---help---" => help = Some(Help::default()),
            "config" | "menuconfig" => {
                if let [Token::Term(Term::Name(name)), ..] = &tokens(rest)[..] {
                    let location = Location { file: Rc::clone(file), line: index + 1 };
                    statements.push(Statement::Config(name.clone(), location));
                }
            }
            _ => statement(keyword, &tokens(rest), &mut statements),
        }
    }
    statements
}

/// An open help text. It ends at a line with less indentation than its first line.
#[derive(Default)]
struct Help {
    indent: Option<usize>,
}

impl Help {
    fn continues(&mut self, line: &str) -> bool {
        if line.trim().is_empty() {
            return true;
        }
        let indent = indent(line);
        indent > 0 && indent >= *self.indent.get_or_insert(indent)
    }
}

/// Returns the column of the first word. A tab ends at the next multiple of 8.
fn indent(line: &str) -> usize {
    let blank = line.chars().take_while(|c| matches!(c, ' ' | '\t'));
    blank.fold(0, |column, c| if c == '\t' { column / 8 * 8 + 8 } else { column + 1 })
}

fn statement(keyword: &str, tokens: &[Token], out: &mut Vec<Statement>) {
    let (head, condition) = split_if(tokens);
    let name = || match head {
        [Token::Term(Term::Name(name)), ..] => Some(name.clone()),
        _ => None,
    };
    let found = match keyword {
        "choice" => Some(Statement::Choice),
        "endchoice" => Some(Statement::EndChoice),
        "menu" => Some(Statement::Menu),
        "endmenu" => Some(Statement::EndMenu),
        "if" => Some(Statement::If(Expr::read(tokens))),
        "endif" => Some(Statement::EndIf),
        "comment" => Some(Statement::Comment),
        "prompt" => Some(Statement::Prompt(prompt_text(head), condition)),
        "default" => Some(Statement::Default(Expr::read(head), condition)),
        "depends" => match tokens {
            [Token::Term(Term::Name(on)), ..] if on == "on" => {
                let on = Expr::read(&head[1..]);
                Some(Statement::DependsOn(match condition {
                    // Kernels after 6.12 have `depends on A if B`.
                    Some(condition) => Expr::Any(vec![on, Expr::Not(Box::new(condition))]),
                    None => on,
                }))
            }
            _ => None,
        },
        "transitional" => Some(Statement::Transitional),
        "visible" => condition.map(Statement::VisibleIf),
        "select" => name().map(|name| Statement::Select(name, condition)),
        "imply" => name().map(|name| Statement::Imply(name, condition)),
        "range" => match head {
            [Token::Term(low), Token::Term(high)] => {
                Some(Statement::Range(low.clone(), high.clone(), condition))
            }
            _ => None,
        },
        "source" => match head {
            [Token::Term(Term::Name(path) | Term::Text(path) | Term::Macro(path))] => {
                Some(Statement::Source(path.clone()))
            }
            _ => None,
        },
        _ => return typed(keyword, head, condition, out),
    };
    out.extend(found);
}

/// Parses `bool "prompt" if …` and `def_bool value if …`, which make two statements each.
fn typed(keyword: &str, head: &[Token], condition: Option<Expr>, out: &mut Vec<Statement>) {
    let (defaulted, name) = match keyword.strip_prefix("def_") {
        Some(name) => (true, name),
        None => (false, keyword),
    };
    let found = match name {
        "bool" | "boolean" => Type::Bool,
        "tristate" => Type::Tristate,
        "string" => Type::String,
        "int" => Type::Int,
        "hex" => Type::Hex,
        _ => return,
    };
    // `string = …` assigns a macro.
    if matches!(head, [Token::Sign(_), ..]) && !defaulted {
        return;
    }
    out.push(Statement::Type(found));
    if defaulted {
        out.push(Statement::Default(Expr::read(head), condition));
    } else if !head.is_empty() {
        out.push(Statement::Prompt(prompt_text(head), condition));
    }
}

fn prompt_text(tokens: &[Token]) -> String {
    match tokens {
        [Token::Term(Term::Text(text) | Term::Macro(text) | Term::Name(text)), ..] => text.clone(),
        _ => String::new(),
    }
}

/// Returns the tokens before the word `if`, and the condition after it.
fn split_if(tokens: &[Token]) -> (&[Token], Option<Expr>) {
    let is_if = |word: &Token| matches!(word, Token::Term(Term::Name(name)) if name == "if");
    match tokens.iter().position(is_if) {
        Some(at) => (&tokens[..at], Some(Expr::read(&tokens[at + 1..]))),
        None => (tokens, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Statement> {
        statements(&"Kconfig".into(), text)
    }

    fn config(name: &str, line: usize) -> Statement {
        Statement::Config(name.into(), Location { file: "Kconfig".into(), line })
    }

    fn expr(text: &str) -> Expr {
        Expr::read(&tokens(text))
    }

    #[test]
    fn a_file_is_read_line_by_line() {
        let text = "# comment\ncc-option = $(success,$(CC) $(1))\nmenuconfig NET # why\n\tbool \"Net\" if EXPERT\n\
                    \tdepends on A && \\\n\t\tB\n\tselect C if D\n\timply E\n\tdefault y\n\thelp\n\t  config X\n\n\
                    \t    bool \"Y\"\n\t  select Z\nif NET\nsource \"net/Kconfig\"\nsource drivers/$(SRCARCH)/Kconfig\n\
                    endif # NET\nconfig N\n\tint\n\trange 1 0x20 if A\n\tdef_bool $(cc-option,-m) if B\n";
        let expected = [
            config("NET", 3),
            Statement::Type(Type::Bool),
            Statement::Prompt("Net".into(), Some(expr("EXPERT"))),
            Statement::DependsOn(expr("A && B")),
            Statement::Select("C".into(), Some(expr("D"))),
            Statement::Imply("E".into(), None),
            Statement::Default(expr("y"), None),
            Statement::If(expr("NET")),
            Statement::Source("net/Kconfig".into()),
            Statement::Source("drivers/$(SRCARCH)/Kconfig".into()),
            Statement::EndIf,
            config("N", 19),
            Statement::Type(Type::Int),
            Statement::Range(Term::Name("1".into()), Term::Name("0x20".into()), Some(expr("A"))),
            Statement::Type(Type::Bool),
            Statement::Default(expr("$(cc-option,-m)"), Some(expr("B"))),
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn blocks_and_what_belongs_to_them() {
        let text =
            "menu \"if only\"\nvisible if A\nchoice\n\tprompt \"p\"\nendchoice\ncomment \"c\"\nendmenu\n";
        let expected = [
            Statement::Menu,
            Statement::VisibleIf(expr("A")),
            Statement::Choice,
            Statement::Prompt("p".into(), None),
            Statement::EndChoice,
            Statement::Comment,
            Statement::EndMenu,
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn a_help_text_ends_where_it_is_indented_less() {
        let text = "config A\n\thelp\n\t  text\n\tbool\nconfig B\n\thelp\nconfig C\n";

        assert_eq!(read(text), [config("A", 1), Statement::Type(Type::Bool), config("B", 5), config("C", 7)]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z_]{0,9}[ \\t]{0,2}|[A-Z(!)=\"'$\\\\#&|<>\\n]{0,4}|\\PC{0,3}){0,60}") {
            read(&text);
        }
    }
}
