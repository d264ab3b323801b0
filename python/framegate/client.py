"""WebSocket client: for threads (`connect`) and for asyncio (`connect_async`).

```python
from framegate.client import connect

with connect("ws://127.0.0.1:8000/chat") as websocket:
    websocket.send("hello")
    for message in websocket:
        print(message)
```

Whoever waits drives the WebSocket: `recv` reads the socket on the thread that calls it, without the
interpreter lock, and comes back for Ctrl-C; the asyncio form watches the socket with `add_reader`,
so it works on every event loop that has that (asyncio's own, uvloop, framegate's). While a thread
does something else, a native thread answers the server's pings.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from framegate import _http
from framegate.errors import (
    ClientArgumentError,
    ClientError,
    ClientTimeout,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeInvalid,
    HandshakeRefused,
    ProxyFailed,
    ServerUnreachable,
    TlsFailed,
)

if TYPE_CHECKING:
    import os
    from types import TracebackType
    from typing import Self, TypeAlias, Unpack

    from typing_extensions import Buffer

    Data: TypeAlias = str | Buffer

__all__ = [
    "AsyncWebSocket",
    "ClientArgumentError",
    "ClientError",
    "ClientTimeout",
    "ConnectOptions",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "HandshakeInvalid",
    "HandshakeRefused",
    "ProxyFailed",
    "ServerUnreachable",
    "TlsFailed",
    "WebSocket",
    "connect",
    "connect_async",
    "connections",
    "connections_async",
]

LOGGER = logging.getLogger("framegate.client")

CLOSE_FAILED = 1011
"""The code that ends a `with` block which an exception leaves."""

STEADY_S = 5.0
"""A connection that lasted as long has not failed at once: the next pause is a short one again."""

# What `_http.ClientSocket.step` and `state` say.
HAS_MESSAGE, IS_CLOSED, IS_DONE, WANTS_READ, WANTS_WRITE, IS_READY = 1, 2, 4, 8, 16, 32

UNSENT_BYTES_MAX = 64 * 1024
"""Unsent bytes above which `AsyncWebSocket.send` waits."""


class ConnectOptions(TypedDict, total=False):
    """How to connect. Each may be left out.

    Attributes:
        headers: Fields of the request beside those of the handshake, as a mapping or as pairs.
        subprotocols: Subprotocols that are offered, the preferred one first.
        user_agent: What the request says of who sends it, `framegate`; None: nothing.
        compression: Whether permessage-deflate is offered, True.
        ca_file: Authorities to trust for `wss`, as a file or several; None: those that the
            operating system trusts (or `SSL_CERT_FILE` and `SSL_CERT_DIR`).
        certificate: File of the client's own certificate, for servers that ask for one.
        key: File of its private key, if that is not in the same file.
        key_password: Password of an encrypted key.
        proxy: True, the default: as `HTTP_PROXY` (for `ws`), `HTTPS_PROXY` (for `wss`),
            `ALL_PROXY` and `NO_PROXY` say; None: straight to the server; or
            `http://user:password@host:port`.
        open_timeout: Seconds for all of opening, 10; None: no limit.
        close_timeout: Seconds for the server's answer when closing, and again for its end, 10.
        ping_interval: Seconds of silence after which the server gets a ping, 20; None: never.
        ping_timeout: Further seconds after which the connection counts as lost, 20; None: never.
        message_bytes_max: The largest message that is accepted, 16 MiB: it is kept in memory.
    """

    headers: Mapping[str, str] | Iterable[tuple[str, str]]
    subprotocols: Sequence[str]
    user_agent: str | None
    compression: bool
    ca_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
    certificate: str | os.PathLike[str] | None
    key: str | os.PathLike[str] | None
    key_password: str | None
    proxy: str | bool | None
    open_timeout: float | None
    close_timeout: float
    ping_interval: float | None
    ping_timeout: float | None
    message_bytes_max: int


_DEFAULTS: ConnectOptions = {
    "headers": (),
    "subprotocols": (),
    "user_agent": "framegate",
    "compression": True,
    "ca_file": None,
    "certificate": None,
    "key": None,
    "key_password": None,
    "proxy": True,
    "open_timeout": 10.0,
    "close_timeout": 10.0,
    "ping_interval": 20.0,
    "ping_timeout": 20.0,
    "message_bytes_max": 16 << 20,
}


def _opening(url: str, options: ConnectOptions) -> _http.ClientOpening:
    if unknown := options.keys() - _DEFAULTS.keys():
        raise TypeError(f"connect() has no option {sorted(unknown)[0]!r}")
    given: dict[str, Any] = {**_DEFAULTS, **options}
    headers = given["headers"]
    given["headers"] = list(headers.items() if isinstance(headers, Mapping) else headers)
    files = given.pop("ca_file")
    if files is None:
        files = []
    elif isinstance(files, str) or not isinstance(files, Sequence):
        files = [files]
    return _http.ClientOpening(url, ca_files=files, **given)


# --------------------------------------------------------------------------------------------
# For threads


def connect(url: str, **options: Unpack[ConnectOptions]) -> WebSocket:
    """Open a WebSocket, and wait until it is open; Ctrl-C ends the wait.

    Redirects are not followed: they are refusals whose text says where to connect.

    Args:
        url: `ws://host:port/path`, or `wss://` for TLS; a user and password in it become a field.
        **options: See `ConnectOptions`.

    Raises:
        ServerUnreachable: The name is not known, or nothing answers.
        HandshakeRefused: The server answered with something other than a WebSocket.
        TlsFailed: A file of certificates cannot be used, or one side does not trust the other.
        ProxyFailed: The proxy did not open a way.
        ClientTimeout: It took longer than `open_timeout`.
        ClientArgumentError: The address, a header or an option cannot be used.
    """
    return WebSocket(_opening(url, options), attended=False)


class WebSocket(_http.ClientSocket):
    """An open WebSocket for threads; `connect` makes it.

    It is iterated over for its messages, and closed by `with`: with 1000, or 1011 if an exception
    leaves the block. One thread may receive while others send. It cannot be used after `fork()`.

    Attributes:
        subprotocol: The subprotocol that the server chose, or None.
        response_headers: The fields of the server's answer, with names in small letters.
        is_compressed: Whether messages may travel compressed.
        close_code: The close code once the WebSocket is closed, else None.
        close_reason: The reason that came with it.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(1000 if kind is None else CLOSE_FAILED)


def connections(
    url: str,
    *,
    pause_first: float = 0.5,
    pause_last: float = 60.0,
    **options: Unpack[ConnectOptions],
) -> Iterator[WebSocket]:
    """Connect again and again: each round of the loop gets an open WebSocket.

    ```python
    for websocket in connections("ws://127.0.0.1:8000/chat"):
        try:
            for message in websocket:
                print(message)
        except ConnectionClosed:
            continue
    ```

    Before an attempt that follows a failure there is a pause, drawn at random and up to twice as
    long as the one before. What will not pass (an address, a certificate, a refusal with 4xx) is
    raised. The WebSocket is closed when the next round begins, or the loop ends.

    Args:
        url: As for `connect`.
        pause_first: The longest that the first pause may be, in seconds.
        pause_last: The longest of all.
        **options: As for `connect`.
    """
    pauses = _http.ClientBackOff(pause_first, pause_last)
    while True:
        start = time.monotonic()
        try:
            websocket = connect(url, **options)
        except ClientError as error:
            time.sleep(_pause(error, pauses))
            continue
        with websocket:
            yield websocket
        if time.monotonic() - start >= STEADY_S:
            pauses.reset()
        else:
            time.sleep(next(pauses))


def _pause(error: ClientError, pauses: _http.ClientBackOff) -> float:
    """How long to wait after an error that may pass; others are raised."""
    if not error.is_passing:
        raise error
    pause = next(pauses)
    LOGGER.info("%s; next attempt in %.1f s", error.problem, pause)
    return pause


# --------------------------------------------------------------------------------------------
# For asyncio


class connect_async:  # noqa: N801 (used as a function)
    """Open a WebSocket on the running event loop: `await` it, or use it with `async with`.

    Args:
        url: As for `connect`.
        **options: As for `connect`.

    Raises:
        ClientError: As for `connect`.
    """

    __slots__ = ("_options", "_url", "_websocket")

    def __init__(self, url: str, **options: Unpack[ConnectOptions]) -> None:
        self._url = url
        self._options = options
        self._websocket: AsyncWebSocket | None = None

    def __await__(self) -> Generator[Any, None, AsyncWebSocket]:
        return self._open().__await__()

    async def _open(self) -> AsyncWebSocket:
        loop = asyncio.get_running_loop()
        opening = _opening(self._url, self._options)
        over = loop.create_future()
        fd = opening.fileno()
        loop.add_reader(fd, _set, over)
        try:
            await over
        finally:
            # The attempt is given up with `opening` when this was cancelled.
            loop.remove_reader(fd)
        return AsyncWebSocket(_http.ClientSocket(opening, attended=True), loop)

    async def __aenter__(self) -> AsyncWebSocket:
        self._websocket = await self
        return self._websocket

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._websocket is not None
        await self._websocket.close(1000 if kind is None else CLOSE_FAILED)


def _set(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


class AsyncWebSocket:
    """An open WebSocket for asyncio; `connect_async` makes it.

    It is iterated over for its messages. One task may receive while others send. Cancelling `recv`
    loses no message.
    """

    __slots__ = (
        "_done", "_fd", "_is_due", "_loop", "_receiving", "_room", "_socket", "_timer", "_watched",
    )  # fmt: skip

    def __init__(self, socket: _http.ClientSocket, loop: asyncio.AbstractEventLoop) -> None:
        """Use `connect_async` instead."""
        self._socket = socket
        self._loop = loop
        self._fd = socket.fileno()
        self._watched = 0
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._receiving: asyncio.Future[None] | None = None
        # Who waits for room, and for the end.
        self._room: asyncio.Future[None] | None = None
        self._done: asyncio.Future[None] | None = None
        self._ready()  # TLS may have read more than the handshake
        self._keep_time()

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose, or None."""
        return self._socket.subprotocol

    @property
    def response_headers(self) -> list[tuple[str, str]]:
        """The fields of the server's answer to the handshake, with names in small letters."""
        return self._socket.response_headers

    @property
    def is_compressed(self) -> bool:
        """Whether messages may travel compressed."""
        return self._socket.is_compressed

    @property
    def close_code(self) -> int | None:
        """The close code once the WebSocket is closed; 1005: none came, 1006: connection lost."""
        return self._socket.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason that came with the close code."""
        return self._socket.close_reason

    async def recv(self) -> str | bytes:
        """Wait for the next message: str for text, bytes for binary ones.

        Raises:
            ConnectionClosed: The WebSocket is closed, and no message is left that came before.
            ClientArgumentError: Another task is receiving.
        """
        if self._receiving is not None:
            raise ClientArgumentError("another task is receiving from this WebSocket")
        while (message := self._socket.take()) is None:
            self._receiving = self._loop.create_future()
            try:
                await self._receiving
            finally:
                self._receiving = None
        if not self._watched & WANTS_READ:
            # There was no room; perhaps there is now.
            self._ready()
            self._keep_time()
        return message

    async def send(self, data: Data) -> None:
        """Send a message: str as text, bytes and what is like bytes as binary.

        Waits while much is unsent. When that is cancelled the message is sent all the same.

        Raises:
            ConnectionClosed: The WebSocket is closed.
        """
        unsent = self._socket.post(data)
        if unsent and not self._is_due and not self._watched & WANTS_WRITE:
            # Small answers to messages that came together leave together, now or with the last one.
            self._is_due = True
            self._loop.call_soon(self._flush)
        while unsent > UNSENT_BYTES_MAX:
            if self._room is None:
                self._room = self._loop.create_future()
            # Several may wait for it: none may cancel it for the others.
            await asyncio.shield(self._room)
            self._socket.check_open()
            unsent = self._socket.unsent

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket and wait until the server has as well, for the close timeout at most.

        Harmless when it is closed. When it is cancelled the connection is cut.

        Args:
            code: 1000, 1001 or 3000 to 4999, and what else may be sent.
            reason: At most 123 bytes in UTF-8.
        """
        self.begin_close(code, reason)
        try:
            while not self._socket.state() & IS_DONE:
                if self._done is None:
                    self._done = self._loop.create_future()
                await asyncio.shield(self._done)
        finally:
            if not self._socket.state() & IS_DONE:
                self._socket.abort()
                self._attend(self._socket.state())

    def begin_close(self, code: int = 1000, reason: str = "") -> None:
        """As `close`, without waiting: the loop does the rest while it runs."""
        self._socket.begin_close(code, reason)
        self._attend(self._socket.state())
        self._keep_time()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Give out messages until the WebSocket is closed with 1000, 1001 or no code."""
        try:
            while True:
                yield await self.recv()
        except ConnectionClosedOK:
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(1000 if kind is None else CLOSE_FAILED)

    def __del__(self) -> None:
        # The loop holds us while it watches, so this is the end of a loop or of an end.
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        """Write what was left for later."""
        self._is_due = False
        if self._socket.unsent:
            self._ready()

    def _ready(self) -> None:
        """Something can be read or written."""
        state = self._socket.step()
        while state & IS_READY:
            state = self._socket.step()
        self._attend(state)

    def _attend(self, state: int) -> None:
        """Tell who waits, and watch for what is wanted next."""
        if state & (HAS_MESSAGE | IS_CLOSED):
            _set(self._receiving)
        if self._room is not None and (
            state & IS_CLOSED or self._socket.unsent <= UNSENT_BYTES_MAX
        ):
            _set(self._room)
            self._room = None
        changed = (state ^ self._watched) & (WANTS_READ | WANTS_WRITE)
        if changed & WANTS_READ:
            if state & WANTS_READ:
                self._loop.add_reader(self._fd, self._ready)
            else:
                self._loop.remove_reader(self._fd)
        if changed & WANTS_WRITE:
            if state & WANTS_WRITE:
                self._loop.add_writer(self._fd, self._ready)
            else:
                self._loop.remove_writer(self._fd)
        ends = state & IS_CLOSED and not self._watched & IS_CLOSED
        self._watched = state
        if state & IS_DONE:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            _set(self._done)
            self._done = None
        elif ends:
            self._keep_time()

    def _keep_time(self) -> None:
        """Have the clock looked at when it is time to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._socket.due()
        if due is not None:
            self._timer = self._loop.call_later(due, self._look)

    def _look(self) -> None:
        """It may be time for a ping, or to give up; or time was won since."""
        self._timer = None
        self._ready()
        self._keep_time()


async def connections_async(
    url: str,
    *,
    pause_first: float = 0.5,
    pause_last: float = 60.0,
    **options: Unpack[ConnectOptions],
) -> AsyncIterator[AsyncWebSocket]:
    """Connect again and again, as `connections`: `async for websocket in connections_async(url)`.

    Args:
        url: As for `connect`.
        pause_first: The longest that the first pause may be, in seconds.
        pause_last: The longest of all.
        **options: As for `connect`.
    """
    pauses = _http.ClientBackOff(pause_first, pause_last)
    while True:
        start = time.monotonic()
        try:
            websocket = await connect_async(url, **options)
        except ClientError as error:
            await asyncio.sleep(_pause(error, pauses))
            continue
        async with websocket:
            yield websocket
        if time.monotonic() - start >= STEADY_S:
            pauses.reset()
        else:
            await asyncio.sleep(next(pauses))
