"""Fixtures for everything that talks to a running server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from framegate.config import Config
from framegate.threading_model import runs_without_lock
from server_thread import Serve, Server


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str) -> None:
    """End the run when a process of it is lost, which is what a watchdog does to one that hangs.

    pytest-xdist would give the same test to the next process, to hang there once more.
    """
    raise pytest.exit.Exception(f"the process that ran {crashitem} is lost", returncode=1)


# A shell that starts the tests in the background has all of their processes ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The gate must not depend on luck: there, the same examples every time. At a desk, new ones.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")


# Lazy tasks rely on the lock: see rust/py/src/asgi/task.rs.
@pytest.fixture(params=["plain"] if runs_without_lock() else ["lazy", "plain"])
def task_mode(request: pytest.FixtureRequest) -> str:
    """How requests become tasks; everything has to work both ways."""
    return str(request.param)


@pytest.fixture
def serve(task_mode: str) -> Iterator[Serve]:
    """Start servers: `serve(app, **options)`; they are stopped at the end of the test.

    Options are those of `Config`; `uds=True` serves on a Unix socket. `allow_unhandled=True` keeps
    the check off that nothing reached the loop's exception handler.
    """
    with contextlib.ExitStack() as stack:

        def start(
            app: Any, *, uds: bool = False, allow_unhandled: bool = False, **options: Any
        ) -> Server:
            options.setdefault("access_log", False)
            server = Server(app, Config(**options), plain_tasks=task_mode == "plain")
            if uds:
                directory = stack.enter_context(tempfile.TemporaryDirectory())
                server.uds = os.path.join(directory, "socket")
            server.start()
            stack.callback(_finish, server, allow_unhandled)
            return server

        yield start


def _finish(server: Server, allow_unhandled: bool) -> None:
    server.stop()
    if not allow_unhandled:
        assert server.unhandled == []


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for topics of this test alone, as FRAMEGATE_RUNTIME_DIR."""
    directory = Path(tempfile.mkdtemp(prefix="framegate-test-", dir="/dev/shm"))
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(directory))
    yield directory
    shutil.rmtree(directory)
