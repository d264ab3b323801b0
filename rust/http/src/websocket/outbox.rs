//! The write queue of a WebSocket, shared by the session that empties it and by who sends messages.
//!
//! Frames are encoded into one buffer as they come, so the session writes them all at once. A session that is inside
//! its `poll` looks at the queue before it returns; only otherwise it has to be woken. A drained queue gives its buffer
//! to the thread, where the next one that sends takes it: an idle WebSocket holds none, a busy one allocates none.
//!
//! A large message that its sender leaves to us ([`Outbox::leave_binary`], [`Outbox::leave_text`]) is not copied: its payload stays where it is, and is
//! written from there between the bytes around it. That takes a stream that writes several pieces at once; over one that
//! does not, the payload would leave apart from its head.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use bytes::{Buf, Bytes};

#[cfg(doc)]
use super::code;
use super::{Kind, deflate::Compressor, frame};
use crate::fanout::{PIECES, Parcel};

/// The largest buffer that is kept for the next use.
const SPARE_BYTES_MAX: usize = 256 * 1024;
/// From this size on a message stays where it is; copying a smaller one is cheaper.
pub const LEFT_BYTES_MIN: usize = 32 * 1024;
/// How many pieces are written at once: two for each large message.
const SLICES_MAX: usize = 8;
/// From this many written bytes on, the rest may be moved to the front of the buffer.
const SHIFT_BYTES: usize = 64 * 1024;
/// From this many bytes of unsent pongs on, only the latest ping is remembered. A client with several pings under way
/// gets an answer to each; one that sends them in masses and reads nothing costs no more than this.
const PONG_BYTES_MAX: usize = 2 * 1024;

thread_local! {
    /// The buffer of the outbox that was drained last.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Wakes a task; see [`Outbox::waking_by`].
pub type Wake = Box<dyn Fn(Waker)>;

/// The write queue of one WebSocket: frames that were not written yet. It is usable before its session starts.
#[derive(Default)]
pub struct Outbox {
    queue: RefCell<Queue>,
    waker: RefCell<Option<Waker>>,
    /// The session is inside its `poll` and looks at the queue before it returns: no need to wake it.
    attended: Cell<bool>,
    /// See [`Self::is_swept`].
    swept: Cell<bool>,
    wake: Option<Wake>,
}

#[derive(Default)]
struct Queue {
    /// Whole frames, but for the payloads that stay where they are.
    bytes: Vec<u8>,
    /// How much of `bytes` has been written.
    written: usize,
    /// What stays where it is, in the order of `at`.
    payloads: VecDeque<Payload>,
    /// Unsent bytes of `payloads`.
    payload_bytes: usize,
    /// The stream writes several pieces at once.
    gathers: bool,
    /// The payload of the latest ping, when there are too many pongs already.
    pong: Option<Box<Pong>>,
    /// Where in `bytes` the last queued pong ends.
    pong_end: usize,
    /// The same of a ping that asks whether the peer is there.
    beat_end: usize,
    /// Bytes of pongs up to there, since none was unsent.
    pong_bytes: usize,
    /// Makes messages smaller, where that was agreed on.
    compressor: Option<Box<Compressor>>,
    /// A close frame was queued, or the link is lost: nothing is taken any more.
    sealed: bool,
    /// Our close frame was asked for by the user of the outbox, not by the peer or by a failure.
    closing: bool,
}

/// The bytes of a text that somebody else keeps.
struct Text<T>(T);

impl<T: AsRef<str>> AsRef<[u8]> for Text<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_bytes()
    }
}

/// What a ping that is still to be answered brought.
struct Pong {
    length: usize,
    payload: [u8; frame::CONTROL_BYTES_MAX],
}

impl Default for Pong {
    fn default() -> Self {
        Self {
            length: 0,
            payload: [0; frame::CONTROL_BYTES_MAX],
        }
    }
}

/// The payload of a frame whose head is in [`Queue::bytes`].
struct Payload {
    /// Its place: behind so much of `bytes`.
    at: usize,
    /// What is unsent of it.
    data: Data,
}

enum Data {
    Bytes(Bytes),
    /// A frame, with how much of it is unsent.
    Parcel(Arc<Parcel>, usize),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Parcel(_, left) => *left,
        }
    }

    fn advance(&mut self, bytes: usize) {
        match self {
            Self::Bytes(data) => data.advance(bytes),
            Self::Parcel(parcel, left) => {
                parcel.advance(bytes);
                *left -= bytes;
            }
        }
    }
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// An empty outbox that wakes its session by `wake`: for a thread that collects wake-ups while its runtime does
    /// not run, because each of them would be a system call then.
    pub fn waking_by(wake: Wake) -> Rc<Self> {
        Rc::new(Self {
            wake: Some(wake),
            ..Self::default()
        })
    }

    /// The sweep cuts a client that takes nothing: see [`crate::service::Draining::is_swept`].
    pub fn leave_to_the_sweep(&self) {
        self.swept.set(true);
    }

    /// Whether it does. Else whoever leaves something here has to look.
    pub(crate) fn is_swept(&self) -> bool {
        self.swept.get()
    }

    /// From now on messages leave compressed where that makes them smaller.
    pub fn compress_with(&self, compressor: Compressor) {
        self.queue.borrow_mut().compressor = Some(Box::new(compressor));
    }

    /// Queues a text message. False when the WebSocket is closing or closed: the message is dropped.
    pub fn text(&self, text: &str) -> bool {
        self.message(Kind::Text, text.as_bytes())
    }

    /// Queues a binary message. False when the WebSocket is closing or closed: the message is dropped.
    pub fn binary(&self, payload: &[u8]) -> bool {
        self.message(Kind::Binary, payload)
    }

    /// Queues a binary message that will not change: if it is large, it is not copied. False when the WebSocket is closing or
    /// closed: the message is dropped.
    pub fn leave_binary(&self, payload: Bytes) -> bool {
        self.append(|queue| queue.leave(Kind::Binary, payload))
    }

    /// The same of a text.
    pub fn leave_text(&self, text: impl AsRef<str> + Send + 'static) -> bool {
        self.append(|queue| queue.leave(Kind::Text, Bytes::from_owner(Text(text))))
    }

    /// Queues a binary message that is a parcel. False when the WebSocket is closing or closed: the message is dropped.
    pub fn leave_parcel(&self, parcel: Arc<Parcel>) -> bool {
        self.append(|queue| queue.leave_parcel(parcel))
    }

    /// The stream writes several pieces at once, so large messages need not be copied.
    pub(super) fn gather(&self) {
        self.queue.borrow_mut().gathers = true;
    }

    /// Queues a ping. False when the WebSocket is closing or closed.
    ///
    /// # Panics
    ///
    /// When `payload` is longer than 125 bytes.
    pub fn ping(&self, payload: &[u8]) -> bool {
        self.append(|queue| frame::encode_ping(&mut queue.bytes, payload))
    }

    /// Queues a close frame and starts the closing handshake. False when it is already under way, or over.
    ///
    /// # Panics
    ///
    /// When the code may not be sent ([`code::is_sendable`]).
    pub fn close(&self, code: u16, reason: &str) -> bool {
        let queued =
            self.append(|queue| frame::encode_close(&mut queue.bytes, Some((code, reason))));
        if queued {
            let mut queue = self.queue.borrow_mut();
            queue.seal();
            queue.closing = true;
        }
        queued
    }

    /// False once the WebSocket is closing or closed, from whichever side.
    pub fn is_open(&self) -> bool {
        !self.queue.borrow().sealed
    }

    /// Bytes of frames that are queued and not written to the stream yet.
    pub fn buffered(&self) -> usize {
        self.queue.borrow().unsent()
    }

    /// Makes the session look again: at the queue, and whether the handler wants messages.
    pub fn wake(&self) {
        if self.attended.get() {
            return;
        }
        let waker = self.waker.borrow_mut().take();
        match (waker, &self.wake) {
            (Some(waker), Some(wake)) => wake(waker),
            (Some(waker), None) => waker.wake(),
            (None, _) => {}
        }
    }

    /// Who wakes the session, for the sweep, which has time and runtime to do so.
    pub(super) fn take_waker(&self) -> Option<Waker> {
        self.waker.borrow_mut().take()
    }

    /// The session is being polled by the task of `waker`.
    pub(super) fn attend(&self, waker: &Waker) {
        self.attended.set(true);
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }

    /// The session has been polled.
    pub(super) fn leave(&self) {
        self.attended.set(false);
    }

    /// Gives what is unsent to `poll_write`, or as many pieces of it as are written at once; `None` when there is nothing.
    pub(super) fn write(
        &self,
        poll_write: impl FnOnce(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Option<Poll<io::Result<usize>>> {
        let mut queue = self.queue.borrow_mut();
        queue.queue_pong();
        if queue.unsent() == 0 {
            return None;
        }
        let polled = if queue.payloads.is_empty() {
            poll_write(&[IoSlice::new(&queue.bytes[queue.written..])])
        } else {
            // For the length of the write: whoever lends a frame may take it back at any other time.
            let parcel = queue.first_parcel();
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = queue.pieces(&mut slices, parcel.as_ref());
            poll_write(&slices[..count])
        };
        if let Poll::Ready(Ok(count)) = polled {
            queue.advance(count);
        }
        Some(polled)
    }

    /// Takes nothing any more.
    pub(super) fn seal(&self) {
        self.queue.borrow_mut().seal();
    }

    fn message(&self, kind: Kind, payload: &[u8]) -> bool {
        self.append(|queue| match &mut queue.compressor {
            None => frame::encode_message(&mut queue.bytes, kind, payload),
            Some(compressor) => compressor.encode(&mut queue.bytes, kind, payload),
        })
    }

    fn append(&self, encode: impl FnOnce(&mut Queue)) -> bool {
        let mut queue = self.queue.borrow_mut();
        if queue.sealed {
            return false;
        }
        if queue.bytes.capacity() == 0 {
            queue.bytes = SPARE.take();
        }
        encode(&mut queue);
        drop(queue);
        self.wake();
        true
    }

    /// The last frame from our side, unless a close frame is queued already.
    pub(super) fn answer_close(&self, close: Option<(u16, &str)>) {
        self.append(|queue| frame::encode_close(&mut queue.bytes, close));
        self.seal();
    }

    /// Answers a ping. When many pongs are unsent it is only remembered, and forgotten for the next one (RFC 6455,
    /// section 5.5.3).
    pub(super) fn answer_ping(&self, payload: &[u8]) {
        self.queue.borrow_mut().answer_ping(payload);
    }

    /// Queues a ping that asks whether the peer is there, unless one waits to be written.
    pub(super) fn beat(&self) {
        let mut queue = self.queue.borrow_mut();
        if queue.beat_end > queue.written || queue.sealed {
            return;
        }
        if queue.bytes.capacity() == 0 {
            queue.bytes = SPARE.take();
        }
        frame::encode_ping(&mut queue.bytes, &[]);
        queue.beat_end = queue.bytes.len();
    }

    /// Has that ping been written?
    pub(super) fn beat_is_out(&self) -> bool {
        let queue = self.queue.borrow();
        queue.beat_end <= queue.written
    }

    /// Queues the pong that is due, in front of what will be queued from now on.
    pub(super) fn queue_pong(&self) {
        self.queue.borrow_mut().queue_pong();
    }

    /// Drops what is unsent: there is nobody to send it to.
    pub(super) fn lose(&self) {
        let mut queue = self.queue.borrow_mut();
        *queue = Queue {
            sealed: true,
            closing: queue.closing,
            gathers: queue.gathers,
            ..Queue::default()
        };
    }

    /// Has the user of the outbox asked for the end?
    pub(super) fn is_closing(&self) -> bool {
        self.queue.borrow().closing
    }
}

impl Queue {
    /// Takes nothing any more; what was for further messages is given back.
    fn seal(&mut self) {
        self.sealed = true;
        self.compressor = None;
    }

    fn unsent(&self) -> usize {
        self.bytes.len() - self.written + self.payload_bytes
    }

    /// Queues a message whose payload stays where it is, if that is worth it.
    fn leave(&mut self, kind: Kind, payload: Bytes) {
        if let Some(compressor) = &mut self.compressor
            && compressor.encode_smaller(&mut self.bytes, kind, &payload)
        {
            return;
        }
        if !self.gathers || payload.len() < LEFT_BYTES_MIN {
            frame::encode_message(&mut self.bytes, kind, &payload);
            return;
        }
        frame::encode_message_head(&mut self.bytes, kind, payload.len());
        self.payload_bytes += payload.len();
        self.payloads.push_back(Payload {
            at: self.bytes.len(),
            data: Data::Bytes(payload),
        });
    }

    /// Queues a message whose payload may be taken back by who lends it.
    fn leave_parcel(&mut self, parcel: Arc<Parcel>) {
        let left = parcel.left();
        if !self.gathers {
            frame::encode_message(&mut self.bytes, Kind::Binary, &parcel.copy_out(left));
            return;
        }
        frame::encode_message_head(&mut self.bytes, Kind::Binary, left);
        self.payload_bytes += left;
        self.payloads.push_back(Payload {
            at: self.bytes.len(),
            data: Data::Parcel(parcel, left),
        });
    }

    /// What is left of the first parcel.
    fn first_parcel(&self) -> Option<[Bytes; PIECES]> {
        self.payloads
            .iter()
            .find_map(|payload| match &payload.data {
                Data::Parcel(parcel, _) => Some(parcel.rest()),
                Data::Bytes(_) => None,
            })
    }

    /// Collects what is unsent, as far as there is room for it and up to the second parcel; how many pieces there are.
    fn pieces<'a>(
        &'a self,
        slices: &mut [IoSlice<'a>; SLICES_MAX],
        mut parcel: Option<&'a [Bytes; PIECES]>,
    ) -> usize {
        let (mut start, mut count) = (self.written, 0);
        let mut add = |piece: &'a [u8]| {
            if let Some(slice) = slices.get_mut(count)
                && !piece.is_empty()
            {
                *slice = IoSlice::new(piece);
                count += 1;
            }
        };
        // Each is at least one piece, so with as many there is no room left for what is behind them.
        for payload in self.payloads.iter().take(SLICES_MAX) {
            add(&self.bytes[start..payload.at]);
            match &payload.data {
                Data::Bytes(data) => add(data),
                Data::Parcel(..) => match parcel.take() {
                    Some(rest) => rest.iter().for_each(|piece| add(piece)),
                    None => return count,
                },
            }
            start = payload.at;
        }
        add(&self.bytes[start..]);
        count
    }

    fn answer_ping(&mut self, payload: &[u8]) {
        if self.pong_end <= self.written {
            self.pong_bytes = 0;
        }
        if self.pong.is_none() && self.pong_bytes < PONG_BYTES_MAX {
            self.encode_pong(payload);
        } else {
            let latest = self.pong.get_or_insert_default();
            latest.length = payload.len();
            latest.payload[..payload.len()].copy_from_slice(payload);
        }
    }

    /// Queues the pong that is due, once those before it are out.
    fn queue_pong(&mut self) {
        if self.pong.is_none() || self.pong_end > self.written {
            return;
        }
        if let Some(pong) = self.pong.take() {
            self.pong_bytes = 0;
            self.encode_pong(&pong.payload[..pong.length]);
        }
    }

    fn encode_pong(&mut self, payload: &[u8]) {
        if self.sealed {
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
        }
        let start = self.bytes.len();
        frame::encode_pong(&mut self.bytes, payload);
        self.pong_end = self.bytes.len();
        self.pong_bytes += self.pong_end - start;
    }

    /// `count` bytes more have been written.
    fn advance(&mut self, mut count: usize) {
        while let Some(payload) = self.payloads.front_mut() {
            let before = count.min(payload.at - self.written);
            self.written += before;
            count -= before;
            let taken = count.min(payload.data.len());
            payload.data.advance(taken);
            self.payload_bytes -= taken;
            count -= taken;
            if self.written < payload.at || payload.data.len() > 0 {
                return;
            }
            self.payloads.pop_front();
        }
        self.written += count;
        if self.written == self.bytes.len() {
            // An idle WebSocket holds nothing; a `VecDeque` that had an entry does.
            self.payloads = VecDeque::new();
            let mut bytes = std::mem::take(&mut self.bytes);
            (self.written, self.pong_end, self.beat_end) = (0, 0, 0);
            if bytes.capacity() <= SPARE_BYTES_MAX {
                bytes.clear();
                SPARE.set(bytes);
            }
        } else if self.written >= SHIFT_BYTES && self.written >= self.bytes.len() / 2 {
            // The peer reads slowly: do not keep what it has.
            self.bytes.drain(..self.written);
            self.pong_end = self.pong_end.saturating_sub(self.written);
            self.beat_end = self.beat_end.saturating_sub(self.written);
            self.written = 0;
        }
    }
}
