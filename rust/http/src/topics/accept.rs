//! Which media type a client likes how much: `Accept` (RFC 9110, section 12.5.1).

use http::{HeaderMap, header::ACCEPT};

use crate::accept_encoding::{Weight, thousandths};

/// Qualities are thousandths; this is "as good as any".
const BEST: Weight = 1000;

/// How much a client likes `kind/sub`: 0 is not at all. The most specific range that fits counts; without a field all is liked.
pub(super) fn quality(headers: &HeaderMap, kind: &str, sub: &str) -> Weight {
    if !headers.contains_key(ACCEPT) {
        return BEST;
    }
    let mut found = (0, 0);
    for (range, quality) in ranges(headers) {
        let specific = match range.split_once('/') {
            Some(("*", "*")) => 1,
            Some((first, "*")) if first.eq_ignore_ascii_case(kind) => 2,
            Some((first, second))
                if first.eq_ignore_ascii_case(kind) && second.eq_ignore_ascii_case(sub) =>
            {
                3
            }
            _ => continue,
        };
        if specific >= found.0 {
            found = (specific, quality);
        }
    }
    found.1
}

/// How much a client likes any type of a kind that it names itself.
pub(super) fn quality_of_kind(headers: &HeaderMap, kind: &str) -> Weight {
    ranges(headers)
        .filter(|(range, _)| {
            range
                .split_once('/')
                .is_some_and(|(first, _)| first.eq_ignore_ascii_case(kind))
        })
        .map(|(_, quality)| quality)
        .max()
        .unwrap_or(0)
}

/// Whether a client names this type itself.
pub(super) fn quality_if_named(headers: &HeaderMap, named: &str) -> Weight {
    ranges(headers)
        .filter(|(range, _)| range.eq_ignore_ascii_case(named))
        .map(|(_, quality)| quality)
        .max()
        .unwrap_or(0)
}

/// All ranges, without their parameters. What is malformed is not there.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = (&str, Weight)> {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let range = parts.next().filter(|range| range.contains('/'))?;
            let mut quality = BEST;
            for part in parts {
                if let Some((name, value)) = part.split_once('=')
                    && name.eq_ignore_ascii_case("q")
                {
                    quality = thousandths(value.as_bytes())?;
                }
            }
            Some((range, quality))
        })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header::ACCEPT};

    use super::{quality, quality_if_named, quality_of_kind};

    fn accepting(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn most_specific_range_counts() {
        let none = HeaderMap::new();
        assert_eq!(quality(&none, "image", "png"), 1000);
        for (value, png) in [
            ("*/*", 1000),
            ("image/*;q=0.5, */*", 500),
            ("image/png;q=0, image/*", 0),
            ("image/*, image/PNG ; Q=0.125", 125),
            ("text/html", 0),
            ("image/png;q=1.001", 0),
            ("image/png;q=x, */*;q=0.1", 100),
            ("png", 0),
            ("", 0),
        ] {
            assert_eq!(quality(&accepting(value), "image", "png"), png, "{value}");
        }
    }

    #[test]
    fn kinds_and_types_count_only_where_they_are_named() {
        let all = accepting("*/*");
        assert_eq!(quality_of_kind(&all, "image"), 0);
        assert_eq!(quality_if_named(&all, "application/x-npy"), 0);
        let some = accepting("image/webp;q=0.3, image/*;q=0.2, application/x-npy");
        assert_eq!(quality_of_kind(&some, "image"), 300);
        assert_eq!(quality_if_named(&some, "application/X-NPY"), 1000);
    }
}
