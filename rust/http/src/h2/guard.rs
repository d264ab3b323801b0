//! Clients that ask for much more work than they take answers for.
//!
//! The crate bounds what it can see: streams that are reset before they are accepted, errors of ours that a client provokes,
//! `CONTINUATION`, empty and tiny `DATA`. It does not count resets of streams that were accepted, each of which has cost a call of
//! the handler; nor frames that are answered and carry nothing. Both have a budget per period here. Clocks are read only
//! when a budget is used up, so those who stay within it cost nothing.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// After so long a budget is whole again.
const PERIOD: Duration = Duration::from_secs(10);

/// So many events per period.
pub(super) struct Budget {
    limit: u64,
    used: Cell<u64>,
    /// What had been earned before this period.
    earned_before: Cell<u64>,
    since: Cell<Instant>,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Cell::new(0),
            earned_before: Cell::new(0),
            since: Cell::new(Instant::now()),
        }
    }

    /// Takes `count`; false when they are more than is left. `earned` grows with what the client does that is of use: as many
    /// events more are allowed in the period in which it has grown.
    pub(super) fn take(&self, count: u64, earned: u64) -> bool {
        let used = self.used.get() + count;
        self.used.set(used);
        if used <= self.limit + (earned - self.earned_before.get()) {
            return true;
        }
        let now = Instant::now();
        if now - self.since.get() < PERIOD {
            return false;
        }
        self.since.set(now);
        self.used.set(count);
        self.earned_before.set(earned);
        count <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Budget;

    #[tokio::test(start_paused = true)]
    async fn budget_is_per_period() {
        let budget = Budget::new(100);
        for _ in 0..100 {
            assert!(budget.take(1, 0));
        }
        assert!(!budget.take(1, 0), "one too many within the period");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(budget.take(100, 0), "a new period");
        assert!(!budget.take(1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_work_may_do_more() {
        let budget = Budget::new(100);
        assert!(budget.take(150, 50));
        assert!(!budget.take(1, 50));
    }

    #[tokio::test(start_paused = true)]
    async fn work_of_one_period_does_not_count_in_the_next() {
        let budget = Budget::new(100);
        assert!(budget.take(100, 5000));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!budget.take(5200, 5000));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_use_is_never_too_much() {
        let budget = Budget::new(10);
        for _ in 0..1000 {
            assert!(budget.take(1, 0));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}
