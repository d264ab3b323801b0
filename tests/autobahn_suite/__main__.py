"""Run all cases over each transport, and list what did not pass.

    python -m autobahn_suite [GROUP...] [--transport h1] [--transport h1-tls] [--transport h2]
    python -m autobahn_suite [GROUP...] --client

Over HTTP/2 (h2, h2-tls), where a bridge in Python is in between, it is the quick groups unless some
are named. With --client it is `framegate.client` that is judged, in both forms. Exit status 1
when a case failed or did not run. The reports stay in build/autobahn/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import ssl
import sys
import time
from collections import Counter
from contextlib import ExitStack

from conformance.process import FRAMEGATE, FRAMEGATE_TLS, Running, certificate

from .bridge import Bridge
from .players import PLAYERS
from .suite import (
    COMPLETE,
    MISSING,
    QUICK,
    ROOT,
    Finding,
    is_installed,
    run,
    run_clients,
)

REPORTS = ROOT / "build" / "autobahn"
APP = "autobahn_suite.application:app"
SECONDS_MAX = 3600.0
TRANSPORTS = ("h1", "h1-tls", "h2", "h2-tls")
#: The largest groups, in parts: the longest are begun first.
PARTS = {"12": [f"12.{n}.*" for n in range(1, 6)], "13": [f"13.{n}.*" for n in range(1, 8)]}
ORDER = ("12", "13", "9", "6", "5", "7", "1", "2", "3", "4", "10")


def over(transport: str, groups: list[str]) -> list[Finding]:
    """Start a server and run the groups against it."""
    directory = REPORTS / transport
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    template, places = f"{FRAMEGATE} --no-access-log".replace("on --", "off --"), {}
    context = None
    if tls := transport.endswith("-tls"):
        cert, key = certificate(directory)
        template += " " + FRAMEGATE_TLS
        places = {"cert": str(cert), "key": str(key)}
        context = ssl.create_default_context(cafile=str(cert))
    server = Running(template, sys.executable, APP, **places).wait_ready()
    stack = ExitStack()
    try:
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.port}"
        if transport.startswith("h2"):
            bridge = stack.enter_context(Bridge(server.port, context))
            url = f"ws://127.0.0.1:{bridge.port}"
        shares = shares_of(groups)
        return run(url, shares, directory, processes=at_once(), seconds=SECONDS_MAX)
    finally:
        stack.close()
        status = server.stop()
        print(server.text, end="")
        server.close()
        assert status == 0, f"the server ended with {status}"


def shares_of(groups: list[str]) -> list[list[str]]:
    """Share the cases out, the longest first."""
    return [
        [part] for group in ORDER if group in groups for part in PARTS.get(group, [f"{group}.*"])
    ]


def at_once() -> int:
    """How many processes run side by side: most of them wait."""
    return len(os.sched_getaffinity(0)) + 1


def of_client(form: str, groups: list[str]) -> list[Finding]:
    """Run the groups against our client."""
    directory = REPORTS / f"client-{form}"
    shutil.rmtree(directory, ignore_errors=True)
    return run_clients(PLAYERS[form], shares_of(groups), directory, processes=at_once())


def report(transport: str, groups: list[str], findings: list[Finding], seconds: float) -> bool:
    """Say what was found; true when all passed."""
    verdicts = Counter(finding.behavior for finding in findings)
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    print(f"{transport}: {len(findings)} cases in {seconds:.0f} s: {said}")
    for finding in findings:
        if not finding.passed:
            print(f"  FAILED {finding}")
    ran = Counter(finding.case.split(".")[0] for finding in findings)
    for group in groups:
        if ran[group] != COMPLETE[group]:
            print(f"  FAILED group {group}: {ran[group]} of {COMPLETE[group]} cases ran")
    complete = all(ran[group] == COMPLETE[group] for group in groups)
    return complete and all(finding.passed for finding in findings)


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="autobahn_suite", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[[], *COMPLETE], metavar="GROUP")
    parser.add_argument("--transport", action="append", choices=TRANSPORTS)
    parser.add_argument("--client", action="store_true")
    words = parser.parse_args()
    if not is_installed():
        print(MISSING, file=sys.stderr)
        return 2
    passed = True
    if words.client:
        groups = words.groups or list(COMPLETE)
        for form in PLAYERS:
            start = time.monotonic()
            findings = of_client(form, groups)
            passed &= report(f"client, {form}", groups, findings, time.monotonic() - start)
        return not passed
    for transport in words.transport or TRANSPORTS:
        groups = words.groups or list(QUICK if transport.startswith("h2") else COMPLETE)
        start = time.monotonic()
        findings = over(transport, groups)
        passed &= report(transport, groups, findings, time.monotonic() - start)
    return not passed


if __name__ == "__main__":
    raise SystemExit(main())
