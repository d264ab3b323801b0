//! The payload of a message, collected in the `bytes` object that the application will get.
//!
//! A large message is read from the socket straight into that object, which nobody else has seen yet; so it is copied once, by the
//! kernel. The object grows as the message comes: a client that announces a large message and does not send it gets no memory
//! that matters, because what was never written to is not there. Growing moves the pages of a large object and copies nothing.
#![expect(
    unsafe_code,
    reason = "a bytes object that is filled before anybody sees it"
)]

use std::{mem::MaybeUninit, ptr::null_mut, slice};

use pyo3::{ffi, prelude::*, types::PyBytes};
use tokio::io::ReadBuf;

/// The smallest step in which the object grows. The usual message is there as a whole and is not collected at all.
const STEP_BYTES_MIN: usize = 4 * 1024;
/// Asked for at once when a message says that it is as large; beyond it the object at most doubles.
const STEP_BYTES: usize = 1024 * 1024;

/// A message in the making.
#[derive(Default)]
pub(super) struct Payload {
    /// Of which only `filled` bytes have been written.
    object: Option<Py<PyBytes>>,
    filled: usize,
    size_hint: usize,
}

impl Payload {
    /// A message begins, of so many bytes if all is well.
    pub(super) fn begin(&mut self, size_hint: u64) {
        self.size_hint = usize::try_from(size_hint).unwrap_or(usize::MAX);
    }

    /// Memory for the next bytes; empty when there is none.
    pub(super) fn space(&mut self, want: usize) -> ReadBuf<'_> {
        let filled = self.filled;
        let want = want.min(filled.max(STEP_BYTES));
        if self.capacity() < filled + want {
            // Many small pieces must not grow it as many times.
            let step = if filled == 0 {
                self.size_hint.min(STEP_BYTES)
            } else {
                filled / 2
            };
            if !self.resize(filled + want.max(step).max(STEP_BYTES_MIN)) {
                return ReadBuf::new(&mut []);
            }
        }
        let Some(object) = &self.object else {
            return ReadBuf::new(&mut []);
        };
        // SAFETY: the object has room for `capacity` bytes behind its start, of which `filled` are before this slice. Nobody else
        // has a reference to it, and the slice borrows `self`. Its bytes need not have been written.
        let space = unsafe {
            let start = ffi::PyBytes_AsString(object.as_ptr()).cast::<MaybeUninit<u8>>();
            slice::from_raw_parts_mut(start.add(self.filled), self.capacity() - self.filled)
        };
        ReadBuf::uninit(space)
    }

    /// The first `count` bytes of the last `space` have been written.
    pub(super) fn filled(&mut self, count: usize) {
        self.filled += count;
    }

    /// How many bytes are there.
    pub(super) fn length(&self) -> usize {
        self.filled
    }

    /// The message, which leaves this empty. `None` when there is no memory for it.
    pub(super) fn take<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let filled = self.filled;
        if self.object.is_none() {
            return Some(PyBytes::new(py, &[]));
        }
        let fits = self.capacity() == filled || self.resize(filled);
        self.filled = 0;
        let object = self.object.take()?;
        fits.then(|| object.into_bound(py))
    }

    fn capacity(&self) -> usize {
        self.object.as_ref().map_or(0, |object| {
            // SAFETY: looks at the size of a live object.
            unsafe { ffi::PyBytes_Size(object.as_ptr()).unsigned_abs() }
        })
    }

    /// Makes the object `length` bytes long; false when there is no memory, and then there is no object any more.
    fn resize(&mut self, length: usize) -> bool {
        let Ok(length) = ffi::Py_ssize_t::try_from(length) else {
            return false;
        };
        Python::attach(|py| {
            // SAFETY: the thread is attached; the one reference to the object is given away and taken back. Without an
            // object an exception is pending.
            unsafe {
                let object = match self.object.take() {
                    None => ffi::PyBytes_FromStringAndSize(null_mut(), length),
                    Some(object) => {
                        let mut object = object.into_ptr();
                        // Null afterwards, when it fails.
                        ffi::_PyBytes_Resize(&raw mut object, length);
                        object
                    }
                };
                if object.is_null() {
                    drop(PyErr::take(py));
                    self.filled = 0;
                    return false;
                }
                let object = Bound::from_owned_ptr(py, object);
                self.object = Some(object.cast_into_unchecked().unbind());
            }
            true
        })
    }
}
