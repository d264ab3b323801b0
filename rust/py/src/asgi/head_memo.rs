//! The head of the last responses, when they were alike.
//!
//! An application sends the same fields again and again: constants, or the type of what it answers and a length that often
//! stays. Reading a field costs four times as much as to see that it is the one of last time. So each worker remembers one
//! head, ready to be sent. A head is remembered when two in a row look alike, so that an application whose heads differ pays for
//! a few comparisons and for nothing else.

use std::cell::{Cell, RefCell};

use ::http::HeaderMap;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyList, PyTuple},
};

/// Longer lists are read each time.
const FIELDS_MAX: usize = 16;
/// Longer values are read each time: a memo never holds more than 4 KiB.
const VALUE_BYTES_MAX: usize = 256;

/// One worker's.
#[derive(Default)]
pub(crate) struct HeadMemo {
    /// What the last head looked like that was not the one that is known.
    last: Cell<usize>,
    known: RefCell<Option<Known>>,
}

struct Known {
    fields: Vec<(Py<PyBytes>, Py<PyBytes>)>,
    head: ReadHead,
}

/// The fields of a response, with those that the server adds.
pub(crate) struct ReadHead {
    pub(crate) headers: HeaderMap,
    /// `content-length`, which is not among the headers.
    pub(crate) length: Option<u64>,
}

/// The two objects of a field, if they are what nearly everybody sends.
fn field<'py>(pair: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let pair = pair.cast_exact::<PyTuple>().ok()?;
    if pair.len() != 2 {
        return None;
    }
    let item = |index| pair.get_item(index).ok()?.cast_into_exact::<PyBytes>().ok();
    Some((item(0)?, item(1)?))
}

impl HeadMemo {
    /// The head that these fields make, if it is known: in the map that `spare` gives, whatever is in there, with room for so many
    /// fields more. Runs no Python code.
    pub(crate) fn get(
        &self,
        fields: &Bound<'_, PyAny>,
        spare: impl FnOnce() -> HeaderMap,
        room: usize,
    ) -> Option<ReadHead> {
        let known = self.known.borrow();
        let known = known.as_ref()?;
        let list = fields.cast_exact::<PyList>().ok()?;
        if list.len() != known.fields.len() {
            return None;
        }
        let py = fields.py();
        for (pair, (known_name, known_value)) in list.iter().zip(&known.fields) {
            let (name, value) = field(&pair)?;
            let same = |one: &Bound<'_, PyBytes>, other: &Py<PyBytes>| {
                one.is(other) || one.as_bytes() == other.as_bytes(py)
            };
            if !same(&value, known_value) || !same(&name, known_name) {
                return None;
            }
        }
        let ReadHead { headers, length } = &known.head;
        // A clone would be two allocations, and has no room.
        let mut copy = spare();
        copy.clear();
        copy.reserve(headers.len() + room);
        for (name, value) in headers {
            copy.append(name.clone(), value.clone());
        }
        Some(ReadHead {
            headers: copy,
            length: *length,
        })
    }

    /// A head was read that is not known. Runs no Python code.
    pub(crate) fn note(&self, fields: &Bound<'_, PyAny>, headers: &HeaderMap, length: Option<u64>) {
        let Ok(list) = fields.cast_exact::<PyList>() else {
            return;
        };
        if list.len() > FIELDS_MAX {
            return;
        }
        // Names by their addresses, values by their lengths: being wrong costs little.
        let mut look = list.len();
        for pair in list.iter() {
            let Some((name, value)) = field(&pair) else {
                return;
            };
            look = look.rotate_left(5) ^ name.as_ptr().addr() ^ value.as_bytes().len();
        }
        if self.last.replace(look) != look {
            return;
        }
        let py = fields.py();
        let mut held = Vec::with_capacity(list.len());
        for pair in list.iter() {
            match field(&pair) {
                Some((name, value)) if value.as_bytes().len() <= VALUE_BYTES_MAX => {
                    held.push((name.unbind(), value.unbind()));
                }
                _ => return,
            }
        }
        let old = self.known.replace(Some(Known {
            fields: held,
            head: ReadHead {
                headers: headers.clone(),
                length,
            },
        }));
        release(py, old);
    }

    /// Forgets everything, when the worker closes.
    pub(crate) fn clear(&self, py: Python<'_>) {
        let old = self.known.take();
        release(py, old);
    }
}

/// Plain `bytes` objects die without running any code.
fn release(py: Python<'_>, known: Option<Known>) {
    for (name, value) in known.into_iter().flat_map(|known| known.fields) {
        drop(name.into_bound(py));
        drop(value.into_bound(py));
    }
}
