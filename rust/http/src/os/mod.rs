//! What systems do differently, in one place. On Linux each of these is the system call that it says; `macos.rs` and `windows.rs` are
//! compiled for these systems and have not run there. `unix.rs` is what Linux and macOS have both.

/// Of sockets: on Windows these are its `SOCKET`, which are no file descriptors, by the names of the others.
pub(crate) use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::*;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::*;

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
compile_error!(
    "framegate runs on Linux; there is code for macOS and Windows, and none for other systems"
);
