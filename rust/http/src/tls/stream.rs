//! Bytes in the clear on one side, records on the other.
//!
//! rustls keeps what a connection has to keep: a record that has come in part (a buffer of 4 KiB), and records that the socket did
//! not take. Everything else is lent: bytes go from the socket into one buffer for all connections of the server, are
//! decrypted, and go on to the reader at once, so that an idle connection holds no more than its keys.
//!
//! # The end
//! `poll_shutdown` says `close_notify` before the socket's own end, and so does dropping the stream, as far as that is possible
//! without waiting. A connection that is cut to show that a response is incomplete does neither: only then can a client tell
//! the two ends apart. A client's end without `close_notify` is taken for an end; what HTTP sends has lengths of its own,
//! so nothing that is cut passes for whole.

use std::{
    cell::RefCell,
    io::{self, BufRead, IoSlice, Write},
    mem,
    ops::{Deref, DerefMut},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::h1_io::Socket;
use crate::moved::Departed;
use crate::os::BorrowedFd;

/// Bytes of one read from the socket: two full records.
const READ_BYTES_MAX: usize = 32 * 1024;
/// At least that much is asked for, however little room the reader has: handshake messages and records come whole.
const READ_BYTES_MIN: usize = 4 * 1024;
/// Encrypted bytes that may wait for the socket before writing waits as well.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// The buffer that all TLS connections of a server read into, one after the other.
#[derive(Clone)]
pub(super) struct Scratch(pub(super) Rc<RefCell<Box<[u8]>>>);

thread_local! {
    /// That of streams that have come from other threads.
    static ARRIVED: Scratch = Scratch::new();
}

impl Scratch {
    fn of_thread() -> Self {
        ARRIVED.with(Self::clone)
    }

    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; READ_BYTES_MAX].into())))
    }
}

/// Is there until its stream departs, after which nothing of that is used.
struct There<T>(Option<T>);

impl<T> Deref for There<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the stream has not departed")
    }
}

impl<T> DerefMut for There<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("the stream has not departed")
    }
}

/// A stream that belongs to no thread.
pub(crate) struct DepartedTls {
    io: Departed,
    tls: ServerConnection,
    ahead: Vec<u8>,
    has_more: bool,
    is_closed: bool,
}

/// A socket with TLS on it.
pub(crate) struct TlsStream {
    io: There<Socket>,
    tls: There<ServerConnection>,
    scratch: Scratch,
    /// Read from the socket, and not yet given to rustls because its reader had no more room.
    ahead: Vec<u8>,
    /// Something can be read without the socket.
    has_more: bool,
    /// We said `close_notify`, or must not say it.
    is_closed: bool,
}

impl TlsStream {
    pub(super) fn new(io: Socket, mut tls: ServerConnection, scratch: Scratch) -> Self {
        tls.set_buffer_limit(Some(WAITING_BYTES_MAX));
        Self {
            io: There(Some(io)),
            tls: There(Some(tls)),
            scratch,
            ahead: Vec::new(),
            has_more: false,
            is_closed: false,
        }
    }

    /// Leaves its runtime.
    pub(crate) fn depart(mut self) -> io::Result<DepartedTls> {
        let socket = self.io.0.take().expect("a stream departs once");
        let tls = self.tls.0.take().expect("a stream departs once");
        Ok(DepartedTls {
            io: socket.depart()?,
            tls,
            ahead: mem::take(&mut self.ahead),
            has_more: self.has_more,
            is_closed: self.is_closed,
        })
    }

    /// Joins the runtime of this thread. Those that came so share a buffer as well.
    pub(crate) fn arrive(departed: DepartedTls) -> io::Result<Self> {
        Ok(Self {
            io: There(Some(departed.io.arrive()?)),
            tls: There(Some(departed.tls)),
            scratch: Scratch::of_thread(),
            ahead: departed.ahead,
            has_more: departed.has_more,
            is_closed: departed.is_closed,
        })
    }

    pub(super) fn tls(&self) -> &ServerConnection {
        &self.tls
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }

    /// The close that follows is no regular end, and shows as none.
    pub(crate) fn reset_on_close(&mut self) {
        self.is_closed = true;
        self.io.reset_on_close();
    }

    /// Ready when a read might not block.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_more {
            return Poll::Ready(Ok(()));
        }
        self.io.poll_read_ready(cx)
    }

    /// Reads from the socket and makes handshake of it until that is over.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut nothing = ReadBuf::new(&mut []);
        loop {
            // What we have to say must be said before the client goes on; the rest leaves with the first response.
            if self.tls.is_handshaking() && self.tls.wants_write() {
                ready!(self.poll_push(cx))?;
                continue;
            }
            if !self.tls.is_handshaking() {
                let _ = self.poll_push_all(cx);
                // The first request may have come along.
                self.look_for_more();
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill(cx, &mut nothing))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads from the socket once, and decrypts into `into` as far as there is room. The number of encrypted bytes, 0 at
    /// the socket's end.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let scratch = self.scratch.clone();
        let mut scratch = scratch.0.borrow_mut();
        let room = into.remaining().clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let mut buf = ReadBuf::new(&mut scratch[..room]);
        ready!(self.io.poll_read(cx, &mut buf))?;
        let bytes = buf.filled();
        if bytes.is_empty() {
            self.tls.read_tls(&mut io::empty())?;
            return Poll::Ready(Ok(0));
        }
        self.feed(bytes, into, cx)?;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Decrypts `bytes`, and keeps what there is no room for.
    fn feed(
        &mut self,
        mut bytes: &[u8],
        into: &mut ReadBuf<'_>,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.tls.read_tls(&mut bytes)? == 0 {
                // The peer has said `close_notify`: what comes after it is nothing.
                break;
            }
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The alert tells the peer why, if the socket takes it at once.
                    let _ = self.poll_push_all(cx);
                    self.is_closed = true;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            let taken = self.take_plaintext(into);
            if state.plaintext_bytes_to_read() > taken {
                self.ahead = bytes.to_vec();
                break;
            }
        }
        if self.tls.wants_write() && !self.tls.is_handshaking() {
            // An answer to a change of keys, for instance. If the socket does not take it, it leaves with the next response.
            let _ = self.poll_push_all(cx);
        }
        Ok(())
    }

    /// Moves what is decrypted; returns how much that was.
    fn take_plaintext(&mut self, into: &mut ReadBuf<'_>) -> usize {
        let before = into.filled().len();
        let mut reader = self.tls.reader();
        while into.remaining() > 0 {
            // An error says that there is nothing, or that there never will be.
            let Ok(chunk) = reader.fill_buf() else { break };
            if chunk.is_empty() {
                break;
            }
            let bytes = chunk.len().min(into.remaining());
            into.put_slice(&chunk[..bytes]);
            reader.consume(bytes);
        }
        into.filled().len() - before
    }

    /// The peer has ended its side, and everything before that was read.
    fn is_at_end(&mut self) -> bool {
        match self.tls.reader().fill_buf() {
            Ok(chunk) => chunk.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        }
    }

    /// Notes whether the next read needs the socket: bytes and the end do not.
    fn look_for_more(&mut self) {
        let is_empty = matches!(self.tls.reader().fill_buf(), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.has_more = !is_empty || !self.ahead.is_empty();
    }

    /// Gives the socket some records.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = Out {
            io: &mut self.io,
            cx,
        };
        match self.tls.write_tls(&mut out) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => {
                self.is_closed = true;
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_push_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            ready!(self.poll_push(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts and writes what `encrypt` gives, some or all of `bytes`, until the socket or the buffer takes no more.
    fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        mut encrypt: impl FnMut(&mut rustls::Writer<'_>, usize) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        loop {
            taken += encrypt(&mut self.tls.writer(), taken)?;
            match self.poll_push_all(cx) {
                Poll::Ready(Ok(())) if taken < bytes => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if taken == 0 && bytes > 0 => return Poll::Pending,
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Ready(Ok(taken)),
            }
        }
    }
}

/// The socket as rustls writes to it.
struct Out<'a, 'b> {
    io: &'a mut Socket,
    cx: &'a mut Context<'b>,
}

impl Out<'_, '_> {
    fn done(result: Poll<io::Result<usize>>) -> io::Result<usize> {
        match result {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Out<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::done(self.io.poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::done(self.io.poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        me.take_plaintext(buf);
        if buf.filled().len() == before && !me.ahead.is_empty() {
            let ahead = mem::take(&mut me.ahead);
            me.feed(&ahead, buf, cx)?;
        }
        // A piece of a record may come, or a message of TLS itself: neither is anything to the reader.
        while buf.filled().len() == before && !me.is_at_end() {
            match me.poll_fill(cx, buf) {
                Poll::Ready(filled) => filled?,
                Poll::Pending => {
                    me.has_more = false;
                    return Poll::Pending;
                }
            };
        }
        me.look_for_more();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_encrypt(cx, bytes.len(), |tls, taken| tls.write(&bytes[taken..]))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        // All slices make one run of records: a head and its short body leave as one.
        self.poll_encrypt(cx, bytes, |tls, taken| {
            if taken == 0 {
                return tls.write_vectored(slices);
            }
            let mut before = taken;
            for slice in slices {
                if before < slice.len() {
                    return tls.write(&slice[before..]);
                }
                before -= slice.len();
            }
            Ok(0)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_push_all(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closed {
            self.is_closed = true;
            self.tls.send_close_notify();
        }
        // A socket that does not take it any more is shut down all the same.
        if self.poll_push_all(cx).is_pending() {
            return Poll::Pending;
        }
        self.io.poll_shutdown(cx)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        if self.tls.0.is_none() {
            return;
        }
        // With records waiting, the peer does not read: it would not read this either.
        if self.is_closed || self.tls.wants_write() || self.tls.is_handshaking() {
            return;
        }
        self.tls.send_close_notify();
        let mut record = Vec::new();
        if self.tls.write_tls(&mut record).is_ok() {
            self.io.try_write(&record);
        }
    }
}
