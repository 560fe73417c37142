//! Reads `configs/renames.toml`, the table of renamed and removed symbols.

use crate::catalog::ConfigLibrary;
use crate::catalog::text::read_toml;
use crate::kernel::KernelVersion;
use crate::util::error::Result;
use serde::Deserialize;

const FILE: &str = "configs/renames.toml";

/// A renamed or removed symbol.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// Without `CONFIG_`.
    pub old: String,
    /// Its new names, or the symbols that replace it. Empty if it was removed.
    #[serde(default)]
    pub new: Vec<String>,
    /// The first version without the old name.
    pub since: KernelVersion,
    /// What happened to it, in a few words.
    #[serde(default)]
    pub note: Option<String>,
}

/// The whole table.
#[derive(Clone, Debug, Default)]
pub struct Renames {
    /// In the order of the file. The user's own entries come last.
    pub list: Vec<Rename>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rename: Vec<Rename>,
    #[serde(default)]
    removed: Vec<Removed>,
}

/// Symbols that went away in one version for one reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Removed {
    /// Without `CONFIG_`.
    symbols: Vec<String>,
    /// The first version without them.
    since: KernelVersion,
    note: String,
}

impl File {
    /// Returns an entry for each symbol of the file.
    fn entries(self) -> impl Iterator<Item = Rename> {
        let removed = self.removed.into_iter().flat_map(|Removed { symbols, since, note }| {
            symbols.into_iter().map(move |old| Rename {
                old,
                new: Vec::new(),
                since,
                note: Some(note.clone()),
            })
        });
        self.rename.into_iter().chain(removed)
    }
}

impl Renames {
    /// Reads every layer of `configs/renames.toml`. A later entry replaces an earlier one with the same old name.
    ///
    /// # Errors
    ///
    /// Exit code 2 if a file has a mistake. The error names file, line and field.
    pub fn read(library: &ConfigLibrary) -> Result<Renames> {
        let mut renames = Renames::default();
        for (name, text) in library.layers(FILE) {
            let file: File = read_toml(name, text)?;
            for rename in file.entries() {
                renames.list.retain(|old| old.old != rename.old);
                renames.list.push(rename);
            }
        }
        Ok(renames)
    }

    /// Returns the entry whose old name is `symbol`.
    pub fn of(&self, symbol: &str) -> Option<&Rename> {
        self.list.iter().find(|rename| rename.old == symbol)
    }

    /// Returns the entry whose old name is `symbol`, then the entries of its new names, and so on.
    pub fn chain<'a>(&'a self, symbol: &str) -> impl Iterator<Item = &'a Rename> {
        let next = |rename: &&'a Rename| rename.new.iter().find_map(|new| self.of(new));
        // The table may have a circle.
        std::iter::successors(self.of(symbol), move |rename| next(rename)).take(8)
    }

    /// Returns the names of `symbol` in an older or newer kernel, or nothing if they are unknown.
    pub fn successors<'a>(&'a self, symbol: &'a str, is_defined: impl Fn(&str) -> bool) -> Vec<&'a str> {
        let there = |rename: &'a Rename| -> Vec<&'a str> {
            rename.new.iter().map(String::as_str).filter(|new| is_defined(new)).collect()
        };
        let newer = self.chain(symbol).map(there).find(|there| !there.is_empty());
        let older = || self.to(symbol).map(|rename| rename.old.as_str()).find(|old| is_defined(old));
        newer.unwrap_or_else(|| older().into_iter().collect())
    }

    /// Returns the entries that have `symbol` as a new name.
    pub fn to<'a>(&'a self, symbol: &'a str) -> impl Iterator<Item = &'a Rename> {
        self.list.iter().filter(move |rename| rename.new.iter().any(|new| new == symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kconfig::requirements;

    #[test]
    fn the_built_in_table_is_sound() {
        let renames = Renames::read(&ConfigLibrary::built_in()).unwrap();
        assert!(renames.list.len() > 30);
        for rename in &renames.list {
            assert!(!rename.new.is_empty() || rename.note.is_some(), "{}: neither name nor note", rename.old);
            assert!(!rename.new.contains(&rename.old), "{}", rename.old);
        }
    }

    #[test]
    fn the_built_in_table_names_each_symbol_once() {
        let library = ConfigLibrary::built_in();
        let (name, text) = library.layers(FILE).next().unwrap();
        let file: File = read_toml(name, text).unwrap();
        let mut names: Vec<String> = file.entries().map(|rename| rename.old).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert!(count > 300 && count == names.len(), "{count} entries, {} names", names.len());
    }

    #[test]
    fn chains_of_the_built_in_table_go_forward_and_end() {
        let renames = Renames::read(&ConfigLibrary::built_in()).unwrap();
        for rename in &renames.list {
            let since: Vec<_> = renames.chain(&rename.old).map(|step| step.since).collect();
            assert!(since.is_sorted() && since.len() < 4, "{}: {since:?}", rename.old);
        }
    }

    /// A line for a kernel that no longer has the symbol can never be met.
    #[test]
    fn profiles_ask_for_a_symbol_only_where_it_exists() {
        let library = ConfigLibrary::built_in();
        let renames = Renames::read(&library).unwrap();
        let profiles = requirements::read_all(&library, &requirements::names(&library)).unwrap();
        for profile in profiles {
            for line in &profile.options {
                let gone = |alternative: &requirements::Alternative| {
                    let since = renames.of(&alternative.symbol)?.since;
                    line.kernel.as_ref().is_none_or(|range| range.contains(since)).then_some(since)
                };
                let all: Option<Vec<_>> = line.alternatives.iter().map(gone).collect();
                assert_eq!(all, None, "{}: {:?}", profile.name, line.alternatives);
            }
        }
    }

    #[test]
    fn removed_symbols_share_a_version_and_a_note() {
        let text = "[[removed]]\nsymbols = [\"A\", \"B\"]\nsince = \"6.1\"\nnote = \"gone\"\n";
        let renames = Renames::read(&ConfigLibrary::from_texts([(FILE, text)])).unwrap();
        let all =
            renames.list.iter().map(|rename| format!("{} {} {:?}", rename.old, rename.since, rename.note));
        assert_eq!(all.collect::<Vec<_>>(), ["A 6.1 Some(\"gone\")", "B 6.1 Some(\"gone\")"]);
    }

    #[test]
    fn names_are_followed_both_ways() {
        let text = "[[rename]]\nold = \"A\"\nnew = [\"B\", \"C\"]\nsince = \"5.1\"\n\
                    [[rename]]\nold = \"B\"\nnew = [\"D\"]\nsince = \"6.1\"\n\
                    [[rename]]\nold = \"X\"\nnew = [\"Y\"]\nsince = \"6.1\"\n\
                    [[rename]]\nold = \"Y\"\nnew = [\"X\"]\nsince = \"6.2\"\n";
        let renames = Renames::read(&ConfigLibrary::from_texts([(FILE, text)])).unwrap();
        let now =
            |symbol, kernel: &[&str]| renames.successors(symbol, |name| kernel.contains(&name)).join(" ");
        assert_eq!(now("A", &["B", "C"]), "B C");
        assert_eq!(now("A", &["D"]), "D");
        assert_eq!(now("D", &["B"]), "B");
        assert_eq!((now("X", &["Z"]), now("Z", &["A"])), (String::new(), String::new()));
    }

    #[test]
    fn a_users_entry_replaces_ours() {
        let text = "[[rename]]\nold = \"A\"\nsince = \"5.1\"\nnote = \"gone\"\n\
                    [[rename]]\nold = \"A\"\nnew = [\"B\"]\nsince = \"5.1\"\n";
        let renames = Renames::read(&ConfigLibrary::from_texts([(FILE, text)])).unwrap();
        assert_eq!(renames.of("A").unwrap().new, ["B"]);
        assert_eq!(renames.to("B").count(), 1);
        let message = ConfigLibrary::from_texts([(FILE, "[[rename]]\nold = 1\n")]);
        let error = Renames::read(&message).unwrap_err().to_string();
        assert!(
            error.starts_with("configs/renames.toml: TOML parse error at line 2, column 7: old: "),
            "{error}"
        );
    }
}
