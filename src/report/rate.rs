//! How fast a phase is, and how long the rest of it takes.

use super::progress_text::known_total;
use super::{Count, Work};
use std::time::Duration;

/// The time from the start of a phase before its rate is known well enough.
const MIN_ELAPSED: Duration = Duration::from_secs(5);
/// The least time between two samples.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// The last part of the elapsed time that counts more.
const WINDOW: f64 = 0.5;

/// How long a unit of work takes. This is the average of the whole phase and of its last part, since other work of the
/// machine comes and goes.
#[derive(Default)]
pub(crate) struct Rate {
    /// The work that was done at a time.
    samples: Vec<(Duration, f64)>,
}

impl Rate {
    /// Adds what is done now. Returns how long the rest takes, once enough is done.
    pub(crate) fn time_left(&mut self, count: &Count<'_>, elapsed: Duration) -> Option<Duration> {
        let total = known_total(count);
        let by_count = Work { done: count.done as f64, left: total.map(|total| (total - count.done) as f64) };
        let Work { done, left } = count.work.unwrap_or(by_count);
        if self.samples.last().is_none_or(|(at, _)| elapsed >= *at + MIN_INTERVAL) {
            self.samples.push((elapsed, done));
        }
        let (total, left) = (total?, left?);
        if elapsed < MIN_ELAPSED || count.done.saturating_mul(50) < total {
            return None;
        }
        let since = self.samples.partition_point(|(at, _)| *at <= elapsed.mul_f64(1.0 - WINDOW));
        let (at, before) = self.samples[since.saturating_sub(1)];
        let whole = elapsed.as_secs_f64() / done;
        // Without progress in this time, the average of the whole phase is the best guess.
        let last =
            if done > before { elapsed.saturating_sub(at).as_secs_f64() / (done - before) } else { whole };
        Duration::try_from_secs_f64(left * (whole + last) / 2.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::*;

    fn steps(done: u64) -> Count<'static> {
        Count { done, total: Some(1000), estimated: true, work: None, unit: Unit::Steps, item: "x" }
    }

    fn seconds(rate: &mut Rate, count: &Count<'_>, elapsed: u64) -> Option<u64> {
        rate.time_left(count, Duration::from_secs(elapsed)).map(|left| left.as_secs_f64().round() as u64)
    }

    #[test]
    fn the_time_left_needs_a_rate() {
        let mut rate = Rate::default();
        assert_eq!(seconds(&mut rate, &steps(0), 0), None);
        assert_eq!(seconds(&mut rate, &steps(500), 2), None, "too early by the clock");
        assert_eq!(seconds(&mut rate, &steps(10), 100), None, "too few steps");
        assert_eq!(seconds(&mut rate, &Count { total: Some(5), ..steps(10) }, 100), None);
    }

    #[test]
    fn a_constant_rate_gives_the_time_left() {
        let mut rate = Rate::default();
        for done in 0..=500 {
            rate.time_left(&steps(done), Duration::from_secs(done));
        }
        assert_eq!(seconds(&mut rate, &steps(500), 500), Some(500));
        let with_work = |left| Count { work: Some(Work { done: 500.0, left }), ..steps(500) };
        assert_eq!(seconds(&mut rate, &with_work(Some(340.0)), 500), Some(340), "the last steps are short");
        assert_eq!(seconds(&mut rate, &with_work(None), 500), None, "the estimate was too low");
    }

    #[test]
    fn the_last_half_counts_twice() {
        let mut rate = Rate::default();
        // The machine was twice as slow in the first 300 seconds.
        for at in 0..=400 {
            let done = at.min(300) + (at.max(300) - 300) * 2;
            rate.time_left(&steps(done), Duration::from_secs(at));
        }
        assert_eq!(seconds(&mut rate, &steps(500), 400), Some(367));
        // No progress for long.
        assert_eq!(seconds(&mut rate, &steps(500), 4000), Some(4000));
    }
}
