//! The settings of compressed responses.

use std::rc::Rc;

use framegate_http::{
    compression::{Compressed, Level, Settings},
    service::Service,
};
use pyo3::{exceptions::PyValueError, prelude::*};

/// `application` with its responses compressed, if that is wanted.
pub(crate) fn around(
    application: Rc<dyn Service>,
    config: &Bound<'_, PyAny>,
) -> PyResult<Rc<dyn Service>> {
    if !config.getattr("compress")?.is_truthy()? {
        return Ok(application);
    }
    let level: String = config.getattr("compress_level")?.extract()?;
    let settings = Settings {
        level: match &*level {
            "fast" => Level::Fast,
            "balanced" => Level::Balanced,
            "small" => Level::Small,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "compress_level={level:?} is none of fast, balanced and small"
                )));
            }
        },
        bytes_min: config.getattr("compress_min_size")?.extract()?,
        types: config.getattr("compress_types")?.extract()?,
        with_cookies: config.getattr("compress_cookies")?.is_truthy()?,
    };
    Ok(Rc::new(Compressed::new(application, settings)))
}
