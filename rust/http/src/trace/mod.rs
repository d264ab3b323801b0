//! The span of a request: whose work it is part of ([`context`]), whether it is recorded, and what is said of it.
//!
//! A request that comes with a valid `traceparent` belongs to that trace; any other begins one. The decision to record is
//! the caller's where it has made one, else that of the [`Sampler`], which every service makes alike from the trace's id.
//!
//! A span is made with the record of its request, when the server has a [`Tracer`], and ends with it. While it is open the
//! application may add to it, from any thread; what comes later is dropped, as with every span that has ended.

pub(crate) mod context;

use std::{
    cell::Cell,
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use http::{HeaderMap, HeaderValue, header, uri::Authority};

pub use context::SpanContext;

use crate::edge::Origin;

/// Attributes that an application may add to a span, and events, and links; OpenTelemetry's own defaults.
const ADDITIONS_MAX: usize = 128;
/// Bytes of one attribute's text; the rest is cut.
const VALUE_BYTES_MAX: usize = 4096;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

/// Which requests are recorded (`OTEL_TRACES_SAMPLER`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// The caller's decision counts where there is one.
    pub is_parent_based: bool,
    /// The part of the others that is recorded, 0 to 1.
    pub ratio: f64,
}

impl Sampler {
    /// Whether a span is recorded.
    pub fn decide(self, trace_id: &[u8; 16], parent: Option<&SpanContext>) -> bool {
        match parent {
            Some(parent) if self.is_parent_based => parent.is_sampled,
            _ => {
                let (_, low) = trace_id.split_at(8);
                let number = low
                    .iter()
                    .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
                // As OpenTelemetry's own: all services decide alike.
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_sign_loss,
                    reason = "a bound among 2^64; the ratio is 0 to 1"
                )]
                let bound = (self.ratio * u64::MAX as f64) as u64;
                self.ratio >= 1.0 || number < bound
            }
        }
    }
}

/// Makes identifiers: unique, not secret.
struct Ids(Cell<u64>, Cell<u64>);

impl Default for Ids {
    fn default() -> Self {
        // The keys of a hasher are the standard library's randomness.
        let random = RandomState::new();
        let seed = |number: u32| {
            let mut hasher = random.build_hasher();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            hasher.write_u128(now.map_or(0, |since| since.as_nanos()));
            hasher.write_u32(std::process::id());
            hasher.write_u32(number);
            Cell::new(hasher.finish())
        };
        Self(seed(0), seed(1))
    }
}

impl Ids {
    /// `SplitMix64`: each state gives another number, and none twice in 2^64.
    fn next(state: &Cell<u64>) -> u64 {
        let value = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(value);
        let mixed = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn span_id(&self) -> [u8; 8] {
        Self::next(&self.0).max(1).to_be_bytes()
    }

    fn trace_id(&self) -> [u8; 16] {
        let (high, low) = (Self::next(&self.0).max(1), Self::next(&self.1));
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Several of one kind.
    List(Vec<Value>),
}

/// Names with values.
pub type Attributes = Vec<(String, Value)>;

/// Something that happened during a span.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub name: String,
    /// When.
    pub at: SystemTime,
    /// More of it.
    pub attributes: Attributes,
}

/// Another span that this one has to do with.
#[derive(Clone, Debug)]
pub struct Link {
    /// Which one.
    pub context: SpanContext,
    /// More of it.
    pub attributes: Attributes,
}

/// What an application says of its request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    /// In place of the method and the route.
    pub(crate) name: Option<String>,
    /// Which handler's pattern the path has met.
    pub(crate) route: Option<String>,
    /// Beside those of the server.
    pub(crate) attributes: Attributes,
    /// In order.
    pub(crate) events: Vec<Event>,
    /// In order.
    pub(crate) links: Vec<Link>,
    /// It has failed, and why.
    pub(crate) error: Option<String>,
    /// It is said to have gone well, whatever its status.
    pub(crate) is_well: bool,
    /// Attributes over the limit.
    pub(crate) attributes_dropped: u32,
    /// Events over the limit.
    pub(crate) events_dropped: u32,
    /// Links over the limit.
    pub(crate) links_dropped: u32,
    /// What trusted proxies say.
    pub(crate) is_secure: Option<bool>,
    /// The same.
    pub(crate) server: Option<(String, u16)>,
}

/// The span of one request.
#[derive(Debug)]
pub struct Span {
    /// Its own.
    pub context: SpanContext,
    /// The span of the caller.
    pub parent: Option<[u8; 8]>,
    /// What vendors pass on, as it came.
    pub trace_state: Option<String>,
    /// W3C Baggage, as it came.
    pub baggage: Vec<HeaderValue>,
    /// What the client calls the server; of a span that is recorded.
    pub(crate) authority: Option<Authority>,
    /// `User-Agent`, of a span that is recorded.
    pub(crate) user_agent: Option<HeaderValue>,
    /// Gone once it has ended.
    details: Mutex<Option<Box<Details>>>,
}

impl Span {
    fn begin(head: &http::request::Parts, sampler: Sampler, ids: &Ids) -> Self {
        let headers = &head.headers;
        let parent = SpanContext::of_caller(headers);
        let trace_id = parent.map_or_else(|| ids.trace_id(), |parent| parent.trace_id);
        let is_sampled = sampler.decide(&trace_id, parent.as_ref());
        Self {
            context: SpanContext {
                trace_id,
                span_id: ids.span_id(),
                is_sampled,
            },
            parent: parent.map(|parent| parent.span_id),
            trace_state: parent.and_then(|_| context::state_of(headers)),
            baggage: headers.get_all("baggage").iter().cloned().collect(),
            authority: is_sampled.then(|| authority_of(head)).flatten(),
            user_agent: headers
                .get(header::USER_AGENT)
                .filter(|_| is_sampled)
                .cloned(),
            details: Mutex::new(is_sampled.then(Box::default)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Details>>> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Details)) {
        if let Some(details) = &mut *self.lock() {
            change(details);
        }
    }

    /// Whether what is said of it is kept: it is recorded and has not ended.
    pub fn is_recording(&self) -> bool {
        self.context.is_sampled && self.lock().is_some()
    }

    /// It has ended: what was said of it. `None` for a span that is not recorded.
    pub(crate) fn end(&self) -> Option<Box<Details>> {
        self.lock().take()
    }

    /// It is known how the request has got here.
    pub(crate) fn arrived(&self, origin: &Origin) {
        if origin.is_secure.is_some() || origin.server.is_some() {
            self.change(|details| {
                details.is_secure = origin.is_secure;
                details.server.clone_from(&origin.server);
            });
        }
    }

    /// Sets an attribute; a later value of the same name wins. Those over the limit are dropped and counted.
    pub fn set_attribute(&self, name: String, value: Value) {
        self.change(|details| {
            let value = bounded(value);
            let known = details.attributes.iter_mut().find(|known| known.0 == name);
            if let Some((_, known)) = known {
                *known = value;
            } else if details.attributes.len() < ADDITIONS_MAX && name.len() <= NAME_BYTES_MAX {
                details.attributes.push((name, value));
            } else {
                details.attributes_dropped += 1;
            }
        });
    }

    /// Which handler's pattern the path has met.
    pub fn set_route(&self, route: String) {
        self.change(|details| details.route = Some(cut(route, VALUE_BYTES_MAX)));
    }

    /// Gives it another name.
    pub fn set_name(&self, name: String) {
        self.change(|details| details.name = Some(cut(name, VALUE_BYTES_MAX)));
    }

    /// It has failed; once it was said that it has not, that stays.
    pub fn set_error(&self, text: String) {
        self.change(|details| {
            if !details.is_well {
                details.error = Some(cut(text, VALUE_BYTES_MAX));
            }
        });
    }

    /// It has not failed, whatever was and will be said.
    pub fn set_well(&self) {
        self.change(|details| {
            details.is_well = true;
            details.error = None;
        });
    }

    /// Something happened. Events over the limit are dropped and counted.
    pub fn add_event(&self, event: Event) {
        self.change(|details| {
            if details.events.len() < ADDITIONS_MAX {
                details.events.push(Event {
                    name: cut(event.name, NAME_BYTES_MAX),
                    attributes: bounded_all(event.attributes),
                    ..event
                });
            } else {
                details.events_dropped += 1;
            }
        });
    }

    /// It has to do with another span. Links over the limit are dropped and counted.
    pub fn add_link(&self, link: Link) {
        self.change(|details| {
            if details.links.len() < ADDITIONS_MAX {
                details.links.push(Link {
                    attributes: bounded_all(link.attributes),
                    ..link
                });
            } else {
                details.links_dropped += 1;
            }
        });
    }
}

/// Whom the request is for: by its target if that says so (RFC 9112, 3.2.2), else by `Host`.
fn authority_of(head: &http::request::Parts) -> Option<Authority> {
    let host = |headers: &HeaderMap| headers.get(header::HOST)?.to_str().ok()?.parse().ok();
    head.uri
        .authority()
        .cloned()
        .or_else(|| host(&head.headers))
}

fn bounded_all(attributes: Attributes) -> Attributes {
    attributes
        .into_iter()
        .take(ADDITIONS_MAX)
        .map(|(name, value)| (cut(name, NAME_BYTES_MAX), bounded(value)))
        .collect()
}

fn bounded(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(cut(text, VALUE_BYTES_MAX)),
        Value::List(values) => Value::List(
            values
                .into_iter()
                .take(ADDITIONS_MAX)
                .map(bounded)
                .collect(),
        ),
        other => other,
    }
}

/// At most so many bytes of it.
fn cut(mut text: String, bytes_max: usize) -> String {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Begins a span for each request of a server. What becomes of them when they end is for a sink of the records.
pub struct Tracer {
    sampler: Sampler,
    ids: Ids,
}

impl Tracer {
    /// Records what the sampler chooses.
    pub fn new(sampler: Sampler) -> Self {
        Self {
            sampler,
            ids: Ids::default(),
        }
    }

    pub(crate) fn begin(&self, head: &http::request::Parts) -> Span {
        Span::begin(head, self.sampler, &self.ids)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::{Event, Ids, Sampler, Span, SpanContext, Value};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ALL: Sampler = Sampler {
        is_parent_based: true,
        ratio: 1.0,
    };

    fn head(pairs: &[(&'static str, &'static str)]) -> http::request::Parts {
        let mut request = http::Request::new(());
        for (name, value) in pairs {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    #[test]
    fn span_belongs_to_its_callers_trace() {
        let ids = Ids::default();
        let sent = head(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("host", "example.org:81"),
        ]);
        let span = Span::begin(&sent, ALL, &ids);
        let parent = SpanContext::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(span.context.trace_id, parent.trace_id);
        assert_eq!(span.parent, Some(parent.span_id));
        assert_ne!(span.context.span_id, parent.span_id);
        assert_eq!(span.trace_state.as_deref(), Some("a=1,b=2"));
        assert_eq!(span.authority.unwrap().port_u16(), Some(81));
        // Two parents are none, and what vendors said goes with them.
        let twice = head(&[
            ("traceparent", PARENT),
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
        ]);
        let span = Span::begin(&twice, ALL, &ids);
        assert_ne!(span.context.trace_id, parent.trace_id);
        assert_eq!((span.parent, span.trace_state), (None, None));
    }

    #[test]
    fn callers_decision_counts() {
        let ids = Ids::default();
        let not = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let none = Sampler { ratio: 0.0, ..ALL };
        for (parent, sampler, sampled) in [
            (PARENT, ALL, true),
            (PARENT, none, true),
            (not, ALL, false),
            ("", ALL, true),
            ("", none, false),
        ] {
            let span = Span::begin(&head(&[("traceparent", parent)]), sampler, &ids);
            assert_eq!(span.context.is_sampled, sampled, "{parent} {sampler:?}");
            assert_eq!(span.is_recording(), sampled);
        }
        let alone = Sampler {
            is_parent_based: false,
            ratio: 1.0,
        };
        let span = Span::begin(&head(&[("traceparent", not)]), alone, &ids);
        assert!(span.context.is_sampled);
    }

    #[test]
    fn part_of_the_traces_is_recorded() {
        let ids = Ids::default();
        let quarter = Sampler { ratio: 0.25, ..ALL };
        let sampled = (0..4000)
            .filter(|_| quarter.decide(&ids.trace_id(), None))
            .count();
        // 10 standard deviations.
        assert!((725..1275).contains(&sampled), "{sampled}");
    }

    #[test]
    fn ids_are_never_zero_and_never_alike() {
        let ids = Ids(std::cell::Cell::new(0), std::cell::Cell::new(0));
        let made: std::collections::HashSet<_> = (0..1000).map(|_| ids.span_id()).collect();
        assert_eq!(made.len(), 1000);
        assert!(!made.contains(&[0; 8]));
        assert_ne!(Ids::default().trace_id(), Ids::default().trace_id());
    }

    #[test]
    fn what_the_application_says_is_bounded_and_ends_with_the_span() {
        let span = Span::begin(&head(&[]), ALL, &Ids::default());
        for index in 0..200 {
            span.set_attribute(format!("a{index}"), Value::Integer(1));
            span.add_event(Event {
                name: "happened".to_owned(),
                at: std::time::SystemTime::now(),
                attributes: Vec::new(),
            });
        }
        span.set_attribute("a0".to_owned(), Value::Text("\u{e4}".repeat(4000)));
        span.set_well();
        span.set_error("too late".to_owned());
        let details = span.end().unwrap();
        assert_eq!(details.attributes.len(), 128);
        assert_eq!(
            (details.attributes_dropped, details.events_dropped),
            (72, 72)
        );
        assert_eq!(details.error, None);
        match &details.attributes[0].1 {
            Value::Text(text) => assert_eq!(text.len(), 4096),
            other => panic!("{other:?}"),
        }
        assert!(!span.is_recording());
        span.set_name("nobody listens".to_owned());
        assert!(span.end().is_none());
    }
}
