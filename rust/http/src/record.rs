//! What is known of one request when it is over. Logs, metrics and traces read records; they take no measurements.
//!
//! Any number of [`RecordSink`]s look at the same record, one after the other, on the connection's task. Without a sink nothing here
//! is allocated and no clock is read.
//!
//! # Fields
//! The head of a request belongs to its handler, so what a sink wants to read of it later has to be named before
//! ([`RecordSink::wanted`]): the values are kept, which costs a reference each and no copy.
//!
//! # Long requests
//! A sink may ask to be told of requests that go on for long ([`RecordSink::long_after`]). The open ones then stand in a list at which
//! the sweep looks: there is no timer per request, and nobody is told while the thread is blocked.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header::CONTENT_TYPE,
};

use crate::edge::{Arrival, Client, request_id::REQUEST_ID};
use crate::log_text::push_milliseconds;
use crate::os;
use crate::registry::Swept;
use crate::secrets::masked;
use crate::service::ConnectionInfo;
use crate::trace::{Span, Tracer};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// One request from its head to the last byte of its response.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// The connection it came through.
    pub connection: Rc<ConnectionInfo>,
    /// Which request of this server it is; the first is 1.
    pub number: u64,
    /// Whom it comes from, by what trusted proxies say.
    pub client: Client,
    /// The request's name, while requests have names: `[A-Za-z0-9._-]`, at most 128 bytes.
    pub request_id: Option<HeaderValue>,
    /// Method as sent.
    pub method: Method,
    /// Path and query as sent.
    pub target: Uri,
    /// Version as sent.
    pub version: Version,
    /// A WebSocket was asked for. The record then tells of the handshake alone.
    pub websocket: bool,
    /// Status of the response; `None` when none was made.
    pub status: Option<StatusCode>,
    /// When the head was complete; nanoseconds of [`monotonic_ns`].
    pub start_ns: u64,
    /// When the head of the response was handed over to be written.
    pub first_byte_ns: Option<u64>,
    /// When the last byte of the response was written, or the response was cut. 0 before that.
    pub end_ns: u64,
    /// Time of day at the start.
    pub started_at: SystemTime,
    /// Bytes of the request's body that were read.
    pub body_bytes_in: u64,
    /// Bytes of the response's body that were handed over to be written.
    pub body_bytes_out: u64,
    /// True when the response did not reach its end.
    pub aborted: bool,
    /// The response is a stream of events or of pictures, which lasts as long as its reader wants it to. Looked for where a sink
    /// judges how long requests take.
    pub event_stream: bool,
    /// Fields of the request that a sink wanted.
    pub request_fields: Vec<(HeaderName, HeaderValue)>,
    /// Fields of the response that a sink wanted.
    pub response_fields: Vec<(HeaderName, HeaderValue)>,
    /// The span of the request, where requests have spans.
    pub span: Option<Arc<Span>>,
}

impl RequestRecord {
    /// Whom it comes from, in text: `192.0.2.7:5678`, without a port that nobody knows; `unix:/path`, `unknown`.
    pub fn client(&self) -> impl fmt::Display + '_ {
        ClientText(self)
    }

    /// From the head of the request to the last byte of the response.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.duration_ns())
    }

    /// The same in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// From the head of the request to that of the response, when there is one.
    pub fn first_byte_after(&self) -> Option<Duration> {
        let first_byte_ns = self.first_byte_ns?;
        Some(Duration::from_nanos(
            first_byte_ns.saturating_sub(self.start_ns),
        ))
    }

    /// What counts against a limit on time: a stream of events is over when it begins.
    pub fn judged(&self) -> Duration {
        match self.first_byte_after() {
            Some(first) if self.event_stream => first,
            _ => self.duration(),
        }
    }
}

struct ClientText<'a>(&'a RequestRecord);

impl fmt::Display for ClientText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.client {
            Client::Peer => self.0.connection.peer.fmt(f),
            Client::At(address) if address.port() == 0 => address.ip().fmt(f),
            Client::At(address) => address.fmt(f),
            Client::Unknown => f.write_str("unknown"),
        }
    }
}

/// What a sink reads of heads, beside what is in every record.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of the request's.
    pub request: Vec<HeaderName>,
    /// Of the response's.
    pub response: Vec<HeaderName>,
}

/// What a connection was, once it is closed.
#[derive(Clone, Copy, Debug)]
pub struct ClosedConnection {
    /// Its number; see [`ConnectionInfo::number`].
    pub number: u64,
    /// When; nanoseconds of [`monotonic_ns`].
    pub at_ns: u64,
    /// Bytes that were read from its socket.
    pub bytes_in: u64,
    /// Bytes that were written to it.
    pub bytes_out: u64,
}

/// Takes records, and what else happens to connections and requests. Everything is called on the connection's task, so it must be
/// quick and must not block.
pub trait RecordSink: 'static {
    /// The response was fully written or cut.
    fn finished(&self, record: &RequestRecord);

    /// A request's head is complete, and it is known whom it comes from.
    fn started(&self, _record: &RequestRecord) {}

    /// A connection was accepted, [`monotonic_ns`] being `at_ns`. With TLS its handshake is still to come.
    fn opened(&self, _connection: &ConnectionInfo, _at_ns: u64) {}

    /// A connection is closed. The records of its requests came before.
    fn closed(&self, _connection: &ClosedConnection) {}

    /// What is wrong with a connection: its client broke a rule or a limit, or an answer of ours says so. For people; a
    /// connection may have several.
    fn trouble(&self, _connection: u64, _what: &dyn fmt::Display) {}

    /// Which fields the records shall have. Asked once.
    fn wanted(&self) -> Wanted {
        Wanted::default()
    }

    /// Whether [`RequestRecord::judged`] is of interest. Asked once.
    fn judges(&self) -> bool {
        self.long_after().is_some()
    }

    /// After how long [`Self::long`] is called. Asked once.
    fn long_after(&self) -> Option<Duration> {
        None
    }

    /// A request has taken for so long and is not over; called once for each. `end_ns` of the record is now. Streams of events
    /// are no long requests once they have begun.
    fn long(&self, _record: &RequestRecord) {}
}

/// Nanoseconds of a clock that only goes forward: of `CLOCK_MONOTONIC` on Linux, of this process elsewhere.
#[inline]
pub fn monotonic_ns() -> u64 {
    os::monotonic_ns()
}

/// The time of day, by the monotonic clock since it was last read: a request then costs one look at a clock, not two.
#[derive(Default)]
struct TimeOfDay {
    read_ns: Cell<u64>,
    read: Cell<Option<SystemTime>>,
}

impl TimeOfDay {
    /// Somebody who sets the clock is noticed after this.
    const KEPT_NS: u64 = 10_000_000;

    fn at(&self, now_ns: u64) -> SystemTime {
        let since_ns = now_ns.saturating_sub(self.read_ns.get());
        match self.read.get() {
            Some(read) if since_ns < Self::KEPT_NS => read + Duration::from_nanos(since_ns),
            _ => {
                let read = SystemTime::now();
                self.read.set(Some(read));
                self.read_ns.set(now_ns);
                read
            }
        }
    }
}

/// All sinks of a server, and what they asked for.
#[derive(Default)]
pub(crate) struct Recorder {
    sinks: Vec<Rc<dyn RecordSink>>,
    wanted: Wanted,
    /// Requests have spans.
    tracer: Option<Rc<Tracer>>,
    /// Somebody judges how long requests take.
    judges: bool,
    /// Responses tell how long they took to begin.
    server_timing: bool,
    /// Sinks hear of a request once it is known who sends it.
    pub(crate) after_edge: bool,
    /// The shortest of what the sinks call long.
    long_after: Option<Duration>,
    /// Requests that are not over, while somebody wants to know of long ones.
    open: RefCell<Vec<Rc<Meter>>>,
    time_of_day: TimeOfDay,
}

impl Recorder {
    /// This and one more sink.
    #[must_use]
    pub(crate) fn with_sink(&self, sink: Rc<dyn RecordSink>) -> Self {
        let mut wanted = self.wanted.clone();
        let more = sink.wanted();
        for (all, names) in [
            (&mut wanted.request, more.request),
            (&mut wanted.response, more.response),
        ] {
            for name in names {
                if !all.contains(&name) {
                    all.push(name);
                }
            }
        }
        let limits = [self.long_after, sink.long_after()];
        Self {
            wanted,
            long_after: limits.into_iter().flatten().min(),
            judges: self.judges || sink.judges(),
            sinks: self.sinks.iter().cloned().chain([sink]).collect(),
            ..self.clone_settings()
        }
    }

    /// The same, and responses with `Server-Timing`.
    #[must_use]
    pub(crate) fn with_server_timing(&self) -> Self {
        Self {
            server_timing: true,
            ..self.clone_settings()
        }
    }

    /// The same, and requests with spans.
    #[must_use]
    pub(crate) fn with_tracer(&self, tracer: Tracer) -> Self {
        Self {
            tracer: Some(Rc::new(tracer)),
            ..self.clone_settings()
        }
    }

    fn clone_settings(&self) -> Self {
        Self {
            sinks: self.sinks.clone(),
            wanted: self.wanted.clone(),
            tracer: self.tracer.clone(),
            judges: self.judges,
            server_timing: self.server_timing,
            after_edge: self.after_edge,
            long_after: self.long_after,
            open: RefCell::default(),
            time_of_day: TimeOfDay::default(),
        }
    }

    /// Whether the sweep has to look at it.
    pub(crate) fn is_swept(&self) -> bool {
        self.long_after.is_some()
    }

    pub(crate) fn opened(&self, connection: &ConnectionInfo) {
        let at_ns = monotonic_ns();
        for sink in &self.sinks {
            sink.opened(connection, at_ns);
        }
    }

    pub(crate) fn closed(&self, number: u64, bytes_in: u64, bytes_out: u64) {
        let closed = ClosedConnection {
            number,
            at_ns: monotonic_ns(),
            bytes_in,
            bytes_out,
        };
        for sink in &self.sinks {
            sink.closed(&closed);
        }
    }

    pub(crate) fn trouble(&self, number: u64, what: &dyn fmt::Display) {
        for sink in &self.sinks {
            sink.trouble(number, what);
        }
    }

    /// A request begins.
    pub(crate) fn begin(
        self: &Rc<Self>,
        connection: &Rc<ConnectionInfo>,
        head: &http::request::Parts,
        number: u64,
    ) -> Rc<Meter> {
        let start_ns = monotonic_ns();
        let record = RequestRecord {
            connection: connection.clone(),
            number,
            client: Client::Peer,
            request_id: None,
            method: head.method.clone(),
            target: head.uri.clone(),
            version: head.version,
            websocket: false,
            status: None,
            start_ns,
            first_byte_ns: None,
            end_ns: 0,
            started_at: self.time_of_day.at(start_ns),
            body_bytes_in: 0,
            body_bytes_out: 0,
            aborted: false,
            event_stream: false,
            request_fields: pick(&self.wanted.request, &head.headers),
            response_fields: Vec::new(),
            span: self
                .tracer
                .as_ref()
                .map(|tracer| Arc::new(tracer.begin(head))),
        };
        let meter = Rc::new(Meter {
            recorder: self.clone(),
            record: RefCell::new(Some(record)),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            place: Cell::new(0),
            announced: Cell::new(false),
            told: Cell::new(false),
            queued_ns: Cell::new(0),
        });
        if !self.after_edge {
            meter.announce();
        }
        if self.long_after.is_some() {
            let mut open = self.open.borrow_mut();
            meter.place.set(open.len());
            open.push(meter.clone());
        }
        meter
    }

    fn leave(&self, meter: &Meter) {
        let mut open = self.open.borrow_mut();
        let place = meter.place.get();
        if place < open.len() {
            open.swap_remove(place);
            if let Some(moved) = open.get(place) {
                moved.place.set(place);
            }
        }
    }
}

impl Swept for Recorder {
    fn sweep(&self, _now: Duration) -> Option<Waker> {
        let limit = self.long_after?;
        let now = monotonic_ns();
        let mut long = Vec::new();
        for meter in &*self.open.borrow() {
            if meter.told.get() {
                continue;
            }
            let record = meter.record.borrow();
            let Some(record) = &*record else { continue };
            let since = Duration::from_nanos(now.saturating_sub(record.start_ns));
            if since >= limit && !(record.event_stream && record.first_byte_ns.is_some()) {
                meter.told.set(true);
                long.push(meter.so_far(record, now));
            }
        }
        // Outside the borrow: a sink may end a request.
        for record in &long {
            for sink in &self.sinks {
                sink.long(record);
            }
        }
        None
    }
}

/// The fields with these names, in the order of the names, without secrets.
fn pick(names: &[HeaderName], fields: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut picked = Vec::new();
    for name in names {
        for value in fields.get_all(name) {
            let value = masked(name, value).unwrap_or_else(|| value.clone());
            picked.push((name.clone(), value));
        }
    }
    picked
}

/// The record of a request that is still open, shared by its body, its response and its handler.
pub(crate) struct Meter {
    recorder: Rc<Recorder>,
    /// Gone once it was handed out.
    record: RefCell<Option<RequestRecord>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    /// In the recorder's list of open requests.
    place: Cell<usize>,
    /// Sinks know that it has begun.
    announced: Cell<bool>,
    /// Sinks know that it takes long.
    told: Cell<bool>,
    /// How long it waited for a place among the requests of all workers.
    queued_ns: Cell<u64>,
}

impl Meter {
    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
    }

    pub(crate) fn arrived(&self, arrival: &Arrival) {
        if let Some(record) = &mut *self.record.borrow_mut() {
            record.client = arrival.origin.client;
            record.request_id.clone_from(&arrival.request_id);
            if let Some(span) = &record.span {
                span.arrived(&arrival.origin);
            }
        }
    }

    /// Puts the name of the request, if it has one, into an answer that takes the place of the handler's.
    pub(crate) fn add_name(&self, headers: &mut HeaderMap) {
        if let Some(record) = &*self.record.borrow()
            && let Some(name) = &record.request_id
        {
            headers.insert(REQUEST_ID, name.clone());
        }
    }

    /// A WebSocket is asked for.
    pub(crate) fn asks_for_websocket(&self) {
        if let Some(record) = &mut *self.record.borrow_mut() {
            record.websocket = true;
        }
    }

    /// Tells the sinks that the request has begun, if they do not know.
    pub(crate) fn announce(&self) {
        if self.announced.replace(true) {
            return;
        }
        if let Some(record) = &*self.record.borrow() {
            for sink in &self.recorder.sinks {
                sink.started(record);
            }
        }
    }

    /// The head of the response is about to be handed over.
    pub(crate) fn responded(&self, status: StatusCode, fields: &mut HeaderMap) {
        self.announce();
        let Some(record) = &mut *self.record.borrow_mut() else {
            return;
        };
        let now = monotonic_ns();
        record.status = Some(status);
        record.first_byte_ns = Some(now);
        let recorder = &*self.recorder;
        if recorder.server_timing {
            let total_ns = now.saturating_sub(record.start_ns);
            add_server_timing(fields, total_ns, self.queued_ns.get());
        }
        if !recorder.wanted.response.is_empty() {
            record.response_fields = pick(&recorder.wanted.response, fields);
        }
        if recorder.judges {
            record.event_stream = is_event_stream(fields);
        }
    }

    pub(crate) fn finish(&self, aborted: bool) {
        self.announce();
        let Some(mut record) = self.record.borrow_mut().take() else {
            return;
        };
        let recorder = &*self.recorder;
        record.end_ns = monotonic_ns();
        record.body_bytes_in = self.bytes_in.get();
        record.body_bytes_out = self.bytes_out.get();
        record.aborted = aborted;
        for sink in &recorder.sinks {
            sink.finished(&record);
        }
        if recorder.long_after.is_some() {
            recorder.leave(self);
        }
    }

    fn so_far(&self, record: &RequestRecord, now: u64) -> RequestRecord {
        RequestRecord {
            end_ns: now,
            body_bytes_in: self.bytes_in.get(),
            body_bytes_out: self.bytes_out.get(),
            ..record.clone()
        }
    }
}

/// Streams of events, and of pictures (`multipart/x-mixed-replace`).
fn is_event_stream(fields: &HeaderMap) -> bool {
    const NAMES: [&[u8]; 2] = [b"text/event-stream", b"multipart/x-mixed-replace"];
    fields.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        NAMES
            .iter()
            .any(|name| value.len() >= name.len() && value[..name.len()].eq_ignore_ascii_case(name))
    })
}

/// Server Timing (W3C): milliseconds. More is not known when the head leaves: the body is still to come.
fn add_server_timing(fields: &mut HeaderMap, total_ns: u64, queued_ns: u64) {
    let mut text = Vec::with_capacity(48);
    if queued_ns > 0 {
        text.extend_from_slice(b"queue;dur=");
        push_milliseconds(queued_ns, &mut text);
        text.extend_from_slice(b", ");
    }
    text.extend_from_slice(b"app;dur=");
    push_milliseconds(total_ns.saturating_sub(queued_ns), &mut text);
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
        fields.append(SERVER_TIMING, value);
    }
}

/// A handler's view of the record of its request. Does nothing while no sink is set.
#[derive(Clone, Default)]
pub struct Record(pub(crate) Option<Rc<Meter>>);

impl Record {
    /// It is known whom the request comes from.
    pub(crate) fn announce(&self) {
        if let Some(meter) = &self.0 {
            meter.announce();
        }
    }

    /// True when somebody will read the record.
    pub fn is_recording(&self) -> bool {
        self.0.is_some()
    }

    /// The span of the request, where requests have spans; until the record is handed out.
    pub fn span(&self) -> Option<Arc<Span>> {
        self.0.as_ref()?.record.borrow().as_ref()?.span.clone()
    }

    pub(crate) fn arrived(&self, arrival: &Arrival) {
        if let Some(meter) = &self.0 {
            meter.arrived(arrival);
        }
    }

    /// It has waited until now for a place among the requests of all workers.
    pub(crate) fn has_queued(&self) {
        if let (Some(meter), Some(start_ns)) = (&self.0, self.start_ns()) {
            meter.queued_ns.set(monotonic_ns().saturating_sub(start_ns));
        }
    }

    /// When the head of the request was complete, in nanoseconds of [`monotonic_ns`]; until the record is handed out.
    pub fn start_ns(&self) -> Option<u64> {
        self.0
            .as_ref()?
            .record
            .borrow()
            .as_ref()
            .map(|record| record.start_ns)
    }
}
