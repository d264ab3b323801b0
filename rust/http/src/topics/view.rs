//! `GET ?view=latest`: the newest frame, from shared memory to the socket without a copy.
//!
//! # Which frame
//! `ETag` is the life of the topic and the sequence of the frame, so a client that has it (`If-None-Match`) gets 304. With
//! `?after=SEQUENCE` only a later frame is an answer, and one is waited for: up to `?timeout=` seconds, or as long as the server
//! allows. 204 says that the topic is there and that no frame is, or none that is late enough. A sequence that the topic has
//! not reached is of an earlier life of it, and any frame is later.
//!
//! # In which form
//! `?format=` says it, else `Accept`: the bytes as they are, or a file of numpy.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
    request::Parts,
};
use http_body::{Frame as BodyFrame, SizeHint};
use tokio::time::timeout;

use super::accept::{quality, quality_if_named, quality_of_kind};
use super::board::{Board, Event, Feed, Frame};
use super::head::{self, NPY, OCTETS};
use super::npy;
use super::problem::{Code, Problem};
use super::query::{Format, Query, View};
use super::watch::{is_lent, parcel};
use crate::body::{Aborted, ResponseBody};
use crate::fanout::Parcel;
use crate::pictures::Setting;
use crate::sendfile::ParcelSender;
use crate::service::Response;
use crate::static_files::conditions::none_match;

/// Nothing of a frame runs in a browser, whatever its publisher says that it is.
pub(super) const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// Answers with the newest frame.
pub(crate) async fn latest(
    board: &dyn Board,
    topic: &str,
    request: &Parts,
    query: &Query,
    wait_max: Duration,
    sender: ParcelSender,
) -> Result<Response, Problem> {
    let feed = board.feed(topic).await?;
    let Some(frame) = frame(&*feed, query, wait_max).await? else {
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        common(response.headers_mut());
        return Ok(response);
    };
    let format = match query.format {
        Some(format) => format,
        None => preferred_format(&request.headers, &frame)?,
    };
    let mut begin = Bytes::new();
    let (content_type, suffix, bytes) = match format {
        Format::Raw => (raw_type(&frame), String::new(), frame.payload.clone()),
        Format::Picture(coding) => {
            let setting = Setting::from_query(coding, request.uri.query().unwrap_or_default())
                .map_err(|error| Problem::new(Code::Query, error.to_string()))?;
            let bytes = feed.picture(&frame, setting).await?;
            let content_type = HeaderValue::from_static(coding.media_type());
            (content_type, format!("-{setting}"), bytes)
        }
        Format::Npy => {
            let Some(head) = npy_head(&frame) else {
                return Err(Problem::new(
                    Code::NotAcceptable,
                    "the frame is no array that numpy has a type for",
                ));
            };
            begin = head.into();
            (NPY, "-npy".to_owned(), frame.payload.clone())
        }
    };
    let tag = format!("\"{:016x}-{}{suffix}\"", feed.session(), frame.sequence);
    let is_known = none_match(&request.headers, &tag);
    let parts = [begin, bytes];
    let sent = parts.iter().map(|part| part.len() as u64).sum::<u64>();
    let mut response = Response::new(if is_known || sent == 0 {
        ResponseBody::Empty
    } else {
        ResponseBody::Stream(Box::pin(Sending::new(&*feed, &frame, parts, sender)))
    });
    let headers = response.headers_mut();
    common(headers);
    headers.insert(ETAG, HeaderValue::try_from(tag).expect("digits and quotes"));
    head::write(&frame, headers);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(sent));
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    board.happened(&Event::Sent {
        bytes: frame.payload.len() as u64,
    });
    Ok(response)
}

/// Fields of every answer with or without a frame.
fn common(headers: &mut HeaderMap) {
    headers.insert(VARY, HeaderValue::from_static("accept"));
    // To be kept, and asked about each time: a frame is old when the next one is there.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// The frame that is wanted, now or when it comes.
async fn frame(
    feed: &dyn Feed,
    query: &Query,
    wait_max: Duration,
) -> Result<Option<Frame>, Problem> {
    let newest = feed.newest()?;
    let Some(after) = query.after else {
        return Ok(newest);
    };
    let head = newest.as_ref().map_or(0, |frame| frame.sequence);
    if head > 0 && head != after {
        // A later one, or one of another life.
        return Ok(newest);
    }
    // Nobody waits with a frame in hand.
    drop(newest);
    let wait = query.timeout.unwrap_or(wait_max).min(wait_max);
    let mut watching = feed.watch();
    match timeout(wait, poll_fn(|cx| watching.poll_newer(head, cx))).await {
        Ok(frame) => frame.map(Some),
        Err(_) => Ok(None),
    }
}

fn npy_head(frame: &Frame) -> Option<Vec<u8>> {
    npy::write(frame.head.array.as_ref()?)
}

/// What is wanted of a request that does not say it in its query: the newest frame by those who name such a type and like it
/// better than JSON, as `<img>` does; what the topic is like by all others.
pub(crate) fn preferred(request: &Parts) -> View {
    let headers = &request.headers;
    let frame = quality_of_kind(headers, "image")
        .max(quality_if_named(headers, "application/octet-stream"))
        .max(quality_if_named(headers, "application/x-npy"));
    if frame > 0 && frame > quality(headers, "application", "json") {
        View::Latest
    } else {
        View::Info
    }
}

/// The form that the client likes best; the bytes as they are where it has no preference.
fn preferred_format(headers: &HeaderMap, frame: &Frame) -> Result<Format, Problem> {
    let content_type = frame.head.content_type.as_deref();
    let essence = content_type.unwrap_or("application/octet-stream");
    let essence = essence.split(';').next().unwrap_or_default().trim();
    let (kind, sub) = essence.split_once('/').unwrap_or((essence, ""));
    let raw = quality(headers, kind, sub);
    let npy = match npy_head(frame) {
        Some(_) => quality(headers, "application", "x-npy"),
        None => 0,
    };
    if raw.max(npy) > 0 {
        let is_raw = raw >= npy;
        return Ok(if is_raw { Format::Raw } else { Format::Npy });
    }
    Err(Problem::new(
        Code::NotAcceptable,
        format!("the frame is {essence}"),
    ))
}

/// What an answer with the bytes as they are says that they are.
fn raw_type(frame: &Frame) -> HeaderValue {
    frame
        .head
        .content_type
        .as_ref()
        .and_then(|text| HeaderValue::try_from(text).ok())
        .unwrap_or(OCTETS)
}

/// A frame, or what was made of it, on its way.
struct Sending {
    parcel: Arc<Parcel>,
    sender: ParcelSender,
    /// Bytes that were not given to the connection yet.
    left: usize,
}

impl Sending {
    fn new(
        feed: &dyn Feed,
        frame: &Frame,
        [before, bytes]: [Bytes; 2],
        sender: ParcelSender,
    ) -> Self {
        let left = before.len() + bytes.len();
        let lent = is_lent(frame, &bytes).then_some(frame.sequence);
        Self {
            parcel: parcel(feed, lent, [before, bytes, Bytes::new()]),
            sender,
            left,
        }
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = self.sender.piece(&self.parcel, self.left);
        self.left -= piece.len();
        Poll::Ready(Some(Ok(BodyFrame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
