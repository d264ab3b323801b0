//! What all ways of watching a topic have in common: what a viewer asks for, how many there may be, and which frame comes next.

use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use tokio::time::{Instant, Sleep, sleep_until};

use super::board::{BoardFuture, Feed, Frame, Watching};
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

    /// Counts a frame, which may be sent now. From the time that it was due on, or the rate would fall behind; but what was missed is
    /// not made up for.
    fn count(&mut self) {
        if let Some(interval) = self.interval {
            let now = Instant::now();
            let due = self.due.map_or(now, |due| due.max(now - interval));
            self.due = Some(due + interval);
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

/// What one viewer of a topic gets: one frame after the other, in the form that he wants and when it is due. When all that makes
/// pictures is busy a frame is passed over: there is a newer one soon.
pub(super) struct Shots {
    feed: Rc<dyn Feed>,
    form: Form,
    pace: Pace,
    /// The sequence of the frame before.
    after: u64,
    /// Nobody watches while it is too early for a frame.
    watching: Option<Box<dyn Watching>>,
    step: Step,
}

enum Step {
    /// The frame before was asked for.
    Before,
    /// It is too early for the next one.
    Early(Pin<Box<Sleep>>),
    /// There is none yet.
    Waits,
    /// Its picture is made. Boxed: most viewers get what the camera made.
    Made(Box<Making>),
}

struct Making {
    picture: BoardFuture<Bytes>,
    /// Its payload is let go of: the frame is held by who makes the picture, as long as that takes.
    frame: Frame,
    /// Where that is.
    slot: Range<*const u8>,
}

impl Shots {
    pub(super) const fn new(feed: Rc<dyn Feed>, form: Form, pace: Pace) -> Self {
        Self {
            feed,
            form,
            pace,
            after: 0,
            watching: None,
            step: Step::Before,
        }
    }

    /// The next frame. Not to be asked again after an error.
    ///
    /// # Errors
    /// The topic went away, or its frames have no such form.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Shot, Problem>> {
        loop {
            match &mut self.step {
                Step::Before => match self.pace.due {
                    Some(due) => self.step = Step::Early(Box::pin(sleep_until(due))),
                    None => self.now(),
                },
                Step::Early(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.now();
                }
                Step::Waits => {
                    let watching = self.watching.get_or_insert_with(|| self.feed.watch());
                    let frame = ready!(watching.poll_newer(self.after, cx))?;
                    self.after = frame.sequence;
                    if let Some(bytes) = self.as_is(&frame) {
                        return Poll::Ready(Ok(self.taken(frame, bytes, true)));
                    }
                }
                Step::Made(making) => match ready!(making.picture.as_mut().poll(cx)) {
                    Ok(bytes) => {
                        let is_lent = making.slot.contains(&bytes.as_ptr());
                        let frame = making.frame.clone();
                        return Poll::Ready(Ok(self.taken(frame, bytes, is_lent)));
                    }
                    Err(problem) if problem.code == Code::PicturesBusy => self.step = Step::Waits,
                    Err(problem) => return Poll::Ready(Err(problem)),
                },
            }
        }
    }

    fn now(&mut self) {
        self.pace.count();
        self.step = Step::Waits;
    }

    /// The frame's own bytes, if those are wanted; else its picture is begun.
    fn as_is(&mut self, frame: &Frame) -> Option<Bytes> {
        let Form::Picture(setting) = self.form else {
            return Some(frame.payload.clone());
        };
        let bytes = self.feed.picture_as_is(frame, setting);
        if bytes.is_none() {
            self.step = Step::Made(Box::new(Making {
                picture: self.feed.picture(frame, setting),
                frame: Frame {
                    payload: Bytes::new(),
                    ..frame.clone()
                },
                slot: frame.payload.as_ptr_range(),
            }));
        }
        bytes
    }

    fn taken(&mut self, frame: Frame, bytes: Bytes, is_lent: bool) -> Shot {
        self.step = Step::Before;
        if self.pace.interval.is_some() {
            self.watching = None;
        }
        Shot {
            frame,
            bytes,
            is_lent,
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
