"""Certificates are replaced under a running server: on change, on SIGHUP, not by bad ones."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import framegate
from server_process import Launch, ServerProcess
from tls.apps import app
from tls.authority import Authority, write_identity
from tls.conftest import ServeTls, TlsClient, read_to_end

HELLO = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


def serial(connection: Any) -> int:
    return int(connection.getpeercert()["serialNumber"], 16)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what a server does by itself within a second or so."""
    pause = threading.Event()
    for _ in range(600):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail("it did not happen")


def served_serial(client: TlsClient) -> int:
    with client.connect() as connection:
        return serial(connection)


def test_changed_files_are_read(serve_tls: ServeTls, authority: Authority, tmp_path: Path) -> None:
    first, second = authority.issue("localhost"), authority.issue("localhost", kind="rsa")
    client = serve_tls(app, **first.write(tmp_path))
    with client.connect() as old:
        assert serial(old) == first.certificate.serial_number
        second.write(tmp_path)
        eventually(lambda: served_serial(client) == second.certificate.serial_number)
        # The connection from before goes on.
        old.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert read_to_end(old).endswith(b"hello")


def test_changed_symbolic_link(serve_tls: ServeTls, authority: Authority, tmp_path: Path) -> None:
    """As certbot and Kubernetes do it."""
    first, second = authority.issue("localhost"), authority.issue("localhost")
    for issued, name in ((first, "a"), (second, "b")):
        (tmp_path / name).mkdir()
        issued.write(tmp_path / name)
    live = tmp_path / "live"
    live.symlink_to("a")
    client = serve_tls(app, ssl_certfile=live / "server.pem", ssl_keyfile=live / "server.key")
    assert served_serial(client) == first.certificate.serial_number
    fresh = tmp_path / "fresh"
    fresh.symlink_to("b")
    fresh.rename(live)
    eventually(lambda: served_serial(client) == second.certificate.serial_number)


def test_first_client_after_the_change_gets_the_new_one(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path
) -> None:
    """A server that nobody visits has no timer; the visit itself finds the change."""
    first, second = authority.issue("localhost"), authority.issue("localhost")
    client = serve_tls(app, **first.write(tmp_path))
    # Nobody has connected yet, so nobody has looked.
    second.write(tmp_path)
    assert served_serial(client) == second.certificate.serial_number


def test_bad_files_change_nothing_and_are_reported_once(
    serve_tls: ServeTls,
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = authority.issue("localhost"), authority.issue("localhost")
    options = first.write(tmp_path)
    client = serve_tls(app, **options)
    certificate = Path(options["ssl_certfile"])
    good = certificate.read_bytes()
    certificate.write_bytes(good[: len(good) // 2])

    def complaints() -> list[str]:
        return [item.getMessage() for item in caplog.records if item.levelname == "ERROR"]

    eventually(lambda: client.get().endswith(b"hello") and bool(complaints()))
    for _ in range(3):
        assert served_serial(client) == first.certificate.serial_number
    (complaint,) = complaints()
    assert str(certificate) in complaint
    assert "line 1" in complaint
    assert "stay as they were" in complaint
    caplog.clear()
    second.write(tmp_path)
    eventually(lambda: served_serial(client) == second.certificate.serial_number)
    assert complaints() == []


def test_reload_from_code(authority: Authority, tmp_path: Path) -> None:
    first, second = authority.issue("localhost"), authority.issue("localhost")
    server = framegate.Server(app, port=0, access_log=False, **first.write(tmp_path))
    with server.start_in_thread() as running:
        ((host, port),) = running.addresses
        context = authority.client_context()

        def current() -> int:
            with (
                ssl_connection(context, str(host), int(port)) as connection,
            ):
                return serial(connection)

        assert running.urls == [f"https://127.0.0.1:{port}"]
        assert current() == first.certificate.serial_number
        second.write(tmp_path)
        server.reload_tls()
        eventually(lambda: current() == second.certificate.serial_number)


@contextlib.contextmanager
def ssl_connection(context: ssl.SSLContext, host: str, port: int) -> Iterator[ssl.SSLSocket]:
    import socket

    with (
        socket.create_connection((host, port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def test_revocation_takes_effect(serve_tls: ServeTls, authority: Authority, tmp_path: Path) -> None:
    identity = authority.issue(client=True)
    ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
    ca.write_bytes(authority.pem)
    crl.write_bytes(authority.revocation_list())
    client = serve_tls(app, ssl_cert_reqs="required", ssl_ca_certs=ca, ssl_crl=crl)
    context = authority.client_context(write_identity(identity, tmp_path / "client.pem"))

    def is_let_in() -> bool:
        try:
            return client.get(context=context).endswith(b"hello")
        except (ssl.SSLError, ConnectionError):
            return False

    assert is_let_in()
    crl.write_bytes(authority.revocation_list([identity]))
    # The same context all the time: a session that could be resumed would be.
    eventually(lambda: not is_let_in())
    assert not is_let_in()


def tls_port(server: ServerProcess) -> int:
    return int(server.wait_for(r"https://[^ ]*:(\d+)")[1])


def words(options: dict[str, str]) -> list[str]:
    return [
        word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_service_manager_is_told(
    launch: Launch, authority: Authority, tmp_path: Path, workers: int
) -> None:
    """RELOADING=1, then READY=1 (sd_notify(3))."""
    options = words(authority.issue("localhost").write(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        extra = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        server = launch("tls_app:app", *options, "--workers", str(workers), extra=extra)
        assert manager.recv(4096).startswith(b"READY=1\n")
        server.signal(signal.SIGHUP)
        assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(4096).startswith(b"READY=1\n")
        assert server.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_under_load(
    launch: Launch, authority: Authority, tmp_path: Path, workers: int
) -> None:
    """Every worker gets the new certificate, and no request fails."""
    first, second = authority.issue("localhost"), authority.issue("localhost")
    options = first.write(tmp_path)
    server = launch("tls_app:app", *words(options), "--workers", str(workers))
    server.wait_ready()
    port = tls_port(server)
    context = authority.client_context()
    stop = threading.Event()
    failures: list[BaseException] = []
    counts = [0, 0]

    def load(keep_alive: bool) -> None:
        try:
            while not stop.is_set():
                with ssl_connection(context, "127.0.0.1", port) as connection:
                    for _ in range(50 if keep_alive else 1):
                        connection.sendall(HELLO)
                        received = b""
                        while not received.endswith(b"hello"):
                            chunk = connection.recv(4096)
                            assert chunk
                            received += chunk
                        counts[keep_alive] += 1
                        if b"connection: close" in received:
                            break  # SIGHUP also replaces the workers of a supervisor
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=load, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for issued in (second, first, second):
            issued.write(tmp_path)
            seen = len(server.lines)
            server.signal(signal.SIGHUP)
            for number in range(workers):
                who = f"worker {number + 1}: " if workers > 1 else ""
                server.wait_for(f"{who}TLS certificates were read anew: localhost", after=seen)
            for _ in range(4 * workers):
                with ssl_connection(context, "127.0.0.1", port) as connection:
                    assert serial(connection) == issued.certificate.serial_number
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(counts) > 0
    if workers > 1:
        assert len(set(server.worker_pids)) == workers
    assert server.stop() == 0
    assert "PRIVATE KEY" not in server.text
