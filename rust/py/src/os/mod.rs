//! What systems do differently, in one place; the selector has its own (`selector/`). On Linux each of these is the system call
//! that it says; `macos.rs` and `windows.rs` are compiled for these systems and have not run there. `unix.rs` is what Linux and macOS
//! have both.

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
