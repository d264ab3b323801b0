//! Percent encoding, queries and cookies.

use std::borrow::Cow;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends what stands for `byte` in a URI.
fn push_percent(byte: u8, out: &mut String) {
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_subdelim(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    )
}

/// May stand for itself in a segment of a path (RFC 3986, section 3.3).
fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || is_subdelim(byte) || matches!(byte, b':' | b'@')
}

/// Appends `text` as it stands in the fragment of a URI (RFC 3986, section 3.5).
pub fn push_fragment(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if is_pchar(byte) || matches!(byte, b'/' | b'?') {
            out.push(char::from(byte));
        } else {
            push_percent(byte, out);
        }
    }
}

/// Appends `text`, which is not encoded, as it stands in a path; slashes stay.
pub fn push_path(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if is_pchar(byte) || byte == b'/' {
            out.push(char::from(byte));
        } else {
            push_percent(byte, out);
        }
    }
}

fn nibble(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The one way to write a path: nothing is encoded that needs not be, and what is encoded is in capitals. Paths that mean the same
/// become the same text, and an encoded slash stays one. `None` when a `%` is not followed by two digits.
pub fn canonical_path(path: &str) -> Option<Cow<'_, str>> {
    if path.bytes().all(|byte| is_pchar(byte) || byte == b'/') {
        return Some(Cow::Borrowed(path));
    }
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len() + 8);
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        at += 1;
        if byte == b'%' {
            let high = nibble(*bytes.get(at)?)?;
            let low = nibble(*bytes.get(at + 1)?)?;
            at += 2;
            let meant = high << 4 | low;
            if is_pchar(meant) {
                out.push(char::from(meant));
            } else {
                push_percent(meant, &mut out);
            }
        } else if is_pchar(byte) || byte == b'/' {
            out.push(char::from(byte));
        } else {
            push_percent(byte, &mut out);
        }
    }
    Some(Cow::Owned(out))
}

/// What percent-encoded text means. `None` when a `%` is not followed by two digits, or when it is no UTF-8.
pub fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text
        .bytes()
        .any(|byte| byte == b'%' || plus_is_space && byte == b'+')
    {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        at += 1;
        out.push(match byte {
            b'%' => {
                let high = nibble(*bytes.get(at)?)?;
                let low = nibble(*bytes.get(at + 1)?)?;
                at += 2;
                high << 4 | low
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// Names and values of a query or of a form (`application/x-www-form-urlencoded`), in order. A value is `None` where it is not
/// encoded right; a pair whose name is not is passed over, because nobody can have asked for it.
pub fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Option<Cow<'_, str>>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name, true)?, decode(value, true)))
        })
}

/// Names and values of one `Cookie` field (RFC 6265, section 5.4), in order; values keep what they are, but for quotes around them.
pub fn cookies(field: &str) -> impl Iterator<Item = (&str, &str)> {
    field.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let bare = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .unwrap_or(value);
        Some((name.trim(), bare))
    })
}

#[cfg(test)]
mod tests {
    use super::{canonical_path, cookies, decode, pairs};

    #[test]
    fn paths_that_mean_the_same_are_the_same() {
        for (path, canonical) in [
            ("/a/b", "/a/b"),
            ("/%61/%7Eb", "/a/~b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a%2Fb%2f", "/a%2Fb%2F"),
            ("/a%20b", "/a%20b"),
            ("/{x}", "/%7Bx%7D"),
        ] {
            assert_eq!(canonical_path(path).unwrap(), canonical);
        }
        for broken in ["/%", "/%4", "/%zz", "/a%2"] {
            assert_eq!(canonical_path(broken), None);
        }
    }

    #[test]
    fn text_is_decoded_or_refused() {
        assert_eq!(decode("a+b%2B", true).unwrap(), "a b+");
        assert_eq!(decode("a+b%2B", false).unwrap(), "a+b+");
        assert_eq!(decode("%C3%BC", false).unwrap(), "ü");
        for broken in ["%", "%f", "%C3", "%FF"] {
            assert_eq!(decode(broken, true), None);
        }
    }

    #[test]
    fn queries_are_pairs() {
        let of = |query: &'static str| -> Vec<_> {
            pairs(query)
                .map(|(name, value)| (name.into_owned(), value.map(std::borrow::Cow::into_owned)))
                .collect()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(of(""), []);
        assert_eq!(
            of("a=1&&b=&c&a=2&d=x%3Dy=z"),
            [
                pair("a", "1"),
                pair("b", ""),
                pair("c", ""),
                pair("a", "2"),
                pair("d", "x=y=z")
            ]
        );
        assert_eq!(of("a=%ff&%ff=1"), [("a".to_owned(), None)]);
    }

    #[test]
    fn cookies_are_pairs() {
        let found: Vec<_> = cookies("a=1; b=\"x y\";c==; nothing; d=").collect();
        assert_eq!(found, [("a", "1"), ("b", "x y"), ("c", "="), ("d", "")]);
    }
}
