//! Judges by its version alone whether a kernel suits a consumer. No config is needed.

use super::profile::{KernelRule, Level, Profile};
use crate::kernel::KernelVersion;
use serde::Serialize;

/// How well a version suits a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SupportLevel {
    /// All rules for the version are met.
    #[serde(rename = "full")]
    Full,
    /// A recommended rule is not met.
    #[serde(rename = "limited")]
    Limited,
    /// A required rule is not met.
    #[serde(rename = "below-minimum")]
    BelowMinimum,
}

/// Returns how well `version` suits the consumer of `profile`, and the rules that it does not meet,
/// in the order of the profile.
pub fn support(profile: &Profile, version: KernelVersion) -> (SupportLevel, Vec<&KernelRule>) {
    let unmet: Vec<&KernelRule> = profile.kernel.iter().filter(|rule| !rule.admits(version)).collect();
    let level = if unmet.is_empty() {
        SupportLevel::Full
    } else if unmet.iter().all(|rule| rule.level == Level::Recommended) {
        SupportLevel::Limited
    } else {
        SupportLevel::BelowMinimum
    };
    (level, unmet)
}

#[cfg(test)]
mod tests {
    use super::super::profile::read;
    use super::*;
    use crate::catalog::ConfigLibrary;

    #[test]
    fn kubernetes_minimum_is_cgroup_v2() {
        let profile = read(&ConfigLibrary::built_in(), "kubernetes-1.37").unwrap();
        let of = |version: &str| {
            let (fitness, unmet) = support(&profile, version.parse().unwrap());
            (fitness, unmet.iter().map(|rule| rule.version.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(of("6.12.8"), (SupportLevel::Full, vec![]));
        assert_eq!(of("6.1"), (SupportLevel::Limited, vec![">=6.3".to_owned(), ">=6.5".to_owned()]));
        let (fitness, unmet) = of("5.12");
        assert_eq!(fitness, SupportLevel::Limited);
        assert!(unmet.iter().any(|range| range.starts_with("5.4 | 5.10")), "{unmet:?}");
        for old in ["5.2.21", "4.19.215"] {
            let (fitness, unmet) = of(old);
            assert!(
                fitness == SupportLevel::BelowMinimum && unmet.contains(&">=5.8".to_owned()),
                "{unmet:?}"
            );
        }
        assert!(of("4.19.215").1.contains(&">=4.20".to_owned()));
    }
}
