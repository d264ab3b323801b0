"""Autobahn's fuzzing client and server: started, and their findings judged.

A run is many processes of it, each with its share of the cases: most of them wait
(for a peer that should stay silent), so side by side they take a fraction of the time.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from conformance.process import free_port

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "tools" / "autobahn"
MISSING = (
    f"the Autobahn test suite is not in {HOME.relative_to(ROOT)}: run `task setup`, "
    "which needs Python 2.7 for it (pyenv install 2.7.18)"
)
AGENT = "framegate"

#: Cases by group: what a complete run consists of.
COMPLETE = {
    "1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1,
    "12": 90, "13": 126,
}  # fmt: skip

#: Groups that take seconds: those of every run of the tests.
QUICK = ("1", "2", "3", "4", "5", "6", "7", "10")

#: "Informational" marks cases without a right answer (7.1.6, 7.13.*); the rest is a failure,
#: NON-STRICT too.
PASSED = ("OK", "INFORMATIONAL")


@dataclass(frozen=True)
class Finding:
    """What the client says about one case."""

    case: str
    behavior: str
    closing: str
    seconds: float

    @property
    def passed(self) -> bool:
        """No failure, and strict."""
        return self.behavior in PASSED and self.closing in PASSED

    def __str__(self) -> str:
        return f"{self.case}: {self.behavior}, closing {self.closing}"


def is_installed() -> bool:
    """Can the suite be run here?"""
    return (HOME / "installed.txt").exists()


def run(
    url: str, shares: Sequence[Sequence[str]], directory: Path, *, processes: int, seconds: float
) -> list[Finding]:
    """Run the shares, each a list of cases or patterns (`7.*`), so many at once."""

    def one(numbered: tuple[int, Sequence[str]]) -> list[Finding]:
        number, cases = numbered
        return list(run_share(url, cases, directory / str(number), seconds))

    with ThreadPoolExecutor(processes) as pool:
        found = [finding for share in pool.map(one, enumerate(shares)) for finding in share]
    return sorted(found, key=lambda finding: [int(part) for part in finding.case.split(".")])


def run_share(url: str, cases: Sequence[str], directory: Path, seconds: float) -> Iterator[Finding]:
    """Run one process of the client to its end."""
    reports = directory / "reports"
    reports.mkdir(parents=True)
    spec = directory / "spec.json"
    server = {"agent": AGENT, "url": url, "options": {"version": 18}}
    everything = {"cases": list(cases), "exclude-cases": [], "exclude-agent-cases": {}}
    spec.write_text(json.dumps({"outdir": str(reports), "servers": [server]} | everything))
    # By its interpreter: the first line of a script holds for the place where it was installed.
    command = [HOME / "bin" / "python", HOME / "bin" / "wstest", "-m", "fuzzingclient", "-s", spec]
    with (directory / "log").open("wb") as log:
        subprocess.run(
            command, cwd=directory, stdout=log, stderr=log, timeout=seconds, check=True,
            env={"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    yield from read_findings(reports, directory / "log")


def run_clients(
    play: Callable[[str], None], shares: Sequence[Sequence[str]], directory: Path, *, processes: int
) -> list[Finding]:
    """Run the shares, so many at once: `play(url)` talks to a fuzzing server as its client."""

    def one(numbered: tuple[int, Sequence[str]]) -> list[Finding]:
        number, cases = numbered
        return list(run_client_share(play, cases, directory / str(number)))

    with ThreadPoolExecutor(processes) as pool:
        found = [finding for share in pool.map(one, enumerate(shares)) for finding in share]
    return sorted(found, key=lambda finding: [int(part) for part in finding.case.split(".")])


def run_client_share(
    play: Callable[[str], None], cases: Sequence[str], directory: Path
) -> Iterator[Finding]:
    """Run one process of the server, and a client against it."""
    reports = directory / "reports"
    reports.mkdir(parents=True)
    spec = directory / "spec.json"
    port = free_port()  # it takes a number only
    everything = {"cases": list(cases), "exclude-cases": [], "exclude-agent-cases": {}}
    place = {"url": f"ws://127.0.0.1:{port}", "outdir": str(reports)}
    spec.write_text(json.dumps(place | {"options": {"failByDrop": False}} | everything))
    wstest = [HOME / "bin" / "python", HOME / "bin" / "wstest"]
    # Without its web server, which would have one port for all.
    command = [*wstest, "-m", "fuzzingserver", "-s", spec, "--webport", "0"]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=directory, stdout=log, stderr=log, env={"PYTHONWARNINGS": "ignore"}
        )
        try:
            wait_until_it_listens(port, server)
            play(f"ws://127.0.0.1:{port}")
        finally:
            server.terminate()
            server.wait(30)
    yield from read_findings(reports, directory / "log")


def wait_until_it_listens(port: int, server: subprocess.Popen[bytes]) -> None:
    """It does not say when it does."""
    while True:
        assert server.poll() is None, "the fuzzing server ended"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)


def read_findings(reports: Path, log: Path) -> Iterator[Finding]:
    """Read what it has judged."""
    index = reports / "index.json"
    assert index.exists(), log.read_text()
    for case, found in json.loads(index.read_text())[AGENT].items():
        seconds = found["duration"] / 1000
        yield Finding(case, found["behavior"], found["behaviorClose"], seconds)
