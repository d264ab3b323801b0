"""systemd's protocols: sockets passed in, news sent out; by its own launcher where it has one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from framegate.config import Config
from framegate.errors import ListenError
from framegate.listener import open_listeners
from framegate.systemd import Notifier, PassedSocket, passed_sockets
from server_process import Launch, ServerProcess, body

APP = "supervised_apps:app"

# What systemd does between fork and exec: the descriptors are moved to 3, 4, ...
ACTIVATE = """
import os, sys
fds = [int(word) for word in sys.argv[1].split(",")]
kept = [os.dup(fd) for fd in fds]
for number, fd in enumerate(kept):
    high = os.dup(fd) if fd < 3 + len(kept) else fd
    kept[number] = os.dup2(high, 100 + number)
for number, fd in enumerate(kept):
    os.dup2(fd, 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds))}
if sys.argv[2]:
    os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execvp(sys.argv[3], sys.argv[3:])
"""


def activated(fds: list[int], names: str = "") -> tuple[str, ...]:
    return (sys.executable, "-c", ACTIVATE, ",".join(map(str, fds)), names)


def ask(address: str | tuple[str, int]) -> int:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as peer:
        peer.settimeout(60)
        peer.connect(address)
        peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return int(body(peer))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as item:
        yield item


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as item:
        item.bind(str(tmp_path / "admin"))
        item.listen()
        yield item


class TestActivation:
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_passed_sockets_are_served_without_being_asked_for(
        self, launch: Launch, web: socket.socket, admin: socket.socket, workers: str
    ) -> None:
        fds = [web.fileno(), admin.fileno()]
        server = launch(
            APP, "--workers", workers, fds=tuple(fds), through=activated(fds)
        ).wait_ready()
        for address in (web.getsockname(), admin.getsockname()):
            assert ask(address) in server.events("startup")
        assert server.stop() == 0
        # Not ours: the next activation needs it.
        assert os.path.exists(admin.getsockname())

    def test_connection_from_before_the_start_is_answered(
        self, launch: Launch, web: socket.socket
    ) -> None:
        with socket.create_connection(web.getsockname(), timeout=60) as early:
            early.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            fds = [web.fileno()]
            server = launch(APP, "--workers", "2", fds=tuple(fds), through=activated(fds))
            assert int(body(early)) in server.wait_ready().events("startup")
            assert server.stop() == 0

    def test_names_choose(self, launch: Launch, web: socket.socket, admin: socket.socket) -> None:
        fds = [web.fileno(), admin.fileno()]
        through = activated(fds, "web:admin")
        server = launch(
            APP, "--bind", "systemd:web", "--bind", "127.0.0.1:0", fds=tuple(fds), through=through
        ).wait_ready()
        assert ask(web.getsockname()) == server.pid
        assert server.text.count("http://") == 2
        assert server.stop() == 0
        server = launch(APP, "--bind", "systemd:wep", fds=tuple(fds), through=through)
        assert server.wait() == 3
        assert "there are: admin, web" in server.text
        assert "did you mean web?" in server.text

    def test_sockets_that_nobody_serves_are_a_warning(
        self, launch: Launch, web: socket.socket
    ) -> None:
        fds = [web.fileno()]
        server = launch(
            APP, "--bind", "127.0.0.1:0", fds=tuple(fds), through=activated(fds)
        ).wait_ready()
        assert re.search(
            r"systemd passed 1 sockets that nobody serves, because command line \(--bind\) "
            r"names another address; add --bind systemd",
            server.text,
        )
        assert server.stop() == 0

    def test_sockets_of_another_process_are_not_taken(self, web: socket.socket) -> None:
        environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}
        assert passed_sockets(environment) == []
        assert Config.load(environment=environment, search=False).bind == ()
        with pytest.raises(ListenError, match="systemd passed no socket"):
            open_listeners(Config(bind=("systemd",)))

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({}, []),
            ({"LISTEN_FDS": "x"}, []),
            ({"LISTEN_FDS": "2"}, [PassedSocket(3, "unknown"), PassedSocket(4, "unknown")]),
            (
                {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
                [PassedSocket(3, "a"), PassedSocket(4, "b")],
            ),
            ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, [PassedSocket(3, "unknown")]),
        ],
    )
    def test_variables_mean(
        self, environment: dict[str, str], expected: list[PassedSocket]
    ) -> None:
        assert passed_sockets({"LISTEN_PID": str(os.getpid()), **environment}) == expected

    def test_accepted_connection_in_place_of_a_listener_is_explained(self, launch: Launch) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = launch(APP, fds=(theirs.fileno(),), through=activated([theirs.fileno()]))
            assert server.wait() == 3
            assert "is a connection, not a listening socket" in server.text
            assert "Accept=no" in server.text

    def test_systemds_own_launcher(self, launch: Launch, tmp_path: Path) -> None:
        launcher = shutil.which("systemd-socket-activate")
        assert launcher is not None, "install what .ci/debian.txt lists: task setup"
        address = str(tmp_path / "activated")
        kept = [f"-E{name}" for name in ("EVENTS", "HOLD", "FRAMEGATE_RUNTIME_DIR")]
        through = (launcher, "-l", address, "--fdname=web", *kept)
        server = launch(APP, "--workers", "2", "--bind", "systemd:web", through=through)
        server.wait_for("Listening on")
        assert server.events("startup") == []  # it is started by the first connection
        assert ask(address) in server.events("startup")
        server.wait_ready()
        assert server.stop() == 0


# ----------------------------------------------------------------------------------------------
# Notification.


class Listening:
    """What systemd is to the service: the socket NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.settimeout(60)

    def next(self) -> dict[str, str]:
        """Wait for a message; those of the watchdog are skipped."""
        while "WATCHDOG" in (found := self.any()):
            pass
        return found

    def any(self) -> dict[str, str]:
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(params=["path", "abstract"])
def service_manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    path = str(tmp_path / "notify")
    listening = Listening(path if request.param == "path" else f"@{path}")
    yield listening
    listening.socket.close()


Start = Callable[..., ServerProcess]


class TestNotification:
    def test_of_one_worker(self, launch: Launch, service_manager: Listening) -> None:
        server = launch(APP, extra={"NOTIFY_SOCKET": service_manager.address})
        ready = service_manager.next()
        assert server.events("startup") == [server.pid]  # not before
        assert ready["READY"] == "1"
        assert ready["MAINPID"] == str(server.pid)
        assert ready["STATUS"] == f"serves {APP} on http://127.0.0.1:{server.port}"
        server.signal(signal.SIGTERM)
        assert service_manager.next()["STOPPING"] == "1"
        assert server.wait() == 0

    def test_of_several_workers(self, launch: Launch, service_manager: Listening) -> None:
        extra = {"NOTIFY_SOCKET": service_manager.address}
        server = launch(APP, "--workers", "2", extra=extra)
        ready = service_manager.next()
        assert len(server.events("startup")) == 2  # not before the last
        assert (ready["READY"], ready["MAINPID"]) == ("1", str(server.pid))
        assert ready["STATUS"].startswith(f"2 of 2 workers serve {APP} on http://")
        os.kill(server.worker_pids[0], signal.SIGKILL)
        assert service_manager.next()["STATUS"].startswith("1 of 2 workers serve")
        assert service_manager.next()["STATUS"].startswith("2 of 2 workers serve")
        server.signal(signal.SIGTERM)
        assert service_manager.next() == {"STOPPING": "1", "STATUS": "stopping 2 workers"}
        assert server.wait() == 0

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_watchdog_is_fed_twice_per_period(
        self, launch: Launch, service_manager: Listening, workers: str
    ) -> None:
        extra = {"NOTIFY_SOCKET": service_manager.address, "WATCHDOG_USEC": "400000"}
        server = launch(APP, "--workers", workers, extra=extra)
        while service_manager.any().get("READY") != "1":
            pass
        start = time.monotonic()
        for _ in range(3):
            assert service_manager.any() == {"WATCHDOG": "1"}
        assert time.monotonic() - start >= 0.3  # and not as fast as it can
        assert server.stop() == 0

    def test_blocked_loop_of_one_worker_starves_the_watchdog(
        self, launch: Launch, service_manager: Listening
    ) -> None:
        extra = {"NOTIFY_SOCKET": service_manager.address, "WATCHDOG_USEC": "100000"}
        server = launch(APP, "--timeout-graceful-shutdown", "0", extra=extra).wait_ready()
        peer = server.request("/block")
        server.wait_event("block")
        service_manager.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(100):
                service_manager.any()
        server.process.kill()
        peer.close()

    def test_failed_start_is_not_ready(self, launch: Launch, service_manager: Listening) -> None:
        extra = {"NOTIFY_SOCKET": service_manager.address}
        server = launch("supervised_apps:failing", "--workers", "2", extra=extra)
        assert "STOPPING" in service_manager.next()
        assert server.wait() == 3

    def test_manager_that_is_gone_is_a_warning(self, launch: Launch, tmp_path: Path) -> None:
        extra = {"NOTIFY_SOCKET": str(tmp_path / "gone")}
        server = launch(APP, "--workers", "2", extra=extra).wait_ready()
        assert server.text.count("systemd cannot be notified over NOTIFY_SOCKET") <= 1
        assert server.stop() == 0
        assert server.text.count("systemd cannot be notified over NOTIFY_SOCKET") == 1

    def test_reload_has_its_time_and_its_end(self, service_manager: Listening) -> None:
        notifier = Notifier({"NOTIFY_SOCKET": service_manager.address})
        notifier.status("too early")  # nothing is sent before the service is ready
        notifier.ready("serves")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading("reloads\ncertificates")
        assert service_manager.next()["STATUS"] == "serves"
        reloading = service_manager.next()
        assert reloading["RELOADING"] == "1"
        assert int(reloading["MONOTONIC_USEC"]) >= before
        assert reloading["STATUS"] == "reloads certificates"
        notifier.ready("serves")
        assert service_manager.next()["READY"] == "1"

    @pytest.mark.parametrize(
        ("environment", "seconds"),
        [
            ({}, None),
            ({"WATCHDOG_USEC": "3000000"}, 1.5),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
        ],
    )
    def test_watchdog_period(self, environment: dict[str, str], seconds: float | None) -> None:
        notifier = Notifier({"NOTIFY_SOCKET": "/run/notify", **environment})
        assert notifier.watchdog_seconds == seconds
        assert Notifier(environment).watchdog_seconds is None  # nobody to tell

    def test_address_of_an_unknown_kind_is_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        Notifier({"NOTIFY_SOCKET": "vsock:2:1234"}).ready("serves")
        assert "neither a path nor an abstract socket" in caplog.text
