//! The last `Host` of a connection that was found valid: nearly every client sends the same one with each request, and to
//! compare is cheaper than to read.

use std::cell::RefCell;

use crate::h1::is_host;

/// Longer ones are read each time: nobody should be able to make a connection large.
const BYTES_MAX: usize = 63;

/// One connection's.
#[derive(Default)]
pub(crate) struct KnownHost(RefCell<Vec<u8>>);

impl KnownHost {
    /// [`is_host`].
    pub(crate) fn is_host(&self, value: &[u8]) -> bool {
        let mut known = self.0.borrow_mut();
        // At first that is the empty one, which is valid.
        if known.as_slice() == value {
            return true;
        }
        let valid = is_host(value);
        if valid && value.len() <= BYTES_MAX {
            known.clear();
            known.extend_from_slice(value);
        }
        valid
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, KnownHost};

    #[test]
    fn answers_as_if_it_remembered_nothing() {
        let known = KnownHost::default();
        let long = "a".repeat(BYTES_MAX + 1);
        let longest = &long[1..];
        for (host, valid) in [
            ("", true),
            ("a:80", true),
            ("a:80", true),
            ("a:8x", false),
            ("a:80", true),
            ("b:80", true),
            ("b:8", true),
            (longest, true),
            (longest, true),
            (&long, true),
            (longest, true),
            ("a b", false),
            ("", true),
        ] {
            assert_eq!(known.is_host(host.as_bytes()), valid, "{host:?}");
        }
    }
}
