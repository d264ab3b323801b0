//! The life of one connection, as one task.
//!
//! ```text
//!   wait for a byte (no parser, no buffers)  <---- parked: idle for a while, everything written
//!        |
//!   serve with hyper  ---- 101 ----> hand the socket over, run what the handler left
//!        |
//!   the last response is written: shut down our side, read and drop for a bounded time, close
//! ```
//! While a body is read past hyper, hyper's connection is taken apart and another one is made for the response (`direct`).
//!
//! A fresh connection begins where a parked one waits. Orders of the sweep and of a drain are looked at each time the task
//! runs; they come with a wake-up.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::edge::limits::Held;
use crate::h1::{ConnectionService, Exchange, Kept};
use crate::h1_io::{Order, Phase, Shared, Socket, SocketIo};
use crate::h2;
use crate::known_host::KnownHost;
use crate::listener::ServerState;
use crate::moved::Departing;
use crate::overload;
use crate::protocol::{self, Protocol};
use crate::refusal::{BODY_TOO_SLOW, HEAD_TOO_SLOW, Refusal};
use crate::registry::{Registry, Sweep};
use crate::service::{ConnectionInfo, Draining, Takeover, Upgraded};

type Http1 = http1::Connection<TokioIo<SocketIo>, ConnectionService>;

/// A connection's place in the registry, which it leaves however its task ends, even unpolled.
pub(crate) struct Membership {
    registry: Rc<Registry>,
    shared: Rc<Shared>,
    /// Among the connections of all workers.
    _place: Option<Held>,
}

impl Membership {
    pub(crate) fn new(registry: Rc<Registry>, shared: Rc<Shared>, place: Option<Held>) -> Self {
        Self {
            registry,
            shared,
            _place: place,
        }
    }

    pub(crate) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // What was not written by now never will be.
        self.shared.finish_records(true);
        self.shared.abandon_hints();
        drop(self.shared.take_takeover());
        // The reader of a body must not keep the socket open.
        self.shared.direct.revoke();
        self.shared.tell_bytes();
        self.registry.leave(&self.shared);
        if let Some(recorder) = &self.shared.recorder {
            let (bytes_in, bytes_out) = self.shared.bytes();
            recorder.closed(self.shared.number.get(), bytes_in, bytes_out);
        }
    }
}

/// How the time with hyper ended.
enum Served {
    /// A body is read past hyper.
    Detached(Box<Detached>),
    /// Idle: the socket and what was read beyond the last request.
    Parked(SocketIo, Bytes),
    /// A `101` was written.
    Switched(SocketIo, Bytes),
    /// The last response was written, and the peer may still be sending.
    Done(SocketIo),
    /// What the peer sends will be no request. Everything is written but the answer to that.
    Refused(SocketIo, &'static Refusal),
    /// The peer is gone, or was cut off.
    Closed,
}

/// A connection whose body is read past hyper: what is needed to write the response.
struct Detached {
    io: SocketIo,
    service: ConnectionService,
    exchange: Exchange,
}

/// Serves one accepted socket until it is closed.
pub(crate) fn run(
    server: Rc<ServerState>,
    socket: Socket,
    info: ConnectionInfo,
    membership: Membership,
    mut protocol: Protocol,
) -> impl Future<Output = ()> {
    let shared = membership.shared.clone();
    let info = Rc::new(info);
    let handler = if shared.admitted.get() {
        server.service.open(&info)
    } else {
        overload::handler()
    };
    let mut io = SocketIo::new(socket, shared.clone());
    // Not an `async fn`, whose future has room for its arguments and for what is made of them: this is most of what a waiting
    // connection holds.
    async move {
        loop {
            if !wait_for_byte(&io, &shared).await {
                break;
            }
            if protocol == Protocol::Sniff {
                match protocol::sniff(&mut io, &shared).await {
                    Some(known) => protocol = known,
                    None => break,
                }
            }
            if protocol == Protocol::Http2 {
                // Boxed, so that a connection that speaks HTTP/1 is small.
                let done = Box::pin(h2::serve(&server, io, &shared, info, handler)).await;
                if let Some(io) = done {
                    shared.finish_records(false);
                    Box::pin(linger(io, &shared, server.config.limits.linger_bytes_max)).await;
                }
                break;
            }
            let service = ConnectionService {
                handler: handler.clone(),
                info: info.clone(),
                shared: shared.clone(),
                registry: server.registry.clone(),
                target_bytes_max: server.config.limits.target_bytes_max,
                body_bytes_max: server.config.limits.body_bytes_max.unwrap_or(u64::MAX),
                unread_bytes_max: server.config.limits.unread_bytes_max,
                linger_bytes_max: server.config.limits.linger_bytes_max,
                kept: Rc::default(),
                known_host: KnownHost::default(),
                is_trusted: server.config.edge.keeps_fields_of(&info.peer),
            };
            // Boxed, as all that follows, so that a waiting connection is small.
            match Box::pin(serve(&server, io, service, &shared)).await {
                Served::Parked(parked, leftover) => {
                    io = parked;
                    handler.rest();
                    server.registry.count_quieted();
                    // Blank lines between requests, or the connection would not count as idle.
                    if leftover.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                        drop(leftover);
                        shared.shrink();
                    } else {
                        io.rewind(leftover);
                    }
                }
                Served::Switched(switched, leftover) => {
                    // There will be no further request for it.
                    drop(handler);
                    server.registry.count_quieted();
                    if let Some(takeover) = shared.take_takeover() {
                        let registry = &server.registry;
                        take_over(switched, leftover, &shared, registry, takeover, true).await;
                    }
                    break;
                }
                Served::Done(io) => {
                    shared.finish_records(false);
                    Box::pin(linger(io, &shared, server.config.limits.linger_bytes_max)).await;
                    break;
                }
                Served::Refused(io, refusal) => {
                    Box::pin(refuse(&server, io, refusal, &shared)).await;
                    break;
                }
                Served::Closed | Served::Detached(_) => break,
            }
        }
        drop(membership);
    }
}

/// Serves with hyper, and past it, until neither has anything to do.
async fn serve(
    server: &ServerState,
    mut io: SocketIo,
    mut service: ConnectionService,
    shared: &Shared,
) -> Served {
    let mut told_to_drain = false;
    loop {
        let kept = service.kept.clone();
        // Boxed, so that a waiting connection is small.
        let connection = Box::new(server.http1.serve_connection(TokioIo::new(io), service));
        let mut detached = match run_http1(connection, shared, &kept, told_to_drain).await {
            Served::Detached(detached) => detached,
            served => return served,
        };
        if !wait_for_reader(&mut detached, shared).await {
            return Served::Closed;
        }
        told_to_drain = shared.is_draining();
        // After a body that was given up, or is not over when its response is there, nothing on this connection is HTTP.
        let close = told_to_drain || !shared.direct.is_off();
        (io, service) = (detached.io, detached.service);
        io.rewind(kept.resume(detached.exchange, close));
    }
}

/// Runs the handler until the body has been read or given up, or the response is there. False when the connection is to be
/// closed.
async fn wait_for_reader(detached: &mut Detached, shared: &Shared) -> bool {
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        match shared.order.take() {
            Some(Order::TimeOut) => shared.refuse(detached.exchange.number(), &BODY_TOO_SLOW),
            Some(Order::Close) => return Poll::Ready(false),
            Some(Order::Reset) => {
                detached.io.reset_on_close();
                return Poll::Ready(false);
            }
            Some(Order::Park | Order::Ping | Order::Look | Order::HangUp) | None => {}
        }
        let answered = detached.exchange.poll_answer(cx);
        // A handler may wait for a hint to be written before it reads on. A failure is found again by whoever writes next.
        let _ = Pin::new(&mut detached.io).poll_flush(cx);
        if answered || !shared.direct.is_active() {
            return Poll::Ready(true);
        }
        Poll::Pending
    })
    .await
}

/// Waits, with nothing but the socket, until it can be read. False when the connection is to be closed instead.
async fn wait_for_byte(io: &SocketIo, shared: &Shared) -> bool {
    shared.parked.set(true);
    let readable = poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.is_draining() || shared.is_cut() {
            return Poll::Ready(false);
        }
        io.poll_readable(cx).map(|readiness| readiness.is_ok())
    })
    .await;
    shared.parked.set(false);
    readable
}

/// Runs hyper on the connection.
async fn run_http1(
    connection: Box<Http1>,
    shared: &Shared,
    kept: &Kept,
    mut told_to_drain: bool,
) -> Served {
    let mut connection = Some(connection);
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        let http1 = connection
            .as_mut()
            .expect("polled until it is ready, then not again");
        match shared.order.take() {
            Some(Order::TimeOut) => {
                if let Some(request) = kept.in_flight() {
                    // hyper writes the answer, and then finds that the body is not over.
                    shared.refuse(request, &BODY_TOO_SLOW);
                } else {
                    let parts = connection.take().expect("is there").into_parts();
                    return Poll::Ready(time_out(parts.io.into_inner(), shared));
                }
            }
            Some(order @ (Order::Close | Order::Reset)) => {
                let parts = connection.take().expect("is there").into_parts();
                if order == Order::Reset || shared.close_delimited.get() {
                    parts.io.inner().reset_on_close();
                }
                return Poll::Ready(Served::Closed);
            }
            Some(Order::Park) if shared.is_quiet() => {
                let parts = connection.take().expect("is there").into_parts();
                return Poll::Ready(Served::Parked(parts.io.into_inner(), parts.read_buf));
            }
            // The read that follows finds the end of the stream.
            Some(Order::HangUp) => shared.half_close.give_up(),
            Some(Order::Park | Order::Ping | Order::Look) | None => {}
        }
        if shared.is_draining() && !told_to_drain {
            told_to_drain = true;
            shared.unread.give_up();
            if shared.is_quiet() {
                connection = None;
                return Poll::Ready(Served::Closed);
            }
            Pin::new(&mut **http1).graceful_shutdown();
        }
        let result = loop {
            let requested = shared.direct.is_requested();
            if let Poll::Ready(result) = Pin::new(&mut **http1).poll(cx) {
                break result;
            }
            if !shared.direct.is_requested() {
                shared.unread.poll(cx);
                return Poll::Pending;
            }
            if !requested {
                // What the body's first poll makes hyper do comes before that.
                continue;
            }
            match shared.body_left() {
                Some(left)
                    if shared.flushed.get()
                        && !shared.tls.get()
                        && kept.in_flight() == Some(shared.direct.request()) =>
                {
                    let http1 = connection.take().expect("is there");
                    return Poll::Ready(detach(*http1, shared, kept, left));
                }
                // hyper keeps the connection when there is something in it that would be lost: a response that is not wholly
                // written. Or there is nothing left to be read.
                _ => shared.direct.refuse(),
            }
        };
        if let Err(error) = &result {
            shared.trouble(format_args!("HTTP/1.1: {error}"));
        }
        let parts = connection.take().expect("is there").into_parts();
        let io = parts.io.into_inner();
        drop(parts.service);
        if shared.has_takeover() && result.is_ok() {
            return Poll::Ready(Served::Switched(io, parts.read_buf));
        }
        let refused = result.as_ref().err().is_some_and(hyper::Error::is_parse);
        if (result.is_ok() || refused) && !shared.broken.get() && !shared.eof.get() {
            return Poll::Ready(Served::Done(io));
        }
        if result.is_err() && shared.close_delimited.get() {
            io.reset_on_close();
        }
        Poll::Ready(Served::Closed)
    })
    .await
}

/// Ends a connection whose client is too slow, with no handler to be answered for.
fn time_out(io: SocketIo, shared: &Shared) -> Served {
    if shared.is_in_head() && shared.flushed.get() {
        return Served::Refused(io, &HEAD_TOO_SLOW);
    }
    // A response has begun, and its request's body will not be whole.
    if shared.close_delimited.get() {
        io.reset_on_close();
    }
    Served::Closed
}

/// Answers what was no request, past hyper, within the time for lingering.
pub(crate) async fn refuse(
    server: &ServerState,
    mut io: SocketIo,
    refusal: &Refusal,
    shared: &Shared,
) {
    shared.trouble(refusal);
    shared.enter(Phase::Lingering);
    let answer = refusal.to_bytes(server.config.date_header);
    let mut rest = &answer[..];
    let written = poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.is_cut() {
            return Poll::Ready(false);
        }
        while !rest.is_empty() {
            match ready!(Pin::new(&mut io).poll_write(cx, rest)) {
                Ok(written @ 1..) => rest = &rest[written..],
                Ok(0) | Err(_) => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    })
    .await;
    if written {
        linger(io, shared, server.config.limits.linger_bytes_max).await;
    }
}

/// Takes hyper's connection apart and leaves the rest of the body, `left` bytes in the socket, to its reader.
fn detach(http1: Http1, shared: &Shared, kept: &Kept, left: u64) -> Served {
    let (parts, exchange) = kept.keep_exchange(|| http1.into_parts());
    let io = parts.io.into_inner();
    let Some(exchange) = exchange else {
        debug_assert!(false, "a response that is in flight is kept");
        return Served::Closed;
    };
    shared
        .direct
        .grant(io.socket().clone(), parts.read_buf, left);
    Served::Detached(Box::new(Detached {
        io,
        service: parts.service,
        exchange: *exchange,
    }))
}

/// Runs what the handler left for after the `101`. `may_depart`: its thread may part with the connection.
pub(crate) fn take_over(
    mut io: SocketIo,
    leftover: Bytes,
    shared: &Rc<Shared>,
    registry: &Rc<Registry>,
    takeover: Takeover,
    may_depart: bool,
) -> impl Future<Output = ()> + use<> {
    let shared = shared.clone();
    shared.enter(Phase::Upgraded);
    let leftover = io.take_rewound(leftover);
    // Weak: who parts with the socket is its only owner.
    let socket = Rc::downgrade(io.socket());
    let departing = may_depart.then(|| Departing {
        socket: io.socket().clone(),
        shared: shared.clone(),
    });
    let upgraded = Upgraded {
        stream: Box::pin(io),
        leftover,
        draining: Draining::connection(shared.clone()),
        sweep: Sweep::new(registry.clone()),
        departing,
    };
    let mut session = takeover(upgraded);
    // Not an `async fn`: a silent WebSocket would hold room for all of the above.
    poll_fn(move |cx| {
        shared.set_waker(cx.waker());
        match shared.order.take() {
            Some(Order::Reset) => {
                if let Some(socket) = socket.upgrade() {
                    socket.borrow_mut().reset_on_close();
                }
                return Poll::Ready(());
            }
            Some(Order::Close | Order::TimeOut) => return Poll::Ready(()),
            Some(Order::Park | Order::Ping | Order::Look | Order::HangUp) | None => {}
        }
        session.as_mut().poll(cx)
    })
}

/// Reads and drops until the peer closes its side. Closing a socket with unread bytes sends a reset, and a reset destroys
/// what the peer has not read yet: our last response.
async fn linger(mut io: SocketIo, shared: &Shared, bytes_max: u64) {
    // hyper has done so already, unless the client had asked for an upgrade that it did not get.
    let _ = poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await;
    // The response may be over before a body that is read elsewhere.
    let cut = poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.is_cut() {
            return Poll::Ready(true);
        }
        if shared.direct.is_active() {
            return Poll::Pending;
        }
        Poll::Ready(false)
    })
    .await;
    if cut {
        return;
    }
    shared.enter(Phase::Lingering);
    shared.direct.allow_discard();
    let bytes_end = shared.bytes_in.get().saturating_add(bytes_max);
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.is_cut() {
            return Poll::Ready(());
        }
        poll_discard(&mut io, cx, shared, bytes_end)
    })
    .await;
}

fn poll_discard(
    io: &mut SocketIo,
    cx: &mut Context<'_>,
    shared: &Shared,
    bytes_end: u64,
) -> Poll<()> {
    // On the stack, and only while the task runs: an array that lived across an await would be part of every connection.
    let mut scratch = [0; 4096];
    for _ in 0..64 {
        let mut buf = ReadBuf::new(&mut scratch);
        let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut buf));
        if read.is_err() || buf.filled().is_empty() || shared.bytes_in.get() >= bytes_end {
            return Poll::Ready(());
        }
    }
    // Others want to run as well.
    cx.waker().wake_by_ref();
    Poll::Pending
}
