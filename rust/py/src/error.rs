//! Errors of the Rust side as Python exceptions.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use pyo3::{
    exceptions::{PyOSError, PyRuntimeError},
    prelude::*,
    types::{PyDict, PyType},
};

use crate::os::oserror_words;

/// The `OSError` subclass for an error of the operating system, with `errno` set.
pub(crate) fn os_error(error: io::Error) -> PyErr {
    match error.raw_os_error() {
        // OSError itself picks the subclass by its first argument.
        Some(number) => {
            let text = error.to_string();
            let reason = text.split(" (os error").next().unwrap_or(&text).to_owned();
            PyOSError::new_err(oserror_words(number, reason))
        }
        None => error.into(),
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panic from Rust code")
}

/// A panic of the work is a `RuntimeError`, for what a stranger's request can lead to: one request fails, and the server goes on.
/// (`PyO3`'s own `PanicException` is no `Exception`, and ends a loop.) Whatever the work holds must be right after a panic too.
pub(crate) fn guarded<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        let text = format!("a fault of framegate itself, please report it: {text}");
        Err(PyRuntimeError::new_err(text))
    })
}

/// In a development build, panics where `FRAMEGATE_TESTS_PANIC` says so.
#[inline]
pub(crate) fn panic_if_asked(place: &str) {
    #[cfg(debug_assertions)]
    assert!(
        std::env::var_os("FRAMEGATE_TESTS_PANIC").is_none_or(|asked| asked != place),
        "asked to panic at {place}"
    );
    #[cfg(not(debug_assertions))]
    let _ = place;
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
