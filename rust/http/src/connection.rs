//! The life of one connection, as one task.
//!
//! ```text
//!   wait for a byte (no parser, no buffers)  <---- parked: idle for a while, everything written
//!        |
//!   serve with hyper  ---- 101 ----> hand the socket over, run what the handler left
//!        |
//!   the last response is written: shut down our side, read and drop for a bounded time, close
//! ```
//! A fresh connection begins where a parked one waits. Orders of the sweep and of a drain are looked at each time the task
//! runs; they come with a wake-up.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::h1::ConnectionService;
use crate::h1_io::{Order, Phase, Shared, Socket, SocketIo};
use crate::listener::ServerState;
use crate::registry::Registry;
use crate::service::{ConnectionInfo, Draining, Upgraded};

type Http1 = http1::Connection<TokioIo<SocketIo>, ConnectionService>;

/// A connection's place in the registry, which it leaves however its task ends, even unpolled.
pub(crate) struct Membership {
    registry: Rc<Registry>,
    shared: Rc<Shared>,
}

impl Membership {
    pub(crate) fn new(registry: Rc<Registry>, shared: Rc<Shared>) -> Self {
        Self { registry, shared }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // What was not written by now never will be.
        self.shared.finish_records(true);
        self.shared.abandon_hints();
        drop(self.shared.take_takeover());
        self.registry.leave(&self.shared);
    }
}

/// How the time with hyper ended.
enum Served {
    /// Idle: the socket and what was read beyond the last request.
    Parked(SocketIo, Bytes),
    /// A `101` was written.
    Switched(SocketIo, Bytes),
    /// The last response was written, and the peer may still be sending.
    Done(SocketIo),
    /// The peer is gone, or was cut off.
    Closed,
}

/// Serves one accepted socket until it is closed.
pub(crate) async fn run(
    server: Rc<ServerState>,
    socket: Socket,
    info: ConnectionInfo,
    membership: Membership,
) {
    let shared = membership.shared.clone();
    let info = Rc::new(info);
    let handler = server.service.open(&info);
    let mut io = SocketIo::new(socket, shared.clone());
    loop {
        if !wait_for_byte(&io, &shared).await {
            break;
        }
        let service = ConnectionService {
            handler: handler.clone(),
            info: info.clone(),
            shared: shared.clone(),
            registry: server.registry.clone(),
            target_bytes_max: server.config.limits.target_bytes_max,
        };
        // Boxed, so that a waiting connection is small.
        let connection = Box::new(server.http1.serve_connection(TokioIo::new(io), service));
        match serve(connection, &shared).await {
            Served::Parked(parked, leftover) => {
                io = parked;
                // Blank lines between requests, or the connection would not count as idle.
                if leftover.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                    drop(leftover);
                    shared.shrink();
                } else {
                    io.rewind(leftover);
                }
            }
            Served::Switched(switched, leftover) => {
                take_over(switched, leftover, &shared).await;
                break;
            }
            Served::Done(io) => {
                shared.finish_records(false);
                linger(io, &shared, server.config.limits.linger_bytes_max).await;
                break;
            }
            Served::Closed => break,
        }
    }
    drop(membership);
}

/// Waits, with nothing but the socket, until it can be read. False when the connection is to be closed instead.
async fn wait_for_byte(io: &SocketIo, shared: &Shared) -> bool {
    shared.parked.set(true);
    let readable = poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.is_draining() || shared.order.take() == Some(Order::Close) {
            return Poll::Ready(false);
        }
        io.poll_readable(cx).map(|readiness| readiness.is_ok())
    })
    .await;
    shared.parked.set(false);
    readable
}

/// Runs hyper on the connection.
async fn serve(connection: Box<Http1>, shared: &Shared) -> Served {
    let mut connection = Some(connection);
    let mut told_to_drain = false;
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        let http1 = connection
            .as_mut()
            .expect("polled until it is ready, then not again");
        match shared.order.take() {
            Some(Order::Close) => {
                let parts = connection.take().expect("is there").into_parts();
                if shared.close_delimited.get() {
                    parts.io.inner().reset_on_close();
                }
                return Poll::Ready(Served::Closed);
            }
            Some(Order::Park) if shared.is_quiet() => {
                let parts = connection.take().expect("is there").into_parts();
                return Poll::Ready(Served::Parked(parts.io.into_inner(), parts.read_buf));
            }
            Some(Order::Park) | None => {}
        }
        if shared.is_draining() && !told_to_drain {
            told_to_drain = true;
            if shared.is_quiet() {
                connection = None;
                return Poll::Ready(Served::Closed);
            }
            Pin::new(&mut **http1).graceful_shutdown();
        }
        let result = ready!(Pin::new(&mut **http1).poll(cx));
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

/// Runs what the handler left for after the `101`.
async fn take_over(io: SocketIo, leftover: Bytes, shared: &Rc<Shared>) {
    let Some(takeover) = shared.take_takeover() else {
        return;
    };
    shared.enter(Phase::Upgraded);
    let upgraded = Upgraded {
        stream: Box::pin(io),
        leftover,
        draining: Draining(shared.clone()),
    };
    let mut session = pin!(takeover(upgraded));
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.order.take() == Some(Order::Close) {
            return Poll::Ready(());
        }
        session.as_mut().poll(cx)
    })
    .await;
}

/// Reads and drops until the peer closes its side. Closing a socket with unread bytes sends a reset, and a reset destroys
/// what the peer has not read yet: our last response.
async fn linger(mut io: SocketIo, shared: &Shared, bytes_max: u64) {
    shared.enter(Phase::Lingering);
    // hyper has done so already, unless the client had asked for an upgrade that it did not get.
    let _ = poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await;
    let bytes_end = shared.bytes_in.get().saturating_add(bytes_max);
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.order.take() == Some(Order::Close) {
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
