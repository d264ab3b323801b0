//! Linux.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::{Errno, ReadWriteFlags, preadv2},
    net::sockopt::set_tcp_cork,
    time::{ClockId, clock_gettime},
};
use socket2::SockRef;

/// Of a directory in which names are looked up.
pub(crate) const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens what has that name below the directory. `cached` fails with `AGAIN` when that may take the disk.
pub(crate) fn open_beneath(
    directory: &OwnedFd,
    name: &[u8],
    flags: OFlags,
    cached: bool,
) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if cached {
        resolve |= ResolveFlags::CACHED;
    }
    openat2(directory, name, flags, Mode::empty(), resolve)
}

/// Device of a status, as the standard library has it.
pub(crate) fn device(status: &rustix::fs::Stat) -> u64 {
    status.st_dev
}

/// Reads what the kernel has in memory, from `offset` on; 0 at the end of the file.
///
/// # Errors
/// `WouldBlock` when it is not in memory, or when that cannot be known.
pub(crate) fn read_now(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    preadv2(
        file,
        &mut [IoSliceMut::new(into)],
        offset,
        ReadWriteFlags::NOWAIT,
    )
    .map_err(|error| {
        let error = io::Error::from(error);
        match error.kind() {
            // Not every file system can.
            io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => {
                io::ErrorKind::WouldBlock.into()
            }
            _ => error,
        }
    })
}

/// While it is set, the kernel waits for more before it sends a segment that is not full.
pub(crate) fn set_cork(socket: impl AsFd, is_corked: bool) {
    let _ = set_tcp_cork(socket, is_corked);
}

/// How long connections of a listener may have bytes that are not acknowledged, before they count as broken.
pub(crate) fn set_unacknowledged_timeout(listener: &TcpListener, timeout: Duration) {
    let _ = SockRef::from(listener).set_tcp_user_timeout(Some(timeout));
}

/// Nanoseconds of `CLOCK_MONOTONIC`. `Instant` would ask the same clock and then compute: three times as much for each look.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
