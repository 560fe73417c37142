//! Warnings about settings that did not take effect. One warning covers all settings that need the same other
//! settings, since a new kernel may put many options behind one.

use crate::kconfig::{Difference, Setting};
use crate::plan::Plan;
use crate::report::SettingsWarning;
use crate::util::text::join_first;

/// The most names in a warning about several settings. The receipt has all.
const MAX_NAMED: usize = 3;

/// Settings that did not take effect, and other settings that they need.
struct Group<'a> {
    /// The index of the config that has the settings.
    layer: usize,
    needed: Vec<Setting>,
    differences: Vec<&'a Difference>,
}

/// Returns a warning for each of `differences`, or one for several that have a needed setting in common.
pub fn warnings(differences: &[&Difference], plan: &Plan) -> Vec<SettingsWarning> {
    let name = |layer: usize| plan.config[layer].name.as_str();
    let is_requested = |setting: &Setting| {
        plan.config.iter().any(|layer| layer.config.symbols.get(&setting.symbol) == Some(&setting.value))
    };
    groups(differences, is_requested).iter().map(|group| warning(group, name(group.layer))).collect()
}

/// Joins the differences that have a needed setting in common, except requested ones, which need others themselves.
fn groups<'a>(differences: &[&'a Difference], is_requested: impl Fn(&Setting) -> bool) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for difference in differences {
        let needed = difference.cause.iter().flat_map(|cause| &cause.set).filter(|one| !is_requested(one));
        let mut group = Group {
            layer: difference.layer,
            needed: needed.cloned().collect(),
            differences: vec![*difference],
        };
        let shares = |other: &mut Group<'_>| {
            other.layer == group.layer && other.needed.iter().any(|one| group.needed.contains(one))
        };
        let found: Vec<Group<'a>> = groups.extract_if(.., shares).collect();
        for one in found.into_iter().rev() {
            group.needed.extend(one.needed);
            group.differences.splice(0..0, one.differences);
        }
        group.needed.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        group.needed.dedup();
        groups.push(group);
    }
    groups
}

fn warning(group: &Group<'_>, config: &str) -> SettingsWarning {
    let by = format!("(requested by {config})");
    let settings: Vec<String> = group.differences.iter().map(|one| format!("{one} {by}")).collect();
    let text = match &group.differences[..] {
        [_] => settings[0].clone(),
        [first, others @ ..] => {
            let needed: Vec<String> =
                group.needed.iter().map(|one| format!("CONFIG_{}={}", one.symbol, one.value)).collect();
            let names: Vec<String> = others.iter().map(|one| format!("CONFIG_{}", one.symbol)).collect();
            format!(
                "CONFIG_{}={} and {} more did not take effect; set {} too: {} {by}",
                first.symbol,
                first.requested,
                others.len(),
                needed.join(", "),
                join_first(&names, MAX_NAMED, ", ")
            )
        }
        [] => unreachable!("a group has a difference"),
    };
    SettingsWarning { text, settings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kconfig::explain::{Cause, CauseKind};

    fn setting(text: &str) -> Setting {
        let (symbol, value) = text.split_once('=').unwrap();
        Setting { symbol: symbol.to_owned(), value: value.to_owned() }
    }

    fn difference(symbol: &str, needed: &[&str]) -> Difference {
        let set = needed.iter().map(|one| setting(one)).collect();
        let cause =
            Cause { kind: CauseKind::DependsOn, unmet: None, symbols: Vec::new(), set, possible: Some(true) };
        Difference {
            symbol: symbol.to_owned(),
            requested: "m".to_owned(),
            found: None,
            layer: 0,
            reason: Some("depends on X (n)".to_owned()),
            cause: Some(cause),
        }
    }

    fn texts(differences: &[Difference], requested: &str) -> Vec<String> {
        let differences: Vec<&Difference> = differences.iter().collect();
        let groups = groups(&differences, |one| *one == setting(requested));
        groups.iter().map(|group| warning(group, "x").text).collect()
    }

    #[test]
    fn settings_that_need_the_same_are_one_warning() {
        let all = [
            difference("FILTER", &["TABLES=y"]),
            difference("OTHER", &["ELSE=y"]),
            difference("NAT", &["TABLES=y"]),
            difference("BRIDGE", &["BRIDGES=m", "TABLES=y"]),
            difference("LONE", &[]),
            difference("LONE_TOO", &[]),
        ];
        assert_eq!(
            texts(&all, "NONE=y"),
            [
                "CONFIG_OTHER=m is missing: depends on X (n) (requested by x)",
                "CONFIG_FILTER=m and 2 more did not take effect; set CONFIG_BRIDGES=m, CONFIG_TABLES=y too: \
                 CONFIG_NAT, CONFIG_BRIDGE (requested by x)",
                "CONFIG_LONE=m is missing: depends on X (n) (requested by x)",
                "CONFIG_LONE_TOO=m is missing: depends on X (n) (requested by x)",
            ]
        );
    }

    #[test]
    fn a_setting_that_joins_two_groups_joins_them_in_order() {
        let all = [difference("A", &["X=y"]), difference("B", &["Y=y"]), difference("C", &["X=y", "Y=y"])];
        let one = "CONFIG_A=m and 2 more did not take effect; set CONFIG_X=y, CONFIG_Y=y too: CONFIG_B, CONFIG_C \
                   (requested by x)";
        assert_eq!(texts(&all, "NONE=y"), [one]);
        // A requested setting comes back with what it needs, so it joins nothing.
        assert_eq!(texts(&all[..1], "X=y").len(), 1);
        assert_eq!(texts(&[difference("A", &["R=m"]), difference("B", &["R=m"])], "R=m").len(), 2);
    }
}
