//! Errors of the Rust side as Python exceptions.

use std::io;

use pyo3::{
    exceptions::PyOSError,
    prelude::*,
    types::{PyDict, PyType},
};

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

/// An exception of `framegate.errors`, by its name.
pub(crate) fn exception(py: Python<'_>, name: &str, text: &str) -> PyErr {
    let class = py
        .import("framegate.errors")
        .and_then(|errors| errors.getattr(name))
        .and_then(|class| Ok(class.cast_into::<PyType>()?));
    match class {
        Ok(class) => PyErr::from_type(class, text.to_owned()),
        Err(error) => error,
    }
}

/// Class of `framegate.errors` for each status of `shm.h` from 1 on; `framegate._shm` has the same table, and a test compares
/// them.
const SHM_CLASSES: [&str; 36] = [
    "ShmArgumentError",
    "TopicNameInvalid",
    "TopicNotFound",
    "TopicExists",
    "SegmentIncompatible",
    "SegmentCorrupt",
    "NoSpace",
    "PermissionDenied",
    "RuntimeDirectoryError",
    "ParticipantsExhausted",
    "TopicFull",
    "ShmTimeout",
    "ShmTimeout",
    "ShmError",
    "FrameTooLarge",
    "LeaseQuotaExceeded",
    "LeaseLost",
    "LoanLost",
    "SchemaMismatch",
    "ForkedHandleError",
    "HandlePoisoned",
    "ClosedError",
    "TopicMoved",
    "ShmError",
    "ShmError",
    "ShmError",
    "ShmError",
    "ChecksumMismatch",
    "MetadataFull",
    "GroupsExhausted",
    "NoResponder",
    "ResponderDied",
    "CallFailed",
    "MailboxFull",
    "CallerGone",
    "CallsExhausted",
];

/// `_http.SHM_ERROR_CLASSES`: class name by status code.
pub(crate) fn shm_error_classes(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let classes = PyDict::new(py);
    for (index, class) in SHM_CLASSES.iter().enumerate() {
        classes.set_item(index + 1, class)?;
    }
    Ok(classes)
}

/// The exception for an error of the shared-memory library: one class per kind.
pub(crate) fn shm_error(py: Python<'_>, error: &framegate_shm::Error) -> PyErr {
    let class = usize::try_from(error.code())
        .ok()
        .and_then(|code| SHM_CLASSES.get(code.checked_sub(1)?))
        .unwrap_or(&"ShmError");
    exception(py, class, &error.to_string())
}
