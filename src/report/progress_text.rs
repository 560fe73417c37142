//! The words of a running phase: how much is done, of how much, and how long the rest takes.

use super::{Count, Unit};
use crate::util::text::format_size;
use std::time::Duration;

/// The parts of a progress line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgressText {
    /// `41 %`.
    pub percent: Option<String>,
    /// `612/~1230`, where `~` marks an estimate.
    pub count: String,
    /// `about 5 min left`.
    pub left: Option<String>,
}

impl ProgressText {
    pub(super) fn new(count: &Count<'_>, left: Option<Duration>) -> ProgressText {
        let number = |n: u64| match count.unit {
            Unit::Bytes => format_size(n),
            Unit::Steps => n.to_string(),
        };
        let Some(total) = known_total(count) else {
            let unit = if count.unit == Unit::Steps { " steps" } else { "" };
            return ProgressText { count: number(count.done) + unit, ..ProgressText::default() };
        };
        let about = if count.estimated { "~" } else { "" };
        ProgressText {
            percent: percent(count).map(|percent| format!("{percent} %")),
            count: format!("{}/{about}{}", number(count.done), number(total)),
            left: left.map(|left| {
                // The time of a build is often wrong by a third, also if its steps are known.
                let is_coarse = count.estimated || count.work.is_some();
                let text = if is_coarse { coarse_duration(left) } else { rough_duration(left) };
                format!("{text} left")
            }),
        }
    }

    /// Returns the parts in one line.
    pub(super) fn line(&self) -> String {
        let parts = self.percent.iter().chain([&self.count]).chain(&self.left);
        parts.map(String::as_str).collect::<Vec<_>>().join("  ")
    }
}

/// Returns the percentage that is done. An estimated total never reaches 100, since the end may be later.
pub(super) fn percent(count: &Count<'_>) -> Option<u64> {
    let total = known_total(count)?;
    let percent = count.done.saturating_mul(100) / total;
    Some(if count.estimated { percent.min(99) } else { percent })
}

/// Returns the total, unless it is wrong.
pub(super) fn known_total(count: &Count<'_>) -> Option<u64> {
    count.total.filter(|&total| total > 0 && total >= count.done)
}

/// Formats a duration that may be wrong by a third, since the total or the pace is an estimate. It has few values:
/// `about 5 min`, `about 7 min`, `about 10 min`.
fn coarse_duration(left: Duration) -> String {
    const MINUTES: [u64; 10] = [1, 2, 3, 5, 7, 10, 15, 20, 30, 45];
    let minutes = left.as_secs_f64() / 60.0;
    if minutes < 0.75 {
        return "less than a minute".to_owned();
    }
    if minutes > 52.0 {
        // In half hours.
        return format!("about {:.1} h", (minutes / 30.0).round().max(2.0) / 2.0);
    }
    let distance = |choice: &u64| (minutes / *choice as f64).ln().abs();
    let nearest = MINUTES.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    format!("about {} min", nearest.expect("the list is not empty"))
}

/// Formats an estimated duration: `about 40 s`, `about 5 min`, `about 2 h`.
fn rough_duration(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 0..55 => format!("about {} s", (seconds + 5).div_euclid(10).max(1) * 10),
        seconds @ 55..5370 => format!("about {} min", (seconds + 30) / 60),
        seconds => format!("about {:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Work;
    use super::*;

    fn steps(done: u64, total: Option<u64>) -> Count<'static> {
        Count { done, total, estimated: true, work: None, unit: Unit::Steps, item: "x" }
    }

    #[test]
    fn an_estimate_is_marked() {
        let count = steps(510, Some(1230));
        let text = ProgressText::new(&count, Some(Duration::from_secs(290)));
        assert_eq!(text.line(), "41 %  510/~1230  about 5 min left");
        let exact = ProgressText::new(&Count { estimated: false, ..count }, None);
        assert_eq!(exact.line(), "41 %  510/1230");
        let exact = ProgressText::new(&Count { estimated: false, ..count }, Some(Duration::from_secs(24)));
        assert_eq!(exact.line(), "41 %  510/1230  about 20 s left");
        let work = Some(Work { done: 1.0, left: Some(1.0) });
        let make =
            ProgressText::new(&Count { estimated: false, work, ..count }, Some(Duration::from_secs(24)));
        assert_eq!(make.line(), "41 %  510/1230  less than a minute left");
        let bytes =
            Count { done: 5_000_000, total: Some(10_000_000), unit: Unit::Bytes, estimated: false, ..count };
        assert_eq!(ProgressText::new(&bytes, None).line(), "50 %  5.0 MB/10.0 MB");
    }

    #[test]
    fn a_total_that_was_too_small_is_not_shown() {
        assert_eq!(ProgressText::new(&steps(1231, Some(1230)), None).line(), "1231 steps");
        assert_eq!(ProgressText::new(&steps(12, None), None).line(), "12 steps");
        assert_eq!(percent(&steps(1230, Some(1230))), Some(99), "an estimate is not the end");
        assert_eq!(percent(&Count { estimated: false, ..steps(1230, Some(1230)) }), Some(100));
    }

    #[test]
    fn an_estimated_total_gives_a_coarse_time() {
        let text = |seconds| coarse_duration(Duration::from_secs(seconds));
        assert_eq!(
            [20, 50, 200, 290, 370, 700, 2900, 3300, 9000].map(text),
            [
                "less than a minute",
                "about 1 min",
                "about 3 min",
                "about 5 min",
                "about 7 min",
                "about 10 min",
                "about 45 min",
                "about 1.0 h",
                "about 2.5 h"
            ]
        );
    }

    #[test]
    fn rough_durations_are_round() {
        let text = |seconds| rough_duration(Duration::from_secs(seconds));
        assert_eq!(
            [0, 44, 54, 55, 290, 5400, 9000].map(text),
            [
                "about 10 s",
                "about 40 s",
                "about 50 s",
                "about 1 min",
                "about 5 min",
                "about 1.5 h",
                "about 2.5 h"
            ]
        );
    }
}
