"""What goes over Zenoh: keys, the head of each frame, what frames are laid out like.

Keys, below a prefix (`framegate`), with the name of the host that has the topic:

| key | what it is |
|---|---|
| `PREFIX/frames/HOST/TOPIC` | frames: put by the one host, subscribed to by any number |
| `PREFIX/calls/HOST/TOPIC` | queryable: calls of responders of the one host |
| `PREFIX/info/HOST/TOPIC` | queryable: what the topic is like, as JSON |
| `PREFIX/latest/HOST/TOPIC` | queryable: the newest frame, for who comes late |
| `PREFIX/live/HOST/ID/STREAM/KIND/TOPIC` | liveliness token: `frames` or `calls` are offered |

A payload is the frame's bytes as they lie in its slot. What there is to say about it is in the
attachment: a head of fixed size, and behind it (the tail) JSON for what most frames do not have or
what does not change. The first five bytes of a head, and `version` in the JSON of a topic, mean
the same in every version; the rest may only be read if the version is the own one.

A *stream* is what one bridge sends of one topic from one start to its end; frames in it are
numbered from 1 on, so that a gap says how many were lost on the way, and a heartbeat (a frame
without payload, which repeats the last number) says whether the last ones were.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from framegate import records
from framegate._shm import dtype_item_bytes, dtype_name, frame_over
from framegate.errors import SchemaMismatch
from framegate.likeness import plain, values

__all__ = [
    "FRAME",
    "HEARTBEAT",
    "LATEST",
    "MESSAGE",
    "VERSION",
    "WORD",
    "Head",
    "IncompatibleError",
    "Layout",
    "Tail",
    "UnreadableError",
    "arrays_of",
    "fill",
    "head_of",
    "head_to",
    "layout_of",
    "message_of",
    "message_to",
    "tail_of",
    "tail_to",
]

MAGIC: Final = b"FGbr"
VERSION: Final = 1
"""Of the head, the tail and the JSON of topics. Others are refused and counted."""

WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Name of a host: one segment of a topic's name, so that both can be parts of a key."""

FRAME, HEARTBEAT, LATEST, MESSAGE = range(4)
"""Kinds of heads: a frame, the number of the last one, the newest one for who asks, a call."""

_HEAD: Final = struct.Struct("<4sBBHI16s16sQQQd")

TAIL_BYTES_MAX: Final = 256 * 1024
"""A frame has 1024 bytes of metadata and at most 64 arrays; in hexadecimal and JSON it fits."""


class UnreadableError(ValueError):
    """What came is not what this version writes."""


class IncompatibleError(UnreadableError):
    """It was written by another version."""


class Head(NamedTuple):
    """Of a frame, a request or a reply; see the module.

    Attributes:
        kind: One of the four.
        host_id: Who sent it.
        stream: What it is one of.
        number: Of a frame, from 1 on; of a request, milliseconds that its caller waits, or 0.
        sequence: Of a frame in its topic.
        published_unix_ns: When it was published, by the sender's clock.
        timestamp: The application's own time, in seconds.
    """

    kind: int
    host_id: bytes
    stream: bytes
    number: int
    sequence: int
    published_unix_ns: int
    timestamp: float | None


def head_to(head: Head, tail: bytes) -> bytes:
    """As an attachment."""
    seconds = math.nan if head.timestamp is None else head.timestamp
    return (
        _HEAD.pack(
            MAGIC, VERSION, head.kind, 0, len(tail), head.host_id, head.stream, head.number,
            head.sequence, head.published_unix_ns, seconds,
        )
        + tail
    )  # fmt: skip


def head_of(attachment: bytes) -> tuple[Head, bytes]:
    """The head and the tail.

    Raises:
        IncompatibleError: It is another version's.
        UnreadableError: It is no head.
    """
    if attachment[:4] != MAGIC or len(attachment) < 5:
        raise UnreadableError("it has no head of framegate")
    if attachment[4] != VERSION:
        raise IncompatibleError(
            f"its head has version {attachment[4]}, this bridge reads {VERSION}"
        )
    try:
        _, _, kind, _, size, host_id, stream, number, sequence, ns, seconds = _HEAD.unpack_from(
            attachment
        )
    except struct.error:
        raise UnreadableError("its head is cut off") from None
    if len(attachment) != _HEAD.size + size or size > TAIL_BYTES_MAX:
        raise UnreadableError("its head is cut off")
    timestamp = None if math.isnan(seconds) else seconds
    return Head(kind, host_id, stream, number, sequence, ns, timestamp), attachment[_HEAD.size :]


Layout = list[Any] | None
"""How the bytes are laid out: None as the topic says, [] bytes, else (name, dtype, shape) of each
array, and for records (name, dtype, shape, place)."""


class Tail(NamedTuple):
    """What is said of few frames, or of all the same."""

    layout: Layout = None
    metadata: Mapping[str, Any] = {}
    content_type: str | None = None


def tail_to(tail: Tail) -> bytes:
    """As bytes; none for nothing."""
    if tail == (None, {}, None):
        return b""
    return json.dumps(
        {"layout": tail.layout, "metadata": plain(tail.metadata), "type": tail.content_type},
        separators=(",", ":"),
    ).encode()


def tail_of(data: bytes) -> Tail:
    """The inverse.

    Raises:
        UnreadableError: It makes no sense.
    """
    if not data:
        return Tail()
    try:
        found = json.loads(data)
        layout, content_type = found["layout"], found["type"]
        metadata = values(found["metadata"])
        if layout is not None:
            for name, dtype, shape, *place in layout:
                is_array = isinstance(name, str) and isinstance(dtype, str)
                numbers = [*shape, *(place[0] if place else ())]
                if not is_array or len(place) > 1 or not all(isinstance(n, int) for n in numbers):
                    raise ValueError("an array has a name, a dtype and a shape")
        if not isinstance(content_type, str | None):
            raise ValueError("a type is text")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"its tail makes no sense: {error}") from None
    return Tail(layout, metadata, content_type)


# ----------------------------------------------------------------------------------------------
# Layouts


def layout_of(frame: Any, is_fixed: bool) -> Layout:
    """How a frame is laid out; `is_fixed` if every frame of its topic is laid out the same."""
    if is_fixed:
        return None
    if not (arrays := frame.arrays):
        return []
    if "" in arrays:
        return [["", frame.dtype, list(frame.shape)]]
    if frame.nbytes and _is_record(frame):
        dtype = frame.array.dtype
        return [
            [name, str(kind), list(shape), list(place)]
            for name, kind, shape, place in records.rows_of(dtype, frame.shape)
        ]
    return [[name, dtype_name(array.dtype), list(array.shape)] for name, array in arrays.items()]


def _is_record(frame: Any) -> bool:
    try:
        return bool(frame.dtype == "record")
    except SchemaMismatch:  # several arrays, which have no dtype together
        return False


def arrays_of(layout: list[Any]) -> Any:
    """What `Publisher.loan` takes for such arrays."""
    if len(layout) == 1 and layout[0][0] == "":
        return layout[0][1], tuple(layout[0][2])
    return {name: (dtype, tuple(shape)) for name, dtype, shape in layout}


def fill(loan: Any, data: bytes) -> None:
    """Copy bytes into a slot of the same length."""
    if data:  # a memoryview without bytes has no other shape
        with memoryview(loan) as shaped, shaped.cast("B") as flat:
            flat[:] = data


# ----------------------------------------------------------------------------------------------
# Calls: arrays one after the other


def message_to(message: Any) -> tuple[bytes, Layout]:
    """The payload of a request or a reply, and its layout."""
    arrays = message.arrays
    if not arrays:
        return bytes(message), []
    layout = []
    for name, array in arrays.items():
        dtype = message.dtype if name == "" else dtype_name(array.dtype)
        layout.append([name, dtype, list(array.shape)])
    return b"".join(array.tobytes() for array in arrays.values()), layout


def message_of(data: bytes, layout: Layout) -> Any:
    """What `Caller.call` and `Request.reply` take.

    Raises:
        UnreadableError: The layout is not that of so many bytes.
    """
    if not layout:
        return data
    found, begin = {}, 0
    for name, dtype, shape in layout:
        try:
            size = dtype_item_bytes(dtype) * math.prod(shape)
        except TypeError as error:
            raise UnreadableError(str(error)) from None
        if size < 0 or begin + size > len(data):
            raise UnreadableError("its arrays have more bytes than it")
        part = frame_over(data[begin : begin + size], 0, dtype=dtype, shape=shape)
        found[name] = part.array
        begin += size
    if begin != len(data):
        raise UnreadableError("its arrays have fewer bytes than it")
    return found[""] if list(found) == [""] else found
