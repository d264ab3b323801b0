//! The frames of one topic, for all requests of this process.
//!
//! A hub is one subscriber. While nobody asks it holds nothing. A frame that somebody holds is given to everybody who asks
//! for it, so that it is leased once however many send it; what is given out is the frame's own memory.
//!
//! Who waits for a newer frame watches a number: the newest sequence that the *pump* has seen. The pump is a task that runs
//! while somebody waits; it is the one that turns the subscriber's descriptor into that number.

#![expect(unsafe_code, reason = "a descriptor of the library's is watched")]

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use framegate_http::topics::{Code, FrameHead, Problem, board::Frame};
use framegate_shm::{Policy, Subscriber, SubscriberOptions};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use super::{
    convert::{head_of, problem},
    registry::Life,
};
use crate::native::{duplicate, monotonic_ns};

/// What inspectors show.
const NAME: &str = "framegate-http";

/// Frames of one topic.
pub(super) struct Hub {
    subscriber: Subscriber,
    session: u64,
    pub(super) life: Life,
    /// The frame that was asked for last, as long as somebody holds it.
    last: Mutex<Weak<Held>>,
    pump: Mutex<bool>,
    /// The newest sequence that the pump has seen; `u64::MAX` once the topic is gone.
    newest: watch::Sender<u64>,
}

/// A leased frame.
struct Held {
    frame: framegate_shm::Frame,
    head: FrameHead,
    published_ns: u64,
}

/// Keeps a frame leased as long as its bytes are used.
struct Payload(Arc<Held>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0.frame
    }
}

impl Held {
    fn new(frame: framegate_shm::Frame) -> Self {
        let head = head_of(&frame);
        let age = monotonic_ns().saturating_sub(frame.published_ns());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        Self {
            head,
            published_ns: u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(age),
            frame,
        }
    }

    fn give(self: &Arc<Self>) -> Arc<Frame> {
        Arc::new(Frame {
            sequence: self.frame.sequence(),
            published_ns: self.published_ns,
            head: self.head.clone(),
            payload: Bytes::from_owner(Payload(Arc::clone(self))),
        })
    }
}

impl Hub {
    /// Subscribes. Blocking: files are opened.
    pub(super) fn open(topic: &str) -> Result<Self, Problem> {
        let (subscriber, life) = Life::of(topic, || {
            let options = SubscriberOptions {
                policy: Policy::Latest,
                name: NAME,
                ..SubscriberOptions::default()
            };
            Subscriber::open(topic, &options)
        })?;
        let info = subscriber.info().map_err(|error| problem(&error))?;
        // For event loops: made now, where it may fail.
        subscriber.event_fd().map_err(|error| problem(&error))?;
        Ok(Self {
            subscriber,
            // The other half is in names of files.
            session: info.identity[1],
            life,
            last: Mutex::default(),
            pump: Mutex::new(false),
            newest: watch::Sender::new(0),
        })
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// The newest frame.
    pub(super) fn newest(&self) -> Result<Option<Arc<Frame>>, Problem> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.upgrade();
        match self.subscriber.peek() {
            Ok(None) => Ok(None),
            Ok(Some(frame)) => {
                if let Some(known) = known
                    && known.frame.sequence() == frame.sequence()
                {
                    return Ok(Some(known.give()));
                }
                let held = Arc::new(Held::new(frame));
                *last = Arc::downgrade(&held);
                Ok(Some(held.give()))
            }
            Err(error) if error.is_lease_quota() => match known {
                // Everybody is busy sending: the newest of what is held is shared.
                Some(known) => Ok(Some(known.give())),
                None => Err(Problem::new(
                    Code::Unavailable,
                    "as many frames of the topic are being sent as may be held",
                )
                .retry_after(Duration::from_secs(1))
                .because(&error)),
            },
            Err(error) => Err(problem(&error)),
        }
    }

    /// Watches the newest sequence; `start` is called with what has to run for that, if it does not yet.
    pub(super) fn watch(self: &Arc<Self>, start: impl FnOnce(Arc<Self>)) -> watch::Receiver<u64> {
        let mut is_pumped = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        let watching = self.newest.subscribe();
        if !*is_pumped {
            *is_pumped = true;
            start(Arc::clone(self));
        }
        watching
    }

    /// Tells watchers of frames, until there are none.
    pub(super) async fn pump(self: Arc<Self>) {
        let mut running = Running {
            hub: &self,
            done: false,
        };
        let fd = self
            .subscriber
            .event_fd()
            .map_err(io::Error::other)
            .and_then(duplicate)
            .and_then(|fd| {
                // SAFETY: a descriptor of its own, which the `AsyncFd` owns: it stays open, and the same, as long as that lives.
                unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
                    .map_err(Into::into)
            });
        if let Ok(fd) = fd {
            while !running.is_over() && self.turn().unwrap_or(false) {
                tokio::select! {
                    readable = fd.readable() => match readable {
                        Ok(mut readable) => readable.clear_ready(),
                        Err(_) => break,
                    },
                    () = self.newest.closed() => {}
                }
            }
        }
    }

    /// Looks once; false when the topic is gone.
    fn turn(&self) -> Result<bool, framegate_shm::Error> {
        loop {
            self.subscriber.drain()?;
            if !self.life.goes_on() {
                return Ok(false);
            }
            if let Some(frame) = self.subscriber.take(Duration::ZERO)? {
                self.newest.send_replace(frame.sequence());
            }
            if !self.subscriber.arm()? {
                return Ok(true);
            }
        }
    }
}

/// The pump runs. However it ends, watchers that are left are told that nothing comes any more.
struct Running<'a> {
    hub: &'a Hub,
    done: bool,
}

impl Running<'_> {
    /// Whether nobody watches; then another pump may begin.
    fn is_over(&mut self) -> bool {
        let mut is_pumped = self.hub.pump.lock().unwrap_or_else(PoisonError::into_inner);
        if self.hub.newest.receiver_count() == 0 {
            *is_pumped = false;
            self.done = true;
        }
        self.done
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.done {
            *self.hub.pump.lock().unwrap_or_else(PoisonError::into_inner) = false;
            self.hub.newest.send_replace(u64::MAX);
        }
    }
}
