//! Loan, publish, take, release and the waiter bit, ported by hand from `slots.cpp`, run under loom.
//!
//! loom runs the real operations in every order, including stale loads, but treats a `seq_cst` access as `acq_rel` (its
//! documented limit); only fences are exact. So the port has a `seq_cst` fence wherever the protocol says `seq_cst`, and
//! each test is repeated without the fences, where it must fail. Payload bytes are a relaxed atomic: a missing edge shows
//! as a stale value. Not here: deaths, TRY (a claim goes straight to CLAIM), more than two threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::fence;
use loom::thread;

const FREE: u64 = 0;
const CLAIM: u64 = 1;
const COMMIT: u64 = 2;
const PUB: u64 = 3;

fn word(sequence: u64, state: u64) -> u64 {
    sequence << 2 | state
}

fn entry(sequence: u64, slot: u64) -> u64 {
    sequence << 8 | slot
}

struct Slot {
    word: AtomicU64,
    holders: AtomicU64,
    bytes: AtomicU64,
}

impl Slot {
    fn new(sequence: u64, state: u64) -> Self {
        Self {
            word: AtomicU64::new(word(sequence, state)),
            holders: AtomicU64::new(0),
            bytes: AtomicU64::new(sequence),
        }
    }
}

struct Topic {
    head: AtomicU64,
    waiters: AtomicU64,
    ring: [AtomicU64; 4],
    slots: [Slot; 2],
    is_fenced: bool,
}

impl Topic {
    // Frames 1 and 2 are published; keep is 1, so only slot 0 may be claimed.
    fn with_two_frames(is_fenced: bool) -> Self {
        let ring = [0, entry(1, 0), entry(2, 1), 0];
        Self {
            head: AtomicU64::new(2),
            waiters: AtomicU64::new(0),
            ring: ring.map(AtomicU64::new),
            slots: [Slot::new(1, PUB), Slot::new(2, PUB)],
            is_fenced,
        }
    }

    fn empty() -> Self {
        Self {
            head: AtomicU64::new(0),
            waiters: AtomicU64::new(0),
            ring: [0; 4].map(AtomicU64::new),
            slots: [Slot::new(0, FREE), Slot::new(0, FREE)],
            is_fenced: true,
        }
    }

    fn seq_cst(&self) {
        if self.is_fenced {
            fence(SeqCst);
        }
    }

    fn loan(&self) -> Option<usize> {
        let head = self.head.load(Acquire);
        for (index, slot) in self.slots.iter().enumerate() {
            let before = slot.word.load(Acquire);
            let is_claimable = match before & 3 {
                FREE => true,
                PUB => (before >> 2) < head,
                _ => false,
            };
            let claim = word(before >> 2, CLAIM);
            if !is_claimable
                || slot
                    .word
                    .compare_exchange(before, claim, AcqRel, Acquire)
                    .is_err()
            {
                continue;
            }
            self.seq_cst();
            if slot.holders.load(Acquire) == 0 {
                return Some(index);
            }
            slot.word.store(before, Release);
        }
        None
    }

    fn publish(&self, index: usize) -> u64 {
        let slot = &self.slots[index];
        loop {
            let head = self.head.load(Acquire);
            let sequence = head + 1;
            let place = &self.ring[sequence as usize % 4];
            let old = place.load(Acquire);
            if old >> 8 == sequence {
                let _ = self.head.compare_exchange(head, sequence, AcqRel, Acquire);
                continue;
            }
            if old >> 8 > sequence {
                continue;
            }
            slot.bytes.store(sequence, Relaxed);
            slot.word.store(word(sequence, COMMIT), Release);
            if place
                .compare_exchange(old, entry(sequence, index as u64), AcqRel, Acquire)
                .is_ok()
            {
                slot.word.store(word(sequence, PUB), Release);
                let _ = self.head.compare_exchange(head, sequence, AcqRel, Acquire);
                return sequence;
            }
        }
    }

    fn take(&self, bit: u64, sequence: u64) -> Option<usize> {
        let found = self.ring[sequence as usize % 4].load(Acquire);
        if found >> 8 != sequence {
            return None;
        }
        let index = (found & 0xff) as usize;
        let slot = &self.slots[index];
        slot.holders.fetch_or(bit, AcqRel);
        self.seq_cst();
        let now = slot.word.load(Acquire);
        if now >> 2 == sequence && now & 3 >= COMMIT {
            return Some(index);
        }
        slot.holders.fetch_and(!bit, Release);
        None
    }

    // Reads the frame, as long as it likes, and gives it back.
    fn read_and_release(&self, bit: u64, index: usize, sequence: u64) {
        assert_eq!(
            self.slots[index].bytes.load(Relaxed),
            sequence,
            "the bytes of a lease changed"
        );
        self.slots[index].holders.fetch_and(!bit, Release);
    }
}

// The default number of preemptions is unlimited; three find everything here and keep the long tests in seconds.
fn explore(preemptions: Option<usize>, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(test);
}

fn claim_against_take(is_fenced: bool) {
    explore(None, move || {
        let topic = Arc::new(Topic::with_two_frames(is_fenced));
        let other = topic.clone();
        let publisher = thread::spawn(move || other.loan().map(|slot| other.publish(slot)));
        if let Some(slot) = topic.take(1, 1) {
            topic.read_and_release(1, slot, 1);
        }
        assert!(publisher.join().is_ok());
    });
}

fn waiter_against_publisher(is_fenced: bool) {
    explore(None, move || {
        let topic = Arc::new(Topic::with_two_frames(is_fenced));
        let other = topic.clone();
        let publisher = thread::spawn(move || {
            let _ = other.head.compare_exchange(2, 3, AcqRel, Acquire);
            other.seq_cst();
            other.waiters.load(Acquire)
        });
        topic.waiters.fetch_or(1, AcqRel);
        topic.seq_cst();
        let seen = topic.head.load(Acquire);
        let waiters = publisher.join();
        assert!(matches!(waiters, Ok(1)) || seen == 3, "lost wake");
    });
}

fn fails(test: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(test)).is_err()
}

#[test]
fn claim_against_take_needs_seq_cst() {
    claim_against_take(true);
    assert!(fails(|| claim_against_take(false)));
}

#[test]
fn waiter_against_publisher_needs_seq_cst() {
    waiter_against_publisher(true);
    assert!(fails(|| waiter_against_publisher(false)));
}

#[test]
fn two_publishers_get_two_sequences() {
    explore(Some(3), || {
        let topic = Arc::new(Topic::empty());
        let other = topic.clone();
        let publisher = thread::spawn(move || other.loan().map(|slot| other.publish(slot)));
        let mine = topic.loan().map(|slot| topic.publish(slot));
        let Ok(theirs) = publisher.join() else {
            panic!("the publisher panicked");
        };
        assert!(mine.is_some() || theirs.is_some());
        assert_ne!(mine, theirs);
        let published = u64::from(mine.is_some()) + u64::from(theirs.is_some());
        assert_eq!(topic.head.load(Acquire), published);
    });
}

#[test]
fn newest_frame_is_there_or_newer_ones_are() {
    explore(Some(3), || {
        let topic = Arc::new(Topic::with_two_frames(true));
        let other = topic.clone();
        let publisher = thread::spawn(move || other.loan().map(|slot| other.publish(slot)));
        let newest = topic.head.load(Acquire);
        if let Some(slot) = topic.take(1, newest) {
            topic.read_and_release(1, slot, newest);
        } else {
            assert!(topic.head.load(Acquire) > newest);
        }
        assert!(publisher.join().is_ok());
    });
}
