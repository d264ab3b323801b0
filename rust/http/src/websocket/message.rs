//! Where the payload of messages goes: a sink that names memory, and one that collects messages on the heap.

use tokio::io::ReadBuf;

use super::{Failure, Kind, code};

/// Takes messages piece by piece, into memory of its choice.
///
/// For each message `begin`, then `space` and `filled` in turns, then `end`; or [`whole`](Self::whole) in one call. A
/// message is left unfinished when the connection ends inside it.
pub trait MessageSink {
    /// A message begins. Unless the connection ends, `size_hint` bytes will come, or so many as nobody knows where that is 0: it
    /// is fragmented or compressed. What a peer announces costs it nothing: do not spend as much memory before bytes arrive.
    ///
    /// # Errors
    ///
    /// The message is refused; the connection fails with this code and reason.
    fn begin(&mut self, kind: Kind, size_hint: u64) -> Result<(), Failure>;

    /// Memory for the next bytes: not empty, and as long as `want` if that is cheap. Its content may be overwritten
    /// whether or not the bytes count in the end; what has never been written need not be cleared. Empty means that there
    /// is no room: the message is too big.
    fn space(&mut self, want: usize) -> ReadBuf<'_>;

    /// The first `count` bytes of the last `space` are payload.
    fn filled(&mut self, count: usize);

    /// The message is complete. Text as a whole is valid UTF-8.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    fn end(&mut self) -> Result<(), Failure>;

    /// A message that is wholly there.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    fn whole(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
        self.begin(kind, payload.len() as u64)?;
        fill(self, payload)?;
        self.end()
    }
}

/// Copies a piece of a message into a sink.
///
/// # Errors
///
/// The sink has no room.
pub fn fill<M: MessageSink + ?Sized>(sink: &mut M, mut data: &[u8]) -> Result<(), Failure> {
    while !data.is_empty() {
        let mut space = sink.space(data.len());
        let count = space.remaining().min(data.len());
        if count == 0 {
            return Err(NO_ROOM);
        }
        space.put_slice(&data[..count]);
        sink.filled(count);
        data = &data[count..];
    }
    Ok(())
}

/// The sink has no room for the rest of a message.
pub const NO_ROOM: Failure = Failure {
    code: code::TOO_BIG,
    reason: "message too big",
};

/// The smallest step in which a buffer grows.
const STEP_BYTES: usize = 64 * 1024;

/// Collects one message on the heap; what a [`MessageSink`] without memory of its own is made of.
///
/// It at most doubles what has arrived, so a peer that announces a large message and does not send it gets no memory.
#[derive(Debug, Default)]
pub struct MessageBuffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl MessageBuffer {
    /// Memory for the next bytes, as [`MessageSink::space`].
    pub fn space(&mut self, want: usize) -> ReadBuf<'_> {
        let end = self.filled + want.min(self.filled.max(STEP_BYTES));
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        ReadBuf::new(&mut self.bytes[self.filled..end])
    }

    /// The first `count` bytes of the last `space` are payload.
    pub fn filled(&mut self, count: usize) {
        self.filled += count;
    }

    /// The message, which leaves the buffer empty and without memory.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(std::mem::take(&mut self.filled));
        bytes
    }
}
