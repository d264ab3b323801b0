"""Frame routes without Python: a thread of their own, and the WebSockets that move to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import framegate
from conformance.process import certificate
from framegate.config import Config
from framegate.errors import ConfigError
from peers.tls_threads import for_threads
from server_process import PATIENCE_SECONDS, Launch, ServerProcess
from server_thread import Serve
from topics.test_watching import HEAD, ack, frame_of
from topics.waiting import wait_until

APP = "topics.blocking_app:app"
RULES = {"raw/*": {"create": True, "slots": 8, "slot_bytes": 1000}}
WORDS = ("--topics", "/topics", "--topics-bind", "127.0.0.1:0")
FRAMES = 60


class Site:
    """A server in a process of its own, and how to reach it."""

    def __init__(self, launch: Launch, runtime: Path, *words: str, tls: Path | None = None) -> None:
        self.context: ssl.SSLContext | None = None
        if tls is not None:
            cert, key = certificate(tls)
            words = (*words, "--ssl-certfile", str(cert), "--ssl-keyfile", str(key))
            self.context = for_threads(ssl._create_unverified_context())
        extra = {
            "FRAMEGATE_RUNTIME_DIR": str(runtime),
            "FRAMEGATE_TOPIC_RULES": " ".join(
                f"{name} {json.dumps(rule)}" for name, rule in RULES.items()
            ),
        }
        self.server: ServerProcess = launch(APP, *WORDS, *words, extra=extra).wait_ready()
        self.topics_port = int(self.server.wait_for(r"topics: https?://127\.0\.0\.1:(\d+)")[1])
        self.main_port = self.server.port

    def socket(self, port: int, rest: str) -> ClientConnection:
        scheme = "ws" if self.context is None else "wss"
        url = f"{scheme}://127.0.0.1:{port}/topics/{rest}"
        return connect(url, max_size=None, ssl=self.context)

    def ask(
        self, port: int, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer."""
        if self.context is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        else:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=PATIENCE_SECONDS, context=self.context
            )
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("content-type", ""), answer.read()
        finally:
            connection.close()

    @contextlib.contextmanager
    def blocked(self, workers: int = 1, seconds: int = 60) -> Iterator[None]:
        """While it lasts, no Python code of any worker runs; afterwards they are killed."""
        threads = []

        def block() -> None:
            # It is answered late, or never.
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask(self.main_port, "GET", f"/block?{seconds}")

        # The kernel chooses the worker of a connection.
        while len(set(self.server.events("blocks"))) < workers:
            count = len(self.server.events("blocks"))
            threads.append(threading.Thread(target=block))
            threads[-1].start()
            if workers == 1:
                self.server.wait_event("blocks", count + 1)
            else:
                threads[-1].join(0.05)
        yield
        assert self.server.events("goes-on") == []
        # What still waited to be accepted blocks the workers that come in their place.
        killed: set[int] = set()
        for thread in threads:
            while thread.is_alive():
                for pid in set(self.server.events("blocks")) - killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                thread.join(0.05)


@pytest.fixture
def camera() -> Iterator[framegate.Publisher]:
    with framegate.Publisher("cam", slots=8, slot_bytes=100_000) as publisher:
        yield publisher


@contextlib.contextmanager
def no_more_files(pid: int) -> Iterator[None]:
    """While it lasts, the process can open none; what is open stays so."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    lowest = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_topic_that_could_not_be_watched_once_can_be_later(
    launch: Launch, runtime: Path, camera: framegate.Publisher
) -> None:
    """Files ran out when somebody began to watch it: he is told, who comes later sees frames."""
    site = Site(launch, runtime)
    camera.send(payload(1))
    frames = http.client.HTTPConnection("127.0.0.1", site.topics_port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(frames):
        frames.request("GET", "/topics/cam?view=latest")
        assert len(frames.getresponse().read()) == 80_000
        with no_more_files(site.server.pid):
            frames.request("GET", "/topics/cam?view=sse")
            assert b"event: end" in frames.getresponse().read()
    with site.socket(site.topics_port, "cam") as viewer:
        assert frame_of(viewer.recv(timeout=PATIENCE_SECONDS))[-1] == payload(1)


def payload(number: int) -> bytes:
    return number.to_bytes(4, "little") * 20_000


@pytest.mark.parametrize(
    ("workers", "is_secure"), [(1, False), (1, True), (2, False)], ids=["plain", "tls", "two"]
)
def test_no_frame_is_lost_while_a_handler_blocks(
    launch: Launch,
    runtime: Path,
    tmp_path: Path,
    camera: framegate.Publisher,
    workers: int,
    is_secure: bool,
) -> None:
    words = ["--workers", str(workers)] if workers > 1 else []
    site = Site(launch, runtime, *words, tls=tmp_path if is_secure else None)
    with contextlib.ExitStack() as stack:
        viewers = {
            name: stack.enter_context(site.socket(port, f"cam?policy={policy}"))
            for name, port, policy in (
                ("moved", site.main_port, "queue"),
                ("moved, newest", site.main_port, "unasked"),
                ("own", site.topics_port, "queue"),
                ("own, newest", site.topics_port, "unasked"),
            )
        }
        publisher = stack.enter_context(site.socket(site.main_port, "cam?mode=publish"))
        with site.blocked(workers):
            for number in range(1, FRAMES + 1):
                if number % 2:
                    assert camera.send(payload(number), timeout=20) == number
                else:
                    head = HEAD.pack(1, 0, 32, 0, 0, 0, 0.0)
                    publisher.send(head + payload(number))
                    assert publisher.recv(timeout=20) == ack(number)
                for name, viewer in viewers.items():
                    _, sequence, _, _, got = frame_of(viewer.recv(timeout=20))
                    assert (sequence, got) == (number, payload(number)), name
                # New connections, to the bind of topics alone.
                status, _, _ = site.ask(
                    site.topics_port, "POST", "/topics/raw/posted", b"%d" % number
                )
                assert status in (200, 201)
            status, _, text = site.ask(site.topics_port, "GET", "/topics")
            assert status == 200
            sequences = {one["name"]: one["sequence"] for one in json.loads(text)["topics"]}
            assert sequences == {"cam": FRAMES, "raw/posted": FRAMES}
            view = "/topics/raw/posted?view=latest"
            assert site.ask(site.topics_port, "GET", view)[2] == b"%d" % FRAMES


def test_burst_of_a_blocked_worker_is_in_order(
    launch: Launch, runtime: Path, camera: framegate.Publisher
) -> None:
    site = Site(launch, runtime)
    with (
        site.socket(site.main_port, "cam?policy=queue&queue=200") as moved,
        site.socket(site.topics_port, "cam?policy=queue&queue=200") as own,
        site.blocked(),
    ):
        done = threading.Event()

        def publish() -> None:
            for number in range(1, 151):
                # The thread has to keep up with the publisher's slots, not with its viewers.
                camera.send(payload(number), timeout=20)
                wait_until(lambda number=number: posted_by_now(site) >= number)
            done.set()

        def posted_by_now(site: Site) -> int:
            _, _, text = site.ask(site.topics_port, "GET", "/topics/cam")
            return int(json.loads(text)["sequence"])

        thread = threading.Thread(target=publish)
        thread.start()
        assert done.wait(PATIENCE_SECONDS)
        thread.join()
        for viewer in (moved, own):
            got = [frame_of(viewer.recv(timeout=20))[1] for _ in range(150)]
            assert got == list(range(1, 151))


def test_only_frame_routes_are_there(
    launch: Launch, runtime: Path, camera: framegate.Publisher
) -> None:
    site = Site(launch, runtime)
    camera.send(b"x")
    for path in ("/", "/block", "/topic", "/metrics"):
        status, kind, text = site.ask(site.topics_port, "GET", path)
        assert (status, kind) == (404, "application/problem+json"), path
        assert json.loads(text)["code"] == "topic-unknown"
    assert site.ask(site.main_port, "GET", "/") == (200, "", b"the application")
    assert site.ask(site.topics_port, "GET", "/topics/cam?view=latest")[2] == b"x"
    status, kind, text = site.ask(site.topics_port, "POST", "/call/cam", b"x")
    assert (status, json.loads(text)["code"]) == (503, "no-responder")
    # The rules of access are the same.
    stranger = site.ask(site.topics_port, "GET", "/topics/cam", **{"x-forwarded-for": "192.0.2.1"})
    assert stranger[0] == 403
    assert site.server.events("blocks") == []


def test_killed_worker_has_a_successor_on_the_same_port(
    launch: Launch, runtime: Path, camera: framegate.Publisher
) -> None:
    site = Site(launch, runtime, "--workers", "2")
    with (
        site.socket(site.topics_port, "cam?policy=queue") as own,
        site.socket(site.main_port, "cam?policy=queue") as moved,
    ):
        camera.send(payload(1))
        for viewer in (own, moved):
            assert frame_of(viewer.recv(timeout=20))[1] == 1
        seen = len(site.server.lines)
        for pid in site.server.worker_pids:
            os.kill(pid, signal.SIGKILL)
        for viewer in (own, moved):
            with pytest.raises(ConnectionClosed):
                viewer.recv(timeout=20)
        for _ in range(2):
            site.server.wait_for(r"ready again", after=seen)
    # What the dead held is free, and who connects again sees what comes.
    with site.socket(site.topics_port, "cam?policy=queue") as own:
        for number in range(2, 20):
            assert camera.send(payload(number), timeout=20) == number
            assert frame_of(own.recv(timeout=20))[1] == number


def test_stop_tells_all_websockets_to_come_again(
    launch: Launch, runtime: Path, camera: framegate.Publisher
) -> None:
    site = Site(launch, runtime)
    with contextlib.ExitStack() as stack:
        viewers = [
            stack.enter_context(site.socket(port, "cam"))
            for port in (site.main_port, site.topics_port)
        ]
        camera.send(b"x")
        for viewer in viewers:
            frame_of(viewer.recv(timeout=20))
        site.server.signal(signal.SIGTERM)
        for viewer in viewers:
            with pytest.raises(ConnectionClosed) as closed:
                viewer.recv(timeout=20)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    assert site.server.wait() == 0
    assert "were cut" not in site.server.text


def test_all_connections_are_counted(
    launch: Launch, runtime: Path, camera: framegate.Publisher
) -> None:
    site = Site(launch, runtime, "--admin-bind", "127.0.0.1:0", "--access-log")
    admin = int(site.server.wait_for(r"admin: http://127\.0\.0\.1:(\d+)")[1])

    def metric(name: str) -> float:
        _, _, text = site.ask(admin, "GET", "/metrics")
        lines = [line.split() for line in text.decode().splitlines() if not line.startswith("#")]
        return sum(float(value) for key, value, *_ in lines if key == name)

    sent = metric("http_bytes_sent_total")
    with contextlib.ExitStack() as stack:
        viewers = [
            stack.enter_context(site.socket(port, "cam?policy=queue"))
            for port in (site.main_port, site.main_port, site.topics_port)
        ]
        for number in range(1, 11):
            camera.send(payload(number), timeout=20)
            for viewer in viewers:
                assert frame_of(viewer.recv(timeout=20))[1] == number
        wait_until(lambda: metric("http_connections_active") == 3)
        wait_until(lambda: metric("http_bytes_sent_total") - sent > 3 * 10 * 80_000)
        assert metric('framegate_topics_frames_total{direction="out"}') == 30
        # Three handshakes, each with a line of the access log.
        wait_until(lambda: site.server.text.count("/topics/cam?policy=queue") >= 3)
    wait_until(lambda: metric("http_connections_active") == 0)
    assert metric('http_requests_total{method="GET",status="101"}') == 3


def test_limit_of_connections_is_for_both_threads(
    launch: Launch, runtime: Path, camera: framegate.Publisher
) -> None:
    site = Site(launch, runtime, "--limit-concurrency", "2")
    with site.socket(site.main_port, "cam") as moved, site.socket(site.topics_port, "cam"):
        for port in (site.main_port, site.topics_port):
            assert site.ask(port, "GET", "/topics/cam")[0] == 503
        camera.send(b"x")
        frame_of(moved.recv(timeout=20))
    # One has gone: another may come.
    wait_until(lambda: site.ask(site.topics_port, "GET", "/topics/cam")[0] == 200)


def test_unix_socket_and_several_binds(
    launch: Launch, runtime: Path, tmp_path: Path, camera: framegate.Publisher
) -> None:
    path = tmp_path / "topics.sock"
    site = Site(launch, runtime, "--topics-bind", f"unix:{path}?mode=600", "--workers", "2")
    camera.send(b"x")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ") and b"topic-unknown" in answer
    assert site.ask(site.topics_port, "GET", "/topics/cam?view=latest")[2] == b"x"
    assert site.server.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topics_bind": "127.0.0.1:0"}, "set topics, for example --topics /topics"),
        ({"topics": "/topics", "topics_bind": "9000"}, "did you mean 127.0.0.1:9000"),
        ({"topics": "/topics", "topics_bind": "localhost:1 localhost:1"}, "is given twice"),
        (
            {"topics": "/topics", "topics_bind": "127.0.0.1:1?proxy=on", "forwarded_allow_ips": ""},
            "nobody is trusted to send them",
        ),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Config(**options)


def test_address_of_the_application_is_refused(launch: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    address = f"127.0.0.1:{port}"
    words = ("--bind", address, "--topics", "/topics", "--topics-bind", address)
    server = launch(APP, *words)
    assert server.wait() != 0
    assert "are the same address" in server.text


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


given_up = threading.Event()


async def never(question: Any) -> bool:
    try:
        await asyncio.Event().wait()
    finally:
        given_up.set()
    return True


async def allows(question: Any) -> bool:
    return True


def test_access_function_has_a_time(serve: Serve, camera: framegate.Publisher) -> None:
    camera.send(b"x")
    for function, seconds, status in ((never, 0.05, 503), (allows, 20.0, 200)):
        server = serve(app, topics="/topics", topics_access=function, topics_access_timeout=seconds)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/topics/cam?view=latest")
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status == status
        if status == 503:
            assert json.loads(text)["code"] == "unavailable"
            assert "did not say in time" in json.loads(text)["detail"]
            assert given_up.wait(timeout=20), "nobody waits for the answer, and it is still sought"


def test_queue_says_what_it_lost(serve: Serve, runtime: Path) -> None:
    """A viewer that does not read loses the oldest frames of its queue, and is told how many."""
    server = serve(app, topics="/topics", topics_queue_max=5)
    url = f"ws://127.0.0.1:{server.port}/topics/large?policy=queue"
    with pytest.raises(Exception, match="400"):
        connect(url + "&queue=6")
    with (
        framegate.Publisher("large", slots=8, slot_bytes=4 << 20) as publisher,
        connect(url + "&queue=5", max_size=None, max_queue=1) as slow,
        connect(url, max_size=None) as fast,
    ):
        for number in range(1, 61):
            data = np.full(1 << 20, number, np.uint8).tobytes()
            assert publisher.send(data, timeout=20) == number
            _, sequence, _, extension, got = frame_of(fast.recv(timeout=20))
            assert (sequence, got) == (number, data)
            assert extension is None or "lost" not in extension
        before, lost_in_all = 0, 0
        while before < 60:
            _, sequence, _, extension, got = frame_of(slow.recv(timeout=20))
            assert got == bytes([sequence]) * (1 << 20)
            lost = (extension or {}).get("lost", 0)
            assert sequence == before + 1 + lost
            before, lost_in_all = sequence, lost_in_all + lost
        # The last five waited; those before, but for what the network took, are lost.
        assert 20 < lost_in_all < 55


def test_copies_of_queues_have_a_limit(serve: Serve, runtime: Path) -> None:
    server = serve(app, topics="/topics", topics_queue_bytes=1 << 20)
    url = f"ws://127.0.0.1:{server.port}/topics/large?policy=queue&queue=200"
    with (
        framegate.Publisher("large", slots=8, slot_bytes=4 << 20) as publisher,
        connect(url, max_size=None, max_queue=1) as slow,
        connect(url, max_size=None) as fast,
    ):
        for number in range(1, 41):
            publisher.send(bytes([number]) * (1 << 20), timeout=20)
            assert frame_of(fast.recv(timeout=20))[1] == number
        got = []
        while not got or got[-1] < 40:
            got.append(frame_of(slow.recv(timeout=20))[1])
        # The queue has room for all, and memory for one or two beside the slots.
        assert got == sorted(got) and len(got) < 30


def test_queue_ends_with_its_topic(serve: Serve, runtime: Path) -> None:
    server = serve(app, topics="/topics")
    url = f"ws://127.0.0.1:{server.port}/topics/short?policy=queue"
    with framegate.Publisher("short", slots=4, slot_bytes=10) as publisher:
        with connect(url) as viewer:
            publisher.send(b"x")
            assert frame_of(viewer.recv(timeout=20))[4] == b"x"
            framegate.shm.unlink("short")
            publisher.send(b"z")
            assert json.loads(viewer.recv(timeout=20))["code"] == "unavailable"
            with pytest.raises(ConnectionClosed) as closed:
                viewer.recv(timeout=20)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000
    with framegate.Publisher("short", slots=4, slot_bytes=10) as publisher:
        with connect(url) as viewer:
            publisher.send(b"y")
            _, sequence, _, _, got = frame_of(viewer.recv(timeout=20))
            assert (sequence, got) == (1, b"y")
