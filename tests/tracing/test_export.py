"""Export by OTLP: to a collector that takes it, to one that does not, and to none at all."""

from __future__ import annotations

import logging
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from conformance.process import free_port
from metrics.scraping import eventually, scrape
from server_process import Launch
from tls.authority import Authority
from tracing.receiver import Receiver, grpc_receiver, http_receiver
from tracing.test_spans import hello, serving

SOON = "300"


def counters(url: str) -> tuple[float, float]:
    """Spans that were taken, and that were lost."""
    metrics = scrape(int(url.rpartition(":")[2]))
    return (
        metrics["framegate_spans_exported_total"],
        metrics["framegate_spans_dropped_total"],
    )


def test_what_is_sent_along(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    environment = receiver.environment(
        OTEL_EXPORTER_OTLP_HEADERS="x-key=a%20secret, x-other=1",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.name=ignored",
    )
    with serving(hello, monkeypatch, environment) as url:
        for _ in range(50):
            httpx.get(url)
    assert len(receiver.spans) == 50
    assert {received.scope for received in receiver.spans} == {"framegate"}
    resource = receiver.spans[0].resource
    assert resource["deployment.environment.name"] == "test"
    assert resource["service.name"] == "tested"
    assert resource["telemetry.sdk.language"] == "rust"
    assert resource["service.instance.id"]
    ids = {received.span.span_id for received in receiver.spans}
    assert len(ids) == 50
    for request in receiver.requests:
        assert (request["x-key"], request["x-other"]) == ("a secret", "1")
        assert request["user-agent"].startswith("framegate-otlp/")


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    sizes: list[int] = []
    environment = receiver.environment(
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="7", OTEL_METRICS_EXPORTER="none"
    )
    receiver.on_message = lambda: sizes.append(len(receiver.spans))
    with serving(hello, monkeypatch, environment) as url, httpx.Client() as client:
        for _ in range(30):
            client.get(url)
    assert len(receiver.spans) == 30
    batches = [late - early for early, late in zip(sizes, [*sizes[1:], 30], strict=True)]
    assert max(batches) <= 7


BUSY: dict[str, list[Any]] = {
    "http/protobuf": [
        (503, {"retry-after": "0"}, b""),
        (429, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, b""),
    ],
    # RESOURCE_EXHAUSTED with a RetryInfo of 0 s, and UNAVAILABLE.
    "grpc": [
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            [
                (
                    "grpc-status-details-bin",
                    b"\x08\x08\x1a\x2c\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x00",
                )
            ],
        ),
        (grpc.StatusCode.UNAVAILABLE, []),
    ],
}


def test_busy_collector_is_asked_again(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    receiver.answers.extend(BUSY[receiver.protocol])
    environment = receiver.environment(OTEL_METRICS_EXPORTER="none")
    with serving(hello, monkeypatch, environment, metrics_path="/metrics") as url:
        httpx.get(url)
        receiver.wait_spans(1)
        assert len(receiver.requests) == 3
        eventually(lambda: counters(url)[0] >= 1, "the span was counted")
        assert counters(url)[1] == 0


LASTING: dict[str, list[Any]] = {
    "http/protobuf": [
        (400, {}, b"\x12\x06no way"),
        b"HTTP/1.1 999999 ?\r\n\r\n",
    ],
    "grpc": [(grpc.StatusCode.INVALID_ARGUMENT, []), (grpc.StatusCode.RESOURCE_EXHAUSTED, [])],
}


@pytest.mark.parametrize("number", [0, 1])
def test_what_a_collector_refuses_is_lost_and_counted(
    monkeypatch: pytest.MonkeyPatch,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    answer = LASTING[receiver.protocol][number]
    # What is no answer might be one next time.
    receiver.answers.extend([answer] * (20 if isinstance(answer, bytes) else 1))
    environment = receiver.environment(
        OTEL_METRICS_EXPORTER="none", OTEL_EXPORTER_OTLP_TIMEOUT="1500"
    )
    caplog.set_level(logging.WARNING, logger="framegate")
    with serving(hello, monkeypatch, environment, metrics_path="/metrics") as url:
        httpx.get(url)
        eventually(lambda: counters(url)[1] >= 1, "the span was lost")
        # A scrape is a request, too.
        told = re.compile(r"telemetry: \d+ spans are lost: ")
        eventually(lambda: told.search(caplog.text) is not None, "a complaint")
        receiver.answers.clear()
        httpx.get(url)
        receiver.wait_spans(1)


def test_part_that_a_collector_rejects_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="framegate")
    with http_receiver() as receiver:
        part = ExportTraceServiceResponse()
        part.partial_success.rejected_spans = 2
        part.partial_success.error_message = "too\nold"
        receiver.answers.append((200, {}, part.SerializeToString()))
        environment = receiver.environment(
            OTEL_METRICS_EXPORTER="none", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="3"
        )
        environment["OTEL_BSP_SCHEDULE_DELAY"] = "60000"
        with serving(hello, monkeypatch, environment, metrics_path="/metrics") as url:
            for _ in range(3):
                httpx.get(url)
            eventually(lambda: counters(url)[1] == 2, "the rejected ones were counted")
            assert counters(url)[0] >= 1
            eventually(lambda: "the collector rejected some: too\\nold" in caplog.text, "told")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_collector_costs_spans_and_no_request(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    with serving(hello, monkeypatch, environment, metrics_path="/metrics") as url:
        for _ in range(20):
            assert httpx.get(url).text == "hello"
        eventually(lambda: counters(url)[1] >= 20, "they were counted")


def test_collector_that_stands_still_costs_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """The queue is bounded; a message has its time; requests wait for neither."""
    go_on = threading.Event()
    receiver.on_message = lambda: go_on.wait(60) and None
    environment = receiver.environment(
        OTEL_METRICS_EXPORTER="none",
        OTEL_BSP_MAX_QUEUE_SIZE="4",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2",
        OTEL_EXPORTER_OTLP_TIMEOUT=SOON,
    )
    with serving(hello, monkeypatch, environment, metrics_path="/metrics") as url:
        with httpx.Client() as client:
            for _ in range(40):
                assert client.get(url).text == "hello"
        eventually(lambda: counters(url)[1] >= 10, "what did not fit was counted")
        go_on.set()
        httpx.get(url)
        eventually(lambda: counters(url)[0] >= 1, "the next ones arrived")


def test_metrics_by_the_conventions(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    environment = receiver.environment(OTEL_TRACES_EXPORTER="none")
    with serving(hello, monkeypatch, environment, otel_active_requests=True) as url:
        for _ in range(3):
            httpx.get(url)
        httpx.request("BREW", url)
        connection = url.removeprefix("http://").split(":")
        with socket.create_connection((connection[0], int(connection[1]))) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b" 400 " in peer.recv(1000)
    points = receiver.points("http.server.request.duration")
    told = {
        (item["http.request.method"], item["http.response.status_code"]): (item, point)
        for item, point, _ in points
    }
    assert set(told) == {("GET", 200), ("_OTHER", 200), ("GET", 400)}
    item, point = told["GET", 200]
    assert item == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.response.status_code": 200,
    }
    assert list(point.explicit_bounds) == [
        *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    ]
    assert len(point.bucket_counts) == 15
    assert (point.count, sum(point.bucket_counts)) == (3, 3)
    assert 0 < point.sum < 60
    assert 0 < point.start_time_unix_nano < point.time_unix_nano
    ((_, active, _),) = receiver.points("http.server.active_requests")
    assert active.as_int == 0
    metric = receiver.metrics[-1].resource_metrics[0].scope_metrics[0].metrics[0]
    assert (metric.unit, metric.histogram.aggregation_temporality) == ("s", 2)


def test_active_requests_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_receiver() as receiver:
        with serving(hello, monkeypatch, receiver.environment()) as url:
            httpx.get(url)
        assert receiver.points("http.server.request.duration")
        assert receiver.points("http.server.active_requests") == []


def test_rolling_restart_exports_everything(launch: Launch, receiver: Receiver) -> None:
    """Nothing is due before the end of each worker."""
    environment = receiver.environment()
    environment["OTEL_BSP_SCHEDULE_DELAY"] = environment["OTEL_METRIC_EXPORT_INTERVAL"] = "600000"
    words = ("--port", "0", "--workers", "2", "--otel", "--no-access-log")
    server = launch("supervised_apps:app", *words, extra=environment).wait_ready()
    pids = {server.get() for _ in range(20)}
    mark = len(server.lines)
    server.signal(signal.SIGHUP)
    server.wait_for(r"reloaded: ", after=mark)
    receiver.wait_spans(20)
    pids |= {server.get() for _ in range(20)}
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert len(receiver.spans) == 40
    assert {one.resource["process.pid"] for one in receiver.spans} == pids
    instances = {one.resource["service.instance.id"] for one in receiver.spans}
    assert len(instances) == len(pids)
    points = receiver.points("http.server.request.duration")
    assert sum(point.count for _, point, _ in points) == 40
    assert {resource["service.instance.id"] for _, _, resource in points} == instances


def test_stop_in_haste_waits_for_a_slow_collector(launch: Launch, receiver: Receiver) -> None:
    """Also for the span of a request that is cut only then."""

    def pause() -> None:
        threading.Event().wait(1.5)

    environment = receiver.environment(OTEL_BSP_SCHEDULE_DELAY="600000")
    words = ("--port", "0", "--otel", "--no-access-log", "--timeout-graceful-shutdown", "60")
    server = launch("supervised_apps:app", *words, extra=environment).wait_ready()
    for _ in range(5):
        server.get()
    receiver.on_message = pause
    with server.request("/endless"):
        server.wait_event("endless")
        server.signal(signal.SIGTERM)
        server.wait_for("stopping")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert [one.attributes["url.path"] for one in receiver.spans].count("/pid") == 5
    (cut,) = [one for one in receiver.spans if one.attributes["url.path"] == "/endless"]
    assert cut.attributes["error.type"] == "aborted"


@contextmanager
def secure_http_receiver(files: dict[str, str]) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"])
    original = ThreadingHTTPServer.server_activate

    def activate(server: ThreadingHTTPServer) -> None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        original(server)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadingHTTPServer, "server_activate", activate)
        with http_receiver() as receiver:
            port = receiver.endpoint.rpartition(":")[2]
            receiver.endpoint = f"https://localhost:{port}"
            yield receiver


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("is_trusted", [True, False])
def test_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str, is_trusted: bool
) -> None:
    authority = Authority()
    files = {name: str(path) for name, path in authority.issue("localhost").write(tmp_path).items()}
    if protocol == "grpc":
        key, chain = (Path(files[name]).read_bytes() for name in ("ssl_keyfile", "ssl_certfile"))
        making = grpc_receiver(grpc.ssl_server_credentials([(key, chain)]))
    else:
        making = secure_http_receiver(files)
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes((authority if is_trusted else Authority()).pem)
    with making as receiver:
        environment = receiver.environment(
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(trusted), OTEL_METRICS_EXPORTER="none"
        )
        with serving(hello, monkeypatch, environment) as url:
            httpx.get(url)
        assert len(receiver.spans) == is_trusted


def test_wrong_variable_stops_the_start(launch: Launch) -> None:
    server = launch("supervised_apps:app", "--otel", extra={"OTEL_TRACES_SAMPLER": "sometimes"})
    assert server.wait() != 0
    assert "OTEL_TRACES_SAMPLER" in server.text
    assert "parentbased_always_on" in server.text


def test_variables_from_an_env_file(launch: Launch, tmp_path: Path) -> None:
    with http_receiver() as receiver:
        file = tmp_path / "otel.env"
        file.write_text("".join(f"{k}={v}\n" for k, v in receiver.environment().items()))
        words = ("--port", "0", "--otel", "--env-file", str(file))
        server = launch("supervised_apps:app", *words).wait_ready()
        server.get()
        receiver.wait_spans(1)
