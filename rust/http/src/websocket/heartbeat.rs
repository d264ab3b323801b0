//! Is the peer still there? Pings by the server, and who counts as lost.
//!
//! # Theory
//! A peer that is gone without a word looks like one that has nothing to say. So after an interval of silence it is asked, by a
//! ping, and after a timeout of more silence it is given up. Whatever comes from the peer counts as life, not only the pong: a
//! slow link may have the pong behind a large message.
//!
//! There is no timer here. The sweep over all connections ([`Swept`]) reads the clock, the session does what it finds due when
//! it is woken:
//!
//! ```text
//!           interval               session            written             timeout        a sweep later
//!   Quiet -----------> PingDue ---------------> Queued --------> Asked ---------------> Late ---------> Silent
//!     ^                                                                                                   |
//!     +---- bytes from the peer, in any state ------------------------------------------------------------+---> given up
//! ```
//!
//! Who is late because of us is not lost:
//! - The sweep's clock counts a pause of the thread as two periods at most, so a handler that blocks for a minute makes nobody
//!   late by a minute.
//! - The time for the answer runs from when the ping was written, not from when it was queued behind a large message; while it
//!   waits, every byte that the peer takes starts the time anew.
//! - Before somebody is given up, the session has looked twice at what can be read, a sweep apart.
//! - While the application does not receive, the socket is not read, and nobody can be judged. Then the kernel's own limits hold,
//!   and those of whoever waits for the peer to read.

use std::{cell::Cell, rc::Rc, task::Waker, time::Duration};

use super::outbox::Outbox;
use crate::registry::Swept;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The peer was heard, or is not missed yet.
    Quiet,
    /// The session has to send a ping.
    PingDue,
    /// The ping waits to be written.
    Queued,
    /// The ping is written.
    Asked,
    /// Nothing came in time. The session has to look at what can be read.
    Late,
    /// Still nothing.
    Silent,
}

/// Silence of one peer, and what follows from it.
pub struct Heartbeat {
    outbox: Rc<Outbox>,
    interval: Duration,
    /// `None`: the peer is asked and never given up.
    timeout: Option<Duration>,
    stage: Cell<Stage>,
    /// Nobody reads, because no message is wanted.
    deaf: Cell<bool>,
    /// Raised by everything that starts the time anew.
    epoch: Cell<u32>,
    /// The sweep's: the epoch it saw last, and since when.
    seen: Cell<Option<(u32, Duration)>>,
}

impl Heartbeat {
    pub(super) fn new(outbox: Rc<Outbox>, interval: Duration, timeout: Option<Duration>) -> Self {
        Self {
            outbox,
            interval,
            timeout,
            stage: Cell::new(Stage::Quiet),
            deaf: Cell::new(false),
            epoch: Cell::new(0),
            seen: Cell::default(),
        }
    }

    fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.epoch.set(self.epoch.get().wrapping_add(1));
    }

    /// Bytes came from the peer.
    pub(super) fn heard(&self) {
        self.enter(Stage::Quiet);
    }

    /// Whether anything of the peer can be heard now.
    pub(super) fn listen(&self, listens: bool) {
        self.deaf.set(!listens);
    }

    /// Queues the ping that is due.
    pub(super) fn beat(&self) {
        if self.stage.get() == Stage::PingDue {
            self.outbox.beat();
            self.enter(Stage::Queued);
        }
    }

    /// The peer has taken bytes.
    pub(super) fn wrote(&self) {
        if self.stage.get() == Stage::Queued {
            let is_out = self.outbox.beat_is_out();
            self.enter(if is_out { Stage::Asked } else { Stage::Queued });
        }
    }

    /// The peer has not answered in time, and somebody has looked.
    pub(super) fn is_silent(&self) -> bool {
        if self.stage.get() != Stage::Silent {
            return false;
        }
        if self.deaf.get() {
            // It may have answered.
            self.enter(Stage::Quiet);
        }
        !self.deaf.get()
    }
}

impl Swept for Heartbeat {
    fn sweep(&self, now: Duration) -> Option<Waker> {
        let epoch = self.epoch.get();
        let since = match self.seen.get() {
            Some((seen, since)) if seen == epoch => since,
            _ => {
                self.seen.set(Some((epoch, now)));
                now
            }
        };
        let elapsed = now.saturating_sub(since);
        let due = match (self.stage.get(), self.timeout) {
            (Stage::Quiet, _) | (Stage::Asked, None) if elapsed >= self.interval => Stage::PingDue,
            (Stage::Queued | Stage::Asked, Some(timeout)) if elapsed >= timeout => Stage::Late,
            (Stage::Late, _) => Stage::Silent,
            _ => return None,
        };
        self.stage.set(due);
        self.outbox.take_waker()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        rc::Rc,
        task::{Poll, Waker},
        time::Duration,
    };

    use super::{Heartbeat, Outbox, Stage, Swept};

    const SECOND: Duration = Duration::from_secs(1);

    /// A heartbeat of 20 s and 10 s, and a clock.
    struct Peer {
        heartbeat: Heartbeat,
        outbox: Rc<Outbox>,
        now: Duration,
    }

    impl Peer {
        fn new(timeout: Option<u32>) -> Self {
            let outbox = Outbox::new();
            let timeout = timeout.map(|seconds| SECOND * seconds);
            Self {
                heartbeat: Heartbeat::new(outbox.clone(), SECOND * 20, timeout),
                outbox,
                now: Duration::ZERO,
            }
        }

        /// Time passes, with a sweep every second; the session runs whenever it is woken.
        fn pass(&mut self, seconds: u32) -> Stage {
            for _ in 0..seconds {
                self.now += SECOND;
                self.outbox.attend(Waker::noop());
                self.outbox.leave();
                if self.heartbeat.sweep(self.now).is_some() {
                    self.heartbeat.beat();
                }
            }
            self.heartbeat.stage.get()
        }

        /// The peer takes up to `bytes`; what was written.
        fn takes(&self, bytes: usize) -> Vec<u8> {
            let mut written = Vec::new();
            let taken = self.outbox.write(|pieces| {
                let [unsent] = pieces else {
                    unreachable!("nothing large is sent here");
                };
                written.extend_from_slice(&unsent[..bytes.min(unsent.len())]);
                Poll::Ready(Ok(written.len()))
            });
            if taken.is_some() {
                self.heartbeat.wrote();
            }
            written
        }
    }

    #[test]
    fn silent_peer_is_asked_and_given_up_and_not_before() {
        let mut peer = Peer::new(Some(10));
        // The first sweep begins to count.
        assert_eq!(peer.pass(20), Stage::Quiet);
        assert_eq!(peer.pass(1), Stage::Queued);
        assert_eq!(peer.takes(100), [0x89, 0]);
        assert_eq!(peer.pass(10), Stage::Asked);
        assert_eq!(peer.pass(1), Stage::Late);
        assert!(!peer.heartbeat.is_silent());
        assert_eq!(peer.pass(1), Stage::Silent);
        assert!(peer.heartbeat.is_silent());
    }

    #[test]
    fn bytes_of_any_kind_are_an_answer_however_late() {
        for late in 0..=11 {
            let mut peer = Peer::new(Some(10));
            peer.pass(21);
            peer.takes(100);
            peer.pass(late);
            assert!(!peer.heartbeat.is_silent());
            peer.heartbeat.heard();
            assert_eq!(peer.pass(20), Stage::Quiet);
            assert_eq!(peer.pass(1), Stage::Queued, "and is asked again");
        }
    }

    #[test]
    fn time_runs_from_when_the_ping_is_written() {
        let mut peer = Peer::new(Some(10));
        peer.outbox.binary(&[0; 98]);
        assert_eq!(peer.pass(21), Stage::Queued);
        for _ in 0..5 {
            assert_eq!(peer.pass(9), Stage::Queued);
            assert_eq!(peer.takes(20).len(), 20, "slowly");
        }
        peer.takes(100);
        assert_eq!(peer.pass(10), Stage::Asked);
        assert_eq!(peer.pass(1), Stage::Late);
    }

    #[test]
    fn peer_that_does_not_read_is_late_as_well() {
        let mut peer = Peer::new(Some(10));
        peer.outbox.binary(&[0; 98]);
        assert_eq!(peer.pass(21), Stage::Queued);
        assert_eq!(peer.pass(11), Stage::Late);
    }

    #[test]
    fn nobody_is_silent_while_nobody_listens() {
        let mut peer = Peer::new(Some(10));
        peer.pass(21);
        peer.takes(100);
        peer.heartbeat.listen(false);
        assert_eq!(peer.pass(12), Stage::Silent);
        assert!(!peer.heartbeat.is_silent());
        assert_eq!(peer.pass(1), Stage::Quiet);
        peer.heartbeat.listen(true);
        peer.pass(20);
        peer.takes(100);
        assert_eq!(peer.pass(13), Stage::Silent);
        assert!(peer.heartbeat.is_silent());
    }

    #[test]
    fn without_a_timeout_nobody_is_given_up() {
        let mut peer = Peer::new(None);
        for _ in 0..10 {
            assert_eq!(peer.pass(21), Stage::Queued);
            assert_eq!(peer.takes(100), [0x89, 0]);
        }
    }

    #[test]
    fn one_ping_at_most_waits_to_be_written() {
        let mut peer = Peer::new(Some(10));
        for _ in 0..10 {
            peer.pass(21);
            // Nothing can be heard, because nobody listens.
            peer.heartbeat.heard();
        }
        assert_eq!(peer.outbox.buffered(), 2);
    }
}
