//! Python's sockets in a list, level-triggered: `WSAPoll` looks at all of them each time.
//!
//! Compiled for Windows and not run there. As with asyncio's own `SelectorEventLoop` of Windows only sockets can be watched, neither pipes
//! nor files. What differs from epoll:
//!
//! - tokio cannot watch the list. So the loop looks at it by itself whenever it is about to sleep, and while it sleeps a thread waits in
//!   `WSAPoll` and wakes it. The thread waits when it is told to ([`Watch::poll_readable`]), and tells once.
//! - The thread is woken from its wait by a pair of sockets, when the list changes or the selector is closed.
//! - Only flags that say what is wanted may be asked for; errors and hang-ups are told in any case, and wake readers and writers.
//! - A socket that was closed is told as such, and leaves the list then.
//! - Before Windows 10, version 2004, `WSAPoll` does not tell of a connection that could not be made.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::TcpStream,
    os::windows::io::AsRawSocket,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread,
};

use windows_sys::Win32::Networking::WinSock::{
    POLLNVAL, POLLRDNORM, POLLWRNORM, SOCKET, SOCKET_ERROR, WSAENOTSOCK, WSAPOLLFD, WSAPoll,
};

use super::{READ, WRITE};
use crate::os::{self, Number};

/// For ever.
const NO_TIMEOUT: i32 = -1;

/// The sockets that Python watches, and the thread that waits for them.
pub(super) struct Queue(Arc<Shared>);

struct Shared {
    list: Mutex<List>,
    /// The thread is to do something else than to sleep.
    told: Condvar,
    /// Ends a wait of the thread.
    bell: TcpStream,
}

#[derive(Default)]
struct List {
    sockets: Vec<WSAPOLLFD>,
    /// Grows with each change of `sockets`.
    version: u64,
    /// The thread waits for the sockets, or is about to.
    is_armed: bool,
    /// The thread has found something since the loop last looked.
    is_ready: bool,
    is_closed: bool,
    /// Of the loop's task, while it sleeps.
    waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, List> {
        // Nothing panics while it is held; a poisoned list is still a list.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread look at the list again. A bell that is full rings already.
    fn ring(&self) {
        let _ = (&self.bell).write(b"!");
    }
}

/// A new list, with its thread.
pub(super) fn open() -> io::Result<Queue> {
    let (ears, bell) = os::wake_pair()?;
    let shared = Arc::new(Shared {
        list: Mutex::default(),
        told: Condvar::new(),
        bell,
    });
    let of_thread = shared.clone();
    thread::Builder::new()
        .name("framegate-poll".to_owned())
        .spawn(move || wait_for_sockets(&of_thread, &ears))?;
    Ok(Queue(shared))
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.told.notify_one();
        self.0.ring();
    }
}

/// The thread: waits while it is armed, and tells the loop once.
fn wait_for_sockets(shared: &Shared, mut ears: &TcpStream) {
    let mut looked_at = Vec::new();
    loop {
        let mut list = shared.lock();
        while !list.is_armed && !list.is_closed {
            list = shared
                .told
                .wait(list)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if list.is_closed {
            return;
        }
        let version = list.version;
        looked_at.clear();
        looked_at.push(WSAPOLLFD {
            fd: ears.as_raw_socket() as SOCKET,
            events: POLLRDNORM,
            revents: 0,
        });
        looked_at.extend_from_slice(&list.sockets);
        drop(list);
        // An error (no memory) ends the wait, too: the loop then asks by itself, and finds the error.
        let failed = look(&mut looked_at, NO_TIMEOUT).is_err();
        if looked_at[0].revents != 0 {
            let mut rings = [0; 64];
            // Neither end blocks.
            while ears.read(&mut rings).is_ok_and(|count| count > 0) {}
        }
        let is_ready = failed || looked_at[1..].iter().any(|one| one.revents != 0);
        let mut list = shared.lock();
        // Of another list than is wanted now: once more.
        if is_ready && list.version == version {
            list.is_armed = false;
            list.is_ready = true;
            let waker = list.waker.take();
            drop(list);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Asks what is ready, for so many milliseconds: how many sockets are.
fn look(sockets: &mut [WSAPOLLFD], timeout: i32) -> io::Result<usize> {
    let count = u32::try_from(sockets.len()).expect("fewer sockets than a process may have");
    if count == 0 {
        // Would be an error.
        return Ok(0);
    }
    // SAFETY: so many entries, which are valid for the call; the system checks the sockets.
    let ready = unsafe { WSAPoll(sockets.as_mut_ptr(), count, timeout) };
    if ready == SOCKET_ERROR {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(ready).unwrap_or(0))
}

fn socket_of(fd: Number) -> io::Result<SOCKET> {
    SOCKET::try_from(fd).map_err(|_| io::Error::from_raw_os_error(WSAENOTSOCK))
}

/// Watch a socket that is not watched.
pub(super) fn add(queue: &Queue, fd: Number, events: u32) -> io::Result<()> {
    modify(queue, fd, 0, events)
}

/// Watch for other events than before. When it fails the socket is not watched at all.
pub(super) fn modify(queue: &Queue, fd: Number, _before: u32, events: u32) -> io::Result<()> {
    let mut wanted = 0;
    if events & READ != 0 {
        wanted |= POLLRDNORM;
    }
    if events & WRITE != 0 {
        wanted |= POLLWRNORM;
    }
    let socket = WSAPOLLFD {
        fd: socket_of(fd)?,
        events: wanted,
        revents: 0,
    };
    // What cannot be watched (a file, or nothing) is refused now.
    let mut asked = [socket];
    look(&mut asked, 0)?;
    if asked[0].revents & POLLNVAL != 0 {
        remove(queue, fd, 0);
        return Err(io::Error::from_raw_os_error(WSAENOTSOCK));
    }
    change(queue, |sockets| {
        match sockets.iter_mut().find(|known| known.fd == socket.fd) {
            Some(known) => *known = socket,
            None => sockets.push(socket),
        }
    });
    Ok(())
}

/// Stop watching.
pub(super) fn remove(queue: &Queue, fd: Number, _before: u32) {
    if let Ok(fd) = socket_of(fd) {
        change(queue, |sockets| sockets.retain(|known| known.fd != fd));
    }
}

fn change(queue: &Queue, change: impl FnOnce(&mut Vec<WSAPOLLFD>)) {
    let mut list = queue.0.lock();
    change(&mut list.sockets);
    list.version += 1;
    let is_armed = list.is_armed;
    drop(list);
    if is_armed {
        queue.0.ring();
    }
}

/// The list, watched for something to report.
pub(super) struct Watch {
    queue: Arc<Queue>,
    looked_at: RefCell<Vec<WSAPOLLFD>>,
}

/// Has the thread of a list tell the task that polls it.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(super) fn watch(queue: Arc<Queue>) -> io::Result<Watch> {
    Ok(Watch {
        queue,
        looked_at: RefCell::default(),
    })
}

impl Watch {
    pub(super) fn get_ref(&self) -> &Queue {
        &self.queue
    }

    /// Ready when a socket is. Else the thread waits from now on, until it has told once.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &*self.queue.0;
        let mut list = shared.lock();
        if std::mem::take(&mut list.is_ready) {
            return Poll::Ready(Ok(()));
        }
        match &mut list.waker {
            Some(known) => known.clone_from(cx.waker()),
            None => list.waker = Some(cx.waker().clone()),
        }
        if !list.is_armed {
            list.is_armed = true;
            shared.told.notify_one();
        }
        let mut looked_at = self.looked_at.borrow_mut();
        looked_at.clone_from(&list.sockets);
        drop(list);
        // The thread may take its time, and a `select` that does not wait has to find what is ready now. An error is found by the
        // one that asks next.
        match look(&mut looked_at, 0) {
            Ok(0) => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// There is none that others could wait for.
pub(super) fn descriptor(_queue: &Queue) -> io::Result<Number> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "on Windows a selector has no file descriptor",
    ))
}

/// What the sockets had to report when last asked.
#[derive(Default)]
pub(super) struct Events {
    looked_at: Vec<WSAPOLLFD>,
    ready: Vec<(u64, u32)>,
}

impl Events {
    /// Ask what is ready now, for at most `limit` sockets: how many are. Level-triggered: takes nothing away.
    pub(super) fn ask(&mut self, queue: &Queue, limit: usize) -> io::Result<usize> {
        self.ready.clear();
        self.looked_at.clone_from(&queue.0.lock().sockets);
        look(&mut self.looked_at, 0)?;
        for socket in &self.looked_at {
            let told = socket.revents;
            if told & POLLNVAL != 0 {
                // Closed without a word.
                change(queue, |sockets| {
                    sockets.retain(|known| known.fd != socket.fd);
                });
                continue;
            }
            // Errors and hang-ups wake readers and writers, as in the standard library.
            let mut events = 0;
            if told & !POLLRDNORM != 0 {
                events |= WRITE;
            }
            if told & !POLLWRNORM != 0 {
                events |= READ;
            }
            if events != 0 && self.ready.len() < limit {
                self.ready.push((socket.fd as u64, events));
            }
        }
        Ok(self.ready.len())
    }

    /// Sockets and what they are ready for.
    pub(super) fn ready(&self) -> impl Iterator<Item = (u64, u32)> {
        self.ready.iter().copied()
    }
}
