//! The state of one running loop, as Rust code on its thread sees it.
//!
//! Everything here is thread-bound (`Rc`, `Cell`): one asyncio loop, one tokio runtime, one thread. Two phases take
//! turns on that thread, and most rules follow from which one it is:
//!
//! - **inside `select`**: tokio polls tasks. Rust may call into Python (the first step of a coroutine, a callback); when it
//!   has, it calls [`LoopCore::after_python`], which ends the `select` if Python now has something to do: the timeout of
//!   `select` was computed before that. A task may be woken directly.
//! - **outside**: asyncio runs its callbacks. Waking a task from there would write to an eventfd each time, so
//!   [`LoopCore::wake`] collects the wakers and the next `select` fires them first.
//!
//! An exception that has no other way out (`KeyboardInterrupt`, `SystemExit`) is stored by [`LoopCore::raise`] and raised
//! from `select`.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    ptr,
    rc::{Rc, Weak},
    task::Waker,
};

use pyo3::{
    intern,
    prelude::*,
    types::{PyDict, PyList, PyWeakrefReference},
};
use tokio::{
    runtime::{EnterGuard, Handle},
    task::JoinHandle,
};

use crate::gil::Fairness;

thread_local! {
    /// The loop whose turn it is, for comparisons only. No destructor: usable while the thread ends.
    static CURRENT: Cell<*const LoopCore> = const { Cell::new(ptr::null()) };
    static CURRENT_CORE: RefCell<Weak<LoopCore>> = const { RefCell::new(Weak::new()) };
}

/// In a forked child: no loop is current.
pub(crate) fn forget_current() {
    CURRENT.set(ptr::null());
}

/// State of one running selector.
pub(crate) struct LoopCore {
    runtime: Handle,
    /// Weak: the loop owns its selector, and so this.
    event_loop: RefCell<Option<Py<PyWeakrefReference>>>,
    /// What the loop had to do when `select` was entered; `None` outside and for a selector without a loop.
    turn: RefCell<Option<Turn>>,
    dirty: RefCell<Vec<Waker>>,
    in_select: Cell<bool>,
    leave: Cell<bool>,
    /// Wakes the future that `select` runs.
    waiter: RefCell<Option<Waker>>,
    error: RefCell<Option<PyErr>>,
    fairness: Fairness,
    /// asyncio's table of current tasks, while it says that this loop has none; see [`Self::vacate`].
    vacant: RefCell<Option<Py<PyDict>>>,
    before_sleep: RefCell<Vec<Weak<dyn BeforeSleep>>>,
}

/// Something that collects work on the loop's thread and passes it on when the loop is about to sleep.
pub(crate) trait BeforeSleep {
    /// Called at the end of each `select` and before the thread sleeps. Must be quick, and leave Python alone.
    fn before_sleep(&self);
}

struct Turn {
    event_loop: Py<PyAny>,
    ready: Py<PyAny>,
    scheduled: Py<PyList>,
    scheduled_count: usize,
}

impl LoopCore {
    /// The state of a loop that `runtime`, a `LocalRuntime` of this thread, drives.
    pub(crate) fn new(runtime: Handle) -> Rc<Self> {
        Rc::new(Self {
            runtime,
            event_loop: RefCell::default(),
            turn: RefCell::default(),
            dirty: RefCell::default(),
            in_select: Cell::new(false),
            leave: Cell::new(false),
            waiter: RefCell::default(),
            error: RefCell::default(),
            fairness: Fairness::default(),
            vacant: RefCell::default(),
            before_sleep: RefCell::default(),
        })
    }

    // --- for everything that runs on the loop ---

    /// The loop that runs on this thread: set by its `select`, until another loop selects here or it is closed.
    pub(crate) fn current() -> Option<Rc<Self>> {
        if CURRENT.get().is_null() {
            return None;
        }
        CURRENT_CORE.with_borrow(Weak::upgrade)
    }

    /// Call `f` with the loop that runs on this thread.
    pub(crate) fn with_current<R>(f: impl FnOnce(&Self) -> R) -> Option<R> {
        Self::current().map(|core| f(&core))
    }

    /// True if this is the loop that runs on this thread. One comparison.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        ptr::eq(CURRENT.get(), self)
    }

    /// True between the start and the end of a `select`.
    #[inline]
    pub(crate) fn in_select(&self) -> bool {
        self.in_select.get()
    }

    /// Wake a task: at once inside `select`, else at the start of the next one.
    #[inline]
    pub(crate) fn wake(&self, waker: Waker) {
        if self.in_select.get() {
            waker.wake();
        } else {
            self.dirty.borrow_mut().push(waker);
        }
    }

    /// Python code ran: leave `select` if it left something for asyncio to do. Cheap and harmless outside of `select`.
    pub(crate) fn after_python(&self, py: Python<'_>) {
        if !self.in_select.get() || self.leave.get() {
            return;
        }
        let due = match &*self.turn.borrow() {
            // Who calls `select` without a loop expects it to return.
            None => true,
            // An error of `len` would be an asyncio that we do not know: leaving is always right, only slower.
            Some(turn) => {
                turn.scheduled.bind(py).len() != turn.scheduled_count
                    || turn.ready.bind(py).len().map_or(true, |count| count > 0)
            }
        };
        if due {
            self.leave_select();
        }
    }

    /// Make `select` return, or the next one if none runs.
    pub(crate) fn leave_select(&self) {
        self.leave.set(true);
        if let Some(waiter) = &*self.waiter.borrow() {
            waiter.wake_by_ref();
        }
    }

    /// Raise `error` from `select`. For exceptions that must end the loop (`BaseException` outside of `Exception`); the
    /// first one wins.
    pub(crate) fn raise(&self, error: PyErr) {
        self.error.borrow_mut().get_or_insert(error);
        self.leave_select();
    }

    /// Run a future on the loop's thread until it ends or the loop is closed. When Rust work alone keeps the loop busy,
    /// other Python threads get their turn between two polls.
    pub(crate) fn spawn(
        self: &Rc<Self>,
        future: impl Future<Output = ()> + 'static,
    ) -> JoinHandle<()> {
        let core = Rc::clone(self);
        let fair = async move {
            let mut future = pin!(future);
            poll_fn(|cx| {
                let result = future.as_mut().poll(cx);
                core.offer_lock();
                result
            })
            .await;
        };
        let _context = self.enter();
        tokio::task::spawn_local(fair)
    }

    /// Tokio's context, for making sockets and timers outside of `select`.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// The asyncio loop; `None` if it is gone or if `select` was called by hand.
    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if let Some(turn) = &*self.turn.borrow() {
            return Some(turn.event_loop.bind(py).clone());
        }
        self.event_loop.borrow().as_ref()?.bind(py).upgrade()
    }

    /// The loop's queue of callbacks that are ready to run (a `collections.deque`).
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(turn) = &*self.turn.borrow() {
            return Ok(turn.ready.bind(py).clone());
        }
        let event_loop = self.event_loop(py);
        event_loop
            .unwrap_or_else(|| py.None().into_bound(py))
            .getattr(intern!(py, "_ready"))
    }

    /// The task that `current_tasks` has for this loop is no longer the current one. Its entry becomes `None`, which is what
    /// everybody reads who asks for the current task: taking it out and putting the next one in costs three times as much.
    /// asyncio's own steps want no entry at all, so [`Self::clear_current_task`] takes it out before one can run.
    pub(crate) fn vacate(
        &self,
        current_tasks: &Bound<'_, PyDict>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = current_tasks.py();
        current_tasks.set_item(event_loop, py.None().bind(py))?;
        let mut vacant = self.vacant.borrow_mut();
        if vacant.is_none() {
            *vacant = Some(current_tasks.clone().unbind());
        }
        Ok(())
    }

    /// Takes the entry out that [`Self::vacate`] left. Call before a step of an asyncio task.
    pub(crate) fn clear_current_task(&self, py: Python<'_>) {
        let vacant = self.vacant.take();
        if let Some(current_tasks) = vacant
            && let Some(event_loop) = self.event_loop(py)
            && let Err(error) = current_tasks.bind(py).del_item(&event_loop)
        {
            // Somebody else took it out: harmless here, a riddle for them.
            self.report(py, "the current task of a request was removed", error);
        }
    }

    /// Tell the loop's exception handler about an error that nobody awaits.
    pub(crate) fn report(&self, py: Python<'_>, message: &str, exception: PyErr) {
        let Some(event_loop) = self.event_loop(py) else {
            exception.write_unraisable(py, None);
            return;
        };
        let context = PyDict::new(py);
        let told = context
            .set_item(intern!(py, "message"), message)
            // `into_value` and not `value`: on 3.11 only that gives the exception its traceback.
            .and_then(|()| context.set_item(intern!(py, "exception"), exception.into_value(py)))
            .and_then(|()| {
                event_loop.call_method1(intern!(py, "call_exception_handler"), (context,))
            });
        if let Err(error) = told {
            // Only SystemExit and KeyboardInterrupt come out of call_exception_handler.
            self.raise(error);
        }
    }

    /// Write a line to a logger of Python. When that fails the loop's exception handler is told `failure`.
    pub(crate) fn log(&self, py: Python<'_>, logger: &str, level: &str, text: &str, failure: &str) {
        let logged = py
            .import(intern!(py, "logging"))
            .and_then(|logging| logging.call_method1("getLogger", (logger,)))
            .and_then(|logger| logger.call_method1(level, ("%s", text)));
        if let Err(error) = logged {
            self.report(py, failure, error);
        }
    }

    /// A warning of the logger `framegate`, from a task of the loop: no Python runs while a connection is polled.
    pub(crate) fn warn_soon(self: &Rc<Self>, text: String, failure: &'static str) {
        let core = Rc::clone(self);
        self.spawn(async move {
            Python::attach(|py| {
                core.log(py, "framegate", "warning", &text, failure);
                core.after_python(py);
            });
        });
    }

    /// The loop was busy with Rust work: let other Python threads in when it is their turn. Call where no borrow is held.
    #[inline]
    pub(crate) fn offer_lock(&self) {
        self.fairness.offer();
    }

    /// Call `hook` from now on, as long as somebody else owns it.
    pub(crate) fn before_sleep(&self, hook: &Rc<dyn BeforeSleep>) {
        let mut hooks = self.before_sleep.borrow_mut();
        hooks.retain(|hook| hook.strong_count() > 0);
        hooks.push(Rc::downgrade(hook));
    }

    // --- for the selector ---

    /// The thread is about to sleep or to leave `select`.
    pub(crate) fn run_before_sleep(&self) {
        for hook in &*self.before_sleep.borrow() {
            if let Some(hook) = hook.upgrade() {
                hook.before_sleep();
            }
        }
    }

    /// This loop's turn on this thread begins: `event_loop` is what asyncio says runs here.
    pub(crate) fn enter_select(
        self: &Rc<Self>,
        py: Python<'_>,
        event_loop: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<InSelect<'_>> {
        if !self.is_current() {
            CURRENT.set(Rc::as_ptr(self));
            CURRENT_CORE.set(Rc::downgrade(self));
        }
        let turn = match event_loop {
            None => None,
            Some(event_loop) => {
                let scheduled = event_loop
                    .getattr(intern!(py, "_scheduled"))?
                    .cast_into::<PyList>()?;
                if self.event_loop.borrow().is_none() {
                    let reference = PyWeakrefReference::new(event_loop)?;
                    self.event_loop.replace(Some(reference.unbind()));
                }
                Some(Turn {
                    event_loop: event_loop.clone().unbind(),
                    ready: event_loop.getattr(intern!(py, "_ready"))?.unbind(),
                    scheduled_count: scheduled.len(),
                    scheduled: scheduled.unbind(),
                })
            }
        };
        drop(self.turn.replace(turn));
        self.fairness.reset();
        self.in_select.set(true);
        Ok(InSelect(self))
    }

    /// Fire the wakers collected outside of `select`. Runs inside tokio's context, where waking is a queue push.
    pub(crate) fn fire_dirty(&self) {
        if self.dirty.borrow().is_empty() {
            return;
        }
        let wakers = self.dirty.take();
        for waker in wakers {
            waker.wake();
        }
    }

    /// True once after [`leave_select`](Self::leave_select); else `waker` will hear of it.
    pub(crate) fn poll_leave(&self, waker: &Waker) -> bool {
        if self.leave.take() {
            return true;
        }
        let mut waiter = self.waiter.borrow_mut();
        if waiter.as_ref().is_none_or(|old| !old.will_wake(waker)) {
            *waiter = Some(waker.clone());
        }
        false
    }
}

/// Between the start and the end of a `select`.
pub(crate) struct InSelect<'a>(&'a LoopCore);

impl InSelect<'_> {
    /// Leave; gives the exception that `select` has to raise.
    pub(crate) fn leave(self) -> Option<PyErr> {
        self.0.error.take()
    }
}

impl Drop for InSelect<'_> {
    fn drop(&mut self) {
        self.0.run_before_sleep();
        if self.0.vacant.borrow().is_some() {
            Python::attach(|py| self.0.clear_current_task(py));
        }
        self.0.in_select.set(false);
        // Whatever asked to leave has its way now.
        self.0.leave.set(false);
        drop(self.0.turn.take());
    }
}

impl Drop for LoopCore {
    fn drop(&mut self) {
        if self.is_current() {
            CURRENT.set(ptr::null());
        }
    }
}
