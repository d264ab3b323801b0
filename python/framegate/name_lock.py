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
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

from framegate.socket_holder import holder_of_socket

__all__ = ["AddressLockedError", "NameLock"]

_PREFIX: Final = b"\0framegate/address/"


class AddressLockedError(Exception):
    """Another server has the address; the text says which, if that is known."""


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


def _ask(address: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.setblocking(False)
        try:
            peer.connect(address)
        except BlockingIOError:  # its queue is full of others who asked
            raise AddressLockedError("") from None
        except OSError:  # it ended just now, or is about to listen
            raise AddressLockedError("") from None
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid in (os.geteuid(), 0):
            raise AddressLockedError(holder_of_socket(peer))


def _digest(name: str) -> bytes:
    import hashlib

    return hashlib.sha256(os.fsencode(name)).hexdigest().encode()
