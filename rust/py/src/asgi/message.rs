//! Reading the messages that applications give to `send()`.
//!
//! Everything here may run Python (a header list may be any iterable), so nothing of an exchange is borrowed meanwhile.
#![expect(
    unsafe_code,
    reason = "bytes objects that live on in a response, and a walk over a dictionary"
)]

use std::{cell::RefCell, ptr::null_mut};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use pyo3::{
    Borrowed,
    buffer::PyBuffer,
    exceptions::{PyKeyError, PyTypeError, PyValueError},
    ffi, intern,
    prelude::*,
    types::{PyByteArray, PyBytes, PyDict, PyInt, PyList, PyString, PyTuple},
};

use super::object::alone;

/// Shorter bodies are copied: cheaper than keeping the Python object, and it is free earlier.
const COPY_BYTES_MAX: usize = 1024;

/// The `type` of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ResponseStart,
    ResponseBody,
    EarlyHint,
    Trailers,
    PathSend,
    ZeroCopySend,
    /// Unknown, or of another protocol.
    Other(String),
}

/// The message as a dictionary; any mapping will do.
pub(crate) fn as_dict<'py>(message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    if let Ok(dict) = message.cast::<PyDict>() {
        return Ok(dict.clone());
    }
    let py = message.py();
    let dict = py
        .get_type::<PyDict>()
        .call1((message,))
        .map_err(|_| PyTypeError::new_err("send() takes a dictionary"))?;
    Ok(dict.cast_into()?)
}

/// The values of `http.response.start` and `http.response.body`, found in one pass. Unknown keys are ignored; those of messages
/// that are rare are looked up in the dictionary.
#[derive(Default)]
pub(crate) struct HttpMessage<'py> {
    kind: Option<Bound<'py, PyAny>>,
    pub(crate) status: Option<Bound<'py, PyAny>>,
    pub(crate) headers: Option<Bound<'py, PyAny>>,
    body: Option<Bound<'py, PyAny>>,
    more_body: Option<Bound<'py, PyAny>>,
    pub(crate) trailers: Option<Bound<'py, PyAny>>,
}

impl<'py> HttpMessage<'py> {
    pub(crate) fn read(message: &Bound<'py, PyDict>) -> PyResult<Self> {
        // Without the GIL another thread could change it on the way.
        alone(message, || Self::walk(message))
    }

    fn walk(message: &Bound<'py, PyDict>) -> PyResult<Self> {
        let py = message.py();
        let mut this = Self::default();
        // Six look-ups cost more than one walk over two or three items. No Python code runs while it lasts: keys that are not
        // the interned ones are compared as strings, others are passed by.
        let mut left = message.len();
        let mut position = 0;
        let (mut key, mut value) = (null_mut(), null_mut());
        while left > 0 {
            left -= 1;
            // SAFETY: the dictionary is alive and, as nothing here runs Python code, does not change. What it gives is borrowed
            // from it, and a value that is kept gets a reference.
            let found = unsafe {
                ffi::PyDict_Next(
                    message.as_ptr(),
                    &raw mut position,
                    &raw mut key,
                    &raw mut value,
                )
            };
            if found == 0 {
                break;
            }
            // SAFETY: as above.
            let key = unsafe { Borrowed::from_ptr(py, key) };
            let place = if key.is(intern!(py, "type")) {
                &mut this.kind
            } else if key.is(intern!(py, "body")) {
                &mut this.body
            } else if key.is(intern!(py, "status")) {
                &mut this.status
            } else if key.is(intern!(py, "headers")) {
                &mut this.headers
            } else if key.is(intern!(py, "more_body")) {
                &mut this.more_body
            } else {
                let Ok(key) = key.cast::<PyString>() else {
                    continue;
                };
                match key.to_str()? {
                    "type" => &mut this.kind,
                    "body" => &mut this.body,
                    "status" => &mut this.status,
                    "headers" => &mut this.headers,
                    "more_body" => &mut this.more_body,
                    "trailers" => &mut this.trailers,
                    _ => continue,
                }
            };
            // SAFETY: as above.
            *place = Some(unsafe { Bound::from_borrowed_ptr(py, value) });
        }
        Ok(this)
    }

    /// What message it is.
    pub(crate) fn kind(&self, constants: &Constants) -> PyResult<Kind> {
        let name = self.kind.as_ref().ok_or_else(|| missing("type"))?;
        if constants.start.is(name) {
            return Ok(Kind::ResponseStart);
        }
        if constants.body.is(name) {
            return Ok(Kind::ResponseBody);
        }
        let name = name
            .cast::<PyString>()
            .map_err(|_| PyTypeError::new_err("the type of a message is a string"))?;
        Ok(match name.to_str()? {
            "http.response.start" => {
                constants.start.note_str(name);
                Kind::ResponseStart
            }
            "http.response.body" => {
                constants.body.note_str(name);
                Kind::ResponseBody
            }
            "http.response.early_hint" => Kind::EarlyHint,
            "http.response.trailers" => Kind::Trailers,
            "http.response.pathsend" => Kind::PathSend,
            "http.response.zerocopysend" => Kind::ZeroCopySend,
            other => Kind::Other(other.to_owned()),
        })
    }

    /// `status` of a response.
    pub(crate) fn status(&self, constants: &Constants) -> PyResult<StatusCode> {
        let status = self.status.as_ref().ok_or_else(|| missing("status"))?;
        if let Some(known) = constants.status.get(status) {
            return Ok(known);
        }
        let code = status_code(status)?;
        if let Ok(number) = status.cast_exact::<PyInt>() {
            constants.status.note(number, code);
        }
        Ok(code)
    }

    /// `body` and `more_body`.
    pub(crate) fn body(&self) -> PyResult<(Bytes, bool)> {
        let data = match &self.body {
            Some(body) => bytes(body, "body")?,
            None => Bytes::new(),
        };
        let more = match &self.more_body {
            Some(more) => more.is_truthy()?,
            None => false,
        };
        Ok((data, more))
    }
}

/// Objects that messages have again and again, constants of the application's code: the last one of each is kept, so that its address
/// says what it is.
#[derive(Default)]
pub(crate) struct Constants {
    /// `"http.response.start"`.
    start: Constant<()>,
    /// `"http.response.body"`.
    body: Constant<()>,
    status: Constant<StatusCode>,
}

impl Constants {
    /// Forgets everything, when the worker closes.
    pub(crate) fn clear(&self, py: Python<'_>) {
        self.start.clear(py);
        self.body.clear(py);
        self.status.clear(py);
    }
}

/// One object, and what is known of it.
struct Constant<T>(RefCell<Option<(Py<PyAny>, T)>>);

impl<T> Default for Constant<T> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<T: Copy> Constant<T> {
    fn get(&self, object: &Bound<'_, PyAny>) -> Option<T> {
        let known = self.0.borrow();
        known
            .as_ref()
            .and_then(|(known, value)| known.is(object).then_some(*value))
    }

    fn is(&self, object: &Bound<'_, PyAny>) -> bool {
        self.get(object).is_some()
    }

    /// `object` never changes: a `str` or an `int`, whose end runs no Python code.
    fn note(&self, object: &Bound<'_, PyAny>, value: T) {
        let old = self.0.replace(Some((object.clone().unbind(), value)));
        drop(old.map(|(old, _)| old.into_bound(object.py())));
    }

    fn clear(&self, py: Python<'_>) {
        let old = self.0.take();
        drop(old.map(|(old, _)| old.into_bound(py)));
    }
}

impl Constant<()> {
    /// A string of another class may run code when it ends.
    fn note_str(&self, name: &Bound<'_, PyString>) {
        if name.is_exact_instance_of::<PyString>() {
            self.note(name, ());
        }
    }
}

fn missing(key: &str) -> PyErr {
    PyKeyError::new_err(format!("the message has no {key:?}"))
}

/// The value of a key that must be there.
pub(crate) fn required<'py>(
    message: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    message
        .get_item(key)?
        .ok_or_else(|| PyKeyError::new_err(format!("the message has no {key:?}")))
}

fn status_code(status: &Bound<'_, PyAny>) -> PyResult<StatusCode> {
    // `http.HTTPStatus` is an int too.
    let number: i64 = status
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("status {status} is not an integer")))?;
    u16::try_from(number)
        .ok()
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| PyValueError::new_err(format!("status {number} is not from 100 to 999")))
}

/// Calls `take` for each field of a header list: any iterable of pairs, or `None`.
pub(crate) fn each_field(
    headers: &Bound<'_, PyAny>,
    cache: &HeaderCache,
    mut take: impl FnMut(HeaderName, HeaderValue) -> PyResult<()>,
) -> PyResult<()> {
    if headers.is_none() {
        return Ok(());
    }
    if let Ok(list) = headers.cast::<PyList>() {
        for pair in list.iter() {
            let (name, value) = header(&pair, cache)?;
            take(name, value)?;
        }
        return Ok(());
    }
    for pair in headers.try_iter()? {
        let (name, value) = header(&pair?, cache)?;
        take(name, value)?;
    }
    Ok(())
}

fn header(pair: &Bound<'_, PyAny>, cache: &HeaderCache) -> PyResult<(HeaderName, HeaderValue)> {
    if let Ok(tuple) = pair.cast::<PyTuple>()
        && tuple.len() == 2
    {
        return field(
            &*tuple.get_borrowed_item(0)?,
            &*tuple.get_borrowed_item(1)?,
            cache,
        );
    }
    let not_a_pair = || {
        PyTypeError::new_err(format!(
            "header {pair:?} is not a pair of bytes: (name, value)"
        ))
    };
    // Any iterable of two will do, but for one that is a name without a value.
    if pair.is_instance_of::<PyBytes>() || pair.is_instance_of::<PyString>() {
        return Err(not_a_pair());
    }
    let items: Vec<_> = pair
        .try_iter()
        .map_err(|_| not_a_pair())?
        .take(3)
        .collect::<PyResult<_>>()?;
    match &items[..] {
        [name, value] => field(name, value, cache),
        _ => Err(not_a_pair()),
    }
}

fn field(
    name: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    cache: &HeaderCache,
) -> PyResult<(HeaderName, HeaderValue)> {
    let name = cache.name(name)?;
    match cache.value(value) {
        Ok(value) => Ok((name, value)),
        Err(error) => Err(in_field(value.py(), &error, name.as_str())),
    }
}

/// An error about a value, with the name of its field.
pub(crate) fn in_field(py: Python<'_>, error: &PyErr, name: &str) -> PyErr {
    let text = format!("header {name}: {}", error.value(py));
    PyErr::from_type(error.get_type(py), text)
}

/// Names and values that applications send again and again: the same `bytes` objects, constants of their code. They are
/// checked and copied once; the cache keeps the object alive, so its address stands for its bytes.
///
/// What is made for one response is remembered too, in vain (nothing tells it from a constant), until the next object at its
/// place in the table: that costs less than what it saves for one constant.
#[derive(Default)]
pub(crate) struct HeaderCache {
    names: RefCell<Remembered<HeaderName>>,
    values: RefCell<Remembered<HeaderValue>>,
}

/// Direct-mapped by the object's address; empty until used.
type Remembered<T> = Vec<Option<(Py<PyBytes>, T)>>;

/// Entries of each kind: more than the distinct constant fields of most applications, and 4 KiB.
const REMEMBERED: usize = 128;
/// Longer ones are not remembered, so that a cache never holds more than 16 KiB of values.
const REMEMBERED_BYTES_MAX: usize = 128;

impl HeaderCache {
    fn name(&self, name: &Bound<'_, PyAny>) -> PyResult<HeaderName> {
        remember(&self.names, name, header_name)
    }

    fn value(&self, value: &Bound<'_, PyAny>) -> PyResult<HeaderValue> {
        remember(&self.values, value, header_value)
    }

    /// Forgets everything, when the worker closes.
    pub(crate) fn clear(&self, py: Python<'_>) {
        for (object, _) in self.names.take().into_iter().flatten() {
            drop(object.into_bound(py));
        }
        for (object, _) in self.values.take().into_iter().flatten() {
            drop(object.into_bound(py));
        }
    }
}

fn remember<T: Clone>(
    remembered: &RefCell<Remembered<T>>,
    object: &Bound<'_, PyAny>,
    read: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<T> {
    // Objects are 16 bytes apart or more.
    let index = (object.as_ptr().addr() >> 4) % REMEMBERED;
    if let Some(Some((known, value))) = remembered.borrow().get(index)
        && known.is(object)
    {
        return Ok(value.clone());
    }
    let value = read(object)?;
    let object = object.cast::<PyBytes>()?;
    if object.as_bytes().len() <= REMEMBERED_BYTES_MAX {
        let mut entries = remembered.borrow_mut();
        if entries.is_empty() {
            entries.resize_with(REMEMBERED, || None);
        }
        // A `bytes` object that is dropped here runs no Python code.
        if let Some((old, _)) = entries[index].replace((object.clone().unbind(), value.clone())) {
            drop(old.into_bound(object.py()));
        }
    }
    Ok(value)
}

fn header_name(name: &Bound<'_, PyAny>) -> PyResult<HeaderName> {
    let bytes = name
        .cast::<PyBytes>()
        .map_err(|_| PyTypeError::new_err(format!("header name {name:?} is not bytes")))?;
    HeaderName::from_bytes(bytes.as_bytes())
        .map_err(|_| PyValueError::new_err(format!("header name {name:?} is not a token")))
}

/// The value of a field. Line breaks and control characters are refused: they would end the field and begin another one.
pub(crate) fn header_value(value: &Bound<'_, PyAny>) -> PyResult<HeaderValue> {
    let bytes = value
        .cast::<PyBytes>()
        .map_err(|_| PyTypeError::new_err(format!("value {value:?} is not bytes")))?;
    HeaderValue::from_bytes(trim_blanks(bytes.as_bytes())).map_err(|_| {
        PyValueError::new_err(format!("value {value:?} has a control character in it"))
    })
}

/// Without the blanks around it, which are no part of a value (RFC 9110, 5.5). A line break is no blank: it is refused.
fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A `bytes` object that lives on in a response; it is not copied.
struct Kept(Py<PyBytes>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: a `bytes` object never changes and is alive while `self` is; its address is read from the object itself,
        // which needs no attached thread.
        unsafe {
            let object = self.0.as_ptr();
            let data = pyo3::ffi::PyBytes_AsString(object).cast::<u8>();
            let length = pyo3::ffi::PyBytes_Size(object);
            std::slice::from_raw_parts(data, length.unsigned_abs())
        }
    }
}

/// The bytes of a message's value. Large `bytes` objects are kept; what may change later (`bytearray`, `memoryview`) is copied.
pub(crate) fn bytes(value: &Bound<'_, PyAny>, what: &str) -> PyResult<Bytes> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        let data = bytes.as_bytes();
        return Ok(if data.len() <= COPY_BYTES_MAX {
            Bytes::copy_from_slice(data)
        } else {
            Bytes::from_owner(Kept(bytes.clone().unbind()))
        });
    }
    if let Ok(array) = value.cast::<PyByteArray>() {
        return Ok(alone(array, || array.to_vec()).into());
    }
    if value.is_none() {
        return Ok(Bytes::new());
    }
    let buffer = PyBuffer::<u8>::get(value).map_err(|_| {
        PyTypeError::new_err(format!(
            "{what} is {}, not bytes",
            value
                .get_type()
                .name()
                .map_or_else(|_| "something else".to_owned(), |name| name.to_string())
        ))
    })?;
    Ok(buffer.to_vec(value.py())?.into())
}
