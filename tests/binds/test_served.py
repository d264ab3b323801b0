"""Several addresses in real servers: all workers serve all of them, and go on to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from framegate import Server
from privileges import needs_root
from server_process import Launch, ServerProcess, body

APP = "supervised_apps:app"


def ask(address: Any) -> int:
    """Return the pid that answers at an address; by IPv4, IPv6 or Unix socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    if not isinstance(address, str) and ":" in address[0]:
        family = socket.AF_INET6
    with socket.socket(family) as peer:
        peer.settimeout(60)
        peer.connect(address)
        peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return int(body(peer))


def answering(address: Any, pids: set[int]) -> set[int]:
    """Ask until all of the pids have answered, or very often."""
    seen: set[int] = set()
    for _ in range(500):  # who accepts is the kernel's choice
        seen.add(ask(address))
        if seen == pids:
            break
    return seen


def served(server: ServerProcess, *, after: int = 0) -> list[Any]:
    """The addresses in the start-up line."""
    line = server.wait_for(r"framegate \S+ serves \S+ on (.*)", after=after)[1]
    found: list[Any] = []
    for url in line.split():
        if url.startswith("unix:"):
            found.append(url.removeprefix("unix:"))
        else:
            host, _, port = url.removeprefix("http://").rpartition(":")
            found.append((host.strip("[]"), int(port)))
    return found


def test_every_worker_serves_every_address_and_so_do_successors(
    launch: Launch, tmp_path: Path
) -> None:
    with socket.socket() as inherited:
        inherited.bind(("127.0.0.3", 0))
        fd = inherited.fileno()
        words = ["localhost:0", "127.0.0.2:0", f"unix:{tmp_path}/socket?mode=600", f"fd://{fd}"]
        binds = [word for bind in words for word in ("--bind", bind)]
        server = launch(APP, *binds, "--workers", "2", "--no-access-log", fds=(fd,)).wait_ready()
        addresses = served(server)
        assert [address if isinstance(address, str) else address[0] for address in addresses] == [
            "127.0.0.1",
            "::1",
            "127.0.0.2",
            f"{tmp_path}/socket",
            "127.0.0.3",
        ]
        assert all(isinstance(address, str) or address[1] != 0 for address in addresses)
        assert addresses[0][1] == addresses[1][1] != addresses[2][1]
        first, second = server.worker_pids
        for address in addresses:
            assert answering(address, {first, second}) == {first, second}
        os.kill(first, signal.SIGKILL)
        successor = int(server.wait_for(r"ready again \(pid (\d+)\)")[1])
        for address in addresses:
            assert answering(address, {successor, second}) == {successor, second}
        assert server.stop() == 0
        assert not (tmp_path / "socket").exists()


def test_one_worker_serves_every_address(launch: Launch, tmp_path: Path) -> None:
    server = launch(
        APP, "--bind", "*:0", "--bind", f"unix:{tmp_path}/socket", "--no-access-log"
    ).wait_ready()
    for address in served(server):
        assert ask(address) == server.pid
    assert server.stop() == 0


def test_addresses_of_a_server_in_a_thread(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError(scope["type"])
        text = str(os.getpid()).encode()
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    binds = ["localhost:0", f"unix:{tmp_path}/socket"]
    with Server(app, bind=binds, access_log=False).start_in_thread() as server:
        assert [ask(address) for address in server.addresses] == [os.getpid()] * 3
        assert len(server.urls) == 3
    assert not (tmp_path / "socket").exists()


def test_bind_from_the_file_and_the_environment(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "framegate.toml").write_text('bind = ["unix:from-file", "127.0.0.1:0"]')
    server = launch(APP, through=("env",)).wait_ready()
    assert served(server)[0] == "from-file"
    assert ask(f"{tmp_path}/from-file") == server.pid
    assert server.stop() == 0
    server = launch(
        APP, through=("env", f"FRAMEGATE_BIND=unix:{tmp_path}/environment 127.0.0.1:0")
    ).wait_ready()
    assert ask(f"{tmp_path}/environment") == server.pid
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("bind", "code", "text"),
    [
        ("8000", 2, "did you mean 127.0.0.1:8000?"),
        ("unix:/no/such/directory/socket", 3, "fix: create the directory /no/such/directory"),
        ("fd://77", 3, "fd://77 cannot be used"),
        ("systemd", 3, "systemd passed no socket to this process"),
        ("nowhere.invalid:80", 3, 'host "nowhere.invalid" cannot be resolved'),
    ],
)
def test_bad_bind_ends_the_start(launch: Launch, bind: str, code: int, text: str) -> None:
    server = launch(APP, "--bind", bind, "--workers", "2")
    assert server.wait() == code
    assert text in server.text
    assert "Traceback" not in server.text


@needs_root
def test_low_port_of_an_ordinary_user_is_explained() -> None:
    program = (
        "import os\n"
        "from framegate.config import Config\n"
        "from framegate.errors import ListenError, describe\n"
        "from framegate.listener import open_listeners\n"
        "config = Config(bind=('127.0.0.1:81',))\n"
        "open_listeners(Config(port=0)).close()\n"  # imports what that user may not read
        "os.setuid(65534)\n"
        "try: open_listeners(config)\n"
        "except ListenError as error: print(describe(error))\n"
    )
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        first = file.read().strip()
    if int(first) <= 81:  # this machine allows it
        return
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "port 81 on 127.0.0.1 may not be bound by this user" in done.stdout
    assert f"ports below {first} need a capability" in done.stdout
