//! Names of requests: what stands in `X-Request-ID`.
//!
//! A trusted proxy may have named a request already; then that is its name, if it is well-formed: it goes into logs and a
//! response. Else one is made: 32 hexadecimal digits, as of a UUID. The first half is random and belongs to the process, the
//! second is the number of the request, shuffled: so names differ between workers and between restarts, nobody can guess
//! one from another nor count our requests, and none of it takes a system call or a lock.

use std::{
    cell::{Cell, RefCell},
    hash::{BuildHasher, RandomState},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::log_text::push_hex;

/// The field.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest name that is taken from a proxy.
const BYTES_MAX: usize = 128;

/// Digits of a name that is made here.
const DIGITS: usize = 32;
/// Names that are made at a time and share their memory: a handful, since one that is kept keeps the others.
const BATCH: usize = 16;

/// Makes names, for one worker.
pub(crate) struct RequestIds {
    /// The first half of each.
    process: [u8; DIGITS / 2],
    seed: u64,
    next: Cell<u64>,
    /// Names that were made and not given away.
    made: RefCell<Bytes>,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // The keys of the standard library's hash tables are of the system's generator, and differ from one to the next.
        let random = || RandomState::new().hash_one(0_u64);
        let mut process = Vec::with_capacity(DIGITS / 2);
        push_hex_number(random(), &mut process);
        Self {
            process: process.try_into().expect("two digits for each byte"),
            seed: random(),
            next: Cell::new(random()),
            made: RefCell::default(),
        }
    }

    /// A name that no other request has.
    pub(crate) fn make(&self) -> HeaderValue {
        let mut made = self.made.borrow_mut();
        if made.is_empty() {
            *made = self.batch();
        }
        HeaderValue::from_maybe_shared(made.split_to(DIGITS)).expect("digits are a valid field")
    }

    fn batch(&self) -> Bytes {
        let first = self.next.get();
        self.next.set(first.wrapping_add(BATCH as u64));
        let mut text = Vec::with_capacity(BATCH * DIGITS);
        for number in 0..BATCH as u64 {
            text.extend_from_slice(&self.process);
            push_hex_number(shuffle(first.wrapping_add(number) ^ self.seed), &mut text);
        }
        text.into()
    }
}

fn push_hex_number(number: u64, text: &mut Vec<u8>) {
    for byte in number.to_be_bytes() {
        push_hex(byte, text);
    }
}

/// One number for each number (the finalizer of splitmix64, which can be undone step by step).
fn shuffle(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A name that a proxy may give: nothing that a log, a shell or a URL reads in its own way.
pub(crate) fn is_well_formed(name: &HeaderValue) -> bool {
    let name = name.as_bytes();
    (1..=BYTES_MAX).contains(&name.len())
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::HeaderValue;

    use super::{RequestIds, is_well_formed};

    #[test]
    fn names_are_never_the_same() {
        let (one, other) = (RequestIds::new(), RequestIds::new());
        let names: HashSet<_> = (0..10_000)
            .flat_map(|_| [one.make(), other.make()])
            .collect();
        assert_eq!(names.len(), 20_000);
        assert!(
            names
                .iter()
                .all(|name| is_well_formed(name) && name.len() == 32)
        );
    }

    #[test]
    fn names_of_proxies_are_short_and_plain() {
        let longest = "a".repeat(128);
        for (name, fits) in [
            ("a", true),
            ("A.b_c-9", true),
            (longest.as_str(), true),
            ("", false),
            (&format!("{longest}a"), false),
            ("a b", false),
            ("a/b", false),
            ("a\tb", false),
            ("\"a\"", false),
            ("a,b", false),
        ] {
            assert_eq!(
                is_well_formed(&HeaderValue::from_str(name).unwrap()),
                fits,
                "{name:?}"
            );
        }
    }
}
