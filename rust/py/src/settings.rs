//! Settings that are durations: floats of seconds in Python, where `None` is off.

use std::time::Duration;

use pyo3::{exceptions::PyValueError, prelude::*};

/// A setting that is a duration.
pub(crate) fn seconds(config: &Bound<'_, PyAny>, name: &str) -> PyResult<Duration> {
    duration(name, config.getattr(name)?.extract()?)
}

/// A setting that is a duration, or off.
pub(crate) fn seconds_or_off(config: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<Duration>> {
    let value: Option<f64> = config.getattr(name)?.extract()?;
    value.map(|value| duration(name, value)).transpose()
}

fn duration(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("{name}={value} is not a duration")))
}
