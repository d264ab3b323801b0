//! The waker that the crate gets: quiet during a turn.
//!
//! The crate wakes the connection's task whenever a stream hands something over. A turn that calls handlers ends with a poll that
//! writes what they handed over; to be woken for that would poll everything once more, for nothing. So a call during a turn is
//! noted, each poll of the crate answers those before it, and only what is noted after the last one wakes the task.
//!
//! # Why no call is lost
//! A call says "poll", not what for, and a poll looks at everything: it expires what was remembered of resets, writes what `GOAWAY`,
//! `PING` and `SETTINGS` ask for, reads until the socket has nothing, then takes frames of every stream and grants of every
//! window until there is none, and flushes. It stops early only when the socket takes no more, and then the socket has the waker.
//! So a call is answered by any poll that *begins* after it; that is all that [`Quiet::hush`] assumes, and it is called directly before one.
//! What calls, and when:
//!
//! | who | when | what happens |
//! |---|---|---|
//! | streams: heads, data, trailers, resets, credit given back, handles dropped | by handlers in a turn | the next poll of the turn writes it |
//! | the same | by tasks, between turns | wakes |
//! | the socket can be read or written | between turns: the runtime looks for events when no task runs | wakes |
//! | the socket, when tokio's budget is used up | in a poll, and again in the next one | noted; wakes at the end |
//! | the crate, for what a frame has brought about | in a poll, before it writes | written by the same poll; wakes once for nothing |
//! | a `PING` of ours that is handed over | before the turn begins | wakes once for nothing |
//! | the end of [`Turns`](super::Turns): too many batches, handles to be dropped | after the last poll | noted, wakes at the end |
//! | priorities, the sweep, orders, a drain | any time | wake the task by its own waker, not by this one |
//!
//! The crate keeps no timer. A turn that leaves early leaves for good: the connection is over.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Wake, Waker},
};

/// Outside of a turn: a call wakes the task.
const AWAKE: u8 = 0;
/// In a turn, and nobody has called since the last poll.
const QUIET: u8 = 1;
/// In a turn, and somebody has.
const CALLED: u8 = 2;

/// One connection's.
pub(super) struct Quiet {
    /// Whoever calls from another thread either finds the turn over, or is found by its end or by the poll that follows. That poll has to
    /// see what the call was for, so every change is a swap: each reads the one before it, and pairs with it.
    state: AtomicU8,
    task: Mutex<Waker>,
}

impl Quiet {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(AWAKE),
            task: Mutex::new(Waker::noop().clone()),
        })
    }

    /// Whom to wake.
    pub(super) fn follow(&self, task: &Waker) {
        let mut known = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone_from(task);
    }

    /// The crate is polled now: calls before that are answered.
    pub(super) fn hush(&self) {
        self.state.swap(QUIET, Ordering::AcqRel);
    }

    /// The turn is over.
    pub(super) fn end(&self) {
        if self.state.swap(AWAKE, Ordering::AcqRel) == CALLED {
            self.wake_task();
        }
    }

    fn wake_task(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.wake_by_ref();
    }
}

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let call = |state| (state != AWAKE).then_some(CALLED);
        let called = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, call);
        if called.is_err() {
            self.wake_task();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::Quiet;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn calls_wake_unless_a_later_poll_answers_them() {
        let count = Arc::new(Count::default());
        let woken = || count.0.swap(0, Ordering::Relaxed);
        let quiet = Quiet::new();
        quiet.follow(&Waker::from(count.clone()));
        let waker = Waker::from(quiet.clone());
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(woken(), 2, "outside of a turn");
        quiet.hush();
        waker.wake_by_ref();
        quiet.hush();
        quiet.end();
        assert_eq!(woken(), 0, "the second poll came after the call");
        quiet.hush();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(woken(), 0, "not yet");
        quiet.end();
        assert_eq!(woken(), 1, "nothing came after the calls");
        waker.wake_by_ref();
        assert_eq!(woken(), 1, "the turn is over");
    }
}
