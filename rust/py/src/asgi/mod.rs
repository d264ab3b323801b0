//! ASGI: from requests of the HTTP core to calls of a Python application, and back.
//!
//! # Parts
//! - [`task`]: how a coroutine is started, and when that takes an asyncio task. Knows nothing of HTTP.
//! - [`awaitable`]: what `receive()` and `send()` return. Knows nothing of HTTP either.
//! - [`owner`]: the trait between those two and the exchanges ([`owner::Exchange`]), and the enum of all exchanges.
//! - [`function`]: `receive` and `send` themselves. [`elsewhere`]: `send` on a foreign thread.
//! - [`scope`], [`names`], [`message`]: reading and making what ASGI passes around.
//! - [`file`]: files as pieces of a response's body.
//! - [`route`]: requests that a native route answers ([`crate::routes`]), before the application is asked.
//! - [`http`]: one HTTP request. [`websocket`]: one WebSocket, chosen when the request is an opening handshake. Both tell
//!   [`Application::call_begins`] and [`Application::call_ended`], which a graceful stop waits for.
//!
//! # Rules of this folder
//! - Python code runs in four places: the first segment of a request (inside the handler's call, or in the first poll of its answer
//!   when a small body comes with it: hyper is in neither a second time), a pump's resolving of
//!   waiters (a task of the loop), a WebSocket session's turns (the connection's own poll, in which hyper has no part any
//!   more), and the application's own calls of `send` and `receive`. After the first three, `LoopCore::after_python` decides
//!   whether `select` must return.
//! - Nothing is borrowed while Python code runs, and `Drop`s of response futures and bodies run none.
//! - No globals but types: everything of a worker hangs on its [`Application`].

pub(crate) mod awaitable;
mod elsewhere;
mod file;
mod function;
mod head_memo;
pub(crate) mod http;
mod message;
mod names;
mod object;
pub(crate) mod owner;
mod route;
pub(crate) mod scope;
pub(crate) mod task;
pub(crate) mod websocket;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use ::bytes::Bytes;
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use framegate_http::{
    body::ResponseBody,
    service::{Address, ConnectionInfo, Handler, Request, Response, ResponseFuture, Service},
    trace::Span,
    websocket::{
        deflate,
        handshake::{self, Offer},
        session,
    },
};
use pyo3::{
    exceptions::{PyException, PyValueError},
    intern,
    prelude::*,
    types::{PyDict, PyString, PyType},
};

use crate::event_loop::LoopCore;
use crate::frames::{BodyHandle, Publishers};
use crate::routes::{HandlerCounts, RouteTable};
use crate::settings::seconds_or_off;
use crate::topics::handlers::Handlers;
use crate::tracing::Tracing;
use head_memo::HeadMemo;
use http::{HttpExchange, Later};
use message::{Constants, HeaderCache};
use names::Names;
use owner::Owner;
use scope::ScopeTemplate;
use task::{Arguments, Call, RequestTask, Started, Starter, TaskMode};

/// Finished requests kept for the next ones. As many as may be in their first segment at once matter, which is one; a few
/// more serve nested work.
const POOL_MAX: usize = 16;

/// The settings that concern requests, read once from the configuration object.
pub(crate) struct Settings {
    /// As a Python string, for scopes.
    pub(crate) root_path: Py<PyString>,
    /// Unsent bytes of a response above which `send()` waits.
    pub(crate) send_buffer_bytes: u64,
    /// Limits of a WebSocket.
    pub(crate) websocket: session::Settings,
    /// How WebSocket messages are compressed.
    pub(crate) deflate: deflate::Settings,
    /// Responses may be compressed on their way.
    pub(crate) compresses: bool,
    /// `server: framegate`, unless the application sends its own.
    server_header: bool,
    /// Added to every response.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// How many fields others may add to a response on its way.
    pub(crate) fields_later: usize,
}

/// What the edge, the recorder and compression add, by the settings.
fn fields_later(config: &Bound<'_, PyAny>) -> PyResult<usize> {
    let is_set = |name: &str| -> PyResult<bool> {
        let value = config.getattr(name)?;
        Ok(!value.is_none() && value.is_truthy()?)
    };
    let has_rates = is_set("rate_limit")? || is_set("rate_limit_key")?;
    Ok(usize::from(is_set("request_id")?)
        + 2 * usize::from(has_rates)
        + usize::from(is_set("server_timing")?)
        + 2 * usize::from(is_set("compress")?))
}

impl Settings {
    fn new(config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let pairs: Vec<(String, String)> = config.getattr("headers")?.extract()?;
        let headers = pairs
            .iter()
            .map(|(name, value)| {
                // Latin-1, as ever in HTTP/1.
                let value: Option<Vec<u8>> = value
                    .chars()
                    .map(|c| u8::try_from(u32::from(c)).ok())
                    .collect();
                let name = HeaderName::from_bytes(name.as_bytes()).ok();
                let value = value.and_then(|value| HeaderValue::from_bytes(&value).ok());
                name.zip(value)
                    .ok_or_else(|| PyValueError::new_err(format!("{pairs:?} are not headers")))
            })
            .collect::<PyResult<_>>()?;
        Ok(Self {
            root_path: config
                .getattr("root_path")?
                .cast_into::<PyString>()?
                .unbind(),
            send_buffer_bytes: config.getattr("send_buffer_bytes")?.extract()?,
            websocket: session::Settings {
                message_bytes_max: config.getattr("ws_max_size")?.extract()?,
                ping_interval: seconds_or_off(config, "ws_ping_interval")?,
                ping_timeout: seconds_or_off(config, "ws_ping_timeout")?,
                ..session::Settings::default()
            },
            deflate: deflate::Settings {
                mode: deflate_mode(&config.getattr("ws_per_message_deflate")?)?,
                bytes_min: config.getattr("ws_deflate_min_size")?.extract()?,
                contexts_max: config.getattr("ws_deflate_max_contexts")?.extract()?,
            },
            compresses: config.getattr("compress")?.is_truthy()?,
            server_header: config.getattr("server_header")?.is_truthy()?,
            headers,
            fields_later: fields_later(config)?,
        })
    }

    /// [`Self::add_headers`] where it is not known what the application sent.
    pub(crate) fn complete_headers(&self, headers: &mut HeaderMap) {
        let names_server = headers.contains_key(header::SERVER);
        self.add_headers(headers, names_server);
    }

    /// The fields that the server adds to a response of the application.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap, names_server: bool) {
        if self.server_header && !names_server {
            headers.insert(header::SERVER, HeaderValue::from_static("framegate"));
        }
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
    }
}

fn deflate_mode(word: &Bound<'_, PyAny>) -> PyResult<deflate::Mode> {
    match word.cast::<PyString>()?.to_str()? {
        "off" => Ok(deflate::Mode::Off),
        "shared" => Ok(deflate::Mode::Shared),
        "context" => Ok(deflate::Mode::Context),
        other => Err(PyValueError::new_err(format!(
            "ws_per_message_deflate is {other:?}"
        ))),
    }
}

/// What a request is called with. Used again when the request left no trace.
struct Bundle {
    exchange: Py<HttpExchange>,
    receive: Py<PyAny>,
    send: Py<PyAny>,
    /// Only where tasks are lazy.
    task: Option<RequestTask>,
}

impl Bundle {
    /// True when nobody but the pool can reach any of the objects.
    #[expect(unsafe_code, reason = "pyo3 has no Py_REFCNT")]
    fn unseen(&self, py: Python<'_>) -> bool {
        // SAFETY: looks at live objects.
        let references = |object: *mut pyo3::ffi::PyObject| unsafe { pyo3::ffi::Py_REFCNT(object) };
        references(self.receive.as_ptr()) == 1
            && references(self.send.as_ptr()) == 1
            // Ours, and one of each bound method.
            && references(self.exchange.as_ptr()) == 3
            && self.task.as_ref().is_none_or(|task| task.unseen(py))
    }

    fn release(self, py: Python<'_>) {
        drop(self.receive.into_bound(py));
        drop(self.send.into_bound(py));
        drop(self.exchange.into_bound(py));
        if let Some(task) = self.task {
            task.release(py);
        }
    }
}

/// An ASGI application as one worker serves it.
pub(crate) struct Application {
    pub(crate) core: Rc<LoopCore>,
    pub(crate) starter: Starter,
    pub(crate) settings: Settings,
    pub(crate) names: Names,
    /// What every scope has as `asgi`.
    pub(crate) asgi: Py<PyDict>,
    /// What scopes of the last connection have as `server`.
    pub(crate) server: RefCell<Option<(Address, Py<PyAny>)>>,
    /// `state` of the lifespan; each request gets a shallow copy.
    pub(crate) state: Option<Py<PyDict>>,
    /// The awaitable that a `send()` without waiting returns.
    pub(crate) ready: Py<PyAny>,
    /// What messages have again and again.
    pub(crate) constants: Constants,
    /// Header fields of earlier responses.
    pub(crate) header_cache: HeaderCache,
    /// The head of the last responses, if they were alike.
    pub(crate) head_memo: HeadMemo,
    /// Publishers that bodies were ingested by.
    pub(crate) publishers: Publishers,
    /// What handlers have of topics.
    pub(crate) handlers: Handlers,
    /// Bodies that became frames without Python, and with it.
    ingested: [Cell<u64>; 2],
    logger: Py<PyAny>,
    disconnected: Py<PyType>,
    framegate_error: Py<PyType>,
    pool: RefCell<Vec<Bundle>>,
    /// Calls of the application that have not ended, also those whose response is long complete.
    calls: Cell<usize>,
    /// Those for a `WebSocket` among them.
    websockets: Cell<usize>,
    /// Who waits for the last of them.
    idle: RefCell<Option<Waker>>,
    /// The worker stops soon: who waits for a client to go away is told that it has gone.
    leaving: Cell<bool>,
    /// Where requests have spans.
    pub(crate) tracing: Option<Tracing>,
    /// Native routes, which stand before what is called.
    routes: Option<Py<RouteTable>>,
}

impl Application {
    /// Made on the loop's thread, inside the running loop, in the context that requests shall start from.
    pub(crate) fn new(
        py: Python<'_>,
        core: Rc<LoopCore>,
        callable: Py<PyAny>,
        config: &Bound<'_, PyAny>,
        state: Option<Py<PyDict>>,
        plain_tasks: bool,
        tracing: Option<Tracing>,
    ) -> PyResult<Rc<Self>> {
        let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
        let context = py.import("contextvars")?.call_method0("copy_context")?;
        let settings = Settings::new(config)?;
        let write_timeout = seconds_or_off(config, "timeout_write")?;
        let handlers = Handlers::new(config, settings.websocket, write_timeout);
        let root_path = settings.root_path.bind(py).to_str()?.to_owned();
        let routes = RouteTable::of(callable.bind(py))?;
        // What no native route answers goes past them.
        let callable = match &routes {
            Some(_) => callable.bind(py).getattr(intern!(py, "fallback"))?.unbind(),
            None => callable,
        };
        Ok(Rc::new(Self {
            routes: routes.map(Bound::unbind),
            starter: Starter {
                callable,
                context: context.unbind(),
                mode: TaskMode::choose(py, &event_loop, plain_tasks)?,
                event_loop: event_loop.unbind(),
            },
            core,
            names: Names::new(root_path),
            asgi: scope::versions(py)?.unbind(),
            server: RefCell::default(),
            settings,
            state,
            ready: awaitable::ready_awaitable(py)?.unbind(),
            logger: py
                .import("logging")?
                .call_method1("getLogger", ("framegate.asgi",))?
                .unbind(),
            disconnected: py
                .import("framegate.errors")?
                .getattr("ClientDisconnected")?
                .cast_into::<PyType>()?
                .unbind(),
            framegate_error: py
                .import("framegate.errors")?
                .getattr("FramegateError")?
                .cast_into::<PyType>()?
                .unbind(),
            constants: Constants::default(),
            header_cache: HeaderCache::default(),
            head_memo: HeadMemo::default(),
            publishers: Publishers::default(),
            handlers,
            ingested: [Cell::new(0), Cell::new(0)],
            pool: RefCell::default(),
            calls: Cell::new(0),
            websockets: Cell::new(0),
            idle: RefCell::default(),
            leaving: Cell::new(false),
            tracing,
        }))
    }

    /// The span of a request, where requests have spans.
    pub(crate) fn span(&self, request: &Request) -> Option<(&Tracing, Arc<Span>)> {
        let tracing = self.tracing.as_ref()?;
        Some((tracing, request.record.span()?))
    }

    /// A call of the application begins.
    pub(crate) fn call_begins(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    /// A call of the application has ended. Every exchange tells that once.
    pub(crate) fn call_ended(&self) {
        self.calls.set(self.calls.get() - 1);
        if self.calls.get() == 0 {
            let waker = self.idle.take();
            if let Some(waker) = waker {
                self.core.wake(waker);
            }
        }
    }

    /// The same, of a WebSocket.
    pub(crate) fn websocket_begins(&self) {
        self.websockets.set(self.websockets.get() + 1);
        self.call_begins();
    }

    /// The same, of a WebSocket.
    pub(crate) fn websocket_ended(&self) {
        self.websockets.set(self.websockets.get() - 1);
        self.call_ended();
    }

    /// Calls for a `WebSocket` that have not ended.
    pub(crate) fn websockets(&self) -> usize {
        self.websockets.get()
    }

    /// Calls of the application that have not ended.
    pub(crate) fn calls(&self) -> usize {
        self.calls.get()
    }

    /// Counts of native routes' handlers that run in threads.
    pub(crate) fn blocking_handlers(&self) -> Option<&HandlerCounts> {
        self.routes.as_ref().map(|routes| routes.get().handlers())
    }

    /// Completes when no call of the application is left. One task may wait.
    pub(crate) async fn no_calls(&self) {
        poll_fn(|cx| {
            if self.calls.get() == 0 {
                return Poll::Ready(());
            }
            self.idle.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// From now on `receive()` says `http.disconnect` once the request was read, to those that wait in it and to those that
    /// will: streams without an end find one, and can still send a last event. Uploads go on.
    pub(crate) fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.leaving.set(true);
        for (_, owner) in self.unfinished(py)? {
            if let Owner::Http(exchange) = &owner {
                exchange.get().look_again();
            }
            owner.release(py);
        }
        Ok(())
    }

    /// True after [`Self::leave`].
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Cancels the tasks of all calls that have not ended.
    pub(crate) fn cancel_calls(&self, py: Python<'_>) -> PyResult<()> {
        for (task, owner) in self.unfinished(py)? {
            owner.release(py);
            task.call_method0(intern!(py, "cancel"))?;
        }
        Ok(())
    }

    fn unfinished<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyAny>, Owner)>> {
        let event_loop = self.starter.event_loop.bind(py);
        self.starter.mode.unfinished(py, event_loop)
    }

    /// A body became a frame, natively or through Python.
    pub(crate) fn count_ingest(&self, native: bool) {
        let count = &self.ingested[usize::from(!native)];
        count.set(count.get() + 1);
    }

    /// How many bodies became frames natively, and through Python.
    pub(crate) fn ingested(&self) -> (u64, u64) {
        (self.ingested[0].get(), self.ingested[1].get())
    }

    /// The exception for a `send()` to nobody.
    pub(crate) fn client_disconnected(&self) -> PyErr {
        Python::attach(|py| {
            PyErr::from_type(
                self.disconnected.bind(py).clone(),
                "the client closed the connection before the response was complete",
            )
        })
    }

    /// Tells the log of an exception that came out of the application. That the client went away is no error of anybody:
    /// it is for whoever debugs.
    pub(crate) fn report(&self, py: Python<'_>, error: &PyErr) {
        self.report_as(py, error, "exception in ASGI application");
    }

    /// The same, of the handler of a native route.
    pub(crate) fn report_handler(&self, py: Python<'_>, error: &PyErr) {
        self.report_as(py, error, "exception in a handler");
    }

    fn report_as(&self, py: Python<'_>, error: &PyErr, message: &str) {
        let logged = if self.is_disconnection(py, error.value(py).as_any()) {
            self.log(
                py,
                "debug",
                "the ASGI application ended: the client disconnected",
                None,
            )
        } else if error.is_instance_of::<PyException>(py) {
            self.log(py, "error", message, Some(error))
        } else {
            // Cancellation and exits are for the task and the loop.
            Ok(())
        };
        if let Err(error) = logged {
            error.write_unraisable(py, None);
        }
    }

    /// What to answer instead of 500: errors of framegate that say so (`framegate.ingest` marks those that are the client's
    /// doing, or a passing shortage).
    pub(crate) fn answer(&self, py: Python<'_>, error: &PyErr) -> Option<(StatusCode, Bytes)> {
        let value = error.value(py);
        if !value.is_instance(self.framegate_error.bind(py)).ok()? {
            return None;
        }
        let status: u16 = value
            .getattr(intern!(py, "status_code"))
            .ok()?
            .extract()
            .ok()?;
        let text = value.str().ok()?.to_string();
        Some((StatusCode::from_u16(status).ok()?, text.into()))
    }

    /// An error of the application that is not an exception.
    pub(crate) fn log_error(&self, py: Python<'_>, message: &str) {
        if let Err(error) = self.log(py, "error", message, None) {
            error.write_unraisable(py, None);
        }
    }

    fn log(
        &self,
        py: Python<'_>,
        level: &str,
        message: &str,
        error: Option<&PyErr>,
    ) -> PyResult<()> {
        let keywords = PyDict::new(py);
        if let Some(error) = error {
            // Not `value`: before Python 3.12 that one is without its traceback.
            let error = error.clone_ref(py).into_value(py);
            keywords.set_item(intern!(py, "exc_info"), error)?;
        }
        self.logger
            .bind(py)
            .call_method(level, (message,), Some(&keywords))
            .map(drop)
    }

    /// `ClientDisconnected`, or a group of nothing else.
    fn is_disconnection(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> bool {
        if error
            .is_instance(self.disconnected.bind(py))
            .unwrap_or(false)
        {
            return true;
        }
        let group = py.get_type::<pyo3::exceptions::PyBaseExceptionGroup>();
        if !error.is_instance(&group).unwrap_or(false) {
            return false;
        }
        let all = error
            .getattr(intern!(py, "exceptions"))
            .and_then(|members| members.try_iter())
            .and_then(|members| {
                for member in members {
                    if !self.is_disconnection(py, &member?) {
                        return Ok(false);
                    }
                }
                Ok(true)
            });
        all.unwrap_or(false)
    }

    fn bundle(&self, py: Python<'_>) -> PyResult<Bundle> {
        let pooled = self.pool.borrow_mut().pop();
        if let Some(bundle) = pooled {
            return Ok(bundle);
        }
        let exchange = Bound::new(py, HttpExchange::new(self.core.clone()))?;
        let task = self
            .starter
            .mode
            .is_lazy()
            .then(|| RequestTask::blank(py))
            .transpose()?;
        Ok(Bundle {
            receive: function::receive(&exchange)?.unbind(),
            send: function::send(&exchange)?.unbind(),
            exchange: exchange.unbind(),
            task,
        })
    }

    /// The response of a call that was started, or the wait for it.
    fn started(
        &self,
        py: Python<'_>,
        bundle: Bundle,
        started: PyResult<Started>,
    ) -> ResponseFuture {
        self.core.after_python(py);
        let exchange = bundle.exchange.get();
        if let Err(error) = started {
            let owner = Owner::Http(bundle.exchange.clone_ref(py));
            owner::Exchange::coroutine_ended(exchange, py, &owner, Err(&error));
            owner.release(py);
        }
        let response = exchange.take_response();
        if let Some(response) = response {
            self.retire(py, bundle);
            response.into()
        } else {
            let later = Later::new(bundle.exchange.clone_ref(py));
            bundle.release(py);
            ResponseFuture::later(later)
        }
    }

    /// Keeps the objects of a finished request if nobody saw them.
    fn retire(&self, py: Python<'_>, bundle: Bundle) {
        if bundle.exchange.get().is_finished() && bundle.unseen(py) {
            bundle.exchange.get().retire();
            let mut pool = self.pool.borrow_mut();
            if pool.len() < POOL_MAX {
                pool.push(bundle);
                return;
            }
        }
        bundle.release(py);
    }

    /// Lets go of what is kept for later requests, when the worker closes.
    pub(crate) fn clear_pool(&self, py: Python<'_>) {
        self.constants.clear(py);
        self.header_cache.clear(py);
        self.head_memo.clear(py);
        let bundles = self.pool.take();
        for bundle in bundles {
            bundle.release(py);
        }
    }
}

/// Opens an [`AsgiHandler`] per connection.
pub(crate) struct AsgiService(pub(crate) Rc<Application>);

impl Service for AsgiService {
    fn open(&self, connection: &Rc<ConnectionInfo>) -> Rc<dyn Handler> {
        Rc::new(AsgiHandler(Rc::new(Caller {
            application: self.0.clone(),
            connection: connection.clone(),
            template: RefCell::default(),
        })))
    }
}

/// Answers the requests of one connection.
struct AsgiHandler(Rc<Caller>);

/// Calls the application, for the requests of one connection.
struct Caller {
    application: Rc<Application>,
    connection: Rc<ConnectionInfo>,
    /// Made at the first request: a connection that sends none (a probe) costs nothing in Python.
    template: RefCell<Option<Rc<ScopeTemplate>>>,
}

impl Caller {
    /// `version` is that of the first request. Of HTTP/2 all have it; a later one of HTTP/1.0 says so itself.
    fn template(&self, py: Python<'_>, version: ::http::Version) -> PyResult<Rc<ScopeTemplate>> {
        let known = self.template.borrow().clone();
        if let Some(template) = known {
            return Ok(template);
        }
        let template = Rc::new(ScopeTemplate::new(
            py,
            &self.application,
            &self.connection,
            version,
        )?);
        self.template.replace(Some(template.clone()));
        Ok(template)
    }

    /// Runs the application on a WebSocket, if the handshake is right.
    fn start_websocket(
        &self,
        py: Python<'_>,
        request: Request,
        offer: Result<Offer, handshake::Rejected>,
    ) -> PyResult<ResponseFuture> {
        match offer {
            Ok(offer) => {
                let template = self.template(py, request.head.version)?;
                websocket::serve(py, &self.application, &template, request, offer)
            }
            Err(rejected) => {
                let mut response = rejected.response().map(ResponseBody::from);
                self.application
                    .settings
                    .add_headers(response.headers_mut(), false);
                Ok(response.into())
            }
        }
    }

    /// Puts the handle for `framegate.ingest` into the scope of a request that has a body.
    fn offer_body(py: Python<'_>, scope: &Bound<'_, PyDict>, bundle: &Bundle) -> PyResult<()> {
        let extensions = scope.get_item(intern!(py, "extensions"))?;
        let extensions = extensions
            .expect("every scope has it")
            .cast_into::<PyDict>()?;
        let handle = Bound::new(py, BodyHandle::new(bundle.exchange.clone_ref(py)))?;
        extensions.set_item(intern!(py, "framegate.frames"), handle)
    }

    /// `request` stays where it is: moving one is dear.
    fn start_http(&self, py: Python<'_>, request: &mut Request) -> PyResult<ResponseFuture> {
        let application = &self.application;
        let scope = self.template(py, request.head.version)?.http(
            py,
            application,
            &request.head,
            request.arrival.as_deref(),
        )?;
        let span = application.span(request);
        if let Some((_, span)) = &span {
            ScopeTemplate::add_trace(&scope, &span.context)?;
        }
        let bundle = application.bundle(py)?;
        let exchange = bundle.exchange.get();
        if !request.body.is_end_stream() {
            Self::offer_body(py, &scope, &bundle)?;
        }
        exchange.begin(application.clone(), request);
        if let Some((_, span)) = &span {
            exchange.begin_span(span, &scope);
        }
        let started = application.starter.start(
            py,
            &application.core,
            bundle.task.as_ref(),
            &Owner::Http(bundle.exchange.clone_ref(py)),
            &Arguments {
                call: Call::Application {
                    scope: &scope,
                    receive: bundle.receive.bind(py),
                    send: bundle.send.bind(py),
                },
                span: span.as_ref().map(|(tracing, span)| (*tracing, span)),
            },
        );
        drop(scope);
        Ok(application.started(py, bundle, started))
    }
}

impl Caller {
    /// Calls the application. A request whose body is on its way waits with that until the connection polls the response, and what
    /// has come of the body is there: its first `receive()` does not suspend then, and no task is made for it.
    #[inline]
    fn call_application(self: &Rc<Self>, mut request: Request) -> ResponseFuture {
        if request.body.call_for() {
            self.call_later(request)
        } else {
            self.attach_and_start(&mut request)
        }
    }

    /// Apart from the rest, which moves no request.
    #[inline(never)]
    fn call_later(self: &Rc<Self>, mut request: Request) -> ResponseFuture {
        let caller = self.clone();
        ResponseFuture::later(async move {
            let started = caller.attach_and_start(&mut request);
            drop(request);
            started.await
        })
    }

    /// No closure has the request: that would be a move.
    fn attach_and_start(&self, request: &mut Request) -> ResponseFuture {
        Python::attach(|py| {
            self.start_http(py, request)
                .unwrap_or_else(|error| self.failed(py, &error))
        })
    }

    /// The same where native routes come first.
    fn call_routed(self: &Rc<Self>, routes: &Py<RouteTable>, request: Request) -> ResponseFuture {
        Python::attach(|py| {
            let routes = routes.bind(py);
            match route::answer(py, &self.application, routes, request) {
                Ok(answered) => answered,
                Err(unanswered) => self.call_application(*unanswered),
            }
        })
    }

    /// The answer when the application could not even be called.
    #[cold]
    fn failed(&self, py: Python<'_>, error: &PyErr) -> ResponseFuture {
        self.application.report(py, error);
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.into()
    }
}

impl Handler for AsgiHandler {
    fn call(&self, request: Request) -> ResponseFuture {
        let caller = &self.0;
        if request.has_upgrade_field
            && let Some(offer) = Offer::of(&request.head)
        {
            return Python::attach(|py| {
                caller
                    .start_websocket(py, request, offer)
                    .unwrap_or_else(|error| caller.failed(py, &error))
            });
        }
        if let Some(routes) = &caller.application.routes {
            return caller.call_routed(routes, request);
        }
        caller.call_application(request)
    }

    fn rest(&self) {
        // Half of what a waiting connection would hold.
        let template = self.0.template.take();
        Python::attach(|_| drop(template));
    }
}
