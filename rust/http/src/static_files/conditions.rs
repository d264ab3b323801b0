//! Conditional requests (RFC 9110, section 13): what a client has already, and what it only wants if nothing changed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{
    HeaderMap, HeaderValue,
    header::{
        AsHeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    },
};

/// For so long after a change the next one may leave the same time behind: clocks of file systems tick every few milliseconds,
/// some every second or two.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators {
    /// With its quotes, without `W/`.
    tag: String,
    /// The file was changed just now and may change again without a trace, so the tag is a weak one.
    is_settled: bool,
    /// Seconds since 1970; never later than now. `None` for a time before 1970.
    modified: Option<u64>,
}

impl Validators {
    /// Of a file of that size and time (nanoseconds since 1970), in the form that `suffix` names.
    pub(super) fn new(size: u64, modified_ns: i128, suffix: &str, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let is_settled = i128::try_from(now.saturating_sub(SETTLED_AFTER).as_nanos())
            .is_ok_and(|settled| modified_ns <= settled);
        let seconds = u64::try_from(modified_ns.div_euclid(1_000_000_000)).ok();
        Self {
            tag: format!("\"{modified_ns:x}-{size:x}{suffix}\""),
            is_settled,
            modified: seconds.map(|seconds| seconds.min(now.as_secs())),
        }
    }

    /// Value of `ETag`.
    pub(super) fn etag(&self) -> HeaderValue {
        let value = if self.is_settled {
            HeaderValue::try_from(&self.tag)
        } else {
            HeaderValue::try_from(format!("W/{}", self.tag))
        };
        value.expect("quotes and hexadecimal digits are visible ASCII")
    }

    /// Value of `Last-Modified`.
    pub(super) fn last_modified(&self) -> Option<HeaderValue> {
        let time = UNIX_EPOCH + Duration::from_secs(self.modified?);
        HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
    }

    /// Strong comparison: both are strong and the same.
    fn is_strongly(&self, other: &Tag<'_>) -> bool {
        self.is_settled && !other.is_weak && other.opaque == self.tag.as_bytes()
    }

    /// Weak comparison.
    fn is_weakly(&self, other: &Tag<'_>) -> bool {
        other.opaque == self.tag.as_bytes()
    }
}

/// What the conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As if there were none.
    Send,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Judges in the order of RFC 9110, 13.2.2. The method is GET or HEAD.
pub(super) fn judge(headers: &HeaderMap, file: &Validators) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !any_tag(headers, IF_MATCH, |tag| file.is_strongly(tag)) {
            return Verdict::Failed;
        }
    } else if let (Some(modified), Some(since)) =
        (file.modified, date(headers, IF_UNMODIFIED_SINCE))
        && modified > since
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if any_tag(headers, IF_NONE_MATCH, |tag| file.is_weakly(tag)) {
            return Verdict::NotModified;
        }
    } else if let (Some(modified), Some(since)) = (file.modified, date(headers, IF_MODIFIED_SINCE))
        && modified <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Send
}

/// Whether `If-None-Match` names this tag (with its quotes), or any.
pub(crate) fn none_match(headers: &HeaderMap, tag: &str) -> bool {
    any_tag(headers, IF_NONE_MATCH, |other| {
        other.opaque == tag.as_bytes()
    })
}

/// Whether `Range` counts: there is no `If-Range`, or it names the file as it is (RFC 9110, 13.1.5).
pub(super) fn range_counts(headers: &HeaderMap, file: &Validators) -> bool {
    let mut values = headers.get_all(IF_RANGE).iter();
    let Some(value) = values.next() else {
        return true;
    };
    if values.next().is_some() {
        return false;
    }
    let bytes = value.as_bytes().trim_ascii();
    if let Some((tag, rest)) = Tag::read(bytes) {
        return rest.is_empty() && file.is_strongly(&tag);
    }
    // To the second, and only once a second is over: two changes within one leave the same date.
    file.is_settled && file.modified.is_some() && http_date(bytes) == file.modified
}

/// An entity tag as a client sends it.
struct Tag<'a> {
    is_weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// The tag that `bytes` begin with, and what follows.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_weak, quoted) = match bytes.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner
            .iter()
            .position(|&byte| !matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff))?;
        if inner[end] != b'"' {
            return None;
        }
        let (opaque, rest) = quoted.split_at(end + 2);
        Some((Self { is_weak, opaque }, rest))
    }
}

/// Whether a list of tags has one that fits, or is `*`. What is malformed fits nothing.
fn any_tag(headers: &HeaderMap, name: impl AsHeaderName, fits: impl Fn(&Tag<'_>) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut rest = value.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        while !rest.is_empty() {
            if let Some(next) = rest.strip_prefix(b",") {
                rest = next.trim_ascii_start();
                continue;
            }
            let Some((tag, next)) = Tag::read(rest) else {
                return false;
            };
            rest = next.trim_ascii_start();
            if !rest.is_empty() && rest[0] != b',' {
                return false;
            }
            if fits(&tag) {
                return true;
            }
        }
        false
    })
}

/// The date of a field that has one. A repeated field has none, and neither has one that is no date.
fn date(headers: &HeaderMap, name: impl AsHeaderName) -> Option<u64> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    http_date(value.as_bytes().trim_ascii())
}

fn http_date(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// For fuzzing: a file's own tag in front of a list decides, whatever else a client says. The lines of the input are fields, named by
/// their first byte.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(data: &[u8]) {
    const NAMES: [http::HeaderName; 5] = [
        IF_MATCH,
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_UNMODIFIED_SINCE,
        IF_RANGE,
    ];
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n').take(20) {
        if let Some((name, value)) = line.split_first()
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(&NAMES[usize::from(*name) % NAMES.len()], value);
        }
    }
    let now = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let file = Validators::new(5, 784_111_777_500_000_000, "-gz", now);
    let _ = (judge(&headers, &file), range_counts(&headers, &file));
    let with = |name: &http::HeaderName| {
        let mut headers = headers.clone();
        headers.remove(IF_MATCH);
        headers.remove(IF_UNMODIFIED_SINCE);
        let mut values = vec![file.etag()];
        values.extend(headers.get_all(name).iter().cloned());
        headers.remove(name);
        for value in values {
            headers.append(name, value);
        }
        headers
    };
    assert_eq!(judge(&with(&IF_NONE_MATCH), &file), Verdict::NotModified);
    assert_ne!(judge(&with(&IF_MATCH), &file), Verdict::Failed);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Validators, Verdict, judge, range_counts};

    /// Sun, 06 Nov 1994 08:49:37 GMT, and a half.
    const MODIFIED_NS: i128 = 784_111_777_500_000_000;
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000_000)
    }

    fn file() -> Validators {
        Validators::new(5, MODIFIED_NS, "", now())
    }

    fn fields(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_the_rfc() {
        use Verdict::{Failed, NotModified, Send};
        let tag = file().tag;
        let weak = format!("W/{tag}");
        let list = format!("\"x\", {weak} ,\"y\"");
        let comma = "\"a,b\"";
        for (conditions, verdict) in [
            (&[][..], Send),
            // If-Match: strong, and before all others.
            (&[("if-match", &*tag)], Send),
            (&[("if-match", "*")], Send),
            (&[("if-match", "\"x\"")], Failed),
            (&[("if-match", &weak)], Failed),
            (&[("if-match", "")], Failed),
            (&[("if-match", "rubbish")], Failed),
            (&[("if-match", "\"x\""), ("if-match", &tag)], Send),
            (&[("if-match", "\"x\""), ("if-none-match", &tag)], Failed),
            (&[("if-match", &tag), ("if-unmodified-since", BEFORE)], Send),
            // If-Unmodified-Since.
            (&[("if-unmodified-since", AT)], Send),
            (&[("if-unmodified-since", AFTER)], Send),
            (&[("if-unmodified-since", BEFORE)], Failed),
            (&[("if-unmodified-since", "rubbish")], Send),
            (
                &[
                    ("if-unmodified-since", BEFORE),
                    ("if-unmodified-since", BEFORE),
                ],
                Send,
            ),
            // If-None-Match: weak, and before If-Modified-Since.
            (&[("if-none-match", &tag)], NotModified),
            (&[("if-none-match", &weak)], NotModified),
            (&[("if-none-match", &list)], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"x\"")], Send),
            (&[("if-none-match", comma)], Send),
            (&[("if-none-match", "")], Send),
            (&[("if-none-match", &tag[1..])], Send),
            (&[("if-none-match", "\"x\" \"y\"")], Send),
            (
                &[("if-none-match", "\"x\""), ("if-modified-since", AFTER)],
                Send,
            ),
            (
                &[("if-none-match", &tag), ("if-modified-since", BEFORE)],
                NotModified,
            ),
            (&[("if-match", &tag), ("if-none-match", &tag)], NotModified),
            // If-Modified-Since.
            (&[("if-modified-since", AT)], NotModified),
            (&[("if-modified-since", AFTER)], NotModified),
            (&[("if-modified-since", BEFORE)], Send),
            (
                &[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")],
                NotModified,
            ),
            (
                &[("if-modified-since", "Sun Nov  6 08:49:37 1994")],
                NotModified,
            ),
            (&[("if-modified-since", "784111777")], Send),
            (
                &[("if-modified-since", AT), ("if-modified-since", AT)],
                Send,
            ),
        ] {
            assert_eq!(
                judge(&fields(conditions), &file()),
                verdict,
                "{conditions:?}"
            );
        }
    }

    #[test]
    fn ranges_count_for_the_file_as_it_is() {
        let tag = file().tag;
        let weak = format!("W/{tag}");
        for (value, counts) in [
            (&*tag, true),
            (&weak, false),
            ("\"x\"", false),
            (AT, true),
            (BEFORE, false),
            (AFTER, false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(
                range_counts(&fields(&[("if-range", value)]), &file()),
                counts,
                "{value}"
            );
        }
        assert!(range_counts(&HeaderMap::new(), &file()));
        let twice = fields(&[("if-range", &tag), ("if-range", &tag)]);
        assert!(!range_counts(&twice, &file()));
    }

    #[test]
    fn file_that_was_changed_just_now_has_a_weak_tag() {
        let modified = UNIX_EPOCH + Duration::from_millis(784_111_777_500);
        for (later, is_weak) in [(0, true), (1999, true), (2000, false)] {
            let now = modified + Duration::from_millis(later);
            let file = Validators::new(5, MODIFIED_NS, "", now);
            let etag = file.etag();
            assert_eq!(etag.as_bytes().starts_with(b"W/"), is_weak);
            let same = fields(&[("if-none-match", etag.to_str().unwrap())]);
            assert_eq!(judge(&same, &file), Verdict::NotModified);
            assert_eq!(range_counts(&fields(&[("if-range", AT)]), &file), !is_weak);
            assert_eq!(
                range_counts(&fields(&[("if-range", &file.tag)]), &file),
                !is_weak
            );
        }
    }

    #[test]
    fn times_that_no_date_has() {
        // In the future: not later than now.
        let future = Validators::new(5, i128::from(u64::MAX) * 1_000_000_000, "", now());
        assert_eq!(
            future.last_modified().unwrap(),
            "Sun, 09 Sep 2001 01:46:40 GMT"
        );
        assert!(future.etag().as_bytes().starts_with(b"W/"));
        // Before 1970: none.
        let past = Validators::new(5, -1, "", now());
        assert_eq!(past.last_modified(), None);
        assert_eq!(
            judge(&fields(&[("if-modified-since", AT)]), &past),
            Verdict::Send
        );
        assert!(past.etag().to_str().is_ok());
    }

    #[test]
    fn sizes_times_and_forms_have_tags_of_their_own() {
        let tags: std::collections::HashSet<_> = [
            Validators::new(5, MODIFIED_NS, "", now()),
            Validators::new(6, MODIFIED_NS, "", now()),
            Validators::new(5, MODIFIED_NS + 1, "", now()),
            Validators::new(5, MODIFIED_NS, "-br", now()),
        ]
        .map(|file| file.tag)
        .into();
        assert_eq!(tags.len(), 4);
    }
}
