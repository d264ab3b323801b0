//! A request body, straight into a loaned frame slot.
//!
//! The slot belongs to whoever implements [`FrameSink`] (shared memory, in the product); this crate knows only its bytes.
//! Of a large body whose length is declared, all but the beginning goes from the socket into the slot, in reads as large as what
//! has arrived. Of others each byte is copied once more, out of the connection's read buffer.

use std::{error::Error as StdError, fmt, future::Future};

use crate::body::Body;
use crate::error::Error;
use crate::topics::{FrameHead, Problem};

/// Where the bytes of a frame come from: a whole body, or one part of it.
pub trait Source {
    /// Bytes that are still to come, if their number was declared.
    fn remaining(&self) -> Option<u64>;

    /// Moves the next bytes into `into`, which has room; 0 at the end.
    fn read(&mut self, into: &mut [u8]) -> impl Future<Output = Result<usize, IngestError>>;
}

impl Source for Body {
    fn remaining(&self) -> Option<u64> {
        Self::remaining(self)
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<usize, IngestError> {
        Ok(Self::read(self, into).await?)
    }
}

/// Gives out slots for frames.
pub trait FrameSink {
    /// Loans a slot for a frame of `bytes` bytes, or of any size when it is not known.
    ///
    /// # Errors
    /// [`IngestError::is_too_large`] when no slot is that large; [`IngestError::is_unavailable`] when none is free or the
    /// topic is gone.
    fn loan(&self, bytes: Option<u64>) -> Result<Box<dyn FrameSlot>, IngestError>;
}

/// One loaned slot. Dropping it abandons the loan: nobody sees what was written.
pub trait FrameSlot {
    /// The rest of the slot, after what was filled.
    fn space(&mut self) -> &mut [u8];

    /// The first `bytes` of [`FrameSlot::space`] are payload now.
    fn filled(&mut self, bytes: usize);

    /// What was filled so far.
    fn payload(&self) -> &[u8];

    /// Makes the frame visible to subscribers, with what is said of it.
    ///
    /// # Errors
    /// [`IngestError::is_unavailable`] when the topic went away meanwhile.
    fn publish(self: Box<Self>, head: &FrameHead) -> Result<Published, IngestError>;
}

/// A frame that subscribers can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its sequence number in the topic.
    pub sequence: u64,
    /// Bytes of its payload.
    pub bytes: u64,
}

/// A body did not become a frame.
#[derive(Debug)]
pub struct IngestError {
    kind: Kind,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TooLarge,
    Unavailable,
    Body,
}

impl IngestError {
    /// The frame is larger than a slot.
    pub fn too_large() -> Self {
        Self {
            kind: Kind::TooLarge,
            cause: None,
        }
    }

    /// No slot can be had.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind: Kind::Unavailable,
            cause: Some(cause.into()),
        }
    }

    /// The body is larger than a slot: `413`.
    pub fn is_too_large(&self) -> bool {
        self.kind == Kind::TooLarge
    }

    /// No slot can be had: `503`. The cause says why.
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// The body ended before its end: the client is gone or broke the protocol. The cause is an [`Error`], or a [`Problem`] of one
    /// of its parts.
    pub fn is_body(&self) -> bool {
        self.kind == Kind::Body
    }
}

impl From<Error> for IngestError {
    fn from(error: Error) -> Self {
        Self {
            kind: Kind::Body,
            cause: Some(error.into()),
        }
    }
}

impl From<Problem> for IngestError {
    fn from(problem: Problem) -> Self {
        Self {
            kind: Kind::Body,
            cause: Some(problem.into()),
        }
    }
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::TooLarge => "the body is larger than a slot of the topic",
            Kind::Unavailable => "no slot of the topic can be loaned",
            Kind::Body => "the body ended before it was complete; the loan was abandoned",
        })
    }
}

impl StdError for IngestError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause
            .as_ref()
            .map(|cause| &**cause as &(dyn StdError + 'static))
    }
}

/// Moves the rest of `body` into a slot of `sink` and publishes it with `head`. `bytes_max` bounds the frame below the slot's own size.
///
/// A declared length over the limit is refused before a byte is read. A body of unknown length loans a full slot and fails
/// when it does not fit.
///
/// # Errors
/// See the questions of [`IngestError`]. Nothing is published then.
///
/// # Cancel safety
/// Not cancel safe: dropping the future abandons the loan and loses the bytes read so far.
pub async fn ingest(
    body: &mut Body,
    sink: &dyn FrameSink,
    head: &FrameHead,
    bytes_max: Option<u64>,
) -> Result<Published, IngestError> {
    let declared = body.remaining();
    let limit = bytes_max.unwrap_or(u64::MAX);
    if declared.is_some_and(|bytes| bytes > limit) {
        return Err(IngestError::too_large());
    }
    let mut slot = sink.loan(declared)?;
    fill(body, &mut *slot, limit).await?;
    slot.publish(head)
}

/// Moves the rest of `source` into a slot that is loaned already; gives the number of bytes, at most `bytes_max`.
///
/// The slot is the buffer: a large body whose length is declared is read from the socket straight into it.
///
/// # Errors
/// [`IngestError::is_too_large`], [`IngestError::is_body`].
///
/// # Cancel safety
/// Not cancel safe, as [`ingest`].
pub async fn fill(
    source: &mut impl Source,
    slot: &mut dyn FrameSlot,
    bytes_max: u64,
) -> Result<u64, IngestError> {
    if source.remaining().is_some_and(|bytes| bytes > bytes_max) {
        return Err(IngestError::too_large());
    }
    let mut total = 0;
    loop {
        let space = slot.space();
        let left = usize::try_from(bytes_max - total).unwrap_or(usize::MAX);
        let room = space.len().min(left);
        if room == 0 {
            // The last read also tells that a body is whole.
            return match source.read(&mut [0]).await? {
                0 => Ok(total),
                _ => Err(IngestError::too_large()),
            };
        }
        match source.read(&mut space[..room]).await? {
            0 => return Ok(total),
            bytes => {
                slot.filled(bytes);
                total += bytes as u64;
            }
        }
    }
}
