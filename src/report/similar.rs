//! Joins similar warnings about settings. A config of another version or architecture may have hundreds.

use crate::util::text::{join_first, pluralize};

/// The most warnings of one kind, and the most names in a warning about more of them.
const MAX_EQUAL: usize = 3;
/// The most warnings in all.
const MAX_WARNINGS: usize = 12;

/// A warning about one setting that did not take effect, or about several that need the same.
#[derive(Clone, Debug)]
pub struct SettingsWarning {
    /// Begins with `CONFIG_X=y `. The receipt has it.
    pub text: String,
    /// The same for each setting.
    pub settings: Vec<String>,
}

impl SettingsWarning {
    /// Reads a warning of the cache, which has only the text.
    pub fn from_text(text: String) -> SettingsWarning {
        SettingsWarning { settings: vec![text.clone()], text }
    }

    fn with_list(&self, list: &str) -> String {
        if self.settings.len() > MAX_EQUAL {
            format!("{}; {list} with the same options lists all", self.text)
        } else {
            self.text.clone()
        }
    }
}

/// Returns fewer warnings that say the same as `warnings`. `list` is the command that prints all of them.
pub(super) fn join_similar(warnings: &[SettingsWarning], list: &str) -> Vec<String> {
    let mut groups: Vec<(String, Vec<&SettingsWarning>)> = Vec::new();
    for warning in warnings {
        let kind = kind(&warning.text);
        match groups.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, group)) => group.push(warning),
            None => groups.push((kind, vec![warning])),
        }
    }
    let rest = groups.split_off(groups.len().min(MAX_WARNINGS));
    let mut joined = Vec::new();
    for (kind, group) in groups {
        if group.len() <= MAX_EQUAL {
            joined.extend(group.into_iter().map(|warning| warning.with_list(list)));
            continue;
        }
        let (what, by) = kind.rsplit_once(" (").unwrap_or((&kind, ""));
        let (count, names) = (group.len(), names(&group));
        joined
            .push(format!("{count} settings {what}: {names} ({by}; {list} with the same options lists all"));
    }
    let rest: Vec<&SettingsWarning> = rest.into_iter().flat_map(|(_, group)| group).collect();
    if !rest.is_empty() {
        let count: usize = rest.iter().map(|warning| warning.settings.len()).sum();
        let count = pluralize(count, "more setting", "more settings");
        let names = names(&rest);
        joined.push(format!("{count} did not take effect: {names}; {list} with the same options lists all"));
    }
    joined
}

/// Returns what happened to the setting, in the plural and without the suggestions for its name.
fn kind(warning: &str) -> String {
    let what = warning.split_once(' ').map_or(warning, |(_, what)| what);
    let what = match what.split_once(' ') {
        Some(("is", rest)) => format!("are {rest}"),
        Some(("has", rest)) => format!("have {rest}"),
        _ => what.to_owned(),
    };
    match what.split_once(" (nearest: ").and_then(|(what, rest)| Some((what, rest.split_once(')')?.1))) {
        Some((what, rest)) => format!("{what}{rest}"),
        None => what,
    }
}

fn names(warnings: &[&SettingsWarning]) -> String {
    let settings = warnings.iter().flat_map(|warning| &warning.settings);
    let names: Vec<&str> = settings.filter_map(|setting| setting.split('=').next()).collect();
    join_first(&names, MAX_EQUAL, ", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(warnings: &[String]) -> Vec<String> {
        let warnings: Vec<_> = warnings.iter().cloned().map(SettingsWarning::from_text).collect();
        join_similar(&warnings, "`list`")
    }

    #[test]
    fn many_warnings_of_one_kind_are_one() {
        let unknown = |n| {
            let nearest = if n == 1 { " (nearest: A, B)" } else { "" };
            format!("CONFIG_{n}=y is missing: no such symbol in this kernel{nearest} (requested by x)")
        };
        let mut all: Vec<String> = (0..5).map(unknown).collect();
        all.insert(1, "CONFIG_Z=y became n: not met (requested by x)".to_owned());
        let one = "5 settings are missing: no such symbol in this kernel: CONFIG_0, CONFIG_1, CONFIG_2 and 2 more \
                   (requested by x); `list` with the same options lists all";
        assert_eq!(joined(&all), [one, "CONFIG_Z=y became n: not met (requested by x)"]);
        assert_eq!(joined(&all[2..4]), all[2..4]);
    }

    #[test]
    fn many_kinds_are_cut() {
        let all: Vec<String> =
            (0..20).map(|n| format!("CONFIG_{n}=y became n: {n} (requested by x)")).collect();
        let joined = joined(&all);
        assert_eq!(joined[..12], all[..12]);
        let rest = "8 more settings did not take effect: CONFIG_12, CONFIG_13, CONFIG_14 and 5 more; `list` with the \
                    same options lists all";
        assert_eq!(joined[12..], [rest]);
    }
}
