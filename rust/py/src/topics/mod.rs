//! The frame routes of a worker: the HTTP core's routes over the shared memory's topics.
//!
//! [`registry`] has what is open and the rules of what may be created, for all threads of the process; [`hub`] shares the frames of
//! one topic between all requests; [`convert`] translates. This file is the board that one loop has of it, and the settings.

mod access;
mod calls;
mod convert;
pub(crate) mod handlers;
mod hub;
mod judge;
mod registry;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use framegate_http::{
    fanout::Parcel,
    pictures::{Pool, Setting},
    routes::Routes,
    service::Service,
    topics::{
        Board, BoardFuture, CallTimes, Code, Dtype, Feed, Frame, Guard, Opened, Problem, Seats,
        Settings, SocketLimits, TopicInfo, TopicRoutes,
        board::{Caller, Event},
        openapi::{About, Declared},
    },
};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use tokio::{task::spawn_blocking, time::sleep};

use crate::error::os_error;
use crate::event_loop::LoopCore;
use crate::native::without_signals;
use crate::stats::{Counter, Row};
use calls::Callers;
use hub::{Hub, LEASE_RETRY};
use judge::Answering;
use registry::{Registry, Rule, array_bytes, opened};

/// Pictures that wait for a thread; with more, some are left out. A second of work at most.
const PICTURES_WAIT_MAX: usize = 64;
/// Refusals are told of once in this time; all are counted.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What the routes of one worker have open.
pub(crate) struct Topics {
    routes: Rc<TopicRoutes>,
    registry: Arc<Registry>,
    callers: Rc<Callers>,
    guard: Arc<Guard>,
    config: Py<PyAny>,
    /// What the application is asked runs as long.
    answering: RefCell<Option<Answering>>,
}

impl Topics {
    /// Lets go of it, when the worker closes.
    pub(crate) fn clear(&self) {
        self.registry.clear();
        self.callers.clear();
        self.answering.take();
    }

    /// Reads the tokens anew. When they are not as they should be, the old ones stay.
    pub(crate) fn reload_tokens(&self, py: Python<'_>) -> PyResult<()> {
        self.guard.replace(access::access(self.config.bind(py))?);
        Ok(())
    }
}

/// `application` with the frame routes in front of it, where the setting `topics` names a prefix.
pub(crate) fn in_front_of(
    application: Rc<dyn Service>,
    config: &Bound<'_, PyAny>,
    core: &Rc<LoopCore>,
    sockets: SocketLimits,
    row: Option<&Arc<Row>>,
) -> PyResult<(Rc<dyn Service>, Option<Topics>)> {
    let prefix: Option<String> = config.getattr("topics")?.extract()?;
    let Some(prefix) = prefix else {
        return Ok((application, None));
    };
    let topics = open(prefix.clone(), config, core, sockets, row)?;
    let routes = &topics.routes;
    let mut service = Routes::new(application);
    let calls: Option<String> = config.getattr("topics_calls")?.extract()?;
    if let Some(calls) = calls.filter(|calls| !calls.is_empty()) {
        let times = CallTimes {
            usual: seconds(config, "topics_call_timeout")?,
            most: seconds(config, "topics_call_timeout_max")?,
            loan_wait: seconds(config, "topics_wait")?,
        };
        service = service.prefix(calls.clone(), Rc::new(routes.calls(calls, times)));
    }
    let service = service.prefix(prefix, routes.clone());
    Ok((Rc::new(service), Some(topics)))
}

/// A setting that is a duration.
fn seconds(config: &Bound<'_, PyAny>, name: &str) -> PyResult<Duration> {
    let value: f64 = config.getattr(name)?.extract()?;
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("{name}={value} is not a duration")))
}

/// The routes as the configuration has them, mounted nowhere.
fn open(
    prefix: String,
    config: &Bound<'_, PyAny>,
    core: &Rc<LoopCore>,
    sockets: SocketLimits,
    row: Option<&Arc<Row>>,
) -> PyResult<Topics> {
    let topics_max = config.getattr("topics_max")?.extract()?;
    let threads = config.getattr("topics_picture_threads")?.extract()?;
    let pixels_max = config.getattr("topics_pixels_max")?.extract()?;
    let pool = without_signals(|| Pool::start(threads, PICTURES_WAIT_MAX)).map_err(os_error)?;
    let rules = rules(config)?;
    let about = about(config, &rules)?;
    let registry = Arc::new(Registry::new(rules, topics_max, pool, pixels_max));
    let callers = Callers::new(config.getattr("topics_calls_max")?.extract()?);
    let board = Rc::new(LoopBoard {
        registry: registry.clone(),
        callers: callers.clone(),
        core: core.clone(),
        row: row.cloned(),
        told: Cell::new(None),
        untold: Cell::new(0),
    });
    let settings = Settings {
        prefix,
        loan_wait: seconds(config, "topics_wait")?,
        parts_max: config.getattr("topics_parts_max")?.extract()?,
        poll_wait_max: seconds(config, "topics_poll")?,
        seats: Seats::new(config.getattr("topics_viewers")?.extract()?),
        sockets,
        about,
    };
    let (guard, answering) = access::guard(config, core)?;
    let routes = Rc::new(TopicRoutes::new(board, guard.clone(), settings));
    Ok(Topics {
        routes,
        registry,
        callers,
        guard,
        config: config.clone().unbind(),
        answering: RefCell::new(answering),
    })
}

/// What the `OpenAPI` document says.
fn about(config: &Bound<'_, PyAny>, rules: &[Rule]) -> PyResult<About> {
    let calls: Option<String> = config.getattr("topics_calls")?.extract()?;
    Ok(About {
        version: env!("FRAMEGATE_VERSION").to_owned(),
        calls: calls.filter(|calls| !calls.is_empty()),
        topics: rules
            .iter()
            .map(|rule| Declared {
                pattern: rule.name.clone(),
                create: rule.create,
                slot_bytes: rule.slot_bytes,
                array: rule.array.clone(),
            })
            .collect(),
    })
}

/// The setting `topic_rules`.
fn rules(config: &Bound<'_, PyAny>) -> PyResult<Vec<Rule>> {
    let found: Vec<(String, Bound<'_, PyDict>)> = config.getattr("topic_rules")?.extract()?;
    found
        .into_iter()
        .map(|(pattern, rule)| {
            let missing = |what: &str| {
                PyValueError::new_err(format!("topic_rules: {pattern:?} has no {what}"))
            };
            let dtype: Option<String> = get(&rule, "dtype")?;
            let shape: Option<Vec<u64>> = get(&rule, "shape")?;
            let array = match (dtype, shape) {
                (Some(dtype), Some(shape)) => {
                    let dtype = Dtype::from_name(&dtype).ok_or_else(|| missing("known dtype"))?;
                    Some((dtype, shape))
                }
                _ => None,
            };
            let slot_bytes: Option<u64> = get(&rule, "slot_bytes")?;
            let slot_bytes = slot_bytes.or_else(|| array.as_ref().and_then(array_bytes));
            Ok(Rule {
                create: get(&rule, "create")?.unwrap_or(false),
                slots: get(&rule, "slots")?.ok_or_else(|| missing("slots"))?,
                slot_bytes: slot_bytes.unwrap_or(0),
                array,
                decode: get(&rule, "decode")?.unwrap_or(false),
                pattern: pattern
                    .parse()
                    .map_err(|error| PyValueError::new_err(format!("topic_rules: {error}")))?,
                name: pattern,
            })
        })
        .collect()
}

fn get<'py, T: for<'a> FromPyObject<'a, 'py>>(
    rule: &Bound<'py, PyDict>,
    key: &str,
) -> PyResult<Option<T>> {
    match rule.get_item(key)? {
        Some(value) if !value.is_none() => value.extract().map(Some).map_err(Into::into),
        _ => Ok(None),
    }
}

/// The topics as one loop has them.
struct LoopBoard {
    registry: Arc<Registry>,
    callers: Rc<Callers>,
    core: Rc<LoopCore>,
    row: Option<Arc<Row>>,
    told: Cell<Option<Instant>>,
    untold: Cell<u64>,
}

/// What `work`, which may block, gives.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        // A panic, which has been printed, or the end of the worker.
        Err(Problem::new(Code::Unavailable, "the worker is closing").because(&error))
    })
}

impl Board for LoopBoard {
    fn list(&self) -> BoardFuture<Vec<TopicInfo>> {
        Box::pin(blocking(Registry::list))
    }

    fn info(&self, topic: &str) -> BoardFuture<TopicInfo> {
        let topic = topic.to_owned();
        Box::pin(blocking(move || Registry::info(&topic)))
    }

    fn publisher(&self, topic: &str) -> BoardFuture<Opened> {
        let (registry, topic) = (self.registry.clone(), topic.to_owned());
        Box::pin(async move {
            if let Some(known) = registry.known_publisher(&topic) {
                return Ok(opened(known, false));
            }
            let (publisher, created) = blocking(move || registry.open_publisher(&topic)).await?;
            Ok(opened(publisher, created))
        })
    }

    fn feed(&self, topic: &str) -> BoardFuture<Rc<dyn Feed>> {
        let (registry, topic) = (self.registry.clone(), topic.to_owned());
        let core = self.core.clone();
        Box::pin(async move {
            let hub = match registry.known_hub(&topic) {
                Some(known) => known,
                None => blocking(move || registry.open_hub(&topic)).await?,
            };
            let feed: Rc<dyn Feed> = Rc::new(LoopFeed { hub, core });
            Ok(feed)
        })
    }

    fn caller(&self, topic: &str) -> BoardFuture<Rc<dyn Caller>> {
        calls::caller(&self.callers, topic)
    }

    fn happened(&self, event: &Event<'_>) {
        if let Some(row) = &self.row {
            count(row, event);
        }
        if let Event::Refused { topic, problem } = event {
            self.tell(*topic, problem);
        }
    }
}

/// Counts what happened, for metrics.
fn count(row: &Row, event: &Event<'_>) {
    match event {
        Event::Published { bytes } => {
            row.add(Counter::TopicFramesIn, 1);
            row.add(Counter::TopicBytesIn, *bytes);
        }
        Event::Sent { bytes } => {
            row.add(Counter::TopicFramesOut, 1);
            row.add(Counter::TopicBytesOut, *bytes);
        }
        Event::Called { .. } => row.add(Counter::TopicCalls, 1),
        Event::Refused { problem, .. } => row.refused(problem.code),
    }
}

impl LoopBoard {
    /// Tells of a refusal, now and then.
    fn tell(&self, topic: Option<&str>, problem: &Problem) {
        let now = Instant::now();
        let is_due = self
            .told
            .get()
            .is_none_or(|told| now - told >= REPORT_EVERY);
        if !is_due {
            self.untold.set(self.untold.get() + 1);
            return;
        }
        self.told.set(Some(now));
        let more = match self.untold.take() {
            0 => String::new(),
            count => format!(" ({count} others since the last line)"),
        };
        let of = topic.map_or_else(String::new, |topic| format!(" of topic {topic:?}"));
        let text = format!(
            "a frame route{of} refused: {}: {problem}{more}",
            problem.code.text()
        );
        self.core
            .warn_soon(text, "a refusal of a frame route could not be logged");
    }
}

/// The frames of a topic as one loop has them.
struct LoopFeed {
    hub: Arc<Hub>,
    core: Rc<LoopCore>,
}

impl Feed for LoopFeed {
    fn session(&self) -> u64 {
        self.hub.session()
    }

    fn newest(&self) -> Result<Option<Arc<Frame>>, Problem> {
        self.hub.newest()
    }

    fn newer(&self, after: u64) -> BoardFuture<Arc<Frame>> {
        let (hub, core) = (self.hub.clone(), self.core.clone());
        Box::pin(async move {
            let mut watching = hub.watch(|hub| {
                core.spawn(hub.pump());
            });
            loop {
                if *watching.borrow_and_update() == u64::MAX {
                    return Err(Problem::new(
                        Code::Unavailable,
                        "the topic is gone or was created again",
                    )
                    .retry_after(REPORT_EVERY));
                }
                match hub.newest() {
                    Ok(Some(frame)) if frame.sequence > after => return Ok(frame),
                    Err(problem) if problem.code == Code::LeasesExhausted => {
                        sleep(LEASE_RETRY).await;
                        continue;
                    }
                    Err(problem) => return Err(problem),
                    Ok(_) => {}
                }
                if watching.changed().await.is_err() {
                    return Err(registry::unknown());
                }
            }
        })
    }

    fn picture(&self, frame: &Frame, setting: Setting) -> BoardFuture<Bytes> {
        Box::pin(self.hub.picture(frame, setting))
    }

    fn lends(&self, sequence: u64, parcel: &Arc<Parcel>) {
        self.hub.lends(sequence, parcel);
    }
}
