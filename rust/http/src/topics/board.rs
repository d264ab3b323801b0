//! The seam between the frame routes and the topics behind them.
//!
//! A [`Board`] has topics by name. It may create one for a publisher, by its own rules and never by what the client says of
//! sizes. The product's board stands on shared memory; tests have one in plain memory.
//!
//! A board belongs to one thread, as services do. What it gives out may be shared behind it: two boards of one process should
//! give the bytes of the same [`Frame`] to all viewers, so that each frame is leased once.

use std::{
    future::{Future, ready},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use super::head::{ArrayHead, Dtype, FrameHead};
use super::problem::{Code, Problem};
use crate::fanout::Parcel;
use crate::ingest::FrameSlot;
use crate::pictures::{Decoder, Setting};

/// What a board answers later: opening a topic is work for another thread.
pub type BoardFuture<T> = Pin<Box<dyn Future<Output = Result<T, Problem>>>>;

/// Topics, by name. Names that come here follow the grammar of topics ([`super::check_name`]).
pub trait Board: 'static {
    /// What exists, sorted by name.
    fn list(&self) -> BoardFuture<Vec<TopicInfo>>;

    /// What one topic is like now.
    ///
    /// # Errors
    /// [`Code::TopicUnknown`](super::Code::TopicUnknown)
    fn info(&self, topic: &str) -> BoardFuture<TopicInfo>;

    /// Who takes part in one topic now.
    ///
    /// # Errors
    /// As [`Board::info`].
    fn participants(&self, topic: &str) -> BoardFuture<Vec<Participant>>;

    /// What publishes on the topic, which is created if it does not exist and the rules allow it.
    ///
    /// # Errors
    /// [`Code::TopicUnknown`](super::Code::TopicUnknown), [`Code::TopicsExhausted`](super::Code::TopicsExhausted),
    /// [`Code::StorageFull`](super::Code::StorageFull), [`Code::Unavailable`](super::Code::Unavailable).
    fn publisher(&self, topic: &str) -> BoardFuture<Opened>;

    /// The frames of a topic.
    ///
    /// # Errors
    /// As [`Board::info`].
    fn feed(&self, topic: &str) -> BoardFuture<Rc<dyn Feed>>;

    /// What asks the responders of the topic, which has to exist.
    ///
    /// # Errors
    /// As [`Board::info`], and [`Code::NoResponder`](super::Code::NoResponder) where nobody can be asked at all.
    fn caller(&self, _topic: &str) -> BoardFuture<Rc<dyn Caller>> {
        Box::pin(ready(Err(Problem::new(
            Code::NoResponder,
            "topics here have no responders",
        ))))
    }

    /// Called once for everything that happened, to be counted and logged.
    fn happened(&self, event: &Event<'_>);
}

/// A publisher, and whether its topic is new.
pub struct Opened {
    /// What publishes.
    pub publisher: Rc<dyn Publisher>,
    /// The topic was created by this call.
    pub created: bool,
}

/// Publishes on one topic.
pub trait Publisher: 'static {
    /// Payload bytes of a slot.
    fn slot_bytes(&self) -> u64;

    /// What every frame of the topic is.
    fn schema(&self) -> &Schema;

    /// What makes pixels of a JPEG or PNG before it is published; `None`: files are kept as they are.
    fn decoder(&self) -> Option<&Decoder> {
        None
    }

    /// Loans a slot for a frame of at most `bytes` bytes, without waiting.
    ///
    /// # Errors
    /// [`Code::TopicFull`](super::Code::TopicFull) if none is free, [`Code::FrameTooLarge`](super::Code::FrameTooLarge).
    fn loan(&self, bytes: u64) -> Result<Box<dyn FrameSlot>, Problem>;
}

/// Asks the responders of one topic.
pub trait Caller: 'static {
    /// One call, whose reply may take so long once its request is whole. To drop what it gives cancels it.
    ///
    /// # Errors
    /// [`Code::CallsExhausted`](super::Code::CallsExhausted).
    fn ask(self: Rc<Self>, timeout: Duration) -> Result<Asking, Problem>;
}

/// A call.
pub struct Asking {
    /// Takes the request as one frame of any kind; published, it is posted to a responder. What that gives has no sequence.
    ///
    /// # Errors
    /// Those of [`Publisher::loan`]; when it is posted also [`Code::NoResponder`](super::Code::NoResponder) and
    /// [`Code::CallsExhausted`](super::Code::CallsExhausted).
    pub request: Box<dyn Publisher>,
    /// The reply, to be polled once the request is posted.
    ///
    /// # Errors
    /// [`Code::ReplyLate`](super::Code::ReplyLate), [`Code::ResponderDied`](super::Code::ResponderDied),
    /// [`Code::CallFailed`](super::Code::CallFailed).
    pub reply: BoardFuture<Reply>,
}

/// What a responder has answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What is said of it.
    pub head: FrameHead,
    /// Its bytes. A clone keeps them held.
    pub payload: Bytes,
}

/// A queue of a feed's frames, to be opened where they are wanted: on any thread of the process. Frames come into it from its making
/// on.
pub type InOrder = Box<dyn FnOnce() -> Rc<dyn Feed> + Send>;

/// The frames of one topic, as this process sees them.
pub trait Feed: 'static {
    /// Tells one life of the topic from the next: another one after it was removed and created again.
    fn session(&self) -> u64;

    /// The newest frame; `None` if there was none yet.
    ///
    /// # Errors
    /// [`Code::Unavailable`](super::Code::Unavailable)
    fn newest(&self) -> Result<Option<Frame>, Problem>;

    /// What waits for frames, for one viewer.
    fn watch(&self) -> Box<dyn Watching>;

    /// A frame as a picture; made once for all who ask for the same. The frame is held until it is made.
    ///
    /// # Errors
    /// [`Code::NoPicture`](super::Code::NoPicture), [`Code::PicturesBusy`](super::Code::PicturesBusy).
    fn picture(&self, frame: &Frame, setting: Setting) -> BoardFuture<Bytes>;

    /// The same, if the frame itself is that picture: most viewers of a camera get what it made.
    fn picture_as_is(&self, _frame: &Frame, _setting: Setting) -> Option<Bytes> {
        None
    }

    /// A parcel sends from a frame of this feed, which may have it copy the rest when frames are scarce.
    fn lends(&self, sequence: u64, parcel: &Arc<Parcel>);

    /// A feed that gives each frame that is published from now on, in order, to who [watches](Self::watch) it, while no more than so
    /// many wait for him; beyond that the oldest is left out. It is for one viewer.
    ///
    /// # Errors
    /// [`Code::Unavailable`](super::Code::Unavailable); the topic went away, or there are no frames but the newest.
    fn in_order(&self, _frames_max: usize) -> BoardFuture<InOrder> {
        Box::pin(ready(Err(Problem::new(
            Code::Unavailable,
            "only the newest frames are to be had here",
        ))))
    }
}

/// Waits for the frames of a feed, one after the other.
pub trait Watching {
    /// The newest frame, as soon as its sequence is greater than `after`.
    ///
    /// # Errors
    /// [`Code::Unavailable`](super::Code::Unavailable); the topic went away.
    fn poll_newer(&mut self, after: u64, cx: &mut Context<'_>) -> Poll<Result<Frame, Problem>>;
}

/// A frame that is held: its bytes stay as they are until it is dropped.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its number in the topic, 1 upwards.
    pub sequence: u64,
    /// When it was published; nanoseconds since 1970.
    pub published_ns: u64,
    /// What is said of it, to whoever gets it.
    pub head: Arc<FrameHead>,
    /// Its bytes. A clone keeps the frame held.
    pub payload: Bytes,
}

/// What every frame of a topic is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Schema {
    /// Anything.
    #[default]
    Free,
    /// One array. A dimension that is `None` may have any length.
    Array {
        /// Type of its items.
        dtype: Dtype,
        /// Lengths of its dimensions.
        shape: Vec<Option<u64>>,
    },
    /// Several arrays, or fields of records, which HTTP has no words for: only their bytes can be sent.
    Other {
        /// Bytes of a frame, if they are fixed.
        bytes: Option<u64>,
    },
}

impl Schema {
    /// Bytes of every frame, if they are fixed.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Free => None,
            Self::Array { dtype, shape } => {
                let shape = shape.iter().copied().collect::<Option<_>>()?;
                ArrayHead::new(*dtype, shape).map(|array| array.bytes())
            }
            Self::Other { bytes } => *bytes,
        }
    }

    /// Whether a frame may be such an array.
    pub(crate) fn admits(&self, array: &ArrayHead) -> bool {
        match self {
            Self::Free => true,
            Self::Other { .. } => false,
            Self::Array { dtype, shape } => {
                *dtype == array.dtype()
                    && shape.len() == array.shape().len()
                    && shape
                        .iter()
                        .zip(array.shape())
                        .all(|(wanted, length)| wanted.is_none_or(|wanted| wanted == *length))
            }
        }
    }
}

/// What a topic is like at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// What its frames are.
    pub schema: Schema,
    /// Number of slots.
    pub slots: u32,
    /// Payload bytes of a slot.
    pub slot_bytes: u64,
    /// Number of the newest frame; 0: none yet.
    pub sequence: u64,
    /// Living publishers, of all processes.
    pub publishers: u32,
    /// Living subscribers, of all processes.
    pub subscribers: u32,
    /// Living responders, of all processes.
    pub responders: u32,
    /// Frames that are held; one that three hold counts three times.
    pub leases: u64,
    /// Frames that the present subscribers lost, because they were too slow.
    pub lost: u64,
}

/// Somebody who takes part in a topic, of any process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// What it calls itself.
    pub name: String,
    /// Its process.
    pub pid: i32,
    /// `publisher`, `subscriber`, ...
    pub role: &'static str,
    /// How a subscriber takes frames.
    pub policy: Option<&'static str>,
    /// False: it died.
    pub alive: bool,
    /// Frames that it published or took.
    pub frames: u64,
    /// Frames that it lost.
    pub lost: u64,
    /// Frames that are newer than the last one that it took.
    pub lag: u64,
    /// Slots that it fills, or frames that it holds.
    pub holds: u32,
    /// Age of the oldest frame that it holds.
    pub oldest: Option<Duration>,
    /// For how long there has been a frame that it has not taken.
    pub behind: Option<Duration>,
}

/// Something that is counted.
#[derive(Debug)]
pub enum Event<'a> {
    /// A frame came in.
    Published {
        /// Bytes of its payload.
        bytes: u64,
    },
    /// A frame went out.
    Sent {
        /// Bytes of its payload.
        bytes: u64,
    },
    /// A call was answered by a responder.
    Called {
        /// Bytes of the request.
        bytes_in: u64,
        /// Bytes of the reply.
        bytes_out: u64,
    },
    /// A request was refused.
    Refused {
        /// The topic, if the request names one.
        topic: Option<&'a str>,
        /// Why.
        problem: &'a Problem,
    },
}
