//! A loop that stands still, as the native thread sees it: counted, and shown by whoever can.
//!
//! The native thread asks the loop twice a second whether it turns ([`crate::native`]). When no answer comes for long enough,
//! it writes to a socket pair. At the other end a Python thread waits (`framegate/stalls.py`), which takes the stack of the
//! loop's thread and logs it. That needs the GIL: code in C that keeps it (a regular expression that explodes) silences that
//! thread, too. So it says when it is done, and where it does not, a signal makes Python's `faulthandler` write all stacks
//! from its handler, which needs nothing.
//!
//! | line | means |
//! |---|---|
//! | `stalled MS` | no answer for so long; answered by any byte when it has been logged |
//! | `over MS` | the loop turns again |
//!
//! The time that counts is the native thread's own: a process that was stopped, or a machine that slept, is no stall.

#![expect(unsafe_code, reason = "signals and sockets")]

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

/// What Python gets to log a stall, before all stacks are written without it.
const LOGGED_WITHIN: Duration = Duration::from_secs(1);

/// Watches one loop; lives on the native thread.
pub(crate) struct StallWatch {
    after: Duration,
    channel: OwnedFd,
    /// Makes `faulthandler` write; 0 is none.
    signal: i32,
    /// The question that has no answer yet.
    asked: u64,
    elapsed: Duration,
    /// How long the stall was when it was told.
    told: Option<Duration>,
    /// Somebody has shown the stacks.
    shown: bool,
    count: u64,
}

impl StallWatch {
    /// A stall begins to be one after `after`.
    pub(crate) fn new(after: Duration, channel: OwnedFd, signal: i32) -> Self {
        Self {
            after,
            channel,
            signal,
            asked: 0,
            elapsed: Duration::ZERO,
            told: None,
            shown: false,
            count: 0,
        }
    }

    /// Looks once: `asked` is the open question's number or 0, `passed` the time since the last look. Gives the number of
    /// stalls so far.
    pub(crate) fn look(&mut self, asked: u64, passed: Duration) -> u64 {
        if asked == 0 || asked != self.asked {
            if self.told.take().is_some() {
                self.tell("over");
            }
            self.asked = asked;
            self.elapsed = Duration::ZERO;
        }
        if asked == 0 {
            return self.count;
        }
        self.elapsed += passed;
        match self.told {
            None if self.elapsed >= self.after => {
                self.count += 1;
                self.told = Some(self.elapsed);
                // Answers of before.
                while self.take_answer() {}
                self.shown = !self.tell("stalled");
            }
            Some(_) if self.shown => {}
            Some(told) => {
                if self.take_answer() {
                    self.shown = true;
                } else if self.elapsed >= told + LOGGED_WITHIN {
                    self.shown = true;
                    self.show_all();
                }
            }
            None => {}
        }
        self.count
    }

    fn tell(&self, what: &str) -> bool {
        // A few bytes: the socket takes them whole or not at all.
        let text = format!("{what} {}\n", self.elapsed.as_millis());
        // SAFETY: the text is valid for the call; the descriptor is ours.
        let sent = unsafe {
            libc::send(
                self.channel.as_raw_fd(),
                text.as_ptr().cast(),
                text.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        // Nobody there, or a queue that nobody reads: there is nobody to tell that either.
        sent > 0
    }

    fn take_answer(&self) -> bool {
        let mut byte = 0u8;
        // SAFETY: one byte of room; the descriptor is ours.
        let got = unsafe {
            libc::recv(
                self.channel.as_raw_fd(),
                (&raw mut byte).cast(),
                1,
                libc::MSG_DONTWAIT,
            )
        };
        got > 0
    }

    fn show_all(&self) {
        if self.signal == 0 {
            return;
        }
        let text = format!(
            "error: the event loop has stood still for {:.1} s, and code that keeps the GIL; all stacks:\n",
            self.elapsed.as_secs_f64()
        );
        let mut room = libc::pollfd {
            fd: libc::STDERR_FILENO,
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: plain system calls on memory of this frame. The handler of the signal is faulthandler's; whoever took it
        // away since gets a signal that it asked for. Nothing is written where that would wait for a reader.
        unsafe {
            if libc::poll(&raw mut room, 1, 0) == 1 && room.revents & libc::POLLOUT != 0 {
                libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
                libc::kill(libc::getpid(), self.signal);
            }
        }
    }
}

/// Ends a process whose supervisor is gone, when nothing else could: the last of three ways, and the only one that needs
/// neither the kernel's favour nor the GIL.
pub(crate) struct ParentWatch {
    pid: i32,
    patience: Duration,
    orphan_for: Duration,
}

impl ParentWatch {
    /// An orphan has `patience` to end by itself.
    pub(crate) fn new(pid: i32, patience: Duration) -> Self {
        Self {
            pid,
            patience,
            orphan_for: Duration::ZERO,
        }
    }

    /// Looks once; `passed` is the time since the last look.
    pub(crate) fn look(&mut self, passed: Duration) {
        // SAFETY: it cannot fail.
        if unsafe { libc::getppid() } == self.pid {
            return;
        }
        self.orphan_for += passed;
        if self.orphan_for >= self.patience {
            // SAFETY: ends the process without running anything of it; whatever it is stuck in may hold any lock.
            unsafe { libc::_exit(1) };
        }
    }
}
