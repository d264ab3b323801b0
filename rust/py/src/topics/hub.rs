//! The frames of one topic, for all requests of this process.
//!
//! A hub is one subscriber. While nobody asks it holds nothing. A frame that somebody holds is given to everybody who asks
//! for it, so that it is leased once however many send it; what is given out is the frame's own memory.
//!
//! # Slow viewers
//! A subscriber may hold half of the slots. Before another frame is taken while fewer than [`FREE_LEASES_MIN`] may still be, the
//! viewers that send from the oldest frames copy what is left of them ([`Parcel::take_over`]) and so give them back, whichever
//! thread they are on and whatever that does.
//!
//! Who waits for a newer frame watches a number: the newest sequence that the *pump* has seen. The pump is a task that runs
//! while somebody waits; it is the one that turns the subscriber's descriptor into that number.

#![expect(unsafe_code, reason = "a descriptor of the library's is watched")]

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use framegate_http::{
    fanout::Parcel,
    pictures::{Cache, FrameId, PictureError, PixelFormat, Pixels, Setting, Source},
    topics::{Code, FrameHead, Problem, board::Frame},
};
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
/// With fewer leases left, slow viewers copy.
const FREE_LEASES_MIN: u32 = 2;
/// Who finds all leases taken looks again then: those that are not sent from are given back within a picture's time.
pub(super) const LEASE_RETRY: Duration = Duration::from_millis(5);
/// The pump looks for frames for so long after the last one who waited: viewers wait again and again.
const PUMP_LINGER: Duration = Duration::from_secs(1);

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
    leases_max: u32,
    leases: Arc<AtomicU32>,
    /// Who sends from which frame, oldest first.
    lent: Mutex<VecDeque<(u64, Vec<Weak<Parcel>>)>>,
    /// Parcels that had to be copied.
    copied: AtomicU64,
    pictures: Cache,
}

/// A leased frame.
struct Held {
    leases: Arc<AtomicU32>,
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

impl Drop for Held {
    fn drop(&mut self) {
        // Relaxed: a count; the lease itself ends in the library.
        self.leases.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Held {
    fn new(frame: framegate_shm::Frame, leases: &Arc<AtomicU32>) -> Self {
        leases.fetch_add(1, Ordering::Relaxed);
        let head = head_of(&frame);
        let age = monotonic_ns().saturating_sub(frame.published_ns());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        Self {
            leases: Arc::clone(leases),
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
    pub(super) fn open(topic: &str, pictures: Cache) -> Result<Self, Problem> {
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
            // What the library allows who says nothing.
            leases_max: (info.slots / 2).max(1),
            leases: Arc::default(),
            lent: Mutex::default(),
            copied: AtomicU64::new(0),
            pictures,
        })
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// The newest frame.
    pub(super) fn newest(&self) -> Result<Option<Arc<Frame>>, Problem> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.upgrade();
        self.relieve();
        match self.subscriber.peek() {
            Ok(None) => Ok(None),
            Ok(Some(frame)) => {
                if let Some(known) = known
                    && known.frame.sequence() == frame.sequence()
                {
                    return Ok(Some(known.give()));
                }
                let held = Arc::new(Held::new(frame, &self.leases));
                *last = Arc::downgrade(&held);
                Ok(Some(held.give()))
            }
            Err(error) if error.is_lease_quota() => match known {
                // Everybody is busy sending: the newest of what is held is shared.
                Some(known) => Ok(Some(known.give())),
                None => Err(Problem::new(
                    Code::LeasesExhausted,
                    "as many frames of the topic are being sent as may be held",
                )
                .retry_after(Duration::from_secs(1))
                .because(&error)),
            },
            Err(error) => Err(problem(&error)),
        }
    }

    /// Has slow viewers copy until enough frames may be taken.
    fn relieve(&self) {
        // Relaxed: who counts up does so under the lock of `last`, as we do; who counts down only makes room.
        let is_scarce = || self.leases_max < self.leases.load(Ordering::Relaxed) + FREE_LEASES_MIN;
        if !is_scarce() {
            return;
        }
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        while is_scarce()
            && let Some((_, parcels)) = lent.pop_front()
        {
            for parcel in parcels.iter().filter_map(Weak::upgrade) {
                if parcel.take_over() > 0 {
                    self.copied.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// A parcel sends from frame `sequence`.
    pub(super) fn lends(&self, sequence: u64, parcel: &Arc<Parcel>) {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let parcel = Arc::downgrade(parcel);
        if let Some((_, parcels)) = lent.iter_mut().rev().find(|entry| entry.0 == sequence) {
            parcels.push(parcel);
            return;
        }
        // What has been sent needs no place.
        lent.retain(|(_, parcels)| {
            let is_lent = |parcel: &Weak<Parcel>| parcel.upgrade().is_some_and(|it| it.is_lent());
            parcels.iter().any(is_lent)
        });
        lent.push_back((sequence, vec![parcel]));
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
            loop {
                match self.turn() {
                    Ok(true) => {}
                    Err(error) if error.is_lease_quota() => {
                        tokio::time::sleep(LEASE_RETRY).await;
                        continue;
                    }
                    Ok(false) | Err(_) => break,
                }
                let deserted = async {
                    self.newest.closed().await;
                    tokio::time::sleep(PUMP_LINGER).await;
                };
                tokio::select! {
                    readable = fd.readable() => match readable {
                        Ok(mut readable) => readable.clear_ready(),
                        Err(_) => break,
                    },
                    () = deserted => if running.is_over() {
                        return;
                    },
                }
            }
        }
    }

    /// Looks once; false when the topic is gone.
    fn turn(&self) -> Result<bool, framegate_shm::Error> {
        loop {
            self.subscriber.drain()?;
            // Those of a thread that is busy with something else.
            self.relieve();
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

/// What a frame is as a picture.
fn source_of(frame: &Frame) -> Result<Source, Problem> {
    let head = &frame.head;
    let coding = head.content_type.as_deref().and_then(|content_type| {
        framegate_http::pictures::Coding::from_media_type(content_type.as_bytes())
    });
    if let Some(coding) = coding {
        return Ok(Source::Coded(coding, frame.payload.clone()));
    }
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
