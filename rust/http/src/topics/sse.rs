//! `GET ?view=sse`: what is said of each frame, as server-sent events, without its bytes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, request::Parts};
use http_body::Frame as BodyFrame;
use tokio::time::{Instant, Sleep, sleep};

use super::board::{Board, Frame};
use super::json;
use super::problem::Problem;
use super::watch::{Form, Pace, Seat, Shots, endless};
use crate::body::Aborted;
use crate::service::Response;

/// A comment keeps proxies from taking silence for the end; they wait for a minute.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Answers with events.
pub(super) async fn events(
    board: &dyn Board,
    topic: &str,
    head: &Parts,
    seat: Seat,
) -> Result<Response, Problem> {
    let pace = Pace::of(head.uri.query().unwrap_or_default())?;
    let feed = board.feed(topic).await?;
    let body = Events {
        shots: Shots::new(feed, Form::Raw, pace),
        comment: Box::pin(sleep(COMMENT_EVERY)),
        ended: false,
        _seat: seat,
    };
    let content_type = HeaderValue::from_static("text/event-stream");
    Ok(endless(head, content_type, Box::pin(body)))
}

struct Events {
    shots: Shots,
    comment: Pin<Box<Sleep>>,
    ended: bool,
    _seat: Seat,
}

fn event(frame: &Frame) -> Bytes {
    let mut text = format!("id: {}\ndata: ", frame.sequence).into_bytes();
    text.extend_from_slice(&described(frame));
    text.extend_from_slice(b"\n\n");
    text.into()
}

/// A frame in JSON, without its bytes.
pub(super) fn described(frame: &Frame) -> Vec<u8> {
    let mut object = json::Object::new();
    object.number("sequence", frame.sequence);
    object.number("published_ns", frame.published_ns);
    if let Some(timestamp) = frame.head.timestamp {
        object.json("timestamp", timestamp.to_string().as_bytes());
    }
    shape(&mut object, frame);
    object.number("bytes", frame.payload.len() as u64);
    object.finish()
}

/// What the bytes of a frame are.
pub(super) fn shape(object: &mut json::Object, frame: &Frame) {
    if let Some(array) = &frame.head.array {
        object.text("dtype", array.dtype().name());
        object.numbers("shape", array.shape().iter().map(|length| Some(*length)));
    }
    if let Some(content_type) = &frame.head.content_type {
        object.text("content_type", content_type);
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        let me = &mut *self;
        if me.ended {
            return Poll::Ready(None);
        }
        let data = match me.shots.poll_next(cx) {
            Poll::Ready(Ok(shot)) => event(&shot.frame),
            Poll::Ready(Err(_)) => {
                me.ended = true;
                Bytes::from_static(b"event: end\ndata: {}\n\n")
            }
            Poll::Pending => {
                ready!(me.comment.as_mut().poll(cx));
                Bytes::from_static(b":\n\n")
            }
        };
        me.comment.as_mut().reset(Instant::now() + COMMENT_EVERY);
        Poll::Ready(Some(Ok(BodyFrame::data(data))))
    }
}
