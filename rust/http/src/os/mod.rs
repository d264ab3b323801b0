//! What systems do differently, in one place. On Linux each of these is the system call that it says; `macos.rs` is compiled for
//! macOS and has not run there.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("framegate runs on Linux; there is code for macOS, and none for other systems");
