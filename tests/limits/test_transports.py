"""The limits of all workers, whatever their clients speak: HTTP/2, TLS, both."""

from __future__ import annotations

import collections
import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from h2.exceptions import ProtocolError

from peers.h2_client import Client, Exchange
from server_process import Launch, ServerProcess
from tls.authority import Authority

WORKERS = ("--workers", "4", "--port", "0")
PATIENCE_S = 60.0

Connect = Callable[[int], Client]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=["http/2 in the clear", "http/2 over TLS"])
def transport(
    request: pytest.FixtureRequest, authority: Authority, tmp_path: Path
) -> Iterator[tuple[tuple[str, ...], Connect]]:
    """Options of a server, and what connects to it."""
    with contextlib.ExitStack() as stack:

        def connect(port: int) -> Client:
            peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            stack.callback(peer.close)
            if is_tls:
                context = authority.client_context()
                context.set_alpn_protocols(["h2"])
                peer = context.wrap_socket(peer, server_hostname="localhost")
                stack.callback(peer.close)
            return Client(peer)

        is_tls = request.param.endswith("TLS")
        options: tuple[str, ...] = ()
        if is_tls:
            files = authority.issue("localhost").write(tmp_path)
            options = ("--ssl-certfile", files["ssl_certfile"])
            options += ("--ssl-keyfile", files["ssl_keyfile"])
        yield options, connect


def ask(client: Client, path: str = "/pid", fields: tuple[tuple[str, str], ...] = ()) -> Exchange:
    return client.answer(client.request(path, fields=fields))


def test_rates(launch: Launch, transport: tuple[tuple[str, ...], Connect]) -> None:
    options, connect = transport
    server = launch("supervised_apps:app", *WORKERS, *options, "--rate-limit", "40/h")
    port = server.wait_ready().port
    # Where it is counted is known before several workers ask at once.
    first = ask(connect(port))
    assert first.headers["ratelimit"].startswith('"client";r=39;t=')
    assert first.headers["ratelimit-policy"] == '"client";q=40;w=3600'

    def many(_: int) -> list[Exchange]:
        client = connect(port)
        streams = [client.request("/pid") for _ in range(10)]
        return [client.answer(stream) for stream in streams]

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for some in pool.map(many, range(8)) for answer in some]
    assert collections.Counter(answer.status for answer in answers) == {200: 39, 429: 41}
    for answer in answers:
        if answer.status == 429:
            assert answer.headers["ratelimit"].startswith('"client";r=0;t=')
            assert 1 <= int(answer.headers["retry-after"]) <= 90
    # The connections stay: another client behind them would be served.
    client = connect(port)
    assert [ask(client).status for _ in range(3)] == [429] * 3


def test_rates_of_keys(launch: Launch, transport: tuple[tuple[str, ...], Connect]) -> None:
    options, connect = transport
    words = (*WORKERS, *options, "--rate-limit-key", "x-api-key=5/h")
    port = launch("supervised_apps:app", *words).wait_ready().port
    for key in ("one", "another"):
        fields = (("x-api-key", key),)
        found = [ask(connect(port), fields=fields) for _ in range(8)]
        assert [answer.status for answer in found] == [200] * 5 + [429] * 3, key
        assert found[0].headers["ratelimit-policy"] == '"key";q=5;w=3600'
    assert "ratelimit" not in ask(connect(port)).headers, "nobody asked"


def test_requests_at_once(launch: Launch, transport: tuple[tuple[str, ...], Connect]) -> None:
    options, connect = transport
    words = (*WORKERS, *options, "--limit-requests", "3", "--limit-queue", "0")
    server: ServerProcess = launch("supervised_apps:app", *words).wait_ready()
    server.hold_file.touch()
    # Two of one connection, one of another.
    one, other = connect(server.port), connect(server.port)
    held = [(one, one.request("/slow")), (one, one.request("/slow"))]
    held.append((other, other.request("/slow")))
    server.wait_event("slow", 3)
    for client in (one, other, *(connect(server.port) for _ in range(4))):
        refused = ask(client)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    server.hold_file.unlink()
    for client, stream in held:
        assert client.answer(stream).body == b"done"
    # Everybody has let go when the answer is there, but for the one whose end is still on its way.
    deadline = time.monotonic() + PATIENCE_S
    while ask(connect(server.port)).status != 200:
        assert time.monotonic() < deadline, "what was held is never given back"


def test_a_stream_that_is_reset_keeps_its_place_until_its_work_has_ended(
    launch: Launch, transport: tuple[tuple[str, ...], Connect]
) -> None:
    options, connect = transport
    words = (*WORKERS, *options, "--limit-requests", "1", "--limit-queue", "0")
    server = launch("supervised_apps:app", *words).wait_ready()
    server.hold_file.touch()
    client = connect(server.port)
    stream = client.request("/slow")
    server.wait_event("slow")
    client.state.reset_stream(stream)
    client.flush()
    # Or whoever begins and gives up, again and again, has as many running as it likes.
    assert client.settle()
    assert [ask(client).status, ask(connect(server.port)).status] == [503, 503]
    server.hold_file.unlink()
    deadline = time.monotonic() + PATIENCE_S
    while ask(connect(server.port)).status != 200:
        assert time.monotonic() < deadline, "its place is never given back"


def test_connections(launch: Launch, transport: tuple[tuple[str, ...], Connect]) -> None:
    options, connect = transport
    words = (*WORKERS, *options, "--limit-connections", "6")
    port = launch("supervised_apps:app", *words).wait_ready().port
    clients = [connect(port) for _ in range(6)]
    assert [ask(client).status for client in clients] == [200] * 6
    for _ in range(8):
        if options:
            # There is no answer before the handshake, and that is the dear part.
            with pytest.raises((ssl.SSLError, ConnectionError)):
                connect(port)
        else:
            # hyper-h2 does not bear the PING behind the GOAWAY that comes with the answer.
            curl = ("curl", "-sS", "-D", "-", "-o", "/dev/null", "--http2-prior-knowledge")
            done = subprocess.run(
                [*curl, f"http://127.0.0.1:{port}/pid"],
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=True,
            )
            assert done.stdout.startswith("HTTP/2 503"), done.stdout
            assert "\nretry-after: 1" in done.stdout
    assert [ask(client).status for client in clients] == [200] * 6
    clients.pop().socket.close()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < deadline, "a connection is never given back"
        with contextlib.suppress(ssl.SSLError, ConnectionError, ProtocolError):
            if ask(connect(port)).status == 200:
                break
