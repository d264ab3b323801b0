//! JSON as the frame routes answer it: flat objects, and lists of them.

use crate::log_text::{escape_json, push_number};

/// Longer values are cut; topics and content types are shorter.
const VALUE_BYTES_MAX: usize = 1024;

/// An object that is being written.
#[derive(Clone)]
pub(crate) struct Object(Vec<u8>);

impl Object {
    pub(crate) fn new() -> Self {
        Self(vec![b'{'])
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push(b'"');
        escape_json(value, VALUE_BYTES_MAX, &mut self.0);
        self.0.push(b'"');
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        push_number(value, &mut self.0);
    }

    /// Numbers; `None` is `null`.
    pub(crate) fn numbers(&mut self, key: &str, values: impl Iterator<Item = Option<u64>>) {
        self.key(key);
        self.0.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.0.push(b',');
            }
            match value {
                Some(value) => push_number(value, &mut self.0),
                None => self.0.extend_from_slice(b"null"),
            }
        }
        self.0.push(b']');
    }

    /// A value that is JSON already.
    pub(crate) fn json(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.0.extend_from_slice(value);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// A list of values that are JSON already.
pub(crate) fn list(values: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut all = vec![b'['];
    for value in values {
        if all.len() > 1 {
            all.push(b',');
        }
        all.extend_from_slice(&value);
    }
    all.push(b']');
    all
}
