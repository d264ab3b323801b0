//! A descriptor that becomes readable once, and stays so.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

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
#[cfg(not(target_os = "linux"))]
pub(crate) struct Bell(OwnedFd, OwnedFd);

#[cfg(not(target_os = "linux"))]
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

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
