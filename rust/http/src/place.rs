//! Places of which a thread has so many: what only some of its connections may have at a time.

use std::{cell::Cell, thread::LocalKey};

/// One place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(&'static LocalKey<Cell<usize>>);

impl Place {
    /// One of `max`, of which `taken` counts; `None` while all are taken.
    pub(crate) fn take(taken: &'static LocalKey<Cell<usize>>, max: usize) -> Option<Self> {
        let count = taken.get();
        (count < max).then(|| {
            taken.set(count + 1);
            Self(taken)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
