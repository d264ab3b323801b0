//! The span of a request, as Python sees it: the current one of OpenTelemetry's API in the context of the request, and an extension
//! of its scope for those without that package. What is Python in it is in `framegate/tracing.py`.
//!
//! The core begins and ends spans ([`framegate_http::trace`]); this only says them. Without tracing nothing of it exists but an
//! `Option` that is `None`.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, SystemTime},
};

use framegate_http::trace::{Attributes, Event, Link, Span, SpanContext, Value};
use pyo3::{
    PyTraverseError, PyVisit, intern,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};

/// Python's part, once per worker.
pub(crate) struct Tracing {
    /// Makes a span the current one; `None` without OpenTelemetry's API.
    attach: Option<Py<PyAny>>,
    route_of: Py<PyAny>,
    describe: Py<PyAny>,
}

impl Tracing {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("framegate.tracing")?;
        let attach = module.call_method0("attacher")?;
        Ok(Self {
            attach: (!attach.is_none()).then(|| attach.unbind()),
            route_of: module.getattr("route_of")?.unbind(),
            describe: module.getattr("describe")?.unbind(),
        })
    }

    /// Makes a span the current one of the context that is entered. A failure is told, and the request goes on without.
    pub(crate) fn attach(&self, py: Python<'_>, span: &Arc<Span>) {
        let Some(attach) = &self.attach else { return };
        let attached = Bound::new(py, RequestSpan(span.clone()))
            .and_then(|span| attach.bind(py).call1((span,)));
        if let Err(error) = attached {
            error.write_unraisable(py, None);
        }
    }

    /// Says in a scope, as its extension, which span the request is.
    pub(crate) fn extend(extensions: &Bound<'_, PyDict>, span: &SpanContext) -> PyResult<()> {
        let py = extensions.py();
        let about = PyDict::new(py);
        about.set_item(intern!(py, "trace_id"), hex(&span.trace_id))?;
        about.set_item(intern!(py, "span_id"), hex(&span.span_id))?;
        about.set_item(intern!(py, "sampled"), span.is_sampled)?;
        extensions.set_item(intern!(py, "framegate.trace"), about)
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// The span of a request that is recorded, and the scope, until it is known which route it took.
#[derive(Default)]
pub(crate) struct OpenSpan(RefCell<Option<SpanAndScope>>);

type SpanAndScope = (Arc<Span>, Option<Py<PyDict>>);

impl OpenSpan {
    /// Without a scope its route is known.
    pub(crate) fn begin(&self, span: Arc<Span>, scope: Option<&Bound<'_, PyDict>>) {
        let scope = scope.map(|scope| scope.clone().unbind());
        self.0.replace(Some((span, scope)));
    }

    pub(crate) fn clear(&self) {
        let ended = self.0.take();
        drop(ended);
    }

    pub(crate) fn is_clear(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// The response begins: by now the application has put its route into the scope, if it does that.
    pub(crate) fn responds(&self, py: Python<'_>, tracing: &Tracing) {
        let open = self
            .0
            .borrow_mut()
            .as_mut()
            .and_then(|(span, scope)| Some((span.clone(), scope.take()?)));
        let Some((span, scope)) = open else { return };
        let route = tracing.route_of.bind(py).call1((scope.into_bound(py),));
        match route.and_then(|route| route.extract::<Option<String>>()) {
            Ok(Some(route)) => span.set_route(route),
            Ok(None) => {}
            Err(error) => error.write_unraisable(py, None),
        }
    }

    /// The application has failed.
    pub(crate) fn failed(&self, py: Python<'_>, tracing: &Tracing, error: &PyErr) {
        let span = self.0.borrow().as_ref().map(|(span, _)| span.clone());
        let Some(span) = span else { return };
        let value = error.clone_ref(py).into_value(py);
        let described = tracing.describe.bind(py).call1((value,));
        match described.and_then(|described| described.extract()) {
            Ok((text, attributes)) => {
                let attributes: Vec<(String, String)> = attributes;
                span.add_event(Event {
                    name: "exception".to_owned(),
                    at: SystemTime::now(),
                    attributes: attributes
                        .into_iter()
                        .map(|(name, text)| (name, Value::Text(text)))
                        .collect(),
                });
                span.set_error(text);
            }
            Err(error) => error.write_unraisable(py, None),
        }
    }

    pub(crate) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(open) = self.0.try_borrow()
            && let Some((_, Some(scope))) = &*open
        {
            visit.call(scope)?;
        }
        Ok(())
    }
}

/// The span of one request; what is said of it after its end is dropped. May be used on any thread.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct RequestSpan(Arc<Span>);

#[pymethods]
impl RequestSpan {
    /// The trace, as a number.
    #[getter]
    fn trace_id(&self) -> u128 {
        u128::from_be_bytes(self.0.context.trace_id)
    }

    /// The span in it, as a number.
    #[getter]
    fn span_id(&self) -> u64 {
        u64::from_be_bytes(self.0.context.span_id)
    }

    /// Whether it is recorded.
    #[getter]
    fn is_sampled(&self) -> bool {
        self.0.context.is_sampled
    }

    /// What vendors pass on: a valid `tracestate`, or nothing.
    #[getter]
    fn trace_state(&self) -> Option<&str> {
        self.0.trace_state.as_deref()
    }

    /// `baggage` of the request, as it came.
    #[getter]
    fn baggage(&self) -> Option<String> {
        let values = self.0.baggage.iter();
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    /// Whether it is recorded and has not ended.
    fn is_recording(&self) -> bool {
        self.0.is_recording()
    }

    /// Sets an attribute.
    fn set_attribute(&self, name: String, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.0.is_recording()
            && let Some(value) = value_of(value, true)?
        {
            self.0.set_attribute(name, value);
        }
        Ok(())
    }

    /// Gives it another name.
    fn set_name(&self, name: String) {
        self.0.set_name(name);
    }

    /// It has failed, and why.
    fn set_error(&self, text: String) {
        self.0.set_error(text);
    }

    /// It has not failed, whatever else is said.
    fn set_well(&self) {
        self.0.set_well();
    }

    /// Something happened: now, or at nanoseconds of Unix time.
    #[pyo3(signature = (name, attributes, at_ns=None))]
    fn add_event(
        &self,
        name: String,
        attributes: &Bound<'_, PyAny>,
        at_ns: Option<u64>,
    ) -> PyResult<()> {
        if !self.0.is_recording() {
            return Ok(());
        }
        let at = at_ns.map_or_else(SystemTime::now, |at| {
            SystemTime::UNIX_EPOCH + Duration::from_nanos(at)
        });
        let attributes = attributes_of(attributes)?;
        self.0.add_event(Event {
            name,
            at,
            attributes,
        });
        Ok(())
    }

    /// It has to do with another span.
    fn add_link(
        &self,
        trace_id: u128,
        span_id: u64,
        is_sampled: bool,
        attributes: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !self.0.is_recording() {
            return Ok(());
        }
        self.0.add_link(Link {
            context: SpanContext {
                trace_id: trace_id.to_be_bytes(),
                span_id: span_id.to_be_bytes(),
                is_sampled,
            },
            attributes: attributes_of(attributes)?,
        });
        Ok(())
    }
}

/// Of a mapping.
fn attributes_of(mapping: &Bound<'_, PyAny>) -> PyResult<Attributes> {
    let mut attributes = Vec::new();
    for item in mapping
        .call_method0(intern!(mapping.py(), "items"))?
        .try_iter()?
    {
        let (name, value): (String, Bound<'_, PyAny>) = item?.extract()?;
        if let Some(value) = value_of(&value, true)? {
            attributes.push((name, value));
        }
    }
    Ok(attributes)
}

/// What an attribute can hold; another object as its text, `None` not at all.
fn value_of(value: &Bound<'_, PyAny>, may_be_list: bool) -> PyResult<Option<Value>> {
    let text = |value: &Bound<'_, PyAny>| -> PyResult<Value> {
        Ok(Value::Text(value.str()?.to_string_lossy().into_owned()))
    };
    Ok(Some(if value.is_none() {
        return Ok(None);
    } else if let Ok(value) = value.cast::<PyBool>() {
        Value::Bool(value.is_true())
    } else if value.is_instance_of::<PyInt>() {
        value
            .extract()
            .map_or_else(|_| text(value), |number| Ok(Value::Integer(number)))?
    } else if value.is_instance_of::<PyFloat>() {
        Value::Float(value.extract()?)
    } else if value.is_instance_of::<PyString>() {
        text(value)?
    } else if may_be_list && (value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>())
    {
        let mut values = Vec::new();
        for item in value.try_iter()? {
            values.extend(value_of(&item?, false)?);
        }
        Value::List(values)
    } else {
        text(value)?
    }))
}
