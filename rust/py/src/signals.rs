//! Signals wake the loop of the main thread.
//!
//! Python's own handler only notes a signal; the Python-level handler runs when the main thread executes bytecode again.
//! A loop that sleeps in tokio would do that at its next timer, because tokio swallows `EINTR`, and because the kernel
//! may interrupt another thread instead. Python offers a remedy: it writes the signal's number to a *wake-up fd*
//! (`signal.set_wakeup_fd`). There is one per process, so this is the one piece of process-wide state of the loop: a
//! socket pair made once and never closed, so that no stale number of ours can stay behind in somebody's chain.
//!
//! Others want the wake-up fd too:
//! - one that was set before ours is remembered and gets every byte passed on, and is put back when the loop stops;
//! - a forked child must not write the numbers of its signals into the parent's pair: it starts without a wake-up fd;
//! - `loop.add_signal_handler` replaces ours by the loop's own self-pipe, which wakes the loop as well; when asyncio then
//!   sets -1, the loop takes the fd back (`EventLoop.remove_signal_handler`).

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use pyo3::{
    intern,
    prelude::*,
    types::{IntoPyDict, PyAnyMethods, PyCFunction},
};

use crate::{
    error::os_error,
    home,
    os::{self, Number, SignalFd, WakeStream, number},
};

const NONE: Number = -1;

struct Wakeup {
    reader: WakeStream,
    writer: WakeStream,
    /// Who had the wake-up fd before us.
    previous: Number,
    installed: bool,
    /// A forked child must not share the pair with its parent.
    forks: u32,
}

static WAKEUP: Mutex<Option<Wakeup>> = Mutex::new(None);

/// Never held while Python runs.
fn lock() -> MutexGuard<'static, Option<Wakeup>> {
    WAKEUP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True if the wake-up fd still has to be set, or set again after [`release`].
pub(crate) fn wanted() -> bool {
    lock()
        .as_ref()
        .is_none_or(|wakeup| !wakeup.installed || wakeup.forks != home::forks())
}

/// Let forked children give up a wake-up fd that leads to the parent, before any other Python code runs there.
fn watch_forks(py: Python<'_>) -> PyResult<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    // Nothing forks on Windows. Relaxed: only the main thread comes here.
    if cfg!(windows) || REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let in_child = PyCFunction::new_closure(py, None, None, |arguments, _| {
        let py = arguments.py();
        let writer = lock()
            .as_ref()
            .map_or(NONE, |wakeup| number(&wakeup.writer));
        let current = set_wakeup_fd(py, NONE, true)?;
        if current != NONE && current != writer {
            set_wakeup_fd(py, current, true)?;
        }
        PyResult::Ok(())
    })?;
    let options = [(intern!(py, "after_in_child"), in_child)].into_py_dict(py)?;
    py.import(intern!(py, "os"))?.call_method(
        intern!(py, "register_at_fork"),
        (),
        Some(&options),
    )?;
    Ok(())
}

/// Become the process's wake-up fd. Only on the main thread.
pub(crate) fn install(py: Python<'_>) -> PyResult<SignalFd> {
    let (reader, writer) = {
        let mut slot = lock();
        if slot
            .as_ref()
            .is_some_and(|wakeup| wakeup.forks != home::forks())
        {
            // The parent's pair; its numbers may be anything here by now, the wake-up fd among them.
            std::mem::forget(slot.take());
        }
        if slot.is_none() {
            *slot = Some(Wakeup::new().map_err(os_error)?);
        }
        let wakeup = slot.as_ref().expect("just made");
        (number(&wakeup.reader), number(&wakeup.writer))
    };
    watch_forks(py)?;
    let previous = set_wakeup_fd(py, writer, false)?;
    if let Some(wakeup) = lock().as_mut() {
        wakeup.installed = true;
        if previous != writer {
            wakeup.previous = previous;
        }
    }
    Ok(SignalFd(reader))
}

/// Give the wake-up fd back to whoever had it. Only on the main thread.
pub(crate) fn release(py: Python<'_>) -> PyResult<()> {
    let (writer, previous) = {
        let mut slot = lock();
        let Some(wakeup) = slot
            .as_mut()
            .filter(|wakeup| wakeup.installed && wakeup.forks == home::forks())
        else {
            return Ok(());
        };
        wakeup.installed = false;
        (
            number(&wakeup.writer),
            std::mem::replace(&mut wakeup.previous, NONE),
        )
    };
    let current = set_wakeup_fd(py, NONE, true)?;
    let keep = if current == writer { previous } else { current };
    if keep != NONE && set_wakeup_fd(py, keep, true).is_err() {
        // Its owner closed it: as it would be without us, nobody has the wake-up fd.
    }
    Ok(())
}

/// Empty the pair and pass the signal numbers on. True if a signal came.
pub(crate) fn take() -> bool {
    let slot = lock();
    let Some(wakeup) = slot.as_ref() else {
        return false;
    };
    let mut numbers = [0_u8; 64];
    let mut came = false;
    loop {
        let Some(count) = os::read_wakes(&wakeup.reader, &mut numbers) else {
            return came;
        };
        if count == 0 {
            return came;
        }
        came = true;
        if wakeup.previous != NONE {
            os::pass_on(wakeup.previous, &numbers[..count]);
        }
    }
}

impl Wakeup {
    fn new() -> io::Result<Self> {
        let (reader, writer) = os::wake_pair()?;
        Ok(Self {
            reader,
            writer,
            previous: NONE,
            installed: false,
            forks: home::forks(),
        })
    }
}

fn set_wakeup_fd(py: Python<'_>, fd: Number, warn: bool) -> PyResult<Number> {
    let options = [(intern!(py, "warn_on_full_buffer"), warn)].into_py_dict(py)?;
    let signal = py.import(intern!(py, "signal"))?;
    signal
        .call_method(intern!(py, "set_wakeup_fd"), (fd,), Some(&options))?
        .extract()
}
