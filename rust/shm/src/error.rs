//! One opaque error; what happened is asked by `is_*`, what to tell a person is its `Display`.

use std::ffi::CStr;
use std::fmt;

use crate::sys;

/// Why an operation on a topic failed.
///
/// Its text names the topic, the numbers involved and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    status: sys::Status,
    text: Box<str>,
}

macro_rules! kinds {
    ($($kind:ident = $number:literal, $question:ident, $doc:literal;)*) => {
        /// The status codes of `shm.h`, in its order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($kind = $number,)*
            /// A code that this version of the crate does not know.
            Unknown,
        }

        impl Kind {
            pub(crate) fn from_status(status: sys::Status) -> Self {
                match status {
                    $($number => Self::$kind,)*
                    _ => Self::Unknown,
                }
            }
        }

        impl Error {
            $(
                #[doc = $doc]
                pub fn $question(&self) -> bool {
                    self.kind() == Kind::$kind
                }
            )*
        }
    };
}

kinds! {
    InvalidArgument = 1, is_invalid_argument, "An argument or option is outside its limits.";
    BadTopicName = 2, is_bad_topic_name, "The topic name does not follow the grammar.";
    TopicNotFound = 3, is_topic_not_found, "There is no topic of this name.";
    TopicExists = 4, is_topic_exists, "A topic of this name exists already.";
    SegmentIncompatible = 5, is_segment_incompatible, "The segment was made by another layout version or kind of machine.";
    SegmentCorrupt = 6, is_segment_corrupt, "The segment contradicts itself.";
    NoSpace = 7, is_no_space, "The file system of the runtime directory is too full.";
    PermissionDenied = 8, is_permission_denied, "The operating system refused access.";
    RuntimeDirectory = 9, is_runtime_directory, "The runtime directory is missing or not safe to use.";
    ParticipantsFull = 10, is_participants_full, "All participant rows of the topic are taken.";
    TopicFull = 11, is_topic_full, "No slot to loan, within the time-out.";
    Empty = 12, is_empty, "No unseen frame.";
    Timeout = 13, is_timeout, "The time-out passed.";
    Interrupted = 14, is_interrupted, "A signal handler ran while waiting.";
    FrameTooLarge = 15, is_frame_too_large, "The frame is larger than a slot.";
    LeaseQuota = 16, is_lease_quota, "The subscriber holds as many frames as it may.";
    LeaseLost = 17, is_lease_lost, "The lease was taken away: its bytes may have been overwritten.";
    LoanLost = 18, is_loan_lost, "The loan was taken away: nothing was published.";
    SchemaMismatch = 19, is_schema_mismatch, "The frame or the request contradicts the topic's schema.";
    Forked = 20, is_forked, "The handle was opened before a fork.";
    Poisoned = 21, is_poisoned, "The process lost the lock that shows it is alive.";
    Closed = 22, is_closed, "The handle was closed.";
    Moved = 23, is_moved, "The topic was sealed and goes on in a new generation.";
    SequenceExhausted = 24, is_sequence_exhausted, "The topic used up its sequence numbers.";
    Unsupported = 25, is_unsupported, "This version of the library does not do that.";
    OutOfMemory = 26, is_out_of_memory, "The process has no memory left.";
    System = 27, is_system, "A system call failed.";
    ChecksumMismatch = 28, is_checksum_mismatch, "The bytes of the frame are not those that were published.";
    MetadataFull = 29, is_metadata_full, "The metadata area of the topic has no room for that.";
    GroupsFull = 30, is_groups_full, "All group rows of the topic are taken.";
    NoResponder = 31, is_no_responder, "Nobody answers calls on this topic.";
    ResponderDied = 32, is_responder_died, "The responder died or closed before it answered.";
    CallFailed = 33, is_call_failed, "The responder answered that it failed.";
    MailboxFull = 34, is_mailbox_full, "The mailbox of the addressee is full.";
    CallerGone = 35, is_caller_gone, "The caller died or closed before it was answered.";
    CallsExhausted = 36, is_calls_exhausted, "The caller has as many calls in flight as it may.";
}

impl Error {
    pub(crate) fn kind(&self) -> Kind {
        Kind::from_status(self.status)
    }

    /// The status code of `shm.h`.
    pub fn code(&self) -> i32 {
        self.status
    }

    pub(crate) fn longer_than_loan(bytes: usize, loaned: usize) -> Self {
        let text = format!(
            "a frame of {bytes} bytes was published from a loan of {loaned}: loan as many as you fill"
        );
        Self {
            status: Kind::FrameTooLarge as sys::Status,
            text: text.into(),
        }
    }

    /// Error of a call that just failed on this thread.
    #[expect(unsafe_code, reason = "reads the library's last-error text")]
    pub(crate) fn last(status: sys::Status) -> Self {
        let text = match Kind::from_status(status) {
            // Expected outcomes, for which the library writes no text.
            Kind::Empty => "no unseen frame".into(),
            Kind::Timeout => "the time-out passed".into(),
            _ => {
                // SAFETY: a zero-terminated string that stays valid until the next failing call on this thread; copied here.
                unsafe { CStr::from_ptr(sys::fg_last_error()) }
                    .to_string_lossy()
                    .into()
            }
        };
        Self { status, text }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Turns a status into a result.
pub(crate) fn check(status: sys::Status) -> Result<(), Error> {
    if status == sys::OK {
        Ok(())
    } else {
        Err(Error::last(status))
    }
}
