//! Bodies: of requests ([`Body`], one type whatever the protocol) and of responses ([`ResponseBody`]).
//!
//! A request body is pulled. Whoever polls it makes the connection read; while nobody polls, the connection holds what came in
//! with the head and at most one buffer more, and the client is stopped by TCP. A response body is pulled by the
//! connection, and only while less than the send bound waits to be written.

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame as BodyFrame, SizeHint};
use hyper::body::Incoming;

use crate::direct::{Ask, DIRECT_BYTES_MIN, Reader};
use crate::error::Error;
use crate::h1_io::Shared;
use crate::h2::RequestStream;
use crate::record::Meter;
use crate::refusal::BODY_TOO_LARGE;

/// Body of a request.
///
/// # Cancel safety
/// [`Body::poll_data`], [`Body::data`], [`Body::poll_read`] and [`Body::read`] may be mixed, and lose nothing when they are dropped between calls: bytes leave the body only in a
/// `Ready`.
///
/// A request without a body, which is most of them, has a null pointer here: a `Body` is moved many times on its way to the
/// handler.
pub struct Body(Option<Box<Unread>>);

/// A body that is not known to be empty.
struct Unread {
    source: Source,
    /// Left over from a piece that was larger than the room for it.
    rest: Bytes,
    trailers: Option<HeaderMap>,
    finished: bool,
    meter: Option<Rc<Meter>>,
    origin: Option<Origin>,
}

/// The connection of HTTP/1 that a body comes from.
struct Origin {
    shared: Rc<Shared>,
    /// Number of the request.
    request: u64,
    /// What a body of unknown length may still bring.
    bytes_left: u64,
}

enum Source {
    Empty,
    Bytes(Bytes),
    /// Through hyper, with the right to ask for more if the body is large.
    Http1(Incoming, Option<Ask>),
    /// From the socket.
    Direct(Reader),
    /// From a stream of HTTP/2.
    Http2(Box<RequestStream>),
}

/// What a source has next.
enum Piece {
    End,
    Data(Result<Bytes, Error>),
    /// The reader has it.
    Direct,
}

impl Body {
    /// A body without bytes.
    pub fn empty() -> Self {
        Self(None)
    }

    /// Body of request number `request` of a connection.
    pub(crate) fn http1(
        incoming: Incoming,
        meter: Option<Rc<Meter>>,
        shared: &Rc<Shared>,
        request: u64,
        bytes_max: u64,
    ) -> Self {
        let ask = is_large(&incoming).then(|| Ask::new(shared.clone(), request));
        let mut body = Self::from_source(Source::Http1(incoming, ask), meter);
        if let Some(unread) = &mut body.0 {
            unread.origin = Some(Origin {
                shared: shared.clone(),
                request,
                bytes_left: bytes_max,
            });
        }
        body
    }

    /// Body of a stream of HTTP/2.
    pub(crate) fn http2(stream: RequestStream, meter: Option<Rc<Meter>>) -> Self {
        Self::from_source(Source::Http2(Box::new(stream)), meter)
    }

    fn from_source(source: Source, meter: Option<Rc<Meter>>) -> Self {
        Self(Some(Box::new(Unread {
            source,
            rest: Bytes::new(),
            trailers: None,
            finished: false,
            meter,
            origin: None,
        })))
    }

    /// Has a connection of HTTP/1 take what is there of a small body out of its buffer, before anybody asks for it. True if it will have
    /// done so by the time it polls the response for the first time: a handler that begins then need not wait for most bodies.
    pub fn call_for(&mut self) -> bool {
        self.0.as_mut().is_some_and(|unread| unread.call_for())
    }

    /// The next bytes, never empty; `None` once the body is complete. After an error the body is over.
    ///
    /// The first poll also sends `100 Continue` when the client waits for it.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        match &mut self.0 {
            Some(unread) => unread.poll_data(cx),
            None => Poll::Ready(None),
        }
    }

    /// Moves the next bytes into `into`; returns how many, 0 once the body is complete. `into` must have room. After an error
    /// the body is over.
    ///
    /// The rest of a large body whose length was declared goes from the socket into `into` without being copied, as much as has
    /// arrived at a time: give it all the room there is.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, Error>> {
        debug_assert!(!into.is_empty(), "no room would look like the end");
        match &mut self.0 {
            Some(unread) => unread.poll_read(cx, into),
            None => Poll::Ready(Ok(0)),
        }
    }

    /// [`Body::poll_read`] as a future.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        poll_fn(|cx| self.poll_read(cx, into)).await
    }

    /// [`Body::poll_data`] as a future.
    pub async fn data(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// True when it is certain that nothing more will come. A chunked body may be over and not know it yet.
    pub fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|unread| unread.is_end_stream())
    }

    /// Bytes that are still to come, when the client declared a length; `None` for a chunked body.
    pub fn remaining(&self) -> Option<u64> {
        self.0.as_ref().map_or(Some(0), |unread| unread.remaining())
    }

    /// Trailer fields, once [`Body::poll_data`] returned `None`. They are never merged into the head.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.as_ref()?.trailers.as_ref()
    }
}

impl Unread {
    fn call_for(&mut self) -> bool {
        let (Source::Http1(incoming, None), Some(origin)) = (&mut self.source, &self.origin) else {
            return false;
        };
        if incoming.size_hint().exact().is_none() || !origin.shared.unread.is_free(origin.request) {
            return false;
        }
        // hyper decodes no body that was never polled. Nobody needs to be woken: it polls the response anyway.
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(incoming).poll_frame(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(_) => unreachable!("hyper has not decoded any of it yet"),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(mem::take(&mut self.rest))));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        let item = match ready!(self.poll_piece(cx)) {
            Piece::End => None,
            Piece::Data(item) => Some(item),
            Piece::Direct => {
                // Only when a large body was begun with `poll_read`.
                let Source::Direct(reader) = &mut self.source else {
                    unreachable!("just said so")
                };
                let mut data = vec![0; reader.remaining().min(DIRECT_BYTES_MIN) as usize];
                Some(ready!(reader.poll_read(cx, &mut data)).map(|bytes| {
                    data.truncate(bytes);
                    data.into()
                }))
            }
        };
        match &item {
            Some(Ok(data)) => self.received(data.len()),
            _ => self.finish(),
        }
        Poll::Ready(item)
    }

    /// What comes next, but for bytes that are to be read from the socket.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        let piece = loop {
            break match &mut self.source {
                Source::Empty => Piece::End,
                Source::Bytes(bytes) if bytes.is_empty() => Piece::End,
                Source::Bytes(bytes) => Piece::Data(Ok(mem::take(bytes))),
                Source::Direct(reader) if reader.remaining() == 0 => Piece::End,
                Source::Direct(_) => Piece::Direct,
                Source::Http2(stream) => {
                    if let Some(data) = ready!(stream.poll_data(cx)) {
                        Piece::Data(data)
                    } else {
                        self.trailers = stream.take_trailers();
                        Piece::End
                    }
                }
                Source::Http1(incoming, ask) => {
                    if let Some(origin) = &self.origin {
                        origin.shared.unread.asked(origin.request);
                    }
                    match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                        None => Piece::End,
                        Some(Err(error)) => {
                            let remaining = incoming.size_hint().exact();
                            match ask.as_ref().and_then(|ask| ask.reader(remaining)) {
                                Some(reader) => {
                                    self.source = Source::Direct(reader);
                                    continue;
                                }
                                None => Piece::Data(Err(Error::from_hyper(error))),
                            }
                        }
                        Some(Ok(frame)) => match frame.into_data() {
                            Ok(data) if data.is_empty() => continue,
                            Ok(data) => Piece::Data(within(&mut self.origin, data)),
                            Err(frame) => {
                                // Trailers are the last frame; the next poll says `End`.
                                self.trailers = frame.into_trailers().ok();
                                continue;
                            }
                        },
                    }
                }
            };
        };
        Poll::Ready(piece)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<usize, Error>> {
        if let Source::Http1(incoming, Some(ask)) = &mut self.source
            && is_large(incoming)
        {
            ask.ask();
        }
        if self.rest.is_empty() && !self.finished {
            match ready!(self.poll_piece(cx)) {
                Piece::End => self.finish(),
                Piece::Data(Ok(data)) => {
                    self.received(data.len());
                    self.rest = data;
                }
                Piece::Data(Err(error)) => {
                    self.finish();
                    return Poll::Ready(Err(error));
                }
                Piece::Direct => {
                    let Source::Direct(reader) = &mut self.source else {
                        unreachable!("just said so")
                    };
                    let result = ready!(reader.poll_read(cx, into));
                    match result {
                        Ok(bytes) => self.received(bytes),
                        Err(_) => self.finish(),
                    }
                    return Poll::Ready(result);
                }
            }
        }
        let bytes = self.rest.len().min(into.len());
        self.rest.copy_to_slice(&mut into[..bytes]);
        Poll::Ready(Ok(bytes))
    }

    fn received(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.received(bytes);
        }
        self.begun();
    }

    fn begun(&self) {
        if let Some(origin) = &self.origin {
            let unread = &origin.shared.unread;
            unread.begun(origin.request);
            if matches!(&self.source, Source::Http1(incoming, _) if incoming.is_end_stream()) {
                unread.let_go(origin.request);
            }
        }
    }

    fn finish(&mut self) {
        self.begun();
        self.finished = true;
        self.source = Source::Empty;
        if let Some(origin) = &self.origin {
            origin.shared.unread.let_go(origin.request);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.source {
                Source::Empty => true,
                Source::Bytes(bytes) => bytes.is_empty(),
                Source::Http1(incoming, _) => incoming.is_end_stream(),
                Source::Direct(reader) => reader.remaining() == 0,
                Source::Http2(stream) => stream.is_end_stream(),
            }
    }

    fn remaining(&self) -> Option<u64> {
        let source = match &self.source {
            Source::Empty => Some(0),
            Source::Bytes(bytes) => Some(bytes.len() as u64),
            Source::Http1(incoming, _) => incoming.size_hint().exact(),
            Source::Direct(reader) => Some(reader.remaining()),
            Source::Http2(stream) => stream.remaining(),
        };
        source.map(|bytes| bytes + self.rest.len() as u64)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(origin) = &self.origin else { return };
        origin.shared.unread.let_go(origin.request);
        if let Source::Http1(incoming, ask) = mem::replace(&mut self.source, Source::Empty) {
            drop(ask);
            let shared = &origin.shared;
            // After it was taken apart, hyper's connection is no more; one that drains takes no further request.
            if !incoming.is_end_stream() && shared.direct.is_off() && !shared.is_draining() {
                let to_come = shared.body_to_come();
                shared.unread.dropped(origin.request, incoming, to_come);
                shared.wake_task();
            }
        }
    }
}

/// Counts what came of a body of unknown length. Beyond its bound the request is answered by the connection, if it is not yet.
fn within(origin: &mut Option<Origin>, data: Bytes) -> Result<Bytes, Error> {
    if let Some(origin) = origin {
        let Some(left) = origin.bytes_left.checked_sub(data.len() as u64) else {
            origin.shared.refuse(origin.request, &BODY_TOO_LARGE);
            return Err(Error::too_large());
        };
        origin.bytes_left = left;
    }
    Ok(data)
}

/// Large enough to be worth reading directly.
fn is_large(incoming: &Incoming) -> bool {
    incoming
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes >= DIRECT_BYTES_MIN)
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        Self::from_source(Source::Bytes(bytes), None)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// A response body that comes in pieces.
pub type BodyStream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = Aborted>>>;

/// Body of a response.
#[derive(Default)]
pub enum ResponseBody {
    /// No body.
    #[default]
    Empty,
    /// The whole body.
    Full(Bytes),
    /// A body that comes in pieces; an error aborts the connection so that the client sees a truncated response.
    Stream(BodyStream),
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(BodyFrame::data(bytes))))
            }
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::Empty
        } else {
            Self::Full(bytes)
        }
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// The response cannot be completed: its connection is cut, so that the client does not take it for complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response was given up before its end")
    }
}

impl StdError for Aborted {}
