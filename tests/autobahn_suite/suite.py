"""Autobahn's fuzzing client: started, and its findings judged.

A run is many processes of the client, each with its share of the cases: most of them wait
(for a peer that should stay silent), so side by side they take a fraction of the time.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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

#: "Informational" marks cases without a right answer (7.1.6, 7.13.*); the rest is a failure, but:
PASSED = ("OK", "INFORMATIONAL")

#: Cases of which a verdict of NON-STRICT is accepted, each with the reason.
NON_STRICT: dict[str, str] = {}


@dataclass(frozen=True)
class Finding:
    """What the client says about one case."""

    case: str
    behavior: str
    closing: str
    seconds: float

    @property
    def passed(self) -> bool:
        """No failure, and strict unless there is a reason not to be."""
        behavior = "OK" if self.is_excused else self.behavior
        return behavior in PASSED and self.closing in PASSED

    @property
    def is_excused(self) -> bool:
        """Not strict, for a reason."""
        return self.behavior == "NON-STRICT" and self.case in NON_STRICT

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
    index = reports / "index.json"
    assert index.exists(), (directory / "log").read_text()
    for case, found in json.loads(index.read_text())[AGENT].items():
        yield Finding(case, found["behavior"], found["behaviorClose"], found["duration"] / 1000)
