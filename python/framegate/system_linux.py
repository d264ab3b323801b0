"""What `framegate.system` is on Linux."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

assert sys.platform != "darwin"  # type checkers read no further there

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

ABSTRACT_SOCKETS: Final = True
"""Whether Unix sockets may have names that are no files (unix(7))."""

PORTS_ARE_BALANCED: Final = True
"""Whether the kernel spreads connections over all sockets of one port (SO_REUSEPORT)."""

UNIX_PATH_BYTES_MAX: Final = 107
"""What fits into `sun_path`, with a zero byte behind it."""

SPARE_SIGNAL: Final[int] = signal.SIGRTMAX - 1
"""A signal that nobody else uses; 0 if there is none."""

ADDRESSES_ARE_SHOWN_BY: Final = "ip address"
AN_INTERFACE: Final = "eth0"

LOW_PORT_CAUSE: Final = (
    "ports below {first} need a capability (net.ipv4.ip_unprivileged_port_start)"
)
LOW_PORT_REMEDY: Final = "grant CAP_NET_BIND_SERVICE, or let systemd bind it"

_KIB: Final = 1024
_LISTEN: Final = "0A"
_PR_SET_PDEATHSIG: Final = 1
_FLOCK: Final = struct.Struct("hhqqi4x")


def allowed_cores() -> int:
    """Return how many cores this process may run on: its affinity mask."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def private_bytes(pid: int) -> int:
    """Return the resident memory that a process has for itself; 0 if it cannot be told."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * _KIB
    except (OSError, ValueError, IndexError):
        pass
    return 0


def open_files_max() -> int:
    """Return what to take where the hard limit of open files is infinite, as in some containers.

    Programs that close every possible descriptor before they start another one would take minutes.
    A million connections fit.
    """
    return 1 << 20


def default_runtime_directory() -> str:
    """Return where topics and runtime segments of this user are, if nobody says it."""
    return f"/dev/shm/framegate-{os.getuid()}"


# Files ----------------------------------------------------------------------------------------


def allocate(fd: int, size: int) -> None:
    """Give a file its size and its place.

    Raises:
        OSError: There is not so much left.
    """
    os.posix_fallocate(fd, 0, size)


def hold_inode(path: str) -> int | None:
    """Keep the inode of a socket's file from being used again.

    Returns:
        A descriptor to close; None where inodes are never used again.
    """
    return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def has_room(fd: int) -> bool:
    """Whether a short write to a descriptor would not wait for a reader."""
    ready = select.poll()
    ready.register(fd, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in ready.poll(0))


def pack_lock(kind: int, start: int, length: int) -> bytes:
    """Return a `struct flock` for `fcntl.fcntl`."""
    return _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)


def unpack_lock(data: bytes) -> int:
    """Return the kind of lock that a `struct flock` has."""
    kind: int = _FLOCK.unpack(data)[0]
    return kind


# Sockets --------------------------------------------------------------------------------------


def is_listening(item: socket.socket) -> bool:
    """Whether a socket listens."""
    return bool(item.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def peer_of(connected: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end of a connected Unix socket.

    The process is 0 if it is one of another pid namespace.

    Raises:
        OSError: Nobody is there.
    """
    size = struct.calcsize("3i")
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, _ = struct.unpack("3i", data)
    return pid, uid


def receive_with_fds(end: socket.socket, size: int, fds_max: int) -> tuple[bytes, list[int]]:
    """Receive bytes and the descriptors that came with them, which no child inherits."""
    # Not socket.recv_fds: the application's children must not inherit them.
    space = socket.CMSG_SPACE(fds_max * array("i").itemsize)
    chunk, ancillary, _, _ = end.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    fds = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data)
    return chunk, list(fds)


def first_open_port() -> int:
    """Return the lowest port that needs no privilege."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
            return int(file.read())
    return 1024


def listeners_on(family: int, host: str, port: int) -> tuple[list[int], int | None]:
    """Return who listens on a port of an address, or of one that covers it, as far as is seen.

    Args:
        family: AF_INET or AF_INET6.
        host: A numeric address.
        port: Its port.

    Returns:
        Processes, and a user who listens, perhaps with none of them.
    """
    inodes: dict[str, int] = {}
    for table, of in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].rpartition(":")
                if fields[3] != _LISTEN or int(number, 16) != port:
                    continue
                if _overlap(family, host, of, address):
                    inodes[f"socket:[{fields[9]}]"] = int(fields[7])
    if not inodes:
        return [], None
    pids = sorted({pid for pid, link in _open_files() if link in inodes})
    return pids, next(iter(inodes.values()))


def _overlap(family: int, host: str, other_family: int, other: str) -> bool:
    """Whether two addresses cannot be bound at once; the second as /proc/net/tcp writes it."""
    theirs = _from_proc(other)
    ours = socket.inet_pton(family, host.partition("%")[0])
    if other_family != family:
        # An IPv6 wildcard that is not v6only takes the port in IPv4, too; it may be one of those.
        return family == socket.AF_INET and not any(theirs)
    return ours == theirs or not any(ours) or not any(theirs)


def _from_proc(text: str) -> bytes:
    """Return the bytes of an address: 32-bit words in the machine's order, in hexadecimal."""
    data = bytes.fromhex(text)
    if sys.byteorder == "big":
        return data
    return b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))


def _open_files() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{name}/fd"):
                with contextlib.suppress(OSError):
                    yield int(name), os.readlink(f"/proc/{name}/fd/{fd}")


# Processes ------------------------------------------------------------------------------------


def command_line(pid: int) -> bytes:
    """Return the words with which a process was started, between spaces.

    Raises:
        OSError: There is no such process.
    """
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return b" ".join(words)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies, if it can."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
