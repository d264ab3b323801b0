"""A lock on an address, held as long as a process lives: what the address itself cannot tell.

Two servers may not have one address, but the kernel cannot always see the second one: a Unix socket
that is bound and does not listen yet refuses connections like one whose server died, and
SO_REUSEPORT lets two servers of one user share a port without a word. So before a server looks
whether an address is free, it binds a name in the abstract namespace of Unix sockets that stands
for it. That leaves no file, the kernel frees it with the process however it ends, and its scope
is the network namespace, which is that of the ports as well.

Somebody else's process could take the names to keep our servers from starting, so the lock of
another user (root excepted) counts for nothing; what the kernel itself says about the address
still does.

macOS has no abstract namespace. Ports need no lock there (`listener.py`: SO_REUSEPORT is not used).
For a Unix socket a file in the user's own directory for temporary files is locked instead, which
stays there, small and unlocked, until the system cleans up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from typing import Final

from framegate import system
from framegate.socket_holder import holder_of_socket, process_named

__all__ = ["AddressLockedError", "FileLock", "NameLock", "lock_name"]

_PREFIX: Final = b"\0framegate/address/"


class AddressLockedError(Exception):
    """Another server has the address; the text says which, if that is known."""


def lock_name(name: str) -> NameLock | FileLock:
    """Lock the name of an address, in the way of this system.

    Raises:
        AddressLockedError: A process of this user, or of root (Linux), has it.
    """
    if system.ABSTRACT_SOCKETS:
        return NameLock(name)
    return FileLock(name, os.path.dirname(system.default_runtime_directory()))


class NameLock:
    """Holds the name of an address until it is closed.

    Raises:
        AddressLockedError: A process of this user or of root has it.
    """

    def __init__(self, name: str) -> None:
        address = _PREFIX + _digest(name)
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(address)
            self._socket.listen(128)  # never accepted: who connects learns our pid
        except OSError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                _ask(address)
            # Elsewhere (a sandbox without abstract sockets): as if there were no such lock.

    def close(self) -> None:
        """Let go of it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class FileLock:
    """The same, by a file that is locked, where there are no abstract sockets.

    Args:
        name: Of the address.
        directory: One that is this user's own, so that locks are between his processes.

    Raises:
        AddressLockedError: Another process of this user has it.
    """

    def __init__(self, name: str, directory: str) -> None:
        self._fd: int | None = None
        path = os.path.join(directory, f"framegate-{_digest(name)[:32].decode()}.lock")
        with contextlib.suppress(OSError):  # as if there were no such lock
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._fd = fd
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, is_ours = os.read(fd, 20), os.fstat(fd).st_uid == os.geteuid()
                self.close()
                if is_ours:
                    holder = process_named(int(pid)) if pid.isdigit() else ""
                    raise AddressLockedError(holder) from None
                return
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d" % os.getpid(), 0)

    def close(self) -> None:
        """Let go of it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _ask(address: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.setblocking(False)
        try:
            peer.connect(address)
        except BlockingIOError:  # its queue is full of others who asked
            raise AddressLockedError("") from None
        except OSError:  # it ended just now, or is about to listen
            raise AddressLockedError("") from None
        _, uid = system.peer_of(peer)
        if uid in (os.geteuid(), 0):
            raise AddressLockedError(holder_of_socket(peer))


def _digest(name: str) -> bytes:
    import hashlib

    return hashlib.sha256(os.fsencode(name)).hexdigest().encode()
