//! `Range` (RFC 9110, section 14): which bytes of a file are wanted.
//!
//! A field that is malformed, that asks in another unit or for more than [`RANGES_MAX`] ranges is as if it were not there,
//! which the RFC allows. Ranges that overlap, or with less between them than the head of a part is long, become one: nobody
//! is sent more bytes than the file has, whatever was asked for.

use std::ops::Range;

/// More ranges in one request get the whole file.
pub(crate) const RANGES_MAX: usize = 8;
/// About what a part of a multipart body costs beside its bytes.
const GAP_BYTES_MAX: u64 = 80;

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The whole file, with 200.
    Whole,
    /// Nothing, with 416.
    Nothing,
    /// These bytes, with 206; not empty, and apart from each other.
    Parts(Vec<Range<u64>>),
}

/// What a value of `Range` wants of a file of `size` bytes.
pub(crate) fn wanted(value: &[u8], size: u64) -> Wanted {
    // Of an empty file no part could be described.
    if size == 0 {
        return Wanted::Whole;
    }
    match read(value, size) {
        None => Wanted::Whole,
        Some(parts) if parts.is_empty() => Wanted::Nothing,
        Some(parts) => Wanted::Parts(join(parts)),
    }
}

/// The ranges that can be satisfied, in their order; `None` when the field does not count.
fn read(value: &[u8], size: u64) -> Option<Vec<Range<u64>>> {
    let (unit, set) = value.trim_ascii().split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut parts = Vec::new();
    let mut count = 0;
    for (items, item) in set.split(|&byte| byte == b',').enumerate() {
        let item = item.trim_ascii();
        // Empty items are to be passed over, but not for ever.
        if items > 2 * RANGES_MAX {
            return None;
        }
        if item.is_empty() {
            continue;
        }
        count += 1;
        if count > RANGES_MAX {
            return None;
        }
        let dash = item.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (&item[..dash], &item[dash + 1..]);
        let part = if first.is_empty() {
            size.saturating_sub(number(last)?)..size
        } else {
            let first = number(first)?;
            let end = if last.is_empty() {
                size
            } else {
                let last = number(last)?;
                if last < first {
                    return None;
                }
                last.saturating_add(1).min(size)
            };
            first..end
        };
        if !part.is_empty() {
            parts.push(part);
        }
    }
    (count > 0).then_some(parts)
}

/// One or more digits. A number beyond all files is the largest one.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        })
    })
}

/// Makes one of those that overlap or nearly touch, at the place of the first of them.
fn join(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(parts.len());
    for mut part in parts {
        let mut place = None;
        let mut index = 0;
        // A joined part may reach others in turn.
        while index < joined.len() {
            let other = &joined[index];
            if part.start <= other.end.saturating_add(GAP_BYTES_MAX)
                && other.start <= part.end.saturating_add(GAP_BYTES_MAX)
            {
                part = part.start.min(other.start)..part.end.max(other.end);
                joined.remove(index);
                place = Some(place.map_or(index, |place: usize| place.min(index)));
                index = 0;
            } else {
                index += 1;
            }
        }
        match place {
            Some(place) => joined.insert(place, part),
            None => joined.push(part),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::{Wanted, wanted};

    #[expect(clippy::single_range_in_vec_init, reason = "lists of ranges")]
    #[test]
    fn ranges_of_a_file_of_ten_thousand_bytes() {
        for (value, ranges) in [
            ("bytes=0-499", &[0..500][..]),
            ("bytes=500-999", &[500..1000]),
            ("bytes=9500-", &[9500..10_000]),
            ("bytes=-500", &[9500..10_000]),
            ("bytes=0-0", &[0..1]),
            ("bytes=0-0,-1", &[0..1, 9999..10_000]),
            ("bytes=-10001", &[0..10_000]),
            ("bytes=9999-10000", &[9999..10_000]),
            ("bytes=0-99999999999999999999999", &[0..10_000]),
            ("bytes=-99999999999999999999999", &[0..10_000]),
            ("BYTES=0-1", &[0..2]),
            ("bytes= 0-1 , 500-600\t", &[0..2, 500..601]),
            ("bytes=,,0-1,", &[0..2]),
            // In the order in which they were asked for.
            ("bytes=500-600,0-1", &[500..601, 0..2]),
            // One that cannot be satisfied is left out.
            ("bytes=20000-,0-1", &[0..2]),
            ("bytes=-0,0-1", &[0..2]),
            // Overlapping, touching, and nearly touching.
            ("bytes=500-600,601-999", &[500..1000]),
            ("bytes=500-700,601-999", &[500..1000]),
            ("bytes=0-99,180-300", &[0..301]),
            ("bytes=0-99,181-300", &[0..100, 181..301]),
            ("bytes=0-0,5000-5001,2-3", &[0..4, 5000..5002]),
            ("bytes=5000-5001,0-0,1000-1001,0-4990", &[0..5002]),
            ("bytes=0-,0-,0-,0-,0-,0-,0-,0-", &[0..10_000]),
            (
                "bytes=0-0,1000-1000,2000-2000,3000-3000,4000-4000,5000-5000,6000-6000,7000-7000",
                &[
                    0..1,
                    1000..1001,
                    2000..2001,
                    3000..3001,
                    4000..4001,
                    5000..5001,
                    6000..6001,
                    7000..7001,
                ],
            ),
        ] {
            assert_eq!(
                wanted(value.as_bytes(), 10_000),
                Wanted::Parts(ranges.into()),
                "{value}"
            );
        }
    }

    #[test]
    fn ranges_that_are_not_there() {
        for value in [
            "bytes=10000-",
            "bytes=10000-10001",
            "bytes=-0",
            "bytes=99999999999999999999-",
            "bytes=-0,10000-",
        ] {
            assert_eq!(wanted(value.as_bytes(), 10_000), Wanted::Nothing, "{value}");
        }
    }

    #[test]
    fn fields_that_do_not_count() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1,5-4",
            "bytes=0",
            "bytes=0-1-2",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=0x0-1",
            "bytes 0-1",
            "bytes:0-1",
            "items=0-1",
            "bytes=1.5-2",
            "bytes=0 - 1",
            "bytes=0-0,200-200,400-400,600-600,800-800,1000-1000,1200-1200,1400-1400,1600-1600",
            "bytes=,,,,,,,,,,,,,,,,,,,,,,0-1",
        ] {
            assert_eq!(wanted(value.as_bytes(), 10_000), Wanted::Whole, "{value}");
        }
        for value in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            assert_eq!(wanted(value.as_bytes(), 0), Wanted::Whole, "{value}");
        }
    }
}
