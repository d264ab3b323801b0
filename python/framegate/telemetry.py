"""OpenTelemetry's environment variables, as the exporter of the core takes them.

Names, defaults and grammar are those of OpenTelemetry (its specification's "Environment variables"
and "OTLP exporter"), so that whoever knows them knows ours. A value that cannot be understood is an
error and not, as there, a warning: a server that silently reports nothing is found out too late.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final
from urllib.parse import unquote, urlsplit

from framegate.errors import ConfigError

__all__ = ["Target", "Telemetry", "telemetry"]

_SAMPLERS: Final[dict[str, tuple[bool, float | None]]] = {
    "always_on": (False, 1.0),
    "always_off": (False, 0.0),
    "traceidratio": (False, None),
    "parentbased_always_on": (True, 1.0),
    "parentbased_always_off": (True, 0.0),
    "parentbased_traceidratio": (True, None),
}
"""Whether the caller's decision counts, and what part is recorded else (None: by argument)."""

_GRPC_PATHS: Final = {
    "TRACES": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "METRICS": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_HTTP_PATHS: Final = {"TRACES": "v1/traces", "METRICS": "v1/metrics"}


@dataclass(frozen=True, slots=True)
class Target:
    """Where messages of one kind go.

    Attributes:
        is_grpc: gRPC, or else HTTP.
        url: With the path.
        headers: To be sent along.
        timeout: Seconds for one message, with all attempts.
        certificates: PEM of the authorities that are trusted; those of the system if None.
        gzip: Messages are compressed.
    """

    is_grpc: bool
    url: str
    headers: list[tuple[str, str]]
    timeout: float
    certificates: bytes | None
    gzip: bool


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What is exported, and where.

    Attributes:
        resource: Who reports.
        traces: Where spans go, if anywhere.
        metrics: Where metrics go, if anywhere.
        is_parent_based: The caller's decision to record counts.
        ratio: The part of all others that is recorded.
        queue_max: Spans that wait to be exported; more are dropped.
        batch_max: Spans in one message.
        delay: Seconds that a span waits for company.
        metrics_interval: Seconds between two exports of metrics.
        counts_active: Also how many requests are not over.
    """

    resource: list[tuple[str, str]]
    traces: Target | None
    metrics: Target | None
    is_parent_based: bool
    ratio: float
    queue_max: int
    batch_max: int
    delay: float
    metrics_interval: float
    counts_active: bool

    def of_worker(self, number: int | None) -> Telemetry:
        """Return what one worker exports: each is an instance of the service."""
        own = {"service.instance.id": str(uuid.uuid4())}
        if number is not None:
            own["framegate.worker"] = str(number)
        return dataclasses.replace(self, resource=list((own | dict(self.resource)).items()))


def telemetry(
    environment: Mapping[str, str] | None = None, *, counts_active: bool = False
) -> Telemetry | None:
    """Read the environment; that of the process if None.

    Returns:
        What to export; None if that is nothing (`OTEL_SDK_DISABLED`, or both exporters `none`).

    Raises:
        ConfigError: A variable cannot be understood; it is named.
    """
    if environment is None:
        environment = os.environ
    # An empty variable is none.
    values = {key: value.strip() for key, value in environment.items() if value.strip()}
    if values.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    traces, metrics = _target(values, "TRACES"), _target(values, "METRICS")
    if traces is None and metrics is None:
        return None
    is_parent_based, ratio = _sampler(values)
    return Telemetry(
        resource=_resource(values),
        traces=traces,
        metrics=metrics,
        is_parent_based=is_parent_based,
        ratio=ratio,
        queue_max=_number(values, "OTEL_BSP_MAX_QUEUE_SIZE", 2048),
        batch_max=_number(values, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
        delay=_number(values, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000,
        metrics_interval=_number(values, "OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000,
        counts_active=counts_active,
    )


def _number(values: Mapping[str, str], name: str, default: int) -> int:
    text = values.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 2**31:
        raise ConfigError(f"environment ({name}) is {text!r}: expected a number from 1 on")
    return int(text)


def _sampler(values: Mapping[str, str]) -> tuple[bool, float]:
    name = values.get("OTEL_TRACES_SAMPLER", "parentbased_always_on").lower()
    if name not in _SAMPLERS:
        raise ConfigError(
            f"environment (OTEL_TRACES_SAMPLER) is {name!r}: expected one of {', '.join(_SAMPLERS)}"
        )
    is_parent_based, ratio = _SAMPLERS[name]
    if ratio is not None:
        return is_parent_based, ratio
    text = values.get("OTEL_TRACES_SAMPLER_ARG", "1")
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ConfigError(
            f"environment (OTEL_TRACES_SAMPLER_ARG) is {text!r}: expected a number from 0 to 1"
        )
    return is_parent_based, ratio


def _pairs(text: str, name: str) -> list[tuple[str, str]]:
    """Read `key=value,key=value`, with values escaped as in URLs (W3C Baggage)."""
    pairs = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"environment ({name}): {item!r} is not key=value")
        pairs.append((key.strip(), unquote(value.strip())))
    return pairs


def _resource(values: Mapping[str, str]) -> list[tuple[str, str]]:
    attributes = {
        "telemetry.sdk.name": "framegate",
        "telemetry.sdk.language": "rust",
        "telemetry.sdk.version": version("framegate"),
        "service.name": "unknown_service:framegate",
        "host.name": socket.gethostname(),
        "process.pid": str(os.getpid()),
    }
    name = "OTEL_RESOURCE_ATTRIBUTES"
    attributes |= dict(_pairs(values.get(name, ""), name))
    if "OTEL_SERVICE_NAME" in values:
        attributes["service.name"] = values["OTEL_SERVICE_NAME"]
    return list(attributes.items())


def _target(values: Mapping[str, str], signal: str) -> Target | None:
    exporter = values.get(f"OTEL_{signal}_EXPORTER", "otlp").lower()
    if exporter == "none":
        return None
    if exporter != "otlp":
        raise ConfigError(f"environment (OTEL_{signal}_EXPORTER) is {exporter!r}: otlp or none")

    def named(name: str) -> str:
        """The variable that counts: that of the signal, or the general one."""
        special = f"OTEL_EXPORTER_OTLP_{signal}_{name}"
        return special if special in values else f"OTEL_EXPORTER_OTLP_{name}"

    def one_of(name: str, *allowed: str) -> str:
        value = values.get(named(name), allowed[0]).lower()
        if value not in allowed:
            raise ConfigError(
                f"environment ({named(name)}) is {value!r}: expected {' or '.join(allowed)}"
            )
        return value

    for name in ("CLIENT_KEY", "CLIENT_CERTIFICATE"):
        if named(name) in values:
            raise ConfigError(
                f"environment ({named(name)}): certificates of clients are not supported; send to "
                "a collector that needs none, such as one on this machine"
            )
    is_grpc = one_of("PROTOCOL", "http/protobuf", "grpc") == "grpc"
    url_name = named("ENDPOINT")
    headers = named("HEADERS")
    return Target(
        is_grpc=is_grpc,
        url=_url(values, signal, url_name, is_grpc),
        headers=[(key.lower(), value) for key, value in _pairs(values.get(headers, ""), headers)],
        timeout=_number(values, named("TIMEOUT"), 10_000) / 1000,
        certificates=_certificates(values, named("CERTIFICATE")),
        gzip=one_of("COMPRESSION", "none", "gzip") == "gzip",
    )


def _url(values: Mapping[str, str], signal: str, name: str, is_grpc: bool) -> str:
    default = "http://localhost:4317" if is_grpc else "http://localhost:4318"
    url = values.get(name, default)
    if is_grpc and "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        is_good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and "@" not in parts.netloc
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigError(f"environment ({name}) is {url!r}: expected a URL of http or https")
    if is_grpc:
        return f"{parts.scheme}://{parts.netloc}{_GRPC_PATHS[signal]}"
    # The special one is used as it is, the general one is where the paths begin.
    if signal in name:
        return url if parts.path else f"{url}/"
    return f"{url.rstrip('/')}/{_HTTP_PATHS[signal]}"


def _certificates(values: Mapping[str, str], name: str) -> bytes | None:
    path = values.get(name)
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"environment ({name}): {path}: {error.strerror}") from None
