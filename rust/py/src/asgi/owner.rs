//! The seam between what is common to every protocol (tasks, awaitables) and the exchange of one request.

use pyo3::{ffi, prelude::*};

use super::{awaitable::Waiter, http::HttpExchange, websocket::WebSocketExchange};

/// What an awaitable waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `receive()`: the next event from the client.
    Receive,
    /// `send()`: room for more.
    Send,
}

/// One request or WebSocket as tasks and awaitables see it. All methods are called on the loop's thread or fail.
pub(crate) trait Exchange {
    /// The result of the operation if it is known: an event, or `None` in Python's sense for `send`.
    fn poll<'py>(
        &self,
        py: Python<'py>,
        operation: Operation,
    ) -> PyResult<Option<Bound<'py, PyAny>>>;

    /// [`poll`](Self::poll) gave nothing: resolve `waiter` when it is worth asking again. `owner` is this exchange.
    fn park(
        &self,
        py: Python<'_>,
        owner: &Owner,
        operation: Operation,
        waiter: Waiter,
    ) -> PyResult<()>;

    /// `waiter` is no longer waited for.
    fn unpark(&self, py: Python<'_>, operation: Operation, waiter: &Waiter);

    /// The application goes on in `task`: keep it until the coroutine has ended. asyncio itself refers to a task weakly, so
    /// one that waits for something that only it can reach would be collected.
    fn keep_task(&self, task: Py<PyAny>);

    /// The application's coroutine has ended, by itself or by an exception: report it, and complete or cut what it left
    /// unfinished. Only the first call counts. `owner` is this exchange: another coroutine may go on for it.
    fn coroutine_ended(&self, py: Python<'_>, owner: &Owner, result: Ended<'_, '_>);
}

/// How a coroutine ended: with a value, by an exception, or by being destroyed while it waited (`None`).
pub(crate) type Ended<'a, 'py> = Result<Option<&'a Bound<'py, PyAny>>, &'a PyErr>;

/// The exchange that a task or an awaitable belongs to, as an owned Python object.
pub(crate) enum Owner {
    /// One HTTP request.
    Http(Py<HttpExchange>),
    /// One WebSocket.
    WebSocket(Py<WebSocketExchange>),
}

impl Owner {
    /// The exchange.
    pub(crate) fn exchange(&self) -> &dyn Exchange {
        match self {
            Self::Http(exchange) => exchange.get(),
            Self::WebSocket(exchange) => exchange.get(),
        }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Http(exchange) => Self::Http(exchange.clone_ref(py)),
            Self::WebSocket(exchange) => Self::WebSocket(exchange.clone_ref(py)),
        }
    }

    /// The Python object, for the cycle collector.
    pub(crate) fn as_ptr(&self) -> *mut ffi::PyObject {
        match self {
            Self::Http(exchange) => exchange.as_ptr(),
            Self::WebSocket(exchange) => exchange.as_ptr(),
        }
    }

    /// Drops the reference at once.
    pub(crate) fn release(self, py: Python<'_>) {
        match self {
            Self::Http(exchange) => drop(exchange.into_bound(py)),
            Self::WebSocket(exchange) => drop(exchange.into_bound(py)),
        }
    }
}
