//! Reads profiles from `configs/requirements/<name>.toml`, with the profiles that they include.

use crate::catalog::ConfigLibrary;
use crate::catalog::text::read_toml;
use crate::kernel::{Arch, KernelVersion, VersionRange};
use crate::util::error::{Error, Result};
use crate::util::text::{escape_control, nearest};
use serde::{Deserialize, Serialize};
use std::fmt;

const DIR: &str = "configs/requirements";

/// What one consumer needs, including the lines of included profiles.
#[derive(Clone, Debug)]
pub struct Profile {
    /// File name without `.toml`.
    pub name: String,
    /// The consumer.
    #[expect(dead_code, reason = "for people who read the file")]
    pub title: String,
    /// Rules for the kernel version.
    pub kernel: Vec<KernelRule>,
    /// Requirements for options, included ones first.
    pub options: Vec<Requirement>,
}

/// A rule for the kernel version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRule {
    pub version: VersionRange,
    /// How severe another version is.
    pub level: Level,
    pub reason: String,
    /// Source of the rule. The default is the source of the file.
    #[serde(default)]
    pub source: String,
}

impl KernelRule {
    /// Returns whether `version` follows the rule. It must be outside a forbidden range.
    pub fn admits(&self, version: KernelVersion) -> bool {
        self.version.contains(version) != (self.level == Level::Forbidden)
    }
}

/// One line, about one option or alternatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// One of these must be on. If they are forbidden, all must be off.
    pub alternatives: Vec<Alternative>,
    /// How severe it is if the line is not met.
    pub level: Level,
    /// Whether a module is enough.
    pub value: Value,
    /// Kernel versions of the line. `None` means all.
    pub kernel: Option<VersionRange>,
    /// Architectures of the line. Empty means all.
    pub arch: Vec<Arch>,
    pub reason: String,
    /// Source of the requirement.
    pub source: String,
}

/// A symbol that must be on, or off if written as `!SYMBOL`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alternative {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// Whether it is written as `!SYMBOL`.
    pub negated: bool,
}

/// How severe it is if a line is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The consumer does not work without it.
    Required,
    /// The consumer works, but a feature that people expect is missing.
    Recommended,
    /// The consumer does not work with it, or is not safe.
    Forbidden,
}

/// Required value of a symbol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// Built in.
    Y,
    /// Built in or a module.
    #[default]
    YOrM,
}

impl Profile {
    /// Path of the profile in the library.
    fn path(name: &str) -> String {
        format!("{DIR}/{name}.toml")
    }
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.negated { "!" } else { "" }, self.symbol)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    /// Source of all lines that name no source.
    source: String,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    kernel: Vec<KernelRule>,
    #[serde(default)]
    option: Vec<Group>,
}

/// One `[[option]]`, which is several lines that differ only in their symbols.
#[derive(Deserialize)]
#[serde(try_from = "UncheckedGroup")]
struct Group(UncheckedGroup);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedGroup {
    symbols: Vec<Symbols>,
    level: Level,
    value: Option<Value>,
    kernel: Option<VersionRange>,
    #[serde(default)]
    arch: Vec<Arch>,
    reason: String,
    source: Option<String>,
}

impl TryFrom<UncheckedGroup> for Group {
    type Error = String;

    fn try_from(group: UncheckedGroup) -> Result<Self, String> {
        if group.symbols.is_empty() {
            return Err("symbols: the list is empty".into());
        }
        let negates = |symbols: &Symbols| symbols.0.iter().any(|alternative| alternative.negated);
        match group.level {
            Level::Forbidden if group.value.is_some() => {
                Err("value: not allowed in a forbidden option, which may be neither built in nor a module"
                    .into())
            }
            Level::Forbidden if group.symbols.iter().any(negates) => {
                Err("symbols: `!` is not allowed in a forbidden option".into())
            }
            _ => Ok(Group(group)),
        }
    }
}

/// Parses `A`, `A|B` or `A|!B`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Symbols(Vec<Alternative>);

impl TryFrom<String> for Symbols {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let alternative = |part: &str| {
            let part = part.trim();
            let symbol = part.strip_prefix('!').unwrap_or(part);
            if symbol.starts_with("CONFIG_") {
                return Err(format!("`{text}`: symbols are written without CONFIG_"));
            }
            if symbol.is_empty() || !symbol.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!("`{text}`: not a symbol, nor several with `|` between them"));
            }
            Ok(Alternative { symbol: symbol.to_owned(), negated: part.starts_with('!') })
        };
        text.split('|').map(alternative).collect::<Result<_, _>>().map(Symbols)
    }
}

/// Returns the names of all profiles of the library, sorted.
pub fn names(library: &ConfigLibrary) -> Vec<String> {
    let files = library.names_in(DIR);
    let mut names: Vec<String> =
        files.filter_map(|name| name.strip_suffix(".toml")).map(str::to_owned).collect();
    names.sort();
    names
}

/// Reads the named profiles in this order, each once.
pub fn read_all(library: &ConfigLibrary, requested: &[String]) -> Result<Vec<Profile>> {
    let first = |(index, name): &(usize, &String)| !requested[..*index].contains(name);
    requested.iter().enumerate().filter(first).map(|(_, name)| read(library, name)).collect()
}

/// Reads the profile `name` and all profiles that it includes. A user's file replaces the built-in file of
/// the same name. A line replaces included lines with the same symbols or the same range of kernels, which can
/// raise or lower their level.
///
/// # Errors
///
/// Exit code 2 if the profile does not exist, a file has a mistake, or a profile includes itself.
pub fn read(library: &ConfigLibrary, name: &str) -> Result<Profile> {
    let mut profile = read_below(library, name, &mut Vec::new())?;
    profile.name = name.to_owned();
    Ok(profile)
}

/// `above` are the profiles that include this one.
fn read_below(library: &ConfigLibrary, name: &str, above: &mut Vec<String>) -> Result<Profile> {
    let Some((origin, text)) = library.layers(&Profile::path(name)).last() else {
        let unknown = match above.last() {
            Some(by) => format!("{}: include: there is no profile `{name}`", Profile::path(by)),
            None => format!("unknown requirement profile `{name}`"),
        };
        let known = names(library);
        let hint = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the known profiles are {}", known.join(", ")),
        };
        return Err(Error::usage(unknown).hint(hint));
    };
    if above.iter().any(|known| known == name) {
        return Err(Error::usage(format!("{origin}: include: `{name}` includes itself")));
    }
    let file: File = read_toml(origin, text)?;
    let (mut kernel, mut options) = (Vec::new(), Vec::new());
    above.push(name.to_owned());
    for included in &file.include {
        let included = read_below(library, included, above)?;
        add_new(&mut kernel, included.kernel);
        add_new(&mut options, included.options);
    }
    above.pop();
    let or_files = |source: Option<String>| {
        // These texts are printed on terminals.
        escape_control(&source.filter(|source| !source.is_empty()).unwrap_or_else(|| file.source.clone()))
    };
    kernel.retain(|old: &KernelRule| !file.kernel.iter().any(|new| new.version == old.version));
    let rules = file.kernel.into_iter();
    kernel.extend(rules.map(|rule| {
        let (reason, source) = (escape_control(&rule.reason), or_files(Some(rule.source)));
        KernelRule { reason, source, ..rule }
    }));
    let mut own = Vec::new();
    for Group(group) in file.option {
        let source = or_files(group.source);
        own.extend(group.symbols.into_iter().map(|Symbols(alternatives)| Requirement {
            alternatives,
            level: group.level,
            value: group.value.unwrap_or_default(),
            kernel: group.kernel.clone(),
            arch: group.arch.clone(),
            reason: escape_control(&group.reason),
            source: source.clone(),
        }));
    }
    options.retain(|old: &Requirement| !own.iter().any(|new| same_symbols(old, new)));
    options.extend(own);
    Ok(Profile { name: name.to_owned(), title: file.title, kernel, options })
}

/// Removes repeated lines, since two included profiles may include a third one.
fn add_new<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

fn same_symbols(one: &Requirement, other: &Requirement) -> bool {
    let sorted = |requirement: &Requirement| {
        let mut alternatives = requirement.alternatives.clone();
        alternatives.sort();
        alternatives
    };
    sorted(one) == sorted(other)
}

#[cfg(test)]
mod tests;
