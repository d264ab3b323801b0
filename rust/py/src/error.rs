//! Errors of the Rust side as Python exceptions.

use std::io;

use pyo3::{PyErr, exceptions::PyOSError};

/// The `OSError` subclass for an error of the operating system, with `errno` set.
pub(crate) fn os_error(error: io::Error) -> PyErr {
    match error.raw_os_error() {
        // OSError itself picks the subclass by its first argument.
        Some(number) => {
            let text = error.to_string();
            let reason = text.split(" (os error").next().unwrap_or(&text).to_owned();
            PyOSError::new_err((number, reason))
        }
        None => error.into(),
    }
}
