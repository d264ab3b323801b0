//! Metrics of frames: what the frame routes of this server did, and the topics of the runtime directory, whoever uses them.
//!
//! Topics are looked at as inspectors do, for each scrape: their control files are mapped read-only for a moment. No participant
//! sees that, nothing of theirs is written or locked, and no Python is needed. Names of topics are a label, so there is a limit
//! on how many are shown: the first by name.

use std::time::Duration;

use framegate_http::{
    exposition::{Exposition, Kind},
    topics::Code,
};
use framegate_shm::{Inspector, TopicStats, TopicUse, topics};

use crate::{
    os::monotonic_ns,
    stats::{Counter, Whole},
};

/// What frame routes did.
pub(crate) fn write_routes(exposition: &mut Exposition, whole: &Whole<'_>) {
    let help = "Requests and messages that frame routes refused, or handlers that use topics, by what was wrong.";
    let mut family = exposition.family("framegate_topics_refused", Kind::Counter, help);
    for code in Code::ALL {
        let count = whole.refusals(*code);
        if count > 0 {
            family.sample(&[("code", &code.text())], count);
        }
    }
    let help = "Frames that went through frame routes and handlers, but for ingest: in were published, out were sent.";
    let mut family = exposition.family("framegate_topics_frames", Kind::Counter, help);
    family.sample(
        &[("direction", &"in")],
        whole.counter(Counter::TopicFramesIn),
    );
    family.sample(
        &[("direction", &"out")],
        whole.counter(Counter::TopicFramesOut),
    );
    let help = "Bytes of the payloads of those frames.";
    let mut family = exposition.family("framegate_topics_bytes", Kind::Counter, help);
    family.sample(
        &[("direction", &"in")],
        whole.counter(Counter::TopicBytesIn),
    );
    family.sample(
        &[("direction", &"out")],
        whole.counter(Counter::TopicBytesOut),
    );
    let help = "Calls by HTTP that a responder has answered.";
    exposition
        .family("framegate_topics_calls", Kind::Counter, help)
        .sample(&[], whole.counter(Counter::TopicCalls));
    let help =
        "Frames of which a slow viewer's rest was copied, so that their slots could be used again.";
    exposition
        .family("framegate_topics_copies", Kind::Counter, help)
        .sample(&[], whole.counter(Counter::TopicCopies));
}

/// A topic as it was at one moment.
struct Look {
    name: String,
    slots: u32,
    file_bytes: u64,
    stats: TopicStats,
    usage: TopicUse,
}

impl Look {
    /// `None` if it is gone by now, is of another version or makes no sense.
    fn at(name: String) -> Option<Self> {
        let inspector = Inspector::open(&name).ok()?;
        let info = inspector.info().ok()?;
        Some(Self {
            slots: info.slots,
            file_bytes: info.file_bytes,
            stats: inspector.stats().ok()?,
            usage: inspector.usage().ok()?,
            name,
        })
    }

    fn age_seconds(&self, now_ns: u64) -> Option<f64> {
        let age_ns = now_ns.saturating_sub(self.usage.published_ns?);
        Some(Duration::from_nanos(age_ns).as_secs_f64())
    }
}

/// The topics of the runtime directory, at most so many.
pub(crate) fn write_topics(exposition: &mut Exposition, topics_max: usize) {
    if topics_max == 0 {
        return;
    }
    // A directory that cannot be read is one of somebody else: of its topics nothing is known.
    let Ok(names) = topics() else { return };
    let help = "Topics in the runtime directory; metrics of their own have as many as --metrics-topics says.";
    exposition
        .family("framegate_topics", Kind::Gauge, help)
        .sample(&[], names.len());
    let looks: Vec<Look> = names
        .into_iter()
        .take(topics_max)
        .filter_map(Look::at)
        .collect();
    let now_ns = monotonic_ns();
    let mut each = |name: &str, kind: Kind, help: &str, value: &dyn Fn(&Look) -> Option<f64>| {
        let mut family = exposition.family(name, kind, help);
        for look in &looks {
            if let Some(value) = value(look) {
                family.sample(&[("topic", &look.name)], value);
            }
        }
    };
    let help = "Frames that were published, by whomever; it starts anew with the topic.";
    let name = "framegate_topic_frames_published";
    each(name, Kind::Counter, help, &|look| number(look.stats.head));
    let help = "Frames that the present subscribers lost, because they were too slow.";
    let name = "framegate_topic_frames_lost";
    each(name, Kind::Gauge, help, &|look| number(look.usage.lost));
    let help = "Time since the newest frame was published.";
    let name = "framegate_topic_frame_age_seconds";
    each(name, Kind::Gauge, help, &|look| look.age_seconds(now_ns));
    let help = "Publishers of all processes.";
    each("framegate_topic_publishers", Kind::Gauge, help, &|look| {
        Some(look.stats.publishers.into())
    });
    let help = "Subscribers of all processes.";
    each("framegate_topic_subscribers", Kind::Gauge, help, &|look| {
        Some(look.stats.subscribers.into())
    });
    let help = "Frames that are held; one that three hold counts three times.";
    each("framegate_topic_leases", Kind::Gauge, help, &|look| {
        number(look.usage.leases)
    });
    let help = "Slots, each for one frame.";
    each("framegate_topic_slots", Kind::Gauge, help, &|look| {
        Some(look.slots.into())
    });
    let help = "Slots whose frame somebody holds.";
    each("framegate_topic_slots_leased", Kind::Gauge, help, &|look| {
        Some(look.stats.slots_leased.into())
    });
    let help = "Size of the files in memory, without those of calls.";
    each("framegate_topic_memory_bytes", Kind::Gauge, help, &|look| {
        number(look.file_bytes)
    });
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
#[expect(clippy::unnecessary_wraps, reason = "a value that there always is")]
fn number(value: u64) -> Option<f64> {
    Some(value as f64)
}
