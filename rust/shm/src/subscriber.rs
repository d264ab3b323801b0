//! Subscribing: take frames and read them in place.
#![expect(unsafe_code, reason = "the whole file is calls into the library")]

use std::ffi::c_int;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use crate::array::{Array, Dtype};
use crate::error::{Error, Kind, check};
use crate::metadata::{self, Metadata};
use crate::sys;
use crate::topic::{Topic, TopicInfo, timeout_ns};
use crate::values::{Value, decode_values};

/// Which frame a take returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy<'a> {
    /// The newest one.
    #[default]
    Latest,
    /// The next one that still exists; overwritten ones are counted as lost.
    Queue,
    /// The next one, always: loans of publishers wait for this subscriber.
    Reliable,
    /// The next one that no other member of the group of this name got. Dropping the frame says that it is done; the
    /// frames of a member that dies go to another one. The name is 1 to 32 letters, digits, `_`, `-` or `.`.
    Group(&'a str),
}

/// Where a subscriber begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// `Latest`: the newest existing frame; the others: only later ones.
    #[default]
    Default,
    /// Only frames published after the opening.
    Next,
    /// The newest existing frame counts as unseen.
    Newest,
}

/// How a subscriber behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscriberOptions<'a> {
    /// Which frame a take returns.
    pub policy: Policy<'a>,
    /// Where it begins.
    pub start: Start,
    /// Frames that may be held at the same time; 0: half of the slots.
    pub leases_max: u32,
    /// Busy-wait this long before sleeping, at most 1 ms. Costs a core.
    pub spin: Duration,
    /// Shown by inspectors, at most 32 bytes.
    pub name: &'a str,
}

/// One participant that reads a topic. Cheap to clone: clones are the same participant.
///
/// May be used from several threads. Detaches when the last clone and the last frame are gone.
#[derive(Clone)]
pub struct Subscriber(Arc<Handle>);

struct Handle {
    raw: *mut sys::Subscriber,
    topic: Topic,
}

// SAFETY: shm.h: handles may be used from several threads at once. `raw` is closed once, by `Drop`, when no clone and no
// frame (which hold the `Arc`) can call any more.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: live until here; the last owner drops it.
        unsafe { sys::fg_subscriber_close(self.raw) }
    }
}

impl Subscriber {
    /// Opens an existing topic for reading.
    ///
    /// # Errors
    ///
    /// `is_topic_not_found`, `is_segment_incompatible`, `is_participants_full`, `is_groups_full`, `is_invalid_argument`, ...
    pub fn open(name: &str, options: &SubscriberOptions<'_>) -> Result<Self, Error> {
        let topic = Topic::open(name)?;
        let mut raw_options = MaybeUninit::<sys::SubscriberOptions>::uninit();
        // SAFETY: the library writes every field.
        let mut raw_options = unsafe {
            sys::fg_subscriber_options_init(raw_options.as_mut_ptr());
            raw_options.assume_init()
        };
        raw_options.policy = match options.policy {
            Policy::Latest => 1,
            Policy::Queue => 2,
            Policy::Reliable => 3,
            Policy::Group(group) => {
                raw_options.group = group.as_ptr().cast();
                raw_options.group_bytes = u32::try_from(group.len()).unwrap_or(u32::MAX);
                4
            }
        };
        raw_options.start = match options.start {
            Start::Default => 0,
            Start::Next => 1,
            Start::Newest => 2,
        };
        raw_options.leases_max = options.leases_max;
        // What does not fit is over the limit as well.
        raw_options.spin_ns = u32::try_from(options.spin.as_nanos()).unwrap_or(u32::MAX);
        raw_options.name = options.name.as_ptr().cast();
        raw_options.name_bytes = u32::try_from(options.name.len()).unwrap_or(u32::MAX);
        let mut raw = ptr::null_mut();
        // SAFETY: the topic is live, the options point to a live string, a place for the handle.
        check(unsafe {
            sys::fg_subscriber_open(topic.as_ptr(), &raw const raw_options, &raw mut raw)
        })?;
        Ok(Self(Arc::new(Handle { raw, topic })))
    }

    /// What is said about the topic and its arrays, as it is now.
    ///
    /// # Errors
    ///
    /// `is_segment_corrupt` if somebody else wrote nonsense there, `is_forked`, `is_poisoned`.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        Metadata::read(&self.0.topic)
    }

    /// Grows with every append to the metadata; one load, to see whether there is something new.
    pub fn metadata_generation(&self) -> u32 {
        metadata::generation(&self.0.topic)
    }

    /// Adds to the metadata of the topic, for every process that has it open; returns the new generation.
    ///
    /// # Errors
    ///
    /// `is_metadata_full`, `is_invalid_argument`, `is_timeout` if a process was stopped while it appended.
    pub fn append_metadata(&self, values: &[(&str, Value<'_>)]) -> Result<u32, Error> {
        metadata::append(&self.0.topic, values)
    }

    /// What the topic is like.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn info(&self) -> Result<TopicInfo, Error> {
        self.0.topic.info()
    }

    /// Takes a frame by the policy; waits up to the time-out for one (`Duration::MAX`: for ever). `None`: there was none.
    ///
    /// # Errors
    ///
    /// `is_lease_quota`, `is_interrupted`, `is_moved`, `is_poisoned`, `is_forked`, `is_segment_corrupt`.
    pub fn take(&self, timeout: Duration) -> Result<Option<Frame>, Error> {
        // SAFETY: the handle is live; a place for the frame.
        self.frame(|out| unsafe { sys::fg_subscriber_take(self.0.raw, timeout_ns(timeout), out) })
    }

    /// The newest frame, seen or not; the position stays where it is.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take); `is_unsupported` for members of a group.
    pub fn peek(&self) -> Result<Option<Frame>, Error> {
        // SAFETY: the handle is live; a place for the frame.
        self.frame(|out| unsafe { sys::fg_subscriber_peek(self.0.raw, out) })
    }

    fn frame(
        &self,
        take: impl FnOnce(*mut sys::Frame) -> sys::Status,
    ) -> Result<Option<Frame>, Error> {
        let mut raw = MaybeUninit::uninit();
        let status = take(raw.as_mut_ptr());
        if matches!(Kind::from_status(status), Kind::Empty | Kind::Timeout) {
            return Ok(None);
        }
        check(status)?;
        // SAFETY: written on success.
        let raw = unsafe { raw.assume_init() };
        Ok(Some(Frame {
            raw,
            handle: Arc::clone(&self.0),
        }))
    }

    /// Sleeps until there is an unseen frame. `false`: the time-out passed.
    ///
    /// # Errors
    ///
    /// `is_interrupted`, `is_moved`, `is_poisoned`, `is_forked`.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        // SAFETY: the handle is live.
        let status = unsafe { sys::fg_subscriber_wait(self.0.raw, timeout_ns(timeout)) };
        if Kind::from_status(status) == Kind::Timeout {
            return Ok(false);
        }
        check(status)?;
        Ok(true)
    }

    /// The fd for event loops: readable when something may have happened after [`arm`](Self::arm). It belongs to the
    /// subscriber; neither read nor close it. The cycle: `drain`; `take` until `None`; `arm`; if that returns `true`
    /// take again, else wait for readability.
    ///
    /// # Errors
    ///
    /// `is_system` if the process has no descriptor left, `is_poisoned`, `is_forked`.
    pub fn event_fd(&self) -> Result<c_int, Error> {
        let mut fd = -1;
        // SAFETY: the handle is live; a place for the number.
        check(unsafe { sys::fg_subscriber_event_fd(self.0.raw, &raw mut fd) })?;
        Ok(fd)
    }

    /// Asks for readability at the next unseen frame. `true`: there is one already.
    ///
    /// # Errors
    ///
    /// `is_invalid_argument` before [`event_fd`](Self::event_fd), `is_moved`, `is_poisoned`, `is_forked`.
    pub fn arm(&self) -> Result<bool, Error> {
        let mut ready = 0;
        // SAFETY: the handle is live; a place for the answer.
        check(unsafe { sys::fg_subscriber_arm(self.0.raw, &raw mut ready) })?;
        Ok(ready != 0)
    }

    /// Makes the fd unreadable again; about once a second it also looks after participants that died.
    ///
    /// # Errors
    ///
    /// `is_poisoned`, `is_forked`.
    pub fn drain(&self) -> Result<(), Error> {
        // SAFETY: the handle is live.
        check(unsafe { sys::fg_subscriber_drain(self.0.raw) })
    }

    /// Sends a small message (192 bytes at most) to every publisher of the topic; never waits. How many got it.
    ///
    /// # Errors
    ///
    /// `is_mailbox_full` if a publisher does not read its messages (the others have it), `is_invalid_argument`,
    /// `is_unsupported` if the topic was created without mailboxes, `is_poisoned`, `is_forked`.
    pub fn send_control(&self, kind: u32, data: &[u8]) -> Result<u32, Error> {
        let mut reached = 0;
        // A length over a u32 is over the limit as well.
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        // SAFETY: the handle is live; pointer and length of a live slice; a place for the count.
        check(unsafe {
            sys::fg_subscriber_send_control(
                self.0.raw,
                kind,
                data.as_ptr().cast(),
                bytes,
                &raw mut reached,
            )
        })?;
        Ok(reached)
    }

    /// Frames lost so far: overwritten before they were taken, or jumped over by `Policy::Latest`.
    ///
    /// # Errors
    ///
    /// `is_poisoned`, `is_forked`.
    pub fn lost(&self) -> Result<u64, Error> {
        Ok(self.stats()?.lost)
    }

    /// Frames that a take refused because their checksum was wrong.
    ///
    /// # Errors
    ///
    /// As `lost`.
    pub fn corrupt(&self) -> Result<u64, Error> {
        Ok(self.stats()?.corrupt)
    }

    fn stats(&self) -> Result<sys::SubscriberStats, Error> {
        let mut stats = sys::SubscriberStats {
            struct_bytes: size_of::<sys::SubscriberStats>() as u32,
            ..sys::SubscriberStats::default()
        };
        // SAFETY: the handle is live; a place of the right type.
        check(unsafe { sys::fg_subscriber_get_stats(self.0.raw, &raw mut stats) })?;
        Ok(stats)
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Subscriber").finish_non_exhaustive()
    }
}

/// A frame, readable in place until it is dropped. It derefs to its bytes.
pub struct Frame {
    raw: sys::Frame,
    handle: Arc<Handle>,
}

// SAFETY: read-only memory under a lease that may end on any thread.
unsafe impl Send for Frame {}
// SAFETY: as above.
unsafe impl Sync for Frame {}

impl Frame {
    /// Its number, 1 upwards.
    pub fn sequence(&self) -> u64 {
        self.raw.sequence
    }

    /// When it was published, by `CLOCK_MONOTONIC` of this machine.
    pub fn published_ns(&self) -> u64 {
        self.raw.published_ns
    }

    /// The application's own time in seconds.
    pub fn timestamp_s(&self) -> Option<f64> {
        Some(self.raw.timestamp_s).filter(|time| !time.is_nan())
    }

    /// Frames lost just before this one.
    pub fn lost(&self) -> u64 {
        self.raw.lost
    }

    /// Whether another member of the group had it before and did not finish it.
    pub fn redelivered(&self) -> bool {
        self.raw.redelivered != 0
    }

    /// Gives the frame back to its group unfinished: some member, maybe this one, takes it again. Dropping a frame says
    /// that it is done.
    ///
    /// # Errors
    ///
    /// `is_invalid_argument` if the subscriber is no member of a group, `is_lease_lost`.
    pub fn nack(mut self) -> Result<(), Error> {
        // SAFETY: handle and frame are live; afterwards the lease has ended and `Drop` does nothing, or it has not and
        // `Drop` ends it.
        check(unsafe { sys::fg_subscriber_nack(self.handle.raw, &raw mut self.raw) })
    }

    /// Content type, as the publisher wrote it.
    pub fn content_type(&self) -> Option<&[u8]> {
        (self.raw.content_type_bytes != 0).then(|| {
            // SAFETY: the library checked the length; read-only and unchanged while the lease lives.
            unsafe {
                std::slice::from_raw_parts(
                    self.raw.content_type.cast(),
                    self.raw.content_type_bytes as usize,
                )
            }
        })
    }

    /// The publisher's own small data, as the map that it should be.
    ///
    /// # Errors
    ///
    /// `is_invalid_argument` if the publisher put something else there.
    pub fn metadata(&self) -> Result<Vec<(&str, Value<'_>)>, Error> {
        decode_values(self.user_metadata())
    }

    /// The bytes of the publisher's own small data.
    pub fn user_metadata(&self) -> &[u8] {
        if self.raw.user_metadata_bytes == 0 {
            return &[];
        }
        // SAFETY: as in `content_type`.
        unsafe {
            std::slice::from_raw_parts(
                self.raw.user_metadata.cast(),
                self.raw.user_metadata_bytes as usize,
            )
        }
    }

    /// Its arrays; empty: raw bytes.
    ///
    /// # Errors
    ///
    /// `is_segment_corrupt` if a descriptor makes no sense.
    pub fn arrays(&self) -> Result<Vec<Array>, Error> {
        let mut arrays = vec![Array::new("", Dtype::Bool, &[]); self.raw.array_count as usize];
        // SAFETY: handle and frame are live; `Array` is a transparent `sys::Array`; NULL for `count` is allowed.
        check(unsafe {
            sys::fg_subscriber_arrays(
                self.handle.raw,
                &raw const self.raw,
                arrays.as_mut_ptr().cast(),
                arrays.len(),
                ptr::null_mut(),
            )
        })?;
        Ok(arrays)
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the library checked the length against the slot; the mapping is read-only and outlives the lease; the
        // bytes do not change under it, provided that publishers keep to the protocol (see the crate's "Trust").
        unsafe { std::slice::from_raw_parts(self.raw.data.cast(), self.raw.bytes as usize) }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: handle and frame are live. An error means that the lease had ended already.
        unsafe {
            sys::fg_subscriber_release(self.handle.raw, &raw mut self.raw);
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Frame")
            .field("sequence", &self.raw.sequence)
            .field("bytes", &self.raw.bytes)
            .finish_non_exhaustive()
    }
}
