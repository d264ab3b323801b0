"""A topic as the response of a handler: `return framegate.FrameStream("camera/front")`.

On framegate's own server the handler's part ends with the head of the response: the frames go from
shared memory to the client in Rust, as those of frame routes do, and share frames, pictures and
limits with them. The way there is `scope["extensions"]["framegate.topics"]`, and what the response
is travels in one of its fields, so middleware may wrap `send` as it likes. On another server the
same response is made here, frame by frame: the same bytes, slower.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote, urlencode

from framegate.errors import FramegateError, TopicNameInvalid, TopicNotFound

__all__ = ["EXTENSION", "FrameStream"]

EXTENSION = "framegate.topics"
"""Key of what the server offers handlers in `scope["extensions"]`."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

View = Literal["latest", "mjpeg", "sse"]
Format = Literal["raw", "npy", "jpeg", "webp", "png"]

# Which parameters of a frame route each view has, as docs/reference/topics-protocol.md.
_PARAMETERS: Final = {
    "latest": {"format", "quality", "width", "height", "after", "timeout"},
    "mjpeg": {"format", "quality", "width", "height", "rate", "framing"},
    "sse": {"rate"},
}
_FORMATS: Final = {
    "latest": ("raw", "npy", "jpeg", "webp", "png"),
    "mjpeg": ("jpeg", "webp", "png"),
}
_RANGES: Final = {
    "quality": (1, 100),
    "width": (1, 65500),
    "height": (1, 65500),
    "rate": (0.001, 1000),
    "after": (0, 2**64 - 1),
    "timeout": (0, 3600),
}
_COMMENT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 30.0
_END: Final = b"\r\n--frame--\r\n"


def query_of(parameters: dict[str, Any], allowed: set[str], formats: tuple[str, ...]) -> str:
    """The query of a frame route that says the same; ValueError says which argument is wrong."""
    given = {name: value for name, value in parameters.items() if value is not None}
    for name, value in given.items():
        if name not in allowed:
            raise ValueError(f"{name} means nothing here; there are {', '.join(sorted(allowed))}")
        if name == "format" and value not in formats:
            raise ValueError(f"format is one of {', '.join(formats)}, not {value!r}")
        if name == "framing" and value not in ("announced", "length"):
            raise ValueError(f"framing is announced or length, not {value!r}")
        if name in _RANGES:
            least, most = _RANGES[name]
            kinds = (int, float) if name in ("rate", "timeout") else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise ValueError(f"{name} is a number, not {value!r}")
            if not least <= value <= most:
                raise ValueError(f"{name} is from {least} to {most}, not {value!r}")
    texts = {
        name: f"{value:.9f}" if isinstance(value, float) else str(value)
        for name, value in given.items()
    }
    return urlencode(texts, quote_via=quote)


class FrameStream:
    """A response that is a view of a topic: any ASGI framework can send it.

    Starlette and FastAPI take it as their own kind of response (with `background`, `headers` and
    cookies); in Litestar the handler is annotated `-> framegate.FrameStream`; in Django
    `return await framegate.FrameStream(...).to_django(request)`; everywhere else it is an ASGI
    application: `await FrameStream(...)(scope, receive, send)`.

    The handler has decided who may see the topic: the rules of frame routes are not asked. What
    goes wrong with the topic is the response, as of frame routes: a problem (RFC 9457) whose `code`
    says what, 404 `topic-unknown` where there is no such topic. The stream ends when the topic is
    removed, the client goes away, or the worker stops; frames are leased one at a time, shared by
    all viewers of the process, and given back when they have left or a slow viewer has copied them.

    Args:
        topic: Name of the topic. Existing topics only; none is created.
        view: `mjpeg` is one picture after the other, for `<img>` and players; `sse` is what is said
            of each frame, as server-sent events; `latest` is the newest frame.
        format: `jpeg` (usual), `webp` or `png`; for `latest` also `raw` and `npy`, and what the
            client accepts if this is not said.
        quality: 1 to 100, of `jpeg` and `webp`; 80.
        width: The largest width in pixels, 1 to 65500. Proportions stay, nothing grows.
        height: The same for the height.
        rate: Frames per second at most, 0.001 to 1000.
        framing: `announced` for browsers, `length` for players; by default what `Accept` tells.
        after: For `latest`: only a frame with a later sequence, which is waited for.
        timeout: Seconds to wait for it; 204 when none came. At most the server's `topics_poll`.
        headers: Fields to add to the response.
        background: Runs when the handler's part is over, which on framegate is before the stream
            ends; Starlette's `BackgroundTask` or any async callable.

    Raises:
        ValueError: An argument is out of range, or means nothing for this view.

    Example:
        >>> @app.get("/live")
        ... async def live(user: User = Depends(current_user)):
        ...     return framegate.FrameStream(f"camera/{user.site}", quality=70, rate=10)
    """

    # Of Starlette's Response: what FastAPI looks at.
    status_code = 200
    body = b""
    raw_headers: Fields = []  # noqa: RUF012 (each has its own; native routes know it by this)
    _starlette: ClassVar[Any] = None

    def __new__(cls, *arguments: Any, **options: Any) -> FrameStream:
        """One that Starlette and FastAPI know as a response, where they are in use."""
        responses = sys.modules.get("starlette.responses")
        if responses is None or issubclass(cls, responses.Response):
            return super().__new__(cls)
        known: Any = cls.__dict__.get("_starlette")
        if known is None:
            known = type(cls.__name__, (cls, responses.Response), {"__module__": cls.__module__})
            cls._starlette = known
        response: FrameStream = object.__new__(known)
        return response

    def __init__(
        self,
        topic: str,
        view: View = "mjpeg",
        *,
        format: Format | None = None,
        quality: int | None = None,
        width: int | None = None,
        height: int | None = None,
        rate: float | None = None,
        framing: Literal["announced", "length"] | None = None,
        after: int | None = None,
        timeout: float | None = None,
        headers: dict[str, str] | None = None,
        background: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        if view not in _PARAMETERS:
            raise ValueError(f"view is one of {', '.join(_PARAMETERS)}, not {view!r}")
        parameters: dict[str, Any] = {
            "format": format, "quality": quality, "width": width, "height": height, "rate": rate,
            "framing": framing, "after": after, "timeout": timeout,
        }  # fmt: skip
        query = query_of(parameters, _PARAMETERS[view], _FORMATS.get(view, ()))
        self.topic: str = topic
        self.view: View = view
        self.background = background
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in (headers or {}).items()
        ]
        self._parameters = parameters
        self._query = f"view={view}&{query}".rstrip("&")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response (ASGI)."""
        if scope["type"] != "http":
            raise TypeError(
                f"a FrameStream is the response to an HTTP request, not {scope['type']}"
            )
        status, fields, body, view = await self._open(scope)
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [*fields, *self.raw_headers],
        }
        try:
            await send(start)
            if body is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await _send_while_there(body, receive, send)
        finally:
            del view  # what was not sent is let go of
        if self.background is not None:
            await self.background()

    async def to_django(self, request: Any) -> Any:
        """The response as Django sends it, a `StreamingHttpResponse`.

        Args:
            request: The `ASGIRequest` of an async view. Keep `GZipMiddleware` from it.

        Raises:
            TypeError: The request did not come over ASGI.
        """
        http: Any = importlib.import_module("django.http")

        scope = getattr(request, "scope", None)
        if scope is None:
            raise TypeError("to_django() needs a request that came over ASGI, not WSGI")
        status, fields, body, view = await self._open(scope)
        response = http.StreamingHttpResponse(_nothing() if body is None else body, status=status)
        del response.headers["Content-Type"]
        for name, value in [*fields, *self.raw_headers]:
            response.headers[name.decode("latin-1")] = value.decode("latin-1")
        response._framegate_view = view  # let go of with the response
        return response

    async def _open(self, scope: Scope) -> tuple[int, Fields, AsyncIterator[bytes] | None, Any]:
        """Status and fields, then the body, or None and what has it."""
        handle = (scope.get("extensions") or {}).get(EXTENSION)
        accept, none_match = _field(scope, b"accept"), _field(scope, b"if-none-match")
        if handle is not None:
            view = await handle.view(
                self.topic,
                self._query,
                method=scope["method"],
                accept=accept,
                none_match=none_match,
            )
            return view.status, view.headers, None, view
        try:
            status, fields, body = await self._plain(accept or b"")
        except FramegateError as error:
            status, fields, body = _problem(error)
        if scope["method"] == "HEAD":
            await _closed(body)
            body = _nothing()
        return status, fields, body, None

    # --- another server

    async def _plain(self, accept: bytes) -> tuple[int, Fields, AsyncIterator[bytes]]:
        from framegate.shm import Subscriber

        subscriber = Subscriber(self.topic, policy="latest", name="FrameStream")
        if self.view == "latest":
            with contextlib.closing(subscriber):
                return await self._latest(subscriber, accept)
        endless = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        if self.view == "sse":
            return (
                200,
                [(b"content-type", b"text/event-stream"), *endless],
                self._events(subscriber),
            )
        kind = b"multipart/x-mixed-replace; boundary=frame"
        return 200, [(b"content-type", kind), *endless], self._pictures(subscriber, accept)

    async def _latest(
        self, subscriber: Any, accept: bytes
    ) -> tuple[int, Fields, AsyncIterator[bytes]]:
        after, wait = self._parameters["after"], self._parameters["timeout"]
        deadline = time.monotonic() + min(_POLL_SECONDS if wait is None else wait, _POLL_SECONDS)
        frame = subscriber.try_take()
        while after is not None and (frame is None or frame.sequence == after):
            frame = await subscriber.take_async(timeout=max(deadline - time.monotonic(), 0))
            if frame is None:
                break
        fields: Fields = [(b"cache-control", b"no-cache"), (b"vary", b"accept")]
        if frame is None:
            return 204, fields, _nothing()
        with frame:
            form = self._parameters["format"]
            if form is None and frame.shape and b"application/x-npy" in accept:
                form = "npy"
            fields += _described(frame)
            if form == "npy":
                body, kind = _npy(frame), "application/x-npy"
            elif form in (None, "raw"):
                body, kind = bytes(frame), frame.content_type or "application/octet-stream"
            else:
                body, kind = await self._picture(frame, form), f"image/{form}"
        fields += [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        fields += [(b"x-content-type-options", b"nosniff")]
        fields += [(b"content-security-policy", b"sandbox; default-src 'none'")]
        return 200, fields, _once(body)

    async def _picture(self, frame: Any, form: str) -> bytes:
        return await picture_of(frame, form, self._query)

    async def _pictures(self, subscriber: Any, accept: bytes) -> AsyncIterator[bytes]:
        form = self._parameters["format"] or "jpeg"
        framing = self._parameters["framing"]
        announced = framing == "announced" or (framing is None and accept.startswith(b"image/"))
        part = f"--frame\r\nContent-Type: image/{form}\r\n".encode()
        with contextlib.closing(subscriber):
            if announced:
                yield part + b"\r\n"
            async for frame in paced(subscriber, self._parameters["rate"]):
                with frame:
                    published, sequence = _published(frame), frame.sequence
                    picture = await self._picture(frame, form)
                if announced:
                    yield picture + b"\r\n" + part + b"\r\n"
                else:
                    head = (
                        f"Content-Length: {len(picture)}\r\nX-Timestamp: {published}\r\n"
                        f"Frame-Sequence: {sequence}\r\n\r\n"
                    )
                    yield part + head.encode() + picture + b"\r\n"
            yield _END

    async def _events(self, subscriber: Any) -> AsyncIterator[bytes]:
        with contextlib.closing(subscriber):
            frames = paced(subscriber, self._parameters["rate"])
            following = asyncio.ensure_future(anext(frames, None))
            try:
                while True:
                    await asyncio.wait([following], timeout=_COMMENT_SECONDS)
                    if not following.done():
                        yield b":\n\n"
                        continue
                    frame = following.result()
                    if frame is None:
                        yield b"event: end\ndata: {}\n\n"
                        return
                    with frame:
                        said = {
                            "sequence": frame.sequence,
                            "published_ns": _published_ns(frame),
                            "timestamp": frame.timestamp,
                            "dtype": frame.dtype if frame.shape else None,
                            "shape": list(frame.shape) or None,
                            "content_type": frame.content_type,
                            "bytes": frame.nbytes,
                        }
                        sequence = frame.sequence
                    said = {name: value for name, value in said.items() if value is not None}
                    data = json.dumps(said, separators=(",", ":"))
                    yield f"id: {sequence}\ndata: {data}\n\n".encode()
                    following = asyncio.ensure_future(anext(frames, None))
            finally:
                following.cancel()


async def _send_while_there(body: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    """Send a body until its end or until the client goes away, which nothing else may tell."""
    gone = asyncio.ensure_future(_disconnected(receive))
    piece: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            piece = asyncio.create_task(_next(body))
            await asyncio.wait([gone, piece], return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                return
            data = piece.result()
            if data is None:
                break
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        for waiting in (gone, piece):
            if waiting is not None and not waiting.done():
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
        await _closed(body)


async def _closed(body: Any) -> None:
    await body.aclose()


async def _next(body: AsyncIterator[bytes]) -> bytes | None:
    return await anext(body, None)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def paced(subscriber: Any, rate: float | None) -> AsyncIterator[Any]:
    """The newest frames, no more per second than that, until the topic is gone."""
    from framegate.shm import topics

    due = 0.0
    while True:
        if rate is not None:
            now = time.monotonic()
            if due > now:
                await asyncio.sleep(due - now)
            due = max(due, time.monotonic() - 1 / rate) + 1 / rate
        while (frame := await subscriber.take_async(timeout=1.0)) is None:
            if subscriber.topic not in topics():
                return
        yield frame


async def picture_of(frame: Any, form: str, query: str) -> bytes:
    """A frame as a picture, made on a thread."""
    from framegate._http import make_frame_picture

    encoding = frame.metadata.get("encoding")
    return await asyncio.to_thread(
        make_frame_picture,
        bytes(frame),
        frame.dtype if frame.shape else None,
        frame.shape,
        encoding if isinstance(encoding, str) else None,
        frame.content_type,
        form,
        query,
    )


def _npy(frame: Any) -> bytes:
    import io

    import numpy

    file = io.BytesIO()
    numpy.save(file, frame.array, allow_pickle=False)
    return file.getvalue()


def _published_ns(frame: Any) -> int:
    return time.time_ns() - (time.monotonic_ns() - int(frame.published_ns))


def _published(frame: Any) -> str:
    seconds, nanoseconds = divmod(_published_ns(frame), 10**9)
    return f"{seconds}.{nanoseconds:09}"


def _described(frame: Any) -> Fields:
    fields = [("frame-sequence", str(frame.sequence)), ("frame-published", _published(frame))]
    if frame.shape:
        fields.append(("frame-dtype", frame.dtype))
        fields.append(("frame-shape", ", ".join(map(str, frame.shape))))
    if frame.timestamp is not None:
        fields.append(("frame-timestamp", repr(frame.timestamp)))
    return [(name.encode(), value.encode()) for name, value in fields]


_PROBLEMS: Final[dict[type[FramegateError], tuple[int, str, str]]] = {
    TopicNotFound: (404, "topic-unknown", "There is no such topic"),
    TopicNameInvalid: (400, "topic-name", "This is no name of a topic"),
}


def _problem(error: FramegateError) -> tuple[int, Fields, AsyncIterator[bytes]]:
    """A refusal, as frame routes tell it."""
    from framegate.errors import SchemaMismatch

    default = (503, "unavailable", "The topic cannot be used now")
    if isinstance(error, SchemaMismatch):
        default = (422, "no-picture", "The frame cannot be shown so")
    status, code, title = _PROBLEMS.get(type(error), default)
    said = {
        "type": f"urn:framegate:problem:{code}",
        "title": title,
        "status": HTTPStatus(status).value,
        "code": code,
        "detail": error.problem,
    }
    body = json.dumps(said).encode()
    fields = [
        (b"content-type", b"application/problem+json"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    return status, fields, _once(body)


def _field(scope: Scope, wanted: bytes) -> bytes | None:
    found = [bytes(value) for name, value in scope["headers"] if bytes(name).lower() == wanted]
    return b", ".join(found) if found else None
