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
mod tests {
    use super::*;

    const BASE: &str = "title = \"base\"\nsource = \"a book\"\n[[option]]\nsymbols = [\"A\", \"B|C\"]\n\
                        level = \"required\"\nreason = \"why\"\n";

    fn library(texts: &[(&str, &str)]) -> ConfigLibrary {
        let named: Vec<(String, &str)> =
            texts.iter().map(|(name, text)| (Profile::path(name), *text)).collect();
        ConfigLibrary::from_texts(named.iter().map(|(name, text)| (name.as_str(), *text)))
    }

    fn mistake(text: &str) -> String {
        read(&library(&[("base", text)]), "base").unwrap_err().to_string()
    }

    #[test]
    fn an_own_line_replaces_an_included_one() {
        let over = "title = \"over\"\nsource = \"s\"\ninclude = [\"base\", \"twin\"]\n[[option]]\n\
                    symbols = [\"C|B\"]\nlevel = \"recommended\"\nvalue = \"y\"\nreason = \"r\"\n";
        let profile = read(&library(&[("base", BASE), ("twin", BASE), ("over", over)]), "over").unwrap();
        let lines: Vec<(String, Level, &str)> = profile
            .options
            .iter()
            .map(|line| (line.alternatives[0].to_string(), line.level, line.source.as_str()))
            .collect();
        assert_eq!(
            lines,
            [("A".to_owned(), Level::Required, "a book"), ("C".to_owned(), Level::Recommended, "s")]
        );
    }

    #[test]
    fn what_a_profile_says_has_no_control_characters() {
        let text = BASE.replace("why", "a\\u001b[2Jb").replace("a book", "c\\u202ed");
        let profile = read(&library(&[("base", &text)]), "base").unwrap();
        assert_eq!(profile.options[0].reason, "a\\u{1b}[2Jb");
        assert_eq!(profile.options[0].source, "c\\u{202e}d");
    }

    #[test]
    fn a_mistake_names_file_line_and_field() {
        for (text, says) in [
            (BASE.replace("required", "needed"), "line 5, column 9: level: unknown variant `needed`"),
            (BASE.replace("\"A\"", "\"CONFIG_A\""), "line 4, column 11: symbols: `CONFIG_A`: symbols are"),
            (BASE.replace("B|C", "B|"), "line 4, column 11: symbols: `B|`: not a symbol"),
            (format!("{BASE}kernel = \"<=5.1\"\n"), "line 7, column 10: kernel: `<=5.1` is not a range"),
            (format!("{BASE}arch = [\"mips\"]\n"), "line 7, column 9: arch: unknown variant `mips`"),
            (format!("{BASE}valeu = \"y\"\n"), "line 7, column 1: valeu: unknown field `valeu`"),
            (BASE.replace("reason = \"why\"", ""), "missing field `reason`"),
            (
                format!("{BASE}value = \"y\"\n").replace("required", "forbidden"),
                "value: not allowed in a forbidden option",
            ),
            (BASE.replace("B|C", "!B").replace("required", "forbidden"), "symbols: `!` is not allowed"),
            (BASE.replace("[\"A\", \"B|C\"]", "[]"), "symbols: the list is empty"),
        ] {
            let message = mistake(&text);
            assert!(
                message.starts_with("configs/requirements/base.toml: TOML parse error at line "),
                "{message}"
            );
            assert!(message.contains(says), "`{says}` is not in: {message}");
        }
    }

    #[test]
    fn circles_and_unknown_names_are_refused() {
        let to = |name: &str| format!("title = \"t\"\nsource = \"s\"\ninclude = [\"{name}\"]\n");
        let library = library(&[("a", &to("b")), ("b", &to("a")), ("c", &to("d"))]);
        let message = |name: &str| read(&library, name).unwrap_err();
        assert_eq!(message("a").to_string(), "configs/requirements/a.toml: include: `a` includes itself");
        assert_eq!(message("c").to_string(), "configs/requirements/c.toml: include: there is no profile `d`");
        assert_eq!(message("x").to_string(), "unknown requirement profile `x`");
        assert_eq!(message("x").hint_text(), Some("the known profiles are a, b, c"));
    }

    #[test]
    fn older_releases_of_kubernetes_keep_what_newer_ones_drop() {
        let library = ConfigLibrary::built_in();
        let level = |profile: &str, symbol: &str| {
            let profile = read(&library, profile).unwrap();
            let line = profile.options.iter().find(|line| line.alternatives[0].symbol == symbol);
            line.map(|line| line.level)
        };
        assert_eq!(level("kubernetes-1.37", "IP_VS_RR"), None);
        assert_eq!(level("kubernetes-1.36", "IP_VS_RR"), Some(Level::Recommended));
        assert_eq!(level("kubernetes-1.35", "CGROUP_DEVICE"), Some(Level::Recommended));
        assert_eq!(level("kubernetes-1.34", "CGROUP_DEVICE"), Some(Level::Required));
        assert_eq!(level("kubernetes-1.34", "PSI"), Some(Level::Required));
    }

    #[test]
    fn the_tables_of_iptables_need_the_legacy_option() {
        let library = ConfigLibrary::built_in();
        for name in names(&library) {
            let profile = read(&library, &name).unwrap();
            let required = |symbol: &str| {
                profile.options.iter().any(|line| {
                    line.level == Level::Required && line.alternatives.iter().all(|one| one.symbol == symbol)
                })
            };
            if required("IP_NF_FILTER") || required("IP_NF_IPTABLES") {
                assert!(required("NETFILTER_XTABLES_LEGACY"), "{name}");
            }
        }
    }

    #[test]
    fn the_built_in_profiles_are_sound() {
        let library = ConfigLibrary::built_in();
        let known = names(&library);
        for name in [
            "firecracker",
            "firecracker-pci",
            "cloud-hypervisor",
            "flintlock",
            "kubernetes",
            "kubernetes-1.34",
            "kubernetes-1.35",
            "kubernetes-1.36",
            "kubernetes-1.37",
            "kube-proxy-ipvs",
            "docker",
            "cilium",
            "calico",
            "hardening",
        ] {
            assert!(known.iter().any(|known| known == name), "{name} is missing");
        }
        for profile in read_all(&library, &known).unwrap() {
            assert!(!profile.options.is_empty(), "{}", profile.name);
            for line in &profile.options {
                assert!(
                    !line.reason.is_empty() && line.source.contains("https://"),
                    "{}: {line:?}",
                    profile.name
                );
            }
        }
    }
}
