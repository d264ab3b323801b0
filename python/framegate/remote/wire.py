"""What goes over the wire to frame routes, and what their refusals are called on one machine."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from framegate import errors
from framegate._shm import Frame
from framegate.client import ClientArgumentError, ClientError, ConnectOptions, HandshakeRefused
from framegate.errors import RequestRefused

__all__ = [
    "HEAD",
    "MESSAGE_BYTES_MAX",
    "Payload",
    "complaint",
    "local_ns",
    "problem_of",
    "settings",
    "translated",
    "websocket_url",
]

MESSAGE_BYTES_MAX = (64 << 20) + (64 << 10)
"""The largest message that is taken unless `message_bytes_max` says otherwise: a frame of 64 MiB
with its head. A picture of 4K in 16 bits has 48 MiB, and each is kept in memory."""

HEAD = struct.Struct("<BBHIQQd")
"""Version, kind, offset of the payload, flags, sequence, time of publication, timestamp."""

PROBLEMS: dict[str, type[errors.ShmError]] = {
    "topic-unknown": errors.TopicNotFound,
    "topic-name": errors.TopicNameInvalid,
    "topic-full": errors.TopicFull,
    "frame-too-large": errors.FrameTooLarge,
    "frame-length": errors.SchemaMismatch,
    "frame-head": errors.SchemaMismatch,
    "schema-mismatch": errors.SchemaMismatch,
    "unsupported-type": errors.SchemaMismatch,
    "unauthorized": errors.PermissionDenied,
    "forbidden": errors.PermissionDenied,
    "no-responder": errors.NoResponder,
    "responder-died": errors.ResponderDied,
    "call-failed": errors.CallFailed,
    "calls-exhausted": errors.CallsExhausted,
    "reply-late": errors.ShmTimeout,
    "leases-exhausted": errors.LeaseQuotaExceeded,
    "viewers-exhausted": errors.ParticipantsExhausted,
    "storage-full": errors.NoSpace,
}
"""Codes of the server's problems (RFC 9457), and what the same is called on one machine."""


def problem_of(text: str | bytes) -> tuple[str, str] | None:
    """The code and the detail of a problem."""
    try:
        problem = json.loads(text)
        return str(problem["code"]), str(problem.get("detail") or problem["title"])
    except (ValueError, TypeError, KeyError):
        return None


def translated(error: ClientError) -> Exception:
    """What the server's refusal is called on one machine, if there is a name for it."""
    if not isinstance(error, HandshakeRefused | RequestRefused):
        return error
    found = problem_of(error.body)
    if found is None or found[0] not in PROBLEMS:
        return error
    code, detail = found
    return PROBLEMS[code](detail, cause=f"{error.problem} ({code})")


def complaint(text: str, url: str) -> errors.ShmError:
    """What the server says about one frame."""
    code, detail = problem_of(text) or ("", text)
    kind = PROBLEMS.get(code, errors.ShmError)
    return kind(detail, cause=f"{url} says so{f' ({code})' if code else ''}")


def local_ns(published_unix_ns: int) -> int:
    """A time of the server's clock on this machine's monotonic one."""
    return max(published_unix_ns - time.time_ns() + time.monotonic_ns(), 0)


def websocket_url(url: str, query: Iterable[str] = ()) -> str:
    """The URL as that of a WebSocket, with more parameters."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ClientArgumentError(
            f"{url} is no URL of a topic", fix="it looks like http://host:8000/topics/camera"
        )
    whole = "&".join([part for part in (parts.query,) if part] + list(query))
    return urlunsplit((f"ws{parts.scheme[4:]}", parts.netloc, parts.path, whole, ""))


def settings(options: ConnectOptions, token: str | None) -> ConnectOptions:
    """The options with the token as a header, and room for messages as long as frames are."""
    given = options.get("headers", ())
    headers = list(given.items() if isinstance(given, Mapping) else given)
    if token is not None:
        headers.append(("Authorization", f"Bearer {token}"))
    return {"message_bytes_max": MESSAGE_BYTES_MAX, **options, "headers": headers}


class Payload:
    """Bytes, and what they are."""

    __slots__ = ("content_type", "data", "dtype", "shape")

    def __init__(self, data: Any, content_type: str | None) -> None:
        self.content_type: str | None = content_type
        self.dtype: str | None = None
        self.shape: tuple[int, ...] = ()
        if isinstance(data, Frame) and not data.arrays:
            data = memoryview(data)
        if isinstance(data, Mapping) or (isinstance(data, Frame) and len(data.arrays) > 1):
            raise ClientArgumentError(
                "frames of several named arrays do not travel over HTTP",
                fix="send one array, or each to a topic of its own",
            )
        if hasattr(data, "__array__") or hasattr(data, "__dlpack__"):
            import numpy

            array = numpy.asarray(data if hasattr(data, "__array__") else numpy.from_dlpack(data))
            if array.dtype.hasobject or array.dtype.fields is not None:
                raise ClientArgumentError(f"arrays of {array.dtype} do not travel over HTTP")
            if array.ndim == 0:
                raise ClientArgumentError(
                    "an array without dimensions does not travel over HTTP", fix="array.reshape(1)"
                )
            array = numpy.asarray(array, array.dtype.newbyteorder("="), order="C")
            self.dtype, self.shape = array.dtype.name, array.shape
            # As bytes: memoryview does not know all types of elements.
            flat: Any = array.reshape(-1).view(numpy.uint8)
            self.data: memoryview = memoryview(flat)
        else:
            view = memoryview(data)
            is_plain = view.c_contiguous and view.nbytes > 0
            self.data = view.cast("B") if is_plain else memoryview(view.tobytes())

    @property
    def kind(self) -> tuple[str, ...]:
        """The query of a publisher that sends such frames."""
        if self.dtype is not None:
            return (f"dtype={self.dtype}", "shape=" + ",".join(map(str, self.shape)))
        return () if self.content_type is None else (f"type={quote(self.content_type, safe='/')}",)

    @property
    def headers(self) -> dict[str, str]:
        """The fields of a request."""
        headers = {"Content-Type": self.content_type or "application/octet-stream"}
        if self.dtype is not None:
            headers |= {"Frame-Dtype": self.dtype, "Frame-Shape": ",".join(map(str, self.shape))}
        return headers

    def message(self, timestamp: float | None) -> bytes:
        """As a publisher sends it."""
        seconds = math.nan if timestamp is None else timestamp
        return b"".join((HEAD.pack(1, 0, HEAD.size, 0, 0, 0, seconds), self.data))
