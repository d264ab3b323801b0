//! Token buckets of many clients in a table that all workers share.
//!
//! # One word
//! A bucket is one `u64`: a fingerprint of its client's key, and the time at which it will be full again (the theoretical arrival
//! time of GCRA, ITU-T I.371), in ticks of [`TICK_NS`]. What is owed until then is the debt; a request that would make it larger
//! than a whole bucket is refused and changes nothing. A bucket that is full carries no information, so nobody has to empty
//! one and no sweep exists. Looking, taking, claiming and evicting are each one compare-and-swap of one word: no lock, no state
//! in between, so a worker may be killed at any moment.
//!
//! # Bounded, and eviction gives nobody anything
//! A key belongs to one set of [`WAYS`] words, chosen by a hash with a secret seed. A newcomer takes the word that owes
//! least, *and its debt*. One that is full owes nothing, so normally nobody loses anything. When a set is crowded, the least
//! indebted leaves, and all that stay owe at least as much; debts in time (the word's time) only grow. So whoever was evicted and
//! comes back inherits at least what it owed: to be evicted never pays, and who fills the table to get rid of a debt gets all
//! the others' debts. The price is paid by newcomers in a crowded table, who are treated like its least busy client.
//!
//! # Races
//! Two workers may insert a new key at the same time at two words of its set; then the first one counts from there on, and what
//! was taken at the other is forgotten: a request or two, once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a set: one cache line.
pub(crate) const WAYS: usize = 8;
/// Resolution of time. What a request costs is rounded by the low bits of the clock, so that it is right on average; whether there
/// is a token does not depend on that, and errs by those roundings.
const TICK_NS: u64 = 1 << TICK_SHIFT;
const TICK_SHIFT: u32 = 12;
/// Bits of the time: 2.2 years, which may wrap around.
const TIME_BITS: u32 = 44;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// Times further ahead than a whole bucket and this are of the last turn of the clock: an hour, which no worker is asleep between
/// its look at the clock and its write.
const SLACK: u64 = 3_600_000_000_000 >> TICK_SHIFT;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) token_ns: u64,
    pub(crate) tokens: u64,
}

/// What a bucket has said to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) is_allowed: bool,
    /// Tokens that are left.
    pub(crate) left: u64,
    /// Until the bucket is full.
    pub(crate) full_ns: u64,
    /// Until the next token, when there was none.
    pub(crate) wait_ns: u64,
}

impl Bucket {
    /// Takes one token for the key that has this hash. `table` is a whole number of sets.
    pub(crate) fn take(self, table: &[AtomicU64], hash: u64, now_ns: u64) -> Taken {
        let sets = table.as_chunks::<WAYS>().0;
        let set = &sets[(hash & 0xffff_ffff) as usize % sets.len()];
        let fingerprint = hash >> TIME_BITS;
        let now = (now_ns >> TICK_SHIFT) & TIME;
        let cost = ((now_ns & (TICK_NS - 1)) + self.token_ns) >> TICK_SHIFT;
        let whole = (self.token_ns * self.tokens) >> TICK_SHIFT;
        let debt_of = |value: u64| {
            let ahead = (value & TIME).wrapping_sub(now) & TIME;
            // A word that was never used has no time.
            if value == 0 || ahead > whole + SLACK {
                0
            } else {
                ahead
            }
        };
        loop {
            // The word of this key, or the one that owes least.
            let mut best = (&set[0], 0, u64::MAX);
            for word in set {
                // Relaxed, as the exchange below: a word is all there is to know, and orders nothing else.
                let value = word.load(Ordering::Relaxed);
                let debt = debt_of(value);
                if value != 0 && value >> TIME_BITS == fingerprint {
                    best = (word, value, debt);
                    break;
                }
                if debt < best.2 {
                    best = (word, value, debt);
                }
            }
            let (word, value, debt) = best;
            let token = self.token_ns >> TICK_SHIFT;
            // A whole bucket may have been rounded up by a tick for each of its tokens.
            let rounding = self.tokens.min(token / 2);
            if debt + token > whole + rounding {
                return self.said(false, debt, debt + token - whole);
            }
            let next = fingerprint << TIME_BITS | (now + debt + cost) & TIME;
            let swapped =
                word.compare_exchange_weak(value, next, Ordering::Relaxed, Ordering::Relaxed);
            if swapped.is_ok() {
                return self.said(true, debt + cost, 0);
            }
        }
    }

    fn said(self, is_allowed: bool, debt: u64, wait: u64) -> Taken {
        let full_ns = debt << TICK_SHIFT;
        Taken {
            is_allowed,
            // To the nearest.
            left: (self.token_ns * self.tokens + self.token_ns / 2).saturating_sub(full_ns)
                / self.token_ns,
            full_ns,
            wait_ns: wait << TICK_SHIFT,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        thread,
    };

    use super::{Bucket, TICK_NS, TIME_BITS, WAYS};

    const SECOND: u64 = 1_000_000_000;
    const TEN: Bucket = Bucket {
        token_ns: SECOND / 10,
        tokens: 10,
    };

    fn table(sets: usize) -> Vec<AtomicU64> {
        (0..sets * WAYS).map(|_| AtomicU64::new(0)).collect()
    }

    /// A hash in the first set.
    fn key(number: u64) -> u64 {
        (number + 1) << TIME_BITS
    }

    #[test]
    fn bucket_gives_its_tokens_and_then_as_fast_as_it_fills() {
        for start in [0, 7 * SECOND, (1 << TIME_BITS) * TICK_NS - SECOND] {
            let table = table(4);
            for left in (0..10).rev() {
                let taken = TEN.take(&table, key(1), start);
                assert!(taken.is_allowed);
                assert_eq!(taken.left, left);
            }
            let refused = TEN.take(&table, key(1), start);
            assert!(!refused.is_allowed);
            assert_eq!(refused.left, 0);
            assert!(refused.wait_ns.abs_diff(SECOND / 10) <= 20 * TICK_NS);
            assert!(!TEN.take(&table, key(1), start + SECOND / 11).is_allowed);
            assert!(TEN.take(&table, key(1), start + SECOND / 9).is_allowed);
            assert!(
                TEN.take(&table, key(2), start).is_allowed,
                "others have their own"
            );
            assert_eq!(
                TEN.take(&table, key(1), start + 9 * SECOND).left,
                9,
                "it is full again"
            );
        }
    }

    #[test]
    fn rates_are_right_on_average() {
        let fast = Bucket {
            token_ns: SECOND / 30_000,
            tokens: 100,
        };
        let table = table(1);
        let allowed = (0..100_000)
            .filter(|step| fast.take(&table, key(1), step * 10_007).is_allowed)
            .count();
        // A second, and what the bucket had at first.
        assert!((29_900..30_400).contains(&allowed), "{allowed}");
    }

    #[test]
    fn nobody_gets_rid_of_a_debt_by_being_evicted() {
        let table = table(1);
        // The attacker has used all it has.
        while TEN.take(&table, key(0), SECOND).is_allowed {}
        // Then others of its own crowd it out, with as many requests as they can.
        for number in 1..1000 {
            while TEN.take(&table, key(number), SECOND).is_allowed {}
        }
        assert!(!TEN.take(&table, key(0), SECOND).is_allowed);
        assert!(!TEN.take(&table, key(0), SECOND + SECOND / 20).is_allowed);
        assert!(
            TEN.take(&table, key(0), 4 * SECOND).is_allowed,
            "it is over some time"
        );
    }

    #[test]
    fn buckets_that_are_full_make_room() {
        let table = table(1);
        for number in 0..100 {
            let now = number * 2 * SECOND;
            for other in 0..WAYS as u64 {
                assert_eq!(TEN.take(&table, key(number * 8 + other), now).left, 9);
            }
        }
    }

    #[test]
    fn words_of_nonsense_are_survived() {
        let table = table(1);
        for (index, word) in table.iter().enumerate() {
            word.store(u64::MAX >> index, Ordering::Relaxed);
        }
        assert!(TEN.take(&table, key(5), SECOND).is_allowed);
    }

    #[test]
    fn threads_share_a_bucket() {
        let table = table(2);
        let slow = Bucket {
            token_ns: 3600 * SECOND,
            tokens: 500,
        };
        // The word exists, so that no two of them insert it.
        assert!(slow.take(&table, key(3), SECOND).is_allowed);
        let allowed: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..500)
                            .filter(|_| slow.take(&table, key(3), SECOND).is_allowed)
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(allowed, 499);
    }
}
