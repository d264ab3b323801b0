//! The thread that exports spans and metrics (`framegate-otlp`, one per worker), and what Python says of it
//! (`framegate/telemetry.py`).
//!
//! It has a tokio runtime of its own and never touches Python: looking up a name, a handshake or a collector that stands still
//! hold up neither the loop nor the native thread. The loop hands encoded spans over ([`Outlet`]); metrics are read from the worker's
//! row of the runtime segment.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use framegate_http::{
    otlp::{self, Metrics, Outlet, Settings, Target, TargetSettings, Transport},
    trace::{Sampler, Value},
};
use pyo3::{exceptions::PyValueError, prelude::*};
use tokio::sync::watch;

use crate::{
    event_loop::LoopCore,
    os::without_signals,
    series,
    stats::{Counter, Gauge, Row},
};

/// What the last messages get when the worker ends; `Config.last_words_seconds` counts with it.
const FLUSH: Duration = Duration::from_secs(2);
/// Between two complaints.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// What Python says.
pub(crate) struct Telemetry {
    settings: Settings,
    sampler: Sampler,
    counts_active: bool,
}

impl Telemetry {
    /// From a `framegate.telemetry.Telemetry`.
    pub(crate) fn read(about: &Bound<'_, PyAny>) -> PyResult<Self> {
        let seconds = |name: &str| -> PyResult<Duration> { duration(&about.getattr(name)?) };
        let target = |name: &str| -> PyResult<Option<Target>> {
            let target = about.getattr(name)?;
            (!target.is_none())
                .then(|| read_target(&target))
                .transpose()
        };
        let resource: Vec<(String, String)> = about.getattr("resource")?.extract()?;
        Ok(Self {
            settings: Settings {
                resource: resource
                    .into_iter()
                    .map(|(name, text)| (name, Value::Text(text)))
                    .collect(),
                version: env!("FRAMEGATE_VERSION").to_owned(),
                traces: target("traces")?,
                metrics: target("metrics")?,
                queue_max: about.getattr("queue_max")?.extract()?,
                batch_max: about.getattr("batch_max")?.extract()?,
                delay: seconds("delay")?,
                metrics_interval: seconds("metrics_interval")?,
                flush: FLUSH,
            },
            sampler: Sampler {
                is_parent_based: about.getattr("is_parent_based")?.is_truthy()?,
                ratio: about.getattr("ratio")?.extract()?,
            },
            counts_active: about.getattr("counts_active")?.is_truthy()?,
        })
    }

    /// Which requests become spans, if spans are exported.
    pub(crate) fn sampler(&self) -> Option<Sampler> {
        self.settings.traces.is_some().then_some(self.sampler)
    }

    /// Whether requests have to be counted for it.
    pub(crate) fn has_metrics(&self) -> bool {
        self.settings.metrics.is_some()
    }
}

fn duration(seconds: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds: f64 = seconds.extract()?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{seconds} is not a duration")))
}

fn read_target(target: &Bound<'_, PyAny>) -> PyResult<Target> {
    let settings = TargetSettings {
        transport: if target.getattr("is_grpc")?.is_truthy()? {
            Transport::Grpc
        } else {
            Transport::Http
        },
        url: target.getattr("url")?.extract()?,
        headers: target.getattr("headers")?.extract()?,
        timeout: duration(&target.getattr("timeout")?)?,
        certificates: target.getattr("certificates")?.extract()?,
        gzip: target.getattr("gzip")?.is_truthy()?,
        user_agent: concat!("framegate-otlp/", env!("FRAMEGATE_VERSION")).to_owned(),
    };
    Target::new(&settings).map_err(|text| PyValueError::new_err(format!("telemetry: {text}")))
}

/// The thread, seen from its worker. Dropping it lets the thread end by itself; [`stop`](Self::stop) waits for it.
pub(crate) struct Exporter {
    pub(crate) outlet: Arc<Outlet>,
    /// Dropped to ask the thread to end.
    stop: Option<watch::Sender<bool>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts the thread. `is_secure` says what the listeners speak.
    pub(crate) fn start(
        telemetry: Telemetry,
        row: Option<Arc<Row>>,
        is_secure: bool,
    ) -> io::Result<Self> {
        let Telemetry {
            mut settings,
            counts_active,
            ..
        } = telemetry;
        if row.is_none() {
            // There is nothing that could be read.
            settings.metrics = None;
        }
        let outlet = Outlet::new(&settings);
        let theirs = outlet.clone();
        let (stop, ending) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let start = SystemTime::now();
        let measure = move || Metrics {
            start,
            scheme: if is_secure { "https" } else { "http" },
            bounds: series::SEMANTIC_BOUNDS.to_vec(),
            durations: row.as_deref().map(series::durations).unwrap_or_default(),
            active: row
                .as_deref()
                .filter(|_| counts_active)
                .map(|row| row.gauge(Gauge::RequestsInFlight)),
        };
        let thread = without_signals(|| {
            thread::Builder::new()
                .name("framegate-otlp".to_owned())
                .spawn(move || {
                    // Large: it holds the states of both transports.
                    let export = otlp::export(&settings, &theirs, measure, ending);
                    runtime.block_on(Box::pin(export));
                    // A look-up of a name that hangs is left behind.
                    runtime.shutdown_background();
                })
        })?;
        Ok(Self {
            outlet,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Ends the thread, with everything exported if that takes no longer than [`FLUSH`]. Never call it attached to Python.
    pub(crate) fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // An error is a panic there, which has been printed.
            let _panicked = thread.join();
        }
    }
}

/// Says what has become of spans: to the row, and to Python's logging when some are lost.
pub(crate) struct Complaints {
    outlet: Arc<Outlet>,
    row: Option<Arc<Row>>,
    told: Cell<u64>,
    last: Cell<Option<Instant>>,
}

impl Complaints {
    pub(crate) fn new(outlet: Arc<Outlet>, row: Option<Arc<Row>>) -> Rc<Self> {
        Rc::new(Self {
            outlet,
            row,
            told: Cell::new(0),
            last: Cell::new(None),
        })
    }

    /// Publishes what has become of spans, and complains of what is new, now and then, or now; to be called on the loop's thread.
    pub(crate) fn tell(&self, core: &LoopCore, now: bool) {
        let (exported, dropped) = self.outlet.counts();
        if let Some(row) = &self.row {
            row.count(Counter::Spans, exported);
            row.count(Counter::SpansDropped, dropped);
        }
        let last = self.last.get();
        if !now && last.is_some_and(|last| last.elapsed() < COMPLAINT_PAUSE) {
            return;
        }
        let trouble = self.outlet.take_trouble();
        let lost = dropped - self.told.replace(dropped);
        let text = match (lost, trouble) {
            (0, None) => return,
            (0, Some(trouble)) => format!("telemetry: {trouble}"),
            (lost, None) => {
                format!("telemetry: {lost} spans are lost, there were too many at once")
            }
            (lost, Some(trouble)) => format!("telemetry: {lost} spans are lost: {trouble}"),
        };
        self.last.set(Some(Instant::now()));
        Python::attach(|py| {
            let failure = "a loss of spans could not be logged";
            core.log(py, "framegate", "warning", &text, failure);
            core.after_python(py);
        });
    }
}
