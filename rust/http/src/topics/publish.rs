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
//! are, and the size that their own head says goes with them; or they are decoded, where the topic wants pixels. A multipart body is several frames ([`parts`]).

use std::{error::Error as _, time::Duration};

use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, sleep};

use super::board::{Board, Event, Publisher, Schema};
use super::head::{self, ArrayHead, Dtype, Form, FrameHead, SEQUENCE};
use super::problem::{Code, Problem};
use super::{json, json_response, multipart, npy, parts, picture_size};
use crate::error::Error;
use crate::ingest::{self, FrameSlot, IngestError, Published, Source};
use crate::pictures::{Coding, Decoder, PictureError, PixelFormat};
use crate::service::{Request, Response};

/// Between two attempts to loan a slot of a full topic: consumers hold frames for milliseconds.
const LOAN_RETRY: Duration = Duration::from_millis(1);
/// Bytes of one read of a picture that is decoded.
const FILE_READ_BYTES: usize = 64 * 1024;
/// When a client should try again that met a full topic.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// Publishes the body of `request` on `topic`, and says so.
pub(crate) async fn publish(
    board: &dyn Board,
    topic: &str,
    mut request: Request,
    (wait, parts_max): (Duration, usize),
) -> Result<Response, Problem> {
    if let Some(kind) = multipart::Type::of(&request.head.headers)? {
        return parts::publish(board, topic, request, &kind, (wait, parts_max)).await;
    }
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

/// What is left of `source` is one frame.
pub(super) async fn one(
    publisher: &dyn Publisher,
    source: &mut impl Source,
    (form, mut head): (&Form, FrameHead),
    wait: Duration,
) -> Result<Published, Problem> {
    if *form == Form::Npy {
        head.array = Some(npy::read(source).await?);
    }
    if let Some(decoder) = publisher.decoder()
        && let Some(coding) = decodable(&head)
    {
        return decoded(publisher, source, (decoder, coding), head, wait).await;
    }
    let declared = source.remaining();
    let expected = check(publisher, &head, declared)?;
    let room = declared.or(expected).unwrap_or(publisher.slot_bytes());
    let mut slot = loan(publisher, room, wait).await?;
    let filled = match ingest::fill(source, &mut *slot, room).await {
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

/// Which coding a frame has that can be made into pixels.
fn decodable(head: &FrameHead) -> Option<Coding> {
    let content_type = head.content_type.as_ref()?;
    let coding = Coding::from_media_type(content_type.as_bytes());
    coding.filter(|coding| *coding != Coding::Webp && head.array.is_none())
}

/// What is left of `source` is a picture, whose pixels are one frame. The file is in memory meanwhile; it is no larger than a slot.
async fn decoded(
    publisher: &dyn Publisher,
    source: &mut impl Source,
    (decoder, coding): (&Decoder, Coding),
    mut head: FrameHead,
    wait: Duration,
) -> Result<Published, Problem> {
    let file = read_whole(source, publisher.slot_bytes()).await?;
    let pixels = decoder.decode(coding, file).await;
    let pixels = pixels.map_err(|error| undecoded(&error))?;
    let (width, height) = pixels.size();
    let (mut shape, dtype) = (vec![height.into(), width.into()], pixels.format());
    let dtype = match dtype {
        PixelFormat::Values(_) => Dtype::Uint16,
        PixelFormat::Mono8 => Dtype::Uint8,
        format => {
            shape.push(format.pixel_bytes());
            Dtype::Uint8
        }
    };
    head.array = ArrayHead::new(dtype, shape);
    head.content_type = None;
    let bytes = pixels.data().len() as u64;
    check(publisher, &head, Some(bytes))?;
    let mut slot = loan(publisher, bytes, wait).await?;
    slot.space()[..pixels.data().len()].copy_from_slice(pixels.data());
    slot.filled(pixels.data().len());
    slot.publish(&head).map_err(|error| problem_of(&error))
}

/// What is left of `source`. Memory is taken as bytes come.
async fn read_whole(source: &mut impl Source, bytes_max: u64) -> Result<Vec<u8>, Problem> {
    let declared = source.remaining();
    if declared.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large(declared, bytes_max));
    }
    let mut file = Vec::new();
    loop {
        let begin = file.len();
        file.resize(begin + FILE_READ_BYTES, 0);
        let read = source.read(&mut file[begin..]).await;
        let read = read.map_err(|error| problem_of(&error))?;
        file.truncate(begin + read);
        if file.len() as u64 > bytes_max {
            return Err(too_large(None, bytes_max));
        }
        if read == 0 {
            return Ok(file);
        }
    }
}

fn undecoded(error: &PictureError) -> Problem {
    let code = if error.is_too_large() {
        Code::FrameTooLarge
    } else if error.is_busy() {
        Code::PicturesBusy
    } else if error.is_malformed() || error.is_unsupported() {
        Code::Picture
    } else {
        Code::Internal
    };
    let problem = Problem::new(code, error.to_string());
    if error.is_busy() {
        problem.retry_after(FULL_RETRY)
    } else {
        problem
    }
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

pub(super) fn wrong_length(bytes: Option<u64>, expected: u64) -> Problem {
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
pub(crate) fn problem_of(error: &IngestError) -> Problem {
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
            "the body ended before its end; no unfinished frame was published",
        )
        .because(&source.map_or_else(String::new, ToString::to_string));
    }
    Problem::new(Code::Internal, "the frame could not be published").because(error)
}
