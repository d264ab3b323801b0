//! Leases of one subscriber, and how they are got back from slow viewers.
//!
//! A subscriber may hold so many slots. Before another frame is taken while fewer than [`FREE_LEASES_MIN`] may still be, the
//! viewers that send from the oldest frames copy what is left of them ([`Parcel::take_over`]) and so give them back, whichever
//! thread they are on and whatever that does.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use framegate_http::{
    fanout::Parcel,
    topics::{FrameHead, board::Frame},
};

use super::convert::head_of;
use crate::{
    os::monotonic_ns,
    stats::{Counter, Row},
};

/// With fewer leases left, slow viewers copy.
const FREE_LEASES_MIN: u32 = 2;

/// What a subscriber holds, and who sends from that.
pub(super) struct Leases {
    max: u32,
    count: Arc<AtomicU32>,
    /// Who sends from which frame, oldest first.
    lent: Mutex<VecDeque<(u64, Vec<Weak<Parcel>>)>>,
    /// Where copies are counted.
    row: Option<Arc<Row>>,
}

/// A leased frame.
pub(super) struct Held {
    count: Arc<AtomicU32>,
    pub(super) frame: framegate_shm::Frame,
    pub(super) said: Said,
}

/// What is known of a frame beside its bytes.
#[derive(Clone)]
pub(super) struct Said {
    pub(super) sequence: u64,
    published_ns: u64,
    head: Arc<FrameHead>,
}

impl Said {
    /// By the frame itself.
    pub(super) fn by(frame: &framegate_shm::Frame) -> Self {
        let age = monotonic_ns().saturating_sub(frame.published_ns());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        Self {
            sequence: frame.sequence(),
            published_ns: u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(age),
            head: Arc::new(head_of(frame)),
        }
    }

    /// With the frame's bytes.
    pub(super) fn of(&self, payload: Bytes) -> Frame {
        Frame {
            sequence: self.sequence,
            published_ns: self.published_ns,
            head: Arc::clone(&self.head),
            payload,
        }
    }
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
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Held {
    /// Its bytes, which hold it.
    pub(super) fn bytes(self: &Arc<Self>) -> Bytes {
        Bytes::from_owner(Payload(Arc::clone(self)))
    }

    pub(super) fn give(self: &Arc<Self>) -> Frame {
        self.said.of(self.bytes())
    }
}

impl Leases {
    /// Of a subscriber that may hold so many.
    pub(super) fn new(max: u32, row: Option<Arc<Row>>) -> Self {
        Self {
            max,
            count: Arc::default(),
            lent: Mutex::default(),
            row,
        }
    }

    /// Of another subscriber, whose copies are counted at the same place.
    pub(super) fn beside(&self, max: u32) -> Self {
        Self::new(max, self.row.clone())
    }

    /// Counts a frame that was taken.
    pub(super) fn hold(&self, said: Said, frame: framegate_shm::Frame) -> Arc<Held> {
        // Relaxed: a count, as below.
        self.count.fetch_add(1, Ordering::Relaxed);
        Arc::new(Held {
            count: Arc::clone(&self.count),
            frame,
            said,
        })
    }

    /// Whether viewers have to copy before another frame is taken.
    pub(super) fn are_scarce(&self) -> bool {
        // Relaxed: who counts up looks here first, under a lock of its own; who counts down only makes room.
        self.max < self.count.load(Ordering::Relaxed) + FREE_LEASES_MIN
    }

    /// Has slow viewers copy until enough frames may be taken.
    pub(super) fn relieve(&self) {
        if !self.are_scarce() {
            return;
        }
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        while self.are_scarce()
            && let Some((_, parcels)) = lent.pop_front()
        {
            self.take_over(&parcels);
        }
    }

    /// Has those copy that send from one frame.
    pub(super) fn relieve_of(&self, sequence: u64) {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = lent.iter().position(|entry| entry.0 == sequence)
            && let Some((_, parcels)) = lent.remove(position)
        {
            self.take_over(&parcels);
        }
    }

    fn take_over(&self, parcels: &[Weak<Parcel>]) {
        for parcel in parcels.iter().filter_map(Weak::upgrade) {
            if parcel.take_over() > 0
                && let Some(row) = &self.row
            {
                row.add(Counter::TopicCopies, 1);
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
}
