//! The native thread: what must not wait for Python.
//!
//! A handler that computes for seconds stalls its loop. This thread (`framegate-native`, one per worker) has a tokio
//! runtime of its own, never touches Python and so goes on:
//!
//! - **Heartbeat.** It writes the time into the worker's row of the runtime segment, and asks the loop to answer. How long
//!   the answer takes is the loop's lag; while none comes, the growing wait is. When the loop answers it also publishes
//!   its gauges and counters ([`NativeThread::watch_loop`]), so nothing is written per request.
//! - **Stalls and orphans.** What follows from a loop that does not answer, and from a parent that is gone ([`crate::stall`]).
//! - **Access log.** The loop's thread formats lines into a buffer of its own ([`AccessLog`]) and hands it over when a
//!   `select` ends, before it sleeps, or when it is full. This thread writes what has come together every
//!   [`LOG_DELAY`], on a thread of its blocking pool: a reader that stalls blocks neither the loop nor the heartbeat.
//!   Then the bounded buffer fills, and whole batches are dropped and counted.
//!
//! All signals are blocked here, so that the kernel delivers them to the main thread.

#![expect(unsafe_code, reason = "descriptors given by Python or watched")]

use std::{
    cell::{Cell, RefCell},
    io, mem,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use framegate_http::{
    access_log::Lines,
    record::{RecordSink, RequestRecord, Wanted},
};
use pyo3::{exceptions::PyValueError, prelude::*};
use tokio::{
    sync::{Notify, oneshot},
    task::{AbortHandle, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    error::os_error,
    event_loop::{BeforeSleep, LoopCore},
    log_file::LogFile,
    os::{self, OwnedSocket, Watched, monotonic_ns, short_turns, without_signals},
    stall::{ParentWatch, StallWatch},
    stats::{Counter, Gauge, Row},
};
#[cfg(debug_assertions)]
use {
    crate::{gil, home::LoopBound, os::duplicate_file, stats::RuntimeRow},
    framegate_http::access_log,
    pyo3::exceptions::PyRuntimeError,
};

/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Lines wait for company that long: one wake-up and one write per this time instead of per request.
const LOG_DELAY: Duration = Duration::from_millis(20);
/// The loop's own buffer is handed over when it has grown to this.
const LOG_BATCH_BYTES: usize = 64 << 10;
/// Handed over and not yet written; beyond it batches are dropped. Some 10,000 lines.
const LOG_BYTES_MAX: usize = 1 << 20;
/// What the last lines get when the thread stops.
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// What both threads see.
struct Shared {
    row: Option<Arc<Row>>,
    ping: Ping,
    log: Mutex<LogBuffer>,
    /// The buffer is no longer empty, or the log is to be opened anew.
    log_ready: Notify,
    /// The log is to be opened anew before the next line.
    reopen: AtomicBool,
    /// What requests on other threads than the loop's say.
    elsewhere: Elsewhere,
}

/// The counts of [`Totals`], of the threads that have no `publish`.
#[derive(Default)]
struct Elsewhere {
    body_bytes_in: AtomicU64,
    body_bytes_out: AtomicU64,
    aborted: AtomicU64,
}

/// A question to the loop: do you still turn?
#[derive(Default)]
struct Ping {
    /// When it was asked; 0 once it is answered.
    asked_ns: AtomicU64,
    notify: Notify,
}

#[derive(Default)]
struct LogBuffer {
    lines: Vec<u8>,
    dropped: u64,
    failed_reopens: u64,
}

impl Shared {
    /// Held for a copy of at most [`LOG_BATCH_BYTES`]; by the writer only to exchange the vector.
    fn log(&self) -> MutexGuard<'_, LogBuffer> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a heartbeat and asks the loop; gives the question that has no answer yet, or 0.
    fn beat(&self) -> u64 {
        let now = monotonic_ns();
        // Relaxed: the answer carries no data but the number itself.
        let asked = self.ping.asked_ns.load(Ordering::Relaxed);
        if asked == 0 {
            // Relaxed: `notify_one`, and the wake-up by it, order this before the loop's swap.
            self.ping.asked_ns.store(now, Ordering::Relaxed);
            self.ping.notify.notify_one();
        }
        if let Some(row) = &self.row {
            row.set(Gauge::HeartbeatNs, now);
            if asked != 0 {
                row.set(Gauge::LoopLagNs, now.saturating_sub(asked));
            }
            row.count(Counter::LogLinesDropped, self.log().dropped);
        }
        asked
    }
}

/// What the thread looks after beside the log.
#[derive(Default)]
pub(crate) struct Watches {
    /// The loop.
    pub(crate) stall: Option<StallWatch>,
    /// The supervisor.
    pub(crate) parent: Option<ParentWatch>,
}

impl Watches {
    fn look(&mut self, shared: &Shared, asked: u64, passed: Duration) {
        if let Some(stall) = &mut self.stall {
            let count = stall.look(asked, passed);
            if let Some(row) = &shared.row {
                row.count(Counter::Stalls, count);
            }
        }
        if let Some(parent) = &mut self.parent {
            parent.look(passed);
        }
    }
}

/// The thread, seen from its worker. Dropping it lets the thread end by itself; [`stop`](Self::stop) waits for it.
pub(crate) struct NativeThread {
    shared: Arc<Shared>,
    /// Dropped to ask the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NativeThread {
    /// Start the thread. Heartbeats go to `row`, the access log to `log`.
    pub(crate) fn start(
        row: Option<Arc<Row>>,
        log: Option<LogFile>,
        watches: Watches,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            row,
            ping: Ping::default(),
            log: Mutex::default(),
            log_ready: Notify::new(),
            reopen: AtomicBool::new(false),
            elsewhere: Elsewhere::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let theirs = Arc::clone(&shared);
        let thread = without_signals(|| {
            thread::Builder::new()
                .name("framegate-native".to_owned())
                .spawn(move || {
                    short_turns();
                    runtime.block_on(run(&theirs, log, watches, stopped));
                    // A write that hangs is left behind.
                    runtime.shutdown_background();
                })
        })?;
        Ok(Self {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Let the loop answer the heartbeat; `publish` is called on the loop's thread at each answer.
    pub(crate) fn watch_loop(
        &self,
        core: &Rc<LoopCore>,
        publish: impl Fn(&Row) + 'static,
    ) -> LoopWatch {
        let shared = Arc::clone(&self.shared);
        let task = core.spawn(async move {
            loop {
                shared.ping.notify.notified().await;
                // Relaxed: as in `beat`.
                let asked = shared.ping.asked_ns.swap(0, Ordering::Relaxed);
                if let Some(row) = &shared.row {
                    row.set(Gauge::LoopLagNs, monotonic_ns().saturating_sub(asked));
                    publish(row);
                }
            }
        });
        LoopWatch(task.abort_handle())
    }

    /// Open the access log anew, if it is a file: soon.
    pub(crate) fn reopen_log(&self) {
        // Relaxed: nothing else is told by it; `notify_one` orders it before the writer's swap.
        self.shared.reopen.store(true, Ordering::Relaxed);
        self.shared.log_ready.notify_one();
    }

    /// Asks for lines of the access log that were dropped so far, and how often it could not be opened anew.
    pub(crate) fn log_troubles(&self) -> impl Fn() -> (u64, u64) + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let log = shared.log();
            (log.dropped, log.failed_reopens)
        }
    }

    /// The access log of a loop; to be called on the loop's thread.
    pub(crate) fn access_log(
        &self,
        core: &LoopCore,
        lines: Lines,
        excluded: Excluded,
    ) -> Rc<AccessLog> {
        let log = Rc::new(self.log_of_thread(lines, excluded, false));
        core.before_sleep(&(Rc::clone(&log) as Rc<dyn BeforeSleep>));
        log
    }

    /// The access log of another thread, to which it is to be taken. Nobody tells when that sleeps: each line is handed over.
    pub(crate) fn access_log_elsewhere(&self, lines: Lines, excluded: Excluded) -> AccessLog {
        self.log_of_thread(lines, excluded, true)
    }

    fn log_of_thread(&self, lines: Lines, excluded: Excluded, is_elsewhere: bool) -> AccessLog {
        AccessLog {
            shared: Arc::clone(&self.shared),
            batch: RefCell::default(),
            line_count: Cell::new(0),
            totals: Cell::default(),
            lines,
            excluded,
            is_elsewhere,
        }
    }

    /// The thread itself, leaving one that has stopped: for ending it detached.
    #[cfg(debug_assertions)]
    pub(crate) fn take(&mut self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            stop: self.stop.take(),
            thread: self.thread.take(),
        }
    }

    /// End the thread; takes at most [`LOG_FLUSH`] if the log's reader is slow. Never call it attached to Python.
    pub(crate) fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // An error is a panic there, which has been printed.
            let _panicked = thread.join();
        }
    }
}

/// Stops the answers of [`NativeThread::watch_loop`] when dropped.
pub(crate) struct LoopWatch(AbortHandle);

impl Drop for LoopWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(
    shared: &Arc<Shared>,
    log: Option<LogFile>,
    mut watches: Watches,
    stopped: oneshot::Receiver<()>,
) {
    let beats = async {
        let mut last = Instant::now();
        let mut ticks = interval(HEARTBEAT);
        // After a pause of the whole machine one beat is enough.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            // A pause of the whole process counts as two beats at most.
            let passed = (now - last).min(2 * HEARTBEAT);
            last = now;
            let asked = shared.beat();
            watches.look(shared, asked, passed);
        }
    };
    let Some(log) = log else {
        tokio::select! { _ = stopped => {}, () = beats => {} }
        return;
    };
    // Locked while a write is under way: one that is left behind at the end must not mix with the last one.
    let log = Arc::new(Mutex::new(log));
    let (ending, is_ending) = (Notify::new(), Cell::new(false));
    let writes = async {
        while !is_ending.get() {
            let due = async {
                shared.log_ready.notified().await;
                sleep(LOG_DELAY).await;
            };
            tokio::select! { () = due => {}, () = ending.notified() => {} }
            write_log(shared, &log).await;
        }
        // What came while that was under way.
        write_log(shared, &log).await;
    };
    let mut writes = pin!(writes);
    tokio::select! { _ = stopped => {}, () = beats => {}, () = &mut writes => {} }
    // A write that is under way goes on, and the rest follows.
    is_ending.set(true);
    ending.notify_one();
    let _too_slow = timeout(LOG_FLUSH, writes).await;
}

/// Write everything that has been handed over.
async fn write_log(shared: &Arc<Shared>, log: &Arc<Mutex<LogFile>>) {
    let lines = mem::take(&mut shared.log().lines);
    let reopen = shared.reopen.swap(false, Ordering::Relaxed);
    if lines.is_empty() && !reopen {
        return;
    }
    let (log, theirs) = (Arc::clone(log), Arc::clone(shared));
    // An error is a panic there, which has been printed.
    let _panicked = spawn_blocking(move || {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if reopen && log.reopen().is_err() {
            // The old file goes on; somebody who looks for the new one has the counter.
            theirs.log().failed_reopens += 1;
        }
        // The reader has gone away, or the disk is full.
        let lost = log.write(&lines);
        theirs.log().dropped += lost;
    })
    .await;
}

/// Formats request records and counts what they say. Belongs to one loop.
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
    batch: RefCell<Vec<u8>>,
    line_count: Cell<u64>,
    totals: Cell<Totals>,
    lines: Lines,
    excluded: Excluded,
    /// It is not the loop's.
    is_elsewhere: bool,
}

/// Paths whose requests are left out of the log while they succeed: a health check that fails is news.
#[derive(Default)]
pub(crate) struct Excluded {
    exact: Vec<String>,
    /// Patterns that end with `*`, without it.
    prefixes: Vec<String>,
}

impl Excluded {
    /// From patterns: paths, or beginnings of paths with a `*` at their end.
    pub(crate) fn new(patterns: Vec<String>) -> Self {
        let mut excluded = Self::default();
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => excluded.prefixes.push(prefix.to_owned()),
                None => excluded.exact.push(pattern),
            }
        }
        excluded
    }

    fn covers(&self, record: &RequestRecord) -> bool {
        if self.exact.is_empty() && self.prefixes.is_empty() {
            return false;
        }
        let succeeded = record.status.is_some_and(|status| status.as_u16() < 400);
        let path = record.target.path();
        succeeded
            && !record.aborted
            && (self.exact.iter().any(|exact| exact == path)
                || self.prefixes.iter().any(|prefix| path.starts_with(prefix)))
    }
}

#[derive(Clone, Copy, Default)]
struct Totals {
    body_bytes_in: u64,
    body_bytes_out: u64,
    aborted: u64,
}

impl AccessLog {
    /// Publish what was counted.
    pub(crate) fn publish(&self, row: &Row) {
        let totals = self.totals.get();
        let elsewhere = &self.shared.elsewhere;
        // Relaxed: counts.
        let count = |counter, here, there: &AtomicU64| {
            row.count(counter, here + there.load(Ordering::Relaxed));
        };
        count(
            Counter::BodyBytesIn,
            totals.body_bytes_in,
            &elsewhere.body_bytes_in,
        );
        count(
            Counter::BodyBytesOut,
            totals.body_bytes_out,
            &elsewhere.body_bytes_out,
        );
        count(Counter::Aborted, totals.aborted, &elsewhere.aborted);
    }

    /// Add a line, which must end with a line feed.
    pub(crate) fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut batch = self.batch.borrow_mut();
        write(&mut batch);
        self.line_count.set(self.line_count.get() + 1);
        if batch.len() >= LOG_BATCH_BYTES {
            drop(batch);
            self.hand_over();
        }
    }

    /// Hand over what there is. Needed before [`NativeThread::stop`] only: otherwise it happens by itself.
    pub(crate) fn hand_over(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.is_empty() {
            return;
        }
        let mut log = self.shared.log();
        let was_empty = log.lines.is_empty();
        if log.lines.len() + batch.len() > LOG_BYTES_MAX {
            log.dropped += self.line_count.get();
        } else if was_empty {
            mem::swap(&mut log.lines, &mut batch);
        } else {
            log.lines.extend_from_slice(&batch);
        }
        drop(log);
        batch.clear();
        self.line_count.set(0);
        if was_empty {
            self.shared.log_ready.notify_one();
        }
    }
}

impl BeforeSleep for AccessLog {
    fn before_sleep(&self) {
        self.hand_over();
    }
}

impl RecordSink for AccessLog {
    fn wanted(&self) -> Wanted {
        self.lines.wanted()
    }

    fn finished(&self, record: &RequestRecord) {
        if self.is_elsewhere {
            let totals = &self.shared.elsewhere;
            for (total, more) in [
                (&totals.body_bytes_in, record.body_bytes_in),
                (&totals.body_bytes_out, record.body_bytes_out),
                (&totals.aborted, u64::from(record.aborted)),
            ] {
                // Relaxed: counts.
                total.fetch_add(more, Ordering::Relaxed);
            }
        } else {
            let mut totals = self.totals.get();
            totals.body_bytes_in += record.body_bytes_in;
            totals.body_bytes_out += record.body_bytes_out;
            totals.aborted += u64::from(record.aborted);
            self.totals.set(totals);
        }
        if !self.excluded.covers(record) {
            self.line(|line| self.lines.write(record, line));
            if self.is_elsewhere {
                self.hand_over();
            }
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// A descriptor or socket that Python gives away.
///
/// # Safety
/// It belongs to nobody else, if it is open.
///
/// # Errors
/// `ValueError`, `OSError`: It is none, or not open.
pub(crate) unsafe fn given(fd: i32) -> PyResult<OwnedSocket> {
    if fd < 0 {
        let text = format!("{fd} is not a file descriptor");
        return Err(PyValueError::new_err(text));
    }
    // SAFETY: as the caller promises.
    unsafe { os::given(fd) }.map_err(os_error)
}

/// A duplicate of what the library gives for event loops, watched by the runtime that runs.
pub(crate) fn watched(fd: OwnedSocket) -> io::Result<Watched<OwnedSocket>> {
    // SAFETY: the descriptor is owned: it stays open, and the same, as long as that lives.
    unsafe { Watched::new(fd) }
}

/// For tests: a native thread whose log takes any line.
#[cfg(debug_assertions)]
#[pyclass(frozen, name = "_NativeThread", module = "framegate._http")]
pub(crate) struct TestThread(LoopBound<RefCell<Test>>);

#[cfg(debug_assertions)]
struct Test {
    log: Rc<AccessLog>,
    watch: Option<LoopWatch>,
    thread: NativeThread,
}

#[cfg(debug_assertions)]
#[pymethods]
impl TestThread {
    #[new]
    #[pyo3(signature = (row=None, log_fd=None))]
    fn new(
        py: Python<'_>,
        row: Option<&Bound<'_, RuntimeRow>>,
        log_fd: Option<i32>,
    ) -> PyResult<Self> {
        let core = LoopCore::current()
            .ok_or_else(|| PyRuntimeError::new_err("no loop runs in this thread"))?;
        let log = log_fd
            .map(|fd| duplicate_file(py, fd).map(LogFile::inherited))
            .transpose()
            .map_err(os_error)?;
        let thread = NativeThread::start(
            row.map(|row| Arc::clone(&row.get().0)),
            log,
            Watches::default(),
        )
        .map_err(os_error)?;
        let lines = Lines::new(access_log::Format::Text, None);
        let log = thread.access_log(&core, lines, Excluded::default());
        let published = Rc::clone(&log);
        let watch = thread.watch_loop(&core, move |row| {
            row.set(Gauge::Connections, 7);
            row.count(Counter::Requests, 11);
            row.count(Counter::Accepted, 3);
            published.publish(row);
        });
        Ok(Self(LoopBound::new(RefCell::new(Test {
            log,
            watch: Some(watch),
            thread,
        }))))
    }

    /// Add a line to the log.
    fn log(&self, line: &[u8]) -> PyResult<()> {
        self.0
            .get_or_raise()?
            .borrow()
            .log
            .line(|batch| batch.extend_from_slice(line));
        Ok(())
    }

    /// Wait for the end of the thread.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let mut test = self.0.get_or_raise()?.borrow_mut();
        test.watch.take();
        test.log.hand_over();
        let mut thread = test.thread.take();
        drop(test);
        gil::detached(py, || thread.stop());
        Ok(())
    }
}
