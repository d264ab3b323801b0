//! The seam between a connection and whatever answers its requests.
//!
//! A [`Service`] is opened once per connection and gives a [`Handler`], which may keep what is constant for that
//! connection (addresses, caches). The handler is then called once per request, on the connection's own thread and
//! task. Everything here is single-threaded on purpose: a connection lives on one thread from accept to close.

use std::{future::Future, net::SocketAddr, path::PathBuf, pin::Pin, rc::Rc};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::{Body, ResponseBody};

/// Address of one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IPv4 or IPv6 address with its port.
    Inet(SocketAddr),
    /// A Unix socket; `None` for an unnamed peer.
    Unix(Option<PathBuf>),
}

/// What is constant for one connection.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The other end.
    pub peer: Address,
    /// Our end.
    pub local: Address,
    /// True when the bytes arrive through TLS.
    pub tls: bool,
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
}

/// One request.
pub struct Request {
    /// Method, target, version, header fields.
    pub head: http::request::Parts,
    /// The body; dropping it unread makes the connection drain or close.
    pub body: Body,
    /// Sends informational responses ahead of the final one.
    pub hints: Hints,
    /// Present when the client asked to upgrade to WebSocket.
    pub upgrade: Option<Upgrade>,
}

/// Byte stream of an upgraded connection.
pub trait ByteStream: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite + ?Sized> ByteStream for T {}

/// The stream left after a `101` and the bytes that were read beyond the request head.
pub type Upgraded = (Pin<Box<dyn ByteStream>>, Bytes);

/// Sends informational responses (`103 Early Hints`, RFC 8297) ahead of the final one.
#[derive(Clone, Default)]
pub struct Hints {}

/// Takes over the connection after a `101 Switching Protocols`.
pub struct Upgrade {}

impl Upgrade {
    /// `then` runs on the connection's task once the `101` response that the handler returns has been written.
    pub fn accept(self, then: impl FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>> + 'static) {
        drop(then);
    }
}
