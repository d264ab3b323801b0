//! Waiting in tokio for a socket that somebody else reads and writes.

use std::{future::pending, io, net::TcpStream, sync::Arc, time::Instant};

use tokio::{
    io::{
        Interest as Wanted, Ready,
        unix::{AsyncFd, AsyncFdReadyGuard},
    },
    time::sleep_until,
};

use crate::socket::{Interest, Socket};

/// A socket that tokio watches.
#[derive(Debug)]
pub(crate) struct Watched(AsyncFd<Arc<TcpStream>>);

/// What a wait found: the socket is ready, unless it was the time.
pub(crate) struct Found<'a>(Option<AsyncFdReadyGuard<'a, Arc<TcpStream>>>);

impl Watched {
    /// Begins to watch, in the runtime that runs.
    #[expect(
        unsafe_code,
        reason = "tokio wants to be told that the descriptor outlives the registration"
    )]
    pub(crate) fn new(tcp: Arc<TcpStream>) -> io::Result<Self> {
        // SAFETY: the registration owns a reference to the socket, which is open as long as there is one and has one
        // descriptor all its life.
        let watched = unsafe { AsyncFd::register(tcp) };
        Ok(Self(watched?))
    }

    /// Waits until the socket is ready for something of `interest`, or a time has come.
    pub(crate) async fn wait(&self, interest: Interest, until: Option<Instant>) -> Found<'_> {
        let ready = async {
            match (interest.read, interest.write) {
                (true, true) => self.0.ready(Wanted::READABLE | Wanted::WRITABLE).await,
                (true, false) => self.0.ready(Wanted::READABLE).await,
                (false, true) => self.0.ready(Wanted::WRITABLE).await,
                (false, false) => pending().await,
            }
        };
        let due = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // An error: the runtime ends, and with it this task.
            ready = ready => Found(ready.ok()),
            () = due => Found(None),
        }
    }
}

impl Found<'_> {
    /// Lets the socket do what it can, and remembers what it is not ready for any more.
    pub(crate) fn step(mut self, socket: &mut Socket) {
        let blocked = socket.step();
        if let Some(guard) = &mut self.0 {
            if blocked.read {
                guard.clear_ready_matching(Ready::READABLE);
            }
            if blocked.write {
                guard.clear_ready_matching(Ready::WRITABLE);
            }
        }
    }
}
