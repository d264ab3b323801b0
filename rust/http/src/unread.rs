//! What a handler of HTTP/1 leaves unread of its request's body, and what becomes of the connection then.
//!
//! The next request begins behind the body. So what the handler does not read, the connection reads and drops, or it ends
//! (RFC 9112, 9.3). A client that is not told of the end sends its next request into it and loses it. The last moment
//! to tell is when the head of the response is made ([`UnreadBody::settle`]), and it is decided there:
//!
//! | the body | the response | afterwards |
//! |---|---|---|
//! | has come, or has a length of which no more than [`Limits::unread_bytes_max`](crate::Limits::unread_bytes_max) is to come | says nothing | the rest is read and dropped, the connection lives on |
//! | the handler still reads it | says nothing | as it pleases; what it leaves is dropped, up to [`Limits::linger_bytes_max`](crate::Limits::linger_bytes_max) bytes, else the connection ends |
//! | has more to come, or nobody knows how much | `Connection: close` | the connection ends; what comes is dropped while it lingers |
//! | was announced by `Expect: 100-continue`, and not a byte of it was taken | `Connection: close` | the same: whether the client sends it, nobody knows (RFC 9110, 10.1.1) |
//!
//! hyper ends a connection whose body is dropped before its end. So the body that a handler drops is kept here, and the connection's
//! task reads it beside hyper ([`UnreadBody::poll`]).
//!
//! Until a body is over, for the handler or here, the connection is not idle, though its response may have left and all bytes have
//! come: those that nobody asked hyper for yet are in its buffer, in front of the next request ([`UnreadBody::is_over`]).

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    Version,
    header::{CONNECTION, EXPECT},
    request::Parts,
};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::h1::has_token;

/// How much of its body a handler has taken.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    #[default]
    Untouched,
    /// It has asked for it.
    Asked,
    /// It got a part of it, or its end.
    Begun,
}

/// What was decided about the connection.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Fate {
    /// The head of the response is not made yet.
    #[default]
    Open,
    /// It lives on behind the body.
    LivesOn,
    /// The response is its last.
    Ends,
}

/// The latest request that has a body.
#[derive(Clone, Copy, Default)]
struct State {
    /// Its number; 0 is none.
    request: u64,
    /// What may be to come of the body when the response says nothing.
    unread_bytes_max: u64,
    /// What is dropped at most.
    drop_bytes_max: u64,
    /// The client waits for `100 Continue`.
    expects: bool,
    /// The client says that it is its last.
    closes: bool,
    /// The handler has let go of the body.
    dropped: bool,
    taken: Taken,
    fate: Fate,
}

/// A connection's part of the matter.
#[derive(Default)]
#[repr(C)]
pub(crate) struct UnreadBody {
    state: Cell<State>,
    /// What the handler left.
    rest: RefCell<Option<Box<Incoming>>>,
    /// The rest is to be read and dropped. The one thing that requests without a body look at.
    discarding: Cell<bool>,
    /// A handler has a body of which hyper may have a part.
    held: Cell<bool>,
}

impl UnreadBody {
    /// Request number `request`, with this head, has a body.
    pub(crate) fn begin(
        &self,
        request: u64,
        head: &Parts,
        unread_bytes_max: u64,
        drop_bytes_max: u64,
    ) {
        let is_http_10 = head.version == Version::HTTP_10;
        let expects = !is_http_10
            && head
                .headers
                .get(EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        self.state.set(State {
            request,
            // Few clients of HTTP/1.0 know of a second request: what has come is enough for those.
            unread_bytes_max: if is_http_10 { 0 } else { unread_bytes_max },
            drop_bytes_max,
            expects,
            closes: has_token(&head.headers, &CONNECTION, "close"),
            ..State::default()
        });
        self.held.set(true);
    }

    /// The handler has let go of the body of request number `request`, or has had all of it.
    pub(crate) fn let_go(&self, request: u64) {
        if self.is_of(request) {
            self.held.set(false);
        }
    }

    /// Whether nothing of a body can be left in hyper's buffer, where it would be taken for the next request.
    pub(crate) fn is_over(&self) -> bool {
        !self.held.get() && self.rest.borrow().is_none()
    }

    /// Request number `request` has a body.
    pub(crate) fn is_of(&self, request: u64) -> bool {
        self.state.get().request == request
    }

    fn change(&self, request: u64, change: impl FnOnce(&mut State)) {
        let mut state = self.state.get();
        if state.request == request {
            change(&mut state);
            self.state.set(state);
        }
    }

    /// Whether the body of request number `request` may be read before the handler asks: it has not yet, and the client does not
    /// wait to be asked.
    pub(crate) fn is_free(&self, request: u64) -> bool {
        let state = self.state.get();
        state.request == request && !state.expects && state.taken == Taken::Untouched
    }

    /// The handler asks for the body.
    pub(crate) fn asked(&self, request: u64) {
        self.change(request, |state| state.taken = state.taken.max(Taken::Asked));
    }

    /// It got a part of it, or learnt that it is over.
    pub(crate) fn begun(&self, request: u64) {
        self.change(request, |state| state.taken = Taken::Begun);
    }

    /// The handler has let go of a body that is not over. `to_come`: as in [`UnreadBody::settle`].
    pub(crate) fn dropped(&self, request: u64, incoming: Incoming, to_come: Option<u64>) {
        let mut state = self.state.get();
        if state.request != request || state.fate == Fate::Ends {
            return;
        }
        state.dropped = true;
        self.state.set(state);
        *self.rest.borrow_mut() = Some(Box::new(incoming));
        // What has come can go before the response is there, so that hyper looks whether the client is.
        let is_free = !state.expects && to_come == Some(0);
        self.discarding.set(state.fate == Fate::LivesOn || is_free);
    }

    /// The head of the response to request number `request` is made. `to_come`: bytes of its body that are still to be
    /// read from the socket, if that is known. True when the response has to say that it is the last.
    pub(crate) fn settle(&self, request: u64, is_last: bool, to_come: Option<u64>) -> bool {
        let mut state = self.state.get();
        if state.request != request {
            return false;
        }
        let is_much = to_come.is_none_or(|bytes| bytes > state.unread_bytes_max);
        let is_read = state.taken >= Taken::Asked && !state.dropped;
        let waits_in_vain = state.expects && state.taken < Taken::Begun;
        let has_to_end = waits_in_vain || (is_much && !is_read);
        let ends = has_to_end || is_last || state.closes;
        state.fate = if ends { Fate::Ends } else { Fate::LivesOn };
        self.state.set(state);
        if ends {
            self.give_up();
        } else {
            self.discarding.set(self.rest.borrow().is_some());
        }
        has_to_end
    }

    /// Nothing is read for the next request's sake any more: hyper ends the connection when a body is left.
    pub(crate) fn give_up(&self) {
        self.discarding.set(false);
        let rest = self.rest.borrow_mut().take();
        drop(rest);
    }

    /// Reads and drops what there is. To be called after each poll of hyper, whose task it wakes.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) {
        if self.discarding.get() && self.poll_rest(cx).is_ready() {
            self.give_up();
            // hyper goes on with the next request, or ends.
            cx.waker().wake_by_ref();
        }
    }

    /// Ready at the end of the body, or of the patience with it.
    fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rest = self.rest.borrow_mut();
        let Some(incoming) = &mut *rest else {
            return Poll::Ready(());
        };
        loop {
            // hyper closes a body of known length with the next head.
            if incoming.is_end_stream() {
                return Poll::Ready(());
            }
            let frame = ready!(Pin::new(&mut **incoming).poll_frame(cx));
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(());
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            let mut state = self.state.get();
            let Some(left) = state.drop_bytes_max.checked_sub(bytes) else {
                return Poll::Ready(());
            };
            state.drop_bytes_max = left;
            self.state.set(state);
        }
    }
}
