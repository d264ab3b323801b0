"""`POST` to the prefix of calls: a question to a responder, and its reply."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import framegate
from framegate.config import Config
from framegate.errors import ConfigError
from framegate.shm import unlink
from peers.h2_client import Client
from server_process import PATIENCE_SECONDS, Launch
from server_thread import Serve, Server
from topics.responders import TOPIC, Process
from topics.waiting import asleep, traced, wait_until
from topics.wire import Answer, Wire, app, ask, bearer

PATH = f"/call/{TOPIC}"
TOKEN = "caller-caller-caller"


def call(server: Server, body: bytes = b"abc", *lines: str, query: str = "") -> Answer:
    return ask(server, "POST", f"{PATH}{query}", *lines, body=body)


def send(wire: Wire, body: bytes) -> None:
    """Ask, and do not wait for the reply."""
    lines = [f"POST {PATH}?timeout=50 HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    wire.connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def test_reply_comes_back_with_what_is_said_of_it(
    serve_either: Serve, respond: Callable[..., Process]
) -> None:
    respond("echo")
    server = serve_either(app, topics="/topics")
    answer = call(server, b"hello")
    assert (answer.status, answer.body) == (200, b"olleh")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    answer = call(server, b"JPEG", "content-type: image/jpeg")
    assert (answer.body, answer.headers["content-type"]) == (b"GEPJ", "image/jpeg")
    picture = np.arange(6, dtype=np.float32).reshape(2, 3)
    fields = ("frame-dtype: float32", "frame-shape: 2, 3")
    answer = call(server, picture.tobytes(), *fields)
    assert answer.headers["frame-dtype"] == "float32"
    assert answer.headers["frame-shape"].replace(" ", "") == "2,3"
    assert (np.frombuffer(answer.body, np.float32).reshape(2, 3) == picture + 1).all()
    large = os.urandom(1 << 20)
    assert call(server, large).body == large[::-1]
    assert call(server, b"").body == b""


def test_many_calls_are_in_flight_and_each_gets_its_own_reply(
    serve_either: Serve, respond: Callable[..., Process]
) -> None:
    for _ in range(2):
        respond("echo")
    server = serve_either(app, topics="/topics", topics_wait=30.0)

    def one(number: int) -> bytes:
        return call(server, f"call {number}".encode(), query="?timeout=50").body

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(300)))
    assert answers == [f"call {number}".encode()[::-1] for number in range(300)]


def test_calls_over_http2(serve_either: Serve, respond: Callable[..., Process]) -> None:
    respond("echo")
    server = serve_either(app, topics="/topics")
    with Client(server.connect()) as client:
        streams = [
            client.request(PATH, body, method="POST", authority="localhost")
            for body in (b"abc", b"def")
        ]
        assert [client.answer(stream).body for stream in streams] == [b"cba", b"fed"]


def test_nobody_who_answers_is_503_and_no_topic_is_404(serve_either: Serve) -> None:
    server = serve_either(app, topics="/topics")
    answer = call(server)
    assert (answer.status, answer.problem["code"]) == (404, "topic-unknown")
    with framegate.Responder(TOPIC, slots=8, slot_bytes=64):
        pass
    answer = call(server)
    assert (answer.status, answer.problem["code"]) == (503, "no-responder")
    assert answer.headers["retry-after"] == "1"


def test_reply_that_is_late_is_504(serve_either: Serve, respond: Callable[..., Process]) -> None:
    responder = respond("hold")
    server = serve_either(app, topics="/topics", topics_call_timeout=0.2, topics_call_timeout_max=2)
    for query in ("?timeout=3600", "", "?timeout=0.1"):  # the first one is cut to the limit
        answer = call(server, b"slow", query=query)
        assert (answer.status, answer.problem["code"]) == (504, "reply-late"), query
        if query == "?timeout=3600":  # only there it surely has the time to take it up
            responder.wait_for("took slow")
    assert call(server, query="?timeout=soon").status == 400
    assert call(server, query="?timeout=-1").status == 400


def test_time_of_a_call_can_be_longer_than_usual(
    serve: Serve, respond: Callable[..., Process]
) -> None:
    respond("echo")
    server = serve(app, topics="/topics", topics_call_timeout=0.001)
    assert call(server, query="?timeout=50").status == 200


def test_responder_killed_in_mid_call_is_502(
    serve_either: Serve, respond: Callable[..., Process]
) -> None:
    server = serve_either(app, topics="/topics")
    responder = respond("hold")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, server, b"work", query="?timeout=50")
        responder.wait_for("took work")
        os.kill(responder.process.pid, signal.SIGKILL)
        answer = waiting.result(PATIENCE_SECONDS)
    assert (answer.status, answer.problem["code"]) == (502, "responder-died")
    respond("echo")
    assert call(server).body == b"cba"  # the topic and its slots live on


def test_responder_that_fails_is_502_and_what_it_says_is_for_the_log(
    serve_either: Serve, respond: Callable[..., Process], caplog: pytest.LogCaptureFixture
) -> None:
    respond("fail")
    server = serve_either(app, topics="/topics")
    answer = call(server)
    assert (answer.status, answer.problem["code"]) == (502, "call-failed")
    assert "/etc/secret" not in answer.body.decode()
    server.stop()
    assert "no paper in /etc/secret" in caplog.text


def test_client_that_goes_away_takes_its_request_back(serve_either: Serve) -> None:
    server = serve_either(app, topics="/topics")
    with framegate.Responder(TOPIC, slots=4, slot_bytes=64) as responder:
        for _ in range(8):  # more than there are slots
            wire = Wire(server.connect())
            send(wire, b"gone")
            request = responder.take(timeout=PATIENCE_SECONDS)
            assert request is not None and bytes(request) == b"gone"
            wire.close()
            request.release()
        done = threading.Event()

        def serve_one() -> None:
            request = responder.take(timeout=PATIENCE_SECONDS)
            assert request is not None
            with request:
                request.reply(b"here")
            done.set()

        thread = threading.Thread(target=serve_one)
        thread.start()
        assert call(server, query="?timeout=50").body == b"here"
        thread.join()
        assert done.is_set()


def test_number_of_calls_in_flight_is_limited(
    serve_either: Serve, respond: Callable[..., Process]
) -> None:
    server = serve_either(app, topics="/topics", topics_calls_max=2)
    responder = respond("hold")
    wires = [Wire(server.connect()) for _ in range(2)]
    for wire in wires:
        send(wire, b"x")
        responder.wait_for("took x")
    answer = call(server)
    assert (answer.status, answer.problem["code"]) == (503, "calls-exhausted")
    wires.pop().close()
    while call(server, query="?timeout=0.05").status != 504:  # until its place is free
        threading.Event().wait(0.01)
    wires.pop().close()


def test_request_that_is_no_frame_is_refused(serve: Serve, respond: Callable[..., Process]) -> None:
    respond("echo")
    server = serve(app, topics="/topics")
    too_large = bytes((1 << 20) + 1)
    for body, lines, status, code in [
        (too_large, (), 413, "frame-too-large"),
        (b"abc", ("frame-dtype: uint8",), 400, "frame-head"),
        (b"abc", ("frame-dtype: uint8", "frame-shape: 4"), 400, "frame-length"),
        (b"abc", ("frame-dtype: str", "frame-shape: 3"), 400, "frame-head"),
        (b"abc", ("content-encoding: gzip",), 415, "unsupported-type"),
        (b"abc", ("content-type: multipart/mixed; boundary=a",), 415, "unsupported-type"),
    ]:
        answer = call(server, body, *lines)
        assert (answer.status, answer.problem["code"]) == (status, code), lines
    for target, status in [("/call", 400), ("/call/", 400), ("/call/a..b", 400), ("/calls/a", 418)]:
        assert ask(server, "POST", target, body=b"x").status == status, target
    answer = ask(server, "GET", PATH)
    assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert ask(server, "OPTIONS", PATH).status == 204
    assert call(server).body == b"cba"


def test_calls_need_the_permission_to_call(
    serve_either: Serve, respond: Callable[..., Process]
) -> None:
    respond("echo")
    tokens = {
        "asker": {"token": TOKEN, "call": TOPIC},
        "other": {"token": TOKEN + "2", "read": "**", "publish": "**", "list": "**"},
    }
    server = serve_either(app, topics="/topics", topics_tokens=tokens)
    assert call(server, b"abc", bearer(TOKEN)).body == b"cba"
    assert call(server, b"abc", bearer(TOKEN + "2")).status == 403
    assert call(server, b"abc", "origin: http://evil.example").status == 401
    assert call(server, b"abc").status == 200  # this machine


@pytest.mark.parametrize("listener", ["main port", "topics-bind"])
def test_call_adds_one_futex_wake_and_one_wake_of_the_server(
    launch: Launch,
    runtime: Path,
    tmp_path: Path,
    respond: Callable[..., Process],
    listener: str,
) -> None:
    """No thread of the server wakes another one, and the responder wakes one of them once."""
    calls = 100
    asks, answers = tmp_path / "server", tmp_path / "responder"
    responder = respond("wait", TOPIC, traced(answers))
    words = ("--topics", "/topics", "--topics-bind", "127.0.0.1:0", "--port", "0")
    extra = {"FRAMEGATE_RUNTIME_DIR": str(runtime)}
    server = launch(
        "topics.blocking_app:app", *words, "--no-access-log", extra=extra, through=traced(asks)
    ).wait_ready()
    port = server.port
    if listener == "topics-bind":
        port = int(server.wait_for(r"topics: http://127\.0\.0\.1:(\d+)")[1])
    wire = Wire(socket.create_connection(("127.0.0.1", port)))

    def one() -> bytes:
        # Who is awake yet, as after the call before on a busy machine, needs no waking.
        wait_until(lambda: asleep(responder.process.pid))
        send(wire, b"abc")
        responder.wait_for("took")
        wait_until(lambda: asleep(server.pid))
        responder.tell()
        return wire.answer().body

    for _ in range(5):  # the first one opens files
        assert one() == b"cba"
    begun = time.monotonic()
    wire.ask("GET", "/topics/begin")
    for _ in range(calls):
        assert one() == b"cba"
    wire.ask("GET", "/topics/end")
    # Timers and the heartbeat: seen with 9 waits and 4 writes a second while nobody asks.
    of_timers = 10 * (time.monotonic() - begun)
    wire.close()
    server.stop()
    responder.process.terminate()
    responder.process.wait(PATIENCE_SECONDS)
    lines = asks.read_text().splitlines()
    begin, end = (
        next(at for at, line in enumerate(lines) if f'"GET /topics/{word} ' in line)
        for word in ("begin", "end")
    )
    done = [line.split(maxsplit=1)[1] for line in lines[begin:end]]

    def count(name: str, word: str = "") -> int:
        return sum(call.startswith(f"{name}(") and word in call for call in done)

    assert count("sendto", '"HTTP/1.1 200') == calls
    assert calls / 2 < count("futex", "FUTEX_WAKE, ") <= calls
    # For the request and for its reply.
    assert count("epoll_wait") <= 2 * calls + 20 + of_timers
    assert count("futex", "FUTEX_WAKE_PRIVATE") + count("write") < calls / 2 + of_timers
    rings = [line for line in answers.read_text().splitlines() if " sendto(" in line]
    assert calls / 2 < len(rings) <= calls + 5


def test_prefix_of_calls_can_be_another_or_none(
    serve: Serve, respond: Callable[..., Process]
) -> None:
    respond("echo")
    server = serve(app, topics="/frames", topics_calls="/ask")
    assert ask(server, "POST", f"/ask/{TOPIC}", body=b"abc").body == b"cba"
    assert call(server).status == 418
    assert call(serve(app, topics="/topics", topics_calls="")).status == 418
    assert call(serve(app)).status == 418
    with pytest.raises(ConfigError, match="are both /a"):
        Config(topics="/a", topics_calls="/a")


def test_topic_that_was_made_anew_is_asked_anew(
    serve: Serve, respond: Callable[..., Process], runtime: Path
) -> None:
    server = serve(app, topics="/topics")
    first = respond("echo")
    assert call(server).body == b"cba"
    first.kill()
    unlink(TOPIC)
    assert call(server).status == 404
    respond("echo")
    assert call(server).body == b"cba"
