//! `Worker`: the HTTP server of one event loop, as Python sees it.
//!
//! A worker belongs to the loop and thread it was made on and owns nothing global, so that a process may have as many as it
//! has loops. It is made inside the running loop, after the application's startup, because it captures the current context:
//! every request starts from a copy of it.
#![expect(
    unsafe_code,
    reason = "a file descriptor given by Python becomes a listener here"
)]

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use framegate_http::{
    Config, Connections, Limits, Listener, Protocol, Server, Timeouts,
    access_log::{Format, Item, Lines, Piece},
    admin::{self, Report},
    edge::{self, Family, Trust},
    otlp::SpanSink,
    record::RecordSink,
    routes::Routes,
    service::{Entry, Service},
    trace::Tracer,
};
use http::HeaderMap;
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    intern,
    prelude::*,
    types::PyDict,
};

use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::accept_errors;
use crate::asgi::{Application, AsgiService};
use crate::compression;
use crate::diagnostics::{Diagnostics, DiagnosticsElsewhere};
use crate::error::os_error;
use crate::event_loop::LoopCore;
use crate::events::{EventQueue, EventSink, EventsElsewhere};
use crate::gil;
use crate::home::LoopBound;
use crate::limits;
use crate::live;
use crate::log_file::LogFile;
use crate::metrics::ServerReport;
use crate::native::{AccessLog, Excluded, LoopWatch, NativeThread, Watches, given};
use crate::os::{self, OwnedSocket};
use crate::series::RequestCounts;
use crate::settings::{seconds, seconds_or_off};
use crate::slow::{SlowElsewhere, SlowRequests};
use crate::stall::{ParentWatch, StallWatch};
use crate::static_files;
use crate::stats::{Counter, Gauge, Phase, Row, RuntimeRow};
use crate::telemetry::{Complaints, Exporter, Telemetry};
use crate::tls::{self, TlsContext};
use crate::topics::{self, Topics};
use crate::tracing::Tracing;

/// Where the access log goes, by name.
const STANDARD: [(&str, i32); 2] = [("stdout", 1), ("stderr", 2)];
/// Between two complaints about the access log.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);
/// What calls of the application get to end by themselves after their connection was cut, and again when they are cancelled.
const NOTICE: Duration = Duration::from_millis(250);

/// HTTP server of one event loop.
///
/// Args:
///     app: The ASGI application.
///     config: Settings by attribute, for instance `framegate.Config`.
///     state: The lifespan's state; each request gets a shallow copy. `None`: scopes have no state.
///     tls: Certificates and keys, for listeners that speak TLS or redirect to it.
///     `https_port`: Where redirects lead to.
///     row: The worker's row of the runtime segment; heartbeats and counters go there.
///     stalls: Seconds after which a loop that does not turn is told of, the socket where, and the signal of `faulthandler`
///         or 0 (`framegate/stalls.py`).
///     parent: Process id of the supervisor, and the seconds after its death in which the process has to have ended.
///     `log_fd`: Where the access log goes, as JSON; it is duplicated. `None`: where and as the settings say.
///     number: The worker's number, from 1 on, if it is one of several.
///     events: What happens to connections and requests goes there.
///     telemetry: What is exported to OpenTelemetry, and where to (`framegate/telemetry.py`).
///     `plain_tasks`: Each request gets an ordinary task from its start, as on interpreters where the lazy one is not
///         proven. Slower; for tests and for comparison.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct Worker(LoopBound<RefCell<Option<Rc<Inner>>>>);

struct Inner {
    core: Rc<LoopCore>,
    application: Rc<Application>,
    server: Server,
    connections: Connections,
    native: RefCell<Option<Native>>,
    /// What is told to Python beside the application.
    watchers: RefCell<Watchers>,
    topics: Option<Topics>,
    row: Option<Arc<Row>>,
    has_tls: bool,
}

/// Who looks at requests beside the access log.
#[derive(Default)]
struct Watchers {
    slow: Option<Rc<SlowRequests>>,
    events: Option<Rc<EventSink>>,
    diagnostics: Option<Rc<Diagnostics>>,
    telemetry: Option<Exporting>,
}

impl Watchers {
    /// Tells what is left to tell.
    fn stop(&mut self, py: Python<'_>, core: &LoopCore) {
        if let Some(slow) = &self.slow {
            slow.report(py);
        }
        if let Some(diagnostics) = &self.diagnostics {
            diagnostics.report(py);
        }
        if let Some(events) = &self.events {
            let closing = events.closing();
            gil::detached(py, || EventSink::finish(&closing));
        }
        if let Some((exporter, complaints)) = &mut self.telemetry {
            gil::detached(py, || exporter.stop());
            complaints.tell(core, true);
        }
    }
}

/// The native thread and what it has on the loop.
struct Native {
    thread: NativeThread,
    watch: LoopWatch,
    log: Option<Rc<AccessLog>>,
}

impl Native {
    /// Ends the thread, with the last lines of the log written.
    fn stop(self, py: Python<'_>) {
        let Self {
            mut thread,
            watch,
            log,
        } = self;
        drop(watch);
        if let Some(log) = log {
            log.hand_over();
        }
        gil::detached(py, || thread.stop());
    }
}

#[pymethods]
impl Worker {
    #[new]
    #[expect(
        clippy::too_many_arguments,
        clippy::too_many_lines,
        reason = "keywords in Python, and what each of them sets up"
    )]
    #[pyo3(signature = (app, config, *, state=None, tls=None, https_port=443, row=None, stalls=None, parent=None, log_fd=None, number=None, events=None, telemetry=None, plain_tasks=false))]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        config: &Bound<'_, PyAny>,
        state: Option<Py<PyDict>>,
        tls: Option<&Bound<'_, TlsContext>>,
        https_port: u16,
        row: Option<&Bound<'_, RuntimeRow>>,
        stalls: Option<(f64, i32, i32)>,
        parent: Option<(i32, f64)>,
        log_fd: Option<i32>,
        number: Option<u32>,
        events: Option<&Bound<'_, EventQueue>>,
        telemetry: Option<&Bound<'_, PyAny>>,
        plain_tasks: bool,
    ) -> PyResult<Self> {
        let core = LoopCore::current().ok_or_else(|| {
            PyRuntimeError::new_err(
                "a Worker is made inside a running framegate event loop: use \
                 asyncio.Runner(loop_factory=framegate.new_event_loop)",
            )
        })?;
        let limits = limits::limits(config, row.map(|row| &row.get().0))?;
        let main_config = Rc::new(server_config(config, limits.clone())?);
        let telemetry = telemetry.map(Telemetry::read).transpose()?;
        let tracing = telemetry.as_ref().and_then(Telemetry::sampler);
        let tracing = tracing.map(|_| Tracing::new(py)).transpose()?;
        let application =
            Application::new(py, core.clone(), app, config, state, plain_tasks, tracing)?;
        let mut added = HeaderMap::new();
        application.settings.add_headers(&mut added, false);
        let service = Rc::new(AsgiService(application.clone()));
        let service = compression::around(service, config)?;
        let service = static_files::in_front_of(service, config, &added, &core)?;
        let service = live::in_front_of(service, config, &added, &core)?;
        let sockets = application.handlers.sockets();
        let row = row.map(|row| Arc::clone(&row.get().0));
        if let Some(row) = &row {
            application.handlers.count_in(row);
        }
        let (service, topics) = topics::in_front_of(service, config, &core, sockets, row.as_ref())?;
        if let Some(topics) = &topics {
            application.handlers.share(topics);
        }
        let spawner = core.clone();
        let mut server = Server::new(
            with_operators(service, config, row.as_ref())?,
            main_config,
            move |task| {
                spawner.spawn(task);
            },
        )
        .with_accept_errors(accept_errors::report(core.clone()));
        if let Some(tls) = tls {
            server = server.with_tls(tls.get().tls(), https_port, tls::report(core.clone()));
        }
        let sampler = telemetry.as_ref().and_then(Telemetry::sampler);
        let is_measured = telemetry.as_ref().is_some_and(Telemetry::has_metrics);
        let (mut server, telemetry) =
            with_telemetry(server, telemetry, row.as_ref(), tls.is_some())?;
        let connections = server.connections();
        let is_logged = config.getattr("access_log")?.is_truthy()?;
        let watches = watches(stalls, parent)?;
        let is_watched = row.is_some() || watches.is_some() || telemetry.is_some();
        let mut frames = match &topics {
            None => None,
            Some(_) => Some(topics::Setup {
                config: server_config(config, limits)?,
                tls: tls.map(|tls| tls.get().tls()),
                admitted: server.admitted(),
                sinks: Vec::new(),
                spans: sampler.zip(
                    telemetry
                        .as_ref()
                        .map(|(exporter, _)| exporter.outlet.clone()),
                ),
                has_timing: config.getattr("server_timing")?.is_truthy()?,
            }),
        };
        let native = if is_logged || is_watched {
            let output = is_logged.then(|| log_file(config, log_fd)).transpose()?;
            let watches = watches.unwrap_or_default();
            let thread = NativeThread::start(row.clone(), output, watches).map_err(os_error)?;
            let log = if is_logged {
                // Whoever gives a descriptor reads it with a program.
                let lines = || -> PyResult<(Lines, Excluded)> {
                    let format = match log_fd {
                        Some(_) => Format::Json,
                        None => log_format(config)?,
                    };
                    let excluded = config.getattr("access_log_exclude")?.extract()?;
                    Ok((Lines::new(format, number), Excluded::new(excluded)))
                };
                if let Some(frames) = &mut frames {
                    let (lines, excluded) = lines()?;
                    let log = thread.access_log_elsewhere(lines, excluded);
                    frames.sinks.push(Box::new(|_| Rc::new(log)));
                }
                let (lines, excluded) = lines()?;
                let log = thread.access_log(&core, lines, excluded);
                server = server.with_records(log.clone());
                Some(log)
            } else {
                None
            };
            if let Some(row) = &row
                && (is_measured || has_metrics(config)?)
            {
                let counts = || RequestCounts::new(row.clone(), topics.is_some());
                if let Some(frames) = &mut frames {
                    let counts = counts();
                    frames.sinks.push(Box::new(|_| Rc::new(counts)));
                }
                server = server.with_records(Rc::new(counts()));
                gil::measure_waits();
            }
            let (counted, published) = (connections.clone(), log.clone());
            let complain = complaints(&core, thread.log_troubles());
            let served = Rc::downgrade(&application);
            let spans = telemetry.as_ref().map(|(_, complaints)| complaints.clone());
            let theirs = core.clone();
            let elsewhere = topics.as_ref().and_then(Topics::counts);
            let watch = thread.watch_loop(&core, move |row| {
                publish(row, &counted, elsewhere.as_deref());
                if let Some(application) = served.upgrade() {
                    publish_application(row, &application);
                }
                if let Some(log) = &published {
                    log.publish(row);
                    complain();
                }
                if let Some(spans) = &spans {
                    spans.tell(&theirs, false);
                }
            });
            Some(Native { thread, watch, log })
        } else {
            None
        };
        let mut watchers = Watchers {
            telemetry,
            ..Watchers::default()
        };
        if let Some(limit) = seconds_or_off(config, "slow_request")? {
            let slow = SlowRequests::new(&core, limit, number);
            server = server.with_records(slow.clone());
            watchers.slow = Some(slow);
            if let Some(frames) = &mut frames {
                let make = move |says| -> Rc<dyn RecordSink> {
                    Rc::new(SlowElsewhere::new(limit, number, says))
                };
                frames.sinks.push(Box::new(make));
            }
        }
        if let Some(queue) = events {
            let sink = EventSink::new(queue.get(), &core);
            server = server.with_records(sink.clone());
            watchers.events = Some(sink);
            if let Some(frames) = &mut frames {
                let sink = EventsElsewhere::new(queue.get());
                frames.sinks.push(Box::new(|_| Rc::new(sink)));
            }
        }
        if let Some(diagnostics) = Diagnostics::new(py, &core)? {
            server = server.with_records(diagnostics.clone());
            watchers.diagnostics = Some(diagnostics);
            if let Some(frames) = &mut frames {
                let make =
                    |says| -> Rc<dyn RecordSink> { Rc::new(DiagnosticsElsewhere::new(says)) };
                frames.sinks.push(Box::new(make));
            }
        }
        if config.getattr("server_timing")?.is_truthy()? {
            server = server.with_server_timing();
        }
        if let (Some(topics), Some(setup)) = (&topics, frames) {
            let hearers = topics::Hearers {
                slow: watchers.slow.clone(),
                diagnostics: watchers.diagnostics.clone(),
            };
            topics.start(config, &core, setup, hearers)?;
        }
        Ok(Self(LoopBound::new(RefCell::new(Some(Rc::new(Inner {
            core,
            application,
            connections,
            server,
            native: RefCell::new(native),
            watchers: RefCell::new(watchers),
            topics,
            row,
            has_tls: tls.is_some(),
        }))))))
    }

    /// Accept connections from a socket that is bound and listens.
    ///
    /// Args:
    ///     fd: File descriptor of a TCP or Unix socket. The worker owns it from here on, also when this fails:
    ///         give it `socket.detach()` or `os.dup(...)`.
    ///     entry: What is spoken there: `plain` HTTP, HTTP over `tls`, or a `redirect` to https.
    ///     proxied: Whether connections begin with a header of the PROXY protocol.
    ///     topics: Whether frame routes are served there, and nothing else, on the thread that never waits for Python.
    ///
    /// Raises:
    ///     `OSError`: It is no socket, or cannot be used.
    ///     `ValueError`: The socket does not listen, or is of another kind, or there are no certificates.
    #[pyo3(signature = (fd, *, entry="plain", proxied=false, topics=false))]
    fn listen(&self, fd: i32, entry: &str, proxied: bool, topics: bool) -> PyResult<()> {
        let inner = self.inner()?;
        // SAFETY: the caller's to give away, as the documentation demands.
        let socket = unsafe { given(fd) }?;
        let entry = match entry {
            "plain" => Entry::Plain,
            "tls" | "redirect" if !inner.has_tls => {
                return Err(PyValueError::new_err("this worker has no certificates"));
            }
            "tls" => Entry::Tls,
            "redirect" => Entry::Redirect,
            _ => return Err(PyValueError::new_err(format!("no such entry: {entry}"))),
        };
        let listener = listener(socket)?;
        if topics {
            let frames = inner.topics.as_ref();
            if !frames.is_some_and(|frames| frames.listen(listener, entry, proxied)) {
                return Err(PyRuntimeError::new_err(
                    "cannot listen: this worker has no frame routes (the setting topics)",
                ));
            }
            return Ok(());
        }
        let _context = inner.core.enter();
        let server = &inner.server;
        let listening = if proxied {
            server.listen_proxied(entry, listener)
        } else {
            server.listen_as(entry, listener)
        };
        listening.map_err(|error| PyRuntimeError::new_err(format!("cannot listen: {error}")))?;
        inner.set_phase(Phase::Ready);
        Ok(())
    }

    /// Read all certificates and keys anew; the outcome is logged. Open connections go on as they began.
    fn reload_tls(&self) -> PyResult<()> {
        let inner = self.0.get_or_raise()?.borrow().clone();
        if let Some(inner) = inner {
            inner.server.reload_tls();
            if let Some(topics) = &inner.topics {
                topics.reload_tls();
            }
        }
        Ok(())
    }

    /// Read the tokens of frame routes anew.
    ///
    /// Raises:
    ///     `framegate.errors.ConfigError`: They are not as they should be; the old ones stay.
    fn reload_topic_tokens(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.0.get_or_raise()?.borrow().clone();
        match inner.as_ref().and_then(|inner| inner.topics.as_ref()) {
            Some(topics) => topics.reload_tokens(py),
            None => Ok(()),
        }
    }

    /// Open the file of the access log anew: whoever rotates logs has moved the old one. Soon, by the native thread.
    fn reopen_log(&self) -> PyResult<()> {
        if let Some(inner) = &*self.0.get_or_raise()?.borrow()
            && let Some(native) = &*inner.native.borrow()
        {
            native.thread.reopen_log();
        }
        Ok(())
    }

    /// Stop accepting; open connections go on.
    fn stop_accepting(&self) -> PyResult<()> {
        if let Some(inner) = &*self.0.get_or_raise()?.borrow() {
            inner.connections.stop_accepting();
            if let Some(topics) = &inner.topics {
                topics.stop_accepting();
            }
            inner.set_phase(Phase::Draining);
        }
        Ok(())
    }

    /// Stop accepting, end all connections, each after the response it is sending, and wait for calls of the
    /// application that go on after their response (background tasks). After half of the time `receive()` says
    /// `http.disconnect` to streams; at the end calls that have not ended are cancelled.
    ///
    /// Args:
    ///     seconds: After that long the rest is cut.
    ///     `idle_seconds`: Connections without a request stay open for that long, and may send one more: for a worker whose
    ///         successor accepts already. At most `seconds`.
    ///
    /// Returns:
    ///     An awaitable of how many were cut: connections, or calls where those were more (HTTP/2, background tasks).
    #[pyo3(signature = (seconds, *, idle_seconds=0.0))]
    fn drain<'py>(
        &self,
        py: Python<'py>,
        seconds: f64,
        idle_seconds: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.0.get_or_raise()?.borrow().clone();
        let duration = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| PyValueError::new_err(format!("{seconds} is not a duration")))
        };
        let (deadline, idle) = (duration(seconds)?, duration(idle_seconds)?);
        let Some(inner) = inner else {
            // Closed: nothing is left to wait for.
            let future = py
                .import("asyncio")?
                .call_method0("get_running_loop")?
                .call_method0(intern!(py, "create_future"))?;
            set_result(&future, 0)?;
            return Ok(future);
        };
        let application = inner.application.clone();
        let future = application
            .starter
            .event_loop
            .bind(py)
            .call_method0(intern!(py, "create_future"))?;
        let (connections, core) = (inner.connections.clone(), inner.core.clone());
        let result = future.clone().unbind();
        let topics = inner.topics.as_ref();
        let elsewhere = topics.and_then(|topics| topics.drain(deadline, idle));
        inner.core.spawn(async move {
            let here = drain(&core, &connections, &application, deadline, idle);
            let cut = match elsewhere {
                Some(elsewhere) => {
                    let (here, there) = tokio::join!(here, elsewhere);
                    here + there
                }
                None => here.await,
            };
            Python::attach(|py| {
                if let Err(error) = set_result(result.bind(py), cut) {
                    core.report(py, "the result of Worker.drain() could not be set", error);
                }
                core.after_python(py);
            });
        });
        Ok(future)
    }

    /// Stop accepting, cut all connections and end the native thread. Where connections are open, that is done when the
    /// loop has run once more. May be called again.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        // Let go of everything here, on the loop's thread: the object may outlive it, and then nobody else could.
        let Some(inner) = self.0.get_or_raise()?.take() else {
            return Ok(());
        };
        inner.connections.stop_accepting();
        inner.application.clear_pool(py);
        inner.application.publishers.clear();
        inner.application.handlers.clear(py);
        if let Some(topics) = &inner.topics {
            topics.clear(py);
        }
        let native = inner.native.take();
        let mut watchers = inner.watchers.take();
        if inner.connections.count() == 0 {
            watchers.stop(py, &inner.core);
            if let Some(native) = native {
                native.stop(py);
            }
            return Ok(());
        }
        let (connections, core) = (inner.connections.clone(), inner.core.clone());
        inner.core.spawn(async move {
            connections.drain(Duration::ZERO).await;
            Python::attach(|py| {
                watchers.stop(py, &core);
                if let Some(native) = native {
                    native.stop(py);
                }
            });
        });
        Ok(())
    }

    /// Open connections.
    #[getter]
    fn connections(&self) -> PyResult<usize> {
        Ok(self.inner()?.connections.count())
    }

    /// Idle connections that hold no buffers.
    #[getter]
    fn parked(&self) -> PyResult<usize> {
        Ok(self.inner()?.connections.parked())
    }

    /// Connections accepted since the start.
    #[getter]
    fn accepted(&self) -> PyResult<u64> {
        Ok(self.inner()?.connections.accepted())
    }

    /// Requests since the start.
    #[getter]
    fn requests(&self) -> PyResult<u64> {
        Ok(self.inner()?.connections.requests())
    }

    /// Request bodies that became frames without Python, and those that went through it.
    #[getter]
    fn ingested(&self) -> PyResult<(u64, u64)> {
        Ok(self.inner()?.application.ingested())
    }

    /// Whether requests start without a task of their own.
    #[getter]
    fn lazy_tasks(&self) -> PyResult<bool> {
        Ok(self.inner()?.application.starter.mode.is_lazy())
    }
}

impl Inner {
    fn set_phase(&self, phase: Phase) {
        if let Some(row) = &self.row {
            row.set(Gauge::Phase, phase as u64);
        }
    }
}

/// What the loop tells of itself when it answers the native thread.
fn publish(row: &Row, connections: &Connections, elsewhere: Option<&topics::Counts>) {
    let more = |count: fn(&topics::Counts) -> &AtomicU64| {
        // Relaxed: each stands for itself.
        elsewhere.map_or(0, |counts| count(counts).load(Ordering::Relaxed))
    };
    let count = connections.count() as u64;
    row.set(Gauge::Connections, count + more(|it| &it.connections));
    let streams = connections.streams() as u64;
    row.set(Gauge::Streams, streams + more(|it| &it.streams));
    let requests = connections.requests();
    row.count(Counter::Requests, requests + more(|it| &it.requests));
    let accepted = connections.accepted();
    row.count(Counter::Accepted, accepted + more(|it| &it.accepted));
    let sent = connections.bytes_out();
    row.count(Counter::BytesSent, sent + more(|it| &it.bytes_out));
    let received = connections.bytes_in();
    row.count(Counter::BytesReceived, received + more(|it| &it.bytes_in));
    let (measured, waited_ns) = gil::measured_waits();
    row.count(Counter::GilWaits, measured);
    row.count(Counter::GilWaitNs, waited_ns);
}

fn publish_application(row: &Row, application: &Application) {
    row.set(Gauge::WebSockets, application.websockets() as u64);
    row.set(Gauge::Calls, application.calls() as u64);
    let (native, python) = application.ingested();
    row.count(Counter::FramesNative, native);
    row.count(Counter::FramesPython, python);
    if let Some(handlers) = application.blocking_handlers() {
        row.set(Gauge::HandlersRunning, handlers.running());
        row.set(Gauge::HandlersWaiting, handlers.waiting());
        row.count(Counter::HandlersRefused, handlers.refused());
    }
}

/// What exports spans and metrics, and what tells how that goes.
type Exporting = (Exporter, Rc<Complaints>);

/// The server with spans, and what exports them.
fn with_telemetry(
    server: Server,
    telemetry: Option<Telemetry>,
    row: Option<&Arc<Row>>,
    is_secure: bool,
) -> PyResult<(Server, Option<Exporting>)> {
    let Some(telemetry) = telemetry else {
        return Ok((server, None));
    };
    let sampler = telemetry.sampler();
    let exporter = Exporter::start(telemetry, row.cloned(), is_secure).map_err(os_error)?;
    let complaints = Complaints::new(exporter.outlet.clone(), row.cloned());
    let server = match sampler {
        Some(sampler) => server
            .with_tracer(Tracer::new(sampler))
            .with_records(SpanSink::new(exporter.outlet.clone())),
        None => server,
    };
    Ok((server, Some((exporter, complaints))))
}

/// Whether somebody may ask for metrics.
fn has_metrics(config: &Bound<'_, PyAny>) -> PyResult<bool> {
    config.getattr("has_metrics")?.is_truthy()
}

/// The application behind the paths that operators ask on its own listeners, if there are any.
fn with_operators(
    application: Rc<dyn Service>,
    config: &Bound<'_, PyAny>,
    row: Option<&Arc<Row>>,
) -> PyResult<Rc<dyn Service>> {
    let path = |name: &str| config.getattr(name)?.extract::<Option<String>>();
    let (health, metrics) = (path("health_path")?, path("metrics_path")?);
    let Some(row) = row.filter(|_| health.is_some() || metrics.is_some()) else {
        return Ok(application);
    };
    let lag_max = seconds(config, "ready_lag_max")?;
    let segment = Arc::clone(row.segment());
    let topics_max = config.getattr("metrics_topics")?.extract()?;
    let report: Rc<dyn Report> = Rc::new(ServerReport::new(segment, lag_max, topics_max));
    let mut routes = Routes::new(application);
    if let Some(path) = health {
        routes = routes.exact(path, admin::ready(report.clone()));
    }
    if let Some(path) = metrics {
        routes = routes.exact(path, admin::metrics(report));
    }
    Ok(Rc::new(routes))
}

/// What [`Worker::drain`] does; gives what was cut.
async fn drain(
    core: &LoopCore,
    connections: &Connections,
    application: &Application,
    deadline: Duration,
    idle: Duration,
) -> usize {
    let start = Instant::now();
    let end = start + deadline;
    let drained = async {
        if !idle.is_zero() {
            connections.retire(idle.min(deadline)).await;
        }
        connections.drain(end - Instant::now()).await
    };
    let told = async {
        sleep_until(start + deadline / 2).await;
        Python::attach(|py| {
            if let Err(error) = application.leave(py) {
                core.report(
                    py,
                    "requests could not be told that the worker stops",
                    error,
                );
            }
            core.after_python(py);
        });
        std::future::pending().await
    };
    let cut = tokio::select! {
        biased;
        cut = drained => cut,
        cut = told => cut,
    };
    // A cut connection ends its call soon: the application has its turn to notice.
    if timeout_at(end, application.no_calls()).await.is_ok() {
        return cut;
    }
    let left = application.calls().saturating_sub(cut);
    if timeout(NOTICE, application.no_calls()).await.is_err() {
        Python::attach(|py| {
            if let Err(error) = application.cancel_calls(py) {
                core.report(py, "requests could not be cancelled", error);
            }
            core.after_python(py);
        });
        // Whoever swallows the cancellation is left behind.
        let _ended = timeout(NOTICE, application.no_calls()).await;
    }
    cut + left
}

impl Worker {
    fn inner(&self) -> PyResult<Rc<Inner>> {
        let inner = self.0.get_or_raise()?.borrow().clone();
        inner.ok_or_else(|| PyRuntimeError::new_err("this worker is closed"))
    }
}

/// What the native thread shall look after, if anything.
fn watches(
    stalls: Option<(f64, i32, i32)>,
    parent: Option<(i32, f64)>,
) -> PyResult<Option<Watches>> {
    if stalls.is_none() && parent.is_none() {
        return Ok(None);
    }
    let seconds = |value: f64| {
        Duration::try_from_secs_f64(value)
            .map_err(|_| PyValueError::new_err(format!("{value} is not a duration")))
    };
    let stall = match stalls {
        Some((after, fd, signal)) => {
            let channel = os::duplicate(fd).map_err(os_error)?;
            Some(StallWatch::new(seconds(after)?, channel, signal))
        }
        None => None,
    };
    let parent = match parent {
        Some((pid, patience)) => Some(ParentWatch::new(pid, seconds(patience)?)),
        None => None,
    };
    Ok(Some(Watches { stall, parent }))
}

/// Where the access log goes.
fn log_file(config: &Bound<'_, PyAny>, log_fd: Option<i32>) -> PyResult<LogFile> {
    let name: String = config.getattr("access_log_file")?.extract()?;
    let standard = STANDARD.iter().find(|(known, _)| *known == name);
    match log_fd.or(standard.map(|(_, fd)| *fd)) {
        Some(fd) => os::duplicate_file(config.py(), fd).map(LogFile::inherited),
        None => LogFile::open(name.into()),
    }
    .map_err(os_error)
}

/// How its lines look.
pub(crate) fn log_format(config: &Bound<'_, PyAny>) -> PyResult<Format> {
    let form = config.getattr("access_log_form")?;
    if let Ok(name) = form.extract::<String>() {
        return Ok(if name == "json" {
            Format::Json
        } else {
            Format::Text
        });
    }
    let parts: Vec<(String, String)> = form.extract()?;
    let pieces = parts.into_iter().map(|(kind, value)| {
        let unknown = || PyValueError::new_err(format!("access_log_format: {kind} {value:?}"));
        let name = || value.parse().map_err(|_| unknown());
        Ok(match &*kind {
            "literal" => Piece::Literal(value),
            "request_field" => Piece::RequestField(name()?),
            "response_field" => Piece::ResponseField(name()?),
            _ => Piece::Item(Item::named(&kind).ok_or_else(unknown)?),
        })
    });
    Ok(Format::Pieces(pieces.collect::<PyResult<_>>()?))
}

/// Tells Python's logging of lines that the access log has lost, now and then; to be called on the loop's thread.
fn complaints(
    core: &Rc<LoopCore>,
    troubles: impl Fn() -> (u64, u64) + 'static,
) -> impl Fn() + 'static {
    let core = Rc::clone(core);
    let told = Cell::new((0, 0));
    let last = Cell::new(None::<Instant>);
    move || {
        let found = troubles();
        let (lost, failed) = told.get();
        let is_due = last
            .get()
            .is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE);
        if found == (lost, failed) || !is_due {
            return;
        }
        last.set(Some(Instant::now()));
        told.set(found);
        Python::attach(|py| {
            let complain = |text: String| -> PyResult<()> {
                let logging = py.import("logging")?;
                let logger = logging.call_method1("getLogger", ("framegate",))?;
                logger.call_method1("warning", ("%s", text))?;
                Ok(())
            };
            let mut outcome = Ok(());
            if found.0 > lost {
                outcome = complain(format!(
                    "{} lines of the access log were lost: nobody reads it, or the disk is full",
                    found.0 - lost
                ));
            }
            if found.1 > failed {
                outcome = outcome.and_then(|()| {
                    complain(
                        "the access log cannot be opened anew, the old file goes on".to_owned(),
                    )
                });
            }
            if let Err(error) = outcome {
                core.report(py, "a loss of the access log could not be logged", error);
            }
            core.after_python(py);
        });
    }
}

fn set_result(future: &Bound<'_, PyAny>, value: usize) -> PyResult<()> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (value,))?;
    }
    Ok(())
}

/// The part of the settings that the HTTP core needs.
fn server_config(config: &Bound<'_, PyAny>, limits: Option<edge::Limits>) -> PyResult<Config> {
    let seconds = |name| seconds(config, name);
    let streams_max: u32 = config.getattr("http2_max_concurrent_streams")?.extract()?;
    Ok(Config {
        limits: Limits {
            head_bytes_max: config.getattr("header_bytes_max")?.extract()?,
            header_count_max: config.getattr("header_count_max")?.extract()?,
            streams_max,
            handlers_max: streams_max as usize * 2,
            stream_window_bytes: config
                .getattr("http2_initial_stream_window_size")?
                .extract()?,
            connection_window_bytes: config
                .getattr("http2_initial_connection_window_size")?
                .extract()?,
            handshakes_max: config.getattr("ssl_handshakes_max")?.extract()?,
            target_bytes_max: config.getattr("target_bytes_max")?.extract()?,
            body_bytes_max: config.getattr("max_body")?.extract()?,
            body_rate_min: config.getattr("body_rate_min")?.extract()?,
            connections_max: config.getattr("limit_concurrency")?.extract()?,
            connection_requests_max: config.getattr("keep_alive_max_requests")?.extract()?,
            ..Limits::default()
        },
        timeouts: Timeouts {
            head: seconds("timeout_header")?,
            handshake: seconds("ssl_handshake_timeout")?,
            body: seconds("timeout_body")?,
            write: seconds("timeout_write")?,
            half_close: seconds("timeout_half_close")?,
            idle: seconds("timeout_keep_alive")?,
            ping_after: Some(seconds("http2_keep_alive_interval")?),
            ping_answer: seconds("http2_keep_alive_interval")?,
            linger: seconds("timeout_linger")?,
            ..Timeouts::default()
        },
        protocol: protocol(&config.getattr("http")?)?,
        date_header: config.getattr("date_header")?.is_truthy()?,
        receive_watermark: os::RECEIVE_WATERMARK,
        send_file: os::SEND_FILE,
        unacknowledged: os::UNACKNOWLEDGED,
        unsent_watermark: os::UNSENT_WATERMARK,
        give_back: os::GIVE_BACK,
        edge: edge_settings(config, limits)?,
    })
}

/// What concerns proxies and names of requests.
fn edge_settings(
    config: &Bound<'_, PyAny>,
    limits: Option<edge::Limits>,
) -> PyResult<edge::Settings> {
    let peers: Vec<String> = config.getattr("forwarded_allow_ips")?.extract()?;
    Ok(edge::Settings {
        trust: Trust::of(peers.iter().map(String::as_str))
            .map_err(|error| PyValueError::new_err(error.to_string()))?,
        family: match config.getattr("forwarded_headers")?.extract()? {
            "auto" => Family::Auto,
            "x-forwarded" => Family::XForwarded,
            "forwarded" => Family::Forwarded,
            other => {
                return Err(PyValueError::new_err(format!(
                    "forwarded_headers={other:?} is none of auto, x-forwarded and forwarded"
                )));
            }
        },
        // What `local_clients.py` looks at.
        keeps_claims: config.getattr("debug")?.is_truthy()?
            || config.getattr("reload")?.is_truthy()?,
        request_ids: config.getattr("request_id")?.is_truthy()?,
        limits,
    })
}

/// The setting `http`.
fn protocol(setting: &Bound<'_, PyAny>) -> PyResult<Protocol> {
    match setting.extract()? {
        "auto" => Ok(Protocol::Sniff),
        "1" => Ok(Protocol::Http1),
        "2" => Ok(Protocol::Http2),
        other => Err(PyValueError::new_err(format!(
            "http={other:?} is none of auto, 1 and 2"
        ))),
    }
}

pub(crate) fn listener(socket: OwnedSocket) -> PyResult<Listener> {
    if !os::is_stream(&socket).map_err(os_error)? {
        return Err(PyValueError::new_err("not a stream socket"));
    }
    if !os::is_listening(&socket).map_err(os_error)? {
        return Err(PyValueError::new_err(
            "the socket does not listen: call listen() on it first",
        ));
    }
    os::listener_of(socket)
        .map_err(os_error)?
        .map_err(|family| {
            PyValueError::new_err(format!("sockets of address family {family} are not served"))
        })
}
