//! A descriptor that becomes readable once, and stays so.

use std::io;
#[cfg(windows)]
use std::net::TcpStream;

#[cfg(unix)]
use rustix::fd::OwnedFd;
use rustix::fd::{AsFd, BorrowedFd};

/// Rings once. Nobody reads it: who waits for it looks whether it is readable.
#[cfg(target_os = "linux")]
pub(crate) struct Bell(OwnedFd);

#[cfg(target_os = "linux")]
impl Bell {
    /// # Errors
    /// The system gives no descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    pub(crate) fn ring(&self) {
        // Fails only when its number is full, and then it rings.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// The same of a pipe, where there is no `eventfd`. Compiled for macOS and not run there.
#[cfg(target_os = "macos")]
pub(crate) struct Bell(OwnedFd, OwnedFd);

#[cfg(target_os = "macos")]
impl Bell {
    /// # Errors
    /// The system gives no descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self(reader.into(), writer.into()))
    }

    pub(crate) fn ring(&self) {
        // A pipe takes its first byte without waiting.
        let _ = rustix::io::write(&self.1, b"!");
    }
}

/// The same of a pair of sockets: Windows can wait for nothing else beside a socket. Compiled for it and not run there.
#[cfg(windows)]
pub(crate) struct Bell(TcpStream, TcpStream);

#[cfg(windows)]
impl Bell {
    /// # Errors
    /// The system gives no socket, or somebody else came first.
    pub(crate) fn new() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        let reader = TcpStream::connect(listener.local_addr()?)?;
        let (writer, peer) = listener.accept()?;
        if peer != reader.local_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Self(reader, writer))
    }

    pub(crate) fn ring(&self) {
        // A socket takes its first byte without waiting.
        let _ = io::Write::write(&mut &self.1, b"!");
    }
}

impl Bell {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
