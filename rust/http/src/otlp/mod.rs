//! Spans and metrics, exported by OTLP.
//!
//! ```text
//! loop's thread:   request begins -> Span -> request is over -> encoded -> queue (bounded)
//! export thread:   queue, every few seconds or when there is a batch -> one message -> collector
//!                  metrics of this worker, once a minute             -> one message -> collector
//! ```
//! The queue drops what comes when it is full, and counts that: a collector that is away costs spans, never requests. Names and
//! defaults are those of OpenTelemetry's batch processor and periodic reader.
//!
//! Written here rather than taken from a library for the reasons in `docs/decisions/0005-otlp.md`.

pub(crate) mod client;
mod model;
mod protobuf;

use std::{
    collections::VecDeque,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

pub use client::{Target, TargetSettings, Transport};
pub use model::{Durations, Metrics, Status};

use crate::record::{RecordSink, RequestRecord};
use crate::trace::Attributes;
use client::Ending;

/// What the exporter is told.
#[derive(Clone)]
pub struct Settings {
    /// Who reports.
    pub resource: Attributes,
    /// Version of the distribution.
    pub version: String,
    /// Where spans go; `None` makes none.
    pub traces: Option<Target>,
    /// Where metrics go.
    pub metrics: Option<Target>,
    /// Spans that wait to be exported; more are dropped.
    pub queue_max: usize,
    /// Spans in one message.
    pub batch_max: usize,
    /// Longest that a span waits for company.
    pub delay: Duration,
    /// Between two exports of metrics.
    pub metrics_interval: Duration,
    /// What the last messages get when the worker ends.
    pub flush: Duration,
}

/// Spans on their way from a loop to the exporter.
pub struct Outlet {
    queue: Mutex<VecDeque<Vec<u8>>>,
    queue_max: usize,
    batch_max: usize,
    /// There is a batch.
    ready: Notify,
    exported: AtomicU64,
    dropped: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Outlet {
    /// An empty one.
    pub fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            queue_max: settings.queue_max,
            batch_max: settings.batch_max.min(settings.queue_max),
            ready: Notify::new(),
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            trouble: Mutex::default(),
        })
    }

    /// Held for a push or for taking a batch out.
    fn queue(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, span: Vec<u8>) {
        let mut queue = self.queue();
        if queue.len() >= self.queue_max {
            drop(queue);
            self.drop_spans(1);
            return;
        }
        queue.push_back(span);
        let is_batch = queue.len() == self.batch_max;
        drop(queue);
        if is_batch {
            self.ready.notify_one();
        }
    }

    fn take(&self) -> Vec<Vec<u8>> {
        let mut queue = self.queue();
        let count = queue.len().min(self.batch_max);
        queue.drain(..count).collect()
    }

    fn has_batch(&self) -> bool {
        self.queue().len() >= self.batch_max
    }

    fn drop_spans(&self, count: u64) {
        // Relaxed, as everywhere here: each count stands for itself.
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Spans that a collector has taken, and those that were lost.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.exported.load(Ordering::Relaxed),
            self.dropped.load(Ordering::Relaxed),
        )
    }

    /// What was the matter last, once.
    pub fn take_trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn tell(&self, text: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

/// A batch on its way; one that is left behind is lost.
struct Batch<'a> {
    outlet: &'a Outlet,
    count: u64,
}

impl Batch<'_> {
    fn arrived(mut self, rejected: u64) {
        let rejected = rejected.min(self.count);
        let exported = self.count - rejected;
        self.outlet.exported.fetch_add(exported, Ordering::Relaxed);
        self.count = rejected;
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.outlet.drop_spans(self.count);
    }
}

/// Exports until `ending` becomes true, or its sender is gone, and then what is left.
pub async fn export(
    settings: &Settings,
    outlet: &Outlet,
    measure: impl Fn() -> Metrics,
    ending: watch::Receiver<bool>,
) {
    let spans = async {
        if let Some(target) = &settings.traces {
            export_spans(settings, target, outlet, &ending).await;
        }
    };
    let metrics = async {
        if let Some(target) = &settings.metrics {
            export_metrics(settings, target, outlet, &measure, &ending).await;
        }
    };
    let end = async {
        is_ending(&ending).await;
        sleep(settings.flush).await;
    };
    tokio::select! {
        _ = async { tokio::join!(spans, metrics) } => {}
        () = end => outlet.tell(format!("the collector was too slow for the last ones: {:?}", settings.flush)),
    }
    // Nobody will take them.
    let left = outlet.queue().drain(..).count();
    outlet.drop_spans(left as u64);
}

async fn is_ending(ending: &Ending) {
    // An error: whoever could say so is gone.
    let mut ending = ending.clone();
    let _gone = ending.wait_for(|is_ending| *is_ending).await;
}

async fn export_spans(settings: &Settings, target: &Target, outlet: &Outlet, ending: &Ending) {
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            biased;
            () = is_ending(ending) => is_last = true,
            () = outlet.ready.notified() => {}
            () = sleep(settings.delay) => send_spans(settings, target, outlet, ending).await,
        }
        while outlet.has_batch() {
            send_spans(settings, target, outlet, ending).await;
        }
    }
    send_spans(settings, target, outlet, ending).await;
}

async fn send_spans(settings: &Settings, target: &Target, outlet: &Outlet, ending: &Ending) {
    let spans = outlet.take();
    if spans.is_empty() {
        return;
    }
    let batch = Batch {
        outlet,
        count: spans.len() as u64,
    };
    let message = model::encode_traces(&settings.resource, &settings.version, &spans);
    drop(spans);
    match target.send(message, ending).await {
        Ok(taken) => {
            if taken.rejected > 0 || !taken.reason.is_empty() {
                outlet.tell(format!("the collector rejected some: {}", taken.reason));
            }
            batch.arrived(taken.rejected);
        }
        Err(error) => outlet.tell(error),
    }
}

async fn export_metrics(
    settings: &Settings,
    target: &Target,
    outlet: &Outlet,
    measure: impl Fn() -> Metrics,
    ending: &Ending,
) {
    let start = Instant::now() + settings.metrics_interval;
    let mut ticks = interval_at(start, settings.metrics_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            biased;
            () = is_ending(ending) => is_last = true,
            _ = ticks.tick() => {}
        }
        let metrics = measure();
        if metrics.durations.is_empty() && metrics.active.is_none() {
            continue;
        }
        let message = model::encode_metrics(&settings.resource, &settings.version, &metrics);
        // What is not taken comes with the next ones: they are sums.
        match target.send(message, ending).await {
            Ok(taken) if taken.rejected > 0 => {
                outlet.tell(format!("the collector rejected metrics: {}", taken.reason));
            }
            Ok(_) => {}
            Err(error) => outlet.tell(format!("metrics were not taken: {error}")),
        }
    }
}

/// Hands spans over when their requests are over.
pub struct SpanSink(Arc<Outlet>);

impl SpanSink {
    /// To this outlet.
    pub fn new(outlet: Arc<Outlet>) -> Rc<Self> {
        Rc::new(Self(outlet))
    }
}

impl RecordSink for SpanSink {
    fn judges(&self) -> bool {
        true
    }

    fn finished(&self, record: &RequestRecord) {
        if let Some(span) = &record.span
            && let Some(encoded) = model::encode_span(record, span)
        {
            self.0.push(encoded);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;

    use super::{Metrics, Outlet, Settings, export};

    fn settings() -> Settings {
        Settings {
            resource: Vec::new(),
            version: "0".to_owned(),
            traces: None,
            metrics: None,
            queue_max: 3,
            batch_max: 2,
            delay: Duration::from_secs(5),
            metrics_interval: Duration::from_secs(60),
            flush: Duration::from_secs(1),
        }
    }

    #[test]
    fn full_queue_drops_and_counts() {
        let outlet = Outlet::new(&settings());
        for number in 0..5 {
            outlet.push(vec![number]);
        }
        assert_eq!(outlet.counts(), (0, 2));
        assert_eq!(outlet.take(), [[0], [1]]);
        assert_eq!(outlet.take(), [[2]]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_nobody_took_is_counted_at_the_end() {
        let settings = settings();
        let outlet = Outlet::new(&settings);
        outlet.push(vec![1]);
        let (stop, ending) = watch::channel(false);
        drop(stop);
        let measure = || -> Metrics { unreachable!("there is nowhere to send them") };
        Box::pin(export(&settings, &outlet, measure, ending)).await;
        assert_eq!(outlet.counts(), (0, 1));
    }
}
