//! How fast a phase is, and how long the rest of it takes.

use super::Count;
use super::progress_text::known_total;
use std::time::Duration;

/// The time from the start of a phase before its rate is known well enough.
const MIN_ELAPSED: Duration = Duration::from_secs(5);
/// The least time between two samples.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// The part of a long step's time that a short step takes.
const SHORT_STEP: f64 = 0.2;

/// The rate over the last quarter of the elapsed time, since other work of the machine comes and goes.
#[derive(Default)]
pub(super) struct Rate {
    samples: Vec<(Duration, u64)>,
}

impl Rate {
    /// Adds what is done now. Returns how long the rest takes, once enough is done.
    pub(super) fn time_left(&mut self, count: &Count<'_>, elapsed: Duration) -> Option<Duration> {
        if self.samples.last().is_none_or(|(at, _)| elapsed >= *at + MIN_INTERVAL) {
            self.samples.push((elapsed, count.done));
        }
        let total = known_total(count)?;
        if elapsed < MIN_ELAPSED || count.done.saturating_mul(50) < total {
            return None;
        }
        let since = self.samples.partition_point(|(at, _)| *at <= elapsed.mul_f64(0.75)).saturating_sub(1);
        let (at, done) = self.samples[since];
        let work = count.done - done.min(count.done);
        // Without progress in this time, the average of the whole phase is the best guess.
        let (work, time) = if work == 0 { (count.done, elapsed) } else { (work, elapsed.saturating_sub(at)) };
        let rest = total - count.done;
        let short = count.short.min(rest);
        let rest = (rest - short) as f64 + short as f64 * SHORT_STEP;
        Duration::try_from_secs_f64(rest * time.as_secs_f64() / work as f64).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::*;

    fn steps(done: u64, short: u64) -> Count<'static> {
        Count { done, total: Some(1000), estimated: true, short, unit: Unit::Steps, item: "x" }
    }

    fn seconds(rate: &mut Rate, count: &Count<'_>, elapsed: u64) -> Option<u64> {
        rate.time_left(count, Duration::from_secs(elapsed)).map(|left| left.as_secs_f64().round() as u64)
    }

    #[test]
    fn the_time_left_needs_a_rate() {
        let mut rate = Rate::default();
        assert_eq!(seconds(&mut rate, &steps(0, 0), 0), None);
        assert_eq!(seconds(&mut rate, &steps(500, 0), 2), None, "too early by the clock");
        assert_eq!(seconds(&mut rate, &steps(10, 0), 100), None, "too few steps");
        assert_eq!(seconds(&mut rate, &Count { total: Some(5), ..steps(10, 0) }, 100), None);
    }

    #[test]
    fn a_constant_rate_gives_the_time_left() {
        let mut rate = Rate::default();
        for done in 0..=500 {
            rate.time_left(&steps(done, 0), Duration::from_secs(done));
        }
        assert_eq!(seconds(&mut rate, &steps(500, 0), 500), Some(500));
        assert_eq!(seconds(&mut rate, &steps(500, 200), 500), Some(340), "200 short steps at the end");
    }

    #[test]
    fn the_last_quarter_counts() {
        let mut rate = Rate::default();
        // The machine was twice as slow in the first 300 seconds.
        for at in 0..=400 {
            let done = at.min(300) + (at.max(300) - 300) * 2;
            rate.time_left(&steps(done, 0), Duration::from_secs(at));
        }
        assert_eq!(seconds(&mut rate, &steps(500, 0), 400), Some(250));
        // No progress for long.
        assert_eq!(seconds(&mut rate, &steps(500, 0), 4000), Some(4000));
    }
}
