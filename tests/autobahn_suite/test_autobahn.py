"""A quick set of Autobahn's cases, over HTTP/1.1 and, in TLS, over HTTP/2; and of our client.

`task test:conformance` runs all of them.
"""

from __future__ import annotations

import ssl
from contextlib import nullcontext
from pathlib import Path

import pytest

from autobahn_suite.bridge import Bridge
from autobahn_suite.players import PLAYERS
from autobahn_suite.suite import COMPLETE, MISSING, QUICK, is_installed, run, run_clients
from conformance.process import certificate
from server_process import Launch

APP = "autobahn_suite.application:app"

#: The quick groups, shared out so that the waits of one process overlap with others' work.
SHARES = (
    ["5.*"],
    ["6.1.*", "6.2.*", "6.3.*", "6.4.*"],
    [f"6.{n}.*" for n in range(5, 24)],
    ["1.*", "2.*", "3.*", "4.*", "7.*", "10.*"],
)


@pytest.mark.skipif(not is_installed(), reason=MISSING)
@pytest.mark.parametrize("transport", ["h1", "h2-tls"])
def test_quick_set(launch: Launch, tmp_path: Path, transport: str) -> None:
    words, context = ["--no-access-log", "--lifespan", "off"], None
    if transport == "h2-tls":
        cert, key = certificate(tmp_path)
        words += ["--ssl-certfile", str(cert), "--ssl-keyfile", str(key)]
        context = ssl.create_default_context(cafile=str(cert))
    server = launch(APP, *words).wait_ready()
    with Bridge(server.port, context) if context else nullcontext(server) as near:
        url = f"ws://127.0.0.1:{near.port}"
        findings = run(url, SHARES, tmp_path / "autobahn", processes=len(SHARES), seconds=100)
    assert [str(finding) for finding in findings if not finding.passed] == []
    assert len(findings) == sum(COMPLETE[group] for group in QUICK)
    assert server.stop() == 0


@pytest.mark.skipif(not is_installed(), reason=MISSING)
@pytest.mark.parametrize("form", PLAYERS)
def test_quick_set_of_the_client(tmp_path: Path, form: str) -> None:
    findings = run_clients(PLAYERS[form], SHARES, tmp_path / "autobahn", processes=len(SHARES))
    assert [str(finding) for finding in findings if not finding.passed] == []
    assert len(findings) == sum(COMPLETE[group] for group in QUICK)
