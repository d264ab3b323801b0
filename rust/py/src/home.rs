//! Thread-bound state inside Python objects.
//!
//! A Python object may be used and may die on any thread: a thread pool keeps a request in a frame, the garbage
//! collector runs wherever it was triggered. What a loop owns (connections, tasks, `Rc`s) may not leave its thread. So
//! each thread that owns such state is a *home*, and [`LoopBound`] is the only door between the two worlds:
//!
//! - the value is reachable on its home thread only ([`LoopBound::get`] gives `None` elsewhere);
//! - dropped at home, it is dropped at once; dropped elsewhere, it is sent to the queue of its home, which the loop
//!   running there empties at its next turn (it is woken for that) and when it is closed;
//! - if the home thread has ended, nobody may touch the value any more: it is leaked, which is sound;
//! - in a forked child no thread is home to anything: inherited state belongs to the parent, down to the epoll
//!   instances that both processes share, so it is neither used nor dropped there.

#![expect(
    unsafe_code,
    reason = "the one place where thread-bound values become Send; see LoopBound"
)]

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    mem::{self, ManuallyDrop},
    sync::{
        Arc, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};

use crate::{event_loop, os};

/// Identity of a thread: never 0, never used again in this process, and not inherited by a forked child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HomeId(u64);

thread_local! {
    /// 0 until asked for. Without a destructor, so that it can be asked while the thread ends.
    static THREAD: Cell<u64> = const { Cell::new(0) };
    static HOME: RefCell<HomeSlot> = RefCell::new(HomeSlot(Arc::new(Home::new())));
}
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static FORKS: AtomicU32 = AtomicU32::new(0);

impl HomeId {
    /// The calling thread's.
    #[inline]
    pub(crate) fn here() -> Self {
        let id = THREAD.get();
        if id != 0 { Self(id) } else { Self::assign() }
    }

    #[cold]
    fn assign() -> Self {
        // Relaxed: only uniqueness matters.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        THREAD.set(id);
        Self(id)
    }
}

/// Make forked children strangers to everything created before the fork. Called when the first selector is made.
pub(crate) fn watch_forks() {
    extern "C" fn in_child() {
        // Only plain cells and atomics: this may run in a copy of a process with many threads.
        THREAD.set(0);
        FORKS.fetch_add(1, Ordering::Relaxed);
        event_loop::forget_current();
    }
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: `in_child` is a static function that neither allocates nor locks.
        unsafe { os::at_fork(in_child) };
    });
}

/// How many forks lie between this process and the first one that imported the module: differs from the number noted at
/// an object's creation if the object was inherited.
pub(crate) fn forks() -> u32 {
    // Relaxed: changes only in the single thread of a new child, before anything else runs there.
    FORKS.load(Ordering::Relaxed)
}

/// The queue of one thread: values that died elsewhere.
pub(crate) struct Home {
    id: HomeId,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    strays: Vec<Stray>,
    /// Of the `select` that may be sleeping on this thread.
    waker: Option<Waker>,
    /// The thread has ended.
    closed: bool,
}

/// A thread-bound value on its way home.
struct Stray(#[expect(dead_code, reason = "owned for its destructor")] Box<dyn Any>);

// SAFETY: a Stray is made from the value of a LoopBound and only ever opened or dropped by `Home::empty`, on the thread
// where the value was made; everywhere else it is moved or forgotten, which runs no code of the value.
unsafe impl Send for Stray {}

impl Home {
    fn new() -> Self {
        Self {
            id: HomeId::here(),
            inbox: Mutex::default(),
        }
    }

    /// That of the calling thread.
    pub(crate) fn here() -> Arc<Self> {
        HOME.with_borrow_mut(|slot| {
            if slot.0.id != HomeId::here() {
                // A forked child: the slot is the parent's, left untouched as another thread may have held its lock.
                mem::forget(mem::replace(slot, HomeSlot(Arc::new(Self::new()))));
            }
            Arc::clone(&slot.0)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing panics while it is held; a poisoned queue is still a queue.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drop what came home, and say whom to wake when more comes. True if destructors ran, and so perhaps Python code.
    /// Does nothing on another thread.
    pub(crate) fn empty(&self, waker: Option<&Waker>) -> bool {
        if self.id != HomeId::here() {
            return false;
        }
        let mut inbox = self.lock();
        match (waker, &inbox.waker) {
            (Some(new), Some(old)) if new.will_wake(old) => {}
            (new, _) => inbox.waker = new.cloned(),
        }
        let strays = mem::take(&mut inbox.strays);
        // Unlocked first: a destructor may run any Python code.
        drop(inbox);
        let came = !strays.is_empty();
        drop(strays);
        came
    }

    fn send(&self, stray: Stray) {
        let mut inbox = self.lock();
        if inbox.closed {
            drop(inbox);
            mem::forget(stray);
            return;
        }
        inbox.strays.push(stray);
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Closes the home when its thread ends.
struct HomeSlot(Arc<Home>);

impl Drop for HomeSlot {
    fn drop(&mut self) {
        let mut inbox = self.0.lock();
        inbox.closed = true;
        // It would keep the descriptors of its runtime open.
        inbox.waker = None;
        let strays = mem::take(&mut inbox.strays);
        drop(inbox);
        // The interpreter may be gone and other thread-locals too: destructors cannot be run any more.
        mem::forget(strays);
    }
}

/// Owner of a thread-bound value that may itself be owned by anybody.
pub(crate) struct LoopBound<T: 'static> {
    home: Arc<Home>,
    value: ManuallyDrop<T>,
}

// SAFETY: `value` is only reached through `get`, which gives it out on the thread where it was made, and its destructor runs
// there only (`Drop`, `Home::empty`). Other threads can do no more than move its bytes. Thread identities are never used
// again, and a forked child has none of its parent's (`watch_forks`).
unsafe impl<T> Send for LoopBound<T> {}
// SAFETY: as above: a shared reference gives `&T` on the home thread only.
unsafe impl<T> Sync for LoopBound<T> {}

impl<T> LoopBound<T> {
    /// Bind a value to the calling thread.
    pub(crate) fn new(value: T) -> Self {
        Self {
            home: Home::here(),
            value: ManuallyDrop::new(value),
        }
    }

    /// True on the thread that the value is bound to.
    #[inline]
    pub(crate) fn is_home(&self) -> bool {
        self.home.id == HomeId::here()
    }

    /// The value; `None` away from home.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        self.is_home().then(|| &*self.value)
    }

    /// The value; an error for Python away from home.
    #[inline]
    pub(crate) fn get_or_raise(&self) -> PyResult<&T> {
        self.get().ok_or_else(|| {
            PyRuntimeError::new_err(
                "this object belongs to an event loop in another thread; use call_soon_threadsafe",
            )
        })
    }
}

impl<T> Drop for LoopBound<T> {
    fn drop(&mut self) {
        // SAFETY: the value is taken once, here, and nobody can borrow it any more.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        if self.is_home() {
            drop(value);
        } else {
            self.home.send(Stray(Box::new(value)));
        }
    }
}

impl<T> fmt::Debug for LoopBound<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LoopBound")
            .field("home", &self.home.id)
            .finish_non_exhaustive()
    }
}

/// For tests of [`LoopBound`]: owns any object, for the thread that made it.
#[cfg(debug_assertions)]
#[pyclass(frozen, name = "_ThreadBound", module = "framegate._http")]
pub(crate) struct ThreadBound(LoopBound<Py<PyAny>>);

#[cfg(debug_assertions)]
#[pymethods]
impl ThreadBound {
    #[new]
    fn new(value: Py<PyAny>) -> Self {
        Self(LoopBound::new(value))
    }

    /// The object; an error on another thread.
    #[getter]
    fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.0.get_or_raise()?.clone_ref(py))
    }
}
