//! A clock that is set back, and the `date` of HTTP/1.1.
//!
//! hyper renders that field anew once the time of day has passed the second that it shows. When somebody sets the clock back by
//! an hour, it shows the same second for an hour. There is no door to its cache, but it leaves a `date` alone that a response
//! has already. So the sweep looks at the time of day; from the moment in which it finds it set back, until hyper goes on by
//! itself (a time that lasted less than a sweep is not seen), responses get their `date` from here ([`crate::h1_io::Shared::own_date`]). As long as no clock is set back, that
//! costs a response one look at a flag.
//!
//! Everything that lasts (timeouts, pauses, windows) is measured by the monotonic clock and does not notice.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use http::HeaderValue;

/// How far beyond the latest time that a sweep saw hyper may be: what passes between two sweeps, and the rest of a second.
const AHEAD: Duration = Duration::from_secs(2);

/// Whether hyper's date may be ahead of the time of day.
#[derive(Default)]
pub(crate) struct SetBack {
    /// The latest time of day that was seen.
    latest: Cell<Option<SystemTime>>,
    is_ahead: Cell<bool>,
}

impl SetBack {
    pub(crate) fn is_ahead(&self) -> bool {
        self.is_ahead.get()
    }

    /// It is `now`. True if hyper may be ahead of that.
    pub(crate) fn look(&self, now: SystemTime) -> bool {
        let is_ahead = self.latest.get().is_some_and(|latest| {
            let end = if self.is_ahead.get() {
                latest + AHEAD
            } else {
                latest
            };
            now < end
        });
        self.is_ahead.set(is_ahead);
        if !is_ahead {
            self.latest.set(Some(now));
        }
        is_ahead
    }
}

/// The time of day as a header value, rendered for one response.
pub(crate) fn date() -> HeaderValue {
    let text = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::try_from(text).expect("a date is visible ASCII")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::SetBack;

    #[test]
    fn from_the_jump_back_until_the_old_time_has_come_again() {
        let clock = SetBack::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (seconds, is_ahead) in [
            (10_000, false),
            (10_001, false),
            (10_001, false),
            (90_000, false), // forwards is no trouble: hyper renders what is later
            (80_000, true),
            (80_001, true),
            (70_000, true),
            (90_000, true), // hyper may have rendered a little after the last look
            (90_001, true),
            (90_002, false),
            (90_003, false),
        ] {
            assert_eq!(clock.look(at(seconds)), is_ahead, "{seconds}");
            assert_eq!(clock.is_ahead(), is_ahead);
        }
    }
}
