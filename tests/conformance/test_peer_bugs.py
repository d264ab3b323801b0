"""Bugs that were measured in other servers, and the tests that framegate has none of them.

A name without a file is a case of this suite, which runs over every transport it has a meaning for.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance import application  # registers the cases
from conformance.lifespans import LIFESPANS
from conformance.registry import CASES

ROOT = Path(__file__).parents[2]

assert application.app

BUGS: dict[str, tuple[str, ...]] = {
    "ports in `client` and `server` are str": ("client", "server"),
    "HTTP/1.0 is '1'": ("http-version-1.0",),
    "a target with scheme and host is put into `path` whole": ("absolute-form",),
    "cookies of HTTP/2 come apart": ("cookies",),
    "a path that is not UTF-8": ("path-not-utf8",),
    "the port of a Unix socket is '0'": (
        "tests/asgi/test_scope.py::test_a_unix_socket_has_a_path_as_server_and_no_client",
    ),
    "`state` is shared by reference": ("state",),
    "a start without `headers` is 500": ("start-without-headers",),
    "CR LF in a header drops the connection, or is taken out": ("header-crlf", "header-crlf-last"),
    "more than content-length is written to a kept connection": (
        "length-exceeded",
        "length-exceeded-streamed",
    ),
    "less than content-length leaves the client waiting": (
        "length-missed",
        "length-missed-streamed",
        "length-missed-empty",
    ),
    "`transfer-encoding` of the application is honoured": ("transfer-encoding",),
    "the head is not flushed": ("body-flushes", "body-streams-out"),
    "chunks to a client of HTTP/1.0": ("http-1.0-not-chunked",),
    "HEAD loses the length, or gains chunked": ("head-length", "head-length-added"),
    "100 Continue though the application does not read": ("expect-unread",),
    "`receive()` after the response hangs": ("receive-after-end",),
    "a client that left is not told of": (
        "client-leaves-before",
        "client-leaves-in-response",
        "client-leaves-in-body",
    ),
    "`send()` to a client that left says nothing": ("send-after-disconnect", "send-unblocked"),
    "Content-Length beside Transfer-Encoding is served": ("length-and-chunked",),
    "bare LF is served": ("bare-lf",),
    "folded headers are served": ("folded",),
    "HTTP/1.1 without Host is served": ("host-missing",),
    "two `receive()` hang, or a cancelled one loses bytes": (
        "receive-twice-at-once",
        "receive-cancelled",
    ),
    "an answer in mid-upload is lost in a reset": ("body-unread-large",),
    "pipelined answers in the wrong order": ("pipelining",),
    "context variables leak between requests": ("context-isolated",),
    "context variables of the lifespan are lost": ("context-lifespan",),
    "`startup.failed` exits with 0": ("fails",),
    "SIGTERM exits with -15": ("completes",),
    "a lifespan that raises": ("raises",),
    "`shutdown.failed` is ignored": ("fails_late",),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_a_bug_has_its_test(bug: str) -> None:
    for name in BUGS[bug]:
        file, _, function = name.partition("::")
        if function:
            assert re.search(rf"^def {function}\(", (ROOT / file).read_text(), re.M), name
        else:
            assert file in CASES or file in LIFESPANS, name
