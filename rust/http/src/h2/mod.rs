//! HTTP/2 (RFC 9113) on the `h2` crate: one connection, its streams, and what bounds them.
//!
//! The crate knows frames, header compression and windows. What it leaves to its user is here: which requests are served
//! ([`head`]), how a response is written ([`stream`]), in which order ([`priority`]), what a WebSocket reads and writes
//! ([`tunnel`]), when a client asks for too much ([`guard`]), and when it takes too long ([`stall`]).
//!
//! # A turn
//! The connection's task takes every request that has arrived, then calls the handler for each, then has the crate write once:
//! each poll of the crate's connection flushes it, so answering inside of the accepting would cost a write per answer. A response
//! that is there when the handler returns, and whose body fits the windows, is handed over at once and costs no task. Any other
//! gets a task of its own, which lives until its response is handed over or given up.
//!
//! # Who waits for whom
//! The crate buffers whatever it is given, so it is given no more than it can send: a stream asks for its turn
//! ([`priority::Gate`]), then for window, and only then takes the next piece from the body. A body of a request is the other way
//! round: its window is opened again by as much as the handler has taken. So a client that does not read stops the handler, and
//! a handler that does not read stops the client.
//!
//! # The end
//! Idle connections and those of a server that drains get `GOAWAY`, and their open streams their time. A connection that is lost
//! fails its streams, which their tasks see as a reset.

mod guard;
mod head;
mod hint;
mod outlet;
mod priority;
mod quiet;
mod stall;
mod stream;
pub(crate) mod tap;
mod tunnel;
mod unsent;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};

use crate::config::Config;
use crate::h1_io::{Order, Phase, Shared, SocketIo};
use crate::listener::ServerState;
use crate::service::{ConnectionInfo, Handler};

use guard::Budget;
use head::KnownAuthority;
use hint::HintRoom;
pub(crate) use hint::HintSent;
use priority::{Gate, WINDOW_BYTES};
use quiet::Quiet;
use stall::Watch;
use stream::Exchange;
pub(crate) use stream::{RequestStream, Responder};
use tap::Tap;
pub(crate) use tunnel::{Opening, StreamDraining};
use unsent::Unsent;

/// Requests that are taken before the handler is called for them, so that a client with many cannot hold back the answers.
const BATCH_MAX: usize = 64;
/// Batches after which other tasks of the thread get their turn.
const TURNS_MAX: usize = 16;

/// Streams that a client resets while their response is under way, per 10 s and beside half of its requests; above:
/// `ENHANCE_YOUR_CALM`. A browser that leaves a page resets what was loading, at most all its streams.
const RESETS_MAX: u64 = 100;
/// Frames per 10 s that are answered or looked at and carry nothing (`PING`, `SETTINGS`, `PRIORITY`, empty `DATA`), beside one
/// for each frame that does carry something; above: `ENHANCE_YOUR_CALM`. Clients that measure the round trip send one `PING` for
/// what they receive.
const IDLE_FRAMES_MAX: u64 = 1000;
/// Streams that were reset before the handler was called for them; above: `ENHANCE_YOUR_CALM` (rapid reset). The crate's default.
const PENDING_RESETS_MAX: usize = 20;
/// Errors of ours that a client provokes on its streams; above: `ENHANCE_YOUR_CALM` (`MadeYouReset`). The crate has 1024; a
/// client that is not broken provokes none.
const LOCAL_RESETS_MAX: usize = 128;
/// Bytes by which `DATA` frames of less than 256 bytes fall short of that, as long as nobody has read them, in windows of the
/// connection; above: `ENHANCE_YOUR_CALM`. Each costs about 300 bytes of memory. The crate has half a window, which is 2,300
/// frames: a browser sends each small message of a WebSocket as a frame of its own, and a burst of them may well be larger.
const TINY_FRAMES_WINDOWS_MAX: usize = 2;
/// Streams that were reset by us, remembered for frames that are still under way. The crate's defaults.
const RESETS_REMEMBERED: usize = 50;
const RESET_REMEMBERED_FOR: std::time::Duration = std::time::Duration::from_secs(1);

type Http2 = Connection<Tap, Bytes>;
type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

/// What the tap sees, and the streams and the sweep want to know.
pub(crate) struct Observed {
    shared: Rc<Shared>,
    gate: Gate,
    hints: HintRoom,
    watch: Watch,
    unsent: Unsent,
    /// Requests' bodies that somebody may still read.
    bodies: Cell<usize>,
    /// Bytes of bodies that the client may send on this connection.
    room: Cell<i64>,
    /// Heads that are complete.
    heads: Cell<u64>,
    /// A part of the next one has come.
    in_head: Cell<bool>,
    /// Frames that carry nothing, since the last turn.
    idle_frames: Cell<u64>,
    /// Frames that carry something, of both sides.
    useful_frames: Cell<u64>,
}

impl Observed {
    fn new(shared: &Rc<Shared>, buffer_bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            shared: shared.clone(),
            gate: Gate::new(buffer_bytes_max),
            hints: HintRoom::new(buffer_bytes_max),
            watch: Watch::default(),
            unsent: Unsent::default(),
            bodies: Cell::new(0),
            room: Cell::new(WINDOW_BYTES),
            heads: Cell::new(0),
            in_head: Cell::new(false),
            idle_frames: Cell::new(0),
            useful_frames: Cell::new(0),
        })
    }

    /// A request's body may still be read, or a part of a response still waits for window, though the response is over.
    pub(crate) fn has_rest(&self) -> bool {
        self.bodies.get() > 0 || self.unsent.is_waiting()
    }
}

/// What the streams of one connection share.
pub(crate) struct Streams {
    server: Rc<ServerState>,
    shared: Rc<Shared>,
    info: Rc<ConnectionInfo>,
    /// The peer is believed when it says whom it speaks for.
    is_trusted: bool,
    handler: Rc<dyn Handler>,
    observed: Rc<Observed>,
    /// Requests whose response is not handed over.
    open: Cell<usize>,
    /// Handlers that have not ended, whatever became of their stream.
    running: Rc<Cell<usize>>,
    authority: KnownAuthority,
    /// Requests so far.
    requests: Cell<u64>,
    resets: Budget,
    idle_frames: Budget,
    /// The client asks for too much.
    flooded: Cell<bool>,
    /// The connection has had all the requests that it may have.
    spent: Cell<bool>,
    /// Tunnels that want to know when the server drains, by their number.
    drain_waiters: RefCell<HashMap<u32, Waker>>,
}

impl Streams {
    fn opened(&self) {
        let open = self.open.get();
        self.open.set(open + 1);
        self.server.registry.stream_opened();
        if open == 0 && self.shared.phase.get() == Phase::H2Idle {
            self.shared.enter(Phase::H2Busy);
        }
    }

    fn closed(&self) {
        let open = self.open.get() - 1;
        self.open.set(open);
        self.server.registry.stream_closed();
        if open == 0 && self.shared.phase.get() == Phase::H2Busy {
            self.shared.enter(Phase::H2Idle);
        }
    }

    /// The client has reset a stream whose handler had been called.
    fn count_reset(&self) {
        if !self.resets.take(1, self.requests.get() / 2) {
            self.flooded.set(true);
            self.shared.wake_task();
        }
    }

    /// Has every tunnel say that it ends.
    fn tell_drain(&self) {
        let waiting = std::mem::take(&mut *self.drain_waiters.borrow_mut());
        waiting.into_values().for_each(Waker::wake);
    }

    /// False when the client has sent too much that carries nothing.
    fn check_frames(&self) -> bool {
        let idle = self.observed.idle_frames.take();
        (idle == 0
            || self
                .idle_frames
                .take(idle, self.observed.useful_frames.get()))
            && !self.flooded.get()
    }
}

/// The crate, set up. What it leaves open by default is bounded here.
fn builder(config: &Config) -> Builder {
    let limits = &config.limits;
    let narrow = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX >> 1);
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams_max)
        // Also bounds CONTINUATION: 1.25 times the list, in frames.
        .max_header_list_size(narrow(limits.head_bytes_max))
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESET_REMEMBERED_FOR)
        .data_frame_budget(TINY_FRAMES_WINDOWS_MAX * limits.connection_window_bytes as usize)
        .max_send_buffer_size(limits.buffer_bytes_max)
        .initial_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes);
    builder
}

/// Serves one connection, whose first bytes are the preface, until it is over. Gives the socket when the client may still be
/// sending.
pub(crate) async fn serve(
    server: &Rc<ServerState>,
    io: SocketIo,
    shared: &Rc<Shared>,
    info: Rc<ConnectionInfo>,
    handler: Rc<dyn Handler>,
) -> Option<SocketIo> {
    let observed = Observed::new(shared, server.config.limits.buffer_bytes_max);
    // Once: a connection does not change its protocol again.
    let _ = shared.streams.set(Rc::downgrade(&observed));
    let io = Rc::new(RefCell::new(io));
    let tap = Tap::new(io.clone(), observed.clone());
    let streams = Rc::new(Streams {
        server: server.clone(),
        shared: shared.clone(),
        is_trusted: server.config.edge.keeps_fields_of(&info.peer),
        info,
        handler,
        observed,
        open: Cell::new(0),
        running: Rc::default(),
        authority: KnownAuthority::default(),
        requests: Cell::new(0),
        resets: Budget::new(RESETS_MAX),
        idle_frames: Budget::new(IDLE_FRAMES_MAX),
        flooded: Cell::new(false),
        spent: Cell::new(false),
        drain_waiters: RefCell::default(),
    });
    let ended = match handshake(tap, &server.config, shared).await? {
        Ok(http2) => run(http2, &streams).await,
        Err(error) => {
            shared.trouble(format_args!("HTTP/2: {error}"));
            true
        }
    };
    if !ended || shared.broken.get() || shared.eof.get() {
        return None;
    }
    Rc::into_inner(io).map(RefCell::into_inner)
}

/// `None` when the client is too slow.
async fn handshake(tap: Tap, config: &Config, shared: &Shared) -> Option<Result<Http2, h2::Error>> {
    let mut handshake = pin!(builder(config).handshake(tap));
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.is_cut() {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(cx).map(Some)
    })
    .await
}

/// True when the connection ended by itself, false when it was cut off.
async fn run(mut http2: Http2, streams: &Rc<Streams>) -> bool {
    let shared = &streams.shared;
    shared.enter(Phase::H2Idle);
    let mut pings = http2.ping_pong();
    let mut told_to_drain = false;
    let mut turns = Turns {
        quiet: Quiet::new(),
        accepted: Vec::new(),
        taken: 0,
    };
    let waker = Waker::from(turns.quiet.clone());
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        turns.quiet.follow(cx.waker());
        let cx = &mut Context::from_waker(&waker);
        match shared.order.take() {
            Some(Order::Close) if shared.phase.get() == Phase::H2Idle => {
                // Idle for too long. The client has the time of a linger to agree.
                shared.enter(Phase::Lingering);
                http2.graceful_shutdown();
            }
            Some(Order::Close | Order::Reset | Order::TimeOut) => {
                // What can be written at once tells the client; nobody waits for the rest.
                http2.abrupt_shutdown(Reason::NO_ERROR);
                let _ = http2.poll_closed(cx);
                return Poll::Ready(false);
            }
            Some(Order::Ping) => ping(pings.as_mut(), cx),
            Some(Order::Park | Order::Look | Order::HangUp) | None => {}
        }
        if (shared.is_draining() || streams.spent.get()) && !told_to_drain {
            told_to_drain = true;
            http2.graceful_shutdown();
        }
        if shared.is_draining() {
            streams.tell_drain();
        }
        let turn = turns.turn(&mut http2, streams, cx);
        turns.quiet.end();
        turn.map(|()| true)
    })
    .await
}

/// Asks whether the client is still there; that anything comes is the answer.
fn ping(pings: Option<&mut PingPong>, cx: &mut Context<'_>) {
    if let Some(pings) = pings {
        // The answer to the one before makes room for another.
        let _ = pings.poll_pong(cx);
        let _ = pings.send_ping(Ping::opaque());
    }
}

/// The turns of one connection.
struct Turns {
    quiet: Arc<Quiet>,
    /// Taken, and their handlers are not called yet.
    accepted: Vec<Accepted>,
    /// Requests that were taken so far; and heads that are no request, once it is known that nothing waits.
    taken: u64,
}

impl Turns {
    /// Takes, calls and writes until nothing is left to do; ready when the connection is over. Each poll of the crate is
    /// answered for by the next one, so what it calls for in between needs no wake-up; the caller ends the quiet.
    fn turn(&mut self, http2: &mut Http2, streams: &Rc<Streams>, cx: &mut Context<'_>) -> Poll<()> {
        let observed = &streams.observed;
        self.quiet.hush();
        observed.unsent.settle();
        for _ in 0..TURNS_MAX {
            while self.accepted.len() < BATCH_MAX {
                self.quiet.hush();
                match http2.poll_accept(cx) {
                    Poll::Ready(Some(Ok(request))) => self.accepted.push(request),
                    Poll::Ready(Some(Err(error))) => {
                        streams.shared.trouble(format_args!("HTTP/2: {error}"));
                        return Poll::Ready(());
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => {
                        self.taken = observed.heads.get();
                        break;
                    }
                }
                self.taken += 1;
                if self.taken == observed.heads.get() {
                    // To ask whether there is another one would cost a poll of everything.
                    break;
                }
            }
            if !streams.check_frames() {
                streams.shared.trouble(
                    "HTTP/2: more frames without content, or resets, than the limits allow",
                );
                http2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.accepted.clear();
                streams.flooded.set(false);
                continue;
            }
            if self.accepted.is_empty() {
                self.rest(streams);
                return Poll::Pending;
            }
            for (request, respond) in self.accepted.drain(..) {
                start(streams, request, respond);
            }
        }
        observed.gate.wake_first();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Everything that can be written has been.
    fn rest(&self, streams: &Streams) {
        let observed = &streams.observed;
        if streams.shared.flushed.get() {
            observed.gate.flushed();
            observed.hints.flushed();
        }
        if observed
            .unsent
            .is_settling_due(streams.shared.is_draining())
        {
            self.quiet.wake_by_ref();
        }
        observed.gate.wake_first();
    }
}

/// Calls the handler for one request, and leaves what is not done then to a task.
fn start(
    streams: &Rc<Streams>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    if streams.running.get() >= streams.server.config.limits.handlers_max {
        respond.send_reset(Reason::REFUSED_STREAM);
        return;
    }
    let mut exchange = Exchange::start(streams, request, respond);
    let mut cx = Context::from_waker(Waker::noop());
    if Pin::new(&mut exchange).poll(&mut cx).is_pending() {
        (streams.server.spawn)(Box::pin(exchange));
    }
}
