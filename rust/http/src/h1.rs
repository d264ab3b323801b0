//! HTTP/1.1 on hyper: how it is set up, what is checked before a handler sees a request, and what is put right before hyper
//! sees a response.
//!
//! hyper parses strictly; what it still lets through is refused here with 400 and a close, because behind a proxy that reads
//! the same bytes in another way each of these is a way to smuggle a request: transfer codings other than one `chunked`, a length
//! beside `chunked`, no valid single `Host`, targets that are neither a path nor a URL of ours.
//!
//! Responses: framing belongs to this module. A handler's `Transfer-Encoding` is dropped, and a `Content-Length` that does not
//! agree with the body makes hyper count: bytes over it are not written, and when they are missing the connection is cut. Either
//! way the next response on the connection begins where the client expects it.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};
use http_body::{Body as _, Frame as BodyFrame, SizeHint};
use hyper::{body::Incoming, server::conn::http1};

use crate::body::{Aborted, Body, ResponseBody};
use crate::config::Config;
use crate::direct::DIRECT_BYTES_MIN;
use crate::edge::forwarded::{self, ClaimsRemoved, is_forwarding};
use crate::framing::HeadMarks;
use crate::h1_io::{Phase, Shared};
use crate::known_host::KnownHost;
use crate::record::{Meter, Record};
use crate::refusal::{
    BODY_TOO_LARGE, Refusal, bad, connect, repeated_host, repeated_length, target_too_long,
};
use crate::registry::Registry;
use crate::service::{
    ConnectionInfo, Handler, Hints, Permit, Request, Response, ResponseFuture, Upgrade,
};
use crate::set_back;

/// hyper, set up. The timers of hyper stay off: the sweep has separate ones for heads and idleness.
pub(crate) fn builder(config: &Config) -> http1::Builder {
    let limits = &config.limits;
    let mut builder = http1::Builder::new();
    builder
        .half_close(false)
        .auto_date_header(config.date_header)
        .pipeline_flush(false)
        .header_read_timeout(None)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.buffer_bytes_max.max(limits.head_bytes_max).max(8192));
    if limits.header_count_max != 100 {
        // 100 is hyper's own, and the only number for which it needs no allocation.
        builder.max_headers(limits.header_count_max);
    }
    builder
}

/// What hyper calls for each request of one connection.
pub(crate) struct ConnectionService {
    pub(crate) handler: Rc<dyn Handler>,
    pub(crate) info: Rc<ConnectionInfo>,
    pub(crate) shared: Rc<Shared>,
    pub(crate) registry: Rc<Registry>,
    pub(crate) target_bytes_max: usize,
    pub(crate) body_bytes_max: u64,
    pub(crate) unread_bytes_max: u64,
    pub(crate) linger_bytes_max: u64,
    pub(crate) kept: Rc<Kept>,
    pub(crate) known_host: KnownHost,
    /// The peer is believed when it says whom it speaks for.
    pub(crate) is_trusted: bool,
}

/// What outlives hyper's connection when a body is read past it: the future of the response, and a head that makes another
/// hyper connection treat the response as the first one would have.
#[derive(Default)]
pub(crate) struct Kept {
    /// Number of the request whose response is waited for.
    in_flight: Cell<Option<u64>>,
    /// The future is kept when hyper drops it.
    keeping: Cell<bool>,
    /// Boxed: hardly ever there, looked for at each request.
    exchange: Cell<Option<Box<Exchange>>>,
    twin: RefCell<Vec<u8>>,
}

impl Kept {
    /// Number of the request whose response is waited for.
    pub(crate) fn in_flight(&self) -> Option<u64> {
        self.in_flight.get()
    }

    /// Runs `take_apart`, which drops hyper's connection, and keeps the response that is waited for.
    pub(crate) fn keep_exchange<T>(
        &self,
        take_apart: impl FnOnce() -> T,
    ) -> (T, Option<Box<Exchange>>) {
        self.keeping.set(true);
        let parts = take_apart();
        self.keeping.set(false);
        (parts, self.exchange.take())
    }

    /// The next call of the service is for the twin, whose bytes are returned, and is answered by `exchange`.
    pub(crate) fn resume(&self, exchange: Exchange, close: bool) -> Bytes {
        self.exchange.set(Some(Box::new(exchange)));
        let mut twin = self.twin.take();
        if close {
            // Of several, the last one counts.
            twin.extend_from_slice(b"connection: close\r\n");
        }
        twin.extend_from_slice(b"\r\n");
        twin.into()
    }
}

/// The part of a head that decides how hyper writes the response, as the head of a request without a body. The line that ends
/// it is left out.
fn twin_of(head: &http::request::Parts) -> Vec<u8> {
    let mut twin = Vec::with_capacity(128);
    twin.extend_from_slice(head.method.as_str().as_bytes());
    twin.extend_from_slice(if head.version == Version::HTTP_10 {
        b" / HTTP/1.0\r\n"
    } else {
        b" / HTTP/1.1\r\n"
    });
    for name in [CONNECTION, TE] {
        for value in head.headers.get_all(&name) {
            twin.extend_from_slice(name.as_str().as_bytes());
            twin.extend_from_slice(b": ");
            twin.extend_from_slice(value.as_bytes());
            twin.extend_from_slice(b"\r\n");
        }
    }
    twin
}

impl hyper::service::Service<http::Request<Incoming>> for ConnectionService {
    type Response = http::Response<Outgoing>;
    type Error = Aborted;
    type Future = InFlight;

    fn call(&self, request: http::Request<Incoming>) -> InFlight {
        let exchange = match self.kept.exchange.take() {
            Some(kept) => *kept,
            None => self.start(request),
        };
        self.kept.in_flight.set(Some(exchange.number));
        InFlight {
            exchange: Some(exchange),
            kept: self.kept.clone(),
        }
    }
}

impl ConnectionService {
    /// Large values are made where they stay, as far as that goes: moving one is dear.
    fn start(&self, request: http::Request<Incoming>) -> Exchange {
        let (head, incoming) = request.into_parts();
        let shared = &self.shared;
        shared.enter(Phase::Busy);
        self.registry.count_request();
        let number = self.registry.requests();
        let meter = shared
            .recorder
            .as_ref()
            .map(|recorder| recorder.begin(&self.info, &head, number));
        let is_last = shared.begin_request();
        let is_head = head.method == Method::HEAD;
        let is_http_10 = head.version == Version::HTTP_10;
        let open = Open {
            shared: shared.clone(),
            meter: meter.clone(),
            complete: false,
        };
        Exchange {
            answer: self.answer(head, incoming, number, meter),
            number,
            open: Some(open),
            is_head,
            is_http_10,
            is_last,
        }
    }

    /// Has the request answered, by its handler or, if it must not be served, at once.
    fn answer(
        &self,
        head: http::request::Parts,
        incoming: Incoming,
        number: u64,
        meter: Option<Rc<Meter>>,
    ) -> ResponseFuture {
        let shared = &self.shared;
        let mut request = Request {
            head,
            body: Body::empty(),
            hints: Hints::default(),
            has_upgrade_field: false,
            upgrade: None,
            record: Record(meter),
            arrival: None,
            permit: Permit::default(),
        };
        let head = &mut request.head;
        let fields = Fields::of(&head.headers);
        let marks = shared.next_head();
        let length = incoming.size_hint().exact();
        let refusal = self
            .refuse(head, &fields, marks)
            .or_else(|| (length > Some(self.body_bytes_max)).then(|| BODY_TOO_LARGE.clone()));
        if let Some(refusal) = refusal {
            shared.trouble(&refusal);
            let mut response = refusal.to_response();
            self.handler.refused(head, &request.record, &mut response);
            return response.into();
        }
        let has_forwarding = fields.forwarding;
        request.has_upgrade_field = fields.upgrade;
        if request.has_upgrade_field && wants_websocket(head) {
            if let Some(meter) = &request.record.0 {
                meter.asks_for_websocket();
            }
            request.upgrade = Some(Upgrade::http1(shared.clone()));
        }
        to_origin_form(head);
        if has_forwarding && !self.is_trusted {
            forwarded::remove(&mut head.headers, is_forwarding);
            head.extensions.insert(ClaimsRemoved);
        }
        if head.version != Version::HTTP_10 {
            shared.open_hints(number);
            request.hints = Hints::http1(shared.clone(), number);
        }
        if length >= Some(DIRECT_BYTES_MIN) {
            *self.kept.twin.borrow_mut() = twin_of(head);
        }
        if !incoming.is_end_stream() {
            let (unread_max, linger_max) = (self.unread_bytes_max, self.linger_bytes_max);
            shared.unread.begin(number, head, unread_max, linger_max);
            let meter = request.record.0.clone();
            request.body = Body::http1(incoming, meter, shared, number, self.body_bytes_max);
        }
        self.handler.call(request)
    }
}

/// The fields that decide what a request is. One walk over the map costs less than a look-up of each.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a HeaderValue>,
    hosts: usize,
    coding: Option<&'a HeaderValue>,
    codings: usize,
    upgrade: bool,
    /// Something that only proxies are to write.
    forwarding: bool,
}

impl<'a> Fields<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            if name == HOST {
                fields.host = Some(value);
                fields.hosts += 1;
            } else if name == TRANSFER_ENCODING {
                fields.coding = Some(value);
                fields.codings += 1;
            } else if name == UPGRADE {
                fields.upgrade = true;
            } else if is_forwarding(name) {
                fields.forwarding = true;
            }
        }
        fields
    }
}

impl ConnectionService {
    /// Checks that hyper leaves to its user.
    fn refuse(
        &self,
        head: &http::request::Parts,
        fields: &Fields<'_>,
        marks: HeadMarks,
    ) -> Option<Refusal> {
        refuse_host(head, fields, &self.known_host)
            .or_else(|| refuse_framing(head, fields, marks))
            .or_else(|| refuse_target(head, self.target_bytes_max))
    }
}

/// RFC 9112, 3.2: exactly one valid `Host`; a client of HTTP/1.0 may leave it out.
fn refuse_host(
    head: &http::request::Parts,
    fields: &Fields<'_>,
    known: &KnownHost,
) -> Option<Refusal> {
    match (fields.host, fields.hosts) {
        (None, _) if head.version == Version::HTTP_10 => None,
        (None, _) => Some(bad("the request has no Host\n")),
        (Some(host), 1) if known.is_host(host.as_bytes()) => None,
        (Some(_), 2..) => Some(repeated_host()),
        (Some(_), _) => Some(bad("the Host is not a host name with an optional port\n")),
    }
}

/// RFC 9112, 2.2 and 6.1 to 6.3. Lengths that are malformed or differ are refused by hyper.
fn refuse_framing(
    head: &http::request::Parts,
    fields: &Fields<'_>,
    marks: HeadMarks,
) -> Option<Refusal> {
    if marks != HeadMarks::default() {
        return Some(if marks.length_and_coding {
            bad("the request has both Content-Length and Transfer-Encoding\n")
        } else if marks.repeated_length {
            repeated_length()
        } else {
            bad("a line of the request's head ends without CR\n")
        });
    }
    let coding = fields.coding?;
    if fields.codings > 1 {
        Some(bad("the request has more than one Transfer-Encoding\n"))
    } else if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        Some(bad("the only Transfer-Encoding served is chunked\n"))
    } else if head.version != Version::HTTP_11 {
        Some(bad("Transfer-Encoding needs HTTP/1.1\n"))
    } else {
        None
    }
}

/// A path, or `*` for OPTIONS.
pub(crate) fn is_origin_form(target: &str, method: &Method) -> bool {
    target.starts_with('/') || (target == "*" && method == Method::OPTIONS)
}

/// RFC 9112, 3.2: a path, `*` for OPTIONS, or a URL; authority form belongs to CONNECT, which makes a proxy.
fn refuse_target(head: &http::request::Parts, target_bytes_max: usize) -> Option<Refusal> {
    if head.method == Method::CONNECT {
        return Some(connect());
    }
    let uri = &head.uri;
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    if target.len() > target_bytes_max {
        return Some(target_too_long());
    }
    let is_ours = match (uri.scheme_str(), uri.authority()) {
        (None, None) => is_origin_form(target, &head.method),
        (Some("http" | "https"), Some(authority)) => {
            !authority.as_str().is_empty()
                && is_host(authority.as_str().as_bytes())
                && (target.is_empty() || target.starts_with(['/', '?']))
        }
        _ => false,
    };
    (!is_ours).then(|| bad("the request target is neither a path nor a URL of this server\n"))
}

/// The bytes of a `reg-name` (RFC 3986, 3.2.2), but for the comma: a list of hosts is no host.
static REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let value = byte as u8;
        table[byte] = value.is_ascii_alphanumeric() || is_one_of(value, b"-._~%!$&'()*+;=");
        byte += 1;
    }
    table
};

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

/// `uri-host [ ":" port ]` of RFC 9110, 7.2, which may be empty.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let bracketed = value.first() == Some(&b'[');
    let (name, port) = if bracketed {
        let Some(end) = value.iter().position(|&byte| byte == b']') else {
            return false;
        };
        (&value[1..end], &value[end + 1..])
    } else {
        let end = value
            .iter()
            .position(|&byte| byte == b':')
            .unwrap_or(value.len());
        value.split_at(end)
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let name_fits = if bracketed {
        name.contains(&b':')
            && name
                .iter()
                .all(|&byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
    } else {
        name.iter().all(|&byte| REG_NAME[usize::from(byte)])
    };
    port_fits && name_fits
}

/// A URL as target counts as its path, and its authority replaces `Host` (RFC 9112, 3.2.2).
fn to_origin_form(head: &mut http::request::Parts) {
    if head.uri.scheme().is_none() {
        return;
    }
    let uri = std::mem::take(&mut head.uri).into_parts();
    if let Some(authority) = uri.authority
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    let target = uri
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    head.uri = match target.as_str().rsplit_once('?') {
        // `http://host?query`: the path is empty, which means the root.
        Some(("" | "/", query)) => format!("/?{query}").parse().unwrap_or_default(),
        _ => Uri::from(target),
    };
}

/// RFC 6455, 4.1: GET, HTTP/1.1, no body, and both fields.
fn wants_websocket(head: &http::request::Parts) -> bool {
    head.method == Method::GET
        && head.version == Version::HTTP_11
        && !head.headers.contains_key(TRANSFER_ENCODING)
        && head
            .headers
            .get(CONTENT_LENGTH)
            .is_none_or(|length| length == "0")
        && has_token(&head.headers, &UPGRADE, "websocket")
        && has_token(&head.headers, &CONNECTION, "upgrade")
}

pub(crate) fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// One request that is not over: from its head until hyper has the end of its response, or the connection is lost.
struct Open {
    shared: Rc<Shared>,
    meter: Option<Rc<Meter>>,
    complete: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut meter = self.meter.take();
        if !self.complete
            && let Some(meter) = meter.take()
        {
            meter.finish(true);
        }
        self.shared.request_over(meter);
    }
}

/// Waits for the handler's response.
pub(crate) struct Exchange {
    answer: ResponseFuture,
    /// Number of the request.
    number: u64,
    open: Option<Open>,
    is_head: bool,
    is_http_10: bool,
    /// The connection takes no further request.
    is_last: bool,
}

impl Future for Exchange {
    type Output = Result<http::Response<Outgoing>, Aborted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.answer {
            ResponseFuture::Ready(response) => response
                .take()
                .expect("hyper polls no further once the response is there"),
            ResponseFuture::Later(_) => {
                let response = ready!(self.poll_handler(cx));
                // Frees what the handler held before its response is written.
                self.answer = ResponseFuture::Ready(None);
                response
            }
        };
        let open = self
            .open
            .take()
            .expect("hyper polls no further once the response is there");
        open.shared.close_hints();
        Poll::Ready(Ok(self.finish(response, open)))
    }
}

/// The response that a hyper connection waits for.
pub(crate) struct InFlight {
    /// Gone once it is ready.
    exchange: Option<Exchange>,
    kept: Rc<Kept>,
}

impl Future for InFlight {
    type Output = Result<http::Response<Outgoing>, Aborted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let exchange = self
            .exchange
            .as_mut()
            .expect("hyper polls no further once the response is there");
        let response = ready!(Pin::new(exchange).poll(cx));
        self.exchange = None;
        self.kept.in_flight.set(None);
        Poll::Ready(response)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.exchange.is_some() {
            self.kept.in_flight.set(None);
            if self.kept.keeping.get() {
                self.kept.exchange.set(self.exchange.take().map(Box::new));
            }
        }
    }
}

impl Exchange {
    /// Number of the request.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The response of a handler that takes its time, or what the connection answers in its place, even when the handler has
    /// an answer to the same trouble.
    fn poll_handler(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        let refusal = |exchange: &Self| {
            let open = exchange.open.as_ref()?;
            let refusal = open.shared.take_refusal(exchange.number)?;
            let mut response = refusal.to_response();
            if let Some(meter) = &open.meter {
                meter.add_name(response.headers_mut());
            }
            Some(response)
        };
        if let Some(refused) = refusal(self) {
            return Poll::Ready(refused);
        }
        let polled = Pin::new(&mut self.answer).poll(cx);
        // The handler's poll may have found it.
        match refusal(self) {
            Some(refused) => Poll::Ready(refused),
            None => polled,
        }
    }

    /// Runs the handler while no hyper connection does; true once its response is there and waits for one.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> bool {
        if let ResponseFuture::Later(_) = self.answer
            && let Poll::Ready(response) = self.poll_handler(cx)
        {
            self.answer = ResponseFuture::ready(response);
        }
        matches!(self.answer, ResponseFuture::Ready(_))
    }

    fn finish(&self, response: Response, mut open: Open) -> http::Response<Outgoing> {
        let (mut head, mut body) = response.into_parts();
        let shared = &open.shared;
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if head.status.is_informational() && !(switching && shared.has_takeover()) {
            // A service gives final responses only; a `101` without a takeover would leave a dead connection.
            head = http::Response::new(()).into_parts().0;
            head.status = StatusCode::INTERNAL_SERVER_ERROR;
            body = ResponseBody::Empty;
        }
        if !switching {
            drop(shared.take_takeover());
        }
        let mut declared = declare(&mut head.headers);
        let exact = body.size_hint().exact();
        let bodyless = self.is_head
            || switching
            || matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        if matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::SWITCHING_PROTOCOLS
        ) {
            // RFC 9110, 8.6.
            head.headers.remove(CONTENT_LENGTH);
            declared = Declared::No;
        }
        let mut count = false;
        match declared {
            Declared::Length(length) => {
                // Of a 304, hyper writes the length only when it does not know better.
                count = if bodyless {
                    head.status == StatusCode::NOT_MODIFIED
                } else {
                    exact.is_some_and(|exact| exact != length)
                };
            }
            Declared::No if self.is_head => {
                if let Some(length @ 1..) = exact {
                    head.headers.insert(CONTENT_LENGTH, length.into());
                }
            }
            Declared::No => {
                if self.is_http_10 && !bodyless && exact.is_none() {
                    // The end of the connection is the end of the body.
                    head.headers
                        .insert(CONNECTION, HeaderValue::from_static("close"));
                    shared.close_delimited.set(true);
                }
            }
            Declared::Invalid => {
                head = http::Response::new(()).into_parts().0;
                head.status = StatusCode::INTERNAL_SERVER_ERROR;
                body = ResponseBody::Empty;
            }
        }
        if shared.own_date.get() && !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, set_back::date());
        }
        let leaves_body =
            shared.unread.is_of(self.number) && self.settle_body(shared, &head.headers);
        if leaves_body || (self.is_last && !switching) {
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.is_http_10 && has_token(&head.headers, &CONNECTION, "close") {
            // Or hyper adds `keep-alive` to it.
            head.version = Version::HTTP_10;
        }
        if bodyless {
            // Whatever it holds is not written; a stream is dropped, not run.
            open.complete = true;
            body = ResponseBody::Empty;
        }
        if let Some(meter) = &open.meter {
            meter.responded(head.status, &mut head.headers);
        }
        open.complete |= body.is_end_stream() && !count;
        http::Response::from_parts(
            head,
            Outgoing {
                body,
                open,
                count,
                aborted: false,
            },
        )
    }
}

impl Exchange {
    /// Decides what becomes of the connection behind a request with a body; true when the response has to say that it is the
    /// last.
    fn settle_body(&self, shared: &Shared, headers: &HeaderMap) -> bool {
        let is_last =
            self.is_last || shared.is_draining() || has_token(headers, &CONNECTION, "close");
        let to_come = shared.body_to_come();
        shared.unread.settle(self.number, is_last, to_come)
    }
}

pub(crate) enum Declared {
    No,
    Length(u64),
    Invalid,
}

/// Reads the length that a response declares, and takes out a coding: framing is hyper's. One walk over the map costs less
/// than a look-up of each.
pub(crate) fn declare(headers: &mut HeaderMap) -> Declared {
    let mut declared = Declared::No;
    let mut has_coding = false;
    for (name, value) in &*headers {
        if name == CONTENT_LENGTH {
            declared = match (declared, length_of(value)) {
                (Declared::No, Some(length)) => Declared::Length(length),
                _ => Declared::Invalid,
            };
        } else if name == TRANSFER_ENCODING {
            has_coding = true;
        }
    }
    if has_coding {
        headers.remove(TRANSFER_ENCODING);
    }
    declared
}

pub(crate) fn length_of(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The body of a response as hyper sees it.
pub(crate) struct Outgoing {
    body: ResponseBody,
    open: Open,
    /// The body's size differs from the declared length: hyper has to count, so it is not told the size.
    count: bool,
    /// The body was aborted, and hyper had its chance to write what came before.
    aborted: bool,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        if self.aborted {
            return Poll::Ready(Some(Err(Aborted)));
        }
        let item = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &item {
            Some(Ok(frame)) => {
                if let (Some(meter), Some(data)) = (&self.open.meter, frame.data_ref()) {
                    meter.sent(data.len());
                }
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.open.complete = true;
                }
            }
            Some(Err(Aborted)) => {
                // hyper drops what it has not written when a body fails; it writes when a body pends.
                self.aborted = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => self.open.complete = true,
        }
        Poll::Ready(item)
    }

    fn is_end_stream(&self) -> bool {
        !self.count && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.count {
            SizeHint::default()
        } else {
            self.body.size_hint()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn hosts() {
        for host in [
            "",
            "a",
            "a.b:80",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:80",
            "a:",
            "xn--a",
            "a_b",
            "h%20",
        ] {
            assert!(is_host(host.as_bytes()), "{host:?} is a host");
        }
        for host in [
            "a b", "a:b", "a:123456", "[::1", "[]", "[::1]x", "a/b", "a@b", "a,b", "a:1:2",
            "\u{e4}", "a?b",
        ] {
            assert!(!is_host(host.as_bytes()), "{host:?} is no host");
        }
    }
}
