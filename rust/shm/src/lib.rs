//! Safe Rust over the C ABI (`cpp/include/framegate/shm.h`) of the shared-memory frame transport.
//!
//! A [`Publisher`] loans a slot, lets its caller fill it in place and publishes it as a frame; a [`Subscriber`] takes
//! frames and reads them in place. Nothing is copied on the way, also between processes.
//!
//! ```
//! use std::time::Duration;
//! use framegate_shm::{FrameMeta, Publisher, Subscriber, SubscriberOptions, TopicOptions, unlink};
//!
//! # let name = format!("doc/{}", std::process::id());
//! # let name = name.as_str();
//! let publisher = Publisher::create_or_open(name, &TopicOptions { slot_bytes: 4096, ..TopicOptions::default() })?;
//! let subscriber = Subscriber::open(name, &SubscriberOptions::default())?;
//!
//! let mut loan = publisher.loan(5, Duration::ZERO)?;
//! loan.as_mut_slice().copy_from_slice(b"hello");
//! let sequence = loan.publish(&FrameMeta::default())?;
//!
//! let frame = subscriber.take(Duration::ZERO)?.expect("just published");
//! assert_eq!((&frame[..], frame.sequence()), (&b"hello"[..], sequence));
//! # drop(frame);
//! # unlink(name)?;
//! # Ok::<(), framegate_shm::Error>(())
//! ```
//!
//! # Trust
//!
//! Whoever may open a topic can break its delivery, never memory safety of this crate: every index and length that
//! comes from shared memory is checked. One assumption remains, and it is what makes `&[u8]` possible: publishers (all
//! of them run under the same user) do not write to a slot after they published it. Code that parses the bytes of a
//! frame from a program it does not trust should copy them first.
//!
//! # Fork
//!
//! Handles opened before a `fork` are dead in the child (`Error::is_forked`), loans and frames must not be touched
//! there. Processes made by `std::process::Command` are fine.

mod array;
mod calls;
mod error;
mod inspector;
mod metadata;
mod publisher;
mod subscriber;
mod sys;
mod topic;
mod values;

pub use array::{Array, Dtype, lay_out};
pub use calls::{Call, Caller, Message, Request, RequestLoan, Responder};
pub use error::Error;
pub use inspector::{Inspector, Participant, TopicStats, TopicUse, topics};
pub use metadata::Metadata;
pub use publisher::{Control, FrameMeta, Loan, Publisher};
pub use subscriber::{Frame, Policy, Start, Subscriber, SubscriberOptions};
pub use topic::{
    Checksum, Garbage, TopicInfo, TopicOptions, check_topic_name, control_file, gc, resize,
    runtime_directory, unlink,
};
pub use values::{Value, decode_values, encode_values};
