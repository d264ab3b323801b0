"""Exceptions reach Sentry: its own SDK against a receiver of its envelopes."""

from __future__ import annotations

import gzip
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import brotli

from framegate.config import Config
from metrics.scraping import ask
from server_process import Launch

HERE = Path(__file__).parent
# The SDK takes brotli where it is installed.
DECODERS = {"gzip": gzip.decompress, "br": brotli.decompress, None: bytes}


@contextmanager
def receiver() -> Iterator[tuple[int, queue.Queue[dict[str, Any]]]]:
    """A Sentry that keeps the events it is sent."""
    events: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = DECODERS[self.headers["content-encoding"]](body)
            lines = body.splitlines()
            for head, payload in zip(lines[1::2], lines[2::2], strict=False):
                if json.loads(head)["type"] == "event":
                    events.put({"auth": self.headers["x-sentry-auth"], **json.loads(payload)})
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, events
        finally:
            server.shutdown()
            thread.join()


def test_exception_is_reported(launch: Launch) -> None:
    with receiver() as (port, events):
        words = ("--port", "0", "--app-dir", str(HERE), "--lifespan", "off")
        words += ("--sentry-environment", "staging", "--sentry-release", "app@1.2")
        dsn = f"http://public@127.0.0.1:{port}/7"
        server = launch("failing_app:app", *words, extra={"FRAMEGATE_SENTRY_DSN": dsn})
        assert ask(server.wait_ready().port, "/items?q=1")[0] == 500
        event = events.get(timeout=60)
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("LookupError", "nothing of that name")
    assert event["environment"] == "staging"
    assert event["release"] == "app@1.2"
    assert event["request"]["method"] == "GET"
    assert event["request"]["url"].endswith("/items")
    assert "sentry_key=public" in event["auth"]


def test_dsn_that_is_none_stops_the_start(launch: Launch) -> None:
    server = launch("failing_app:app", "--app-dir", str(HERE), "--sentry-dsn", "nonsense")
    assert server.wait() != 0
    assert "sentry_dsn is not a DSN" in server.text


def test_dsn_is_not_shown() -> None:
    assert "public" not in repr(Config(sentry_dsn="https://public@example.org/1"))
