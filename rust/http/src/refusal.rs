//! Answers that the server gives in place of the handler. After each the connection is closed.
//!
//! They are given at three moments. A request that must not be served gets one instead of the handler's call (`h1`). A request that
//! is waited for, and whose client broke a limit, gets one instead of the handler's response: whoever finds that leaves it with
//! the connection ([`Shared::refuse`](crate::h1_io::Shared::refuse)), and the future of the response gives it and drops the
//! handler's. A head that never became a request gets one as bytes ([`Refusal::to_bytes`]).

use std::{fmt, time::SystemTime};

use http::{
    HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
};

use crate::service::Response;

/// Why something is not given to the handler, or taken away from it.
#[derive(Clone, Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) &'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answered {}: {}", self.0.as_u16(), self.1.trim_end())
    }
}

/// The head did not come in time.
pub(crate) static HEAD_TOO_SLOW: Refusal = Refusal(
    StatusCode::REQUEST_TIMEOUT,
    "the head of the request took too long\n",
);
/// The body did not come in time.
pub(crate) static BODY_TOO_SLOW: Refusal = Refusal(
    StatusCode::REQUEST_TIMEOUT,
    "the body of the request took too long\n",
);
/// The body is, or would be, over its limit.
pub(crate) static BODY_TOO_LARGE: Refusal = Refusal(
    StatusCode::PAYLOAD_TOO_LARGE,
    "the body of the request is too large\n",
);

/// A WebSocket was asked for where none is: an ordinary success would look like one over HTTP/2.
pub(crate) static NO_WEBSOCKET: Refusal = Refusal(
    StatusCode::NOT_IMPLEMENTED,
    "there is no WebSocket at this path\n",
);

/// `content-type` of what is said in words.
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A proxy serves it; this is none.
pub(crate) fn connect() -> Refusal {
    Refusal(StatusCode::NOT_IMPLEMENTED, "CONNECT is not served\n")
}

/// An extended CONNECT for something else than WebSocket.
pub(crate) fn other_protocol() -> Refusal {
    Refusal(
        StatusCode::NOT_IMPLEMENTED,
        "the only protocol of an extended CONNECT that is served is websocket\n",
    )
}

pub(crate) fn target_too_long() -> Refusal {
    Refusal(StatusCode::URI_TOO_LONG, "the request target is too long\n")
}

pub(crate) fn repeated_host() -> Refusal {
    bad("the request has more than one Host\n")
}

pub(crate) fn repeated_length() -> Refusal {
    bad("the request has more than one Content-Length\n")
}

/// The request is not valid.
pub(crate) fn bad(reason: &'static str) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, reason)
}

impl Refusal {
    pub(crate) fn to_response(&self) -> Response {
        let mut response = Response::new(self.1.into());
        *response.status_mut() = self.0;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_TYPE, TEXT);
        response
    }

    /// The response as HTTP/1.1 writes it, for when there is no request that it could answer.
    pub(crate) fn to_bytes(&self, date_header: bool) -> Vec<u8> {
        let date = if date_header {
            format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()))
        } else {
            String::new()
        };
        format!(
            "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\n{date}\r\n{}",
            self.0,
            self.1.len(),
            self.1
        )
        .into_bytes()
    }
}
