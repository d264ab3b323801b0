"""deploy/nginx/app.conf, run by a real nginx in front of a server on a Unix socket."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from framegate import Server
from framegate.server import RunningServer
from server_process import Launch

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy/nginx/app.conf"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")

MAIN = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/app.conf;
}}
"""


class Nginx:
    """nginx with the configuration of this project.

    It takes its listening socket over, as from an older nginx whose place it takes (the variable
    NGINX), so that no other process can have the port.
    """

    def __init__(self, directory: Path, upstream: str) -> None:
        assert NGINX is not None, "install what .ci/debian.txt lists: task setup"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)  # nginx takes it as it is
        self.port = int(self._listener.getsockname()[1])
        text, count = re.subn(r"\blisten 80;", f"listen 127.0.0.1:{self.port};", configuration())
        assert count == 1
        text, count = re.subn(r"unix:/run/app/http\.sock", f"unix:{upstream}", text)
        assert count == 1
        (directory / "app.conf").write_text(text)
        # Only root may name one; then its worker has to get at the files of this test.
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "main.conf").write_text(MAIN.format(directory=directory, user=user))
        fd = self._listener.fileno()
        self._log = (directory / "nginx.log").open("wb")
        self._process = subprocess.Popen(
            [NGINX, "-p", str(directory), "-c", str(directory / "main.conf")],
            env={**os.environ, "NGINX": f"{fd};"},
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._path = directory / "nginx.log"

    def client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def stop(self) -> str:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._listener.close()
        self._log.close()
        return self._path.read_text()


def configuration() -> str:
    return CONFIGURATION.read_text()


class Application:
    """What a page of today does."""

    def __init__(self) -> None:
        self.heads: list[dict[str, str]] = []
        self.connections: set[int] = set()
        self.go_on = threading.Event()
        self.left = threading.Event()
        self.began = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
            while (event := await receive())["type"] == "websocket.receive":
                await send({**event, "type": "websocket.send"})
            return
        assert scope["type"] == "http"
        self.heads.append({n.decode(): v.decode() for n, v in scope["headers"]})
        match scope["path"]:
            case "/upload":
                size = 0
                while True:
                    event = await receive()
                    size += len(event["body"])
                    self.began.set()
                    if not event["more_body"]:
                        break
                await self._answer(send, str(size))
            case "/events":
                headers = [(b"content-type", b"text/event-stream")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                for number in range(3):
                    body = b"data: %d\n\n" % number
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    while not self.go_on.is_set():
                        await asyncio.sleep(0.01)
                    self.go_on.clear()
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.left.set()
            case _:
                client, (host, port) = scope["client"], scope["server"]
                await self._answer(send, f"{scope['scheme']} {client and client[0]} {host}:{port}")

    async def _answer(self, send: Any, text: str) -> None:
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


class Site:
    def __init__(self, application: Application, server: RunningServer, nginx: Nginx) -> None:
        self.application = application
        self.server = server
        self.nginx = nginx

    def get(self, path: str = "/", **headers: str) -> str:
        peer = self.nginx.client()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        peer.request("GET", path, headers=named)
        response = peer.getresponse()
        assert response.status == 200
        text = response.read().decode()
        peer.close()
        return text


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    application, path = Application(), str(tmp_path / "http.sock")
    # As app.service has it.
    options: dict[str, Any] = {
        "lifespan": "off",
        "access_log": False,
        "forwarded_allow_ips": "unix",
    }
    with Server(application, uds=path, **options).start_in_thread() as server:
        nginx = Nginx(tmp_path, path)
        try:
            yield Site(application, server, nginx)
        finally:
            log = nginx.stop()
            print(log)
    assert "[error]" not in log


def test_request_with_what_nginx_knows_of_the_client(site: Site) -> None:
    claims = {"X_Forwarded_For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X_Forwarded_Prefix": "/x"}
    text = site.get("/", X_Forwarded_Proto="https", X_Forwarded_Host="evil.example", **claims)
    # Not what the client claims.
    assert text == f"http 127.0.0.1 127.0.0.1:{site.nginx.port}"
    (head,) = site.application.heads
    assert head["host"] == f"127.0.0.1:{site.nginx.port}"


def test_websocket(site: Site) -> None:
    url = f"ws://127.0.0.1:{site.nginx.port}/ws"
    with connect(url, subprotocols=["chat"], proxy=None) as peer:  # type: ignore[list-item]
        assert peer.subprotocol == "chat"
        for message in ("text", b"bytes" * 20_000):
            peer.send(message)
            assert peer.recv(60) == message
        peer.close(4001, "enough")
        with pytest.raises(ConnectionClosed):
            peer.recv(60)


def test_upload_is_not_kept_back(site: Site) -> None:
    """The application reads while the client still sends: nginx does not store the body first."""
    size = 8 << 20
    with socket.create_connection(("127.0.0.1", site.nginx.port), timeout=60) as peer:
        head = f"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
        peer.sendall(head.encode() + bytes(size // 2))
        assert site.application.began.wait(60)
        peer.sendall(bytes(size - size // 2))
        response = http.client.HTTPResponse(peer)
        response.begin()
        assert (response.status, response.read()) == (200, str(size).encode())


def test_events_come_one_by_one(site: Site) -> None:
    """The next one is sent when the last one has come: nginx gathers nothing."""
    peer = site.nginx.client()
    peer.request("GET", "/events")
    response = peer.getresponse()
    for number in range(3):
        assert response.readline() == b"data: %d\n" % number
        assert response.readline() == b"\n"
        site.application.go_on.set()
    response.close()
    peer.close()
    assert site.application.left.wait(60)  # the end of the client reaches the application


def test_rolling_restart_behind_it_is_not_seen(launch: Launch, tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    words = ("--workers", "2", "--uds", path, "--no-access-log")
    server = launch("supervised_apps:app", *words).wait_ready()
    nginx = Nginx(tmp_path, path)
    done = threading.Event()
    pids: set[str] = set()
    errors: list[str] = []

    def ask() -> None:
        peer = nginx.client()
        while not done.is_set():
            try:
                peer.request("GET", "/pid")
                response = peer.getresponse()
                text = response.read().decode()
                if response.status != 200:
                    errors.append(f"{response.status} {text}")
                pids.add(text)
            except (OSError, http.client.HTTPException) as error:
                errors.append(repr(error))
        peer.close()

    client = threading.Thread(target=ask)
    client.start()
    try:
        for _ in range(2):
            since = len(server.lines)
            server.signal(signal.SIGHUP)
            server.wait_for("reloaded: 2 of 2", after=since)
    finally:
        done.set()
        client.join(60)
        log = nginx.stop()
    assert errors == [], log
    assert len(pids) >= 2
    assert server.stop() == 0
