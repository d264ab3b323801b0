//! Bodies: of requests ([`Body`], one type whatever the protocol) and of responses ([`ResponseBody`]).
//!
//! A request body is pulled. Whoever polls it makes the connection read; while nobody polls, the connection holds what came in
//! with the head and at most one buffer more, and the client is stopped by TCP. A response body is pulled by the
//! connection, and only while less than the send bound waits to be written.

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame as BodyFrame, SizeHint};
use hyper::body::Incoming;

use crate::error::Error;
use crate::record::Meter;

/// Body of a request.
///
/// # Cancel safety
/// [`Body::poll_data`] and [`Body::data`] lose nothing when they are dropped between calls: bytes leave the body only in a
/// `Ready`.
pub struct Body {
    source: Source,
    trailers: Option<HeaderMap>,
    finished: bool,
    meter: Option<Rc<Meter>>,
}

enum Source {
    Empty,
    Bytes(Bytes),
    Http1(Incoming),
}

impl Body {
    /// A body without bytes.
    pub fn empty() -> Self {
        Self::from_source(Source::Empty, None)
    }

    pub(crate) fn http1(incoming: Incoming, meter: Option<Rc<Meter>>) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self::from_source(Source::Http1(incoming), meter)
    }

    fn from_source(source: Source, meter: Option<Rc<Meter>>) -> Self {
        Self {
            source,
            trailers: None,
            finished: false,
            meter,
        }
    }

    /// The next bytes, never empty; `None` once the body is complete. After an error the body is over.
    ///
    /// The first poll also sends `100 Continue` when the client waits for it.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        loop {
            let item = match &mut self.source {
                Source::Empty => None,
                Source::Bytes(bytes) if bytes.is_empty() => None,
                Source::Bytes(bytes) => Some(Ok(std::mem::take(bytes))),
                Source::Http1(incoming) => match ready!(Pin::new(incoming).poll_frame(cx)) {
                    None => None,
                    Some(Err(error)) => Some(Err(Error::from_hyper(error))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() => continue,
                        Ok(data) => Some(Ok(data)),
                        Err(frame) => {
                            // Trailers are the last frame; the next poll says `None`.
                            self.trailers = frame.into_trailers().ok();
                            continue;
                        }
                    },
                },
            };
            if let Some(Ok(data)) = &item {
                if let Some(meter) = &self.meter {
                    meter.received(data.len());
                }
            } else {
                self.finished = true;
                self.source = Source::Empty;
            }
            return Poll::Ready(item);
        }
    }

    /// [`Body::poll_data`] as a future.
    pub async fn data(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// True when it is certain that nothing more will come. A chunked body may be over and not know it yet.
    pub fn is_end_stream(&self) -> bool {
        self.finished
            || match &self.source {
                Source::Empty => true,
                Source::Bytes(bytes) => bytes.is_empty(),
                Source::Http1(incoming) => incoming.is_end_stream(),
            }
    }

    /// Bytes that are still to come, when the client declared a length; `None` for a chunked body.
    pub fn remaining(&self) -> Option<u64> {
        if self.finished {
            return Some(0);
        }
        match &self.source {
            Source::Empty => Some(0),
            Source::Bytes(bytes) => Some(bytes.len() as u64),
            Source::Http1(incoming) => incoming.size_hint().exact(),
        }
    }

    /// Trailer fields, once [`Body::poll_data`] returned `None`. They are never merged into the head.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
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
                let bytes = std::mem::take(bytes);
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
