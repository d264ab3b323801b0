"""Whatever is switched on beside it: each feature of the edge does its part, and no more."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate import Server
from logs.test_access_log import lines_of

BODY = b"Hello, world! " * 100
REQUESTS = 5

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "request_id": st.booleans(),
        "server_timing": st.booleans(),
        "slow_request": st.sampled_from([0.001, 60.0]),
        "access_log_exclude": st.sampled_from([["/health"], ["/*"], ["/other"]]),
        "forwarded_allow_ips": st.sampled_from(["127.0.0.1", "*", "10.0.0.0/8"]),
        "forwarded_headers": st.sampled_from(["auto", "x-forwarded", "forwarded"]),
        "limit_connections": st.sampled_from([3, 1000]),
        "limit_requests": st.sampled_from([1, 100]),
        "rate_limit": st.sampled_from(["1000/s", "3/h"]),
        "rate_limit_key": st.sampled_from(["x-key=1000/s", "x-key=2/h"]),
        "limit_exempt_paths": st.just(["/health"]),
        "compress": st.booleans(),
        "health_path": st.just("/health"),
        "metrics_path": st.just("/metrics"),
        "max_body": st.just(10),
        "date_header": st.booleans(),
    },
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says who asks, in the head; the body is always the same."""
    about = scope["extensions"].get("framegate.request_id", {})
    headers = [
        (b"content-type", b"text/plain"),
        (b"x-client", str(scope["client"][0]).encode()),
        (b"x-name", about.get("id", "-").encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def allowed(options: dict[str, Any]) -> int:
    """How many of the requests the rates let through."""
    rates = [options.get("rate_limit", "1000/s"), options.get("rate_limit_key", "1000/s")]
    return min(REQUESTS, *(int(re.findall(r"(\d+)/", rate)[0]) for rate in rates))


@settings(max_examples=40, deadline=None)
@given(
    options=OPTIONS,
    form=st.sampled_from(["json", "%s %U %L"]),
    http2=st.booleans(),
    is_gzip=st.booleans(),
)
def test_any_options_together(
    options: dict[str, Any], form: str, http2: bool, is_gzip: bool
) -> None:
    with tempfile.TemporaryDirectory() as own:
        log = Path(own, "access.log")
        logged = {"access_log_file": str(log), "access_log_format": form} | options
        headers = {
            "x-forwarded-for": "192.0.2.7",
            "x-request-id": "given",
            "x-key": "secret",
            "accept-encoding": "gzip" if is_gzip else "identity",
        }
        with (
            Server(app, port=0, lifespan="off", **logged).start_in_thread() as server,
            httpx.Client(
                http1=not http2, http2=http2, headers=headers, base_url=server.urls[0]
            ) as client,
        ):
            answers = []
            for number in range(REQUESTS):
                with client.stream("GET", f"/{number}") as answer:
                    answers.append((answer, b"".join(answer.iter_raw())))
            if {"health_path", "limit_exempt_paths"} <= options.keys():
                assert client.get("/health").status_code == 200
        count = allowed(options)
        assert [answer.status_code for answer, _ in answers] == (
            [200] * count + [429] * (REQUESTS - count)
        )
        is_trusted = options.get("forwarded_allow_ips") in ("127.0.0.1", "*")
        reads_fields = options.get("forwarded_headers") != "forwarded"
        for answer, content in answers:
            check(options, answer, content, is_trusted, is_trusted and reads_fields, is_gzip)
        wanted = [
            (answer.status_code, f"/{number}", answer.headers.get("x-request-id", "-"))
            for number, (answer, _) in enumerate(answers)
        ]
        if options.get("access_log_exclude") == ["/*"]:
            wanted = [entry for entry in wanted if entry[0] != 200]
        # The server has stopped: everything is written.
        check_log(form, log, wanted)


def check(
    options: dict[str, Any],
    answer: httpx.Response,
    content: bytes,
    is_trusted: bool,
    is_read: bool,
    is_gzip: bool,
) -> None:
    """One answer has what was asked for, and nothing of what was not."""
    found = answer.headers
    assert ("x-request-id" in found) == bool(options.get("request_id"))
    if options.get("request_id"):
        name = "given" if is_trusted else "[0-9a-f]{32}"
        assert re.fullmatch(name, found["x-request-id"])
    assert ("ratelimit" in found) == bool({"rate_limit", "rate_limit_key"} & options.keys())
    assert ("retry-after" in found) == (answer.status_code == 429)
    assert ("server-timing" in found) == bool(options.get("server_timing"))
    assert ("date" in found) == options.get("date_header", True)
    if answer.status_code == 429:
        return
    assert found["x-client"] == ("192.0.2.7" if is_read else "127.0.0.1")
    assert found["x-name"] == found.get("x-request-id", "-")
    is_compressed = bool(options.get("compress")) and is_gzip
    assert ("content-encoding" in found) == is_compressed
    assert (gzip.decompress(content) if is_compressed else content) == BODY


def check_log(form: str, log: Path, wanted: list[tuple[int, str, str]]) -> None:
    """The log has these lines, in this order: status, path, name."""
    found = []
    for line in lines_of(log):
        if form == "json":
            record = json.loads(line)
            found.append((record["status"], record["target"], record.get("id", "-")))
        else:
            status, path, name = line.split(" ")
            found.append((int(status), path, name))
    assert [entry for entry in found if entry[1] not in ("/health", "/metrics")] == wanted
