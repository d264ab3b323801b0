//! The connection's side of an accepted WebSocket: the session, its handler, and what the server has to say to both.

use std::{
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use framegate_http::{
    service::{ByteStream, Draining, Upgraded},
    topics::Ended,
    websocket::{
        Failure, Kind, code,
        message::MessageSink,
        outbox::Outbox,
        session::{Closed, Handler, Session, Settings},
    },
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

use tokio::io::ReadBuf;

use super::{State, WebSocketExchange, frames::Incoming, lost, payload::Payload};

/// The session's handler.
pub(super) struct User {
    exchange: Py<WebSocketExchange>,
    /// Of the message in `payload`.
    kind: Kind,
    payload: Payload,
    /// The message, where it becomes a frame instead.
    frame: Option<Incoming>,
}

impl User {
    pub(super) fn new(exchange: Py<WebSocketExchange>) -> Self {
        Self {
            exchange,
            kind: Kind::Binary,
            payload: Payload::default(),
            frame: None,
        }
    }

    fn state(&self) -> &State {
        self.exchange.get().state()
    }

    /// Hands a message over, which `make` makes an object of.
    fn queue(
        &self,
        kind: Kind,
        length: usize,
        make: impl FnOnce(Python<'_>) -> Option<Py<PyAny>>,
    ) -> Result<(), Failure> {
        // The text is checked already: what fails here is memory.
        let object = Python::attach(make).ok_or(OUT_OF_MEMORY)?;
        self.state().queue(kind, object, length);
        Ok(())
    }
}

impl MessageSink for User {
    fn begin(&mut self, kind: Kind, size_hint: u64) -> Result<(), Failure> {
        self.frame = self.state().incoming_frame(kind, size_hint)?;
        if self.frame.is_none() {
            self.kind = kind;
            self.payload.begin(size_hint);
        }
        Ok(())
    }

    fn space(&mut self, want: usize) -> ReadBuf<'_> {
        match &mut self.frame {
            Some(frame) => frame.space(),
            None => self.payload.space(want),
        }
    }

    fn filled(&mut self, count: usize) {
        match &mut self.frame {
            Some(frame) => frame.filled(count),
            None => self.payload.filled(count),
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        if let Some(frame) = self.frame.take() {
            return frame.end();
        }
        let mut payload = mem::take(&mut self.payload);
        let length = payload.length();
        self.queue(self.kind, length, |py| {
            let bytes = payload.take(py)?;
            match self.kind {
                Kind::Text => text(py, bytes.as_bytes()),
                Kind::Binary => Some(bytes.into_any().unbind()),
            }
        })
    }

    fn whole(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
        if let Some(frame) = self.state().incoming_frame(kind, payload.len() as u64)? {
            return frame.whole(payload);
        }
        self.queue(kind, payload.len(), |py| match kind {
            Kind::Text => text(py, payload),
            Kind::Binary => Some(PyBytes::new(py, payload).into_any().unbind()),
        })
    }
}

const OUT_OF_MEMORY: Failure = Failure {
    code: code::TOO_BIG,
    reason: "out of memory",
};

fn text(py: Python<'_>, payload: &[u8]) -> Option<Py<PyAny>> {
    PyString::from_bytes(py, payload)
        .ok()
        .map(|text| text.into_any().unbind())
}

impl Handler for User {
    fn wants_message(&self) -> bool {
        self.state().has_place()
    }

    fn turn(&mut self) {
        let state = self.state();
        // It may have been nothing but a ping.
        if !state.incoming.borrow().is_empty() {
            Python::attach(|py| state.resolve(py, &state.receivers));
        }
    }

    fn drained(&mut self) {
        let state = self.state();
        if !state.senders.borrow().is_empty() {
            Python::attach(|py| state.resolve(py, &state.senders));
        }
    }

    fn closed(&mut self, closed: Closed) {
        self.state().end(&self.exchange, closed);
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Does nothing after a session. Without one the client went away between its request and the `101`.
        self.state().end(&self.exchange, lost());
    }
}

/// The life of a connection after its `101`, or of a stream after its `200`.
pub(super) struct Link {
    session: Session<Pin<Box<dyn ByteStream>>, User>,
    exchange: Py<WebSocketExchange>,
    /// Until the server drains.
    draining: Option<Draining>,
}

impl Link {
    pub(super) fn new(
        upgraded: Upgraded,
        settings: Settings,
        outbox: Rc<Outbox>,
        user: User,
    ) -> Self {
        let Upgraded {
            stream,
            leftover,
            draining,
            sweep,
            ..
        } = upgraded;
        let exchange = Python::attach(|py| user.exchange.clone_ref(py));
        if draining.is_swept() {
            outbox.leave_to_the_sweep();
        }
        let session = Session::new(stream, &leftover, settings, outbox, user);
        if let Some(heartbeat) = session.heartbeat() {
            sweep.watch(heartbeat);
        }
        Self {
            exchange,
            session,
            draining: Some(draining),
        }
    }
}

impl Future for Link {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let state = this.exchange.get().state();
        if let Some(draining) = &this.draining
            && draining.poll_draining(cx).is_ready()
        {
            this.draining = None;
            state
                .outbox
                .close(code::SERVICE_RESTART, "the server is shutting down");
        }
        state.in_session.set(true);
        let mut polled = Pin::new(&mut this.session).poll(cx);
        if polled.is_pending()
            && let Some(mut viewer) = state.viewer.take()
        {
            match viewer.as_mut().poll(cx) {
                Poll::Pending => {
                    state.viewer.replace(Some(viewer));
                }
                // The client takes nothing, so it gets no close frame either.
                Poll::Ready(Ended::Stalled) => {
                    state.in_session.set(false);
                    return Poll::Ready(());
                }
                Poll::Ready(Ended::Topic) => {
                    state.outbox.close(code::NORMAL, "the topic is gone");
                }
                Poll::Ready(Ended::Closed) => {}
            }
            // What was left in the outbox is written now.
            polled = Pin::new(&mut this.session).poll(cx);
        }
        state.in_session.set(false);
        if polled.is_ready()
            && let Some(draining) = &this.draining
            && let Some(closed) = &*state.ended.borrow()
            && !(closed.clean || closed.reason.is_empty())
        {
            draining.trouble(format_args!(
                "WebSocket ended with {}: {}",
                closed.code, closed.reason
            ));
        }
        polled
    }
}
