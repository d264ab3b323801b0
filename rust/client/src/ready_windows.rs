//! Waiting in tokio for a socket that somebody else reads and writes. Compiled for Windows, and not run there.
//!
//! tokio watches no foreign sockets here, so it gets a second handle of the same one, which it neither reads nor writes.

use std::{future::pending, io, net::TcpStream, sync::Arc, time::Instant};

use tokio::{io::Interest as Wanted, time::sleep_until};

use crate::socket::{Interest, Socket};

/// A socket that tokio watches.
#[derive(Debug)]
pub(crate) struct Watched(tokio::net::TcpStream);

/// What a wait found.
pub(crate) struct Found<'a>(&'a Watched);

impl Watched {
    /// Begins to watch, in the runtime that runs.
    #[expect(clippy::needless_pass_by_value, reason = "as on other systems")]
    pub(crate) fn new(tcp: Arc<TcpStream>) -> io::Result<Self> {
        tokio::net::TcpStream::from_std(tcp.try_clone()?).map(Self)
    }

    /// Waits until the socket is ready for something of `interest`, or a time has come.
    pub(crate) async fn wait(&self, interest: Interest, until: Option<Instant>) -> Found<'_> {
        let ready = async {
            // An error: the runtime ends, and with it this task.
            let _ = match (interest.read, interest.write) {
                (true, true) => self.0.ready(Wanted::READABLE | Wanted::WRITABLE).await,
                (true, false) => self.0.ready(Wanted::READABLE).await,
                (false, true) => self.0.ready(Wanted::WRITABLE).await,
                (false, false) => pending().await,
            };
        };
        let due = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = ready => {}
            () = due => {}
        }
        Found(self)
    }
}

impl Found<'_> {
    /// Lets the socket do what it can, and remembers what it is not ready for any more. An attempt that would block is what has Windows
    /// asked anew: what came in between is found then.
    pub(crate) fn step(self, socket: &mut Socket) {
        let blocked = socket.step();
        let forget = |wanted| {
            let would_block = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
            let _ = self.0.0.try_io(wanted, would_block);
        };
        if blocked.read {
            forget(Wanted::READABLE);
        }
        if blocked.write {
            forget(Wanted::WRITABLE);
        }
    }
}
