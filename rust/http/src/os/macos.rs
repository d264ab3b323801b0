//! macOS. Compiled, and not run there.

use std::{
    fs::File,
    io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::{fs::OFlags, io::Errno};

/// Of a directory in which names are looked up. There is no `O_PATH`: a directory that may be searched but not listed is not opened.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// There is no `openat2`: names are walked segment by segment, and no symbolic link is followed.
pub(crate) fn open_beneath(
    _directory: &OwnedFd,
    _name: &[u8],
    _flags: OFlags,
    _cached: bool,
) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

/// Device of a status, as the standard library has it: negative ones are extended.
#[expect(clippy::cast_sign_loss, reason = "as `MetadataExt::dev`")]
pub(crate) fn device(status: &rustix::fs::Stat) -> u64 {
    status.st_dev as u64
}

/// Nothing tells whether bytes of a file are in memory, so a thread of the pool reads them always.
pub(crate) fn read_now(_file: &File, _offset: u64, _into: &mut [u8]) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// `TCP_NOPUSH` would hold back bytes beyond its end: clearing it does not send what waits. A head and the file behind it are two
/// segments.
pub(crate) fn set_cork(_socket: impl AsFd, _is_corked: bool) {}

/// There is no `TCP_USER_TIMEOUT`, and its relative `TCP_RXT_CONNDROPTIME` has no safe interface: the kernel resends to a
/// peer that is gone for as long as it likes to. `Timeouts::write` still ends connections that the server knows to be stuck.
pub(crate) fn set_unacknowledged_timeout(_listener: &TcpListener, _timeout: Duration) {}

/// Nanoseconds since the first call, by the clock of `Instant`. `CLOCK_MONOTONIC` of macOS goes on while the machine sleeps, and that
/// of `Instant`, of Python and of tokio's timers does not: only like clocks stay at the same distance of each other.
pub(crate) fn monotonic_ns() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let elapsed = BEGIN.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
