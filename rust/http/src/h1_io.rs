//! What lies between hyper and the socket, and what both sides know of the connection.
//!
//! # Informational responses
//! hyper cannot send a `103`, so it is slipped in here. hyper calls `poll_flush` of its IO only when its own write buffer
//! is empty, that is between two messages or between two pieces of one; while the service has not given its response
//! yet, it is between two messages. So a hint is written there and nowhere else. Two rules keep the order:
//! a hint whose bytes have begun to leave is finished before any other byte is written, and one that has not begun when the final
//! response is made is withdrawn. (`pipeline_flush` of hyper must stay off: it skips the flush while more requests are
//! buffered, and it has no bound on what it buffers.)
//!
//! # Phases
//! ```text
//!          accept            head complete          response handed over
//!   (new) -------> Head ---------------------> Busy ---------------------> Idle --+
//!                    ^                           | 101                       |    | park, unpark
//!                    |       first byte          v                           | <--+
//!                    +------------------------ Upgraded     Lingering <------+ (any phase: the last response was written)
//! ```
//! A connection with TLS is in `Handshake` before its `Head`.
//! HTTP/2 has phases of its own: `H2Idle` and `H2Busy`, in turns.
//!
//! A change of phase raises `epoch`. A response that is handed over but not wholly written shows as `Idle` and not `flushed`.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    fmt,
    fs::File,
    future::Future,
    io::{self, IoSlice},
    mem::{self, MaybeUninit},
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::config::{Config, SendFile};
use crate::direct::Direct;
use crate::framing::{BareLfInTrailers, Framing, HeadMarks};
use crate::h2::Observed;
use crate::half_close::{self, HalfClose};
use crate::moved::Carried;
use crate::os::{self, AsFd, AsRawFd, BorrowedFd, NO_SOCKET, RawFd, UnixStream};
use crate::record::{Meter, Recorder};
use crate::refusal::Refusal;
use crate::sendfile::{self, FileQueue, Next};
use crate::service::Takeover;
use crate::tls::TlsStream;
use crate::unread::UnreadBody;
use crate::wide::Wide;

/// Where a connection stands; see the module's picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Handshake,
    Head,
    Idle,
    Busy,
    Upgraded,
    Lingering,
    /// HTTP/2 without an open stream.
    H2Idle,
    /// HTTP/2 with at least one.
    H2Busy,
}

/// What the sweep or a drain wants of a connection's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Park,
    /// Ask whether the client is still there.
    Ping,
    Close,
    /// As `Close`, so that the peer learns that it lost something.
    Reset,
    /// The client is too slow: it is told so if that is possible, and the connection ends.
    TimeOut,
    /// Look whether a client that has closed its side was lost.
    Look,
    /// A client that has closed its side counts as gone.
    HangUp,
}

/// What the sweep waits for a peer to do, and how far that was at the beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) peer: Peer,
    pub(crate) since: Duration,
    /// Bytes that had come, or gone.
    pub(crate) bytes: u64,
    /// Bytes that had gone and were not acknowledged.
    pub(crate) unacknowledged: u32,
}

/// What a peer has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// To send bytes of a body.
    Sends,
    /// To read.
    Reads,
}

/// What the two ends of a connection that departs know of its bytes.
enum Away {
    Departed(Arc<Carried>),
    Arrived(Arc<Carried>),
}

/// What the socket wrapper, the service, the handlers and the sweep know of one connection.
///
/// Laid out by hand: with many viewers of a topic, each frame finds most of a connection in no cache, and its way through hyper looks
/// at this in a dozen places. Those are in six cache lines; by the compiler's order they were in eleven of twelve. The counts of an
/// [`Rc`] are in front.
#[repr(C)]
pub(crate) struct Shared {
    /// Wakes the connection's task.
    task: RefCell<Option<Waker>>,
    pub(crate) phase: Cell<Phase>,
    pub(crate) order: Cell<Option<Order>>,
    pub(crate) draining: Cell<bool>,
    /// Nothing that was written waits in hyper or here.
    pub(crate) flushed: Cell<bool>,
    /// The last attempt to read found nothing: more is wanted of the peer.
    pub(crate) awaits_read: Cell<bool>,
    /// The last attempt to write found no room: the peer has to read first.
    pub(crate) awaits_write: Cell<bool>,
    /// The peer has closed its side, and that counts as the end.
    pub(crate) eof: Cell<bool>,
    /// The socket failed.
    pub(crate) broken: Cell<bool>,
    /// Responses of HTTP/1.1 get their `date` from us, not from hyper (see `set_back.rs`).
    pub(crate) own_date: Cell<bool>,
    pub(crate) parked: Cell<bool>,
    /// The client was asked whether it is there, and has not said anything since.
    pub(crate) pinged: Cell<bool>,
    /// Counts towards the limit of connections; one that does not is refused.
    pub(crate) admitted: Cell<bool>,
    /// The end of the current response is the end of the connection, so cutting it must be a reset.
    pub(crate) close_delimited: Cell<bool>,
    /// Bytes go through TLS: a body cannot be read past it.
    pub(crate) tls: Cell<bool>,
    /// Bytes that were read before wait to be read again.
    rewound: Cell<bool>,
    /// The socket's number, for questions to the kernel that the sweep asks.
    pub(crate) descriptor: Cell<RawFd>,
    pub(crate) epoch: Cell<u32>,
    pub(crate) bytes_out: Cell<u64>,
    pub(crate) bytes_in: Cell<u64>,
    /// Bytes of files that leave through the kernel, and of frames.
    pub(crate) files: FileQueue,
    pub(crate) recorder: Option<Rc<Recorder>>,
    /// Records of responses that hyper has, but that are not wholly written.
    unwritten: RefCell<Vec<Rc<Meter>>>,
    /// Whether the kernel may hold much of what is written.
    pub(crate) wide: Wide,
    /// Ends with what is looked at often; the next one begins with it.
    pub(crate) unread: UnreadBody,
    /// The peer has closed its side while it is being answered.
    pub(crate) half_close: HalfClose,
    /// The sweep's: the epoch it saw last, and since when.
    pub(crate) seen: Cell<Option<(u32, Duration)>>,
    /// Which connection of its server it is.
    pub(crate) number: Cell<u64>,
    /// Ends with what is looked at often; the next one begins with it.
    pub(crate) direct: Direct,
    hints: RefCell<HintQueue>,
    pub(crate) index: Cell<usize>,
    /// The sweep's: what the peer was found to be waited for.
    pub(crate) stall: Cell<Option<Stall>>,
    /// Further requests that this connection takes.
    pub(crate) requests_left: Cell<u64>,
    /// The number of a request, and what it is answered in place of the handler's response.
    refusal: Cell<Option<(u64, &'static Refusal)>>,
    takeover: RefCell<Option<Takeover>>,
    framing: RefCell<Framing>,
    /// What is known of the streams, over HTTP/2.
    pub(crate) streams: OnceCell<Weak<Observed>>,
    /// It has departed to another thread, or has come from one.
    away: OnceCell<Away>,
}

impl Shared {
    pub(crate) fn new(recorder: Option<Rc<Recorder>>) -> Rc<Self> {
        Rc::new(Self {
            task: RefCell::default(),
            index: Cell::new(0),
            phase: Cell::new(Phase::Head),
            epoch: Cell::new(0),
            seen: Cell::default(),
            order: Cell::default(),
            draining: Cell::new(false),
            own_date: Cell::new(false),
            parked: Cell::new(false),
            pinged: Cell::new(false),
            flushed: Cell::new(true),
            eof: Cell::new(false),
            half_close: HalfClose::default(),
            broken: Cell::new(false),
            awaits_read: Cell::new(false),
            awaits_write: Cell::new(false),
            stall: Cell::default(),
            descriptor: Cell::new(NO_SOCKET),
            requests_left: Cell::new(u64::MAX),
            admitted: Cell::new(true),
            refusal: Cell::default(),
            close_delimited: Cell::new(false),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            hints: RefCell::default(),
            takeover: RefCell::default(),
            direct: Direct::default(),
            unread: UnreadBody::default(),
            files: FileQueue::default(),
            wide: Wide::default(),
            tls: Cell::new(false),
            rewound: Cell::new(false),
            framing: RefCell::default(),
            streams: OnceCell::new(),
            unwritten: RefCell::default(),
            number: Cell::new(0),
            away: OnceCell::new(),
            recorder,
        })
    }

    /// Another thread has the socket from now on.
    pub(crate) fn has_departed(&self, carried: Arc<Carried>) {
        // The number may be another socket's soon.
        self.descriptor.set(NO_SOCKET);
        self.wide.allow(None);
        self.awaits_read.set(false);
        self.awaits_write.set(false);
        // There is one departure.
        let _ = self.away.set(Away::Departed(carried));
    }

    /// The socket has come from another thread, which wants to know of its bytes.
    pub(crate) fn arrives(&self, carried: Arc<Carried>) {
        let _ = self.away.set(Away::Arrived(carried));
    }

    /// Bytes in and out, wherever that was.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let (bytes_in, bytes_out) = (self.bytes_in.get(), self.bytes_out.get());
        match self.away.get() {
            Some(Away::Departed(carried)) => {
                let more = carried.bytes();
                (bytes_in + more.0, bytes_out + more.1)
            }
            _ => (bytes_in, bytes_out),
        }
    }

    /// Tells the thread that it came from, if it did.
    pub(crate) fn tell_bytes(&self) {
        if let Some(Away::Arrived(carried)) = self.away.get() {
            carried.tell(self.bytes_in.get(), self.bytes_out.get());
        }
    }

    /// The sweep has come by.
    pub(crate) fn sweep_wide(&self, config: &Config) {
        self.wide.sweep(
            self.descriptor.get(),
            self.bytes_out.get(),
            config.unacknowledged,
        );
    }

    pub(crate) fn enter(&self, phase: Phase) {
        if matches!(phase, Phase::Upgraded | Phase::Lingering | Phase::H2Idle) {
            self.framing.borrow_mut().stop();
        }
        self.phase.set(phase);
        self.epoch.set(self.epoch.get().wrapping_add(1));
    }

    /// Something came from the client of a connection that speaks HTTP/2. While streams are open, silence has a bound.
    pub(crate) fn heard(&self) {
        if self.phase.get() == Phase::H2Busy {
            self.pinged.set(false);
            self.epoch.set(self.epoch.get().wrapping_add(1));
        }
    }

    /// What is known of the streams of a connection that speaks HTTP/2.
    pub(crate) fn streams(&self) -> Option<Rc<Observed>> {
        self.streams.get()?.upgrade()
    }

    /// A request begins; true when the connection takes no other after it.
    pub(crate) fn begin_request(&self) -> bool {
        let left = self.requests_left.get().saturating_sub(1);
        self.requests_left.set(left);
        left == 0
    }

    /// Tells whoever wants to know what is wrong with this connection. Costs a look when nobody does.
    pub(crate) fn trouble(&self, what: impl fmt::Display) {
        if let Some(recorder) = &self.recorder {
            recorder.trouble(self.number.get(), &what);
        }
    }

    /// Request number `request` is answered with `refusal`, unless its handler has answered. Wakes the connection's task.
    pub(crate) fn refuse(&self, request: u64, refusal: &'static Refusal) {
        self.trouble(refusal);
        self.refusal.set(Some((request, refusal)));
        self.wake_task();
    }

    /// What request number `request` is answered in place of the handler's response, if anything.
    pub(crate) fn take_refusal(&self, request: u64) -> Option<&'static Refusal> {
        self.refusal
            .take()
            .and_then(|(of, refusal)| (of == request).then_some(refusal))
    }

    /// The connection is to be closed now, whether an answer would be due or not.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(
            self.order.take(),
            Some(Order::Close | Order::Reset | Order::TimeOut)
        )
    }

    pub(crate) fn is_in_head(&self) -> bool {
        self.framing.borrow().is_in_head()
    }

    /// Bytes of a request's body are wanted, and the client does not send them.
    pub(crate) fn awaits_body(&self) -> bool {
        self.awaits_read.get() && self.framing.borrow().is_in_body()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Keeps the waker of the connection's task.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        match &mut *task {
            Some(known) => known.clone_from(waker),
            None => *task = Some(waker.clone()),
        }
    }

    pub(crate) fn take_waker(&self) -> Option<Waker> {
        self.task.borrow_mut().take()
    }

    /// Has the connection's task look around.
    pub(crate) fn wake_task(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Leaves an order for the connection's task; the caller wakes the task.
    pub(crate) fn give_order(&self, order: Order) -> Option<Waker> {
        self.order.set(Some(order));
        self.take_waker()
    }

    pub(crate) fn set_takeover(&self, takeover: Takeover) {
        *self.takeover.borrow_mut() = Some(takeover);
    }

    pub(crate) fn take_takeover(&self) -> Option<Takeover> {
        self.takeover.borrow_mut().take()
    }

    pub(crate) fn has_takeover(&self) -> bool {
        self.takeover.borrow().is_some()
    }

    /// What hyper does not tell of the head that it has just parsed.
    pub(crate) fn next_head(&self) -> HeadMarks {
        self.framing.borrow_mut().next_head()
    }

    /// Bytes of a body of declared length that are still to be read from the socket, if it is sure that all that was read
    /// has reached hyper.
    pub(crate) fn body_left(&self) -> Option<u64> {
        let left = self.framing.borrow().body_left();
        (left > 0 && !self.rewound.get()).then_some(left)
    }

    /// Bytes of the body of the request that is being answered that are still to be read from the socket, where that is known.
    pub(crate) fn body_to_come(&self) -> Option<u64> {
        self.framing.borrow().body_to_come()
    }

    /// Follows bytes of a body that were read past hyper; returns how many are still to come.
    pub(crate) fn note_direct(&self, bytes: u64) -> u64 {
        self.awaits_read.set(false);
        self.bytes_in.set(self.bytes_in.get() + bytes);
        self.framing.borrow_mut().read_body(bytes)
    }

    /// Between two requests or before the first: everything is written, and of no request is there anything that hyper has and a
    /// handler has not.
    pub(crate) fn is_quiet(&self) -> bool {
        let framing = self.framing.borrow();
        matches!(self.phase.get(), Phase::Idle | Phase::Head)
            && self.flushed.get()
            && self.unread.is_over()
            && !framing.is_in_head()
            && !framing.is_in_body()
    }

    /// A whole request is being answered, and nothing of another one was read.
    fn is_answering(&self) -> bool {
        let framing = self.framing.borrow();
        let is_due = match self.phase.get() {
            Phase::Busy => true,
            // Or the response still leaves.
            Phase::Idle => !self.flushed.get(),
            _ => false,
        };
        is_due && !framing.is_in_head() && !framing.is_in_body()
    }

    /// A request is over; `meter` is its record, if one is made.
    pub(crate) fn request_over(&self, meter: Option<Rc<Meter>>) {
        if self.phase.get() == Phase::Busy {
            // The beginning of the next head may have come with this request.
            let in_head = self.framing.borrow().is_in_head();
            self.enter(if in_head { Phase::Head } else { Phase::Idle });
        }
        if let Some(meter) = meter {
            self.unwritten.borrow_mut().push(meter);
        }
    }

    /// Hands out the records that waited for their last byte.
    pub(crate) fn finish_records(&self, aborted: bool) {
        if self.recorder.is_none() || self.unwritten.borrow().is_empty() {
            return;
        }
        let mut unwritten = mem::take(&mut *self.unwritten.borrow_mut());
        for meter in unwritten.drain(..) {
            meter.finish(aborted);
        }
        // Its room is for the next one.
        let mut kept = self.unwritten.borrow_mut();
        if kept.is_empty() {
            *kept = unwritten;
        }
    }

    /// Gives back what only an active connection needs.
    pub(crate) fn shrink(&self) {
        self.framing.borrow_mut().shrink();
        self.files.clear();
        *self.unwritten.borrow_mut() = Vec::new();
        let mut hints = self.hints.borrow_mut();
        hints.heads = VecDeque::new();
        hints.wakers = Vec::new();
    }
}

#[derive(Default)]
#[repr(C)]
struct HintQueue {
    /// Heads that wait to be written, oldest first.
    heads: VecDeque<Vec<u8>>,
    /// Bytes of the first head that have left; above zero it must be finished before anything else is written.
    written: usize,
    /// Number of the last head that left the queue, written or withdrawn.
    left: u64,
    /// Number of the request that may send hints, while it may.
    request: Option<u64>,
    wakers: Vec<Waker>,
}

impl Shared {
    /// From now on request number `request` may send hints.
    pub(crate) fn open_hints(&self, request: u64) {
        self.hints.borrow_mut().request = Some(request);
    }

    /// The final response is made: what has not begun to leave must not follow it.
    pub(crate) fn close_hints(&self) {
        let mut hints = self.hints.borrow_mut();
        hints.request = None;
        let keep = usize::from(hints.written > 0);
        while hints.heads.len() > keep {
            hints.heads.pop_back();
            hints.left += 1;
        }
        let wakers = mem::take(&mut hints.wakers);
        // Outside the borrow: a waker may drop what holds a hint.
        drop(hints);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Shared {
    /// The connection is over: nobody waits any longer.
    pub(crate) fn abandon_hints(&self) {
        self.hints.borrow_mut().written = 0;
        self.close_hints();
    }
}

/// Completes when a `103` has been written over HTTP/1.
pub(crate) struct HintSent(Option<Sending>);

struct Sending {
    shared: Rc<Shared>,
    request: u64,
    step: Step,
}

enum Step {
    Start(HeaderMap),
    /// Number of the head in the queue.
    Queued(u64),
}

impl HintSent {
    pub(crate) fn new(shared: Rc<Shared>, request: u64, fields: HeaderMap) -> Self {
        Self(Some(Sending {
            shared,
            request,
            step: Step::Start(fields),
        }))
    }
}

impl Future for HintSent {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sending) = &mut self.0 else {
            return Poll::Ready(());
        };
        let shared = sending.shared.clone();
        let mut hints = shared.hints.borrow_mut();
        let number = match &sending.step {
            Step::Queued(number) => *number,
            Step::Start(fields) => {
                if hints.request != Some(sending.request) {
                    self.0 = None;
                    return Poll::Ready(());
                }
                hints.heads.push_back(encode_hint(fields));
                let number = hints.left + hints.heads.len() as u64;
                sending.step = Step::Queued(number);
                // The connection's task flushes; it may not be the task that polls this.
                shared.wake_task();
                number
            }
        };
        if hints.left >= number {
            drop(hints);
            self.0 = None;
            return Poll::Ready(());
        }
        if !hints.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            hints.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for HintSent {
    fn drop(&mut self) {
        // Withdraws only the youngest: numbers are places in the queue. Others leave when the final response is made.
        if let Some(Sending {
            shared,
            step: Step::Queued(number),
            ..
        }) = &self.0
        {
            let mut hints = shared.hints.borrow_mut();
            let last = hints.left + hints.heads.len() as u64;
            let begun = hints.heads.len() == 1 && hints.written > 0;
            if *number == last && *number > hints.left && !begun {
                hints.heads.pop_back();
            }
        }
    }
}

fn encode_hint(fields: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(64 + fields.len() * 64);
    head.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
    for (name, value) in fields {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A socket of either kind.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Either of them, encrypted. Boxed: the other kinds stay small.
    Tls(Box<TlsStream>),
}

/// Calls a method on whichever socket it is.
macro_rules! either {
    ($socket:expr, $io:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($io) => $call,
            Socket::Unix($io) => $call,
            Socket::Tls($io) => $call,
        }
    };
}

impl Socket {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, io => io.as_fd())
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, io => Pin::new(io).poll_read(cx, buf))
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_read_ready(cx))
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => Pin::new(io).poll_write(cx, bytes))
    }

    /// Has the kernel write bytes of a file.
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        call: SendFile,
        file: &File,
        offset: u64,
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let sent = match &*self {
                Socket::Tcp(io) => {
                    ready!(io.poll_write_ready(cx))?;
                    io.try_io(Interest::WRITABLE, || call(io.as_fd(), file, offset, bytes))
                }
                Socket::Unix(io) => {
                    ready!(io.poll_write_ready(cx))?;
                    io.try_io(Interest::WRITABLE, || call(io.as_fd(), file, offset, bytes))
                }
                // Nothing reaches its socket but through TLS.
                Socket::Tls(_) => return Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// While it is set, the kernel waits for more before it sends a segment that is not full: what is written by several calls
    /// leaves as if by one. A wish: that it cannot be met is no error.
    ///
    /// `MSG_MORE` says the same of one call, but with a file behind it doubled the time that the kernel takes for 100 KiB
    /// under load on loopback (26 to 35 microseconds for 12 to 13; Linux 6.18, 64 connections).
    fn set_cork(&self, is_corked: bool) {
        if let Self::Tcp(io) = self {
            os::set_cork(io, is_corked);
        }
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => Pin::new(io).poll_shutdown(cx))
    }

    /// Writes what the socket takes at once, if anything: for the last words of a connection.
    pub(crate) fn try_write(&self, bytes: &[u8]) {
        let _ = match self {
            Socket::Tcp(io) => io.try_write(bytes),
            Socket::Unix(io) => io.try_write(bytes),
            // Only its own socket may be written to past it.
            Socket::Tls(_) => Ok(0),
        };
    }

    /// Bytes go through TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Socket::Tls(_))
    }

    /// Makes the close that follows a reset, so that the peer does not take a cut response for a whole one.
    pub(crate) fn reset_on_close(&mut self) {
        match self {
            // Failing changes nothing but the way the peer learns of it.
            Socket::Tcp(tcp) => drop(tcp.set_zero_linger()),
            Socket::Tls(tls) => tls.reset_on_close(),
            Socket::Unix(_) => {}
        }
    }
}

/// Most answers of an API, with their head.
const GATHERED_BYTES_MAX: usize = 512;

/// The bytes of all slices in one piece, if they are few: `send` of that is cheaper for the kernel than `writev` of the slices,
/// by more than the copy costs.
fn gather<'room>(slices: &[IoSlice<'_>], room: &'room mut ReadBuf<'_>) -> Option<&'room [u8]> {
    if total(slices) > room.remaining() {
        return None;
    }
    for slice in slices {
        room.put_slice(slice);
    }
    Some(room.filled())
}

fn total(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

/// The socket as hyper sees it.
pub(crate) struct SocketIo {
    /// Shared with the reader of a body while that reads directly. Borrowed for the length of one call only.
    socket: Rc<RefCell<Socket>>,
    /// Bytes that were read before and have to be read again.
    rewind: Bytes,
    shared: Rc<Shared>,
    /// Nothing more can be read: the next byte is one that hyper would take and must not.
    malformed: bool,
}

impl SocketIo {
    pub(crate) fn new(socket: Socket, shared: Rc<Shared>) -> Self {
        shared.tls.set(socket.is_tls());
        shared.descriptor.set(socket.as_fd().as_raw_fd());
        Self {
            socket: Rc::new(RefCell::new(socket)),
            rewind: Bytes::new(),
            shared,
            malformed: false,
        }
    }

    pub(crate) fn rewind(&mut self, bytes: Bytes) {
        debug_assert!(
            self.rewind.is_empty(),
            "what was rewound is read before anything else"
        );
        self.shared.rewound.set(!bytes.is_empty());
        self.rewind = bytes;
    }

    /// What was rewound, behind what was read after it.
    pub(crate) fn take_rewound(&mut self, read: Bytes) -> Bytes {
        let rewound = mem::take(&mut self.rewind);
        self.shared.rewound.set(false);
        if rewound.is_empty() {
            return read;
        }
        [read, rewound].concat().into()
    }

    pub(crate) fn reset_on_close(&self) {
        self.socket.borrow_mut().reset_on_close();
    }

    pub(crate) fn socket(&self) -> &Rc<RefCell<Socket>> {
        &self.socket
    }

    /// Ready when a read would not block.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.rewind.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.socket.borrow().poll_read_ready(cx)
    }

    /// The stream has ended. Ready when that is the end of the connection.
    fn poll_end(&self) -> Poll<io::Result<()>> {
        let shared = &*self.shared;
        if shared.is_answering() && shared.half_close.keep() {
            if let Some(error) = half_close::failure(self.socket.borrow().as_fd()) {
                shared.broken.set(true);
                return Poll::Ready(Err(error));
            }
            // Whoever writes the answer runs the connection's task, and so does the sweep.
            return Poll::Pending;
        }
        shared.eof.set(true);
        Poll::Ready(Ok(()))
    }

    /// Follows what was read; returns how many of the bytes hyper may see.
    fn note_read(&mut self, bytes: &[u8]) -> usize {
        let shared = &*self.shared;
        shared
            .bytes_in
            .set(shared.bytes_in.get() + bytes.len() as u64);
        let mut framing = shared.framing.borrow_mut();
        let followed = framing.read(bytes);
        if shared.phase.get() == Phase::Idle && framing.is_in_head() {
            shared.enter(Phase::Head);
        }
        match followed {
            Ok(()) => bytes.len(),
            Err(BareLfInTrailers { bytes_before }) => {
                self.malformed = true;
                bytes_before
            }
        }
    }

    /// A write of so many bytes ended like this.
    fn note_write(&self, offered: usize, result: &Poll<io::Result<usize>>) {
        let shared = &*self.shared;
        shared
            .wide
            .note_write(shared.phase.get(), shared.descriptor.get(), offered, result);
        match result {
            Poll::Ready(Ok(written)) => {
                self.shared.awaits_write.set(false);
                let out = &self.shared.bytes_out;
                out.set(out.get() + *written as u64);
            }
            Poll::Ready(Err(_)) => self.shared.broken.set(true),
            Poll::Pending => {
                self.shared.awaits_write.set(true);
                self.shared.flushed.set(false);
            }
        }
    }

    /// Writes the hints in the queue: all of them, or only the one that has begun.
    fn poll_hints(&mut self, cx: &mut Context<'_>, only_begun: bool) -> Poll<io::Result<()>> {
        let shared = self.shared.clone();
        let mut hints = shared.hints.borrow_mut();
        let left = hints.left;
        let result = self.poll_write_hints(cx, &mut hints, only_begun);
        if hints.left > left {
            let wakers = mem::take(&mut hints.wakers);
            // Outside the borrow: a waker may drop what holds a hint.
            drop(hints);
            wakers.into_iter().for_each(Waker::wake);
        }
        result
    }

    fn poll_write_hints(
        &mut self,
        cx: &mut Context<'_>,
        hints: &mut HintQueue,
        only_begun: bool,
    ) -> Poll<io::Result<()>> {
        while let Some(head) = hints.heads.front() {
            if only_begun && hints.written == 0 {
                break;
            }
            let rest = &head[hints.written..];
            let result = self.socket.borrow_mut().poll_write(cx, rest);
            self.note_write(rest.len(), &result);
            let written = ready!(result)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            hints.written += written;
            if hints.written == hints.heads[0].len() {
                hints.heads.pop_front();
                hints.written = 0;
                hints.left += 1;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn hints_wait(&self) -> bool {
        !self.shared.hints.borrow().heads.is_empty()
    }

    /// Writes slices some of which stand for bytes of files or frames. Nothing may copy those.
    fn poll_write_files(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut socket = self.socket.borrow_mut();
        let files = &self.shared.files;
        let mut small = [MaybeUninit::uninit(); GATHERED_BYTES_MAX];
        let (offered, result) = match files.poll_write_parcel(cx, &mut socket, slices) {
            Some(result) => (total(slices), result),
            None => match sendfile::split(slices) {
                Next::File { place, bytes } => {
                    let sent = files.poll_send(cx, &mut socket, place, bytes);
                    (bytes, sent)
                }
                Next::Memory(before) => match (
                    gather(before, &mut ReadBuf::uninit(&mut small)),
                    sendfile::split(&slices[before.len()..]),
                ) {
                    (Some(head), Next::File { place, bytes }) => {
                        socket.set_cork(true);
                        let mut written = socket.poll_write(cx, head);
                        if let Poll::Ready(Ok(count)) = &mut written
                            && *count == head.len()
                            // What goes wrong now is found again with the next call.
                            && let Poll::Ready(Ok(sent)) =
                                files.poll_send(cx, &mut socket, place, bytes)
                        {
                            *count += sent;
                        }
                        socket.set_cork(false);
                        (head.len() + bytes, written)
                    }
                    _ => (total(before), socket.poll_write_vectored(cx, before)),
                },
            },
        };
        drop(socket);
        self.note_write(offered, &result);
        result
    }
}

impl AsyncRead for SocketIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if !me.rewind.is_empty() {
            let bytes = buf.remaining().min(me.rewind.len());
            buf.put_slice(&me.rewind[..bytes]);
            me.rewind.advance(bytes);
            if me.rewind.is_empty() {
                // An empty one would hold what it was part of.
                me.rewind = Bytes::new();
                me.shared.rewound.set(false);
            }
            return Poll::Ready(Ok(()));
        }
        if !me.shared.direct.is_off() {
            // Whoever ends the direct reading wakes the connection's task.
            return Poll::Pending;
        }
        if !me.malformed {
            let before = buf.filled().len();
            let room = buf.remaining();
            let result = me.socket.borrow_mut().poll_read(cx, buf);
            me.shared.awaits_read.set(result.is_pending());
            if let Err(error) = ready!(result) {
                me.shared.broken.set(true);
                return Poll::Ready(Err(error));
            }
            if room == 0 {
                return Poll::Ready(Ok(()));
            }
            if buf.filled().len() == before {
                return me.poll_end();
            }
            let seen = me.note_read(&buf.filled()[before..]);
            buf.set_filled(before + seen);
            if seen > 0 || !me.malformed {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a trailer line ends without CR",
        )))
    }
}

impl AsyncWrite for SocketIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.hints_wait() {
            ready!(self.poll_hints(cx, true))?;
        }
        if self.shared.files.waits() {
            return self.poll_write_files(cx, &[IoSlice::new(bytes)]);
        }
        let result = self.socket.borrow_mut().poll_write(cx, bytes);
        self.note_write(bytes.len(), &result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.hints_wait() {
            ready!(self.poll_hints(cx, true))?;
        }
        if self.shared.files.waits() {
            return self.poll_write_files(cx, slices);
        }
        // Room that nobody has to clear.
        let mut small = [MaybeUninit::uninit(); GATHERED_BYTES_MAX];
        let result = match gather(slices, &mut ReadBuf::uninit(&mut small)) {
            Some(bytes) => self.socket.borrow_mut().poll_write(cx, bytes),
            None => self.socket.borrow_mut().poll_write_vectored(cx, slices),
        };
        self.note_write(total(slices), &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper's buffer is empty: the one safe place for a 103.
        if self.hints_wait() {
            ready!(self.poll_hints(cx, false))?;
        }
        // What a plain socket has taken is the kernel's; TLS may still have it.
        if let Socket::Tls(tls) = &mut *self.socket.borrow_mut() {
            match Pin::new(tls).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.shared.awaits_write.set(false),
                Poll::Ready(Err(error)) => {
                    self.shared.broken.set(true);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.shared.awaits_write.set(true);
                    self.shared.flushed.set(false);
                    return Poll::Pending;
                }
            }
        }
        self.shared.flushed.set(true);
        self.shared.finish_records(false);
        if self.shared.half_close.is_kept() && self.shared.phase.get() == Phase::Idle {
            // All is written: hyper may find the end of the stream now.
            self.shared.wake_task();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.borrow_mut().poll_shutdown(cx)
    }
}
