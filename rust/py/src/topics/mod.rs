//! The frame routes of a worker: the HTTP core's routes over the shared memory's topics.
//!
//! [`registry`] has what is open and the rules of what may be created, for all threads of the process; [`hub`] shares the frames of
//! one topic between all requests; [`convert`] translates; [`thread`] is where nothing waits for Python. This file is the board that
//! one thread has of it, and the settings.

mod access;
mod calls;
mod convert;
pub(crate) mod handlers;
mod hub;
mod judge;
mod leases;
mod line;
mod registry;
mod thread;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use framegate_http::{
    Listener,
    fanout::Parcel,
    pictures::{Pool, Setting},
    routes::Routes,
    service::{Entry, Service},
    topics::{
        Board, BoardFuture, CallTimes, Code, Dtype, Feed, Frame, Guard, Opened, Problem, Seats,
        Settings, SocketLimits, TopicInfo, TopicRoutes,
        board::{Caller, Event, InOrder, Participant, Watching},
        newest,
        openapi::{About, Declared},
    },
};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::{AbortHandle, spawn_blocking},
    time::{Sleep, sleep},
};

use crate::diagnostics::Diagnostics;
use crate::error::os_error;
use crate::event_loop::LoopCore;
use crate::gil;
use crate::live;
use crate::os::without_signals;
use crate::settings::seconds;
use crate::slow::SlowRequests;
use crate::stats::{Counter, Row};
use calls::{Callers, InFlight};
use hub::{Hub, LEASE_RETRY};
use judge::Answering;
use line::Place;
use registry::{Registry, Rule, array_bytes, opened};
use thread::{Common, FramesThread};
pub(crate) use thread::{Counts, Said, Says, Setup};

/// Pictures that wait for a thread; with more, some are left out. A second of work at most.
const PICTURES_WAIT_MAX: usize = 64;
/// What the thread of the frames has to say, and has not said yet: about as many lines as a turn of the loop tells.
const TOLD_MAX: usize = 256;
/// Refusals are told of once in this time; all are counted.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Who on the loop is told what the thread of the frames has to say.
#[derive(Default)]
pub(crate) struct Hearers {
    pub(crate) slow: Option<Rc<SlowRequests>>,
    pub(crate) diagnostics: Option<Rc<Diagnostics>>,
}

/// What the routes of one worker have open.
pub(crate) struct Topics {
    routes: Rc<TopicRoutes>,
    registry: Arc<Registry>,
    callers: Rc<Callers>,
    guard: Arc<Guard>,
    config: Py<PyAny>,
    /// What the application is asked runs as long.
    answering: RefCell<Option<Answering>>,
    /// Where there are frame routes.
    frames: RefCell<Option<FramesThread>>,
    in_flight: InFlight,
    settings: Settings,
    row: Option<Arc<Row>>,
    /// Tells Python what the thread has to say, as long as that runs.
    telling: Cell<Option<(AbortHandle, Rc<Ears>)>>,
}

/// The loop's end of the channel from the thread of the frames.
struct Ears {
    hears: RefCell<mpsc::Receiver<Said>>,
    hearers: Hearers,
    core: Rc<LoopCore>,
}

impl Ears {
    fn tell(&self, said: Said) {
        match said {
            Said::Warning(text) => {
                self.core
                    .warn_soon(text, "what frame routes say could not be logged");
            }
            Said::Slow(note, others) => {
                if let Some(slow) = &self.hearers.slow {
                    slow.add(|| note, others);
                }
            }
            Said::Connection(line, others) => {
                if let Some(diagnostics) = &self.hearers.diagnostics {
                    diagnostics.add(line, others);
                }
            }
        }
    }

    /// Tells what was said before the thread ended.
    fn tell_rest(&self) {
        let next = || self.hears.borrow_mut().try_recv().ok();
        while let Some(said) = next() {
            self.tell(said);
        }
    }
}

impl Topics {
    /// Lets go of it, when the worker closes. What the thread of the frames serves is cut.
    pub(crate) fn clear(&self, py: Python<'_>) {
        if let Some(mut frames) = self.frames.take() {
            gil::detached(py, || frames.stop());
        }
        if let Some((telling, ears)) = self.telling.take() {
            telling.abort();
            ears.tell_rest();
        }
        self.registry.clear();
        self.callers.clear();
        self.answering.take();
    }

    /// Starts the thread of the frames.
    pub(crate) fn start(
        &self,
        config: &Bound<'_, PyAny>,
        core: &Rc<LoopCore>,
        setup: Setup,
        hearers: Hearers,
    ) -> PyResult<()> {
        let (told, hears) = mpsc::channel(TOLD_MAX);
        let common = Common {
            registry: self.registry.clone(),
            guard: self.guard.clone(),
            settings: self.settings.clone(),
            calls: calls(config)?,
            calls_max: config.getattr("topics_calls_max")?.extract()?,
            queue_bytes: config.getattr("topics_queue_bytes")?.extract()?,
            in_flight: self.in_flight.clone(),
            row: self.row.clone(),
            told,
        };
        if let Some(frames) = &mut *self.frames.borrow_mut() {
            frames.start(common, setup).map_err(os_error)?;
            let ears = Rc::new(Ears {
                hears: RefCell::new(hears),
                hearers,
                core: core.clone(),
            });
            let here = ears.clone();
            let telling = core.spawn(async move {
                while let Some(said) = poll_fn(|cx| here.hears.borrow_mut().poll_recv(cx)).await {
                    here.tell(said);
                }
            });
            self.telling.set(Some((telling.abort_handle(), ears)));
        }
        Ok(())
    }

    /// Serves frame routes, and nothing else, where `listener` listens; false when that is over.
    pub(crate) fn listen(&self, listener: Listener, entry: Entry, is_proxied: bool) -> bool {
        let frames = self.frames.borrow();
        frames
            .as_ref()
            .is_some_and(|frames| frames.listen(listener, entry, is_proxied))
    }

    /// Reads certificates anew.
    pub(crate) fn reload_tls(&self) {
        if let Some(frames) = &*self.frames.borrow() {
            frames.reload_tls();
        }
    }

    /// Stops accepting on the thread of the frames.
    pub(crate) fn stop_accepting(&self) {
        if let Some(frames) = &*self.frames.borrow() {
            frames.stop_accepting();
        }
    }

    /// Ends the connections of that thread's own listeners; how many were cut.
    pub(crate) fn drain(
        &self,
        deadline: Duration,
        idle: Duration,
    ) -> Option<impl Future<Output = usize> + use<>> {
        let frames = self.frames.borrow();
        frames.as_ref().map(|frames| frames.drain(deadline, idle))
    }

    /// Its connections, as they were lately.
    pub(crate) fn counts(&self) -> Option<Arc<Counts>> {
        self.frames.borrow().as_ref().map(FramesThread::counts)
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
    let frames = FramesThread::new().map_err(os_error)?;
    let topics = open(prefix.clone(), config, core, sockets, row, Some(frames))?;
    let routes = &topics.routes;
    let mut service = Routes::new(application);
    if let Some((calls, times)) = calls(config)? {
        service = service.prefix(calls.clone(), Rc::new(routes.calls(calls, times)));
    }
    let service = service.prefix(prefix, routes.clone());
    Ok((Rc::new(service), Some(topics)))
}

/// The prefix of calls and their times, if there are calls.
fn calls(config: &Bound<'_, PyAny>) -> PyResult<Option<(String, CallTimes)>> {
    let prefix: Option<String> = config.getattr("topics_calls")?.extract()?;
    let Some(prefix) = prefix.filter(|prefix| !prefix.is_empty()) else {
        return Ok(None);
    };
    let times = CallTimes {
        usual: seconds(config, "topics_call_timeout")?,
        most: seconds(config, "topics_call_timeout_max")?,
        loan_wait: seconds(config, "topics_wait")?,
    };
    Ok(Some((prefix, times)))
}

/// The routes as the configuration has them, mounted nowhere.
fn open(
    prefix: String,
    config: &Bound<'_, PyAny>,
    core: &Rc<LoopCore>,
    sockets: SocketLimits,
    row: Option<&Arc<Row>>,
    frames: Option<FramesThread>,
) -> PyResult<Topics> {
    let topics_max = config.getattr("topics_max")?.extract()?;
    let threads = config.getattr("topics_picture_threads")?.extract()?;
    let pixels_max = config.getattr("topics_pixels_max")?.extract()?;
    let pool = without_signals(|| Pool::start(threads, PICTURES_WAIT_MAX)).map_err(os_error)?;
    let rules = rules(config)?;
    let about = about(config, &rules)?;
    let registry = Arc::new(Registry::new(
        rules,
        topics_max,
        pool,
        pixels_max,
        row.cloned(),
    ));
    let in_flight = InFlight::default();
    let calls_max = config.getattr("topics_calls_max")?.extract()?;
    let callers = Callers::new(calls_max, in_flight.clone());
    let pumps = match &frames {
        Some(frames) => Pumps::Beside(frames.handle(), core.clone()),
        None => Pumps::Loop(core.clone()),
    };
    let board = Rc::new(LoopBoard {
        registry: registry.clone(),
        callers: callers.clone(),
        pumps,
        queue_bytes: config.getattr("topics_queue_bytes")?.extract()?,
        row: row.cloned(),
        log: Log::Loop(core.clone()),
        told: Cell::new(None),
        untold: Cell::new(0),
    });
    let settings = Settings {
        prefix,
        loan_wait: seconds(config, "topics_wait")?,
        parts_max: config.getattr("topics_parts_max")?.extract()?,
        poll_wait_max: seconds(config, "topics_poll")?,
        seats: Seats::new(config.getattr("topics_viewers")?.extract()?),
        queue_max: config.getattr("topics_queue_max")?.extract()?,
        sockets,
        about,
    };
    let (guard, answering) = access::guard(config, core)?;
    let mut routes = TopicRoutes::new(board, guard.clone(), settings.clone());
    if let Some(frames) = &frames {
        routes = routes.with_mover(frames.mover());
    }
    Ok(Topics {
        routes: Rc::new(routes),
        registry,
        callers,
        guard,
        config: config.clone().unbind(),
        answering: RefCell::new(answering),
        frames: RefCell::new(frames),
        in_flight,
        settings,
        row: row.cloned(),
        telling: Cell::default(),
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
    let demo = live::demo(config)?.map(|name| -> PyResult<Rule> {
        let array = (Dtype::Uint8, live::DEMO_SHAPE.to_vec());
        Ok(Rule {
            pattern: name
                .parse()
                .map_err(|error| PyValueError::new_err(format!("live: {error}")))?,
            name: name.to_owned(),
            create: true,
            slots: live::DEMO_SLOTS,
            slot_bytes: array_bytes(&array).unwrap_or(0),
            array: Some(array),
            decode: false,
        })
    });
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
        // The first that fits counts: what the configuration says goes first.
        .chain(demo)
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

/// Where it is looked for frames, for somebody who asks.
#[derive(Clone)]
enum Pumps {
    /// On the loop, for handlers where there are no frame routes.
    Loop(Rc<LoopCore>),
    /// On the thread of the frames.
    Thread(Handle),
    /// On the loop; there is a thread of the frames beside it.
    Beside(Handle, Rc<LoopCore>),
}

impl Pumps {
    /// Watches the newest sequence of a hub.
    fn watch(&self, hub: &Arc<Hub>) -> newest::Watching {
        match self {
            Self::Thread(runtime) => hub.watch(|hub| drop(runtime.spawn(hub.pump()))),
            Self::Loop(core) | Self::Beside(_, core) => {
                hub.watch_by_relay(|relay| drop(core.spawn(relay)))
            }
        }
    }

    /// The runtime of the thread of the frames, if there is one.
    fn thread(&self) -> Option<&Handle> {
        match self {
            Self::Loop(_) => None,
            Self::Thread(runtime) | Self::Beside(runtime, _) => Some(runtime),
        }
    }
}

/// Who is told of refusals.
enum Log {
    Loop(Rc<LoopCore>),
    Channel(mpsc::Sender<Said>),
}

/// The topics as one thread has them.
struct LoopBoard {
    registry: Arc<Registry>,
    callers: Rc<Callers>,
    pumps: Pumps,
    queue_bytes: u64,
    row: Option<Arc<Row>>,
    log: Log,
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

    fn participants(&self, topic: &str) -> BoardFuture<Vec<Participant>> {
        let topic = topic.to_owned();
        Box::pin(blocking(move || Registry::participants(&topic)))
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
        let (pumps, queue_bytes) = (self.pumps.clone(), self.queue_bytes);
        Box::pin(async move {
            let hub = match registry.known_hub(&topic) {
                Some(known) => known,
                None => blocking(move || registry.open_hub(&topic)).await?,
            };
            let feed: Rc<dyn Feed> = Rc::new(LoopFeed {
                hub,
                pumps,
                queue_bytes,
            });
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
        match &self.log {
            Log::Loop(core) => {
                core.warn_soon(text, "a refusal of a frame route could not be logged");
            }
            // With a full channel the loop stands still, and nobody could read it.
            Log::Channel(told) => drop(told.try_send(Said::Warning(text))),
        }
    }
}

/// The frames of a topic as one thread has them.
struct LoopFeed {
    hub: Arc<Hub>,
    pumps: Pumps,
    /// What the copies of one topic's queues may take.
    queue_bytes: u64,
}

impl Feed for LoopFeed {
    fn session(&self) -> u64 {
        self.hub.session()
    }

    fn newest(&self) -> Result<Option<Frame>, Problem> {
        self.hub.newest()
    }

    fn watch(&self) -> Box<dyn Watching> {
        Box::new(LoopWatching {
            hub: self.hub.clone(),
            number: self.pumps.watch(&self.hub),
            retry: None,
        })
    }

    fn picture(&self, frame: &Frame, setting: Setting) -> BoardFuture<Bytes> {
        Box::pin(self.hub.picture(frame, setting))
    }

    fn picture_as_is(&self, frame: &Frame, setting: Setting) -> Option<Bytes> {
        self.hub.picture_as_is(frame, setting)
    }

    fn lends(&self, sequence: u64, parcel: &Arc<Parcel>) {
        self.hub.lends(sequence, parcel);
    }

    fn in_order(&self, frames_max: usize) -> BoardFuture<InOrder> {
        let (hub, pumps, bytes_max) = (self.hub.clone(), self.pumps.clone(), self.queue_bytes);
        Box::pin(async move {
            let Some(runtime) = pumps.thread().cloned() else {
                return Err(Problem::new(Code::Unavailable, "there are no frame routes"));
            };
            let opened = hub.clone();
            let place = blocking(move || {
                opened.place(frames_max, bytes_max, |line| {
                    drop(runtime.spawn(line.run()));
                })
            })
            .await?;
            let in_order: InOrder =
                Box::new(move || -> Rc<dyn Feed> { Rc::new(QueueFeed { hub, place }) });
            Ok(in_order)
        })
    }
}

/// Somebody who waits for newer frames of a topic.
struct LoopWatching {
    hub: Arc<Hub>,
    number: newest::Watching,
    /// All leases were taken.
    retry: Option<Pin<Box<Sleep>>>,
}

impl Watching for LoopWatching {
    fn poll_newer(&mut self, after: u64, cx: &mut Context<'_>) -> Poll<Result<Frame, Problem>> {
        loop {
            if let Some(retry) = &mut self.retry {
                ready!(retry.as_mut().poll(cx));
                self.retry = None;
                self.number.forget();
            }
            let seen = ready!(self.number.poll_changed(cx));
            if seen == newest::GONE {
                return Poll::Ready(Err(registry::gone()));
            }
            match self.hub.newest_since(seen) {
                Ok(Some(frame)) if frame.sequence > after => {
                    if frame.sequence < seen {
                        // What could be had, not what there is.
                        self.number.forget();
                    }
                    return Poll::Ready(Ok(frame));
                }
                Err(problem) if problem.code == Code::LeasesExhausted => {
                    self.retry = Some(Box::pin(sleep(LEASE_RETRY)));
                }
                Err(problem) => return Poll::Ready(Err(problem)),
                Ok(_) => {}
            }
        }
    }
}

/// Somebody who waits for the next frame of his queue.
struct QueueWatching(Arc<Place>);

impl Watching for QueueWatching {
    fn poll_newer(&mut self, _after: u64, cx: &mut Context<'_>) -> Poll<Result<Frame, Problem>> {
        self.0.poll_next(cx)
    }
}

/// The frames of a topic for one viewer that gets all of them.
struct QueueFeed {
    hub: Arc<Hub>,
    place: Arc<Place>,
}

impl Feed for QueueFeed {
    fn session(&self) -> u64 {
        self.hub.session()
    }

    fn newest(&self) -> Result<Option<Frame>, Problem> {
        self.hub.newest()
    }

    fn watch(&self) -> Box<dyn Watching> {
        Box::new(QueueWatching(self.place.clone()))
    }

    fn picture(&self, frame: &Frame, setting: Setting) -> BoardFuture<Bytes> {
        Box::pin(self.hub.picture(frame, setting))
    }

    fn picture_as_is(&self, frame: &Frame, setting: Setting) -> Option<Bytes> {
        self.hub.picture_as_is(frame, setting)
    }

    fn lends(&self, sequence: u64, parcel: &Arc<Parcel>) {
        self.place.lends(sequence, parcel);
    }
}
