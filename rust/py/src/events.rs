//! What happens to connections and requests, for a collector written in Python (`framegate/events.py`).
//!
//! The loop's thread makes small values of what happens and keeps them until it sleeps; then it hands them over to a queue. A Python
//! thread waits at its other end, without the GIL, and takes them some fiftieth of a second later, all at once: one change of the GIL
//! per batch. Nothing waits for that thread. A queue that is full drops what comes, and counts. What happens on the thread of the frames
//! goes to the same queue, one by one, with numbers of its own ([`ELSEWHERE_FROM`]).

use std::{
    cell::RefCell,
    mem,
    rc::Rc,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use framegate_http::{
    record::{self, ClosedConnection, RecordSink, RequestRecord},
    service::{ConnectionInfo, Entry},
};
use http::{Version, uri::PathAndQuery};
use pyo3::{
    prelude::*,
    types::{PyList, PyTuple},
};

use crate::{
    event_loop::{BeforeSleep, LoopCore},
    gil,
    os::monotonic_ns,
};

/// What may wait for the collector. An ordinary request is three events of about 150 bytes: a collector may stand still while some
/// 15,000 requests pass.
const BYTES_MAX: usize = 8 << 20;
/// Events wait for company that long.
const DELAY: Duration = Duration::from_millis(20);
/// Connections and requests of `topics_bind` are numbered from here on: those of the loop, of which a worker has fewer, are counted
/// from 1.
const ELSEWHERE_FROM: u64 = 1 << 48;
/// What the collector gets for the last events when its worker ends; `Config.last_words_seconds` counts with it.
const FLUSH: Duration = Duration::from_secs(1);

/// In the order of the arguments of the classes in `framegate/events.py`; times are nanoseconds of `CLOCK_MONOTONIC`.
enum Event {
    Opened(u64, u64, String, String, bool),
    Started(
        u64,
        u64,
        u64,
        String,
        Option<String>,
        String,
        String,
        &'static str,
    ),
    Completed(u64, u64, u64, u16, u64, u64, u64, u64),
    Failed(u64, u64, u64, Option<u16>, u64, u64, u64),
    Closed(u64, u64, u64, u64),
}

impl Event {
    /// Memory that it takes, about.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Opened(_, _, client, server, _) => client.len() + server.len(),
                Self::Started(_, _, _, client, id, method, target, _) => {
                    let id = id.as_ref().map_or(0, String::len);
                    client.len() + id + method.len() + target.len()
                }
                Self::Completed(..) | Self::Failed(..) | Self::Closed(..) => 0,
            }
    }

    /// The number of its class, and its arguments.
    fn into_tuple(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        match self {
            Self::Opened(at, connection, client, server, tls) => {
                (0, at, connection, client, server, tls).into_pyobject(py)
            }
            Self::Started(at, connection, request, client, id, method, target, protocol) => (
                1, at, connection, request, client, id, method, target, protocol,
            )
                .into_pyobject(py),
            Self::Completed(at, connection, request, status, start, first, bytes_in, bytes_out) => {
                (
                    2,
                    at,
                    connection,
                    request,
                    status,
                    at - start,
                    first - start,
                    bytes_in,
                    bytes_out,
                )
                    .into_pyobject(py)
            }
            Self::Failed(at, connection, request, status, start, bytes_in, bytes_out) => (
                3,
                at,
                connection,
                request,
                status,
                at - start,
                bytes_in,
                bytes_out,
            )
                .into_pyobject(py),
            Self::Closed(at, connection, bytes_in, bytes_out) => {
                (4, at, connection, bytes_in, bytes_out).into_pyobject(py)
            }
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// Something came, or nothing more will.
    changed: Condvar,
    /// The reader is through.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    bytes: usize,
    dropped: u64,
    is_closed: bool,
    has_reader: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for events; `None` when there will be none. Also gives how many were dropped so far.
    fn take(&self) -> Option<(Vec<Event>, u64)> {
        let mut state = self.state();
        while state.events.is_empty() {
            if state.is_closed {
                return None;
            }
            state = wait(&self.changed, state);
        }
        if !state.is_closed {
            drop(state);
            // What comes at once comes together.
            std::thread::sleep(DELAY);
            state = self.state();
        }
        state.bytes = 0;
        Some((mem::take(&mut state.events), state.dropped))
    }

    fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Lets the reader have these, as far as there is room.
    fn add(&self, events: impl IntoIterator<Item = Event>) {
        let mut state = self.state();
        let was_empty = state.events.is_empty();
        for event in events {
            let bytes = event.bytes();
            if state.bytes + bytes > BYTES_MAX {
                state.dropped += 1;
            } else {
                state.bytes += bytes;
                state.events.push(event);
            }
        }
        drop(state);
        if was_empty {
            self.changed.notify_all();
        }
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition
        .wait(state)
        .unwrap_or_else(PoisonError::into_inner)
}

/// The end of the queue that Python reads.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct EventQueue(Arc<Queue>);

#[pymethods]
impl EventQueue {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    /// Wait for events, on a thread that does nothing else.
    ///
    /// Returns:
    ///     What came, each as the number of its class and the arguments for that; and how many were dropped so far. `None` when
    ///     nothing more will come.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyList>, u64)>> {
        self.0.state().has_reader = true;
        let Some((events, dropped)) = gil::detached(py, || self.0.take()) else {
            return Ok(None);
        };
        let list = PyList::empty(py);
        for event in events {
            list.append(event.into_tuple(py)?)?;
        }
        Ok(Some((list, dropped)))
    }

    /// Say that what was taken last has been delivered, and nothing will be taken any more.
    fn end(&self) {
        self.0.state().has_reader = false;
        self.0.ended.notify_all();
    }

    /// Let the reader end once it has taken what there is.
    fn close(&self) {
        self.0.close();
    }
}

/// Makes events of what happens.
struct Maker {
    /// From the core's clock to the one that Python has, too.
    offset_ns: u64,
    /// What numbers of connections and requests are counted from.
    from: u64,
}

/// Makes events of what happens on one loop.
pub(crate) struct EventSink {
    queue: Arc<Queue>,
    batch: RefCell<Vec<Event>>,
    maker: Maker,
}

impl EventSink {
    /// Events of a loop go to `queue`; to be called on the loop's thread.
    pub(crate) fn new(queue: &EventQueue, core: &LoopCore) -> Rc<Self> {
        let sink = Rc::new(Self {
            queue: Arc::clone(&queue.0),
            batch: RefCell::default(),
            maker: Maker::new(0),
        });
        core.before_sleep(&(Rc::clone(&sink) as Rc<dyn BeforeSleep>));
        sink
    }

    fn push(&self, event: Event) {
        self.batch.borrow_mut().push(event);
    }

    fn hand_over(&self) {
        let mut batch = self.batch.borrow_mut();
        if !batch.is_empty() {
            self.queue.add(batch.drain(..));
        }
    }

    /// Nothing more comes: waits for the collector to have what came, but not for long. Never call it attached to Python.
    pub(crate) fn finish(queue: &EventFinish) {
        let queue = &queue.0;
        queue.close();
        let state = queue.state();
        let reads = |state: &mut State| state.has_reader;
        let _too_slow = queue.ended.wait_timeout_while(state, FLUSH, reads);
    }

    /// What [`Self::finish`] needs, for a thread without the GIL.
    pub(crate) fn closing(&self) -> EventFinish {
        self.hand_over();
        EventFinish(Arc::clone(&self.queue))
    }
}

/// A queue that is about to be closed.
pub(crate) struct EventFinish(Arc<Queue>);

impl BeforeSleep for EventSink {
    fn before_sleep(&self) {
        self.hand_over();
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        self.hand_over();
        self.queue.close();
    }
}

impl RecordSink for EventSink {
    fn opened(&self, connection: &ConnectionInfo, at_ns: u64) {
        self.push(self.maker.opened(connection, at_ns));
    }

    fn started(&self, record: &RequestRecord) {
        self.push(self.maker.started(record));
    }

    fn finished(&self, record: &RequestRecord) {
        self.push(self.maker.finished(record));
    }

    fn closed(&self, connection: &ClosedConnection) {
        self.push(self.maker.closed(connection));
    }
}

/// Makes events of what happens on another thread, which has no turns that they could wait for. Those that come behind the
/// end of the queue are lost.
pub(crate) struct EventsElsewhere {
    queue: Arc<Queue>,
    maker: Maker,
}

impl EventsElsewhere {
    /// To be called on any thread.
    pub(crate) fn new(queue: &EventQueue) -> Self {
        Self {
            queue: Arc::clone(&queue.0),
            maker: Maker::new(ELSEWHERE_FROM),
        }
    }
}

impl RecordSink for EventsElsewhere {
    fn opened(&self, connection: &ConnectionInfo, at_ns: u64) {
        self.queue.add([self.maker.opened(connection, at_ns)]);
    }

    fn started(&self, record: &RequestRecord) {
        self.queue.add([self.maker.started(record)]);
    }

    fn finished(&self, record: &RequestRecord) {
        self.queue.add([self.maker.finished(record)]);
    }

    fn closed(&self, connection: &ClosedConnection) {
        self.queue.add([self.maker.closed(connection)]);
    }
}

impl Maker {
    fn new(from: u64) -> Self {
        Self {
            offset_ns: monotonic_ns().saturating_sub(record::monotonic_ns()),
            from,
        }
    }

    fn opened(&self, connection: &ConnectionInfo, at_ns: u64) -> Event {
        Event::Opened(
            at_ns + self.offset_ns,
            self.from + connection.number,
            connection.peer.to_string(),
            connection.local.to_string(),
            connection.entry != Entry::Plain,
        )
    }

    fn started(&self, record: &RequestRecord) -> Event {
        let target = record.target.path_and_query();
        Event::Started(
            record.start_ns + self.offset_ns,
            self.from + record.connection.number,
            self.from + record.number,
            record.client().to_string(),
            record
                .request_id
                .as_ref()
                .map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned()),
            record.method.as_str().to_owned(),
            target.map_or("", PathAndQuery::as_str).to_owned(),
            match record.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
        )
    }

    fn finished(&self, record: &RequestRecord) -> Event {
        let (at, start) = (
            record.end_ns + self.offset_ns,
            record.start_ns + self.offset_ns,
        );
        let (connection, request) = (
            self.from + record.connection.number,
            self.from + record.number,
        );
        let status = record.status.map(|status| status.as_u16());
        let (bytes_in, bytes_out) = (record.body_bytes_in, record.body_bytes_out);
        match (status, record.first_byte_ns) {
            (Some(status), Some(first)) if !record.aborted => Event::Completed(
                at,
                connection,
                request,
                status,
                start,
                first + self.offset_ns,
                bytes_in,
                bytes_out,
            ),
            _ => Event::Failed(at, connection, request, status, start, bytes_in, bytes_out),
        }
    }

    fn closed(&self, connection: &ClosedConnection) -> Event {
        Event::Closed(
            connection.at_ns + self.offset_ns,
            self.from + connection.number,
            connection.bytes_in,
            connection.bytes_out,
        )
    }
}
