//! The topics that the frame routes of one process have open, and the rules by which they create others.
//!
//! # Lives
//! A topic may be removed and created again, by any process. Handles of the old life still work and nobody sees what they
//! do, so each use looks whether the file that was opened is still the one of that name: one `stat`.
//!
//! # What clients can make happen
//! A client names topics; sizes come from the rules alone. Opened at a time are at most `topics_max` for publishing and as many
//! for reading; the least recently used ones are closed. Created are topics only where a rule says so, while the runtime
//! directory has fewer than `topics_max`, and while all topics together take no more than half of the file system they
//! share with others.

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use framegate_http::{
    ingest::{FrameSlot, IngestError, Published},
    pictures::{Cache, Decoder, Pool},
    topics::{
        ArrayHead, Code, Dtype, FrameHead, Opened, Problem, TopicInfo,
        access::Pattern,
        board::{self, Participant},
    },
};
use framegate_shm::{
    Array, Inspector, Publisher, TopicOptions, control_file, runtime_directory, topics,
};

use super::{
    convert::{problem, schema_of, shm_dtype},
    hub::Hub,
};
use crate::frames::Slot;
use crate::os::{self, monotonic_ns};
use crate::stats::Row;

/// What the configuration says of topics whose names fit a pattern.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) pattern: Pattern,
    /// The same, as it was written.
    pub(super) name: String,
    /// A topic is created when it is published to.
    pub(super) create: bool,
    pub(super) slots: u32,
    pub(super) slot_bytes: u64,
    pub(super) array: Option<(Dtype, Vec<u64>)>,
    /// JPEG and PNG become pixels.
    pub(super) decode: bool,
}

/// Which file a topic was when it was opened.
#[derive(PartialEq, Eq)]
pub(super) struct Life {
    path: PathBuf,
    stamp: (u64, u64),
}

impl Life {
    /// Opens something of a topic, and says of which life it is.
    pub(super) fn of<T>(
        topic: &str,
        open: impl Fn() -> Result<T, framegate_shm::Error>,
    ) -> Result<(T, Self), Problem> {
        let path = control_file(topic).map_err(|error| problem(&error))?;
        loop {
            let before = stamp(&path);
            let opened = open().map_err(|error| problem(&error))?;
            match stamp(&path) {
                Some(stamp) if Some(stamp) == before => return Ok((opened, Self { path, stamp })),
                // Created by the opening, or again meanwhile: what is open now is asked for once more.
                Some(_) => {}
                None => return Err(unknown()),
            }
        }
    }

    /// Whether the topic is still that one.
    pub(super) fn goes_on(&self) -> bool {
        stamp(&self.path) == Some(self.stamp)
    }
}

fn stamp(path: &Path) -> Option<(u64, u64)> {
    os::identity_of(path)
}

pub(super) fn unknown() -> Problem {
    Problem::new(Code::TopicUnknown, "there is no topic of this name")
}

/// Of the life that viewers have watched.
pub(super) fn gone() -> Problem {
    Problem::new(Code::Unavailable, "the topic is gone or was created again")
        .retry_after(Duration::from_secs(1))
}

/// An open publisher, and what its topic holds.
pub(super) struct OpenPublisher {
    publisher: Publisher,
    schema: board::Schema,
    /// Name of the array of a frame that says its own dtype and shape; `None`: the schema says them.
    array_name: Option<String>,
    decoder: Option<Decoder>,
    life: Life,
}

impl OpenPublisher {
    fn new(
        topic: &str,
        decoder: Option<&Decoder>,
        open: impl Fn() -> Result<Publisher, framegate_shm::Error>,
    ) -> Result<Self, Problem> {
        let (publisher, life) = Life::of(topic, open)?;
        let info = publisher.info().map_err(|error| problem(&error))?;
        let schema = schema_of(&info.schema);
        let array_name = match &schema {
            board::Schema::Free => Some(String::new()),
            board::Schema::Array { .. } if schema.bytes().is_none() => {
                Some(info.schema[0].name().into_owned())
            }
            _ => None,
        };
        Ok(Self {
            publisher,
            schema,
            array_name,
            decoder: decoder.cloned(),
            life,
        })
    }
}

impl board::Publisher for OpenPublisher {
    fn slot_bytes(&self) -> u64 {
        self.publisher.slot_bytes()
    }

    fn schema(&self) -> &board::Schema {
        &self.schema
    }

    fn decoder(&self) -> Option<&Decoder> {
        self.decoder.as_ref()
    }

    fn loan(&self, bytes: u64) -> Result<Box<dyn FrameSlot>, Problem> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let loan = self.publisher.loan(bytes, Duration::ZERO);
        let loan = loan.map_err(|error| problem(&error))?;
        Ok(Box::new(Filling(
            Slot::new(loan).with_array(self.array_name.clone()),
        )))
    }
}

/// A slot whose refusals are problems.
struct Filling(Slot);

impl FrameSlot for Filling {
    fn space(&mut self) -> &mut [u8] {
        self.0.space()
    }

    fn filled(&mut self, bytes: usize) {
        self.0.filled(bytes);
    }

    fn payload(&self) -> &[u8] {
        self.0.payload()
    }

    fn publish(self: Box<Self>, head: &FrameHead) -> Result<Published, IngestError> {
        Box::new(self.0).publish(head).map_err(|error| {
            let source = std::error::Error::source(&error);
            match source.and_then(|source| source.downcast_ref()) {
                Some(refused) => IngestError::unavailable(problem(refused)),
                None => error,
            }
        })
    }
}

/// What is open, most recently used first.
type Opens<T> = Mutex<Vec<(String, Arc<T>)>>;

/// The topics of one process. Shared by its threads.
pub(super) struct Registry {
    pub(super) rules: Vec<Rule>,
    pub(super) topics_max: usize,
    pool: Arc<Pool>,
    pixels_max: u64,
    publishers: Opens<OpenPublisher>,
    hubs: Opens<Hub>,
    row: Option<Arc<Row>>,
}

fn lock<T>(opens: &Opens<T>) -> MutexGuard<'_, Vec<(String, Arc<T>)>> {
    opens.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that is open and of use, as one of the topic's present life is; another is closed.
fn known<T>(opens: &Opens<T>, topic: &str, goes_on: impl Fn(&T) -> bool) -> Option<Arc<T>> {
    let mut opens = lock(opens);
    let position = opens.iter().position(|(name, _)| name == topic)?;
    if !goes_on(&opens[position].1) {
        let _closed = opens.remove(position);
        return None;
    }
    opens[..=position].rotate_right(1);
    Some(opens[0].1.clone())
}

/// Keeps what was opened, unless another thread was faster.
fn keep<T>(opens: &Opens<T>, topic: &str, opened: T, count_max: usize) -> Arc<T> {
    let mut opens = lock(opens);
    if let Some((_, known)) = opens.iter().find(|(name, _)| name == topic) {
        return known.clone();
    }
    let opened = Arc::new(opened);
    opens.insert(0, (topic.to_owned(), opened.clone()));
    opens.truncate(count_max);
    opened
}

impl Registry {
    pub(super) fn new(
        rules: Vec<Rule>,
        topics_max: usize,
        pool: Pool,
        pixels_max: u64,
        row: Option<Arc<Row>>,
    ) -> Self {
        Self {
            rules,
            topics_max,
            pool: Arc::new(pool),
            pixels_max,
            publishers: Mutex::default(),
            hubs: Mutex::default(),
            row,
        }
    }

    /// Lets go of everything, when the worker closes.
    pub(super) fn clear(&self) {
        lock(&self.publishers).clear();
        lock(&self.hubs).clear();
    }

    /// A publisher that is open.
    pub(super) fn known_publisher(&self, topic: &str) -> Option<Arc<OpenPublisher>> {
        known(&self.publishers, topic, |open| open.life.goes_on())
    }

    /// A hub that is open, and by which frames come.
    pub(super) fn known_hub(&self, topic: &str) -> Option<Arc<Hub>> {
        known(&self.hubs, topic, Hub::goes_on)
    }

    /// Opens a hub. Blocking.
    pub(super) fn open_hub(&self, topic: &str) -> Result<Arc<Hub>, Problem> {
        let pictures = Cache::new(Arc::clone(&self.pool), self.pixels_max);
        let hub = Hub::open(topic, pictures, self.row.clone())?;
        Ok(keep(&self.hubs, topic, hub, self.topics_max))
    }

    /// Opens a publisher, on a topic that is created if a rule says so; tells whether it was. Blocking: creating a topic touches
    /// every page of it.
    pub(super) fn open_publisher(
        &self,
        topic: &str,
    ) -> Result<(Arc<OpenPublisher>, bool), Problem> {
        let mut created = false;
        let rule = self.rules.iter().find(|rule| rule.pattern.fits(topic));
        let decoder = rule
            .filter(|rule| rule.decode)
            .map(|_| Decoder::new(Arc::clone(&self.pool), self.pixels_max));
        let open = || OpenPublisher::new(topic, decoder.as_ref(), || Publisher::open(topic));
        let opened = match open() {
            Err(error) if error.code == Code::TopicUnknown => {
                created = self.create(topic, rule)?;
                open()
            }
            opened => opened,
        }?;
        Ok((
            keep(&self.publishers, topic, opened, self.topics_max),
            created,
        ))
    }

    /// Creates a topic; false if somebody else did meanwhile.
    fn create(&self, topic: &str, rule: Option<&Rule>) -> Result<bool, Problem> {
        let Some(rule) = rule.filter(|rule| rule.create) else {
            return Err(unknown());
        };
        self.check_room(u64::from(rule.slots).saturating_mul(rule.slot_bytes))?;
        let options = TopicOptions {
            slots: rule.slots,
            slot_bytes: rule.slot_bytes,
            schema: rule
                .array
                .iter()
                .map(|(dtype, shape)| Array::new("", shm_dtype(*dtype), shape))
                .collect(),
            ..TopicOptions::default()
        };
        match Publisher::create(topic, &options) {
            Ok(_publisher) => Ok(true),
            Err(error) if error.is_topic_exists() => Ok(false),
            Err(error) => Err(problem(&error)),
        }
    }

    /// Whether another topic of so many bytes may be.
    fn check_room(&self, bytes: u64) -> Result<(), Problem> {
        let cannot = |error: io::Error| {
            Problem::new(Code::Unavailable, "topics cannot be created now").because(&error)
        };
        let names = topics().map_err(cannot)?;
        if names.len() >= self.topics_max {
            return Err(Problem::new(
                Code::TopicsExhausted,
                format!(
                    "there are {} topics, and there may be {}",
                    names.len(),
                    self.topics_max
                ),
            ));
        }
        let used = names
            .iter()
            .filter_map(|name| Inspector::open(name).ok()?.info().ok())
            .map(|info| u64::from(info.slots).saturating_mul(info.slot_bytes))
            .fold(0, u64::saturating_add);
        let directory = runtime_directory().map_err(|error| problem(&error))?;
        let free = free_bytes(&directory).map_err(cannot)?;
        let half = used.saturating_add(free) / 2;
        if used.saturating_add(bytes) > half {
            return Err(Problem::new(
                Code::StorageFull,
                format!(
                    "the topic takes {bytes} bytes; topics take {used} and may take {half}, half of what there is"
                ),
            ));
        }
        Ok(())
    }

    /// All topics. Blocking.
    pub(super) fn list() -> Result<Vec<TopicInfo>, Problem> {
        let names = topics().map_err(|error| {
            Problem::new(Code::Unavailable, "topics cannot be listed now").because(&error)
        })?;
        // One that is gone by now, or of another version, is not there.
        Ok(names
            .iter()
            .filter_map(|name| Self::info(name).ok())
            .collect())
    }

    /// One topic. Blocking.
    pub(super) fn info(topic: &str) -> Result<TopicInfo, Problem> {
        let inspector = Inspector::open(topic).map_err(|error| problem(&error))?;
        let info = inspector.info().map_err(|error| problem(&error))?;
        let stats = inspector.stats().map_err(|error| problem(&error))?;
        let usage = inspector.usage().map_err(|error| problem(&error))?;
        Ok(TopicInfo {
            name: topic.to_owned(),
            schema: schema_of(&info.schema),
            slots: info.slots,
            slot_bytes: info.slot_bytes,
            sequence: stats.head,
            publishers: stats.publishers,
            subscribers: stats.subscribers,
            responders: usage.responders,
            leases: usage.leases,
            lost: usage.lost,
        })
    }

    /// Who takes part in one topic. Blocking.
    pub(super) fn participants(topic: &str) -> Result<Vec<Participant>, Problem> {
        let inspector = Inspector::open(topic).map_err(|error| problem(&error))?;
        let found = inspector.participants().map_err(|error| problem(&error))?;
        let now_ns = monotonic_ns();
        // A publisher's clock may be a hair ahead of ours by the time we read it.
        let since = |at_ns: u64| Duration::from_nanos(now_ns.saturating_sub(at_ns));
        Ok(found
            .into_iter()
            .map(|one| Participant {
                name: one.name,
                pid: one.pid,
                role: one.role,
                policy: one.policy,
                alive: one.alive,
                frames: one.frames,
                lost: one.lost,
                lag: one.lag,
                holds: one.holds,
                oldest: one.oldest_ns.map(since),
                behind: one.behind_ns.map(since),
            })
            .collect())
    }
}

/// What is free on the file system of a directory that may not exist yet.
fn free_bytes(directory: &Path) -> io::Result<u64> {
    let existing = directory.ancestors().find(|path| path.exists());
    let path = existing.unwrap_or(Path::new("/"));
    os::available_bytes(path)
}

/// A publisher as the routes of one thread have it.
pub(super) struct Handle(pub(super) Arc<OpenPublisher>);

impl board::Publisher for Handle {
    fn slot_bytes(&self) -> u64 {
        self.0.slot_bytes()
    }

    fn schema(&self) -> &board::Schema {
        &self.0.schema
    }

    fn decoder(&self) -> Option<&Decoder> {
        self.0.decoder.as_ref()
    }

    fn loan(&self, bytes: u64) -> Result<Box<dyn FrameSlot>, Problem> {
        self.0.loan(bytes)
    }
}

pub(super) fn opened(publisher: Arc<OpenPublisher>, created: bool) -> Opened {
    Opened {
        publisher: Rc::new(Handle(publisher)),
        created,
    }
}

/// Bytes of an array whose dtype and shape a rule says.
pub(super) fn array_bytes(array: &(Dtype, Vec<u64>)) -> Option<u64> {
    ArrayHead::new(array.0, array.1.clone()).map(|array| array.bytes())
}
