//! Holding a config against profiles: one outcome for each line.

use super::profile::{Alternative, KernelRule, Level, Profile, Requirement, Value};
use crate::kconfig::Config;
use crate::kernel::{Arch, KernelVersion};
use serde::Serialize;
use std::fmt;

/// What is found of several symbols that are all off.
const NONE: &str = "none is on";

/// What is held against the profiles.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its settings.
    pub config: &'a Config,
    /// The kernel that it is for.
    pub version: KernelVersion,
    /// The machine that it is for.
    pub arch: Arch,
    /// What a symbol that is not in it means.
    pub stage: Stage,
}

/// How far a config has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// After `olddefconfig`: what is not in it is off.
    #[serde(rename = "final")]
    Final,
    /// Before it: what is not in it is left to the kernel's own defaults and selections.
    #[serde(rename = "as-asked-for")]
    AsAskedFor,
}

/// One line of a profile, and what a config has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The profile that was asked for; the line may be of one that it includes.
    pub profile: String,
    /// `PSI`, `IP_NF_TARGET_REJECT|NFT_REJECT`; empty where the kernel's version is meant.
    pub symbols: Vec<String>,
    /// `y`, `y or m`, `off`, or a range of versions.
    pub wanted: String,
    /// The value in the config, `not set` or `missing`; or the kernel's version.
    #[serde(rename = "found")]
    pub found: String,
    /// How bad it is where this is not met.
    pub level: Level,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub source: String,
    /// Met or not.
    #[serde(rename = "verdict")]
    pub verdict: Verdict,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    #[serde(rename = "passed")]
    Passed,
    /// Not as it should be.
    #[serde(rename = "failed")]
    Failed,
    /// The config does not say, and the kernel's `olddefconfig` has not been asked yet.
    #[serde(rename = "open")]
    Open,
    /// The line is for other kernels or machines.
    #[serde(rename = "not-applicable")]
    NotApplicable,
}

/// How many lines of a profile came out how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The profile.
    pub profile: String,
    /// Lines that are met.
    pub passed: usize,
    /// Required lines that are not met, and forbidden options that are on.
    pub failed: usize,
    /// Recommended lines that are not met.
    #[serde(rename = "advised")]
    pub advised: usize,
    /// Lines left open.
    #[serde(rename = "open")]
    pub open: usize,
    /// Lines for other kernels or machines.
    #[serde(rename = "not_applicable")]
    pub not_applicable: usize,
}

impl Outcome {
    /// Does it make the kernel unfit: required and not met, or forbidden and on?
    pub fn is_fatal(&self) -> bool {
        self.is_failure() && self.level != Level::Recommended
    }

    /// Is it a recommendation that is not followed?
    pub fn is_advice(&self) -> bool {
        self.is_failure() && self.level == Level::Recommended
    }

    /// Is it not as it should be, however bad that is?
    pub fn is_failure(&self) -> bool {
        self.verdict == Verdict::Failed
    }

    /// What is asked about: `PSI`, `A | B`, `kernel version`.
    pub fn symbols_text(&self) -> String {
        match self.symbols.is_empty() {
            true => "kernel version".to_owned(),
            false => self.symbols.join(" | "),
        }
    }
}

impl fmt::Display for Outcome {
    /// `CONFIG_PSI is not set, wanted y`; `none of A, B is on, wanted y or m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { symbols, found, wanted, .. } = self;
        match &symbols[..] {
            [] => write!(f, "the kernel is {found}, wanted {wanted}"),
            [symbol] => write!(f, "CONFIG_{} is {found}, wanted {wanted}", symbol.trim_start_matches('!')),
            several if found == NONE => {
                write!(f, "none of {} is on, wanted {wanted}", several.join(", "))
            }
            several => write!(f, "of {} there is {found}, wanted {wanted}", several.join(", ")),
        }
    }
}

/// Holds `subject` against every line of the profiles, in their order.
pub fn check(profiles: &[Profile], subject: &Subject<'_>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for profile in profiles {
        outcomes.extend(profile.kernel.iter().map(|rule| check_version(profile, rule, subject.version)));
        outcomes.extend(profile.options.iter().map(|line| check_option(profile, line, subject)));
    }
    outcomes
}

/// Counts the outcomes of each profile.
pub fn tallies(outcomes: &[Outcome]) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = Vec::new();
    for outcome in outcomes {
        if tallies.last().is_none_or(|tally| tally.profile != outcome.profile) {
            let profile = outcome.profile.clone();
            tallies.push(Tally { profile, passed: 0, failed: 0, advised: 0, open: 0, not_applicable: 0 });
        }
        let tally = tallies.last_mut().expect("one was just added");
        match outcome.verdict {
            Verdict::Passed => tally.passed += 1,
            Verdict::Failed if outcome.is_advice() => tally.advised += 1,
            Verdict::Failed => tally.failed += 1,
            Verdict::Open => tally.open += 1,
            Verdict::NotApplicable => tally.not_applicable += 1,
        }
    }
    tallies
}

fn check_version(profile: &Profile, rule: &KernelRule, version: KernelVersion) -> Outcome {
    Outcome {
        profile: profile.name.clone(),
        symbols: Vec::new(),
        wanted: rule.version.to_string(),
        found: version.to_string(),
        level: rule.level,
        reason: rule.reason.clone(),
        source: rule.source.clone(),
        verdict: match rule.admits(version) {
            true => Verdict::Passed,
            false => Verdict::Failed,
        },
    }
}

fn check_option(profile: &Profile, line: &Requirement, subject: &Subject<'_>) -> Outcome {
    let applies = line.kernel.as_ref().is_none_or(|range| range.contains(subject.version))
        && (line.arch.is_empty() || line.arch.contains(&subject.arch));
    let verdict = if applies { judge(line, subject) } else { Verdict::NotApplicable };
    Outcome {
        profile: profile.name.clone(),
        symbols: line.alternatives.iter().map(ToString::to_string).collect(),
        wanted: match (line.level, line.value) {
            (Level::Forbidden, _) => "off".to_owned(),
            _ if line.alternatives.iter().all(|alternative| alternative.negated) => "off".to_owned(),
            (_, Value::Y) => "y".to_owned(),
            (_, Value::YOrM) => "y or m".to_owned(),
        },
        found: found(line, subject),
        level: line.level,
        reason: line.reason.clone(),
        source: line.source.clone(),
        verdict,
    }
}

fn judge(line: &Requirement, subject: &Subject<'_>) -> Verdict {
    // `None`: the config does not say.
    let holds = |alternative: &Alternative| {
        let value = match (subject.config.symbols.get(&alternative.symbol), subject.stage) {
            (Some(value), _) => value.as_str(),
            (None, Stage::Final) => "n",
            (None, Stage::AsAskedFor) => return None,
        };
        Some(match (alternative.negated, line.value) {
            (true, _) => value == "n",
            // A number or a text is a value, too: only off is off.
            (false, _) if line.level == Level::Forbidden => value != "n",
            (false, Value::Y) => value != "n" && value != "m",
            (false, Value::YOrM) => value != "n",
        })
    };
    let answers: Vec<Option<bool>> = line.alternatives.iter().map(holds).collect();
    let any = match answers.contains(&Some(true)) {
        true => Some(true),
        false if answers.contains(&None) => None,
        false => Some(false),
    };
    match any.map(|any| any != (line.level == Level::Forbidden)) {
        Some(true) => Verdict::Passed,
        Some(false) => Verdict::Failed,
        None => Verdict::Open,
    }
}

/// What the config has, in few words: the value of the only symbol; of several, those that are on.
fn found(line: &Requirement, subject: &Subject<'_>) -> String {
    let config = subject.config;
    if let [only] = &line.alternatives[..] {
        return match (config.symbols.get(&only.symbol).map(String::as_str), subject.stage) {
            (None, Stage::Final) => "missing".to_owned(),
            (None, Stage::AsAskedFor) => "not said".to_owned(),
            (Some("n"), _) => "not set".to_owned(),
            (Some(value), _) => value.to_owned(),
        };
    }
    let symbols = line.alternatives.iter().map(|alternative| &alternative.symbol);
    let on: Vec<String> = symbols
        .filter(|symbol| config.value(symbol) != "n")
        .map(|symbol| format!("{symbol}={}", config.value(symbol)))
        .collect();
    if on.is_empty() { NONE.to_owned() } else { on.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::profile::read;
    use super::*;
    use crate::catalog::Library;

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

    fn verdicts(config: &str, version: &str, stage: Stage) -> Vec<(String, Verdict, String)> {
        let library = Library::from_texts([("configs/requirements/p.toml", PROFILE)]);
        let profile = read(&library, "p").unwrap();
        let config = Config::parse(config);
        let subject =
            Subject { config: &config, version: version.parse().unwrap(), arch: Arch::Amd64, stage };
        let outcomes = check(&[profile], &subject);
        outcomes.into_iter().map(|one| (one.symbols_text(), one.verdict, one.found)).collect()
    }

    fn of(verdicts: &[(String, Verdict, String)]) -> Vec<Verdict> {
        verdicts.iter().map(|(_, verdict, _)| *verdict).collect()
    }

    #[test]
    fn what_is_there_passes() {
        use Verdict::{NotApplicable, Passed};
        let config = "CONFIG_IN=m\nCONFIG_OTHER=y\nCONFIG_BUILT=y\n";
        let came = verdicts(config, "5.10.77", Stage::Final);
        assert_eq!(of(&came), [Passed, Passed, Passed, Passed, Passed, Passed, NotApplicable, NotApplicable]);
        assert_eq!(came[2], ("ONE | OTHER".to_owned(), Passed, "OTHER=y".to_owned()));
    }

    #[test]
    fn what_is_missing_fails() {
        use Verdict::{Failed, NotApplicable};
        let config = "# CONFIG_IN is not set\nCONFIG_DANGER=y\nCONFIG_BUILT=m\nCONFIG_BAD=m\n";
        let came = verdicts(config, "4.19.215", Stage::Final);
        assert_eq!(of(&came), [Failed, Failed, Failed, Failed, Failed, Failed, Failed, NotApplicable]);
        let found: Vec<&str> = came.iter().map(|(_, _, found)| found.as_str()).collect();
        assert_eq!(found, ["4.19.215", "not set", "none is on", "DANGER=y", "m", "m", "missing", "missing"]);
    }

    #[test]
    fn before_olddefconfig_silence_is_no_answer() {
        use Verdict::{Failed, NotApplicable, Open, Passed};
        let came = verdicts("# CONFIG_IN is not set\nCONFIG_ONE=y\n", "5.10", Stage::AsAskedFor);
        assert_eq!(of(&came), [Passed, Failed, Passed, Open, Open, Open, NotApplicable, NotApplicable]);
    }

    #[test]
    fn outcomes_are_counted_by_profile() {
        let library = Library::from_texts([("configs/requirements/p.toml", PROFILE)]);
        let profile = read(&library, "p").unwrap();
        let config = Config::parse("CONFIG_IN=y\nCONFIG_ONE=y\n");
        let subject = Subject {
            config: &config,
            version: KernelVersion::new(5, 10, 0),
            arch: Arch::Amd64,
            stage: Stage::Final,
        };
        let outcomes = check(&[profile], &subject);
        let wanted =
            Tally { profile: "p".into(), passed: 5, failed: 0, advised: 1, open: 0, not_applicable: 2 };
        assert_eq!(tallies(&outcomes), [wanted]);
        assert!(outcomes.iter().any(Outcome::is_advice) && !outcomes.iter().any(Outcome::is_fatal));
    }
}
