"""Requests that a proxy may read in another way: refused with 400 and a close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cases_scope import whole
from .registry import H1, case, check

if TYPE_CHECKING:
    from .peer import Peer

BEHIND = b"GET /notes?id=behind HTTP/1.1\r\nhost: example\r\n\r\n"


async def reached(scope: Any, receive: Any, send: Any, note: Any) -> None:
    note("reached")
    while (await receive()).get("more_body"):
        pass
    await whole(send)


def refused(name: str, title: str, *lines: str, body: bytes = b"", end: str = "\r\n") -> None:
    case(name, f"{title}: 400", H1)(reached)

    @check
    def _(peer: Peer) -> None:
        top = end.join([f"POST {peer.path()} HTTP/1.1", *lines, "", ""])
        data = peer.raw(top.encode("latin-1") + body + BEHIND)
        assert data.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), data[:100]
        assert data.count(b"HTTP/1.1 ") == 1


HOST = "host: example"
CHUNKED = "transfer-encoding: chunked"
ZERO = b"0\r\n\r\n"
refused(
    "length-and-chunked",
    "Content-Length beside Transfer-Encoding",
    HOST,
    "content-length: 5",
    CHUNKED,
    body=ZERO,
)
refused("bare-lf", "lines that end with LF alone", HOST, "content-length: 0", end="\n")
refused("folded", "a folded header", HOST, "x-a: 1", " 2", "content-length: 0")
refused("host-missing", "HTTP/1.1 without Host", "content-length: 0")
refused("host-twice", "two Host fields", HOST, "host: other", "content-length: 0")
refused("host-malformed", "a Host that is none", "host: a b", "content-length: 0")
refused("lengths-differ", "two lengths that differ", HOST, "content-length: 0", "content-length: 5")
refused("length-list", "a list of lengths", HOST, "content-length: 0, 5")
refused("length-signed", "a length with a sign", HOST, "content-length: +0")
refused("colon-blank", "a blank before the colon", HOST, "x-a : 1", "content-length: 0")
refused("name-blank", "a blank in a name", HOST, "x a: 1", "content-length: 0")
refused("coding-unknown", "an unknown coding", HOST, "transfer-encoding: xchunked", body=ZERO)
refused("coding-twice", "chunked twice", HOST, CHUNKED, CHUNKED, body=ZERO)
refused("coding-not-last", "chunked not last", HOST, "transfer-encoding: chunked, gzip", body=ZERO)
refused("value-nul", "NUL in a value", HOST, "x-a: 1\0", "content-length: 0")
