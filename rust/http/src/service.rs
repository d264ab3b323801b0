//! The seam between a connection and whatever answers its requests.
//!
//! A [`Service`] is opened once per connection and gives a [`Handler`], which may keep what is constant for that
//! connection (addresses, caches). The handler is then called once per request, on the connection's own thread and
//! task. Everything here is single-threaded on purpose: a connection lives on one thread from accept to close.

use std::{
    cell::Cell,
    fmt,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{Body, ResponseBody};
use crate::edge::{Arrival, limits::Held};
use crate::h1_io::{self, Shared};
use crate::h2::{self, Opening, Responder, StreamDraining};
use crate::moved::Departing;
use crate::record::Record;
use crate::registry::Sweep;
use crate::sendfile::{FileSender, ParcelSender};
use crate::tls::TlsSession;

/// Address of one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IPv4 or IPv6 address with its port.
    Inet(SocketAddr),
    /// A Unix socket; `None` for an unnamed peer.
    Unix(Option<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix"),
        }
    }
}

/// What is constant for one connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Which connection of its server it is; the first is 1.
    pub number: u64,
    /// The other end.
    pub peer: Address,
    /// Our end.
    pub local: Address,
    /// Which kind of listener accepted it.
    pub entry: Entry,
    /// It began with a header of the PROXY protocol, so that the addresses may be those that it names.
    pub is_proxied: bool,
    /// What is known of the encryption, when the bytes arrive through TLS.
    pub tls: Option<Rc<TlsSession>>,
}

/// What a listener does with its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// HTTP in the clear.
    #[default]
    Plain,
    /// HTTP over TLS.
    Tls,
    /// HTTP in the clear that is answered with a redirect to https.
    Redirect,
}

/// A response as services give it.
pub type Response = http::Response<ResponseBody>;

/// The answer to one request: at once, or later.
pub enum ResponseFuture {
    /// The response is known when the handler returns; costs no allocation.
    Ready(Option<Response>),
    /// The response comes later. Dropped when the client goes away first: that is how a handler learns of it.
    Later(Pin<Box<dyn Future<Output = Response>>>),
}

impl ResponseFuture {
    /// A response that is known already.
    pub fn ready(response: Response) -> Self {
        Self::Ready(Some(response))
    }

    /// A response that `future` will give.
    pub fn later(future: impl Future<Output = Response> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl Future for ResponseFuture {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        match &mut *self {
            Self::Ready(response) => Poll::Ready(
                response
                    .take()
                    .expect("a response future is polled once after it is ready"),
            ),
            Self::Later(future) => future.as_mut().poll(cx),
        }
    }
}

impl From<Response> for ResponseFuture {
    fn from(response: Response) -> Self {
        Self::ready(response)
    }
}

/// Opened once for each connection.
pub trait Service: 'static {
    /// A connection was accepted.
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler>;
}

/// Answers the requests of one connection.
pub trait Handler: 'static {
    /// One request whose head is complete and valid. Bytes of its body are read from the socket only as the handler
    /// polls [`Request::body`].
    fn call(&self, request: Request) -> ResponseFuture;

    /// A request is not served, although its head could be read: `response` is what it gets instead of a call. For what has to be
    /// in every answer.
    fn refused(
        &self,
        _head: &mut http::request::Parts,
        _record: &Record,
        _response: &mut Response,
    ) {
    }

    /// The connection waits for its next request, and may do so for long: what is kept only to answer that one sooner can go.
    fn rest(&self) {}
}

/// A service that answers every request of every connection by one function.
pub fn service_fn<F>(answer: F) -> Rc<dyn Service>
where
    F: Fn(Request) -> ResponseFuture + 'static,
{
    Rc::new(ServiceFn(Rc::new(HandlerFn(answer))))
}

struct ServiceFn<H>(Rc<H>);
struct HandlerFn<F>(F);

impl<H: Handler> Service for ServiceFn<H> {
    fn open(&self, _connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        self.0.clone()
    }
}

impl<F: Fn(Request) -> ResponseFuture + 'static> Handler for HandlerFn<F> {
    fn call(&self, request: Request) -> ResponseFuture {
        (self.0)(request)
    }
}

/// One request.
///
/// The target is in origin form (`/path?query`, or `*` for `OPTIONS`) however the client wrote it, and `Host` is valid
/// and single; only HTTP/1.0 requests may lack it.
pub struct Request {
    /// Method, target, version, header fields.
    pub head: http::request::Parts,
    /// The body; dropping it unread makes the connection drain or close.
    pub body: Body,
    /// Sends informational responses ahead of the final one.
    pub hints: Hints,
    /// The head has an `Upgrade` field, whatever it says, or is an extended CONNECT of HTTP/2.
    pub has_upgrade_field: bool,
    /// Present when the client asked for a WebSocket.
    pub upgrade: Option<Upgrade>,
    /// The record that will be made of this request.
    pub record: Record,
    /// What trusted proxies say about it, and its name; nothing when there is neither.
    pub arrival: Option<Box<Arrival>>,
    /// To be kept until the work for this request has ended, which may be long after its client has given up on it.
    pub permit: Permit,
}

/// Counts one handler as running until it is dropped. The number is bounded where a client can give up on requests without
/// closing its connection; the default value counts nothing.
#[derive(Default)]
pub struct Permit {
    running: Option<Rc<Cell<usize>>>,
    /// Its place among the requests of all workers.
    place: Option<Held>,
}

impl Permit {
    pub(crate) fn new(running: &Rc<Cell<usize>>) -> Self {
        running.set(running.get() + 1);
        Self {
            running: Some(running.clone()),
            place: None,
        }
    }
}

impl Permit {
    pub(crate) fn hold(&mut self, place: Held) {
        self.place = Some(place);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.set(running.get() - 1);
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.head.method)
            .field("uri", &self.head.uri)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// What an open WebSocket reads and writes.
pub trait ByteStream: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite + ?Sized> ByteStream for T {}

/// What is left after a `101`, or after the `200` to an extended CONNECT of HTTP/2.
pub struct Upgraded {
    /// The socket, or one stream of it.
    pub stream: Pin<Box<dyn ByteStream>>,
    /// Bytes that were read beyond the request's head; they come before what `stream` yields.
    pub leftover: Bytes,
    /// Tells when the server wants it to end.
    pub draining: Draining,
    /// The sweep over all connections, for limits of time.
    pub sweep: Sweep,
    /// What another thread may have ([`Upgraded::depart`]).
    pub(crate) departing: Option<Departing>,
}

/// Tells a WebSocket that the server is shutting down. The connection is cut at the drain's deadline.
#[derive(Clone)]
pub struct Draining(DrainingOf);

#[derive(Clone)]
enum DrainingOf {
    Connection(Rc<Shared>),
    Stream(Rc<StreamDraining>),
}

impl Draining {
    pub(crate) fn connection(shared: Rc<Shared>) -> Self {
        Self(DrainingOf::Connection(shared))
    }

    pub(crate) fn stream(stream: Rc<StreamDraining>) -> Self {
        Self(DrainingOf::Stream(stream))
    }

    /// Whether the sweep cuts the connection when its client takes nothing, by what the kernel has sent: of HTTP/1, which has
    /// one thing to send at a time.
    pub fn is_swept(&self) -> bool {
        matches!(&self.0, DrainingOf::Connection(_))
    }

    /// Tells whoever wants to know what is wrong with the connection; see [`crate::record::RecordSink::trouble`].
    pub fn trouble(&self, what: impl std::fmt::Display) {
        match &self.0 {
            DrainingOf::Connection(shared) => shared.trouble(what),
            DrainingOf::Stream(stream) => stream.trouble(what),
        }
    }

    /// True once the server drains.
    pub fn is_draining(&self) -> bool {
        match &self.0 {
            DrainingOf::Connection(shared) => shared.is_draining(),
            DrainingOf::Stream(stream) => stream.is_draining(),
        }
    }

    /// Completes once the server drains. To be polled by the task that runs what was left with [`Upgrade::accept`]: no other
    /// is woken.
    pub fn poll_draining(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_draining() {
            return Poll::Ready(());
        }
        // The task of a connection is woken by the drain.
        if let DrainingOf::Stream(stream) = &self.0 {
            stream.wait(cx.waker());
        }
        Poll::Pending
    }
}

/// Sends informational responses (`103 Early Hints`, RFC 8297) ahead of the final one.
///
/// The default value sends nothing.
#[derive(Clone, Default)]
pub struct Hints(HintsTo);

#[derive(Clone, Default)]
enum HintsTo {
    #[default]
    Nobody,
    /// The connection, and the number of the request.
    Http1(Rc<Shared>, u64),
    Http2(Rc<Responder>),
}

impl Hints {
    pub(crate) fn http1(shared: Rc<Shared>, request: u64) -> Self {
        Self(HintsTo::Http1(shared, request))
    }

    pub(crate) fn http2(responder: Rc<Responder>) -> Self {
        Self(HintsTo::Http2(responder))
    }

    /// Sends one `103` with these fields, and completes when its bytes have been written, so that a final response that
    /// is made afterwards cannot overtake it. Over HTTP/2, where nothing can be overtaken, when it is handed over, which waits
    /// while much is not written. Completes at once, and sends nothing, to an HTTP/1.0 client, after the
    /// final response, and when a field could not be written.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the hint unless its bytes have begun to leave.
    pub fn send(&self, fields: HeaderMap) -> HintSent {
        HintSent(match &self.0 {
            HintsTo::Nobody => Sending::Nothing,
            HintsTo::Http1(shared, request) => {
                Sending::Http1(h1_io::HintSent::new(shared.clone(), *request, fields))
            }
            HintsTo::Http2(responder) => {
                Sending::Http2(h2::HintSent::new(responder.clone(), fields))
            }
        })
    }

    /// What puts files into the body of the response, where their bytes can go from the kernel to the client: on an
    /// HTTP/1.1 connection without TLS.
    pub fn file_sender(&self) -> Option<FileSender> {
        match &self.0 {
            HintsTo::Http1(shared, _) => FileSender::new(shared),
            HintsTo::Nobody | HintsTo::Http2(_) => None,
        }
    }

    /// What puts frames into the body of the response.
    pub fn parcel_sender(&self) -> ParcelSender {
        ParcelSender::new(match &self.0 {
            HintsTo::Http1(shared, _) => Some(shared),
            HintsTo::Nobody | HintsTo::Http2(_) => None,
        })
    }
}

/// Completes when a `103` has been written; see [`Hints::send`].
pub struct HintSent(Sending);

enum Sending {
    Nothing,
    Http1(h1_io::HintSent),
    Http2(h2::HintSent),
}

impl Future for HintSent {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Sending::Nothing => Poll::Ready(()),
            Sending::Http1(sending) => Pin::new(sending).poll(cx),
            Sending::Http2(sending) => Pin::new(sending).poll(cx),
        }
    }
}

pub(crate) type Takeover = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Takes over the connection after a `101 Switching Protocols`, or a stream of HTTP/2 after a `200`.
pub struct Upgrade(UpgradeOf);

enum UpgradeOf {
    Http1(Rc<Shared>),
    Http2(Rc<Opening>),
}

impl Upgrade {
    pub(crate) fn http1(shared: Rc<Shared>) -> Self {
        Self(UpgradeOf::Http1(shared))
    }

    pub(crate) fn http2(opening: Rc<Opening>) -> Self {
        Self(UpgradeOf::Http2(opening))
    }

    /// `then` runs once the response that the handler returns has been handed over: a `101` over HTTP/1.1, on the connection's
    /// task when the response has been written; a `200` over HTTP/2, on a task of the stream. When the response has another
    /// status, `then` is dropped uncalled.
    pub fn accept(
        self,
        then: impl FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>> + 'static,
    ) {
        match self.0 {
            UpgradeOf::Http1(shared) => shared.set_takeover(Box::new(then)),
            UpgradeOf::Http2(opening) => opening.set(Box::new(then)),
        }
    }
}
