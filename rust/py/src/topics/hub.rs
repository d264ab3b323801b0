//! The frames of one topic, for all requests of this process.
//!
//! A hub is one subscriber. While nobody asks it holds nothing. A frame that somebody holds is given to everybody who asks
//! for it, so that it is leased once however many send it; what is given out is the frame's own memory.
//!
//! Leases are counted, and got back from slow viewers, by [`super::leases`]. Who wants all frames in order has them of
//! [`super::line`].
//!
//! Who waits for a newer frame watches a number: the newest sequence that was seen. On the thread of the frames a *pump* turns the
//! subscriber's descriptor into that number, a task that runs while somebody there watches. Those who wait on the loop watch the
//! number of a *relay*, a task of the loop that looks at the descriptor, too: so the loop is woken once a frame, not once for each
//! who waits, and another thread only if somebody waits there.

use std::{
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use framegate_http::{
    fanout::Parcel,
    pictures::{Cache, Coding, FrameId, PictureError, PixelFormat, Pixels, Setting, Source},
    topics::{
        Code, Problem,
        board::Frame,
        newest::{GONE, Newest, Watching},
    },
};
use framegate_shm::{Policy, Subscriber, SubscriberOptions};
use tokio::time::Instant;

use super::{
    convert::problem,
    leases::{Held, Leases, Said},
    line::{Line, Place},
    registry::{self, Life},
};
use crate::{
    native::watched,
    os::{OwnedSocket, Watched, duplicate},
    stats::Row,
};

/// What inspectors show.
pub(super) const NAME: &str = "framegate-http";
/// Who finds all leases taken looks again then: those that are not sent from are given back within a picture's time.
pub(super) const LEASE_RETRY: Duration = Duration::from_millis(5);
/// The pump looks for frames for so long after the last one who waited: viewers wait again and again.
pub(super) const PUMP_LINGER: Duration = Duration::from_secs(1);

/// Frames of one topic.
pub(super) struct Hub {
    subscriber: Subscriber,
    session: u64,
    pub(super) life: Life,
    /// The frame that was asked for last, as long as somebody holds it, and what is known of it: viewers who come one after the
    /// other, each done before the next, read that once.
    last: Mutex<Option<(Said, Weak<Held>)>>,
    /// The frame that the relay's watchers are looking at, for one turn of the loop.
    shown: Mutex<Option<Frame>>,
    /// What picture the frame that was asked for last is: many viewers ask.
    coded: Mutex<Option<(u64, Option<Coding>)>>,
    pump: Mutex<bool>,
    /// The newest sequence that the pump or the relay has seen.
    newest: Arc<Newest>,
    /// The same number for the loop, as long as its relay runs.
    relay: Mutex<Weak<Newest>>,
    leases: Leases,
    pictures: Cache,
    topic: String,
    slots: u32,
    /// The frames in order, as long as somebody wants them so.
    line: Mutex<Weak<Line>>,
}

impl Hub {
    /// Subscribes. Blocking: files are opened.
    pub(super) fn open(
        topic: &str,
        pictures: Cache,
        row: Option<Arc<Row>>,
    ) -> Result<Self, Problem> {
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
            shown: Mutex::default(),
            coded: Mutex::default(),
            pump: Mutex::new(false),
            newest: Newest::new(0),
            relay: Mutex::default(),
            // What the library allows who says nothing.
            leases: Leases::new((info.slots / 2).max(1), row),
            pictures,
            topic: topic.to_owned(),
            slots: info.slots,
            line: Mutex::default(),
        })
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// The newest frame.
    pub(super) fn newest(&self) -> Result<Option<Frame>, Problem> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.leases.relieve();
        match self.subscriber.peek() {
            Ok(None) => Ok(None),
            Ok(Some(frame)) => {
                let known = last.as_ref();
                let known = known.filter(|(said, _)| said.sequence == frame.sequence());
                let held = known.and_then(|(_, held)| held.upgrade());
                if let Some(held) = held {
                    return Ok(Some(held.give()));
                }
                let said = known.map_or_else(|| Said::by(&frame), |(said, _)| said.clone());
                let held = self.leases.hold(said.clone(), frame);
                *last = Some((said, Arc::downgrade(&held)));
                Ok(Some(held.give()))
            }
            Err(error) if error.is_lease_quota() => {
                match last.as_ref().and_then(|(_, held)| held.upgrade()) {
                    // Everybody is busy sending: the newest of what is held is shared.
                    Some(known) => Ok(Some(known.give())),
                    None => Err(Problem::new(
                        Code::LeasesExhausted,
                        "as many frames of the topic are being sent as may be held",
                    )
                    .retry_after(Duration::from_secs(1))
                    .because(&error)),
                }
            }
            Err(error) => Err(problem(&error)),
        }
    }

    /// The newest frame, for somebody who was told that there is `seen`: one that all who are told now look at is that, whatever has
    /// come since, which they are told next.
    pub(super) fn newest_since(&self, seen: u64) -> Result<Option<Frame>, Problem> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shown {
            Some(frame) if frame.sequence >= seen => Ok(Some(frame.clone())),
            _ => {
                drop(shown);
                self.newest()
            }
        }
    }

    /// A parcel sends from frame `sequence`.
    pub(super) fn lends(&self, sequence: u64, parcel: &Arc<Parcel>) {
        self.leases.lends(sequence, parcel);
    }

    /// A queue of the frames in order, for so many; `start` is called with a line that has to run for that. All copies of a
    /// line's frames take so many bytes. Blocking: files are opened.
    pub(super) fn place(
        &self,
        frames_max: usize,
        bytes_max: u64,
        start: impl FnOnce(Arc<Line>),
    ) -> Result<Arc<Place>, Problem> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = line.upgrade()
            && let Some(place) = known.place(frames_max)
        {
            return Ok(place);
        }
        let opened = Line::open(&self.topic, &self.life, self.slots, bytes_max, &self.leases)?;
        let place = opened.place(frames_max).ok_or_else(registry::gone)?;
        *line = Arc::downgrade(&opened);
        start(opened);
        Ok(place)
    }

    /// A frame as a picture.
    pub(super) fn picture(
        &self,
        frame: &Frame,
        setting: Setting,
    ) -> impl Future<Output = Result<Bytes, Problem>> + use<> {
        let picture = source_of(frame).map(|source| {
            let id = FrameId {
                epoch: self.session,
                sequence: frame.sequence,
            };
            self.pictures.picture(id, &source, setting)
        });
        async move { picture?.await.map_err(|error| no_picture(&error)) }
    }

    /// The frame itself, where it is the picture that is asked for.
    pub(super) fn picture_as_is(&self, frame: &Frame, setting: Setting) -> Option<Bytes> {
        let mut coded = self.coded.lock().unwrap_or_else(PoisonError::into_inner);
        let coding = match *coded {
            Some((sequence, coding)) if sequence == frame.sequence => coding,
            _ => {
                let coding = coding_of(frame);
                *coded = Some((frame.sequence, coding));
                coding
            }
        };
        drop(coded);
        let is_it = coding.is_some_and(|coding| setting.takes(coding));
        is_it.then(|| frame.payload.clone())
    }

    /// Whether frames still come by it: the topic has not been created again, and nobody failed to look for them.
    pub(super) fn goes_on(&self) -> bool {
        self.life.goes_on() && !self.newest.is_gone()
    }

    /// Watches the newest sequence; `start` is called with what has to run for that, if it does not yet.
    pub(super) fn watch(self: &Arc<Self>, start: impl FnOnce(Arc<Self>)) -> Watching {
        let mut is_pumped = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        let watching = self.newest.watch();
        let was_pumped = mem::replace(&mut *is_pumped, true);
        drop(is_pumped);
        if !was_pumped {
            start(Arc::clone(self));
        }
        watching
    }

    /// The same for those on the loop; `start` is called with the relay, which has to run there.
    pub(super) fn watch_by_relay<F>(self: &Arc<Self>, start: F) -> Watching
    where
        F: FnOnce(Pin<Box<dyn Future<Output = ()>>>),
    {
        let mut known = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(relay) = known.upgrade() {
            return relay.watch();
        }
        let mut watching = self.newest.watch();
        let relay = Newest::new(watching.look());
        let relayed = relay.watch();
        *known = Arc::downgrade(&relay);
        start(Box::pin(Arc::clone(self).relay(watching, relay)));
        relayed
    }

    /// Tells those who wait on the loop what it sees itself, and what the pump has seen, until there are none.
    async fn relay(self: Arc<Self>, mut watching: Watching, relay: Arc<Newest>) {
        // However it ends, those who are left are told.
        let relay = Relay(relay);
        let Ok(fd) = self.descriptor() else {
            return;
        };
        let mut seen = Instant::now();
        let mut is_due = true;
        loop {
            if is_due {
                match self.turn() {
                    Ok(true) => is_due = false,
                    Err(error) if error.is_lease_quota() => {
                        tokio::time::sleep(LEASE_RETRY).await;
                        continue;
                    }
                    Ok(false) | Err(_) => {
                        self.newest.tell(GONE);
                        return;
                    }
                }
            }
            seen = seen_by(&relay.0, seen);
            tokio::select! {
                biased;
                newest = poll_fn(|cx| watching.poll_changed(cx)) => {
                    if newest == GONE {
                        return;
                    }
                    // Each watcher lets go of the frame before the next one looks: it is leased for all of them, not by each. They
                    // run before this task does again, because they are woken first.
                    let _shown = Shown::new(&self);
                    relay.0.tell(newest);
                    tokio::task::yield_now().await;
                }
                readable = fd.readable() => {
                    if readable.is_err() {
                        return;
                    }
                    is_due = true;
                }
                () = deserted(&relay.0, seen) => {
                    // Held, so that nobody begins to watch a relay that ends.
                    let mut known = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
                    if !relay.0.is_watched() {
                        *known = Weak::new();
                        return;
                    }
                }
            }
        }
    }

    /// Tells watchers of frames, until there are none.
    pub(super) fn pump(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // Now, so that they are told even if the thread that it is for is gone.
        let running = Running {
            hub: self,
            done: false,
        };
        running.pump()
    }

    /// The subscriber's, watched by the runtime that runs.
    fn descriptor(&self) -> io::Result<Watched<OwnedSocket>> {
        let fd = self.subscriber.event_fd().map_err(io::Error::other)?;
        watched(duplicate(fd)?)
    }

    /// Looks once; false when the topic is gone. The pump and the relay may look at the same time: who takes a wake tells both of the
    /// frame.
    fn turn(&self) -> Result<bool, framegate_shm::Error> {
        loop {
            self.subscriber.drain()?;
            // Those of a thread that is busy with something else.
            self.leases.relieve();
            if !self.life.goes_on() {
                return Ok(false);
            }
            if let Some(frame) = self.subscriber.take(Duration::ZERO)? {
                self.newest.tell(frame.sequence());
            }
            if !self.subscriber.arm()? {
                return Ok(true);
            }
        }
    }
}

/// The newest frame is held and shown, until this is dropped.
struct Shown<'a>(&'a Hub);

impl<'a> Shown<'a> {
    fn new(hub: &'a Hub) -> Self {
        // What is wrong, if anything, those hear who look.
        let frame = hub.newest().unwrap_or(None);
        *hub.shown.lock().unwrap_or_else(PoisonError::into_inner) = frame;
        Self(hub)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let mut shown = self.0.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = shown.take();
        drop(shown);
        // Outside the lock: it may be the last one that holds the slot.
        drop(frame);
    }
}

/// The relay runs.
struct Relay(Arc<Newest>);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.tell(GONE);
    }
}

/// When somebody was last seen to watch: now, or `before`.
fn seen_by(watched: &Newest, before: Instant) -> Instant {
    if watched.is_watched() {
        Instant::now()
    } else {
        before
    }
}

/// Ready when nobody watches, and nobody was `seen` to for [`PUMP_LINGER`], however many frames come meanwhile.
async fn deserted(watched: &Newest, seen: Instant) {
    watched.deserted().await;
    tokio::time::sleep_until(seen + PUMP_LINGER).await;
}

/// The pump runs. However it ends, watchers that are left are told that nothing comes any more.
struct Running {
    hub: Arc<Hub>,
    done: bool,
}

impl Running {
    async fn pump(mut self) {
        let hub = Arc::clone(&self.hub);
        if let Ok(fd) = hub.descriptor() {
            let mut seen = Instant::now();
            loop {
                seen = seen_by(&hub.newest, seen);
                match hub.turn() {
                    Ok(true) => {}
                    Err(error) if error.is_lease_quota() => {
                        tokio::time::sleep(LEASE_RETRY).await;
                        continue;
                    }
                    Ok(false) | Err(_) => break,
                }
                tokio::select! {
                    readable = fd.readable() => if readable.is_err() {
                        break;
                    },
                    () = deserted(&hub.newest, seen) => if self.is_over() {
                        return;
                    },
                }
            }
        }
    }

    /// Whether nobody watches; then another pump may begin.
    fn is_over(&mut self) -> bool {
        let mut is_pumped = self.hub.pump.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.hub.newest.is_watched() {
            *is_pumped = false;
            self.done = true;
        }
        self.done
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            *self.hub.pump.lock().unwrap_or_else(PoisonError::into_inner) = false;
            self.hub.newest.tell(GONE);
        }
    }
}

/// What a frame is as a picture.
fn coding_of(frame: &Frame) -> Option<Coding> {
    let content_type = frame.head.content_type.as_deref()?;
    Coding::from_media_type(content_type.as_bytes())
}

fn source_of(frame: &Frame) -> Result<Source, Problem> {
    if let Some(coding) = coding_of(frame) {
        return Ok(Source::Coded(coding, frame.payload.clone()));
    }
    let head = &frame.head;
    let array = head.array.as_ref().and_then(|array| {
        let dtype = array.dtype().name();
        PixelFormat::of_array(dtype, array.shape(), head.encoding.as_deref())
    });
    let Some((format, width, height)) = array else {
        return Err(Problem::new(
            Code::NoPicture,
            "the frame is no picture: that is a JPEG, PNG or WebP, or an array of (height, width) or (height, width, channels)",
        ));
    };
    Pixels::new(format, width, height, frame.payload.clone())
        .map(Source::Pixels)
        .map_err(|error| no_picture(&error))
}

fn no_picture(error: &PictureError) -> Problem {
    if error.is_busy() {
        return Problem::new(Code::PicturesBusy, error.to_string())
            .retry_after(Duration::from_secs(1));
    }
    Problem::new(Code::NoPicture, error.to_string())
}
