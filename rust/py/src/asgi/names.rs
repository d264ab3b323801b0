//! Python objects that requests share: header names, paths, methods.
//!
//! Clients repeat themselves. Making `b"user-agent"` anew for every request costs more than finding the one made before, so
//! each worker keeps small direct-mapped caches: a slot per hash, the newcomer replaces what was there. Nothing grows with
//! what clients send: long names and long paths are not kept.

use std::cell::RefCell;

use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

const SLOTS: usize = 256;
/// Longer header names are made anew each time.
const NAME_BYTES_MAX: usize = 64;
/// Longer paths are made anew each time. Paths often hold ids: the cache serves those that do not.
const PATH_BYTES_MAX: usize = 256;

struct PathSlot {
    raw: Py<PyBytes>,
    decoded: Py<PyString>,
}

/// The caches of one worker.
pub(crate) struct Names {
    /// Put in front of each path; see [`Names::path`].
    root_path: String,
    headers: RefCell<Vec<Option<Py<PyBytes>>>>,
    paths: RefCell<Vec<Option<PathSlot>>>,
}

impl Names {
    pub(crate) fn new(root_path: String) -> Self {
        Self {
            root_path,
            headers: RefCell::new((0..SLOTS).map(|_| None).collect()),
            paths: RefCell::new((0..SLOTS).map(|_| None).collect()),
        }
    }

    /// A header name; `name` is in lower case already, as the `http` crate keeps it.
    pub(crate) fn header<'py>(&self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
        if name.len() > NAME_BYTES_MAX {
            return PyBytes::new(py, name);
        }
        let mut names = self.headers.borrow_mut();
        let slot = &mut names[slot_of(name)];
        if let Some(known) = slot {
            let known = known.bind(py);
            if known.as_bytes() == name {
                return known.clone();
            }
        }
        let made = PyBytes::new(py, name);
        let old = slot.replace(made.clone().unbind());
        drop(names);
        drop(old);
        made
    }

    /// `path` and `raw_path` of a scope.
    ///
    /// `raw_path` is what the client sent, without the query. `path` is the same, percent-decoded, read as UTF-8, and put
    /// behind `root_path`: ASGI's `path` includes the mount point, and a proxy in front that strips the prefix is what
    /// `root_path` is for (uvicorn does the same; Starlette and Django take the prefix off again). Bytes that are not UTF-8
    /// become U+FFFD as in every other ASGI server: a lone surrogate would fail later in whatever encodes the path, a log
    /// line for instance, and who wants the exact bytes has `raw_path`.
    pub(crate) fn path<'py>(
        &self,
        py: Python<'py>,
        raw: &str,
    ) -> (Bound<'py, PyString>, Bound<'py, PyBytes>) {
        let index = (raw.len() <= PATH_BYTES_MAX).then(|| slot_of(raw.as_bytes()));
        if let Some(index) = index
            && let Some(known) = &self.paths.borrow()[index]
            && known.raw.as_bytes(py) == raw.as_bytes()
        {
            return (known.decoded.bind(py).clone(), known.raw.bind(py).clone());
        }
        let decoded = self.decode(py, raw);
        let bytes = PyBytes::new(py, raw.as_bytes());
        if let Some(index) = index {
            let slot = PathSlot {
                raw: bytes.clone().unbind(),
                decoded: decoded.clone().unbind(),
            };
            let old = self.paths.borrow_mut()[index].replace(slot);
            drop(old);
        }
        (decoded, bytes)
    }

    fn decode<'py>(&self, py: Python<'py>, raw: &str) -> Bound<'py, PyString> {
        Self::path_below(py, &self.root_path, raw)
    }

    /// `path` of a scope behind a `root_path` of its own.
    pub(crate) fn path_below<'py>(
        py: Python<'py>,
        root_path: &str,
        raw: &str,
    ) -> Bound<'py, PyString> {
        if root_path.is_empty() && !raw.contains('%') {
            return PyString::new(py, raw);
        }
        let mut bytes = Vec::with_capacity(root_path.len() + raw.len());
        bytes.extend_from_slice(root_path.as_bytes());
        percent_decode(raw.as_bytes(), &mut bytes);
        PyString::new(py, &String::from_utf8_lossy(&bytes))
    }
}

/// Appends `raw` to `out` with `%41` as `A`. A percent sign without two hexadecimal digits stays as it is.
fn percent_decode(raw: &[u8], out: &mut Vec<u8>) {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%'
            && let [high, low, tail @ ..] = tail
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            out.push(high << 4 | low);
            rest = tail;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
}

/// FNV-like: quick for the short texts that come here; collisions only cost a miss.
fn slot_of(text: &[u8]) -> usize {
    let (words, tail) = text.as_chunks::<8>();
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let hash = words.iter().fold(text.len() as u64, |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    let hash = tail
        .iter()
        .fold(hash, |hash, &byte| mix(hash, u64::from(byte)));
    (hash >> 56) as usize % SLOTS
}
