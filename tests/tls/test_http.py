"""HTTP and WebSocket through TLS are what they are without it."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from typing import Any

import pytest
from websockets.sync.client import connect

from peers.tls_threads import for_threads
from tls.apps import answer, app, pattern
from tls.conftest import ServeTls, TlsClient, exchange, read_to_end


def split(response: bytes) -> tuple[bytes, bytes]:
    head, _, body = response.partition(b"\r\n\r\n")
    return head, body


def test_scheme_and_extension(serve_tls: ServeTls) -> None:
    head, body = split(serve_tls(app).get("/scope"))
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b'"scheme": "https"' in body


@pytest.mark.parametrize("count", [0, 1, 16383, 16384, 16385, 65536, 5_000_000])
def test_large_responses_are_whole(serve_tls: ServeTls, count: int) -> None:
    _, body = split(serve_tls(app).get(f"/bytes/{count}"))
    assert body == pattern(count)


def test_streamed_response_is_whole(serve_tls: ServeTls) -> None:
    _, body = split(serve_tls(app).get("/stream"))
    assert body.endswith(b"end\r\n0\r\n\r\n")


@pytest.mark.parametrize("count", [1, 16384, 100_000, 5_000_000])
def test_request_bodies_arrive(serve_tls: ServeTls, count: int) -> None:
    sent = pattern(count)
    with serve_tls(app).connect() as connection:
        head = f"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {count}\r\n"
        request = head.encode() + b"connection: close\r\n\r\n" + sent
        _, body = split(b"".join(exchange(connection, request)))
    assert body == sent


def test_request_in_single_bytes(serve_tls: ServeTls) -> None:
    """Each byte is a record of its own."""
    with serve_tls(app).connect() as connection:
        for byte in b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert read_to_end(connection).endswith(b"\r\n\r\nhello")


def test_record_in_single_bytes(serve_tls: ServeTls) -> None:
    """One record comes in many packets: the socket is readable long before there is anything."""
    client = serve_tls(app)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with client.server.connect() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def exchange(step: Any) -> Any:
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    result = None
                for byte in outgoing.read():
                    peer.sendall(bytes([byte]))
                if result is not None:
                    return result
                incoming.write(peer.recv(65536))

        exchange(lambda: tls.do_handshake() or True)
        request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        assert exchange(lambda: tls.write(request)) == len(request)
        response = b""
        while not response.endswith(b"hello"):
            response += exchange(lambda: tls.read(65536))


def test_pipelined_requests(serve_tls: ServeTls) -> None:
    with serve_tls(app).connect() as connection:
        one = b"GET /bytes/20000 HTTP/1.1\r\nhost: x\r\n\r\n"
        last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        connection.sendall(one * 20 + last)
        response = read_to_end(connection)
    assert response.count(pattern(20000)) == 20
    assert response.endswith(b"hello")


def test_kept_alive_connection_after_it_was_parked(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    parked = threading.Event()
    with client.connect() as connection:
        for _ in range(3):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"hello"):
                received += connection.recv(4096)
            for _ in range(1000):
                if client.server.submit(lambda: client.server.worker.parked):
                    break
                parked.wait(0.01)  # the sweep parks; nobody can be told
            else:
                pytest.fail("the connection was not parked")


def test_end_is_announced(serve_tls: ServeTls) -> None:
    """The last response is followed by close_notify; without it `recv` raises SSLEOFError."""
    client = serve_tls(app)
    context = client.context
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    with client.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        connection.suppress_ragged_eofs = False
        assert read_to_end(connection).endswith(b"hello")
        connection.unwrap()


def test_idle_connection_is_told_its_end(serve_tls: ServeTls) -> None:
    client = serve_tls(app, timeout_keep_alive=0.1)
    with client.connect() as connection:
        connection.suppress_ragged_eofs = False
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_to_end(connection).endswith(b"hello")


def test_clients_end_is_an_end(serve_tls: ServeTls) -> None:
    """A client that says close_notify after its request has left, as one that shuts TCP down."""
    client = serve_tls(app)
    for cut in ("close_notify", "fin"):
        with client.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"hello"):
                received += connection.recv(4096)
            if cut == "close_notify":
                connection.unwrap()
            else:
                connection.shutdown(socket.SHUT_WR)
                read_to_end(connection)  # Python reads past TLS from here on: our close_notify
    assert client.get().endswith(b"hello")


def test_body_that_is_cut_is_a_disconnect(serve_tls: ServeTls) -> None:
    seen: list[str] = []
    over = threading.Event()

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError
        while True:
            message = await receive()
            seen.append(message["type"])
            if message["type"] == "http.disconnect":
                over.set()
                return

    client = serve_tls(reading)
    with client.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
        with contextlib.suppress(ssl.SSLError):  # the server's own end crosses with ours
            connection.unwrap()
        assert over.wait(20)
    assert seen[-1] == "http.disconnect"


def test_response_that_is_cut_does_not_look_whole(serve_tls: ServeTls) -> None:
    """Without a length the end of the connection ends the body: it must look like a cut."""

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("on purpose")

    client = serve_tls(failing, allow_unhandled=True)
    with client.connect() as connection:
        connection.suppress_ragged_eofs = False
        connection.sendall(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            read_to_end(connection)


def test_early_hint_and_response(serve_tls: ServeTls) -> None:
    async def hinting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await answer(send, b"done")

    response = serve_tls(hinting).get()
    hint, _, rest = response.partition(b"\r\n\r\n")
    assert hint.startswith(b"HTTP/1.1 103 Early Hints")
    assert rest.startswith(b"HTTP/1.1 200 OK")
    assert rest.endswith(b"done")


def test_slow_reader_gets_everything(serve_tls: ServeTls) -> None:
    """The socket takes no more for a while: records wait, none is lost or repeated."""
    client = serve_tls(app)
    plain = client.server.connect()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    with client.context.wrap_socket(plain, server_hostname="localhost") as connection:
        count = 600_000
        request = f"GET /bytes/{count} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        connection.sendall(request.encode())
        received = bytearray()
        while chunk := connection.recv(1000):
            received += chunk
    assert bytes(received).endswith(pattern(count))


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"POST"])
def test_http_in_the_clear_is_answered(serve_tls: ServeTls, first: bytes) -> None:
    client = serve_tls(app)
    with client.server.connect() as peer:
        peer.sendall(first + b"host: x\r\n\r\n")
        head, body = split(read_to_end(peer))
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: text/plain" in head
    assert f"content-length: {len(body)}".encode() in head
    assert b"https://" in body
    assert client.get().endswith(b"hello")


@pytest.mark.parametrize(
    "noise", [b"", b"\0", b"\x16\3\1\0\2\1\0", b"SSH-2.0-x\r\n", os.urandom(500)]
)
def test_noise_harms_nobody(serve_tls: ServeTls, noise: bytes) -> None:
    client = serve_tls(app)
    with client.server.connect() as peer:
        peer.sendall(noise)
        peer.shutdown(socket.SHUT_WR)
        try:
            read_to_end(peer)
        except ConnectionResetError:
            pass
    assert client.get().endswith(b"hello")


def test_damaged_record_ends_the_connection(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    with client.connect() as connection:
        plain = socket.socket(fileno=os.dup(connection.fileno()))
        with plain:
            plain.sendall(b"\x17\3\3\0\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
            connection.recv(100)
    assert client.get().endswith(b"hello")


def test_websocket(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    with connect(
        f"wss://localhost:{client.server.port}/", ssl=for_threads(client.context), max_size=None
    ) as socket_:
        assert socket_.recv() == "wss"
        assert socket_.recv() == str(0x0304)
        for message in ("text", b"bytes", pattern(1_000_000)):
            socket_.send(message)
            assert socket_.recv() == message


def test_unix_socket(serve_tls: ServeTls) -> None:
    assert serve_tls(app, uds=True).get().endswith(b"hello")


def test_many_clients_at_once(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    results: list[bool] = []

    def work() -> None:
        results.extend(client.get("/bytes/100000").endswith(pattern(100000)) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 40


def test_ingest_gives_the_same_result(serve_tls: ServeTls) -> None:
    """A large body is not read past the parser here; nobody sees a difference."""
    client: TlsClient = serve_tls(app)
    sent = pattern(2_000_000)
    with client.connect() as connection:
        for _ in range(2):
            head = f"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {len(sent)}\r\n\r\n"
            received = b""
            for chunk in exchange(connection, head.encode() + sent):
                received += chunk
                if len(received.partition(b"\r\n\r\n")[2]) >= len(sent):
                    break
            assert split(received)[1] == sent
