//! Pauses between attempts.

use std::time::Duration;

use crate::keys::fraction;

/// Pauses between attempts to connect: each may be twice as long as the one before, up to a limit, and is drawn from the whole
/// range between the shortest and that, so that clients that lost their server at once do not all return at once. It never ends.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use framegate_client::BackOff;
///
/// let pauses = BackOff::new(Duration::from_secs(1), Duration::from_secs(60));
/// for (pause, at_most) in pauses.zip([1, 2, 4, 8, 16, 32, 60, 60]) {
///     assert!(pause <= Duration::from_secs(at_most));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct BackOff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Default for BackOff {
    /// 0.5 s: a server that restarts is back by then. 60 s: nobody waits longer than that for one that came back.
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(60))
    }
}

impl BackOff {
    /// Pauses of at most `first`, then twice as long, up to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        Self {
            first,
            last,
            next: first.min(last),
        }
    }

    /// An attempt has succeeded: the next pause is of the first kind again.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.last);
    }
}

impl Iterator for BackOff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let most = self.next;
        self.next = most.saturating_mul(2).min(self.last);
        // Not below a tenth: several clients that draw nothing would be a flood.
        Some(most.mul_f64(0.1 + 0.9 * fraction()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_begin_anew() {
        let mut back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(5));
        for _ in 0..2 {
            for most in [1, 2, 4, 5, 5] {
                let most = Duration::from_secs(most);
                let pause = back_off.next().unwrap();
                assert!(most / 10 <= pause && pause <= most, "{pause:?} {most:?}");
            }
            back_off.reset();
        }
    }

    #[test]
    fn pauses_differ() {
        let mut pauses = BackOff::default();
        let first = pauses.next().unwrap();
        let same = (0..8).all(|_| {
            pauses.reset();
            pauses.next().unwrap() == first
        });
        assert!(!same);
    }
}
