//! What systems do differently, in one place; the selector has its own (`selector/`). On Linux each of these is the system call
//! that it says; `macos.rs` is compiled for macOS and has not run there.

#![expect(unsafe_code, reason = "a system call that is the same on all")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;

/// An option of a socket that is a number.
pub(crate) fn socket_option(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four bytes");
    // SAFETY: `value` and `length` describe an int; the descriptor is open.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}
