//! Recording topics to MCAP files and replaying them: joins the shared-memory crate and the crate `mcap`.
//!
//! # Recording
//! One thread per topic takes frames as a subscriber with policy queue, so a publisher never waits for the disk: what the
//! disk cannot keep up with is lost, counted, and marked in the next message. The thread encodes a frame while it holds its
//! only lease, lets go of it, and appends the message to the file under one lock. Memory: one message per topic and one
//! chunk.
//!
//! A chunk is compressed in memory and written whole, when it is full or a second old; then nothing of it stays in
//! this process. So a kill -9 costs at most that second, and what is in the file reads as a prefix of a recording:
//! complete chunks, no summary. [`Recorder::close`] writes the summary.
//!
//! # Replaying
//! One thread reads the file from its beginning, chunk by chunk, and publishes each message when its time has come. Files
//! of ours keep the time of publication; of other files it is the time of logging.
//!
//! Python owns both, polls them and decides what Ctrl-C means. Their threads never touch Python.

mod messages;
mod player;
mod recorder;
mod wire;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ::mcap::{
    McapError,
    io::MessageReader,
    sans_io::{LinearReaderOptions, SummaryReadEvent, SummaryReader, SummaryReaderOptions},
};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

pub(crate) use player::Player;
pub(crate) use recorder::Recorder;

use crate::{error, gil};

/// Key in the metadata of our channels: the topic as JSON, which only Python writes and reads. Other files have none.
const TOPIC_KEY: &str = "framegate.topic";

/// What the header of our files says wrote them.
const LIBRARY: &str = concat!("framegate ", env!("FRAMEGATE_VERSION"));

/// The largest record that is believed: a message of 2 GiB (protobuf's own limit) and what is around it. A damaged length
/// must not become an allocation.
const RECORD_BYTES_MAX: usize = (1 << 31) + (1 << 20);

/// Why a recording could not be written or read, before it is a Python exception.
#[derive(Clone, Debug)]
enum Failure {
    /// The operating system refused, or the file is no recording, or damaged.
    File(String),
    /// Shared memory refused.
    Topic(framegate_shm::Error),
}

impl Failure {
    fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::File(format!("cannot {what} {}: {error}", path.display()))
    }

    fn mcap(what: &str, path: &Path, error: &McapError) -> Self {
        match error {
            McapError::Io(error) => Self::io(what, path, error),
            error => Self::File(format!("cannot {what} {}: {error}", path.display())),
        }
    }

    fn into_python(self, py: Python<'_>) -> PyErr {
        match self {
            Self::File(text) => error::exception(py, "RecordingError", &text),
            Self::Topic(failure) => error::shm_error(py, &failure),
        }
    }
}

/// A thread that panicked left nothing half-done behind these locks that a reader could not see as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Messages of a file from its beginning, in the order in which they are in it.
fn messages(path: &Path) -> Result<MessageReader<BufReader<File>>, Failure> {
    let file = File::open(path).map_err(|error| Failure::io("open", path, &error))?;
    let options = LinearReaderOptions::default()
        .with_validate_chunk_crcs(true)
        .with_record_length_limit(RECORD_BYTES_MAX);
    Ok(MessageReader::new_with_options(
        BufReader::with_capacity(1 << 18, file),
        options,
    ))
}

/// Whether this is how a file ends that was cut off, for example by the death of its writer.
fn is_cut_off(error: &McapError) -> bool {
    match error {
        McapError::UnexpectedEof | McapError::UnexpectedEoc => true,
        McapError::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

/// One channel of a file.
struct ChannelFacts {
    topic: String,
    schema: String,
    encoding: String,
    messages: u64,
    about: Option<String>,
}

/// What is in a file.
struct Contents {
    channels: BTreeMap<u16, ChannelFacts>,
    start_ns: u64,
    end_ns: u64,
    complete: bool,
}

fn read_summary(path: &Path) -> Result<Option<Contents>, Failure> {
    let failed = |error: &io::Error| Failure::io("read", path, error);
    let mut file = File::open(path).map_err(|error| Failure::io("open", path, &error))?;
    let size = file.metadata().map_err(|error| failed(&error))?.len();
    let mut reader = SummaryReader::new_with_options(
        SummaryReaderOptions::default()
            .with_file_size(size)
            .with_record_length_limit(RECORD_BYTES_MAX),
    );
    while let Some(event) = reader.next_event() {
        match event {
            Ok(SummaryReadEvent::ReadRequest(need)) => {
                let count = file
                    .read(reader.insert(need))
                    .map_err(|error| failed(&error))?;
                reader.notify_read(count);
            }
            Ok(SummaryReadEvent::SeekRequest(to)) => {
                // A file shorter than a footer cannot be sought in; it has no summary then.
                let Ok(at) = file.seek(to) else {
                    return Ok(None);
                };
                reader.notify_seeked(at);
            }
            Err(_) => return Ok(None), // cut off, or damaged: reading it through will tell
        }
    }
    let Some(summary) = reader.finish() else {
        return Ok(None);
    };
    let Some(stats) = summary.stats else {
        return Ok(None);
    };
    let channels = summary
        .channels
        .iter()
        .map(|(&id, channel)| {
            let facts = channel_facts(
                channel,
                stats.channel_message_counts.get(&id).copied().unwrap_or(0),
            );
            (id, facts)
        })
        .collect();
    Ok(Some(Contents {
        channels,
        start_ns: stats.message_start_time,
        end_ns: stats.message_end_time,
        complete: true,
    }))
}

fn channel_facts(channel: &::mcap::Channel<'_>, messages: u64) -> ChannelFacts {
    ChannelFacts {
        topic: channel.topic.clone(),
        schema: channel
            .schema
            .as_ref()
            .map_or_else(String::new, |schema| schema.name.clone()),
        encoding: channel.message_encoding.clone(),
        messages,
        about: channel.metadata.get(TOPIC_KEY).cloned(),
    }
}

fn read_through(path: &Path) -> Result<Contents, Failure> {
    let mut contents = Contents {
        channels: BTreeMap::new(),
        start_ns: u64::MAX,
        end_ns: 0,
        complete: true,
    };
    for message in messages(path)? {
        let message = match message {
            Ok(message) => message,
            Err(error) if is_cut_off(&error) && !contents.channels.is_empty() => {
                contents.complete = false;
                break;
            }
            Err(error) => return Err(Failure::mcap("read", path, &error)),
        };
        contents
            .channels
            .entry(message.channel.id)
            .or_insert_with(|| channel_facts(&message.channel, 0))
            .messages += 1;
        contents.start_ns = contents.start_ns.min(message.log_time);
        contents.end_ns = contents.end_ns.max(message.log_time);
    }
    contents.start_ns = contents.start_ns.min(contents.end_ns);
    Ok(contents)
}

/// What is in a recording.
///
/// Reads the summary at its end; a file without one (its writer was killed) is read through.
///
/// Returns:
///     `channels` (a list of `topic`, `schema`, `encoding`, `messages`, `about`), `start_ns` and `end_ns` (times of logging), and
///     `complete`: False for a file that was cut off.
///
/// Raises:
///     `RecordingError`: It cannot be read.
#[pyfunction]
pub(crate) fn recording_contents<'py>(py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyDict>> {
    let path = Path::new(path);
    let contents = gil::detached(py, || match read_summary(path) {
        Ok(Some(contents)) => Ok(contents),
        Ok(None) => read_through(path),
        Err(failure) => Err(failure),
    })
    .map_err(|failure| failure.into_python(py))?;
    let channels = PyList::empty(py);
    for facts in contents.channels.values() {
        let channel = PyDict::new(py);
        channel.set_item("topic", &facts.topic)?;
        channel.set_item("schema", &facts.schema)?;
        channel.set_item("encoding", &facts.encoding)?;
        channel.set_item("messages", facts.messages)?;
        channel.set_item("about", &facts.about)?;
        channels.append(channel)?;
    }
    let result = PyDict::new(py);
    result.set_item("channels", channels)?;
    result.set_item("start_ns", contents.start_ns)?;
    result.set_item("end_ns", contents.end_ns)?;
    result.set_item("complete", contents.complete)?;
    Ok(result)
}
