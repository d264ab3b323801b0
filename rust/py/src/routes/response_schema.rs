//! What a handler returned, held against the schema of its annotation before it is sent.

use std::borrow::Cow;

use framegate_routes::{
    Place, Schema,
    json::{self, Value},
};
use pyo3::{
    PyTraverseError, PyVisit,
    prelude::*,
    types::{PyByteArray, PyBytes},
};

use crate::error::{guarded, panic_if_asked};

use super::{Names, answer, value_error};

/// What a handler may return.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct ResponseSchema {
    schema: Schema,
    python: Names,
}

#[pymethods]
impl ResponseSchema {
    /// `python` lends classes.
    #[new]
    fn new(schema: &str, python: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            schema: Schema::compile(schema).map_err(value_error)?,
            python: Names::lent(python)?,
        })
    }

    /// What is wrong with a value, each as a JSON pointer and a text. Nothing is with what is no JSON: bytes, what comes in
    /// pieces, and a `Response` whose status is no success.
    fn faults(&self, value: &Bound<'_, PyAny>) -> PyResult<Vec<(String, String)>> {
        guarded(|| {
            panic_if_asked("response");
            self.found(value)
        })
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that pyo3 wants"
    )]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.python.visit(&visit)
    }
}

impl ResponseSchema {
    fn found(&self, value: &Bound<'_, PyAny>) -> PyResult<Vec<(String, String)>> {
        let py = value.py();
        let Names {
            response,
            pieces,
            simplify,
            ..
        } = &self.python;
        let mut value = Cow::Borrowed(value);
        if value.is_instance(response.bind(py))? {
            let status: u16 = value.getattr("status")?.extract()?;
            if !(200..300).contains(&status) {
                return Ok(Vec::new());
            }
            value = Cow::Owned(value.getattr("content")?);
        }
        let is_bytes = value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>();
        if is_bytes || pieces.has(&value)? {
            return Ok(Vec::new());
        }
        let mut text = Vec::new();
        answer::push(&value, simplify, 0, &mut text)?;
        let limits = json::Limits {
            bytes_max: usize::MAX,
            ..json::Limits::default()
        };
        let value: Value<'_> = json::read(&text, limits).map_err(value_error)?;
        let faults = self.schema.check(&value).err().unwrap_or_default();
        let told = faults.into_iter().map(|fault| match fault.place {
            Place::Body(pointer) => (pointer, fault.detail),
            other => (format!("{other:?}"), fault.detail),
        });
        Ok(told.collect())
    }
}
