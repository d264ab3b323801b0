//! Frames between a WebSocket of the application and a topic, without Python: `framegate.websocket_to_topic` and
//! `framegate.topic_to_websocket`.
//!
//! The handler stays in `receive()`, which has nothing to say until the WebSocket ends. In: while a [`Sink`] is there, a binary
//! message goes into a loaned slot as it arrives. Messages that wait for `receive` come first, and as long as any does later ones wait
//! behind them, so that none overtakes another; the handler gives those to [`SocketSink::put`]. Texts are always the
//! handler's. Out: a task that is polled with the session leaves one frame after the other in the outbox.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use framegate_http::{
    ingest::{FrameSlot, Published},
    topics::{Code, FrameHead, Problem, board::Event},
    websocket::{Failure, Kind, code},
};
use framegate_shm::Publisher;
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
    types::PyDict,
};
use tokio::io::ReadBuf;

use super::{Phase, State, WebSocketExchange};
use crate::asgi::Application;
use crate::error;
use crate::frames::{Failure as Refusal, Slot, Target};
use crate::home::LoopBound;
use crate::promise::promise;
use crate::topics::handlers::refusal;

/// Bytes of a message that finds no slot are read and forgotten so many at a time.
const SCRATCH_BYTES: usize = 4096;

/// Where binary messages go.
pub(super) struct Sink {
    publisher: Publisher,
    target: Target,
    content_type: Option<String>,
    application: Rc<Application>,
    frames: Cell<u64>,
    dropped: Cell<u64>,
    error: RefCell<Option<Wrong>>,
}

/// What is wrong with a message.
#[derive(Clone, Debug)]
enum Wrong {
    Long { room: usize },
    Short { bytes: usize, expected: u64 },
    Shm(framegate_shm::Error),
}

impl Sink {
    /// Bytes that a message may have.
    fn room(&self) -> usize {
        let bytes = self.target.frame_bytes();
        usize::try_from(bytes.unwrap_or_else(|| self.publisher.slot_bytes())).unwrap_or(usize::MAX)
    }

    fn fail(&self, wrong: Wrong) -> Failure {
        let failure = match &wrong {
            Wrong::Long { .. } => Failure {
                code: code::TOO_BIG,
                reason: "the message is larger than a frame of the topic",
            },
            Wrong::Short { .. } => Failure {
                code: code::INVALID_PAYLOAD,
                reason: "the message is shorter than a frame of the topic",
            },
            Wrong::Shm(_) => Failure {
                code: code::INTERNAL_ERROR,
                reason: "the topic cannot be published to",
            },
        };
        let code = match &wrong {
            Wrong::Long { .. } => Code::FrameTooLarge,
            Wrong::Short { .. } => Code::FrameLength,
            Wrong::Shm(_) => Code::Unavailable,
        };
        let mut error = self.error.borrow_mut();
        if error.is_none() {
            // The end of the WebSocket: there is no second one.
            *error = Some(wrong);
            self.count_refusal(code);
        }
        failure
    }

    fn count_refusal(&self, code: Code) {
        self.application.handlers.happened(&Event::Refused {
            topic: Some(&self.target.topic),
            problem: &Problem::new(code, ""),
        });
    }

    /// A place for a message of at least so many bytes.
    fn begin(self: &Rc<Self>, bytes: u64) -> Result<Incoming, Failure> {
        let room = self.room();
        if bytes > room as u64 {
            return Err(self.fail(Wrong::Long { room }));
        }
        let filling = match self.publisher.loan(room, Duration::ZERO) {
            Ok(loan) => Filling::Slot(Box::new(Slot::new(loan))),
            // Whoever sends frames all the time loses the one for which there is no place.
            Err(error) if error.is_topic_full() => Filling::Dropped(Box::new([0; SCRATCH_BYTES])),
            Err(error) => return Err(self.fail(Wrong::Shm(error))),
        };
        Ok(Incoming {
            sink: self.clone(),
            filling,
            bytes: 0,
        })
    }
}

/// A message on its way into a slot.
pub(super) struct Incoming {
    sink: Rc<Sink>,
    filling: Filling,
    bytes: usize,
}

enum Filling {
    Slot(Box<Slot>),
    Dropped(Box<[u8; SCRATCH_BYTES]>),
}

impl Incoming {
    pub(super) fn space(&mut self) -> ReadBuf<'_> {
        let room = self.sink.room();
        let left = room.saturating_sub(self.bytes);
        if left == 0 {
            self.sink.fail(Wrong::Long { room });
        }
        match &mut self.filling {
            Filling::Slot(slot) => {
                let space = slot.space();
                let left = left.min(space.len());
                ReadBuf::new(&mut space[..left])
            }
            Filling::Dropped(scratch) => ReadBuf::new(&mut scratch[..left.min(SCRATCH_BYTES)]),
        }
    }

    pub(super) fn filled(&mut self, count: usize) {
        self.bytes += count;
        if let Filling::Slot(slot) = &mut self.filling {
            slot.filled(count);
        }
    }

    /// All of a message that is there.
    pub(super) fn whole(mut self, mut payload: &[u8]) -> Result<(), Failure> {
        while !payload.is_empty() {
            let mut space = self.space();
            let count = space.remaining().min(payload.len());
            space.put_slice(&payload[..count]);
            self.filled(count);
            payload = &payload[count..];
        }
        self.end()
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        let Self {
            sink,
            filling,
            bytes,
        } = self;
        if let Some(expected) = sink.target.frame_bytes()
            && bytes as u64 != expected
        {
            return Err(sink.fail(Wrong::Short { bytes, expected }));
        }
        let Filling::Slot(slot) = filling else {
            sink.count_refusal(Code::TopicFull);
            sink.dropped.set(sink.dropped.get() + 1);
            return Ok(());
        };
        let head = FrameHead {
            content_type: sink.content_type.clone(),
            ..FrameHead::default()
        };
        match slot.publish(&head) {
            Ok(Published { bytes, .. }) => {
                sink.application
                    .handlers
                    .happened(&Event::Published { bytes });
                sink.frames.set(sink.frames.get() + 1);
                Ok(())
            }
            Err(error) => {
                let source = std::error::Error::source(&error);
                match source.and_then(|source| source.downcast_ref::<framegate_shm::Error>()) {
                    Some(error) => Err(sink.fail(Wrong::Shm(error.clone()))),
                    None => Err(Failure {
                        code: code::INTERNAL_ERROR,
                        reason: "the topic cannot be published to",
                    }),
                }
            }
        }
    }
}

impl State {
    /// A place for a message, if it is to become a frame.
    pub(super) fn incoming_frame(
        &self,
        kind: Kind,
        bytes: u64,
    ) -> Result<Option<Incoming>, Failure> {
        let sink = self.sink.borrow();
        match &*sink {
            Some(sink) if kind == Kind::Binary && self.incoming.borrow().is_empty() => {
                sink.begin(bytes).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// What a handler finds in the scope of a WebSocket; an empty dictionary, as extensions of ASGI are.
#[pyclass(frozen, extends = PyDict, module = "framegate._http")]
pub(crate) struct SocketHandle(Py<WebSocketExchange>);

impl SocketHandle {
    pub(super) fn new(exchange: Py<WebSocketExchange>) -> Self {
        Self(exchange)
    }
}

#[pymethods]
impl SocketHandle {
    /// Whether the WebSocket is accepted.
    #[getter]
    fn accepted(&self) -> PyResult<bool> {
        Ok(self.0.get().0.get_or_raise()?.phase.get() == Phase::Accepted)
    }

    /// Make frames of the binary messages that come from now on.
    ///
    /// Returns:
    ///     An awaitable of a `SocketSink`.
    #[pyo3(signature = (topic, *, dtype=None, shape=None, content_type=None, slots=8, slot_bytes=None))]
    #[expect(clippy::too_many_arguments, reason = "the keywords of one Python call")]
    fn publish<'py>(
        &self,
        py: Python<'py>,
        topic: String,
        dtype: Option<&str>,
        shape: Option<Vec<u64>>,
        content_type: Option<String>,
        slots: u32,
        slot_bytes: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let target = Target::new(py, topic, (dtype, shape), slots, slot_bytes)?;
        let state = self.0.get().0.get_or_raise()?;
        let application = state.application.clone();
        let exchange = self.0.clone_ref(py);
        promise(py, &application.clone(), async move {
            let opened = application.publishers.open(&target, None).await;
            move |py: Python<'_>| {
                let publisher = opened.map_err(|refusal: Refusal| refusal.into_python(py))?;
                let sink = Rc::new(Sink {
                    publisher,
                    target,
                    content_type,
                    application,
                    frames: Cell::new(0),
                    dropped: Cell::new(0),
                    error: RefCell::default(),
                });
                let state = exchange.get().0.get_or_raise()?;
                if state.sink.borrow().is_some() {
                    return Err(PyRuntimeError::new_err(
                        "the messages of this WebSocket become frames already",
                    ));
                }
                state.sink.replace(Some(sink.clone()));
                let sink = SocketSink {
                    sink: LoopBound::new(sink),
                    exchange,
                };
                Ok(Bound::new(py, sink)?.into_any().unbind())
            }
        })
    }

    /// Send the frames of a topic, as the query of a frame route says, until `unwatch`.
    ///
    /// Returns:
    ///     An awaitable of nothing: from then on frames are sent.
    fn watch<'py>(
        &self,
        py: Python<'py>,
        topic: String,
        query: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = self.0.get().0.get_or_raise()?;
        let application = state.application.clone();
        let routes = application.handlers.routes(py, &application)?;
        let (exchange, outbox) = (self.0.clone_ref(py), state.outbox.clone());
        promise(py, &application, async move {
            let viewer = routes.deliver(&topic, &query, outbox).await;
            move |py: Python<'_>| {
                let viewer = viewer.map_err(|problem| refusal(py, &problem))?;
                let state = exchange.get().0.get_or_raise()?;
                if state.viewer.borrow().is_some() {
                    return Err(PyRuntimeError::new_err(
                        "a topic is sent over this WebSocket already",
                    ));
                }
                if state.ended.borrow().is_none() {
                    state.viewer.replace(Some(viewer));
                    state.outbox.wake();
                }
                Ok(py.None())
            }
        })
    }

    /// Send no further frame.
    fn unwatch(&self) -> PyResult<()> {
        let viewer = self.0.get().0.get_or_raise()?.viewer.take();
        drop(viewer);
        Ok(())
    }
}

/// Frames that a WebSocket makes.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct SocketSink {
    sink: LoopBound<Rc<Sink>>,
    exchange: Py<WebSocketExchange>,
}

#[pymethods]
impl SocketSink {
    /// Frames that were published.
    #[getter]
    fn frames(&self) -> PyResult<u64> {
        Ok(self.sink.get_or_raise()?.frames.get())
    }

    /// Messages that found no free slot.
    #[getter]
    fn dropped(&self) -> PyResult<u64> {
        Ok(self.sink.get_or_raise()?.dropped.get())
    }

    /// Make a frame of a message that came before.
    ///
    /// Raises:
    ///     `FrameTooLarge`: It is larger than a frame of the topic.
    ///     `FrameTooShort`: It is shorter.
    fn put(&self, py: Python<'_>, message: &[u8]) -> PyResult<()> {
        let sink = self.sink.get_or_raise()?;
        let incoming = sink.begin(message.len() as u64);
        let done = incoming.and_then(|incoming| incoming.whole(message));
        match done {
            Ok(()) => Ok(()),
            Err(failure) => {
                self.check(py)?;
                Err(PyValueError::new_err(failure.reason))
            }
        }
    }

    /// Raise what was wrong with a message, if one ended the WebSocket.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let sink = self.sink.get_or_raise()?;
        let wrong = sink.error.borrow().clone();
        let topic = &sink.target.topic;
        match wrong {
            None => Ok(()),
            Some(Wrong::Shm(shm)) => Err(error::shm_error(py, &shm)),
            Some(Wrong::Long { room }) => Err(error::exception(
                py,
                "FrameTooLarge",
                &format!("a message is longer than {room} bytes, all that topic {topic:?} takes"),
            )),
            Some(Wrong::Short { bytes, expected }) => Err(error::exception(
                py,
                "FrameTooShort",
                &format!("a message has {bytes} bytes, dtype and shape want {expected}"),
            )),
        }
    }

    /// Messages are the handler's again.
    fn close(&self) -> PyResult<()> {
        let sink = self.exchange.get().0.get_or_raise()?.sink.take();
        drop(sink);
        Ok(())
    }
}
