//! Answers of native routes: what a handler returned, and what is answered in its place.
//!
//! | a handler returns | the client gets |
//! |---|---|
//! | `None` | 204 |
//! | `str` | `text/plain; charset=utf-8` |
//! | `bytes`, `bytearray` | `application/octet-stream` |
//! | `Response` | what it says, its content by this table |
//! | anything else | JSON: integers of any size, the shortest text of a float; `NaN` is an error |

use std::{
    io::Write as _,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use framegate_routes::{
    Fault, Place, Problem,
    json::{push_float, push_string},
    problem,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRecursionError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{
        PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType,
    },
};

/// Lists and dictionaries inside each other. As deep as a body may be; one that holds itself is found by it.
const DEPTH_MAX: usize = 128;

/// A whole response.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    media_type: Option<HeaderValue>,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            media_type: None,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// The problem that the status names.
    pub(crate) fn status(status: StatusCode) -> Self {
        Self::problem(&Problem::new(status))
    }

    /// A problem (RFC 9457).
    pub(super) fn problem(problem: &Problem) -> Self {
        Self {
            media_type: Some(HeaderValue::from_static(problem::MEDIA_TYPE)),
            body: problem.to_json().into(),
            ..Self::empty(problem.status)
        }
    }

    /// The body is longer than it may be.
    pub(crate) fn too_long(bytes_max: usize) -> Self {
        let detail = format!("the body may have {bytes_max} bytes");
        Self::problem(&Problem::because(StatusCode::PAYLOAD_TOO_LARGE, detail))
    }

    /// To another path, with the query of this one.
    pub(super) fn redirect(mut place: String, query: Option<&str>) -> Self {
        if let Some(query) = query {
            place.push('?');
            place.push_str(query);
        }
        let mut answer = Self::empty(StatusCode::PERMANENT_REDIRECT);
        answer.set(header::LOCATION, place);
        answer
    }

    /// A field whose value is known to be one.
    pub(super) fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.push((name, value));
    }

    /// A field that the server makes.
    pub(super) fn set(&mut self, name: HeaderName, value: String) {
        // A query may have bytes that are no text; the client sent them itself.
        if let Ok(value) = HeaderValue::try_from(value) {
            self.headers.push((name, value));
        }
    }

    /// Puts its fields into the head. True when it names the server itself.
    pub(crate) fn write(&self, headers: &mut HeaderMap) -> bool {
        if let Some(media_type) = &self.media_type {
            headers.insert(header::CONTENT_TYPE, media_type.clone());
        }
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        headers.contains_key(header::SERVER)
    }

    /// `(status, headers, body)`, the headers as ASGI has them.
    pub(super) fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut map = HeaderMap::new();
        self.write(&mut map);
        let headers = fields(py, &map)?;
        let body = PyBytes::new(py, &self.body);
        Ok((self.status.as_u16(), headers, body)
            .into_pyobject(py)?
            .into_any())
    }
}

/// Fields as ASGI has them.
pub(super) fn fields<'py>(py: Python<'py>, map: &HeaderMap) -> PyResult<Bound<'py, PyList>> {
    let fields = PyList::empty(py);
    for (name, value) in map {
        let name = PyBytes::new(py, name.as_str().as_bytes());
        fields.append((name, PyBytes::new(py, value.as_bytes())))?;
    }
    Ok(fields)
}

/// Whether it takes more than one answer to send a value: it comes in pieces, sends itself, or something runs behind it.
pub(super) fn is_delivered(
    value: &Bound<'_, PyAny>,
    response: &Py<PyAny>,
    pieces: &Pieces,
) -> PyResult<bool> {
    let py = value.py();
    if is_plain(value) {
        return Ok(false);
    }
    if !value.is_instance(response.bind(py))? {
        return pieces.has(value);
    }
    if value.getattr(intern!(py, "background"))?.is_truthy()? {
        return Ok(true);
    }
    let content = value.getattr(intern!(py, "content"))?;
    Ok(!is_plain(&content) && pieces.has(&content)?)
}

/// What most handlers return, known by its type alone.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyBytes>()
}

/// Which values come in pieces. Found once for a class: asking one for what it has not raises an exception inside, each time.
pub(super) struct Pieces {
    /// The class of what is sent piece by piece.
    streamed: Py<PyAny>,
    seen: Mutex<Vec<(Py<PyType>, bool)>>,
}

/// Classes of values that handlers return; who makes more of them while it runs begins anew.
const SEEN_MAX: usize = 32;

impl Pieces {
    pub(super) fn new(streamed: Py<PyAny>) -> Self {
        Self {
            streamed,
            seen: Mutex::default(),
        }
    }

    /// Whether that value does.
    pub(super) fn has(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let class = value.get_type();
        let known = |seen: &Vec<(Py<PyType>, bool)>| {
            let found = seen.iter().find(|(other, _)| other.is(&class))?;
            Some(found.1)
        };
        if let Some(answer) = known(&self.seen()) {
            return Ok(answer);
        }
        let answer = self.find(value, &class)?;
        // A proxy is of the class that its value has now.
        if !value.getattr(intern!(value.py(), "__class__"))?.is(&class) {
            return Ok(answer);
        }
        let mut forgotten = Vec::new();
        let mut seen = self.seen();
        if seen.len() == SEEN_MAX {
            forgotten = mem::take(&mut *seen);
        }
        seen.push((class.unbind(), answer));
        // The end of a class may run anything, and that may come here.
        drop(seen);
        drop(forgotten);
        Ok(answer)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<(Py<PyType>, bool)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, value: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let py = value.py();
        if value.is_instance(self.streamed.bind(py))? {
            return Ok(true);
        }
        // An iterator, an asynchronous one, or a `FrameStream`, which is an ASGI application.
        for name in [
            intern!(py, "__next__"),
            intern!(py, "__aiter__"),
            intern!(py, "raw_headers"),
        ] {
            if class.getattr_opt(name)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.streamed)?;
        // Held by another thread: then the collector finds less to collect this time.
        if let Ok(seen) = self.seen.try_lock() {
            for (class, _) in &*seen {
                visit.call(class)?;
            }
        }
        Ok(())
    }
}

/// The answer that a value of a handler is.
pub(super) fn of(
    value: &Bound<'_, PyAny>,
    response: &Py<PyAny>,
    simplify: &Py<PyAny>,
) -> PyResult<Answer> {
    let py = value.py();
    if !value.is_instance(response.bind(py))? {
        return content(value, simplify);
    }
    let inner = value.getattr(intern!(py, "content"))?;
    if inner.is_instance(response.bind(py))? {
        return Err(PyTypeError::new_err(
            "the content of a Response is a Response",
        ));
    }
    let mut answer = content(&inner, simplify)?;
    let status: u16 = value.getattr(intern!(py, "status"))?.extract()?;
    answer.status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| !status.is_informational())
        .ok_or_else(|| PyValueError::new_err(format!("{status} is no status of a response")))?;
    let media_type = value.getattr(intern!(py, "media_type"))?;
    if !media_type.is_none() {
        answer.media_type = Some(field_value(&media_type)?);
    }
    for pair in value.getattr(intern!(py, "headers"))?.try_iter()? {
        let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
        let name = name.cast_into::<PyString>()?;
        let name = HeaderName::from_bytes(name.to_str()?.as_bytes())
            .map_err(|_| PyValueError::new_err(format!("{name} is no name of a field")))?;
        if name == header::CONTENT_TYPE {
            answer.media_type = Some(field_value(&value)?);
        } else if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
            // Framing is the connection's business.
        } else {
            answer.headers.push((name, field_value(&value)?));
        }
    }
    Ok(answer)
}

fn field_value(value: &Bound<'_, PyAny>) -> PyResult<HeaderValue> {
    let text = value.cast::<PyString>()?;
    HeaderValue::try_from(text.to_str()?)
        .map_err(|_| PyValueError::new_err(format!("{text:?} is no value of a field")))
}

fn content(value: &Bound<'_, PyAny>, simplify: &Py<PyAny>) -> PyResult<Answer> {
    let (media_type, body) = if value.is_none() {
        return Ok(Answer::empty(StatusCode::NO_CONTENT));
    } else if let Ok(text) = value.cast_exact::<PyString>() {
        let body = Bytes::copy_from_slice(text.to_str()?.as_bytes());
        ("text/plain; charset=utf-8", body)
    } else if let Ok(bytes) = value.cast::<PyBytes>() {
        (
            "application/octet-stream",
            Bytes::copy_from_slice(bytes.as_bytes()),
        )
    } else if let Ok(bytes) = value.cast::<PyByteArray>() {
        ("application/octet-stream", bytes.to_vec().into())
    } else {
        let mut out = Vec::with_capacity(256);
        push(value, simplify, 0, &mut out)?;
        ("application/json", out.into())
    };
    Ok(Answer {
        media_type: Some(HeaderValue::from_static(media_type)),
        body,
        ..Answer::empty(StatusCode::OK)
    })
}

/// Appends a value as JSON.
pub(super) fn push(
    value: &Bound<'_, PyAny>,
    simplify: &Py<PyAny>,
    depth: usize,
    out: &mut Vec<u8>,
) -> PyResult<()> {
    if depth > DEPTH_MAX {
        return Err(PyRecursionError::new_err(format!(
            "the value of a handler is nested deeper than {DEPTH_MAX}, or holds itself"
        )));
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        push_string(text.to_str()?, out);
    } else if value.is_none() {
        out.extend_from_slice(b"null");
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.extend_from_slice(if truth.is_true() { b"true" } else { b"false" });
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        // As text: of any size.
        match number.extract::<i64>() {
            Ok(small) => write!(out, "{small}").expect("a Vec takes all"),
            Err(_) => out.extend_from_slice(number.str()?.to_str()?.as_bytes()),
        }
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        if !number.value().is_finite() {
            return Err(PyValueError::new_err(format!(
                "JSON has no word for {}",
                number.value()
            )));
        }
        push_float(number.value(), out);
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        out.push(b'{');
        for (position, (name, value)) in dict.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            let Ok(name) = name.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!(
                    "names of JSON objects are strings, and {} is not",
                    name.repr()?
                )));
            };
            push_string(name.to_str()?, out);
            out.push(b':');
            push(&value, simplify, depth + 1, out)?;
        }
        out.push(b'}');
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        push_items(list.iter(), simplify, depth, out)?;
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        push_items(tuple.iter(), simplify, depth, out)?;
    } else {
        let plain = simplify.bind(value.py()).call1((value,))?;
        push(&plain, simplify, depth + 1, out)?;
    }
    Ok(())
}

fn push_items<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    simplify: &Py<PyAny>,
    depth: usize,
    out: &mut Vec<u8>,
) -> PyResult<()> {
    out.push(b'[');
    for (position, item) in items.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push(&item, simplify, depth + 1, out)?;
    }
    out.push(b']');
    Ok(())
}

/// The answer that an exception of the class `Problem` is.
pub(super) fn of_problem(error: &Bound<'_, PyAny>) -> PyResult<Answer> {
    let py = error.py();
    let status: u16 = error.getattr(intern!(py, "status"))?.extract()?;
    let status =
        StatusCode::from_u16(status).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let detail: Option<String> = error.getattr(intern!(py, "detail"))?.extract()?;
    let faults: Vec<(String, String, String)> = error.getattr(intern!(py, "faults"))?.extract()?;
    let faults = faults.into_iter().map(|(part, name, detail)| {
        let place = match part.as_str() {
            "path" => Place::Path(name),
            "query" => Place::Query(name),
            "header" => Place::Header(name),
            "cookie" => Place::Cookie(name),
            "form" => Place::Form(name),
            _ => Place::Body(name),
        };
        Fault::new(place, detail)
    });
    let mut answer = Answer::problem(&Problem {
        status,
        detail,
        faults: faults.collect(),
    });
    let headers: Vec<(String, String)> = error.getattr(intern!(py, "headers"))?.extract()?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::try_from(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            answer.headers.push((name, value));
        }
    }
    Ok(answer)
}
