//! `103` ahead of a response, bounded by what the client reads.
//!
//! Heads have no window: the crate would keep any number of them for a client that does not read. So hints are counted as they
//! are handed over, for all streams of a connection together; when there are as many bytes as may wait to be written, the next
//! one waits until everything has been.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, StatusCode};

use super::{head, stream::Responder};

/// What the crate keeps of a head beside the bytes of its fields, about.
const FIELD_BYTES: usize = 64;

/// The hints of one connection that are handed over and not known to be written.
pub(super) struct HintRoom {
    waiting: Cell<usize>,
    waiting_max: usize,
    wakers: RefCell<Vec<Waker>>,
}

impl HintRoom {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self {
            waiting: Cell::new(0),
            waiting_max,
            wakers: RefCell::default(),
        }
    }

    /// Ready when another hint may be handed over.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.waiting.get() < self.waiting_max {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|known| known.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn handed(&self, fields: &HeaderMap) {
        let bytes: usize = fields
            .iter()
            .map(|(name, value)| FIELD_BYTES + name.as_str().len() + value.len())
            .sum();
        self.waiting.set(self.waiting.get() + FIELD_BYTES + bytes);
    }

    /// Everything has been written.
    pub(super) fn flushed(&self) {
        if self.waiting.take() > 0 {
            self.wake();
        }
    }

    /// Something has changed for those who wait.
    pub(super) fn wake(&self) {
        if self.wakers.borrow().is_empty() {
            return;
        }
        let wakers = mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Completes when a `103` has been handed over, and at once when nobody would see it. Frames of a stream keep their order: no
/// response can overtake it.
pub(crate) struct HintSent {
    responder: Rc<Responder>,
    /// Until they are handed over.
    fields: Option<HeaderMap>,
}

impl HintSent {
    pub(crate) fn new(responder: Rc<Responder>, fields: HeaderMap) -> Self {
        Self {
            responder,
            fields: Some(fields),
        }
    }
}

impl Future for HintSent {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        let room = &me.responder.observed.hints;
        let mut respond = me.responder.respond.borrow_mut();
        let (Some(respond), Some(mut fields)) = (&mut *respond, me.fields.take()) else {
            return Poll::Ready(());
        };
        if room.poll_room(cx).is_pending() {
            me.fields = Some(fields);
            return Poll::Pending;
        }
        head::strip(&mut fields);
        room.handed(&fields);
        let mut response = http::Response::new(());
        *response.status_mut() = StatusCode::EARLY_HINTS;
        *response.headers_mut() = fields;
        // Fails when the client is gone, which others notice.
        let _ = respond.send_informational(response);
        Poll::Ready(())
    }
}
