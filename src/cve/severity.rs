//! CVSS scores and their severities.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A CVSS base score in tenths, from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(u8);

impl Score {
    /// Returns `None` if the number is no CVSS score.
    pub fn new(score: f64) -> Option<Score> {
        let tenths = (score * 10.0).round();
        (0.0..=100.0).contains(&tenths).then_some(Score(tenths as u8))
    }

    /// Returns the score as CVSS writes it.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 10.0
    }

    /// Returns the severity by the table of CVSS 3.1.
    pub fn severity(self) -> Severity {
        match self.0 {
            0 => Severity::None,
            1..=39 => Severity::Low,
            40..=69 => Severity::Medium,
            70..=89 => Severity::High,
            _ => Severity::Critical,
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}", self.value())
    }
}

/// A severity of CVSS, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    None,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 5] =
        [Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

    pub fn name(self) -> &'static str {
        match self {
            Severity::None => "none",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(name: &str) -> Result<Severity, String> {
        let found = Severity::ALL.into_iter().find(|severity| severity.name() == name);
        found.ok_or_else(|| format!("`{name}` is not one of none, low, medium, high and critical"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_have_the_severities_of_cvss() {
        let severity = |score: f64| Score::new(score).map(|score| score.severity().name());
        for (score, expected) in [
            (0.0, Some("none")),
            (3.9, Some("low")),
            (4.0, Some("medium")),
            (7.0, Some("high")),
            (8.9, Some("high")),
            (9.0, Some("critical")),
            (10.0, Some("critical")),
            (10.1, None),
            (-0.1, None),
            (f64::NAN, None),
        ] {
            assert_eq!(severity(score), expected, "{score}");
        }
    }
}
