//! Old kernels on new tools: which known defects of a tree meet the tools of this host, and the make
//! variables that get round them. The rules are data (`configs/toolchains.toml`); what is here
//! matches them, and is pure but for [`defects`], which looks into a tree.

use crate::catalog::ConfigLibrary;
use crate::catalog::text::read_toml;
use crate::kernel::{Arch, KernelVersion};
use crate::util::error::{Error, Result};
use crate::util::read::{Links, read_file};
use camino::Utf8Path;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One rule: where it applies (every condition that is given must hold), what it does, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Entry")]
pub struct Rule {
    /// Its name, for people and for the plan.
    pub id: String,
    /// The architecture that it is for; absent: each.
    pub arch: Option<Arch>,
    /// The tool that the tree does not know yet, and the versions of it.
    pub tool: Tool,
    /// The first version of the tool that the rule is for.
    pub from: ToolVersion,
    /// The first one that it is no longer for.
    pub before: Option<ToolVersion>,
    /// Kernel versions; absent: all of them, and the tree alone decides.
    pub kernel: Option<Versions>,
    /// What the tree must show.
    pub tree: Vec<SourceMarker>,
    /// Make variables: words that are appended to what the plan has there already.
    pub variables: BTreeMap<String, String>,
    /// What breaks without it.
    pub reason: String,
}

/// A rule as it is written, before what belongs together is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    arch: Option<Arch>,
    tool: Tool,
    from: ToolVersion,
    before: Option<ToolVersion>,
    kernel: Option<Versions>,
    #[serde(default)]
    tree: Vec<SourceMarker>,
    variables: BTreeMap<String, String>,
    reason: String,
    /// Where it was seen or fixed; for those who look after the file.
    #[serde(rename = "source")]
    _source: String,
}

impl TryFrom<Entry> for Rule {
    type Error = String;

    fn try_from(entry: Entry) -> std::result::Result<Rule, String> {
        let Entry { id, arch, tool, from, before, kernel, tree, variables, reason, .. } = entry;
        if let Some(before) = before.as_ref().filter(|before| **before <= from) {
            return Err(format!("rule {id}: before: {before} is not after from: {from}"));
        }
        if let Some(Versions { from, before }) = kernel.as_ref().filter(|range| range.before <= range.from) {
            return Err(format!("rule {id}: kernel: before: {before} is not after from: {from}"));
        }
        if kernel.is_none() && tree.is_empty() {
            return Err(format!("rule {id}: kernel or tree: one of them must say which kernels it is for"));
        }
        if let Some(sign) = tree.iter().find(|sign| sign.has.is_some() == sign.lacks.is_some()) {
            return Err(format!("rule {id}: tree: {}: either has or lacks is needed", sign.file));
        }
        if variables.is_empty() {
            return Err(format!("rule {id}: variables: none, so it does nothing"));
        }
        if let Some((name, _)) = variables.iter().find(|(name, words)| !is_variable(name, words)) {
            return Err(format!("rule {id}: variables: `{name}` is not a make variable with words for it"));
        }
        Ok(Rule { id, arch, tool, from, before, kernel, tree, variables, reason })
    }
}

/// Of make's command line: no expansion in the words, and none of the variables that Kbuild or a
/// plan sets by itself.
fn is_variable(name: &str, words: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let owned = ["ARCH", "CROSS_COMPILE", "LLVM", "O", "LOCALVERSION", "MAKEFLAGS", "KCFLAGS", "KAFLAGS"];
    !name.is_empty()
        && name.chars().all(plain)
        && !owned.contains(&name)
        && !name.starts_with("KBUILD_BUILD_")
        && !words.trim().is_empty()
        && !words.contains(['$', '#', '\n'])
}

/// A tool that a rule may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// GCC as the compiler of the kernel.
    Gcc,
    /// Clang as the compiler of the kernel.
    Clang,
    /// GCC as the compiler of the kernel's own tools.
    HostGcc,
    /// Clang as the compiler of the kernel's own tools.
    HostClang,
    /// The GNU assembler and linker of the kernel.
    Binutils,
    /// The C library of this host.
    Glibc,
}

/// The version of a tool: `12`, `2.36`, `12.2.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ToolVersion(Vec<u32>);

impl TryFrom<String> for ToolVersion {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<ToolVersion, String> {
        let numbers: std::result::Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        numbers.map(ToolVersion).map_err(|_| format!("`{text}` is not a version of a tool, as 12 or 2.36"))
    }
}

impl std::fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// Kernel versions, the second one no longer among them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// The first one.
    pub from: KernelVersion,
    /// The first one after them.
    pub before: KernelVersion,
}

/// A file of the tree, and a text that it has or lacks. A file that is not there shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceMarker {
    /// Its path in the tree.
    pub file: String,
    /// A text that must be in it.
    pub has: Option<String>,
    /// A text that must not be in it.
    pub lacks: Option<String>,
}

/// The versions of the tools of this host, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools(BTreeMap<Tool, ToolVersion>);

impl Tools {
    /// From the first lines that the tools print for `--version`: `cc`, `hostcc` and `ld` of
    /// `identity`, and that of the C library's `ldd`.
    pub fn new(identity: &BTreeMap<String, String>, ldd: Option<&str>) -> Tools {
        let line = |tool: &str| identity.get(tool).map(String::as_str);
        let is_clang = |line: &str| line.contains("clang");
        let compiler = |line: Option<&str>, gcc, clang| {
            let line = line?;
            Some((if is_clang(line) { clang } else { gcc }, version_in(line)?))
        };
        let of = |tool, line: Option<&str>, mark: &str| {
            Some((tool, version_in(line.filter(|line| line.contains(mark))?)?))
        };
        let found = [
            compiler(line("cc"), Tool::Gcc, Tool::Clang),
            compiler(line("hostcc"), Tool::HostGcc, Tool::HostClang),
            of(Tool::Binutils, line("ld"), "GNU"),
            of(Tool::Glibc, ldd, "GNU libc").or_else(|| of(Tool::Glibc, ldd, "GLIBC")),
        ];
        Tools(found.into_iter().flatten().collect())
    }
}

/// `(Debian 12.2.0-14) 12.2.0`, `GNU ld (GNU Binutils) 2.40`, `GNU ld version 2.41-37.fc40`: the
/// first number with a dot in it outside of brackets.
fn version_in(line: &str) -> Option<ToolVersion> {
    let mut depth = 0;
    let outside: String = line
        .chars()
        .filter(|&c| {
            depth += i32::from(c == '(');
            let is_outside = depth == 0;
            depth -= i32::from(c == ')');
            is_outside
        })
        .collect();
    outside.split_whitespace().find_map(|word| {
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let number = word[..end].trim_end_matches('.');
        number.contains('.').then(|| ToolVersion::try_from(number.to_owned()).ok())?
    })
}

/// A rule of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The rule.
    pub id: String,
    /// What it appends.
    pub variables: BTreeMap<String, String>,
    /// Why.
    #[serde(skip)]
    pub reason: String,
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let variables: Vec<String> =
            self.variables.iter().map(|(name, words)| format!("{name}: {words}")).collect();
        write!(f, "{} ({}): {}", self.id, variables.join(", "), self.reason)
    }
}

/// Reads every layer of `configs/toolchains.toml`; a rule of a later layer replaces an earlier one of
/// the same id.
pub fn read(library: &ConfigLibrary) -> Result<Vec<Rule>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        rule: Vec<Rule>,
    }
    let mut rules: Vec<Rule> = Vec::new();
    for (origin, text) in library.layers("configs/toolchains.toml") {
        let file: File = read_toml(origin, text)?;
        for (index, rule) in file.rule.iter().enumerate() {
            if file.rule[..index].iter().any(|other| other.id == rule.id) {
                return Err(Error::usage(format!("{origin}: rule {}: id: there are two of it", rule.id)));
            }
        }
        rules.retain(|old| file.rule.iter().all(|new| new.id != old.id));
        rules.extend(file.rule);
    }
    Ok(rules)
}

/// The limit of a file of the source that a rule looks into: the top Makefile has 75 kB.
const MAX_SOURCE_FILE: u64 = 2 << 20;

/// Looks into `tree`: the ids of the rules whose signs it shows.
pub fn defects(rules: &[Rule], tree: &Utf8Path) -> BTreeSet<String> {
    let text_of = |file: &str| {
        let bytes = read_file(tree.join(file), Links::Follow, MAX_SOURCE_FILE).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    rules.iter().filter(|rule| rule.matches_tree(text_of)).map(|rule| rule.id.clone()).collect()
}

/// The rules for this version, architecture and these tools, in the order of the file. They apply
/// where the tree shows their signs: see [`defects`].
pub fn possible(rules: &[Rule], version: KernelVersion, arch: Arch, tools: &Tools) -> Vec<Applied> {
    rules
        .iter()
        .filter(|rule| rule.arch.is_none_or(|of_rule| of_rule == arch) && rule.meets(tools))
        .filter(|rule| rule.kernel.as_ref().is_none_or(|range| (range.from..range.before).contains(&version)))
        .map(|rule| Applied {
            id: rule.id.clone(),
            variables: rule.variables.clone(),
            reason: rule.reason.clone(),
        })
        .collect()
}

/// Appends the words of `applied` to make's variables, each of them once.
pub fn append(applied: &[Applied], variables: &mut BTreeMap<String, String>) {
    for (name, words) in applied.iter().flat_map(|rule| &rule.variables) {
        let value = variables.entry(name.clone()).or_default();
        for word in words.split_whitespace() {
            if !value.split_whitespace().any(|have| have == word) {
                *value = format!("{value} {word}").trim_start().to_owned();
            }
        }
    }
}

impl Rule {
    fn matches_tree(&self, text_of: impl Fn(&str) -> Option<String>) -> bool {
        self.tree.iter().all(|sign| {
            text_of(&sign.file).is_some_and(|text| {
                sign.has.as_ref().is_none_or(|has| text.contains(has))
                    && sign.lacks.as_ref().is_none_or(|lacks| !text.contains(lacks))
            })
        })
    }

    fn meets(&self, tools: &Tools) -> bool {
        let version = tools.0.get(&self.tool);
        version.is_some_and(|version| {
            *version >= self.from && self.before.as_ref().is_none_or(|before| version < before)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"
        [[rule]]
        id = "old"
        arch = "amd64"
        tool = "host-gcc"
        from = "12"
        before = "15"
        kernel = { from = "5.2", before = "5.18" }
        tree = [{ file = "a.h", has = "old()" }, { file = "a.h", lacks = "new()" }]
        variables = { WERROR = "0", HOSTCC = "-std=gnu11 -O2" }
        reason = "it breaks"
        source = "seen"
    "#;

    fn rules(text: &str) -> Result<Vec<Rule>> {
        read(&ConfigLibrary::from_texts([("configs/toolchains.toml", text)]))
    }

    fn tools(lines: &[(&str, &str)], ldd: &str) -> Tools {
        let identity = lines.iter().map(|(tool, line)| ((*tool).to_owned(), (*line).to_owned())).collect();
        Tools::new(&identity, Some(ldd))
    }

    #[test]
    fn tools_are_told_by_what_they_say_of_themselves() {
        let version = |text: &str| ToolVersion::try_from(text.to_owned()).unwrap();
        for (line, tool, expected) in [
            ("(Debian 12.2.0-14+deb12u1) 12.2.0", Tool::Gcc, "12.2.0"),
            ("(GCC) 14.2.1 20240801 (Red Hat 14.2.1-1)", Tool::Gcc, "14.2.1"),
            ("Debian clang version 14.0.6", Tool::Clang, "14.0.6"),
            ("Ubuntu clang version 18.1.3 (1ubuntu1)", Tool::Clang, "18.1.3"),
        ] {
            assert_eq!(tools(&[("cc", line)], "").0, [(tool, version(expected))].into(), "{line}");
        }
        for (line, expected) in
            [("GNU ld (GNU Binutils for Debian) 2.40", "2.40"), ("GNU ld version 2.41-37.fc40", "2.41")]
        {
            assert_eq!(tools(&[("ld", line)], "").0, [(Tool::Binutils, version(expected))].into(), "{line}");
        }
        assert_eq!(tools(&[("ld", "LLD 14.0.6 (compatible with GNU linkers)")], "").0.len(), 1);
        for ldd in ["(Debian GLIBC 2.36-9+deb12u14) 2.36", "(GNU libc) 2.36"] {
            assert_eq!(tools(&[], ldd).0, [(Tool::Glibc, version("2.36"))].into(), "{ldd}");
        }
        assert_eq!(tools(&[("cc", "nonsense")], "musl libc (x86_64)"), Tools::default());
    }

    #[test]
    fn every_condition_must_hold() {
        let rules = rules(RULE).unwrap();
        let count = |version: &str, arch, hostcc: &str| {
            possible(&rules, version.parse().unwrap(), arch, &tools(&[("hostcc", hostcc)], "")).len()
        };
        assert_eq!(count("5.15.12", Arch::Amd64, "(Debian) 12.2.0"), 1);
        assert_eq!(count("5.15.12", Arch::Arm64, "(Debian) 12.2.0"), 0);
        assert_eq!(count("5.18", Arch::Amd64, "(Debian) 12.2.0"), 0);
        assert_eq!(count("4.19.215", Arch::Amd64, "(Debian) 12.2.0"), 0);
        assert_eq!(count("5.15.12", Arch::Amd64, "(Debian) 11.4.0"), 0);
        assert_eq!(count("5.15.12", Arch::Amd64, "(Debian) 15.0.1"), 0);
        assert_eq!(count("5.15.12", Arch::Amd64, "clang version 13.0.0"), 0);
        let shows = |text: Option<&str>| rules[0].matches_tree(|_| text.map(str::to_owned));
        assert!(shows(Some("old();")));
        assert!(!shows(Some("old(); new();")) && !shows(Some("new();")) && !shows(None));
    }

    #[test]
    fn words_are_appended_once() {
        let version = "5.15".parse().unwrap();
        let tools = tools(&[("hostcc", "(Debian) 12.2.0")], "");
        let applied = possible(&rules(RULE).unwrap(), version, Arch::Amd64, &tools);
        let mut variables = BTreeMap::from([("HOSTCC".to_owned(), "gcc -O2".to_owned())]);
        append(&applied, &mut variables);
        append(&applied, &mut variables);
        assert_eq!(variables["HOSTCC"], "gcc -O2 -std=gnu11");
        assert_eq!(variables["WERROR"], "0");
        assert_eq!(applied[0].to_string(), "old (HOSTCC: -std=gnu11 -O2, WERROR: 0): it breaks");
    }

    #[test]
    fn a_mistake_names_file_line_and_field() {
        for (from, to, says) in [
            ("reason = \"it breaks\"", "", "missing field `reason`"),
            ("tool = \"host-gcc\"", "tool = \"icc\"", "line 5, column 16: tool: unknown variant `icc`"),
            ("from = \"12\"", "from = \"twelve\"", "`twelve` is not a version of a tool"),
            ("before = \"15\"", "before = \"12\"", "rule old: before: 12 is not after from: 12"),
            ("before = \"5.18\"", "before = \"5.1\"", "rule old: kernel: before: 5.1 is not after"),
            ("lacks = \"new()\"", "has = \"x\", lacks = \"y\"", "rule old: tree: a.h: either has or lacks"),
            ("WERROR = \"0\"", "ARCH = \"arm\"", "rule old: variables: `ARCH` is not a make variable"),
            ("WERROR = \"0\"", "CC = \"$(shell x)\"", "rule old: variables: `CC` is not"),
            ("reason", "raeson", "unknown field `raeson`"),
        ] {
            let error = rules(&RULE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.starts_with("configs/toolchains.toml: TOML parse error at line "), "{error}");
            assert!(error.contains(says), "`{says}` is not in: {error}");
        }
        let error = rules(&RULE.repeat(2)).unwrap_err().to_string();
        assert_eq!(error, "configs/toolchains.toml: rule old: id: there are two of it");
    }

    #[test]
    fn the_built_in_rules_are_sound() {
        let rules = read(&ConfigLibrary::built_in()).unwrap();
        let gcc_12 = tools(
            &[
                ("cc", "(Debian 12.2.0-14+deb12u1) 12.2.0"),
                ("hostcc", "(Debian 12.2.0-14+deb12u1) 12.2.0"),
                ("ld", "GNU ld (GNU Binutils for Debian) 2.40"),
            ],
            "(Debian GLIBC 2.36-9) 2.36",
        );
        let ids = |version: &str| -> Vec<String> {
            possible(&rules, version.parse().unwrap(), Arch::Amd64, &gcc_12)
                .into_iter()
                .map(|rule| rule.id)
                .collect()
        };
        assert_eq!(
            ids("5.2.21"),
            ["subcmd-realloc", "objtool-empty-object", "boot-stack-canary", "cf-protection"]
        );
        assert_eq!(ids("5.15.12"), ["subcmd-realloc"]);
        assert!(ids("6.1").is_empty());
    }
}
