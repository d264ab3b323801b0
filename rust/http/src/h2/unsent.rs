//! What was handed to the crate and has not left, by stream.
//!
//! A piece is handed over only when there is window for it, so it leaves when the crate writes next. One thing can come between:
//! the client makes all windows smaller (`SETTINGS_INITIAL_WINDOW_SIZE`), and the crate keeps what it has until they are
//! opened again. Nobody waits for that any more when the response was handed over whole. So a stream is noted here with its first
//! piece, and forgotten when the last one has left, which it nearly always has at the end of the same turn; one that stays is
//! looked at by the sweep. A response that is over leaves its stream's handle here, for the reset.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, SendStream};

use super::{stall::Progress, stream::Responder};

/// One stream, from the first piece that has not left until the last one has.
struct Rest {
    number: u32,
    /// Bytes that were handed over and have not left.
    waiting: Cell<usize>,
    /// Bytes that have left since the stream is here, and those that the client has opened its window by: it may owe many first.
    moved: Cell<u64>,
    progress: Progress,
    owner: Owner,
}

/// Who can give the stream up.
enum Owner {
    /// Its task.
    Exchange(Weak<Responder>),
    /// The response was handed over whole. `true` when the request was over as well.
    Nobody(SendStream<Bytes>, bool),
}

/// The streams of one connection of which something has not left.
#[derive(Default)]
pub(super) struct Unsent(RefCell<Vec<Rest>>);

impl Unsent {
    /// So much was handed over.
    pub(super) fn handed(&self, number: u32, bytes: usize, responder: &Rc<Responder>) {
        let mut streams = self.0.borrow_mut();
        match streams.iter().rev().find(|rest| rest.number == number) {
            Some(rest) => rest.waiting.set(rest.waiting.get() + bytes),
            None => streams.push(Rest {
                number,
                waiting: Cell::new(bytes),
                moved: Cell::new(0),
                progress: Progress::default(),
                owner: Owner::Exchange(Rc::downgrade(responder)),
            }),
        }
    }

    /// The response was handed over whole. `alone`: nothing more can come of the client.
    pub(super) fn handed_whole(&self, stream: SendStream<Bytes>, alone: bool) {
        let number = stream.stream_id().as_u32();
        let mut streams = self.0.borrow_mut();
        let rest = streams.iter_mut().rev().find(|rest| rest.number == number);
        if let Some(rest) = rest {
            rest.owner = Owner::Nobody(stream, alone);
        }
    }

    /// So much has left. Called while the crate writes, so no handle may be dropped here.
    pub(super) fn left(&self, number: u32, bytes: usize) {
        let streams = self.0.borrow();
        if let Some(rest) = streams.iter().rev().find(|rest| rest.number == number) {
            rest.waiting.set(rest.waiting.get().saturating_sub(bytes));
            rest.moved.set(rest.moved.get() + bytes as u64);
        }
    }

    /// The client has opened the stream's window. Called while the crate reads.
    pub(super) fn granted(&self, number: u32, bytes: u32) {
        let streams = self.0.borrow();
        if let Some(rest) = streams.iter().find(|rest| rest.number == number) {
            rest.moved.set(rest.moved.get() + u64::from(bytes));
        }
    }

    /// The stream was reset, and nothing more of it will leave. Called while the crate reads or writes.
    pub(super) fn reset(&self, number: u32) {
        let streams = self.0.borrow();
        if let Some(rest) = streams.iter().find(|rest| rest.number == number) {
            rest.waiting.set(0);
        }
    }

    /// Forgets the streams of which all has left. The crate wants to be polled after that, or it tells of nothing any more: so
    /// this is for the beginning of a turn.
    pub(super) fn settle(&self) {
        self.0.borrow_mut().retain(|rest| rest.waiting.get() > 0);
    }

    /// There is a stream to be forgotten that cannot wait for the next turn: the crate has to tell its client that the rest of the
    /// request is not wanted, or the connection `drains` and this may be its last stream.
    pub(super) fn is_settling_due(&self, drains: bool) -> bool {
        let streams = self.0.borrow();
        streams.iter().any(|rest| match rest.owner {
            Owner::Nobody(_, alone) => rest.waiting.get() == 0 && (drains || !alone),
            Owner::Exchange(_) => false,
        })
    }

    /// Something has not left.
    pub(super) fn is_waiting(&self) -> bool {
        let streams = self.0.borrow();
        streams.iter().any(|rest| rest.waiting.get() > 0)
    }

    /// The sweep's look, at a time when the client could take more: gives up the streams for which it has done nothing for
    /// `limit`.
    pub(super) fn sweep(&self, now: Duration, limit: Duration, wakers: &mut Vec<Waker>) {
        self.0.borrow_mut().retain_mut(|rest| {
            let at = (rest.waiting.get() > 0).then(|| rest.moved.get());
            if !rest.progress.is_late(at, 1, now, limit) {
                return true;
            }
            match &mut rest.owner {
                Owner::Exchange(responder) => {
                    if let Some(responder) = responder.upgrade() {
                        responder.give_up(wakers);
                    }
                }
                // The crate wakes the connection's task, which writes the reset.
                Owner::Nobody(stream, _) => stream.send_reset(Reason::CANCEL),
            }
            false
        });
    }
}
