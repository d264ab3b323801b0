//! Windows. Compiled, and not run there.
//!
//! Two kinds of numbers come from Python: those of sockets, which are the system's, and those of files, which only the C library of that
//! Python knows; so Python is asked for what is behind them ([`duplicate_file`]).

#![expect(
    unsafe_code,
    reason = "system calls that the standard library does not have"
)]

use std::{
    fs::{File, OpenOptions},
    io,
    mem::{self, ManuallyDrop},
    net::{Ipv4Addr, TcpListener},
    os::windows::{
        ffi::OsStrExt,
        fs::{FileExt as _, OpenOptionsExt},
        io::{
            AsRawHandle, AsRawSocket, BorrowedHandle, BorrowedSocket, FromRawHandle, FromRawSocket,
            OwnedHandle, RawHandle, RawSocket,
        },
    },
    path::Path,
    ptr::{self, NonNull},
    sync::OnceLock,
    task::{Context, Poll, ready},
    time::Duration,
};

use framegate_http::{
    Listener, ReceiveWatermark, SendFile, Unacknowledged, config::UnsentWatermark,
};
use pyo3::{intern, prelude::*};
use tokio::io::Interest;
use windows_sys::Win32::{
    Foundation::{ERROR_INVALID_PARAMETER, FALSE, WAIT_TIMEOUT},
    Networking::WinSock::{
        AF_INET, AF_INET6, SO_ACCEPTCONN, SO_TYPE, SOCK_STREAM, SOCKADDR_STORAGE, SOCKET,
        SOL_SOCKET, getsockname, getsockopt, send,
    },
    Storage::FileSystem::{
        BY_HANDLE_FILE_INFORMATION, FILE_FLAG_BACKUP_SEMANTICS, FILE_TYPE_DISK,
        GetDiskFreeSpaceExW, GetFileInformationByHandle, GetFileType,
    },
    System::{
        Memory::{
            CreateFileMappingW, FILE_MAP_READ, FILE_MAP_WRITE, MEMORY_MAPPED_VIEW_ADDRESS,
            MapViewOfFile, PAGE_READWRITE, UnmapViewOfFile,
        },
        Performance::{QueryPerformanceCounter, QueryPerformanceFrequency},
        ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS},
        Threading::{
            GetCurrentProcess, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE,
            TerminateProcess, WaitForSingleObject,
        },
    },
};

pub(crate) use std::{net::TcpStream as WakeStream, os::windows::io::OwnedSocket};

/// The number of a socket as Python has it; -1 is none.
pub(crate) type Number = i64;

/// What is written to a log in one piece: pipes take any number of bytes so.
pub(crate) const PIPE_BUF: usize = 4096;

/// For [`framegate_http::Config::receive_watermark`]. Winsock has no `SO_RCVLOWAT`.
pub(crate) const RECEIVE_WATERMARK: Option<ReceiveWatermark> = None;

/// For [`framegate_http::Config::send_file`]. `TransmitFile` waits, or wants a completion port of its own: files are read like any data.
pub(crate) const SEND_FILE: Option<SendFile> = None;

/// For [`framegate_http::Config::give_back`]. All memory is the system's: zig, which checks this, has not what mimalloc asks for.
pub(crate) const GIVE_BACK: Option<fn()> = None;
/// For [`framegate_http::Config::unacknowledged`]. Nothing tells it: only writes count as progress.
pub(crate) const UNACKNOWLEDGED: Option<Unacknowledged> = None;

/// For [`framegate_http::Config::unsent_watermark`]. There is no `TCP_NOTSENT_LOWAT`.
pub(crate) const UNSENT_WATERMARK: Option<UnsentWatermark> = None;

/// Monotonic time. The cheap clock (`GetTickCount64`) goes in steps of 16 ms.
#[inline]
pub(crate) fn coarse_now() -> Duration {
    Duration::from_nanos(monotonic_ns())
}

/// The performance counter, which all processes of the machine share: the clock of `Instant`, and from Python 3.13 on that of
/// `time.monotonic_ns()`.
pub(crate) fn monotonic_ns() -> u64 {
    static FREQUENCY: OnceLock<u64> = OnceLock::new();
    let frequency = *FREQUENCY.get_or_init(|| {
        let mut frequency = 0;
        // SAFETY: `frequency` is a place for a number; the call does not fail since Windows XP.
        unsafe { QueryPerformanceFrequency(&raw mut frequency) };
        frequency.unsigned_abs().max(1)
    });
    let mut now = 0;
    // SAFETY: as above.
    unsafe { QueryPerformanceCounter(&raw mut now) };
    let ns = u128::from(now.unsigned_abs()) * 1_000_000_000 / u128::from(frequency);
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// The number of a socket, as Python has it.
pub(crate) fn number(socket: &impl AsRawSocket) -> Number {
    // `INVALID_SOCKET` becomes -1.
    socket.as_raw_socket().cast_signed()
}

fn socket_of(number: i64) -> RawSocket {
    number.cast_unsigned()
}

/// What the first words of an `OSError` are: Python makes the `errno` of the last one.
pub(crate) fn oserror_words(number: i32, reason: String) -> (i32, String, Option<String>, i32) {
    (0, reason, None, number)
}

/// What is wrong with a directory that was to be a file.
pub(crate) fn is_a_directory() -> io::Error {
    io::ErrorKind::IsADirectory.into()
}

/// An option of a socket that is a number.
fn socket_option(socket: RawSocket, option: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut length = i32::try_from(size_of::<i32>()).expect("four bytes");
    // SAFETY: `value` and `length` describe an int; the system checks the socket.
    let status = unsafe {
        getsockopt(
            socket as SOCKET,
            SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

/// Whether a socket is one of streams.
pub(crate) fn is_stream(socket: &OwnedSocket) -> io::Result<bool> {
    Ok(socket_option(socket.as_raw_socket(), SO_TYPE)? == SOCK_STREAM)
}

/// Whether a socket listens.
pub(crate) fn is_listening(socket: &OwnedSocket) -> io::Result<bool> {
    Ok(socket_option(socket.as_raw_socket(), SO_ACCEPTCONN)? & 0xff != 0)
}

/// A socket that listens, as what it is; the kind of its address when that is none that is served (there are no Unix sockets).
pub(crate) fn listener_of(socket: OwnedSocket) -> io::Result<Result<Listener, i32>> {
    // SAFETY: all zeros is a valid address of no family.
    let mut address: SOCKADDR_STORAGE = unsafe { mem::zeroed() };
    let mut length = i32::try_from(size_of_val(&address)).expect("small");
    // SAFETY: `address` and `length` describe the room; the socket is open.
    let status = unsafe {
        getsockname(
            socket.as_raw_socket() as SOCKET,
            (&raw mut address).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match address.ss_family {
        AF_INET | AF_INET6 => Ok(TcpListener::from(socket).into()),
        family => Err(family.into()),
    })
}

/// A socket of Python's, duplicated.
pub(crate) fn duplicate(number: i32) -> io::Result<OwnedSocket> {
    // It fails for what is none.
    socket_option(socket_of(number.into()), SO_TYPE)?;
    // SAFETY: borrowed for this call, in which the caller holds it.
    unsafe { BorrowedSocket::borrow_raw(socket_of(number.into())) }.try_clone_to_owned()
}

/// A file of Python's, duplicated.
pub(crate) fn duplicate_file(py: Python<'_>, fd: i32) -> io::Result<File> {
    let handle = py
        .import(intern!(py, "msvcrt"))
        .and_then(|msvcrt| msvcrt.call_method1(intern!(py, "get_osfhandle"), (fd,)))
        .and_then(|handle| handle.extract::<isize>())
        .map_err(|error| io::Error::other(error.to_string()))?;
    let handle: RawHandle = ptr::with_exposed_provenance_mut(handle.cast_unsigned());
    // SAFETY: borrowed for this call, in which the caller holds it; the C library has just said that it is open.
    let owned = unsafe { BorrowedHandle::borrow_raw(handle) }.try_clone_to_owned()?;
    Ok(File::from(owned))
}

/// A socket that Python gives away.
///
/// # Safety
/// It belongs to nobody else, if it is open.
///
/// # Errors
/// It is not open.
pub(crate) unsafe fn given(number: i32) -> io::Result<OwnedSocket> {
    socket_option(socket_of(number.into()), SO_TYPE)?;
    // SAFETY: open, and the caller's to give away.
    Ok(unsafe { OwnedSocket::from_raw_socket(socket_of(number.into())) })
}

/// A socket that tokio watches for something to read. It may tell once more of what was there when it told last.
///
/// tokio watches no foreign sockets here, so it gets a second handle of the same one, from which it reads nothing.
pub(crate) struct Watched<T> {
    stream: tokio::net::TcpStream,
    _of: T,
}

impl<T: AsRawSocket> Watched<T> {
    /// Watched by the runtime that runs. It does not block from then on.
    ///
    /// # Safety
    /// The socket is open.
    pub(crate) unsafe fn new(of: T) -> io::Result<Self> {
        // SAFETY: open, as the caller promises, and borrowed for this call.
        let socket = unsafe { BorrowedSocket::borrow_raw(of.as_raw_socket()) };
        let stream = std::net::TcpStream::from(socket.try_clone_to_owned()?);
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: tokio::net::TcpStream::from_std(stream)?,
            _of: of,
        })
    }

    /// Ready when something has come. An error: the runtime is shutting down.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_read_ready(cx))?;
        self.look_again();
        Poll::Ready(Ok(()))
    }

    /// The same, to be awaited.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await?;
        self.look_again();
        Ok(())
    }

    /// An attempt that would block is what has the system asked anew.
    fn look_again(&self) {
        let would_block = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
        let _ = self.stream.try_io(Interest::READABLE, would_block);
    }
}

/// The end of the pair for signals that is watched. Owned by `signals.rs`, which keeps it open.
pub(crate) struct SignalFd(pub(crate) Number);

impl AsRawSocket for SignalFd {
    fn as_raw_socket(&self) -> RawSocket {
        socket_of(self.0)
    }
}

/// A pair of sockets, neither of which blocks: what is written to the second one is read from the first. Over loopback, as Python's
/// `socket.socketpair` does it, for there are no others that can be waited for.
pub(crate) fn wake_pair() -> io::Result<(WakeStream, WakeStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let reader = WakeStream::connect(listener.local_addr()?)?;
    let (writer, peer) = listener.accept()?;
    if peer != reader.local_addr()? {
        // Somebody else came first.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    writer.set_nodelay(true)?;
    Ok((reader, writer))
}

/// What there is to read, at once; `None` when there is nothing.
pub(crate) fn read_wakes(mut reader: &WakeStream, into: &mut [u8]) -> Option<usize> {
    io::Read::read(&mut reader, into).ok()
}

/// Writes to a socket that is somebody else's, non-blocking as `set_wakeup_fd` demands; if it was closed or is full, its owner
/// loses bytes. So does the owner of a file.
pub(crate) fn pass_on(to: Number, bytes: &[u8]) {
    send_bytes(socket_of(to), bytes);
}

fn send_bytes(socket: RawSocket, bytes: &[u8]) -> bool {
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    // SAFETY: the bytes are valid for the call; the system checks the socket.
    unsafe { send(socket as SOCKET, bytes.as_ptr(), length, 0) > 0 }
}

/// Windows does not fork.
///
/// # Safety
/// As on other systems.
pub(crate) unsafe fn at_fork(_in_child: unsafe extern "C" fn()) {}

/// There are no signals that a thread could take.
pub(crate) fn without_signals<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Maps a file of Python's for reading and writing, shared with other processes: where, and how many bytes.
pub(crate) fn map_shared(py: Python<'_>, fd: i32) -> io::Result<(NonNull<u8>, usize)> {
    let file = duplicate_file(py, fd)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    // SAFETY: the file is open; no name, and the default rights. The whole file: an empty one is refused.
    let mapping = unsafe {
        let handle = CreateFileMappingW(
            file.as_raw_handle(),
            ptr::null(),
            PAGE_READWRITE,
            0,
            0,
            ptr::null(),
        );
        owned(handle)?
    };
    // SAFETY: a new mapping at an address of the system's choice touches no memory of ours. It holds on to the file by itself.
    let view = unsafe {
        MapViewOfFile(
            mapping.as_raw_handle(),
            FILE_MAP_READ | FILE_MAP_WRITE,
            0,
            0,
            length,
        )
    };
    match NonNull::new(view.Value.cast()) {
        Some(start) => Ok((start, length)),
        None => Err(io::Error::last_os_error()),
    }
}

/// What a call gave: null is an error.
///
/// # Safety
/// A handle is nobody else's.
unsafe fn owned(handle: RawHandle) -> io::Result<OwnedHandle> {
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Undoes [`map_shared`].
///
/// # Safety
/// It is what that gave, and nobody uses it any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, _length: usize) {
    let view = MEMORY_MAPPED_VIEW_ADDRESS {
        Value: start.as_ptr().cast(),
    };
    // SAFETY: as the caller promises.
    unsafe { UnmapViewOfFile(view) };
}

/// Opens a file to be read, or a directory, which the caller refuses. A pipe is refused here: reading it would wait.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
        .open(path)?;
    // SAFETY: the file is open.
    if unsafe { GetFileType(file.as_raw_handle()) } != FILE_TYPE_DISK {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "only regular files can be sent",
        ));
    }
    Ok(file)
}

/// Nothing tells cheaply whether a file is open for reading: then reading it fails.
pub(crate) fn is_readable(_file: &File) -> bool {
    true
}

/// Files and pipes of Windows wait by themselves.
pub(crate) fn wait_writable(_file: &File) {}

/// The part of `std::os::unix::fs::FileExt` that is used. Windows moves the position of the file; nobody goes by it.
pub(crate) trait FileExt {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
}

impl FileExt for File {
    fn read_exact_at(&self, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !into.is_empty() {
            match self.seek_read(into, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    into = &mut into[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Volume and number of a file: what has its name later is another one.
pub(crate) fn identity_of(path: &Path) -> Option<(u64, u64)> {
    let file = OpenOptions::new()
        .access_mode(0)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
        .open(path)
        .ok()?;
    // SAFETY: all zeros is a valid value of this structure of integers.
    let mut about: BY_HANDLE_FILE_INFORMATION = unsafe { mem::zeroed() };
    // SAFETY: the file is open, and the call fills the structure or fails.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut about) } == 0 {
        return None;
    }
    let number = u64::from(about.nFileIndexHigh) << 32 | u64::from(about.nFileIndexLow);
    Some((about.dwVolumeSerialNumber.into(), number))
}

/// Memory of a process in RAM; `None` if there is no such process, or it is another user's.
pub(crate) fn resident_bytes(pid: u64) -> Option<u64> {
    // SAFETY: takes numbers; the handle that it gives is ours.
    let process = unsafe {
        let pid = u32::try_from(pid).ok()?;
        owned(OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, pid)).ok()?
    };
    // SAFETY: all zeros is a valid value of this structure of integers.
    let mut memory: PROCESS_MEMORY_COUNTERS = unsafe { mem::zeroed() };
    let size = u32::try_from(size_of_val(&memory)).ok()?;
    // SAFETY: the call writes at most `size` bytes into the structure.
    let told = unsafe { K32GetProcessMemoryInfo(process.as_raw_handle(), &raw mut memory, size) };
    (told != 0).then_some(memory.WorkingSetSize as u64)
}

/// Bytes that this user may still write to the volume of a path.
pub(crate) fn available_bytes(path: &Path) -> io::Result<u64> {
    let path: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    let mut bytes = 0;
    // SAFETY: a zero-terminated path, and a place for the answer; the other answers are not wanted.
    let told = unsafe {
        GetDiskFreeSpaceExW(
            path.as_ptr(),
            &raw mut bytes,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    if told == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes)
}

/// Threads that answer somebody who waits get no better treatment here: a higher priority would be one against the whole machine.
pub(crate) fn short_turns() {}

/// Sends without waiting; false when nobody is there, or nobody reads.
pub(crate) fn send_now(socket: &OwnedSocket, bytes: &[u8]) -> bool {
    without_waiting(socket, |_| send_bytes(socket.as_raw_socket(), bytes))
}

/// Takes a byte that is there.
pub(crate) fn take_now(socket: &OwnedSocket) -> bool {
    without_waiting(socket, |mut stream| {
        io::Read::read(&mut stream, &mut [0]).is_ok_and(|count| count > 0)
    })
}

/// There is no `MSG_DONTWAIT`: the socket itself does not block from then on. It is a pair's end that nobody else uses.
fn without_waiting(socket: &OwnedSocket, act: impl FnOnce(&WakeStream) -> bool) -> bool {
    // SAFETY: the socket is open, and is not closed here.
    let stream = ManuallyDrop::new(unsafe { WakeStream::from_raw_socket(socket.as_raw_socket()) });
    stream.set_nonblocking(true).is_ok() && act(&stream)
}

/// There is no signal that makes Python's `faulthandler` write.
pub(crate) fn tell_and_signal(_text: &str, _signal: i32) {}

/// Whether the parent of this process is still there. Another process may have its number by now: then nothing is noticed.
pub(crate) fn is_parent(pid: i32) -> bool {
    // SAFETY: takes numbers; the handle that it gives is ours.
    let parent = unsafe { owned(OpenProcess(PROCESS_SYNCHRONIZE, FALSE, pid.cast_unsigned())) };
    match parent {
        // SAFETY: the handle is open; a time of zero does not wait.
        Ok(parent) => unsafe { WaitForSingleObject(parent.as_raw_handle(), 0) == WAIT_TIMEOUT },
        // There is no such process; other errors say nothing.
        Err(error) => error.raw_os_error() != Some(ERROR_INVALID_PARAMETER.cast_signed()),
    }
}

/// Ends the process without running anything of it; whatever it is stuck in may hold any lock.
pub(crate) fn end_process() -> ! {
    // SAFETY: takes numbers; the handle stands for this process. Nothing of the process runs after it.
    unsafe { TerminateProcess(GetCurrentProcess(), 1) };
    std::process::abort()
}

/// Nothing tells which pages are in RAM.
pub(crate) fn resident_pages(_start: usize, _bytes: usize, _pages: &mut [u8]) -> bool {
    false
}

/// Memory is not moved into larger pages.
pub(crate) fn collapse(_start: usize, _bytes: usize) -> bool {
    false
}
