//! One WebSocket as the application sees it (ASGI WebSocket specification 2.5).
//!
//! ```text
//!            accept                       close, or the coroutine ends (1000, 1011)
//! Connecting -------> Accepted ------------------------------------------------------> Finished
//!      |                 |                                                                ^
//!      |                 +--the peer closes, or is lost: `ended` is set, the phase stays  |
//!      +--close, or the coroutine ends: 403, 500------------------------------------------+
//!      +--http.response.start--> Denying --last body---------------------------------------+
//! ```
//!
//! The phase says what the *application* did; how the other side ended is in `ended`, set once, and gives
//! `websocket.disconnect` to `receive` behind all messages that came before. `send` raises `ClientDisconnected` from then
//! on; only `websocket.close` is silent, because closing what is closed is no mistake of the application.
//!
//! The session runs on the connection's task ([`link`]); its handler [`User`] hands messages over as Python objects. After
//! each read the waiting `receive` is resolved there and then: the application runs inside the poll of its connection, and
//! everything that it sends until it waits again leaves in one write.
//!
//! Bounds: the session does not read while [`QUEUE_MESSAGES_MAX`] messages or [`QUEUE_BYTES_MAX`] bytes wait for `receive`;
//! `send` waits while more than `send_buffer_bytes` wait to be written.
//!
//! No borrow of a cell is held while Python code may run.

mod compression;
mod denial;
pub(crate) mod frames;
mod link;
mod payload;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use framegate_http::{
    body::{Aborted, ResponseBody},
    service::{Permit, Request, Response, ResponseFuture, Upgrade},
    topics::Ended,
    websocket::{
        Kind, code,
        extension::{DeflateOffer, deflate_offers},
        handshake::{self, Offer},
        outbox::{LEFT_BYTES_MIN, Outbox},
        session::Closed,
    },
};
use http::{HeaderMap, StatusCode};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    pybacked::PyBackedStr,
    types::{PyBytes, PyDict, PyList, PyString},
};

use self::{
    denial::{Denial, DenialBody},
    frames::{Sink, SocketHandle},
    link::{Link, User},
};
use super::{
    Application,
    awaitable::{Waiter, awaitable},
    elsewhere, function, message,
    owner::{self, Exchange, Operation, Owner},
    scope::ScopeTemplate,
    task::{Arguments, Call, RequestTask},
};
use crate::{event_loop::LoopCore, home::LoopBound, tracing::OpenSpan};

/// Messages that may wait for `receive`: uvicorn's number. With the bytes below it bounds what a client can make us keep.
const QUEUE_MESSAGES_MAX: usize = 32;
/// Bytes that may wait for `receive`, unless they are one message.
const QUEUE_BYTES_MAX: usize = 64 * 1024;

/// What the application has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Accepted,
    /// It sends an ordinary response.
    Denying,
    Finished,
}

/// `send` and `receive` of one WebSocket.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct WebSocketExchange(LoopBound<State>);

struct State {
    core: Rc<LoopCore>,
    application: Rc<Application>,
    phase: Cell<Phase>,
    /// The application's task, while it has one and goes on.
    task: RefCell<Option<Py<PyAny>>>,
    /// What the client asks for. Taken by `accept`.
    asked: RefCell<Option<Box<Asked>>>,
    /// Its span, if that is recorded.
    span: OpenSpan,
    /// Until the application's coroutine has ended.
    permit: RefCell<Option<Permit>>,
    answer: Answer,
    /// Made when the application begins one; most do not.
    denial: OnceCell<Box<Denial>>,
    outbox: Rc<Outbox>,
    connect_told: Cell<bool>,
    incoming: RefCell<VecDeque<Message>>,
    incoming_bytes: Cell<usize>,
    ended: RefCell<Option<Box<Closed>>>,
    coroutine_ended: Cell<bool>,
    receivers: RefCell<Vec<Waiter>>,
    senders: RefCell<Vec<Waiter>>,
    /// The session is being polled: waiters may be resolved at once.
    in_session: Cell<bool>,
    /// Where binary messages go instead of to `receive`.
    sink: RefCell<Option<Rc<Sink>>>,
    /// Sends the frames of a topic, beside what the application sends.
    viewer: RefCell<Option<Viewer>>,
}

type Viewer = Pin<Box<dyn Future<Output = Ended>>>;

/// A handshake that is not answered.
struct Asked {
    offer: Offer,
    deflate_offers: Box<[DeflateOffer]>,
    upgrade: Option<Upgrade>,
}

struct Message {
    kind: Kind,
    payload: Py<PyAny>,
    bytes: usize,
}

/// The response to the handshake, on its way from the application to the connection.
#[derive(Default)]
struct Answer {
    /// Boxed: it is there for a moment only.
    response: RefCell<Option<Box<Response>>>,
    waker: RefCell<Option<Waker>>,
}

/// Answers a valid handshake by running the application.
pub(crate) fn serve(
    py: Python<'_>,
    application: &Rc<Application>,
    template: &ScopeTemplate,
    mut request: Request,
    offer: Offer,
) -> PyResult<ResponseFuture> {
    let core = Rc::clone(&application.core);
    let scope = scope(py, application, template, &request, &offer)?;
    let span = application.span(&request);
    let open_span = OpenSpan::default();
    if let Some((_, span)) = &span {
        ScopeTemplate::add_trace(&scope, &span.context)?;
        if span.context.is_sampled {
            open_span.begin(span.clone(), Some(&scope));
        }
    }
    let waking = Rc::clone(&core);
    let state = State {
        core: Rc::clone(&core),
        application: Rc::clone(application),
        phase: Cell::new(Phase::Connecting),
        asked: RefCell::new(Some(Box::new(Asked {
            offer,
            deflate_offers: deflate_offers(&request.head.headers),
            upgrade: request.upgrade.take(),
        }))),
        span: open_span,
        permit: RefCell::new(Some(request.permit)),
        answer: Answer::default(),
        task: RefCell::default(),
        denial: OnceCell::new(),
        outbox: Outbox::waking_by(Box::new(move |waker| waking.wake(waker))),
        connect_told: Cell::new(false),
        incoming: RefCell::default(),
        incoming_bytes: Cell::new(0),
        ended: RefCell::default(),
        coroutine_ended: Cell::new(false),
        receivers: RefCell::default(),
        senders: RefCell::default(),
        in_session: Cell::new(false),
        sink: RefCell::default(),
        viewer: RefCell::default(),
    };
    let exchange = Bound::new(py, WebSocketExchange(LoopBound::new(state)))?;
    let handle = SocketHandle::new(exchange.clone().unbind());
    let extensions = scope.get_item(intern!(py, "extensions"))?;
    let extensions = extensions
        .expect("every scope has it")
        .cast_into::<PyDict>()?;
    extensions.set_item(intern!(py, "framegate.topics"), Bound::new(py, handle)?)?;
    let arguments = Arguments {
        call: Call::Application {
            scope: scope.as_any(),
            receive: &function::receive(&exchange)?,
            send: &function::send(&exchange)?,
        },
        span: span.as_ref().map(|(tracing, span)| (*tracing, span)),
    };
    let starter = &application.starter;
    let task = starter
        .mode
        .is_lazy()
        .then(|| RequestTask::blank(py))
        .transpose()?;
    let owner = Owner::WebSocket(exchange.clone().unbind());
    application.websocket_begins();
    let started = starter.start(py, &core, task.as_ref(), &owner, &arguments);
    core.after_python(py);
    if let Some(task) = task {
        task.release(py);
    }
    if let Err(error) = started {
        exchange.get().coroutine_ended(py, &owner, Err(&error));
    }
    let response = exchange.get().state().answer.response.take();
    Ok(match response {
        Some(response) => (*response).into(),
        None => ResponseFuture::later(Handshake {
            exchange: exchange.unbind(),
            answered: false,
        }),
    })
}

fn scope<'py>(
    py: Python<'py>,
    application: &Application,
    template: &ScopeTemplate,
    request: &Request,
    offer: &Offer,
) -> PyResult<Bound<'py, PyDict>> {
    let scope = template.common(py, application, &request.head)?;
    scope.del_item(intern!(py, "method"))?;
    scope.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
    let tls = scope
        .get_item(intern!(py, "scheme"))?
        .is_some_and(|scheme| scheme.eq("https").unwrap_or(false));
    let scheme = if tls {
        intern!(py, "wss")
    } else {
        intern!(py, "ws")
    };
    scope.set_item(intern!(py, "scheme"), scheme)?;
    scope.set_item(
        intern!(py, "subprotocols"),
        PyList::new(py, offer.subprotocols())?,
    )?;
    let extensions = PyDict::new(py);
    extensions.set_item(intern!(py, "websocket.http.response"), PyDict::new(py))?;
    scope.set_item(intern!(py, "extensions"), extensions)?;
    template.add_tls(&scope)?;
    if let Some(arrival) = &request.arrival {
        ScopeTemplate::add_arrival(&scope, &request.head, arrival)?;
    }
    Ok(scope)
}

#[pymethods]
impl WebSocketExchange {
    /// `await receive()`: the next event.
    fn receive<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let owner = Owner::WebSocket(slf.clone().unbind());
        awaitable(slf.py(), owner, Operation::Receive)
    }

    /// `await send(message)`. The message is taken at once; awaiting waits for room.
    fn send<'py>(
        slf: &Bound<'py, Self>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Some(state) = slf.get().0.get() else {
            return elsewhere::send_later(slf.as_any(), message);
        };
        let message = message::as_dict(message)?;
        let kind = message::required(&message, intern!(py, "type"))?;
        let kind = kind
            .cast::<PyString>()
            .map_err(|_| PyTypeError::new_err("the type of a message is a string"))?;
        match kind.to_str()? {
            "websocket.send" => state.send(&message)?,
            "websocket.accept" => state.accept(slf, &message)?,
            "websocket.close" => state.close(slf, &message)?,
            "websocket.http.response.start" => state.deny(&message)?,
            "websocket.http.response.body" => state.deny_body(slf, &message)?,
            other => {
                return Err(PyValueError::new_err(format!(
                    "unknown ASGI message {other:?} for a WebSocket"
                )));
            }
        }
        if state.is_full() {
            let owner = Owner::WebSocket(slf.clone().unbind());
            return awaitable(py, owner, Operation::Send);
        }
        Ok(state.application.ready.bind(py).clone())
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that pyo3 asks for"
    )]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // On another thread nothing can be seen: the object then counts as used from outside and stays.
        let Some(state) = self.0.get() else {
            return Ok(());
        };
        if let Ok(task) = state.task.try_borrow()
            && let Some(task) = &*task
        {
            visit.call(task)?;
        }
        state.span.visit(&visit)?;
        for waiters in [&state.receivers, &state.senders] {
            if let Ok(waiters) = waiters.try_borrow() {
                for waiter in waiters.iter() {
                    visit.call(waiter.object())?;
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
            state.span.clear();
        }
    }
}

function::callee!(WebSocketExchange);

impl State {
    // --- what the application sends

    fn accept(
        &self,
        exchange: &Bound<'_, WebSocketExchange>,
        message: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let py = message.py();
        self.expect_connecting("websocket.accept")?;
        let subprotocol = item(message, intern!(py, "subprotocol"))?
            .map(|subprotocol| subprotocol.extract::<String>())
            .transpose()?;
        let mut headers = self.headers(message::HttpMessage::read(message)?.headers.as_ref())?;
        self.application.settings.complete_headers(&mut headers);
        let compressed = !compression::is_declined(&mut headers);
        let mut asked = self.asked.borrow_mut();
        let Some(Asked {
            offer,
            deflate_offers,
            upgrade,
        }) = asked.as_deref_mut()
        else {
            return Err(misplaced(
                "websocket.accept",
                "after the handshake was answered",
            ));
        };
        let mut response = offer
            .accept(subprotocol.as_deref(), headers)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let upgrade = upgrade
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("this connection cannot be upgraded"))?;
        let user = User::new(exchange.clone().unbind());
        let (mut settings, outbox) = (self.application.settings.websocket, Rc::clone(&self.outbox));
        if compressed {
            settings.deflate = self.agree_on_compression(deflate_offers, response.headers_mut());
        }
        *asked = None;
        drop(asked);
        upgrade.accept(move |upgraded| Box::pin(Link::new(upgraded, settings, outbox, user)));
        self.phase.set(Phase::Accepted);
        self.answer(response.map(|()| ResponseBody::Empty));
        Ok(())
    }

    fn send(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        match self.phase.get() {
            Phase::Accepted => {}
            Phase::Finished => {
                return Err(misplaced(
                    "websocket.send",
                    "after the WebSocket was closed",
                ));
            }
            _ => return Err(misplaced("websocket.send", "before websocket.accept")),
        }
        let sent = if let Some(bytes) = item(message, intern!(py, "bytes"))? {
            match bytes.cast::<PyBytes>() {
                Ok(bytes) if bytes.as_bytes().len() < LEFT_BYTES_MIN => {
                    self.outbox.binary(bytes.as_bytes())
                }
                // Kept and not copied; what may change later is copied into one that does not.
                _ => self.outbox.leave_binary(message::bytes(&bytes, "bytes")?),
            }
        } else {
            let text = item(message, intern!(py, "text"))?
                .ok_or_else(|| PyValueError::new_err("websocket.send needs `bytes` or `text`"))?;
            let text = text
                .cast::<PyString>()
                .map_err(|_| PyTypeError::new_err("`text` of websocket.send is not a str"))?;
            match text.to_str()? {
                small if small.len() < LEFT_BYTES_MIN => self.outbox.text(small),
                // The same UTF-8, which the object has and keeps.
                _ => self.outbox.leave_text(PyBackedStr::try_from(text.clone())?),
            }
        };
        if sent {
            Ok(())
        } else {
            Err(self.application.client_disconnected())
        }
    }

    fn close(
        &self,
        exchange: &Bound<'_, WebSocketExchange>,
        message: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let py = message.py();
        match self.phase.get() {
            Phase::Connecting => {
                // Code and reason have no place in a 403, so they may be anything: FastAPI gives a list as reason.
                self.phase.set(Phase::Finished);
                self.refuse(StatusCode::FORBIDDEN);
                self.end(exchange.as_unbound(), lost());
            }
            Phase::Accepted => {
                let code = close_code(message)?;
                let reason = item(message, intern!(py, "reason"))?
                    .map(|reason| reason.extract::<String>())
                    .transpose()?
                    .unwrap_or_default();
                self.phase.set(Phase::Finished);
                // False when the peer was faster: then all is said.
                self.outbox.close(code, &reason);
            }
            Phase::Denying => {
                return Err(misplaced(
                    "websocket.close",
                    "after websocket.http.response.start",
                ));
            }
            Phase::Finished if self.ended.borrow().is_some() => {}
            Phase::Finished => {
                return Err(misplaced(
                    "websocket.close",
                    "after the WebSocket was closed",
                ));
            }
        }
        Ok(())
    }

    fn headers(&self, fields: Option<&Bound<'_, PyAny>>) -> PyResult<HeaderMap> {
        let mut headers = HeaderMap::new();
        if let Some(fields) = fields {
            message::each_field(fields, &self.application.header_cache, |name, value| {
                headers.append(name, value);
                Ok(())
            })?;
        }
        Ok(headers)
    }

    fn deny(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        self.expect_connecting("websocket.http.response.start")?;
        let message = message::HttpMessage::read(message)?;
        let status = message.status(&self.application.constants)?;
        if status.is_informational() {
            return Err(PyValueError::new_err(format!(
                "status {status} is informational and cannot end a handshake"
            )));
        }
        if status.is_success()
            && self
                .asked
                .borrow()
                .as_ref()
                .is_some_and(|asked| asked.offer.success_accepts())
        {
            return Err(PyValueError::new_err(format!(
                "status {status} would tell a client of HTTP/2 that the WebSocket is accepted"
            )));
        }
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = status;
        *response.headers_mut() = self.headers(message.headers.as_ref())?;
        handshake::deny(&mut response);
        self.application
            .settings
            .complete_headers(response.headers_mut());
        self.denial().head.replace(Some(response));
        self.phase.set(Phase::Denying);
        Ok(())
    }

    fn deny_body(
        &self,
        exchange: &Bound<'_, WebSocketExchange>,
        message: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        if self.phase.get() != Phase::Denying {
            return Err(misplaced(
                "websocket.http.response.body",
                "without websocket.http.response.start",
            ));
        }
        if self.ended.borrow().is_some() {
            return Err(self.application.client_disconnected());
        }
        let (body, more) = message::HttpMessage::read(message)?.body()?;
        let denial = self.denial();
        if !more {
            self.phase.set(Phase::Finished);
        }
        match (denial.head.take(), more) {
            (Some(mut response), false) => {
                *response.body_mut() = body.into();
                self.answer(response);
            }
            (Some(mut response), true) => {
                denial.push(body, &self.core);
                *response.body_mut() = ResponseBody::Stream(Box::pin(DenialBody {
                    exchange: exchange.clone().unbind(),
                }));
                self.answer(response);
            }
            (None, _) => {
                denial.push(body, &self.core);
                if !more {
                    denial.finish(Ok(()), &self.core);
                }
            }
        }
        if !more {
            self.end(exchange.as_unbound(), lost());
        }
        Ok(())
    }

    fn denial(&self) -> &Denial {
        self.denial.get_or_init(Box::default)
    }

    /// An answer to the handshake that nobody has to think about.
    fn refuse(&self, status: StatusCode) {
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = status;
        self.application
            .settings
            .complete_headers(response.headers_mut());
        self.answer(response);
    }

    fn expect_connecting(&self, message: &str) -> PyResult<()> {
        if self.phase.get() != Phase::Connecting {
            return Err(misplaced(message, "after the handshake was answered"));
        }
        if self.ended.borrow().is_some() {
            return Err(self.application.client_disconnected());
        }
        Ok(())
    }

    fn answer(&self, response: Response) {
        if let Some(tracing) = &self.application.tracing {
            Python::attach(|py| self.span.responds(py, tracing));
        }
        self.answer.response.replace(Some(Box::new(response)));
        let waker = self.answer.waker.take();
        if let Some(waker) = waker {
            self.core.wake(waker);
        }
    }

    /// Must `send` wait?
    fn is_full(&self) -> bool {
        let unsent = match self.phase.get() {
            Phase::Denying => self.denial().bytes.get(),
            _ => self.outbox.buffered(),
        };
        unsent as u64 > self.application.settings.send_buffer_bytes && self.ended.borrow().is_none()
    }
}

impl State {
    fn waiters(&self, operation: Operation) -> &RefCell<Vec<Waiter>> {
        match operation {
            Operation::Receive => &self.receivers,
            Operation::Send => &self.senders,
        }
    }

    // --- what the application receives

    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let event = PyDict::new(py);
        if !self.connect_told.replace(true) {
            event.set_item(intern!(py, "type"), intern!(py, "websocket.connect"))?;
            return Ok(Some(event.into_any()));
        }
        let was_full = !self.has_place();
        let message = self.incoming.borrow_mut().pop_front();
        if let Some(Message {
            kind,
            payload,
            bytes,
        }) = message
        {
            self.incoming_bytes.set(self.incoming_bytes.get() - bytes);
            if was_full && self.has_place() {
                self.outbox.wake();
            }
            event.set_item(intern!(py, "type"), intern!(py, "websocket.receive"))?;
            let key = match kind {
                Kind::Text => intern!(py, "text"),
                Kind::Binary => intern!(py, "bytes"),
            };
            event.set_item(key, payload.into_bound(py))?;
            return Ok(Some(event.into_any()));
        }
        let ended = self.ended.borrow();
        let Some(closed) = &*ended else {
            return Ok(None);
        };
        event.set_item(intern!(py, "type"), intern!(py, "websocket.disconnect"))?;
        event.set_item(intern!(py, "code"), closed.code)?;
        event.set_item(intern!(py, "reason"), &closed.reason)?;
        Ok(Some(event.into_any()))
    }

    /// May another message be queued for `receive`?
    fn has_place(&self) -> bool {
        self.incoming.borrow().len() < QUEUE_MESSAGES_MAX
            && self.incoming_bytes.get() < QUEUE_BYTES_MAX
    }

    /// A message has arrived.
    fn queue(&self, kind: Kind, payload: Py<PyAny>, bytes: usize) {
        self.incoming_bytes.set(self.incoming_bytes.get() + bytes);
        let mut incoming = self.incoming.borrow_mut();
        if incoming.capacity() == 0 {
            // Most clients send one message at a time, and a deque takes room for four.
            incoming.reserve_exact(1);
        }
        incoming.push_back(Message {
            kind,
            payload,
            bytes,
        });
    }

    /// Runs everybody who waits in `waiters`, at once. Only inside `select`.
    fn resolve(&self, py: Python<'_>, waiters: &RefCell<Vec<Waiter>>) {
        if waiters.borrow().is_empty() {
            return;
        }
        let waiting = waiters.take();
        for waiter in waiting {
            waiter.resolve(py, &self.core);
        }
        self.core.after_python(py);
    }

    /// Nothing more will come from the client. The first report counts.
    fn end(&self, exchange: &Py<WebSocketExchange>, closed: Closed) {
        if self.ended.borrow().is_some() {
            return;
        }
        self.ended.replace(Some(Box::new(closed)));
        // Nothing more is sent or taken, and no frame is held.
        let (sink, viewer) = (self.sink.take(), self.viewer.take());
        drop((sink, viewer));
        if self.in_session.get() {
            Python::attach(|py| {
                self.resolve(py, &self.receivers);
                self.resolve(py, &self.senders);
            });
        } else {
            self.resolve_soon(exchange);
        }
    }

    /// Resolves who waits, from a task of its own: what runs now may not be entered by the application.
    fn resolve_soon(&self, exchange: &Py<WebSocketExchange>) {
        if self.receivers.borrow().is_empty() && self.senders.borrow().is_empty() {
            return;
        }
        let exchange = Python::attach(|py| exchange.clone_ref(py));
        self.core.spawn(async move {
            let state = exchange.get().state();
            Python::attach(|py| {
                state.resolve(py, &state.receivers);
                state.resolve(py, &state.senders);
            });
        });
    }
}

impl WebSocketExchange {
    fn state(&self) -> &State {
        self.0
            .get()
            .expect("connections use the exchange on its own thread")
    }
}

impl Exchange for WebSocketExchange {
    fn poll<'py>(
        &self,
        py: Python<'py>,
        operation: Operation,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.0.get_or_raise()?;
        match operation {
            Operation::Receive => state.receive(py),
            Operation::Send if state.ended.borrow().is_some() => {
                Err(state.application.client_disconnected())
            }
            Operation::Send => Ok((!state.is_full()).then(|| py.None().into_bound(py))),
        }
    }

    fn park(
        &self,
        _py: Python<'_>,
        _owner: &Owner,
        operation: Operation,
        waiter: Waiter,
    ) -> PyResult<()> {
        let state = self.0.get_or_raise()?;
        let mut waiters = state.waiters(operation).borrow_mut();
        if waiters.is_empty() {
            // There are hardly ever more, and a vector takes room for four.
            waiters.reserve_exact(1);
        }
        waiters.push(waiter);
        Ok(())
    }

    fn unpark(&self, py: Python<'_>, operation: Operation, waiter: &Waiter) {
        let Some(state) = self.0.get() else { return };
        let mut waiters = state.waiters(operation).borrow_mut();
        let found = waiters.iter().position(|parked| parked.is(waiter));
        let removed = found.map(|index| waiters.remove(index));
        drop(waiters);
        if let Some(removed) = removed {
            removed.release(py);
        }
    }

    fn keep_task(&self, task: Py<PyAny>) {
        if let Some(state) = self.0.get()
            && !state.coroutine_ended.get()
        {
            state.task.replace(Some(task));
        }
    }

    fn coroutine_ended(&self, py: Python<'_>, _: &Owner, result: owner::Ended<'_, '_>) {
        let Some(state) = self.0.get() else { return };
        let task = state.task.take();
        drop(task.map(|task| task.into_bound(py)));
        if state.coroutine_ended.replace(true) {
            return;
        }
        let application = &state.application;
        application.websocket_ended();
        drop(state.permit.take());
        if let Some(tracing) = &application.tracing {
            state.span.responds(py, tracing);
            if let Err(error) = result {
                state.span.failed(py, tracing, error);
            }
            state.span.clear();
        }
        if let Err(error) = result {
            application.report(py, error);
        }
        let complain = |what: &str| {
            if result.is_ok() && state.ended.borrow().is_none() {
                application.log_error(py, what);
            }
        };
        match state.phase.replace(Phase::Finished) {
            Phase::Connecting => {
                complain(
                    "the ASGI application returned without accepting or closing the WebSocket",
                );
                state.refuse(StatusCode::INTERNAL_SERVER_ERROR);
            }
            Phase::Denying => {
                complain("the ASGI application returned without completing its response");
                if state.denial().is_started() {
                    state.denial().finish(Err(Aborted), &state.core);
                } else {
                    state.refuse(StatusCode::INTERNAL_SERVER_ERROR);
                }
            }
            Phase::Accepted => {
                // False when it is closed already.
                match result {
                    Ok(_) => state.outbox.close(code::NORMAL, ""),
                    Err(_) => state.outbox.close(code::INTERNAL_ERROR, "internal error"),
                };
            }
            Phase::Finished => {}
        }
    }
}

/// The response to the handshake that is not there yet. Dropped before its end when the client goes away.
struct Handshake {
    exchange: Py<WebSocketExchange>,
    answered: bool,
}

impl Future for Handshake {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let answer = &self.exchange.get().state().answer;
        let response = answer.response.take();
        if let Some(response) = response {
            self.answered = true;
            return Poll::Ready(*response);
        }
        answer.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if !self.answered {
            self.exchange.get().state().end(&self.exchange, lost());
        }
    }
}

/// The client is gone, or the WebSocket never came about.
fn lost() -> Closed {
    Closed {
        code: code::ABNORMAL,
        reason: String::new(),
        clean: false,
    }
}

fn misplaced(message: &str, when: &str) -> PyErr {
    PyRuntimeError::new_err(format!("unexpected ASGI message {message}: it came {when}"))
}

/// `code` of `websocket.close`.
fn close_code(message: &Bound<'_, PyDict>) -> PyResult<u16> {
    let code = match item(message, intern!(message.py(), "code"))? {
        Some(code) => code.extract::<u16>().ok(),
        None => Some(code::NORMAL),
    };
    code.filter(|code| code::is_sendable(*code)).ok_or_else(|| {
        PyValueError::new_err(
            "the code of websocket.close is 1000 to 1003, 1007 to 1014, or 3000 to 4999",
        )
    })
}

/// The value of a key; `None` in Python's sense is none.
fn item<'py>(
    message: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(message.get_item(key)?.filter(|value| !value.is_none()))
}
