//! The way of one stream's bytes to the client: when it is its turn, as far as the windows are open.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::SendStream;

use super::{
    priority::{Gate, Priority, Turn},
    stream::Responder,
};

/// Bytes of one piece of a stream: a frame of the size that every client takes.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The sending half of a stream.
pub(super) struct Outlet {
    pub(super) stream: SendStream<Bytes>,
    responder: Rc<Responder>,
    priority: Priority,
    /// The place in the queue, once it has one.
    turn: Option<Rc<Turn>>,
}

impl Outlet {
    pub(super) fn new(
        stream: SendStream<Bytes>,
        responder: Rc<Responder>,
        priority: Priority,
    ) -> Self {
        Self {
            stream,
            responder,
            priority,
            turn: None,
        }
    }

    fn gate(&self) -> &Gate {
        &self.responder.observed.gate
    }

    /// Window for a part of `wanted` bytes, when it is this stream's turn; 0 when the stream is over.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        self.responder.waits.end_window();
        let polled = match &self.turn {
            None if self.gate().is_free() => Poll::Ready(()),
            None => self.queue_up(cx),
            Some(turn) => self.gate().poll_turn(turn, cx),
        };
        if polled.is_pending() {
            // The crate shares the connection's window out in the order that it was asked: what it gave or would give to this
            // stream is for the one that is first.
            self.stream.reserve_capacity(0);
            return Poll::Pending;
        }
        self.stream.reserve_capacity(wanted.min(PIECE_BYTES_MAX));
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                return Poll::Ready(room);
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(0),
                Poll::Pending => break,
            }
        }
        if self.gate().is_stream_blocked() {
            let watch = &self.responder.observed.watch;
            watch.wait_for_window(&self.responder);
            // In nobody's way: when its own window opens, it looks who waits.
            self.step_aside();
        } else if self.turn.is_none() {
            // Who waits for the connection's window waits in the queue, or the next one would not know that there is another.
            let _ = self.queue_up(cx);
        }
        Poll::Pending
    }

    /// Takes a place in the queue.
    fn queue_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let number = self.stream.stream_id().as_u32();
        let turn = self.gate().enter(number, self.priority);
        let polled = self.gate().poll_turn(&turn, cx);
        self.turn = Some(turn);
        polled
    }

    /// Hands bytes over for which there was room. False when the stream is over.
    pub(super) fn send(&mut self, data: Bytes, ends: bool) -> bool {
        let bytes = data.len();
        self.gate().handed(self.turn.as_deref(), bytes);
        self.responder.waits.handed(bytes);
        if self.stream.send_data(data, ends).is_err() {
            return false;
        }
        let number = self.stream.stream_id().as_u32();
        let unsent = &self.responder.observed.unsent;
        unsent.handed(number, bytes, &self.responder);
        true
    }

    /// Nothing is there to be sent now: others may.
    pub(super) fn step_aside(&self) {
        if let Some(turn) = &self.turn {
            self.gate().step_aside(turn);
        }
    }

    /// Nothing more will be sent.
    pub(super) fn leave(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.gate().leave(&turn);
        }
    }

    /// Everything was handed over, with the end of the stream. `alone`: the request was over before.
    pub(super) fn finish(mut self, alone: bool) {
        self.leave();
        let unsent = &self.responder.observed.unsent;
        unsent.handed_whole(self.stream, alone);
    }

    /// The client has given up on the stream.
    pub(super) fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.poll_reset(cx).is_ready()
    }
}
