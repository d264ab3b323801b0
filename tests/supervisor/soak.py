"""Ten minutes of everything, by a seed: does anything grow?

    python -m supervisor.soak --minutes 10 --seed 7       (in tests/; `task test:endurance`)

One server with a supervisor and two workers goes through three phases:

1. steady (half of the time): requests, streams, uploads, WebSockets, frames, clients that reset,
   leave in the middle or talk nonsense. The workers stay the same, so what they have can be
   compared: memory of their own, descriptors, objects that the collector knows, tasks, threads.
2. restarts (a quarter): the same, and a rolling restart as soon as the last one is over. No request
   of the checking load may be lost or refused.
3. kills (a quarter): the same, and every second or so a worker dies by SIGKILL, or as it starts.

A census is taken when nobody is connected. At the end: exit code 0, no process, no file of the
server, and topics that can be published to.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from peers.procfs import children, open_files, status
from peers.raw import reset
from server_process import ServerProcess, body, wait_for_death
from supervisor.load import Load
from supervisor.soak_app import CHUNK, STREAM_CHUNKS, TOPIC, TOPICS

CENSUSES = 12
"""In the steady phase; the first two are the warm-up."""

RSS_GROWTH_MAX_KIB = 3 * 1024
"""From the first half of the steady phase to its second; what an allocator keeps varies so much."""

SUPERVISOR_GROWTH_MAX_KIB = 1024
OBJECTS_GROWTH_MAX = 200
"""Caches of the standard library fill by and by; one object lost per hundred requests is more."""

FAILURES_SHOWN = 10


@dataclass
class Census:
    """What one process has."""

    rss_kib: int
    descriptors: int
    objects: int = 0
    tasks: int = 0
    threads: int = 0


@dataclass
class Outcome:
    """What came of it; becomes JSON."""

    seed: int
    minutes: float
    workers: dict[str, list[Census]] = field(default_factory=dict)
    supervisor: list[Census] = field(default_factory=list)
    actions: int = 0
    answers_in_steady: int = 0
    answers_in_restarts: int = 0
    restarts: int = 0
    kills: int = 0
    failures: list[str] = field(default_factory=list)

    def demand(self, is_so: bool, what: str) -> None:
        if not is_so:
            self.failures.append(what)


class Mix:
    """Clients of every kind, on threads of their own.

    Attributes:
        is_lenient: Whether the server may break off: its workers are killed.
        actions: How many there were.
        errors: What a server that is not killed must not do.
    """

    def __init__(self, server: ServerProcess, seed: int, *, threads: int = 3) -> None:
        self.is_lenient = False
        self.actions = 0
        self.errors: list[str] = []
        self._server = server
        self._is_over = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._idle = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 1000 + number),))
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._go.set()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block nobody is connected."""
        self._go.clear()
        for _ in self._threads:
            self._idle.acquire()
        yield
        self._go.set()

    def _run(self, chance: random.Random) -> None:
        kinds = [
            self._request, self._frame, self._stream, self._upload, self._websocket, self._reset,
            self._reset_stream, self._nonsense, self._half_upload, self._probe,
        ]  # fmt: skip
        while not self._is_over.is_set():
            if not self._go.is_set():
                self._idle.release()
                self._go.wait()
                continue
            kind = chance.choice(kinds)
            try:
                kind(chance)
            except (OSError, AssertionError, TimeoutError, WebSocketException) as error:
                if not self.is_lenient:
                    self.errors.append(f"{kind.__name__}: {type(error).__name__}: {error}")
            self.actions += 1

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._server.port), timeout=60)

    def _request(self, chance: random.Random) -> None:
        assert self._server.get().isdigit()

    def _frame(self, chance: random.Random) -> None:
        assert self._server.get("/frame") in ("sent", "PublisherExists", "TopicBusy")

    def _stream(self, chance: random.Random) -> None:
        peer = self._connect()
        peer.sendall(b"GET /stream HTTP/1.0\r\nhost: x\r\n\r\n")
        assert len(body(peer)) == STREAM_CHUNKS * len(CHUNK)

    def _upload(self, chance: random.Random) -> None:
        count = chance.randrange(200_000)
        peer = self._connect()
        head = f"POST /upload HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {count}"
        peer.sendall(head.encode() + b"\r\n\r\n" + bytes(count))
        assert body(peer) == str(count)

    def _websocket(self, chance: random.Random) -> None:
        url = f"ws://127.0.0.1:{self._server.port}/ws"
        with connect(url, compression=None) as item:
            for _ in range(chance.randrange(20)):
                message = bytes(chance.randrange(5000))
                try:
                    item.send(message)
                    assert item.recv(timeout=60) == message
                except WebSocketException as error:
                    # 1012: its worker is replaced, and says so.
                    closed = getattr(error, "rcvd", None)
                    assert closed is not None and closed.code == 1012, error
                    return

    def _reset(self, chance: random.Random) -> None:
        peer = self._connect()
        peer.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        reset(peer)

    def _reset_stream(self, chance: random.Random) -> None:
        peer = self._connect()
        peer.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        peer.recv(chance.randrange(1, 20_000))
        reset(peer)

    def _nonsense(self, chance: random.Random) -> None:
        with self._connect() as peer:
            peer.sendall(chance.randbytes(chance.randrange(1, 500)))
            if chance.random() < 0.5:
                peer.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    while peer.recv(4096):
                        pass

    def _half_upload(self, chance: random.Random) -> None:
        with self._connect() as peer:
            peer.sendall(b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")
            if chance.random() < 0.5:
                reset(peer)  # else an orderly end

    def _probe(self, chance: random.Random) -> None:
        self._connect().close()


class Soak:
    """One run."""

    def __init__(self, minutes: float, seed: int, directory: Path) -> None:
        self._seconds = minutes * 60
        self._chance = random.Random(seed)
        self.outcome = Outcome(seed, minutes)
        words = ["--workers", "2", "--port", "0", "--no-access-log"]
        limits = ["--worker-restarts-max", "1000", "--timeout-graceful-shutdown", "10s"]
        self._server = ServerProcess(
            "supervisor.soak_app:app", [*words, *limits], directory, ()
        ).wait_ready()
        self._mix = Mix(self._server, seed)

    def run(self) -> Outcome:
        outcome = self.outcome
        try:
            self._steady(self._seconds / 2)
            self._restarts(self._seconds / 4)
            self._kills(self._seconds / 4)
        finally:
            self._mix.close()
        outcome.actions = self._mix.actions
        outcome.failures += self._mix.errors[:FAILURES_SHOWN]
        self._end()
        return outcome

    def _steady(self, seconds: float) -> None:
        pids = {str(pid): list[Census]() for pid in self._server.worker_pids}
        self.outcome.workers = pids
        for _ in range(CENSUSES):
            with Load(self._server.port, clients=4) as load:
                time.sleep(seconds / CENSUSES)
            self.outcome.answers_in_steady += load.answers
            self.outcome.failures += load.errors
            self._count(pids)
        for pid, counts in pids.items():
            early, late = counts[2:7], counts[7:]
            for name, limit in (
                ("rss_kib", RSS_GROWTH_MAX_KIB),
                ("descriptors", 2),
                ("objects", OBJECTS_GROWTH_MAX),
                ("tasks", 1),
                ("threads", 1),
            ):
                before, after = (
                    statistics.median(getattr(count, name) for count in part)
                    for part in (early, late)
                )
                grown = after - before
                self.outcome.demand(
                    grown <= limit, f"worker {pid}: {name} grew from {before} to {after}"
                )

    def _count(self, pids: dict[str, list[Census]]) -> None:
        """Ask each worker, when nobody else does."""
        with self._mix.paused():
            time.sleep(0.5)  # ends of connections are on their way
            wanted = set(pids)
            while wanted:
                found: dict[str, Any] = json.loads(self._server.get("/census"))
                pid = str(found.pop("pid"))
                if pid in wanted:
                    wanted.remove(pid)
                    own = status(int(pid), "RssAnon")
                    pids[pid].append(Census(own, open_files(int(pid)), **found))
        self._count_supervisor()

    def _count_supervisor(self) -> None:
        pid = self._server.pid
        self.outcome.supervisor.append(Census(status(pid, "VmRSS"), open_files(pid)))

    def _restarts(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with Load(self._server.port, clients=4) as load:
            while time.monotonic() < until and not load.errors:
                self._restart()
                self.outcome.restarts += 1
                self._count_supervisor()
                load.wait_for_answers(10)
        self.outcome.answers_in_restarts = load.answers
        self.outcome.failures += load.errors

    def _restart(self) -> None:
        seen = len(self._server.lines)
        self._server.signal(signal.SIGHUP)
        self._server.wait_for("reloaded: 2 of 2", after=seen)

    def _kills(self, seconds: float) -> None:
        self._mix.is_lenient = True
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self._chance.random() * 2)
            for pid in children(self._server.pid):
                if self._chance.random() < 0.5:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        self.outcome.kills += 1
            if self._chance.random() < 0.1:
                self._server.signal(signal.SIGHUP)
        # Whatever is under way comes to an end.
        for _ in range(20):
            seen = len(self._server.lines)
            self._server.signal(signal.SIGHUP)
            self._server.wait_for(r"reloaded: \d of 2", after=seen)
            if any("reloaded: 2 of 2" in line for line in self._server.lines[seen:]):
                break
        with self._mix.paused():
            time.sleep(0.5)
            self._count_supervisor()
        counts = self.outcome.supervisor
        grown = counts[-1].rss_kib - counts[2].rss_kib
        self.outcome.demand(grown <= SUPERVISOR_GROWTH_MAX_KIB, f"supervisor: grew by {grown} KiB")
        self.outcome.demand(
            counts[-1].descriptors == counts[0].descriptors,
            f"supervisor: {counts[0].descriptors} descriptors, then {counts[-1].descriptors}",
        )

    def _end(self) -> None:
        server, outcome = self._server, self.outcome
        outcome.demand(server.stop() == 0, f"exit code {server.process.returncode}")
        for pid in set(server.events("startup")):
            wait_for_death(pid)
        left = [path.name for path in server.runtime_directory.rglob("server-*")]
        outcome.demand(not left, f"files are left: {left}")
        for pattern in ("Traceback", "panicked", "ended by force"):
            outcome.demand(not re.search(pattern, server.text), f"the log says {pattern}")
        os.environ["FRAMEGATE_RUNTIME_DIR"] = str(server.runtime_directory)
        import framegate

        for number in range(TOPICS):
            with framegate.Publisher(f"{TOPIC}-{number}", slot_bytes=4096) as publisher:
                publisher.send(b"after all that")


def show(outcome: Outcome) -> None:
    print(
        f"{outcome.minutes:g} minutes, seed {outcome.seed}: {outcome.actions} actions of the mix, "
        f"{outcome.answers_in_steady} + {outcome.answers_in_restarts} checked answers, "
        f"{outcome.restarts} rolling restarts, {outcome.kills} kills"
    )
    lines = {f"worker {pid}": counts for pid, counts in outcome.workers.items()}
    for name, counts in {**lines, "supervisor": outcome.supervisor}.items():
        for what in ("rss_kib", "descriptors", "objects", "tasks", "threads"):
            if values := [getattr(count, what) for count in counts]:
                shown = (
                    values if len(values) <= 2 * CENSUSES else [*values[:6], "...", *values[-6:]]
                )
                print(f"  {name:<16} {what:<12} {' '.join(map(str, shown))}")
    for failure in outcome.failures:
        print(f"FAILED: {failure}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--json", type=Path, help="write everything there, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        outcome = Soak(options.minutes, options.seed, Path(directory)).run()
    show(outcome)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
