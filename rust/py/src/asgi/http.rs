//! One HTTP request between the connection and the application: `receive()`, `send()`, and the response they make.
//!
//! # Who sees what
//! ```text
//!                    receive() <- request body <- Body::poll_data      (pulled: the socket is read when the application asks)
//!   application
//!                    send()    -> held head -> Response -> Later       (the head waits for the first body event)
//!                              -> queue     -> ResponseStream          (pulled by the connection)
//! ```
//! [`Phase`] is the response as the application has sent it:
//! ```text
//! Start --http.response.start--> Head --body, more--> Streaming --body, last--> Done
//!   |                              |--body, last--------------------------------^
//!   |                              |--no body allowed (HEAD, 204, 304), more--> Discarding --last--^
//!   |                              |--body, last, trailers come--> Trailers --http.response.trailers, last--^
//!   +--coroutine ended: 500--------+--coroutine ended: 500--> Done
//! ```
//! Files (`pathsend`, `zerocopysend`) are body events like others. `Streaming` too goes to `Trailers` when they come and the client
//! takes them; when it does not, the body's end is the response's, and they are taken and dropped.
//!
//! The head is held back because the first body event tells how to frame the response: most responses are complete then and
//! go out in one write with a length. An empty body event with `more_body` is how an application flushes the head.
//!
//! # Waiting
//! `send()` takes the message at once and answers without suspending, unless more than `send_buffer_bytes` is unsent (or an
//! early hint is on its way): then its awaitable waits for room. `receive()` waits for the client. Whatever waits is served by
//! the *pump*, a task of the loop that exists while something waits: it polls the body with a waker of its own, and resolves
//! waiters from there. No Python code runs inside the connection's own poll, except the first segment of a request
//! ([`super::task`]), so hyper is never entered twice.
//!
//! # The client goes away
//! The connection drops [`Later`] or [`ResponseStream`] before its end. Then `receive()` gives `http.disconnect`, and `send()`
//! raises `ClientDisconnected`, an `OSError`, as ASGI 2.4 demands. The application is not cancelled: it may have work to finish.
//! A worker that stops tells `receive()` the same for half of its grace period, while `send()` still reaches the client
//! ([`Application::leave`]).
//!
//! # Invariants
//! - Nothing is borrowed while Python code runs. Messages are read completely before the state is changed.
//! - All state is thread-bound ([`LoopBound`]); the object itself may die anywhere.
//! - An exchange is used again only when nobody else has a reference; [`State::reset`] names every field.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    io, mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use framegate_http::{
    body::{Aborted, Body, ResponseBody},
    compression::AsIs,
    sendfile::FileSender,
    service::{HintSent, Hints, Permit, Request, Response},
    trace::Span,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Frame as BodyFrame;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyValueError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::{
    Application,
    awaitable::{Waiter, awaitable},
    elsewhere,
    file::{self, Chunk},
    function,
    head_memo::ReadHead,
    message::{self, HttpMessage, Kind},
    owner::{Ended, Exchange, Operation, Owner},
    scope,
};
use crate::event_loop::LoopCore;
use crate::home::LoopBound;
use crate::routes::{Answer, RouteTable};
use crate::topics::handlers::{self, Pending};
use crate::tracing::OpenSpan;

/// Body bytes that an application may send to nobody (HEAD, 204, 304) before `send()` says that nobody listens. A streaming
/// handler that never looks at the method would otherwise run for ever.
const DISCARD_BYTES_MAX: u64 = 1024 * 1024;
/// What an event counts for at least, so that empty ones come to an end too.
const DISCARD_EVENT_BYTES: u64 = 1024;

/// The response as the application has sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Head,
    Streaming,
    Discarding,
    /// The body is complete, trailers follow.
    Trailers,
    Done,
}

/// What becomes of `http.response.trailers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trailers {
    /// None were announced, or all have come.
    None,
    /// They follow the body.
    Sent,
    /// The client did not say that it takes trailers, or there is no body that they could follow.
    Dropped,
}

/// The request's body as the application has received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    /// More may come.
    Open,
    /// The last `http.request` event was given out.
    Complete,
    /// It broke off: the client is gone or sent rubbish.
    Failed,
}

/// How the stream of a response ends, once that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    Open,
    Complete,
    Aborted,
}

/// Status and fields of `http.response.start`.
struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

struct State {
    core: Rc<LoopCore>,
    /// `None` while the exchange is in the pool.
    application: RefCell<Option<Rc<Application>>>,
    phase: Cell<Phase>,
    method: RefCell<Method>,
    /// It is for a native route: what the coroutine returns is the response.
    routes: RefCell<Option<Py<RouteTable>>>,
    /// What its handler was given of the request, if it asked.
    given: RefCell<Option<Py<PyAny>>>,
    /// The application's coroutine has ended.
    ended: Cell<bool>,
    /// Kept until it has.
    permit: Cell<Permit>,
    /// The application's task, while it has one and goes on.
    task: RefCell<Option<Py<PyAny>>>,
    /// The connection gave up on this request.
    disconnected: Cell<bool>,

    body: RefCell<Body>,
    incoming: Cell<Incoming>,
    /// A piece of the body has left it.
    begun: Cell<bool>,
    /// Arrived while somebody waited; taken by the next `receive()`.
    chunk: RefCell<Option<Bytes>>,

    hints: RefCell<Hints>,
    hint: RefCell<Option<Pin<Box<HintSent>>>>,
    held: RefCell<Option<Head>>,
    /// The request's header map, until it is used for the response.
    spare_headers: RefCell<HeaderMap>,
    trailers: Cell<Trailers>,
    trailer_fields: RefCell<Option<HeaderMap>>,
    /// The body begins with a file: nothing may look into it or change it.
    as_is: Cell<bool>,
    /// For files in the response, where there is one.
    file_sender: RefCell<Option<FileSender>>,
    /// What its body is, if that is a view of a topic.
    view: RefCell<Option<Pending>>,
    /// `content-length` of the response, as the application said it.
    length: Cell<Option<u64>>,
    /// Body bytes sent (or discarded) so far.
    sent: Cell<u64>,
    /// Its span, if that is recorded.
    span: OpenSpan,
    /// To be taken by the connection.
    response: RefCell<Option<Response>>,
    response_waker: RefCell<Option<Waker>>,
    /// Chunks of a streamed response, not yet taken by the connection.
    queue: RefCell<VecDeque<Chunk>>,
    unsent: Cell<u64>,
    end: Cell<StreamEnd>,
    stream_waker: RefCell<Option<Waker>>,

    receivers: RefCell<Vec<Waiter>>,
    senders: RefCell<Vec<Waiter>>,
    /// True while a pump exists; its waker.
    pumping: Cell<bool>,
    pump: RefCell<Option<Waker>>,
}

impl State {
    fn new(core: Rc<LoopCore>) -> Self {
        Self {
            core,
            application: RefCell::default(),
            phase: Cell::new(Phase::Done),
            method: RefCell::default(),
            routes: RefCell::default(),
            given: RefCell::default(),
            ended: Cell::new(true),
            permit: Cell::default(),
            task: RefCell::default(),
            disconnected: Cell::new(false),
            body: RefCell::new(Body::empty()),
            incoming: Cell::new(Incoming::Complete),
            begun: Cell::new(false),
            chunk: RefCell::default(),
            hints: RefCell::default(),
            hint: RefCell::default(),
            held: RefCell::default(),
            spare_headers: RefCell::default(),
            trailers: Cell::new(Trailers::None),
            trailer_fields: RefCell::default(),
            as_is: Cell::new(false),
            file_sender: RefCell::default(),
            view: RefCell::default(),
            length: Cell::new(None),
            sent: Cell::new(0),
            span: OpenSpan::default(),
            response: RefCell::default(),
            response_waker: RefCell::default(),
            queue: RefCell::default(),
            unsent: Cell::new(0),
            end: Cell::new(StreamEnd::Open),
            stream_waker: RefCell::default(),
            receivers: RefCell::default(),
            senders: RefCell::default(),
            pumping: Cell::new(false),
            pump: RefCell::default(),
        }
    }

    /// Sets every field for a new request. The pattern names them all: a new field cannot be forgotten.
    fn reset(&self, application: Rc<Application>, request: &mut Request) {
        let Self {
            core: _,
            application: application_cell,
            phase,
            method,
            routes,
            given,
            ended,
            permit,
            task,
            disconnected,
            body,
            incoming,
            begun,
            chunk,
            hints,
            hint,
            held,
            spare_headers,
            trailers,
            trailer_fields,
            as_is,
            file_sender,
            view,
            length,
            sent,
            span,
            response,
            response_waker,
            queue,
            unsent,
            end,
            stream_waker,
            receivers,
            senders,
            pumping,
            pump,
        } = self;
        debug_assert!(
            !pumping.get() && receivers.borrow().is_empty() && senders.borrow().is_empty(),
            "an exchange is used again only when nothing waits for it"
        );
        debug_assert!(
            routes.borrow().is_none()
                && given.borrow().is_none()
                && chunk.borrow().is_none()
                && hint.borrow().is_none()
                && file_sender.borrow().is_none()
                && view.borrow().is_none()
                && span.is_clear(),
            "an exchange comes new or from `retire`, which lets go of these"
        );
        pump.take();
        let headers = mem::take(&mut request.head.headers);
        application_cell.replace(Some(application));
        phase.set(Phase::Start);
        method.replace(request.head.method.clone());
        ended.set(false);
        permit.set(std::mem::take(&mut request.permit));
        task.take();
        disconnected.set(false);
        body.replace(mem::replace(&mut request.body, Body::empty()));
        incoming.set(Incoming::Open);
        begun.set(false);
        hints.replace(mem::take(&mut request.hints));
        held.take();
        spare_headers.replace(headers);
        trailers.set(Trailers::None);
        trailer_fields.take();
        as_is.set(false);
        length.set(None);
        sent.set(0);
        response.take();
        response_waker.take();
        queue.borrow_mut().clear();
        unsent.set(0);
        end.set(StreamEnd::Open);
        stream_waker.take();
    }

    fn application(&self) -> PyResult<Rc<Application>> {
        self.application
            .borrow()
            .clone()
            .ok_or_else(|| PyRuntimeError::new_err("this request is over"))
    }

    /// No event but `http.disconnect` will come.
    fn is_over(&self) -> bool {
        self.disconnected.get() || self.phase.get() == Phase::Done
    }

    // --- receive

    /// Looks for the next piece of the body; true when `receive()` has something to say.
    fn poll_incoming(&self, cx: &mut Context<'_>) -> bool {
        if self.chunk.borrow().is_some() || self.is_over() {
            return true;
        }
        match self.incoming.get() {
            Incoming::Failed => return true,
            Incoming::Complete => {
                let application = self.application.borrow();
                return application.as_ref().is_some_and(|one| one.is_leaving());
            }
            Incoming::Open => {}
        }
        let polled = self.body.borrow_mut().poll_data(cx);
        match polled {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(data))) => {
                self.begun.set(true);
                self.chunk.replace(Some(data));
            }
            // The last event may be empty.
            Poll::Ready(None) => {
                self.chunk.replace(Some(Bytes::new()));
            }
            Poll::Ready(Some(Err(_))) => self.incoming.set(Incoming::Failed),
        }
        true
    }

    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.incoming.get() == Incoming::Open
            && self
                .receivers
                .borrow()
                .iter()
                .any(|waiter| waiter.is_pending(py))
        {
            return Err(PyRuntimeError::new_err(
                "receive() is already being awaited: the request body can be read by one task at a time",
            ));
        }
        if !self.poll_incoming(&mut Context::from_waker(Waker::noop())) {
            return Ok(None);
        }
        let chunk = self.chunk.take();
        let event = PyDict::new(py);
        match chunk {
            Some(data) => {
                let complete = self.body.borrow().is_end_stream();
                if complete {
                    self.incoming.set(Incoming::Complete);
                }
                event.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
                event.set_item(intern!(py, "body"), PyBytes::new(py, &data))?;
                event.set_item(intern!(py, "more_body"), !complete)?;
            }
            None => event.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?,
        }
        Ok(Some(event.into_any()))
    }

    // --- send

    /// True when `send()` need not wait.
    fn has_room(&self, bound: u64) -> bool {
        self.hint.borrow().is_none() && self.unsent.get() <= bound
    }

    /// For the pump: true when whoever waits in `send()` should ask again.
    fn poll_room(&self, cx: &mut Context<'_>, bound: u64) -> bool {
        if self.disconnected.get() {
            return true;
        }
        let mut hint = self.hint.borrow_mut();
        if let Some(sending) = &mut *hint {
            if sending.as_mut().poll(cx).is_pending() {
                return false;
            }
            *hint = None;
        }
        drop(hint);
        // Half the bound: one wake-up for many chunks.
        self.unsent.get() <= bound / 2
    }

    /// `http.response.start`.
    fn start(&self, application: &Application, message: &HttpMessage<'_>) -> PyResult<()> {
        if self.phase.get() != Phase::Start {
            return Err(unexpected("http.response.start", self.phase.get()));
        }
        let status = message.status(&application.constants)?;
        let is_view = application.handlers.is_pending();
        if let Some(fields) = &message.headers
            && !is_view
            && message.trailers.is_none()
            && !status.is_informational()
            && let Some(ReadHead { headers, length }) = application.head_memo.get(
                fields,
                || self.spare_headers.take(),
                application.settings.fields_later,
            )
        {
            self.hold(application, status, headers, length, Trailers::None);
            return Ok(());
        }
        let mut trailers = Trailers::None;
        let mut headers = if status == StatusCode::EARLY_HINTS {
            HeaderMap::new()
        } else {
            if let Some(announced) = &message.trailers
                && announced.is_truthy()?
            {
                trailers = if takes_trailers(&self.spare_headers.borrow()) {
                    Trailers::Sent
                } else {
                    Trailers::Dropped
                };
            }
            self.spare_headers.take()
        };
        headers.clear();
        let mut fields = Fields::default();
        let mut view = None;
        let field = |name: HeaderName, value: HeaderValue| {
            if is_view && name.as_str() == handlers::FIELD {
                view = application.handlers.take_named(value.as_bytes());
                return Ok(());
            }
            if name == header::TRANSFER_ENCODING {
                // Framing is the connection's business.
                return Ok(());
            }
            if name == header::CONNECTION {
                fields.close |= has_token(&value, b"close");
                return Ok(());
            }
            if name == header::CONTENT_LENGTH {
                // The connection writes the length of a body that is there; `begin` puts in what it cannot know.
                return fields.length(&value);
            }
            fields.server |= name == header::SERVER;
            headers.append(name, value);
            Ok(())
        };
        if let Some(fields) = &message.headers {
            message::each_field(fields, &application.header_cache, field)?;
        }
        if status == StatusCode::EARLY_HINTS {
            self.hint
                .replace(Some(Box::pin(self.hints.borrow().send(headers))));
            return Ok(());
        }
        if status.is_informational() {
            return Err(PyValueError::new_err(format!(
                "status {status} is informational; the only one an application may send is 103",
            )));
        }
        if fields.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        application
            .settings
            .add_headers(&mut headers, fields.server);
        let length = fields.content_length;
        if let Some(view) = view {
            if headers.contains_key(header::CONTENT_ENCODING) {
                return Err(PyRuntimeError::new_err(
                    "the frames of a topic cannot be encoded on their way: keep the middleware that compresses from this response",
                ));
            }
            view.sender.becomes(self.hints.borrow().parcel_sender());
            self.as_is.set(true);
            self.view.replace(Some(view));
        } else if let Some(fields) = &message.headers {
            application.head_memo.note(fields, &headers, length);
        }
        self.hold(application, status, headers, length, trailers);
        Ok(())
    }

    /// Keeps the head until the first body event. Everything about it is known to be right: now the state may change.
    fn hold(
        &self,
        application: &Application,
        status: StatusCode,
        headers: HeaderMap,
        length: Option<u64>,
        trailers: Trailers,
    ) {
        if let Some(tracing) = &application.tracing {
            Python::attach(|py| self.span.responds(py, tracing));
        }
        self.length.set(length);
        self.trailers.set(trailers);
        self.held.replace(Some(Head { status, headers }));
        self.phase.set(Phase::Head);
    }

    /// `http.response.early_hint`: `links` are values of `Link` fields.
    fn early_hint(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let phase = self.phase.get();
        if phase == Phase::Done {
            return Err(unexpected("http.response.early_hint", phase));
        }
        let mut headers = HeaderMap::new();
        let links = message.get_item(intern!(message.py(), "links"))?;
        if let Some(links) = links.filter(|links| !links.is_none()) {
            for link in links.try_iter()? {
                let link = link?;
                let value = message::header_value(&link)
                    .map_err(|error| message::in_field(link.py(), &error, "link"))?;
                headers.append(header::LINK, value);
            }
        }
        // It may come until the body's end, but once the head has left there is nothing to hint at.
        if matches!(phase, Phase::Start | Phase::Head) && !headers.is_empty() {
            self.hint
                .replace(Some(Box::pin(self.hints.borrow().send(headers))));
        }
        Ok(())
    }

    /// `http.response.trailers`.
    fn send_trailers(
        &self,
        application: &Application,
        message: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let (phase, trailers) = (self.phase.get(), self.trailers.get());
        let dropped = phase == Phase::Done && trailers == Trailers::Dropped;
        if phase != Phase::Trailers && !dropped {
            return Err(unexpected_trailers(phase, trailers));
        }
        let py = message.py();
        let mut fields = HeaderMap::new();
        if let Some(headers) = message.get_item(intern!(py, "headers"))? {
            message::each_field(&headers, &application.header_cache, |name, value| {
                if is_no_trailer(&name) {
                    return Err(PyValueError::new_err(format!(
                        "the field {name} cannot be a trailer: it is needed before the body"
                    )));
                }
                fields.append(name, value);
                Ok(())
            })?;
        }
        let more = match message.get_item(intern!(py, "more_trailers"))? {
            Some(more) => more.is_truthy()?,
            None => false,
        };
        if !dropped {
            let mut all = self.trailer_fields.borrow_mut();
            all.get_or_insert_default().extend(fields);
        }
        if !more {
            self.trailers.set(Trailers::None);
            if !dropped {
                self.end.set(StreamEnd::Complete);
                self.finish();
            }
        }
        Ok(())
    }

    /// `http.response.body`.
    fn send_body(
        &self,
        exchange: &Bound<'_, HttpExchange>,
        chunk: Chunk,
        more: bool,
    ) -> PyResult<()> {
        match self.phase.get() {
            Phase::Head => self.begin(exchange, chunk, more),
            Phase::Streaming => self.go_on(chunk, more),
            Phase::Discarding => self.discard(chunk.len(), more),
            phase @ (Phase::Start | Phase::Trailers | Phase::Done) => {
                Err(unexpected("http.response.body", phase))
            }
        }
    }

    /// `http.response.pathsend`.
    fn send_path(
        &self,
        exchange: &Bound<'_, HttpExchange>,
        message: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let phase = self.phase.get();
        if phase != Phase::Head {
            return Err(unexpected("http.response.pathsend", phase));
        }
        let chunk = file::of_path(message, self.length.get())?;
        self.as_is.set(true);
        self.send_body(exchange, chunk, false)
    }

    /// `http.response.zerocopysend`.
    fn send_file(
        &self,
        exchange: &Bound<'_, HttpExchange>,
        message: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let phase = self.phase.get();
        if !matches!(phase, Phase::Head | Phase::Streaming | Phase::Discarding) {
            return Err(unexpected("http.response.zerocopysend", phase));
        }
        let more = match message.get_item(intern!(message.py(), "more_body"))? {
            Some(more) => more.is_truthy()?,
            None => false,
        };
        let chunk = file::of_file(message)?;
        if phase == Phase::Head {
            self.as_is.set(true);
        }
        self.send_body(exchange, chunk, more)
    }

    /// The first body event: the head goes out with it.
    fn begin(
        &self,
        exchange: &Bound<'_, HttpExchange>,
        mut chunk: Chunk,
        more: bool,
    ) -> PyResult<()> {
        let head = self
            .held
            .take()
            .expect("the phase is Head exactly while a head is held");
        let Head {
            status,
            mut headers,
        } = head;
        let bodyless =
            self.is_head() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let size = chunk.len();
        let view = self.view.take();
        if let Some(view) = view {
            if size > 0 {
                return Err(PyRuntimeError::new_err(
                    "the body of this response is a view of a topic; nothing can be added to it",
                ));
            }
            if let Some(length) = self.length.get() {
                headers.insert(header::CONTENT_LENGTH, length.into());
            }
            self.respond(status, headers, view.body);
            if more {
                // The end of an empty body is still to come.
                self.phase.set(Phase::Discarding);
            } else {
                self.finish();
            }
            return Ok(());
        }
        if bodyless {
            if self.trailers.get() == Trailers::Sent {
                self.trailers.set(Trailers::Dropped);
            }
            if let Some(length) = self.length.get() {
                headers.insert(header::CONTENT_LENGTH, length.into());
            } else if self.is_head()
                && !more
                && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            {
                // What GET would have said.
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
            }
            self.respond(status, headers, ResponseBody::Empty);
            if more {
                self.phase.set(Phase::Discarding);
                return self.discard(size, true);
            }
            self.finish();
            return Ok(());
        }
        let excess = self.length.get().filter(|&length| size > length);
        if let Some(length) = excess {
            chunk.truncate(length);
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let short = self.length.get().is_some_and(|length| size < length);
        let trailers = self.trailers.get() == Trailers::Sent;
        if (!more && !short && !trailers) || excess.is_some() {
            match chunk {
                Chunk::Data(data) => self.respond(status, headers, data.into()),
                Chunk::File(_) => {
                    let bytes = chunk.len();
                    self.sent.set(bytes);
                    self.length.set(Some(bytes));
                    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
                    self.push(chunk);
                    self.end.set(StreamEnd::Complete);
                    self.respond(status, headers, ResponseStream::body(exchange));
                }
            }
            self.finish();
            return excess.map_or(Ok(()), |length| Err(too_long(length)));
        }
        self.sent.set(size);
        if let Some(length) = self.length.get() {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        self.push(chunk);
        self.phase.set(Phase::Streaming);
        self.respond(status, headers, ResponseStream::body(exchange));
        if more { Ok(()) } else { self.end_body() }
    }

    /// A later body event.
    fn go_on(&self, chunk: Chunk, more: bool) -> PyResult<()> {
        let sent = self.sent.get() + chunk.len();
        if let Some(length) = self.length.get()
            && sent > length
        {
            // Nothing of it is sent: cutting the connection is the only way left to tell the client.
            self.end.set(StreamEnd::Aborted);
            self.finish();
            return Err(too_long(length));
        }
        self.sent.set(sent);
        self.push(chunk);
        let result = if more { Ok(()) } else { self.end_body() };
        self.wake_stream();
        result
    }

    /// The streamed body was sent to its end.
    fn end_body(&self) -> PyResult<()> {
        let sent = self.sent.get();
        if self.length.get().is_some_and(|length| sent < length) {
            self.end.set(StreamEnd::Aborted);
            self.finish();
            return Err(self.too_short());
        }
        if self.trailers.get() == Trailers::Sent {
            self.phase.set(Phase::Trailers);
        } else {
            self.end.set(StreamEnd::Complete);
            self.finish();
        }
        Ok(())
    }

    /// A body event of a response that has no body.
    fn discard(&self, bytes: u64, more: bool) -> PyResult<()> {
        let sent = self.sent.get() + bytes.max(DISCARD_EVENT_BYTES);
        self.sent.set(sent);
        if !more {
            self.finish();
        } else if sent > DISCARD_BYTES_MAX {
            self.disconnected.set(true);
            return Err(self.application()?.client_disconnected());
        }
        Ok(())
    }

    fn too_short(&self) -> PyErr {
        PyRuntimeError::new_err(format!(
            "the response body ended after {} of {} bytes promised by content-length",
            self.sent.get(),
            self.length.get().unwrap_or_default(),
        ))
    }

    fn push(&self, chunk: Chunk) {
        if chunk.len() == 0 {
            return;
        }
        if let Chunk::File(_) = chunk {
            // What may be compressed has to be in memory.
            let is_free = self.as_is.get()
                || self
                    .application()
                    .is_ok_and(|application| !application.settings.compresses);
            let sender = is_free.then(|| self.hints.borrow().file_sender()).flatten();
            self.file_sender.replace(sender);
        }
        self.unsent.set(self.unsent.get() + chunk.len());
        self.queue.borrow_mut().push_back(chunk);
    }

    /// Takes the next piece of the body out of the queue.
    fn poll_queue(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut queue = self.queue.borrow_mut();
        let Some(chunk) = queue.front_mut() else {
            return Poll::Ready(None);
        };
        let (data, last) = match chunk {
            Chunk::Data(data) => (mem::take(data), true),
            Chunk::File(part) => {
                let sender = self.file_sender.borrow();
                match ready!(part.poll_data(cx, sender.as_ref())) {
                    Ok(data) => (data, part.is_empty()),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
        };
        if last {
            queue.pop_front();
        }
        self.unsent.set(self.unsent.get() - data.len() as u64);
        Poll::Ready(Some(Ok(data)))
    }

    /// Tells the log, from a task of the loop, why a file did not reach its end.
    fn report_file(&self, error: &io::Error) {
        let Ok(application) = self.application() else {
            return;
        };
        let text = format!("a file could not be sent to its end, the response was cut: {error}");
        let core = self.core.clone();
        self.core.spawn(async move {
            Python::attach(|py| {
                application.log_error(py, &text);
                core.after_python(py);
            });
        });
    }

    fn respond(&self, status: StatusCode, headers: HeaderMap, body: ResponseBody) {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if self.as_is.get() {
            response.extensions_mut().insert(AsIs);
        }
        // One response per request: there is nothing to be dropped, and so nothing that could look.
        *self.response.borrow_mut() = Some(response);
        let waker = self.response_waker.take();
        if let Some(waker) = waker {
            self.core.wake(waker);
        }
    }

    /// The response is complete as far as the application goes.
    fn finish(&self) {
        self.phase.set(Phase::Done);
        // Unread bytes are the connection's business from here on.
        let body = self.body.replace(Body::empty());
        drop(body);
        self.wake_stream();
        if !self.receivers.borrow().is_empty() {
            self.wake_pump();
        }
    }

    fn wake_stream(&self) {
        let waker = self.stream_waker.take();
        if let Some(waker) = waker {
            self.core.wake(waker);
        }
    }

    fn wake_pump(&self) {
        let waker = self.pump.take();
        if let Some(waker) = waker {
            self.core.wake(waker);
        }
    }

    fn is_head(&self) -> bool {
        *self.method.borrow() == Method::HEAD
    }

    /// The connection gave up on this request. Runs no Python.
    fn disconnect(&self) {
        if self.disconnected.replace(true) {
            return;
        }
        drop(self.body.replace(Body::empty()));
        // A response that nobody fetched: its stream holds the exchange that holds it.
        let response = self.response.take();
        drop(response);
        self.queue.borrow_mut().clear();
        self.unsent.set(0);
        if !self.receivers.borrow().is_empty() || !self.senders.borrow().is_empty() {
            self.wake_pump();
        }
    }

    /// What the handler of a native route returned takes more than an answer: it is streamed, or something runs behind it. Then
    /// `framegate.app` goes on with the request, as an application does, and this is true.
    fn deliver(&self, py: Python<'_>, owner: &Owner, result: Ended<'_, '_>) -> PyResult<bool> {
        let (Ok(Some(value)), Phase::Start) = (result, self.phase.get()) else {
            return Ok(false);
        };
        let routes = self.routes.borrow().as_ref().map(|one| one.clone_ref(py));
        let (Some(routes), Owner::Http(exchange)) = (routes, owner) else {
            return Ok(false);
        };
        let table = routes.get();
        if !table.is_delivered(value)? {
            return Ok(false);
        }
        let application = self.application()?;
        let request = &self.spare_headers.borrow().clone();
        let scope = scope::of_answer(py, &application, &self.method.borrow(), request)?;
        let given = self.given.borrow().as_ref().map(|one| one.clone_ref(py));
        let positional = (
            routes.clone_ref(py),
            value,
            scope,
            exchange.getattr(py, intern!(py, "receive"))?,
            exchange.getattr(py, intern!(py, "send"))?,
            given,
        );
        let positional = positional.into_pyobject(py)?.unbind();
        let starter = &application.starter;
        starter.go_on(py, owner, table.deliverer(), positional)?;
        Ok(true)
    }

    /// The coroutine of a native route has ended: what it returned is the response.
    fn route_ended(
        &self,
        py: Python<'_>,
        application: &Application,
        routes: &Bound<'_, RouteTable>,
        result: Ended<'_, '_>,
    ) {
        let answer = match result {
            Ok(Some(value)) => routes.get().answer(value),
            Ok(None) => Err(PyRuntimeError::new_err(
                "the handler's coroutine was destroyed before its end",
            )),
            Err(error) => Err(error.clone_ref(py)),
        };
        let answer = answer.unwrap_or_else(|error| {
            let refusal = routes.get().refusal(py, &error);
            if refusal.is_none() {
                application.report_handler(py, &error);
                if let Some(tracing) = &application.tracing {
                    self.span.failed(py, tracing, &error);
                }
            }
            refusal.unwrap_or_else(|| Answer::status(StatusCode::INTERNAL_SERVER_ERROR))
        });
        self.span.clear();
        if self.disconnected.get() {
            self.finish();
        } else {
            self.respond_with(application, routes.get(), answer);
        }
    }

    /// The whole answer of a native route.
    fn respond_with(&self, application: &Application, routes: &RouteTable, answer: Answer) {
        let mut headers = self.spare_headers.take();
        let allowed = routes.cors(&headers);
        headers.clear();
        let names_server = answer.write(&mut headers);
        if let Some(allowed) = allowed {
            allowed.write(&mut headers);
        }
        application.settings.add_headers(&mut headers, names_server);
        let bodyless = matches!(
            answer.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let body = if self.is_head() && !bodyless {
            // What GET would have said.
            headers.insert(header::CONTENT_LENGTH, answer.body.len().into());
            ResponseBody::Empty
        } else {
            answer.body.into()
        };
        self.respond(answer.status, headers, body);
        self.finish();
    }

    /// An answer in place of the application's, when its head was not sent yet.
    fn respond_error(&self, status: StatusCode, text: Bytes) {
        let mut headers = self.spare_headers.take();
        headers.clear();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        let body = if self.is_head() {
            headers.insert(header::CONTENT_LENGTH, text.len().into());
            ResponseBody::Empty
        } else {
            ResponseBody::Full(text)
        };
        self.held.take();
        self.respond(status, headers, body);
        self.finish();
    }
}

/// What the fields of `http.response.start` say about framing.
#[derive(Default)]
struct Fields {
    content_length: Option<u64>,
    close: bool,
    /// The application names the server itself.
    server: bool,
}

impl Fields {
    fn length(&mut self, value: &HeaderValue) -> PyResult<()> {
        let length = value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| {
                PyValueError::new_err(format!("content-length {value:?} is not a length"))
            })?;
        if self.content_length.is_some_and(|known| known != length) {
            return Err(PyValueError::new_err(
                "content-length is given twice with different values",
            ));
        }
        self.content_length = Some(length);
        Ok(())
    }
}

/// `TE: trailers` (RFC 9110, 6.5.1): the client and everybody on the way to it keeps trailers.
fn takes_trailers(request: &HeaderMap) -> bool {
    let mut values = request.get_all(header::TE).iter();
    values.any(|value| has_token(value, b"trailers"))
}

/// RFC 9110, 6.5.1: fields that frame or route a message, or tell how to read it.
fn is_no_trailer(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONNECTION
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::HOST
            | header::MAX_FORWARDS
            | header::SET_COOKIE
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    )
}

/// Of a comma-separated list.
fn has_token(value: &HeaderValue, wanted: &[u8]) -> bool {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted))
}

fn too_long(length: u64) -> PyErr {
    PyRuntimeError::new_err(format!(
        "the response body is longer than the {length} bytes promised by content-length",
    ))
}

fn unexpected(message: &str, phase: Phase) -> PyErr {
    let why = match phase {
        Phase::Start => "http.response.start has to come first",
        Phase::Head | Phase::Streaming | Phase::Discarding => "the response has been started",
        Phase::Trailers => "http.response.trailers has to come next",
        Phase::Done => "the response is complete",
    };
    PyRuntimeError::new_err(format!("unexpected ASGI message {message}: {why}"))
}

fn unexpected_trailers(phase: Phase, trailers: Trailers) -> PyErr {
    let why = match (phase, trailers) {
        (Phase::Start, _) => "http.response.start has to come first",
        (_, Trailers::None) => "http.response.start did not announce trailers",
        _ => "the last http.response.body has to come first",
    };
    PyRuntimeError::new_err(format!(
        "unexpected ASGI message http.response.trailers: {why}"
    ))
}

/// The object behind `send` and `receive`.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct HttpExchange(LoopBound<State>);

#[pymethods]
impl HttpExchange {
    /// ASGI `receive`.
    fn receive<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(
            slf.py(),
            Owner::Http(slf.clone().unbind()),
            Operation::Receive,
        )
    }

    /// ASGI `send`.
    fn send<'py>(
        slf: &Bound<'py, Self>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Some(state) = slf.get().0.get() else {
            return elsewhere::send_later(slf.as_any(), message);
        };
        let application = state.application()?;
        let dict = message::as_dict(message)?;
        let message = HttpMessage::read(&dict)?;
        let kind = message.kind(&application.constants)?;
        if state.disconnected.get() {
            return Err(application.client_disconnected());
        }
        match kind {
            Kind::ResponseStart => state.start(&application, &message)?,
            Kind::ResponseBody => {
                let (data, more) = message.body()?;
                state.send_body(slf, Chunk::Data(data), more)?;
            }
            Kind::EarlyHint => state.early_hint(&dict)?,
            Kind::Trailers => state.send_trailers(&application, &dict)?,
            Kind::PathSend => state.send_path(slf, &dict)?,
            Kind::ZeroCopySend => state.send_file(slf, &dict)?,
            Kind::Other(name) => {
                return Err(PyValueError::new_err(format!(
                    "unknown ASGI message {name:?} for an HTTP request"
                )));
            }
        }
        if state.is_over() || state.has_room(application.settings.send_buffer_bytes) {
            return Ok(application.ready.bind(py).clone());
        }
        awaitable(py, Owner::Http(slf.clone().unbind()), Operation::Send)
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that pyo3 wants"
    )]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // On another thread nothing is visited: the collector then takes what is held for used from elsewhere.
        if let Some(state) = self.0.get() {
            if let Ok(task) = state.task.try_borrow()
                && let Some(task) = &*task
            {
                visit.call(task)?;
            }
            if let Ok(given) = state.given.try_borrow()
                && let Some(given) = &*given
            {
                visit.call(given)?;
            }
            state.span.visit(&visit)?;
            for waiters in [&state.receivers, &state.senders] {
                if let Ok(waiters) = waiters.try_borrow() {
                    for waiter in waiters.iter() {
                        visit.call(waiter.object())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        if let Some(state) = self.0.get() {
            let held = (
                state.receivers.take(),
                state.senders.take(),
                state.task.take(),
                state.given.take(),
            );
            drop(held);
            state.span.clear();
        }
    }
}

function::callee!(HttpExchange);

impl HttpExchange {
    /// An exchange without a request.
    pub(crate) fn new(core: Rc<LoopCore>) -> Self {
        Self(LoopBound::new(State::new(core)))
    }

    fn state(&self) -> &State {
        self.0
            .get()
            .expect("connections use the exchange on its own thread")
    }

    /// Begins a request: takes its header map, its body and its hints.
    pub(crate) fn begin(&self, application: Rc<Application>, request: &mut Request) {
        application.call_begins();
        self.state().reset(application, request);
    }

    /// It is for a native route of this table, whose handler gets `request`.
    pub(crate) fn begin_route(&self, routes: Py<RouteTable>, request: Option<Py<PyAny>>) {
        self.state().routes.replace(Some(routes));
        self.state().given.replace(request);
    }

    /// The request has this span.
    pub(crate) fn begin_span(&self, span: &Arc<Span>, scope: &Bound<'_, PyDict>) {
        if span.context.is_sampled {
            self.state().span.begin(span.clone(), Some(scope));
        }
    }

    /// The same, of a native route, whose name is known.
    pub(crate) fn begin_route_span(&self, span: &Arc<Span>, pattern: &str) {
        if span.context.is_sampled {
            span.set_route(pattern.to_owned());
            self.state().span.begin(span.clone(), None);
        }
    }

    /// Lets go of what a finished request still holds, to be kept in a pool. The rest is set by the next [`Self::begin`].
    pub(crate) fn retire(&self) {
        let state = self.state();
        debug_assert!(self.is_finished() && state.queue.borrow().is_empty());
        state.application.take();
        state.chunk.take();
        state.hints.take();
        state.hint.take();
        state.file_sender.take();
        state.view.take();
        state.routes.take();
        state.given.take();
        state.span.clear();
    }

    /// True when the response is complete and the coroutine has ended: nothing will happen any more.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.state();
        state.ended.get() && state.phase.get() == Phase::Done && !state.pumping.get()
    }

    /// Whoever waits in `receive()` or `send()` asks again.
    pub(crate) fn look_again(&self) {
        self.state().wake_pump();
    }

    /// The application that the request is for.
    pub(crate) fn application(&self) -> PyResult<Rc<Application>> {
        self.0.get_or_raise()?.application()
    }

    /// True while no event of the body was given out and nobody waits for one.
    pub(crate) fn body_is_untouched(&self, py: Python<'_>) -> PyResult<bool> {
        let state = self.0.get_or_raise()?;
        Ok(state.incoming.get() == Incoming::Open
            && !state.begun.get()
            && !state
                .receivers
                .borrow()
                .iter()
                .any(|waiter| waiter.is_pending(py)))
    }

    /// Takes the whole body out; from now on `receive()` waits for the client to go away. `None` if it was begun.
    pub(crate) fn take_body(&self, py: Python<'_>) -> PyResult<Option<Body>> {
        if !self.body_is_untouched(py)? {
            return Ok(None);
        }
        let state = self.0.get_or_raise()?;
        if state.disconnected.get() {
            return Err(state.application()?.client_disconnected());
        }
        state.incoming.set(Incoming::Complete);
        Ok(Some(state.body.replace(Body::empty())))
    }

    /// An ingest failed: `body` is whole again, or `None` when some of it is lost, and then `receive()` says so.
    pub(crate) fn give_back_body(&self, body: Option<Body>) {
        let Some(state) = self.0.get() else { return };
        if state.is_over() {
            return;
        }
        state.incoming.set(match body {
            Some(body) => {
                state.body.replace(body);
                Incoming::Open
            }
            None => Incoming::Failed,
        });
        if !state.receivers.borrow().is_empty() {
            state.wake_pump();
        }
    }

    /// The response, if the application has sent its beginning.
    pub(crate) fn take_response(&self) -> Option<Response> {
        self.state().response.take()
    }
}

impl Exchange for HttpExchange {
    fn poll<'py>(
        &self,
        py: Python<'py>,
        operation: Operation,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.0.get_or_raise()?;
        match operation {
            Operation::Receive => state.receive(py),
            Operation::Send => {
                let application = state.application()?;
                if state.disconnected.get() {
                    return Err(application.client_disconnected());
                }
                let room = state.has_room(application.settings.send_buffer_bytes);
                Ok(room.then(|| py.None().into_bound(py)))
            }
        }
    }

    fn park(
        &self,
        py: Python<'_>,
        owner: &Owner,
        operation: Operation,
        waiter: Waiter,
    ) -> PyResult<()> {
        let state = self.0.get_or_raise()?;
        let Owner::Http(exchange) = owner else {
            unreachable!("an HTTP exchange is its own owner");
        };
        match operation {
            Operation::Receive => state.receivers.borrow_mut().push(waiter),
            Operation::Send => state.senders.borrow_mut().push(waiter),
        }
        if state.pumping.replace(true) {
            state.wake_pump();
        } else {
            let pump = Pump {
                exchange: exchange.clone_ref(py),
            };
            state.core.spawn(pump);
        }
        Ok(())
    }

    fn unpark(&self, py: Python<'_>, operation: Operation, waiter: &Waiter) {
        let Some(state) = self.0.get() else { return };
        let waiters = match operation {
            Operation::Receive => &state.receivers,
            Operation::Send => &state.senders,
        };
        let mut waiters = waiters.borrow_mut();
        let found = waiters.iter().position(|parked| parked.is(waiter));
        let removed = found.map(|index| waiters.swap_remove(index));
        drop(waiters);
        if let Some(removed) = removed {
            removed.release(py);
        }
        // The pump ends when nothing waits.
        state.wake_pump();
    }

    fn keep_task(&self, task: Py<PyAny>) {
        if let Some(state) = self.0.get()
            && !state.ended.get()
        {
            state.task.replace(Some(task));
        }
    }

    fn coroutine_ended(&self, py: Python<'_>, owner: &Owner, result: Ended<'_, '_>) {
        let Some(state) = self.0.get() else { return };
        let task = state.task.take();
        drop(task.map(|task| task.into_bound(py)));
        if state.ended.get() {
            return;
        }
        let delivered = state.deliver(py, owner, result);
        let result = match &delivered {
            Ok(true) => return,
            Ok(false) => result,
            Err(error) => Err(error),
        };
        state.ended.set(true);
        // The request refers to this exchange.
        let given = state.given.take();
        drop(given.map(|given| given.into_bound(py)));
        drop(state.permit.take());
        let Ok(application) = state.application() else {
            return;
        };
        application.call_ended();
        let routes = state.routes.take();
        // A route whose answer was begun message by message ends as an application does.
        if let Some(routes) = routes
            && state.phase.get() == Phase::Start
        {
            state.route_ended(py, &application, routes.bind(py), result);
            return;
        }
        if let Some(tracing) = &application.tracing {
            state.span.responds(py, tracing);
            if let Err(error) = result {
                state.span.failed(py, tracing, error);
            }
            state.span.clear();
        }
        let answer = result.err().and_then(|error| application.answer(py, error));
        if let (Err(error), None) = (result, &answer) {
            application.report(py, error);
        }
        match state.phase.get() {
            Phase::Start | Phase::Head => {
                if !state.disconnected.get() {
                    if result.is_ok() {
                        application.log_error(
                            py,
                            "the ASGI application returned without sending a response",
                        );
                    }
                    let (status, text) = answer.unwrap_or((
                        StatusCode::INTERNAL_SERVER_ERROR,
                        Bytes::from_static(b"Internal Server Error"),
                    ));
                    state.respond_error(status, text);
                }
            }
            Phase::Streaming | Phase::Trailers => {
                if !state.disconnected.get() && result.is_ok() {
                    application.log_error(
                        py,
                        "the ASGI application returned without completing its response",
                    );
                }
                // No final chunk: the client must not take it for complete.
                state.end.set(StreamEnd::Aborted);
            }
            Phase::Discarding => {}
            Phase::Done => return,
        }
        state.finish();
    }
}

/// The response that is not there yet. Dropped before its end when the client goes away.
pub(crate) struct Later {
    exchange: Py<HttpExchange>,
    done: bool,
}

impl Later {
    pub(crate) fn new(exchange: Py<HttpExchange>) -> Self {
        Self {
            exchange,
            done: false,
        }
    }
}

impl Future for Later {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let state = self.exchange.get().state();
        let response = state.response.take();
        if let Some(response) = response {
            self.done = true;
            return Poll::Ready(response);
        }
        state.response_waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        // Nothing to tell when a runtime is dropped in a forked child or after its thread.
        if !self.done
            && let Some(state) = self.exchange.get().0.get()
        {
            state.disconnect();
        }
    }
}

/// The body of a streamed response, as the connection pulls it.
struct ResponseStream {
    exchange: Py<HttpExchange>,
    /// The connection had its chance to write what came before an abort.
    yielded: bool,
}

impl ResponseStream {
    fn body(exchange: &Bound<'_, HttpExchange>) -> ResponseBody {
        ResponseBody::Stream(Box::pin(Self {
            exchange: exchange.clone().unbind(),
            yielded: false,
        }))
    }
}

impl http_body::Body for ResponseStream {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        let this = &mut *self;
        let state = this.exchange.get().state();
        match ready!(state.poll_queue(cx)) {
            Some(Ok(data)) => {
                if !state.senders.borrow().is_empty() {
                    state.wake_pump();
                }
                return Poll::Ready(Some(Ok(BodyFrame::data(data))));
            }
            Some(Err(error)) => {
                state.report_file(&error);
                return Poll::Ready(Some(Err(Aborted)));
            }
            None => {}
        }
        match state.end.get() {
            StreamEnd::Complete => {
                let trailers = state.trailer_fields.take();
                Poll::Ready(trailers.map(|trailers| Ok(BodyFrame::trailers(trailers))))
            }
            StreamEnd::Aborted if !this.yielded => {
                // An error makes hyper drop what it has buffered; a pause makes it write that first.
                this.yielded = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            StreamEnd::Aborted => Poll::Ready(Some(Err(Aborted))),
            StreamEnd::Open => {
                state.stream_waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.exchange.get().state();
        state.end.get() == StreamEnd::Complete
            && state.queue.borrow().is_empty()
            && state.trailer_fields.borrow().is_none()
    }
}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        let Some(state) = self.exchange.get().0.get() else {
            return;
        };
        let drained = state.queue.borrow().is_empty();
        // With a content-length the connection is done with the body at its last byte and does not ask for the end.
        let delivered = state.end.get() == StreamEnd::Complete
            || state
                .length
                .get()
                .is_some_and(|length| state.sent.get() == length);
        if !(drained && delivered) {
            state.disconnect();
        }
        let sender = state.file_sender.take();
        if let Some(error) = sender.and_then(|sender| sender.take_failure()) {
            state.report_file(&error);
        }
    }
}

/// Serves what waits in `receive()` and `send()`; ends when nothing does.
struct Pump {
    exchange: Py<HttpExchange>,
}

impl Future for Pump {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Python::attach(|py| {
            let state = self.exchange.get().state();
            state.pump.replace(Some(cx.waker().clone()));
            let bound = state
                .application()
                .map_or(0, |application| application.settings.send_buffer_bytes);
            loop {
                let ready = Self::take_ready(state, cx, bound);
                if ready.is_empty() {
                    break;
                }
                for waiter in ready {
                    waiter.resolve(py, &state.core);
                }
                state.core.after_python(py);
            }
            if state.receivers.borrow().is_empty() && state.senders.borrow().is_empty() {
                state.pumping.set(false);
                state.pump.take();
                return Poll::Ready(());
            }
            Poll::Pending
        })
    }
}

impl Pump {
    /// Waiters that should ask again.
    fn take_ready(state: &State, cx: &mut Context<'_>, bound: u64) -> Vec<Waiter> {
        let mut ready = Vec::new();
        if !state.receivers.borrow().is_empty() && state.poll_incoming(cx) {
            ready.append(&mut state.receivers.borrow_mut());
        }
        if !state.senders.borrow().is_empty() && state.poll_room(cx, bound) {
            ready.append(&mut state.senders.borrow_mut());
        }
        ready
    }
}
