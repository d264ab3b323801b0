"""`framegate.client.connect`: WebSockets for threads."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from client.conftest import echo_app
from conformance.process import free_port
from framegate import client
from framegate.client import connect, connections
from server_thread import Serve

WORDS = "das ist heiß 🔥 " * 200


@pytest.mark.parametrize("compression", [True, False])
def test_messages_go_both_ways(echo: str, compression: bool) -> None:
    with connect(echo, subprotocols=["a", "b"], compression=compression) as websocket:
        assert websocket.subprotocol == "b"
        assert websocket.is_compressed == compression
        for message in ["", "x", WORDS, b"", b"x", os.urandom(70_000), WORDS.encode() * 300]:
            websocket.send(message)
            assert websocket.recv(timeout=30) == message
        assert websocket.close_code is None
    assert (websocket.close_code, websocket.close_reason) == (1000, "")


def test_whatever_is_like_bytes_is_binary(own_echo: str) -> None:
    numpy = pytest.importorskip("numpy")
    with connect(own_echo) as websocket:
        for data, expected in [
            (bytearray(b"ab"), b"ab"),
            (memoryview(b"abcd")[::2], b"ac"),
            (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
            (numpy.arange(6, dtype="<u2").reshape(2, 3), numpy.arange(6, dtype="<u2").tobytes()),
        ]:
            websocket.send(data)
            assert websocket.recv(timeout=30) == expected
        for wrong in (None, 1, ["a"], {"a": 1}):
            with pytest.raises(TypeError, match="a message is str or like bytes, not"):
                websocket.send(wrong)  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            websocket.send("\ud800")


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (1000, "bye", client.ConnectionClosedOK),
        (1001, "", client.ConnectionClosedOK),
        (4000, "ä", client.ConnectionClosedError),
    ],
)
def test_the_server_closes(echo: str, code: int, reason: str, error: type[Exception]) -> None:
    with connect(echo) as websocket:
        websocket.send("before")
        websocket.send(f"close {code} {reason}")
        assert websocket.recv(timeout=30) == "before"
        with pytest.raises(error) as caught:
            websocket.recv(timeout=30)
        assert isinstance(caught.value, client.ConnectionClosed)
        assert (caught.value.close_code, caught.value.close_reason) == (code, reason)
        assert caught.value.by_server
        with pytest.raises(error):
            websocket.send("after")
    assert (websocket.close_code, websocket.close_reason) == (code, reason)


def test_iteration_ends_with_a_good_close_and_raises_a_bad_one(own_echo: str) -> None:
    with connect(own_echo) as websocket:
        for text in ("a", "b", "close 1000"):
            websocket.send(text)
        assert list(websocket) == ["a", "b"]
    with connect(own_echo) as websocket:
        websocket.send("close 3000 no")
        with pytest.raises(client.ConnectionClosedError, match="code 3000: no"):
            next(websocket)


def test_a_block_that_an_exception_leaves_closes_with_1011(serve: Serve) -> None:
    seen: list[Any] = []
    over = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        over.set()

    url = f"ws://127.0.0.1:{serve(app).port}/"
    with pytest.raises(ZeroDivisionError), connect(url):
        raise ZeroDivisionError
    assert over.wait(30)
    assert seen[0]["code"] == 1011


def test_codes_and_reasons_that_cannot_be_sent(own_echo: str) -> None:
    with connect(own_echo) as websocket:
        for code in (0, 1005, 1006, 2999, 5000):
            with pytest.raises(client.ClientArgumentError, match="may not be sent"):
                websocket.close(code)
        with pytest.raises(client.ClientArgumentError, match="at most 123 bytes"):
            websocket.close(1000, "ä" * 62)
        websocket.close(4999, "x" * 123)
        websocket.close()


def test_no_message_in_time(own_echo: str) -> None:
    with connect(own_echo) as websocket:
        for timeout in (float("nan"), float("inf")):
            with pytest.raises(
                client.ClientArgumentError, match="timeout is a number of seconds, not"
            ):
                websocket.recv(timeout=timeout)
        for timeout in (0, -1, 0.01):
            with pytest.raises(TimeoutError, match="no message came in time"):
                websocket.recv(timeout=timeout)
        websocket.send("x")
        assert websocket.recv(timeout=30) == "x"


def test_one_thread_receives_while_others_send(own_echo: str) -> None:
    count, senders = 200, 4
    got: list[Any] = []
    with connect(own_echo) as websocket:
        receiving = threading.Thread(
            target=lambda: got.extend(websocket.recv(timeout=30) for _ in range(count * senders))
        )
        receiving.start()

        def send(name: int) -> None:
            for i in range(count):
                websocket.send(f"{name} {i}")

        threads = [threading.Thread(target=send, args=(name,)) for name in range(senders)]
        for thread in threads:
            thread.start()
        for thread in [*threads, receiving]:
            thread.join(60)
    assert sorted(got) == sorted(f"{n} {i}" for n in range(senders) for i in range(count))
    for name in range(senders):
        mine = [text for text in got if text.startswith(f"{name} ")]
        assert mine == [f"{name} {i}" for i in range(count)]


def test_close_ends_the_wait_of_another_thread(own_echo: str) -> None:
    caught: list[BaseException] = []
    websocket = connect(own_echo)

    def receive() -> None:
        try:
            websocket.recv()
        except client.ConnectionClosed as error:
            caught.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    websocket.close(1001, "away")
    thread.join(30)
    assert isinstance(caught[0], client.ConnectionClosedOK)
    assert not caught[0].by_server


def test_a_handler_may_use_it(serve: Serve, own_echo: str) -> None:
    import asyncio

    def ask() -> str | bytes:
        with connect(own_echo) as websocket:
            websocket.send("from a handler")
            return websocket.recv(timeout=30)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return await echo_app(scope, receive, send)
        answer = await asyncio.to_thread(ask)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(answer).encode()})

    server = serve(app)
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.endswith(b"from a handler")


BLOCKED = """
import signal, sys
from framegate.client import connect
signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the shell ignores it
if sys.argv[2] == "recv":
    with connect(sys.argv[1]) as websocket:
        print("waits", flush=True)
        websocket.recv()
else:
    print("waits", flush=True)
    connect(sys.argv[1], open_timeout=None)
"""


@pytest.mark.parametrize("where", ["recv", "connect"])
def test_signals_are_heard_while_it_waits(own_echo: str, where: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = own_echo if where == "recv" else f"ws://127.0.0.1:{silent.getsockname()[1]}/"
        process = subprocess.Popen(
            [sys.executable, "-c", BLOCKED, url, where], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        # The handler of one signal runs, and the wait goes on; the other ends it.
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "heard\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


FORKED = """
import os, sys
from framegate.client import ClientArgumentError, connect
with connect(sys.argv[1]) as websocket:
    child = os.fork()
    if child == 0:
        try:
            websocket.send("child")
        except ClientArgumentError as error:
            assert "before fork()" in str(error)
        else:
            os._exit(2)
        del websocket
        with connect(sys.argv[1]) as own:
            own.send("own")
            assert own.recv(timeout=20) == "own"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    websocket.send("parent")
    assert websocket.recv(timeout=20) == "parent"
"""


def test_a_forked_child_opens_its_own(own_echo: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, own_echo],
        check=True, timeout=60,
    )  # fmt: skip


def test_pings_are_answered_while_nobody_calls(serve: Serve) -> None:
    server = serve(echo_app, ws_ping_interval=0.5, ws_ping_timeout=0.5)
    with connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None) as websocket:
        # Several times as long as a silent client would live.
        time.sleep(4)
        websocket.send("still here")
        assert websocket.recv(timeout=30) == "still here"


def test_connections_begin_anew(serve: Serve) -> None:
    server = serve(echo_app)
    rounds = 0
    url = f"ws://127.0.0.1:{server.port}/"
    for websocket in connections(url, pause_first=0.01, pause_last=0.05):
        rounds += 1
        websocket.send(f"close {4000 + rounds}")
        with pytest.raises(client.ConnectionClosedError):
            websocket.recv(timeout=30)
        if rounds == 3:
            break
    assert rounds == 3


def test_connections_wait_for_a_server_and_raise_what_will_not_pass(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    caplog.set_level("INFO", "framegate.client")
    found: list[Any] = []

    def begin() -> None:
        rounds = connections(f"ws://127.0.0.1:{port}/", pause_first=0.01, pause_last=0.05)
        try:
            found.append(next(rounds))
        except client.HandshakeRefused as error:
            found.append(error)

    thread = threading.Thread(target=begin)
    thread.start()
    while not caplog.records:
        thread.join(0.01)
    assert "nothing answers at 127.0.0.1" in caplog.text
    with socket.create_server(("127.0.0.1", port)) as listener:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
            thread.join(30)
    assert not thread.is_alive()
    assert found[0].status == 404
    with pytest.raises(client.ClientArgumentError):
        next(connections("http://x/"))
