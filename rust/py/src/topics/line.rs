//! The frames of one topic in order, for viewers that want each of them (`policy=queue`).
//!
//! A line is another subscriber of the topic, one that takes the next frame and not the newest. What it takes goes to the *place*
//! of each viewer: a queue of at most so many frames, from whose front the viewer is served. A full queue loses its oldest
//! frame; its viewer sees that by the sequence.
//!
//! # Where the bytes are
//! In the slot, which is leased once for all queues. When leases are scarce ([`super::leases`]) the oldest frame that waits is
//! copied, once for all queues, and the slot given back: so however slow they are, viewers hold up nobody. All copies of
//! a line have a bound in bytes; a frame that would go beyond it is lost to the queues that it waits in.
//!
//! A line has a quarter of the slots, and its topic's hub half of them, so that publishers have the rest.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use framegate_http::{
    fanout::Parcel,
    topics::{Problem, board::Frame},
};
use framegate_shm::{Policy, Start, Subscriber, SubscriberOptions};
use tokio::{sync::Notify, time::sleep};

use super::{
    convert::problem,
    hub::{LEASE_RETRY, NAME},
    leases::{Held, Leases, Said},
    registry::{self, Life},
};
use crate::{native::watched, os::duplicate};

/// The frames of a topic in order.
pub(super) struct Line {
    subscriber: Subscriber,
    life: Life,
    leases: Leases,
    places: Mutex<Places>,
    /// A place was given up.
    left: Notify,
    /// Frames that may be leased, oldest first.
    leased: Mutex<VecDeque<Weak<Kept>>>,
    /// Bytes that are copied, of those that may be.
    copied: Arc<AtomicU64>,
    bytes_max: u64,
}

/// Who wants the frames.
#[derive(Default)]
struct Places {
    taken: Vec<Weak<Place>>,
    /// The line has ended.
    is_over: bool,
}

/// A frame that waits in queues.
struct Kept {
    said: Said,
    bytes: Mutex<Where>,
}

/// Where its bytes are.
enum Where {
    Slot(Arc<Held>),
    Copy(Bytes),
    /// There was no room for a copy.
    Nowhere,
}

/// A copy; gives its room back.
struct Copied {
    bytes: Box<[u8]>,
    room: Arc<AtomicU64>,
}

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // Relaxed: a count that guards nothing.
        self.room
            .fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

/// The queue of one viewer.
pub(super) struct Place {
    line: Arc<Line>,
    frames_max: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Arc<Kept>>,
    waker: Option<Waker>,
    /// Nothing comes any more.
    is_over: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// The frame, if there is one yet.
    fn give(&self) -> Option<Frame> {
        let payload = match &*locked(&self.bytes) {
            Where::Slot(held) => held.bytes(),
            Where::Copy(bytes) => bytes.clone(),
            Where::Nowhere => return None,
        };
        Some(self.said.of(payload))
    }
}

impl Place {
    /// The next frame of the queue.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Result<Frame, Problem>> {
        let mut queue = locked(&self.queue);
        while let Some(kept) = queue.frames.pop_front() {
            if let Some(frame) = kept.give() {
                return Poll::Ready(Ok(frame));
            }
        }
        if queue.is_over {
            return Poll::Ready(Err(registry::gone()));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A parcel sends from frame `sequence`.
    pub(super) fn lends(&self, sequence: u64, parcel: &Arc<Parcel>) {
        self.line.leases.lends(sequence, parcel);
    }

    fn push(&self, kept: &Arc<Kept>) {
        let mut queue = locked(&self.queue);
        let lost = (queue.frames.len() >= self.frames_max).then(|| queue.frames.pop_front());
        queue.frames.push_back(Arc::clone(kept));
        let waker = queue.waker.take();
        drop(queue);
        // Outside the lock: the last one to let go gives the slot back.
        drop(lost);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn end(&self) {
        let mut queue = locked(&self.queue);
        queue.is_over = true;
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.left.notify_one();
    }
}

impl Line {
    /// Subscribes to the topic whose life that is. Blocking: files are opened.
    pub(super) fn open(
        topic: &str,
        life: &Life,
        slots: u32,
        bytes_max: u64,
        of_hub: &Leases,
    ) -> Result<Arc<Self>, Problem> {
        let leases_max = (slots / 4).max(1);
        let (subscriber, opened) = Life::of(topic, || {
            let options = SubscriberOptions {
                policy: Policy::Queue,
                start: Start::Next,
                leases_max,
                name: NAME,
                ..SubscriberOptions::default()
            };
            Subscriber::open(topic, &options)
        })?;
        if opened != *life {
            return Err(registry::gone());
        }
        // For event loops: made now, where it may fail.
        subscriber.event_fd().map_err(|error| problem(&error))?;
        Ok(Arc::new(Self {
            subscriber,
            life: opened,
            leases: of_hub.beside(leases_max),
            places: Mutex::default(),
            left: Notify::new(),
            leased: Mutex::default(),
            copied: Arc::default(),
            bytes_max,
        }))
    }

    /// A queue for so many frames: those that are published from now on. `None` when the line has ended.
    pub(super) fn place(self: &Arc<Self>, frames_max: usize) -> Option<Arc<Place>> {
        let mut places = locked(&self.places);
        if places.is_over {
            return None;
        }
        let place = Arc::new(Place {
            line: Arc::clone(self),
            frames_max,
            queue: Mutex::default(),
        });
        places.taken.push(Arc::downgrade(&place));
        Some(place)
    }

    /// Ends the line when nobody has a place.
    fn is_deserted(&self) -> bool {
        let mut places = locked(&self.places);
        places.taken.retain(|place| place.strong_count() > 0);
        // Under the lock: who wants a place now opens another line.
        places.is_over |= places.taken.is_empty();
        places.is_over
    }

    /// Fills the queues, until there are none.
    pub(super) fn run(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Now, so that they are told even if the thread that it is for is gone.
        let ending = Ending(self);
        async move { ending.0.fill().await }
    }

    async fn fill(&self) {
        let fd = self
            .subscriber
            .event_fd()
            .map_err(io::Error::other)
            .and_then(duplicate)
            .and_then(watched);
        let Ok(fd) = fd else {
            return;
        };
        loop {
            match self.turn() {
                Ok(true) => {}
                Err(error) if error.is_lease_quota() => {
                    sleep(LEASE_RETRY).await;
                    continue;
                }
                Ok(false) | Err(_) => return,
            }
            tokio::select! {
                readable = fd.readable() => if readable.is_err() {
                    return;
                },
                () = self.left.notified() => if self.is_deserted() {
                    return;
                },
            }
        }
    }

    /// Takes what there is; false when the topic is gone.
    fn turn(&self) -> Result<bool, framegate_shm::Error> {
        loop {
            self.subscriber.drain()?;
            if !self.life.goes_on() {
                return Ok(false);
            }
            loop {
                // The newest frames stay in their slots until another one needs those.
                let taken = self.subscriber.take(Duration::ZERO).or_else(|error| {
                    if !error.is_lease_quota() {
                        return Err(error);
                    }
                    self.relieve();
                    self.subscriber.take(Duration::ZERO)
                });
                let Some(frame) = taken? else {
                    break;
                };
                self.hand_out(&self.leases.hold(Said::by(&frame), frame));
            }
            if !self.subscriber.arm()? {
                return Ok(true);
            }
        }
    }

    fn hand_out(&self, held: &Arc<Held>) {
        let kept = Arc::new(Kept {
            said: held.said.clone(),
            bytes: Mutex::new(Where::Slot(Arc::clone(held))),
        });
        locked(&self.leased).push_back(Arc::downgrade(&kept));
        let places: Vec<_> = {
            let mut places = locked(&self.places);
            places.taken.retain(|place| place.strong_count() > 0);
            places.taken.iter().filter_map(Weak::upgrade).collect()
        };
        // Outside the lock: the last one to let go of a place wants it.
        for place in places {
            place.push(&kept);
        }
    }

    /// Has the oldest frames copied until another one may be taken.
    fn relieve(&self) {
        let mut leased = locked(&self.leased);
        // Those that nobody waits for any more.
        leased.retain(|kept| kept.strong_count() > 0);
        while self.leases.are_scarce()
            && let Some(kept) = leased.pop_front()
        {
            if let Some(kept) = kept.upgrade() {
                self.copy(&kept);
                self.leases.relieve_of(kept.said.sequence);
            }
        }
        drop(leased);
        // Those that are in no queue any more, but still leave.
        self.leases.relieve();
    }

    fn copy(&self, kept: &Kept) {
        let mut bytes = locked(&kept.bytes);
        let Where::Slot(held) = &*bytes else {
            return;
        };
        let count = held.frame.len() as u64;
        // Relaxed: only this task adds.
        let room = self
            .bytes_max
            .saturating_sub(self.copied.load(Ordering::Relaxed));
        let copy = if count <= room {
            self.copied.fetch_add(count, Ordering::Relaxed);
            Where::Copy(Bytes::from_owner(Copied {
                bytes: held.frame[..].into(),
                room: Arc::clone(&self.copied),
            }))
        } else {
            Where::Nowhere
        };
        let lent = std::mem::replace(&mut *bytes, copy);
        drop(bytes);
        drop(lent);
    }
}

/// However the task ends, viewers that are left are told that nothing comes any more.
struct Ending(Arc<Line>);

impl Drop for Ending {
    fn drop(&mut self) {
        let places: Vec<_> = {
            let mut places = locked(&self.0.places);
            places.is_over = true;
            places.taken.iter().filter_map(Weak::upgrade).collect()
        };
        for place in places {
            place.end();
        }
    }
}
