//! From a file to topics.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ::mcap::Message;
use framegate_shm::{Array, Publisher, TopicOptions};
use pyo3::{prelude::*, types::PyDict};

use crate::gil;

use super::{Failure, TOPIC_KEY, is_cut_off, lock, messages::Decoded};

/// How long a message waits for a slot while subscribers hold them all, before it counts as dropped.
const LOAN_TIMEOUT: Duration = Duration::from_secs(1);

/// Slots of a topic whose frames are free and of unknown size: twice the first one, and not less than this.
const FREE_SLOT_BYTES_MIN: u64 = 1 << 20;

/// Which messages, and where to.
struct Plan {
    path: PathBuf,
    /// Topic of the file to topic here; others are skipped.
    topics: BTreeMap<String, String>,
    rate: f64,
    repeat: bool,
    slots: Option<u32>,
    slot_bytes: Option<u64>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    frames: u64,
    bytes: u64,
    dropped: u64,
}

#[derive(Clone, Default)]
struct State {
    counts: BTreeMap<String, Counts>,
    rounds: u64,
    /// The file ended before its end.
    cut_off: bool,
    done: bool,
    failure: Option<Failure>,
}

struct Shared {
    plan: Plan,
    publishers: Mutex<BTreeMap<String, Publisher>>,
    state: Mutex<State>,
    stop: AtomicBool,
    stopping: (Mutex<()>, Condvar),
}

/// Replays an MCAP file; see `framegate.recording`.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct Player {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl Player {
    /// Args:
    ///     path: The file.
    ///     topics: Topic of the file to topic here; the others of the file are skipped.
    ///     rate: How fast, 1 is as it was; 0: as fast as it goes.
    ///     repeat: Whether to begin again at the end.
    ///     slots: Slots of topics that have to be created, instead of the recorded number.
    ///     `slot_bytes`: Payload bytes of their slots, likewise.
    #[new]
    #[pyo3(signature = (path, *, topics, rate, repeat, slots, slot_bytes))]
    fn new(
        path: PathBuf,
        topics: BTreeMap<String, String>,
        rate: f64,
        repeat: bool,
        slots: Option<u32>,
        slot_bytes: Option<u64>,
    ) -> Self {
        let plan = Plan {
            path,
            topics,
            rate,
            repeat,
            slots,
            slot_bytes,
        };
        let shared = Shared {
            plan,
            publishers: Mutex::new(BTreeMap::new()),
            state: Mutex::new(State::default()),
            stop: AtomicBool::new(false),
            stopping: (Mutex::new(()), Condvar::new()),
        };
        Self {
            shared: Arc::new(shared),
            thread: Mutex::new(None),
        }
    }

    /// Opens or creates every topic, reading the file up to the first message of each.
    ///
    /// Returns:
    ///     Names of the topics here.
    ///
    /// Raises:
    ///     `RecordingError`: The file cannot be read.
    ///     `ShmError`: A topic cannot be created, or does not fit the recording.
    fn prepare(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let prepared = gil::detached(py, || prepare(&self.shared));
        prepared.map_err(|failure| failure.into_python(py))?;
        Ok(lock(&self.shared.publishers).keys().cloned().collect())
    }

    /// Begins to publish, on a thread.
    fn start(&self) -> PyResult<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("framegate-replay".to_owned())
            .spawn(move || {
                let ended = play(&shared);
                let mut state = lock(&shared.state);
                state.failure = ended.err();
                state.done = true;
            })?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// What was published so far: `topics` (by topic: `frames`, `bytes`, `dropped`), `rounds`, `cut_off`, `done`.
    ///
    /// Raises:
    ///     `RecordingError`: The file is damaged.
    ///     `ShmError`: A topic refused a frame.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // Python may run another thread while objects are made: not under the lock.
        let state = lock(&self.shared.state).clone();
        if let Some(failure) = state.failure {
            return Err(failure.into_python(py));
        }
        let topics = PyDict::new(py);
        for (topic, counts) in state.counts {
            let row = PyDict::new(py);
            row.set_item("frames", counts.frames)?;
            row.set_item("bytes", counts.bytes)?;
            row.set_item("dropped", counts.dropped)?;
            topics.set_item(topic, row)?;
        }
        let result = PyDict::new(py);
        result.set_item("topics", topics)?;
        result.set_item("rounds", state.rounds)?;
        result.set_item("cut_off", state.cut_off)?;
        result.set_item("done", state.done)?;
        Ok(result)
    }

    /// Stops publishing and leaves the topics, which stay. Harmless when it was closed.
    fn close(&self, py: Python<'_>) {
        let thread = lock(&self.thread).take();
        gil::detached(py, || {
            self.shared.stop();
            if let Some(thread) = thread {
                // A panic was printed by its hook; there is nothing more to do about it here.
                let _ = thread.join();
            }
            lock(&self.shared.publishers).clear();
        });
    }
}

/// One that nobody closed: its thread ends, but nobody waits for it.
impl Drop for Player {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    fn stop(&self) {
        // Under the lock: a thread between its look and its sleep must not miss this. Relaxed is enough for that, and who looks
        // without the lock looks again soon.
        let _guard = lock(&self.stopping.0);
        self.stop.store(true, Ordering::Relaxed);
        self.stopping.1.notify_all();
    }
}

fn prepare(shared: &Shared) -> Result<(), Failure> {
    let plan = &shared.plan;
    let mut missing: BTreeSet<&str> = plan.topics.keys().map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for message in super::messages(&plan.path)? {
        let message = match message {
            Ok(message) => message,
            Err(error) if is_cut_off(&error) => break,
            Err(error) => return Err(Failure::mcap("read", &plan.path, &error)),
        };
        if missing.remove(message.channel.topic.as_str()) {
            let target = &plan.topics[&message.channel.topic];
            let decoded = decode(plan, &message)?;
            let publisher = open(plan, target, &decoded)?;
            lock(&shared.publishers).insert(target.clone(), publisher);
            lock(&shared.state)
                .counts
                .entry(target.clone())
                .or_default();
        }
        if missing.is_empty() {
            break;
        }
    }
    Ok(())
}

fn decode<'a>(plan: &Plan, message: &'a Message<'_>) -> Result<Decoded<'a>, Failure> {
    let channel = &message.channel;
    let schema = channel
        .schema
        .as_ref()
        .map_or("", |schema| schema.name.as_str());
    Decoded::read(schema, &channel.message_encoding, &message.data).map_err(|_| {
        Failure::File(format!(
            "cannot read {}: message {} of topic \"{}\" is no {schema}",
            plan.path.display(),
            message.sequence,
            channel.topic
        ))
    })
}

/// The topic that there is (Python made it, if the file says how it was), or one that fits the first message.
fn open(plan: &Plan, topic: &str, first: &Decoded<'_>) -> Result<Publisher, Failure> {
    match Publisher::open(topic) {
        Err(error) if error.is_topic_not_found() => {}
        opened => return opened.map_err(Failure::Topic),
    }
    let schema: Vec<Array> = first
        .arrays
        .iter()
        .filter_map(|array| Some(Array::new(&array.name(), array.dtype()?, array.shape())))
        .collect();
    let first_bytes = first.bytes as u64;
    let guess = if schema.is_empty() {
        (2 * first_bytes).max(FREE_SLOT_BYTES_MIN)
    } else {
        first_bytes.max(1)
    };
    let defaults = TopicOptions::default();
    let options = TopicOptions {
        slots: plan.slots.unwrap_or(defaults.slots),
        slot_bytes: plan.slot_bytes.unwrap_or(guess),
        schema,
        ..defaults
    };
    Publisher::create_or_open(topic, &options).map_err(Failure::Topic)
}

fn play(shared: &Shared) -> Result<(), Failure> {
    let plan = &shared.plan;
    let publishers = lock(&shared.publishers).clone();
    loop {
        let mut clock = Clock::new(plan.rate);
        for message in super::messages(&plan.path)? {
            let message = match message {
                Ok(message) => message,
                Err(error) if is_cut_off(&error) => {
                    lock(&shared.state).cut_off = true;
                    break;
                }
                Err(error) => return Err(Failure::mcap("read", &plan.path, &error)),
            };
            let target = plan.topics.get(&message.channel.topic);
            let Some((target, publisher)) =
                target.and_then(|target| Some((target, publishers.get(target)?)))
            else {
                continue;
            };
            if !wait_until(shared, clock.due(time_of(&message))) {
                return Ok(());
            }
            let published = publish(publisher, &decode(plan, &message)?)?;
            let mut state = lock(&shared.state);
            let counts = state.counts.entry(target.clone()).or_default();
            match published {
                Some(bytes) => {
                    counts.frames += 1;
                    counts.bytes += bytes;
                }
                None => counts.dropped += 1,
            }
        }
        let mut state = lock(&shared.state);
        state.rounds += 1;
        // A file without a message of ours would be read over and over.
        let nothing = state
            .counts
            .values()
            .all(|counts| counts.frames + counts.dropped == 0);
        if !plan.repeat || nothing || shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// When the frame was published, where the file is ours and so knows; else when it was logged.
fn time_of(message: &Message<'_>) -> u64 {
    if message.channel.metadata.contains_key(TOPIC_KEY) {
        message.publish_time
    } else {
        message.log_time
    }
}

/// Bytes published; `None`: every slot stayed held.
fn publish(publisher: &Publisher, decoded: &Decoded<'_>) -> Result<Option<u64>, Failure> {
    let deadline = Instant::now() + LOAN_TIMEOUT;
    let mut loan = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match publisher.loan(decoded.bytes, left) {
            Ok(loan) => break loan,
            Err(error) if error.is_interrupted() => {}
            Err(error) if error.is_topic_full() => return Ok(None),
            Err(error) => return Err(Failure::Topic(error)),
        }
    };
    decoded.fill(&mut loan);
    loan.publish(&decoded.meta()).map_err(Failure::Topic)?;
    Ok(Some(decoded.bytes as u64))
}

/// When each message is due: as long after the first one as it was, divided by the rate.
struct Clock {
    rate: f64,
    began: Option<(Instant, u64)>,
}

impl Clock {
    fn new(rate: f64) -> Self {
        Self { rate, began: None }
    }

    fn due(&mut self, time_ns: u64) -> Instant {
        let &mut (began, first_ns) = self.began.get_or_insert_with(|| (Instant::now(), time_ns));
        if self.rate <= 0.0 {
            return began;
        }
        let after = Duration::from_nanos(time_ns.saturating_sub(first_ns));
        Duration::try_from_secs_f64(after.as_secs_f64() / self.rate)
            .ok()
            .and_then(|after| began.checked_add(after))
            .unwrap_or(began)
    }
}

/// False: told to stop.
fn wait_until(shared: &Shared, due: Instant) -> bool {
    let mut guard = lock(&shared.stopping.0);
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        guard = shared
            .stopping
            .1
            .wait_timeout(guard, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}
