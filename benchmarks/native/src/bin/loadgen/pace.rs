//! When the next request is to be sent.
//!
//! Closed loop: whenever a connection is free. Fixed rate: evenly spaced, whether or not the server keeps up; what finds
//! no free connection waits, and its latency counts from the time it was due (no coordinated omission).

use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// The result of one window.
pub(crate) struct Window {
    /// Answers received.
    pub(crate) completed: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// From the due time to the whole answer.
    pub(crate) latency: Histogram,
}

/// The schedule of one window.
pub(crate) struct Pace {
    start: Instant,
    end: Instant,
    /// None in a closed loop.
    rate: Option<Rate>,
}

struct Rate {
    interval_s: f64,
    next: u64,
    total: u64,
}

impl Pace {
    /// A window of `seconds` from now, of `per_second` evenly spaced steps, or a closed loop where that is 0.
    pub(crate) fn start(per_second: f64, seconds: f64) -> Self {
        let start = Instant::now();
        let rate = (per_second > 0.0).then(|| Rate {
            interval_s: 1.0 / per_second,
            next: 0,
            total: ((per_second * seconds).round() as u64).max(1),
        });
        // A server that does not keep up gets half as long again, then what is left is not sent.
        let limit = if rate.is_some() {
            seconds * 1.5
        } else {
            seconds
        };
        Self {
            start,
            end: start + Duration::from_secs_f64(limit),
            rate,
        }
    }

    /// The due time of the next step, if that has come.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        if self.is_over(now) {
            return None;
        }
        match &self.rate {
            None => Some(now),
            Some(rate) => {
                let due = self.start + Duration::from_secs_f64(rate.next as f64 * rate.interval_s);
                (due <= now).then_some(due)
            }
        }
    }

    /// The step that was due has been taken.
    pub(crate) fn step(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.next += 1;
        }
    }

    /// True when nothing more is to be sent.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.end
            || self
                .rate
                .as_ref()
                .is_some_and(|rate| rate.next >= rate.total)
    }

    /// How long to wait for answers: not at all while there is a rate to keep, this core has nothing else to do.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        if self.rate.is_some() && !self.is_over(now) {
            Duration::ZERO
        } else {
            Duration::from_millis(100)
        }
    }

    /// True when requests follow answers and not a clock.
    pub(crate) fn is_closed_loop(&self) -> bool {
        self.rate.is_none()
    }

    /// When the window began.
    pub(crate) fn began(&self) -> Instant {
        self.start
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use std::time::{Duration, Instant};

    #[test]
    fn a_rate_is_evenly_spaced_and_ends_by_number() {
        let mut pace = Pace::start(1000.0, 0.01);
        let begin = pace.began();
        let later = begin + Duration::from_millis(9);
        for step in 0..10_u64 {
            let due = pace
                .due(later)
                .expect("ten steps are due within nine milliseconds");
            assert!((due - begin).as_secs_f64() - step as f64 * 0.001 < 1e-6);
            pace.step();
        }
        assert!(pace.due(later).is_none() && pace.is_over(later));
    }

    #[test]
    fn nothing_is_due_early_and_a_closed_loop_always_is() {
        let mut pace = Pace::start(10.0, 1.0);
        pace.step();
        assert!(pace.due(pace.began() + Duration::from_millis(99)).is_none());
        assert!(
            pace.due(pace.began() + Duration::from_millis(101))
                .is_some()
        );
        let closed = Pace::start(0.0, 1.0);
        let now = Instant::now();
        assert_eq!(closed.due(now), Some(now));
        assert!(
            closed
                .due(closed.began() + Duration::from_millis(1001))
                .is_none()
        );
    }
}
