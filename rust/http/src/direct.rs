//! Large bodies of declared length, read from the socket straight into the reader's memory.
//!
//! Through hyper each byte of a body goes from the kernel into hyper's buffer and from there to its place, in pieces of that
//! buffer, and each piece wakes two tasks. For a frame of several megabytes that costs more than the frame. So the body's
//! reader asks the connection to step aside:
//!
//! ```text
//!   Off --- reader asks ---> Requested --- the connection grants ---> Active --- last byte read ---> Off
//!    ^                           |                                      |
//!    +------ refused, or the reader is gone                             +--- reader gone, or read failed ---> Abandoned
//! ```
//! - *Requested*: hyper gets no more bytes of the socket. It is polled once more, so that what it owes the client (a `100
//!   Continue`) leaves.
//! - *Active*: hyper's connection has been taken apart. The future of the response is kept and polled by the connection's
//!   task; the body's bytes that hyper had buffered and the count of those that are still to come went to the reader; nobody else
//!   reads the socket. The grant is made only while part of the body is still to come, so hyper's buffer holds nothing but
//!   bytes of this body, and the reader takes exactly the rest: the first byte of the next request stays in the socket.
//! - Then the response is written by a new hyper connection over the same socket. It is given a *twin* of the request's head,
//!   with the same method, version, `Connection` and `TE`, and without a body, and the call for it returns the kept future.
//! - *Abandoned*: the place in the byte stream is lost. The twin says `Connection: close`, hyper is given no byte after it, and
//!   what the client still sends is dropped after the response.
//!
//! The observer of the framing counts the direct bytes as any others, and what it has left must agree with what the reader has
//! left; if it ever does not, the connection is closed.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io, mem,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::ReadBuf,
    time::{Instant, Sleep, sleep},
};

use crate::config::ReceiveWatermark;
use crate::error::Error;
use crate::h1_io::{Shared, Socket};

/// Smallest rest of a body that is read directly. Below it, a second hyper connection costs more than it saves.
#[cfg(not(any(test, feature = "fuzzing")))]
pub(crate) const DIRECT_BYTES_MIN: u64 = 64 * 1024;
/// So that bodies of a fuzzer's inputs are large.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) const DIRECT_BYTES_MIN: u64 = 24;

/// After so many bytes other tasks get their turn, even when the socket has more.
const BURST_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that a reader waits for, where the kernel can be told. Waking costs more than copying a few packets.
const WATERMARK_BYTES: usize = 512 * 1024;
/// A reader that got nothing for so long takes what is there from then on. The sender may be slow, or its window may have closed
/// below the watermark, and then nobody would move.
const WATERMARK_PATIENCE: Duration = Duration::from_millis(5);

/// Bytes of one read. Larger ones save system calls and cost more: the bytes wait in the kernel until they are out of the
/// caches, and the sender waits for the window that the read opens.
const READ_BYTES_MAX: usize = 128 * 1024;

/// Who reads the socket; see the module's picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Off,
    Requested,
    Active,
    Abandoned,
}

/// A connection's part of the matter.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Direct {
    /// How `SO_RCVLOWAT` is set, if the server can.
    pub(crate) set_watermark: Cell<Option<ReceiveWatermark>>,
    /// Number of the request whose body asked last.
    request: Cell<u64>,
    /// Waits for the reader while it drains what hyper had handed on before.
    grant: RefCell<Option<Grant>>,
    /// The socket while a reader may read it.
    socket: RefCell<Option<Rc<RefCell<Socket>>>>,
    reader: RefCell<Option<Waker>>,
    /// Last: what is behind it is looked at as often.
    stage: Cell<Stage>,
}

/// What the connection hands to the reader.
struct Grant {
    buffered: Bytes,
    /// Bytes of the body that are still to be read from the socket; at least one.
    left: u64,
}

impl Direct {
    /// hyper may read the socket.
    pub(crate) fn is_off(&self) -> bool {
        self.stage.get() == Stage::Off
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.stage.get() == Stage::Requested
    }

    /// A reader owns the reading side of the socket.
    pub(crate) fn is_active(&self) -> bool {
        self.stage.get() == Stage::Active
    }

    /// Number of the request that asks.
    pub(crate) fn request(&self) -> u64 {
        self.request.get()
    }

    /// The body is read through hyper after all.
    pub(crate) fn refuse(&self) {
        self.stage.set(Stage::Off);
    }

    pub(crate) fn grant(&self, socket: Rc<RefCell<Socket>>, buffered: Bytes, left: u64) {
        self.stage.set(Stage::Active);
        *self.socket.borrow_mut() = Some(socket);
        *self.grant.borrow_mut() = Some(Grant { buffered, left });
    }

    /// No byte of what follows may be taken for HTTP.
    fn abandon(&self) {
        self.stage.set(Stage::Abandoned);
        *self.socket.borrow_mut() = None;
    }

    /// Nothing is parsed any more: whatever comes may be read and dropped.
    pub(crate) fn allow_discard(&self) {
        debug_assert!(!self.is_active(), "the reader comes first");
        self.stage.set(Stage::Off);
    }

    /// The connection is over, and with it the reader.
    pub(crate) fn revoke(&self) {
        self.abandon();
        let reader = self.reader.borrow_mut().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// A body's right to ask for direct reading, once.
pub(crate) struct Ask {
    shared: Rc<Shared>,
    /// Number of the request.
    request: u64,
    asked: bool,
}

impl Ask {
    pub(crate) fn new(shared: Rc<Shared>, request: u64) -> Self {
        Self {
            shared,
            request,
            asked: false,
        }
    }

    /// Asks the connection's task to step aside. The answer comes through the body: an error in place of its next bytes, if
    /// it was granted.
    pub(crate) fn ask(&mut self) {
        let direct = &self.shared.direct;
        if mem::replace(&mut self.asked, true) || !direct.is_off() {
            return;
        }
        direct.request.set(self.request);
        direct.stage.set(Stage::Requested);
        self.shared.wake_task();
    }

    /// The reader, if it was granted. `remaining` is what hyper has not handed on.
    pub(crate) fn reader(&self, remaining: Option<u64>) -> Option<Reader> {
        if !self.asked || self.shared.direct.request.get() != self.request {
            return None;
        }
        let grant = self.shared.direct.grant.borrow_mut().take()?;
        let reader = Reader {
            shared: self.shared.clone(),
            buffered: grant.buffered,
            left: grant.left,
            burst: 0,
            watermark: 1,
            patience: None,
            progressed: true,
            slow: false,
        };
        // Dropping it here closes the connection after the response.
        (remaining == Some(reader.remaining())).then_some(reader)
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        let direct = &self.shared.direct;
        if !self.asked || direct.request.get() != self.request {
            return;
        }
        if direct.is_requested() {
            direct.refuse();
            self.shared.wake_task();
        } else if direct.grant.borrow_mut().take().is_some() {
            direct.abandon();
            self.shared.wake_task();
        }
    }
}

/// Reads the rest of one body.
pub(crate) struct Reader {
    shared: Rc<Shared>,
    /// Comes before what is in the socket.
    buffered: Bytes,
    /// Bytes of the body that are still to be read from the socket.
    left: u64,
    /// Bytes read since other tasks had their turn.
    burst: usize,
    /// Bytes that the socket waits for before it wakes this reader.
    watermark: usize,
    /// Ends the waiting for more than one byte; `None` before the first.
    patience: Option<Pin<Box<Sleep>>>,
    /// Bytes came since the patience began.
    progressed: bool,
    /// The patience was used up once: this sender is slow.
    slow: bool,
}

impl Reader {
    pub(crate) fn remaining(&self) -> u64 {
        self.buffered.len() as u64 + self.left
    }

    /// Fills `into` as far as bytes are there, at least one; 0 at the end of the body. Dropping the reader after an error
    /// closes the connection.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, Error>> {
        debug_assert!(!into.is_empty(), "no room would look like the end");
        if !self.buffered.is_empty() {
            let bytes = self.buffered.len().min(into.len());
            self.buffered.copy_to_slice(&mut into[..bytes]);
            return Poll::Ready(Ok(bytes));
        }
        if self.left == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.burst >= BURST_BYTES_MAX {
            self.burst = 0;
            // Not a plain wake-up: the runtime would poll this task again before it looks at other sockets.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            self.remember(cx);
            return Poll::Pending;
        }
        // The one place that bounds what is taken: never more than the body has left.
        let room = usize::try_from(self.left).map_or(into.len(), |left| left.min(into.len()));
        let room = room.min(READ_BYTES_MAX);
        let mut into = ReadBuf::new(&mut into[..room]);
        let result = match &*self.shared.direct.socket.borrow() {
            Some(socket) => socket.borrow_mut().poll_read(cx, &mut into),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        };
        if result.is_pending() {
            self.burst = 0;
            self.shared.awaits_read.set(true);
            self.remember(cx);
            self.wait_for_many(cx);
        }
        match ready!(result) {
            Ok(()) => {}
            Err(error) => {
                self.shared.broken.set(true);
                return Poll::Ready(Err(error.into()));
            }
        }
        let bytes = into.filled().len();
        if bytes == 0 {
            self.shared.eof.set(true);
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        self.burst += bytes;
        self.left -= bytes as u64;
        self.progressed = true;
        let left = self.shared.note_direct(bytes as u64);
        if left != self.left {
            // Nobody knows where the next request begins.
            self.left = self.left.max(1);
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::InvalidData).into()));
        }
        if left == 0 {
            self.wait_for(1);
            let direct = &self.shared.direct;
            direct.stage.set(Stage::Off);
            *direct.socket.borrow_mut() = None;
            self.shared.wake_task();
        }
        Poll::Ready(Ok(bytes))
    }

    /// Lets the kernel collect before it wakes this reader again, for a while.
    fn wait_for_many(&mut self, cx: &mut Context<'_>) {
        if self.slow || self.shared.direct.set_watermark.get().is_none() {
            return;
        }
        let progressed = mem::take(&mut self.progressed);
        let patience = self
            .patience
            .get_or_insert_with(|| Box::pin(sleep(WATERMARK_PATIENCE)));
        if progressed {
            patience.as_mut().reset(Instant::now() + WATERMARK_PATIENCE);
        }
        if patience.as_mut().poll(cx).is_ready() {
            // The kernel says at once if anything is there.
            self.slow = true;
            self.wait_for(1);
        } else {
            let left = usize::try_from(self.left).unwrap_or(WATERMARK_BYTES);
            self.wait_for(left.min(WATERMARK_BYTES));
        }
    }

    /// From now on the socket is readable when that many bytes are there (or it has ended, or the kernel's buffer is full).
    /// The kernel looks again when this is set, so bytes that came before are not missed.
    fn wait_for(&mut self, bytes: usize) {
        let direct = &self.shared.direct;
        if self.watermark != bytes
            && let Some(set) = direct.set_watermark.get()
            && let Some(socket) = &*direct.socket.borrow()
        {
            set(socket.borrow().as_fd(), bytes);
            self.watermark = bytes;
        }
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut reader = self.shared.direct.reader.borrow_mut();
        match &mut *reader {
            Some(known) => known.clone_from(cx.waker()),
            None => *reader = Some(cx.waker().clone()),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        *self.shared.direct.reader.borrow_mut() = None;
        if self.left > 0 {
            self.wait_for(1);
            self.shared.direct.abandon();
            self.shared.wake_task();
        }
    }
}
