//! Checks a config against profiles. Each line of a profile gives one result.

use super::profile::{Alternative, KernelRule, Level, Profile, Requirement, Value};
use crate::kconfig::Config;
use crate::kernel::{Arch, KernelVersion};
use serde::Serialize;
use std::fmt;

/// What a result shows if several symbols are all off.
const NONE_ENABLED: &str = "none is on";

#[derive(Clone, Copy, Debug)]
pub struct CheckInput<'a> {
    pub config: &'a Config,
    pub version: KernelVersion,
    pub arch: Arch,
    /// Says what a missing symbol means.
    pub stage: Stage,
}

/// Whether `olddefconfig` has completed a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Completed. A missing symbol is off.
    #[serde(rename = "final")]
    Final,
    /// Not completed. The kernel's defaults and selections decide a missing symbol.
    #[serde(rename = "as-asked-for")]
    Requested,
}

/// One line of a profile, and what the config has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequirementResult {
    /// The requested profile. The line may come from a profile that it includes.
    pub profile: String,
    /// `PSI` or `IP_NF_TARGET_REJECT|NFT_REJECT`. Empty for a line about the kernel version.
    pub symbols: Vec<String>,
    /// `y`, `y or m`, `off`, or a range of versions.
    #[serde(rename = "wanted")]
    pub requested: String,
    /// The value in the config, `not set`, `missing`, or the kernel version.
    pub found: String,
    /// How severe it is if the line is not met.
    pub level: Level,
    pub reason: String,
    /// Source of the requirement.
    pub source: String,
    #[serde(rename = "verdict")]
    pub status: RequirementStatus,
}

/// Result of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequirementStatus {
    #[serde(rename = "passed")]
    Passed,
    /// The line is not met.
    #[serde(rename = "failed")]
    Failed,
    /// `olddefconfig` has not run yet, and decides.
    #[serde(rename = "open")]
    Undecided,
    /// The line is for other kernel versions or architectures.
    #[serde(rename = "not-applicable")]
    NotApplicable,
}

/// Counts of the results of one profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub profile: String,
    pub passed: usize,
    /// Required lines that are not met, and forbidden options that are on.
    pub failed: usize,
    /// Recommended lines that are not met.
    #[serde(rename = "advised")]
    pub recommended_failed: usize,
    #[serde(rename = "open")]
    pub undecided: usize,
    pub not_applicable: usize,
}

impl RequirementResult {
    /// Whether a required line is not met or a forbidden option is on.
    pub fn is_fatal(&self) -> bool {
        self.is_failure() && self.level != Level::Recommended
    }

    /// Whether a recommended line is not met.
    pub fn is_advice(&self) -> bool {
        self.is_failure() && self.level == Level::Recommended
    }

    /// Whether the line is not met, at any level.
    pub fn is_failure(&self) -> bool {
        self.status == RequirementStatus::Failed
    }

    /// Returns the subject of the line, such as `PSI`, `A | B` or `kernel version`.
    pub fn symbols_text(&self) -> String {
        if self.symbols.is_empty() { "kernel version".to_owned() } else { self.symbols.join(" | ") }
    }
}

impl fmt::Display for RequirementResult {
    /// Returns `CONFIG_PSI is not set, wanted y` or `none of A, B is on, wanted y or m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RequirementResult { symbols, found, requested, .. } = self;
        match &symbols[..] {
            [] => write!(f, "the kernel is {found}, wanted {requested}"),
            [symbol] => write!(f, "CONFIG_{} is {found}, wanted {requested}", symbol.trim_start_matches('!')),
            several if found == NONE_ENABLED => {
                write!(f, "none of {} is on, wanted {requested}", several.join(", "))
            }
            several => write!(f, "the values of {} are {found}, wanted {requested}", several.join(", ")),
        }
    }
}

/// Checks a config against all lines of the profiles, in their order.
pub fn check(profiles: &[Profile], input: &CheckInput<'_>) -> Vec<RequirementResult> {
    let mut results = Vec::new();
    for profile in profiles {
        results.extend(profile.kernel.iter().map(|rule| check_version(profile, rule, input.version)));
        results.extend(profile.options.iter().map(|line| check_option(profile, line, input)));
    }
    results
}

/// Counts the results of each profile.
pub fn tallies(results: &[RequirementResult]) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = Vec::new();
    for result in results {
        if tallies.last().is_none_or(|tally| tally.profile != result.profile) {
            let profile = result.profile.clone();
            tallies.push(Tally {
                profile,
                passed: 0,
                failed: 0,
                recommended_failed: 0,
                undecided: 0,
                not_applicable: 0,
            });
        }
        let tally = tallies.last_mut().expect("one was just added");
        match result.status {
            RequirementStatus::Passed => tally.passed += 1,
            RequirementStatus::Failed if result.is_advice() => tally.recommended_failed += 1,
            RequirementStatus::Failed => tally.failed += 1,
            RequirementStatus::Undecided => tally.undecided += 1,
            RequirementStatus::NotApplicable => tally.not_applicable += 1,
        }
    }
    tallies
}

fn check_version(profile: &Profile, rule: &KernelRule, version: KernelVersion) -> RequirementResult {
    RequirementResult {
        profile: profile.name.clone(),
        symbols: Vec::new(),
        requested: rule.version.to_string(),
        found: version.to_string(),
        level: rule.level,
        reason: rule.reason.clone(),
        source: rule.source.clone(),
        status: if rule.admits(version) { RequirementStatus::Passed } else { RequirementStatus::Failed },
    }
}

fn check_option(profile: &Profile, line: &Requirement, input: &CheckInput<'_>) -> RequirementResult {
    let applies = line.kernel.as_ref().is_none_or(|range| range.contains(input.version))
        && (line.arch.is_empty() || line.arch.contains(&input.arch));
    let status = if applies { evaluate(line, input) } else { RequirementStatus::NotApplicable };
    RequirementResult {
        profile: profile.name.clone(),
        symbols: line.alternatives.iter().map(ToString::to_string).collect(),
        requested: match (line.level, line.value) {
            (Level::Forbidden, _) => "off".to_owned(),
            _ if line.alternatives.iter().all(|alternative| alternative.negated) => "off".to_owned(),
            (_, Value::Y) => "y".to_owned(),
            (_, Value::YOrM) => "y or m".to_owned(),
        },
        found: describe_found(line, input),
        level: line.level,
        reason: line.reason.clone(),
        source: line.source.clone(),
        status,
    }
}

fn evaluate(line: &Requirement, input: &CheckInput<'_>) -> RequirementStatus {
    // `None` if the config does not have the symbol.
    let is_met = |alternative: &Alternative| {
        let value = match (input.config.symbols.get(&alternative.symbol), input.stage) {
            (Some(value), _) => value.as_str(),
            (None, Stage::Final) => "n",
            (None, Stage::Requested) => return None,
        };
        Some(match (alternative.negated, line.value) {
            (true, _) => value == "n",
            // A number or a string also counts as on.
            (false, _) if line.level == Level::Forbidden => value != "n",
            (false, Value::Y) => value != "n" && value != "m",
            (false, Value::YOrM) => value != "n",
        })
    };
    let values: Vec<Option<bool>> = line.alternatives.iter().map(is_met).collect();
    let any = if values.contains(&Some(true)) {
        Some(true)
    } else if values.contains(&None) {
        None
    } else {
        Some(false)
    };
    match any.map(|any| any != (line.level == Level::Forbidden)) {
        // The kernel may drop the setting, or force it on.
        Some(true) if input.stage == Stage::Requested => RequirementStatus::Undecided,
        Some(true) => RequirementStatus::Passed,
        Some(false) => RequirementStatus::Failed,
        None => RequirementStatus::Undecided,
    }
}

/// Returns the value of the only symbol, or the symbols that are on if the line has several.
fn describe_found(line: &Requirement, input: &CheckInput<'_>) -> String {
    let config = input.config;
    if let [only] = &line.alternatives[..] {
        return match (config.symbols.get(&only.symbol).map(String::as_str), input.stage) {
            (None, Stage::Final) => "missing".to_owned(),
            (None, Stage::Requested) => "not listed".to_owned(),
            (Some("n"), _) => "not set".to_owned(),
            (Some(value), _) => value.to_owned(),
        };
    }
    let symbols = line.alternatives.iter().map(|alternative| &alternative.symbol);
    let on: Vec<String> = symbols
        .filter(|symbol| config.value(symbol) != "n")
        .map(|symbol| format!("{symbol}={}", config.value(symbol)))
        .collect();
    if on.is_empty() { NONE_ENABLED.to_owned() } else { on.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::profile::read;
    use super::*;
    use crate::catalog::ConfigLibrary;

    const PROFILE: &str = r#"
        title = "t"
        source = "s"
        [[kernel]]
        version = ">=5.8"
        level = "required"
        reason = "r"
        [[option]]
        symbols = ["IN", "ONE|OTHER", "SAFE|!DANGER"]
        level = "required"
        reason = "r"
        [[option]]
        symbols = ["BUILT"]
        value = "y"
        level = "recommended"
        reason = "r"
        [[option]]
        symbols = ["BAD"]
        level = "forbidden"
        reason = "r"
        [[option]]
        symbols = ["OLD"]
        kernel = "<5.2"
        level = "required"
        reason = "r"
        [[option]]
        symbols = ["ELSEWHERE"]
        arch = ["arm64"]
        level = "required"
        reason = "r"
    "#;

    fn verdicts(config: &str, version: &str, stage: Stage) -> Vec<(String, RequirementStatus, String)> {
        let library = ConfigLibrary::from_texts([("configs/requirements/p.toml", PROFILE)]);
        let profile = read(&library, "p").unwrap();
        let config = Config::parse(config);
        let input =
            CheckInput { config: &config, version: version.parse().unwrap(), arch: Arch::Amd64, stage };
        let results = check(&[profile], &input);
        results.into_iter().map(|one| (one.symbols_text(), one.status, one.found)).collect()
    }

    fn of(verdicts: &[(String, RequirementStatus, String)]) -> Vec<RequirementStatus> {
        verdicts.iter().map(|(_, status, _)| *status).collect()
    }

    #[test]
    fn what_is_there_passes() {
        use RequirementStatus::{NotApplicable, Passed};
        let config = "CONFIG_IN=m\nCONFIG_OTHER=y\nCONFIG_BUILT=y\n";
        let came = verdicts(config, "5.10.77", Stage::Final);
        assert_eq!(of(&came), [Passed, Passed, Passed, Passed, Passed, Passed, NotApplicable, NotApplicable]);
        assert_eq!(came[2], ("ONE | OTHER".to_owned(), Passed, "OTHER=y".to_owned()));
    }

    #[test]
    fn what_is_missing_fails() {
        use RequirementStatus::{Failed, NotApplicable};
        let config = "# CONFIG_IN is not set\nCONFIG_DANGER=y\nCONFIG_BUILT=m\nCONFIG_BAD=m\n";
        let came = verdicts(config, "4.19.215", Stage::Final);
        assert_eq!(of(&came), [Failed, Failed, Failed, Failed, Failed, Failed, Failed, NotApplicable]);
        let found: Vec<&str> = came.iter().map(|(_, _, found)| found.as_str()).collect();
        assert_eq!(found, ["4.19.215", "not set", "none is on", "DANGER=y", "m", "m", "missing", "missing"]);
    }

    #[test]
    fn before_olddefconfig_nothing_is_met() {
        use RequirementStatus::{Failed, NotApplicable, Passed, Undecided};
        let came = verdicts("# CONFIG_IN is not set\nCONFIG_ONE=y\n", "5.10", Stage::Requested);
        assert_eq!(
            of(&came),
            [Passed, Failed, Undecided, Undecided, Undecided, Undecided, NotApplicable, NotApplicable]
        );
    }

    #[test]
    fn outcomes_are_counted_by_profile() {
        let library = ConfigLibrary::from_texts([("configs/requirements/p.toml", PROFILE)]);
        let profile = read(&library, "p").unwrap();
        let config = Config::parse("CONFIG_IN=y\nCONFIG_ONE=y\n");
        let input = CheckInput {
            config: &config,
            version: KernelVersion::new(5, 10, 0),
            arch: Arch::Amd64,
            stage: Stage::Final,
        };
        let results = check(&[profile], &input);
        let requested = Tally {
            profile: "p".into(),
            passed: 5,
            failed: 0,
            recommended_failed: 1,
            undecided: 0,
            not_applicable: 2,
        };
        assert_eq!(tallies(&results), [requested]);
        assert!(
            results.iter().any(RequirementResult::is_advice)
                && !results.iter().any(RequirementResult::is_fatal)
        );
    }
}
