//! Clients that are waited for, and for how long.
//!
//! Over HTTP/1 a connection waits for one thing at a time. Here each stream does: for more of its request's body, or for room in
//! its window. Who waits says so in the stream's [`Waits`], and the first time puts the stream on the connection's [`Watch`],
//! which the sweep looks through. A stream that never waits is not on it; nobody but the sweep knows the time.
//!
//! A client is not blamed for what it cannot do. While the connection's window for bodies is used up, by bodies that handlers leave
//! unread, no other body is late. While nothing can be written because the client does not read at all, or has not opened
//! the connection's window, that is what it is late with: the connection ends, not one stream after the other.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::Waker,
    time::Duration,
};

use super::{Observed, stream::Responder};
use crate::config::Config;
use crate::h1_io::Order;
use crate::refusal::BODY_TOO_SLOW;

/// With less room than that for all bodies, a client may wait for more before it goes on: one frame.
const ROOM_MIN: i64 = 16 * 1024;

/// How far something was that has to go on, and when the sweep saw it there first.
#[derive(Default)]
pub(super) struct Progress(Cell<Option<(u64, Duration)>>);

impl Progress {
    /// True when it has not gone on by `step` for as long as `limit`. `at` is how far it is, `None` when nobody waits for it.
    pub(super) fn is_late(
        &self,
        at: Option<u64>,
        step: u64,
        now: Duration,
        limit: Duration,
    ) -> bool {
        let Some(at) = at else {
            self.0.set(None);
            return false;
        };
        match self.0.get() {
            Some((before, since)) if at.saturating_sub(before) < step.max(1) => {
                now.saturating_sub(since) >= limit
            }
            _ => {
                self.0.set(Some((at, now)));
                false
            }
        }
    }
}

/// What one stream waits for.
#[derive(Default)]
pub(super) struct Waits {
    /// Where it stands on the watch, once it has waited.
    place: Cell<Option<usize>>,
    /// Somebody wants more of the request's body, and nothing is there.
    body: Cell<bool>,
    /// Bytes of the request's body that were taken.
    taken: Cell<u64>,
    body_progress: Progress,
    /// There is something to be sent, and the stream's own window is used up.
    window: Cell<bool>,
    /// Bytes of the response that were handed over.
    handed: Cell<u64>,
    window_progress: Progress,
    /// Who reads the body, while it waits.
    reader: RefCell<Option<Waker>>,
    /// The rest of the body is not waited for any longer.
    given_up: Cell<bool>,
    /// The rest of the response is not to be sent.
    reset: Cell<bool>,
}

impl Waits {
    pub(super) fn took(&self, bytes: usize) {
        self.taken.set(self.taken.get() + bytes as u64);
    }

    pub(super) fn handed(&self, bytes: usize) {
        self.handed.set(self.handed.get() + bytes as u64);
    }

    /// Nobody waits for the body: there is some of it, it is over, or nobody wants it.
    pub(super) fn end_body(&self) {
        self.body.set(false);
    }

    /// The window is open, or there is nothing to be sent.
    pub(super) fn end_window(&self) {
        self.window.set(false);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    /// The response is to be broken off.
    pub(super) fn is_reset(&self) -> bool {
        self.reset.get()
    }

    /// The client is told in words: the response that does so is no part of what is late.
    pub(super) fn forgive(&self) {
        self.reset.set(false);
    }

    /// The body, and what was late with it, is given up. Its reader is to be woken.
    pub(super) fn give_up(&self) -> Option<Waker> {
        self.body.set(false);
        self.window.set(false);
        self.given_up.set(true);
        self.reset.set(true);
        self.reader.take()
    }
}

/// The streams of one connection that have waited for their client and are not over.
#[derive(Default)]
pub(super) struct Watch {
    streams: RefCell<Vec<Weak<Responder>>>,
    /// Of what the client grants for the connection, while somebody waits for that.
    credit: Progress,
    /// Of the heads that came, while a part of one is there.
    head: Progress,
}

impl Watch {
    /// The next bytes of the body are waited for.
    pub(super) fn wait_for_body(&self, stream: &Rc<Responder>, reader: &Waker) {
        let waits = &stream.waits;
        waits.body.set(true);
        match &mut *waits.reader.borrow_mut() {
            Some(known) => known.clone_from(reader),
            unknown => *unknown = Some(reader.clone()),
        }
        self.enter(stream);
    }

    /// The stream's window is waited for.
    pub(super) fn wait_for_window(&self, stream: &Rc<Responder>) {
        stream.waits.window.set(true);
        self.enter(stream);
    }

    fn enter(&self, stream: &Rc<Responder>) {
        if stream.waits.place.get().is_none() {
            let mut streams = self.streams.borrow_mut();
            stream.waits.place.set(Some(streams.len()));
            streams.push(Rc::downgrade(stream));
        }
    }

    /// The stream is over.
    pub(super) fn leave(&self, waits: &Waits) {
        let Some(place) = waits.place.take() else {
            return;
        };
        let mut streams = self.streams.borrow_mut();
        streams.swap_remove(place);
        if let Some(moved) = streams.get(place).and_then(Weak::upgrade) {
            moved.waits.place.set(Some(place));
        }
    }
}

impl Observed {
    /// The sweep's look at a connection: gives up the streams whose client is late, whose tasks `wakers` will wake, and tells
    /// what the connection itself is due for.
    pub(crate) fn sweep(
        &self,
        now: Duration,
        config: &Config,
        wakers: &mut Vec<Waker>,
    ) -> Option<Order> {
        let timeouts = &config.timeouts;
        // A client that does not read at all is late with that, which the registry knows; and then we may not read either.
        let reads = !self.shared.awaits_write.get();
        let head = (reads && self.in_head.get()).then(|| self.heads.get());
        if self.watch.head.is_late(head, 1, now, timeouts.head) {
            return Some(Order::Close);
        }
        let credit = self.gate.awaited_credit().filter(|_| reads);
        if self.watch.credit.is_late(credit, 1, now, timeouts.write) {
            return Some(Order::Reset);
        }
        let may_send = reads && self.room.get() >= ROOM_MIN;
        let may_grant = reads && credit.is_none();
        let rate = config.limits.body_rate_min * timeouts.body.as_secs();
        for stream in self.watch.streams.borrow().iter() {
            let Some(stream) = stream.upgrade() else {
                continue;
            };
            let waits = &stream.waits;
            let body = (may_send && waits.body.get()).then(|| waits.taken.get());
            let window = (may_grant && waits.window.get()).then(|| waits.handed.get());
            let body_is_late = waits.body_progress.is_late(body, rate, now, timeouts.body);
            let window_is_late = waits
                .window_progress
                .is_late(window, 1, now, timeouts.write);
            if body_is_late {
                wakers.extend(stream.refuse(&BODY_TOO_SLOW));
            }
            if body_is_late || window_is_late {
                stream.give_up(wakers);
            }
        }
        if may_grant {
            self.unsent.sweep(now, timeouts.write, wakers);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Progress;

    const LIMIT: Duration = Duration::from_secs(10);

    fn look(progress: &Progress, at: Option<u64>, seconds: u64) -> bool {
        progress.is_late(at, 5, Duration::from_secs(seconds), LIMIT)
    }

    #[test]
    fn what_stands_still_is_late_when_its_time_is_over() {
        let progress = Progress::default();
        assert!(!look(&progress, Some(7), 100));
        assert!(!look(&progress, Some(11), 109), "little is as nothing");
        assert!(look(&progress, Some(11), 110));
    }

    #[test]
    fn what_goes_on_is_not_late() {
        let progress = Progress::default();
        for turn in 0..100 {
            assert!(!look(&progress, Some(turn * 5), turn * 9));
        }
    }

    #[test]
    fn time_in_which_nobody_waits_does_not_count() {
        let progress = Progress::default();
        for turn in 0..100 {
            assert!(!look(&progress, Some(7), turn * 10));
            assert!(!look(&progress, None, turn * 10 + 9));
        }
    }
}
