//! HTTP/2 (RFC 9113) on the `h2` crate: one connection, its streams, and what bounds them.
//!
//! The crate knows frames, header compression and windows. What it leaves to its user is here: which requests are served
//! ([`head`]), how a response is written ([`stream`]), in which order ([`priority`]), and when a client asks for too much
//! ([`guard`]).
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

mod head;
mod stream;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};

use crate::config::Config;
use crate::h1_io::{Order, Phase, Shared, SocketIo};
use crate::listener::ServerState;
use crate::service::{ConnectionInfo, Handler};

use stream::Exchange;
pub(crate) use stream::{RequestStream, Responder};

/// Requests that are taken before the handler is called for them, so that a client with many cannot hold back the answers.
const BATCH_MAX: usize = 64;
/// Batches after which other tasks of the thread get their turn.
const TURNS_MAX: usize = 16;

type Http2 = Connection<SocketIo, Bytes>;
type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

/// What the streams of one connection share.
pub(crate) struct Streams {
    server: Rc<ServerState>,
    shared: Rc<Shared>,
    info: Rc<ConnectionInfo>,
    handler: Rc<dyn Handler>,
    /// Requests whose response is not handed over.
    open: Cell<usize>,
}

impl Streams {
    fn opened(&self) {
        let open = self.open.get();
        self.open.set(open + 1);
        if open == 0 && self.shared.phase.get() == Phase::H2Idle {
            self.shared.enter(Phase::H2Busy);
        }
    }

    fn closed(&self) {
        let open = self.open.get() - 1;
        self.open.set(open);
        if open == 0 && self.shared.phase.get() == Phase::H2Busy {
            self.shared.enter(Phase::H2Idle);
        }
    }
}

/// The crate, set up.
fn builder(config: &Config) -> Builder {
    let limits = &config.limits;
    let mut builder = Builder::new();
    builder
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(limits.buffer_bytes_max);
    builder
}

/// Serves one connection, whose first bytes are the preface, until it is over.
pub(crate) async fn serve(
    server: &Rc<ServerState>,
    io: SocketIo,
    shared: &Rc<Shared>,
    info: Rc<ConnectionInfo>,
    handler: Rc<dyn Handler>,
) {
    let streams = Rc::new(Streams {
        server: server.clone(),
        shared: shared.clone(),
        info,
        handler,
        open: Cell::new(0),
    });
    if let Some(http2) = handshake(io, &server.config, shared).await {
        run(http2, &streams).await;
    }
}

/// `None` when the client does not keep to the protocol, or is too slow.
async fn handshake(io: SocketIo, config: &Config, shared: &Shared) -> Option<Http2> {
    let mut handshake = pin!(builder(config).handshake(io));
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.order.take() == Some(Order::Close) {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(cx).map(Result::ok)
    })
    .await
}

async fn run(mut http2: Http2, streams: &Rc<Streams>) {
    let shared = &streams.shared;
    shared.enter(Phase::H2Idle);
    let mut told_to_drain = false;
    let mut accepted = Vec::new();
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.order.take() == Some(Order::Close) {
            if shared.phase.get() != Phase::H2Idle {
                // What can be written at once tells the client; nobody waits for the rest.
                http2.abrupt_shutdown(Reason::NO_ERROR);
                let _ = http2.poll_closed(cx);
                return Poll::Ready(());
            }
            // Idle for too long. The client has the time of a linger to agree.
            shared.enter(Phase::Lingering);
            http2.graceful_shutdown();
        }
        if shared.is_draining() && !told_to_drain {
            told_to_drain = true;
            http2.graceful_shutdown();
        }
        turn(&mut http2, streams, &mut accepted, cx)
    })
    .await;
}

/// Takes, calls and writes until nothing is left to do; ready when the connection is over.
fn turn(
    http2: &mut Http2,
    streams: &Rc<Streams>,
    accepted: &mut Vec<Accepted>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    for _ in 0..TURNS_MAX {
        while accepted.len() < BATCH_MAX {
            match http2.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => accepted.push(request),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if accepted.is_empty() {
            return Poll::Pending;
        }
        for (request, respond) in accepted.drain(..) {
            start(streams, request, respond);
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Calls the handler for one request, and leaves what is not done then to a task.
fn start(streams: &Rc<Streams>, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
    let mut exchange = Exchange::start(streams, request, respond);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    if Pin::new(&mut exchange).poll(&mut cx).is_pending() {
        (streams.server.spawn)(Box::pin(exchange));
    }
}
