//! Bytes of a file on their way into a response, in one part or in several.
//!
//! The thread of the connections never waits for a disk. Bytes that the kernel has in memory are taken at once
//! (`preadv2(2)`, `RWF_NOWAIT`; macOS cannot say, so none are); others are read by a thread of the pool. Where the connection can have
//! them sent by the kernel ([`FileSender`]), only the last byte of each piece is looked for: what is missing is read into the kernel's
//! memory by the pool first. That is not certain (memory may be taken back in between), but then it costs one read and no more.
//!
//! The length was promised from the size that the file had when it was opened. One that grew is sent as far as promised; one
//! that shrank cuts the response: the connection of HTTP/1, the stream of HTTP/2.

use std::{
    collections::VecDeque,
    fs::File,
    future::Future,
    io,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Report;
use crate::body::Aborted;
use crate::os::{FileExt, read_now};
use crate::sendfile::{FileSender, PIECE_BYTES_MAX};

/// Bytes of a file that are read at a time, and wait in memory for one response.
const READ_BYTES: u64 = 64 * 1024;

/// One part of a body.
#[derive(Debug)]
pub enum Part {
    /// What stands between parts of a file.
    Bytes(Bytes),
    /// Bytes of the file.
    File(Range<u64>),
}

impl Part {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }
}

/// The body of a response.
pub(super) struct FileBody {
    file: Arc<File>,
    parts: VecDeque<Part>,
    /// Bytes that are still to come.
    left: u64,
    sender: Option<FileSender>,
    /// Of the piece that comes next.
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    report: Report,
}

impl FileBody {
    pub(super) fn new(
        file: File,
        parts: VecDeque<Part>,
        sender: Option<FileSender>,
        report: Report,
    ) -> Self {
        Self {
            file: Arc::new(file),
            left: parts.iter().map(Part::len).sum(),
            parts,
            sender,
            reading: None,
            report,
        }
    }

    /// The next bytes from `offset` on, at most `bytes`.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        offset: u64,
        bytes: u64,
    ) -> Poll<io::Result<Bytes>> {
        let bytes = bytes.min(if self.sender.is_some() {
            PIECE_BYTES_MAX as u64
        } else {
            READ_BYTES
        });
        let count = usize::try_from(bytes).unwrap_or(PIECE_BYTES_MAX);
        let read = match &mut self.reading {
            Some(reading) => {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                // Of a pool that is closing there is no result.
                read.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
            }
            None if self.sender.is_some() => {
                read_now(&self.file, offset + bytes - 1, &mut [0]).map(|read| vec![0; read.min(1)])
            }
            None => {
                let mut data = vec![0; count];
                read_now(&self.file, offset, &mut data).map(|read| {
                    data.truncate(read);
                    data
                })
            }
        };
        Poll::Ready(match (read, &self.sender) {
            (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                let file = self.file.clone();
                self.reading = Some(spawn_blocking(move || {
                    let mut data = vec![0; count];
                    file.read_exact_at(&mut data, offset)?;
                    Ok(data)
                }));
                return self.poll_piece(cx, offset, bytes);
            }
            (Err(error), _) => Err(error),
            (Ok(data), _) if data.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            (Ok(_), Some(sender)) => Ok(sender.piece(&self.file, offset, bytes)),
            (Ok(data), None) => Ok(data.into()),
        })
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let me = &mut *self;
        let data = match me.parts.front() {
            None => return Poll::Ready(None),
            Some(Part::Bytes(bytes)) => {
                let bytes = bytes.clone();
                me.parts.pop_front();
                bytes
            }
            Some(Part::File(range)) => {
                let (offset, end) = (range.start, range.end);
                match ready!(me.poll_piece(cx, offset, end - offset)) {
                    Ok(data) => {
                        let next = offset + data.len() as u64;
                        if next == end {
                            me.parts.pop_front();
                        } else {
                            me.parts[0] = Part::File(next..end);
                        }
                        data
                    }
                    Err(error) => {
                        me.report.cut(&error);
                        return Poll::Ready(Some(Err(Aborted)));
                    }
                }
            }
        };
        me.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for FileBody {
    fn drop(&mut self) {
        if let Some(error) = self.sender.as_ref().and_then(FileSender::take_failure) {
            self.report.cut(&error);
        }
    }
}
