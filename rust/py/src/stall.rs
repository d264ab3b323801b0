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

use std::time::Duration;

use crate::os::{self, OwnedSocket};

/// What Python gets to log a stall, before all stacks are written without it.
const LOGGED_WITHIN: Duration = Duration::from_secs(1);

/// Watches one loop; lives on the native thread.
pub(crate) struct StallWatch {
    after: Duration,
    channel: OwnedSocket,
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
    pub(crate) fn new(after: Duration, channel: OwnedSocket, signal: i32) -> Self {
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
        // Nobody there, or a queue that nobody reads: there is nobody to tell that either.
        os::send_now(&self.channel, text.as_bytes())
    }

    fn take_answer(&self) -> bool {
        os::take_now(&self.channel)
    }

    fn show_all(&self) {
        if self.signal == 0 {
            return;
        }
        let text = format!(
            "error: the event loop has stood still for {:.1} s, and code that keeps the GIL; all stacks:\n",
            self.elapsed.as_secs_f64()
        );
        os::tell_and_signal(&text, self.signal);
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
        if os::is_parent(self.pid) {
            return;
        }
        self.orphan_for += passed;
        if self.orphan_for >= self.patience {
            os::end_process();
        }
    }
}
