//! What is known of one request when it is over. Logs, metrics and traces read records; they take no measurements.
//!
//! Without a [`RecordSink`] nothing here is allocated and no clock is read.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::OnceLock,
    time::{Instant, SystemTime},
};

use http::{HeaderValue, Method, StatusCode, Uri, Version};

use crate::edge::{Arrival, Client};
use crate::service::ConnectionInfo;

/// One request from its head to the last byte of its response.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// The connection it came through.
    pub connection: Rc<ConnectionInfo>,
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
    /// Status of the response; `None` when none was made.
    pub status: Option<StatusCode>,
    /// When the head was complete; nanoseconds of [`monotonic_ns`].
    pub start_ns: u64,
    /// When the head of the response was handed over to be written.
    pub first_byte_ns: Option<u64>,
    /// When the last byte of the response was written, or the response was cut.
    pub end_ns: u64,
    /// Time of day at the start.
    pub started_at: SystemTime,
    /// Bytes of the request's body that were read.
    pub body_bytes_in: u64,
    /// Bytes of the response's body that were handed over to be written.
    pub body_bytes_out: u64,
    /// True when the response did not reach its end.
    pub aborted: bool,
}

impl RequestRecord {
    /// Whom it comes from, in text: `192.0.2.7:5678`, without a port that nobody knows; `unix:/path`, `unknown`.
    pub fn client(&self) -> impl fmt::Display + '_ {
        ClientText(self)
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

/// Takes finished records.
pub trait RecordSink: 'static {
    /// A request's head is complete.
    fn started(&self, _record: &RequestRecord) {}

    /// The response was fully written or cut. Called on the connection's task: must be quick and must not block.
    fn finished(&self, record: &RequestRecord);
}

/// Two sinks that look at the same records.
pub(crate) struct Both(pub(crate) Rc<dyn RecordSink>, pub(crate) Rc<dyn RecordSink>);

impl RecordSink for Both {
    fn started(&self, record: &RequestRecord) {
        self.0.started(record);
        self.1.started(record);
    }

    fn finished(&self, record: &RequestRecord) {
        self.0.finished(record);
        self.1.finished(record);
    }
}

/// Monotonic nanoseconds since the first call in this process.
pub fn monotonic_ns() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(Instant::now);
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The record of a request that is still open, shared by its body, its response and its handler.
pub(crate) struct Meter {
    /// Gone once it was handed out.
    record: RefCell<Option<RequestRecord>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

impl Meter {
    /// The record of a request that begins, which `sink` will get.
    pub(crate) fn begin(sink: &dyn RecordSink, record: RequestRecord) -> Rc<Self> {
        sink.started(&record);
        Self::new(record)
    }

    fn new(record: RequestRecord) -> Rc<Self> {
        Rc::new(Self {
            record: RefCell::new(Some(record)),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
        })
    }

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
        }
    }

    pub(crate) fn responded(&self, status: StatusCode) {
        if let Some(record) = &mut *self.record.borrow_mut() {
            record.status = Some(status);
            record.first_byte_ns = Some(monotonic_ns());
        }
    }

    pub(crate) fn finish(&self, sink: &dyn RecordSink, aborted: bool) {
        let Some(record) = self.record.borrow_mut().take() else {
            return;
        };
        sink.finished(&RequestRecord {
            end_ns: monotonic_ns(),
            aborted,
            body_bytes_in: self.bytes_in.get(),
            body_bytes_out: self.bytes_out.get(),
            ..record
        });
    }
}

/// A handler's view of the record of its request. Does nothing while no sink is set.
#[derive(Clone, Default)]
pub struct Record(pub(crate) Option<Rc<Meter>>);

impl Record {
    /// True when somebody will read the record.
    pub fn is_recording(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn arrived(&self, arrival: &Arrival) {
        if let Some(meter) = &self.0 {
            meter.arrived(arrival);
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
