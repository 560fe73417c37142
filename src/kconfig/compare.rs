//! How two configs differ, in the groups that a person looks through: new, gone, renamed, changed.

use super::Config;
use super::explain::Renames;
use serde::Serialize;
use std::collections::BTreeSet;

/// What the second config has otherwise than the first, each group in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The second says something of it, the first nothing: `n` where it is off.
    pub new: Vec<Setting>,
    /// The first says something of it, the second nothing.
    #[serde(rename = "gone")]
    pub removed: Vec<Setting>,
    /// On in both, under another name.
    pub renamed: Vec<Renamed>,
    /// Both say something of it, and not the same.
    pub changed: Vec<Changed>,
}

/// A symbol, without `CONFIG_`, and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// As in [`Config::symbols`].
    pub value: String,
}

/// A symbol of the first config that is called otherwise in the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Renamed {
    /// In the first.
    pub old: Setting,
    /// In the second; more than one where it was split.
    pub new: Vec<Setting>,
}

/// A symbol with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// In the first.
    pub from: String,
    /// In the second.
    pub to: String,
}

impl Setting {
    /// Is it neither off nor an empty text?
    pub fn is_on(&self) -> bool {
        !matches!(self.value.as_str(), "n" | "\"\"")
    }
}

impl Comparison {
    /// Does nothing that counts differ? A symbol that is off in one and unknown to the other
    /// does the same in both.
    pub fn is_equal(&self) -> bool {
        let on = |list: &[Setting]| list.iter().any(Setting::is_on);
        self.renamed.is_empty() && self.changed.is_empty() && !on(&self.new) && !on(&self.removed)
    }

    /// Leaves out every symbol that `keep` does not want; of a renamed one both names are asked.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.new.retain(|one| keep(&one.symbol));
        self.removed.retain(|one| keep(&one.symbol));
        self.renamed.retain(|one| keep(&one.old.symbol) && one.new.iter().any(|new| keep(&new.symbol)));
        self.changed.retain(|one| keep(&one.symbol));
    }
}

/// Compares `first` with `second`. The table of `renames` goes both ways: the second may be the older one.
pub fn compare(first: &Config, second: &Config, renames: &Renames) -> Comparison {
    let only = |of: &Config, other: &Config| -> Vec<Setting> {
        let own = of.symbols.iter().filter(|(symbol, _)| !other.symbols.contains_key(*symbol));
        own.map(|(symbol, value)| Setting { symbol: symbol.clone(), value: value.clone() }).collect()
    };
    let mut comparison = Comparison {
        new: only(second, first),
        removed: only(first, second),
        renamed: Vec::new(),
        changed: first
            .symbols
            .iter()
            .filter_map(|(symbol, from)| {
                let to = second.symbols.get(symbol).filter(|to| *to != from)?;
                Some(Changed { symbol: symbol.clone(), from: from.clone(), to: to.clone() })
            })
            .collect(),
    };
    let names = |old: &str| -> Vec<String> {
        let forward = renames.of(old).into_iter().flat_map(|rename| rename.new.iter().cloned());
        forward.chain(renames.to(old).map(|rename| rename.old.clone())).collect()
    };
    let mut matched = BTreeSet::new();
    for old in comparison.removed.iter().filter(|old| old.is_on()) {
        let names = names(&old.symbol);
        let is_it = |new: &&Setting| new.is_on() && names.contains(&new.symbol);
        let new: Vec<Setting> = comparison.new.iter().filter(is_it).cloned().collect();
        if !new.is_empty() {
            matched.extend(new.iter().map(|new| new.symbol.clone()));
            comparison.renamed.push(Renamed { old: old.clone(), new });
        }
    }
    comparison.new.retain(|new| !matched.contains(&new.symbol));
    let renamed: Vec<&str> = comparison.renamed.iter().map(|renamed| renamed.old.symbol.as_str()).collect();
    comparison.removed.retain(|old| !renamed.contains(&old.symbol.as_str()));
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ConfigLibrary;

    fn compared(first: &str, second: &str) -> Comparison {
        let table = "[[rename]]\nold = \"OLD\"\nnew = [\"ONE\", \"TWO\"]\nsince = \"5.1\"\n";
        let renames = Renames::read(&ConfigLibrary::from_texts([("configs/renames.toml", table)])).unwrap();
        compare(&Config::parse(first), &Config::parse(second), &renames)
    }

    fn setting(symbol: &str, value: &str) -> Setting {
        Setting { symbol: symbol.into(), value: value.into() }
    }

    #[test]
    fn differences_are_grouped() {
        let found = compared(
            "CONFIG_A=y\nCONFIG_B=m\nCONFIG_OLD=y\nCONFIG_SAME=1\n# CONFIG_OFF is not set\n",
            "CONFIG_A=m\nCONFIG_C=y\nCONFIG_ONE=y\nCONFIG_TWO=m\nCONFIG_SAME=1\n# CONFIG_NEW is not set\n",
        );
        assert_eq!(found.new, [setting("C", "y"), setting("NEW", "n")]);
        assert_eq!(found.removed, [setting("B", "m"), setting("OFF", "n")]);
        let renamed =
            Renamed { old: setting("OLD", "y"), new: vec![setting("ONE", "y"), setting("TWO", "m")] };
        assert_eq!(found.renamed, [renamed]);
        assert_eq!(found.changed, [Changed { symbol: "A".into(), from: "y".into(), to: "m".into() }]);
        assert!(!found.is_equal());
        let mut rest = found;
        rest.retain(|symbol| !matches!(symbol, "A" | "OLD" | "B" | "C"));
        assert!(rest.changed.is_empty() && rest.renamed.is_empty());
        assert_eq!((rest.new, rest.removed), (vec![setting("NEW", "n")], vec![setting("OFF", "n")]));
    }

    #[test]
    fn renames_go_both_ways_and_only_for_what_is_on() {
        let back = compared("CONFIG_ONE=y\n", "CONFIG_OLD=y\n");
        assert_eq!(back.renamed[0].new, [setting("OLD", "y")]);
        let off = compared("CONFIG_OLD=y\n", "# CONFIG_ONE is not set\n");
        assert!(off.renamed.is_empty() && off.removed.len() == 1 && off.new.len() == 1);
    }

    #[test]
    fn off_and_unknown_are_the_same() {
        assert!(compared("# CONFIG_A is not set\nCONFIG_S=\"\"\n", "# CONFIG_B is not set\n").is_equal());
        assert!(!compared("", "CONFIG_A=m\n").is_equal());
    }
}
