//! Publishing: loan a slot, fill it in place, publish it.
#![expect(unsafe_code, reason = "the whole file is calls into the library")]

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use crate::array::Array;
use crate::error::{Error, check};
use crate::metadata::{self, Metadata};
use crate::sys;
use crate::topic::{Topic, TopicInfo, TopicOptions, timeout_ns};
use crate::values::Value;

/// One participant that publishes on a topic. Cheap to clone: clones are the same participant.
///
/// May be used from several threads. Detaches when the last clone and the last loan are gone.
#[derive(Clone)]
pub struct Publisher(Arc<Handle>);

struct Handle {
    raw: *mut sys::Publisher,
    topic: Topic,
    slot_bytes: u64,
}

// SAFETY: shm.h: handles may be used from several threads at once. `raw` is closed once, by `Drop`, when no clone and no
// loan (which hold the `Arc`) can call any more.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: live until here; the last owner drops it.
        unsafe { sys::fg_publisher_close(self.raw) }
    }
}

impl Publisher {
    /// Opens the topic, or creates it if there is none; safe against other processes that do the same.
    ///
    /// # Errors
    ///
    /// `is_frame_too_large` if it exists with smaller slots, `is_schema_mismatch` if it exists with another schema,
    /// `is_no_space`, `is_participants_full`, `is_segment_incompatible`, `is_bad_topic_name`, ...
    pub fn create_or_open(name: &str, options: &TopicOptions) -> Result<Self, Error> {
        Self::attach(Topic::create_or_open(name, options)?)
    }

    /// Creates the topic.
    ///
    /// # Errors
    ///
    /// As `create_or_open`, and `is_topic_exists`.
    pub fn create(name: &str, options: &TopicOptions) -> Result<Self, Error> {
        Self::attach(Topic::create(name, options)?)
    }

    /// Opens an existing topic.
    ///
    /// # Errors
    ///
    /// `is_topic_not_found`, `is_segment_incompatible`, `is_participants_full`, ...
    pub fn open(name: &str) -> Result<Self, Error> {
        Self::attach(Topic::open(name)?)
    }

    fn attach(topic: Topic) -> Result<Self, Error> {
        let slot_bytes = topic.info()?.slot_bytes;
        let mut raw = ptr::null_mut();
        // SAFETY: the topic is live; NULL options are the defaults; a place for the handle.
        check(unsafe { sys::fg_publisher_open(topic.as_ptr(), ptr::null(), &raw mut raw) })?;
        Ok(Self(Arc::new(Handle {
            raw,
            topic,
            slot_bytes,
        })))
    }

    /// What the topic is like.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn info(&self) -> Result<TopicInfo, Error> {
        self.0.topic.info()
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

    /// The largest frame, as the topic is now: it may have been resized.
    pub fn slot_bytes(&self) -> u64 {
        let mut bytes = 0;
        // SAFETY: the handle is live; a place for the number.
        let status = unsafe { sys::fg_publisher_slot_bytes(self.0.raw, &raw mut bytes) };
        // A handle that cannot say it cannot loan either, and says why there.
        if status == sys::OK {
            bytes
        } else {
            self.0.slot_bytes
        }
    }

    /// Loans a slot for a frame of at most `bytes`; waits up to the time-out for one. `Duration::ZERO` never waits,
    /// `Duration::MAX` for ever.
    ///
    /// # Errors
    ///
    /// `is_topic_full` when the time-out passed, `is_frame_too_large`, `is_interrupted`, `is_moved`, `is_poisoned`,
    /// `is_forked`.
    pub fn loan(&self, bytes: usize, timeout: Duration) -> Result<Loan, Error> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the handle is live; a place for the loan.
        check(unsafe {
            sys::fg_publisher_loan(
                self.0.raw,
                bytes as u64,
                timeout_ns(timeout),
                raw.as_mut_ptr(),
            )
        })?;
        // SAFETY: written on success.
        let raw = unsafe { raw.assume_init() };
        Ok(Loan {
            raw,
            bytes,
            handle: Arc::clone(&self.0),
        })
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Publisher")
            .field("slot_bytes", &self.0.slot_bytes)
            .finish_non_exhaustive()
    }
}

/// The exclusive right to fill one slot. Dropping it gives the slot back unpublished, whatever happened.
///
/// It may move to another thread and be held across `.await`.
pub struct Loan {
    raw: sys::Loan,
    bytes: usize,
    handle: Arc<Handle>,
}

// SAFETY: the bytes belong to this loan alone, and shm.h allows a loan to end on any thread.
unsafe impl Send for Loan {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Loan {}

impl Loan {
    /// The slot's memory, as many bytes as were loaned. It holds whatever was there before.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the library gave us `capacity >= bytes` writable bytes that nobody else touches until the loan ends,
        // and `&mut self` makes this the only reference. Memory of a mapped file is always initialised.
        unsafe { std::slice::from_raw_parts_mut(self.raw.data.cast(), self.bytes) }
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: as above, shared.
        unsafe { std::slice::from_raw_parts(self.raw.data.cast(), self.bytes) }
    }

    /// Bytes that were loaned.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether no byte was loaned.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Publishes the frame and returns its sequence.
    ///
    /// # Errors
    ///
    /// `is_schema_mismatch`, `is_invalid_argument`, `is_frame_too_large`, `is_loan_lost`, ...; the slot is given back.
    pub fn publish(mut self, meta: &FrameMeta<'_>) -> Result<u64, Error> {
        let bytes = meta.bytes.unwrap_or(self.bytes);
        if bytes > self.bytes {
            return Err(Error::longer_than_loan(bytes, self.bytes));
        }
        let info = meta.info(bytes);
        let mut sequence = 0;
        // SAFETY: handle and loan are live; the pointers in `info` live as long as `meta`, that is, over the call.
        check(unsafe {
            sys::fg_publisher_publish(
                self.handle.raw,
                &raw mut self.raw,
                &raw const info,
                &raw mut sequence,
            )
        })?;
        Ok(sequence)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // SAFETY: handle and loan are live; a consumed loan has `data == NULL`, which abandon ignores. An error means
        // that the loan had ended already, which is what we want.
        unsafe {
            sys::fg_publisher_abandon(self.handle.raw, &raw mut self.raw);
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Loan")
            .field("slot", &self.raw.slot)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What travels with a frame beside its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameMeta<'a> {
    /// Payload bytes, if fewer than were loaned.
    pub bytes: Option<usize>,
    /// The application's own time in seconds.
    pub timestamp_s: Option<f64>,
    /// Arrays inside of the payload. Empty: raw bytes, or the topic's schema if it has one with fixed dimensions.
    pub arrays: &'a [Array],
    /// At most 64 bytes.
    pub content_type: Option<&'a str>,
    /// A map made by [`encode_values`](crate::encode_values), at most 1024 bytes; empty: none.
    pub user_metadata: &'a [u8],
}

impl FrameMeta<'_> {
    /// As the library wants it; points into `self`.
    pub(crate) fn info(&self, bytes: usize) -> sys::PublishInfo {
        let mut info = MaybeUninit::<sys::PublishInfo>::uninit();
        // SAFETY: the library writes every field.
        let mut info = unsafe {
            sys::fg_publish_info_init(info.as_mut_ptr());
            info.assume_init()
        };
        info.bytes = bytes as u64;
        info.timestamp_s = self.timestamp_s.unwrap_or(f64::NAN);
        // Lengths over a u32 are over every limit as well.
        info.array_count = u32::try_from(self.arrays.len()).unwrap_or(u32::MAX);
        info.arrays = self.arrays.as_ptr().cast();
        info.content_type = self
            .content_type
            .map_or(ptr::null(), |text| text.as_ptr().cast());
        info.content_type_bytes =
            u32::try_from(self.content_type.map_or(0, str::len)).unwrap_or(u32::MAX);
        info.user_metadata = self.user_metadata.as_ptr().cast();
        info.user_metadata_bytes = u32::try_from(self.user_metadata.len()).unwrap_or(u32::MAX);
        info
    }
}

/// A small message that a subscriber sent to the publishers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Row of the subscriber in the topic.
    pub sender: u32,
    /// The application's own.
    pub kind: u32,
    /// At most 192 bytes.
    pub data: Vec<u8>,
}

impl Publisher {
    /// Takes the control messages that came since the last time, oldest first; never waits.
    ///
    /// # Errors
    ///
    /// `is_unsupported` if the topic was created without mailboxes, `is_poisoned`, `is_forked`.
    pub fn controls(&self) -> Result<Vec<Control>, Error> {
        let mut controls = Vec::new();
        loop {
            let mut raw = MaybeUninit::<sys::Control>::uninit();
            let mut count = 0;
            // SAFETY: the handle is live; places for one message and the count.
            check(unsafe {
                sys::fg_publisher_controls(self.0.raw, raw.as_mut_ptr(), 1, &raw mut count)
            })?;
            if count == 0 {
                return Ok(controls);
            }
            // SAFETY: the library wrote one message.
            let raw = unsafe { raw.assume_init() };
            let bytes = (raw.bytes as usize).min(raw.data.len());
            controls.push(Control {
                sender: raw.sender,
                kind: raw.kind,
                data: raw.data[..bytes].to_vec(),
            });
        }
    }
}
