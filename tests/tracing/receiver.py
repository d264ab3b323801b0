"""A collector of OpenTelemetry: the services of `opentelemetry-proto`, over HTTP and gRPC."""

from __future__ import annotations

import gzip
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

PATIENCE_SECONDS = 60.0


def plain(pairs: Any) -> dict[str, Any]:
    """Attributes as a dictionary."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


@dataclass
class Received:
    """One span.

    Attributes:
        span: As it was sent.
        attributes: Its own.
        resource: Whose it is.
        scope: Name of the library that made it.
    """

    span: Any
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str


@dataclass
class Receiver:
    """What has come, and what is answered.

    Attributes:
        endpoint: For `OTEL_EXPORTER_OTLP_ENDPOINT`.
        protocol: For `OTEL_EXPORTER_OTLP_PROTOCOL`.
        answers: Taken one after the other; when there is none, all is well. A status with fields
            and a body (HTTP), or a code of gRPC with trailing metadata.
        requests: Metadata of each message, and when it came.
    """

    endpoint: str
    protocol: str
    answers: deque[Any] = field(default_factory=deque)
    requests: list[dict[str, str]] = field(default_factory=list)
    spans: list[Received] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    on_message: Callable[[], None] = lambda: None

    def environment(self, **more: str) -> dict[str, str]:
        """Variables of a server that reports here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_SERVICE_NAME": "tested",
            **more,
        }

    def came(self, metadata: dict[str, str], message: Any) -> Any:
        """Keep a message and return what is to be answered; None for the usual."""
        self.on_message()
        with self.changed:
            self.requests.append(metadata)
            answer = self.answers.popleft() if self.answers else None
            if answer is None:
                self._keep(message)
            self.changed.notify_all()
        return answer

    def _keep(self, message: Any) -> None:
        for group in getattr(message, "resource_spans", ()):
            resource = plain(group.resource.attributes)
            for scoped in group.scope_spans:
                self.spans += [
                    Received(span, plain(span.attributes), resource, scoped.scope.name)
                    for span in scoped.spans
                ]
        if hasattr(message, "resource_metrics"):
            self.metrics.append(message)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=PATIENCE_SECONDS), f"never: {what}"

    def wait_spans(self, count: int) -> list[Received]:
        """Wait for so many spans, and return all."""
        self.wait(lambda: len(self.spans) >= count, f"{count} spans")
        return self.spans

    def points(self, name: str) -> list[tuple[dict[str, Any], Any, dict[str, Any]]]:
        """The newest points of a metric of each instance: attributes, point and resource."""
        newest: dict[str, list[Any]] = {}
        for message in self.metrics:
            for group in message.resource_metrics:
                resource = plain(group.resource.attributes)
                newest[resource["service.instance.id"]] = [
                    (plain(point.attributes), point, resource)
                    for scoped in group.scope_metrics
                    for metric in scoped.metrics
                    if metric.name == name
                    for point in getattr(metric, metric.WhichOneof("data")).data_points
                ]
        return [point for points in newest.values() for point in points]


@contextmanager
def http_receiver() -> Iterator[Receiver]:
    """A collector that speaks HTTP/1.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            assert self.headers["content-type"] == "application/x-protobuf"
            kinds: dict[str, tuple[Any, Any]] = {
                "/v1/traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
                "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
            }
            request, response = kinds[self.path]
            metadata = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.came({**metadata, ":path": self.path}, request.FromString(body))
            if isinstance(answer, bytes):  # anything, as it is
                self.wfile.write(answer)
                self.close_connection = True
                return
            status, fields, content = answer or (200, {}, response().SerializeToString())
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **fields}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}", "http/protobuf")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grpc_receiver(credentials: grpc.ServerCredentials | None = None) -> Iterator[Receiver]:
    """A collector that speaks gRPC."""

    def export(request: Any, context: grpc.ServicerContext, response: Any) -> Any:
        metadata = {item.key: item.value for item in context.invocation_metadata()}
        answer = receiver.came(metadata, request)
        if answer is not None:
            code, trailing = answer
            context.set_trailing_metadata(trailing)
            context.abort(code, "not now")
        return response()

    class Traces(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            return export(request, context, ExportTraceServiceResponse)

    class Metrics(MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            return export(request, context, ExportMetricsServiceResponse)

    server = grpc.server(ThreadPoolExecutor(4))
    add_TraceServiceServicer_to_server(Traces(), server)
    add_MetricsServiceServicer_to_server(Metrics(), server)
    if credentials is None:
        receiver = Receiver(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", "grpc")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
        receiver = Receiver(f"https://localhost:{port}", "grpc")
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()
