"""A gibibyte each way at constant memory, and chunks of every size."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from apps import respond
from peers.raw import head, read_head

GIB = 2**30
BLOCK = bytes(range(256)) * 4096


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class Peak:
    """Samples the resident memory while something runs."""

    def __init__(self) -> None:
        self.before = self.peak = resident_bytes()

    def look(self) -> None:
        """Take a sample."""
        self.peak = max(self.peak, resident_bytes())

    @property
    def growth(self) -> int:
        """Bytes above the start."""
        return self.peak - self.before


def test_a_gibibyte_up_at_constant_memory(serve: Any) -> None:
    peak = Peak()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size, events = 0, 0
        while True:
            event = await receive()
            assert event["type"] == "http.request"
            size += len(event["body"])
            events += 1
            if events % 256 == 0:
                peak.look()
            if not event["more_body"]:
                break
        await respond(send, str(size).encode())

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("POST", "/", f"content-length: {GIB}", "connection: close"))
        for _ in range(GIB // len(BLOCK)):
            client.sendall(BLOCK)
        read_head(client)
        assert client.recv(100) == str(GIB).encode()
    assert peak.growth < 64 * 2**20


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_gibibyte_down_at_constant_memory(serve: Any, chunked: bool) -> None:
    peak = Peak()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [] if chunked else [(b"content-length", str(GIB).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(GIB // len(BLOCK)):
            # A new object each time, so that keeping them would show.
            data = bytes([number & 255]) + BLOCK[1:]
            await send({"type": "http.response.body", "body": data, "more_body": True})
            peak.look()
        await send({"type": "http.response.body"})

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/", "connection: close"))
        read_head(client)
        buffer, size = bytearray(2**20), 0
        while count := client.recv_into(buffer):
            size += count
    assert size >= GIB if chunked else size == GIB
    assert peak.growth < 64 * 2**20


def test_a_slow_reader_costs_no_more_than_the_bound(serve: Any) -> None:
    peak = Peak()
    sent = 0
    stuck = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        while True:
            waiting = send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
            await waiting
            sent += 1
            peak.look()
            if sent > 64:
                stuck.set()

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/"))
        read_head(client)
        assert not stuck.wait(0.3)
    assert peak.growth < 64 * 2**20


PROGRAM = """
import asyncio, resource, socket, sys
sys.path.insert(0, {tests!r})
from server_thread import Server
from framegate.config import Config

CONNECTIONS = 5000
limit = resource.getrlimit(resource.RLIMIT_NOFILE)
wanted = 2 * CONNECTIONS + 200
resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, limit[1])))

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": b"ok"}})

server = Server(app, Config(lifespan="off", access_log=False), plain_tasks={plain})
server.start()
REQUEST = b"GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"

def ask(connection):
    connection.sendall(REQUEST)
    data = b""
    while not data.endswith(b"ok"):
        piece = connection.recv(4096)
        assert piece, data
        data += piece

warm = [server.connect() for _ in range(50)]
for connection in warm:
    ask(connection)
before = resident()
idle = []
for _ in range(CONNECTIONS):
    connection = server.connect()
    ask(connection)
    idle.append(connection)
assert server.submit(lambda: server.worker.connections) == CONNECTIONS + 50
while server.submit(lambda: server.worker.parked) < CONNECTIONS:
    server.submit(lambda: asyncio.sleep(0.05))
per_connection = (resident() - before) / CONNECTIONS
for connection in idle[::7]:
    ask(connection)
for connection in idle + warm:
    connection.close()
while server.submit(lambda: server.worker.connections):
    server.submit(lambda: asyncio.sleep(0.01))
server.stop()
print(int(per_connection))
"""


def test_five_thousand_idle_connections(task_mode: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 10_200:
        pytest.fail(f"the hard limit of open files is {hard}; the test needs 10,200")
    tests = str(Path(__file__).parents[1])
    program = PROGRAM.format(tests=tests, plain=task_mode == "plain")
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=False
    )
    assert result.returncode == 0, result.stderr
    # Both ends live in that process; the client's is a Python socket object.
    assert int(result.stdout) < 24 * 1024
