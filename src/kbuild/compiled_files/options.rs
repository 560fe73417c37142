//! Finds the option without which Kbuild does not compile a file, in the Makefiles of the source tree.

use crate::kconfig::Config;
use crate::util::read::{Links, MAX_JSON, read_text};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::{BTreeSet, HashMap};

/// How deep composite objects and directories are followed.
const MAX_DEPTH: usize = 16;

/// A line of a Makefile that adds objects or directories.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// `obj`, `lib`, or the name of a composite object.
    list: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// The name of an option, without `CONFIG_`.
    Option(String),
    /// An expression that is not understood.
    Unknown,
}

/// The Makefiles of a tree, which are read when they are needed.
pub(super) struct Options<'a> {
    tree: &'a Utf8Path,
    config: &'a Config,
    /// For each directory, the rules that add a word.
    makefiles: HashMap<Utf8PathBuf, HashMap<String, Vec<Rule>>>,
}

impl<'a> Options<'a> {
    pub fn new(tree: &'a Utf8Path, config: &'a Config) -> Options<'a> {
        Options { tree, config, makefiles: HashMap::new() }
    }

    /// Returns the only option that the source `path` is compiled for, with `CONFIG_`. Headers have none.
    pub fn of(&mut self, path: &str) -> Option<String> {
        let path = Utf8Path::new(path);
        if !matches!(path.extension(), Some("c" | "S" | "rs")) {
            return None;
        }
        let option = self.find(path.parent()?, &format!("{}.o", path.file_stem()?), 0)?;
        (self.config.value(&option) != "n").then(|| format!("CONFIG_{option}"))
    }

    /// Returns the option for the object or directory `word` of the Makefile in `dir`.
    fn find(&mut self, dir: &Utf8Path, word: &str, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        let Some(rules) = self.rules(dir).get(word).cloned() else {
            // A Makefile of a parent may name it by a longer path.
            let (parent, name) = (dir.parent()?, dir.file_name()?);
            return self.find(parent, &format!("{name}/{word}"), depth + 1);
        };
        let mut options = BTreeSet::new();
        for rule in rules {
            options.insert(match rule.condition {
                Condition::Unknown => return None,
                Condition::Option(option) => option,
                Condition::Always if matches!(&*rule.list, "obj" | "lib" | "core" | "drivers" | "libs") => {
                    let (parent, name) = (dir.parent()?, dir.file_name()?);
                    self.find(parent, &format!("{name}/"), depth + 1)?
                }
                Condition::Always => self.find(dir, &format!("{}.o", rule.list), depth + 1)?,
            });
        }
        if options.len() == 1 { options.pop_first() } else { None }
    }

    fn rules(&mut self, dir: &Utf8Path) -> &HashMap<String, Vec<Rule>> {
        let tree = self.tree;
        self.makefiles.entry(dir.to_owned()).or_insert_with(|| {
            let read = |name| read_text(tree.join(dir).join(name), Links::RefuseAnywhere, MAX_JSON).ok();
            // Kbuild prefers the file Kbuild.
            parse(&read("Kbuild").or_else(|| read("Makefile")).unwrap_or_default())
        })
    }
}

/// Parses the rules of a Makefile.
fn parse(text: &str) -> HashMap<String, Vec<Rule>> {
    let mut rules: HashMap<String, Vec<Rule>> = HashMap::new();
    for line in text.replace("\\\n", " ").lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some((variable, words)) = line.split_once('=') else { continue };
        let variable = variable.trim().trim_end_matches([':', '+']).trim();
        let Some((list, condition)) = split_variable(variable) else { continue };
        let rule = Rule { list: list.to_owned(), condition };
        for word in words.split_whitespace().filter(|word| word.ends_with(".o") || word.ends_with('/')) {
            rules.entry(word.to_owned()).or_default().push(rule.clone());
        }
    }
    rules
}

/// Splits `obj-$(CONFIG_EXT4_FS)` into its list and its condition.
fn split_variable(variable: &str) -> Option<(&str, Condition)> {
    if let Some(list) = ["-y", "-m", "-objs"].iter().find_map(|end| variable.strip_suffix(end)) {
        return Some((list, Condition::Always));
    }
    let (list, expression) = variable.split_once("-$(")?;
    let option = expression.strip_suffix(')').and_then(|inner| inner.strip_prefix("CONFIG_"));
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let condition =
        option.filter(is_name).map_or(Condition::Unknown, |name| Condition::Option(name.to_owned()));
    Some((list, condition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn options_are_found_through_composites_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Utf8Path::from_path(dir.path()).unwrap().canonicalize_utf8().unwrap();
        for (path, text) in [
            ("Kbuild", "obj-y += fs/ kernel/\nobj-$(CONFIG_DUMMY) += drivers/net/dummy.o\n"),
            ("fs/Makefile", "obj-y := open.o\nobj-$(CONFIG_EXT4_FS) += ext4/\n"),
            (
                "fs/ext4/Makefile",
                "obj-$(CONFIG_EXT4_FS) += ext4.o\next4-y := balloc.o \\\n  inode.o # x.o\n\
                 ext4-$(CONFIG_EXT4_ACL) += acl.o\nobj-$(CONFIG_A) += two.o\nobj-$(CONFIG_B) += two.o\n\
                 obj-$(subst m,y,$(CONFIG_A)) += odd.o\nobj-$(CONFIG_OFF) += off.o\n",
            ),
            ("kernel/Makefile", "obj-y := fork.o loop/\n"),
            ("kernel/loop/Makefile", "loop-y := loop.o\n"),
        ] {
            fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), text).unwrap();
        }
        let config = "DUMMY EXT4_FS EXT4_ACL A B".split(' ').map(|name| format!("CONFIG_{name}=y\n"));
        let config = Config::parse(&config.collect::<String>());
        let mut options = Options::new(&tree, &config);
        for (path, expected) in [
            ("fs/ext4/inode.c", Some("CONFIG_EXT4_FS")),
            ("fs/ext4/acl.c", Some("CONFIG_EXT4_ACL")),
            ("fs/ext4/two.c", None),
            ("fs/ext4/odd.c", None),
            ("fs/ext4/off.c", None),
            ("fs/ext4/ext4.h", None),
            ("fs/open.c", None),
            ("kernel/fork.c", None),
            ("kernel/loop/loop.c", None),
            ("drivers/net/dummy.c", Some("CONFIG_DUMMY")),
        ] {
            assert_eq!(options.of(path).as_deref(), expected, "{path}");
        }
    }
}
