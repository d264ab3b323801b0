//! What Linux and macOS have both.

#![expect(
    unsafe_code,
    reason = "system calls that the standard library does not have"
)]

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::Path,
    ptr::{self, NonNull},
    task::{Context, Poll, ready},
};

use framegate_http::{Listener, SendFile, Unacknowledged, config::UnsentWatermark};
use pyo3::prelude::*;
use tokio::io::{Interest, unix::AsyncFd};

pub(crate) use std::os::{
    fd::{OwnedFd as OwnedSocket, RawFd as Number},
    unix::{fs::FileExt, net::UnixStream as WakeStream},
};

/// For [`framegate_http::Config::send_file`].
pub(crate) const SEND_FILE: Option<SendFile> = Some(super::send_file);

/// For [`framegate_http::Config::give_back`].
pub(crate) const GIVE_BACK: Option<fn()> = Some(crate::allocator::give_back);
/// For [`framegate_http::Config::unacknowledged`].
pub(crate) const UNACKNOWLEDGED: Option<Unacknowledged> = Some(super::unacknowledged);

/// For [`framegate_http::Config::unsent_watermark`].
pub(crate) const UNSENT_WATERMARK: Option<UnsentWatermark> = Some(super::set_unsent_watermark);

/// The number of a socket, as Python has it.
pub(crate) fn number(socket: &impl AsRawFd) -> Number {
    socket.as_raw_fd()
}

/// What the first two words of an `OSError` are.
pub(crate) fn oserror_words(number: i32, reason: String) -> (i32, String) {
    (number, reason)
}

/// What is wrong with a directory that was to be a file.
pub(crate) fn is_a_directory() -> io::Error {
    io::Error::from_raw_os_error(libc::EISDIR)
}

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

/// Whether a socket is one of streams.
pub(crate) fn is_stream(socket: &OwnedSocket) -> io::Result<bool> {
    Ok(socket_option(socket.as_fd(), libc::SO_TYPE)? == libc::SOCK_STREAM)
}

/// A socket that listens, as what it is; the kind of its address when that is none that is served.
pub(crate) fn listener_of(socket: OwnedSocket) -> io::Result<Result<Listener, libc::c_int>> {
    Ok(match super::socket_family(&socket)? {
        libc::AF_INET | libc::AF_INET6 => Ok(std::net::TcpListener::from(socket).into()),
        libc::AF_UNIX => Ok(std::os::unix::net::UnixListener::from(socket).into()),
        family => Err(family),
    })
}

/// A descriptor of Python's, duplicated.
pub(crate) fn duplicate(fd: i32) -> io::Result<OwnedSocket> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: borrowed for this call, in which the caller holds it; a number that is not open fails in the kernel.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

/// The same of a file.
pub(crate) fn duplicate_file(_py: Python<'_>, fd: i32) -> io::Result<File> {
    duplicate(fd).map(File::from)
}

/// A descriptor that Python gives away.
///
/// # Safety
/// It belongs to nobody else, if it is open.
///
/// # Errors
/// It is not open.
pub(crate) unsafe fn given(fd: i32) -> io::Result<OwnedSocket> {
    // SAFETY: looks whether the descriptor is open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, and the caller's to give away.
    Ok(unsafe { OwnedSocket::from_raw_fd(fd) })
}

/// A descriptor that tokio watches for something to read. It tells once; then there has to come more.
pub(crate) struct Watched<T: AsRawFd>(AsyncFd<T>);

impl<T: AsRawFd> Watched<T> {
    /// Watched by the runtime that runs.
    ///
    /// # Safety
    /// The descriptor stays open, and the same, as long as `of` lives.
    pub(crate) unsafe fn new(of: T) -> io::Result<Self> {
        // SAFETY: as the caller promises; the `AsyncFd` owns `of`.
        let watched = unsafe { AsyncFd::register_with_interest(of, Interest::READABLE) };
        watched.map(Self).map_err(Into::into)
    }

    pub(crate) fn get_ref(&self) -> &T {
        self.0.get_ref()
    }

    /// Ready when something has come. An error: the runtime is shutting down.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// The same, to be awaited.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

/// The end of the pair for signals that is watched. Owned by `signals.rs`, which keeps it open.
pub(crate) struct SignalFd(pub(crate) Number);

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> Number {
        self.0
    }
}

/// A pair of sockets, neither of which blocks: what is written to the second one is read from the first.
pub(crate) fn wake_pair() -> io::Result<(WakeStream, WakeStream)> {
    let (reader, writer) = WakeStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    Ok((reader, writer))
}

/// What there is to read, at once; `None` when there is nothing.
pub(crate) fn read_wakes(reader: &WakeStream, into: &mut [u8]) -> Option<usize> {
    // SAFETY: the buffer is writable for its length; the descriptor is open.
    let count = unsafe { libc::read(reader.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(count).ok()
}

/// Writes to a descriptor that is somebody else's, non-blocking as `set_wakeup_fd` demands; if it was closed or is full, its owner
/// loses bytes.
pub(crate) fn pass_on(to: Number, bytes: &[u8]) {
    // SAFETY: the buffer is valid for its length; the kernel checks the number.
    let _lost = unsafe { libc::write(to, bytes.as_ptr().cast(), bytes.len()) };
}

/// Has a function called in forked children.
///
/// # Safety
/// It neither allocates nor locks: it may run in a copy of a process with many threads.
pub(crate) unsafe fn at_fork(in_child: unsafe extern "C" fn()) {
    // SAFETY: as the caller promises.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

/// Call `f` with all signals blocked; a thread made by it keeps them so.
pub(crate) fn without_signals<R>(f: impl FnOnce() -> R) -> R {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are written by the calls before they are read; the mask of this thread only is changed.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = f();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

/// Maps a file of Python's for reading and writing, shared with other processes: where, and how many bytes.
pub(crate) fn map_shared(_py: Python<'_>, fd: i32) -> io::Result<(NonNull<u8>, usize)> {
    // SAFETY: all zeros is a valid `stat`; fstat fills it or fails; the kernel checks the number.
    let (status, result) = unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        let result = libc::fstat(fd, &raw mut status);
        (status, result)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let length = usize::try_from(status.st_size).unwrap_or(0);
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. An empty file is
    // refused by the kernel (EINVAL).
    let start = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, fd, 0)
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = NonNull::new(start.cast()).expect("mmap gives no null without MAP_FIXED");
    Ok((start, length))
}

/// Undoes [`map_shared`].
///
/// # Safety
/// It is what that gave, and nobody uses it any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, length: usize) {
    // SAFETY: as the caller promises.
    unsafe { libc::munmap(start.as_ptr().cast(), length) };
}

/// Opens a file to be read. Without blocking: whoever names a pipe gets an error and not a server that stands still.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Whether a file is open for reading.
pub(crate) fn is_readable(file: &File) -> bool {
    // SAFETY: asks for the flags of an open descriptor.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    flags & libc::O_ACCMODE != libc::O_WRONLY && flags & super::UNREADABLE == 0
}

/// Waits until a file that would block takes more. Errors show in the next write.
pub(crate) fn wait_writable(file: &File) {
    let mut wait = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one pollfd, valid for the call.
    unsafe { libc::poll(&raw mut wait, 1, -1) };
}

/// Device and number of a file: what has its name later is another one.
pub(crate) fn identity_of(path: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Bytes that anybody may still write to the file system of a path.
pub(crate) fn available_bytes(path: &Path) -> io::Result<u64> {
    super::available_bytes_of(&CString::new(path.as_os_str().as_bytes())?)
}

/// Sends without waiting; false when nobody is there, or nobody reads.
pub(crate) fn send_now(socket: &OwnedSocket, bytes: &[u8]) -> bool {
    // SAFETY: the bytes are valid for the call; the descriptor is open.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    sent > 0
}

/// Takes a byte, or a message, that is there.
pub(crate) fn take_now(socket: &OwnedSocket) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte of room; the descriptor is open.
    let got = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            (&raw mut byte).cast(),
            1,
            libc::MSG_DONTWAIT,
        )
    };
    got > 0
}

/// Writes a text to standard error and sends this process a signal, unless writing would wait for a reader.
pub(crate) fn tell_and_signal(text: &str, signal: i32) {
    let mut room = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: plain system calls on memory of this frame. The handler of the signal is faulthandler's; whoever took it
    // away since gets a signal that it asked for. Nothing is written where that would wait for a reader.
    unsafe {
        if libc::poll(&raw mut room, 1, 0) == 1 && room.revents & libc::POLLOUT != 0 {
            libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
            libc::kill(libc::getpid(), signal);
        }
    }
}

/// Whether the parent of this process is still that one.
pub(crate) fn is_parent(pid: i32) -> bool {
    // SAFETY: it cannot fail.
    unsafe { libc::getppid() == pid }
}

/// Ends the process without running anything of it; whatever it is stuck in may hold any lock.
pub(crate) fn end_process() -> ! {
    // SAFETY: nothing of the process runs after it.
    unsafe { libc::_exit(1) }
}

/// Asks which pages of so much memory are in RAM: a byte for each, whose lowest bit says so. False if that cannot be known.
pub(crate) fn resident_pages(start: usize, bytes: usize, pages: &mut [u8]) -> bool {
    assert!(pages.len() >= bytes / 4096);
    // SAFETY: the kernel writes a byte per page into `pages`, and looks at no memory of the window; an address that is not
    // mapped any more is an error.
    let status = unsafe {
        libc::mincore(
            ptr::without_provenance_mut(start),
            bytes,
            pages.as_mut_ptr().cast(),
        )
    };
    status == 0
}
