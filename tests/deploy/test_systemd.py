"""deploy/systemd: under a real systemd where one can be started, verified everywhere."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.machine import UNITS, CannotStartError, Machine
from framegate.config import Config
from framegate.worker import stop_seconds
from privileges import needs_root

SOCKET = "/run/app/http.sock"


def directives(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if re.match(r"\w+=", line)]
    return dict(line.split("=", 1) for line in lines)


class TestVerified:
    def test_systemd_knows_every_line(self, tmp_path: Path) -> None:
        for name in ("app.service", "app.socket"):
            text = (UNITS / name).read_text()
            # The application is not there.
            text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text)
            (tmp_path / name).write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "./app.service", "./app.socket"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        complaints = [line for line in done.stderr.splitlines() if "app." in line]
        assert done.returncode == 0 and not complaints, done.stderr

    def test_exposure_is_low(self) -> None:
        done = subprocess.run(
            [
                *("systemd-analyze", "security", "--offline=true", "--threshold=25"),
                str(UNITS / "app.service"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_systemd_waits_longer_than_the_server_takes(self) -> None:
        unit, config = directives(UNITS / "app.service"), Config()
        assert int(unit["TimeoutStopSec"]) > stop_seconds(config)
        assert int(unit["TimeoutStartSec"]) > config.timeout_startup
        assert "RemoveIPC" not in unit and "DynamicUser" not in unit


class OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket of the machine."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def ask(machine: Machine, path: str = "/") -> dict[str, Any]:
    peer = OverSocket(machine.path(SOCKET))
    try:
        peer.request("GET", path, headers={"connection": "close"})
        response = peer.getresponse()
        assert response.status == 200
        return dict(json.loads(response.read()))
    finally:
        peer.close()


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        machine.start()
    except CannotStartError as error:
        machine.stop()
        pytest.skip(f"no systemd can be started here, the units are only verified: {error}")
    yield machine
    machine.stop()


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    booted.reset()
    yield booted
    print(booted.log)  # shown when the test fails


@needs_root
class TestRealSystemd:
    def test_started_means_that_it_accepts_and_may_do_little(self, machine: Machine) -> None:
        machine.systemctl("start", "app.service")
        about = machine.get("/about")
        main = machine.shown("MainPID")
        assert re.fullmatch(
            r"\d+ of \d+ workers serve main:app on http://127\.0\.0\.1:8000",
            machine.shown("StatusText"),
        )
        assert (about["uid"], about["parent"]) == (64999, int(main))
        assert about["no_new_privileges"] == "1"
        assert int(about["capabilities"], 16) == 0
        assert about["filter"] == "2"
        assert about["writable"] == ["/dev/shm", "/tmp"]
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # beyond it this systemd cannot go
        assert about["files"] == (min(hard, 1048576) if hard > 0 else 1048576)
        assert about["topic"] == "abcd"  # shared memory works in there
        machine.systemctl("stop", "app.service")
        assert machine.shown("Result") == "success"
        assert machine.shown("ExecMainStatus") == "0"

    def test_topics_stay_when_it_stops(self, machine: Machine) -> None:
        machine.systemctl("start", "app.service")
        mark = machine.path("/dev/shm/kept")
        mark.touch()
        os.chown(mark, 64999, 64999)
        machine.systemctl("stop", "app.service")
        assert mark.exists()

    def test_reload_replaces_the_workers(self, machine: Machine) -> None:
        machine.systemctl("start", "app.service")
        main, before = machine.shown("MainPID"), machine.get()["pid"]
        machine.systemctl("reload", "app.service")
        machine.until(lambda: "reloaded: " in machine.log)
        machine.until(lambda: machine.shown("ActiveState") == "active")
        assert machine.get()["pid"] != before
        assert machine.shown("MainPID") == main
        machine.systemctl("stop", "app.service")

    def test_first_connection_starts_it_and_restarts_refuse_nobody(self, machine: Machine) -> None:
        machine.systemctl("start", "app.socket")
        assert machine.shown("ActiveState") == "inactive"
        status = machine.path(SOCKET).stat()
        assert (status.st_mode & 0o777, status.st_uid) == (0o660, 64999)
        first = ask(machine)
        machine.until(lambda: machine.shown("ActiveState") == "active")
        done = threading.Event()
        answers, errors = [], []

        def go_on() -> None:
            while not done.is_set():
                try:
                    answers.append(ask(machine)["parent"])
                except Exception as error:  # whatever it is, nobody may see it
                    errors.append(repr(error))

        client = threading.Thread(target=go_on)
        client.start()
        machine.systemctl("restart", "app.service")
        seen = len(answers)
        machine.until(lambda: len(answers) > seen + 3 or errors)
        done.set()
        client.join()
        assert errors == []
        assert answers[-1] == int(machine.shown("MainPID")) != first["parent"]
        machine.systemctl("stop", "app.socket", "app.service")

    def test_killed_supervisor_is_started_again_and_leaves_nothing(self, machine: Machine) -> None:
        machine.systemctl("start", "app.service")
        main = machine.shown("MainPID")
        machine.run("kill", "-KILL", main)
        machine.until(lambda: machine.shown("MainPID") not in (main, "0"))
        machine.until(lambda: machine.shown("ActiveState") == "active")
        assert machine.shown("NRestarts") == "1"
        assert machine.get()["parent"] == int(machine.shown("MainPID"))
        machine.systemctl("stop", "app.service")
        group = machine.path("/sys/fs/cgroup/system.slice/app.service")
        assert not group.exists()  # nobody is left

    def test_stop_lets_requests_finish(self, machine: Machine) -> None:
        machine.systemctl("start", "app.socket")
        ask(machine)
        machine.until(lambda: machine.shown("ActiveState") == "active")
        answers: list[dict[str, Any]] = []
        client = threading.Thread(target=lambda: answers.append(ask(machine, "/slow")))
        client.start()
        machine.until(machine.path("/dev/shm/begun").exists)
        machine.systemctl("stop", "app.socket", "app.service")
        client.join(60)
        assert len(answers) == 1
        assert machine.shown("Result") == "success"

    def test_watchdog_ends_one_that_stands_still(self, machine: Machine) -> None:
        machine.edit("WatchdogSec=1", "TimeoutStopSec=5")
        machine.systemctl("start", "app.service")
        main = machine.shown("MainPID")
        machine.run("kill", f"-{signal.SIGSTOP.value}", main)
        machine.until(lambda: machine.shown("MainPID") not in (main, "0"))
        machine.until(lambda: machine.shown("ActiveState") == "active")
        assert machine.shown("NRestarts") == "1"
        assert machine.get()["parent"] != int(main)
        machine.systemctl("stop", "app.service")

    def test_bad_option_is_not_tried_again(self, machine: Machine) -> None:
        machine.edit("ExecStart=", "ExecStart=/srv/app/.venv/bin/platform serve --prot 1")
        machine.systemctl("start", "app.service", check=False)
        assert machine.shown("ExecMainStatus") == "2"
        assert machine.shown("ActiveState") == "failed"
        assert machine.shown("NRestarts") == "0"
        assert "unknown option --prot; did you mean --port?" in machine.log
