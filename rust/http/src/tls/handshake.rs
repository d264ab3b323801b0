//! From an accepted socket to a connection that HTTP can be spoken on.
//!
//! ```text
//!   wait for a byte ---- a letter: HTTP in the clear -----> 400 in the clear, close
//!        |
//!   ClientHello (certificate and policy are chosen) -> handshake -> connection::run
//! ```
//! While nothing has come, a handshake holds nothing but its socket. The sweep ends those that take too long. At most
//! `handshakes_max` are under way: at the bound, connections wait in the kernel's queue, and the sweep ends all that have
//! waited for [`CROWDED`]. So handshakes that stand still make room, and the others finish.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::StatusCode;
use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio::io::ReadBuf;

use super::load::Loaded;
use super::session::TlsSession;
use super::source::{Source, TlsEvent};
use super::stream::TlsStream;
use crate::connection::{self, Membership};
use crate::h1_io::{Phase, Shared, Socket, SocketIo};
use crate::listener::ServerState;
use crate::protocol::Protocol;
use crate::refusal::Refusal;
use crate::service::ConnectionInfo;

/// What a handshake gets while others wait for its place. Three round trips to the other side of the world.
pub(crate) const CROWDED: Duration = Duration::from_secs(1);

/// Longest `ClientHello` that is collected; rustls has the same bound.
const HELLO_BYTES_MAX: usize = 64 * 1024;

/// The client speaks HTTP without TLS.
static NOT_TLS: Refusal = Refusal(
    StatusCode::BAD_REQUEST,
    "this port speaks HTTPS: write https:// in place of http:// in the URL\n",
);

/// How many handshakes are under way, and who waits for one to end.
#[derive(Default)]
pub(crate) struct Handshakes {
    open: Cell<usize>,
    max: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl Handshakes {
    pub(crate) fn set_max(&self, max: usize) {
        self.max.set(max);
    }

    /// As many as there may be are under way.
    pub(crate) fn is_full(&self) -> bool {
        self.max.get() > 0 && self.open.get() >= self.max.get()
    }

    /// Ready when another one may begin.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(crate) fn begin(self: &Rc<Self>) -> Place {
        self.open.set(self.open.get() + 1);
        Place(self.clone())
    }
}

/// The place of one handshake among those under way.
pub(crate) struct Place(Rc<Handshakes>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        let waiting = std::mem::take(&mut *self.0.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Serves one accepted socket, once its client has shaken hands.
pub(crate) async fn run(
    server: Rc<ServerState>,
    source: Rc<Source>,
    socket: Socket,
    mut info: ConnectionInfo,
    membership: Membership,
    place: Place,
) {
    let shared = membership.shared().clone();
    // Boxed, so that what only the handshake needs is not part of every connection.
    let outcome = Box::pin(shake(&source, socket, &shared)).await;
    drop(place);
    match outcome {
        Outcome::Tls(stream, session) => {
            info.tls = Some(session);
            shared.enter(Phase::Head);
            let protocol = match stream.tls().alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                Some(b"http/1.1") => Protocol::Http1,
                _ => server.config.protocol,
            };
            connection::run(server, Socket::Tls(stream), info, membership, protocol).await;
        }
        Outcome::Plain(socket) => {
            let io = SocketIo::new(socket, shared.clone());
            connection::refuse(&server, io, &NOT_TLS, &shared).await;
        }
        Outcome::Failed(error) => {
            source.report(TlsEvent::HandshakeFailed(format!("{}: {error}", info.peer)));
        }
        Outcome::Over => {}
    }
}

enum Outcome {
    Tls(Box<TlsStream>, Rc<TlsSession>),
    /// The client speaks HTTP in the clear.
    Plain(Socket),
    Failed(io::Error),
    /// The client is gone, or its time is over.
    Over,
}

async fn shake(source: &Source, mut socket: Socket, shared: &Shared) -> Outcome {
    if unless_ordered(shared, |cx| socket.poll_read_ready(cx))
        .await
        .is_none()
    {
        return Outcome::Over;
    }
    let mut hello = Hello {
        acceptor: Acceptor::default(),
        bytes: 0,
    };
    let accepted = match unless_ordered(shared, |cx| hello.poll(cx, &mut socket, source)).await {
        Some(Read::Hello(accepted)) => accepted,
        Some(Read::Plain) => return Outcome::Plain(socket),
        Some(Read::Bad(error, alert)) => return fail(&socket, error, alert),
        Some(Read::Over) | None => return Outcome::Over,
    };
    let mut loading = pin!(source.current());
    let Some(loaded) = unless_ordered(shared, |cx| loading.as_mut().poll(cx)).await else {
        return Outcome::Over;
    };
    finish(source, socket, shared, accepted, &loaded).await
}

/// Collects the client's first message.
struct Hello {
    acceptor: Acceptor,
    bytes: usize,
}

enum Read {
    Hello(Box<Accepted>),
    Plain,
    Bad(rustls::Error, AcceptedAlert),
    Over,
}

impl Hello {
    fn poll(&mut self, cx: &mut Context<'_>, socket: &mut Socket, source: &Source) -> Poll<Read> {
        let mut scratch = source.scratch.0.borrow_mut();
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            if ready!(socket.poll_read(cx, &mut buf)).is_err() {
                return Poll::Ready(Read::Over);
            }
            let mut bytes = buf.filled();
            if bytes.is_empty() || self.bytes + bytes.len() > HELLO_BYTES_MAX {
                return Poll::Ready(Read::Over);
            }
            // Records begin with a number from 20 to 24, methods with a letter.
            if self.bytes == 0 && bytes[0].is_ascii_uppercase() {
                return Poll::Ready(Read::Plain);
            }
            self.bytes += bytes.len();
            while !bytes.is_empty() {
                match self.acceptor.read_tls(&mut bytes) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(Read::Over),
                }
                match self.acceptor.accept() {
                    Ok(None) => {}
                    // What a client sends beyond its hello before it has heard from us is nothing that we have asked for.
                    Ok(Some(_)) if !bytes.is_empty() => return Poll::Ready(Read::Over),
                    Ok(Some(accepted)) => return Poll::Ready(Read::Hello(Box::new(accepted))),
                    Err((error, alert)) => return Poll::Ready(Read::Bad(error, alert)),
                }
            }
        }
    }
}

async fn finish(
    source: &Source,
    socket: Socket,
    shared: &Shared,
    accepted: Box<Accepted>,
    loaded: &Loaded,
) -> Outcome {
    let served = loaded.choose(&accepted.client_hello());
    let tls = match accepted.into_connection(served.config()) {
        Ok(tls) => tls,
        Err((error, alert)) => return fail(&socket, error, alert),
    };
    let mut stream = Box::new(TlsStream::new(socket, tls, source.scratch.clone()));
    match unless_ordered(shared, |cx| stream.poll_handshake(cx)).await {
        Some(Ok(())) => {
            let tls = stream.tls();
            let session = TlsSession::new(served.key.clone(), tls, tls.server_name());
            Outcome::Tls(stream, Rc::new(session))
        }
        Some(Err(error)) => Outcome::Failed(error),
        None => Outcome::Over,
    }
}

/// Tells the client why, if its socket takes that at once.
fn fail(socket: &Socket, error: rustls::Error, mut alert: AcceptedAlert) -> Outcome {
    let mut record = Vec::new();
    if alert.write_all(&mut record).is_ok() {
        socket.try_write(&record);
    }
    Outcome::Failed(io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Waits, unless the sweep or a drain wants the connection to end: then nothing.
async fn unless_ordered<T>(
    shared: &Shared,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    poll_fn(|cx| {
        shared.set_waker(cx.waker());
        if shared.is_draining() || shared.is_cut() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(ready!(poll(cx))))
    })
    .await
}
