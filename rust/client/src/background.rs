//! What happens beside the threads of the user: opening, and looking after open ones that nobody attends to.
//!
//! # Theory
//! A thread that waits for a message drives its [`Socket`] itself (`Shared::receive`). While it does something else for long,
//! nobody would answer the server's pings. So one thread of the process, with a runtime of tokio, has a task for each open
//! WebSocket: it looks in at times, and when nobody has attended to the WebSocket since the last time, it waits on the
//! socket and steps until somebody does.
//!
//! Who attends counts its visits under the lock of the socket; the task steps only under that lock, and only if nobody waits
//! on the socket. So what it reads is there for the next visit, and a visitor that finds nothing in the inbox is the only one who
//! reads from then on.

use std::{
    future::Future,
    io,
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use framegate_http::websocket::Kind;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd},
    io::Errno,
};
use tokio::{runtime::Handle, task::AbortHandle, time::sleep};

use crate::{
    bell::Bell,
    connect::{Opened, connect},
    error::Error,
    ready::Watched,
    settings::Settings,
    socket::{Closed, Interest, Message, Socket},
};

/// How often the task of a WebSocket looks in: short against the patience of a server (20 s and more), long against the time
/// between two visits of a program that is busy with the WebSocket.
const LOOK: Duration = Duration::from_millis(250);
/// A wait is as long at most, and then signals are looked for: one that comes just before a wait does not end it.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A thread that opens connections and looks after them. There is one per process.
#[derive(Clone, Debug)]
pub struct Background {
    runtime: Handle,
}

static CURRENT: Mutex<Option<(u32, Background)>> = Mutex::new(None);

/// Nothing that panics runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Background {
    /// That of this process; begins it when there is none. A forked child has one of its own.
    ///
    /// # Errors
    /// The system gives no thread, or no descriptor.
    pub fn get() -> io::Result<Self> {
        let process = std::process::id();
        let mut current = lock(&CURRENT);
        if let Some((of, background)) = &*current
            && *of == process
        {
            return Ok(background.clone());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("framegate-client")
            .build()?;
        let background = Self {
            runtime: runtime.handle().clone(),
        };
        thread::Builder::new()
            .name("framegate-client".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        // What a parent left belongs to threads that do not exist here.
        std::mem::forget(current.replace((process, background.clone())));
        Ok(background)
    }

    /// Begins to open a WebSocket.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn connect(&self, url: String, settings: Settings) -> io::Result<Waiting> {
        let answer = Arc::new(Answer {
            slot: Mutex::new(None),
            bell: Bell::new()?,
        });
        let told = Arc::clone(&answer);
        let task = self.runtime.spawn(async move {
            let opened = connect(&url, &settings).await;
            *lock(&told.slot) = Some(opened);
            told.bell.ring();
        });
        Ok(Waiting {
            answer,
            task: task.abort_handle(),
        })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }
}

struct Answer {
    slot: Mutex<Option<Result<Opened, Error>>>,
    bell: Bell,
}

/// A WebSocket that is being opened. Dropping it gives it up.
pub struct Waiting {
    answer: Arc<Answer>,
    task: AbortHandle,
}

impl Waiting {
    /// What came of it, if it is over.
    pub fn take(&self) -> Option<Result<Opened, Error>> {
        lock(&self.answer.slot).take()
    }

    /// Waits for it. `None` when a signal came, or for no reason.
    pub fn wait(&self) -> Option<Result<Opened, Error>> {
        wait_for(self.as_fd(), PollFlags::IN, None).ok()?;
        self.take()
    }

    /// Readable when it is over. On Windows it is a socket.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.answer.bell.as_fd()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a call came back without what it waited for.
#[derive(Debug)]
pub enum Stopped {
    /// The WebSocket cannot do that, or not any more.
    Error(Error),
    /// The time that was given is over.
    Timeout,
    /// A signal came: look at what it wants, and call again.
    Interrupted,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// An open WebSocket for threads, which wait by themselves. See the head of the file.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    tcp: Arc<TcpStream>,
    /// Somebody waits for a message.
    receiving: AtomicBool,
}

#[derive(Debug)]
struct State {
    socket: Socket,
    /// Calls so far.
    visits: u64,
    /// Threads that wait on the socket.
    waiting: usize,
}

impl Shared {
    /// Unsent bytes above which who sends waits.
    pub const UNSENT_BYTES_MAX: usize = 64 * 1024;

    /// Shares a WebSocket, and has it looked after.
    ///
    /// # Errors
    /// As [`Background::get`].
    pub fn new(socket: Socket) -> io::Result<Arc<Self>> {
        let background = Background::get()?;
        let shared = Self::attended(socket);
        background.spawn(look_after(Arc::downgrade(&shared), Arc::clone(&shared.tcp)));
        Ok(shared)
    }

    /// Shares a WebSocket that somebody drives all the time, for instance an event loop.
    pub fn attended(socket: Socket) -> Arc<Self> {
        Arc::new(Self {
            tcp: Arc::clone(socket.tcp()),
            state: Mutex::new(State {
                socket,
                visits: 0,
                waiting: 0,
            }),
            receiving: AtomicBool::new(false),
        })
    }

    /// The socket to wait on.
    pub fn tcp(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    /// Does something with the socket that does not wait.
    pub fn with<R>(&self, act: impl FnOnce(&mut Socket) -> R) -> R {
        let mut state = lock(&self.state);
        state.visits += 1;
        act(&mut state.socket)
    }

    /// A message that is there already.
    pub fn take(&self) -> Option<Message> {
        self.with(Socket::take)
    }

    /// Waits for a message, until a time if one is given.
    ///
    /// # Errors
    /// [`Stopped`]; also when another thread waits for a message.
    pub fn receive(&self, until: Option<Instant>) -> Result<Message, Stopped> {
        // Acquire and release: pairs of one thread's wait with the next one's.
        if self.receiving.swap(true, Ordering::Acquire) {
            return Err(Error::argument("another thread is receiving from this WebSocket").into());
        }
        let received = self.drive(until, |socket| {
            if let Some(message) = socket.take() {
                return Some(Ok(message));
            }
            let closed = socket.closed()?;
            Some(Err(Error::of_closed(closed)))
        });
        self.receiving.store(false, Ordering::Release);
        Ok(received??)
    }

    /// Queues a message and writes what there is room for. How many bytes are unsent.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub fn post(&self, kind: Kind, payload: &[u8]) -> Result<usize, Error> {
        self.with(|socket| {
            socket.send(kind, payload)?;
            Ok(socket.unsent())
        })
    }

    /// As [`post`](Self::post), with [`Socket::send_soon`].
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub fn post_soon(&self, kind: Kind, payload: &[u8]) -> Result<usize, Error> {
        self.with(|socket| {
            socket.send_soon(kind, payload)?;
            Ok(socket.unsent())
        })
    }

    /// Sends a message. Waits while much is unsent: [`Stopped::Interrupted`] then means that the message is on its way, and
    /// [`drain`](Self::drain) waits for the rest.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn send(&self, kind: Kind, payload: &[u8]) -> Result<(), Stopped> {
        if self.post(kind, payload)? <= Self::UNSENT_BYTES_MAX {
            return Ok(());
        }
        self.drain()
    }

    /// Waits until little is unsent.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn drain(&self) -> Result<(), Stopped> {
        self.drive(None, |socket| {
            if socket.unsent() <= Self::UNSENT_BYTES_MAX {
                return Some(Ok(()));
            }
            let closed = socket.closed()?;
            Some(Err(Error::of_closed(closed)))
        })??;
        Ok(())
    }

    /// Waits until the WebSocket is closed and its connection is over. Call [`Socket::close`] before.
    ///
    /// # Errors
    /// [`Stopped::Interrupted`] only; closing takes twice the close timeout at most.
    pub fn wait_closed(&self) -> Result<Closed, Stopped> {
        self.drive(None, |socket| {
            socket.is_done().then(|| socket.closed().cloned()).flatten()
        })
    }

    /// Drives the socket until `done` finds what it looks for.
    fn drive<R>(
        &self,
        until: Option<Instant>,
        mut done: impl FnMut(&mut Socket) -> Option<R>,
    ) -> Result<R, Stopped> {
        let mut state = lock(&self.state);
        state.visits += 1;
        state.socket.check_own()?;
        if let Some(found) = done(&mut state.socket) {
            return Ok(found);
        }
        loop {
            if !state.socket.is_ready() {
                let (interest, deadline) = (state.socket.interest(), state.socket.deadline());
                let end = match (until, deadline) {
                    (Some(until), Some(deadline)) => Some(until.min(deadline)),
                    (one, other) => one.or(other),
                };
                state.waiting += 1;
                drop(state);
                let waited = wait_for(self.tcp.as_fd(), flags(interest), end);
                state = lock(&self.state);
                state.waiting -= 1;
                state.visits += 1;
                if waited.is_err() {
                    return Err(Stopped::Interrupted);
                }
            }
            state.socket.step();
            if let Some(found) = done(&mut state.socket) {
                return Ok(found);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(Stopped::Timeout);
            }
        }
    }
}

fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.read);
    flags.set(PollFlags::OUT, interest.write);
    flags
}

/// Waits until a descriptor is ready, or a time has come; an error when a signal has, or may have.
fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags, until: Option<Instant>) -> Result<(), ()> {
    let left = until.map_or(WAIT_MAX, |until| {
        until
            .saturating_duration_since(Instant::now())
            .min(WAIT_MAX)
    });
    let timeout = Timespec::try_from(left).map_err(|_| ())?;
    match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&timeout)) {
        Err(Errno::INTR) => Err(()),
        // One may have come just before, and on Windows none ends a wait: who waits looks for one.
        Ok(0) if left == WAIT_MAX => Err(()),
        // Other errors cannot be: the descriptor is ours. The step that follows would find out.
        _ => Ok(()),
    }
}

/// Looks after a WebSocket whenever its user does not.
async fn look_after(shared: Weak<Shared>, tcp: Arc<TcpStream>) {
    let mut seen = 0;
    loop {
        sleep(LOOK).await;
        match unattended(&shared, &mut seen) {
            Attended::Over => return,
            Attended::Yes => {}
            Attended::No => {
                // An error: no descriptor is left for the runtime; the next look tries again.
                if let Ok(watched) = Watched::new(Arc::clone(&tcp)) {
                    stand_in(&shared, &watched, &mut seen).await;
                }
            }
        }
    }
}

enum Attended {
    Yes,
    No,
    /// There is nothing to look after any more.
    Over,
}

fn unattended(shared: &Weak<Shared>, seen: &mut u64) -> Attended {
    let Some(shared) = shared.upgrade() else {
        return Attended::Over;
    };
    let state = lock(&shared.state);
    if state.socket.is_done() {
        return Attended::Over;
    }
    let attended = state.waiting > 0 || state.visits != *seen;
    *seen = state.visits;
    if attended {
        Attended::Yes
    } else {
        Attended::No
    }
}

/// Drives the socket until somebody else does.
async fn stand_in(shared: &Weak<Shared>, watched: &Watched, seen: &mut u64) {
    loop {
        let (interest, deadline) = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut state = lock(&shared.state);
            if state.waiting > 0 || state.visits != *seen || state.socket.is_done() {
                return;
            }
            if state.socket.is_ready() {
                state.socket.step();
                continue;
            }
            (state.socket.interest(), state.socket.deadline())
        };
        if interest == Interest::default() {
            // The inbox is full: only a visit changes that.
            return;
        }
        let found = watched.wait(interest, deadline).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut state = lock(&shared.state);
        if state.waiting > 0 || state.visits != *seen {
            return;
        }
        found.step(&mut state.socket);
    }
}
