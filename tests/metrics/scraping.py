"""Metrics as Prometheus' own parsers read them."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from server_process import ServerProcess

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PATIENCE_SECONDS = 60.0


@dataclass
class Metrics:
    """One scrape.

    Attributes:
        samples: Values by name and sorted labels.
        types: Of the families.
    """

    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]
    types: dict[str, str]

    def __getitem__(self, name: str) -> float:
        return self.get(name)

    def get(self, name: str, **labels: str) -> float:
        """Return the sum of all samples with these labels; 0 if there are none."""
        return sum(
            value
            for (found, theirs), value in self.samples.items()
            if found == name and labels.items() <= dict(theirs).items()
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels of all samples of a name."""
        return [dict(labels) for found, labels in self.samples if found == name]


def ask(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    """Send one request; return status, header and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return response.status, fields, response.read().decode()
    finally:
        connection.close()


def scrape(port: int, path: str = "/metrics", *, openmetrics: bool = False) -> Metrics:
    """Read and parse all metrics."""
    status, fields, text = ask(port, path, headers={"accept": OPENMETRICS} if openmetrics else {})
    assert status == 200, text
    assert ("openmetrics" in fields["content-type"]) == openmetrics
    families = list((parse_openmetrics if openmetrics else parse_text)(text))
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    assert len(samples) == sum(len(family.samples) for family in families)
    return Metrics(samples, {family.name: family.type for family in families})


def admin_port(server: ServerProcess) -> int:
    return int(server.wait_for(r"admin: http://127\.0\.0\.1:(\d+)")[1])


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds that can only be asked for."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError(f"it never came that {what}")
