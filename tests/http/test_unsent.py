"""What the kernel holds of answers that clients do not take: much for a few, little for the others.

The watermark of listening sockets is in `framegate/listener.py`, the wide one of those that keep up
in `rust/http/src/wide.rs`.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

from apps import respond
from peers.raw import head, read_head

ANSWER = bytes(16 * 2**20)
WIDE_MAX = 32
NARROW_BYTES = 512 * 2**10
"""What is not wide holds 128 KiB and the piece that was being written."""


def unsent(server: Any) -> dict[int, int]:
    """Return the bytes that the kernel holds for each client, by the client's port."""
    held = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == server.port:
            held[int(fields[2].split(":")[1], 16)] = int(fields[4].split(":")[0], 16)
    return held


def ask_and_do_not_read(server: Any) -> socket.socket:
    client = socket.socket()
    # Small, so that most of the answer has to stay on the server's side.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.settimeout(30)
    client.connect(("127.0.0.1", server.port))
    client.sendall(head("GET", "/"))
    return client


def port(client: socket.socket) -> int:
    return int(client.getsockname()[1])


def wait_until_wide(server: Any, count: int) -> dict[int, int]:
    """Wait until so many clients have much in the kernel; the test's watchdog ends it."""
    while True:
        held = unsent(server)
        if sum(value > NARROW_BYTES for value in held.values()) >= count:
            return held
        time.sleep(0.02)


def test_few_clients_that_do_not_read_have_much_in_the_kernel(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, ANSWER)

    server = serve(app, lifespan="off")
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(ask_and_do_not_read(server)) for _ in range(WIDE_MAX)]
        wait_until_wide(server, WIDE_MAX)

        # No place is left for others.
        other = stack.enter_context(ask_and_do_not_read(server))
        while unsent(server).get(port(other), 0) < 64 * 2**10:
            time.sleep(0.02)
        held = unsent(server)
        assert {port(client) for client in first} == {
            number for number, value in held.items() if value > NARROW_BYTES
        }

        # One that has taken all gives its place away, though its connection lives on: to the first
        # that comes after the sweep.
        read_head(first[0])
        left = len(ANSWER)
        while left:
            left -= len(first[0].recv(2**20))
        late: list[int] = []
        while not any(held.get(number, 0) > NARROW_BYTES for number in late):
            client = stack.enter_context(ask_and_do_not_read(server))
            late.append(port(client))
            while (held := unsent(server)).get(late[-1], 0) < 64 * 2**10:
                time.sleep(0.02)
        first[0].sendall(head("GET", "/"))
        read_head(first[0])
