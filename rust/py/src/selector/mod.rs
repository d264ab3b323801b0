//! tokio as the selector of an asyncio loop.
//!
//! [`Selector`] follows the protocol of `selectors.BaseSelector`. Its `select` runs a tokio runtime on the calling
//! thread until asyncio has something to do: a file descriptor of Python's is ready, the timeout has passed, Rust code
//! called Python and left something behind, or a signal came. Everything that Rust serves (connections, timers) are
//! tasks of that runtime, so one thread, one sleep and one wake-up serve both worlds.
//!
//! **Python's descriptors** live in an epoll instance of their own, level-triggered as asyncio expects. That instance is
//! itself a descriptor, registered with tokio, which is edge-triggered: it tells us once. Level-triggered descriptors
//! that stay ready cause no new edge, so the instance is asked again at the next `select` whenever it had something to
//! report (`more`), and `select` does not sleep until it has nothing. On macOS the instance is a kqueue, and on Windows a list of
//! sockets and a thread (`wsapoll.rs`): `epoll.rs`, `kqueue.rs` and `wsapoll.rs` have the same functions, and what is said of epoll here
//! holds for all.
//!
//! **Runtime and thread.** A loop may be made on one thread and run on another, so the runtime is made by the first
//! `select`, on its thread, and is dropped when the loop stops running with nothing left to serve ([`Selector::rest`]).
//! While it serves something, only its own thread may select.
//!
//! **Fork.** A child shares the epoll instances with its parent, and removing a descriptor from one removes it for both.
//! So in a child this object refuses to work, and closing it there leaves the kernel's side alone.

#![expect(
    unsafe_code,
    reason = "epoll and descriptors watched by tokio have no safe interface here"
)]

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyKeyError, PyRuntimeError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyInt, PyList, PyTuple},
};
use tokio::{
    runtime::{Builder, Handle, LocalOptions, LocalRuntime},
    task::yield_now,
    time::{Instant, Sleep, sleep},
};

use crate::{
    error::os_error,
    event_loop::LoopCore,
    gil,
    home::{self, Home, LoopBound},
    os::{Number, SignalFd, Watched},
    signals,
};

#[cfg(target_os = "linux")]
#[path = "epoll.rs"]
mod queue;
#[cfg(target_os = "macos")]
#[path = "kqueue.rs"]
mod queue;
#[cfg(windows)]
#[path = "wsapoll.rs"]
mod queue;

use queue::Queue;

/// `selectors.EVENT_READ` and `selectors.EVENT_WRITE`.
const READ: u32 = 1;
const WRITE: u32 = 2;

/// Sleeps longer than a day are cut, as asyncio does: it asks again.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// A `selectors.BaseSelector` that runs the tokio runtime of its loop while it waits.
#[pyclass(frozen, module = "framegate._http")]
pub(crate) struct Selector {
    /// Descriptor -> `selectors.SelectorKey`. A Python dictionary so that the garbage collector sees through it: its
    /// values refer to the loop, which refers to this object.
    keys: Py<PyDict>,
    key_type: Py<PyAny>,
    state: Mutex<State>,
    /// [`home::forks`] at creation.
    forks: u32,
}

enum State {
    Open {
        epoll: Arc<Queue>,
        running: Option<Running>,
    },
    Closed,
}

/// The runtime and the thread that it is bound to.
#[derive(Clone)]
struct Running {
    /// Asked from other threads whether anything is served.
    handle: Handle,
    driver: Arc<LoopBound<Driver>>,
}

impl Running {
    fn serves(&self) -> bool {
        self.handle.metrics().num_alive_tasks() > 0
    }
}

/// What `select` works with, on the thread of the loop. Fields are dropped in this order.
struct Driver {
    python_fds: queue::Watch,
    /// Set on the main thread.
    signals: RefCell<Option<Watched<SignalFd>>>,
    /// The timer that ends a `select`. It is kept over many: arming a timer of tokio's that is earlier than all others
    /// costs a system call, and the next timeout is mostly the same moment as the last one or a later one.
    alarm: RefCell<Pin<Box<Sleep>>>,
    runtime: Runtime,
    core: Rc<LoopCore>,
    home: Arc<Home>,
    main_thread: bool,
    /// `python_fds` had something to report when last asked, or may have.
    more: Cell<bool>,
    events: RefCell<queue::Events>,
}

/// A runtime that waits for nobody when it is dropped: its tasks go at once, attached to the interpreter because they
/// own Python objects, and threads of its blocking pool, which may themselves wait for the interpreter, are not joined.
struct Runtime(Option<LocalRuntime>);

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[pymethods]
impl Selector {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        home::watch_forks();
        let epoll = queue::open().map_err(os_error)?;
        Ok(Self {
            keys: PyDict::new(py).unbind(),
            key_type: py.import("selectors")?.getattr("SelectorKey")?.unbind(),
            state: Mutex::new(State::Open {
                epoll: Arc::new(epoll),
                running: None,
            }),
            forks: home::forks(),
        })
    }

    /// Watch a file object or descriptor.
    #[pyo3(signature = (fileobj, events, data=None))]
    fn register<'py>(
        &self,
        py: Python<'py>,
        fileobj: &Bound<'py, PyAny>,
        events: u32,
        data: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_events(events)?;
        let fd = self.lookup(fileobj)?;
        let keys = self.keys.bind(py);
        if keys.contains(fd)? {
            let text = format!("{} (FD {fd}) is already registered", fileobj.repr()?);
            return Err(PyKeyError::new_err(text));
        }
        let key = self.key_type.bind(py).call1((fileobj, fd, events, data))?;
        queue::add(&*self.epoll()?, fd, events).map_err(os_error)?;
        keys.set_item(fd, &key)?;
        Ok(key)
    }

    /// Stop watching; works for descriptors that were closed meanwhile.
    fn unregister<'py>(
        &self,
        py: Python<'py>,
        fileobj: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (fd, key) = self.find(fileobj)?;
        self.keys.bind(py).del_item(fd)?;
        if self.forks == home::forks()
            && let Ok(epoll) = self.epoll()
        {
            queue::remove(&epoll, fd, events_of(&key)?);
        }
        Ok(key)
    }

    /// Change the events or the data of a registration.
    #[pyo3(signature = (fileobj, events, data=None))]
    fn modify<'py>(
        &self,
        py: Python<'py>,
        fileobj: &Bound<'py, PyAny>,
        events: u32,
        data: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        check_events(events)?;
        let (fd, old) = self.find(fileobj)?;
        let keys = self.keys.bind(py);
        let key = self.key_type.bind(py).call1((fileobj, fd, events, data))?;
        let before = events_of(&old)?;
        if before != events
            && let Err(error) = self.modified(fd, before, events)
        {
            // As the standard library: what cannot be watched is not registered.
            keys.del_item(fd)?;
            return Err(error);
        }
        keys.set_item(fd, &key)?;
        Ok(key)
    }

    /// Wait until something happens that asyncio has to handle.
    #[pyo3(signature = (timeout=None))]
    fn select<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        if LoopCore::with_current(LoopCore::in_select) == Some(true) {
            return Err(PyRuntimeError::new_err(
                "select() was called from inside a select() of the same thread",
            ));
        }
        let this = slf.get();
        let driver = this.driver(py)?;
        let driver = driver.get_or_raise()?;
        if driver.main_thread && (driver.signals.borrow().is_none() || signals::wanted()) {
            driver.watch_signals(py)?;
        }
        let event_loop = running_loop(slf)?;
        let in_select = driver.core.enter_select(py, event_loop.as_ref())?;
        let turn = driver.turn(timeout);
        let error = in_select.leave();
        turn.map_err(os_error)?;
        if let Some(error) = error {
            return Err(error);
        }
        let ready = driver.collect(this.keys.bind(py))?;
        // Handlers of signals that came meanwhile run here, as they would in epoll_wait.
        py.check_signals()?;
        Ok(ready)
    }

    /// Make a `select` that runs on this thread return.
    fn interrupt(&self) {
        if let Some(running) = self.running()
            && let Some(driver) = running.driver.get()
        {
            driver.core.leave_select();
        }
    }

    /// The loop stops running: give back what it needs only meanwhile. Keeps the runtime if it still serves something.
    fn rest(&self, py: Python<'_>) -> PyResult<()> {
        let Some(running) = self.running() else {
            return Ok(());
        };
        let Some(driver) = running.driver.get() else {
            return Ok(());
        };
        driver.home.empty(None);
        if driver.signals.take().is_some() {
            signals::release(py)?;
        }
        if !running.serves()
            && let State::Open { running, .. } = &mut *self.state()
        {
            // Dropped below, unlocked: this is the other owner.
            *running = None;
        }
        drop(running);
        Ok(())
    }

    /// Take the process's wake-up fd again after asyncio has given it up. Only has an effect on the main thread.
    fn watch_signals(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(running) = self.running()
            && let Some(driver) = running.driver.get()
        {
            driver.watch_signals(py)?;
        }
        Ok(())
    }

    /// Keep the loop busy with Rust work alone for some seconds: `tasks` tasks that are always ready.
    #[cfg(debug_assertions)]
    #[pyo3(name = "_keep_busy")]
    #[expect(
        clippy::unused_self,
        reason = "a method, so that a loop is at hand where it is called"
    )]
    fn keep_busy(&self, seconds: f64, tasks: usize) -> PyResult<()> {
        let end = std::time::Instant::now() + Duration::from_secs_f64(seconds);
        let core = LoopCore::current()
            .ok_or_else(|| PyRuntimeError::new_err("no loop runs in this thread"))?;
        for _ in 0..tasks {
            core.spawn(async move {
                while std::time::Instant::now() < end {
                    yield_now().await;
                }
            });
        }
        Ok(())
    }

    /// How many tasks the runtime has.
    #[cfg(debug_assertions)]
    #[pyo3(name = "_tasks_alive")]
    fn tasks_alive(&self) -> usize {
        self.running()
            .map_or(0, |running| running.handle.metrics().num_alive_tasks())
    }

    /// Drop the runtime with all that it serves.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.rest(py)?;
        let state = std::mem::replace(&mut *self.state(), State::Closed);
        if self.forks == home::forks() {
            drop(state);
        } else {
            // The parent still uses what lies behind these descriptors.
            std::mem::forget(state);
        }
        self.keys.bind(py).clear();
        Ok(())
    }

    /// The key of a registered file object or descriptor.
    fn get_key<'py>(&self, fileobj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if matches!(*self.state(), State::Closed) {
            return Err(PyRuntimeError::new_err("Selector is closed"));
        }
        Ok(self.find(fileobj)?.1)
    }

    /// Mapping of file objects and descriptors to keys; `None` once closed.
    fn get_map(slf: Bound<'_, Self>) -> Option<SelectorMap> {
        let open = matches!(*slf.get().state(), State::Open { .. });
        open.then(|| SelectorMap {
            selector: slf.unbind(),
        })
    }

    /// The descriptor of the epoll instance that watches Python's descriptors.
    fn fileno(&self) -> PyResult<Number> {
        queue::descriptor(&*self.epoll()?).map_err(os_error)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.close(py)
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the signature that pyo3 calls"
    )]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.keys)?;
        visit.call(&self.key_type)
    }
}

impl Selector {
    /// Never held while Python runs.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Option<Running> {
        if self.forks != home::forks() {
            return None;
        }
        match &*self.state() {
            State::Open { running, .. } => running.clone(),
            State::Closed => None,
        }
    }

    fn epoll(&self) -> PyResult<Arc<Queue>> {
        if self.forks != home::forks() {
            return Err(PyRuntimeError::new_err(
                "this event loop was made before a fork and belongs to the parent process; make a new one",
            ));
        }
        match &*self.state() {
            State::Open { epoll, .. } => Ok(Arc::clone(epoll)),
            State::Closed => Err(PyValueError::new_err("I/O operation on closed selector")),
        }
    }

    /// The driver for this thread, made if need be.
    fn driver(&self, py: Python<'_>) -> PyResult<Arc<LoopBound<Driver>>> {
        let epoll = self.epoll()?;
        let stale = match self.running() {
            Some(running) if running.driver.is_home() => return Ok(running.driver),
            Some(running) if running.serves() => {
                return Err(PyRuntimeError::new_err(
                    "this event loop serves connections in another thread and cannot move to this one",
                ));
            }
            stale => stale,
        };
        let driver = Driver::new(py, epoll)?;
        let fresh = Running {
            handle: driver.runtime.get().handle().clone(),
            driver: Arc::new(LoopBound::new(driver)),
        };
        if let State::Open { running, .. } = &mut *self.state() {
            *running = Some(fresh.clone());
        }
        // Goes home.
        drop(stale);
        Ok(fresh.driver)
    }

    fn modified(&self, fd: Number, before: u32, events: u32) -> PyResult<()> {
        queue::modify(&*self.epoll()?, fd, before, events).map_err(os_error)
    }

    /// The descriptor of a file object; that of its registration if the object has none any more (closed).
    fn lookup(&self, fileobj: &Bound<'_, PyAny>) -> PyResult<Number> {
        let py = fileobj.py();
        let error = match descriptor(fileobj) {
            Ok(fd) => return Ok(fd),
            Err(error) if error.is_instance_of::<PyValueError>(py) => error,
            Err(error) => return Err(error),
        };
        for (fd, key) in self.keys.bind(py) {
            if key.cast::<PyTuple>()?.get_item(0)?.is(fileobj) {
                return fd.extract();
            }
        }
        Err(error)
    }

    fn find<'py>(&self, fileobj: &Bound<'py, PyAny>) -> PyResult<(Number, Bound<'py, PyAny>)> {
        let fd = self.lookup(fileobj)?;
        match self.keys.bind(fileobj.py()).get_item(fd)? {
            Some(key) => Ok((fd, key)),
            None => Err(PyKeyError::new_err(format!(
                "{} is not registered",
                fileobj.repr()?
            ))),
        }
    }
}

impl Drop for Selector {
    fn drop(&mut self) {
        if self.forks != home::forks() {
            std::mem::forget(std::mem::replace(&mut *self.state(), State::Closed));
        }
    }
}

impl Runtime {
    fn get(&self) -> &LocalRuntime {
        self.0.as_ref().expect("taken only when dropped")
    }
}

impl Driver {
    fn new(py: Python<'_>, epoll: Arc<Queue>) -> PyResult<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(|| {
                LoopCore::with_current(LoopCore::run_before_sleep);
                gil::before_park();
            })
            .on_thread_unpark(gil::after_park)
            .build_local(LocalOptions::default())
            .map_err(os_error)?;
        let context = runtime.enter();
        let python_fds = queue::watch(epoll).map_err(os_error)?;
        let alarm = Box::pin(sleep(SLEEP_MAX));
        drop(context);
        let threading = py.import(intern!(py, "threading"))?;
        let main_thread = threading.call_method0(intern!(py, "main_thread"))?;
        Ok(Self {
            python_fds,
            signals: RefCell::default(),
            core: LoopCore::new(runtime.handle().clone()),
            runtime: Runtime(Some(runtime)),
            home: Home::here(),
            main_thread: threading
                .call_method0(intern!(py, "current_thread"))?
                .is(&main_thread),
            // Descriptors may have been ready before tokio was told.
            more: Cell::new(true),
            events: RefCell::default(),
            alarm: RefCell::new(alarm),
        })
    }

    fn watch_signals(&self, py: Python<'_>) -> PyResult<()> {
        if !self.main_thread {
            return Ok(());
        }
        let fd = signals::install(py)?;
        if self.signals.borrow().is_none() {
            let _context = self.core.enter();
            // SAFETY: signals.rs never closes the descriptor of a SignalFd.
            let registered = unsafe { Watched::new(fd) };
            self.signals.replace(Some(registered.map_err(os_error)?));
        }
        Ok(())
    }

    /// Run the runtime until asyncio has something to do.
    fn turn(&self, timeout: Option<f64>) -> io::Result<()> {
        let timeout = match timeout {
            None => None,
            Some(seconds) if seconds > 0.0 => Some(
                Duration::try_from_secs_f64(seconds)
                    .map_or(SLEEP_MAX, |wanted| wanted.min(SLEEP_MAX)),
            ),
            // Zero, negative, or not a number.
            Some(_) => Some(Duration::ZERO),
        };
        // Something is left from last time, or the edge that would tell us has passed unseen.
        let at_once = timeout == Some(Duration::ZERO) || (self.more.get() && self.ask(1)? > 0);
        let end = timeout.map(|timeout| Instant::now() + timeout);
        self.runtime.get().block_on(async {
            self.core.fire_dirty();
            if at_once {
                // One round: the tasks that are ready run, and the sockets are looked at.
                yield_now().await;
                poll_fn(|cx| Poll::Ready(self.poll_python(cx))).await;
                return;
            }
            poll_fn(|cx| {
                let due = self.poll_python(cx) || end.is_some_and(|end| self.poll_alarm(cx, end));
                if due { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        Ok(())
    }

    /// Has asyncio anything to do?
    fn poll_python(&self, cx: &mut Context<'_>) -> bool {
        if self.home.empty(Some(cx.waker())) {
            Python::attach(|py| self.core.after_python(py));
        }
        let mut due = self.core.poll_leave(cx.waker());
        // An error means that the runtime is shutting down: nothing to wait for either.
        if self.python_fds.poll_readable(cx).is_ready() {
            self.more.set(true);
            due = true;
        }
        if let Some(fd) = &*self.signals.borrow() {
            while let Poll::Ready(Ok(())) = fd.poll_readable(cx) {
                due |= signals::take();
            }
        }
        due
    }

    /// Has the time come? The alarm may be set to an earlier moment, but never to a later one.
    fn poll_alarm(&self, cx: &mut Context<'_>, end: Instant) -> bool {
        let mut alarm = self.alarm.borrow_mut();
        if alarm.deadline() > end {
            alarm.as_mut().reset(end);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if alarm.deadline() >= end {
                return true;
            }
            // It was that of a former `select`.
            alarm.as_mut().reset(end);
        }
        false
    }

    /// Ask the epoll instance what is ready now, for at most `limit` descriptors. Level-triggered: takes nothing away.
    fn ask(&self, limit: usize) -> io::Result<usize> {
        let queue = self.python_fds.get_ref();
        let count = self.events.borrow_mut().ask(queue, limit)?;
        self.more.set(count > 0);
        Ok(count)
    }

    /// Python's descriptors that are ready, as `[(key, events)]`.
    fn collect<'py>(&self, keys: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyList>> {
        let ready = PyList::empty(keys.py());
        if !self.more.get() || self.ask(keys.len().max(1)).map_err(os_error)? == 0 {
            return Ok(ready);
        }
        for (fd, events) in self.events.borrow().ready() {
            if let Some(key) = keys.get_item(fd)? {
                let wanted = events_of(&key)?;
                ready.append((key, events & wanted))?;
            }
        }
        Ok(ready)
    }
}

/// What `Selector.get_map` gives: a live, read-only mapping.
#[pyclass(frozen, mapping, module = "framegate._http")]
pub(crate) struct SelectorMap {
    selector: Py<Selector>,
}

#[pymethods]
impl SelectorMap {
    fn __len__(&self, py: Python<'_>) -> usize {
        self.keys(py).len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.keys(py).try_iter()?.into_any())
    }

    fn __contains__(&self, fileobj: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.get(fileobj, None)?.is_some())
    }

    fn __getitem__<'py>(&self, fileobj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.selector.get().find(fileobj)?.1)
    }

    /// The key, or `default` if the file object is not registered.
    #[pyo3(signature = (fileobj, default=None))]
    fn get<'py>(
        &self,
        fileobj: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.selector.get().find(fileobj) {
            Ok((_, key)) => Ok(Some(key)),
            Err(error) if error.is_instance_of::<PyKeyError>(fileobj.py()) => Ok(default),
            Err(error) => Err(error),
        }
    }

    /// The registered descriptors.
    #[pyo3(name = "keys")]
    fn descriptors<'py>(&self, py: Python<'py>) -> Bound<'py, PyList> {
        self.keys(py).keys()
    }

    /// The keys.
    fn values<'py>(&self, py: Python<'py>) -> Bound<'py, PyList> {
        self.keys(py).values()
    }

    /// Pairs of descriptor and key.
    fn items<'py>(&self, py: Python<'py>) -> Bound<'py, PyList> {
        self.keys(py).items()
    }
}

impl SelectorMap {
    fn keys<'py>(&self, py: Python<'py>) -> &Bound<'py, PyDict> {
        self.selector.get().keys.bind(py)
    }
}

/// The asyncio loop that is calling, if it is one that uses this selector.
fn running_loop<'py>(selector: &Bound<'py, Selector>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static GET_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = selector.py();
    let event_loop = GET_RUNNING_LOOP
        .import(py, "asyncio", "_get_running_loop")?
        .call0()?;
    if event_loop.is_none() {
        return Ok(None);
    }
    let own = event_loop
        .getattr_opt(intern!(py, "_selector"))?
        .is_some_and(|other| other.is(selector));
    Ok(own.then_some(event_loop))
}

fn check_events(events: u32) -> PyResult<()> {
    if events == 0 || events & !(READ | WRITE) != 0 {
        return Err(PyValueError::new_err(format!("Invalid events: {events}")));
    }
    Ok(())
}

/// The third field of a `SelectorKey` (a named tuple).
fn events_of(key: &Bound<'_, PyAny>) -> PyResult<u32> {
    key.cast::<PyTuple>()?.get_item(2)?.extract()
}

/// `selectors._fileobj_to_fd`.
fn descriptor(fileobj: &Bound<'_, PyAny>) -> PyResult<Number> {
    let py = fileobj.py();
    let fd: Number = if fileobj.is_instance_of::<PyInt>() {
        fileobj.extract()?
    } else {
        let asked = fileobj
            .call_method0(intern!(py, "fileno"))
            .and_then(|fd| fd.extract());
        asked.map_err(|error: PyErr| {
            let unsuitable = error.is_instance_of::<pyo3::exceptions::PyAttributeError>(py)
                || error.is_instance_of::<PyTypeError>(py)
                || error.is_instance_of::<PyValueError>(py);
            if !unsuitable {
                return error;
            }
            let text = fileobj
                .repr()
                .map_or_else(|_| "?".to_owned(), |text| text.to_string());
            PyValueError::new_err(format!("Invalid file object: {text}"))
        })?
    };
    if fd < 0 {
        return Err(PyValueError::new_err(format!(
            "Invalid file descriptor: {fd}"
        )));
    }
    Ok(fd)
}
