//! `POST` and `PUT` of a multipart body: each part becomes a frame, published as it ends.
//!
//! | body | is | of its parts are frames | a full topic |
//! |---|---|---|---|
//! | `multipart/form-data` | a form, with so many parts at most | those with a file | 503, the rest is not read |
//! | `multipart/mixed`, `multipart/x-mixed-replace` | a stream, as long as the client likes | all | drops the frame |
//!
//! A part says itself what it is, with the fields that a request would have ([`super::head`]). A part that is refused ends the
//! request: frames before it are published and the answer says how many. Only a camera must not end because a consumer is slow, so a
//! full topic costs it one frame, which is told of as any refusal is.
//!
//! The topic is opened for each frame anew, which costs one look at its file: it may be removed and created again while a camera
//! sends.

use std::{collections::VecDeque, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_DISPOSITION};

use super::board::{Board, Event};
use super::head::{self, DTYPE, SEQUENCE, SHAPE, TIMESTAMP};
use super::multipart::{Multipart, Type, parameters};
use super::problem::{Code, Problem};
use super::publish::{one, problem_of};
use super::{json, json_response};
use crate::ingest::Published;
use crate::service::{Request, Response};

/// Bytes of a field of a form that is no file: a token, a name.
const FIELD_BYTES_MAX: u64 = 64 * 1024;
/// Sequences that the answer to a stream lists: those of its last frames.
const LISTED_MAX: usize = 64;

/// What came of a body.
#[derive(Default)]
struct Tally {
    parts: u64,
    frames: u64,
    bytes: u64,
    dropped: u64,
    created: bool,
    sequences: VecDeque<u64>,
    listed_max: usize,
}

impl Tally {
    fn add(&mut self, published: Published) {
        self.frames += 1;
        self.bytes += published.bytes;
        if self.sequences.len() == self.listed_max {
            self.sequences.pop_front();
        }
        self.sequences.push_back(published.sequence);
    }
}

/// Publishes the parts of the body of `request` on `topic`, and says so.
pub(super) async fn publish(
    board: &dyn Board,
    topic: &str,
    mut request: Request,
    kind: &Type,
    (wait, parts_max): (Duration, usize),
) -> Result<Response, Problem> {
    let headers = &request.head.headers;
    head::check_encoding(headers)?;
    let own: [&HeaderName; 3] = [&DTYPE, &SHAPE, &TIMESTAMP];
    if let Some(name) = own.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(Problem::new(
            Code::FrameHead,
            format!("each part of a multipart body has its own {name}: the request has none"),
        ));
    }
    // Whether there is such a topic is known before a byte of the body is asked for.
    let mut tally = Tally {
        created: board.publisher(topic).await?.created,
        listed_max: if kind.is_form { parts_max } else { LISTED_MAX },
        ..Tally::default()
    };
    let mut parts = Multipart::new(&mut request.body, kind);
    let limits = (wait, if kind.is_form { parts_max } else { usize::MAX });
    publish_all(board, topic, &mut parts, kind, limits, &mut tally)
        .await
        .map_err(|problem| problem.in_part(tally.parts.max(1), tally.frames))?;
    // All frames are published: what follows them changes nothing.
    let _ = parts.epilogue().await;
    Ok(answer(topic, &tally))
}

async fn publish_all(
    board: &dyn Board,
    topic: &str,
    parts: &mut Multipart<'_, crate::body::Body>,
    kind: &Type,
    (wait, parts_max): (Duration, usize),
    tally: &mut Tally,
) -> Result<(), Problem> {
    let mut skipped_max = FIELD_BYTES_MAX;
    loop {
        let fields = parts.next(skipped_max).await;
        let Some(fields) = fields.map_err(|error| problem_of(&error))? else {
            break;
        };
        tally.parts += 1;
        if tally.parts > parts_max as u64 {
            return Err(Problem::new(
                Code::Multipart,
                format!("a form has at most {parts_max} parts"),
            ));
        }
        skipped_max = FIELD_BYTES_MAX;
        if kind.is_form && !has_file(&fields)? {
            continue;
        }
        let (form, head) = head::read(&fields)?;
        let opened = board.publisher(topic).await?;
        tally.created |= opened.created;
        match one(&*opened.publisher, &mut parts.part(), (&form, head), wait).await {
            Ok(published) => {
                board.happened(&Event::Published {
                    bytes: published.bytes,
                });
                tally.add(published);
            }
            Err(problem) if problem.code == Code::TopicFull && !kind.is_form => {
                tally.dropped += 1;
                skipped_max = opened.publisher.slot_bytes();
                board.happened(&Event::Refused {
                    topic: Some(topic),
                    problem: &problem,
                });
            }
            Err(problem) => return Err(problem),
        }
    }
    if tally.frames + tally.dropped == 0 {
        return Err(Problem::new(
            Code::Multipart,
            if kind.is_form {
                "no part of the form is a file"
            } else {
                "the body has no part"
            },
        ));
    }
    Ok(())
}

/// Whether a part of a form is a file. Browsers send one without a name and bytes where nobody has chosen any.
fn has_file(fields: &HeaderMap) -> Result<bool, Problem> {
    let wrong = |what: &str| Problem::new(Code::Multipart, what.to_owned());
    let Some(disposition) = fields.get(CONTENT_DISPOSITION) else {
        return Err(wrong(
            "it has no Content-Disposition, which parts of forms have",
        ));
    };
    let found = parameters(disposition.as_bytes())
        .ok_or_else(|| wrong("its Content-Disposition is written wrongly"))?;
    Ok(found
        .iter()
        .any(|(name, value)| matches!(&**name, b"filename" | b"filename*") && !value.is_empty()))
}

fn answer(topic: &str, tally: &Tally) -> Response {
    let mut body = json::Object::new();
    body.text("topic", topic);
    body.number("frames", tally.frames);
    body.number("bytes", tally.bytes);
    if tally.dropped > 0 {
        body.number("dropped", tally.dropped);
    }
    body.numbers("sequences", tally.sequences.iter().copied().map(Some));
    let mut response = json_response(body.finish());
    if tally.created {
        *response.status_mut() = StatusCode::CREATED;
    }
    if let Some(sequence) = tally.sequences.back() {
        response
            .headers_mut()
            .insert(SEQUENCE, HeaderValue::from(*sequence));
    }
    response
}
