//! The connection scope of a request (ASGI 3.0, HTTP and WebSocket specification 2.5).
//!
//! A connection makes a template once: a dictionary with every key of the scope and what does not change between its
//! requests. Each request gets a copy of it and replaces what differs, which is a third of the cost of filling an empty
//! dictionary. What applications may change in place is never shared by two requests that can see it: the dictionary itself,
//! the header list, `state`, `extensions`. Tuples, strings and `bytes` are, and header tuples that are equal to those of the
//! connection's previous request are the same objects.
//!
//! The template *lends* its header list, `state` and `extensions`: the next request gets the same objects when nobody but the
//! template has them any more (two references: the template's and ours) and nothing was put into them or taken out.

use std::{cell::RefCell, rc::Rc};

use framegate_http::{
    edge::{Arrival, Client, Origin},
    service::{Address, ConnectionInfo},
    tls::TlsSession,
    trace::SpanContext,
};
use http::{HeaderMap, HeaderValue, Method};
use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyString, PyTuple},
};

use super::{Application, names::Names};
use crate::topics::handlers::TopicHandle;
use crate::tracing::Tracing;

/// References to what the template lends, when nobody has it: the template's and ours.
const LENT: isize = 2;
/// Header tuples remembered per connection; browsers send about 20.
const PAIRS_MAX: usize = 64;
/// Extensions that need no more than HTTP/1.0.
const EXTENSIONS_1_0: [&str; 2] = ["http.response.pathsend", "http.response.zerocopysend"];
/// Extensions that need HTTP/1.1 or later: older clients know neither informational responses nor trailers.
const EXTENSIONS_1_1: [&str; 2] = ["http.response.early_hint", "http.response.trailers"];

/// The extensions of a connection, as its template has them.
struct Extensions {
    names: Py<PyDict>,
    /// The value of each name. Nothing else refers to it: when its references are as many as the names, no value was
    /// replaced or kept.
    value: Py<PyDict>,
    value_references: isize,
    /// `framegate.topics`: what a handler asks of topics.
    topics: Py<TopicHandle>,
    /// `framegate.request_id`, once a request had a name: the next name replaces the last one.
    about_name: Option<Py<PyDict>>,
}

/// Which ASGI is spoken: one dictionary for all scopes, as it says nothing of any of them.
pub(super) fn versions(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let asgi = PyDict::new(py);
    asgi.set_item(intern!(py, "version"), intern!(py, "3.0"))?;
    asgi.set_item(intern!(py, "spec_version"), intern!(py, "2.5"))?;
    Ok(asgi)
}

/// What an answer in `framegate.app` has to know of a request that was decided without a scope.
pub(super) fn of_answer<'py>(
    py: Python<'py>,
    application: &Rc<Application>,
    method: &Method,
    fields: &HeaderMap,
) -> PyResult<Bound<'py, PyDict>> {
    let headers = PyList::empty(py);
    for (name, value) in fields {
        let name = PyBytes::new(py, name.as_str().as_bytes());
        headers.append((name, PyBytes::new(py, value.as_bytes())))?;
    }
    let extensions = PyDict::new(py);
    for name in EXTENSIONS_1_0 {
        extensions.set_item(name, PyDict::new(py))?;
    }
    let topics = Bound::new(py, TopicHandle::new(application))?;
    extensions.set_item(intern!(py, "framegate.topics"), topics)?;
    let scope = PyDict::new(py);
    scope.set_item(intern!(py, "type"), intern!(py, "http"))?;
    scope.set_item(intern!(py, "method"), method.as_str())?;
    scope.set_item(intern!(py, "headers"), headers)?;
    scope.set_item(intern!(py, "extensions"), extensions)?;
    Ok(scope)
}

impl Extensions {
    fn new(py: Python<'_>, application: &Rc<Application>, has_name: bool) -> PyResult<Self> {
        let (names, value) = (PyDict::new(py), PyDict::new(py));
        let topics = Bound::new(py, TopicHandle::new(application))?;
        names.set_item(intern!(py, "framegate.topics"), &topics)?;
        for name in EXTENSIONS_1_0.iter().chain(&EXTENSIONS_1_1) {
            names.set_item(name, &value)?;
        }
        let about_name = if has_name {
            let about = PyDict::new(py);
            about.set_item(intern!(py, "id"), py.None())?;
            names.set_item(intern!(py, "framegate.request_id"), &about)?;
            Some(about.unbind())
        } else {
            None
        };
        Ok(Self {
            value_references: value.get_refcnt(),
            names: names.unbind(),
            value: value.unbind(),
            topics: topics.unbind(),
            about_name,
        })
    }

    /// Nobody has them, and nothing was changed. (One who gives a value another name is not found out.)
    fn are_untouched(&self, py: Python<'_>) -> bool {
        let (names, value) = (self.names.bind(py), self.value.bind(py));
        let name_is_untouched = self.about_name.as_ref().is_none_or(|about| {
            let about = about.bind(py);
            about.get_refcnt() == LENT && about.len() == 1
        });
        let count = EXTENSIONS_1_0.len()
            + EXTENSIONS_1_1.len()
            + 1
            + usize::from(self.about_name.is_some());
        names.get_refcnt() == LENT
            && names.len() == count
            && value.get_refcnt() == self.value_references
            && value.is_empty()
            && self.topics.bind(py).get_refcnt() == LENT
            && name_is_untouched
    }
}

/// What the scopes of one connection have in common.
pub(crate) struct ScopeTemplate {
    template: Py<PyDict>,
    /// The extension `tls`, where there is TLS: what requests get copies of.
    tls: Option<Py<PyDict>>,
    /// Lent: see the head of the file.
    extensions: RefCell<Extensions>,
    /// Lent while the lifespan's own state is empty.
    state: RefCell<Py<PyDict>>,
    /// Lent to a client that sends the same fields again: the list of all of `pairs`.
    headers: RefCell<Option<Py<PyList>>>,
    paths: RefCell<Paths>,
    /// The header tuples of the last request.
    pairs: RefCell<Vec<Py<PyTuple>>>,
}

/// Which path the template has. One that comes twice in a row is put there: a client that repeats itself then costs nothing,
/// and one that does not costs nothing more.
#[derive(Default)]
struct Paths {
    template: Option<String>,
    last: String,
}

impl ScopeTemplate {
    pub(crate) fn new(
        py: Python<'_>,
        application: &Rc<Application>,
        connection: &ConnectionInfo,
        version: http::Version,
    ) -> PyResult<Self> {
        let template = PyDict::new(py);
        let empty = PyBytes::new(py, b"");
        // Every key is there from the start, so that a copy is never grown.
        template.set_item(intern!(py, "type"), intern!(py, "http"))?;
        template.set_item(intern!(py, "asgi"), &application.asgi)?;
        let version = if version == http::Version::HTTP_2 {
            intern!(py, "2")
        } else {
            intern!(py, "1.1")
        };
        template.set_item(intern!(py, "http_version"), version)?;
        template.set_item(intern!(py, "method"), intern!(py, "GET"))?;
        let scheme = if connection.tls.is_some() {
            intern!(py, "https")
        } else {
            intern!(py, "http")
        };
        template.set_item(intern!(py, "scheme"), scheme)?;
        template.set_item(intern!(py, "path"), "/")?;
        template.set_item(intern!(py, "raw_path"), &empty)?;
        template.set_item(intern!(py, "query_string"), &empty)?;
        template.set_item(intern!(py, "root_path"), &application.settings.root_path)?;
        template.set_item(intern!(py, "headers"), py.None())?;
        template.set_item(intern!(py, "client"), client(py, &connection.peer)?)?;
        template.set_item(
            intern!(py, "server"),
            server(py, application, &connection.local)?,
        )?;
        let state = PyDict::new(py);
        if application.state.is_some() {
            template.set_item(intern!(py, "state"), &state)?;
        }
        let extensions = Extensions::new(py, application, false)?;
        template.set_item(intern!(py, "extensions"), &extensions.names)?;
        Ok(Self {
            template: template.unbind(),
            tls: connection
                .tls
                .as_deref()
                .map(|session| tls_extension(py, session))
                .transpose()?,
            extensions: RefCell::new(extensions),
            state: RefCell::new(state.unbind()),
            headers: RefCell::default(),
            paths: RefCell::default(),
            pairs: RefCell::default(),
        })
    }

    /// The scope of one HTTP request.
    pub(crate) fn http<'py>(
        &self,
        py: Python<'py>,
        application: &Rc<Application>,
        head: &http::request::Parts,
        arrival: Option<&Arrival>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let name = arrival.and_then(|arrival| arrival.request_id.as_ref());
        self.renew_extensions(py, application, name.is_some())?;
        if let Some(name) = name
            && let Some(about) = &self.extensions.borrow().about_name
        {
            set_name(about.bind(py), name)?;
        }
        let scope = self.common(py, application, head)?;
        let method = match head.method.as_str() {
            "GET" => None,
            "POST" => Some(intern!(py, "POST").clone()),
            "PUT" => Some(intern!(py, "PUT").clone()),
            "DELETE" => Some(intern!(py, "DELETE").clone()),
            "HEAD" => Some(intern!(py, "HEAD").clone()),
            "OPTIONS" => Some(intern!(py, "OPTIONS").clone()),
            "PATCH" => Some(intern!(py, "PATCH").clone()),
            // ASGI wants upper case; methods are case-sensitive, so a client's `get` is not GET to anybody else.
            other => Some(PyString::new(py, &other.to_ascii_uppercase())),
        };
        if let Some(method) = method {
            scope.set_item(intern!(py, "method"), method)?;
        }
        if head.version == http::Version::HTTP_10 {
            let extensions = PyDict::new(py);
            for name in EXTENSIONS_1_0 {
                extensions.set_item(name, PyDict::new(py))?;
            }
            let topics = Bound::new(py, TopicHandle::new(application))?;
            extensions.set_item(intern!(py, "framegate.topics"), topics)?;
            if let Some(name) = name {
                add_name(&extensions, name)?;
            }
            scope.set_item(intern!(py, "extensions"), extensions)?;
        }
        self.add_tls(&scope)?;
        if let Some(arrival) = arrival {
            Self::add_origin(&scope, head, &arrival.origin)?;
        }
        Ok(scope)
    }

    /// Puts into the scope of a WebSocket what trusted proxies say of the request, and its name. To be called when the scope has
    /// all else.
    pub(super) fn add_arrival(
        scope: &Bound<'_, PyDict>,
        head: &http::request::Parts,
        arrival: &Arrival,
    ) -> PyResult<()> {
        Self::add_origin(scope, head, &arrival.origin)?;
        if let Some(name) = &arrival.request_id {
            let extensions = extensions_to_change(scope)?;
            add_name(&extensions, name)?;
            scope.set_item(intern!(scope.py(), "extensions"), extensions)?;
        }
        Ok(())
    }

    fn add_origin(
        scope: &Bound<'_, PyDict>,
        head: &http::request::Parts,
        origin: &Origin,
    ) -> PyResult<()> {
        let py = scope.py();
        match origin.client {
            Client::Peer => {}
            Client::At(address) => {
                let client = (address.ip().to_string(), address.port());
                scope.set_item(intern!(py, "client"), client)?;
            }
            Client::Unknown => scope.set_item(intern!(py, "client"), py.None())?,
        }
        if let Some(is_secure) = origin.is_secure {
            let kind = scope.get_item(intern!(py, "type"))?;
            let is_http = kind.is_some_and(|kind| kind.eq("http").unwrap_or(false));
            let scheme = match (is_http, is_secure) {
                (true, true) => intern!(py, "https"),
                (true, false) => intern!(py, "http"),
                (false, true) => intern!(py, "wss"),
                (false, false) => intern!(py, "ws"),
            };
            scope.set_item(intern!(py, "scheme"), scheme)?;
        }
        if let Some((host, port)) = &origin.server {
            scope.set_item(intern!(py, "server"), (host, port))?;
        }
        if let Some(root_path) = &origin.root_path {
            scope.set_item(intern!(py, "root_path"), root_path)?;
            let path = Names::path_below(py, root_path, head.uri.path());
            scope.set_item(intern!(py, "path"), path)?;
        }
        Ok(())
    }

    /// Says in a scope which span the request is.
    pub(super) fn add_trace(scope: &Bound<'_, PyDict>, span: &SpanContext) -> PyResult<()> {
        let extensions = extensions_to_change(scope)?;
        Tracing::extend(&extensions, span)?;
        scope.set_item(intern!(scope.py(), "extensions"), extensions)
    }

    /// Adds the extension `tls` to a scope that has its other extensions.
    pub(super) fn add_tls(&self, scope: &Bound<'_, PyDict>) -> PyResult<()> {
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        let py = scope.py();
        let extensions = extensions_to_change(scope)?;
        extensions.set_item(intern!(py, "tls"), tls.bind(py).copy()?)?;
        scope.set_item(intern!(py, "extensions"), extensions)
    }

    /// Gives the template another `extensions` when the last request kept or changed the one it had, or it has no place for a name
    /// (or one too many, which is that of another request).
    fn renew_extensions(
        &self,
        py: Python<'_>,
        application: &Rc<Application>,
        has_name: bool,
    ) -> PyResult<()> {
        let known = self.extensions.borrow();
        let fits = known.about_name.is_some() == has_name && known.are_untouched(py);
        drop(known);
        if !fits {
            let next = Extensions::new(py, application, has_name)?;
            self.template
                .bind(py)
                .set_item(intern!(py, "extensions"), &next.names)?;
            let old = self.extensions.replace(next);
            drop(old);
        }
        Ok(())
    }

    /// What the scopes of HTTP requests and `WebSocket`s share. `type`, `method`, `scheme` and `extensions` are still the
    /// template's.
    pub(crate) fn common<'py>(
        &self,
        py: Python<'py>,
        application: &Application,
        head: &http::request::Parts,
    ) -> PyResult<Bound<'py, PyDict>> {
        // Asked before the copy, which refers to everything that is lent.
        let lends_headers = self.lends_headers(py, &head.headers);
        let lends_state = self.lends_state(py);
        let scope = self.template.bind(py).copy()?;
        if head.version == http::Version::HTTP_10 {
            scope.set_item(intern!(py, "http_version"), intern!(py, "1.0"))?;
        }
        self.set_path(&scope, application, head.uri.path())?;
        if let Some(query) = head.uri.query()
            && !query.is_empty()
        {
            scope.set_item(
                intern!(py, "query_string"),
                PyBytes::new(py, query.as_bytes()),
            )?;
        }
        if !lends_headers {
            let headers = self.headers(py, application, &head.headers)?;
            scope.set_item(intern!(py, "headers"), headers)?;
        }
        if let Some(state) = &application.state {
            let state = state.bind(py);
            if !state.is_empty() || !lends_state {
                let copy = state.copy()?;
                scope.set_item(intern!(py, "state"), &copy)?;
                if copy.is_empty() {
                    self.template
                        .bind(py)
                        .set_item(intern!(py, "state"), &copy)?;
                    self.state.replace(copy.unbind());
                }
            }
        }
        Ok(scope)
    }

    fn lends_state(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow();
        let state = state.bind(py);
        state.get_refcnt() == LENT && state.is_empty()
    }

    /// True when the template's header list is right for these fields, and whole.
    fn lends_headers(&self, py: Python<'_>, headers: &http::HeaderMap) -> bool {
        let list = self.headers.borrow();
        let Some(list) = &*list else {
            return false;
        };
        let (list, pairs) = (list.bind(py), self.pairs.borrow());
        list.get_refcnt() == LENT
            && list.len() == headers.len()
            && pairs.len() == headers.len()
            && headers.iter().zip(pairs.iter()).zip(list.iter()).all(
                |(((name, value), pair), item)| {
                    item.is(pair)
                        && is_pair(pair.bind(py), name.as_str().as_bytes(), value.as_bytes())
                },
            )
    }

    fn set_path(
        &self,
        scope: &Bound<'_, PyDict>,
        application: &Application,
        target: &str,
    ) -> PyResult<()> {
        let py = scope.py();
        let mut paths = self.paths.borrow_mut();
        if paths.template.as_deref() == Some(target) {
            return Ok(());
        }
        let (path, raw_path) = application.names.path(py, target);
        if paths.last == target {
            let template = self.template.bind(py);
            template.set_item(intern!(py, "path"), &path)?;
            template.set_item(intern!(py, "raw_path"), &raw_path)?;
            paths.template = Some(target.to_owned());
        } else {
            paths.last.clear();
            paths.last.push_str(target);
        }
        scope.set_item(intern!(py, "path"), path)?;
        scope.set_item(intern!(py, "raw_path"), raw_path)
    }

    /// The header list: names in lower case, in the client's order; the values of a repeated name come one after the other,
    /// where the first of them was.
    fn headers<'py>(
        &self,
        py: Python<'py>,
        application: &Application,
        headers: &http::HeaderMap,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut pairs = self.pairs.borrow_mut();
        let mut replaced = Vec::new();
        let mut repeats = pairs.len() == headers.len();
        let mut list = Vec::with_capacity(headers.len());
        for (index, (name, value)) in headers.iter().enumerate() {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            if let Some(known) = pairs.get(index)
                && is_pair(known.bind(py), name, value)
            {
                list.push(known.bind(py).clone());
                continue;
            }
            repeats = false;
            let pair =
                (application.names.header(py, name), PyBytes::new(py, value)).into_pyobject(py)?;
            match pairs.get_mut(index) {
                Some(known) => {
                    replaced.push(std::mem::replace(known, pair.clone().unbind()));
                }
                None if index < PAIRS_MAX => pairs.push(pair.clone().unbind()),
                None => {}
            }
            list.push(pair);
        }
        drop(pairs);
        drop(replaced);
        let list = PyList::new(py, list)?;
        if repeats {
            self.template
                .bind(py)
                .set_item(intern!(py, "headers"), &list)?;
            self.headers.replace(Some(list.clone().unbind()));
        }
        Ok(list)
    }
}

fn add_name(extensions: &Bound<'_, PyDict>, name: &HeaderValue) -> PyResult<()> {
    let py = extensions.py();
    let about = PyDict::new(py);
    set_name(&about, name)?;
    extensions.set_item(intern!(py, "framegate.request_id"), about)
}

fn set_name(about: &Bound<'_, PyDict>, name: &HeaderValue) -> PyResult<()> {
    // `[A-Za-z0-9._-]`, as it was made or checked.
    about.set_item(intern!(about.py(), "id"), name.to_str().unwrap_or_default())
}

/// A copy: what the template lends stays as it is, and no request sees what another one has changed.
fn extensions_to_change<'py>(scope: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let py = scope.py();
    match scope.get_item(intern!(py, "extensions"))? {
        Some(others) => others.cast_into::<PyDict>()?.copy(),
        None => Ok(PyDict::new(py)),
    }
}

fn is_pair(pair: &Bound<'_, PyTuple>, name: &[u8], value: &[u8]) -> bool {
    let is = |index: usize, bytes: &[u8]| {
        pair.get_borrowed_item(index).is_ok_and(|item| {
            item.cast::<PyBytes>()
                .is_ok_and(|item| item.as_bytes() == bytes)
        })
    };
    is(1, value) && is(0, name)
}

/// The extension `tls` of ASGI, version 0.2. A handshake with a client certificate that is not valid fails, so there is no error
/// to tell of.
fn tls_extension(py: Python<'_>, session: &TlsSession) -> PyResult<Py<PyDict>> {
    let tls = PyDict::new(py);
    tls.set_item("server_cert", session.server_certificate())?;
    let chain: Vec<String> = session.client_chain().collect();
    tls.set_item("client_cert_chain", PyTuple::new(py, chain)?)?;
    tls.set_item("client_cert_name", session.client_name())?;
    tls.set_item("client_cert_error", py.None())?;
    tls.set_item("tls_version", session.version())?;
    tls.set_item("cipher_suite", session.cipher_suite())?;
    Ok(tls.unbind())
}

/// `client`: address and port, or `None` for a Unix socket, where there is nothing to tell.
fn client<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    match address {
        Address::Inet(address) => Ok((address.ip().to_string(), address.port())
            .into_pyobject(py)?
            .into_any()),
        Address::Unix(_) => Ok(py.None().into_bound(py)),
    }
}

/// `server`: address and port, or the path of the Unix socket and `None`. The last one is kept: most connections of a worker
/// have the same.
fn server<'py>(
    py: Python<'py>,
    application: &Application,
    address: &Address,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some((known, server)) = &*application.server.borrow()
        && known == address
    {
        return Ok(server.bind(py).clone());
    }
    let server = match address {
        Address::Inet(_) => client(py, address)?,
        Address::Unix(Some(path)) => (path.as_os_str(), py.None()).into_pyobject(py)?.into_any(),
        // An abstract or unnamed socket.
        Address::Unix(None) => py.None().into_bound(py),
    };
    let next = Some((address.clone(), server.clone().unbind()));
    let last = application.server.replace(next);
    drop(last);
    Ok(server)
}
