"""A quick set of Autobahn's cases; `task test:conformance` runs all of them, over TLS as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from autobahn_suite.suite import COMPLETE, MISSING, is_installed, run
from server_process import Launch

APP = "autobahn_suite.application:app"

#: Groups that run wholly, shared out so that the waits of one process overlap with others' work.
SHARES = (
    ["5.*"],
    ["6.1.*", "6.2.*", "6.3.*", "6.4.*"],
    [f"6.{n}.*" for n in range(5, 24)],
    ["1.*", "2.*", "3.*", "4.*", "7.*", "10.*"],
)
WHOLE_GROUPS = ("1", "2", "3", "4", "5", "6", "7", "10")


@pytest.mark.skipif(not is_installed(), reason=MISSING)
def test_quick_set(launch: Launch, tmp_path: Path) -> None:
    server = launch(APP, "--no-access-log", "--lifespan", "off").wait_ready()
    url = f"ws://127.0.0.1:{server.port}"
    findings = run(url, SHARES, tmp_path / "autobahn", processes=len(SHARES), seconds=100)
    assert [str(finding) for finding in findings if not finding.passed] == []
    assert len(findings) == sum(COMPLETE[group] for group in WHOLE_GROUPS)
    assert server.stop() == 0
