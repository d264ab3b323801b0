//! From topics to a file.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::BufWriter,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use ::mcap::{Compression, McapError, WriteOptions, Writer, records::MessageHeader, write::NoSeek};
use framegate_shm::{Frame, Policy, Subscriber, SubscriberOptions};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use crate::{gil, os::monotonic_ns};

use super::{
    Failure, LIBRARY, TOPIC_KEY, lock,
    messages::{self, Kind, PAYLOAD_BYTES_MAX, PROTOBUF},
};

/// How long a thread waits for a frame before it looks whether it should stop or whether the chunk is old.
const SLICE: Duration = Duration::from_millis(200);

/// What a chunk may wait for more messages: how much a kill -9 costs.
const CHUNK_AGE_MAX: Duration = Duration::from_secs(1);

/// What inspectors show.
const NAME: &str = "platform record";

/// The open file. Under one lock, so that the messages of all topics are in the order of their log time.
struct Output {
    writer: Writer<NoSeek<BufWriter<File>>>,
    path: PathBuf,
    chunk_bytes: u64,
    pending_bytes: u64,
    pending_since: Option<Instant>,
    log_time_ns: u64,
}

impl Output {
    fn failed(&self, error: &McapError) -> Failure {
        Failure::mcap("write", &self.path, error)
    }

    fn channel(&mut self, topic: &str, kind: Kind, about: &str) -> Result<u16, Failure> {
        let metadata = BTreeMap::from([(TOPIC_KEY.to_owned(), about.to_owned())]);
        self.writer
            .add_schema(kind.name(), PROTOBUF, &kind.descriptors())
            .and_then(|schema| self.writer.add_channel(schema, topic, PROTOBUF, &metadata))
            .map_err(|error| self.failed(&error))
    }

    fn write(
        &mut self,
        channel_id: u16,
        sequence: u64,
        data: &[u8],
        published_unix_ns: u64,
    ) -> Result<(), Failure> {
        // The clock of the machine may be set back; the order of the file must not.
        let now = unix_ns();
        self.log_time_ns = self.log_time_ns.max(now);
        let age_ns = now.saturating_sub(published_unix_ns);
        let header = MessageHeader {
            channel_id,
            sequence: sequence as u32, // the whole number is in the message
            log_time: self.log_time_ns,
            publish_time: self.log_time_ns.saturating_sub(age_ns),
        };
        self.writer
            .write_to_known_channel(&header, data)
            .map_err(|error| self.failed(&error))?;
        self.pending_bytes += data.len() as u64;
        self.pending_since.get_or_insert_with(Instant::now);
        self.flush_if_due()
    }

    fn flush_if_due(&mut self) -> Result<(), Failure> {
        let old = self
            .pending_since
            .is_some_and(|since| since.elapsed() >= CHUNK_AGE_MAX);
        if old || self.pending_bytes >= self.chunk_bytes {
            self.pending_bytes = 0;
            self.pending_since = None;
            self.writer.flush().map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }
}

/// Counters of one topic.
#[derive(Clone, Copy, Default)]
struct Counts {
    frames: u64,
    bytes: u64,
    lost: u64,
}

struct Shared {
    output: Mutex<Option<Output>>,
    counts: Mutex<BTreeMap<String, Counts>>,
    failure: Mutex<Option<Failure>>,
}

struct Worker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn stop(&self) {
        // Release, for the Acquire in `record`: what was published before is taken after it.
        self.stop.store(true, Ordering::Release);
    }

    fn join(self) {
        self.stop();
        // A panic was printed by its hook; there is nothing more to do about it here.
        let _ = self.thread.join();
    }
}

/// Records topics to an MCAP file; see `framegate.recording`.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    workers: Mutex<BTreeMap<String, Worker>>,
    bgr: bool,
}

#[pymethods]
impl Recorder {
    /// Creates the file.
    ///
    /// Args:
    ///     path: Where.
    ///     overwrite: Whether it may exist.
    ///     compression: `zstd`, `lz4` or `none`.
    ///     `chunk_bytes`: How much is collected before it is compressed and written.
    ///     bgr: Whether pictures of three and four channels are BGR, not RGB.
    #[new]
    #[pyo3(signature = (path, *, overwrite, compression, chunk_bytes, bgr))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        overwrite: bool,
        compression: &str,
        chunk_bytes: u64,
        bgr: bool,
    ) -> PyResult<Self> {
        let compression = match compression {
            "zstd" => Some(Compression::Zstd),
            "lz4" => Some(Compression::Lz4),
            "none" => None,
            other => {
                return Err(PyValueError::new_err(format!(
                    "compression is zstd, lz4 or none, not {other}"
                )));
            }
        };
        let output = gil::detached(py, || create(path, overwrite, compression, chunk_bytes));
        let output = output.map_err(|failure| failure.into_python(py))?;
        Ok(Self {
            shared: Arc::new(Shared {
                output: Mutex::new(Some(output)),
                counts: Mutex::new(BTreeMap::new()),
                failure: Mutex::new(None),
            }),
            workers: Mutex::new(BTreeMap::new()),
            bgr,
        })
    }

    /// Subscribes to a topic and records it from now on; a topic that is recorded already is opened anew.
    ///
    /// Args:
    ///     topic: Its name.
    ///     about: What the file says about the topic, for whoever replays it.
    ///
    /// Raises:
    ///     `ShmError`: It cannot be opened.
    fn add(&self, py: Python<'_>, topic: String, about: String) -> PyResult<()> {
        let old = lock(&self.workers).remove(&topic);
        let shared = Arc::clone(&self.shared);
        let bgr = self.bgr;
        let started = gil::detached(py, || {
            if let Some(old) = old {
                old.join();
            }
            start(shared, &topic, about, bgr)
        });
        let worker = started.map_err(|failure| failure.into_python(py))?;
        lock(&self.workers).insert(topic, worker);
        Ok(())
    }

    /// What was recorded so far, by topic: `frames`, `bytes` (payload), `lost`.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // Python may run another thread while objects are made: not under the lock.
        let counted = lock(&self.shared.counts).clone();
        let result = PyDict::new(py);
        for (topic, counts) in counted {
            let row = PyDict::new(py);
            row.set_item("frames", counts.frames)?;
            row.set_item("bytes", counts.bytes)?;
            row.set_item("lost", counts.lost)?;
            result.set_item(topic, row)?;
        }
        Ok(result)
    }

    /// Raises what ended a thread, if anything did.
    ///
    /// Raises:
    ///     `RecordingError`: The file cannot be written.
    ///     `ShmError`: A topic cannot be read.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        // Python may run another thread while an exception is made: not under the lock.
        let failure = lock(&self.shared.failure).clone();
        failure.map_or(Ok(()), |failure| Err(failure.into_python(py)))
    }

    /// Ends the recording: stops the threads, writes the summary, closes the file. Harmless when it was closed.
    ///
    /// Raises:
    ///     `RecordingError`: The end could not be written; what was written before is a readable prefix.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let workers = std::mem::take(&mut *lock(&self.workers));
        let closed = gil::detached(py, || {
            for worker in workers.values() {
                worker.stop();
            }
            workers.into_values().for_each(Worker::join);
            let Some(mut output) = lock(&self.shared.output).take() else {
                return Ok(());
            };
            match output.writer.finish() {
                Ok(_) => Ok(()),
                Err(error) => Err(output.failed(&error)),
            }
        });
        closed.map_err(|failure: Failure| failure.into_python(py))
    }
}

/// One that nobody closed: its threads end, but nobody waits for them.
impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&self.workers).values().for_each(Worker::stop);
    }
}

fn create(
    path: PathBuf,
    overwrite: bool,
    compression: Option<Compression>,
    chunk_bytes: u64,
) -> Result<Output, Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .create_new(!overwrite)
        .truncate(overwrite)
        .open(&path)
        .map_err(|error| Failure::io("create", &path, &error))?;
    let options = WriteOptions::new()
        .compression(compression)
        .compression_threads(0) // one thread more per file is enough
        .chunk_size(None) // by bytes and by age, in `flush_if_due`
        .disable_seeking(true) // a chunk is in the file whole or not at all
        .library(LIBRARY);
    match options.create(NoSeek::new(BufWriter::with_capacity(1 << 16, file))) {
        Ok(writer) => Ok(Output {
            writer,
            path,
            chunk_bytes,
            pending_bytes: 0,
            pending_since: None,
            log_time_ns: 0,
        }),
        Err(error) => Err(Failure::mcap("write", &path, &error)),
    }
}

fn start(shared: Arc<Shared>, topic: &str, about: String, bgr: bool) -> Result<Worker, Failure> {
    let subscriber = subscribe(topic).map_err(Failure::Topic)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    lock(&shared.counts).entry(topic.to_owned()).or_default();
    let topic = topic.to_owned();
    let thread = thread::Builder::new()
        .name("framegate-record".to_owned())
        .spawn(move || {
            if let Err(failure) = record(&shared, &topic, &about, subscriber, bgr, &stopped) {
                lock(&shared.failure).get_or_insert(failure);
            }
        })
        .map_err(|error| Failure::File(format!("cannot start a thread: {error}")))?;
    Ok(Worker { stop, thread })
}

fn subscribe(topic: &str) -> Result<Subscriber, framegate_shm::Error> {
    let options = SubscriberOptions {
        policy: Policy::Queue,
        leases_max: 1,
        name: NAME,
        ..SubscriberOptions::default()
    };
    Subscriber::open(topic, &options)
}

fn record(
    shared: &Shared,
    topic: &str,
    about: &str,
    mut subscriber: Subscriber,
    bgr: bool,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let mut channels: BTreeMap<Kind, u16> = BTreeMap::new();
    let mut message = Vec::new();
    let mut clock = Clock::default();
    loop {
        // Read first: what was published before the stop is still taken.
        let stopping = stop.load(Ordering::Acquire);
        let wait = if stopping { Duration::ZERO } else { SLICE };
        let frame = match subscriber.take(wait) {
            Ok(Some(frame)) => frame,
            Ok(None) if stopping => return Ok(()),
            Ok(None) => {
                let mut output = lock(&shared.output);
                let Some(output) = output.as_mut() else {
                    return Ok(()); // closed while this thread was started
                };
                output.flush_if_due()?;
                continue;
            }
            Err(error) if error.is_interrupted() => continue,
            Err(error) if error.is_checksum_mismatch() => {
                // Refused by the library, which goes on behind it; a recording of it would be a lie.
                if let Some(counts) = lock(&shared.counts).get_mut(topic) {
                    counts.lost += 1;
                }
                continue;
            }
            Err(error) if error.is_moved() => {
                subscriber = subscribe(topic).map_err(Failure::Topic)?;
                continue;
            }
            Err(error) => return Err(Failure::Topic(error)),
        };
        if frame.len() > PAYLOAD_BYTES_MAX {
            return Err(Failure::File(format!(
                "a frame of topic \"{topic}\" has {} bytes; a message of a recording has at most {PAYLOAD_BYTES_MAX}",
                frame.len()
            )));
        }
        message.clear();
        let arrays = frame.arrays().map_err(Failure::Topic)?;
        let published_unix_ns = clock.unix_ns(frame.published_ns());
        let kind = messages::encode(&frame, &arrays, bgr, published_unix_ns, &mut message);
        let (sequence, bytes, lost) = (frame.sequence(), frame.len() as u64, frame.lost());
        drop_lease(frame);

        let mut output = lock(&shared.output);
        let Some(output) = output.as_mut() else {
            return Ok(());
        };
        let channel = if let Some(&channel) = channels.get(&kind) {
            channel
        } else {
            let channel = output.channel(topic, kind, about)?;
            channels.insert(kind, channel);
            channel
        };
        output.write(channel, sequence, &message, published_unix_ns)?;
        if let Some(counts) = lock(&shared.counts).get_mut(topic) {
            counts.frames += 1;
            counts.bytes += bytes;
            counts.lost += lost;
        }
    }
}

/// The slot is free again before the disk is waited for.
fn drop_lease(frame: Frame) {
    drop(frame);
}

/// Looks at the two clocks whose difference is asked for: nothing knows both at one moment, and who looks may have to wait between.
const LOOKS: usize = 3;
/// Differences from the known one up to this are of the looking; above, the clock of the machine was set.
const JITTER_NS: i64 = 1_000_000;

/// When frames were published, by the clock of the machine. The times of a topic are in the order of its frames, however close
/// they are: the difference of the clocks is kept.
#[derive(Default)]
struct Clock {
    /// Of the machine's clock from the monotonic one.
    ahead_ns: Option<i64>,
}

impl Clock {
    fn unix_ns(&mut self, monotonic: u64) -> u64 {
        self.at(monotonic, || {
            // The monotonic one first: a pause between makes the difference larger, never smaller.
            let monotonic = monotonic_ns();
            unix_ns().cast_signed() - monotonic.cast_signed()
        })
    }

    fn at(&mut self, monotonic: u64, mut look: impl FnMut() -> i64) -> u64 {
        let fits = |known: i64, seen: i64| (seen - known).abs() <= JITTER_NS;
        let seen = look();
        let ahead = match self.ahead_ns {
            Some(known) if fits(known, seen) => known,
            _ => (1..LOOKS).fold(seen, |least, _| least.min(look())),
        };
        self.ahead_ns = Some(ahead);
        monotonic.saturating_add_signed(ahead)
    }
}

fn unix_ns() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}
