//! Topics for handlers of the application: it has decided who may, and hands over what is left to do.
//!
//! # A response whose body is a view
//! ```text
//! handler                          this file                           exchange
//! view(topic, query) ------------> TopicRoutes::show -> Response
//!   <- status, fields, one of them   kept under a number
//!      with that number
//! http.response.start, with those fields ----------------------------> finds the number, takes the field away
//! http.response.body, empty -----------------------------------------> the response leaves with the view's body
//! ```
//! The number travels in a field because fields are what every middleware of every framework passes on; `send` may be wrapped.
//! A number is good once, on the worker that gave it, and nobody can guess one. What was not sent is dropped with its
//! [`FrameView`], so a client that goes away, or an error on the way, leaves nothing behind.

use std::{
    cell::{Cell, OnceCell, RefCell},
    hash::{BuildHasher, RandomState},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use framegate_http::{
    body::ResponseBody,
    sendfile::ParcelSender,
    service::Response,
    topics::{Code, Problem, SocketLimits, TopicRoutes, board::Event},
    websocket::session,
};
use http::{
    HeaderValue, Method,
    header::{ACCEPT, IF_NONE_MATCH},
};
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict, PyList},
};

use super::{Topics, count};
use crate::asgi::Application;
use crate::error::exception;
use crate::home::LoopBound;
use crate::promise::promise;
use crate::stats::Row;

/// The field that says of which view a response is.
pub(crate) const FIELD: &str = "framegate-view";
/// Views that wait for their response. Each waits between two lines of a handler's; more are of one that keeps them.
const PENDING_MAX: usize = 4096;

/// What the handlers of one worker have of topics.
pub(crate) struct Handlers {
    config: Py<PyAny>,
    sockets: SocketLimits,
    routes: OnceCell<Rc<TopicRoutes>>,
    /// Where what handlers do is counted, if anywhere.
    row: OnceCell<Arc<Row>>,
    /// What the routes stand on, where no prefix of the configuration has them.
    own: RefCell<Option<Topics>>,
    pending: RefCell<Vec<(u64, Pending)>>,
    count: Cell<u64>,
    numbers: RandomState,
}

/// The body of a response that has not begun.
pub(crate) struct Pending {
    pub(crate) body: ResponseBody,
    pub(crate) sender: ParcelSender,
}

impl Handlers {
    pub(crate) fn new(
        config: &Bound<'_, PyAny>,
        session: session::Settings,
        write_timeout: Option<Duration>,
    ) -> Self {
        let sockets = SocketLimits {
            write_timeout,
            session,
        };
        Self {
            config: config.clone().unbind(),
            sockets,
            routes: OnceCell::new(),
            row: OnceCell::new(),
            own: RefCell::default(),
            pending: RefCell::default(),
            count: Cell::new(0),
            numbers: RandomState::new(),
        }
    }

    /// Limits of a `WebSocket` that frames go through.
    pub(crate) fn sockets(&self) -> SocketLimits {
        self.sockets
    }

    /// What handlers do is counted as what frame routes do.
    pub(crate) fn count_in(&self, row: &Arc<Row>) {
        // The first one counts: there are no others before the worker serves.
        let _ = self.row.set(row.clone());
    }

    /// Something happened to a frame of a handler's.
    pub(crate) fn happened(&self, event: &Event<'_>) {
        if let Some(row) = self.row.get() {
            count(row, event);
        }
    }

    /// Handlers share frames, pictures and limits with the frame routes.
    pub(crate) fn share(&self, topics: &Topics) {
        // The first ones count: there are no others before the worker serves.
        let _ = self.routes.set(topics.routes.clone());
    }

    /// The routes, set up now if nobody has asked for them.
    pub(crate) fn routes(
        &self,
        py: Python<'_>,
        application: &Application,
    ) -> PyResult<Rc<TopicRoutes>> {
        if let Some(routes) = self.routes.get() {
            return Ok(routes.clone());
        }
        let config = self.config.bind(py);
        let (core, row) = (&application.core, self.row.get());
        let topics = super::open(String::new(), config, core, self.sockets, row, None)?;
        self.share(&topics);
        let routes = topics.routes.clone();
        self.own.replace(Some(topics));
        Ok(routes)
    }

    /// Lets go of everything, when the worker closes.
    pub(crate) fn clear(&self, py: Python<'_>) {
        if let Some(topics) = self.own.take() {
            topics.clear(py);
        }
        let pending = self.pending.take();
        drop(pending);
    }

    /// Whether a response that begins may be a view's.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.borrow().is_empty()
    }

    /// The view that the value of [`FIELD`] is of, for its response.
    pub(crate) fn take_named(&self, value: &[u8]) -> Option<Pending> {
        self.take(std::str::from_utf8(value).ok()?.parse().ok()?)
    }

    fn take(&self, number: u64) -> Option<Pending> {
        let mut pending = self.pending.borrow_mut();
        let position = pending.iter().position(|(known, _)| *known == number)?;
        Some(pending.swap_remove(position).1)
    }

    fn keep(&self, body: ResponseBody, sender: ParcelSender) -> PyResult<u64> {
        let mut pending = self.pending.borrow_mut();
        if pending.len() >= PENDING_MAX {
            return Err(PyRuntimeError::new_err(format!(
                "{PENDING_MAX} views wait for their responses: a view is sent once, where it was made"
            )));
        }
        self.count.set(self.count.get() + 1);
        let number = self.numbers.hash_one(self.count.get());
        pending.push((number, Pending { body, sender }));
        Ok(number)
    }
}

/// What a handler finds in the scope of an HTTP request. One for each connection. An empty dictionary to all others: extensions
/// of ASGI are dictionaries, and scopes are printed as JSON.
#[pyclass(frozen, extends = PyDict, module = "framegate._http")]
pub(crate) struct TopicHandle(LoopBound<Weak<Application>>);

impl TopicHandle {
    pub(crate) fn new(application: &Rc<Application>) -> Self {
        Self(LoopBound::new(Rc::downgrade(application)))
    }
}

#[pymethods]
impl TopicHandle {
    /// Open a view of a topic, to be the body of a response.
    ///
    /// Args:
    ///     topic: Its name.
    ///     query: As in the query of a frame route: `view=mjpeg&rate=10`.
    ///     method: That of the request.
    ///     accept: Its field `Accept`.
    ///     `none_match`: Its field `If-None-Match`.
    ///
    /// Returns:
    ///     An awaitable of a `FrameView`; what is refused is one too.
    #[pyo3(signature = (topic, query, *, method="GET", accept=None, none_match=None))]
    fn view<'py>(
        &self,
        py: Python<'py>,
        topic: String,
        query: &str,
        method: &str,
        accept: Option<&[u8]>,
        none_match: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let application = upgraded(self.0.get_or_raise()?)?;
        let routes = application.handlers.routes(py, &application)?;
        let method = match method {
            "HEAD" => Method::HEAD,
            _ => Method::GET,
        };
        let mut head = http::Request::new(());
        *head.method_mut() = method;
        *head.uri_mut() = format!("/?{query}")
            .parse()
            .map_err(|_| PyValueError::new_err(format!("{query:?} is no query")))?;
        for (name, value) in [(ACCEPT, accept), (IF_NONE_MATCH, none_match)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
                head.headers_mut().insert(name, value);
            }
        }
        let (head, ()) = head.into_parts();
        promise(py, &application.clone(), async move {
            let sender = ParcelSender::later();
            let response = routes.show(&topic, &head, sender.clone()).await;
            move |py: Python<'_>| FrameView::object(py, &application, response, sender)
        })
    }
}

/// A view whose response has not begun.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct FrameView {
    kept: LoopBound<Kept>,
    #[pyo3(get)]
    status: u16,
    headers: Py<PyList>,
}

struct Kept {
    application: Weak<Application>,
    number: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(application) = self.application.upgrade() {
            let unused = application.handlers.take(self.number);
            drop(unused);
        }
    }
}

impl FrameView {
    fn object(
        py: Python<'_>,
        application: &Rc<Application>,
        response: Response,
        sender: ParcelSender,
    ) -> PyResult<Py<PyAny>> {
        let (head, body) = response.into_parts();
        let headers = PyList::empty(py);
        let field = |name: &[u8], value: &[u8]| {
            headers.append((PyBytes::new(py, name), PyBytes::new(py, value)))
        };
        for (name, value) in &head.headers {
            field(name.as_str().as_bytes(), value.as_bytes())?;
        }
        let number = application.handlers.keep(body, sender)?;
        field(FIELD.as_bytes(), number.to_string().as_bytes())?;
        let view = Self {
            kept: LoopBound::new(Kept {
                application: Rc::downgrade(application),
                number,
            }),
            status: head.status.as_u16(),
            headers: headers.unbind(),
        };
        Ok(Bound::new(py, view)?.into_any().unbind())
    }
}

#[pymethods]
impl FrameView {
    /// Fields of its response, as ASGI has them.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Bound<'py, PyList> {
        self.headers.bind(py).clone()
    }

    /// Whether its response has begun.
    #[getter]
    fn sent(&self) -> PyResult<bool> {
        let kept = self.kept.get_or_raise()?;
        let application = upgraded(&kept.application)?;
        let pending = application.handlers.pending.borrow();
        Ok(pending.iter().all(|(number, _)| *number != kept.number))
    }
}

fn upgraded(application: &Weak<Application>) -> PyResult<Rc<Application>> {
    application
        .upgrade()
        .ok_or_else(|| PyRuntimeError::new_err("the worker of this request is closed"))
}

/// The exception of a refusal.
pub(crate) fn refusal(py: Python<'_>, problem: &Problem) -> PyErr {
    let class = match problem.code {
        Code::Query => return PyValueError::new_err(problem.detail.clone()),
        Code::TopicUnknown => "TopicNotFound",
        Code::TopicName => "TopicNameInvalid",
        Code::SchemaMismatch | Code::NoPicture => "SchemaMismatch",
        Code::FrameTooLarge => "FrameTooLarge",
        Code::LeasesExhausted => "LeaseQuotaExceeded",
        _ => "FramegateError",
    };
    exception(py, class, &problem.to_string())
}
