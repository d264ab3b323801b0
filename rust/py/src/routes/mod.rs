//! Native routes: from a request to the arguments of a Python handler, and from what it returns to an answer.
//!
//! `python/framegate/app/` turns the signatures of handlers into specifications; here they are read once, when the table is made, and
//! requests are decided by them ([`RouteTable::decide`]). A request that is refused makes no Python object: parameters and body are
//! checked as Rust values (`framegate_routes`), and Python objects are made of all of them when nothing is wrong.
//!
//! Two lanes use a table: the worker's own (`asgi/route.rs`), and `App.__call__` for other servers and behind middleware. Both
//! decide and answer here.

mod answer;
mod arguments;
mod cors;
mod file;
mod form;
mod queue;
mod response_schema;

use std::{borrow::Cow, sync::Arc};

use framegate_routes::{
    Fault, Found, Place, Problem, Router, Schema, TrailingSlash,
    json::{self, Value},
    parameter::{Kind, Parsed},
    pattern::Pattern,
    text,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyString, PyTuple},
};

use crate::error::{guarded, panic_if_asked};

pub(crate) use answer::Answer;
use cors::{Allowed, Cors};
pub(crate) use file::select_parts;
pub(crate) use form::{FormFields, FormReader};
pub(crate) use queue::{HandlerCounts, HandlerQueue};
pub(crate) use response_schema::ResponseSchema;

/// Routes of one application, with everything that is needed to decide a request.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct RouteTable {
    router: Router<Route>,
    /// Something else answers what is no route.
    has_fallback: bool,
    cors: Option<Cors>,
    reader: Reader,
    handlers: Arc<HandlerCounts>,
}

/// Makes arguments of what was sent.
struct Reader {
    limits: json::Limits,
    member_names: arguments::MemberNames,
    /// Classes and functions of `framegate.app`.
    python: Names,
}

/// What `framegate.app` lends.
struct Names {
    response: Py<PyAny>,
    problem: Py<PyAny>,
    request: Py<PyAny>,
    /// Makes plain objects of what JSON has no word for.
    simplify: Py<PyAny>,
    /// Knows what is sent piece by piece.
    pieces: answer::Pieces,
    /// Sends that.
    deliver: Py<PyAny>,
    decimal: Py<PyAny>,
    uuid: Py<PyAny>,
}

struct Route {
    handler: Py<PyAny>,
    pattern: Arc<str>,
    /// Names of the parameters of its path.
    parameters: Vec<String>,
    arguments: Vec<Argument>,
    wants_request: bool,
    /// Which of the arguments is the body.
    body: Option<BodyKind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    Json,
    Bytes,
}

struct Argument {
    source: Source,
    name: Py<PyString>,
    is_keyword: bool,
    /// Absent arguments have it; without one they are a fault.
    default: Option<Py<PyAny>>,
    /// Says more about the value than its kind.
    schema: Option<Schema>,
    /// Makes the object that the annotation names of the plain one.
    convert: Option<Py<PyAny>>,
}

enum Source {
    /// The parameter of the path at this position.
    Path(usize, Text),
    Query(String, Text),
    Header(HeaderName, Text),
    Cookie(String, Text),
    Form(String, Text),
    Body(BodyKind),
    Request,
}

/// How text becomes a value.
struct Text {
    kind: Kind,
    /// A list of all values of that name.
    is_list: bool,
    /// What the texts of [`Kind::Choice`] stand for.
    choices: Vec<Py<PyAny>>,
}

/// What becomes of a request.
pub(crate) enum Decision<'py> {
    /// It is no route of this table.
    Fallback,
    /// Decide again with the body, which may have so many bytes.
    NeedBody { bytes_max: usize },
    /// It is answered without a handler.
    Answer(Answer),
    /// A handler is called.
    Call(Invocation<'py>),
}

/// A handler and what it is called with.
pub(crate) struct Invocation<'py> {
    pub(crate) handler: Bound<'py, PyAny>,
    pub(crate) positional: Bound<'py, PyTuple>,
    pub(crate) named: Option<Bound<'py, PyDict>>,
    pub(crate) pattern: Arc<str>,
    /// What it is given of the request, if it asked.
    pub(crate) request: Option<Bound<'py, PyAny>>,
    /// One of its arguments is the body.
    pub(crate) has_read_body: bool,
}

/// An argument that is checked and not yet an object.
enum Given<'a> {
    Default,
    One(Parsed<'a>),
    Many(Vec<Parsed<'a>>),
    Json(Value<'a>),
    Bytes(&'a [u8]),
    Request,
}

/// A request as it is decided.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    body: Option<&'a [u8]>,
    /// Parameters of the path.
    values: &'a [Cow<'a, str>],
    pairs: &'a [(Cow<'a, str>, Option<Cow<'a, str>>)],
}

impl RouteTable {
    /// The table of an application that has one.
    pub(crate) fn of<'py>(application: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Self>>> {
        let py = application.py();
        // Only what says so itself: an instance's `__getattr__` may answer anything.
        let class = application.get_type();
        if class
            .getattr_opt(intern!(py, "__framegate_routes__"))?
            .is_none()
        {
            return Ok(None);
        }
        let table = application.getattr(intern!(py, "__framegate_routes__"))?;
        Ok(table.cast_into::<Self>().ok())
    }

    /// Counts of handlers that run in threads.
    pub(crate) fn handlers(&self) -> &HandlerCounts {
        &self.handlers
    }

    /// Finds out what becomes of a request. Makes Python objects only for a handler that will be called.
    pub(crate) fn decide<'py>(
        &self,
        py: Python<'py>,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> PyResult<Decision<'py>> {
        guarded(|| {
            panic_if_asked("decide");
            self.find_and_check(py, method, path, query, headers, body)
        })
    }

    fn find_and_check<'py>(
        &self,
        py: Python<'py>,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> PyResult<Decision<'py>> {
        let Some(canonical) = text::canonical_path(path) else {
            return Ok(self.no_route());
        };
        let (route, values) = match self.router.find(method, &canonical) {
            Found::Route { target, values, .. } => (target, values),
            Found::Redirect(place) => return Ok(Decision::Answer(Answer::redirect(place, query))),
            Found::MethodNotAllowed(allow) => {
                let mut answer = Answer::status(StatusCode::METHOD_NOT_ALLOWED);
                answer.set(header::ALLOW, allow);
                return Ok(Decision::Answer(answer));
            }
            Found::Options(allow) => {
                let mut answer = Answer::empty(StatusCode::NO_CONTENT);
                if let Some(cors) = &self.cors {
                    cors.preflight(headers, &allow, &mut answer);
                }
                answer.set(header::ALLOW, allow);
                return Ok(Decision::Answer(answer));
            }
            Found::Unknown => return Ok(self.no_route()),
        };
        if let (Some(kind), None) = (route.body, body) {
            if kind == BodyKind::Json && !is_json(headers) {
                let problem = Problem::because(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "the body has to be application/json",
                );
                return Ok(Decision::Answer(Answer::problem(&problem)));
            }
            return Ok(Decision::NeedBody {
                bytes_max: self.reader.limits.bytes_max,
            });
        }
        let pairs: Vec<_> = query
            .map(|query| text::pairs(query).collect())
            .unwrap_or_default();
        let asked = Asked {
            method,
            path,
            query,
            headers,
            body,
            values: &values,
            pairs: &pairs,
        };
        let mut faults = Vec::new();
        let mut given = Vec::with_capacity(route.arguments.len());
        for argument in &route.arguments {
            given.push(self.reader.check(argument, &asked, &mut faults));
        }
        if !faults.is_empty() {
            return Ok(Decision::Answer(Answer::problem(&Problem::of_faults(
                faults,
            ))));
        }
        // From here on nothing is wrong that Rust can see.
        let mut positional = Vec::with_capacity(given.len());
        let mut named = None;
        let request = if route.wants_request {
            Some(self.reader.request(py, &asked, route)?)
        } else {
            None
        };
        for (argument, given) in route.arguments.iter().zip(given) {
            let object = self.reader.object(py, argument, given, request.as_ref())?;
            if argument.is_keyword {
                named
                    .get_or_insert_with(|| PyDict::new(py))
                    .set_item(argument.name.bind(py), object)?;
            } else {
                positional.push(object);
            }
        }
        Ok(Decision::Call(Invocation {
            handler: route.handler.bind(py).clone(),
            positional: PyTuple::new(py, positional)?,
            named,
            pattern: route.pattern.clone(),
            request,
            has_read_body: route.body.is_some(),
        }))
    }

    fn no_route<'py>(&self) -> Decision<'py> {
        if self.has_fallback {
            Decision::Fallback
        } else {
            Decision::Answer(Answer::status(StatusCode::NOT_FOUND))
        }
    }

    /// The answer that the value of a handler is.
    pub(crate) fn answer(&self, value: &Bound<'_, PyAny>) -> PyResult<Answer> {
        let python = &self.reader.python;
        guarded(|| {
            panic_if_asked("answer");
            answer::of(value, &python.response, &python.simplify)
        })
    }

    /// Whether it takes more than an answer to send that value: [`Self::deliverer`] does.
    pub(crate) fn is_delivered(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let python = &self.reader.python;
        guarded(|| answer::is_delivered(value, &python.response, &python.pieces))
    }

    pub(crate) fn deliverer(&self) -> &Py<PyAny> {
        &self.reader.python.deliver
    }

    /// The answer that an exception is, if it is meant as one.
    pub(crate) fn refusal(&self, py: Python<'_>, error: &PyErr) -> Option<Answer> {
        let value = error.value(py);
        if !value
            .is_instance(self.reader.python.problem.bind(py))
            .ok()?
        {
            return None;
        }
        answer::of_problem(value).ok()
    }

    /// What is said in every answer to a request of another origin.
    pub(crate) fn cors(&self, request: &HeaderMap) -> Option<Allowed<'_>> {
        self.cors.as_ref().map(|cors| cors.allowed(request))
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for (_, _, route) in self.router.routes() {
            visit.call(&route.handler)?;
            for argument in &route.arguments {
                argument.visit(visit)?;
            }
        }
        self.reader.python.visit(visit)
    }
}

impl Names {
    fn lent(python: &Bound<'_, PyAny>) -> PyResult<Self> {
        let lent = |name: &str| python.getattr(name).map(Bound::unbind);
        Ok(Self {
            response: lent("response")?,
            problem: lent("problem")?,
            request: lent("request")?,
            simplify: lent("simplify")?,
            pieces: answer::Pieces::new(lent("streamed")?),
            deliver: lent("deliver")?,
            decimal: lent("decimal")?,
            uuid: lent("uuid")?,
        })
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Self {
            response,
            problem,
            request,
            simplify,
            pieces,
            deliver,
            decimal,
            uuid,
        } = self;
        pieces.visit(visit)?;
        for object in [response, problem, request, simplify, deliver, decimal, uuid] {
            visit.call(object)?;
        }
        Ok(())
    }
}

impl Reader {
    fn new(limits: json::Limits, python: Names) -> Self {
        Self {
            limits,
            member_names: arguments::MemberNames::new(),
            python,
        }
    }

    /// Checks the argument that is the body.
    fn check_body<'a>(
        &self,
        argument: &Argument,
        kind: BodyKind,
        asked: &Asked<'a>,
        faults: &mut Vec<Fault>,
    ) -> Given<'a> {
        let body = asked.body.unwrap_or_default();
        if body.is_empty() && argument.default.is_some() {
            return Given::Default;
        }
        if kind == BodyKind::Bytes {
            return Given::Bytes(body);
        }
        let value = match json::read(body, self.limits) {
            Ok(value) => value,
            Err(error) => {
                faults.push(error.into());
                return Given::Default;
            }
        };
        if let Some(schema) = &argument.schema
            && let Err(more) = schema.check(&value)
        {
            faults.extend(more);
            return Given::Default;
        }
        Given::Json(value)
    }

    /// Checks one argument; what is wrong with it is added to the faults.
    fn check<'a>(
        &self,
        argument: &Argument,
        asked: &Asked<'a>,
        faults: &mut Vec<Fault>,
    ) -> Given<'a> {
        // Whatever is given for an argument with a fault is not looked at.
        let mut refuse = |place: Place, detail: String| {
            faults.push(Fault::new(place, detail));
            Given::Default
        };
        let (texts, place, text): (Vec<Option<&'a str>>, Place, &Text) = match &argument.source {
            Source::Request => return Given::Request,
            Source::Body(kind) => return self.check_body(argument, *kind, asked, faults),
            Source::Path(position, text) => {
                let name = argument.name.to_string();
                (
                    vec![Some(&*asked.values[*position])],
                    Place::Path(name),
                    text,
                )
            }
            Source::Query(name, text) | Source::Form(name, text) => {
                let found = asked.pairs.iter().filter(|(other, _)| other == name);
                let texts = found.map(|(_, value)| value.as_deref()).collect();
                let place = match &argument.source {
                    Source::Form(..) => Place::Form(name.clone()),
                    _ => Place::Query(name.clone()),
                };
                (texts, place, text)
            }
            Source::Header(name, text) => {
                let found = asked.headers.get_all(name).iter();
                let texts = found.map(|value| std::str::from_utf8(value.as_bytes()).ok());
                (texts.collect(), Place::Header(name.to_string()), text)
            }
            Source::Cookie(name, text) => {
                let fields = asked.headers.get_all(header::COOKIE).iter();
                let texts = fields
                    .filter_map(|field| field.to_str().ok())
                    .flat_map(text::cookies)
                    .filter(|(other, _)| other == name)
                    .map(|(_, value)| Some(value));
                (texts.collect(), Place::Cookie(name.clone()), text)
            }
        };
        if texts.is_empty() {
            return match &argument.default {
                Some(_) => Given::Default,
                None => refuse(place, "is required".to_owned()),
            };
        }
        if !text.is_list && texts.len() > 1 {
            return refuse(place, "is there more than once".to_owned());
        }
        let mut parsed = Vec::with_capacity(texts.len());
        let mut values = Vec::new();
        for one in texts {
            let Some(one) = one else {
                return refuse(place, "is not encoded right".to_owned());
            };
            match text.kind.parse(one) {
                Ok(found) => {
                    if argument.schema.is_some() {
                        values.push(found.to_value(one));
                    }
                    parsed.push(found);
                }
                Err(demand) => return refuse(place, demand),
            }
        }
        if let Some(schema) = &argument.schema {
            let value = if text.is_list {
                Value::Array(values)
            } else {
                values.pop().expect("there is one text")
            };
            if let Err(found) = schema.check(&value) {
                faults.extend(found.into_iter().map(|fault| Fault {
                    place: place.clone(),
                    ..fault
                }));
                return Given::Default;
            }
        }
        if text.is_list {
            Given::Many(parsed)
        } else {
            Given::One(parsed[0])
        }
    }

    /// Makes the object of an argument that was checked.
    fn object<'py>(
        &self,
        py: Python<'py>,
        argument: &Argument,
        given: Given<'_>,
        request: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let object = match given {
            Given::Default => {
                let default = argument.default.as_ref();
                return Ok(default.expect("others were refused").bind(py).clone());
            }
            Given::Request => request.expect("the route wants it").clone(),
            Given::One(parsed) => self.of_parsed(py, argument.text(), parsed)?,
            Given::Many(all) => {
                let list = PyList::empty(py);
                for parsed in all {
                    list.append(self.of_parsed(py, argument.text(), parsed)?)?;
                }
                list.into_any()
            }
            Given::Json(value) => arguments::of_value(py, &self.member_names, &value)?,
            Given::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        };
        match &argument.convert {
            Some(convert) => convert.bind(py).call1((object,)),
            None => Ok(object),
        }
    }

    fn of_parsed<'py>(
        &self,
        py: Python<'py>,
        text: &Text,
        parsed: Parsed<'_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match parsed {
            Parsed::Choice(position) => Ok(text.choices[position].bind(py).clone()),
            Parsed::Number(number) if text.kind == Kind::Float => {
                Ok(number.to_f64().into_pyobject(py)?.into_any())
            }
            Parsed::Number(number) if text.kind == Kind::Decimal => {
                self.python.decimal.bind(py).call1((number.text(),))
            }
            Parsed::Number(number) => arguments::of_number(py, &number),
            Parsed::Uuid(value) => {
                let named = PyDict::new(py);
                named.set_item(intern!(py, "int"), value)?;
                self.python.uuid.bind(py).call((), Some(&named))
            }
            other => arguments::of_parsed(py, other),
        }
    }

    /// The whole request, for a handler that asks for it.
    fn request<'py>(
        &self,
        py: Python<'py>,
        asked: &Asked<'_>,
        route: &Route,
    ) -> PyResult<Bound<'py, PyAny>> {
        let headers = PyList::empty(py);
        for (name, value) in asked.headers {
            // Latin-1, as ever in HTTP/1.
            let value: String = value.as_bytes().iter().copied().map(char::from).collect();
            headers.append((name.as_str(), value))?;
        }
        let parameters = PyDict::new(py);
        for (name, value) in route.parameters.iter().zip(asked.values) {
            parameters.set_item(name, &**value)?;
        }
        let path = text::decode(asked.path, false).unwrap_or(Cow::Borrowed(asked.path));
        self.python.request.bind(py).call1((
            asked.method.as_str(),
            &*path,
            asked.query.unwrap_or_default(),
            headers,
            &*route.pattern,
            parameters,
        ))
    }
}

impl Argument {
    fn text(&self) -> &Text {
        self.text_or_none().expect("others are not made of text")
    }

    fn text_or_none(&self) -> Option<&Text> {
        match &self.source {
            Source::Path(_, text)
            | Source::Query(_, text)
            | Source::Header(_, text)
            | Source::Cookie(_, text)
            | Source::Form(_, text) => Some(text),
            Source::Body(_) | Source::Request => None,
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.default)?;
        visit.call(&self.convert)?;
        for choice in self.text_or_none().into_iter().flat_map(|one| &one.choices) {
            visit.call(choice)?;
        }
        Ok(())
    }
}

/// `application/json`, `application/problem+json` and the like; a body without a type is taken for JSON, as `curl -d @-` from a program
/// that forgot to say so.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let Ok(value) = value.to_str() else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence
            .to_ascii_lowercase()
            .strip_suffix("+json")
            .is_some_and(|kind| kind.contains('/'))
}

#[pymethods]
impl RouteTable {
    /// `routes` are specifications as `framegate.app.signatures` makes them; `python` lends classes.
    #[new]
    #[pyo3(signature = (routes, python, *, redirect_slashes, has_fallback, json_bytes_max, cors=None))]
    fn new(
        routes: &Bound<'_, PyAny>,
        python: &Bound<'_, PyAny>,
        redirect_slashes: bool,
        has_fallback: bool,
        json_bytes_max: usize,
        cors: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut router = Router::new(if redirect_slashes {
            TrailingSlash::Redirect
        } else {
            TrailingSlash::Strict
        });
        for specification in routes.try_iter()? {
            let specification = specification?;
            let method: String = specification.getattr("method")?.extract()?;
            let method = Method::from_bytes(method.as_bytes()).map_err(value_error)?;
            let path: String = specification.getattr("path")?.extract()?;
            let pattern = Pattern::parse(&path).map_err(value_error)?;
            let route = Route::read(&specification, &pattern)?;
            router.add(method, pattern, route).map_err(value_error)?;
        }
        Ok(Self {
            router,
            has_fallback,
            cors: cors.map(Cors::read).transpose()?,
            reader: Reader::new(
                json::Limits {
                    bytes_max: json_bytes_max,
                    ..json::Limits::default()
                },
                Names::lent(python)?,
            ),
            handlers: Arc::clone(&python.getattr("handlers")?.cast::<HandlerQueue>()?.get().0),
        })
    }

    /// What becomes of a request, for a lane that is not the worker's own: `None` (no route), an `int` (decide again with the body,
    /// which may have so many bytes), `(status, headers, body)`, or
    /// `(handler, positional, named, request, has_read_body)`.
    #[pyo3(name = "decide", signature = (method, path, query, headers, body=None))]
    fn decide_elsewhere<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        path: &str,
        query: &str,
        headers: Vec<(Vec<u8>, Vec<u8>)>,
        body: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let method = Method::from_bytes(method.as_bytes()).map_err(value_error)?;
        let mut map = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            let name = HeaderName::from_bytes(&name).map_err(value_error)?;
            let value = HeaderValue::from_bytes(&value).map_err(value_error)?;
            map.append(name, value);
        }
        let query = Some(query).filter(|query| !query.is_empty());
        let decided = match self.decide(py, &method, path, query, &map, body) {
            Err(error) => match self.refusal(py, &error) {
                Some(answer) => Decision::Answer(answer),
                None => return Err(error),
            },
            Ok(decided) => decided,
        };
        Ok(match decided {
            Decision::Fallback => py.None().into_bound(py),
            Decision::NeedBody { bytes_max } => bytes_max.into_pyobject(py)?.into_any(),
            Decision::Answer(answer) => answer.to_python(py)?,
            Decision::Call(call) => (
                call.handler,
                call.positional,
                call.named,
                call.request,
                call.has_read_body,
            )
                .into_pyobject(py)?
                .into_any(),
        })
    }

    /// `(status, headers, body)` of what a handler returned.
    #[pyo3(name = "answer")]
    fn answer_elsewhere<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.answer(value)?.to_python(value.py())
    }

    /// Whether `framegate.app` has to send that value itself.
    #[pyo3(name = "is_delivered")]
    fn is_delivered_elsewhere(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.is_delivered(value)
    }

    /// Fields for every answer to a request with these fields.
    #[pyo3(name = "cors")]
    fn cors_elsewhere<'py>(
        &self,
        py: Python<'py>,
        headers: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut answer = HeaderMap::new();
        if let Some(cors) = &self.cors {
            let mut request = HeaderMap::new();
            for (_, value) in headers.into_iter().filter(|(name, _)| name == b"origin") {
                let value = HeaderValue::try_from(value).map_err(value_error)?;
                request.append(header::ORIGIN, value);
            }
            cors.allowed(&request).write(&mut answer);
        }
        answer::fields(py, &answer)
    }

    /// The same of what it raised; `None` if that is not meant as an answer.
    #[pyo3(name = "refusal")]
    fn refusal_elsewhere<'py>(
        &self,
        error: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = error.py();
        self.refusal(py, &PyErr::from_value(error.clone()))
            .map(|answer| answer.to_python(py))
            .transpose()
    }

    /// Method and path of each route, in the order in which they are tried.
    fn routes(&self) -> Vec<(String, String)> {
        let routes = self.router.routes();
        routes
            .map(|(method, pattern, _)| (method.to_string(), pattern.text().to_owned()))
            .collect()
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that pyo3 wants"
    )]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.visit(&visit)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

impl Route {
    fn read(specification: &Bound<'_, PyAny>, pattern: &Pattern) -> PyResult<Self> {
        let mut arguments = Vec::new();
        let mut body = None;
        for argument in specification.getattr("arguments")?.try_iter()? {
            let argument = Argument::read(&argument?, pattern)?;
            if let Source::Body(kind) = argument.source {
                body = Some(kind);
            }
            arguments.push(argument);
        }
        Ok(Self {
            handler: specification.getattr("handler")?.unbind(),
            pattern: pattern.text().into(),
            parameters: pattern
                .parameters()
                .iter()
                .map(|parameter| parameter.name.clone())
                .collect(),
            wants_request: arguments
                .iter()
                .any(|argument| matches!(argument.source, Source::Request)),
            arguments,
            body,
        })
    }
}

impl Argument {
    fn read(specification: &Bound<'_, PyAny>, pattern: &Pattern) -> PyResult<Self> {
        let name = specification.getattr("name")?.cast_into::<PyString>()?;
        let wire: String = specification.getattr("wire")?.extract()?;
        let source: String = specification.getattr("source")?.extract()?;
        let text = || Text::read(specification);
        let source = match source.as_str() {
            "path" => {
                let mut parameters = pattern.parameters().iter();
                let position = parameters
                    .position(|parameter| parameter.name == wire)
                    .ok_or_else(|| {
                        value_error(format!("{:?} has no parameter {wire}", pattern.text()))
                    })?;
                Source::Path(position, text()?)
            }
            "query" => Source::Query(wire, text()?),
            "header" => {
                let name = HeaderName::from_bytes(wire.as_bytes()).map_err(value_error)?;
                Source::Header(name, text()?)
            }
            "cookie" => Source::Cookie(wire, text()?),
            "form" => Source::Form(wire, text()?),
            "json" => Source::Body(BodyKind::Json),
            "bytes" => Source::Body(BodyKind::Bytes),
            "request" => Source::Request,
            other => {
                return Err(value_error(format!(
                    "{other:?} is no source of an argument"
                )));
            }
        };
        let schema: Option<String> = specification.getattr("schema")?.extract()?;
        let schema = schema.map(|schema| Schema::compile(&schema).map_err(value_error));
        let is_required: bool = specification.getattr("is_required")?.extract()?;
        let default = specification.getattr("default")?;
        let convert = specification.getattr("convert")?;
        Ok(Self {
            source,
            name: name.unbind(),
            is_keyword: specification.getattr("is_keyword")?.extract()?,
            default: (!is_required).then(|| default.unbind()),
            schema: schema.transpose()?,
            convert: (!convert.is_none()).then(|| convert.unbind()),
        })
    }
}

impl Text {
    fn read(specification: &Bound<'_, PyAny>) -> PyResult<Self> {
        let kind: String = specification.getattr("kind")?.extract()?;
        let choices: Vec<(String, Py<PyAny>)> = specification.getattr("choices")?.extract()?;
        let (texts, choices): (Vec<_>, Vec<_>) = choices.into_iter().unzip();
        let kind = if kind == "choice" {
            Kind::Choice(texts)
        } else {
            Kind::named(&kind).ok_or_else(|| value_error(format!("{kind:?} is no kind")))?
        };
        Ok(Self {
            kind,
            is_list: specification.getattr("is_list")?.extract()?,
            choices,
        })
    }
}
