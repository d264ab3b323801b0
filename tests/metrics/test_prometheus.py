"""A real Prometheus scrapes a server of two workers: nothing fails, and its sums are ours."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from metrics.scraping import admin_port, eventually
from server_process import Launch

# Others for a proof by hand. A scrape may take as long as the interval: a short one would fail
# for want of CPU.
SECONDS = float(os.environ.get("PROMETHEUS_SECONDS", "3"))
INTERVAL = os.environ.get("PROMETHEUS_INTERVAL", "2s")

CONFIGURATION = f"""
global: {{scrape_interval: {INTERVAL}, scrape_timeout: {INTERVAL}}}
scrape_configs:
  - job_name: app
    static_configs: [{{targets: ["127.0.0.1:PORT"]}}]
"""


class Prometheus:
    """Asks a running one."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, expression: str) -> float | None:
        """Return the value of an expression, if it has one."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request("GET", "/api/v1/query?" + urlencode({"query": expression}))
            answer: Any = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        result = answer["data"]["result"]
        return float(result[0]["value"][1]) if result else None


@contextmanager
def prometheus(directory: Path, port: int) -> Iterator[Prometheus]:
    binary = shutil.which("prometheus")
    assert binary, "it is in .ci/debian.txt: run `task setup`"
    file = directory / "prometheus.yml"
    file.write_text(CONFIGURATION.replace("PORT", str(port)))
    words = ["--web.listen-address=127.0.0.1:0", f"--storage.tsdb.path={directory / 'data'}"]
    process = subprocess.Popen(
        [binary, f"--config.file={file}", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        address = None
        for line in process.stderr:
            if 'msg="Listening on"' in line:
                address = line.split("address=")[1].split()[0]
            if "Server is ready" in line:
                break
        assert address
        yield Prometheus(address)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_no_scrape_fails_and_counts_are_right(launch: Launch, tmp_path: Path) -> None:
    server = launch(
        "supervised_apps:app",
        *("--port", "0", "--workers", "2", "--admin-bind", "0", "--no-access-log"),
    ).wait_ready()
    directory = tmp_path / "prometheus"
    directory.mkdir()
    with prometheus(directory, admin_port(server)) as asked:
        eventually(lambda: asked.query("up") == 1, "it scrapes")
        sent = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            server.get("/pid")
            sent += 1
        total = 'sum(http_requests_total{method="GET",status="200"})'
        eventually(lambda: asked.query(total) == sent, f"{sent} requests are known")
        scrapes = asked.query("count_over_time(up[1h])")
        assert scrapes and scrapes >= 2
        assert asked.query("sum_over_time(up[1h])") == scrapes
        assert asked.query("sum(http_request_duration_seconds_count)") == sent
        print(f"{sent} requests, {scrapes:.0f} scrapes")
        slowest = asked.query("max_over_time(scrape_duration_seconds[1h])")
        print(f"slowest scrape {slowest} s")
        quantile = "histogram_quantile(0.5, sum by (le) (http_request_duration_seconds_bucket))"
        median = asked.query(quantile)
        assert median is not None and 0 < median <= 10
