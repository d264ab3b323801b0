//! Who holds the interpreter lock, and when.
//!
//! A loop's thread is attached to the interpreter from the moment Python calls `select` until it returns, also while
//! nothing but Rust runs: it does not take and give back the lock per request. There are exactly three ways out for any
//! thread, all in this file:
//!
//! - [`before_park`] / [`after_park`]: tokio is about to sleep. Between the two only tokio's driver runs on this
//!   thread, and it runs nothing but wakers; **a waker and its destructor must therefore never touch Python** (ours
//!   wake tasks, and a task's future is dropped by its completion or its runtime, never by a waker).
//! - [`detached`]: one Rust step that takes more than about 50 microseconds (compression, a TLS handshake, large JSON), or waits.
//! - [`let_others_in`]: a loop that serves only Rust work never parks and runs no bytecode, so it has to offer the lock
//!   by itself, once per [`SWITCH_INTERVAL`] ([`Fairness`]).
//!
//! Never wait for another thread (join, blocking lock, blocking runtime shutdown) while attached.

#![expect(
    unsafe_code,
    reason = "saving and restoring the thread state around tokio's park has no safe form"
)]

use std::{
    cell::Cell,
    mem,
    ptr::null_mut,
    time::{Duration, Instant},
};

use pyo3::{Python, ffi};

use crate::os::coarse_now;

/// As long as Python's own default (`sys.getswitchinterval`).
pub(crate) const SWITCH_INTERVAL: Duration = Duration::from_millis(5);

/// One wait in so many is measured: two looks at the clock for each would be a percent of a small request.
const SAMPLED: u64 = 16;

thread_local! {
    static PARKED: Cell<*mut ffi::PyThreadState> = const { Cell::new(null_mut()) };
    static WAITS: Cell<Waits> = const { Cell::new(Waits { seen: u64::MAX, measured: 0, ns: 0 }) };
}

/// How long a thread waited for the lock, while somebody wants to know.
#[derive(Clone, Copy)]
struct Waits {
    /// Waits so far; `MAX` while nobody wants to know.
    seen: u64,
    measured: u64,
    ns: u64,
}

/// From now on this thread measures how long it waits for the lock.
pub(crate) fn measure_waits() {
    let waits = WAITS.get();
    if waits.seen == u64::MAX {
        WAITS.set(Waits { seen: 0, ..waits });
    }
}

/// How many waits of this thread were measured, and their nanoseconds.
pub(crate) fn measured_waits() -> (u64, u64) {
    let waits = WAITS.get();
    (waits.measured, waits.ns)
}

/// Hook of tokio: the thread is about to sleep.
pub(crate) fn before_park() {
    debug_assert!(PARKED.get().is_null(), "a thread parks once at a time");
    // SAFETY: hooks run inside `block_on`, which only `Selector::select` calls, attached. Until `after_park` no code
    // that touches Python runs on this thread (module documentation).
    PARKED.set(unsafe { ffi::PyEval_SaveThread() });
}

/// Hook of tokio: the thread has woken.
pub(crate) fn after_park() {
    let state = PARKED.replace(null_mut());
    if state.is_null() {
        return;
    }
    let waits = WAITS.get();
    if waits.seen == u64::MAX {
        return restore(state);
    }
    let seen = waits.seen + 1;
    if !seen.is_multiple_of(SAMPLED) {
        WAITS.set(Waits { seen, ..waits });
        return restore(state);
    }
    let start = Instant::now();
    restore(state);
    let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    WAITS.set(Waits {
        seen,
        measured: waits.measured + 1,
        ns: waits.ns.saturating_add(ns),
    });
}

/// Attach again. While the interpreter finalizes, it ends daemon threads inside this call by unwinding them, which
/// Rust frames do not allow: such a thread sleeps for the rest of the process instead.
fn restore(state: *mut ffi::PyThreadState) {
    struct SleepForever;
    impl Drop for SleepForever {
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }
    unsafe extern "C-unwind" {
        fn PyEval_RestoreThread(state: *mut ffi::PyThreadState);
    }
    let guard = SleepForever;
    // SAFETY: `state` is what PyEval_SaveThread gave on this thread, and is used once.
    unsafe { PyEval_RestoreThread(state) };
    mem::forget(guard);
}

/// Run a step without the interpreter lock: one that is long, or waits. `f` cannot reach thread-bound state: it is `Send`. **It must
/// not touch Python**, nor drop the last reference to an object: for pyo3 this thread stays attached.
///
/// Not `py.detach`, which comes back as [`restore`] may not.
pub(crate) fn detached<R: Send>(_py: Python<'_>, f: impl FnOnce() -> R + Send) -> R {
    struct Away(*mut ffi::PyThreadState);
    impl Drop for Away {
        fn drop(&mut self) {
            restore(self.0);
        }
    }
    // SAFETY: the thread is attached, as `Python` says, and is again when this returns or unwinds; `f` does not touch Python.
    let _away = Away(unsafe { ffi::PyEval_SaveThread() });
    f()
}

/// Let a thread that waits for the interpreter lock have it. Costs about 0.1 microseconds if nobody waits.
pub(crate) fn let_others_in(_py: Python<'_>) {
    before_park();
    after_park();
}

/// Remembers when the lock was last offered.
#[derive(Debug, Default)]
pub(crate) struct Fairness {
    offered: Cell<Duration>,
}

impl Fairness {
    /// The lock was given away just now (the thread slept, or Python ran).
    #[inline]
    pub(crate) fn reset(&self) {
        self.offered.set(coarse_now());
    }

    /// Offer the lock if the last offer is longer ago than the switch interval. Call where no borrow is held.
    #[inline]
    pub(crate) fn offer(&self) {
        let now = coarse_now();
        if now.saturating_sub(self.offered.get()) >= SWITCH_INTERVAL {
            Python::attach(let_others_in);
            self.offered.set(coarse_now());
        }
    }
}
