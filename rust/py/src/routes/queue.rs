//! How many handlers run in threads and wait for one: bounded here, told by the metrics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pyo3::prelude::*;

/// Counts of one application's blocking handlers. `framegate.app.threads` has the threads.
#[derive(Debug)]
pub(crate) struct HandlerCounts {
    threads_max: u64,
    queue_max: u64,
    /// That run or wait.
    pending: AtomicU64,
    refused: AtomicU64,
}

// All orders are relaxed: each number stands alone, and nothing else is published by it.
impl HandlerCounts {
    /// How many run.
    pub(crate) fn running(&self) -> u64 {
        self.pending.load(Ordering::Relaxed).min(self.threads_max)
    }

    /// How many wait for a thread.
    pub(crate) fn waiting(&self) -> u64 {
        let pending = self.pending.load(Ordering::Relaxed);
        pending.saturating_sub(self.threads_max)
    }

    /// How many were refused because too many waited.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Counts of one application's blocking handlers.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct HandlerQueue(pub(crate) Arc<HandlerCounts>);

#[pymethods]
impl HandlerQueue {
    #[new]
    fn new(threads_max: u64, queue_max: u64) -> Self {
        Self(Arc::new(HandlerCounts {
            threads_max,
            queue_max,
            pending: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// Counts one more; false, and counted as refused, when as many wait as may.
    fn enter(&self) -> bool {
        let counts = &self.0;
        let pending_max = counts.threads_max.saturating_add(counts.queue_max);
        let entered =
            counts
                .pending
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
                    (pending < pending_max).then_some(pending + 1)
                });
        if entered.is_err() {
            counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        entered.is_ok()
    }

    /// One of those that entered has ended.
    fn leave(&self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }

    #[getter]
    fn running(&self) -> u64 {
        self.0.running()
    }

    #[getter]
    fn waiting(&self) -> u64 {
        self.0.waiting()
    }

    #[getter]
    fn refused(&self) -> u64 {
        self.0.refused()
    }
}
