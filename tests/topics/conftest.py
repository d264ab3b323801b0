"""A runtime directory for each test, and a server whose frame routes are on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from server_thread import Serve, Server

Scope = MutableMapping[str, Any]

RULES = {
    "camera/*": {"create": True, "slots": 4, "dtype": "uint8", "shape": [4, 6, 3]},
    "raw/*": {"create": True, "slots": 4, "slot_bytes": "64KiB"},
    "known": {"slots": 2, "slot_bytes": 10},
}


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="framegate-topics-", dir="/dev/shm"))
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(directory))
    yield directory
    shutil.rmtree(directory)


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
