//! A WebSocket on a topic: frames out (`?mode=subscribe`, which is usual), frames in (`publish`), or `both`.
//!
//! # Messages
//! A frame is one binary message: a head of 32 bytes, an extension when the head says so, then the payload. Numbers are
//! little-endian.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | what the payload is: 0 the frame as it is, 1 a JPEG, 2 a WebP, 3 a PNG |
//! | 2 | 2 | bytes of head and extension; the payload begins there |
//! | 4 | 4 | flags: 1, an extension follows the head |
//! | 8 | 8 | sequence of the frame |
//! | 16 | 8 | when it was published, nanoseconds since 1970 |
//! | 24 | 8 | the application's own time in seconds, a double; NaN: none |
//!
//! The extension is JSON (`dtype`, `shape`, `content_type`) with spaces behind it up to a multiple of 8 bytes, so that the payload can be
//! looked at as numbers where it lies. It is there when it differs from that of the frame before. With
//! `policy=queue` it is also there after frames that were left out, and says how many (`lost`).
//!
//! A message of 9 bytes, version and sequence, says that a frame has arrived: a viewer's to the server for each frame that it has
//! shown (`policy=latest` sends the next one then, so it is late by one frame at most however slow the link is), and the server's to
//! a publisher for each frame that it has published. `{"ack": 7}` as text says the same.
//!
//! What is published has the same head; `dtype` and `shape`, or `type`, are said in the query, once for all. A frame that finds
//! no free slot is dropped and answered with a problem as text; so is one that the topic does not hold.
//!
//! # Whose turn
//! One task has the session and the viewer: the session reads and writes, the viewer waits for the next frame and for what allows it to
//! be sent. It is the connection's, or, where there is a [`Mover`], one of another thread. A frame is sent from where it lies ([`Parcel`]); a client that takes nothing of it for the write time-out is cut.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, request::Parts};
use tokio::{
    io::ReadBuf,
    time::{Instant, Sleep, sleep},
};

use super::access::chosen_subprotocol;
use super::board::{Board, Event, Feed, InOrder, Publisher};
use super::head::{ArrayHead, Dtype, FrameHead};
use super::problem::{Code, Problem};
use super::watch::{Form, Pace, Seat, Shot, Shots, value};
use super::{json, sse};
use crate::body::ResponseBody;
use crate::fanout::Parcel;
use crate::ingest::FrameSlot;
use crate::listener::Server;
use crate::moved::Departure;
use crate::pictures::Coding;
use crate::service::{Response, Upgrade, Upgraded};
use crate::websocket::{
    Failure, Kind, code,
    handshake::Offer,
    message::MessageSink,
    outbox::Outbox,
    session::{Closed, Handler, Session, Settings},
};

/// Bytes of the head of a frame.
const HEAD_BYTES: usize = 32;
/// Bytes of an acknowledgement.
const ACK_BYTES: usize = 9;
const VERSION: u8 = 1;
/// The head is followed by an extension.
const HAS_EXTENSION: u32 = 1;
/// Bytes of a text that a client sends: `{"ack": 18446744073709551615}` has fewer.
const TEXT_BYTES_MAX: usize = 64;
/// The payload begins at a multiple of this: views of numbers in browsers and numpy want that.
const PAYLOAD_ALIGNMENT: usize = 8;
/// From so many unsent bytes of answers on a publisher is not read from.
const UNREAD_BYTES_MAX: usize = 64 * 1024;
/// What a client is told at the end of a topic.
const TOPIC_GONE: &str = "the topic is gone";
/// Frames that wait for a viewer who does not say how many may: a second of a usual camera.
const QUEUE_USUAL: usize = 32;
/// Bytes that are forgotten at a time.
const SCRATCH_BYTES: usize = 4096;

/// Which frame is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// The newest, when the one before is acknowledged.
    Latest,
    /// The newest, when the one before has left.
    Unasked,
    /// The next one, when the one before has left; so many wait.
    Queue(usize),
}

impl Policy {
    /// From the parameters `policy` and `queue`.
    fn of(query: &str, queue_max: usize) -> Result<Self, Problem> {
        let wrong = |text: String| Problem::new(Code::Query, text);
        let length = value(query, "queue")?;
        match value(query, "policy")? {
            Some("queue") => {
                let length = match length {
                    None => Some(QUEUE_USUAL.min(queue_max)),
                    Some(text) => super::query::number(text)
                        .and_then(|number| usize::try_from(number).ok())
                        .filter(|number| (1..=queue_max).contains(number)),
                };
                let length = length.ok_or_else(|| {
                    wrong(format!(
                        "queue is how many frames may wait, from 1 to {queue_max} (topics_queue_max)"
                    ))
                })?;
                Ok(Self::Queue(length))
            }
            _ if length.is_some() => Err(wrong("queue goes with policy=queue".to_owned())),
            None | Some("latest") => Ok(Self::Latest),
            Some("unasked") => Ok(Self::Unasked),
            Some(_) => Err(wrong("policy is latest, unasked or queue".to_owned())),
        }
    }
}

/// Limits of a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A client that takes nothing for so long is cut.
    pub write_timeout: Option<Duration>,
    /// As for each other `WebSocket`.
    pub session: Settings,
}

/// What both halves know.
struct Link {
    outbox: Rc<Outbox>,
    /// The greatest sequence that the client has acknowledged.
    acked: Cell<u64>,
    /// Who waits for that.
    viewer: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

impl Link {
    fn ack(&self, sequence: u64) {
        self.acked.set(self.acked.get().max(sequence));
        if let Some(viewer) = self.viewer.take() {
            viewer.wake();
        }
    }
}

/// What a client is asked for and asks for.
pub(super) struct Asked {
    pub(super) subscribes: bool,
    pub(super) publishes: bool,
    form: Form,
    pace: Pace,
    policy: Policy,
    /// What is published.
    head: FrameHead,
}

impl Asked {
    /// From a query; a queue may have so many frames.
    ///
    /// # Errors
    /// [`Code::Query`]
    pub(super) fn of(query: &str, queue_max: usize) -> Result<Self, Problem> {
        let wrong = |text: &'static str| Problem::new(Code::Query, text);
        let (subscribes, publishes) = match value(query, "mode")? {
            None | Some("subscribe") => (true, false),
            Some("publish") => (false, true),
            Some("both") => (true, true),
            Some(_) => return Err(wrong("mode is subscribe, publish or both")),
        };
        let policy = Policy::of(query, queue_max)?;
        let array = match (value(query, "dtype")?, value(query, "shape")?) {
            (None, None) => None,
            (Some(dtype), Some(shape)) => {
                let lengths = shape
                    .split(',')
                    .map(super::query::number)
                    .collect::<Option<_>>();
                let array = Dtype::from_name(dtype).zip(lengths);
                let array = array.and_then(|(dtype, shape)| ArrayHead::new(dtype, shape));
                Some(array.ok_or_else(|| wrong("dtype is as in numpy, shape is as in 480,640,3"))?)
            }
            _ => return Err(wrong("dtype and shape go together")),
        };
        let content_type = value(query, "type")?.map(str::to_owned);
        let is_type = |text: &String| {
            text.len() <= super::head::CONTENT_TYPE_BYTES_MAX
                && text.contains('/')
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if content_type.as_ref().is_some_and(|text| !is_type(text)) {
            return Err(wrong("type is a content type such as image/jpeg"));
        }
        Ok(Self {
            subscribes,
            publishes,
            form: Form::of(query, None)?,
            pace: Pace::of(query)?,
            policy,
            head: FrameHead {
                array,
                content_type,
                ..FrameHead::default()
            },
        })
    }
}

/// Has `WebSocket`s of HTTP/1.1 go on in another thread, one that never waits for anybody.
pub trait Mover: 'static {
    /// A place on the way there; `None`: there is none now, and the session stays here.
    fn place(&self) -> Option<Box<dyn FnOnce(Traveller)>>;
}

/// A session that goes on in another thread: [`super::TopicRoutes::resume`].
pub struct Traveller {
    departure: Departure,
    queue: Option<InOrder>,
    topic: String,
    asked: Asked,
    limits: Limits,
    seat: Option<Seat>,
}

impl Traveller {
    /// Goes on where `server` is.
    ///
    /// # Errors
    /// The socket cannot join the runtime; it is closed.
    pub(super) fn resume(self, board: Rc<dyn Board>, server: &Server) -> io::Result<()> {
        let opening = Opening {
            board,
            topic: self.topic,
            asked: self.asked,
            limits: self.limits,
            seat: self.seat,
            mover: None,
        };
        let queue = self.queue;
        server.adopt(self.departure, move |upgraded| {
            Box::pin(async move {
                // Both are open in this process, unless the topic has gone meanwhile.
                let opened = opening.handles(queue).await;
                opening.run(opened, upgraded).await;
            })
        })
    }
}

/// What a session has of its topic.
#[derive(Default)]
struct Handles {
    feed: Option<Rc<dyn Feed>>,
    /// In place of that, where frames come in order.
    queue: Option<InOrder>,
    publisher: Option<Rc<dyn Publisher>>,
}

/// A WebSocket that is asked for.
pub(super) struct Opening {
    pub(super) board: Rc<dyn Board>,
    /// Where it may go on.
    pub(super) mover: Option<Rc<dyn Mover>>,
    pub(super) topic: String,
    pub(super) asked: Asked,
    pub(super) limits: Limits,
    /// That of a viewer.
    pub(super) seat: Option<Seat>,
}

impl Opening {
    /// Opens it.
    pub(super) async fn open(self, head: &Parts, upgrade: Upgrade) -> Result<Response, Problem> {
        let offer = match Offer::of(head) {
            Some(Ok(offer)) => offer,
            Some(Err(rejected)) => return Ok(rejected.response().map(ResponseBody::from)),
            None => return Err(Problem::new(Code::Query, "this is no WebSocket handshake")),
        };
        let handles = self.handles(None).await?;
        let subprotocol = chosen_subprotocol(offer.subprotocols());
        let response = offer
            .accept(subprotocol, HeaderMap::new())
            .map_err(|error| {
                Problem::new(Code::Internal, "the handshake failed").because(&format!("{error:?}"))
            })?;
        upgrade.accept(move |upgraded| Box::pin(self.run_somewhere(handles, upgraded)));
        Ok(response.map(|()| ResponseBody::Empty))
    }

    /// Opens what the session needs; `queue` is there already.
    async fn handles(&self, mut queue: Option<InOrder>) -> Result<Handles, Problem> {
        let (asked, board) = (&self.asked, &self.board);
        let feed = if asked.subscribes && queue.is_none() {
            Some(board.feed(&self.topic).await?)
        } else {
            None
        };
        if let (Some(feed), Policy::Queue(frames_max)) = (&feed, asked.policy) {
            queue = Some(feed.in_order(frames_max).await?);
        }
        let publisher = if asked.publishes {
            let opened = board.publisher(&self.topic).await?;
            super::publish::check(&*opened.publisher, &asked.head, None)?;
            Some(opened.publisher)
        } else {
            None
        };
        Ok(Handles {
            feed,
            queue,
            publisher,
        })
    }

    /// Goes on in the other thread, where that is possible, else here.
    async fn run_somewhere(self, handles: Handles, upgraded: Upgraded) {
        let place = self.mover.as_ref().filter(|_| upgraded.can_depart());
        let Some(go) = place.and_then(|mover| mover.place()) else {
            return self.run(Ok(handles), upgraded).await;
        };
        let draining = upgraded.draining.clone();
        match upgraded.depart() {
            Ok((departure, stay)) => {
                go(Traveller {
                    departure,
                    queue: handles.queue,
                    topic: self.topic,
                    asked: self.asked,
                    limits: self.limits,
                    seat: self.seat,
                });
                stay.await;
            }
            Err(error) => draining.trouble(format_args!("cut: it cannot change threads: {error}")),
        }
    }

    /// Both halves of one WebSocket, until it ends.
    async fn run(self, handles: Result<Handles, Problem>, upgraded: Upgraded) {
        let Self {
            board,
            topic,
            asked,
            limits,
            seat: _seat,
            mover: _,
        } = self;
        let (handles, problem) = match handles {
            Ok(handles) => (handles, None),
            Err(problem) => (Handles::default(), Some(problem)),
        };
        let Handles {
            feed,
            queue,
            publisher,
        } = handles;
        let feed = queue.map(|open| open()).or(feed);
        let link = Rc::new(Link {
            outbox: Outbox::new(),
            acked: Cell::new(0),
            viewer: RefCell::default(),
            closed: Cell::new(false),
        });
        let client = Client {
            link: link.clone(),
            board: board.clone(),
            topic,
            publisher,
            head: asked.head.clone(),
            incoming: Incoming::Nothing,
        };
        let session = Session::new(
            upgraded.stream,
            &upgraded.leftover,
            limits.session,
            link.outbox.clone(),
            client,
        );
        if let Some(heartbeat) = session.heartbeat() {
            upgraded.sweep.watch(heartbeat);
        }
        if let Some(problem) = problem {
            link.outbox.text(&problem_text(&problem));
            link.outbox.close(code::NORMAL, TOPIC_GONE);
        }
        let mut session = Box::pin(session);
        let draining = upgraded.draining;
        let mut viewer = feed.map(|feed| Viewer {
            board,
            shots: Shots::new(feed.clone(), asked.form, asked.pace),
            feed,
            link: link.clone(),
            form: asked.form,
            policy: asked.policy,
            under_way: None,
            before: None,
            described: Vec::new(),
            // A kernel that has taken much looks as if a slow client took nothing; the sweep asks it.
            write_timeout: limits.write_timeout.filter(|_| !draining.is_swept()),
        });
        poll_fn(|cx| {
            if draining.poll_draining(cx).is_ready() {
                link.outbox.close(code::SERVICE_RESTART, "");
            }
            if session.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if link.closed.get() {
                // A viewer that is gone holds no frame.
                viewer = None;
            }
            if let Some(watching) = &mut viewer {
                match watching.poll(cx) {
                    Turn::Waits => {}
                    Turn::Cut => return Poll::Ready(()),
                    Turn::Over => {
                        link.outbox.close(code::NORMAL, TOPIC_GONE);
                        viewer = None;
                    }
                }
                // What the viewer left is written now.
                return session.as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await;
    }
}

/// Sends frames.
struct Viewer {
    board: Rc<dyn Board>,
    feed: Rc<dyn Feed>,
    link: Rc<Link>,
    form: Form,
    policy: Policy,
    shots: Shots,
    under_way: Option<UnderWay>,
    /// The sequence of the last frame.
    before: Option<u64>,
    /// What the last extension said, but for lost frames.
    described: Vec<u8>,
    /// For a client that nobody else looks at.
    write_timeout: Option<Duration>,
}

struct UnderWay {
    parcel: Arc<Parcel>,
    sequence: u64,
    /// What was left when the clock was last set.
    left: usize,
    stalled: Option<Pin<Box<Sleep>>>,
}

/// What became of a viewer's turn.
enum Turn {
    Waits,
    /// The client takes nothing.
    Cut,
    /// There will be no further frame.
    Over,
}

impl Viewer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Turn {
        loop {
            if let Some(under_way) = &mut self.under_way {
                if under_way.parcel.poll_sent(cx).is_pending() {
                    return under_way.poll_stall(cx, self.write_timeout);
                }
                under_way.stalled = None;
                if self.policy == Policy::Latest && self.link.acked.get() < under_way.sequence {
                    self.link.viewer.replace(Some(cx.waker().clone()));
                    return Turn::Waits;
                }
                self.under_way = None;
            }
            match self.shots.poll_next(cx) {
                Poll::Pending => return Turn::Waits,
                Poll::Ready(Ok(shot)) => self.send(&shot),
                Poll::Ready(Err(problem)) => {
                    self.link.outbox.text(&problem_text(&problem));
                    return Turn::Over;
                }
            }
        }
    }

    fn send(&mut self, shot: &Shot) {
        let head = self.head(shot);
        let parcel = shot.parcel(&*self.feed, head, Bytes::new());
        self.board.happened(&Event::Sent {
            bytes: shot.bytes.len() as u64,
        });
        self.link.outbox.leave_parcel(parcel.clone());
        self.under_way = Some(UnderWay {
            left: parcel.left(),
            parcel,
            sequence: shot.frame.sequence,
            stalled: None,
        });
    }

    /// Frames of a queue that were left out before this one.
    fn lost(&mut self, sequence: u64) -> u64 {
        let before = self.before.replace(sequence);
        match (self.policy, before) {
            (Policy::Queue(_), Some(before)) => sequence.saturating_sub(before.saturating_add(1)),
            _ => 0,
        }
    }

    /// Head and extension of a frame.
    fn head(&mut self, shot: &Shot) -> Bytes {
        let lost = self.lost(shot.frame.sequence);
        let mut object = json::Object::new();
        let kind = match self.form {
            Form::Raw => {
                sse::shape(&mut object, &shot.frame);
                0
            }
            Form::Picture(setting) => {
                object.text("content_type", setting.coding().media_type());
                match setting.coding() {
                    Coding::Jpeg => 1,
                    Coding::Webp => 2,
                    Coding::Png => 3,
                }
            }
        };
        // What is said once is compared; what was lost is said when it was.
        let described = object.clone().finish();
        if lost > 0 {
            object.number("lost", lost);
        }
        let mut extension = object.finish();
        let padded = (HEAD_BYTES + extension.len()).next_multiple_of(PAYLOAD_ALIGNMENT);
        extension.resize(padded - HEAD_BYTES, b' ');
        let is_new = (described != self.described || lost > 0)
            && extension.len() <= usize::from(u16::MAX) - HEAD_BYTES;
        let extension_bytes = if is_new { extension.len() } else { 0 };
        let mut head = BytesMut::with_capacity(HEAD_BYTES + extension_bytes);
        head.put_u8(VERSION);
        head.put_u8(kind);
        head.put_u16_le((HEAD_BYTES + extension_bytes) as u16);
        head.put_u32_le(if is_new { HAS_EXTENSION } else { 0 });
        head.put_u64_le(shot.frame.sequence);
        head.put_u64_le(shot.frame.published_ns);
        head.put_f64_le(shot.frame.head.timestamp.unwrap_or(f64::NAN));
        if is_new {
            head.extend_from_slice(&extension);
            self.described = described;
        }
        head.freeze()
    }
}

impl UnderWay {
    /// Cuts a client that takes nothing for the time-out.
    fn poll_stall(&mut self, cx: &mut Context<'_>, timeout: Option<Duration>) -> Turn {
        let Some(timeout) = timeout else {
            return Turn::Waits;
        };
        let left = self.parcel.left();
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if left != self.left {
            self.left = left;
            stalled.as_mut().reset(Instant::now() + timeout);
        }
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Turn::Cut,
            Poll::Pending => Turn::Waits,
        }
    }
}

fn problem_text(problem: &Problem) -> String {
    String::from_utf8(problem.to_json()).unwrap_or_default()
}

/// Receives frames and acknowledgements.
struct Client {
    link: Rc<Link>,
    board: Rc<dyn Board>,
    topic: String,
    publisher: Option<Rc<dyn Publisher>>,
    /// What is published.
    head: FrameHead,
    incoming: Incoming,
}

/// The message that is arriving.
enum Incoming {
    Nothing,
    /// Its first bytes, as many as tell what it is.
    Head(Box<Head>),
    /// A frame, in its slot.
    Frame {
        slot: Box<dyn FrameSlot>,
        head: FrameHead,
        /// Bytes that it has to have, where that is known.
        expected: Option<u64>,
    },
    /// The rest is read and forgotten; at its end the connection may fail.
    Dropped(Box<[u8; SCRATCH_BYTES]>, Option<Failure>),
}

struct Head {
    kind: Kind,
    /// Bytes of the whole message, 0 if that is not known.
    bytes: u64,
    collected: [u8; TEXT_BYTES_MAX],
    filled: usize,
}

impl Head {
    fn bytes_max(&self) -> usize {
        match self.kind {
            Kind::Text => TEXT_BYTES_MAX,
            Kind::Binary => HEAD_BYTES,
        }
    }
}

impl Client {
    fn refuse(&self, problem: &Problem) {
        self.board.happened(&Event::Refused {
            topic: Some(&self.topic),
            problem,
        });
        self.link.outbox.text(&problem_text(problem));
    }

    /// A head is whole: the frame behind it gets a slot.
    fn begin_frame(&mut self, head: &[u8], bytes: u64) -> Result<(), Failure> {
        let failure = |reason| Failure {
            code: code::PROTOCOL_ERROR,
            reason,
        };
        let Some(publisher) = &self.publisher else {
            return Err(failure("this WebSocket does not publish"));
        };
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        if head[0] != VERSION
            || head[1] != 0
            || usize::from(head[2]) != HEAD_BYTES
            || head[3..8] != [0; 5]
        {
            return Err(failure(
                "a frame begins with a head of version 1, kind 0, 32 bytes, no flags",
            ));
        }
        let timestamp = f64::from_bits(word(24));
        let mut head = self.head.clone();
        head.timestamp = Some(timestamp).filter(|seconds| seconds.is_finite());
        let declared = bytes.checked_sub(HEAD_BYTES as u64);
        let slot = super::publish::check(&**publisher, &head, declared).and_then(|expected| {
            let bytes = declared.or(expected).unwrap_or(publisher.slot_bytes());
            Ok((publisher.loan(bytes)?, expected))
        });
        self.incoming = match slot {
            Ok((slot, expected)) => Incoming::Frame {
                slot,
                head,
                expected,
            },
            Err(problem) => {
                self.refuse(&problem);
                Incoming::Dropped(Box::new([0; SCRATCH_BYTES]), None)
            }
        };
        Ok(())
    }

    fn end_small(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Failure> {
        let sequence = match (kind, bytes) {
            (Kind::Binary, [VERSION, sequence @ ..]) if bytes.len() == ACK_BYTES => {
                Some(u64::from_le_bytes(sequence.try_into().unwrap_or_default()))
            }
            (Kind::Text, bytes) => text_ack(bytes),
            _ => None,
        };
        let Some(sequence) = sequence else {
            return Err(Failure {
                code: code::PROTOCOL_ERROR,
                reason: "neither a frame nor an acknowledgement",
            });
        };
        self.link.ack(sequence);
        Ok(())
    }
}

/// `{"ack": 7}`
fn text_ack(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let rest = text.strip_prefix('{')?.strip_suffix('}')?.trim();
    let number = rest
        .strip_prefix("\"ack\"")?
        .trim_start()
        .strip_prefix(':')?;
    super::query::number(number.trim())
}

impl MessageSink for Client {
    fn begin(&mut self, kind: Kind, size_hint: u64) -> Result<(), Failure> {
        self.incoming = Incoming::Head(Box::new(Head {
            kind,
            bytes: size_hint,
            collected: [0; TEXT_BYTES_MAX],
            filled: 0,
        }));
        Ok(())
    }

    fn space(&mut self, _want: usize) -> ReadBuf<'_> {
        match &mut self.incoming {
            Incoming::Nothing => ReadBuf::new(&mut []),
            Incoming::Head(head) => {
                let most = head.bytes_max();
                ReadBuf::new(&mut head.collected[head.filled..most])
            }
            Incoming::Frame { slot, .. } => ReadBuf::new(slot.space()),
            Incoming::Dropped(scratch, _) => ReadBuf::new(&mut scratch[..]),
        }
    }

    fn filled(&mut self, count: usize) {
        match &mut self.incoming {
            Incoming::Nothing | Incoming::Dropped(..) => {}
            Incoming::Frame { slot, .. } => slot.filled(count),
            Incoming::Head(head) => {
                head.filled += count;
                if head.kind == Kind::Binary && head.filled == HEAD_BYTES {
                    let (collected, bytes) = (head.collected, head.bytes);
                    if let Err(failure) = self.begin_frame(&collected[..HEAD_BYTES], bytes) {
                        let scratch = Box::new([0; SCRATCH_BYTES]);
                        self.incoming = Incoming::Dropped(scratch, Some(failure));
                    }
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        match std::mem::replace(&mut self.incoming, Incoming::Nothing) {
            Incoming::Nothing | Incoming::Dropped(_, None) => Ok(()),
            Incoming::Dropped(_, Some(failure)) => Err(failure),
            Incoming::Head(head) => self.end_small(head.kind, &head.collected[..head.filled]),
            Incoming::Frame {
                slot,
                head,
                expected,
            } => {
                // A fragmented message says its length at its end.
                let bytes = slot.payload().len() as u64;
                if let Some(expected) = expected.filter(|expected| *expected != bytes) {
                    self.refuse(&super::publish::wrong_length(Some(bytes), expected));
                    return Ok(());
                }
                match slot
                    .publish(&head)
                    .map_err(|error| super::publish::problem_of(&error))
                {
                    Ok(published) => {
                        self.board.happened(&Event::Published {
                            bytes: published.bytes,
                        });
                        let mut ack = [VERSION; ACK_BYTES];
                        ack[1..].copy_from_slice(&published.sequence.to_le_bytes());
                        self.link.outbox.binary(&ack);
                    }
                    Err(problem) => self.refuse(&problem),
                }
                Ok(())
            }
        }
    }
}

impl Handler for Client {
    fn wants_message(&self) -> bool {
        // Who sends and does not read what is answered is not read from.
        self.link.outbox.buffered() < UNREAD_BYTES_MAX || self.publisher.is_none()
    }

    fn turn(&mut self) {}

    fn closed(&mut self, _closed: Closed) {
        self.link.closed.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Policy, text_ack};

    #[test]
    fn acknowledgements_as_text_are_numbers() {
        for (text, number) in [
            (r#"{"ack": 7}"#, Some(7)),
            (r#" { "ack" : 18446744073709551615 } "#, Some(u64::MAX)),
            (r#"{"ack": -7}"#, None),
            (r#"{"ack": 7, "x": 1}"#, None),
            (r#"{"ack": }"#, None),
            ("7", None),
        ] {
            assert_eq!(text_ack(text.as_bytes()), number, "{text}");
        }
    }

    #[test]
    fn query_says_what_is_asked_for() {
        let asked = Asked::of("", 64).unwrap();
        assert!(asked.subscribes && !asked.publishes && asked.policy == Policy::Latest);
        let asked = Asked::of("mode=both&policy=unasked&dtype=uint8&shape=2,3", 64).unwrap();
        assert!(asked.subscribes && asked.publishes && asked.policy == Policy::Unasked);
        assert_eq!(asked.head.array.unwrap().bytes(), 6);
        for (query, frames) in [("", 32), ("&queue=1", 1), ("&queue=64", 64)] {
            let asked = Asked::of(&format!("policy=queue{query}"), 64).unwrap();
            assert_eq!(asked.policy, Policy::Queue(frames));
        }
        let asked = Asked::of("policy=queue", 8).unwrap();
        assert_eq!(asked.policy, Policy::Queue(8));
        for wrong in [
            "mode=",
            "mode=publish&mode=both",
            "policy=newest",
            "dtype=uint8",
            "dtype=uint9&shape=1",
            "dtype=uint8&shape=",
            "type=x",
            "format=gif",
            "format=jpeg&quality=0",
            "rate=0",
            "queue=3",
            "policy=queue&queue=0",
            "policy=queue&queue=65",
            "policy=latest&queue=3",
        ] {
            assert!(Asked::of(wrong, 64).is_err(), "{wrong}");
        }
    }
}
