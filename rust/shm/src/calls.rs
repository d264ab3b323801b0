//! Calls: a request and its reply, each in a slot that is handed over.
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
use crate::publisher::FrameMeta;
use crate::sys;
use crate::topic::{Topic, TopicInfo, TopicOptions, timeout_ns};
use crate::values::{Value, decode_values};

struct CallerHandle {
    raw: *mut sys::Caller,
    topic: Topic,
}

// SAFETY: shm.h: handles may be used from several threads at once. `raw` is closed once, by `Drop`, when nothing that
// holds the `Arc` can call any more.
unsafe impl Send for CallerHandle {}
// SAFETY: as above.
unsafe impl Sync for CallerHandle {}

impl Drop for CallerHandle {
    fn drop(&mut self) {
        // SAFETY: live until here; the last owner drops it.
        unsafe { sys::fg_caller_close(self.raw) }
    }
}

struct ResponderHandle {
    raw: *mut sys::Responder,
    _topic: Topic,
}

// SAFETY: as for `CallerHandle`.
unsafe impl Send for ResponderHandle {}
// SAFETY: as above.
unsafe impl Sync for ResponderHandle {}

impl Drop for ResponderHandle {
    fn drop(&mut self) {
        // SAFETY: live until here; the last owner drops it.
        unsafe { sys::fg_responder_close(self.raw) }
    }
}

/// A slot on its way into a message; goes back unless it was posted.
struct Slot {
    publisher: *mut sys::Publisher,
    raw: sys::Loan,
}

impl Slot {
    /// The handle behind `publisher` is live, and outlives the slot.
    fn loan(
        publisher: *mut sys::Publisher,
        bytes: usize,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the handle behind `publisher` is live; a place for the loan.
        check(unsafe {
            sys::fg_publisher_loan(
                publisher,
                bytes as u64,
                timeout_ns(timeout),
                raw.as_mut_ptr(),
            )
        })?;
        Ok(Self {
            publisher,
            // SAFETY: written on success.
            raw: unsafe { raw.assume_init() },
        })
    }

    /// The first `bytes` of the slot, which are at most as many as were loaned.
    fn bytes_mut(&mut self, bytes: usize) -> &mut [u8] {
        // SAFETY: `capacity >= bytes` writable bytes of a mapped file that nobody else touches until the loan ends.
        unsafe { std::slice::from_raw_parts_mut(self.raw.data.cast(), bytes) }
    }

    /// The same, shared.
    fn bytes(&self, bytes: usize) -> &[u8] {
        // SAFETY: as above; whoever writes has `&mut self`.
        unsafe { std::slice::from_raw_parts(self.raw.data.cast(), bytes) }
    }

    fn fill(
        publisher: *mut sys::Publisher,
        bytes: usize,
        timeout: Duration,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Self, Error> {
        let mut slot = Self::loan(publisher, bytes, timeout)?;
        fill(slot.bytes_mut(bytes));
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: handle and loan are live; a posted loan has `data == NULL`, which abandon ignores.
        unsafe {
            sys::fg_publisher_abandon(self.publisher, &raw mut self.raw);
        }
    }
}

/// One participant that asks. Cheap to clone; may be used from several threads.
#[derive(Clone)]
pub struct Caller(Arc<CallerHandle>);

impl Caller {
    /// Opens an existing topic for calls.
    ///
    /// # Errors
    ///
    /// `is_topic_not_found`, `is_participants_full`, `is_unsupported` if the topic has no mailboxes, ...
    pub fn open(name: &str) -> Result<Self, Error> {
        let topic = Topic::open(name)?;
        let mut options = MaybeUninit::uninit();
        let mut raw = ptr::null_mut();
        // SAFETY: the library writes every option; the topic is live; a place for the handle.
        check(unsafe {
            sys::fg_caller_options_init(options.as_mut_ptr());
            sys::fg_caller_open(topic.as_ptr(), options.as_ptr(), &raw mut raw)
        })?;
        Ok(Self(Arc::new(CallerHandle { raw, topic })))
    }

    /// What the topic is like.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn info(&self) -> Result<TopicInfo, Error> {
        self.0.topic.info()
    }

    /// Asks with `data` and waits for the reply, up to the time-out (`Duration::MAX`: for ever).
    ///
    /// # Errors
    ///
    /// `is_no_responder`, `is_mailbox_full`, `is_responder_died`, `is_call_failed` (the text is the responder's),
    /// `is_timeout`, `is_topic_full`, `is_calls_exhausted`, `is_frame_too_large`, ...
    pub fn call(
        &self,
        data: &[u8],
        meta: &FrameMeta<'_>,
        timeout: Duration,
    ) -> Result<Message, Error> {
        let mut call = self.start(data.len(), meta, timeout, |slot| slot.copy_from_slice(data))?;
        loop {
            match call.wait(Duration::MAX) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(error) if error.is_interrupted() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Posts a request of `bytes` bytes, written in place by `fill`, to the responder that has the least to do.
    /// Waits for a slot, at most as long as the call may take.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), without those of the answer.
    pub fn start(
        &self,
        bytes: usize,
        meta: &FrameMeta<'_>,
        timeout: Duration,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Call, Error> {
        let mut loan = self.loan(bytes, timeout)?;
        fill(loan.as_mut_slice());
        loan.post(meta, timeout)
    }

    /// Loans a slot for a request of at most `bytes` bytes; waits up to the time-out for one.
    ///
    /// # Errors
    ///
    /// `is_topic_full`, `is_frame_too_large`, `is_interrupted`, `is_moved`, `is_poisoned`, `is_forked`.
    pub fn loan(&self, bytes: usize, timeout: Duration) -> Result<RequestLoan, Error> {
        // SAFETY: the handle is live.
        let publisher = unsafe { sys::fg_caller_loans(self.0.raw) };
        Ok(RequestLoan {
            slot: Slot::loan(publisher, bytes, timeout)?,
            bytes,
            caller: Arc::clone(&self.0),
        })
    }

    /// The fd for event loops; its cycle as for [`Subscriber::event_fd`](crate::Subscriber::event_fd), with
    /// [`Call::wait`] of zero for each call instead of `take`.
    ///
    /// # Errors
    ///
    /// `is_system` if the process has no descriptor left, `is_poisoned`, `is_forked`.
    pub fn event_fd(&self) -> Result<c_int, Error> {
        let mut fd = -1;
        // SAFETY: the handle is live; a place for the number.
        check(unsafe { sys::fg_caller_event_fd(self.0.raw, &raw mut fd) })?;
        Ok(fd)
    }

    /// Asks for readability at the next answer. `true`: there is one already.
    ///
    /// # Errors
    ///
    /// `is_invalid_argument` before [`event_fd`](Self::event_fd), `is_poisoned`, `is_forked`.
    pub fn arm(&self) -> Result<bool, Error> {
        let mut ready = 0;
        // SAFETY: the handle is live; a place for the answer.
        check(unsafe { sys::fg_caller_arm(self.0.raw, &raw mut ready) })?;
        Ok(ready != 0)
    }

    /// Makes the fd unreadable again; about once a second it also looks after participants that died.
    ///
    /// # Errors
    ///
    /// `is_poisoned`, `is_forked`.
    pub fn drain(&self) -> Result<(), Error> {
        // SAFETY: the handle is live.
        check(unsafe { sys::fg_caller_drain(self.0.raw) })
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// A slot for a request that is not posted yet. Dropping it gives the slot back.
pub struct RequestLoan {
    /// Dropped before the handle that it needs for that.
    slot: Slot,
    bytes: usize,
    caller: Arc<CallerHandle>,
}

impl RequestLoan {
    /// The slot's memory, as many bytes as were loaned. It holds whatever was there before.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.slot.bytes_mut(self.bytes)
    }

    /// The same, to be read.
    pub fn as_slice(&self) -> &[u8] {
        self.slot.bytes(self.bytes)
    }

    /// Posts the request to the responder that has the least to do. The time-out of the call begins now.
    ///
    /// # Errors
    ///
    /// `is_no_responder`, `is_mailbox_full`, `is_calls_exhausted`, `is_responder_died`, `is_frame_too_large`,
    /// `is_invalid_argument`, ...; the slot is given back.
    pub fn post(mut self, meta: &FrameMeta<'_>, timeout: Duration) -> Result<Call, Error> {
        let bytes = meta.bytes.unwrap_or(self.bytes);
        if bytes > self.bytes {
            return Err(Error::longer_than_loan(bytes, self.bytes));
        }
        let info = meta.info(bytes);
        let mut number = 0;
        // SAFETY: handle and loan are live; `info` points into `meta`; a place for the number.
        check(unsafe {
            sys::fg_caller_call(
                self.caller.raw,
                &raw mut self.slot.raw,
                &raw const info,
                timeout_ns(timeout),
                &raw mut number,
            )
        })?;
        Ok(Call {
            caller: Arc::clone(&self.caller),
            number,
            is_over: false,
        })
    }
}

impl fmt::Debug for RequestLoan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RequestLoan")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// A call in flight. Dropping it takes the request back, or throws the answer away when it comes.
pub struct Call {
    caller: Arc<CallerHandle>,
    number: u64,
    /// It has its reply: nothing is left to cancel, which would look through all calls for it.
    is_over: bool,
}

impl Call {
    /// Waits for the reply, at most that long. `None`: not yet, the call goes on.
    ///
    /// # Errors
    ///
    /// `is_responder_died`, `is_call_failed`, `is_timeout` (of the call) and others end the call; `is_interrupted` does
    /// not.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Message>, Error> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the handle is live; a place for the reply.
        let status = unsafe {
            sys::fg_caller_wait(
                self.caller.raw,
                self.number,
                timeout_ns(timeout),
                raw.as_mut_ptr(),
            )
        };
        if Kind::from_status(status) == Kind::Empty {
            return Ok(None);
        }
        check(status)?;
        self.is_over = true;
        Ok(Some(Message {
            // SAFETY: written on success.
            raw: unsafe { raw.assume_init() },
            owner: Owner::Caller(Arc::clone(&self.caller)),
        }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // SAFETY: the handle is live; harmless for a call that ended.
        unsafe {
            sys::fg_caller_cancel(self.caller.raw, self.number);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Call")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

enum Owner {
    Caller(Arc<CallerHandle>),
    Responder(Arc<ResponderHandle>),
}

/// A request or a reply, readable in place until it is dropped. It derefs to its bytes.
pub struct Message {
    raw: sys::Frame,
    owner: Owner,
}

// SAFETY: read-only memory under a lease that may end on any thread.
unsafe impl Send for Message {}
// SAFETY: as above.
unsafe impl Sync for Message {}

impl Message {
    /// The sender's own time in seconds.
    pub fn timestamp_s(&self) -> Option<f64> {
        Some(self.raw.timestamp_s).filter(|time| !time.is_nan())
    }

    /// Content type, as the sender wrote it.
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

    /// The sender's own small data, as the map that it should be.
    ///
    /// # Errors
    ///
    /// `is_invalid_argument` if the sender put something else there.
    pub fn metadata(&self) -> Result<Vec<(&str, Value<'_>)>, Error> {
        if self.raw.user_metadata_bytes == 0 {
            return decode_values(&[]);
        }
        // SAFETY: as in `content_type`.
        decode_values(unsafe {
            std::slice::from_raw_parts(
                self.raw.user_metadata.cast(),
                self.raw.user_metadata_bytes as usize,
            )
        })
    }

    /// Its arrays; empty: raw bytes.
    ///
    /// # Errors
    ///
    /// `is_segment_corrupt` if a descriptor makes no sense.
    pub fn arrays(&self) -> Result<Vec<Array>, Error> {
        let mut arrays = vec![Array::new("", Dtype::Bool, &[]); self.raw.array_count as usize];
        let (frame, out, count) = (
            &raw const self.raw,
            arrays.as_mut_ptr().cast(),
            arrays.len(),
        );
        // SAFETY: handle and message are live; `Array` is a transparent `sys::Array`; NULL for `count` is allowed.
        check(unsafe {
            match &self.owner {
                Owner::Caller(handle) => {
                    sys::fg_caller_arrays(handle.raw, frame, out, count, ptr::null_mut())
                }
                Owner::Responder(handle) => {
                    sys::fg_responder_arrays(handle.raw, frame, out, count, ptr::null_mut())
                }
            }
        })?;
        Ok(arrays)
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the library checked the length against the slot; the mapping is read-only and outlives the lease; the
        // bytes do not change under it, provided that senders keep to the protocol (see the crate's "Trust").
        unsafe { std::slice::from_raw_parts(self.raw.data.cast(), self.raw.bytes as usize) }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: handle and lease are live. An error means that the lease had ended already.
        unsafe {
            match &self.owner {
                Owner::Caller(handle) => sys::fg_caller_release(handle.raw, &raw mut self.raw),
                Owner::Responder(handle) => {
                    sys::fg_responder_release(handle.raw, &raw mut self.raw)
                }
            };
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("bytes", &self.raw.bytes)
            .finish_non_exhaustive()
    }
}

/// One participant that answers. Cheap to clone; may be used from several threads.
#[derive(Clone)]
pub struct Responder(Arc<ResponderHandle>);

impl Responder {
    /// Opens the topic, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Publisher::create_or_open`](crate::Publisher::create_or_open), and `is_unsupported` if the topic has no
    /// mailboxes.
    pub fn create_or_open(name: &str, options: &TopicOptions) -> Result<Self, Error> {
        let topic = Topic::create_or_open(name, options)?;
        let mut options = MaybeUninit::uninit();
        let mut raw = ptr::null_mut();
        // SAFETY: the library writes every option; the topic is live; a place for the handle.
        check(unsafe {
            sys::fg_responder_options_init(options.as_mut_ptr());
            sys::fg_responder_open(topic.as_ptr(), options.as_ptr(), &raw mut raw)
        })?;
        Ok(Self(Arc::new(ResponderHandle { raw, _topic: topic })))
    }

    /// Takes a request, waiting up to the time-out for one (`Duration::MAX`: for ever). `None`: there was none.
    ///
    /// # Errors
    ///
    /// `is_lease_quota` if too many wait for their answers, `is_interrupted`, `is_poisoned`, `is_forked`.
    pub fn take(&self, timeout: Duration) -> Result<Option<Request>, Error> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the handle is live; a place for the request.
        let status =
            unsafe { sys::fg_responder_take(self.0.raw, timeout_ns(timeout), raw.as_mut_ptr()) };
        if matches!(Kind::from_status(status), Kind::Empty | Kind::Timeout) {
            return Ok(None);
        }
        check(status)?;
        // SAFETY: written on success.
        let raw: sys::Request = unsafe { raw.assume_init() };
        let mut duty = raw;
        // The lease goes to the message, the duty to answer stays here.
        let frame = std::mem::replace(&mut duty.frame, sys::Frame::ended());
        Ok(Some(Request {
            message: Message {
                raw: frame,
                owner: Owner::Responder(Arc::clone(&self.0)),
            },
            duty,
            handle: Arc::clone(&self.0),
        }))
    }

    /// The fd for event loops; its cycle as for [`Subscriber::event_fd`](crate::Subscriber::event_fd).
    ///
    /// # Errors
    ///
    /// `is_system` if the process has no descriptor left, `is_poisoned`, `is_forked`.
    pub fn event_fd(&self) -> Result<c_int, Error> {
        let mut fd = -1;
        // SAFETY: the handle is live; a place for the number.
        check(unsafe { sys::fg_responder_event_fd(self.0.raw, &raw mut fd) })?;
        Ok(fd)
    }

    /// Asks for readability at the next request. `true`: there is one already.
    ///
    /// # Errors
    ///
    /// `is_invalid_argument` before [`event_fd`](Self::event_fd), `is_poisoned`, `is_forked`.
    pub fn arm(&self) -> Result<bool, Error> {
        let mut ready = 0;
        // SAFETY: the handle is live; a place for the answer.
        check(unsafe { sys::fg_responder_arm(self.0.raw, &raw mut ready) })?;
        Ok(ready != 0)
    }

    /// Makes the fd unreadable again; about once a second it also looks after participants that died.
    ///
    /// # Errors
    ///
    /// `is_poisoned`, `is_forked`.
    pub fn drain(&self) -> Result<(), Error> {
        // SAFETY: the handle is live.
        check(unsafe { sys::fg_responder_drain(self.0.raw) })
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// A request that waits for its answer. Dropping it without one fails the call. It derefs to its message.
pub struct Request {
    message: Message,
    duty: sys::Request,
    handle: Arc<ResponderHandle>,
}

// SAFETY: plain numbers and an ended frame beside a message that may move; shm.h allows any thread to answer.
unsafe impl Send for Request {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Request {}

impl Request {
    /// Row of the caller in the topic.
    pub fn caller(&self) -> u32 {
        self.duty.caller
    }

    /// Answers with `data`, waiting up to the time-out for a slot.
    ///
    /// # Errors
    ///
    /// `is_caller_gone` if nobody waits any more, `is_topic_full`, `is_mailbox_full`, `is_frame_too_large`, ...: the
    /// call then fails, unless it was told to `fail` with a reason before.
    pub fn reply(
        mut self,
        data: &[u8],
        meta: &FrameMeta<'_>,
        timeout: Duration,
    ) -> Result<(), Error> {
        // SAFETY: the handle is live.
        let publisher = unsafe { sys::fg_responder_loans(self.handle.raw) };
        let mut slot = Slot::fill(publisher, data.len(), timeout, |slot| {
            slot.copy_from_slice(data);
        })?;
        let info = meta.info(meta.bytes.unwrap_or(data.len()).min(data.len()));
        // SAFETY: handle, request and loan are live; `info` points into `meta`.
        check(unsafe {
            sys::fg_responder_reply(
                self.handle.raw,
                &raw mut self.duty,
                &raw mut slot.raw,
                &raw const info,
            )
        })
    }

    /// Answers that it failed, with a text of at most 192 bytes.
    ///
    /// # Errors
    ///
    /// `is_caller_gone`, `is_mailbox_full`, `is_poisoned`, `is_forked`.
    pub fn fail(mut self, text: &str) -> Result<(), Error> {
        // SAFETY: handle and request are live; pointer and length of a live string.
        check(unsafe {
            sys::fg_responder_fail(
                self.handle.raw,
                &raw mut self.duty,
                text.as_ptr().cast(),
                text.len(),
            )
        })
    }
}

impl Deref for Request {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: the handle is live; an answered request has no number, which drop ignores.
        unsafe { sys::fg_responder_drop(self.handle.raw, &raw mut self.duty) }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Request")
            .field("caller", &self.duty.caller)
            .field("bytes", &self.message.raw.bytes)
            .finish_non_exhaustive()
    }
}
