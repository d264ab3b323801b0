//! macOS. Compiled, and not run there.

#![expect(
    unsafe_code,
    reason = "system calls that the standard library does not have"
)]

use std::{
    ffi::CStr,
    fs::File,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use framegate_http::ReceiveWatermark;

use super::{OwnedSocket, socket_option};

/// Flags of a descriptor that cannot be read, whatever its access mode says.
pub(crate) const UNREADABLE: libc::c_int = libc::O_EXEC;

/// What a pipe takes in one piece (`sys/syslimits.h`); not in the libc crate.
pub(crate) const PIPE_BUF: usize = 512;

/// For [`framegate_http::Config::receive_watermark`]. None: the kernel takes marks as large as the whole buffer and does not wake
/// earlier, so a sender that waits for a full segment's room and a reader that waits for the mark would wait for each other.
pub(crate) const RECEIVE_WATERMARK: Option<ReceiveWatermark> = None;

/// `netinet/tcp.h`; not in the libc crate.
const TCP_NOTSENT_LOWAT: libc::c_int = 0x201;
/// `sys/qos.h`; not in the libc crate.
const QOS_CLASS_USER_INITIATED: libc::c_uint = 0x19;

unsafe extern "C" {
    /// `pthread/qos.h`; not in the libc crate.
    fn pthread_set_qos_class_self_np(
        class: libc::c_uint,
        relative_priority: libc::c_int,
    ) -> libc::c_int;
}

/// Monotonic time. The cached clocks (`CLOCK_UPTIME_RAW_APPROX`) are as old as the last switch of threads, and here it is asked
/// because none may come.
#[inline]
pub(crate) fn coarse_now() -> Duration {
    Duration::from_nanos(monotonic_ns())
}

/// `CLOCK_UPTIME_RAW`, which all processes of the machine share: the clock of `time.monotonic_ns()` and of `Instant`.
/// `CLOCK_MONOTONIC` is another one, that goes on while the machine sleeps.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec; the clock exists on every macOS since 10.12.
    unsafe { libc::clock_gettime(libc::CLOCK_UPTIME_RAW, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// `SO_NWRITE`: bytes in the send queue of a socket. Always 0 for Unix sockets, which write straight to the reader's queue.
pub(crate) fn unacknowledged(socket: RawFd) -> Option<u64> {
    // SAFETY: only borrowed for the call, which fails on a descriptor that is closed or no socket; -1 is never given.
    let socket = (socket >= 0).then(|| unsafe { BorrowedFd::borrow_raw(socket) })?;
    let bytes = socket_option(socket, libc::SO_NWRITE).ok()?;
    Some(u64::try_from(bytes).unwrap_or(0))
}

/// `TCP_NOTSENT_LOWAT` (netinet/tcp.h). On a socket of another kind it fails, and nothing changes.
pub(crate) fn set_unsent_watermark(socket: RawFd, bytes: u32) {
    let length = libc::socklen_t::try_from(size_of_val(&bytes)).expect("four bytes");
    // SAFETY: the option is an int of that length. On a descriptor that is closed or no socket the call fails.
    unsafe {
        libc::setsockopt(
            socket,
            libc::IPPROTO_TCP,
            TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            length,
        );
    }
}

/// `sendfile(2)`, which has no position of its own. It fails with `EAGAIN` also when it has sent a part, and says how much.
pub(crate) fn send_file(
    socket: BorrowedFd<'_>,
    file: &File,
    offset: u64,
    bytes: usize,
) -> io::Result<usize> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = libc::off_t::try_from(offset).map_err(too_large)?;
    let mut sent = libc::off_t::try_from(bytes).map_err(too_large)?;
    if sent == 0 {
        // To the call it means all of the file.
        return Ok(0);
    }
    // SAFETY: both descriptors are open, as their types say; `sent` is where the call reads and writes a length; no headers.
    let status = unsafe {
        libc::sendfile(
            file.as_raw_fd(),
            socket.as_raw_fd(),
            offset,
            &raw mut sent,
            std::ptr::null_mut(),
            0,
        )
    };
    if status == 0 {
        return Ok(usize::try_from(sent).unwrap_or(0));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) if sent > 0 => Ok(usize::try_from(sent).unwrap_or(0)),
        // A file system, or a kind of file or socket, that cannot: who called reads and writes instead.
        Some(libc::ENOTSUP | libc::EOPNOTSUPP | libc::ENOTSOCK) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        _ => Err(error),
    }
}

/// The kind of address that a socket has: that of its own name, for there is no `SO_DOMAIN`.
pub(crate) fn socket_family(socket: &OwnedSocket) -> io::Result<libc::c_int> {
    // SAFETY: all zeros is a valid address of no family.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&address)).expect("small");
    // SAFETY: `address` and `length` describe the room; the descriptor is open.
    let status = unsafe {
        libc::getsockname(
            socket.as_raw_fd(),
            (&raw mut address).cast(),
            &raw mut length,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::from(address.ss_family))
}

/// Whether a socket listens. A kernel that does not tell is believed: accepting then fails, and says so.
pub(crate) fn is_listening(socket: &OwnedSocket) -> io::Result<bool> {
    match socket_option(socket.as_fd(), libc::SO_ACCEPTCONN) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(true),
        told => Ok(told? != 0),
    }
}

/// Memory of a process in RAM (`libproc.h`); `None` if there is no such process, or it is another user's.
pub(crate) fn resident_bytes(pid: u64) -> Option<u64> {
    // SAFETY: all zeros is a valid value of this structure of integers.
    let mut task: libc::proc_taskinfo = unsafe { mem::zeroed() };
    let size = libc::c_int::try_from(size_of_val(&task)).ok()?;
    // SAFETY: the call writes at most `size` bytes into the structure.
    let got = unsafe {
        libc::proc_pidinfo(
            libc::c_int::try_from(pid).ok()?,
            libc::PROC_PIDTASKINFO,
            0,
            (&raw mut task).cast(),
            size,
        )
    };
    (got == size).then_some(task.pti_resident_size)
}

/// Bytes that anybody may still write to the file system of a path. `statvfs` counts in 32 bits here.
pub(super) fn available_bytes_of(path: &CStr) -> io::Result<u64> {
    // SAFETY: all zeros is a valid value of this structure of integers.
    let mut found: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: a zero-terminated path and a place for the answer.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(found.f_bavail.saturating_mul(u64::from(found.f_bsize)))
}

/// Tell the scheduler that this thread answers somebody who waits, so that it runs before threads of the usual class. Where it is
/// refused (a policy that somebody chose) everything works as before, only later: so no error is told.
pub(crate) fn short_turns() {
    // SAFETY: takes numbers, and concerns this thread alone.
    let _refused = unsafe { pthread_set_qos_class_self_np(QOS_CLASS_USER_INITIATED, 0) };
}

/// Memory is not moved into larger pages.
pub(crate) fn collapse(_start: usize, _bytes: usize) -> bool {
    false
}
