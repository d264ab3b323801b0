//! Files that a handler returns: their conditions and ranges, as static files have them.

use framegate_http::static_files::{Part, select};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyList, PyTuple},
};

use super::{answer::fields, value_error};

/// What a GET or HEAD gets of a file of that type, size and time: a status (200, 206, 304, 412, 416), fields that go with it,
/// and the parts of the body: bytes, or the first byte of the file and the one behind the last.
#[pyfunction]
pub(crate) fn select_parts<'py>(
    py: Python<'py>,
    method: &str,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    media_type: &str,
    size: u64,
    modified_ns: i64,
) -> PyResult<(u16, Bound<'py, PyList>, Bound<'py, PyList>)> {
    let mut asked = HeaderMap::new();
    for (name, value) in headers {
        // What is no field name is no condition.
        if let Ok(name) = HeaderName::from_bytes(&name) {
            asked.append(name, HeaderValue::try_from(value).map_err(value_error)?);
        }
    }
    let method = method.parse::<Method>().map_err(value_error)?;
    let media_type = HeaderValue::try_from(media_type).map_err(value_error)?;
    let selection = select(&method, &asked, &media_type, size, modified_ns.into());
    let parts = PyList::empty(py);
    for part in selection.parts {
        match part {
            Part::Bytes(bytes) => parts.append(PyBytes::new(py, &bytes))?,
            Part::File(range) => parts.append(PyTuple::new(py, [range.start, range.end])?)?,
        }
    }
    Ok((
        selection.status.as_u16(),
        fields(py, &selection.headers)?,
        parts,
    ))
}
