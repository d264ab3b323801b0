//! The runtime segment: one file per server, one row per worker, read by the supervisor and by tools.
//!
//! The layout is declared here once and exported as `_http.RUNTIME_LAYOUT`. The supervisor, which must not load a native
//! module, repeats the numbers in `framegate/runtime_segment.py`; a test compares the two. All values are native-endian
//! `u64` at multiples of 8:
//!
//! ```text
//! header, directory of series | row of totals | row of worker 0 | row of worker 1 | ...
//! row: pid, generation | gauges | counters from byte 128 on | series ([`crate::series`])
//! ```
//!
//! Who writes: the supervisor a row's identity while it starts a worker and the whole row once it is dead; the worker its
//! own gauges and counters. Values have one writer thread at a time and no read-modify-write, but for what frame routes count, on
//! two threads, and the directory, whose words are claimed once and for all. Readers may see values of different moments:
//! nothing is derived from two of them.
//!
//! A dead worker's counters are added to the totals and its row is cleared. Meanwhile `header_folding` is odd; a reader
//! that adds up rows looks at it before and after ([`Segment::read_whole`]), so that no sum ever falls.

#![expect(unsafe_code, reason = "the segment is memory mapped from a file")]

use std::{
    io,
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

use framegate_http::{edge::Limits, topics::Code};
use pyo3::{
    exceptions::{PyIndexError, PyKeyError, PyValueError},
    prelude::*,
    types::PyDict,
};

use crate::{
    error::os_error,
    os,
    series::{DIRECTORY_COUNT, SERIES_COUNT, SERIES_WORDS},
};

const MAGIC: u64 = u64::from_le_bytes(*b"FGRUNTIM");
const VERSION: u64 = 1;
const HEADER_BYTES: usize = 2048;
const ROW_BYTES: usize = 15_360;

/// Offsets in the header.
mod header {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const ROW_COUNT: usize = 16;
    pub(super) const ROW_BYTES: usize = 24;
    pub(super) const PID: usize = 32;
    pub(super) const STARTED_NS: usize = 40;
    /// 1 once the server is asked to stop.
    pub(super) const STOPPING: usize = 48;
    /// Workers that died and were started again.
    pub(super) const RESTARTS: usize = 56;
    /// Odd while the counters of a dead worker are added to the totals.
    pub(super) const FOLDING: usize = 64;
    /// Keys of the series.
    pub(super) const DIRECTORY: usize = 1024;
}

/// Offset of the first counter in a row.
const COUNTERS: usize = 128;
/// Offset of the first series in a row: there is room for 64 counters before.
const SERIES: usize = 640;
/// Longest that a reader waits for the end of a fold, which takes microseconds; its writer may have been killed in it.
const FOLD_PATIENCE: Duration = Duration::from_millis(5);

/// A value of a row that may go up and down; it dies with its worker. The numbers are offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Gauge {
    /// Process id; written by the supervisor.
    Pid = 0,
    /// How many workers had this row before; written by the supervisor.
    Generation = 8,
    /// `CLOCK_MONOTONIC` when the worker's native thread last ran.
    HeartbeatNs = 16,
    /// How long the loop took to answer the native thread, or how long it has not answered yet.
    LoopLagNs = 24,
    /// Open connections.
    Connections = 32,
    /// How far the worker is: a [`Phase`].
    Phase = 40,
    /// Which worker it is, from 0; written by the supervisor.
    Place = 48,
    /// Requests that have begun and are not over; counted while metrics are on.
    RequestsInFlight = 56,
    /// Calls for a `WebSocket` that have not ended.
    WebSockets = 64,
    /// Open streams of HTTP/2.
    Streams = 72,
    /// Calls of the application that have not ended.
    Calls = 80,
    /// Blocking handlers that run in threads.
    HandlersRunning = 88,
    /// Blocking handlers that wait for a thread.
    HandlersWaiting = 96,
}

const GAUGES_END: usize = Gauge::HandlersWaiting as usize + size_of::<u64>();

/// How far a worker is, as its row tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Phase {
    /// It does not accept connections yet.
    Starting = 0,
    /// It accepts connections.
    Ready = 1,
    /// It accepts no more, and ends.
    Draining = 2,
}

/// A value of a row that only grows; the supervisor adds it to the totals when the worker is dead. The numbers are
/// places behind [`COUNTERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    /// Requests whose head was complete.
    Requests = 0,
    /// Connections accepted.
    Accepted = 1,
    /// Bytes of request bodies; counted while request records are taken.
    BodyBytesIn = 2,
    /// Bytes of response bodies; counted while request records are taken.
    BodyBytesOut = 3,
    /// Responses that did not reach their end; counted while request records are taken.
    Aborted = 4,
    /// Lines of the access log that were dropped because its reader was too slow.
    LogLinesDropped = 5,
    /// How often the loop stood still for longer than it may without being logged.
    Stalls = 6,
    /// Bytes written to the sockets of clients.
    BytesSent = 7,
    /// Bytes read from the sockets of clients.
    BytesReceived = 8,
    /// Request bodies that became frames without Python.
    FramesNative = 9,
    /// Request bodies that became frames through Python.
    FramesPython = 10,
    /// How often the wait for the GIL was measured.
    GilWaits = 11,
    /// Nanoseconds of those waits.
    GilWaitNs = 12,
    /// Spans that a collector has taken.
    Spans = 13,
    /// Spans that were not exported.
    SpansDropped = 14,
    /// Frames that came by frame routes.
    TopicFramesIn = 15,
    /// Bytes of their payloads.
    TopicBytesIn = 16,
    /// Frames that went out by frame routes.
    TopicFramesOut = 17,
    /// Bytes of their payloads.
    TopicBytesOut = 18,
    /// Calls by frame routes that a responder has answered.
    TopicCalls = 19,
    /// Blocking handlers that were refused because too many waited.
    HandlersRefused = 20,
    /// Frames of which a slow viewer's rest was copied, so that their slots could be used again.
    TopicCopies = 21,
}

/// Place of the first of the refusals of frame routes: one counter for each [`Code`], in the order of their table.
const REFUSALS: usize = 24;

const COUNTER_NAMES: [(&str, Counter); 22] = [
    ("requests", Counter::Requests),
    ("accepted", Counter::Accepted),
    ("body_bytes_in", Counter::BodyBytesIn),
    ("body_bytes_out", Counter::BodyBytesOut),
    ("aborted", Counter::Aborted),
    ("log_lines_dropped", Counter::LogLinesDropped),
    ("stalls", Counter::Stalls),
    ("bytes_sent", Counter::BytesSent),
    ("bytes_received", Counter::BytesReceived),
    ("frames_native", Counter::FramesNative),
    ("frames_python", Counter::FramesPython),
    ("gil_waits", Counter::GilWaits),
    ("gil_wait_ns", Counter::GilWaitNs),
    ("spans", Counter::Spans),
    ("spans_dropped", Counter::SpansDropped),
    ("topic_frames_in", Counter::TopicFramesIn),
    ("topic_bytes_in", Counter::TopicBytesIn),
    ("topic_frames_out", Counter::TopicFramesOut),
    ("topic_bytes_out", Counter::TopicBytesOut),
    ("topic_calls", Counter::TopicCalls),
    ("handlers_refused", Counter::HandlersRefused),
    ("topic_copies", Counter::TopicCopies),
];

/// Names and numbers of the layout, as the supervisor has them.
const LAYOUT: [(&str, u64); 31] = [
    ("magic", MAGIC),
    ("version", VERSION),
    ("header_bytes", HEADER_BYTES as u64),
    ("header_magic", header::MAGIC as u64),
    ("header_version", header::VERSION as u64),
    ("header_row_count", header::ROW_COUNT as u64),
    ("header_row_bytes", header::ROW_BYTES as u64),
    ("header_pid", header::PID as u64),
    ("header_started_ns", header::STARTED_NS as u64),
    ("header_stopping", header::STOPPING as u64),
    ("header_restarts", header::RESTARTS as u64),
    ("header_folding", header::FOLDING as u64),
    ("header_directory", header::DIRECTORY as u64),
    ("row_bytes", ROW_BYTES as u64),
    ("row_pid", Gauge::Pid as u64),
    ("row_generation", Gauge::Generation as u64),
    ("row_heartbeat_ns", Gauge::HeartbeatNs as u64),
    ("row_loop_lag_ns", Gauge::LoopLagNs as u64),
    ("row_connections", Gauge::Connections as u64),
    ("row_phase", Gauge::Phase as u64),
    ("row_place", Gauge::Place as u64),
    ("row_requests_in_flight", Gauge::RequestsInFlight as u64),
    ("row_websockets", Gauge::WebSockets as u64),
    ("row_streams", Gauge::Streams as u64),
    ("row_calls", Gauge::Calls as u64),
    ("row_handlers_running", Gauge::HandlersRunning as u64),
    ("row_handlers_waiting", Gauge::HandlersWaiting as u64),
    ("row_counters", COUNTERS as u64),
    ("row_series", SERIES as u64),
    ("series_words", SERIES_WORDS as u64),
    ("series_count", SERIES_COUNT as u64),
];

const _: () = {
    assert!(HEADER_BYTES.is_multiple_of(align_of::<AtomicU64>()));
    assert!(ROW_BYTES.is_multiple_of(align_of::<AtomicU64>()));
    assert!(GAUGES_END <= COUNTERS);
    assert!(COUNTER_NAMES.len() <= REFUSALS);
    assert!(COUNTERS + (REFUSALS + Code::ALL.len()) * size_of::<u64>() <= SERIES);
    assert!(SERIES + SERIES_COUNT * SERIES_WORDS * size_of::<u64>() <= ROW_BYTES);
    assert!(header::DIRECTORY + DIRECTORY_COUNT * size_of::<u64>() <= HEADER_BYTES);
};

/// `_http.RUNTIME_LAYOUT`.
pub(crate) fn layout(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let layout = PyDict::new(py);
    for (name, number) in LAYOUT {
        layout.set_item(name, number)?;
    }
    Ok(layout)
}

/// `_http.RUNTIME_COUNTERS`: the names of the counters, each with its offset in a row.
pub(crate) fn counters(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let counters = PyDict::new(py);
    for (name, counter) in COUNTER_NAMES {
        counters.set_item(name, counter.offset())?;
    }
    Ok(counters)
}

impl Counter {
    fn offset(self) -> usize {
        COUNTERS + self as usize * size_of::<u64>()
    }
}

/// Where refusals of this kind are counted.
fn refusals_offset(code: Code) -> usize {
    COUNTERS + (REFUSALS + code as usize) * size_of::<u64>()
}

/// The whole file, mapped.
pub(crate) struct Segment {
    map: Map,
    row_count: usize,
}

/// Everything that a reader adds up, of one moment in which nothing was folded.
pub(crate) struct Whole<'a> {
    segment: &'a Segment,
    /// Copies of the rows in use.
    pub(crate) rows: Vec<RowCopy>,
    /// Of the dead.
    pub(crate) totals: RowCopy,
}

/// A row as it was.
pub(crate) struct RowCopy(Box<[u64]>);

impl RowCopy {
    /// A gauge.
    pub(crate) fn gauge(&self, gauge: Gauge) -> u64 {
        self.0[gauge as usize / size_of::<u64>()]
    }

    /// A counter.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.0[counter.offset() / size_of::<u64>()]
    }

    fn refusals(&self, code: Code) -> u64 {
        self.0[refusals_offset(code) / size_of::<u64>()]
    }

    /// The words of a series.
    pub(crate) fn series(&self, index: usize) -> &[u64] {
        let start = SERIES / size_of::<u64>() + index * SERIES_WORDS;
        &self.0[start..start + SERIES_WORDS]
    }
}

impl Whole<'_> {
    /// A counter, summed over the dead and the living.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.all()
            .fold(0, |sum, row| sum.wrapping_add(row.counter(counter)))
    }

    /// Requests that frame routes refused so, summed likewise.
    pub(crate) fn refusals(&self, code: Code) -> u64 {
        self.all()
            .fold(0, |sum, row| sum.wrapping_add(row.refusals(code)))
    }

    /// The words of a series, summed over the dead and the living.
    pub(crate) fn series(&self, index: usize) -> [u64; SERIES_WORDS] {
        let mut sum = [0u64; SERIES_WORDS];
        for row in self.all() {
            for (sum, word) in sum.iter_mut().zip(row.series(index)) {
                *sum = sum.wrapping_add(*word);
            }
        }
        sum
    }

    /// The key of a series; 0 while it has none.
    pub(crate) fn key(&self, index: usize) -> u64 {
        self.segment.key(index)
    }

    /// Workers that died and were started again.
    pub(crate) fn restarts(&self) -> u64 {
        self.segment.header(header::RESTARTS)
    }

    /// When the server was started, in nanoseconds of Unix time.
    pub(crate) fn started_ns(&self) -> u64 {
        self.segment.header(header::STARTED_NS)
    }

    /// Whether the server was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.segment.header(header::STOPPING) != 0
    }

    fn all(&self) -> impl Iterator<Item = &RowCopy> {
        std::iter::once(&self.totals).chain(&self.rows)
    }
}

impl Segment {
    /// Map the segment.
    ///
    /// # Errors
    ///
    /// The file is no runtime segment of this version.
    fn open(py: Python<'_>, fd: i32) -> Result<Self, OpenError> {
        let map = Map::new(py, fd)?;
        let word = |at: usize| map.word(at).load(Ordering::Relaxed);
        if map.length < HEADER_BYTES || word(header::MAGIC) != MAGIC {
            return Err(OpenError::Foreign(
                "it does not begin with its magic number".to_owned(),
            ));
        }
        let (version, row_bytes) = (word(header::VERSION), word(header::ROW_BYTES));
        if (version, row_bytes) != (VERSION, ROW_BYTES as u64) {
            let text = format!(
                "it has version {version} with rows of {row_bytes} bytes, this worker knows version {VERSION} with \
                 {ROW_BYTES}"
            );
            return Err(OpenError::Foreign(text));
        }
        // The file is trusted for nothing: its length decides. The first row is that of the totals.
        let room = (map.length - HEADER_BYTES) / ROW_BYTES;
        let count = usize::try_from(word(header::ROW_COUNT)).unwrap_or(usize::MAX);
        Ok(Self {
            row_count: count.min(room.saturating_sub(1)),
            map,
        })
    }

    fn header(&self, offset: usize) -> u64 {
        self.map.word(offset).load(Ordering::Relaxed)
    }

    /// Of a series beyond the directory, 0.
    fn key(&self, index: usize) -> u64 {
        if index < DIRECTORY_COUNT {
            self.directory(index).load(Ordering::Relaxed)
        } else {
            0
        }
    }

    fn directory(&self, index: usize) -> &AtomicU64 {
        self.map.word(header::DIRECTORY + index * size_of::<u64>())
    }

    /// Copies everything at a moment in which nothing is folded. A supervisor that was killed while it folded leaves the
    /// mark behind: then, after a short wait, things are taken as they are.
    pub(crate) fn read_whole(&self) -> Whole<'_> {
        let folding = || {
            // Acquire: what is read afterwards is not older than this; pairs with the order of the supervisor's stores, which are
            // Python's and ordered by x86-64 alone: on aarch64 there would have to be fences.
            self.map.word(header::FOLDING).load(Ordering::Acquire)
        };
        let start = Instant::now();
        loop {
            let before = folding();
            let whole = Whole {
                segment: self,
                totals: self.copy(0),
                rows: (1..=self.row_count)
                    .filter(|row| self.row_word(*row, Gauge::Pid as usize) != 0)
                    .map(|row| self.copy(row))
                    .collect(),
            };
            // The copies above stay above.
            fence(Ordering::Acquire);
            let is_settled = before.is_multiple_of(2) && before == folding();
            if is_settled || start.elapsed() >= FOLD_PATIENCE {
                return whole;
            }
            std::thread::yield_now();
        }
    }

    /// The words behind all rows.
    fn behind_rows(&self) -> &[AtomicU64] {
        let at = HEADER_BYTES + (self.row_count + 1) * ROW_BYTES;
        self.map.words_from(at)
    }

    /// Requests of all workers that wait for others to end; `None` while nothing is limited.
    pub(crate) fn waiting_requests(&self) -> Option<u64> {
        Limits::waiting_requests(self.behind_rows(), self.row_count)
    }

    fn row_word(&self, row: usize, offset: usize) -> u64 {
        self.map
            .word(HEADER_BYTES + row * ROW_BYTES + offset)
            .load(Ordering::Relaxed)
    }

    fn copy(&self, row: usize) -> RowCopy {
        RowCopy(
            (0..ROW_BYTES / size_of::<u64>())
                .map(|word| self.row_word(row, word * size_of::<u64>()))
                .collect(),
        )
    }
}

/// The row of one worker, mapped. Cheap to share between the loop's thread and the native thread.
pub(crate) struct Row {
    segment: Arc<Segment>,
    /// Where the row begins in the map.
    start: usize,
}

impl Row {
    fn of(segment: Arc<Segment>, index: usize) -> Result<Self, OpenError> {
        let count = segment.row_count;
        if index >= count {
            return Err(OpenError::Missing { index, count });
        }
        Ok(Self {
            segment,
            start: HEADER_BYTES + (index + 1) * ROW_BYTES,
        })
    }

    /// The file that it is in.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.segment.map.word(self.start + offset)
    }

    /// Number of this row, and of all.
    pub(crate) fn place(&self) -> (usize, usize) {
        let index = (self.start - HEADER_BYTES) / ROW_BYTES - 1;
        (index, self.segment.row_count)
    }

    /// The words behind all rows: what limits of all workers are kept in.
    pub(crate) fn behind_rows(&self) -> &[AtomicU64] {
        self.segment.behind_rows()
    }

    /// Publish a gauge.
    pub(crate) fn set(&self, gauge: Gauge, value: u64) {
        // Relaxed, as everywhere here: each value stands for itself and orders nothing else.
        self.word(gauge as usize).store(value, Ordering::Relaxed);
    }

    /// What a gauge says.
    pub(crate) fn gauge(&self, gauge: Gauge) -> u64 {
        self.word(gauge as usize).load(Ordering::Relaxed)
    }

    /// The key of a series; 0 while it has none.
    pub(crate) fn key(&self, index: usize) -> u64 {
        self.segment.key(index)
    }

    /// Publish a counter that its owner keeps.
    pub(crate) fn count(&self, counter: Counter, value: u64) {
        self.word(counter.offset()).store(value, Ordering::Relaxed);
    }

    /// Add to a counter that nobody keeps elsewhere; from any thread.
    pub(crate) fn add(&self, counter: Counter, value: u64) {
        self.add_at(counter.offset(), value);
    }

    /// Count a refusal of a frame route; from any thread.
    pub(crate) fn refused(&self, code: Code) {
        self.add_at(refusals_offset(code), 1);
    }

    fn add_at(&self, offset: usize, value: u64) {
        // Frame routes are served on two threads.
        self.word(offset).fetch_add(value, Ordering::Relaxed);
    }

    /// Changes a gauge that several threads change.
    pub(crate) fn change(&self, gauge: Gauge, by: i64) {
        self.word(gauge as usize)
            .fetch_add(by.cast_unsigned(), Ordering::Relaxed);
    }

    /// The words of a series of this worker.
    pub(crate) fn series(&self, index: usize) -> &[AtomicU64] {
        assert!(index < SERIES_COUNT);
        let start = self.start + SERIES + index * SERIES_WORDS * size_of::<u64>();
        self.segment.map.words(start, SERIES_WORDS)
    }

    /// The place of `key` in the directory, which all workers share; `None` when it is full.
    pub(crate) fn claim(&self, key: u64) -> Option<usize> {
        (0..DIRECTORY_COUNT).find(|index| {
            // Relaxed: the key is all there is to know.
            let claimed = self.segment.directory(*index).compare_exchange(
                0,
                key,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            claimed.is_ok() || claimed == Err(key)
        })
    }
}

enum OpenError {
    Os(io::Error),
    Foreign(String),
    Missing { index: usize, count: usize },
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Os(error)
    }
}

/// A file mapped for reading and writing, shared with other processes.
struct Map {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is only accessed through `&AtomicU64`, and stays mapped until the one owner is dropped.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    fn new(py: Python<'_>, fd: i32) -> io::Result<Self> {
        let (start, length) = os::map_shared(py, fd)?;
        Ok(Self { start, length })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        &self.words(offset, 1)[0]
    }

    fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        assert!(
            offset.is_multiple_of(size_of::<u64>())
                && offset + count * size_of::<u64>() <= self.length
        );
        // SAFETY: inside the mapping and aligned (just checked; the mapping begins at a page), mapped as long as `self`
        // lives, and every access by this process is atomic. The creator never shrinks the file.
        unsafe { slice::from_raw_parts(self.start.as_ptr().add(offset).cast(), count) }
    }

    /// All of them from there to the end; none behind it.
    fn words_from(&self, offset: usize) -> &[AtomicU64] {
        match self.length.checked_sub(offset) {
            Some(bytes) => self.words(offset, bytes / size_of::<u64>()),
            None => &[],
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; nobody borrows from it any more.
        unsafe { os::unmap(self.start, self.length) };
    }
}

/// The row of one worker in the runtime segment.
///
/// Args:
///     fd: Descriptor of the segment's file; may be closed afterwards.
///     index: Number of the worker.
///
/// Raises:
///     `ValueError`: The file is no runtime segment of this version.
///     `IndexError`: It has no such row.
///     `OSError`: It cannot be mapped.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct RuntimeRow(pub(crate) Arc<Row>);

#[pymethods]
impl RuntimeRow {
    #[new]
    fn new(py: Python<'_>, fd: i32, index: usize) -> PyResult<Self> {
        if fd < 0 {
            return Err(PyValueError::new_err(format!(
                "{fd} is not a file descriptor"
            )));
        }
        match Segment::open(py, fd).and_then(|segment| Row::of(Arc::new(segment), index)) {
            Ok(row) => Ok(Self(Arc::new(row))),
            Err(OpenError::Os(error)) => Err(os_error(error)),
            Err(OpenError::Foreign(text)) => Err(PyValueError::new_err(format!(
                "the file is not a runtime segment that fits: {text}"
            ))),
            Err(OpenError::Missing { index, count }) => Err(PyIndexError::new_err(format!(
                "the runtime segment has no row {index}, it has {count}"
            ))),
        }
    }

    /// One value by its name: a key of `RUNTIME_LAYOUT` that begins with `row_`, or of `RUNTIME_COUNTERS`.
    fn get(&self, name: &str) -> PyResult<u64> {
        let gauge = LAYOUT.iter().find(|(key, _)| {
            *key == name
                && key.starts_with("row_")
                && !matches!(*key, "row_bytes" | "row_counters" | "row_series")
        });
        let counter = COUNTER_NAMES.iter().find(|(key, _)| *key == name);
        let offset = match (gauge, counter) {
            (Some((_, offset)), _) => usize::try_from(*offset).expect("an offset in a row"),
            (None, Some((_, counter))) => counter.offset(),
            (None, None) => return Err(PyKeyError::new_err(name.to_owned())),
        };
        Ok(self.0.word(offset).load(Ordering::Relaxed))
    }
}
