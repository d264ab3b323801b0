//! A body that is compressed on its way.
//!
//! *What is flushed when.* As long as the source has something to give, it is taken and nothing is flushed; when it has
//! nothing for now, all that went in comes out. So what an application sends leaves at once, and what it sends in many
//! pieces at a time is compressed as one.
//!
//! *How long it takes.* At most [`TURN_BYTES`] are compressed in one go, a millisecond or so; then the connection's task goes to
//! the end of the queue.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use super::encoder::Encoder;
use crate::body::{Aborted, ResponseBody};

/// Bytes that are compressed before others have their turn.
pub(super) const TURN_BYTES: usize = 64 * 1024;
/// Compressed bytes that leave without a flush.
const PIECE_BYTES: usize = 16 * 1024;

pub(super) struct CompressedBody {
    source: ResponseBody,
    /// Gone at the end.
    encoder: Option<Encoder>,
    /// Of the source, not compressed yet.
    input: Bytes,
    /// Bytes compressed in this turn.
    spent: usize,
    /// Something went in since the last flush.
    is_dirty: bool,
    trailers: Option<HeaderMap>,
}

impl CompressedBody {
    pub(super) fn new(source: ResponseBody, encoder: Encoder) -> Self {
        Self {
            source,
            encoder: Some(encoder),
            input: Bytes::new(),
            spent: 0,
            is_dirty: false,
            trailers: None,
        }
    }

    /// The next compressed bytes; none at the end.
    fn poll_compressed(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, Trouble>> {
        let Some(mut encoder) = self.encoder.take() else {
            return Poll::Ready(Ok(None));
        };
        loop {
            if encoder.made() >= PIECE_BYTES {
                let out = encoder.take();
                self.encoder = Some(encoder);
                return Poll::Ready(Ok(Some(out)));
            }
            if self.spent >= TURN_BYTES {
                self.spent = 0;
                self.encoder = Some(encoder);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.input.is_empty() {
                let bytes = self.input.len().min(TURN_BYTES - self.spent);
                encoder.write(&self.input[..bytes])?;
                self.input.advance(bytes);
                self.spent += bytes;
                self.is_dirty = true;
                continue;
            }
            match Pin::new(&mut self.source).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.input = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        return Poll::Ready(Ok(Some(encoder.finish()?)));
                    }
                },
                Poll::Ready(Some(Err(Aborted))) => return Poll::Ready(Err(Trouble)),
                Poll::Ready(None) => return Poll::Ready(Ok(Some(encoder.finish()?))),
                Poll::Pending => {
                    // A source that pauses ends the turn.
                    self.spent = 0;
                    if self.is_dirty {
                        self.is_dirty = false;
                        encoder.flush()?;
                    }
                    let out = encoder.take();
                    self.encoder = Some(encoder);
                    return if out.is_empty() {
                        Poll::Pending
                    } else {
                        Poll::Ready(Ok(Some(out)))
                    };
                }
            }
        }
    }
}

/// The response cannot go on.
struct Trouble;

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl http_body::Body for CompressedBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        self.poll_compressed(cx).map(|compressed| match compressed {
            Ok(Some(data)) => Some(Ok(Frame::data(data.into()))),
            Ok(None) => self
                .trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
            Err(Trouble) => Some(Err(Aborted)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }
}
