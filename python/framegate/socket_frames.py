"""Frames between a WebSocket of a handler and a topic: `await websocket_to_topic(ws, "camera")`.

The handler decides who may, before or after it accepts; then bytes pass it by. On framegate's own
server a message goes from the socket into a slot in Rust, and a frame from its slot to the
socket; the handler waits in `receive()` for the end. On another server the same is done here with
each message. A message is a frame and nothing else: for heads, acknowledgements and many
formats there are the WebSockets of frame routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from framegate.errors import (
    FrameTooLarge,
    FrameTooShort,
    RemoteProtocolError,
    TopicFull,
)
from framegate.frame_stream import EXTENSION, paced, picture_of, query_of

__all__ = ["Forwarded", "topic_to_websocket", "websocket_to_topic"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What came over a WebSocket until it ended."""

    frames: int
    """Messages that were published."""
    dropped: int
    """Messages that found no free slot."""
    native: bool
    """True when their bytes went from the socket into slots without Python."""


async def websocket_to_topic(
    websocket: Any,
    topic: str,
    *,
    dtype: str | None = None,
    shape: Sequence[int] | None = None,
    content_type: str | None = None,
    slots: int = 8,
    slot_bytes: int | None = None,
    receive: Receive | None = None,
    send: Send | None = None,
) -> Forwarded:
    """Publish each binary message as one frame of `topic`, until the WebSocket ends.

    A WebSocket that was not accepted is accepted when the topic is open. The topic is created by
    the first call that names it and stays open in this worker. A message that finds no free slot is
    dropped: who sends frames all the time has a newer one soon. Cancelling the call gives later
    messages back to the handler.

    Args:
        websocket: The framework's WebSocket (FastAPI, Starlette, Litestar), or the ASGI scope:
            then accepting is left to this call.
        topic: Topic name, for example `camera/front`.
        dtype: Name of the items' type, for example `uint8`; goes with `shape`.
        shape: Lengths of the dimensions, C order; a message has exactly `prod(shape)` items.
        content_type: What the messages are, for example `image/jpeg`.
        slots: Slots of the topic, if this call creates it.
        slot_bytes: Bytes of a slot, if this call creates it; without dtype and shape it has to be
            said, unless the topic is there.
        receive: ASGI `receive`, when `websocket` is a scope.
        send: ASGI `send`, when `websocket` is a scope.

    Returns:
        How many frames were published, once the client has closed.

    Raises:
        FrameTooLarge: A message does not fit into a slot; the client is told 1009.
        FrameTooShort: A message has fewer than `prod(shape)` items; 1007.
        RemoteProtocolError: The client sent text; 1003.
        SchemaMismatch: The topic holds frames of another dtype or shape.
        TypeError: This is no WebSocket.
    """
    if (dtype is None) != (shape is None):
        raise TypeError("websocket_to_topic() takes dtype and shape together, or neither")
    scope, receive, send = _parts(websocket, receive, send)
    handle = (scope.get("extensions") or {}).get(EXTENSION)
    if handle is not None:
        sink = await handle.publish(
            topic,
            dtype=dtype,
            shape=None if shape is None else tuple(shape),
            content_type=content_type,
            slots=slots,
            slot_bytes=slot_bytes,
        )
    else:
        sink = _Sink(topic, dtype, shape, content_type, slots, slot_bytes)
    try:
        await _accept(websocket, handle, send)
        while (event := await receive())["type"] != "websocket.disconnect":
            if event["type"] == "websocket.connect":
                continue
            if event.get("bytes") is None:
                await _close(send, 1003, "frames are binary messages")
                raise RemoteProtocolError(f"a client sent text to topic {topic!r}")
            try:
                sink.put(event["bytes"])
            except FrameTooLarge:
                await _close(send, 1009, "the message is larger than a frame of the topic")
                raise
            except FrameTooShort:
                await _close(send, 1007, "the message is shorter than a frame of the topic")
                raise
        sink.check()
        return Forwarded(sink.frames, sink.dropped, native=handle is not None)
    finally:
        sink.close()


async def topic_to_websocket(
    topic: str,
    websocket: Any,
    *,
    format: str | None = None,
    quality: int | None = None,
    width: int | None = None,
    height: int | None = None,
    rate: float | None = None,
    receive: Receive | None = None,
    send: Send | None = None,
) -> None:
    """Send the frames of `topic`, each as one binary message, until the client or the topic goes.

    A client that is slower than the frames gets fewer of them, never older ones. What it sends is
    ignored. A WebSocket that was not accepted is accepted once the topic is there. No frame is held
    when the call returns.

    Args:
        topic: Name of an existing topic.
        websocket: As of `websocket_to_topic`.
        format: `raw` (usual) is the frame's bytes; `jpeg`, `webp`, `png` a picture of it.
        quality: 1 to 100, of `jpeg` and `webp`; 80.
        width: The largest width in pixels, 1 to 65500.
        height: The same for the height.
        rate: Frames per second at most, 0.001 to 1000.
        receive: ASGI `receive`, when `websocket` is a scope.
        send: ASGI `send`, when `websocket` is a scope.

    Raises:
        TopicNotFound: There is no such topic.
        SchemaMismatch: Its frames are no pictures.
        ValueError: An argument is out of range.
        FramegateError: As many watch as may.
    """
    parameters = {
        "format": format, "quality": quality, "width": width, "height": height, "rate": rate,
    }  # fmt: skip
    query = query_of(parameters, set(parameters), ("raw", "jpeg", "webp", "png"))
    scope, receive, send = _parts(websocket, receive, send)
    handle = (scope.get("extensions") or {}).get(EXTENSION)
    if handle is not None:
        await handle.watch(topic, query)
        try:
            await _accept(websocket, handle, send)
            await _disconnected(receive)
        finally:
            handle.unwatch()
        return
    from framegate.shm import Subscriber

    with Subscriber(topic, policy="latest", name="topic_to_websocket") as subscriber:
        await _accept(websocket, None, send)
        gone = asyncio.ensure_future(_disconnected(receive))
        sending = asyncio.ensure_future(_send_frames(subscriber, send, format, query, rate))
        try:
            await asyncio.wait([gone, sending], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                await _close(send, 1000, "the topic is gone")
        finally:
            for task in (gone, sending):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task


async def _send_frames(
    subscriber: Any, send: Send, form: str | None, query: str, rate: float | None
) -> None:
    async for frame in paced(subscriber, rate):
        with frame:
            data = bytes(frame) if form in (None, "raw") else await picture_of(frame, form, query)
        await send({"type": "websocket.send", "bytes": data})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


class _Sink:
    """What the server has natively: frames from messages."""

    def __init__(
        self,
        topic: str,
        dtype: str | None,
        shape: Sequence[int] | None,
        content_type: str | None,
        slots: int,
        slot_bytes: int | None,
    ) -> None:
        from framegate.errors import TopicNotFound
        from framegate.shm import Publisher, Topic, dtype_item_bytes

        self.frames = self.dropped = 0
        self._content_type = content_type
        self._expected: int | None = None
        if dtype is not None and shape is not None:
            self._expected = dtype_item_bytes(dtype) * math.prod(shape)
        elif slot_bytes is None:
            try:
                Topic.open(topic).close()
            except TopicNotFound:
                raise ValueError(
                    f"how large are frames of topic {topic!r}? Say slot_bytes, or dtype and shape"
                ) from None
        self._publisher = Publisher(
            topic, dtype=dtype, shape=shape, slots=slots, slot_bytes=slot_bytes
        )

    def put(self, message: bytes) -> None:
        room = self._publisher.slot_bytes if self._expected is None else self._expected
        topic = self._publisher.topic
        if len(message) > room:
            raise FrameTooLarge(
                f"a message is longer than {room} bytes, all that topic {topic!r} takes"
            )
        if self._expected is not None and len(message) != self._expected:
            raise FrameTooShort(
                f"a message has {len(message)} bytes, dtype and shape want {self._expected}"
            )
        try:
            with self._publisher.loan(room, timeout=0) as loan:
                with memoryview(loan) as items, items.cast("B") as place:
                    place[: len(message)] = message
                loan.publish(size=len(message), content_type=self._content_type)
        except TopicFull:
            self.dropped += 1
        else:
            self.frames += 1

    def check(self) -> None:
        """Every message was checked as it came."""

    def close(self) -> None:
        self._publisher.close()


def _parts(
    websocket: Any, receive: Receive | None, send: Send | None
) -> tuple[MutableMapping[str, Any], Receive, Send]:
    """Scope, receive and send of whatever a framework calls a WebSocket."""
    if isinstance(websocket, MutableMapping):
        scope: Any = websocket
        if receive is None or send is None:
            raise TypeError("with an ASGI scope, receive= and send= are needed too")
    else:
        scope = getattr(websocket, "scope", None)
        receive = receive or getattr(websocket, "receive", None)
        send = send or getattr(websocket, "send", None)
    if not isinstance(scope, MutableMapping) or scope.get("type") != "websocket":
        raise TypeError(f"this takes a WebSocket or its scope, not a {type(websocket).__name__}")
    if receive is None or send is None:
        kind = type(websocket).__name__
        raise TypeError(f"a {kind} has no receive() and send(): give those of its scope")
    return scope, receive, send


async def _accept(websocket: Any, handle: Any, send: Send) -> None:
    """Accept the WebSocket unless the handler has."""
    if handle is not None:
        accepted = handle.accepted
    elif hasattr(websocket, "application_state"):  # Starlette, FastAPI
        accepted = websocket.application_state.name != "CONNECTING"
    elif hasattr(websocket, "connection_state"):  # Litestar
        accepted = websocket.connection_state not in ("init", "connect")
    else:
        accepted = False
    if accepted:
        return
    if hasattr(websocket, "accept"):
        await websocket.accept()
    else:
        await send({"type": "websocket.accept"})


async def _close(send: Send, code: int, reason: str) -> None:
    with contextlib.suppress(OSError):
        await send({"type": "websocket.close", "code": code, "reason": reason})
