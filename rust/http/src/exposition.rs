//! Metrics as text: Prometheus' format 0.0.4 and `OpenMetrics` 1.0, chosen by `Accept`.
//!
//! The two differ in little: `OpenMetrics` names a counter without `_total` where it is described, says so when a name ends in
//! its unit, and ends with a line of its own, so that an answer that was cut is noticed.
//!
//! ```text
//! # HELP http_requests_total Requests that are over.
//! # TYPE http_requests_total counter
//! http_requests_total{method="GET",status="200"} 7
//! ```

use std::fmt::{self, Display, Write};

use http::{HeaderMap, HeaderValue, header::ACCEPT};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client asks for: `OpenMetrics` if it names it and does not like text better (RFC 9110, 12.5.1).
    pub fn of(headers: &HeaderMap) -> Self {
        let (mut text, mut open): (f32, f32) = (0.0, 0.0);
        let ranges = headers.get_all(ACCEPT).iter();
        for range in ranges
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
        {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
                .map_or(1.0, |(_, weight)| weight.trim().parse().unwrap_or(0.0));
            match name.as_str() {
                "application/openmetrics-text" => open = open.max(weight),
                "text/plain" => text = text.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its media type.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// What a family of metrics measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How values are distributed over buckets.
    Histogram,
}

/// Metrics, while they are written.
pub struct Exposition {
    format: Format,
    text: String,
}

/// Labels of one sample, in order.
pub type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

impl Exposition {
    /// Nothing, so far.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::with_capacity(8 << 10),
        }
    }

    /// Begins a family. `name` has no `_total`; `help` is one line without backslashes.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let described = match (self.format, kind) {
            (Format::Text, Kind::Counter) => "_total",
            _ => "",
        };
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.write(format_args!("# HELP {name}{described} {help}\n"));
        self.write(format_args!("# TYPE {name}{described} {word}\n"));
        // The unit of a family must be the end of its name.
        if self.format == Format::OpenMetrics
            && let Some(unit) = ["seconds", "bytes"]
                .into_iter()
                .find(|unit| name.ends_with(unit))
        {
            self.write(format_args!("# UNIT {name} {unit}\n"));
        }
        Family {
            exposition: self,
            name,
            kind,
        }
    }

    /// All of it.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn write(&mut self, what: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(what);
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: Labels<'_>, value: &dyn Display) {
        self.write(format_args!("{name}{suffix}"));
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{label}=\""));
            let from = self.text.len();
            self.write(format_args!("{value}"));
            escape(&mut self.text, from);
            self.text.push('"');
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{after} {value}\n"));
    }
}

/// One family of metrics, while its samples are written.
pub struct Family<'a> {
    exposition: &'a mut Exposition,
    name: &'a str,
    kind: Kind,
}

impl Family<'_> {
    /// A counter or a gauge.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.exposition.sample(self.name, suffix, labels, &value);
    }

    /// A histogram: how many values lie in each bucket, the one without a bound last, and their sum.
    pub fn histogram(&mut self, labels: Labels<'_>, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut total = 0u64;
        for (index, count) in counts.iter().enumerate() {
            total = total.wrapping_add(*count);
            let bound = bounds.get(index);
            let bound: &dyn Display = match bound {
                // As a float: `1` and `1.0` are two labels to whoever compares text.
                Some(bound) => &format!("{bound:?}"),
                None => &"+Inf",
            };
            let mut all: Vec<(&str, &dyn Display)> = labels.to_vec();
            all.push(("le", bound));
            self.exposition.sample(self.name, "_bucket", &all, &total);
        }
        self.exposition.sample(self.name, "_sum", labels, &sum);
        self.exposition.sample(self.name, "_count", labels, &total);
    }
}

/// Escapes the value of a label that was written from `from` on.
fn escape(text: &mut String, from: usize) {
    if !text[from..].contains(['\\', '"', '\n']) {
        return;
    }
    let value = text.split_off(from);
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header::ACCEPT};

    use super::{Exposition, Format, Kind};

    fn written(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        let mut counter = exposition.family("things", Kind::Counter, "What there was.");
        counter.sample(&[("kind", &"a\"\\\nb"), ("status", &200)], 7);
        let mut gauge = exposition.family("age_seconds", Kind::Gauge, "How old.");
        gauge.sample(&[], 1.5);
        let mut histogram = exposition.family("wait_seconds", Kind::Histogram, "How long.");
        histogram.histogram(&[("method", &"GET")], &[0.25, 1.0], &[1, 0, 2], 9.5);
        exposition.finish()
    }

    #[test]
    fn text_is_that_of_version_0_0_4() {
        assert_eq!(
            written(Format::Text),
            "# HELP things_total What there was.\n\
             # TYPE things_total counter\n\
             things_total{kind=\"a\\\"\\\\\\nb\",status=\"200\"} 7\n\
             # HELP age_seconds How old.\n\
             # TYPE age_seconds gauge\n\
             age_seconds 1.5\n\
             # HELP wait_seconds How long.\n\
             # TYPE wait_seconds histogram\n\
             wait_seconds_bucket{method=\"GET\",le=\"0.25\"} 1\n\
             wait_seconds_bucket{method=\"GET\",le=\"1.0\"} 1\n\
             wait_seconds_bucket{method=\"GET\",le=\"+Inf\"} 3\n\
             wait_seconds_sum{method=\"GET\"} 9.5\n\
             wait_seconds_count{method=\"GET\"} 3\n"
        );
    }

    #[test]
    fn openmetrics_has_units_and_an_end() {
        let text = written(Format::OpenMetrics);
        assert!(text.contains("# TYPE things counter\nthings_total{"));
        assert!(text.contains("# TYPE age_seconds gauge\n# UNIT age_seconds seconds\n"));
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn format_is_what_the_client_likes_best() {
        let chosen = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            Format::of(&headers)
        };
        assert_eq!(Format::of(&HeaderMap::new()), Format::Text);
        for (accept, format) in [
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.1, text/plain",
                Format::Text,
            ),
            (
                "Application/OpenMetrics-Text; Q=0.8, text/plain;q=0.8",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
        ] {
            assert_eq!(chosen(accept), format, "{accept}");
        }
    }
}
