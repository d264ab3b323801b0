//! The runtime segment: one file per server, one row per worker, read by the supervisor and by tools.
//!
//! The layout is declared here once and exported as `_http.RUNTIME_LAYOUT`. The supervisor, which must not load a native
//! module, repeats the numbers in `framegate/runtime_segment.py`; a test compares the two. All values are native-endian
//! `u64` at multiples of 8:
//!
//! ```text
//! header (128 bytes) | row of totals | row of worker 0 | row of worker 1 | ...
//! row: pid, generation | gauges | counters from byte 64 on
//! ```
//!
//! Who writes: the supervisor a row's identity while it starts a worker and the whole row once it is dead; the worker its
//! own gauges and counters. Every value has one writer thread at a time, so there is no read-modify-write. Readers may see
//! values of different moments: nothing is derived from two of them.

#![expect(unsafe_code, reason = "the segment is memory mapped from a file")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pyo3::{
    exceptions::{PyIndexError, PyKeyError, PyValueError},
    prelude::*,
    types::PyDict,
};

use crate::error::os_error;

const MAGIC: u64 = u64::from_le_bytes(*b"FGRUNTIM");
const VERSION: u64 = 1;
const HEADER_BYTES: usize = 128;
const ROW_BYTES: usize = 1024;

/// Offsets in the header.
mod header {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const ROW_COUNT: usize = 16;
    pub(super) const ROW_BYTES: usize = 24;
    pub(super) const PID: usize = 32;
    pub(super) const STARTED_NS: usize = 40;
}

/// Offset of the first counter in a row.
const COUNTERS: usize = 64;

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
}

const COUNTER_NAMES: [(&str, Counter); 7] = [
    ("requests", Counter::Requests),
    ("accepted", Counter::Accepted),
    ("body_bytes_in", Counter::BodyBytesIn),
    ("body_bytes_out", Counter::BodyBytesOut),
    ("aborted", Counter::Aborted),
    ("log_lines_dropped", Counter::LogLinesDropped),
    ("stalls", Counter::Stalls),
];

/// Names and numbers of the layout, as the supervisor has them.
const LAYOUT: [(&str, u64); 16] = [
    ("magic", MAGIC),
    ("version", VERSION),
    ("header_bytes", HEADER_BYTES as u64),
    ("header_magic", header::MAGIC as u64),
    ("header_version", header::VERSION as u64),
    ("header_row_count", header::ROW_COUNT as u64),
    ("header_row_bytes", header::ROW_BYTES as u64),
    ("header_pid", header::PID as u64),
    ("header_started_ns", header::STARTED_NS as u64),
    ("row_bytes", ROW_BYTES as u64),
    ("row_pid", Gauge::Pid as u64),
    ("row_generation", Gauge::Generation as u64),
    ("row_heartbeat_ns", Gauge::HeartbeatNs as u64),
    ("row_loop_lag_ns", Gauge::LoopLagNs as u64),
    ("row_connections", Gauge::Connections as u64),
    ("row_counters", COUNTERS as u64),
];

const _: () = {
    assert!(HEADER_BYTES.is_multiple_of(align_of::<AtomicU64>()));
    assert!(ROW_BYTES.is_multiple_of(align_of::<AtomicU64>()));
    assert!(COUNTERS + COUNTER_NAMES.len() * size_of::<u64>() <= ROW_BYTES);
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

/// The row of one worker, mapped. Cheap to share between the loop's thread and the native thread.
pub(crate) struct Row {
    map: Map,
    /// Where the row begins in the map.
    start: usize,
}

impl Row {
    /// Map the segment and take row `index`.
    ///
    /// # Errors
    ///
    /// The file is no runtime segment of this version, or has no such row.
    fn open(fd: BorrowedFd<'_>, index: usize) -> Result<Self, OpenError> {
        let map = Map::new(fd)?;
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
        let count = usize::try_from(word(header::ROW_COUNT)).unwrap_or(usize::MAX);
        // Row -1, so to speak, is that of the totals. The file is trusted for nothing: its length decides.
        let start = index
            .checked_add(1)
            .and_then(|rows| rows.checked_mul(ROW_BYTES))
            .map(|at| at + HEADER_BYTES);
        match start.filter(|start| index < count && start.saturating_add(ROW_BYTES) <= map.length) {
            Some(start) => Ok(Self { map, start }),
            None => Err(OpenError::Missing { index, count }),
        }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.map.word(self.start + offset)
    }

    /// Number of this row, and of all.
    pub(crate) fn place(&self) -> (usize, usize) {
        let count = self.map.word(header::ROW_COUNT).load(Ordering::Relaxed);
        let index = (self.start - HEADER_BYTES) / ROW_BYTES - 1;
        (index, usize::try_from(count).unwrap_or(0))
    }

    /// The words behind all rows: what limits of all workers are kept in.
    pub(crate) fn behind_rows(&self) -> &[AtomicU64] {
        let at = HEADER_BYTES + (self.place().1 + 1) * ROW_BYTES;
        self.map.words_from(at)
    }

    /// Publish a gauge.
    pub(crate) fn set(&self, gauge: Gauge, value: u64) {
        // Relaxed, as everywhere here: each value stands for itself and orders nothing else.
        self.word(gauge as usize).store(value, Ordering::Relaxed);
    }

    /// Publish a counter that its owner keeps.
    pub(crate) fn count(&self, counter: Counter, value: u64) {
        self.word(counter.offset()).store(value, Ordering::Relaxed);
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
    fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: all zeros is a valid `stat`; fstat fills it or fails.
        let (status, result) = unsafe {
            let mut status: libc::stat = std::mem::zeroed();
            let result = libc::fstat(fd.as_raw_fd(), &raw mut status);
            (status, result)
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let length = usize::try_from(status.st_size).unwrap_or(0);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. An empty file is
        // refused by the kernel (EINVAL).
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap gives no null without MAP_FIXED");
        Ok(Self { start, length })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(size_of::<u64>()) && offset + size_of::<u64>() <= self.length
        );
        // SAFETY: inside the mapping and aligned (just checked; the mapping begins at a page), mapped as long as `self`
        // lives, and every access by this process is atomic. The creator never shrinks the file.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }
}

impl Map {
    fn words_from(&self, offset: usize) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(size_of::<u64>()));
        let Some(bytes) = self.length.checked_sub(offset) else {
            return &[];
        };
        // SAFETY: inside the mapping and aligned (just checked), atomic as in `word`, borrowed no longer than `self`.
        unsafe {
            std::slice::from_raw_parts(
                self.start.as_ptr().add(offset).cast::<AtomicU64>(),
                bytes / size_of::<u64>(),
            )
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; nobody borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
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
    fn new(fd: i32, index: usize) -> PyResult<Self> {
        if fd < 0 {
            return Err(PyValueError::new_err(format!(
                "{fd} is not a file descriptor"
            )));
        }
        // SAFETY: borrowed for this call only, in which the caller holds it; the kernel checks the number.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        match Row::open(fd, index) {
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
            *key == name && key.starts_with("row_") && !matches!(*key, "row_bytes" | "row_counters")
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
