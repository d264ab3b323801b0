//! For tests: pictures without a topic, a server and a browser around them.

use bytes::Bytes;
use framegate_http::pictures::{
    self, Codecs, Coding, PictureError, PixelFormat, Pixels, Setting, Source,
};
use pyo3::{exceptions::PyValueError, prelude::*};

/// What a viewer with this query gets of a frame. `format` is that of its pixels, or the coding that it has already.
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

fn unknown(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name:?} is no format"))
}

fn wrong(error: &PictureError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
