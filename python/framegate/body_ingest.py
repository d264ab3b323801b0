"""Body of an HTTP request -> slot of a topic, from any handler of any framework.

On framegate's own server the body goes from the socket into a loaned slot in Rust: no `bytes`
object of it is made and no Python runs until the frame is published. The server puts a body handle
for that into `scope["extensions"]["framegate.frames"]`, so it is found behind middleware that wraps
`receive`. Where there is no handle (another server), or where somebody has begun to read the body
through `receive`, the same call copies the pieces that the framework hands out: the same result,
slower. `Ingested.native` and the worker's counters tell which way it went.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from framegate.errors import FramegateError, FrameTooLarge, FrameTooShort

__all__ = ["EXTENSION", "Ingested", "ingest"]

EXTENSION = "framegate.frames"
"""Key of the body handle in `scope["extensions"]`."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a body."""

    sequence: int
    """Sequence of the published frame, 1 upwards."""
    size: int
    """Bytes of the frame."""
    native: bool
    """True when the bytes went from the socket into the slot without Python."""


async def ingest(
    request: Any,
    topic: str,
    *,
    dtype: str | None = None,
    shape: Sequence[int] | None = None,
    slots: int = 8,
    slot_bytes: int | None = None,
    timestamp: float | None = None,
    timeout: float = 1.0,
    receive: Receive | None = None,
) -> Ingested:
    """Move the rest of the request's body into a slot of `topic` and publish it as one frame.

    The topic is created by the first call that names it and stays open in this worker. Several
    workers may ingest into one topic.

    Args:
        request: The framework's request (FastAPI, Starlette, Litestar, Quart, Django) or the ASGI
            scope itself.
        topic: Topic name, for example `camera/front`.
        dtype: Name of the items' type, for example `uint8`; goes with `shape`.
        shape: Lengths of the dimensions, C order; the body must have exactly `prod(shape)` items.
        slots: Slots of the topic, if this call creates it.
        slot_bytes: Bytes of a slot, if this call creates it; without it those of dtype and shape,
            or the body's Content-Length.
        timestamp: The application's own time of the frame, in seconds; consumers read
            `Frame.timestamp`.
        timeout: Seconds to wait for a free slot.
        receive: ASGI `receive`, needed only when `request` is a scope and the server is not
            framegate.

    Returns:
        Sequence and size of the published frame.

    Raises:
        FrameTooLarge: The body does not fit into a slot; known from Content-Length before a byte is
            read. It is also the framework's own HTTP error with status 413, so an unhandled one
            answers 413.
        FrameTooShort: The body has fewer than `prod(shape)` items (status 400).
        SchemaMismatch: The topic holds frames of another dtype or shape.
        TopicFull: No slot became free within `timeout` (status 503).
        ClientDisconnected: The client went away in the middle; nothing was published.
    """
    scope = _scope_of(request)
    expected = _expected_bytes(dtype, shape)
    try:
        handle = (scope.get("extensions") or {}).get(EXTENSION)
        if handle is not None and handle.untouched:
            sequence, size = await handle.ingest(
                topic,
                dtype=dtype,
                shape=None if shape is None else tuple(shape),
                slots=slots,
                slot_bytes=slot_bytes,
                time=timestamp,
                timeout=timeout,
            )
            return Ingested(sequence, size, native=True)
        if handle is not None:
            handle.count_plain()
        publisher = _publisher(topic, dtype, shape, slots, slot_bytes, scope)
        chunks = _chunks(request, scope, receive)
        return await _copy(publisher, chunks, _content_length(scope), expected, timestamp, timeout)
    except FramegateError as error:
        adapted = _adapted(error, request)
        if adapted is None:
            raise
        raise adapted from error


def _scope_of(request: Any) -> Scope:
    scope = request if isinstance(request, MutableMapping) else getattr(request, "scope", None)
    if not isinstance(scope, MutableMapping) or scope.get("type") != "http":
        kind = type(request).__name__
        raise TypeError(f"ingest() takes an HTTP request or its ASGI scope, not a {kind}")
    return scope


def _expected_bytes(dtype: str | None, shape: Sequence[int] | None) -> int | None:
    """Bytes that dtype and shape make; None when the frame is raw bytes."""
    from framegate.shm import dtype_item_bytes

    if (dtype is None) != (shape is None):
        raise TypeError("ingest() takes dtype and shape together, or neither for raw bytes")
    if dtype is None or shape is None:
        return None
    return dtype_item_bytes(dtype) * math.prod(shape)


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if bytes(name).lower() == b"content-length" and bytes(value).isdigit():
            return int(value)
    return None


# One open publisher per topic and event loop, closed with the loop: opening one for each request
# would cost more than the copy.
_publishers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Any]] = WeakKeyDictionary()


def _publisher(
    topic: str,
    dtype: str | None,
    shape: Sequence[int] | None,
    slots: int,
    slot_bytes: int | None,
    scope: Scope,
) -> Any:
    from framegate.shm import Publisher

    opened = _publishers.setdefault(asyncio.get_running_loop(), {})
    publisher = opened.get(topic)
    if publisher is None:
        if slot_bytes is None and dtype is None:
            slot_bytes = _content_length(scope)
        publisher = Publisher(topic, dtype=dtype, shape=shape, slots=slots, slot_bytes=slot_bytes)
        opened[topic] = publisher
    return publisher


async def _copy(
    publisher: Any,
    chunks: AsyncIterator[bytes],
    content_length: int | None,
    expected: int | None,
    timestamp: float | None,
    timeout: float,
) -> Ingested:
    """The plain way: pieces of the body copied into the loan by Python."""
    capacity = publisher.slot_bytes if expected is None else expected
    if content_length is not None and content_length > publisher.slot_bytes:
        raise FrameTooLarge(
            f"the body has {content_length} bytes, a slot of topic {publisher.topic!r} has "
            f"{publisher.slot_bytes}"
        )
    with publisher.loan(capacity, timeout=timeout) as loan:
        with memoryview(loan) as items, items.cast("B") as room:
            filled = 0
            async for chunk in chunks:
                if filled + len(chunk) > len(room):
                    raise FrameTooLarge(
                        f"the body is longer than {len(room)} bytes, all that topic "
                        f"{publisher.topic!r} takes"
                    )
                room[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
        if expected is not None and filled != expected:
            raise FrameTooShort(f"the body has {filled} bytes, dtype and shape want {expected}")
        return Ingested(loan.publish(size=filled, timestamp=timestamp), filled, native=False)


def _chunks(request: Any, scope: Scope, receive: Receive | None) -> AsyncIterator[bytes]:
    """The body as the framework hands it out, also when part of it was read and kept by the
    framework.
    """
    if isinstance(request, MutableMapping):
        if receive is None:
            raise TypeError("this server is not framegate: ingest(scope, ...) also needs receive=")
        return _received(receive)
    if hasattr(request, "body") and hasattr(request.body, "__aiter__"):  # Quart
        return request.body  # type: ignore[no-any-return]
    if hasattr(request, "stream") and callable(request.stream):  # Starlette, FastAPI, Litestar
        return request.stream()  # type: ignore[no-any-return]
    if hasattr(request, "read"):  # Django: the body lies in memory or in a temporary file
        return _read(request)
    raise TypeError(f"ingest() does not know how to read the body of a {type(request).__name__}")


async def _received(receive: Receive) -> AsyncIterator[bytes]:
    from framegate.errors import ClientDisconnected

    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the client went away before the end of the body")
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _read(request: Any) -> AsyncIterator[bytes]:
    while chunk := request.read(1 << 20):
        yield chunk


# Errors that are the client's doing (or a passing shortage), with the status that says so.
_STATUS: Mapping[str, int] = {"FrameTooLarge": 413, "FrameTooShort": 400, "TopicFull": 503}


def _adapted(error: FramegateError, request: Any) -> Exception | None:
    """The same error as the framework's HTTP exception, so that its own error handling answers with
    the status.
    """
    status = _STATUS.get(type(error).__name__)
    if status is None:
        return None
    error.status_code = status  # type: ignore[attr-defined]  # read by the server for raw ASGI apps
    packages = {base.__module__.partition(".")[0] for base in request.__class__.__mro__}
    base: type[Exception]
    if "starlette" in packages:
        base = sys.modules["starlette.exceptions"].HTTPException
        arguments: dict[str, Any] = {"status_code": status, "detail": error.problem}
    elif "litestar" in packages:
        base = sys.modules["litestar.exceptions"].HTTPException
        arguments = {"status_code": status, "detail": error.problem}
    elif "quart" in packages:
        base = sys.modules["werkzeug.exceptions"].default_exceptions[status]
        arguments = {"description": error.problem}
    else:
        return None
    return _both(type(error), base, error.problem, arguments)


def _both(
    kind: type[FramegateError], base: type[Exception], problem: str, arguments: dict[str, Any]
) -> Exception:
    """An exception that is caught by `except FrameTooLarge` and by the framework's own handler."""

    def initialise(self: Any) -> None:
        base.__init__(self, **arguments)
        self.problem, self.cause, self.fix = problem, "", ""

    body: dict[str, Any] = {"__init__": initialise, "__module__": kind.__module__}
    if hasattr(base, "code"):  # werkzeug reads the status from the class
        body["code"] = base.code
    both: Exception = type(kind.__name__, (kind, base), body)()
    return both
