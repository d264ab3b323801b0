//! What a server tells of itself: readiness and metrics, read from the runtime segment.
//!
//! Whoever has the segment knows all workers, so any thread of any worker answers for the whole server, also while the loop
//! of its own worker is blocked. Nothing here touches Python.
//!
//! Numbers of requests are exact: they are counted as requests end. Those of `framegate_*` are published by each loop when it
//! answers its native thread, twice a second, and are as old while it is blocked.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use framegate_http::{
    admin::{Readiness, Report},
    exposition::{Exposition, Format, Kind},
};

use crate::{
    os::{monotonic_ns, resident_bytes},
    series::{self, BOUNDS, BUCKETS, Name, SERIES_COUNT, StatusLabel},
    stats::{Counter, Gauge, Phase, RowCopy, Segment, Whole},
    topic_metrics,
};

/// A worker whose native thread has not written for so long is dead, or stopped: six times as long as it takes.
const SILENT: Duration = Duration::from_secs(3);

/// What is known of a server, for operators.
pub(crate) struct ServerReport {
    segment: Arc<Segment>,
    /// A worker whose loop stands still for longer is not ready.
    lag_max: Duration,
    /// Topics that have metrics of their own.
    topics_max: usize,
    scrapes: AtomicU64,
}

impl ServerReport {
    /// Tells what this segment tells.
    pub(crate) fn new(segment: Arc<Segment>, lag_max: Duration, topics_max: usize) -> Self {
        Self {
            segment,
            lag_max,
            topics_max,
            scrapes: AtomicU64::new(0),
        }
    }

    /// Why a worker takes no requests; `None` if it does.
    fn hindrance(&self, row: &RowCopy, now: u64) -> Option<String> {
        let phase = row.gauge(Gauge::Phase);
        if phase == Phase::Starting as u64 {
            return Some("starting".to_owned());
        }
        if phase == Phase::Draining as u64 {
            return Some("draining".to_owned());
        }
        let beat = row.gauge(Gauge::HeartbeatNs);
        let silence = Duration::from_nanos(now.saturating_sub(beat));
        if beat != 0 && silence >= SILENT {
            return Some(format!("not running for {:.1} s", silence.as_secs_f64()));
        }
        let lag = Duration::from_nanos(row.gauge(Gauge::LoopLagNs));
        (lag >= self.lag_max)
            .then(|| format!("its loop stands still for {:.1} s", lag.as_secs_f64()))
    }
}

impl Report for ServerReport {
    /// Ready while one worker takes requests: what the others are not, their successors will be.
    fn readiness(&self) -> Readiness {
        let whole = self.segment.read_whole();
        let now = monotonic_ns();
        let mut parts = Vec::new();
        if whole.is_stopping() {
            parts.push((false, "the server is asked to stop".to_owned()));
        }
        let mut workers: Vec<&RowCopy> = whole.rows.iter().collect();
        workers.sort_by_key(|row| (row.gauge(Gauge::Place), row.gauge(Gauge::Generation)));
        for row in workers {
            let hindrance = self.hindrance(row, now);
            let (place, pid) = (row.gauge(Gauge::Place) + 1, row.gauge(Gauge::Pid));
            let what = hindrance.as_deref().unwrap_or("ready");
            parts.push((
                hindrance.is_none(),
                format!("worker {place} (pid {pid}): {what}"),
            ));
        }
        if parts.is_empty() {
            parts.push((false, "there is no worker".to_owned()));
        }
        let one_serves = parts.iter().any(|(is_good, _)| *is_good);
        Readiness {
            is_ready: one_serves && !whole.is_stopping(),
            parts,
        }
    }

    fn metrics(&self, format: Format) -> String {
        let mut exposition = Exposition::new(format);
        let whole = self.segment.read_whole();
        write_requests(&mut exposition, &whole);
        write_connections(&mut exposition, &whole);
        if let Some(waiting) = self.segment.waiting_requests() {
            let help = "Requests that wait because there are as many as --limit-requests allows.";
            let name = "framegate_requests_waiting";
            write(&mut exposition, name, Kind::Gauge, help, waiting);
        }
        write_server(&mut exposition, &whole);
        write_workers(&mut exposition, &whole, &|row| {
            self.hindrance(row, monotonic_ns()).is_none()
        });
        topic_metrics::write_routes(&mut exposition, &whole);
        topic_metrics::write_topics(&mut exposition, self.topics_max);
        // Relaxed: a count.
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        let help = "Times that this process was asked for metrics.";
        exposition
            .family("framegate_scrapes", Kind::Counter, help)
            .sample(&[("pid", &std::process::id())], scrapes);
        exposition.finish()
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

/// The status as a label.
fn status_text(status: StatusLabel) -> String {
    match status {
        StatusLabel::None => "none".to_owned(),
        StatusLabel::Code(code) => format!("{code}"),
        StatusLabel::Class(class) => format!("{class}xx"),
    }
}

/// A series that has counted something.
struct Counted {
    name: Name,
    words: [u64; series::SERIES_WORDS],
}

fn counted(whole: &Whole<'_>) -> Vec<Counted> {
    (0..SERIES_COUNT)
        .filter_map(|index| {
            let words = whole.series(index);
            let count: u64 = words[..BUCKETS].iter().sum();
            let name = Name::of(index, whole.key(index))?;
            (count > 0).then_some(Counted { name, words })
        })
        .collect()
}

fn write_requests(exposition: &mut Exposition, whole: &Whole<'_>) {
    let all = counted(whole);
    let help = "Requests that are over, by method and status; status none: the client left first.";
    let mut family = exposition.family("http_requests", Kind::Counter, help);
    for series in &all {
        let count: u64 = series.words[..BUCKETS].iter().sum();
        let status = status_text(series.name.status);
        family.sample(
            &[("method", &series.name.method), ("status", &status)],
            count,
        );
    }
    let help =
        "From the head of a request to the last byte of its response; of streams, to its head.";
    let mut family = exposition.family("http_request_duration_seconds", Kind::Histogram, help);
    let bounds = BOUNDS.map(|bound| bound.as_secs_f64());
    for series in &all {
        let status = status_text(series.name.status);
        family.histogram(
            &[("method", &series.name.method), ("status", &status)],
            &bounds,
            &series.words[..BUCKETS],
            seconds(series.words[BUCKETS]),
        );
    }
}

/// One sample without labels.
fn write(exposition: &mut Exposition, name: &str, kind: Kind, help: &str, value: impl Display) {
    exposition.family(name, kind, help).sample(&[], value);
}

fn write_connections(exposition: &mut Exposition, whole: &Whole<'_>) {
    use Kind::{Counter as Grows, Gauge as Varies};

    let sum = |gauge: Gauge| -> u64 { whole.rows.iter().map(|row| row.gauge(gauge)).sum() };
    let help = "Open connections.";
    write(
        exposition,
        "http_connections_active",
        Varies,
        help,
        sum(Gauge::Connections),
    );
    let help = "Requests that have begun and are not over.";
    write(
        exposition,
        "http_requests_in_flight",
        Varies,
        help,
        sum(Gauge::RequestsInFlight),
    );
    let help = "Bytes written to the sockets of clients, heads and TLS among them.";
    write(
        exposition,
        "http_bytes_sent",
        Grows,
        help,
        whole.counter(Counter::BytesSent),
    );
    let help = "Bytes read from the sockets of clients.";
    write(
        exposition,
        "http_bytes_received",
        Grows,
        help,
        whole.counter(Counter::BytesReceived),
    );
    let help = "Connections that were accepted.";
    write(
        exposition,
        "http_connections_accepted",
        Grows,
        help,
        whole.counter(Counter::Accepted),
    );
    let help = "WebSockets whose call of the application has not ended.";
    write(
        exposition,
        "framegate_websockets_open",
        Varies,
        help,
        sum(Gauge::WebSockets),
    );
    let help = "Open streams of HTTP/2.";
    write(
        exposition,
        "framegate_http2_streams_open",
        Varies,
        help,
        sum(Gauge::Streams),
    );
    let help = "Calls of the application that have not ended.";
    write(
        exposition,
        "framegate_application_calls",
        Varies,
        help,
        sum(Gauge::Calls),
    );
    let help = "Blocking handlers that run in threads.";
    let running = sum(Gauge::HandlersRunning);
    write(
        exposition,
        "framegate_handlers_running",
        Varies,
        help,
        running,
    );
    let help = "Blocking handlers that wait for a thread.";
    let waiting = sum(Gauge::HandlersWaiting);
    write(
        exposition,
        "framegate_handlers_waiting",
        Varies,
        help,
        waiting,
    );
}

fn write_server(exposition: &mut Exposition, whole: &Whole<'_>) {
    use Kind::{Counter as Grows, Gauge as Varies};

    let help = "The version, as a label.";
    exposition
        .family("framegate_build_info", Varies, help)
        .sample(&[("version", &env!("FRAMEGATE_VERSION"))], 1);
    let help = "When the server was started, in seconds of Unix time.";
    let started = seconds(whole.started_ns());
    write(
        exposition,
        "framegate_start_time_seconds",
        Varies,
        help,
        started,
    );
    let help = "Worker processes.";
    write(
        exposition,
        "framegate_workers",
        Varies,
        help,
        whole.rows.len(),
    );
    let help = "Workers that died and were started again.";
    write(
        exposition,
        "framegate_worker_restarts",
        Grows,
        help,
        whole.restarts(),
    );
    let help = "How often a loop stood still for longer than log_stalls.";
    let stalls = whole.counter(Counter::Stalls);
    write(
        exposition,
        "framegate_event_loop_stalls",
        Grows,
        help,
        stalls,
    );
    let help = "Lines of the access log that were dropped because its reader was too slow.";
    let dropped = whole.counter(Counter::LogLinesDropped);
    write(
        exposition,
        "framegate_log_lines_dropped",
        Grows,
        help,
        dropped,
    );
    let help = "Spans that a collector of OpenTelemetry has taken.";
    let taken = whole.counter(Counter::Spans);
    write(exposition, "framegate_spans_exported", Grows, help, taken);
    let help = "Spans that were lost on their way to a collector.";
    let lost = whole.counter(Counter::SpansDropped);
    write(exposition, "framegate_spans_dropped", Grows, help, lost);
    let help = "Time that loops waited for the GIL; of one wait in sixteen.";
    let waited = seconds(whole.counter(Counter::GilWaitNs));
    write(
        exposition,
        "framegate_gil_wait_seconds",
        Grows,
        help,
        waited,
    );
    let help = "Waits for the GIL that were measured, one in sixteen.";
    write(
        exposition,
        "framegate_gil_waits",
        Grows,
        help,
        whole.counter(Counter::GilWaits),
    );
    let help = "Blocking handlers that were refused because too many waited.";
    let refused = whole.counter(Counter::HandlersRefused);
    write(
        exposition,
        "framegate_handlers_refused",
        Grows,
        help,
        refused,
    );
    let help = "Request bodies that became frames, through Python or without it.";
    let mut family = exposition.family("framegate_ingested_frames", Grows, help);
    family.sample(&[("path", &"native")], whole.counter(Counter::FramesNative));
    family.sample(&[("path", &"python")], whole.counter(Counter::FramesPython));
}

fn write_workers(
    exposition: &mut Exposition,
    whole: &Whole<'_>,
    is_ready: &dyn Fn(&RowCopy) -> bool,
) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&RowCopy) -> Option<f64>| {
        let mut family = exposition.family(name, Kind::Gauge, help);
        for row in &whole.rows {
            let (place, pid) = (row.gauge(Gauge::Place) + 1, row.gauge(Gauge::Pid));
            if let Some(value) = value(row) {
                family.sample(&[("worker", &place), ("pid", &pid)], value);
            }
        }
    };
    let help = "1 while the worker takes requests.";
    each("framegate_worker_ready", help, &|row| {
        Some(f64::from(u8::from(is_ready(row))))
    });
    let help = "How long the loop takes to answer, or has not answered yet.";
    each("framegate_event_loop_lag_seconds", help, &|row| {
        Some(seconds(row.gauge(Gauge::LoopLagNs)))
    });
    let help = "Memory of the worker that is in RAM, shared pages among it.";
    each("framegate_worker_resident_memory_bytes", help, &|row| {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
        resident_bytes(row.gauge(Gauge::Pid)).map(|bytes| bytes as f64)
    });
}
