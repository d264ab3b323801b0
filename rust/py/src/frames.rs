//! The join: the body of a request goes into a slot of shared memory, without Python in the path.
//!
//! A request that has a body carries a [`BodyHandle`] in `scope["extensions"]["framegate.frames"]`. `framegate.ingest` finds it
//! there (also behind middleware that wraps `receive`) and calls [`BodyHandle::ingest`]: a task of the loop takes the body out
//! of the exchange, loans a slot, lets the HTTP core fill it from the socket, publishes it, and completes an asyncio
//! future. From then on `receive()` knows only the end: it waits for the client to go away.
//!
//! # Order of events
//! ```text
//! ingest() -> publisher known? --no--> open it (a thread: creating a topic touches all its memory)
//!                  |                        |
//!                  +------------------------+--> length against slot --> loan (wait without blocking) --> fill --> publish
//!                                                  413 before a read      503 after the time-out      gone: abandon
//! ```
//!
//! # Who owns what
//! The publishers belong to the worker ([`Publishers`]), one per topic and way of using it, so that a request costs no
//! opening. A loan belongs to the task; when the application is cancelled, the task is, and the loan is abandoned.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use framegate_http::{
    body::Body,
    ingest::{self, FrameSlot, IngestError, Published},
    topics::FrameHead,
};
use framegate_shm::{Array, Dtype, FrameMeta, Loan, Publisher, TopicOptions, Value};
use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError, PyValueError},
    prelude::*,
};

use crate::asgi::{Application, http::HttpExchange};
use crate::error;
use crate::promise::promise;

/// Open publishers that a worker keeps. Each is a participant of its topic; whoever names topics by what clients send should
/// bound the names, this only bounds what is kept.
const PUBLISHERS_MAX: usize = 64;

/// Keys of a frame's own data for the size of an encoded picture.
pub(crate) const WIDTH: &str = "width";
pub(crate) const HEIGHT: &str = "height";

/// Between two attempts to loan a slot of a full topic: consumers hold frames for milliseconds.
const LOAN_RETRY: Duration = Duration::from_millis(1);

/// Which topic, and what its frames are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) topic: String,
    array: Option<(Dtype, Vec<u64>)>,
    slots: u32,
    slot_bytes: Option<u64>,
}

impl Target {
    /// From what a handler says.
    pub(crate) fn new(
        py: Python<'_>,
        topic: String,
        (dtype, shape): (Option<&str>, Option<Vec<u64>>),
        slots: u32,
        slot_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let array = match (dtype, shape) {
            (None, None) => None,
            (Some(dtype), Some(shape)) => {
                let dtype = Dtype::from_name(dtype).ok_or_else(|| {
                    PyValueError::new_err(format!("{dtype:?} is not the name of a dtype"))
                })?;
                Some((dtype, shape))
            }
            _ => {
                return Err(PyTypeError::new_err(
                    "dtype and shape go together, or neither for raw bytes",
                ));
            }
        };
        framegate_shm::check_topic_name(&topic).map_err(|error| error::shm_error(py, &error))?;
        Ok(Self {
            topic,
            array,
            slots,
            slot_bytes,
        })
    }

    /// Bytes of a frame, where dtype and shape fix them.
    pub(crate) fn frame_bytes(&self) -> Option<u64> {
        self.array
            .as_ref()
            .map(|(dtype, shape)| Array::new("", *dtype, shape).bytes())
    }

    fn options(&self, declared: Option<u64>) -> Result<TopicOptions, PyErr> {
        let slot_bytes = self.slot_bytes.or(self.frame_bytes()).or(declared);
        let slot_bytes = slot_bytes.filter(|&bytes| bytes > 0).ok_or_else(|| {
            PyValueError::new_err(format!(
                "how large are frames of topic {:?}? The body has no Content-Length: say slot_bytes, or dtype and shape",
                self.topic
            ))
        })?;
        Ok(TopicOptions {
            slots: self.slots,
            slot_bytes,
            schema: self
                .array
                .iter()
                .map(|(dtype, shape)| Array::new("", *dtype, shape))
                .collect(),
            ..TopicOptions::default()
        })
    }
}

/// The publishers of one worker, most recently used first.
#[derive(Default)]
pub(crate) struct Publishers(RefCell<Vec<(Target, Publisher)>>);

impl Publishers {
    fn get(&self, target: &Target) -> Option<Publisher> {
        let mut known = self.0.borrow_mut();
        let position = known.iter().position(|(other, _)| other == target)?;
        known[..=position].rotate_right(1);
        Some(known[0].1.clone())
    }

    fn keep(&self, target: Target, publisher: Publisher) {
        let mut known = self.0.borrow_mut();
        known.insert(0, (target, publisher));
        known.truncate(PUBLISHERS_MAX);
    }

    /// The worker's publisher for the target, opened now if it is the first time.
    pub(crate) async fn open(
        &self,
        target: &Target,
        declared: Option<u64>,
    ) -> Result<Publisher, Failure> {
        if let Some(publisher) = self.get(target) {
            return Ok(publisher);
        }
        let options = target.options(declared).map_err(Failure::Python)?;
        let topic = target.topic.clone();
        // Creating a topic touches every page of it: on a thread of its own, which never needs the GIL.
        let opened = tokio::task::spawn_blocking(move || {
            if options.schema.is_empty()
                && let Ok(publisher) = Publisher::open(&topic)
            {
                // Raw bytes go into an existing topic whatever its slots are: a body that does not fit is refused.
                return Ok(publisher);
            }
            Publisher::create_or_open(&topic, &options)
        })
        .await;
        let publisher = match opened {
            Ok(opened) => opened.map_err(Failure::Shm)?,
            Err(_) => {
                return Err(Failure::Python(PyRuntimeError::new_err(
                    "the worker is closing",
                )));
            }
        };
        self.keep(target.clone(), publisher.clone());
        Ok(publisher)
    }

    /// Lets go of all of them, when the worker closes.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// The body of one request, to be moved into shared memory.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct BodyHandle(Py<HttpExchange>);

impl BodyHandle {
    pub(crate) fn new(exchange: Py<HttpExchange>) -> Self {
        Self(exchange)
    }
}

#[pymethods]
impl BodyHandle {
    /// Whether nobody has read a byte of the body: it can be ingested natively.
    #[getter]
    fn untouched(&self, py: Python<'_>) -> PyResult<bool> {
        self.0.get().body_is_untouched(py)
    }

    /// Count a body that went through Python because it had been read from before.
    fn count_plain(&self) -> PyResult<()> {
        let application = self.0.get().application()?;
        application.count_ingest(false);
        Ok(())
    }

    /// Move the whole body into a slot of the topic and publish it.
    ///
    /// Returns:
    ///     An awaitable of `(sequence, bytes)`.
    #[pyo3(signature = (topic, *, dtype=None, shape=None, slots=8, slot_bytes=None, time=None, timeout=1.0))]
    #[expect(clippy::too_many_arguments, reason = "the keywords of one Python call")]
    fn ingest<'py>(
        &self,
        py: Python<'py>,
        topic: String,
        dtype: Option<&str>,
        shape: Option<Vec<u64>>,
        slots: u32,
        slot_bytes: Option<u64>,
        time: Option<f64>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let target = Target::new(py, topic, (dtype, shape), slots, slot_bytes)?;
        let timeout = Duration::try_from_secs_f64(timeout)
            .map_err(|_| PyValueError::new_err(format!("timeout={timeout} is not a duration")))?;
        let exchange = self.0.get();
        let application = exchange.application()?;
        let body = exchange.take_body(py)?.ok_or_else(|| {
            PyRuntimeError::new_err("the body was read or ingested before: a body is ingested once")
        })?;
        let job = Job {
            application: application.clone(),
            target,
            time,
            timeout,
        };
        let exchange = self.0.clone_ref(py);
        promise(py, &application, async move {
            let mut body = Some(body);
            let outcome = job.run(&mut body).await;
            move |py: Python<'_>| {
                let published = outcome.map_err(|failure| {
                    exchange.get().give_back_body(body);
                    failure.into_python(py)
                })?;
                let pair = (published.sequence, published.bytes);
                Ok(pair.into_pyobject(py)?.into_any().unbind())
            }
        })
    }
}

/// Why nothing was published.
pub(crate) enum Failure {
    Ingest(IngestError, String),
    Shm(framegate_shm::Error),
    /// The body is shorter than dtype and shape demand.
    Short {
        bytes: u64,
        expected: u64,
    },
    /// The body is longer than a slot, or than dtype and shape demand.
    Long {
        bytes: Option<u64>,
        room: u64,
        topic: String,
    },
    Python(PyErr),
}

impl Failure {
    pub(crate) fn into_python(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Python(error) => error,
            Self::Shm(error) => error::shm_error(py, &error),
            Self::Short { bytes, expected } => error::exception(
                py,
                "FrameTooShort",
                &format!("the body has {bytes} bytes, dtype and shape want {expected}"),
            ),
            Self::Long { bytes, room, topic } => {
                let bytes =
                    bytes.map_or_else(|| "more".to_owned(), |bytes| format!("{bytes} bytes, more"));
                error::exception(
                    py,
                    "FrameTooLarge",
                    &format!("the body has {bytes} than the {room} that topic {topic:?} takes"),
                )
            }
            Self::Ingest(cause, topic) => {
                if cause.is_body() {
                    return error::exception(
                        py,
                        "ClientDisconnected",
                        "the client went away before the end of the body; nothing was published",
                    );
                }
                let source = std::error::Error::source(&cause);
                match source.and_then(|source| source.downcast_ref::<framegate_shm::Error>()) {
                    Some(error) => error::shm_error(py, error),
                    None => error::exception(py, "ShmError", &format!("topic {topic:?}: {cause}")),
                }
            }
        }
    }
}

struct Job {
    application: Rc<Application>,
    target: Target,
    time: Option<f64>,
    timeout: Duration,
}

impl Job {
    /// Takes the body when it begins to read it: what was not begun can be read by the application after a failure.
    async fn run(&self, offered: &mut Option<Body>) -> Result<Published, Failure> {
        let declared = offered.as_ref().and_then(Body::remaining);
        let publisher = self
            .application
            .publishers
            .open(&self.target, declared)
            .await?;
        let room = self
            .target
            .frame_bytes()
            .unwrap_or_else(|| publisher.slot_bytes());
        if declared.is_some_and(|bytes| bytes > room) {
            return Err(self.too_long(declared, room));
        }
        if let (Some(bytes), Some(expected)) = (declared, self.target.frame_bytes())
            && bytes < expected
        {
            return Err(Failure::Short { bytes, expected });
        }
        let loan = self.loan(&publisher, declared.unwrap_or(room)).await?;
        let mut slot = Box::new(Slot::new(loan));
        let mut body = offered.take().expect("a body is ingested once");
        let failed = |error: IngestError| {
            if error.is_too_large() {
                self.too_long(declared, room)
            } else {
                Failure::Ingest(error, self.target.topic.clone())
            }
        };
        let bytes = ingest::fill(&mut body, &mut *slot, room)
            .await
            .map_err(failed)?;
        if let Some(expected) = self.target.frame_bytes()
            && bytes != expected
        {
            return Err(Failure::Short { bytes, expected });
        }
        let head = FrameHead {
            timestamp: self.time,
            ..FrameHead::default()
        };
        let published = slot.publish(&head).map_err(failed)?;
        self.application.count_ingest(true);
        Ok(published)
    }

    fn too_long(&self, bytes: Option<u64>, room: u64) -> Failure {
        Failure::Long {
            bytes,
            room,
            topic: self.target.topic.clone(),
        }
    }

    /// Loans a slot; a full topic is asked again until the time-out, without blocking the loop.
    async fn loan(&self, publisher: &Publisher, bytes: u64) -> Result<Loan, Failure> {
        let deadline = Instant::now() + self.timeout;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        loop {
            match publisher.loan(bytes, Duration::ZERO) {
                Err(error) if error.is_topic_full() && Instant::now() < deadline => {
                    tokio::time::sleep(LOAN_RETRY).await;
                }
                loaned => return loaned.map_err(Failure::Shm),
            }
        }
    }
}

/// A loaned slot that is being filled.
pub(crate) struct Slot {
    loan: Loan,
    filled: usize,
    /// Name of the array that a frame is which says its dtype and shape itself; `None`: the schema of the topic says them.
    array_name: Option<String>,
}

impl Slot {
    /// A slot for frames of which the topic knows what they are.
    pub(crate) fn new(loan: Loan) -> Self {
        Self {
            loan,
            filled: 0,
            array_name: None,
        }
    }

    /// The same for frames that say what they are.
    pub(crate) fn with_array(self, name: Option<String>) -> Self {
        Self {
            array_name: name,
            ..self
        }
    }
}

impl FrameSlot for Slot {
    fn space(&mut self) -> &mut [u8] {
        &mut self.loan.as_mut_slice()[self.filled..]
    }

    fn filled(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    fn payload(&self) -> &[u8] {
        &self.loan.as_slice()[..self.filled]
    }

    fn publish(self: Box<Self>, head: &FrameHead) -> Result<Published, IngestError> {
        let array = head.array.as_ref().zip(self.array_name.as_deref());
        let array = array.map(|(array, name)| {
            let dtype = Dtype::from_name(array.dtype().name());
            let dtype = dtype.expect("both crates have the dtypes of shm.h");
            Array::new(name, dtype, array.shape())
        });
        let user_metadata = match head.picture {
            Some((width, height)) => framegate_shm::encode_values(&[
                (WIDTH, Value::Int(width.into())),
                (HEIGHT, Value::Int(height.into())),
            ])
            .map_err(IngestError::unavailable)?,
            None => Vec::new(),
        };
        let meta = FrameMeta {
            bytes: Some(self.filled),
            timestamp_s: head.timestamp,
            arrays: array.as_slice(),
            content_type: head.content_type.as_deref(),
            user_metadata: &user_metadata,
        };
        let bytes = self.filled as u64;
        let sequence = self.loan.publish(&meta).map_err(IngestError::unavailable)?;
        Ok(Published { sequence, bytes })
    }
}
