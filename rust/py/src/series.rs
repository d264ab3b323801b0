//! Requests, counted by method and status: how many, and how long they took.
//!
//! Each pair of a method and a status that occurs is a *series*: a place in the directory, which all workers of the server
//! share, and at that place of every row a histogram of durations. So a sum over rows needs no names, the totals of dead
//! workers are kept by adding words, and what a worker counted survives its end by `kill -9`.
//!
//! A request costs its worker a look into a table and two or three loads and stores: its own row has one writer, the thread
//! of its loop, unless it also serves frame routes, on a thread of their own: then words are added to. Only the first request of
//! a kind claims a place, by one compare-and-swap.
//!
//! Labels are bounded: methods that no registry knows are one (`OTHER`), and when the directory is full, which takes more
//! pairs than an application has, the rest is counted by the class of the status. The path is no label: clients choose it.

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use framegate_http::{
    otlp,
    record::{RecordSink, RequestRecord},
};
use http::{Method, StatusCode};

use crate::stats::{Gauge, Row};

/// Upper bounds of the buckets. Those of OpenTelemetry's `http.server.request.duration`, and two below.
pub(crate) const BOUNDS: [Duration; 16] = [
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(75),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_millis(7500),
    Duration::from_secs(10),
];

/// Below them, what OpenTelemetry has no buckets for.
const FINER: usize = 2;
/// Those of OpenTelemetry.
pub(crate) const SEMANTIC_BOUNDS: &[Duration] = BOUNDS.split_at(FINER).1;

/// Buckets, the one without a bound among them.
pub(crate) const BUCKETS: usize = BOUNDS.len() + 1;
/// Words of a series in a row: buckets, and the sum of nanoseconds.
pub(crate) const SERIES_WORDS: usize = BUCKETS + 1;
/// Series that the directory names.
pub(crate) const DIRECTORY_COUNT: usize = 96;
/// Series without a place in the directory: one per class of status, and one without a status.
const OVERFLOW_COUNT: usize = 6;
/// All series of a row.
pub(crate) const SERIES_COUNT: usize = DIRECTORY_COUNT + OVERFLOW_COUNT;

/// What a label says of methods: the registered ones that are served, and all others.
const METHODS: [&str; 10] = [
    "OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
/// Statuses are 100 to 999; 0 is a request that got none.
const STATUS_COUNT: usize = 1000;
const UNKNOWN: u8 = u8::MAX;

const BOUNDS_NS: [u64; BOUNDS.len()] = {
    let mut bounds = [0; BOUNDS.len()];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = BOUNDS[index].as_nanos() as u64;
        index += 1;
    }
    bounds
};

/// Whose requests a series counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The method, or `OTHER`.
    pub(crate) method: &'static str,
    /// What the status is, if there was one.
    pub(crate) status: StatusLabel,
}

/// The status of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusLabel {
    /// The client went away before there was one.
    None,
    /// One status.
    Code(u16),
    /// All of a class, such as 4.
    Class(u16),
}

impl Name {
    /// The name of the series at a place, if it is in use; `key` is what the directory has there.
    pub(crate) fn of(index: usize, key: u64) -> Option<Self> {
        if index >= DIRECTORY_COUNT {
            let class = (index - DIRECTORY_COUNT) as u16;
            return Some(Self {
                method: METHODS[0],
                status: match class {
                    0 => StatusLabel::None,
                    class => StatusLabel::Class(class),
                },
            });
        }
        let pair = usize::try_from(key).ok()?.checked_sub(1)?;
        // The directory is memory that others write: what is no method is none.
        let method = METHODS.get(pair / STATUS_COUNT)?;
        Some(Self {
            method,
            status: match (pair % STATUS_COUNT) as u16 {
                0 => StatusLabel::None,
                code => StatusLabel::Code(code),
            },
        })
    }
}

/// How long the requests of one worker took, as OpenTelemetry has it.
pub(crate) fn durations(row: &Row) -> Vec<otlp::Durations> {
    let counted = |index: usize| {
        let name = Name::of(index, row.key(index))?;
        let words = row.series(index);
        let mut buckets: Vec<u64> = words[..BUCKETS]
            .iter()
            // Relaxed, here and below: counts, each for itself.
            .map(|word| word.load(Ordering::Relaxed))
            .collect();
        let fine: u64 = buckets.drain(..FINER).sum();
        buckets[0] += fine;
        Some(otlp::Durations {
            method: match name.method {
                "OTHER" => "_OTHER",
                method => method,
            },
            status: match name.status {
                StatusLabel::None => otlp::Status::None,
                StatusLabel::Code(code) => otlp::Status::Code(code),
                StatusLabel::Class(class) => otlp::Status::Class(class),
            },
            sum: Duration::from_nanos(words[BUCKETS].load(Ordering::Relaxed)),
            buckets,
        })
        .filter(|durations| durations.buckets.iter().any(|count| *count > 0))
    };
    (0..SERIES_COUNT).filter_map(counted).collect()
}

/// Counts the requests of one loop into its row.
pub(crate) struct RequestCounts {
    row: Arc<Row>,
    /// Another thread counts into it as well.
    is_shared: bool,
    in_flight: Cell<u64>,
    /// The place of each pair, once it is known.
    places: RefCell<Box<[u8]>>,
}

impl RequestCounts {
    /// Counts into this row; `is_shared`: another thread does so, too.
    pub(crate) fn new(row: Arc<Row>, is_shared: bool) -> Self {
        Self {
            row,
            is_shared,
            in_flight: Cell::new(0),
            places: RefCell::new(vec![UNKNOWN; METHODS.len() * STATUS_COUNT].into()),
        }
    }

    /// A request has begun.
    #[inline]
    fn begins(&self) {
        if self.is_shared {
            self.row.change(Gauge::RequestsInFlight, 1);
            return;
        }
        let in_flight = self.in_flight.get() + 1;
        self.in_flight.set(in_flight);
        self.row.set(Gauge::RequestsInFlight, in_flight);
    }

    /// A request is over.
    #[inline]
    fn ends(&self, record: &RequestRecord) {
        if self.is_shared {
            self.row.change(Gauge::RequestsInFlight, -1);
        } else {
            let in_flight = self.in_flight.get().saturating_sub(1);
            self.in_flight.set(in_flight);
            self.row.set(Gauge::RequestsInFlight, in_flight);
        }
        let pair = method_index(&record.method) * STATUS_COUNT + status_index(record.status);
        let known = self.places.borrow()[pair];
        let place = if known == UNKNOWN {
            self.find(pair)
        } else {
            usize::from(known)
        };
        let words = self.row.series(place);
        let duration = u64::try_from(record.judged().as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < duration);
        let add = |index: usize, value: u64| {
            let word = &words[index];
            if self.is_shared {
                word.fetch_add(value, Ordering::Relaxed);
                return;
            }
            // No read-modify-write: this thread is the only one that writes here.
            word.store(
                word.load(Ordering::Relaxed).wrapping_add(value),
                Ordering::Relaxed,
            );
        };
        add(bucket, 1);
        add(BUCKETS, duration);
    }

    #[cold]
    fn find(&self, pair: usize) -> usize {
        let class = pair % STATUS_COUNT / 100;
        let place = self
            .row
            .claim(pair as u64 + 1)
            .unwrap_or(DIRECTORY_COUNT + class.min(OVERFLOW_COUNT - 1));
        self.places.borrow_mut()[pair] = place as u8;
        place
    }
}

impl RecordSink for RequestCounts {
    fn judges(&self) -> bool {
        true
    }

    fn started(&self, _record: &RequestRecord) {
        self.begins();
    }

    fn finished(&self, record: &RequestRecord) {
        self.ends(record);
    }
}

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 1,
        Method::HEAD => 2,
        Method::POST => 3,
        Method::PUT => 4,
        Method::DELETE => 5,
        Method::CONNECT => 6,
        Method::OPTIONS => 7,
        Method::TRACE => 8,
        Method::PATCH => 9,
        _ => 0,
    }
}

fn status_index(status: Option<StatusCode>) -> usize {
    status.map_or(0, |status| usize::from(status.as_u16()))
}
