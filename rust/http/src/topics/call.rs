//! `POST {calls}/{topic}`: the body is a request to the responders of a topic, the answer is the reply of one of them.
//!
//! ```text
//! head -> caller (topic must exist) -> length -> loan (waits) -> fill -> post -> reply
//!  400              404                  413       503            400     503    200, 504 late, 502 died or failed
//! ```
//!
//! The body goes into a slot while it arrives, as when a frame is published, and the reply goes from its slot to the socket. Neither
//! is a frame of the topic: no schema applies, subscribers see nothing.
//!
//! The time of a call begins when its request is whole: `?timeout=` seconds, up to a limit. A client that goes away takes its request
//! back, if no responder has taken it up, and else the reply is thrown away when it comes.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};

use super::board::{Board, Event};
use super::head::{self, DTYPE, FrameHead, OCTETS, SHAPE, TIMESTAMP};
use super::problem::Problem;
use super::publish;
use super::query::Query;
use super::view::SANDBOX;
use crate::body::ResponseBody;
use crate::service::{Request, Response};

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub struct CallTimes {
    /// Without `?timeout=`.
    pub usual: Duration,
    /// With any.
    pub most: Duration,
    /// For a free slot.
    pub loan_wait: Duration,
}

/// Asks with the body of `request`, and answers with the reply.
pub(crate) async fn call(
    board: &dyn Board,
    topic: &str,
    mut request: Request,
    times: CallTimes,
) -> Result<Response, Problem> {
    let query = Query::read(request.head.uri.query())?;
    let timeout = query.timeout.unwrap_or(times.usual).min(times.most);
    let (form, head) = head::read(&request.head.headers)?;
    let caller = board.caller(topic).await?;
    let asking = caller.ask(timeout)?;
    let wait = times.loan_wait.min(timeout);
    let posted = publish::one(&*asking.request, &mut request.body, (&form, head), wait).await?;
    let reply = asking.reply.await?;
    board.happened(&Event::Called {
        bytes_in: posted.bytes,
        bytes_out: reply.payload.len() as u64,
    });
    let mut response = Response::new(ResponseBody::from(reply.payload));
    let headers = response.headers_mut();
    describe(&reply.head, headers);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// What is said of a reply: what is said of a frame, without a place in the topic.
fn describe(head: &FrameHead, headers: &mut HeaderMap) {
    let content_type = head.content_type.as_ref();
    let content_type = content_type.and_then(|text| HeaderValue::try_from(text).ok());
    headers.insert(CONTENT_TYPE, content_type.unwrap_or(OCTETS));
    if let Some(array) = &head.array {
        headers.insert(DTYPE, HeaderValue::from_static(array.dtype().name()));
        if let Ok(shape) = HeaderValue::try_from(head::shape_text(array.shape())) {
            headers.insert(SHAPE, shape);
        }
    }
    if let Some(seconds) = head.timestamp
        && let Ok(seconds) = HeaderValue::try_from(seconds.to_string())
    {
        headers.insert(TIMESTAMP, seconds);
    }
}
