//! Work in Rust that Python awaits: an asyncio future, and a task of the loop that settles it.

use std::future::Future;

use pyo3::{intern, prelude::*};
use tokio::task::AbortHandle;

use crate::asgi::Application;

/// An asyncio future of what `work` makes once the loop has the GIL. When it is cancelled, the work is dropped.
pub(crate) fn promise<'py, F>(
    py: Python<'py>,
    application: &Application,
    work: impl Future<Output = F> + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    F: FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + 'static,
{
    let event_loop = application.starter.event_loop.bind(py);
    let future = event_loop.call_method0(intern!(py, "create_future"))?;
    let (result, core) = (future.clone().unbind(), application.core.clone());
    let task = application.core.spawn(async move {
        let make = work.await;
        Python::attach(|py| {
            let outcome = make(py);
            if let Err(error) = settle(result.bind(py), outcome) {
                core.report(py, "a result could not be given to its future", error);
            }
            core.after_python(py);
        });
    });
    let canceller = Bound::new(py, Canceller(task.abort_handle()))?;
    future.call_method1(intern!(py, "add_done_callback"), (canceller,))?;
    Ok(future)
}

fn settle(future: &Bound<'_, PyAny>, outcome: PyResult<Py<PyAny>>) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match outcome {
        Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
    };
    Ok(())
}

/// Ends the work of a future that is done, because who waited for it was cancelled.
#[pyclass(frozen, module = "framegate._http")]
struct Canceller(AbortHandle);

#[pymethods]
impl Canceller {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.0.abort();
    }
}
