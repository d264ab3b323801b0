//! Responses of the application that are compressed on their way to the client.
//!
//! [`Compressed`] stands in front of a service; where it does not, nothing of this runs. It looks at the head of each response
//! and changes nothing about most of them ([`Settings`] and [`is_candidate`] say about which). Where it compresses:
//!
//! | field | becomes |
//! |---|---|
//! | `Content-Encoding` | the coding, chosen by [`Accepted`] |
//! | `Content-Length` | that of the compressed body if it was compressed at once, else none |
//! | `ETag` | a weak one: the same content, not the same bytes. A 304 to a client that has the weak one says so too |
//! | `Accept-Ranges` | nothing: the application's ranges are of other bytes |
//! | `Vary` | `accept-encoding` added, also to the candidates that leave as they are |
//!
//! A body that is there as a whole and no longer than one turn ([`body::TURN_BYTES`]) is compressed at once; others on their
//! way ([`body`]). HEAD gets the fields that GET would get, without a length.
//!
//! # What is not compressed
//! Event streams (proxies and clients buffer what they have to decode), parts of something (206, `Content-Range`), responses without a
//! body, what is encoded already or must not be transformed, what a digest stands for, files that go through the kernel, and
//! what sets cookies: an attacker who can have a secret compressed together with words of his own learns the secret from the
//! size (BREACH). The last one can be asked for.

mod body;
mod encoder;

use std::{io, rc::Rc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, ETAG, IF_NONE_MATCH, SET_COOKIE, VARY,
    },
};
use http_body::Body as _;

use crate::accept_encoding::{Accepted, Coding};
use crate::body::ResponseBody;
use crate::media_type;
use crate::service::{ConnectionInfo, Handler, Request, Response, ResponseFuture, Service};
use crate::static_files::path::is_like;

use body::{CompressedBody, TURN_BYTES};
use encoder::Encoder;

/// How hard to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// The least time: zstd 1, br 1, gzip 1.
    Fast,
    /// Some ten microseconds for a page: zstd 3, br 4, gzip 5.
    #[default]
    Balanced,
    /// The fewest bytes that are not out of all proportion: zstd 9, br 8, gzip 9.
    Small,
}

/// `bytes` as a file of gzip.
pub(crate) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::new(Coding::Gzip, Level::Balanced)?;
    encoder.write(bytes)?;
    encoder.finish()
}

/// What is compressed, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How hard.
    pub level: Level,
    /// Bodies that are known to be smaller leave as they are.
    pub bytes_min: u64,
    /// Media types, with `*` for anything; none: text, JSON, XML, and what else gets smaller.
    pub types: Vec<String>,
    /// Also responses that set cookies.
    pub with_cookies: bool,
}

/// In the extensions of a response: it leaves as it is, because its body is not in our memory.
#[derive(Clone, Copy, Debug)]
pub struct AsIs;

/// Compresses the responses of a service.
pub struct Compressed {
    service: Rc<dyn Service>,
    settings: Rc<Settings>,
}

impl Compressed {
    /// The responses of `service`, compressed.
    pub fn new(service: Rc<dyn Service>, settings: Settings) -> Self {
        Self {
            service,
            settings: Rc::new(settings),
        }
    }
}

impl Service for Compressed {
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        Rc::new(CompressedHandler {
            handler: self.service.open(connection),
            settings: self.settings.clone(),
        })
    }
}

struct CompressedHandler {
    handler: Rc<dyn Handler>,
    settings: Rc<Settings>,
}

impl Handler for CompressedHandler {
    fn call(&self, request: Request) -> ResponseFuture {
        // A WebSocket compresses its messages itself.
        if request.upgrade.is_some() {
            return self.handler.call(request);
        }
        let asked = Asked {
            accepted: Accepted::of(&request.head.headers),
            known: request.head.headers.get(IF_NONE_MATCH).cloned(),
            is_head: request.head.method == Method::HEAD,
        };
        match self.handler.call(request) {
            ResponseFuture::Ready(response) => ResponseFuture::Ready(
                response.map(|response| asked.answer(response, &self.settings)),
            ),
            ResponseFuture::Later(later) => {
                let settings = self.settings.clone();
                ResponseFuture::later(async move { asked.answer(later.await, &settings) })
            }
        }
    }

    fn rest(&self) {
        self.handler.rest();
    }
}

/// What of the request matters.
struct Asked {
    accepted: Accepted,
    known: Option<HeaderValue>,
    is_head: bool,
}

impl Asked {
    fn answer(&self, mut response: Response, settings: &Settings) -> Response {
        if response.status() == StatusCode::NOT_MODIFIED {
            self.not_modified(response.headers_mut());
            return response;
        }
        if !is_candidate(&response, settings) {
            return response;
        }
        let length = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(crate::h1::length_of)
            .or_else(|| {
                let exact = response.body().size_hint().exact();
                // Of HEAD there is none, whatever GET has.
                exact.filter(|_| !self.is_head)
            });
        let must = self.accepted.refuses_identity();
        if length.is_some_and(|length| length == 0 || (length < settings.bytes_min && !must)) {
            return response;
        }
        vary(response.headers_mut());
        let Some(coding) = self.accepted.codings().next() else {
            return response;
        };
        if self.is_head {
            encoded(response.headers_mut(), coding);
            response
        } else {
            compress(response, coding, settings.level, must)
        }
    }

    /// A 304 that confirms what was compressed has the tag of that.
    fn not_modified(&self, headers: &mut HeaderMap) {
        let (Some(known), Some(tag)) = (&self.known, headers.get(ETAG)) else {
            return;
        };
        if let Some(weak) = weakened(tag)
            && memchr::memmem::find(known.as_bytes(), weak.as_bytes()).is_some()
        {
            headers.insert(ETAG, weak);
            vary(headers);
        }
    }
}

/// Whether the response would be compressed for a client that accepts it, whatever its length.
fn is_candidate(response: &Response, settings: &Settings) -> bool {
    const DIGESTS: [HeaderName; 3] = [
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
        HeaderName::from_static("digest"),
    ];
    let status = response.status();
    if status.is_informational()
        || matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT
        )
        || response.extensions().get::<AsIs>().is_some()
    {
        return false;
    }
    let headers = response.headers();
    if headers.contains_key(CONTENT_ENCODING)
        || headers.contains_key(CONTENT_RANGE)
        || (headers.contains_key(SET_COOKIE) && !settings.with_cookies)
        || DIGESTS.iter().any(|name| headers.contains_key(name))
        || has_word(headers, CACHE_CONTROL, "no-transform")
    {
        return false;
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let kind = kind.as_bytes();
    let kind = kind
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or(kind)
        .trim_ascii()
        .to_ascii_lowercase();
    if kind == b"text/event-stream" {
        return false;
    }
    if settings.types.is_empty() {
        media_type::is_compressible(&kind)
    } else {
        settings
            .types
            .iter()
            .any(|pattern| is_like(&kind, pattern.to_ascii_lowercase().as_bytes()))
    }
}

fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn vary(headers: &mut HeaderMap) {
    if !has_word(headers, VARY, "accept-encoding") && !has_word(headers, VARY, "*") {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// The weak form of a strong tag.
fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    let tag = tag.as_bytes();
    if !tag.starts_with(b"\"") {
        return None;
    }
    HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()
}

/// The fields of a response whose body is compressed.
fn encoded(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(CONTENT_ENCODING, coding.value());
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    if let Some(weak) = headers.get(ETAG).and_then(weakened) {
        headers.insert(ETAG, weak);
    }
}

fn compress(response: Response, coding: Coding, level: Level, must: bool) -> Response {
    let Ok(mut encoder) = Encoder::new(coding, level) else {
        // No memory for it.
        return response;
    };
    let (mut head, body) = response.into_parts();
    let body = match body {
        ResponseBody::Full(bytes) if bytes.len() <= TURN_BYTES => {
            let compressed = encoder
                .write(&bytes)
                .and_then(|()| encoder.finish())
                .ok()
                .filter(|compressed| must || compressed.len() < bytes.len());
            match compressed {
                // Whatever its type says, it does not get smaller.
                None => return Response::from_parts(head, ResponseBody::Full(bytes)),
                Some(compressed) => {
                    encoded(&mut head.headers, coding);
                    bytes::Bytes::from(compressed).into()
                }
            }
        }
        ResponseBody::Empty => return Response::from_parts(head, ResponseBody::Empty),
        body => {
            encoded(&mut head.headers, coding);
            ResponseBody::Stream(Box::pin(CompressedBody::new(body, encoder)))
        }
    };
    Response::from_parts(head, body)
}
