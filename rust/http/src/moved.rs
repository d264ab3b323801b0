//! A connection whose bytes are another thread's from its upgrade on.
//!
//! ```text
//!  thread that accepted it                                     thread with another runtime
//!
//!  Upgraded::depart ---- Departure: socket, TLS, bytes read ----> Server::adopt ---- session
//!     |                                                              |
//!   Stay <------------- bytes so far; then that it is over ----------+
//!     +--------------- drain; or, when dropped, cut ---------------->+
//! ```
//! In everything but its bytes the connection stays where it was accepted: there it is counted and has its place among those of
//! all workers, there it is drained and cut, and there its end is told of. So whoever runs the server need not know that it
//! has gone. When the first thread stands still, the other one goes on; orders of the first come when it runs again.
//!
//! What is shared is atomic or a channel; the waking goes across threads only for an order, or for the end.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
};

use crate::connection::{Membership, take_over};
use crate::h1_io::{Shared, Socket, SocketIo};
use crate::listener::Server;
use crate::os::{StdUnixStream, UnixStream};
use crate::service::{Draining, Takeover, Upgraded};
use crate::tls::{DepartedTls, TlsStream};

/// A socket of no runtime.
pub(crate) enum Departed {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
    Tls(Box<DepartedTls>),
}

impl Socket {
    /// Leaves its runtime.
    pub(crate) fn depart(self) -> io::Result<Departed> {
        Ok(match self {
            Self::Tcp(io) => Departed::Tcp(io.into_std()?),
            Self::Unix(io) => Departed::Unix(io.into_std()?),
            Self::Tls(io) => Departed::Tls(Box::new(io.depart()?)),
        })
    }
}

impl Departed {
    /// Joins the runtime of this thread.
    pub(crate) fn arrive(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(io) => Socket::Tcp(TcpStream::from_std(io)?),
            Self::Unix(io) => Socket::Unix(UnixStream::from_std(io)?),
            Self::Tls(io) => Socket::Tls(Box::new(TlsStream::arrive(*io)?)),
        })
    }
}

/// What a connection has read and written since it departed.
#[derive(Default)]
pub(crate) struct Carried {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Carried {
    /// In and out.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        // Relaxed: counts that guard nothing.
        (
            self.bytes_in.load(Ordering::Relaxed),
            self.bytes_out.load(Ordering::Relaxed),
        )
    }

    pub(crate) fn tell(&self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.store(bytes_in, Ordering::Relaxed);
        self.bytes_out.store(bytes_out, Ordering::Relaxed);
    }
}

/// What may depart of an upgraded connection.
pub(crate) struct Departing {
    pub(crate) socket: Rc<RefCell<Socket>>,
    pub(crate) shared: Rc<Shared>,
}

/// On its way to another thread; see [`Server::adopt`]. Dropped, it closes the socket.
pub struct Departure {
    socket: Departed,
    leftover: Bytes,
    /// True once the server drains; closed when the connection is to be cut.
    wishes: watch::Receiver<bool>,
    /// Dropped at the end.
    over: oneshot::Sender<()>,
    carried: Arc<Carried>,
}

/// What is left of a connection that has departed: to be polled by the connection's task until it is ready. Dropped before, it cuts
/// the connection.
pub struct Stay {
    draining: Draining,
    wishes: watch::Sender<bool>,
    over: oneshot::Receiver<()>,
}

impl Future for Stay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.draining.poll_draining(cx).is_ready() {
            self.wishes
                .send_if_modified(|drains| !std::mem::replace(drains, true));
        }
        Pin::new(&mut self.over).poll(cx).map(|_over| ())
    }
}

impl Upgraded {
    /// Whether another thread may have it: an HTTP/1.1 connection. A stream of HTTP/2 cannot leave its connection.
    pub fn can_depart(&self) -> bool {
        self.departing.is_some()
    }

    /// Parts with the socket.
    ///
    /// # Errors
    /// It cannot be taken from its runtime; it is closed. Or it is none that [can](Self::can_depart).
    pub fn depart(self) -> io::Result<(Departure, Stay)> {
        let Self {
            stream,
            leftover,
            draining,
            sweep: _sweep,
            departing,
        } = self;
        let Departing { socket, shared } =
            departing.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        // The other owner of the socket.
        drop(stream);
        let socket = Rc::try_unwrap(socket)
            .map_err(|_| io::Error::other("the socket is read by somebody else"))?;
        let carried = Arc::new(Carried::default());
        shared.has_departed(carried.clone());
        let (wish, wishes) = watch::channel(false);
        let (over, is_over) = oneshot::channel();
        let departure = Departure {
            socket: socket.into_inner().depart()?,
            leftover,
            wishes,
            over,
            carried,
        };
        let stay = Stay {
            draining,
            wishes: wish,
            over: is_over,
        };
        Ok((departure, stay))
    }
}

impl Server {
    /// Goes on with a connection that another server's thread has parted with; `run` is called on a task of this thread. It is not
    /// counted as accepted here, and its limits of time are this server's.
    ///
    /// # Errors
    /// The socket cannot join the runtime; it is closed.
    pub fn adopt(
        &self,
        departure: Departure,
        run: impl FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>> + 'static,
    ) -> io::Result<()> {
        let Departure {
            socket,
            leftover,
            mut wishes,
            over,
            carried,
        } = departure;
        let socket = socket.arrive()?;
        let state = &self.0;
        let shared = Shared::new(None);
        shared.arrives(carried);
        shared.wide.allow(state.config.unsent_watermark);
        let registry = state.registry.clone();
        if registry.enter(&shared, None) {
            (state.spawn)(Box::pin(registry.clone().sweep(state.config.clone())));
        }
        let membership = Membership::new(registry.clone(), shared.clone(), None);
        let takeover: Takeover = Box::new(run);
        (state.spawn)(Box::pin(async move {
            let io = SocketIo::new(socket, shared.clone());
            let orders = async {
                // Closed: the connection is cut where it was accepted.
                while wishes.changed().await.is_ok() {
                    if *wishes.borrow_and_update() {
                        shared.draining.set(true);
                        shared.wake_task();
                    }
                }
            };
            let mut session = pin!(take_over(io, leftover, &shared, &registry, takeover, false));
            let mut orders = pin!(orders);
            poll_fn(|cx| {
                if orders.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                session.as_mut().poll(cx)
            })
            .await;
            // The last bytes are told of before the end is.
            drop(membership);
            drop(over);
        }));
        Ok(())
    }
}
