//! `--slow-request`: requests that take long are told to Python's logging, while they run and when they are over.
//!
//! The loop's thread notes them; a task of the loop hands them over, at most once a second and not too many at a time, because an
//! overloaded server is slow with everything, and writing about it must not make it slower. What they say is for
//! `framegate/slow_requests.py` to put into words. Requests of another thread ([`SlowElsewhere`]) come to the same reporter.

use std::{
    cell::{Cell, RefCell},
    mem,
    rc::Rc,
    time::Duration,
};

use framegate_http::{
    access_log::{Format, Lines},
    record::{RecordSink, RequestRecord},
};
use pyo3::prelude::*;

use crate::event_loop::LoopCore;
use crate::topics::{Said, Says};

/// Between two reports.
const PAUSE: Duration = Duration::from_secs(1);
/// Requests in one report; further ones are counted.
const NOTES_MAX: usize = 20;

/// Tells of requests that take long.
pub(crate) struct SlowRequests {
    core: Rc<LoopCore>,
    limit: Duration,
    lines: Lines,
    notes: RefCell<Vec<Note>>,
    more: Cell<u64>,
    /// A report is due or was made just now.
    reporting: Cell<bool>,
    /// Refers to itself, for its task.
    me: std::rc::Weak<Self>,
}

/// Whether it is still running, and its line of the access log as JSON.
pub(crate) type Note = (bool, String);

fn note_of(lines: &Lines, record: &RequestRecord, runs: bool) -> Note {
    let mut line = Vec::new();
    lines.write(record, &mut line);
    (runs, String::from_utf8_lossy(&line).into_owned())
}

/// Whether a request that is over was slow.
fn was_slow(record: &RequestRecord, limit: Duration) -> bool {
    record.judged() >= limit && !record.websocket
}

impl SlowRequests {
    pub(crate) fn new(core: &Rc<LoopCore>, limit: Duration, worker: Option<u32>) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            core: core.clone(),
            limit,
            lines: Lines::new(Format::Json, worker),
            notes: RefCell::default(),
            more: Cell::new(0),
            reporting: Cell::new(false),
            me: me.clone(),
        })
    }

    /// To be told with the next report; `others` were left out before it.
    pub(crate) fn add(&self, note: impl FnOnce() -> Note, others: u64) {
        let mut notes = self.notes.borrow_mut();
        let is_full = notes.len() == NOTES_MAX;
        self.more.set(self.more.get() + others + u64::from(is_full));
        if !is_full {
            notes.push(note());
        }
        drop(notes);
        if !self.reporting.replace(true)
            && let Some(me) = self.me.upgrade()
        {
            self.core.spawn(async move {
                loop {
                    Python::attach(|py| me.report(py));
                    tokio::time::sleep(PAUSE).await;
                    if me.notes.borrow().is_empty() {
                        me.reporting.set(false);
                        return;
                    }
                }
            });
        }
    }

    /// Hands over what there is.
    pub(crate) fn report(&self, py: Python<'_>) {
        let notes = mem::take(&mut *self.notes.borrow_mut());
        if notes.is_empty() {
            return;
        }
        let more = self.more.take();
        let told = py
            .import("framegate.slow_requests")
            .and_then(|module| module.call_method1("report", (notes, more)));
        if let Err(error) = told {
            self.core
                .report(py, "slow requests could not be logged", error);
        }
        self.core.after_python(py);
    }
}

impl RecordSink for SlowRequests {
    fn finished(&self, record: &RequestRecord) {
        if was_slow(record, self.limit) {
            self.add(|| note_of(&self.lines, record, false), 0);
        }
    }

    fn long_after(&self) -> Option<Duration> {
        Some(self.limit)
    }

    fn long(&self, record: &RequestRecord) {
        self.add(|| note_of(&self.lines, record, true), 0);
    }
}

/// Finds slow requests on a thread that is not the loop's.
pub(crate) struct SlowElsewhere {
    limit: Duration,
    lines: Lines,
    says: Says,
}

impl SlowElsewhere {
    pub(crate) fn new(limit: Duration, worker: Option<u32>, says: Says) -> Self {
        Self {
            limit,
            lines: Lines::new(Format::Json, worker),
            says,
        }
    }

    fn note(&self, record: &RequestRecord, runs: bool) {
        self.says
            .say(|others| Said::Slow(note_of(&self.lines, record, runs), others));
    }
}

impl RecordSink for SlowElsewhere {
    fn finished(&self, record: &RequestRecord) {
        if was_slow(record, self.limit) {
            self.note(record, false);
        }
    }

    fn long_after(&self) -> Option<Duration> {
        Some(self.limit)
    }

    fn long(&self, record: &RequestRecord) {
        self.note(record, true);
    }
}
