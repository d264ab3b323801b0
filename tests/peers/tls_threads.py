"""TLS sockets for clients that read in one thread and write in another, as `websockets.sync` does.

Before 3.13 CPython lets both into OpenSSL's state of the connection at once, and what the writer
sends while the reader takes a session ticket may never leave (measured on 3.11.7 against a server
of the standard library: 4 of 30 requests sent right behind the handshake were lost).
"""

from __future__ import annotations

import errno
import select
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["for_threads"]

Result = TypeVar("Result")


def for_threads(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let the sockets of a context be used by one reader and one writer at a time; return it."""
    context.sslsocket_class = SerialSocket
    return context


class SerialSocket(ssl.SSLSocket):
    """Only one thread at a time is inside OpenSSL, and none waits there."""

    _serial: threading.Lock | None = None
    _patience: float | None = None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        self._patience = self.gettimeout()
        super().settimeout(0)
        self._serial = threading.Lock()

    def settimeout(self, value: float | None) -> None:
        if self._serial is None:
            super().settimeout(value)
        else:
            self._patience = value

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        return self._when_ready(lambda: super(SerialSocket, self).recv(buflen, flags))

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        return self._when_ready(lambda: super(SerialSocket, self).recv_into(buffer, nbytes, flags))

    def unwrap(self) -> Any:
        return self._when_ready(super().unwrap)

    def send(self, data: Any, flags: int = 0) -> int:
        return self._when_ready(lambda: super(SerialSocket, self).send(data, flags))

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data).cast("B")
        while left:
            left = left[self.send(left, flags) :]

    def _when_ready(self, call: Callable[[], Result]) -> Result:
        assert self._serial is not None
        while True:
            reading: list[Any] = []
            writing: list[Any] = []
            with self._serial:
                try:
                    return call()
                except (ssl.SSLWantReadError, BlockingIOError):
                    reading = [self]
                except ssl.SSLWantWriteError:
                    writing = [self]
            try:
                if not any(select.select(reading, writing, [], self._patience)):
                    raise TimeoutError("timed out")
            except ValueError:
                raise OSError(errno.EBADF, "the socket was closed meanwhile") from None
