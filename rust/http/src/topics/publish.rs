//! `POST` and `PUT`: the body becomes a frame.
//!
//! The bytes go into a loaned slot while they arrive, and are seen by nobody before the frame is whole. What is known before the
//! body (its type, its length, dtype and shape) is checked before a byte of it is read, so that a client that waits for
//! `100 Continue` sends none in vain.
//!
//! ```text
//! head -> publisher (created if the rules allow) -> schema, length -> loan (waits) -> fill -> publish
//!  400           404 507                            415 422 413 400     503           400      422
//! ```
//!
//! Of a file of numpy the head is read first and says dtype and shape; its items become the frame. Pictures are kept as they
//! are, and the size that their own head says goes with them.

use std::{error::Error as _, time::Duration};

use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, sleep};

use super::board::{Board, Event, Publisher, Schema};
use super::head::{self, Form, FrameHead, SEQUENCE};
use super::problem::{Code, Problem};
use super::{json, json_response, npy, picture_size};
use crate::body::Body;
use crate::error::Error;
use crate::ingest::{self, FrameSlot, IngestError, Published};
use crate::service::{Request, Response};

/// Between two attempts to loan a slot of a full topic: consumers hold frames for milliseconds.
const LOAN_RETRY: Duration = Duration::from_millis(1);
/// When a client should try again that met a full topic.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// Publishes the body of `request` on `topic`, and says so.
pub(crate) async fn publish(
    board: &dyn Board,
    topic: &str,
    mut request: Request,
    wait: Duration,
) -> Result<Response, Problem> {
    let (form, head) = head::read(&request.head.headers)?;
    let opened = board.publisher(topic).await?;
    let publisher = &*opened.publisher;
    let published = one(publisher, &mut request.body, (&form, head), wait).await?;
    board.happened(&Event::Published {
        bytes: published.bytes,
    });
    let mut body = json::Object::new();
    body.text("topic", topic);
    body.number("sequence", published.sequence);
    body.number("bytes", published.bytes);
    let mut response = json_response(body.finish());
    if opened.created {
        *response.status_mut() = StatusCode::CREATED;
    }
    response
        .headers_mut()
        .insert(SEQUENCE, HeaderValue::from(published.sequence));
    Ok(response)
}

/// The rest of the body is one frame.
pub(super) async fn one(
    publisher: &dyn Publisher,
    body: &mut Body,
    (form, mut head): (&Form, FrameHead),
    wait: Duration,
) -> Result<Published, Problem> {
    if *form == Form::Npy {
        head.array = Some(npy::read(body).await?);
    }
    let declared = body.remaining();
    let expected = check(publisher, &head, declared)?;
    let room = declared.or(expected).unwrap_or(publisher.slot_bytes());
    let mut slot = loan(publisher, room, wait).await?;
    let filled = match ingest::fill(body, &mut *slot, room).await {
        Err(error) if error.is_too_large() => {
            return Err(match expected {
                Some(expected) => wrong_length(None, expected),
                None => too_large(None, publisher.slot_bytes()),
            });
        }
        filled => filled.map_err(|error| problem_of(&error))?,
    };
    if let Some(expected) = expected
        && filled != expected
    {
        return Err(wrong_length(Some(filled), expected));
    }
    if head.content_type.as_deref().is_some_and(is_picture) {
        head.picture = picture_size::size(slot.payload());
    }
    slot.publish(&head).map_err(|error| problem_of(&error))
}

fn is_picture(content_type: &str) -> bool {
    content_type
        .get(..6)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("image/"))
}

/// Compares what a frame says of itself with what its topic holds; gives its exact length, if that is known.
pub(super) fn check(
    publisher: &dyn Publisher,
    head: &FrameHead,
    declared: Option<u64>,
) -> Result<Option<u64>, Problem> {
    let (schema, slot_bytes) = (publisher.schema(), publisher.slot_bytes());
    if let Some(array) = &head.array {
        if !schema.admits(array) {
            return Err(Problem::new(
                Code::SchemaMismatch,
                format!(
                    "the topic holds {}, this is {} {}",
                    described(schema),
                    array.dtype().name(),
                    head::shape_text(array.shape())
                ),
            ));
        }
    } else if *schema != Schema::Free {
        if head.content_type.is_some() {
            return Err(Problem::new(
                Code::UnsupportedType,
                format!("the topic holds {}, not encoded bytes", described(schema)),
            ));
        }
        if schema.bytes().is_none() {
            return Err(Problem::new(
                Code::SchemaMismatch,
                format!(
                    "the topic holds {}: say what this is with Frame-Dtype and Frame-Shape",
                    described(schema)
                ),
            ));
        }
    }
    let array_bytes = head.array.as_ref().map(head::ArrayHead::bytes);
    let expected = array_bytes.or_else(|| schema.bytes());
    if let Some(bytes) = declared.max(expected).filter(|bytes| *bytes > slot_bytes) {
        return Err(too_large(Some(bytes), slot_bytes));
    }
    match (declared, expected) {
        (Some(declared), Some(expected)) if declared != expected => {
            Err(wrong_length(Some(declared), expected))
        }
        _ => Ok(expected),
    }
}

/// `uint8 1080, 1920, 3`; `*` is any length.
fn described(schema: &Schema) -> String {
    match schema {
        Schema::Free => "anything".to_owned(),
        Schema::Other { .. } => "several arrays".to_owned(),
        Schema::Array { dtype, shape } => {
            let lengths: Vec<String> = shape
                .iter()
                .map(|length| length.map_or_else(|| "*".to_owned(), |length| length.to_string()))
                .collect();
            format!("{} {}", dtype.name(), lengths.join(", "))
        }
    }
}

fn wrong_length(bytes: Option<u64>, expected: u64) -> Problem {
    let bytes = bytes.map_or_else(|| "more".to_owned(), |bytes| format!("{bytes} bytes"));
    Problem::new(
        Code::FrameLength,
        format!("the body has {bytes}, dtype and shape want {expected}"),
    )
}

fn too_large(bytes: Option<u64>, slot_bytes: u64) -> Problem {
    let bytes = bytes.map_or_else(|| "more".to_owned(), |bytes| format!("{bytes} bytes"));
    Problem::new(
        Code::FrameTooLarge,
        format!("the frame has {bytes}, a slot of the topic {slot_bytes}"),
    )
}

/// Loans a slot; a full topic is asked again until the time is over.
async fn loan(
    publisher: &dyn Publisher,
    bytes: u64,
    wait: Duration,
) -> Result<Box<dyn FrameSlot>, Problem> {
    let deadline = Instant::now() + wait;
    loop {
        match publisher.loan(bytes) {
            Err(problem) if problem.code == Code::TopicFull => {
                if Instant::now() >= deadline {
                    return Err(problem.retry_after(FULL_RETRY));
                }
                sleep(LOAN_RETRY).await;
            }
            loaned => return loaned,
        }
    }
}

/// What a board says in an [`IngestError`] is a [`Problem`].
pub(super) fn problem_of(error: &IngestError) -> Problem {
    let source = error.source();
    if let Some(problem) = source.and_then(|source| source.downcast_ref::<Problem>()) {
        return problem.clone();
    }
    if error.is_body() {
        let is_too_large = source
            .and_then(|source| source.downcast_ref::<Error>())
            .is_some_and(Error::is_too_large);
        if is_too_large {
            return Problem::new(
                Code::FrameTooLarge,
                "the body is larger than the server takes",
            );
        }
        return Problem::new(
            Code::BodyIncomplete,
            "the body ended before its end; nothing of it was published",
        )
        .because(&source.map_or_else(String::new, ToString::to_string));
    }
    Problem::new(Code::Internal, "the frame could not be published").because(error)
}
