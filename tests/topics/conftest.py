"""A runtime directory for each test, and servers whose frame routes are on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from server_process import launch
from server_thread import Serve, Server
from topics.responders import TOPIC, Process

__all__ = ["launch"]

Scope = MutableMapping[str, Any]

RULES = {
    "camera/*": {"create": True, "slots": 4, "dtype": "uint8", "shape": [4, 6, 3]},
    "raw/*": {"create": True, "slots": 4, "slot_bytes": "64KiB"},
    "known": {"slots": 2, "slot_bytes": 10},
}


@pytest.fixture(autouse=True)
def runtime_of_each(runtime: Path) -> Path:
    return runtime


@pytest.fixture(params=["main port", "topics-bind"])
def serve_either(request: pytest.FixtureRequest, serve: Serve) -> Serve:
    """Start servers whose `connect` leads to the application's listener, or to the topics' own."""

    def start(app: Any, **options: Any) -> Server:
        if request.param == "topics-bind":
            options["topics_bind"] = "127.0.0.1:0"
        return serve(app, **options)

    return start


@pytest.fixture
def respond() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(kind: str, topic: str = TOPIC, through: Sequence[str] = ()) -> Process:
        started.append(Process(kind, topic, through))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        assert one.process.stdin is not None and one.process.stdout is not None
        one.process.stdin.close()
        one.process.stdout.close()


async def untouched(scope: Scope, receive: Any, send: Any) -> None:
    """An application that no request to a topic may reach."""
    if scope["type"] != "http":
        raise NotImplementedError
    assert not scope["path"].startswith("/topics/"), scope["path"]
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"the application"})


@pytest.fixture
def routes(serve: Serve) -> Callable[..., Server]:
    """Start a server: `routes(**options)`."""

    def start(**options: Any) -> Server:
        return serve(untouched, **{"topics": "/topics", "topic_rules": RULES, **options})

    return start
