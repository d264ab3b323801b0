"""Conditions and ranges, case by case: RFC 9110, sections 8.8, 13, 14 and 15.

The file is the 62 bytes of `TEXT`, changed at `LAST_MODIFIED`; `{tag}` stands for its tag.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.message
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from static_files.conftest import LAST_MODIFIED, Reply, Site

TEXT = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
SIZE = len(TEXT)

Fields = tuple[tuple[str, str], ...]


def range_(value: str) -> tuple[str, str]:
    return ("Range", f"bytes={value}")


# What is sent, the status, and the bytes (None: whatever the status has).
CASES: list[tuple[str, Fields, int, bytes | None]] = [
    ("plain", (), 200, TEXT),
    # 13.1.1, If-Match
    ("match", (("If-Match", "{tag}"),), 200, TEXT),
    ("match-any", (("If-Match", "*"),), 200, TEXT),
    ("match-one-of", (("If-Match", '"a", {tag}'),), 200, TEXT),
    ("match-other", (("If-Match", '"a"'),), 412, None),
    ("match-is-strong", (("If-Match", "W/{tag}"),), 412, None),
    (
        "match-before-unmodified",
        (("If-Match", "{tag}"), ("If-Unmodified-Since", EARLIER)),
        200,
        TEXT,
    ),
    ("match-before-none-match", (("If-Match", '"a"'), ("If-None-Match", "{tag}")), 412, None),
    ("match-and-range", (("If-Match", "{tag}"), range_("0-3")), 206, b"0123"),
    ("no-match-no-range", (("If-Match", '"a"'), range_("0-3")), 412, None),
    # 13.1.4, If-Unmodified-Since
    ("unmodified", (("If-Unmodified-Since", LAST_MODIFIED),), 200, TEXT),
    ("unmodified-later", (("If-Unmodified-Since", LATER),), 200, TEXT),
    ("modified", (("If-Unmodified-Since", EARLIER),), 412, None),
    ("unmodified-rubbish", (("If-Unmodified-Since", "yesterday"),), 200, TEXT),
    # 13.1.2, If-None-Match
    ("none-match", (("If-None-Match", "{tag}"),), 304, b""),
    ("none-match-is-weak", (("If-None-Match", "W/{tag}"),), 304, b""),
    ("none-match-any", (("If-None-Match", "*"),), 304, b""),
    ("none-match-one-of", (("If-None-Match", '"a",W/"b" , {tag}'),), 304, b""),
    ("none-match-in-two-fields", (("If-None-Match", '"a"'), ("If-None-Match", "{tag}")), 304, b""),
    ("none-match-other", (("If-None-Match", '"a"'),), 200, TEXT),
    (
        "none-match-before-modified",
        (("If-None-Match", '"a"'), ("If-Modified-Since", LATER)),
        200,
        TEXT,
    ),
    (
        "none-match-and-modified",
        (("If-None-Match", "{tag}"), ("If-Modified-Since", EARLIER)),
        304,
        b"",
    ),
    ("none-match-before-range", (("If-None-Match", "{tag}"), range_("0-3")), 304, b""),
    # 13.1.3, If-Modified-Since
    ("modified-since", (("If-Modified-Since", LAST_MODIFIED),), 304, b""),
    ("modified-since-later", (("If-Modified-Since", LATER),), 304, b""),
    ("modified-since-earlier", (("If-Modified-Since", EARLIER),), 200, TEXT),
    ("modified-since-rubbish", (("If-Modified-Since", "0"),), 200, TEXT),
    ("modified-since-rfc850", (("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT"),), 304, b""),
    ("modified-since-asctime", (("If-Modified-Since", "Sun Nov  6 08:49:37 1994"),), 304, b""),
    # 14.1 and 14.2, ranges
    ("first-bytes", (range_("0-9"),), 206, TEXT[:10]),
    ("first-byte", (range_("0-0"),), 206, TEXT[:1]),
    ("last-byte", (range_("61-61"),), 206, TEXT[61:]),
    ("to-the-end", (range_("60-"),), 206, TEXT[60:]),
    ("suffix", (range_("-5"),), 206, TEXT[-5:]),
    ("suffix-of-more", (range_("-100"),), 206, TEXT),
    ("beyond-the-end", (range_("50-1000"),), 206, TEXT[50:]),
    ("huge-numbers", (range_("50-99999999999999999999999999"),), 206, TEXT[50:]),
    ("all-of-it", (range_("0-61"),), 206, TEXT),
    ("behind-the-end", (range_("62-"),), 416, None),
    ("suffix-of-nothing", (range_("-0"),), 416, None),
    ("none-of-several", (range_("62-70,100-"),), 416, None),
    ("backwards", (range_("5-4"),), 200, TEXT),
    ("no-numbers", (range_("a-b"),), 200, TEXT),
    ("other-unit", (("Range", "lines=0-1"),), 200, TEXT),
    ("no-unit", (("Range", "0-1"),), 200, TEXT),
    ("two-fields", (range_("0-1"), range_("2-3")), 200, TEXT),
    ("overlapping", (range_("0-10,5-20"),), 206, TEXT[:21]),
    ("all-again-and-again", (range_("0-,0-,0-,0-"),), 206, TEXT),
    ("more-than-eight", (range_(",".join(f"{n}-{n}" for n in range(9))),), 200, TEXT),
    ("one-of-two-is-there", (range_("0-3,100-"),), 206, TEXT[:4]),
    # 13.1.5, If-Range
    ("if-range", (("If-Range", "{tag}"), range_("0-3")), 206, TEXT[:4]),
    ("if-range-other", (("If-Range", '"a"'), range_("0-3")), 200, TEXT),
    ("if-range-is-strong", (("If-Range", "W/{tag}"), range_("0-3")), 200, TEXT),
    ("if-range-date", (("If-Range", LAST_MODIFIED), range_("0-3")), 206, TEXT[:4]),
    ("if-range-earlier", (("If-Range", EARLIER), range_("0-3")), 200, TEXT),
    ("if-range-later", (("If-Range", LATER), range_("0-3")), 200, TEXT),
    ("if-range-rubbish", (("If-Range", "rubbish"), range_("0-3")), 200, TEXT),
    ("if-range-unsatisfiable", (("If-Range", '"a"'), range_("100-")), 200, TEXT),
    ("if-range-alone", (("If-Range", '"a"'),), 200, TEXT),
]

each_case = pytest.mark.parametrize(
    ("fields", "status", "body"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)


@pytest.fixture
def text(site: Site) -> Site:
    site.write("text.txt", TEXT)
    return site


def filled(fields: Fields, tag: str) -> Fields:
    return tuple((name, value.replace("{tag}", tag)) for name, value in fields)


def check(reply: Reply, status: int, body: bytes | None) -> None:
    """What every response of that status has to have."""
    assert reply.status == status
    assert body is None or reply.body == body
    if status in (200, 206):
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert reply.headers["accept-ranges"] == "bytes"
        assert reply.headers["last-modified"] == LAST_MODIFIED
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    if status in (200, 206, 304):
        assert reply.headers["etag"].startswith('"')
        assert reply.headers["cache-control"] == "no-cache"
        assert "accept-encoding" in reply.headers["vary"].lower()
    if status == 206:
        assert body is not None
        first = TEXT.index(body)
        end = first + len(body) - 1
        assert reply.headers["content-range"] == f"bytes {first}-{end}/{SIZE}"
    elif status == 416:
        assert reply.headers["content-range"] == f"bytes */{SIZE}"
    else:
        assert "content-range" not in reply.headers
    if status == 304:
        assert not reply.headers.keys() & {"content-length", "content-type", "last-modified"}


@each_case
def test_get(text: Site, fields: Fields, status: int, body: bytes | None) -> None:
    tag = text.get("/static/text.txt").headers["etag"]
    check(text.get("/static/text.txt", *filled(fields, tag)), status, body)


@each_case
def test_head(text: Site, fields: Fields, status: int, body: bytes | None) -> None:
    """As GET, without the body; and RFC 9110, 14.2: `Range` is for GET alone."""
    tag = text.get("/static/text.txt").headers["etag"]
    reply = text.ask("HEAD", "/static/text.txt", *filled(fields, tag))
    assert reply.body == b""
    assert reply.status == (200 if status in (206, 416) else status)
    assert "content-range" not in reply.headers
    if reply.status == 200:
        assert int(reply.headers["content-length"]) == SIZE


def test_parts_of_several_ranges(site: Site) -> None:
    content = bytes(range(256)) * 40
    site.write("data.bin", content)
    wanted = [(5000, 5099), (0, 0), (10_000, 10_239)]
    value = ",".join(f"{first}-{last}" for first, last in wanted)
    reply = site.get("/static/data.bin", range_(value))
    assert reply.status == 206
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert "content-range" not in reply.headers
    kind = reply.headers["content-type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    message = email.message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + reply.body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    # A parser of mail may change line ends: bytes are compared below, in the raw text.
    for part, (first, last) in zip(parts, wanted, strict=True):
        assert isinstance(part, email.message.Message)
        assert part["content-range"] == f"bytes {first}-{last}/{len(content)}"
        assert part["content-type"] == "application/octet-stream"
    boundary = kind.partition("boundary=")[2].encode()
    expected = b"".join(
        b"--%s\r\ncontent-type: application/octet-stream\r\n"
        b"content-range: bytes %d-%d/%d\r\n\r\n%s\r\n"
        % (boundary, first, last, len(content), content[first : last + 1])
        for first, last in wanted
    )
    assert reply.body == expected + b"--%s--\r\n" % boundary


def test_empty_file(site: Site) -> None:
    site.write("empty", b"")
    for fields in ((), (range_("0-"),), (range_("-1"),)):
        reply = site.get("/static/empty", *fields)
        assert (reply.status, reply.body) == (200, b"")
        assert reply.headers["content-length"] == "0"


def test_methods(text: Site) -> None:
    reply = text.ask("OPTIONS", "/static/text.txt")
    assert (reply.status, reply.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
        reply = text.ask(method, "/static/text.txt", ("Content-Length", "0"))
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_file_that_was_changed_just_now_has_a_weak_tag(site: Site) -> None:
    path = site.write("a.txt", "one")
    os.utime(path)
    first = site.get("/static/a.txt")
    assert first.headers["etag"].startswith('W/"')
    assert site.get("/static/a.txt", ("If-None-Match", first.headers["etag"])).status == 304
    # No part of it can be put together with parts of another state.
    tag = first.headers["etag"].removeprefix("W/")
    for value in (tag, first.headers["last-modified"]):
        assert site.get("/static/a.txt", ("If-Range", value), range_("0-0")).status == 200


def by_the_steps(match: str, unmodified: str, none_match: str, since: str) -> int:
    """RFC 9110, 13.2.2, step by step, for GET and HEAD of a file without `Range`."""
    # 1. and 2.: If-Unmodified-Since only counts without If-Match.
    if match:
        if match == "false":
            return 412
    elif unmodified == "false":
        return 412
    # 3. and 4.: If-Modified-Since only counts without If-None-Match.
    if none_match:
        if none_match == "false":
            return 304
    elif since == "false":
        return 304
    return 200


HOLDS = {
    "If-Match": {"true": "{tag}", "false": '"a"'},
    "If-Unmodified-Since": {"true": LATER, "false": EARLIER},
    "If-None-Match": {"true": '"a"', "false": "{tag}"},
    "If-Modified-Since": {"true": EARLIER, "false": LATER},
}
"""Values for which a condition is true, and for which it is false."""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_combination_of_conditions(text: Site, method: str) -> None:
    tag = text.get("/static/text.txt").headers["etag"]
    for wanted in itertools.product(("", "true", "false"), repeat=4):
        pairs = zip(HOLDS.items(), wanted, strict=True)
        fields = tuple((name, values[one]) for (name, values), one in pairs if one)
        status = by_the_steps(*wanted)
        reply = text.ask(method, "/static/text.txt", *filled(fields, tag))
        assert reply.status == status, fields
        if method == "GET" and status != 412:
            assert reply.body == (TEXT if status == 200 else b""), fields
        # 5.: If-Range and Range come last, and only change what would have been sent.
        for if_range, counts in ((None, True), ("{tag}", True), ('"a"', False)):
            more = (range_("0-3"), *((("If-Range", if_range),) if if_range else ()))
            ranged = text.ask(method, "/static/text.txt", *filled((*fields, *more), tag))
            is_part = status == 200 and counts and method == "GET"
            assert ranged.status == (206 if is_part else status), (fields, if_range)
            if is_part:
                assert ranged.body == TEXT[:4]


def test_dates_that_no_date_has(site: Site) -> None:
    site.write("old.txt", "a", changed_ns=-5_000_000_000)
    reply = site.get("/static/old.txt")
    assert reply.status == 200
    assert "last-modified" not in reply.headers
    site.write("new.txt", "a", changed_ns=4_000_000_000_000_000_000)
    reply = site.get("/static/new.txt")
    assert reply.headers["last-modified"] <= reply.headers["date"] or reply.status == 200
    assert reply.headers["etag"].startswith("W/")


# ----------------------------------------------------------------------------------------------
# Against others, where they agree with the RFC.

# nginx: `If-Unmodified-Since` comes before `If-Match`, both of `If-None-Match` and
# `If-Modified-Since` have to fit, of a repeated field the first one counts, dates have to be the
# same; it joins no ranges and has no limit of eight; malformed ones are 416.
NGINX_DIFFERS = {
    "match-before-unmodified",
    "unmodified-rubbish",
    "none-match-in-two-fields",
    "none-match-and-modified",
    "modified-since-later",
    "huge-numbers",
    "backwards",
    "no-numbers",
    "two-fields",
    "overlapping",
    "all-again-and-again",
    "more-than-eight",
}

# Starlette: no `If-Match`, no `If-Unmodified-Since`, of a repeated field the last one counts;
# malformed ranges are 400, and so are units that it does not know; one of several ranges that is
# not there makes all of them 416.
STARLETTE_DIFFERS = {
    "match-other",
    "match-is-strong",
    "match-before-none-match",
    "no-match-no-range",
    "modified",
    "none-match-in-two-fields",
    "backwards",
    "no-numbers",
    "no-unit",
    "other-unit",
    "two-fields",
    "more-than-eight",
    "one-of-two-is-there",
}

NGINX = """
daemon off; master_process off; pid {directory}/pid; error_log {directory}/error;
events {{}}
http {{
  access_log off; types {{ text/plain txt; }}
  client_body_temp_path {directory}/a; proxy_temp_path {directory}/b;
  fastcgi_temp_path {directory}/c; uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
  server {{ listen unix:{directory}/socket; location /static/ {{ alias {site}/; }} }}
}}
"""


@contextlib.contextmanager
def nginx(directory: Path) -> Iterator[httpx.Client]:
    """nginx serving a directory below /static, and a client of it."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with tempfile.TemporaryDirectory() as own:
        file = Path(own, "nginx.conf")
        file.write_text(NGINX.format(directory=own, site=directory))
        path = os.path.join(own, "socket")
        process = subprocess.Popen([program, "-e", os.path.join(own, "error"), "-c", str(file)])
        try:
            deadline = time.monotonic() + 30
            while not os.path.exists(path):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            # Its files have to be readable by whoever it becomes.
            transport = httpx.HTTPTransport(uds=path, retries=5)
            with httpx.Client(base_url="http://nginx", transport=transport) as client:
                yield client
        finally:
            process.terminate()
            process.wait(30)


def test_nginx_agrees(text: Site) -> None:
    os.chmod(text.directory, 0o755)
    differs = set()
    with nginx(text.directory) as client:
        other = client.get("/static/text.txt").headers["etag"]
        tag = text.get("/static/text.txt").headers["etag"]
        for name, fields, *_ in CASES:
            theirs = client.get("/static/text.txt", headers=list(filled(fields, other)))
            ours = text.get("/static/text.txt", *filled(fields, tag))
            theirs_body = theirs.content if theirs.status_code < 400 else b""
            ours_body = ours.body if ours.status < 400 else b""
            if (theirs.status_code, theirs_body) != (ours.status, ours_body):
                differs.add(name)
    # Other versions of it may be closer to the RFC.
    assert differs <= NGINX_DIFFERS


def test_starlette_agrees(text: Site) -> None:
    app = Starlette(routes=[Mount("/static", StaticFiles(directory=text.directory))])

    async def compare() -> set[str]:
        differs = set()
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://starlette") as client:
            other = (await client.get("/static/text.txt")).headers["etag"]
            tag = text.get("/static/text.txt").headers["etag"]
            for name, fields, *_ in CASES:
                theirs = await client.get("/static/text.txt", headers=list(filled(fields, other)))
                ours = text.get("/static/text.txt", *filled(fields, tag))
                theirs_body = theirs.content if theirs.status_code < 400 else b""
                ours_body = ours.body if ours.status < 400 else b""
                if (theirs.status_code, theirs_body) != (ours.status, ours_body):
                    differs.add(name)
        return differs

    assert asyncio.run(compare()) <= STARLETTE_DIFFERS


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.none() | st.integers(0, 70), st.none() | st.integers(0, 70)), max_size=10)
)
def test_any_ranges(text: Site, pairs: list[tuple[int | None, int | None]]) -> None:
    """Whatever is asked for: never a byte more than the file has, and always the right ones."""
    value = ",".join(
        f"{'' if first is None else first}-{'' if last is None else last}" for first, last in pairs
    )
    reply = text.get("/static/text.txt", range_(value))
    wanted = set()
    valid = 0 < len(pairs) <= 8
    for first, last in pairs:
        if first is None and last is None:
            valid = False
        elif first is None:
            assert last is not None
            wanted |= set(range(max(0, SIZE - last), SIZE))
        elif last is not None and last < first:
            valid = False
        else:
            wanted |= set(range(first, SIZE if last is None else min(SIZE, last + 1)))
    if not valid:
        assert (reply.status, reply.body) == (200, TEXT)
    elif not wanted:
        assert reply.status == 416
    else:
        # 62 bytes are less than a part costs: all ranges become one.
        assert reply.status == 206
        assert reply.body == TEXT[min(wanted) : max(wanted) + 1]
