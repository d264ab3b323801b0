"""Extensions of HTTP responses. What `scope["extensions"]` does not name is not asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases_send import body, start
from .registry import H1, NotOfferedError, case, check

if TYPE_CHECKING:
    from .peer import Peer, Response

#: What the application answers when the server does not offer the extension.
NOT_OFFERED = 501
NAMED = [(b"trailer", b"x-sum, x-more")]
TRAILERS = {"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]}
LARGE = bytes(range(251)) * 4000


def extension(name: str, extension: str, title: str, *messages: Any, **keys: Any) -> None:
    """Register a case whose application sends messages, where the extension is offered."""

    def resolve(message: Any, directory: str) -> Any:
        return message(directory) if callable(message) else message

    async def app(scope: Any, receive: Any, send: Any, note: Any) -> None:
        if f"http.response.{extension}" not in scope.get("extensions", {}):
            await send(start(NOT_OFFERED))
            await send(body())
            return
        directory = scope["query_string"].partition(b"directory=")[2].partition(b"&")[0].decode()
        for message in messages:
            await send(resolve(message, directory))

    case(name, title, **keys)(app)


def ask(peer: Peer, method: str = "GET", *headers: tuple[str, str]) -> Response:
    response = peer.request(method, query=f"directory={peer.directory}", headers=headers)
    if response.status == NOT_OFFERED:
        raise NotOfferedError
    return response


HINT = {"type": "http.response.early_hint", "links": [b"</a>; rel=preload", b"</b>"]}


def links(response: Response) -> list[Any]:
    return [
        (status, [value for name, value in fields if name == b"link"])
        for status, fields in response.informational
    ]


extension(
    "hint", "early_hint", "an early hint comes before the response", HINT, start(), body(b"x")
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = ask(peer)
        assert links(response) == [(103, [b"</a>; rel=preload", b"</b>"])]
        assert (response.status, response.body, response.complete) == (200, b"x", True)


extension(
    "hint-after-start", "early_hint", "so does one after the start", start(), HINT, HINT, body(b"x")
)


@check
def _(peer: Peer) -> None:
    response = ask(peer)
    assert [status for status, _ in response.informational] == [103, 103]
    assert response.body == b"x"


extension(
    "hint-by-status",
    "early_hint",
    "a start with status 103 is an early hint",
    start(103, [(b"link", b"</a>")]),
    start(),
    body(b"x"),
)


@check
def _(peer: Peer) -> None:
    response = ask(peer)
    assert links(response) == [(103, [b"</a>"])]
    assert (response.status, response.body) == (200, b"x")


extension(
    "hint-in-stream",
    "early_hint",
    "an early hint in mid-stream does no harm",
    start(),
    body(b"x", True),
    HINT,
    body(b"y"),
)


@check
def _(peer: Peer) -> None:
    response = ask(peer)
    assert (response.status, response.body, response.complete) == (200, b"xy", True)


extension(
    "trailers",
    "trailers",
    "trailers follow the body",
    start(headers=NAMED, trailers=True),
    body(b"abc"),
    TRAILERS,
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = ask(peer, "GET", ("te", "trailers"))
        assert (response.body, response.complete) == (b"abc", True)
        assert response.trailers == [(b"x-sum", b"7")]


extension(
    "trailers-more",
    "trailers",
    "trailers in several messages, behind a streamed body",
    start(headers=NAMED, trailers=True),
    body(b"a", True),
    body(b"bc", True),
    body(),
    {**TRAILERS, "more_trailers": True},
    {"type": "http.response.trailers", "headers": [(b"x-more", b"8")]},
)


@check
def _(peer: Peer) -> None:
    response = ask(peer, "GET", ("te", "trailers"))
    assert response.body == b"abc"
    assert response.trailers == [(b"x-sum", b"7"), (b"x-more", b"8")]


extension(
    "trailers-not-taken",
    "trailers",
    "a client that does not take trailers gets none",
    start(headers=NAMED, trailers=True),
    body(b"abc"),
    TRAILERS,
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = ask(peer)
        assert (response.body, response.complete, response.trailers) == (b"abc", True, [])


extension(
    "trailers-missing",
    "trailers",
    "a response whose trailers never come does not end properly",
    start(headers=NAMED, trailers=True),
    body(b"abc"),
)


@check
def _(peer: Peer) -> None:
    assert not ask(peer, "GET", ("te", "trailers")).complete


def large(directory: str) -> str:
    path = Path(directory, "large")
    if not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(LARGE)
        temporary.rename(path)
    return str(path)


def pathsend(directory: str) -> Any:
    return {"type": "http.response.pathsend", "path": large(directory)}


LENGTH = [(b"content-length", b"%d" % len(LARGE))]

extension("pathsend", "pathsend", "a file by its path", start(headers=LENGTH), pathsend)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = ask(peer)
        assert response.complete and response.body == LARGE


extension("pathsend-length", "pathsend", "a file whose length nobody gave", start(), pathsend)


@check
def _(peer: Peer) -> None:
    response = ask(peer)
    assert response.complete and response.body == LARGE
    response = ask(peer, "HEAD")
    assert (response.complete, response.body) == (True, b"")


extension(
    "pathsend-missing",
    "pathsend",
    "a file that is not there is 500",
    start(),
    {"type": "http.response.pathsend", "path": "/nonexistent/file"},
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        assert ask(peer).status == 500


extension(
    "pathsend-short",
    "pathsend",
    "a file shorter than its content-length does not end properly, nor hang",
    start(headers=[(b"content-length", b"%d" % (len(LARGE) + 1))]),
    pathsend,
)


@check
def _(peer: Peer) -> None:
    response = ask(peer)
    assert response.status == 500 or not response.complete


extension(
    "pathsend-long",
    "pathsend",
    "of a file longer than its content-length only that is sent",
    start(headers=[(b"content-length", b"100000")]),
    pathsend,
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = ask(peer)
        assert response.status == 500 or response.body == LARGE[:100_000]


def zerocopysend(offset: int, count: int, more: bool) -> Any:
    def message(directory: str) -> Any:
        return {
            "type": "http.response.zerocopysend",
            "file": os.open(large(directory), os.O_RDONLY | os.O_CLOEXEC),
            "offset": offset,
            "count": count,
            "more_body": more,
        }

    return message


extension(
    "zerocopysend",
    "zerocopysend",
    "pieces of a file and of memory mix",
    start(),
    zerocopysend(10, 200_000, True),
    body(b"-", True),
    zerocopysend(0, 5, True),
    zerocopysend(300_000, 300_000, False),
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = ask(peer)
        assert response.complete
        assert response.body == LARGE[10:200_010] + b"-" + LARGE[:5] + LARGE[300_000:600_000]


extension(
    "http-1.0-extensions",
    "early_hint",
    "what HTTP/1.0 cannot have is not sent to it",
    HINT,
    start(headers=NAMED),
    body(b"x"),
    transports=H1,
)


@check
def _(peer: Peer) -> None:
    data = peer.raw(peer.head("GET", peer.path(), version="1.0"))
    assert b"103" not in data.partition(b"\r\n")[0]
    assert data.count(b"HTTP/1.") == 1
