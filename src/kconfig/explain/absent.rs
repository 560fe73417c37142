//! Symbols that the Kconfig files of a kernel do not define, and what the kernel has in their place.

use super::cause::CauseKind;
use super::model::Model;
use super::nearest::nearest;
use super::reason::Reason;
use super::{Kernel, read};
use crate::kconfig::Config;
use crate::util::text::sanitize_line;
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;

/// The number of unknown symbols that get suggestions, which take some milliseconds for each.
const MAX_NEAREST: usize = 200;

/// A symbol that a kernel does not have.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// Another architecture, another name, or unknown.
    pub kind: CauseKind,
    /// The same for people.
    pub text: String,
    /// Up to three symbols with a similar name, if it is unknown.
    pub nearest: Vec<String>,
}

/// Returns those of `names` that `kernel` does not have. `config` has the values that the texts name.
///
/// # Errors
///
/// A message if the Kconfig files cannot be read.
pub fn absent(names: &[&str], config: &Config, kernel: &Kernel<'_>) -> Result<Vec<Absent>, String> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let model = Model::new(read::read(kernel.tree, kernel.arch)?);
    let absences = Absences::new(config, kernel, &model);
    let undefined = names.iter().filter(|name| model.defined(name).is_none());
    Ok(undefined.map(|name| absences.absent(name)).collect())
}

/// Finds out why symbols are absent. Reads the files of other architectures only if it has to.
pub(super) struct Absences<'a> {
    config: &'a Config,
    kernel: &'a Kernel<'a>,
    model: &'a Model,
    /// The symbols of other architectures, with their names.
    others: OnceCell<HashMap<String, Vec<String>>>,
    /// The number of unknown symbols so far.
    unknown: Cell<usize>,
}

impl<'a> Absences<'a> {
    pub(super) fn new(config: &'a Config, kernel: &'a Kernel<'a>, model: &'a Model) -> Absences<'a> {
        Absences { config, kernel, model, others: OnceCell::new(), unknown: Cell::new(0) }
    }

    /// Returns why the tree does not define `name`.
    pub(super) fn absent(&self, name: &str) -> Absent {
        let (symbol, kind, text) = match self.known_reason(name) {
            Some(Reason { kind, text, .. }) => (name.to_owned(), kind, sanitize_line(&text)),
            None => (name.to_owned(), CauseKind::Unknown, "no such symbol in this kernel".to_owned()),
        };
        let nearest = if kind == CauseKind::Unknown { self.nearest(name) } else { Vec::new() };
        Absent { symbol, kind, text, nearest }
    }

    /// Returns the same as a reason.
    pub(super) fn reason(&self, name: &str) -> Reason {
        self.known_reason(name).unwrap_or_else(|| {
            let Absent { kind, text, nearest, .. } = self.absent(name);
            let nearest = if nearest.is_empty() {
                String::new()
            } else {
                format!(" (nearest: {})", nearest.join(", "))
            };
            Reason::new(kind, text + &nearest)
        })
    }

    fn known_reason(&self, name: &str) -> Option<Reason> {
        describe_rename(name, self.config, self.kernel, self.model).or_else(|| {
            let others = self.others().get(name)?;
            Some(Reason::new(CauseKind::OtherArchitecture, describe_other_arches(others)))
        })
    }

    fn others(&self) -> &HashMap<String, Vec<String>> {
        self.others.get_or_init(|| {
            let definitions = self.model.symbols.values().flat_map(|symbol| &symbol.definitions);
            let known = definitions.map(|definition| &*definition.location.file).collect();
            read::symbols_of_other_arches(self.kernel.tree, self.kernel.arch, &known)
        })
    }

    fn nearest(&self, name: &str) -> Vec<String> {
        self.unknown.set(self.unknown.get() + 1);
        if self.unknown.get() > MAX_NEAREST {
            return Vec::new();
        }
        let names = || {
            let settable = self.model.symbols.iter().filter(|(_, symbol)| symbol.has_prompt());
            settable.map(|(name, _)| name.as_str())
        };
        let mut near = nearest(name, names());
        if near.is_empty() {
            near = nearest(&name.to_ascii_uppercase(), names());
        }
        near.into_iter().map(str::to_owned).collect()
    }
}

fn describe_other_arches(having: &[String]) -> String {
    match having {
        [one] => format!("only another architecture has it: {one}"),
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("only other architectures have it: {first}, {second}, {third} and {} more", rest.len())
        }
        some => format!("only other architectures have it: {}", some.join(", ")),
    }
}

/// Returns what the table of renames says about `symbol`, if the new name is in this kernel.
fn describe_rename(symbol: &str, config: &Config, kernel: &Kernel<'_>, model: &Model) -> Option<Reason> {
    let valued = |name: &str| format!("{name} ({})", config.value(name));
    // A new name may have been renamed again.
    for rename in kernel.renames.chain(symbol) {
        let there: Vec<&String> = rename.new.iter().filter(|new| model.defined(new).is_some()).collect();
        let is_past = kernel.version.is_none_or(|version| version >= rename.since);
        if !there.is_empty() {
            // A stable release or a vendor may have it earlier than the table says.
            let when = if is_past { format!("since {}", rename.since) } else { "here".into() };
            let names: Vec<String> = there.iter().map(|new| valued(new)).collect();
            let symbols = there.into_iter().cloned().collect();
            let text = format!("{when} it is {}", names.join(" and "));
            return Some(Reason { symbols, ..Reason::new(CauseKind::Renamed, text) });
        }
        if let (true, true, Some(note)) = (rename.new.is_empty(), is_past, &rename.note) {
            return Some(Reason::new(CauseKind::Removed, format!("gone since {}: {note}", rename.since)));
        }
    }
    let earlier = kernel.renames.to(symbol).find(|rename| model.defined(&rename.old).is_some())?;
    let text = format!("before {} it is {}", earlier.since, valued(&earlier.old));
    Some(Reason { symbols: vec![earlier.old.clone()], ..Reason::new(CauseKind::Renamed, text) })
}
