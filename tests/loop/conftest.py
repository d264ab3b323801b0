"""Shared by the tests of the event loop."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from framegate.loop import EventLoop, new_event_loop
from loop.helpers import Run, Script

T = TypeVar("T")


@pytest.fixture
def run() -> Run:
    """Run a coroutine to its end on a loop of its own, in asyncio's debug mode too if asked."""

    def run(main: Coroutine[Any, Any, T], *, debug: bool = False) -> T:
        with asyncio.Runner(loop_factory=new_event_loop, debug=debug) as runner:
            return runner.run(main)

    return run


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """A loop that does not run yet."""
    loop = new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected, non-blocking sockets."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with left, right:
        yield left, right


@pytest.fixture
def script() -> Iterator[Script]:
    """Start a Python program in a process of its own; killed at the end if it still runs."""
    processes: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-uXdev", "-Werror", "-c", textwrap.dedent(source), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
