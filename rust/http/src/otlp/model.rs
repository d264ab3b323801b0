//! Requests as OpenTelemetry has them: spans and metrics of HTTP servers, by the stable semantic conventions (1.23 and later),
//! in the messages of OTLP 1.x (`opentelemetry/proto/{trace,metrics}/v1`).

use std::time::{Duration, SystemTime};

use http::{Method, Version};

use super::protobuf::Message;
use crate::edge::Client;
use crate::record::RequestRecord;
use crate::service::{Address, Entry};
use crate::trace::{Attributes, Details, Event, Link, Span, Value};

const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.36.0";
const SERVER: u64 = 2;
const STATUS_OK: u64 = 1;
const STATUS_ERROR: u64 = 2;
const CUMULATIVE: u64 = 2;
/// It is known whether the parent was of another process, and it was (`SPAN_FLAGS_CONTEXT_*_IS_REMOTE_MASK`).
const FROM_ELSEWHERE: u32 = 0x300;
/// `error.type` of a request whose response did not reach its end: the conventions have no name for that.
const ABORTED: &str = "aborted";
/// Keys in a query whose values are secrets (semantic conventions, `url.query`).
const SECRET_KEYS: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];
const REDACTED: &str = "REDACTED";

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// `AnyValue`.
fn write_value(any: &mut Message, value: &Value) {
    match value {
        Value::Text(text) => any.text(1, text),
        Value::Bool(value) => any.number(2, u64::from(*value)),
        Value::Integer(value) => any.number(3, value.cast_unsigned()),
        Value::Float(value) => any.double(4, *value),
        Value::List(values) => any.message(5, |list| {
            for value in values {
                list.message(1, |any| write_value(any, value));
            }
        }),
    }
}

/// `KeyValue`s in a field of `message`.
struct Pairs<'a> {
    message: &'a mut Message,
    field: u32,
}

impl Pairs<'_> {
    fn value(&mut self, name: &str, value: &Value) {
        self.message.message(self.field, |pair| {
            pair.text(1, name);
            pair.message(2, |any| write_value(any, value));
        });
    }

    fn text(&mut self, name: &str, text: &str) {
        self.message.message(self.field, |pair| {
            pair.text(1, name);
            pair.message(2, |any| any.text(1, text));
        });
    }

    fn number(&mut self, name: &str, number: impl Into<i64>) {
        self.value(name, &Value::Integer(number.into()));
    }

    fn all(&mut self, attributes: &Attributes) {
        for (name, value) in attributes {
            self.value(name, value);
        }
    }
}

/// The method as the conventions have it, and as it was sent if that is another one.
fn known_method(method: &Method) -> (&str, Option<&str>) {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::CONNECT
        | Method::OPTIONS
        | Method::TRACE
        | Method::PATCH => (method.as_str(), None),
        _ => ("_OTHER", Some(method.as_str())),
    }
}

/// Why the request counts as failed, if it does (`error.type`).
fn failure_of(record: &RequestRecord) -> Option<&str> {
    match &record.status {
        Some(status) if status.is_server_error() => Some(status.as_str()),
        // Whoever reads a stream of events ends it.
        _ if record.aborted && !record.event_stream => Some(ABORTED),
        _ => None,
    }
}

/// How long a stream of events went on after its head; of other responses the span says it.
fn stream_duration(record: &RequestRecord) -> Option<Duration> {
    let first_byte_ns = record.first_byte_ns.filter(|_| record.event_stream)?;
    let since_ns = record.end_ns.saturating_sub(first_byte_ns);
    Some(Duration::from_nanos(since_ns))
}

/// A query without the values of well-known secrets.
fn without_secrets(query: &str) -> String {
    let mut shown = String::with_capacity(query.len());
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            shown.push('&');
        }
        match pair.split_once('=') {
            Some((key, _)) if SECRET_KEYS.contains(&key) => {
                shown.push_str(key);
                shown.push('=');
                shown.push_str(REDACTED);
            }
            _ => shown.push_str(pair),
        }
    }
    shown
}

/// One `Span`, encoded; it ends here. `None` if it is not recorded.
pub(super) fn encode_span(record: &RequestRecord, span: &Span) -> Option<Vec<u8>> {
    let details = span.end()?;
    let mut message = Message(Vec::with_capacity(768));
    message.bytes(1, &span.context.trace_id);
    message.bytes(2, &span.context.span_id);
    if let Some(state) = &span.trace_state {
        message.text(3, state);
    }
    if let Some(parent) = &span.parent {
        message.bytes(4, parent);
    }
    write_name(&mut message, record, &details);
    message.number(6, SERVER);
    let start = nanoseconds(record.started_at);
    let duration = u64::try_from(record.judged().as_nanos()).unwrap_or(u64::MAX);
    message.fixed64(7, start);
    message.fixed64(8, start.saturating_add(duration));
    let mut pairs = Pairs {
        message: &mut message,
        field: 9,
    };
    write_request(&mut pairs, record, span, &details);
    write_addresses(&mut pairs, record, span, &details);
    let failure = failure_of(record);
    if let Some(status) = record.status {
        pairs.number("http.response.status_code", status.as_u16());
    }
    if let Some(failure) = failure {
        pairs.text("error.type", failure);
    }
    if let Some(duration) = stream_duration(record) {
        let seconds = Value::Float(duration.as_secs_f64());
        pairs.value("framegate.stream.duration", &seconds);
    }
    pairs.all(&details.attributes);
    message.number(10, details.attributes_dropped.into());
    for event in &details.events {
        message.message(11, |message| write_event(event, message));
    }
    message.number(12, details.events_dropped.into());
    for link in &details.links {
        message.message(13, |message| write_link(link, message));
    }
    message.number(14, details.links_dropped.into());
    let is_failed = details.error.is_some() || (failure.is_some() && !details.is_well);
    if is_failed || details.is_well {
        message.message(15, |status| {
            if let Some(text) = &details.error {
                status.text(2, text);
            }
            status.number(3, if is_failed { STATUS_ERROR } else { STATUS_OK });
        });
    }
    let remote = if span.parent.is_some() {
        FROM_ELSEWHERE
    } else {
        0
    };
    message.fixed32(16, remote | u32::from(span.context.is_sampled));
    Some(message.0)
}

/// `{method} {http.route}`, or the method alone: a path would be another name for each of its parameters.
fn write_name(message: &mut Message, record: &RequestRecord, details: &Details) {
    let (method, original) = known_method(&record.method);
    let shown = if original.is_some() { "HTTP" } else { method };
    match (&details.name, &details.route) {
        (Some(name), _) => message.text(5, name),
        (None, Some(route)) => message.text(5, &format!("{shown} {route}")),
        (None, None) => message.text(5, shown),
    }
}

fn write_request(pairs: &mut Pairs<'_>, record: &RequestRecord, span: &Span, details: &Details) {
    let (method, original) = known_method(&record.method);
    pairs.text("http.request.method", method);
    if let Some(original) = original {
        pairs.text("http.request.method_original", original);
    }
    if let Some(route) = &details.route {
        pairs.text("http.route", route);
    }
    pairs.text("url.scheme", scheme(record, details));
    pairs.text("url.path", record.target.path());
    if let Some(query) = record.target.query().filter(|query| !query.is_empty()) {
        pairs.text("url.query", &without_secrets(query));
    }
    pairs.text("network.protocol.version", version(record.version));
    if let Some(agent) = &span.user_agent {
        pairs.text(
            "user_agent.original",
            &String::from_utf8_lossy(agent.as_bytes()),
        );
    }
}

fn scheme(record: &RequestRecord, details: &Details) -> &'static str {
    let is_secure = details
        .is_secure
        .unwrap_or(record.connection.entry == Entry::Tls);
    if is_secure { "https" } else { "http" }
}

fn write_addresses(pairs: &mut Pairs<'_>, record: &RequestRecord, span: &Span, details: &Details) {
    let default_port = || {
        if scheme(record, details) == "https" {
            443
        } else {
            80
        }
    };
    if let Some((host, port)) = &details.server {
        pairs.text("server.address", host);
        pairs.number("server.port", *port);
    } else if let Some(authority) = &span.authority {
        pairs.text("server.address", authority.host());
        pairs.number(
            "server.port",
            authority.port_u16().unwrap_or_else(default_port),
        );
    }
    let mut client = match record.client {
        Client::At(client) => Some(client.ip().to_string()),
        Client::Peer | Client::Unknown => None,
    };
    match &record.connection.peer {
        Address::Inet(peer) => {
            let address = peer.ip().to_string();
            pairs.text("network.peer.address", &address);
            pairs.number("network.peer.port", peer.port());
            if record.client == Client::Peer {
                client = Some(address);
            }
        }
        Address::Unix(_) => pairs.text("network.transport", "unix"),
    }
    if let Some(client) = client {
        pairs.text("client.address", &client);
    }
}

fn write_event(event: &Event, message: &mut Message) {
    message.fixed64(1, nanoseconds(event.at));
    message.text(2, &event.name);
    Pairs { message, field: 3 }.all(&event.attributes);
}

fn write_link(link: &Link, message: &mut Message) {
    message.bytes(1, &link.context.trace_id);
    message.bytes(2, &link.context.span_id);
    Pairs {
        message: &mut *message,
        field: 4,
    }
    .all(&link.attributes);
    message.fixed32(6, u32::from(link.context.is_sampled));
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// The parts that traces and metrics begin alike with: the resource, then our scope and what is in it.
fn envelope(resource: &Attributes, version: &str, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::default();
    message.message(1, |group| {
        group.message(1, |message| Pairs { message, field: 1 }.all(resource));
        group.message(2, |scoped| {
            scoped.message(1, |scope| {
                scope.text(1, "framegate");
                scope.text(2, version);
            });
            fill(scoped);
            scoped.text(3, SCHEMA_URL);
        });
        group.text(3, SCHEMA_URL);
    });
    message.0
}

/// An `ExportTraceServiceRequest` of these spans.
pub(super) fn encode_traces(resource: &Attributes, version: &str, spans: &[Vec<u8>]) -> Vec<u8> {
    envelope(resource, version, |scoped| {
        for span in spans {
            scoped.bytes(2, span);
        }
    })
}

/// What is known of the status of some requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The client left before there was one.
    None,
    /// All have this one.
    Code(u16),
    /// All have one of this class, such as 4.
    Class(u16),
}

/// How long requests of one kind took.
#[derive(Clone, Debug)]
pub struct Durations {
    /// The method, or `_OTHER`.
    pub method: &'static str,
    /// The status.
    pub status: Status,
    /// How many lie in each bucket, the one without a bound last.
    pub buckets: Vec<u64>,
    /// Of all of them.
    pub sum: Duration,
}

/// The metrics of one worker at one moment.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Since when it counts.
    pub start: SystemTime,
    /// What the listeners speak.
    pub scheme: &'static str,
    /// Upper bounds of the buckets.
    pub bounds: Vec<Duration>,
    /// By method and status.
    pub durations: Vec<Durations>,
    /// Requests that are not over, where that is asked for.
    pub active: Option<u64>,
}

/// An `ExportMetricsServiceRequest`.
pub(super) fn encode_metrics(resource: &Attributes, version: &str, metrics: &Metrics) -> Vec<u8> {
    let (start, now) = (nanoseconds(metrics.start), nanoseconds(SystemTime::now()));
    envelope(resource, version, |scoped| {
        if !metrics.durations.is_empty() {
            scoped.message(2, |metric| {
                metric.text(1, "http.server.request.duration");
                metric.text(2, "Duration of HTTP server requests.");
                metric.text(3, "s");
                metric.message(9, |histogram| {
                    for series in &metrics.durations {
                        histogram.message(1, |point| {
                            point.fixed64(2, start);
                            point.fixed64(3, now);
                            write_durations(point, metrics, series);
                        });
                    }
                    histogram.number(2, CUMULATIVE);
                });
            });
        }
        let Some(active) = metrics.active else { return };
        scoped.message(2, |metric| {
            metric.text(1, "http.server.active_requests");
            metric.text(2, "Number of active HTTP server requests.");
            metric.text(3, "{request}");
            metric.message(7, |sum| {
                sum.message(1, |point| {
                    point.fixed64(2, start);
                    point.fixed64(3, now);
                    point.fixed64(6, active);
                    let mut pairs = Pairs {
                        message: point,
                        field: 7,
                    };
                    pairs.text("url.scheme", metrics.scheme);
                });
                sum.number(2, CUMULATIVE);
            });
        });
    })
}

fn write_durations(point: &mut Message, metrics: &Metrics, series: &Durations) {
    point.fixed64(4, series.buckets.iter().sum());
    point.double(5, series.sum.as_secs_f64());
    point.packed64(6, series.buckets.iter().copied());
    let bounds = metrics.bounds.iter();
    point.packed64(7, bounds.map(|bound| bound.as_secs_f64().to_bits()));
    let mut pairs = Pairs {
        message: point,
        field: 9,
    };
    pairs.text("http.request.method", series.method);
    pairs.text("url.scheme", metrics.scheme);
    match series.status {
        Status::None => pairs.text("error.type", ABORTED),
        Status::Code(code) => {
            pairs.number("http.response.status_code", code);
            if code >= 500 {
                pairs.text("error.type", &code.to_string());
            }
        }
        // Beyond the bound on kinds of requests; see the guide.
        Status::Class(class) => {
            pairs.text("framegate.status_class", &format!("{class}xx"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn secrets_in_queries_are_masked() {
        for (query, shown) in [
            ("q=1&sig=abc&r=2", "q=1&sig=REDACTED&r=2"),
            (
                "Signature=a=b&AWSAccessKeyId=",
                "Signature=REDACTED&AWSAccessKeyId=REDACTED",
            ),
            ("X-Goog-Signature=1", "X-Goog-Signature=REDACTED"),
            (
                "signature=kept&sigh=kept&sig",
                "signature=kept&sigh=kept&sig",
            ),
            ("&&=", "&&="),
        ] {
            assert_eq!(without_secrets(query), shown);
        }
    }
}
