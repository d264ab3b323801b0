//! What `Accept-Encoding` allows (RFC 9110, 12.5.3), for files that lie compressed on the disk and for responses that are
//! compressed on their way.
//!
//! Codings are chosen by the client's weights, and among equal ones by ours: zstd, br, gzip. A coding that is not named is not
//! sent. `*` stands for gzip alone: a client that names nothing may not know what came later. No coding at all
//! (`identity`) is always allowed unless it is refused, `identity;q=0` or `*;q=0`; it comes before a coding only when it is
//! named with a higher weight.

use http::{HeaderMap, HeaderValue, header::ACCEPT_ENCODING};

/// A way to compress a body, in the order in which they are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them, the best first.
    pub(crate) const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// As it stands in `Content-Encoding`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    pub(crate) fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }
}

/// A weight in thousandths, from 0 (never) to 1000.
pub(crate) type Weight = u16;

/// What one request accepts. The default is what is accepted where the field is missing: nothing but `identity`, since tools
/// that say nothing expect what they asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// As [`Coding::ALL`].
    codings: [Option<Weight>; 3],
    identity: Option<Weight>,
    others: Option<Weight>,
}

impl Accepted {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        for value in headers.get_all(ACCEPT_ENCODING) {
            accepted.read(value.as_bytes());
        }
        accepted
    }

    /// Reads one value. Of what is named twice the lower weight counts; what is malformed is not accepted.
    pub(crate) fn read(&mut self, value: &[u8]) {
        for item in value.split(|&byte| byte == b',') {
            let (name, parameter) = match item.iter().position(|&byte| byte == b';') {
                Some(end) => (&item[..end], Some(&item[end + 1..])),
                None => (item, None),
            };
            let Some(weight) = parameter.map_or(Some(1000), weight) else {
                continue;
            };
            let name = name.trim_ascii();
            let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
            let place = if is(b"*") {
                &mut self.others
            } else if is(b"identity") {
                &mut self.identity
            } else if is(b"zstd") {
                &mut self.codings[0]
            } else if is(b"br") {
                &mut self.codings[1]
            } else if is(b"gzip") || is(b"x-gzip") {
                &mut self.codings[2]
            } else {
                continue;
            };
            *place = Some(place.map_or(weight, |known| known.min(weight)));
        }
    }

    fn weight(&self, coding: Coding) -> Weight {
        let named = match coding {
            Coding::Zstd => self.codings[0],
            Coding::Brotli => self.codings[1],
            Coding::Gzip => self.codings[2].or(self.others),
        };
        named.unwrap_or(0)
    }

    /// The codings that may be sent and are not worse than none, the best first.
    pub(crate) fn codings(&self) -> impl Iterator<Item = Coding> + use<> {
        let least = self.identity.unwrap_or(0).max(1);
        let mut order = Coding::ALL.map(|coding| (self.weight(coding), coding));
        // Stable: equal ones stay as they were.
        order.sort_by_key(|&(weight, _)| std::cmp::Reverse(weight));
        order
            .into_iter()
            .filter(move |&(weight, _)| weight >= least)
            .map(|(_, coding)| coding)
    }

    /// A body must not be sent as it is.
    pub(crate) fn refuses_identity(&self) -> bool {
        self.identity.or(self.others) == Some(0)
    }
}

/// `q=0.5`, as RFC 9110, 12.4.2 has it: at most three digits behind the point.
fn weight(parameter: &[u8]) -> Option<Weight> {
    let parameter = parameter.trim_ascii();
    let (name, value) = parameter.split_at_checked(2)?;
    name.eq_ignore_ascii_case(b"q=")
        .then(|| thousandths(value))?
}

/// `0`, `0.125`, `1`, `1.000`.
pub(crate) fn thousandths(value: &[u8]) -> Option<Weight> {
    let (whole, rest) = value.split_first()?;
    let thousands = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let digits = match rest {
        [] => &[],
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut behind = 0;
    for place in 0..3 {
        let digit = match digits.get(place) {
            None => 0,
            Some(digit) if digit.is_ascii_digit() => Weight::from(digit - b'0'),
            Some(_) => return None,
        };
        behind = behind * 10 + digit;
    }
    (thousands + behind <= 1000).then_some(thousands + behind)
}

#[cfg(test)]
mod tests {
    use super::Accepted;

    fn accepted(value: &str) -> Accepted {
        let mut accepted = Accepted::default();
        accepted.read(value.as_bytes());
        accepted
    }

    fn order(value: &str) -> String {
        let names: Vec<_> = accepted(value).codings().map(super::Coding::name).collect();
        names.join(" ")
    }

    #[test]
    fn codings_come_by_weight_and_then_by_our_order() {
        for (value, expected) in [
            ("", ""),
            ("gzip", "gzip"),
            ("gzip, deflate, br, zstd", "zstd br gzip"),
            ("GZIP;Q=1, Br ; q=0.9", "gzip br"),
            ("gzip;q=0.5, br;q=0.5", "br gzip"),
            ("gzip;q=0.001", "gzip"),
            ("zstd;q=0, br;q=0.0, gzip;q=0.000", ""),
            ("x-gzip", "gzip"),
            ("*", "gzip"),
            ("*;q=0.3, br", "br gzip"),
            ("gzip;q=0, *", ""),
            ("identity", ""),
            ("identity;q=0.5, gzip", "gzip"),
            ("identity;q=0.5, gzip;q=0.4, br;q=0.6", "br"),
            ("identity;q=1, gzip;q=1", "gzip"),
            (" ,, gzip ,", "gzip"),
            ("gzip;q=1, gzip;q=0", ""),
            ("deflate, compress, sdch, gzipped, zst", ""),
            // Malformed weights.
            ("gzip;q=1.001", ""),
            ("gzip;q=2, br", "br"),
            ("gzip;q=.5", ""),
            ("gzip;q=0.5000", ""),
            ("gzip;q=", ""),
            ("gzip;q", ""),
            ("gzip;", ""),
            ("gzip;level=9", ""),
            ("gzip;q=-1", ""),
            ("gzip;q=0.x", ""),
        ] {
            assert_eq!(order(value), expected, "{value:?}");
        }
    }

    #[test]
    fn identity_is_allowed_unless_it_is_refused() {
        for (value, refused) in [
            ("", false),
            ("gzip", false),
            ("identity;q=0", true),
            ("*;q=0", true),
            ("*;q=0, gzip", true),
            ("*;q=0, identity", false),
            ("identity;q=0, *", true),
            ("identity;q=0.001", false),
        ] {
            assert_eq!(accepted(value).refuses_identity(), refused, "{value:?}");
        }
    }
}
