//! Old kernels on new tools: finds known defects of a tree that the tools of this host trigger, and the make
//! variables that work around them. The rules are in `configs/toolchains.toml`. [`defects`] reads a tree.

use crate::catalog::ConfigLibrary;
use crate::catalog::text::read_toml;
use crate::catalog::tool_versions::{Tool, ToolVersion, Tools};
use crate::kernel::{Arch, KernelVersion};
use crate::util::error::{Error, Result};
use crate::util::read::{Links, read_file};
use camino::Utf8Path;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One rule. It applies if all its conditions hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Entry")]
pub struct Rule {
    /// Names the rule for people and in the plan.
    pub id: String,
    /// The default is every architecture.
    pub arch: Option<Arch>,
    /// The tool that the tree does not support yet.
    pub tool: Tool,
    /// The first version of the tool that the rule is for.
    pub from: ToolVersion,
    /// The first later version that the rule is not for.
    pub before: Option<ToolVersion>,
    /// The default is every version. Then the tree alone decides.
    pub kernel: Option<Versions>,
    /// What the files of the tree must have or lack.
    pub tree: Vec<SourceMarker>,
    /// Words to append to make variables of the plan.
    pub variables: BTreeMap<String, String>,
    /// What breaks without the rule.
    pub reason: String,
}

/// A rule as it is written, before it is checked.
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
    /// Where the defect was seen or fixed, for maintainers of the file.
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
            return Err(format!("rule {id}: needs kernel or tree, to choose the kernels that it is for"));
        }
        if let Some(sign) = tree.iter().find(|sign| sign.has.is_some() == sign.lacks.is_some()) {
            return Err(format!("rule {id}: tree: {}: needs either has or lacks", sign.file));
        }
        if variables.is_empty() {
            return Err(format!("rule {id}: variables: needs at least one"));
        }
        if let Some((name, _)) = variables.iter().find(|(name, words)| !is_variable(name, words)) {
            return Err(format!(
                "rule {id}: variables: `{name}` is not a make variable that a rule may set, or its value has special characters"
            ));
        }
        Ok(Rule { id, arch, tool, from, before, kernel, tree, variables, reason })
    }
}

/// Returns whether a rule may set the variable to these words. Variables that Kbuild or a plan sets are
/// reserved, and make must not expand the words.
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

/// A range of kernel versions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    pub from: KernelVersion,
    /// The first version after the range.
    pub before: KernelVersion,
}

/// A file of the tree, and a text that it has or lacks. A missing file does not match.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceMarker {
    /// The path in the tree.
    pub file: String,
    /// A text that must be in it.
    pub has: Option<String>,
    /// A text that must not be in it.
    pub lacks: Option<String>,
}

/// A rule of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub id: String,
    pub variables: BTreeMap<String, String>,
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

/// Reads every layer of `configs/toolchains.toml`. A rule replaces earlier ones with the same id.
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
                return Err(Error::usage(format!(
                    "{origin}: rule {}: there are two rules with this id",
                    rule.id
                )));
            }
        }
        rules.retain(|old| file.rule.iter().all(|new| new.id != old.id));
        rules.extend(file.rule);
    }
    Ok(rules)
}

/// The limit of a source file that a rule reads. The top Makefile has 75 kB.
const MAX_SOURCE_FILE: u64 = 2 << 20;

/// Returns the ids of the rules whose markers `tree` has.
pub fn defects(rules: &[Rule], tree: &Utf8Path) -> BTreeSet<String> {
    let text_of = |file: &str| {
        let bytes = read_file(tree.join(file), Links::Follow, MAX_SOURCE_FILE).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    rules.iter().filter(|rule| rule.matches_tree(text_of)).map(|rule| rule.id.clone()).collect()
}

/// Returns the rules for this version, this architecture and these tools, in the order of the file. They
/// apply if the tree has their markers, see [`defects`].
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

/// Appends the words of `applied` to make variables, each word once.
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
    use crate::catalog::tool_versions::tests::tools;

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
            (
                "lacks = \"new()\"",
                "has = \"x\", lacks = \"y\"",
                "rule old: tree: a.h: needs either has or lacks",
            ),
            ("WERROR = \"0\"", "ARCH = \"arm\"", "rule old: variables: `ARCH` is not a make variable"),
            ("WERROR = \"0\"", "CC = \"$(shell x)\"", "rule old: variables: `CC` is not"),
            ("reason", "raeson", "unknown field `raeson`"),
        ] {
            let error = rules(&RULE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.starts_with("configs/toolchains.toml: TOML parse error at line "), "{error}");
            assert!(error.contains(says), "`{says}` is not in: {error}");
        }
        let error = rules(&RULE.repeat(2)).unwrap_err().to_string();
        assert_eq!(error, "configs/toolchains.toml: rule old: there are two rules with this id");
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
