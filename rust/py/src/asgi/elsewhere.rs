//! `send` called on another thread than the loop's.
//!
//! With a `send` that is an `async def` that is allowed: the call makes a coroutine, and only awaiting it does something.
//! Adapters of synchronous code rely on it: asgiref's `async_to_sync(send)` (consumers of Django channels, `WsgiToAsgi`)
//! and `asyncio.run_coroutine_threadsafe(send(message), loop)` call on their thread and await on the loop's. Ours works
//! when it is called, so away from home it gives them a coroutine that calls it again where it is awaited.

use pyo3::{intern, prelude::*};

/// A coroutine that calls `send` of `exchange` where it is awaited.
#[cold]
pub(super) fn send_later<'py>(
    exchange: &Bound<'py, PyAny>,
    message: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = exchange.py();
    let send = exchange.getattr(intern!(py, "send"))?;
    py.import(intern!(py, "framegate.elsewhere"))?
        .call_method1(intern!(py, "send_later"), (send, message))
}
