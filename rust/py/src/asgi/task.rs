//! Starting the application's coroutine for one request: a task only when one is needed.
//!
//! An `asyncio.Task` costs more than everything else that a short request does, and most requests never need one: their
//! coroutine runs to its end without suspending, and nobody asks for the current task. So the task is *lazy*.
//!
//! # The lazy task
//! [`RequestTask`](task_type) is a subclass of asyncio's C `Task` whose `__init__` is put off. Its memory is made by the
//! type's allocator alone (zeroed: *blank*), and it is the current task of the loop while the coroutine runs its **first
//! segment**: from the call of the application to its end or its first suspension, at once, inside the `select` in which the
//! request arrived.
//!
//! ```text
//! blank --touched by anybody, or the coroutine suspends--> live: Task.__init__ has run
//!   |                                                         |
//!   +--the coroutine ends, nobody saw it--> pool              +--end of the segment: its first step is run--> asyncio's
//! ```
//!
//! - *Touched* means any use of an attribute, `repr` or `await`: the slots for those are overridden. Identity, hash, type
//!   and weak references are right from the start, so they need nothing.
//! - *Materialising* calls `Task.__init__` with a [`Runner`](runner_type) as the coroutine. `__init__` schedules the first
//!   step; that handle is taken back out of the loop's queue at once, to be run when the segment ends.
//! - At the end of the segment of a live task its first step runs. The runner does not step the coroutine then (that has
//!   happened); it hands over what the segment produced: the future that was yielded, the return, the exception.
//! - From then on it is an ordinary task, driven by asyncio's own C code. Nothing of `cancel`, `uncancel`, `_must_cancel` or
//!   `_fut_waiter` is imitated here, with one exception: a task that cancels *itself* in its first segment finds `throw`
//!   called at the first step, and the runner does what `Task` does with a cancellation that waits for a suspension.
//! - A task that was kept, untouched, beyond the end of its segment is materialised and finished then: no blank task
//!   outlives its request, and no other thread ever sees one in use (they would get a `RuntimeError`).
//!
//! Reuse needs proof that nobody saw the task: blank, one reference, no weak reference ([`RequestTask::unseen`]).
//!
//! # Where it is not used
//! The above relies on details of `CPython` 3.11 to 3.13 with the GIL: `_asyncio._current_tasks`, `loop._ready`, zeroed task
//! memory being inert, the order inside `Task.__init__`. On every other interpreter, when `asyncio.Task` was replaced, and when
//! the loop has a task factory, [`TaskMode::Plain`] makes an ordinary task with `loop.create_task`. The whole test suite runs
//! in both modes.
//!
//! # What an application can tell
//! - The first segment runs inside `select`, not in a turn of the loop.
//! - `all_tasks()` misses a request in its first segment, until the task is touched; only that segment itself could look.
//! - `asyncio.Task.cancel(task)`, unbound, on an untouched task goes by the overridden slots: it sets fields that `__init__`
//!   sets again. C code that reads the fields of a task does the same.
//! - Another thread that touches the untouched task of a running first segment gets a `RuntimeError`.
//!
//! # Invariants, and what must change together
//! - `Extension::segment` is set exactly while [`start_lazy`] is on the stack with that task.
//! - The task is entered in `_current_tasks` only while the coroutine's code runs. Afterwards the entry says `None` until the
//!   next request, the end of `select`, or a step of asyncio's, whichever is first: `Task` refuses to be entered where there
//!   is an entry ([`LoopCore::vacate`]).
//! - Everything that can run Python may come back here through the task: no borrow is held across it.
#![expect(
    unsafe_code,
    reason = "a subclass of asyncio.Task cannot be made with pyo3's classes"
)]

use std::{
    cell::{Cell, RefCell},
    ffi::{c_int, c_void},
    ptr::{null, null_mut},
    sync::Arc,
};

use framegate_http::trace::Span;
use pyo3::{
    exceptions::{PyException, PyRuntimeError, PyStopIteration, PyTypeError},
    ffi, intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyTuple, PyType},
};

use super::awaitable::{in_context, register_coroutine, stop_iteration};
use super::object::{self, Contents, Object, alone, contents, slot, slot_of, thrown};
use super::owner::{Ended, Owner};
use crate::event_loop::LoopCore;
use crate::home::HomeId;
use crate::tracing::Tracing;

/// How requests become tasks.
pub(crate) enum TaskMode {
    /// A task only when one is needed; `_current_tasks` of asyncio.
    Lazy { current_tasks: Py<PyDict> },
    /// `loop.create_task` for each.
    Plain,
}

impl TaskMode {
    /// The mode for this interpreter and `event_loop`.
    pub(crate) fn choose(
        py: Python<'_>,
        event_loop: &Bound<'_, PyAny>,
        plain: bool,
    ) -> PyResult<Self> {
        let version = py.version_info();
        let proven = (version.major, version.minor) >= (3, 11)
            && (version.major, version.minor) <= (3, 13)
            && has_lock(py)?;
        if plain || !proven || !event_loop.call_method0("get_task_factory")?.is_none() {
            return Ok(Self::Plain);
        }
        let native = py.import("_asyncio")?;
        if !py
            .import("asyncio")?
            .getattr("Task")?
            .is(&native.getattr("Task")?)
        {
            return Ok(Self::Plain);
        }
        let current_tasks = native.getattr("_current_tasks")?.cast_into::<PyDict>()?;
        // Made here once, so that a failure shows at start and not at the first request.
        task_type(py)?;
        Ok(Self::Lazy {
            current_tasks: current_tasks.unbind(),
        })
    }

    /// True for [`TaskMode::Lazy`].
    pub(crate) fn is_lazy(&self) -> bool {
        matches!(self, Self::Lazy { .. })
    }
}

/// True when the interpreter never runs without its global lock. One that was built to do so may have the lock for a while, as
/// long as some thread imports an extension module.
fn has_lock(py: Python<'_>) -> PyResult<bool> {
    let flags: String = py.import("sys")?.getattr("abiflags")?.extract()?;
    Ok(!flags.contains('t'))
}

/// What starting needs to know of the loop and the application.
pub(crate) struct Starter {
    /// The application.
    pub(crate) callable: Py<PyAny>,
    /// The context captured after startup; every request runs in a copy.
    pub(crate) context: Py<PyAny>,
    /// The asyncio loop.
    pub(crate) event_loop: Py<PyAny>,
    /// How requests become tasks.
    pub(crate) mode: TaskMode,
}

/// What is called for one request, and with what.
pub(crate) struct Arguments<'a, 'py> {
    pub(crate) call: Call<'a, 'py>,
    /// To be the current span of its context.
    pub(crate) span: Option<(&'a Tracing, &'a Arc<Span>)>,
}

/// What is called.
pub(crate) enum Call<'a, 'py> {
    /// The application: [`Starter::callable`].
    Application {
        scope: &'a Bound<'py, PyAny>,
        receive: &'a Bound<'py, PyAny>,
        send: &'a Bound<'py, PyAny>,
    },
    /// The handler of a native route.
    Handler {
        handler: &'a Bound<'py, PyAny>,
        positional: &'a Bound<'py, PyTuple>,
        named: Option<&'a Bound<'py, PyDict>>,
    },
}

/// How far the coroutine came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// It has ended.
    Ended,
    /// It goes on in a task.
    Suspended,
}

impl Starter {
    fn copy_context<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the context is a context: the result of `copy_context()`.
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(self.context.as_ptr())) }
    }

    fn call<'py>(
        &self,
        py: Python<'py>,
        arguments: &Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match arguments.call {
            Call::Application {
                scope,
                receive,
                send,
            } => self.callable.bind(py).call1((scope, receive, send)),
            Call::Handler {
                handler,
                positional,
                named,
            } => handler.call(positional, named),
        }
    }

    /// The same, to be called later.
    fn held_call(&self, py: Python<'_>, arguments: &Arguments<'_, '_>) -> PyResult<HeldCall> {
        Ok(match arguments.call {
            Call::Application {
                scope,
                receive,
                send,
            } => HeldCall {
                callable: self.callable.clone_ref(py),
                positional: (scope, receive, send).into_pyobject(py)?.unbind(),
                named: None,
            },
            Call::Handler {
                handler,
                positional,
                named,
            } => HeldCall {
                callable: handler.clone().unbind(),
                positional: positional.clone().unbind(),
                named: named.map(|named| named.clone().unbind()),
            },
        })
    }

    /// Calls the application for one request and runs its coroutine as far as it goes, or schedules that. `task` is a blank
    /// task when the mode is lazy. The owner is told when the coroutine has ended.
    ///
    /// Runs Python: only inside `select`, with no borrow held.
    pub(crate) fn start<'py>(
        &self,
        py: Python<'py>,
        core: &LoopCore,
        task: Option<&RequestTask>,
        owner: &Owner,
        arguments: &Arguments<'_, 'py>,
    ) -> PyResult<Started> {
        let context = self.copy_context(py)?;
        if let Some((tracing, span)) = arguments.span {
            in_context(&context, || {
                tracing.attach(py, span);
                Ok(())
            })?;
        }
        if let (TaskMode::Lazy { current_tasks }, Some(task)) = (&self.mode, task) {
            let current_tasks = current_tasks.bind(py);
            let started = in_context(&context, || {
                start_lazy(self, core, current_tasks, task, &context, owner, arguments)
            })?;
            if started == Started::Suspended {
                owner.exchange().keep_task(task.0.clone_ref(py));
            }
            return Ok(started);
        }
        let call = Held::Call(Box::new(self.held_call(py, arguments)?));
        self.schedule(py, owner, call, &context)?;
        Ok(Started::Suspended)
    }

    /// Makes an ordinary task for the call, which takes its first step a turn of the loop later.
    fn schedule(
        &self,
        py: Python<'_>,
        owner: &Owner,
        call: Held,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let runner = new_runner(py, None, owner.clone_ref(py), call)?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), context)?;
        let task = self.event_loop.bind(py).call_method(
            intern!(py, "create_task"),
            (runner,),
            Some(&keywords),
        )?;
        owner.exchange().keep_task(task.unbind());
        Ok(())
    }
}

impl Starter {
    /// Goes on with a request whose coroutine has ended: another one, in the same context, a turn of the loop later.
    pub(crate) fn go_on(
        &self,
        py: Python<'_>,
        owner: &Owner,
        callable: &Py<PyAny>,
        positional: Py<PyTuple>,
    ) -> PyResult<()> {
        // SAFETY: an owned reference to a copy of the thread's current context, or an error.
        let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())? };
        let call = Held::Call(Box::new(HeldCall {
            callable: callable.clone_ref(py),
            positional,
            named: None,
        }));
        self.schedule(py, owner, call, &context)
    }
}

impl TaskMode {
    /// The tasks of requests and `WebSockets` of `event_loop` that have not ended, each with the exchange it is for.
    ///
    /// Found among all tasks of the loop, so that running requests need not be entered anywhere: only the end of a worker
    /// asks.
    pub(crate) fn unfinished<'py>(
        &self,
        py: Python<'py>,
        event_loop: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<(Bound<'py, PyAny>, Owner)>> {
        // Our tasks show the application's coroutine in place of the runner.
        let real = match self {
            Self::Lazy { .. } => Some(task_class(py)?.base.bind(py)),
            Self::Plain => None,
        };
        let runner = runner_type(py)?;
        let all = py
            .import("asyncio")?
            .call_method1("all_tasks", (event_loop,))?;
        let mut found = Vec::new();
        for task in all.try_iter()? {
            let task = task?;
            let coroutine = match real {
                Some(real) if task.is_instance(real)? => real.call_method1("get_coro", (&task,)),
                _ => task.call_method0("get_coro"),
            };
            // A task of somebody else's making may have none.
            let Ok(coroutine) = coroutine else { continue };
            if !coroutine.get_type().is(runner) {
                continue;
            }
            let owner = alone(&coroutine, || {
                let owner = runner_contents(&coroutine).owner.borrow();
                owner.as_ref().map(|owner| owner.clone_ref(py))
            });
            if let Some(owner) = owner {
                found.push((task, owner));
            }
        }
        Ok(found)
    }
}

// --- stepping

/// The result of one step of a coroutine.
enum Step<'py> {
    /// With this value.
    Returned(Bound<'py, PyAny>),
    Yielded(Bound<'py, PyAny>),
    Raised(PyErr),
}

/// `coroutine.send(value)` without making a `StopIteration`.
fn step<'py>(coroutine: &Bound<'py, PyAny>, value: *mut ffi::PyObject) -> Step<'py> {
    let py = coroutine.py();
    let mut result = null_mut();
    // SAFETY: `coroutine` is an iterator (checked by `as_coroutine`) and `value` is alive. A result is an owned reference;
    // an error is pending.
    unsafe {
        match ffi::PyIter_Send(coroutine.as_ptr(), value, &raw mut result) {
            ffi::PySendResult::PYGEN_RETURN => Step::Returned(Bound::from_owned_ptr(py, result)),
            ffi::PySendResult::PYGEN_NEXT => Step::Yielded(Bound::from_owned_ptr(py, result)),
            ffi::PySendResult::PYGEN_ERROR => Step::Raised(PyErr::fetch(py)),
        }
    }
}

/// What `await` would iterate over.
fn as_coroutine(object: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let py = object.py();
    // SAFETY: plain looks at the type of a live object; the slot is called as `await` calls it.
    unsafe {
        if ffi::PyCoro_CheckExact(object.as_ptr()) != 0 {
            return Ok(object);
        }
        let slots = (*ffi::Py_TYPE(object.as_ptr())).tp_as_async;
        let Some(am_await) = (!slots.is_null()).then(|| (*slots).am_await).flatten() else {
            return Err(PyTypeError::new_err(format!(
                "the application returned {} and not an awaitable; ASGI applications are `async def app(scope, receive, send)`",
                object.get_type().name()?
            )));
        };
        let iterator = Bound::from_owned_ptr_or_err(py, am_await(object.as_ptr()))?;
        if ffi::PyIter_Check(iterator.as_ptr()) == 0 {
            return Err(PyTypeError::new_err("__await__() returned a non-iterator"));
        }
        Ok(iterator)
    }
}

// --- the lazy task

/// Behind the fields of asyncio's own `Task`. All zero: blank, and no segment.
#[repr(C)]
struct Extension {
    live: Cell<bool>,
    segment: Cell<*const Segment<'static>>,
}

/// The first segment of one request, on the stack of [`start_lazy`].
struct Segment<'a> {
    home: HomeId,
    core: &'a LoopCore,
    event_loop: &'a Py<PyAny>,
    context: *mut ffi::PyObject,
    owner: &'a Owner,
    /// Once the application was called.
    coroutine: RefCell<Option<Py<PyAny>>>,
    /// Once the task is live: the coroutine it was given, and its first step.
    live: RefCell<Option<(Py<PyAny>, Py<PyAny>)>>,
}

/// A task of [`task_type`]; owned by the pool or by a request.
pub(crate) struct RequestTask(Py<PyAny>);

struct TaskClass {
    class: Py<PyType>,
    base: Py<PyType>,
    /// Where [`Extension`] begins.
    offset: usize,
}

fn task_class(py: Python<'_>) -> PyResult<&'static TaskClass> {
    static CLASS: PyOnceLock<TaskClass> = PyOnceLock::new();
    CLASS.get_or_try_init(py, || task_type_new(py))
}

fn task_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    Ok(task_class(py)?.class.bind(py))
}

impl RequestTask {
    /// A blank task.
    pub(crate) fn blank(py: Python<'_>) -> PyResult<Self> {
        // SAFETY: the type is ready; its allocator gives zeroed memory, which is a blank task.
        unsafe {
            let object = ffi::PyType_GenericAlloc(task_type(py)?.as_type_ptr(), 0);
            Ok(Self(Bound::from_owned_ptr_or_err(py, object)?.unbind()))
        }
    }

    /// True when nobody can have seen it: blank, no other reference, no weak reference.
    pub(crate) fn unseen(&self, py: Python<'_>) -> bool {
        let task = self.0.bind(py);
        // SAFETY: a live object whose type has weak references (checked when the type was made). The list's head is
        // found by bytes here: pyo3's PyObject_GET_WEAKREFS_LISTPTR counts in objects (pyo3-ffi 0.28).
        unsafe {
            let weak_references = (*ffi::Py_TYPE(task.as_ptr())).tp_weaklistoffset;
            let list = task.as_ptr().byte_offset(weak_references);
            !extension(task).live.get()
                && ffi::Py_REFCNT(task.as_ptr()) == 1
                && (*list.cast::<*mut ffi::PyObject>()).is_null()
        }
    }

    /// Drops it at once.
    pub(crate) fn release(self, py: Python<'_>) {
        drop(self.0.into_bound(py));
    }
}

fn extension<'a>(task: &'a Bound<'_, PyAny>) -> &'a Extension {
    let offset = task_class(task.py())
        .expect("a task exists, so its type does")
        .offset;
    // SAFETY: `task` is an instance of `task_type`, which has an `Extension` at this offset, zeroed or written through cells.
    // The offset is a multiple of its alignment, as the address of every object is.
    unsafe { &*task.as_ptr().byte_add(offset).cast::<Extension>() }
}

/// Runs `Task.__init__` if it has not run yet.
fn materialise(task: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = task.py();
    let extension = extension(task);
    if extension.live.get() {
        return Ok(());
    }
    let segment = extension.segment.get();
    // SAFETY: a segment is set exactly while it is on the stack of the thread that set it (`start_lazy`); with the GIL held
    // that thread cannot leave it while another one looks. Only lazy mode makes such tasks, and only where there is a GIL.
    let segment = unsafe { segment.as_ref() }
        .filter(|segment| segment.home == HomeId::here())
        .ok_or_else(|| {
            PyRuntimeError::new_err("the task of a request was used outside of its event loop")
        })?;
    // From here on attribute access goes to asyncio's own fields; `__init__` itself uses some.
    extension.live.set(true);
    let coroutine = segment
        .coroutine
        .borrow()
        .as_ref()
        .map(|coroutine| coroutine.clone_ref(py));
    let runner = new_runner(py, coroutine, segment.owner.clone_ref(py), Held::Nothing)?;
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), segment.event_loop)?;
    // SAFETY: the context is alive for the whole segment.
    keywords.set_item(intern!(py, "context"), unsafe {
        Bound::from_borrowed_ptr(py, segment.context)
    })?;
    let arguments = (&runner,).into_pyobject(py)?;
    // SAFETY: `tp_init` of asyncio.Task on an instance of a subclass that was allocated and never initialised.
    let status = unsafe {
        let base = task_class(py)?.base.bind(py).as_type_ptr();
        let init = (*base).tp_init.expect("asyncio.Task has an __init__");
        init(task.as_ptr(), arguments.as_ptr(), keywords.as_ptr())
    };
    if status < 0 {
        extension.live.set(false);
        return Err(PyErr::fetch(py));
    }
    // The step that `__init__` has just scheduled, to be run at the end of the segment.
    let ready = segment.core.ready(py)?;
    let handle = ready.call_method0(intern!(py, "pop"))?;
    let first_step = handle.getattr(intern!(py, "_callback"))?;
    if !first_step.getattr(intern!(py, "__self__"))?.is(task) {
        ready.call_method1(intern!(py, "append"), (handle,))?;
        return Err(PyRuntimeError::new_err(
            "asyncio.Task did not schedule its first step last: call_soon of the event loop was replaced",
        ));
    }
    segment
        .live
        .replace(Some((runner.unbind(), first_step.unbind())));
    Ok(())
}

fn start_lazy<'py>(
    starter: &Starter,
    core: &LoopCore,
    current_tasks: &Bound<'py, PyDict>,
    task: &RequestTask,
    context: &Bound<'py, PyAny>,
    owner: &Owner,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Started> {
    let py = context.py();
    let task = task.0.bind(py);
    let event_loop = starter.event_loop.bind(py);
    let segment = Segment {
        home: HomeId::here(),
        core,
        event_loop: &starter.event_loop,
        context: context.as_ptr(),
        owner,
        coroutine: RefCell::new(None),
        live: RefCell::new(None),
    };
    let extension = extension(task);
    // The lifetime is forgotten here and kept by `_leave`, which clears the pointer before the segment goes.
    extension.segment.set((&raw const segment).cast());
    let _leave = SegmentGuard(&extension.segment);

    current_tasks.set_item(event_loop, task)?;
    let first = starter
        .call(py, arguments)
        .and_then(as_coroutine)
        .map_or_else(Step::Raised, |coroutine| {
            segment.coroutine.replace(Some(coroutine.clone().unbind()));
            // The application touched the task before it returned its coroutine.
            if let Some((runner, _)) = &*segment.live.borrow() {
                runner_contents(runner.bind(py))
                    .coroutine
                    .replace(Some(coroutine.clone().unbind()));
            }
            // SAFETY: None is always alive.
            step(&coroutine, unsafe { ffi::Py_None() })
        });
    if let Err(error) = core.vacate(current_tasks, event_loop) {
        core.report(py, "the current task of a request could not be left", error);
    }

    let (started, held) = match first {
        Step::Yielded(future) => {
            if let Err(error) = materialise(task) {
                abandon(py, core, &segment, owner, &error);
                return Ok(Started::Ended);
            }
            (Started::Suspended, Held::Yield(future.unbind()))
        }
        Step::Returned(value) => {
            owner
                .exchange()
                .coroutine_ended(py, owner, Ok(Some(&value)));
            (Started::Ended, Held::Return)
        }
        Step::Raised(error) => {
            owner.exchange().coroutine_ended(py, owner, Err(&error));
            if error.is_instance_of::<PyException>(py) {
                (Started::Ended, Held::Return)
            } else if extension.live.get() {
                (Started::Ended, Held::Raise(error))
            } else {
                if is_exit(py, &error) {
                    core.raise(error);
                }
                (Started::Ended, Held::Return)
            }
        }
    };
    // Kept by somebody, untouched: it becomes a finished task now, on its own thread. One reference is ours.
    let kept = ffi_refcount(task) > 1;
    if kept
        && !extension.live.get()
        && let Err(error) = materialise(task)
    {
        core.report(py, "the task of a request could not be made", error);
        return Ok(started);
    }
    let live = segment.live.take();
    if let Some((runner, first_step)) = live {
        let (runner, first_step) = (runner.into_bound(py), first_step.into_bound(py));
        let contents = runner_contents(&runner);
        if started == Started::Ended {
            // Told already.
            let owner = contents.owner.take();
            if let Some(owner) = owner {
                owner.release(py);
            }
        }
        contents.held.replace(held);
        core.clear_current_task(py);
        if let Err(error) = first_step.call0() {
            core.raise(error);
        }
    }
    let coroutine = segment.coroutine.take();
    object::release(py, coroutine);
    Ok(started)
}

fn ffi_refcount(object: &Bound<'_, PyAny>) -> ffi::Py_ssize_t {
    // SAFETY: a live object.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// `KeyboardInterrupt` and `SystemExit` end the loop; asyncio keeps every other exception in its task.
fn is_exit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py)
        || error.is_instance_of::<pyo3::exceptions::PySystemExit>(py)
}

/// The coroutine waits for something but cannot have a task: end it.
fn abandon(py: Python<'_>, core: &LoopCore, segment: &Segment<'_>, owner: &Owner, error: &PyErr) {
    let coroutine = segment.coroutine.take();
    if let Some(coroutine) = coroutine
        && let Err(error) = coroutine.bind(py).call_method0(intern!(py, "close"))
    {
        core.report(py, "a request's coroutine could not be closed", error);
    }
    owner.exchange().coroutine_ended(py, owner, Err(error));
}

/// Clears the pointer to a segment when the segment ends, also by a panic.
struct SegmentGuard<'a>(&'a Cell<*const Segment<'static>>);

impl Drop for SegmentGuard<'_> {
    fn drop(&mut self) {
        self.0.set(null());
    }
}

// --- slots of the task

unsafe extern "C" fn task_getattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot(null_mut(), |py| {
        // SAFETY: receiver and name are alive; the receiver is one of our tasks.
        unsafe {
            let task = Bound::from_borrowed_ptr(py, this);
            // `isinstance(task, Anything)` asks for the class: nothing of the task is needed to answer.
            if !extension(&task).live.get() && name != intern!(py, "__class__").as_ptr() {
                materialise(&task)?;
            }
            let value = ffi::PyObject_GenericGetAttr(this, name);
            Ok(Bound::from_owned_ptr_or_err(py, value)?.into_ptr())
        }
    })
}

unsafe extern "C" fn task_setattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int {
    slot(-1, |py| {
        // SAFETY: as above; `value` is null for `del`, which PyObject_GenericSetAttr expects.
        unsafe {
            materialise(&Bound::from_borrowed_ptr(py, this))?;
            if ffi::PyObject_GenericSetAttr(this, name, value) < 0 {
                return Err(PyErr::fetch(py));
            }
        }
        Ok(0)
    })
}

unsafe extern "C" fn task_repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slot(null_mut(), |py| {
        // SAFETY: the receiver is one of our tasks, and its base has this slot.
        unsafe {
            materialise(&Bound::from_borrowed_ptr(py, this))?;
            let base = task_class(py)?.base.bind(py).as_type_ptr();
            let repr = (*base).tp_repr.expect("asyncio.Task has a __repr__");
            Ok(Bound::from_owned_ptr_or_err(py, repr(this))?.into_ptr())
        }
    })
}

unsafe extern "C" fn task_iter(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slot(null_mut(), |py| {
        // SAFETY: the receiver is one of our tasks, and its base has this slot.
        unsafe {
            materialise(&Bound::from_borrowed_ptr(py, this))?;
            let base = task_class(py)?.base.bind(py).as_type_ptr();
            let iter = (*base).tp_iter.expect("asyncio.Task is iterable");
            Ok(Bound::from_owned_ptr_or_err(py, iter(this))?.into_ptr())
        }
    })
}

/// `get_coro()`: the application's coroutine, not the runner around it.
unsafe extern "C" fn task_get_coro(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot(null_mut(), |py| {
        // SAFETY: the receiver is one of our tasks.
        let task = unsafe { Bound::from_borrowed_ptr(py, this) };
        materialise(&task)?;
        let base = task_class(py)?.base.bind(py);
        let coroutine = base.call_method1(intern!(py, "get_coro"), (&task,))?;
        if coroutine.get_type().is(runner_type(py)?) {
            let inner = runner_contents(&coroutine)
                .coroutine
                .borrow()
                .as_ref()
                .map(|inner| inner.clone_ref(py));
            if let Some(inner) = inner {
                return Ok(inner.into_ptr());
            }
        }
        Ok(coroutine.into_ptr())
    })
}

unsafe extern "C" fn task_coro_attribute(
    this: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: same receiver, same contract.
    unsafe { task_get_coro(this, null_mut()) }
}

fn task_type_new(py: Python<'_>) -> PyResult<TaskClass> {
    let base = py
        .import("_asyncio")?
        .getattr("Task")?
        .cast_into::<PyType>()?;
    // SAFETY: a look at fields of a ready type.
    let (basic_size, weak_references) = unsafe {
        let base = base.as_type_ptr();
        ((*base).tp_basicsize, (*base).tp_weaklistoffset)
    };
    // From 3.12 on the list lies before the object, at a negative offset.
    if weak_references == 0 {
        return Err(PyRuntimeError::new_err(
            "this interpreter keeps the weak references of a task in an unknown place",
        ));
    }
    let offset = usize::try_from(basic_size)
        .expect("sizes are positive")
        .next_multiple_of(align_of::<Extension>());
    let slots = [
        (ffi::Py_tp_getattro, task_getattro as *mut c_void),
        (ffi::Py_tp_setattro, task_setattro as *mut c_void),
        (ffi::Py_tp_repr, task_repr as *mut c_void),
        (ffi::Py_tp_iter, task_iter as *mut c_void),
        (ffi::Py_am_await, task_iter as *mut c_void),
        object::methods(vec![object::method(
            c"get_coro",
            task_get_coro,
            ffi::METH_NOARGS,
        )]),
        object::attributes(vec![object::attribute(c"_coro", task_coro_attribute, None)]),
    ];
    // Destruction and cycle collection are inherited: the extension owns nothing.
    let class = object::new_type(
        py,
        c"framegate._http.RequestTask",
        offset + size_of::<Extension>(),
        ffi::Py_TPFLAGS_DEFAULT,
        slots,
        Some(&base),
    )?;
    Ok(TaskClass {
        class: class.unbind(),
        base: base.unbind(),
        offset,
    })
}

// --- the runner

/// What the runner hands to the task at its next step, instead of stepping the coroutine.
#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    /// The coroutine has yielded this.
    Yield(Py<PyAny>),
    /// The coroutine has returned.
    Return,
    /// The coroutine has raised this.
    Raise(PyErr),
    /// Throw this into the coroutine: a cancellation that was waiting for the coroutine to suspend.
    Throw(PyErr),
    /// Call the application first.
    Call(Box<HeldCall>),
}

/// What is called at the first step.
struct HeldCall {
    callable: Py<PyAny>,
    positional: Py<PyTuple>,
    named: Option<Py<PyDict>>,
}

impl HeldCall {
    fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject)) {
        visit(self.callable.as_ptr());
        visit(self.positional.as_ptr());
        if let Some(named) = &self.named {
            visit(named.as_ptr());
        }
    }

    fn release(self, py: Python<'_>) {
        object::release(py, Some(self.callable));
        object::release(py, Some(self.positional.into_any()));
        object::release(py, self.named.map(Py::into_any));
    }
}

struct RunnerContents {
    coroutine: RefCell<Option<Py<PyAny>>>,
    /// Who is told when the coroutine ends; `None` once told.
    owner: RefCell<Option<Owner>>,
    held: RefCell<Held>,
}

impl Contents for RunnerContents {
    fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject)) {
        if let Ok(coroutine) = self.coroutine.try_borrow()
            && let Some(coroutine) = &*coroutine
        {
            visit(coroutine.as_ptr());
        }
        if let Ok(owner) = self.owner.try_borrow()
            && let Some(owner) = &*owner
        {
            visit(owner.as_ptr());
        }
        if let Ok(held) = self.held.try_borrow() {
            match &*held {
                Held::Yield(object) => visit(object.as_ptr()),
                Held::Call(call) => call.visit(visit),
                _ => {}
            }
        }
    }

    fn clear(&self, py: Python<'_>) {
        let coroutine = self.coroutine.take();
        object::release(py, coroutine);
        let held = self.held.take();
        match held {
            Held::Yield(object) => object::release(py, Some(object)),
            Held::Call(call) => call.release(py),
            _ => {}
        }
        // A task that was destroyed while it waited: the client must not wait for ever.
        self.ended(py, Ok(None));
    }

    fn release(self, py: Python<'_>) {
        self.clear(py);
    }
}

impl RunnerContents {
    fn ended(&self, py: Python<'_>, result: Ended<'_, '_>) {
        let owner = self.owner.take();
        if let Some(owner) = owner {
            owner.exchange().coroutine_ended(py, &owner, result);
            owner.release(py);
        }
    }

    fn coroutine<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.coroutine
            .borrow()
            .as_ref()
            .map(|coroutine| coroutine.bind(py).clone())
            .ok_or_else(|| PyRuntimeError::new_err("the coroutine of this request was collected"))
    }

    /// One step of the task.
    fn advance<'py>(&self, py: Python<'py>, value: *mut ffi::PyObject) -> Step<'py> {
        let held = self.held.take();
        let result = match held {
            Held::Yield(object) => return Step::Yielded(object.into_bound(py)),
            Held::Return => return Step::Returned(py.None().into_bound(py)),
            Held::Raise(error) => return Step::Raised(error),
            Held::Throw(error) => self.throw_into(py, error),
            Held::Call(call) => {
                let named = call.named.map(|named| named.into_bound(py));
                let positional = call.positional.into_bound(py);
                call.callable
                    .into_bound(py)
                    .call(positional, named.as_ref())
                    .and_then(as_coroutine)
                    .map_or_else(Step::Raised, |coroutine| {
                        self.coroutine.replace(Some(coroutine.clone().unbind()));
                        step(&coroutine, value)
                    })
            }
            Held::Nothing => match self.coroutine(py) {
                Ok(coroutine) => step(&coroutine, value),
                Err(error) => Step::Raised(error),
            },
        };
        self.settle(py, result)
    }

    fn throw_into<'py>(&self, py: Python<'py>, error: PyErr) -> Step<'py> {
        let thrown = self.coroutine(py).and_then(|coroutine| {
            coroutine.call_method1(intern!(py, "throw"), (error.into_value(py),))
        });
        match thrown {
            Ok(yielded) => Step::Yielded(yielded),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                match error.value(py).getattr(intern!(py, "value")) {
                    Ok(value) => Step::Returned(value),
                    Err(error) => Step::Raised(error),
                }
            }
            Err(error) => Step::Raised(error),
        }
    }

    /// Tells the owner of an end. Ordinary exceptions have been reported then; exits and cancellation go on to the task.
    fn settle<'py>(&self, py: Python<'py>, result: Step<'py>) -> Step<'py> {
        match result {
            Step::Yielded(_) => result,
            Step::Returned(ref value) => {
                self.ended(py, Ok(Some(value)));
                result
            }
            Step::Raised(error) => {
                self.ended(py, Err(&error));
                if error.is_instance_of::<PyException>(py) {
                    Step::Returned(py.None().into_bound(py))
                } else {
                    Step::Raised(error)
                }
            }
        }
    }

    /// `throw`: from the task, in place of a step.
    fn throw<'py>(&self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let held = self.held.take();
        Ok(match held {
            // The task was cancelled in its first segment: do what Task does with a cancellation that waits for a suspension.
            Held::Yield(future) => {
                let future = future.into_bound(py);
                // A bare `yield`: the coroutine learns of it at its next step.
                let delivered = !future.is_none() && cancel(&future, &error)?;
                if !delivered {
                    self.held.replace(Held::Throw(error));
                }
                Step::Yielded(future)
            }
            Held::Return => Step::Raised(error),
            Held::Raise(raised) => Step::Raised(raised),
            // Not begun: like throwing into a coroutine that was never stepped.
            Held::Call(call) => {
                call.release(py);
                self.settle(py, Step::Raised(error))
            }
            Held::Throw(_) | Held::Nothing => {
                let result = self.throw_into(py, error);
                self.settle(py, result)
            }
        })
    }
}

/// `future.cancel()` with the message of the cancellation.
fn cancel(future: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<bool> {
    let py = future.py();
    let arguments = error.value(py).getattr(intern!(py, "args"))?;
    let keywords = PyDict::new(py);
    if arguments.len()? > 0 {
        keywords.set_item(intern!(py, "msg"), arguments.get_item(0)?)?;
    }
    future
        .call_method(intern!(py, "cancel"), (), Some(&keywords))?
        .is_truthy()
}

fn new_runner(
    py: Python<'_>,
    coroutine: Option<Py<PyAny>>,
    owner: Owner,
    held: Held,
) -> PyResult<Bound<'_, PyAny>> {
    object::allocate(
        runner_type(py)?,
        RunnerContents {
            coroutine: RefCell::new(coroutine),
            owner: RefCell::new(Some(owner)),
            held: RefCell::new(held),
        },
    )
}

fn runner_contents<'a>(runner: &'a Bound<'_, PyAny>) -> &'a RunnerContents {
    // SAFETY: only called on instances of the runner type; alive while the reference is.
    unsafe { contents(runner.as_ptr()) }
}

/// The result of a step as `send` and `throw` of a coroutine give it.
fn deliver<'py>(py: Python<'py>, result: Step<'py>) -> PyResult<*mut ffi::PyObject> {
    match result {
        Step::Yielded(object) => Ok(object.into_ptr()),
        Step::Raised(error) => Err(error),
        // The value is the exchange's, as it would be without a task; the task's result is None.
        Step::Returned(_) => Err(stop_iteration(py, py.None().into_bound(py))?),
    }
}

unsafe extern "C" fn runner_iter(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `this` is the live receiver of the call.
    unsafe { ffi::Py_NewRef(this) }
}

unsafe extern "C" fn runner_am_send(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    slot_of(this, ffi::PySendResult::PYGEN_ERROR, |py| {
        // SAFETY: the receiver is a runner; `result` is where the interpreter wants the answer.
        unsafe {
            *result = null_mut();
            match contents::<RunnerContents>(this).advance(py, value) {
                Step::Yielded(object) => {
                    *result = object.into_ptr();
                    Ok(ffi::PySendResult::PYGEN_NEXT)
                }
                Step::Returned(_) => {
                    *result = py.None().into_ptr();
                    Ok(ffi::PySendResult::PYGEN_RETURN)
                }
                Step::Raised(error) => Err(error),
            }
        }
    })
}

unsafe extern "C" fn runner_send(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is a runner.
        deliver(
            py,
            unsafe { contents::<RunnerContents>(this) }.advance(py, value),
        )
    })
}

unsafe extern "C" fn runner_next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: same receiver; None is always alive.
    unsafe { runner_send(this, ffi::Py_None()) }
}

unsafe extern "C" fn runner_throw(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    _keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is a runner; a fast call passes `count` live arguments.
        let (contents, error) = unsafe {
            (
                contents::<RunnerContents>(this),
                thrown(py, arguments, count)?,
            )
        };
        let result = contents.throw(py, error)?;
        deliver(py, result)
    })
}

unsafe extern "C" fn runner_close(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: the receiver is a runner.
        let coroutine = unsafe { contents::<RunnerContents>(this) }
            .coroutine
            .borrow()
            .as_ref()
            .map(|coroutine| coroutine.bind(py).clone());
        if let Some(coroutine) = coroutine {
            coroutine.call_method0(intern!(py, "close"))?;
        }
        Ok(py.None().into_ptr())
    })
}

/// `cr_frame`, `cr_running`, `__qualname__` and the like are the coroutine's.
unsafe extern "C" fn runner_getattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slot_of(this, null_mut(), |py| {
        // SAFETY: receiver and name are alive.
        let (own, name) = unsafe {
            (
                Bound::from_owned_ptr_or_err(py, ffi::PyObject_GenericGetAttr(this, name)),
                Bound::from_borrowed_ptr(py, name),
            )
        };
        let named = name.eq(intern!(py, "__name__"))? || name.eq(intern!(py, "__qualname__"))?;
        if own.is_ok() && !named {
            return own.map(Bound::into_ptr);
        }
        // SAFETY: the receiver is a runner.
        let coroutine = unsafe { contents::<RunnerContents>(this) }
            .coroutine
            .borrow()
            .as_ref()
            .map(|coroutine| coroutine.bind(py).clone());
        match coroutine {
            Some(coroutine) => coroutine
                .getattr(name.cast_into::<pyo3::types::PyString>()?)
                .map(Bound::into_ptr),
            None => own.map(Bound::into_ptr),
        }
    })
}

fn runner_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = TYPE.get_or_try_init(py, || {
        let slots = [
            (ffi::Py_tp_iter, runner_iter as *mut c_void),
            (ffi::Py_am_await, runner_iter as *mut c_void),
            (ffi::Py_tp_iternext, runner_next as *mut c_void),
            (object::PY_AM_SEND, runner_am_send as *mut c_void),
            (ffi::Py_tp_getattro, runner_getattro as *mut c_void),
            object::methods(vec![
                object::method(c"send", runner_send, ffi::METH_O),
                object::method_keywords(c"throw", runner_throw),
                object::method(c"close", runner_close, ffi::METH_NOARGS),
            ]),
        ];
        let class = object::new_type(
            py,
            c"framegate._http.RequestCoroutine",
            size_of::<Object<RunnerContents>>(),
            ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC,
            object::lifetime_slots::<RunnerContents>()
                .into_iter()
                .chain(slots),
            None,
        )?;
        register_coroutine(&class)?;
        Ok::<_, PyErr>(class.unbind())
    })?;
    Ok(class.bind(py))
}
