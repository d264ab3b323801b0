//! What the HTTP crate and the shared memory call the same things.

use std::time::Duration;

use framegate_http::topics::{ArrayHead, Code, Dtype, FrameHead, Problem, board::Schema};
use framegate_shm::{Array, Error, Frame, Message, Value};

use crate::frames::{HEIGHT, WIDTH};

/// When a client should try again, where nothing says how long it takes.
const RETRY: Duration = Duration::from_secs(1);

/// What a client is told of an error of the library. Its text, which may name files, goes to the log.
pub(super) fn problem(error: &Error) -> Problem {
    let (code, detail) = if error.is_topic_not_found() {
        (Code::TopicUnknown, "there is no topic of this name")
    } else if error.is_topic_full() {
        (
            Code::TopicFull,
            "consumers or other publishers hold all slots of the topic",
        )
    } else if error.is_frame_too_large() {
        (
            Code::FrameTooLarge,
            "the frame is larger than a slot of the topic",
        )
    } else if error.is_schema_mismatch() {
        (
            Code::SchemaMismatch,
            "the topic holds frames of another kind",
        )
    } else if error.is_no_space() || error.is_out_of_memory() {
        (Code::StorageFull, "there is no memory for the topic")
    } else if error.is_bad_topic_name() {
        (Code::TopicName, "this is no name of a topic")
    } else if error.is_no_responder() {
        (Code::NoResponder, "nobody answers calls on this topic")
    } else if error.is_mailbox_full() || error.is_calls_exhausted() {
        (
            Code::CallsExhausted,
            "as many calls of the topic are in flight as there may be",
        )
    } else if error.is_responder_died() {
        (
            Code::ResponderDied,
            "the responder died or closed before it answered",
        )
    } else if error.is_call_failed() {
        (
            Code::CallFailed,
            "the responder failed; the log of the server has what it says",
        )
    } else if error.is_timeout() {
        (Code::ReplyLate, "no responder has answered in time")
    } else {
        (Code::Unavailable, "the topic cannot be used now")
    };
    let problem = Problem::new(code, detail).because(error);
    if matches!(
        code,
        Code::Unavailable | Code::NoResponder | Code::CallsExhausted
    ) {
        problem.retry_after(RETRY)
    } else {
        problem
    }
}

fn dtype_of(dtype: framegate_shm::Dtype) -> Dtype {
    Dtype::from_name(dtype.name()).expect("both crates have the dtypes of shm.h")
}

/// The library's word for a dtype.
pub(super) fn shm_dtype(dtype: Dtype) -> framegate_shm::Dtype {
    framegate_shm::Dtype::from_name(dtype.name()).expect("both crates have the dtypes of shm.h")
}

/// What the schema of a topic means for HTTP.
pub(super) fn schema_of(arrays: &[Array]) -> Schema {
    let [array] = arrays else {
        if arrays.is_empty() {
            return Schema::Free;
        }
        let end = |array: &Array| array.offset().checked_add(array.bytes());
        let is_fixed = arrays.iter().all(|array| {
            array.record().is_none() && !array.shape().contains(&Array::DIMENSION_ANY)
        });
        let ends: Option<Vec<u64>> = arrays.iter().map(end).collect();
        let bytes = ends.filter(|_| is_fixed);
        return Schema::Other {
            bytes: bytes.and_then(|ends| ends.into_iter().max()),
        };
    };
    match array.dtype() {
        Some(dtype) if array.record().is_none() => Schema::Array {
            dtype: dtype_of(dtype),
            shape: array
                .shape()
                .iter()
                .map(|&length| (length != Array::DIMENSION_ANY).then_some(length))
                .collect(),
        },
        _ => Schema::Other { bytes: None },
    }
}

/// What a frame says of itself, as far as HTTP has words for it. Whatever makes no sense is not there.
pub(super) fn head_of(frame: &Frame) -> FrameHead {
    let values = frame.metadata().unwrap_or_default();
    let length = |key: &str| {
        values.iter().find_map(|(name, value)| match value {
            Value::Int(length) if *name == key => u32::try_from(*length).ok(),
            _ => None,
        })
    };
    let encoding = values.iter().find_map(|(name, value)| match value {
        Value::Str(encoding) if *name == "encoding" => Some((*encoding).to_owned()),
        _ => None,
    });
    FrameHead {
        encoding,
        array: one_array(&frame.arrays().unwrap_or_default(), frame.len()),
        timestamp: frame.timestamp_s().filter(|seconds| seconds.is_finite()),
        content_type: text_of(frame.content_type()),
        picture: length(WIDTH).zip(length(HEIGHT)),
    }
}

/// The same for the reply to a call.
pub(super) fn reply_head(reply: &Message) -> FrameHead {
    FrameHead {
        encoding: None,
        array: one_array(&reply.arrays().unwrap_or_default(), reply.len()),
        timestamp: reply.timestamp_s().filter(|seconds| seconds.is_finite()),
        content_type: text_of(reply.content_type()),
        picture: None,
    }
}

/// The array that all of `bytes` are.
fn one_array(arrays: &[Array], bytes: usize) -> Option<ArrayHead> {
    match arrays {
        [array] if array.offset() == 0 && array.record().is_none() => array
            .dtype()
            .and_then(|dtype| ArrayHead::new(dtype_of(dtype), array.shape().to_vec()))
            .filter(|array| array.bytes() == bytes as u64),
        _ => None,
    }
}

fn text_of(content_type: Option<&[u8]>) -> Option<String> {
    content_type
        .and_then(|text| std::str::from_utf8(text).ok())
        .map(str::to_owned)
}

/// The library's words for what a request says of itself.
pub(super) fn arrays_of(head: &FrameHead) -> Option<Array> {
    let array = head.array.as_ref()?;
    Some(Array::new("", shm_dtype(array.dtype()), array.shape()))
}
