//! Forms: fields become arguments as parameters of a query do; files are given out as they arrive.
//!
//! `framegate.app.forms` puts the two together, and keeps files in memory or on disk.

use std::{borrow::Cow, sync::Mutex};

use framegate_http::form::{Event, Form};
use framegate_routes::{Fault, Place, json, text};
use http::{HeaderMap, Method};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict, PyList},
};

use crate::error::{guarded, panic_if_asked};

use super::{Argument, Asked, Names, Pattern, Reader, value_error};

/// What a handler wants of the fields of a form.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct FormFields {
    arguments: Vec<Argument>,
    reader: Reader,
}

type Faults = Vec<(String, String, String)>;

#[pymethods]
impl FormFields {
    /// `arguments` are specifications as `framegate.app.signatures` makes them; `python` lends classes.
    #[new]
    fn new(arguments: &Bound<'_, PyAny>, python: &Bound<'_, PyAny>) -> PyResult<Self> {
        let no_path = Pattern::parse("/").map_err(value_error)?;
        let mut read = Vec::new();
        for argument in arguments.try_iter()? {
            read.push(Argument::read(&argument?, &no_path)?);
        }
        Ok(Self {
            arguments: read,
            reader: Reader::new(json::Limits::default(), Names::lent(python)?),
        })
    }

    /// Arguments by their names, and what is wrong: `(part, name, detail)`.
    fn read<'py>(
        &self,
        py: Python<'py>,
        pairs: Vec<(String, String)>,
    ) -> PyResult<(Bound<'py, PyDict>, Faults)> {
        let pairs: Vec<_> = pairs
            .into_iter()
            .map(|(name, value)| (Cow::from(name), Some(Cow::from(value))))
            .collect();
        guarded(|| self.read_pairs(py, &pairs))
    }

    /// The same of a body that is `application/x-www-form-urlencoded`.
    fn read_encoded<'py>(
        &self,
        py: Python<'py>,
        body: &[u8],
    ) -> PyResult<(Bound<'py, PyDict>, Faults)> {
        let body = std::str::from_utf8(body)
            .map_err(|_| PyValueError::new_err("the form is not encoded right"))?;
        guarded(|| {
            panic_if_asked("fields");
            let pairs: Vec<_> = text::pairs(body).collect();
            self.read_pairs(py, &pairs)
        })
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that pyo3 wants"
    )]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for argument in &self.arguments {
            argument.visit(&visit)?;
        }
        self.reader.python.visit(&visit)
    }
}

impl FormFields {
    fn read_pairs<'py>(
        &self,
        py: Python<'py>,
        pairs: &[(Cow<'_, str>, Option<Cow<'_, str>>)],
    ) -> PyResult<(Bound<'py, PyDict>, Faults)> {
        let asked = Asked {
            method: &Method::POST,
            path: "/",
            query: None,
            headers: &HeaderMap::new(),
            body: None,
            values: &[],
            pairs,
        };
        let mut faults = Vec::new();
        let checked: Vec<_> = self
            .arguments
            .iter()
            .map(|argument| self.reader.check(argument, &asked, &mut faults))
            .collect();
        let found = PyDict::new(py);
        if faults.is_empty() {
            for (argument, given) in self.arguments.iter().zip(checked) {
                let object = self.reader.object(py, argument, given, None)?;
                found.set_item(argument.name.bind(py), object)?;
            }
        }
        let told = faults.into_iter().map(|Fault { place, detail, .. }| {
            let name = match place {
                Place::Form(name) => name,
                _ => String::new(),
            };
            ("form".to_owned(), name, detail)
        });
        Ok((found, told.collect()))
    }
}

/// Reads a `multipart/form-data` body as it arrives.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct FormReader(Mutex<Form>);

#[pymethods]
impl FormReader {
    /// `content_type` is the value of that field. A form has `parts_max` parts at most.
    #[new]
    fn new(content_type: &[u8], parts_max: usize) -> PyResult<Self> {
        let form = Form::new(content_type, parts_max).map_err(PyValueError::new_err)?;
        Ok(Self(Mutex::new(form)))
    }

    /// What a piece of the body brings: `(name, file, media_type)` where a part begins, `bytes` of it, `None` at its end. The end of
    /// the body is an empty piece.
    fn feed<'py>(&self, py: Python<'py>, piece: &[u8]) -> PyResult<Bound<'py, PyList>> {
        let mut form = self
            .0
            .try_lock()
            .map_err(|_| PyRuntimeError::new_err("the form is being read elsewhere"))?;
        let events = guarded(|| {
            panic_if_asked("form");
            form.feed(piece).map_err(PyValueError::new_err)
        })?;
        let list = PyList::empty(py);
        for event in events {
            match event {
                Event::Part {
                    name,
                    file,
                    media_type,
                } => list.append((name, file, media_type))?,
                Event::Data(data) => list.append(PyBytes::new(py, &data))?,
                Event::End => list.append(py.None())?,
            }
        }
        Ok(list)
    }
}
