"""What `framegate.system` is on macOS. Read by type checkers and run by tests, never on a Mac.

It can be imported anywhere: it has no name that other systems lack, and what it asks macOS for can
be given as an argument, which is how `tests/systems/` runs it. Numbers that Python does not have
are in the table below, which `.ci/portability` compares with Apple's headers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

__all__ = [
    "ABSTRACT_SOCKETS",
    "ADDRESSES_ARE_SHOWN_BY",
    "AN_INTERFACE",
    "LOW_PORT_CAUSE",
    "LOW_PORT_REMEDY",
    "PORTS_ARE_BALANCED",
    "SPARE_SIGNAL",
    "UNIX_PATH_BYTES_MAX",
    "allocate",
    "allowed_cores",
    "command_line",
    "default_runtime_directory",
    "die_with_parent",
    "first_open_port",
    "has_room",
    "hold_inode",
    "is_listening",
    "listeners_on",
    "open_files_max",
    "pack_lock",
    "peer_of",
    "private_bytes",
    "receive_with_fds",
    "unpack_lock",
]

# C expressions and what they are.
HEADERS: Final[dict[str, int]] = {
    "SIGEMT": 7,
    "SOL_LOCAL": 0,
    "LOCAL_PEERCRED": 1,
    "LOCAL_PEERPID": 2,
    "sizeof(struct xucred)": 76,
    "offsetof(struct xucred, cr_uid)": 4,
    "sizeof(((struct sockaddr_un *)0)->sun_path)": 104,
    "F_PREALLOCATE": 42,
    "F_ALLOCATEALL": 4,
    "F_PEOFPOSMODE": 3,
    "sizeof(fstore_t)": 32,
    "offsetof(fstore_t, fst_length)": 16,
    "sizeof(struct flock)": 24,
    "offsetof(struct flock, l_type)": 20,
    "offsetof(struct flock, l_whence)": 22,
    "RUSAGE_INFO_V0": 0,
    "sizeof(struct rusage_info_v0)": 96,
    "offsetof(struct rusage_info_v0, ri_phys_footprint)": 72,
    "_CS_DARWIN_USER_TEMP_DIR": 65537,
    "OPEN_MAX": 10240,
}

ABSTRACT_SOCKETS: Final = False
"""There are none: a Unix socket has a file."""

PORTS_ARE_BALANCED: Final = False
"""SO_REUSEPORT exists and lets one of the sockets have all connections."""

UNIX_PATH_BYTES_MAX: Final = HEADERS["sizeof(((struct sockaddr_un *)0)->sun_path)"] - 1
"""What fits into `sun_path`, with a zero byte behind it."""

SPARE_SIGNAL: Final[int] = HEADERS["SIGEMT"]
"""A signal that nobody else uses: of an instruction that PDP-11s emulated."""

ADDRESSES_ARE_SHOWN_BY: Final = "ifconfig"
AN_INTERFACE: Final = "en0"

LOW_PORT_CAUSE: Final = "ports below {first} are root's, but for those of all addresses at once"
LOW_PORT_REMEDY: Final = "bind it on 0.0.0.0 and [::]"

_FLOCK: Final = struct.Struct("=qqihh")
_FSTORE: Final = struct.Struct("=Iiqqq")

ASK_SECONDS: Final = 5.0
"""What a program may take that is asked about others; lsof waits for file servers that are gone."""


def allowed_cores() -> int:
    """Return how many cores this process may run on: all, for there are no masks."""
    return os.cpu_count() or 1


def private_bytes(pid: int, library: Any = None) -> int:
    """Return the memory that a process has for itself; 0 if it cannot be told.

    The kernel's own account (`ri_phys_footprint`, which Activity Monitor shows): what was written,
    also if it is compressed now, without files and what is shared.

    Args:
        pid: Which process.
        library: What has `proc_pid_rusage`; the C library if None.
    """
    import ctypes

    facts = ctypes.create_string_buffer(HEADERS["sizeof(struct rusage_info_v0)"])
    with contextlib.suppress(OSError, AttributeError):
        library = library or ctypes.CDLL(None)
        if library.proc_pid_rusage(pid, HEADERS["RUSAGE_INFO_V0"], facts) == 0:
            at = HEADERS["offsetof(struct rusage_info_v0, ri_phys_footprint)"]
            found: int = struct.unpack_from("=Q", facts, at)[0]
            return found
    return 0


def open_files_max(library: Any = None) -> int:
    """Return what to take where the hard limit of open files is infinite, which it is by default.

    More than a process may have is an error, not the most that it may have.

    Args:
        library: What has `sysctlbyname`; the C library if None.
    """
    import ctypes

    most, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    name = b"kern.maxfilesperproc"
    with contextlib.suppress(OSError, AttributeError):
        library = library or ctypes.CDLL(None)
        if library.sysctlbyname(name, ctypes.byref(most), ctypes.byref(size), None, 0) == 0:
            return most.value
    return HEADERS["OPEN_MAX"]  # which was always taken


def default_runtime_directory(ask: Callable[[int], str | None] = os.confstr) -> str:
    """Return where topics and runtime segments of this user are, if nobody says it.

    As the C++ library has it (`os_darwin.cpp`): in the user's own directory for temporary files.

    Args:
        ask: Answers for a number of `confstr`.
    """
    where = None
    with contextlib.suppress(OSError, ValueError):
        where = ask(HEADERS["_CS_DARWIN_USER_TEMP_DIR"])
    return os.path.join(where or "/tmp", f"framegate-{os.geteuid()}")


# Files ----------------------------------------------------------------------------------------


def allocate(
    fd: int, size: int, control: Callable[[int, int, bytes], object] = fcntl.fcntl
) -> None:
    """Give a new file its size and its place.

    Args:
        fd: The file, which is empty.
        size: How many bytes.
        control: Does what `fcntl.fcntl` does.

    Raises:
        OSError: There is not so much left.
    """
    how = HEADERS["F_ALLOCATEALL"], HEADERS["F_PEOFPOSMODE"]
    try:
        control(fd, HEADERS["F_PREALLOCATE"], _FSTORE.pack(*how, 0, size, 0))
    except OSError as error:
        # A file system that cannot promise room gets along without.
        if error.errno not in (errno.ENOTSUP, errno.EINVAL):
            raise
    os.ftruncate(fd, size)


def hold_inode(path: str) -> int | None:
    """Return None: APFS never gives the number of an inode again, and sockets cannot be opened."""
    return None


def has_room(fd: int) -> bool:
    """Whether a short write to a descriptor would not wait for a reader."""
    try:
        # poll(2) says nothing good of devices: /dev/tty, /dev/null.
        return bool(select.select([], [fd], [], 0)[1])
    except ValueError:  # more than select(2) can see, which a stream of the log is not
        return True


def pack_lock(kind: int, start: int, length: int) -> bytes:
    """Return a `struct flock` for `fcntl.fcntl`."""
    return _FLOCK.pack(start, length, 0, kind, os.SEEK_SET)


def unpack_lock(data: bytes) -> int:
    """Return the kind of lock that a `struct flock` has."""
    kind: int = _FLOCK.unpack(data)[3]
    return kind


# Sockets --------------------------------------------------------------------------------------


def is_listening(item: socket.socket) -> bool:
    """Whether a socket listens; a kernel that does not tell is asked to listen once more."""
    try:
        return bool(item.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return False


def peer_of(connected: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end of a connected Unix socket.

    Raises:
        OSError: Nobody is there.
    """
    level = HEADERS["SOL_LOCAL"]
    size = HEADERS["sizeof(struct xucred)"]
    data = connected.getsockopt(level, HEADERS["LOCAL_PEERCRED"], size)
    (uid,) = struct.unpack_from("=I", data, HEADERS["offsetof(struct xucred, cr_uid)"])
    return connected.getsockopt(level, HEADERS["LOCAL_PEERPID"]), uid


def receive_with_fds(end: socket.socket, size: int, fds_max: int) -> tuple[bytes, list[int]]:
    """Receive bytes and the descriptors that came with them, which no child inherits.

    Another thread that starts a child at this moment may hand them down: they are inheritable until
    the next line.
    """
    space = socket.CMSG_SPACE(fds_max * array("i").itemsize)
    chunk, ancillary, _, _ = end.recvmsg(size, space)
    fds = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data)
    for fd in fds:
        os.set_inheritable(fd, False)
    return chunk, list(fds)


def first_open_port() -> int:
    """Return the lowest port that needs no privilege."""
    return 1024


def listeners_on(
    family: int, host: str, port: int, ask: Callable[[Sequence[str]], bytes] | None = None
) -> tuple[list[int], int | None]:
    """Return who listens on a port of an address, or of one that covers it, as far as is seen.

    Args:
        family: AF_INET or AF_INET6.
        host: A numeric address.
        port: Its port.
        ask: Returns what a command writes; runs it if None.

    Returns:
        Processes of this user, or all for root; never another user.
    """
    command = ("/usr/sbin/lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpn")
    pids: set[int] = set()
    pid = 0
    with contextlib.suppress(OSError, ValueError):
        for line in (ask or _output)(command).decode(errors="replace").splitlines():
            # A process, then its sockets: p812, f3, n127.0.0.1:8000, n[::1]:8000, n*:8000
            if line.startswith("p"):
                pid = int(line[1:])
            elif line.startswith("n") and pid:
                theirs = line[1:].rpartition(":")[0].strip("[]")
                if theirs == "*" or theirs == host or host in ("0.0.0.0", "::"):
                    pids.add(pid)
    return sorted(pids), None


# Processes ------------------------------------------------------------------------------------


def command_line(pid: int, ask: Callable[[Sequence[str]], bytes] | None = None) -> bytes:
    """Return the words with which a process was started, between spaces.

    Args:
        pid: Which process.
        ask: Returns what a command writes; runs it if None.

    Raises:
        OSError: There is no such process.
    """
    words = (ask or _output)(("/bin/ps", "-ww", "-o", "command=", "-p", str(pid))).strip()
    if not words:
        raise ProcessLookupError(errno.ESRCH, "there is no such process")
    return words


def die_with_parent(number: signal.Signals) -> None:
    """Do nothing: the kernel has no such signal.

    A kqueue (NOTE_EXIT) would need a thread and the GIL, as the thread at the channel does, which
    learns the same at the same time. A worker whose code keeps the GIL is ended by its native
    thread, which looks for its parent (`ParentWatch` in `rust/py/src/stall.rs`).
    """


def _output(command: Sequence[str]) -> bytes:
    """Return what a program writes; nothing if it takes too long."""
    import subprocess

    none = subprocess.DEVNULL
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            command, stdin=none, stdout=subprocess.PIPE, stderr=none, timeout=ASK_SECONDS
        ).stdout
    return b""
