"""Answers that are more than one message: iterators, files, events, what runs behind them.

`deliver` goes on with a request whose handler returned one of them, on the worker's own lane and on
ASGI's.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import mimetypes
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from framegate.app.answers import HttpRequest, Problem, Response, simplify
from framegate.app.threads import HandlerThreads

if TYPE_CHECKING:
    from framegate._http import RouteTable

__all__ = ["Event", "Events", "File", "Streamed", "deliver"]

Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]
Fields = list[tuple[bytes, bytes]]

FILE_BYTES: Final = 256 * 1024
"""Bytes of one piece of a file, on servers that do not send files themselves."""
UNMET: Final = {
    412: "the file is not as the request expects it",
    416: "the file has no such bytes",
}
END: Final = object()


class Streamed:
    """What a handler returns to have it sent piece by piece."""


class File(Streamed):
    """A file as an answer: the kernel sends it, no byte of it goes through Python.

    With status 200 it has an `ETag`, and the conditions and ranges of a GET or HEAD (RFC 9110,
    sections 13 and 14; up to 8 ranges at once) are answered with 206, 304, 412 or 416. The bytes of
    ranges do go through Python.

    Args:
        path: Where it is.
        name: What the client is to save it as; without it the client shows it.
        media_type: Its type; guessed by its name if it is not said.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        media_type: str | None = None,
    ) -> None:
        self.path: Path = Path(path)
        self.name = name
        guessed, _ = mimetypes.guess_type(name or self.path.name)
        self.media_type: str = media_type or guessed or "application/octet-stream"


class Event:
    """One server-sent event.

    Args:
        data: `str` as it is, anything else as JSON.
        event: Its type; `message` for browsers if it is not said.
        id: What a client that comes back says it has seen (`Last-Event-ID`).
        retry: Milliseconds after which a client that lost the connection comes back.
    """

    __slots__ = ("data", "event", "id", "retry")

    def __init__(
        self,
        data: Any,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
    ) -> None:
        for text in (event, id):
            if text is not None and set(text) & {"\r", "\n", "\0"}:
                raise ValueError(f"{text!r} is no name or id of an event: it has more than a line")
        self.data: Any = data
        self.event: str | None = event
        self.id: str | None = id
        self.retry: int | None = retry

    def encode(self) -> bytes:
        """Return it as it is sent."""
        data = self.data
        if not isinstance(data, str):
            data = json.dumps(
                data, default=simplify, allow_nan=False, ensure_ascii=False, separators=(",", ":")
            )
        lines = [f"event: {self.event}"] if self.event is not None else []
        lines += [f"id: {self.id}"] if self.id is not None else []
        lines += [f"retry: {self.retry}"] if self.retry is not None else []
        # Any end of a line is one to the client: what follows has to be said to be data.
        text = data.replace("\r\n", "\n").replace("\r", "\n")
        lines += [f"data: {line}" for line in text.split("\n")]
        return ("\n".join(lines) + "\n\n").encode()


class Events(Streamed):
    """Server-sent events as an answer.

    Args:
        events: Gives events, or their data.
        keep_alive: Seconds without an event after which a comment is sent. Proxies give up on
            connections that are silent for 60 seconds.
    """

    def __init__(self, events: AsyncIterable[Any], *, keep_alive: float = 15.0) -> None:
        self.events = events
        self.keep_alive = keep_alive


class _Gone(Exception):  # noqa: N818 (no error)
    """The client went away."""


class _Sender:
    """`send`, which raises `_Gone` and nothing of the application's own."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def begin(self, status: int, fields: Fields) -> None:
        await self._to_client({"type": "http.response.start", "status": status, "headers": fields})

    async def body(self, body: bytes, *, more: bool) -> None:
        await self._to_client({"type": "http.response.body", "body": body, "more_body": more})

    async def path(self, path: str) -> None:
        await self._to_client({"type": "http.response.pathsend", "path": path})

    async def _to_client(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise _Gone from error


async def deliver(
    threads: HandlerThreads,
    table: RouteTable,
    value: Any,
    scope: dict[str, Any],
    receive: Receive,
    send: Send,
    request: HttpRequest | None,
) -> None:
    """Send what a handler returned, then run what runs behind it.

    Args:
        threads: Where iterators that are not asynchronous run.
        table: The routes.
        value: What `RouteTable.is_delivered` says is not one message.
        scope: `method`, `headers` and `extensions` of the request.
        receive: ASGI's.
        send: ASGI's.
        request: What the handler was given of it, if it asked.
    """
    response = value if isinstance(value, Response) else Response(value)
    allowed = table.cors([(bytes(name), bytes(text)) for name, text in scope["headers"]])
    sender = _Sender(send)
    # The body may still be read by who gives the pieces: then nobody else can wait for the client.
    watched = None if request is not None and request._is_begun else receive
    with contextlib.suppress(_Gone):
        await _send(threads, table, response, allowed, scope, watched, sender, receive, send)
    for task in response.background:
        if inspect.iscoroutinefunction(getattr(task, "func", task)):
            await task()
        else:
            result = await threads.run(task)
            if inspect.isawaitable(result):
                await result


async def _send(
    threads: HandlerThreads,
    table: RouteTable,
    response: Response,
    allowed: Fields,
    scope: dict[str, Any],
    watched: Receive | None,
    sender: _Sender,
    receive: Receive,
    send: Send,
) -> None:
    content = response.content
    if hasattr(type(content), "raw_headers"):
        extra = table.answer(Response(None, headers=response.headers))[1]

        async def with_fields(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *extra, *allowed]}
            await send(message)

        await content(scope, receive, with_fields)
        return
    if not table.is_delivered(content):
        status, fields, body = table.answer(response)
        await sender.begin(status, fields + allowed)
        await sender.body(body, more=False)
        return
    is_head = scope["method"] == "HEAD"
    if isinstance(content, File):
        await _send_file(table, content, response, allowed, scope, sender)
        return
    if isinstance(content, Events):
        pieces = _encoded(content)
        head = Response(
            None,
            status=response.status,
            headers=[("cache-control", "no-cache"), ("x-accel-buffering", "no"), *response.headers],
            media_type=response.media_type or "text/event-stream",
        )
        status, fields, _ = table.answer(head)
        await sender.begin(status, fields + allowed)
        # Browsers know by the head that they are connected.
        await sender.body(b"", more=not is_head)
        if is_head:
            await _close(content.events)
        else:
            await _send_pieces(pieces, watched, sender)
        return
    pieces = _pieces(content, threads)
    try:
        # The head waits for the first piece: what is refused until then is answered as such.
        first = await anext(pieces, None)
    except BaseException:
        await pieces.aclose()
        raise
    usual = "text/plain; charset=utf-8" if isinstance(first, str) else "application/octet-stream"
    is_named = any(name == "content-type" for name, _ in response.headers)
    head = Response(
        None,
        status=response.status,
        headers=response.headers,
        media_type=response.media_type or (None if is_named else usual),
    )
    status, fields, _ = table.answer(head)
    try:
        await sender.begin(status, fields + allowed)
        if is_head or first is None:
            await sender.body(b"", more=False)
            return
        await sender.body(_as_bytes(first), more=True)
        await _send_pieces(pieces, watched, sender)
    finally:
        await pieces.aclose()


async def _send_pieces(pieces: Any, receive: Receive | None, sender: _Sender) -> None:
    """Send pieces until their end, or until the client goes away, which nothing else may tell."""
    gone = None if receive is None else asyncio.ensure_future(_disconnected(receive))
    piece: asyncio.Task[Any] | None = None
    try:
        while True:
            if gone is None:
                data = await anext(pieces, None)
            else:
                piece = asyncio.ensure_future(anext(pieces, None))
                await asyncio.wait([gone, piece], return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    raise _Gone
                data = piece.result()
            if data is None:
                break
            await sender.body(_as_bytes(data), more=True)
        await sender.body(b"", more=False)
    finally:
        for waiting in (gone, piece):
            if waiting is not None and not waiting.done():
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await waiting
        await pieces.aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _as_bytes(piece: Any) -> bytes:
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    raise TypeError(
        f"a handler gave a {type(piece).__qualname__} to stream; give str or bytes, "
        "or Events(...) for server-sent events"
    )


async def _pieces(content: Any, threads: HandlerThreads) -> AsyncGenerator[Any, None]:
    if hasattr(type(content), "__aiter__"):
        try:
            async for piece in content:
                yield piece
        finally:
            await _close(content)
        return
    pieces: Iterator[Any] = iter(content)
    try:
        while (piece := await threads.run(next, pieces, END)) is not END:
            yield piece
    finally:
        if hasattr(pieces, "close"):
            await threads.run(pieces.close)


async def _close(content: Any) -> None:
    close = getattr(content, "aclose", None)
    if close is not None:
        await close()


async def _encoded(content: Events) -> AsyncGenerator[bytes, None]:
    """Events as they are sent, and comments while there are none."""
    events = aiter(content.events)
    following: asyncio.Future[Any] = asyncio.ensure_future(anext(events, END))
    try:
        while True:
            done, _ = await asyncio.wait([following], timeout=content.keep_alive)
            if not done:
                yield b": keep-alive\n\n"
                continue
            event = following.result()
            if event is END:
                return
            yield (event if isinstance(event, Event) else Event(event)).encode()
            following = asyncio.ensure_future(anext(events, END))
    finally:
        if not following.done():
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
        await _close(events)


async def _send_file(
    table: RouteTable,
    file: File,
    response: Response,
    allowed: Fields,
    scope: dict[str, Any],
    sender: _Sender,
) -> None:
    from framegate._http import select_parts

    path = await asyncio.to_thread(file.path.resolve)
    known = await asyncio.to_thread(path.stat)
    method = scope["method"]
    media_type = response.media_type or file.media_type
    # Conditions and ranges are about the answer 200 to who wants to read (RFC 9110, 13.2.1, 14.2).
    is_judged = response.status == 200 and method in {"GET", "HEAD"}
    asked = scope["headers"] if is_judged else []
    status, validators, parts = select_parts(
        method, asked, media_type, known.st_size, known.st_mtime_ns
    )
    if status in UNMET:
        refused = table.refusal(Problem(status, UNMET[status]))
        assert refused is not None, "a Problem is an answer"
        status, fields, words = refused
        await sender.begin(status, [*fields, *validators, *allowed])
        await sender.body(b"" if method == "HEAD" else words, more=False)
        return
    headers = list(response.headers)
    if file.name is not None:
        headers.append(("content-disposition", _attachment(file.name)))
    head = Response(
        None,
        status=response.status if status == 200 else status,
        headers=headers,
        # Of several parts each has its own type: 206 brings the type of the whole with it.
        media_type=media_type if status == 200 else None,
    )
    status, fields, _ = table.answer(head)
    fields = [*fields, *validators, *allowed]
    if status == 304:
        await sender.begin(status, fields)
        await sender.body(b"", more=False)
        return
    size = sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts)
    await sender.begin(status, [*fields, (b"content-length", b"%d" % size)])
    if method == "HEAD":
        await sender.body(b"", more=False)
    elif status != 206 and "http.response.pathsend" in scope.get("extensions", {}):
        await sender.path(str(path))
    else:
        with await asyncio.to_thread(path.open, "rb") as opened:
            for part in parts:
                if isinstance(part, bytes):
                    await sender.body(part, more=True)
                    continue
                start, end = part
                await asyncio.to_thread(opened.seek, start)
                while piece := await asyncio.to_thread(opened.read, min(FILE_BYTES, end - start)):
                    start += len(piece)
                    await sender.body(piece, more=True)
        await sender.body(b"", more=False)


def _attachment(name: str) -> str:
    """RFC 6266: for old clients what is ASCII of it."""
    import urllib.parse

    plain = "".join(one if one.isascii() and one.isprintable() else "_" for one in name)
    plain = plain.replace("\\", "_").replace('"', "_")
    encoded = urllib.parse.quote(name, safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
