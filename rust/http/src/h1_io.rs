//! What lies between hyper and the socket.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use http::HeaderMap;

use crate::service::Takeover;

/// What the socket wrapper, the service, the handlers and the sweep know of one connection.
#[derive(Default)]
pub(crate) struct Shared {
    /// Wakes the connection's task.
    task: RefCell<Option<Waker>>,
    hints: RefCell<HintQueue>,
    draining: Cell<bool>,
    takeover: RefCell<Option<Takeover>>,
}

#[derive(Default)]
struct HintQueue {
    /// Heads that wait to be written, oldest first, with the number of the request they belong to.
    heads: VecDeque<Vec<u8>>,
    /// Bytes of the first head that have left; above zero it must be finished before anything else is written.
    written: usize,
    /// Heads that were put in, and that left the queue (written or withdrawn).
    entered: u64,
    left: u64,
    wakers: Vec<Waker>,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(crate) fn set_takeover(&self, takeover: Takeover) {
        *self.takeover.borrow_mut() = Some(takeover);
    }
}

/// Completes when a `103` has been written; see [`crate::service::Hints::send`].
pub struct HintSent {
    shared: Option<Rc<Shared>>,
    fields: Option<HeaderMap>,
}

impl HintSent {
    pub(crate) fn new(shared: Option<Rc<Shared>>, fields: HeaderMap) -> Self {
        Self {
            shared,
            fields: Some(fields),
        }
    }
}

impl Future for HintSent {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
