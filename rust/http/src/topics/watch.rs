//! What all ways of watching a topic have in common: what a viewer asks for, how many there may be, and which frame comes next.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use tokio::time::{Instant, sleep_until};

use super::board::{Feed, Frame};
use super::problem::{Code, Problem};
use super::query::decimal;
use crate::body::{BodyStream, ResponseBody};
use crate::fanout::Parcel;
use crate::pictures::{Coding, Setting};
use crate::service::Response;

/// nginx would collect what is sent before it passes it on.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Most frames per second that a viewer may ask for; more than any camera makes.
const RATE_MAX: f64 = 1000.0;
/// Fewest: one in a thousand seconds.
const RATE_MIN: f64 = 0.001;

/// In which form a viewer gets frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Raw,
    /// As pictures.
    Picture(Setting),
}

impl Form {
    /// What `format` and the size of a query ask for; `usual` where no format is named.
    ///
    /// # Errors
    /// [`Code::Query`]
    pub(super) fn of(query: &str, usual: Option<Coding>) -> Result<Self, Problem> {
        let coding = match value(query, "format")? {
            None => usual,
            Some("raw") => None,
            Some(name) => Some(Coding::from_name(name).ok_or_else(|| {
                Problem::new(
                    Code::Query,
                    "format is given once, and is raw, jpeg, webp or png",
                )
            })?),
        };
        match coding {
            None => Ok(Self::Raw),
            Some(coding) => Setting::from_query(coding, query)
                .map(Self::Picture)
                .map_err(|error| Problem::new(Code::Query, error.to_string())),
        }
    }
}

/// The value of a parameter that may be there once.
pub(super) fn value<'a>(query: &'a str, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(found, _)| *found == name)
        .map(|(_, value)| value);
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Problem::new(Code::Query, format!("{name} is given once"))),
    }
}

/// How often a viewer wants frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval: Option<Duration>,
    due: Option<Instant>,
}

impl Pace {
    /// From the parameter `rate`: frames per second at most; all where it is not there.
    ///
    /// # Errors
    /// [`Code::Query`]
    pub(super) fn of(query: &str) -> Result<Self, Problem> {
        let interval = match value(query, "rate")? {
            None => None,
            Some(text) => {
                let rate = decimal(text).filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
                let rate = rate.ok_or_else(|| {
                    Problem::new(
                        Code::Query,
                        format!("rate is frames per second, from {RATE_MIN} to {RATE_MAX}"),
                    )
                })?;
                Some(Duration::from_secs_f64(1.0 / rate))
            }
        };
        Ok(Self {
            interval,
            due: None,
        })
    }

    /// Waits until the next frame may be sent, and counts it.
    async fn wait(self) -> Self {
        let Some(interval) = self.interval else {
            return self;
        };
        if let Some(due) = self.due {
            sleep_until(due).await;
        }
        // From the time that it was due on, or the rate would fall behind; but what was missed is not made up for.
        let now = Instant::now();
        let due = self.due.map_or(now, |due| due.max(now - interval)) + interval;
        Self {
            due: Some(due),
            ..self
        }
    }
}

/// A frame in the form that a viewer wants.
pub(super) struct Shot {
    /// What is said of the frame; if it is sent in another form, its payload is let go of.
    pub(super) frame: Frame,
    /// What is sent.
    pub(super) bytes: Bytes,
    /// Those are the frame's own.
    is_lent: bool,
}

impl Shot {
    /// What is to be sent, with what goes before and behind it.
    pub(super) fn parcel(&self, feed: &dyn Feed, before: Bytes, behind: Bytes) -> Arc<Parcel> {
        let sequence = self.is_lent.then_some(self.frame.sequence);
        parcel(feed, sequence, [before, self.bytes.clone(), behind])
    }
}

/// What is to be sent, in three pieces; the middle one is the frame's own if a sequence says which frame's.
pub(super) fn parcel(feed: &dyn Feed, lent: Option<u64>, pieces: [Bytes; 3]) -> Arc<Parcel> {
    let [before, bytes, behind] = pieces;
    let Some(sequence) = lent else {
        return Parcel::owned(before, bytes, behind);
    };
    let parcel = Parcel::lent(before, bytes, behind);
    feed.lends(sequence, &parcel);
    parcel
}

/// Whether these bytes are the frame's own: a picture of it may be, where it is one already.
pub(super) fn is_lent(frame: &Frame, bytes: &Bytes) -> bool {
    frame.payload.as_ptr_range().contains(&bytes.as_ptr())
}

/// A response that goes on while the topic does, whatever is in front of it; a request for its head gets that alone.
pub(super) fn endless(head: &Parts, content_type: HeaderValue, body: BodyStream) -> Response {
    let mut response = Response::new(if head.method == Method::HEAD {
        ResponseBody::Empty
    } else {
        ResponseBody::Stream(body)
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Waits for [`next`].
pub(super) type Next = Pin<Box<dyn Future<Output = Result<(Shot, Pace), Problem>>>>;

/// The next frame after `after`, in the form that is wanted, when it is due. When all that makes pictures is busy the frame is passed
/// over: there is a newer one soon.
///
/// # Errors
/// The topic went away, or its frames have no such form.
pub(super) async fn next(
    feed: Rc<dyn Feed>,
    form: Form,
    pace: Pace,
    mut after: u64,
) -> Result<(Shot, Pace), Problem> {
    let pace = pace.wait().await;
    loop {
        let frame = feed.newer(after).await?;
        let Form::Picture(setting) = form else {
            let bytes = frame.payload.clone();
            let shot = Shot {
                frame,
                bytes,
                is_lent: true,
            };
            return Ok((shot, pace));
        };
        if let Some(bytes) = feed.picture_as_is(&frame, setting) {
            let shot = Shot {
                frame,
                bytes,
                is_lent: true,
            };
            return Ok((shot, pace));
        }
        let picture = feed.picture(&frame, setting);
        let slot = frame.payload.as_ptr_range();
        // The frame is not held while its picture is made, by anybody but who makes it.
        let frame = Frame {
            payload: Bytes::new(),
            ..frame
        };
        match picture.await {
            Ok(bytes) => {
                let is_lent = slot.contains(&bytes.as_ptr());
                let shot = Shot {
                    frame,
                    bytes,
                    is_lent,
                };
                return Ok((shot, pace));
            }
            Err(problem) if problem.code == Code::PicturesBusy => after = frame.sequence,
            Err(problem) => return Err(problem),
        }
    }
}

/// How many may watch at a time, in one process.
#[derive(Clone, Debug)]
pub struct Seats {
    taken: Arc<AtomicUsize>,
    max: usize,
}

impl Seats {
    /// So many.
    pub fn new(max: usize) -> Self {
        Self {
            taken: Arc::default(),
            max,
        }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        // Relaxed: a count that guards nothing.
        self.taken.load(Ordering::Relaxed)
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Code::ViewersExhausted`]
    pub(super) fn take(&self) -> Result<Seat, Problem> {
        // Relaxed: as above; each sees its own number.
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Problem::new(
                Code::ViewersExhausted,
                format!("{} watch already, which is the limit", self.max),
            )
            .retry_after(Duration::from_secs(5)));
        }
        Ok(Seat(self.taken.clone()))
    }
}

/// Taken until it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
