//! A stream as a stream of bytes: what an extended CONNECT opens (RFC 8441).
//!
//! # Flow control
//! Window is given back for what was read, when it was read: a reader that waits stops the client. Bytes are taken when it is
//! the stream's turn and as far as both windows are open, so a writer waits for the client as over a socket. What was taken is
//! the crate's: a flush has nothing to wait for, it lets other streams pass.
//!
//! # The end
//! Closing our side is `END_STREAM`, and the client's is the end of what can be read. A reset, or the loss of the connection, is
//! an error of whoever reads or writes next. Dropping a tunnel whose client has not ended its side resets the stream.

use std::{
    cell::RefCell,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Streams, outlet::Outlet};
use crate::service::Takeover;

/// What a handler leaves behind when it opens a tunnel.
#[derive(Default)]
pub(crate) struct Opening(RefCell<Option<Takeover>>);

impl Opening {
    pub(crate) fn set(&self, takeover: Takeover) {
        *self.0.borrow_mut() = Some(takeover);
    }

    pub(super) fn take(&self) -> Option<Takeover> {
        self.0.borrow_mut().take()
    }
}

/// Tells one tunnel that the server drains.
pub(crate) struct StreamDraining {
    streams: Rc<Streams>,
    number: u32,
}

impl StreamDraining {
    pub(super) fn new(streams: Rc<Streams>, number: u32) -> Rc<Self> {
        Rc::new(Self { streams, number })
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.streams.shared.is_draining()
    }

    /// Of the connection.
    pub(crate) fn trouble(&self, what: impl fmt::Display) {
        self.streams.shared.trouble(what);
    }

    /// Keeps the waker for when it does.
    pub(crate) fn wait(&self, waker: &Waker) {
        let mut waiting = self.streams.drain_waiters.borrow_mut();
        match waiting.get_mut(&self.number) {
            Some(known) => known.clone_from(waker),
            None => drop(waiting.insert(self.number, waker.clone())),
        }
    }
}

impl Drop for StreamDraining {
    fn drop(&mut self) {
        self.streams.drain_waiters.borrow_mut().remove(&self.number);
    }
}

/// The stream, once its response has opened it.
pub(super) struct Tunnel {
    streams: Rc<Streams>,
    incoming: RecvStream,
    /// Until our side is closed.
    outlet: Option<Outlet>,
    /// Came, and was not read.
    unread: Bytes,
    /// The client has reset the stream, which was counted.
    lost: bool,
}

impl Tunnel {
    pub(super) fn new(streams: Rc<Streams>, incoming: RecvStream, outlet: Outlet) -> Self {
        Self {
            streams,
            incoming,
            outlet: Some(outlet),
            unread: Bytes::new(),
            lost: false,
        }
    }

    fn lose(&mut self, kind: io::ErrorKind) -> io::Error {
        if !self.lost {
            self.lost = true;
            self.streams.count_reset();
        }
        kind.into()
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if !me.unread.is_empty() {
                let count = buf.remaining().min(me.unread.len());
                buf.put_slice(&me.unread[..count]);
                me.unread.advance(count);
                // Fails when the stream is over, and then nobody needs the window.
                let _ = me.incoming.flow_control().release_capacity(count);
                continue;
            }
            match me.incoming.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => me.unread = data,
                // What came before is read before the end or the error, which comes again.
                _ if buf.filled().len() > before => break,
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Err(me.lose(io::ErrorKind::ConnectionReset)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(outlet) = &mut me.outlet else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let room = match outlet.poll_room(cx, bytes.len()) {
            Poll::Pending if !outlet.is_reset(cx) => return Poll::Pending,
            Poll::Pending => 0,
            Poll::Ready(room) => room,
        };
        let piece = Bytes::copy_from_slice(&bytes[..room.min(bytes.len())]);
        let count = piece.len();
        if count == 0 || !outlet.send(piece, false) {
            return Poll::Ready(Err(me.lose(io::ErrorKind::BrokenPipe)));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(outlet) = &self.outlet {
            outlet.step_aside();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(mut outlet) = self.outlet.take() {
            if outlet.stream.send_data(Bytes::new(), true).is_err() {
                outlet.leave();
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            outlet.finish(false);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(outlet) = &mut self.outlet {
            outlet.leave();
        }
    }
}
