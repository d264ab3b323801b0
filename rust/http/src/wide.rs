//! How much of a large answer the kernel may hold while its client does not take it.
//!
//! Listening sockets bound that (`TCP_NOTSENT_LOWAT`, `framegate/listener.py`): without a bound each client that does not read costs
//! megabytes. But a client that keeps up pays for it: an answer of 1 MiB leaves in several writes, each after a wake-up. So a connection whose write was cut short gets a wide watermark, as long as few have one.
//!
//! # What bounds the memory
//! At most [`WIDE_MAX`] connections of a thread are wide at a time. One stops being wide when it has written nothing for a whole
//! sweep *and* its peer has acknowledged everything: what was let into the kernel while it was wide has left. Who
//! stops reading stays wide, and counts, until the limit of time for writes ends the connection; the others make do with the
//! narrow one.
//!
//! HTTP/2 is left out: what is in the kernel cannot be overtaken by a stream of higher priority.

use std::{
    cell::{Cell, RefCell},
    io,
    task::Poll,
};

use crate::config::{Unacknowledged, UnsentWatermark};
use crate::h1_io::Phase;
use crate::os::RawFd;
use crate::place::Place;

/// Connections of one thread that are wide at a time.
const WIDE_MAX: usize = 32;
/// The wide watermark: a few frames of a camera. The kernel's own bound of a socket is 4 MiB.
const WIDE_BYTES: u32 = 2 << 20;
/// What the listening sockets have; `UNSENT_BYTES_MAX` in `framegate/listener.py`.
const NARROW_BYTES: u32 = 128 << 10;
/// A write that leaves less than this is not worth two system calls.
const REST_BYTES_MIN: usize = 64 << 10;

thread_local! {
    static WIDE: Cell<usize> = const { Cell::new(0) };
}

/// Whether a connection is wide; part of `Shared`.
#[derive(Default)]
pub(crate) struct Wide {
    /// How to set the watermark; `None` where it cannot be set.
    call: Cell<Option<UnsentWatermark>>,
    place: RefCell<Option<Place>>,
    /// Bytes that were written when the sweep looked last.
    seen: Cell<u64>,
}

impl Wide {
    /// From now on the connection may become wide.
    pub(crate) fn allow(&self, call: Option<UnsentWatermark>) {
        self.call.set(call);
    }

    /// A write of so many bytes ended like this.
    pub(crate) fn note_write(
        &self,
        phase: Phase,
        socket: RawFd,
        offered: usize,
        result: &Poll<io::Result<usize>>,
    ) {
        let rest = match result {
            Poll::Ready(Ok(written)) => offered - written,
            Poll::Ready(Err(_)) => return,
            Poll::Pending => offered,
        };
        if rest < REST_BYTES_MIN || matches!(phase, Phase::H2Busy | Phase::H2Idle) {
            return;
        }
        let Some(set) = self.call.get() else {
            return;
        };
        let mut place = self.place.borrow_mut();
        if place.is_none() {
            *place = Place::take(&WIDE, WIDE_MAX);
            if place.is_some() {
                set(socket, WIDE_BYTES);
            }
        }
    }

    /// The sweep has come by.
    pub(crate) fn sweep(&self, socket: RawFd, bytes_out: u64, ask: Option<Unacknowledged>) {
        let mut place = self.place.borrow_mut();
        if place.is_none() || self.seen.replace(bytes_out) != bytes_out {
            return;
        }
        if ask.and_then(|ask| ask(socket)) == Some(0)
            && let Some(set) = self.call.get()
        {
            set(socket, NARROW_BYTES);
            place.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io, task::Poll};

    use super::{NARROW_BYTES, REST_BYTES_MIN, WIDE_BYTES, WIDE_MAX, Wide};
    use crate::h1_io::Phase;
    use crate::os::RawFd;

    const MIB: usize = 1 << 20;

    thread_local! {
        static CALLS: RefCell<Vec<(RawFd, u32)>> = const { RefCell::new(Vec::new()) };
    }

    fn set(socket: RawFd, bytes: u32) {
        CALLS.with_borrow_mut(|calls| calls.push((socket, bytes)));
    }

    fn calls() -> Vec<(RawFd, u32)> {
        CALLS.take()
    }

    fn allowed() -> Wide {
        let wide = Wide::default();
        wide.allow(Some(set));
        wide
    }

    fn written(bytes: usize) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes))
    }

    #[test]
    fn write_that_was_cut_short_makes_wide_once() {
        let wide = allowed();
        for whole in [
            written(MIB),
            written(MIB - REST_BYTES_MIN + 1),
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        ] {
            wide.note_write(Phase::Busy, 7, MIB, &whole);
        }
        assert_eq!(calls(), []);
        wide.note_write(Phase::Busy, 7, MIB, &written(MIB - REST_BYTES_MIN));
        wide.note_write(Phase::Busy, 7, MIB, &Poll::Pending);
        assert_eq!(calls(), [(7, WIDE_BYTES)]);
    }

    #[test]
    fn connection_of_http2_is_never_wide() {
        let wide = allowed();
        for phase in [Phase::H2Busy, Phase::H2Idle] {
            wide.note_write(phase, 7, MIB, &Poll::Pending);
        }
        assert_eq!(calls(), []);
    }

    #[test]
    fn peer_that_took_everything_and_is_quiet_makes_narrow() {
        let wide = allowed();
        wide.note_write(Phase::Upgraded, 7, MIB, &Poll::Pending);
        assert_eq!(calls(), [(7, WIDE_BYTES)]);
        wide.sweep(7, 100, Some(|_| Some(0)));
        // More was written since.
        wide.sweep(7, 200, Some(|_| Some(0)));
        // Not all of it has arrived, or nobody can say.
        wide.sweep(7, 200, Some(|_| Some(1)));
        wide.sweep(7, 200, None);
        assert_eq!(calls(), []);
        wide.sweep(7, 200, Some(|_| Some(0)));
        wide.sweep(7, 200, Some(|_| Some(0)));
        assert_eq!(calls(), [(7, NARROW_BYTES)]);
        wide.note_write(Phase::Upgraded, 7, MIB, &Poll::Pending);
        assert_eq!(calls(), [(7, WIDE_BYTES)]);
    }

    #[test]
    fn few_connections_are_wide() {
        let mut all: Vec<_> = (0..=WIDE_MAX).map(|_| allowed()).collect();
        for (number, wide) in all.iter().enumerate() {
            wide.note_write(
                Phase::Busy,
                RawFd::try_from(number).unwrap(),
                MIB,
                &Poll::Pending,
            );
        }
        assert_eq!(calls().len(), WIDE_MAX);
        // One that closes makes room.
        all.remove(0);
        all.last()
            .unwrap()
            .note_write(Phase::Busy, 99, MIB, &Poll::Pending);
        assert_eq!(calls(), [(99, WIDE_BYTES)]);
    }
}
