//! What `receive()` and `send()` return, and what a task waits for.
//!
//! Two types, because asyncio asks two different things of one object:
//!
//! - [`Awaitable`] is a *coroutine* to its user: `await` it, give it to `create_task`, `wait_for`, `gather` or an anyio task
//!   group. It does nothing until it is first stepped, and then asks its exchange ([`Exchange::poll`]): most of the time there
//!   is an answer, and no loop, task or future is touched.
//! - [`Waiter`] is the *future* that it yields when there is no answer. It looks enough like `asyncio.Future` for a `Task`
//!   (`_asyncio_future_blocking`, `get_loop`, `add_done_callback`, `cancel`, `result`), and nobody else sees it. Its callbacks
//!   are run at once, inside `select`, without a turn of the loop.
//!
//! ```text
//! fresh --poll: answer--------------------------------> finished
//!   |                                                      ^
//!   +--poll: nothing--> waiting (waiter parked) --resumed--+--> poll again, so: answer or a new waiter
//!                          |
//!                          +--throw / close / dropped--> finished (waiter taken back)
//! ```
//!
//! **No message is lost by cancellation**, because a waiter carries none: resolving it means "ask again", and the message
//! leaves the exchange only in the step that returns it to the awaiting coroutine.
#![expect(
    unsafe_code,
    reason = "slot functions of two types made with the C API"
)]

use std::{
    cell::{Cell, RefCell},
    ffi::{c_int, c_void},
    mem,
    ptr::null_mut,
};

use pyo3::{
    exceptions::{PyRuntimeError, PyStopIteration},
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyTuple, PyType},
};

use super::object::{self, Contents, Object, alone, contents, slot_of, thrown};
use super::owner::{Operation, Owner};
use crate::event_loop::LoopCore;

// --- Waiter

#[derive(Clone, Copy, PartialEq)]
enum State {
    Pending,
    Done,
    Cancelled,
}

struct WaiterContents {
    state: Cell<State>,
    /// `_asyncio_future_blocking`: set when it is yielded, cleared by the task that takes it.
    blocking: Cell<bool>,
    /// (callback, context); nearly always one, the wake-up of a task.
    callbacks: RefCell<Vec<(Py<PyAny>, Py<PyAny>)>>,
    event_loop: Cell<Option<Py<PyAny>>>,
    /// What `cancel` was given. It has to come out again in the `CancelledError`: anyio tells its own cancellations by it.
    message: RefCell<Option<Py<PyAny>>>,
}

impl Contents for WaiterContents {
    fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject)) {
        // Never borrowed while Python code runs, so never borrowed now.
        if let Ok(callbacks) = self.callbacks.try_borrow() {
            for (callback, context) in callbacks.iter() {
                visit(callback.as_ptr());
                visit(context.as_ptr());
            }
        }
        if let Some(event_loop) = object::peek(&self.event_loop) {
            visit(event_loop);
        }
        if let Ok(message) = self.message.try_borrow()
            && let Some(message) = &*message
        {
            visit(message.as_ptr());
        }
    }

    fn clear(&self, py: Python<'_>) {
        let callbacks = self.callbacks.take();
        release_callbacks(py, callbacks);
        object::release(py, self.event_loop.take());
        let message = self.message.take();
        object::release(py, message);
    }

    fn release(self, py: Python<'_>) {
        self.clear(py);
    }
}

impl WaiterContents {
    fn cancelled_error(&self, py: Python<'_>) -> PyResult<PyErr> {
        static CANCELLED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = CANCELLED.import(py, "asyncio", "CancelledError")?;
        let message = self
            .message
            .borrow()
            .as_ref()
            .map(|message| message.clone_ref(py));
        Ok(PyErr::from_value(match message {
            Some(message) => class.call1((message,))?,
            None => class.call0()?,
        }))
    }
}

fn release_callbacks(py: Python<'_>, callbacks: Vec<(Py<PyAny>, Py<PyAny>)>) {
    for (callback, context) in callbacks {
        object::release(py, Some(callback));
        object::release(py, Some(context));
    }
}

/// The future that a task waits for. Belongs to the loop on whose thread it was made.
pub(crate) struct Waiter(Py<PyAny>);

impl Waiter {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let event_loop = LoopCore::current()
            .and_then(|core| core.event_loop(py))
            .ok_or_else(|| PyRuntimeError::new_err("no framegate event loop is running here"))?;
        let contents = WaiterContents {
            state: Cell::new(State::Pending),
            blocking: Cell::new(true),
            callbacks: RefCell::default(),
            event_loop: Cell::new(Some(event_loop.unbind())),
            message: RefCell::default(),
        };
        Ok(Self(object::allocate(waiter_type(py)?, contents)?.unbind()))
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// Calls `look` with nobody else in there.
    fn alone<R>(&self, py: Python<'_>, look: impl FnOnce(&WaiterContents) -> R) -> R {
        alone(self.0.bind(py), || {
            // SAFETY: made by `new` and alive while `self` is.
            look(unsafe { contents(self.0.as_ptr()) })
        })
    }

    /// The Python object, for the cycle collector.
    pub(crate) fn object(&self) -> &Py<PyAny> {
        &self.0
    }

    pub(crate) fn is_pending(&self, py: Python<'_>) -> bool {
        self.alone(py, |this| this.state.get() == State::Pending)
    }

    /// True while it is pending: it is yielded once more.
    fn yield_again(&self, py: Python<'_>) -> bool {
        self.alone(py, |this| {
            let pending = this.state.get() == State::Pending;
            if pending {
                this.blocking.set(true);
            }
            pending
        })
    }

    /// True for two handles of one waiter.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }

    /// Drops the handle at once.
    pub(crate) fn release(self, py: Python<'_>) {
        drop(self.0.into_bound(py));
    }

    /// Tells whoever waits to ask again. **Runs Python at once**: the awaiting task's step. Only inside `select`, where no
    /// other Python code runs on this thread, and with no borrow held.
    pub(crate) fn resolve(self, py: Python<'_>, core: &LoopCore) {
        debug_assert!(core.in_select(), "direct wake-ups happen inside select");
        let callbacks = self.alone(py, |this| {
            (this.state.get() == State::Pending).then(|| {
                this.state.set(State::Done);
                this.callbacks.take()
            })
        });
        if let Some(callbacks) = callbacks {
            core.clear_current_task(py);
            for (callback, context) in callbacks {
                let (callback, context) = (callback.into_bound(py), context.into_bound(py));
                if let Err(error) =
                    in_context(&context, || callback.call1((self.0.bind(py),)).map(drop))
                {
                    // What a Handle would do: only exits come through a task's wake-up, anything else is a foreign callback.
                    if error.is_instance_of::<pyo3::exceptions::PyException>(py) {
                        core.report(py, "Exception in a callback of a waiter", error);
                    } else {
                        core.raise(error);
                    }
                }
            }
        }
        self.release(py);
    }

    /// Runs the callbacks by way of the loop (somebody's Python code runs just now).
    fn schedule_callbacks(this: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = this.py();
        // SAFETY: only called on instances of the waiter type.
        let contents: &WaiterContents = unsafe { contents(this.as_ptr()) };
        let callbacks = contents.callbacks.take();
        if callbacks.is_empty() {
            return Ok(());
        }
        let event_loop = loop_of(py, contents)?;
        let call_soon = event_loop.getattr(intern!(py, "call_soon"))?;
        for (callback, context) in callbacks {
            let keywords = PyDict::new(py);
            keywords.set_item(intern!(py, "context"), context.into_bound(py))?;
            call_soon.call((callback.into_bound(py), this), Some(&keywords))?;
        }
        Ok(())
    }
}

fn loop_of<'py>(py: Python<'py>, contents: &WaiterContents) -> PyResult<Bound<'py, PyAny>> {
    let event_loop = contents.event_loop.take();
    let bound = event_loop.as_ref().map(|held| held.bind(py).clone());
    contents.event_loop.set(event_loop);
    bound.ok_or_else(|| PyRuntimeError::new_err("this waiter was collected"))
}

/// Calls `body` with `context` entered.
pub(crate) fn in_context<R>(
    context: &Bound<'_, PyAny>,
    body: impl FnOnce() -> PyResult<R>,
) -> PyResult<R> {
    /// Is in a context that it leaves when `body` panics: the thread goes on, with other requests.
    struct Entered(*mut ffi::PyObject);
    impl Drop for Entered {
        fn drop(&mut self) {
            // SAFETY: the thread is attached and in this context, which `in_context` holds.
            if unsafe { ffi::PyContext_Exit(self.0) } < 0 {
                // SAFETY: attached; there is nobody to tell.
                unsafe { ffi::PyErr_Clear() };
            }
        }
    }
    let py = context.py();
    // SAFETY: PyContext_Enter and PyContext_Exit check that they are given a context, and are paired here.
    unsafe {
        if ffi::PyContext_Enter(context.as_ptr()) < 0 {
            return Err(PyErr::fetch(py));
        }
        let guard = Entered(context.as_ptr());
        let result = body();
        mem::forget(guard);
        if ffi::PyContext_Exit(context.as_ptr()) < 0 {
            let error = PyErr::fetch(py);
            return result.and(Err(error));
        }
        result
    }
}

unsafe extern "C" fn waiter_iter(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `this` is the live receiver of the call.
    unsafe { ffi::Py_NewRef(this) }
}

/// Stepped as an iterator: only by code that drives coroutines by hand. Yields itself until it is resolved.
unsafe extern "C" fn waiter_next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is a waiter.
        let contents: &WaiterContents = unsafe { contents(this) };
        match contents.state.get() {
            State::Pending => {
                contents.blocking.set(true);
                // SAFETY: the live receiver of the call.
                Ok(unsafe { ffi::Py_NewRef(this) })
            }
            // No exception set: the iterator is exhausted.
            State::Done => Ok(null_mut()),
            State::Cancelled => Err(contents.cancelled_error(py)?),
        }
    })
}

unsafe extern "C" fn waiter_get_blocking(
    this: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: the receiver is a waiter; the result is an owned bool.
    slot_of(this, null_mut(), |_| unsafe {
        let blocking = contents::<WaiterContents>(this).blocking.get();
        Ok(ffi::PyBool_FromLong(blocking.into()))
    })
}

unsafe extern "C" fn waiter_set_blocking(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _: *mut c_void,
) -> c_int {
    slot_of(this, -1, |py| {
        // SAFETY: the receiver is a waiter; `value` is a live object, or null for `del`.
        let (contents, value) = unsafe {
            (
                contents::<WaiterContents>(this),
                Bound::from_borrowed_ptr_or_opt(py, value),
            )
        };
        let blocking = value.map_or(Ok(false), |value| value.is_truthy())?;
        contents.blocking.set(blocking);
        Ok(0)
    })
}

unsafe extern "C" fn waiter_get_loop(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is a waiter.
        Ok(loop_of(py, unsafe { contents(this) })?.into_ptr())
    })
}

unsafe extern "C" fn waiter_get_loop_attribute(
    this: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: same receiver, same contract.
    unsafe { waiter_get_loop(this, null_mut()) }
}

unsafe extern "C" fn waiter_done(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the receiver is a waiter; the result is an owned bool.
    slot_of(this, null_mut(), |_| unsafe {
        let done = contents::<WaiterContents>(this).state.get() != State::Pending;
        Ok(ffi::PyBool_FromLong(done.into()))
    })
}

unsafe extern "C" fn waiter_cancelled(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the receiver is a waiter; the result is an owned bool.
    slot_of(this, null_mut(), |_| unsafe {
        let cancelled = contents::<WaiterContents>(this).state.get() == State::Cancelled;
        Ok(ffi::PyBool_FromLong(cancelled.into()))
    })
}

unsafe extern "C" fn waiter_result(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is a waiter.
        let contents: &WaiterContents = unsafe { contents(this) };
        match contents.state.get() {
            State::Pending => Err(PyRuntimeError::new_err("the result is not ready")),
            State::Done => Ok(py.None().into_ptr()),
            State::Cancelled => Err(contents.cancelled_error(py)?),
        }
    })
}

unsafe extern "C" fn waiter_add_done_callback(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        if count != 1 {
            return Err(pyo3::exceptions::PyTypeError::new_err(
                "add_done_callback() takes one callback",
            ));
        }
        // SAFETY: a fast call passes `count` positional arguments and then one per name in `keywords`, all alive.
        let (this, callback, context) = unsafe {
            let context = match Bound::from_borrowed_ptr_or_opt(py, keywords) {
                Some(names) if names.len()? == 1 => {
                    Some(Bound::from_borrowed_ptr(py, *arguments.add(1)))
                }
                _ => None,
            };
            (
                Bound::from_borrowed_ptr(py, this),
                Bound::from_borrowed_ptr(py, *arguments),
                context,
            )
        };
        let context = match context {
            Some(context) if !context.is_none() => context,
            // SAFETY: needs an attached thread only.
            _ => unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())? },
        };
        // SAFETY: the receiver is a waiter.
        let contents: &WaiterContents = unsafe { contents(this.as_ptr()) };
        let mut callbacks = contents.callbacks.borrow_mut();
        if callbacks.is_empty() {
            // A vector takes room for four.
            callbacks.reserve_exact(1);
        }
        callbacks.push((callback.unbind(), context.unbind()));
        drop(callbacks);
        if contents.state.get() != State::Pending {
            Waiter::schedule_callbacks(&this)?;
        }
        Ok(py.None().into_ptr())
    })
}

unsafe extern "C" fn waiter_remove_done_callback(
    this: *mut ffi::PyObject,
    callback: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is a waiter; the argument is alive.
        let (contents, callback) = unsafe {
            (
                contents::<WaiterContents>(this),
                Bound::from_borrowed_ptr(py, callback),
            )
        };
        // Comparing runs Python, which may do anything to the list, and may fail: nothing is borrowed, and nothing changes.
        let there: Vec<_> = contents
            .callbacks
            .borrow()
            .iter()
            .map(|(held, _)| held.clone_ref(py))
            .collect();
        let mut equal = Vec::new();
        for held in &there {
            if held.bind(py).eq(&callback)? {
                equal.push(held.as_ptr());
            }
        }
        let is_equal = |held: &Py<PyAny>| equal.contains(&held.as_ptr());
        let (removed, kept): (Vec<_>, Vec<_>) = contents
            .callbacks
            .take()
            .into_iter()
            .partition(|(held, _)| is_equal(held));
        contents.callbacks.replace(kept);
        Ok(removed.len().into_pyobject(py)?.into_ptr())
    })
}

unsafe extern "C" fn waiter_cancel(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is a waiter. A fast call passes `count` positional arguments and then one per name in
        // `keywords`; `cancel(msg=None)` has one of either.
        let (this, message) = unsafe {
            let names = Bound::from_borrowed_ptr_or_opt(py, keywords);
            let named = names.map_or(Ok(0), |names| names.len())?;
            let given = count > 0 || named > 0;
            (
                Bound::from_borrowed_ptr(py, this),
                given.then(|| Bound::from_borrowed_ptr(py, *arguments)),
            )
        };
        // SAFETY: as above.
        let contents: &WaiterContents = unsafe { contents(this.as_ptr()) };
        let pending = contents.state.get() == State::Pending;
        if pending {
            contents.state.set(State::Cancelled);
            contents.blocking.set(false);
            let message = message.filter(|message| !message.is_none());
            contents.message.replace(message.map(Bound::unbind));
            Waiter::schedule_callbacks(&this)?;
        }
        // SAFETY: gives an owned bool.
        Ok(unsafe { ffi::PyBool_FromLong(pending.into()) })
    })
}

fn waiter_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = TYPE.get_or_try_init(py, || {
        let slots = [
            (ffi::Py_tp_iter, waiter_iter as *mut c_void),
            (ffi::Py_am_await, waiter_iter as *mut c_void),
            (ffi::Py_tp_iternext, waiter_next as *mut c_void),
            object::methods(vec![
                object::method(c"get_loop", waiter_get_loop, ffi::METH_NOARGS),
                object::method(c"done", waiter_done, ffi::METH_NOARGS),
                object::method(c"cancelled", waiter_cancelled, ffi::METH_NOARGS),
                object::method(c"result", waiter_result, ffi::METH_NOARGS),
                object::method(c"exception", waiter_result, ffi::METH_NOARGS),
                object::method(
                    c"remove_done_callback",
                    waiter_remove_done_callback,
                    ffi::METH_O,
                ),
                object::method_keywords(c"add_done_callback", waiter_add_done_callback),
                object::method_keywords(c"cancel", waiter_cancel),
            ]),
            object::attributes(vec![
                object::attribute(
                    c"_asyncio_future_blocking",
                    waiter_get_blocking,
                    Some(waiter_set_blocking),
                ),
                object::attribute(c"_loop", waiter_get_loop_attribute, None),
            ]),
        ];
        object::new_type(
            py,
            c"framegate._http.Waiter",
            size_of::<Object<WaiterContents>>(),
            ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC,
            object::lifetime_slots::<WaiterContents>()
                .into_iter()
                .chain(slots),
            None,
        )
        .map(Bound::unbind)
    })?;
    Ok(class.bind(py))
}

// --- Awaitable

enum Step {
    Fresh,
    Waiting(Waiter),
    Finished,
}

struct AwaitableContents {
    /// Answers `None` at once, any number of times.
    is_ready: bool,
    step: RefCell<Step>,
    /// Whom to ask, and for what. `None` for the ready one and after `tp_clear`.
    question: RefCell<Option<(Owner, Operation)>>,
}

impl Contents for AwaitableContents {
    fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject)) {
        if let Ok(question) = self.question.try_borrow()
            && let Some((owner, _)) = &*question
        {
            visit(owner.as_ptr());
        }
        if let Ok(step) = self.step.try_borrow()
            && let Step::Waiting(waiter) = &*step
        {
            visit(waiter.0.as_ptr());
        }
    }

    fn clear(&self, py: Python<'_>) {
        self.give_up(py);
        let question = self.question.take();
        if let Some((owner, _)) = question {
            owner.release(py);
        }
    }

    fn release(self, py: Python<'_>) {
        self.clear(py);
    }
}

impl AwaitableContents {
    /// One step: the answer, or `None` with the waiter to yield.
    fn advance<'py>(&self, py: Python<'py>) -> PyResult<Result<Bound<'py, PyAny>, Waiter>> {
        if self.is_ready {
            return Ok(Ok(py.None().into_bound(py)));
        }
        let waiter = match &*self.step.borrow() {
            Step::Finished => {
                return Err(PyRuntimeError::new_err(
                    "cannot reuse already awaited coroutine",
                ));
            }
            Step::Waiting(waiter) => Some(waiter.clone_ref(py)),
            Step::Fresh => None,
        };
        if let Some(waiter) = waiter {
            // Stepped again before it was resolved: still waiting.
            if waiter.yield_again(py) {
                return Ok(Err(waiter));
            }
            waiter.release(py);
        }
        if let Step::Waiting(old) = self.step.replace(Step::Fresh) {
            old.release(py);
        }
        let question = self.question.borrow();
        let (owner, operation) = question
            .as_ref()
            .map(|(owner, operation)| (owner.clone_ref(py), *operation))
            .ok_or_else(|| PyRuntimeError::new_err("this awaitable was collected"))?;
        drop(question);
        let answer = owner.exchange().poll(py, operation);
        let result = match answer {
            Ok(Some(answer)) => {
                self.step.replace(Step::Finished);
                Ok(Ok(answer))
            }
            Ok(None) => Waiter::new(py).and_then(|waiter| {
                owner
                    .exchange()
                    .park(py, &owner, operation, waiter.clone_ref(py))?;
                self.step.replace(Step::Waiting(waiter.clone_ref(py)));
                Ok(Err(waiter))
            }),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.step.replace(Step::Finished);
        }
        owner.release(py);
        result
    }

    /// Nobody waits any more: take the waiter back from the exchange.
    fn give_up(&self, py: Python<'_>) {
        if let Step::Waiting(waiter) = self.step.replace(Step::Finished) {
            let question = self.question.borrow();
            let owner = question
                .as_ref()
                .map(|(owner, operation)| (owner.clone_ref(py), *operation));
            drop(question);
            if let Some((owner, operation)) = owner {
                owner.exchange().unpark(py, operation, &waiter);
                owner.release(py);
            }
            waiter.release(py);
        }
    }
}

/// An awaitable that asks `owner` when it is awaited.
pub(crate) fn awaitable(
    py: Python<'_>,
    owner: Owner,
    operation: Operation,
) -> PyResult<Bound<'_, PyAny>> {
    object::allocate(
        awaitable_type(py)?,
        AwaitableContents {
            is_ready: false,
            step: RefCell::new(Step::Fresh),
            question: RefCell::new(Some((owner, operation))),
        },
    )
}

/// An awaitable that gives `None` at once, as often as it is awaited.
pub(crate) fn ready_awaitable(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    object::allocate(
        awaitable_type(py)?,
        AwaitableContents {
            is_ready: true,
            step: RefCell::new(Step::Fresh),
            question: RefCell::new(None),
        },
    )
}

unsafe extern "C" fn awaitable_iter(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `this` is the live receiver of the call.
    unsafe { ffi::Py_NewRef(this) }
}

unsafe extern "C" fn awaitable_am_send(
    this: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: as below; None is always alive. What every `await send(...)` of a short response comes to.
    unsafe {
        if contents::<AwaitableContents>(this).is_ready {
            *result = ffi::Py_NewRef(ffi::Py_None());
            return ffi::PySendResult::PYGEN_RETURN;
        }
    }
    slot_of(this, ffi::PySendResult::PYGEN_ERROR, |py| {
        // SAFETY: the receiver is an awaitable; `result` is where the interpreter wants the answer.
        unsafe {
            *result = null_mut();
            match contents::<AwaitableContents>(this).advance(py)? {
                Ok(answer) => {
                    *result = answer.into_ptr();
                    Ok(ffi::PySendResult::PYGEN_RETURN)
                }
                Err(waiter) => {
                    *result = waiter.0.into_ptr();
                    Ok(ffi::PySendResult::PYGEN_NEXT)
                }
            }
        }
    })
}

unsafe extern "C" fn awaitable_next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is an awaitable.
        match unsafe { contents::<AwaitableContents>(this) }.advance(py)? {
            Err(waiter) => Ok(waiter.0.into_ptr()),
            // Exhausted without an exception means StopIteration(None).
            Ok(answer) if answer.is_none() => Ok(null_mut()),
            Ok(answer) => Err(stop_iteration(py, answer)?),
        }
    })
}

/// `StopIteration(value)`.
pub(crate) fn stop_iteration<'py>(py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<PyErr> {
    let arguments = PyTuple::new(py, [value])?;
    Ok(PyErr::from_value(
        py.get_type::<PyStopIteration>().call1(arguments)?,
    ))
}

unsafe extern "C" fn awaitable_send(
    this: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is an awaitable.
        match unsafe { contents::<AwaitableContents>(this) }.advance(py)? {
            Err(waiter) => Ok(waiter.0.into_ptr()),
            Ok(answer) => Err(stop_iteration(py, answer)?),
        }
    })
}

unsafe extern "C" fn awaitable_throw(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    _keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is an awaitable; a fast call passes `count` live arguments.
        unsafe {
            contents::<AwaitableContents>(this).give_up(py);
            Err(thrown(py, arguments, count)?)
        }
    })
}

unsafe extern "C" fn awaitable_close(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is an awaitable.
        unsafe { contents::<AwaitableContents>(this) }.give_up(py);
        Ok(py.None().into_ptr())
    })
}

fn awaitable_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = TYPE.get_or_try_init(py, || {
        let slots = [
            (ffi::Py_tp_iter, awaitable_iter as *mut c_void),
            (ffi::Py_am_await, awaitable_iter as *mut c_void),
            (ffi::Py_tp_iternext, awaitable_next as *mut c_void),
            (object::PY_AM_SEND, awaitable_am_send as *mut c_void),
            object::methods(vec![
                object::method(c"send", awaitable_send, ffi::METH_O),
                object::method_keywords(c"throw", awaitable_throw),
                object::method(c"close", awaitable_close, ffi::METH_NOARGS),
            ]),
        ];
        let class = object::new_type(
            py,
            c"framegate._http.Awaitable",
            size_of::<Object<AwaitableContents>>(),
            ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC,
            object::lifetime_slots::<AwaitableContents>()
                .into_iter()
                .chain(slots),
            None,
        )?;
        register_coroutine(&class)?;
        Ok::<_, PyErr>(class.unbind())
    })?;
    Ok(class.bind(py))
}

/// Registers a type as `collections.abc.Coroutine`, so that `create_task` and `iscoroutine` take its instances.
pub(crate) fn register_coroutine(class: &Bound<'_, PyType>) -> PyResult<()> {
    class
        .py()
        .import("collections.abc")?
        .getattr("Coroutine")?
        .call_method1("register", (class,))
        .map(mem::drop)
}
