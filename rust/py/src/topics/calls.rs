//! Callers of topics, for `POST` to the prefix of calls: one per topic and loop, for all requests in flight.
//!
//! # Waiting
//! A caller has one descriptor. Each waiting request looks for its own reply, asks for readability and sleeps, by the cycle of shm.h:
//! whoever finds the replies of others on its way makes the library ring again, so that no reply is waited for in vain. The
//! descriptor also ticks about once a second, by which a responder's death is found.
//!
//! # Bounds
//! [`CALLERS_MAX`] topics are kept open by each thread; each caller has as many calls in flight as its mailbox has room for answers, and all of one
//! worker together have a bound of their own: over it, 503 before a byte of the body is read.

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use framegate_http::{
    ingest::{FrameSlot, IngestError, Published},
    topics::{
        BoardFuture, Code, FrameHead, Problem, Publisher,
        board::{Asking, Caller, Reply, Schema},
    },
};
use framegate_shm::{Call, FrameMeta, Message, RequestLoan};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::convert::{arrays_of, problem, reply_head};
use super::registry::Life;
use crate::{
    native::watched,
    os::{OwnedSocket, Watched, duplicate},
};

/// Topics that are kept open for calls; the one that was used least recently makes room.
const CALLERS_MAX: usize = 64;
/// When a client should try again that met a crowd.
const RETRY: Duration = Duration::from_secs(1);
/// Replies are late when the library says so, whose clock has not rounded: never before.
const ROUNDING: Duration = Duration::from_millis(1);

/// The callers of one loop, most recently used first.
pub(super) struct Callers {
    known: RefCell<Vec<(String, Rc<Asker>)>>,
    in_flight: InFlight,
    calls_max: usize,
}

/// Calls of one worker that are under way, on all its threads.
pub(super) type InFlight = Arc<AtomicUsize>;

/// Asks on one topic.
struct Asker {
    /// Before the caller, whose descriptor it duplicates.
    fd: Watched<OwnedSocket>,
    caller: framegate_shm::Caller,
    life: Life,
    slot_bytes: u64,
    in_flight: InFlight,
    calls_max: usize,
}

impl Callers {
    pub(super) fn new(calls_max: usize, in_flight: InFlight) -> Rc<Self> {
        Rc::new(Self {
            known: RefCell::default(),
            in_flight,
            calls_max,
        })
    }

    pub(super) fn clear(&self) {
        self.known.borrow_mut().clear();
    }

    /// The caller of a topic, opened if it is the first time.
    pub(super) async fn get(self: Rc<Self>, topic: String) -> Result<Rc<dyn Caller>, Problem> {
        if let Some(asker) = self.find(&topic) {
            return Ok(asker);
        }
        let name = topic.clone();
        // Files are opened.
        let opened = spawn_blocking(move || {
            let (caller, life) = Life::of(&name, || framegate_shm::Caller::open(&name))?;
            let fd = caller.event_fd().map_err(|error| problem(&error))?;
            let fd = duplicate(fd).map_err(|error| unavailable(&error))?;
            let info = caller.info().map_err(|error| problem(&error))?;
            Ok::<_, Problem>((caller, life, fd, info.slot_bytes))
        })
        .await;
        let (caller, life, fd, slot_bytes) = opened.map_err(|error| unavailable(&error))??;
        let fd = watched(fd).map_err(|error| unavailable(&error))?;
        let asker = Rc::new(Asker {
            fd,
            caller,
            life,
            slot_bytes,
            in_flight: self.in_flight.clone(),
            calls_max: self.calls_max,
        });
        // Another request may have opened it as well: one of the two goes, when its calls are over.
        let mut known = self.known.borrow_mut();
        known.retain(|(other, _)| *other != topic);
        known.insert(0, (topic, asker.clone()));
        known.truncate(CALLERS_MAX);
        Ok(asker)
    }

    fn find(&self, topic: &str) -> Option<Rc<Asker>> {
        let mut known = self.known.borrow_mut();
        let position = known.iter().position(|(other, _)| other == topic)?;
        if !known[position].1.life.goes_on() {
            // Removed, and perhaps created again.
            known.remove(position);
            return None;
        }
        known[..=position].rotate_right(1);
        Some(known[0].1.clone())
    }
}

fn unavailable(cause: &dyn fmt::Display) -> Problem {
    Problem::new(Code::Unavailable, "the topic cannot be used now").because(cause)
}

impl Caller for Asker {
    fn ask(self: Rc<Self>, timeout: Duration) -> Result<Asking, Problem> {
        let Some(place) = Place::take(&self.in_flight, self.calls_max) else {
            return Err(Problem::new(
                Code::CallsExhausted,
                "as many calls are in flight as there may be",
            )
            .retry_after(RETRY));
        };
        let posted = Rc::new(RefCell::new(None));
        Ok(Asking {
            request: Box::new(RequestOf {
                asker: self.clone(),
                timeout,
                posted: posted.clone(),
            }),
            reply: Box::pin(async move {
                let _place = place;
                let call = posted.take();
                let call = call.ok_or_else(|| unavailable(&"the request was not posted"))?;
                self.wait(call, Instant::now() + timeout + ROUNDING).await
            }),
        })
    }
}

/// One call of those in flight.
struct Place(InFlight);

impl Place {
    fn take(places: &InFlight, most: usize) -> Option<Self> {
        // Relaxed: a count that guards nothing; each sees its own number.
        let taken = places.fetch_add(1, Ordering::Relaxed);
        let place = Self(places.clone());
        (taken < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Asker {
    /// Waits for the reply. Dropped, it drops the call.
    async fn wait(&self, mut call: Call, deadline: Instant) -> Result<Reply, Problem> {
        loop {
            // Arm, which also looks for letters: what came before has made nothing readable. Only then
            // look for our own: right after it was posted no call is answered.
            if !self.caller.arm().map_err(|error| problem(&error))? {
                // Late: the look says so.
                if let Ok(readable) = timeout_at(deadline, self.fd.readable()).await {
                    readable.map_err(|error| unavailable(&error))?;
                    self.caller.drain().map_err(|error| problem(&error))?;
                }
            }
            let found = call.wait(Duration::ZERO);
            if let Some(reply) = found.map_err(|error| problem(&error))? {
                return Ok(Reply {
                    head: reply_head(&reply),
                    payload: Bytes::from_owner(Payload(reply)),
                });
            }
        }
    }
}

/// A reply is held as long as its bytes are used.
struct Payload(Message);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The request of one call: it is published once, to one responder.
struct RequestOf {
    asker: Rc<Asker>,
    timeout: Duration,
    posted: Rc<RefCell<Option<Call>>>,
}

impl Publisher for RequestOf {
    fn slot_bytes(&self) -> u64 {
        self.asker.slot_bytes
    }

    fn schema(&self) -> &Schema {
        &Schema::Free
    }

    fn loan(&self, bytes: u64) -> Result<Box<dyn FrameSlot>, Problem> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let loan = self.asker.caller.loan(bytes, Duration::ZERO);
        Ok(Box::new(RequestSlot {
            loan: loan.map_err(|error| problem(&error))?,
            filled: 0,
            timeout: self.timeout,
            posted: self.posted.clone(),
        }))
    }
}

/// A request that is being filled.
struct RequestSlot {
    loan: RequestLoan,
    filled: usize,
    timeout: Duration,
    posted: Rc<RefCell<Option<Call>>>,
}

impl FrameSlot for RequestSlot {
    fn space(&mut self) -> &mut [u8] {
        &mut self.loan.as_mut_slice()[self.filled..]
    }

    fn filled(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    fn payload(&self) -> &[u8] {
        &self.loan.as_slice()[..self.filled]
    }

    fn publish(self: Box<Self>, head: &FrameHead) -> Result<Published, IngestError> {
        let bytes = self.filled as u64;
        let arrays = arrays_of(head);
        let meta = FrameMeta {
            bytes: Some(self.filled),
            timestamp_s: head.timestamp,
            arrays: arrays.as_slice(),
            content_type: head.content_type.as_deref(),
            ..FrameMeta::default()
        };
        let call = self
            .loan
            .post(&meta, self.timeout)
            .map_err(|error| IngestError::unavailable(problem(&error)))?;
        *self.posted.borrow_mut() = Some(call);
        Ok(Published { sequence: 0, bytes })
    }
}

/// The seam wants it boxed.
pub(super) fn caller(callers: &Rc<Callers>, topic: &str) -> BoardFuture<Rc<dyn Caller>> {
    Box::pin(callers.clone().get(topic.to_owned()))
}
