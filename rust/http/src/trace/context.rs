//! W3C Trace Context (recommendation of November 2021, and what level 2 adds): `traceparent` and `tracestate`.
//!
//! A field that is not exactly as the recommendation has it counts as none: half a context is worse than a new one. `tracestate` is
//! passed on as it came, or not at all.

use http::{HeaderMap, HeaderValue};

/// What is longer is dropped (3.3.1.5: at least so much must pass).
const STATE_BYTES_MAX: usize = 512;
/// Members of `tracestate` (3.3.1.1).
const STATE_MEMBERS_MAX: usize = 32;
/// Characters of a key and of a value (3.3.1.3).
const STATE_PART_BYTES_MAX: usize = 256;

/// Where a span belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// Of the trace; not all zeros.
    pub trace_id: [u8; 16],
    /// Of the span in it; not all zeros.
    pub span_id: [u8; 8],
    /// Whether it is recorded.
    pub is_sampled: bool,
}

impl SpanContext {
    /// Reads `traceparent` (3.2).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [version] = hex(value.get(..2)?)?;
        let ends_well = match version {
            0 => value.len() == 55,
            0xff => false,
            // Later versions may add fields, and begin like this one.
            _ => value.len() == 55 || value.get(55) == Some(&b'-'),
        };
        if !ends_well || value[2] != b'-' || value.get(35)? != &b'-' || value.get(52)? != &b'-' {
            return None;
        }
        let trace_id = hex(&value[3..35])?;
        let span_id = hex(&value[36..52])?;
        let [flags] = hex(value.get(53..55)?)?;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            is_sampled: flags & 1 == 1,
        })
    }

    /// The caller's, of a request. Two of them are none.
    pub(super) fn of_caller(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(value.as_bytes())
    }
}

/// Lower-case digits only.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// `tracestate` of a request, if all of it is right. Several fields are one list (3.3.1).
pub(super) fn state_of(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all("tracestate").iter().peekable();
    values.peek()?;
    let values: Vec<&str> = values
        .map(HeaderValue::to_str)
        .collect::<Result<_, _>>()
        .ok()?;
    let joined = values.join(",");
    is_state(&joined).then_some(joined)
}

/// A list of `key=value` that names nobody twice (3.3.1).
pub(crate) fn is_state(list: &str) -> bool {
    if list.len() > STATE_BYTES_MAX {
        return false;
    }
    let mut keys: Vec<&str> = Vec::new();
    for member in list.split(',') {
        let member = member.trim_matches([' ', '\t']);
        if member.is_empty() {
            continue;
        }
        let Some((key, value)) = member.split_once('=') else {
            return false;
        };
        if !is_state_key(key) || !is_state_value(value) || keys.contains(&key) {
            return false;
        }
        keys.push(key);
    }
    (1..=STATE_MEMBERS_MAX).contains(&keys.len())
}

/// `simple-key` or `tenant@system` (3.3.1.3.1; level 2 lets both begin with a digit).
fn is_state_key(key: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && part.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte)
            })
    };
    let parts_fit = match key.split_once('@') {
        Some((tenant, system)) => is_part(tenant) && is_part(system),
        None => is_part(key),
    };
    parts_fit && key.len() <= STATE_PART_BYTES_MAX
}

/// Printable, without what ends it (3.3.1.3.2). Spaces at its end were taken off.
fn is_state_value(value: &str) -> bool {
    (1..=STATE_PART_BYTES_MAX).contains(&value.len())
        && value
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::{SpanContext, is_state};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_is_read_as_it_is_specified() {
        let parsed = SpanContext::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(parsed.trace_id[..4], [0x0a, 0xf7, 0x65, 0x19]);
        assert_eq!(parsed.span_id[6..], [0x33, 0x31]);
        assert!(parsed.is_sampled);
        let later = format!("01{}-and-more", &PARENT[2..]);
        assert_eq!(SpanContext::parse(later.as_bytes()), Some(parsed));
        for wrong in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &format!("ff{}", &PARENT[2..]),
            &format!("01{}more", &PARENT[2..]),
            &PARENT.to_uppercase(),
            &PARENT.replace('-', "_"),
            &PARENT.replace('b', "g"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0\u{e4}",
        ] {
            assert_eq!(SpanContext::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn tracestate_is_right_or_none() {
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|number| format!("k{number}=v")).collect();
            members.join(",")
        };
        for right in [
            "a=1",
            "a=1 , b=x y,",
            "fw529a3039@dt=FfAAAAAF",
            "0a_-*/=!",
            &many(32),
            &format!("{}=v", "k".repeat(256)),
        ] {
            assert!(is_state(right), "{right}");
        }
        for wrong in [
            "",
            " , ",
            "a",
            "a=",
            "=1",
            "A=1",
            "a=1,a=2",
            "a=1=2",
            "a@b@c=1",
            "@b=1",
            "a =1",
            "a=\u{7f}",
            &many(33),
            &format!("{}=v", "k".repeat(257)),
            &format!("a={}", "v".repeat(257)),
            &format!("a={},b={},c=1", "v".repeat(256), "v".repeat(256)),
        ] {
            assert!(!is_state(wrong), "{wrong}");
        }
    }
}
