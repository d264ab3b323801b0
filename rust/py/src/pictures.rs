//! Pictures without a server around them: of frames that are sent by another server, and for tests.

use bytes::Bytes;
use framegate_http::pictures::{
    self, Codecs, Coding, PictureError, PixelFormat, Pixels, Setting, Source,
};
use pyo3::{exceptions::PyValueError, prelude::*, pybacked::PyBackedBytes, types::PyBytes};

use crate::error::exception;
use crate::gil::detached;

/// For tests: what a viewer with this query gets of a frame. `format` is that of its pixels, or the coding that it has already.
#[cfg(debug_assertions)]
#[pyfunction]
#[pyo3(name = "_make_picture", signature = (data, format, size, coding, query, pixels_max=1 << 26))]
pub(crate) fn make_picture(
    data: Vec<u8>,
    format: &str,
    size: (u32, u32),
    coding: &str,
    query: &str,
    pixels_max: u64,
) -> PyResult<Vec<u8>> {
    let data = Bytes::from(data);
    let source = if let Some(coding) = Coding::from_name(format) {
        Source::Coded(coding, data)
    } else {
        let format = PixelFormat::from_name(format).ok_or_else(|| unknown(format))?;
        let pixels = Pixels::new(format, size.0, size.1, data);
        Source::Pixels(pixels.map_err(|error| wrong(&error))?)
    };
    let coding = Coding::from_name(coding).ok_or_else(|| unknown(coding))?;
    let setting = Setting::from_query(coding, query)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let made = pictures::make(&mut Codecs::default(), &source, &setting, pixels_max);
    made.map(Vec::from).map_err(|error| wrong(&error))
}

/// Pixels of a coded picture: their format, width and height, and bytes.
#[cfg(debug_assertions)]
#[pyfunction]
#[pyo3(name = "_decode_picture", signature = (data, coding, pixels_max=1 << 26))]
pub(crate) fn decode_picture(
    data: &[u8],
    coding: &str,
    pixels_max: u64,
) -> PyResult<(&'static str, (u32, u32), Vec<u8>)> {
    let coding = Coding::from_name(coding).ok_or_else(|| unknown(coding))?;
    let pixels = pictures::decode(&mut Codecs::default(), coding, data, pixels_max)
        .map_err(|error| wrong(&error))?;
    Ok((
        pixels.format().name(),
        pixels.size(),
        pixels.data().to_vec(),
    ))
}

/// A frame as a picture, as frame routes make it; see `framegate.frame_stream`. Gives up the GIL.
///
/// Raises:
///     `SchemaMismatch`: The frame is no picture.
///     `ValueError`: The query means nothing.
#[pyfunction]
#[pyo3(signature = (data, dtype, shape, encoding, content_type, coding, query, pixels_max=1 << 26))]
#[expect(
    clippy::too_many_arguments,
    reason = "what is said of a frame, and what is wanted"
)]
#[expect(clippy::needless_pass_by_value, reason = "a list from Python")]
pub(crate) fn make_frame_picture(
    py: Python<'_>,
    data: PyBackedBytes,
    dtype: Option<&str>,
    shape: Vec<u64>,
    encoding: Option<&str>,
    content_type: Option<&str>,
    coding: &str,
    query: &str,
    pixels_max: u64,
) -> PyResult<Py<PyBytes>> {
    let coding = Coding::from_name(coding).ok_or_else(|| unknown(coding))?;
    let setting = Setting::from_query(coding, query)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let no_picture = |text: &str| exception(py, "SchemaMismatch", text);
    let data = Bytes::from_owner(data);
    let known = content_type.and_then(|kind| Coding::from_media_type(kind.as_bytes()));
    let source = if let Some(known) = known {
        Source::Coded(known, data)
    } else {
        let array = dtype.and_then(|dtype| PixelFormat::of_array(dtype, &shape, encoding));
        let (format, width, height) = array.ok_or_else(|| no_picture("the frame is no picture"))?;
        let pixels = Pixels::new(format, width, height, data);
        Source::Pixels(pixels.map_err(|error| no_picture(&error.to_string()))?)
    };
    let made = detached(py, || {
        pictures::make(&mut Codecs::default(), &source, &setting, pixels_max)
    });
    let made = made.map_err(|error| no_picture(&error.to_string()))?;
    Ok(PyBytes::new(py, &made).unbind())
}

fn unknown(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name:?} is no format"))
}

#[cfg(debug_assertions)]
fn wrong(error: &PictureError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
