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
//!   +--coroutine ended: 500--------+--coroutine ended: 500--> Done
//! ```
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
//!
//! # Invariants
//! - Nothing is borrowed while Python code runs. Messages are read completely before the state is changed.
//! - All state is thread-bound ([`LoopBound`]); the object itself may die anywhere.
//! - An exchange is used again only when nobody else has a reference; [`State::reset`] names every field.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use framegate_http::{
    body::{Aborted, Body, ResponseBody},
    service::{HintSent, Hints, Request, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Frame as BodyFrame;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyValueError},
    ffi, intern,
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::{
    Application,
    awaitable::{Waiter, awaitable},
    message::{self, HttpMessage, Kind},
    object,
    owner::{Exchange, Operation, Owner},
};
use crate::event_loop::LoopCore;
use crate::home::LoopBound;

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
    Done,
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
    is_head: Cell<bool>,
    /// The application's coroutine has ended.
    ended: Cell<bool>,
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
    /// The request's header map, emptied: a response needs no new one.
    spare_headers: RefCell<HeaderMap>,
    /// `content-length` of the response, as the application said it.
    length: Cell<Option<u64>>,
    /// Body bytes sent (or discarded) so far.
    sent: Cell<u64>,
    /// To be taken by the connection.
    response: RefCell<Option<Response>>,
    response_waker: RefCell<Option<Waker>>,
    /// Chunks of a streamed response, not yet taken by the connection.
    queue: RefCell<VecDeque<Bytes>>,
    unsent: Cell<usize>,
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
            is_head: Cell::new(false),
            ended: Cell::new(true),
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
            length: Cell::new(None),
            sent: Cell::new(0),
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
            is_head,
            ended,
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
            length,
            sent,
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
        pump.take();
        let mut headers = mem::take(&mut request.head.headers);
        application_cell.replace(Some(application));
        phase.set(Phase::Start);
        is_head.set(request.head.method == Method::HEAD);
        ended.set(false);
        task.take();
        disconnected.set(false);
        body.replace(mem::replace(&mut request.body, Body::empty()));
        incoming.set(Incoming::Open);
        begun.set(false);
        chunk.take();
        hints.replace(mem::take(&mut request.hints));
        hint.take();
        held.take();
        headers.clear();
        spare_headers.replace(headers);
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
            Incoming::Complete => return false,
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
            && self.receivers.borrow().iter().any(Waiter::is_pending)
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
    fn has_room(&self, bound: usize) -> bool {
        self.hint.borrow().is_none() && self.unsent.get() <= bound
    }

    /// For the pump: true when whoever waits in `send()` should ask again.
    fn poll_room(&self, cx: &mut Context<'_>, bound: usize) -> bool {
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
        let status = message.status()?;
        let mut headers = self.spare_headers.take();
        headers.clear();
        let mut fields = Fields::default();
        let field = |name: HeaderName, value: HeaderValue| {
            if name == header::TRANSFER_ENCODING {
                // Framing is the connection's business.
                return Ok(());
            }
            if name == header::CONNECTION {
                fields.close |= has_close(&value);
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
        // Everything is known to be right: now the state may change.
        self.length.set(fields.content_length);
        self.held.replace(Some(Head { status, headers }));
        self.phase.set(Phase::Head);
        Ok(())
    }

    /// `http.response.early_hint`: `links` are values of `Link` fields.
    fn early_hint(&self, message: &HttpMessage<'_>) -> PyResult<()> {
        if !matches!(self.phase.get(), Phase::Start | Phase::Head) {
            return Err(unexpected("http.response.early_hint", self.phase.get()));
        }
        let mut headers = HeaderMap::new();
        if let Some(links) = &message.links {
            for link in links.try_iter()? {
                let link = link?;
                let value = message::header_value(&link)?;
                headers.append(header::LINK, value);
            }
        }
        self.hint
            .replace(Some(Box::pin(self.hints.borrow().send(headers))));
        Ok(())
    }

    /// `http.response.body`.
    fn send_body(
        &self,
        exchange: &Bound<'_, HttpExchange>,
        data: Bytes,
        more: bool,
    ) -> PyResult<()> {
        match self.phase.get() {
            Phase::Head => self.begin(exchange, data, more),
            Phase::Streaming => self.go_on(data, more),
            Phase::Discarding => self.discard(data.len(), more),
            phase @ (Phase::Start | Phase::Done) => Err(unexpected("http.response.body", phase)),
        }
    }

    /// The first body event: the head goes out with it.
    fn begin(
        &self,
        exchange: &Bound<'_, HttpExchange>,
        mut data: Bytes,
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
        let bodyless = self.is_head.get()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodyless {
            let size = data.len();
            if let Some(length) = self.length.get() {
                headers.insert(header::CONTENT_LENGTH, length.into());
            } else if self.is_head.get()
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
        let size = data.len() as u64;
        let excess = self.length.get().filter(|&length| size > length);
        if let Some(length) = excess {
            data.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            self.respond(status, headers, data.into());
            self.finish();
            return Err(too_long(length));
        }
        self.sent.set(size);
        let short = self.length.get().is_some_and(|length| size < length);
        if !more && !short {
            self.respond(status, headers, data.into());
            self.finish();
            return Ok(());
        }
        if let Some(length) = self.length.get() {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        self.push(data);
        self.phase.set(Phase::Streaming);
        let stream = ResponseStream {
            exchange: exchange.clone().unbind(),
            yielded: false,
        };
        self.respond(status, headers, ResponseBody::Stream(Box::pin(stream)));
        if more {
            return Ok(());
        }
        self.end.set(StreamEnd::Aborted);
        self.finish();
        Err(self.too_short())
    }

    /// A later body event.
    fn go_on(&self, data: Bytes, more: bool) -> PyResult<()> {
        let sent = self.sent.get() + data.len() as u64;
        if let Some(length) = self.length.get()
            && sent > length
        {
            // Nothing of it is sent: cutting the connection is the only way left to tell the client.
            self.end.set(StreamEnd::Aborted);
            self.finish();
            return Err(too_long(length));
        }
        self.sent.set(sent);
        self.push(data);
        if !more {
            let short = self.length.get().is_some_and(|length| sent < length);
            self.end.set(if short {
                StreamEnd::Aborted
            } else {
                StreamEnd::Complete
            });
            self.finish();
            if short {
                return Err(self.too_short());
            }
        }
        self.wake_stream();
        Ok(())
    }

    /// A body event of a response that has no body.
    fn discard(&self, bytes: usize, more: bool) -> PyResult<()> {
        let sent = self.sent.get() + (bytes as u64).max(DISCARD_EVENT_BYTES);
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

    fn push(&self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.unsent.set(self.unsent.get() + data.len());
        self.queue.borrow_mut().push_back(data);
    }

    fn respond(&self, status: StatusCode, headers: HeaderMap, body: ResponseBody) {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
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

    /// An answer in place of the application's, when its head was not sent yet.
    fn respond_error(&self, status: StatusCode, text: Bytes) {
        let mut headers = self.spare_headers.take();
        headers.clear();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        let body = if self.is_head.get() {
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

fn has_close(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
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
        Phase::Done => "the response is complete",
    };
    PyRuntimeError::new_err(format!("unexpected ASGI message {message}: {why}"))
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
        let state = slf.get().0.get_or_raise()?;
        let application = state.application()?;
        let message = HttpMessage::read(&message::as_dict(message)?)?;
        let kind = message.kind()?;
        if state.disconnected.get() {
            return Err(application.client_disconnected());
        }
        match kind {
            Kind::ResponseStart => state.start(&application, &message)?,
            Kind::ResponseBody => {
                let (data, more) = message.body()?;
                state.send_body(slf, data, more)?;
            }
            Kind::EarlyHint => state.early_hint(&message)?,
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
            );
            drop(held);
        }
    }
}

static SEND: object::Method = object::Method::new(object::method_keywords(c"send", send_call));

/// `send` as the application gets it. It is called twice for each request, so that the argument parsing of `#[pymethods]`
/// would show.
#[expect(unsafe_code, reason = "a built-in function made with the C API")]
pub(crate) fn send_method<'py>(exchange: &Bound<'py, HttpExchange>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `send_call` expects an `HttpExchange`.
    unsafe { SEND.bind(exchange.as_any()) }
}

#[expect(unsafe_code, reason = "a function that the interpreter calls")]
unsafe extern "C" fn send_call(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    object::slot(std::ptr::null_mut(), |py| {
        // SAFETY: `this` is the exchange that the function was bound to; there are `count` arguments, and one per name.
        unsafe {
            let exchange = Bound::from_borrowed_ptr(py, this).cast_into_unchecked::<HttpExchange>();
            if count == 1 && names.is_null() {
                let message = Bound::from_borrowed_ptr(py, *arguments);
                return HttpExchange::send(&exchange, &message).map(Bound::into_ptr);
            }
            // By name, or wrongly: the method knows what to say.
            let method = exchange.getattr(intern!(py, "send"))?;
            let result =
                ffi::PyObject_Vectorcall(method.as_ptr(), arguments, count.unsigned_abs(), names);
            Bound::from_owned_ptr_or_err(py, result).map(Bound::into_ptr)
        }
    })
}

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

    /// Lets go of what a finished request still holds, to be kept in a pool. The rest is set by the next [`Self::begin`].
    pub(crate) fn retire(&self) {
        let state = self.state();
        debug_assert!(self.is_finished() && state.queue.borrow().is_empty());
        state.application.take();
        state.chunk.take();
        state.hints.take();
        state.hint.take();
    }

    /// True when the response is complete and the coroutine has ended: nothing will happen any more.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.state();
        state.ended.get() && state.phase.get() == Phase::Done && !state.pumping.get()
    }

    /// The application that the request is for.
    pub(crate) fn application(&self) -> PyResult<Rc<Application>> {
        self.0.get_or_raise()?.application()
    }

    /// True while no event of the body was given out and nobody waits for one.
    pub(crate) fn body_is_untouched(&self) -> PyResult<bool> {
        let state = self.0.get_or_raise()?;
        Ok(state.incoming.get() == Incoming::Open
            && !state.begun.get()
            && !state.receivers.borrow().iter().any(Waiter::is_pending))
    }

    /// Takes the whole body out; from now on `receive()` waits for the client to go away. `None` if it was begun.
    pub(crate) fn take_body(&self) -> PyResult<Option<Body>> {
        if !self.body_is_untouched()? {
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

    fn coroutine_ended(&self, py: Python<'_>, result: Result<(), &PyErr>) {
        let Some(state) = self.0.get() else { return };
        let task = state.task.take();
        drop(task.map(|task| task.into_bound(py)));
        if state.ended.replace(true) {
            return;
        }
        let Ok(application) = state.application() else {
            return;
        };
        application.call_ended();
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
            Phase::Streaming => {
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

impl http_body::Body for ResponseStream {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Aborted>>> {
        let this = &mut *self;
        let state = this.exchange.get().state();
        let next = state.queue.borrow_mut().pop_front();
        if let Some(data) = next {
            state.unsent.set(state.unsent.get() - data.len());
            if !state.senders.borrow().is_empty() {
                state.wake_pump();
            }
            return Poll::Ready(Some(Ok(BodyFrame::data(data))));
        }
        match state.end.get() {
            StreamEnd::Complete => Poll::Ready(None),
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
        state.end.get() == StreamEnd::Complete && state.queue.borrow().is_empty()
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
    fn take_ready(state: &State, cx: &mut Context<'_>, bound: usize) -> Vec<Waiter> {
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
