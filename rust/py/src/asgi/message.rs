//! Reading the messages that applications give to `send()`.
//!
//! Everything here may run Python (a header list may be any iterable), so nothing of an exchange is borrowed meanwhile.
#![expect(
    unsafe_code,
    reason = "the bytes of a bytearray or a memoryview are copied out of Python's buffer"
)]

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use pyo3::{
    buffer::PyBuffer,
    exceptions::{PyKeyError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple},
};

/// Shorter bodies are copied: cheaper than keeping the Python object, and it is free earlier.
const COPY_BYTES_MAX: usize = 1024;

/// The `type` of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ResponseStart,
    ResponseBody,
    EarlyHint,
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

/// The kind of a message.
pub(crate) fn kind(message: &Bound<'_, PyDict>) -> PyResult<Kind> {
    let name = required(message, intern!(message.py(), "type"))?;
    let name = name
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err("the type of a message is a string"))?;
    Ok(match name.to_str()? {
        "http.response.start" => Kind::ResponseStart,
        "http.response.body" => Kind::ResponseBody,
        "http.response.early_hint" => Kind::EarlyHint,
        other => Kind::Other(other.to_owned()),
    })
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

/// `status` of a response.
pub(crate) fn status(message: &Bound<'_, PyDict>) -> PyResult<StatusCode> {
    let status = required(message, intern!(message.py(), "status"))?;
    // `http.HTTPStatus` is an int too.
    let number: i64 = status
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("status {status} is not an integer")))?;
    u16::try_from(number)
        .ok()
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| PyValueError::new_err(format!("status {number} is not from 100 to 999")))
}

/// Calls `take` for each field of `headers`; a message may have none.
pub(crate) fn each_header(
    message: &Bound<'_, PyDict>,
    mut take: impl FnMut(HeaderName, HeaderValue) -> PyResult<()>,
) -> PyResult<()> {
    let py = message.py();
    let Some(headers) = message.get_item(intern!(py, "headers"))? else {
        return Ok(());
    };
    if headers.is_none() {
        return Ok(());
    }
    if let Ok(list) = headers.cast::<PyList>() {
        for pair in list.iter() {
            let (name, value) = header(&pair)?;
            take(name, value)?;
        }
        return Ok(());
    }
    for pair in headers.try_iter()? {
        let (name, value) = header(&pair?)?;
        take(name, value)?;
    }
    Ok(())
}

fn header(pair: &Bound<'_, PyAny>) -> PyResult<(HeaderName, HeaderValue)> {
    if let Ok(tuple) = pair.cast::<PyTuple>()
        && tuple.len() == 2
    {
        return Ok((
            header_name(&tuple.get_item(0)?)?,
            header_value(&tuple.get_item(1)?)?,
        ));
    }
    let not_a_pair = || PyTypeError::new_err("a header is a pair of bytes: (name, value)");
    let pair = pair.cast::<PyList>().map_err(|_| not_a_pair())?;
    if pair.len() != 2 {
        return Err(not_a_pair());
    }
    Ok((
        header_name(&pair.get_item(0)?)?,
        header_value(&pair.get_item(1)?)?,
    ))
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
        .map_err(|_| PyTypeError::new_err(format!("header value {value:?} is not bytes")))?;
    HeaderValue::from_bytes(bytes.as_bytes().trim_ascii()).map_err(|_| {
        PyValueError::new_err(format!(
            "header value {value:?} has a control character in it"
        ))
    })
}

/// `body` and `more_body`.
pub(crate) fn body(message: &Bound<'_, PyDict>) -> PyResult<(Bytes, bool)> {
    let py = message.py();
    let data = match message.get_item(intern!(py, "body"))? {
        Some(body) => bytes(&body, "body")?,
        None => Bytes::new(),
    };
    let more = match message.get_item(intern!(py, "more_body"))? {
        Some(more) => more.is_truthy()?,
        None => false,
    };
    Ok((data, more))
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
        return Ok(array.to_vec().into());
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
