//! What goes wrong, as a client is told: `application/problem+json` (RFC 9457).
//!
//! ```json
//! {"type":"urn:framegate:problem:topic-full","title":"No slot is free","status":503,"code":"topic-full","detail":"..."}
//! ```
//!
//! The code is what a program looks at: it stays the same from version to version, while titles and details are for people.
//! No answer names a file, a directory or a process: those are the server's own.

use std::{fmt, ops::Deref, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::json::Object;
use crate::body::ResponseBody;
use crate::service::Response;

macro_rules! codes {
    ($($name:ident $text:literal $status:ident $title:literal;)*) => {
        /// Everything that the frame routes refuse.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What a program looks at: `topic-full`.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Status of the answer.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What it is called, for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    TopicName "topic-name" BAD_REQUEST "This is no name of a topic";
    Query "query" BAD_REQUEST "The query means nothing here";
    FrameHead "frame-head" BAD_REQUEST "The fields that describe the frame mean nothing";
    FrameLength "frame-length" BAD_REQUEST "The body is not as long as its dtype and shape say";
    BodyIncomplete "body-incomplete" BAD_REQUEST "The body ended before its end";
    Multipart "multipart" BAD_REQUEST "The body is no multipart body";
    Npy "npy" BAD_REQUEST "The body is no .npy file that can be a frame";
    Unauthorized "unauthorized" UNAUTHORIZED "Credentials are needed";
    Forbidden "forbidden" FORBIDDEN "That is not allowed";
    TopicUnknown "topic-unknown" NOT_FOUND "There is no such topic";
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "The method has no meaning here";
    NotAcceptable "not-acceptable" NOT_ACCEPTABLE "The frame has no form that is accepted";
    FrameTooLarge "frame-too-large" PAYLOAD_TOO_LARGE "The frame is larger than a slot";
    UnsupportedType "unsupported-type" UNSUPPORTED_MEDIA_TYPE "A body of this type is no frame here";
    NoPicture "no-picture" UNPROCESSABLE_ENTITY "The frame cannot be shown so";
    SchemaMismatch "schema-mismatch" UNPROCESSABLE_ENTITY "The frame is not what the topic holds";
    Picture "picture" UNPROCESSABLE_ENTITY "The file is no picture that can be decoded";
    Internal "internal" INTERNAL_SERVER_ERROR "The server failed";
    ResponderDied "responder-died" BAD_GATEWAY "The responder died before it answered";
    CallFailed "call-failed" BAD_GATEWAY "The responder says that it failed";
    NoResponder "no-responder" SERVICE_UNAVAILABLE "Nobody answers calls on the topic";
    CallsExhausted "calls-exhausted" SERVICE_UNAVAILABLE "As many calls are in flight as there may be";
    ReplyLate "reply-late" GATEWAY_TIMEOUT "The reply did not come in time";
    TopicFull "topic-full" SERVICE_UNAVAILABLE "No slot is free";
    LeasesExhausted "leases-exhausted" SERVICE_UNAVAILABLE "As many frames are held as may be";
    PicturesBusy "pictures-busy" SERVICE_UNAVAILABLE "Too many pictures wait to be made";
    ViewersExhausted "viewers-exhausted" SERVICE_UNAVAILABLE "As many watch as may";
    Unavailable "unavailable" SERVICE_UNAVAILABLE "The topic cannot be used now";
    TopicsExhausted "topics-exhausted" INSUFFICIENT_STORAGE "There are as many topics as there may be";
    StorageFull "storage-full" INSUFFICIENT_STORAGE "There is no memory for another topic";
}

/// One refusal. Derefs to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(Box<Details>);

impl Deref for Problem {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

/// What was refused, and why in this case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// What it is.
    pub code: Code,
    /// Why, for people. Names no file and no directory.
    pub detail: String,
    /// When another try makes sense.
    pub retry_after: Option<Duration>,
    /// What the server's own log says, beyond the detail: texts of the library, with paths.
    pub cause: Option<String>,
    extra: Option<(http::HeaderName, HeaderValue)>,
}

impl Problem {
    /// A refusal that says why.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Details {
            code,
            detail: detail.into(),
            retry_after: None,
            cause: None,
            extra: None,
        }))
    }

    /// The same, with what only the log says.
    #[must_use]
    pub fn because(mut self, cause: &dyn fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The same, with the advice to try again then.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The same, of one part of a body; frames before it were published.
    #[must_use]
    pub(crate) fn in_part(mut self, part: u64, published: u64) -> Self {
        let before = match published {
            0 => "nothing was published".to_owned(),
            1 => "the frame before it was published".to_owned(),
            count => format!("{count} frames before it were published"),
        };
        self.0.detail = format!("part {part} of the body: {}; {before}", self.0.detail);
        self
    }

    /// The same, with the methods that do mean something.
    #[must_use]
    pub(crate) fn allowing(mut self, methods: &'static str) -> Self {
        self.0.extra = Some((ALLOW, HeaderValue::from_static(methods)));
        self
    }

    /// The same, with the credentials that would help (RFC 9110, section 11.6.1).
    #[must_use]
    pub fn challenging(mut self, challenge: &'static str) -> Self {
        self.0.extra = Some((WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        self
    }

    /// As a client is told.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let status = self.code.status();
        let mut body = Object::new();
        body.text(
            "type",
            &format!("urn:framegate:problem:{}", self.code.text()),
        );
        body.text("title", self.code.title());
        body.number("status", u64::from(status.as_u16()));
        body.text("code", self.code.text());
        body.text("detail", &self.detail);
        body.finish()
    }

    /// The answer.
    pub(crate) fn to_response(&self) -> Response {
        let mut response = Response::new(ResponseBody::from(Bytes::from(self.to_json())));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if let Some((name, value)) = &self.extra {
            headers.insert(name, value.clone());
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        match &self.cause {
            Some(cause) => write!(f, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn every_code_is_a_word_of_its_own_and_an_error() {
        for (index, code) in Code::ALL.iter().enumerate() {
            let text = code.text();
            assert!(!text.is_empty());
            assert!(
                text.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            );
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert!(Code::ALL[..index].iter().all(|other| other.text() != text));
        }
    }
}
