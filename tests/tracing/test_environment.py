"""OpenTelemetry's variables: names, defaults and grammar are its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from framegate.errors import ConfigError
from framegate.telemetry import Telemetry, telemetry


def read(**values: str) -> Telemetry:
    found = telemetry({"PATH": "/bin", **values})
    assert found is not None
    return found


def test_defaults() -> None:
    found = read()
    assert found.traces is not None
    assert found.metrics is not None
    assert found.traces.url == "http://localhost:4318/v1/traces"
    assert found.metrics.url == "http://localhost:4318/v1/metrics"
    assert (found.traces.is_grpc, found.traces.gzip, found.traces.timeout) == (False, False, 10)
    assert (found.is_parent_based, found.ratio) == (True, 1.0)
    assert (found.queue_max, found.batch_max, found.delay) == (2048, 512, 5)
    assert found.metrics_interval == 60
    assert dict(found.resource)["service.name"] == "unknown_service:framegate"
    one, two = (dict(found.of_worker(number).resource) for number in (1, 2))
    assert one["service.instance.id"] != two["service.instance.id"]
    assert (one["framegate.worker"], two["framegate.worker"]) == ("1", "2")


@pytest.mark.parametrize(
    ("name", "value", "traces", "metrics"),
    [
        ("ENDPOINT", "http://c:1", "http://c:1/v1/traces", "http://c:1/v1/metrics"),
        ("ENDPOINT", "https://c/in/", "https://c/in/v1/traces", "https://c/in/v1/metrics"),
        ("TRACES_ENDPOINT", "http://c:1", "http://c:1/", "http://localhost:4318/v1/metrics"),
        ("TRACES_ENDPOINT", "http://c/x", "http://c/x", "http://localhost:4318/v1/metrics"),
        (
            "METRICS_ENDPOINT",
            "http://[::1]:2/y",
            "http://localhost:4318/v1/traces",
            "http://[::1]:2/y",
        ),
    ],
)
def test_endpoints_of_http(name: str, value: str, traces: str, metrics: str) -> None:
    found = read(**{f"OTEL_EXPORTER_OTLP_{name}": value})
    assert found.traces is not None
    assert found.metrics is not None
    assert (found.traces.url, found.metrics.url) == (traces, metrics)


def test_endpoints_of_grpc() -> None:
    found = read(OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_ENDPOINT="c:4317/ignored")
    assert found.traces is not None
    assert found.metrics is not None
    service = "opentelemetry.proto.collector"
    assert found.traces.url == f"http://c:4317/{service}.trace.v1.TraceService/Export"
    assert found.metrics.url == f"http://c:4317/{service}.metrics.v1.MetricsService/Export"
    mixed = read(OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="grpc")
    assert mixed.metrics is not None
    assert mixed.metrics.is_grpc
    assert mixed.traces is not None
    assert not mixed.traces.is_grpc


def test_what_is_nothing() -> None:
    assert telemetry({"OTEL_SDK_DISABLED": "True"}) is None
    assert telemetry({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}) is None
    assert read(OTEL_TRACES_EXPORTER="none").traces is None
    assert read(OTEL_METRICS_EXPORTER="none").metrics is None
    # Empty is unset.
    assert read(OTEL_SDK_DISABLED="", OTEL_TRACES_SAMPLER=" ").ratio == 1.0


def test_own_variables_win() -> None:
    found = read(
        OTEL_EXPORTER_OTLP_HEADERS="a=1,b=x%2Cy",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="Authorization=Bearer%20z",
        OTEL_EXPORTER_OTLP_TIMEOUT="5000",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="250",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_TRACES_COMPRESSION="none",
    )
    assert found.traces is not None
    assert found.metrics is not None
    assert found.traces.headers == [("authorization", "Bearer z")]
    assert found.metrics.headers == [("a", "1"), ("b", "x,y")]
    assert (found.traces.timeout, found.metrics.timeout) == (0.25, 5)
    assert (found.traces.gzip, found.metrics.gzip) == (False, True)


def test_resource() -> None:
    found = read(
        OTEL_RESOURCE_ATTRIBUTES="service.name=a,service.instance.id=mine,x=%20y",
        OTEL_SERVICE_NAME="b",
    )
    told = dict(found.of_worker(None).resource)
    assert (told["service.name"], told["service.instance.id"], told["x"]) == ("b", "mine", " y")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@a"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1s"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "nothing"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1.5"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=1"),
    ],
)
def test_what_cannot_be_understood_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        telemetry({name: value})


@pytest.mark.parametrize("argument", ["2", "-0.1", "half", "nan"])
def test_ratio_is_one(argument: str) -> None:
    with pytest.raises(ConfigError, match="OTEL_TRACES_SAMPLER_ARG"):
        telemetry({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": argument})


def test_certificates_are_read(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(b"pem")
    found = read(OTEL_EXPORTER_OTLP_CERTIFICATE=str(file))
    assert found.traces is not None
    assert found.traces.certificates == b"pem"
