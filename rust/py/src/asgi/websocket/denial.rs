//! An ordinary response in place of the `101` (the extension `websocket.http.response`).
//!
//! Its head is held back until the first body event: a response in one piece leaves with its length, any other is pulled
//! by the connection piece by piece while the application's `send` waits for room.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use framegate_http::{body::Aborted, service::Response};
use http_body::Frame as BodyFrame;
use pyo3::prelude::*;

use super::{WebSocketExchange, lost};
use crate::event_loop::LoopCore;

/// A response that the application gives instead of accepting.
#[derive(Default)]
pub(super) struct Denial {
    /// Held back until the first body event tells how to frame it.
    pub(super) head: RefCell<Option<Response>>,
    /// Of a response in several pieces: those that the connection has not taken.
    pieces: RefCell<VecDeque<Bytes>>,
    pub(super) bytes: Cell<usize>,
    end: Cell<Option<Result<(), Aborted>>>,
    waker: RefCell<Option<Waker>>,
}

impl Denial {
    /// Has the connection got the head?
    pub(super) fn is_started(&self) -> bool {
        self.head.borrow().is_none()
    }

    pub(super) fn push(&self, piece: Bytes, core: &LoopCore) {
        if !piece.is_empty() {
            self.bytes.set(self.bytes.get() + piece.len());
            self.pieces.borrow_mut().push_back(piece);
        }
        self.wake(core);
    }

    pub(super) fn finish(&self, end: Result<(), Aborted>, core: &LoopCore) {
        self.end.set(Some(end));
        self.wake(core);
    }

    fn wake(&self, core: &LoopCore) {
        let waker = self.waker.take();
        if let Some(waker) = waker {
            core.wake(waker);
        }
    }
}

/// The body of a denial in several pieces, as the connection pulls it.
pub(super) struct DenialBody {
    pub(super) exchange: Py<WebSocketExchange>,
}

impl http_body::Body for DenialBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        let state = self.exchange.get().state();
        let denial = state.denial();
        let piece = denial.pieces.borrow_mut().pop_front();
        if let Some(piece) = piece {
            denial.bytes.set(denial.bytes.get() - piece.len());
            if !state.is_full() {
                state.resolve_soon(&self.exchange);
            }
            return Poll::Ready(Some(Ok(BodyFrame::data(piece))));
        }
        if let Some(end) = denial.end.get() {
            return Poll::Ready(end.err().map(Err));
        }
        denial.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for DenialBody {
    fn drop(&mut self) {
        // Does nothing when the application has sent all.
        self.exchange.get().state().end(&self.exchange, lost());
    }
}
