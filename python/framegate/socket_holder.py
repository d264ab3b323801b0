"""Who has an address already: the process to name when a bind fails, as far as /proc shows."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["command_of", "holder_of_port", "holder_of_socket"]

_LISTEN: Final = "0A"
_SHOWN_MAX: Final = 80


def holder_of_port(family: int, host: str, port: int) -> str:
    """Describe who listens on a port of an address, or of one that covers it; "" if nobody is seen.

    Args:
        family: AF_INET or AF_INET6.
        host: A numeric address.
        port: Its port.
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
        return ""
    pids = sorted({pid for pid, link in _open_files() if link in inodes})
    if pids:
        return _describe(pids[0]) + (f" and {len(pids) - 1} more" if len(pids) > 1 else "")
    return f"held by a process of {_user(next(iter(inodes.values())))}, not visible from here"


def holder_of_socket(connected: socket.socket) -> str:
    """Describe who listens at the other end of a connected Unix socket; "" if it is not seen."""
    with contextlib.suppress(OSError):
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack(
            "3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        if pid > 0:  # 0: a process of another pid namespace
            return _describe(pid)
    return ""


def command_of(pid: int) -> str:
    """Return the command line of a process, shortened."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "?"
    text = b" ".join(words).decode(errors="replace")
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def _describe(pid: int) -> str:
    return f"held by pid {pid} ({command_of(pid)})"


def _user(uid: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


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
