"""The same nearly valid bytes to framegate and to h11: what is served must be the same.

A stream is a few requests, each put together from parts that are mostly right and sometimes not,
with a byte changed now and then, cut anywhere, and an honest request behind it. Both say which
requests were served with which bodies, and how it ended. Where they differ, framegate is the
stricter one, for a reason in `STRICTER`, but for two lines in `LAXER`: these are the whole list.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from apps import respond
from framegate.config import Config
from peers.raw import read_all
from server_thread import Server

LAST = b"GET /last HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n"

START = rb"^(?:\r\n)*+"
# What framegate refuses and h11 serves, by the bytes of the head, and why.
STRICTER: dict[str, tuple[bytes, str]] = {
    "bare LF": (rb"(?<!\r)\n", "RFC 9112, 2.2 allows to take it; proxies differ in that"),
    "length and coding": (
        rb"\ncontent-length:.*\ntransfer-encoding:|\ntransfer-encoding:.*\ncontent-length:",
        "RFC 9112, 6.1: ought to be handled as an error",
    ),
    "repeated length": (
        rb"\ncontent-length:([^\r\n]*,|.*\ncontent-length:)",
        "RFC 9110, 8.6 allows to refuse equal values",
    ),
    "host": (
        rb"\nhost:[ \t]*+(?!(\[[0-9a-f:.]+\]|[\w.~%!$&'()*+;=-]*)(:[0-9]{0,5})?[ \t]*\r)",
        "RFC 9112, 3.2: what is no host with an optional port is a 400",
    ),
    "target": (
        START + rb"(?!OPTIONS \* )[^ \r\n]+ (?!/|https?://)",
        "RFC 9112, 3.2: neither a path, nor a URL, nor * for OPTIONS",
    ),
    "authority": (
        START + rb"[^ \r\n]+ https?://(?![\w.-]+(:[0-9]{0,5})?[/? ])",
        "RFC 9110, 4.2.4: user names in URLs deceive; hosts that are none",
    ),
    "bytes of the target": (
        START + rb"[^ \r\n]+ [^ \r\n]*[\"<>\\^`{|}\x00-\x1f\x7f-\xff]",
        "RFC 3986, 2: no URI has them",
    ),
    "version": (
        START + rb"[^\r\n]* HTTP/(?!1\.[01]\r)",
        "only 1.0 and 1.1 are spoken here",
    ),
    "coding in 1.0": (
        START + rb"[^\r\n]* HTTP/1\.0\r.*\ntransfer-encoding:",
        "RFC 9112, 6.1: its framing is faulty",
    ),
    "folded line": (rb"\n[ \t]", "RFC 9112, 5.2: a server has to refuse or to replace it"),
    "DEL in a field": (rb"\n[^\r\n]*\x7f", "RFC 9110, 5.5: a control character; no value has it"),
}
STRICTER_IN_BODIES: dict[str, tuple[bytes, str]] = {
    "bare LF in trailers": (rb"\r\n0+[ \t]*\r\n.*(?<!\r)\n", "as in heads"),
    "control bytes in an extension": (
        rb"(?:^|\n)[0-9a-f]+[ \t]*;[^\r\n]*[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
        "RFC 9112, 7.1.1: tokens and quoted strings have none",
    ),
    "bare CR in an extension": (
        rb"(?:^|\n)[0-9a-f]+[ \t]*;[^\n]*\r[^\n]",
        "RFC 9112, 2.2: a CR alone is invalid outside the content",
    ),
    "folded trailer": (rb"\r\n0+[ \t]*\r\n.*\n[ \t]", "as in heads"),
}
# What h11 refuses and framegate serves.
LAXER: dict[str, tuple[bytes, str]] = {
    "space before an extension": (
        rb"\n[0-9a-f]+[ \t]+;",
        "RFC 9112, 7.1.1: a recipient has to take it there",
    ),
    "trailer that names framing": (
        rb"\r\n0+[ \t]*(;[^\r\n]*)?\r\n.*(content-length|transfer-encoding|host):",
        "trailers are never merged into the head, so what they say means nothing",
    ),
}


def matching(table: dict[str, tuple[bytes, str]], data: bytes) -> list[str]:
    """Name the entries of a table that are found in these bytes."""
    flags = re.IGNORECASE | re.DOTALL
    return [name for name, (pattern, _) in table.items() if re.search(pattern, data, flags)]


def reasons(request: bytes) -> list[str]:
    """Name what framegate does not take in a request."""
    # With the line that ends it: that may be the one without CR.
    head = b"".join(re.split(rb"(?<=\n)(\r?\n)", request.lstrip(b"\r\n"), maxsplit=1)[:2])
    body = request.lstrip(b"\r\n")[len(head) :]
    return matching(STRICTER, head) + matching(STRICTER_IN_BODIES, body)


# Of each part: what is right, and what is not, or not always.
PARTS: dict[str, tuple[list[str], list[str]]] = {
    "method": (
        ["GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "BREW"],
        ["get", "G ET", "G\x00T", "", "CONNECT", "G:T", "\tGET"],
    ),
    "target": (
        ["/", "/a?b=c", "/x//y", "http://example/x?y", "/%2F"],
        ["*", "http://u@h/", "a", "?a", "/a b", "/\x7f", "/\xe9", "ftp://h/", "h:80", "/\x00"],
    ),
    "version": (
        ["HTTP/1.1"],
        ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/11", "", "HTTP/1.1x"],
    ),
    "host": (
        ["Host: example", "host:h", "Host: a:80", "Host: [::1]:1"],
        [
            *[
                "X: no",
                "Host: a\r\nHost: a",
                "Host: a b",
                "Host:",
                "Host: a:b",
                "Host : a",
                "Host: a, b",
            ],
            *["Host: a/b", "Host: a@b"],
        ],
    ),
    "field": (
        [
            *[
                "X: y",
                "X: y ",
                "X:",
                "X: \xe9",
                "Expect: 100-continue",
                "Content_Length: 3",
                "X: a\tb",
            ],
            *["Connection: keep-alive, x", "Connection: close", "Upgrade: h2c"],
        ],
        [
            "X",
            ": y",
            "X y: z",
            "X: a\x00b",
            "X: \x7f",
            "X: a\rb",
            " folded",
            "\tfolded",
            "X\x0b: y",
        ],
    ),
    "name": (["{}"], ["{} ", " {}", "{}\t", "\t{}", "{}\x00", "X{}", "{}\x0b"]),
    "length": (
        ["{n}", "{n}", "0{n}", "\t{n} "],
        ["+{n}", "-{n}", "0x{n}", "{n}, {n}", "{n}.0", "", "1{n}", "{n} {n}", "{n}_0", "\x0b{n}"],
    ),
    "coding": (
        ["chunked", "CHUNKED", "chunked \t"],
        [
            *["chunked, chunked", "gzip, chunked", "chunked, gzip", "identity", "xchunked"],
            *["chunked;q=1", ",chunked", "chunked,", '"chunked"', "\x0bchunked", ""],
        ],
    ),
    "size": (
        ["{n:x}", "{n:X}", "0{n:x}", "{n:x};a=b", '{n:x};a="b"', "{n:x} "],
        [
            *[
                " {n:x}",
                "0x{n:x}",
                "-{n:x}",
                "+{n:x}",
                "{n:x};\x00",
                "",
                "g",
                "1{n:x}",
                "{n:x}\t;a",
            ],
            *["00000000000000000000{n:x}", "ffffffffffffffff", "{n:x}_"],
        ],
    ),
    "trailer": (
        ["", "", "X: y\r\n", "Content-Length: 3\r\n"],
        ["X\r\n", "X: y\n", " X: y\r\n", "X y: z\r\n", "X: \x00\r\n"],
    ),
    "end": (["\r\n"], ["\n", "\r", "\r\r\n", "\n\r", " \r\n"]),
    "framing": (
        ["none", "length", "chunked"],
        ["length twice", "coding twice", "both", "both, turned"],
    ),
}
BODIES = st.binary(max_size=12) | st.just(b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n")


@st.composite
def requests(draw: Any) -> bytes:
    """Make one request that is valid, or wrong in one place."""
    wrong = draw(st.sampled_from([None, None, *PARTS]))
    used = False

    def part(name: str) -> str:
        nonlocal used
        right, others = PARTS[name]
        is_wrong = name == wrong and not used and draw(st.booleans())
        used |= is_wrong
        return str(draw(st.sampled_from(others if is_wrong else right)))

    lines = [f"{part('method')} {part('target')} {part('version')}", part("host")]
    lines += [part("field") for _ in range(draw(st.integers(0, 2)))]
    body = draw(BODIES)
    length = part("name").format("Content-Length") + ": " + part("length").format(n=len(body))
    coding = part("name").format("Transfer-Encoding") + ": " + part("coding")
    framing = part("framing")
    lines += {
        "none": [],
        "length": [length],
        "chunked": [coding],
        "length twice": [length, length],
        "coding twice": [coding, coding],
        "both": [length, coding],
        "both, turned": [coding, length],
    }[framing]
    data = body if "length" in framing else b""
    if framing not in ("none", "length", "length twice"):
        data = b""
        for piece in [body[:5], body[5:]]:
            if piece:
                size = part("size").format(n=len(piece)) + part("end")
                data += size.encode("latin-1") + piece + part("end").encode()
        data += ("0" + part("end") + part("trailer") + part("end")).encode("latin-1")
    head = "".join(line + part("end") for line in [*lines, ""])
    return head.encode("latin-1") + data


@st.composite
def streams(draw: Any) -> bytes:
    """Make up to three requests in a pipe, with a byte changed now and then."""
    blank = draw(st.sampled_from([b"", b"", b"\r\n"]))
    stream = blank.join([b"", *draw(st.lists(requests(), min_size=1, max_size=3))])
    if draw(st.sampled_from([False, False, True])):
        at = draw(st.integers(0, len(stream) - 1))
        change = draw(st.sampled_from([b"", b"\r", b"\n", b" ", b"\x00", b"0", b":", b"\r\n"]))
        stream = stream[:at] + change + stream[at + draw(st.integers(0, 1)) :]
    return stream


@dataclass
class Verdict:
    """What became of a stream."""

    served: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    """Method, target and body of each request."""
    requests: list[bytes] = field(default_factory=list)
    """The bytes of each request that was served, as far as that is known."""
    rest: bytes = b""
    """What follows them."""
    end: str = ""
    """`closed` after the last response, `refused`, or `waits` for more."""


def by_h11(stream: bytes) -> Verdict:
    """Return what h11 makes of a stream."""
    verdict = Verdict(rest=stream)
    while True:
        # h11 takes no empty lines before a request, which RFC 9112, 2.2 asks of a server.
        begin = re.sub(rb"^(\r\n)+", b"", verdict.rest)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
        connection.receive_data(begin)
        try:
            request = connection.next_event()
            if request is h11.NEED_DATA:
                verdict.end = "waits"
                return verdict
            assert isinstance(request, h11.Request), request
            if request.method == b"CONNECT":  # whoever uses h11 has to refuse it
                verdict.end = "refused"
                return verdict
            body = b""
            while not isinstance(part := connection.next_event(), h11.EndOfMessage):
                if part is h11.NEED_DATA:
                    verdict.end = "waits"
                    return verdict
                assert isinstance(part, h11.Data)
                body += part.data
        except h11.RemoteProtocolError:
            verdict.end = "refused"
            return verdict
        verdict.served.append((request.method, request.target, body))
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        after = connection.trailing_data[0]
        verdict.requests.append(verdict.rest[: len(verdict.rest) - len(after)])
        verdict.rest = after
        if connection.our_state is h11.MUST_CLOSE:
            verdict.end = "closed"
            return verdict


SERVED: list[tuple[bytes, bytes, bytes]] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event["body"]
        if not event["more_body"]:
            break
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    SERVED.append((scope["method"].encode(), target, body))
    await respond(send, b"")


def by_framegate(server: Any, stream: bytes, cuts: list[int]) -> Verdict:
    """Return what framegate makes of a stream."""
    verdict = Verdict()
    SERVED.clear()
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rest = stream
        try:
            for cut in cuts:
                client.sendall(rest[:cut])
                rest = rest[cut:]
            client.sendall(rest)
        except OSError:
            pass  # refused already
        answer = read_all(client)
    verdict.served = list(SERVED)
    finals = [int(status) for status in re.findall(rb"HTTP/1\.[01] ([2-5][0-9][0-9]) ", answer)]
    assert finals.count(200) == len(verdict.served), answer
    assert all(status == 200 for status in finals[:-1]), f"more after a refusal: {answer!r}"
    if finals and finals[-1] not in (200, 408):
        verdict.end = "refused"
    elif finals and finals[-1] == 200 and says_close(answer.rsplit(b"HTTP/1.", 1)[1]):
        verdict.end = "closed"
    else:
        verdict.end = "waits"
    return verdict


def says_close(response: bytes) -> bool:
    if response.startswith(b"0"):
        return b"connection: keep-alive" not in response
    return b"connection: close" in response


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    # Streams that end in the middle of a message are cut soon.
    times = {"timeout_header": 0.3, "timeout_body": 0.3, "timeout_keep_alive": 0.3}
    server = Server(
        application, Config(lifespan="off", access_log=False, **times), plain_tasks=False
    )
    server.start()
    yield server
    server.stop()
    assert server.unhandled == []


def origin_form(target: bytes) -> bytes:
    """What ASGI sees of a target."""
    path = re.sub(rb"^https?://[^/?]*", b"", target, flags=re.IGNORECASE).partition(b"#")[0]
    if not path.startswith((b"/", b"*")):
        path = b"/" + path
    return path.removesuffix(b"?")


def judge(ours: Verdict, theirs: Verdict) -> None:
    """Compare two verdicts."""
    # ASGI has methods in capitals.
    expected = [
        (method.upper(), origin_form(target), body) for method, target, body in theirs.served
    ]
    if theirs.end == "closed" and KEPT_IN_1_0.search(theirs.requests[-1]):
        # The one thing that h11 does not know: HTTP/1.0 clients may ask to keep a connection.
        assert ours.served[: len(expected)] == expected[: len(ours.served)]
        return
    if len(ours.served) > len(expected):
        assert theirs.end == "refused"
        assert ours.served[: len(expected)] == expected
        assert matching(LAXER, theirs.rest), f"served for no known reason: {theirs.rest!r}"
        return
    # Whatever else: nothing is served that h11 does not see in the same place.
    assert ours.served == expected[: len(ours.served)]
    if len(ours.served) == len(expected):
        # Of a message that is not complete, one may know earlier that it is wrong.
        assert ours.end == theirs.end or {ours.end, theirs.end} == {"refused", "waits"}
        return
    assert ours.end in ("refused", "waits")
    refused = theirs.requests[len(ours.served)]
    assert reasons(refused), f"refused for no known reason: {refused!r}"


KEPT_IN_1_0 = re.compile(rb"^(\r\n)*[^\r\n]* HTTP/1\.0\r.*\nconnection: keep-alive", re.I | re.S)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(stream=streams(), cuts=st.lists(st.integers(1, 60), max_size=6))
@example(
    stream=b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", cuts=[]
)
def test_what_is_served_is_what_h11_sees(server: Any, stream: bytes, cuts: list[int]) -> None:
    stream += LAST
    judge(by_framegate(server, stream, cuts), by_h11(stream))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(stream=requests())
def test_every_cut_gives_the_same_verdict(server: Any, stream: bytes) -> None:
    stream += LAST
    whole = by_framegate(server, stream, [])
    for cuts in [[at] for at in range(1, len(stream), 7)] + [[1] * (len(stream) - 1)]:
        pieces = by_framegate(server, stream, cuts)
        assert (pieces.served, pieces.end) == (whole.served, whole.end)
