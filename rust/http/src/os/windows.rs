//! Windows. Compiled, and not run there; the crate's tests ran under Wine (docs/decisions/0003-build.md).

use std::{
    fs::{File, Metadata},
    io,
    net::TcpListener,
    os::windows::{
        fs::{FileExt as _, MetadataExt},
        io::{AsSocket, BorrowedSocket},
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::{AsFd, RawFd};

/// The number of no socket (`INVALID_SOCKET`).
pub(crate) const NO_SOCKET: RawFd = RawFd::MAX;

/// Nothing tells whether bytes of a file are in memory, so a thread of the pool reads them always.
pub(crate) fn read_now(_file: &File, _offset: u64, _into: &mut [u8]) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// There is no `TCP_CORK`: a head and the file behind it are two segments.
pub(crate) fn set_cork(_socket: impl AsFd, _is_corked: bool) {}

/// There is no `TCP_USER_TIMEOUT`, and `TCP_MAXRT` has no safe interface: the system resends to a peer that is gone for as long as it
/// likes to. `Timeouts::write` still ends connections that the server knows to be stuck.
pub(crate) fn set_unacknowledged_timeout(_listener: &TcpListener, _timeout: Duration) {}

/// Nanoseconds since the first call, by the clock of `Instant` and of tokio's timers.
pub(crate) fn monotonic_ns() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let elapsed = BEGIN.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Between 1601, from which Windows counts, and 1970: in its units of 100 ns.
const UNIX_EPOCH: i128 = 116_444_736_000_000_000;

/// When the content of a file was changed, in nanoseconds since 1970.
pub(crate) fn modified_ns(metadata: &Metadata) -> i128 {
    (i128::from(metadata.last_write_time()) - UNIX_EPOCH) * 100
}

/// What identifies the present state of a file without reading it. The standard library tells neither the volume nor the number of a
/// file, so one that took the place of another is known by its times and its size only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    bytes: u64,
    created: u64,
    modified: u64,
}

impl FileStamp {
    pub(crate) fn of(about: &Metadata) -> Self {
        Self {
            bytes: about.file_size(),
            created: about.creation_time(),
            modified: about.last_write_time(),
        }
    }
}

/// The path that a peer has written as bytes.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// Nothing is there, or nothing that is served.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
}

/// The part of `std::os::unix::fs::FileExt` that is used. Windows moves the position of the file; nobody goes by it.
pub(crate) trait FileExt {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    fn read_exact_at(&self, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !into.is_empty() {
            match self.read_at(into, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    into = &mut into[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl FileExt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.seek_read(into, offset)
    }
}

/// tokio has no Unix sockets here. The types of them are this one, of which there is no value: so what would be done with
/// one need not be left out anywhere.
#[derive(Debug)]
pub enum NoUnixSocket {}

pub(crate) use NoUnixSocket as StdUnixListener;
pub(crate) use NoUnixSocket as StdUnixStream;
pub(crate) use NoUnixSocket as UnixListener;
pub(crate) use NoUnixSocket as UnixStream;
pub(crate) use NoUnixSocket as UnixAddress;

impl NoUnixSocket {
    #[expect(clippy::needless_pass_by_value, reason = "as tokio's")]
    pub(crate) fn from_std(socket: Self) -> io::Result<Self> {
        match socket {}
    }

    pub(crate) fn into_std(self) -> io::Result<Self> {
        match self {}
    }

    pub(crate) fn set_nonblocking(&self, _is: bool) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn poll_accept(&self, _cx: &mut Context<'_>) -> Poll<io::Result<(Self, Self)>> {
        match *self {}
    }

    pub(crate) fn peer_addr(&self) -> io::Result<Self> {
        match *self {}
    }

    pub(crate) fn local_addr(&self) -> io::Result<Self> {
        match *self {}
    }

    pub(crate) fn as_pathname(&self) -> Option<&Path> {
        match *self {}
    }

    pub(crate) fn poll_read_ready(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    pub(crate) fn poll_write_ready(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    pub(crate) fn try_io<R>(
        &self,
        _interest: Interest,
        _call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match *self {}
    }

    pub(crate) fn try_write(&self, _bytes: &[u8]) -> io::Result<usize> {
        match *self {}
    }
}

impl AsSocket for NoUnixSocket {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        match *self {}
    }
}

impl AsyncRead for NoUnixSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match *self {}
    }
}

impl AsyncWrite for NoUnixSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}
