"""kill -9 of anybody at a moment that nobody chose: what must not be left behind.

No process that serves, no port that cannot be bound, no runtime segment, no topic that is broken.
A seed says who is killed, when, and what goes on in that moment; `task test:kills` has more seeds.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import framegate
from conformance.process import free_port
from server_process import Launch, ServerProcess, body, wait_for_death
from supervisor.soak_app import TOPIC, TOPICS

APP = "supervisor.soak_app:app"
SEEDS = range(int(os.environ.get("FRAMEGATE_KILL_SEEDS", "3")))
ROUNDS = 3


def family(directory: Path) -> set[int]:
    """Every process that was started with this runtime directory, whoever its parent is now."""
    mark = f"FRAMEGATE_RUNTIME_DIR={directory}\0".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
    return found


@contextlib.contextmanager
def visitors(port: int, seed: int) -> Iterator[None]:
    """Clients that take whatever comes, so that processes die in the middle of something."""
    is_over = threading.Event()

    def visit(chance: random.Random) -> None:
        while not is_over.is_set():
            path = chance.choice(["/frame", "/stream", "/pid"])
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
                    peer.sendall(f"GET {path} HTTP/1.0\r\nhost: x\r\n\r\n".encode())
                    body(peer)
            except OSError:
                is_over.wait(0.01)

    threads = [
        threading.Thread(target=visit, args=(random.Random(seed * 10 + number),))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def disturb(server: ServerProcess, chance: random.Random, pause: threading.Event) -> None:
    """Workers die, more and fewer of them are asked for, restarts begin, or nothing happens."""
    for _ in range(chance.randrange(4)):
        match chance.randrange(5):
            case 0 | 1:
                for pid in family(server.runtime_directory) - {server.pid}:
                    if chance.random() < 0.7:
                        kill(pid)
            case 2:
                server.signal(signal.SIGHUP)
            case 3:
                server.signal(chance.choice([signal.SIGTTIN, signal.SIGTTOU]))
            case _:
                server.signal(signal.SIGTERM)
        pause.wait(chance.random() * 0.2)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_left_whoever_is_killed_when(launch: Launch, seed: int) -> None:
    chance, pause, port = random.Random(seed), threading.Event(), free_port()
    words = ("--workers", "2", "--port", str(port), "--no-access-log")
    limits = ("--worker-restarts-max", "1000", "--timeout-graceful-shutdown", "1s")
    with visitors(port, seed):
        for _ in range(ROUNDS):
            server = launch(APP, *words, *limits)
            if chance.random() < 0.7:
                server.wait_ready()
                disturb(server, chance, pause)
            else:  # nobody is ready yet, or nobody is even there
                pause.wait(chance.random() * 0.6)
            everybody = family(server.runtime_directory)
            if chance.random() < 0.3:
                for pid in everybody:
                    kill(pid)
            kill(server.pid)
            server.wait()
            for pid in everybody | family(server.runtime_directory):
                wait_for_death(pid)
            # No SO_REUSEPORT: somebody who still listens would be in the way.
            with socket.socket() as fresh:
                fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                fresh.bind(("127.0.0.1", port))
                fresh.listen()
    # The next start cleans up what nobody was left to remove, and serves.
    server = launch(APP, *words, *limits).wait_ready()
    assert len(list(server.runtime_directory.glob("server-*"))) == 1
    assert server.get().isdigit()
    assert server.stop() == 0
    assert not list(server.runtime_directory.glob("server-*"))
    assert family(server.runtime_directory) == set()


def test_topics_of_the_dead_are_as_good_as_new(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And there are no more of them than there are names, however many processes died."""
    server = launch(APP, "--workers", "2", "--worker-restarts-max", "1000").wait_ready()
    chance = random.Random(1)
    with visitors(server.port, 1):
        for _ in range(5):
            victims = family(server.runtime_directory) - {server.pid}
            seen = len(server.lines)
            kill(chance.choice(sorted(victims)))
            server.wait_for("ready again", after=seen)
    assert server.stop() == 0
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(server.runtime_directory))
    for number in range(TOPICS):
        with (
            framegate.Publisher(f"{TOPIC}-{number}", slot_bytes=4096) as publisher,
            framegate.Subscriber(f"{TOPIC}-{number}") as subscriber,
        ):
            publisher.send(b"alive")
            frame = subscriber.take()
            assert frame is not None
            with frame:
                assert bytes(frame) == b"alive"
    # Two files for each, and a directory of locks.
    files = [path for path in server.runtime_directory.rglob("*") if path.is_file()]
    assert len(files) <= 3 * TOPICS, files
