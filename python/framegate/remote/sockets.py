"""Subscriber and Publisher of another machine: each a WebSocket."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

from framegate import _http, errors
from framegate._shm import Frame, frame_over
from framegate.client import (
    AsyncWebSocket,
    ClientArgumentError,
    ClientError,
    ClientTimeout,
    ConnectionClosed,
    ConnectionClosedOK,
    ConnectOptions,
    WebSocket,
    connect,
    connect_async,
)
from framegate.remote.wire import (
    HEAD,
    Payload,
    complaint,
    local_ns,
    problem_of,
    settings,
    translated,
    websocket_url,
)

if TYPE_CHECKING:
    from typing import NoReturn, Self, Unpack

__all__ = ["Publisher", "Subscriber"]

LOGGER = logging.getLogger("framegate.remote")

IN_FLIGHT_MAX = 256
"""Frames of a batch that wait for their answers: the server stops reading from a client whose
answers fill 64 KiB, and each has 11 bytes."""

PAUSE_FIRST_S, PAUSE_LAST_S = 0.5, 30.0
"""The longest that the first pause between attempts to connect may be, and the longest of all."""

ACKNOWLEDGEMENT = struct.Struct("<BQ")
HAS_EXTENSION = 1
CONTENT_TYPES = {1: "image/jpeg", 2: "image/webp", 3: "image/png"}


class _Link:
    """A WebSocket to a topic, for threads or for an event loop: whichever is used first."""

    def __init__(self, url: str, token: str | None, options: ConnectOptions) -> None:
        self.url = url
        self._options = settings(options, token)
        self._websocket: WebSocket | None = None
        self._async_websocket: AsyncWebSocket | None = None
        self._closed = False
        websocket_url(url)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _check(self, other: object, fix: str) -> None:
        if self._closed:
            raise errors.ClosedError(f"this {type(self).__name__.lower()} of {self.url} was closed")
        if other is not None:
            raise ClientArgumentError(f"it is in use, threads and event loops do not mix: {fix}")

    def _open(self, query: Iterable[str], patience: float | None = None) -> WebSocket:
        """The WebSocket; opens one if there is none."""
        self._check(self._async_websocket, "use the forms that end with _async")
        if self._websocket is None:
            options = self._options
            usual = options.get("open_timeout", 10.0)
            if patience is not None and (usual is None or patience < usual):
                options = {**options, "open_timeout": patience}
            self._websocket = connect(websocket_url(self.url, query), **options)
            self._begun()
        return self._websocket

    async def _open_async(self, query: Iterable[str]) -> AsyncWebSocket:
        self._check(self._websocket, "use the forms that do not end with _async")
        if self._async_websocket is None:
            address = websocket_url(self.url, query)
            self._async_websocket = await connect_async(address, **self._options)
            self._begun()
        return self._async_websocket

    def _begun(self) -> None:
        """A new connection is open."""

    def _forget(self) -> None:
        """The connection is over; the next use opens another one."""
        self._websocket = self._async_websocket = None

    def close(self) -> None:
        """Leave the topic; frames that were taken stay. What waits on another thread ends."""
        self._closed = True
        if self._websocket is not None:
            self._websocket.close()
        if self._async_websocket is not None:
            self._async_websocket.begin_close()

    async def close_async(self) -> None:
        """As `close`, and waits for the server on the running event loop."""
        self._closed = True
        if self._async_websocket is not None:
            await self._async_websocket.close()

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aexit__(self, *exception: object) -> None:
        await self.close_async()


class Subscriber(_Link):
    """The reading side of a topic of another machine.

    It connects with `with` or the first take; on an event loop with `async with` or the first
    `take_async`. One thread or task at a time takes from it. When the connection is lost a take
    raises `ConnectionClosed`, and the next one connects again; with `reconnect` it does so by
    itself, after pauses that grow and are drawn at random.

    Args:
        url: `http://host:port/topics/NAME`, or `https://`. Parameters of the frame routes may
            follow: `?format=jpeg&width=320`.
        policy: `latest`: each take gives out the newest frame, which the server sends when it is
            asked, so a slow link or program sees fewer frames and never old ones. `queue`: every
            frame from the connection on, in order; so many as `queue` wait at the server, then the
            oldest are left out. `unasked`: the newest frame when the one before has left, which
            saves the way of the question and may be late by what is on its way. Each frame says in
            `lost` how many are missing before it.
        queue: Frames that may wait at the server, with the policy `queue`; 32 if left out.
        rate: Frames per second at most.
        reconnect: Whether to connect again by itself, and go on.
        token: Sent as `Authorization: Bearer`.
        **options: As for `framegate.client.connect`; `message_bytes_max` is 64 MiB if left out.

    Attributes:
        url: As given.
        policy: As given.
        received: Frames taken.
        lost: Frames that were published meanwhile and not taken.
    """

    def __init__(
        self,
        url: str,
        policy: str = "latest",
        *,
        queue: int | None = None,
        rate: float | None = None,
        reconnect: bool = False,
        token: str | None = None,
        **options: Unpack[ConnectOptions],
    ) -> None:
        if policy not in ("latest", "queue", "unasked"):
            raise ClientArgumentError(
                f"policy {policy!r} does not exist over the network",
                fix="latest, queue or unasked: no publisher waits for another machine",
            )
        if queue is not None and policy != "queue":
            raise ClientArgumentError(f"queue={queue} goes with the policy queue, not {policy}")
        super().__init__(url, token, options)
        self.policy = policy
        self.received: int = 0
        self.lost: int = 0
        self._query = ["mode=subscribe", f"policy={policy}"]
        self._query += [] if queue is None else [f"queue={queue}"]
        self._query += [] if rate is None else [f"rate={rate:g}"]
        self._pauses = _http.ClientBackOff(PAUSE_FIRST_S, PAUSE_LAST_S) if reconnect else None
        self._last = 0
        self._begun()

    def _begun(self) -> None:
        # What an extension says holds for one connection.
        self._about: dict[str, Any] = {}
        self._owed: bytes | None = None

    @overload
    def take(self, *, timeout: None = None) -> Frame: ...
    @overload
    def take(self, *, timeout: float | None) -> Frame | None: ...
    def take(self, *, timeout: float | None = None) -> Frame | None:
        """Take the next frame by the policy, waiting for one; Ctrl-C works.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Returns:
            The frame, or None when none came in time.

        Raises:
            TopicNotFound: There is no such topic.
            PermissionDenied: The server does not allow it: see `token`.
            ConnectionClosed: The topic went away (`ConnectionClosedOK`), or the server.
            ClosedError: The subscriber was closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                websocket = self._open(self._query, _left(deadline))
                if (question := self._question()) is not None:
                    websocket.send(question)
                while True:
                    frame = self._read(websocket.recv(_left(deadline)))
                    if frame is not None:
                        return frame
            except ClientError as error:
                if isinstance(error, ClientTimeout) and _left(deadline) == 0:
                    return None
                pause, left = self._pause(error), _left(deadline)
                if left is not None and left <= pause:
                    time.sleep(left)
                    return None
                time.sleep(pause)

    @overload
    async def take_async(self, *, timeout: None = None) -> Frame: ...
    @overload
    async def take_async(self, *, timeout: float | None) -> Frame | None: ...
    async def take_async(self, *, timeout: float | None = None) -> Frame | None:
        """As `take`, on the running event loop. Cancelling it loses no frame."""
        if timeout is not None:
            try:
                async with asyncio.timeout(timeout):
                    return await self.take_async()
            except TimeoutError as error:
                if isinstance(error, ClientTimeout):
                    raise  # it took longer than `open_timeout`
                return None
        while True:
            try:
                websocket = await self._open_async(self._query)
                if (question := self._question()) is not None:
                    await websocket.send(question)
                while True:
                    frame = self._read(await websocket.recv())
                    if frame is not None:
                        return frame
            except ClientError as error:
                await asyncio.sleep(self._pause(error))

    def try_take(self) -> Frame | None:
        """Take the next frame if it has come; with `latest` it is asked for, and may come later."""
        self._connect()
        return self.take(timeout=0.0)

    def __iter__(self) -> Iterator[Frame]:
        """Frames as they come, until the topic goes away or the subscriber is closed."""
        try:
            while True:
                yield self.take()
        except (ConnectionClosedOK, errors.ClosedError):
            return

    async def __aiter__(self) -> AsyncIterator[Frame]:
        """Frames as they come, until the topic goes away or the subscriber is closed."""
        try:
            while True:
                yield await self.take_async()
        except (ConnectionClosedOK, errors.ClosedError):
            return

    def _question(self) -> bytes | None:
        """What asks for the next frame, unless that was done."""
        question, self._owed = self._owed, None
        return question

    def _pause(self, error: ClientError) -> float:
        """How long to wait before another attempt; raises what will not pass."""
        if not isinstance(error, ClientArgumentError):
            self._forget()
        passes = error.is_passing and not isinstance(error, ConnectionClosedOK)
        if self._pauses is None or self._closed or not passes:
            _raise(error)
        pause = next(self._pauses)
        LOGGER.info("%s; next attempt in %.1f s", error.problem, pause)
        return pause

    def _read(self, message: str | bytes) -> Frame | None:
        """A frame; None for what is none."""
        if isinstance(message, str):
            found = problem_of(message)
            if found is not None and found[0] == "topic-unknown":
                return None  # the close that follows says so
            self._forget()
            raise complaint(message, self.url)
        try:
            return self._frame(message)
        except (ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
            self._forget()
            raise errors.RemoteProtocolError(
                f"{self.url} does not speak version 1 of the frame protocol", cause=repr(error)
            ) from error
        except errors.SchemaMismatch:
            self._forget()
            raise

    def _frame(self, message: bytes) -> Frame:
        version, kind, begin, flags, sequence, published, timestamp = HEAD.unpack_from(message)
        if version != 1:
            raise ValueError(f"version {version}")
        if flags & HAS_EXTENSION:
            self._about = json.loads(message[HEAD.size : begin])
        lost = max(sequence - self._last - 1, 0) if self._last else 0
        is_array = kind == 0 and self._about.get("dtype") is not None
        frame = frame_over(
            message,
            begin,
            dtype=self._about["dtype"] if is_array else None,
            shape=self._about["shape"] if is_array else (),
            content_type=CONTENT_TYPES.get(kind) or self._about.get("content_type") or "",
            sequence=sequence,
            timestamp=None if math.isnan(timestamp) else timestamp,
            published_ns=local_ns(published),
            lost=lost,
        )
        self._last = sequence
        self.received += 1
        self.lost += lost
        if self.policy == "latest":
            self._owed = ACKNOWLEDGEMENT.pack(1, sequence)
        if self._pauses is not None:
            self._pauses.reset()
        return frame

    def __enter__(self) -> Self:
        # In a coroutine it is the first take_async that connects: this would stop the loop.
        if not _on_a_loop():
            self._connect()
        return self

    def _connect(self) -> None:
        try:
            self._open(self._query)
        except ClientError as error:
            # With `reconnect` the next take tries again.
            self._pause(error)

    async def __aenter__(self) -> Self:
        try:
            await self._open_async(self._query)
        except ClientError as error:
            self._pause(error)
        return self

    def __repr__(self) -> str:
        counters = f"{self.received} received, {self.lost} lost"
        return f"<Subscriber of {self.url}, {self.policy}, {counters}>"


class Publisher(_Link):
    """The writing side of a topic of another machine.

    It connects with its first frame, whose element type and shape the connection then has; a frame
    of another kind makes another connection. Several threads, or several tasks of one event loop,
    may send. After `ConnectionClosed`, when nobody knows whether the frame was published, the next
    frame connects again.

    Args:
        url: `http://host:port/topics/NAME`, or `https://`.
        token: Sent as `Authorization: Bearer`.
        **options: As for `framegate.client.connect`.

    Attributes:
        url: As given.
        published: Frames that the server says it has published.
    """

    def __init__(
        self, url: str, *, token: str | None = None, **options: Unpack[ConnectOptions]
    ) -> None:
        super().__init__(url, token, options)
        self.published = 0
        self._kind: tuple[str, ...] | None = None
        # Answers that are to come, of calls that were interrupted too.
        self._owed = 0
        self._turn = threading.Lock()
        self._async_turn = asyncio.Lock()

    def _forget(self) -> None:
        super()._forget()
        self._owed = 0

    def send(
        self, data: Any, *, timestamp: float | None = None, content_type: str | None = None
    ) -> int:
        """Publish a frame, and wait until the server has.

        Args:
            data: Bytes, an array, or a frame.
            timestamp: The application's own time of the frame in seconds.
            content_type: Media type of bytes that are encoded, such as `image/jpeg`.

        Returns:
            The sequence of the frame.

        Raises:
            TopicFull: No slot is free: nothing was published.
            TopicNotFound: There is no such topic, and no rule of the server creates it.
            SchemaMismatch: The topic holds other arrays.
            FrameTooLarge: The slots of the topic are smaller.
            PermissionDenied: The server does not allow it: see `token`.
            ConnectionClosed: The connection was lost.
        """
        return self.send_all([data], timestamp=timestamp, content_type=content_type)[0]

    def send_all(
        self,
        frames: Iterable[Any],
        *,
        timestamp: float | None = None,
        content_type: str | None = None,
    ) -> list[int]:
        """Publish several frames; up to 256 are on their way before an answer is waited for.

        Args:
            frames: Bytes, arrays or frames; best of one element type and shape.
            timestamp: As for `send`, of all of them.
            content_type: As for `send`.

        Returns:
            The sequences of the frames.

        Raises:
            ShmError: As for `send`, the first refusal: frames before and behind it were published
                where that was possible.
            ConnectionClosed: The connection was lost.
        """
        with self._turn:
            batch = _Batch(self, self._owed)
            try:
                for data in frames:
                    payload = Payload(data, content_type)
                    if self._websocket is not None and payload.kind != self._kind:
                        while self._owed:
                            batch.take(self._websocket.recv())
                        self._websocket.close()
                        self._forget()
                    websocket = self._open(["mode=publish", *payload.kind])
                    self._kind = payload.kind
                    # Before a wait: one that Ctrl-C ends sends its message all the same.
                    self._owed += 1
                    websocket.send(payload.message(timestamp))
                    while self._owed >= IN_FLIGHT_MAX:
                        batch.take(websocket.recv())
                while self._owed and self._websocket is not None:
                    batch.take(self._websocket.recv())
            except ClientError as error:
                self._fail(error)
            return batch.result()

    async def send_async(
        self, data: Any, *, timestamp: float | None = None, content_type: str | None = None
    ) -> int:
        """As `send`, on the running event loop. When it is cancelled the frame may be published."""
        sent = await self.send_all_async([data], timestamp=timestamp, content_type=content_type)
        return sent[0]

    async def send_all_async(
        self,
        frames: Iterable[Any],
        *,
        timestamp: float | None = None,
        content_type: str | None = None,
    ) -> list[int]:
        """As `send_all`, on the running event loop."""
        async with self._async_turn:
            batch = _Batch(self, self._owed)
            try:
                for data in frames:
                    payload = Payload(data, content_type)
                    if self._async_websocket is not None and payload.kind != self._kind:
                        while self._owed:
                            batch.take(await self._async_websocket.recv())
                        await self._async_websocket.close()
                        self._forget()
                    websocket = await self._open_async(["mode=publish", *payload.kind])
                    self._kind = payload.kind
                    self._owed += 1  # before a wait that may be cancelled, too
                    await websocket.send(payload.message(timestamp))
                    while self._owed >= IN_FLIGHT_MAX:
                        batch.take(await websocket.recv())
                while self._owed and self._async_websocket is not None:
                    batch.take(await self._async_websocket.recv())
            except ClientError as error:
                self._fail(error)
            return batch.result()

    def _fail(self, error: ClientError) -> NoReturn:
        if isinstance(error, ConnectionClosed):
            self._forget()
        _raise(error)

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<Publisher of {self.url}, {self.published} published>"


class _Batch:
    """The answers to frames that were sent together, behind those to others' frames."""

    __slots__ = ("_others", "_publisher", "_refusal", "_sequences")

    def __init__(self, publisher: Publisher, others: int) -> None:
        self._publisher = publisher
        self._others = others
        self._sequences: list[int] = []
        self._refusal: errors.ShmError | None = None

    def take(self, answer: str | bytes) -> None:
        """Note an answer."""
        publisher = self._publisher
        publisher._owed -= 1
        if isinstance(answer, bytes):
            publisher.published += 1
        if self._others:
            self._others -= 1
        elif isinstance(answer, bytes):
            self._sequences.append(ACKNOWLEDGEMENT.unpack(answer)[1])
        elif self._refusal is None:
            self._refusal = complaint(answer, publisher.url)

    def result(self) -> list[int]:
        """The sequences."""
        if self._refusal is not None:
            raise self._refusal
        return self._sequences


def _raise(error: ClientError) -> NoReturn:
    refusal = translated(error)
    raise refusal from (None if refusal is error else error)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
