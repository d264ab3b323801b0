//! Linux.

#![expect(
    unsafe_code,
    reason = "system calls that the standard library does not have"
)]

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use framegate_http::ReceiveWatermark;

use super::{OwnedSocket, socket_option};

/// Flags of a descriptor that cannot be read, whatever its access mode says.
pub(crate) const UNREADABLE: libc::c_int = libc::O_PATH;

/// What a pipe takes in one piece (pipe(7)).
pub(crate) const PIPE_BUF: usize = libc::PIPE_BUF;

/// For [`framegate_http::Config::receive_watermark`].
pub(crate) const RECEIVE_WATERMARK: Option<ReceiveWatermark> = Some(set_receive_watermark);

/// Nanoseconds that a thread of [`short_turns`] wants at a time. The shortest that Linux takes (kernel/sched/syscalls.c, `__setscheduler_params`).
const SLICE_NS: u64 = 100_000;

/// `linux/mman.h`; not in the libc crate.
const MADV_COLLAPSE: libc::c_int = 25;

/// Policies whose threads share a core by weight.
const ORDINARY: [u32; 2] = [
    libc::SCHED_OTHER.cast_unsigned(),
    libc::SCHED_BATCH.cast_unsigned(),
];

/// Monotonic time, exact to a few milliseconds, in a few nanoseconds.
#[inline]
pub(crate) fn coarse_now() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec; the clock exists on every Linux since 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// `CLOCK_MONOTONIC`, which all processes of the machine share.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// `SIOCOUTQ` (tcp(7), unix(7)): bytes in the send queue of a socket.
pub(crate) fn unacknowledged(socket: RawFd) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int. On a descriptor that is closed or no socket it fails.
    let status = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut bytes) };
    (status == 0).then(|| u64::try_from(bytes).unwrap_or(0))
}

/// `TCP_NOTSENT_LOWAT` (linux/tcp.h). On a socket of another kind it fails, and nothing changes.
pub(crate) fn set_unsent_watermark(socket: RawFd, bytes: u32) {
    let length = libc::socklen_t::try_from(size_of_val(&bytes)).expect("four bytes");
    // SAFETY: the option is an unsigned int of that length. On a descriptor that is closed or no socket the call fails.
    unsafe {
        libc::setsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            length,
        );
    }
}

/// `SO_RCVLOWAT` (socket(7)). The kernel bounds it by half of the largest receive buffer, and wakes earlier when that is full.
fn set_receive_watermark(socket: BorrowedFd<'_>, bytes: usize) {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four bytes");
    // SAFETY: the descriptor is open, as its type says, and the option is an int of that length.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            length,
        );
    }
}

/// `sendfile(2)` at an offset of its own, which leaves the position of the file alone.
pub(crate) fn send_file(
    socket: BorrowedFd<'_>,
    file: &File,
    offset: u64,
    bytes: usize,
) -> io::Result<usize> {
    let mut offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: both descriptors are open, as their types say; `offset` is where the call reads and writes it.
    let sent =
        unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, bytes) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// The kind of address that a socket has.
pub(crate) fn socket_family(socket: &OwnedSocket) -> io::Result<libc::c_int> {
    socket_option(socket.as_fd(), libc::SO_DOMAIN)
}

/// Whether a socket listens.
pub(crate) fn is_listening(socket: &OwnedSocket) -> io::Result<bool> {
    Ok(socket_option(socket.as_fd(), libc::SO_ACCEPTCONN)? != 0)
}

/// Memory of a process in RAM (`proc_pid_statm(5)`); `None` if there is no such process.
pub(crate) fn resident_bytes(pid: u64) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page_bytes().ok()?)
}

fn page_bytes() -> io::Result<u64> {
    // SAFETY: takes a number, gives a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).map_err(|_| io::Error::last_os_error())
}

/// Bytes that anybody may still write to the file system of a path.
pub(super) fn available_bytes_of(path: &CStr) -> io::Result<u64> {
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a zero-terminated path and a place for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: written on success.
    let found = unsafe { found.assume_init() };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Tell the scheduler that this thread works in short turns, so that it runs as soon as it wakes up.
///
/// Since Linux 6.12 an ordinary thread may choose its slice (`sched_runtime`, Documentation/scheduler/sched-eevdf.rst). Its share of the
/// core stays the same, but a thread with a shorter slice has the earlier deadline and takes the core from one with a longer: without it a
/// thread that wakes beside a busy one waits for that one's slice to end. No privilege is needed. Older kernels ignore it, and wherever it
/// is refused (a seccomp filter, a real-time policy that somebody chose) everything works as before, only later: so no error is told.
pub(crate) fn short_turns() {
    // SAFETY: zeros are a valid value of this structure of integers.
    let mut wanted: libc::sched_attr = unsafe { mem::zeroed() };
    #[expect(clippy::cast_possible_truncation, reason = "48")]
    let size = size_of::<libc::sched_attr>() as u32;
    // Niceness and flags of the thread are kept.
    // SAFETY: the kernel writes at most `size` bytes into the structure.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut wanted, size, 0) };
    if read != 0 || !ORDINARY.contains(&wanted.sched_policy) {
        return;
    }
    wanted.size = size;
    wanted.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads `size` bytes of the structure.
    let _refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
}

/// Asks for so much memory, from an address on, to be one page; true if it is.
pub(crate) fn collapse(start: usize, bytes: usize) -> bool {
    // SAFETY: moves the memory to another place behind the same addresses. What it holds, and who may use it, stays as it is,
    // whatever other threads do meanwhile; an address that is not mapped any more is an error.
    let status = unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(start),
            bytes,
            MADV_COLLAPSE,
        )
    };
    status == 0
}
